"""Tables over many runs: ``analysis.load("runs").table("sites")``."""

from analysis.load import Runs, load

__all__ = ["Runs", "load"]
