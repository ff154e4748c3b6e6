"""What all unit tests share: how hypothesis searches."""

from hypothesis import settings

# No deadline: a busy machine is no failure.
settings.register_profile("unit", deadline=None, max_examples=60, database=None)
settings.load_profile("unit")
