"""Studies of hand-made networks."""

from study_toys import make_study

__all__ = ["make_study"]
