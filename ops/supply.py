"""The packages of the programs: an SBOM of each program, and known vulnerabilities.

make sbom     write sbom/chatserver.cdx.json and sbom/chatclient.cdx.json (CycloneDX)
make audit    look up the pinned packages; exit code 1 if one is vulnerable, 2 if that can't be looked up
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
SBOMS = TOP / "sbom"
# The tools are installed beside the interpreter that runs this script.
_BIN = Path(sys.executable).parent
_PROGRAMS = ("server", "client")
_EXIT_VULNERABLE = 1
_EXIT_UNKNOWN = 2


def main() -> int:
    """Run the command: ``sbom`` or ``audit``."""
    return write_sboms() if sys.argv[1:] == ["sbom"] else audit()


def write_sboms() -> int:
    """Install the pinned packages of each program into an empty environment, and list what is in it."""
    SBOMS.mkdir(exist_ok=True)
    for program in _PROGRAMS:
        service = TOP / "services" / program
        path = SBOMS / f"chat{program}.cdx.json"
        with tempfile.TemporaryDirectory(prefix="sbom-") as folder:
            venv.create(folder, with_pip=False)
            python = Path(folder) / "bin" / "python"
            install = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
            _run("pip", "--python", python, *install, "-r", service / "requirements.txt")
            listing: list[str | Path] = [
                "--pyproject",
                service / "pyproject.toml",
                "--output-reproducible",
                "--output-format",
                "JSON",
            ]
            text = _run("cyclonedx-py", "environment", python, *listing).stdout
        path.write_text(json.dumps(_without_references(json.loads(text)), indent=1, sort_keys=True) + "\n")
        print(f"Wrote {path.relative_to(TOP)}")
    return 0


def _without_references(part: Any) -> Any:
    """The part without web addresses: those of projects change, and others name the registry that was used."""
    if isinstance(part, dict):
        return {name: _without_references(each) for name, each in part.items() if name != "externalReferences"}
    return [_without_references(each) for each in part] if isinstance(part, list) else part


def audit() -> int:
    """Print the known vulnerabilities."""
    vulnerable, unknown = [], []
    for program in _PROGRAMS:
        requirements = TOP / "services" / program / "requirements.txt"
        done = _run(
            "pip-audit", "--disable-pip", "--require-hashes", "--format", "json", "-r", requirements, check=False
        )
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:
            reason = done.stderr.strip().splitlines()[-1:] or ["pip-audit says nothing"]
            unknown.append(f"chat{program}: {reason[0]}")
            continue
        unknown += [f"{each['name']}: {each['skip_reason']}" for each in packages if "skip_reason" in each]
        vulnerable += [
            f"{each['name']} {each['version']}: {found['id']}, fixed in {found['fix_versions'] or 'no version'}"
            for each in packages
            for found in each.get("vulns", ())
        ]
    for line in dict.fromkeys(vulnerable):
        print(line)
    if unknown:
        print(
            f"{len(dict.fromkeys(unknown))} packages were not audited, because the data about vulnerabilities can't be "
            f"had here. The first: {unknown[0]}",
            file=sys.stderr,
        )
    if vulnerable:
        return _EXIT_VULNERABLE
    if unknown:
        return _EXIT_UNKNOWN
    print("No package has a known vulnerability.")
    return 0


def _run(tool: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_BIN / tool, *arguments],
        check=check,
        stdout=subprocess.PIPE,
        stderr=None if check else subprocess.PIPE,
        text=True,
    )
