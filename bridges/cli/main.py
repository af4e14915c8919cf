"""``bridges <command> …``: finds the command and hands the rest of the line over."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from bridges.cli.allocator import tune_allocator
from bridges.errors import nearest

# Command: module with a ``main(arguments)``, what it does, and whether it computes enough for the allocator to matter.
COMMANDS: dict[str, tuple[str, str, bool]] = {
    "run": ("bridges.cli.run", "train bridges, search circuits, give verdicts (Hydra settings)", True),
    "report": ("bridges.cli.report", "write the report of finished or broken runs again", False),
    "compare": ("analysis.compare", "compare two runs with paired tests", False),
    "bench": ("bridges.cli.bench", "speed of one training step against a plain implementation", True),
    "export": ("bridges.cli.export", "pack a run's sparse model and bridges", False),
    "push": ("bridges.interop.push", "upload a run to the Hugging Face Hub", False),
    "tune": ("bridges.tuning.training", "look for better settings of training with Optuna", True),
    "tune-circuits": ("bridges.tuning.circuits.command", "look for better settings of the circuit search", True),
    "pretrain": ("bridges.cli.pretrain", "train the bundled dense model", True),
}


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:<14} {what}" for name, (_, what, _) in COMMANDS.items()]
    return "\n".join(["usage: bridges <command> [arguments]", "", *lines, "", "`bridges <command> --help` tells more."])


def analysis_module(name: str) -> ModuleType:
    """A module of the package ``analysis``: inside this package in a wheel, beside it in a checkout.

    It is found by its place, not by its name, which a folder of the user's may have too.

    Args:
        name: such as ``analysis.compare``.
    """
    package = Path(__file__).resolve().parent.parent
    if (package / "analysis" / "__init__.py").is_file():
        return import_module(f"bridges.{name}")
    place = package.parent / "analysis" / "__init__.py"
    loaded = sys.modules.get("analysis")
    if loaded is None or Path(loaded.__file__ or "").resolve() != place:
        spec = spec_from_file_location("analysis", place, submodule_search_locations=[str(place.parent)])
        assert spec is not None and spec.loader is not None
        for other in [m for m in sys.modules if m.split(".")[0] == "analysis"]:
            del sys.modules[other]
        sys.modules["analysis"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["analysis"])
    return import_module(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: the command's name; with it come the arguments of the process that this does not name. None: all of
            the process's.
    """
    given = sys.argv[1:] if arguments is None else [*arguments, *sys.argv[1:]]
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if given else 2)
    name, *rest = given
    if name not in COMMANDS:
        sys.exit(f"error: there is no command {name!r}. {nearest(name, COMMANDS)}")
    module, _, computes = COMMANDS[name]
    if computes and not {"-h", "--help"} & set(rest):
        # Before torch is imported: it replaces the process.
        tune_allocator()
    command = analysis_module(module) if module.startswith("analysis.") else import_module(module)
    # Hydra and argparse read the process's own arguments.
    sys.argv = [f"bridges {name}", *rest]
    sys.exit(command.main())
