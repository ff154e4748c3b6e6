"""The program sopel, which root may run as well: a machine of CI has no other user."""

import sys

from sopel.cli import run

run.check_not_root = lambda: None
sys.exit(run.main())
