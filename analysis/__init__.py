"""Tables over many runs, and what they say: ``runs = analysis.load("runs")``, then ``analysis.sizes.sizes(runs)``.

    runs = analysis.load("runs")     # every run below a folder
    analysis.overview(runs)          # one row per run
    runs.table("claims")             # one table over all of them
    analysis.claims.claims_figure(analysis.claims.claims(runs))

Each module is a command too: ``python -m analysis.summary runs/``. Installed from a wheel it is called
``bridges.analysis``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .load import Runs, load
from .overview import overview

# The commands. They import matplotlib, so they are imported when first asked for.
MODULES = ("claims", "compare", "frontier", "heatmap", "seeds", "sizes", "summary", "training")

__all__ = ["MODULES", "Runs", "load", "overview"]


def __getattr__(name: str) -> ModuleType:
    if name in (*MODULES, "command", "settings", "stability", "verdicts"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})
