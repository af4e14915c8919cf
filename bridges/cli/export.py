"""A finished run's pair of sparse model and bridges in a folder small enough to share.

    python -m bridges export runs/<folder> <target>

Sparse weights are written as what is not zero, everything in half precision. ``sparse.init=<target>`` starts from it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bridges.bridge import Bridges
from bridges.errors import BridgesError, CheckpointError
from bridges.runs.initialise import INITS
from bridges.runs.summary import headline, summary_text
from bridges.sparse import load_sparse
from bridges.sparse.packed import save_packed
from bridges.storage.folder import RunFolder, make_folder
from bridges.storage.tables import read_table


def export(run: str | Path, target: str | Path) -> Path:
    """Write ``model/`` and ``bridges/`` of a finished run to ``target``, with a card of what it measured.

    Raises:
        CheckpointError: the run has not finished, or its files are damaged.
        ConfigError: the target cannot be made.
    """
    folder, target = RunFolder(run), Path(target)
    _ = folder.config  # a folder that is no run says so
    if not folder.done("evaluate"):
        raise CheckpointError(f"{run} is not finished; go on with resume={run}.")
    sparse = load_sparse(folder.model)
    make_folder(target, "the second argument")
    sparse.config.architectures = ["SparseTransformer"]
    sparse.config.save_pretrained(target / "model")
    # A frozen table of counts makes most of the size; the rest is a few nonzeros.
    save_packed(sparse.state_dict(), target / "model")
    Bridges.from_pretrained(folder.bridges).save_pretrained(target / "bridges")
    weights = target / "bridges" / "bridges.safetensors"
    state = load_file(weights)
    save_file({k: v.half() if v.numel() > 1 else v for k, v in state.items()}, weights)
    shutil.copy(folder.path / "config.yaml", target / "config.yaml")
    for name in ("training", "sites", "paths", "sparsity", "suite", "behaviours"):
        table = folder.path / "tables" / f"{name}.parquet"
        if table.exists():
            (target / "tables").mkdir(exist_ok=True)
            shutil.copy(table, target / "tables" / table.name)
    (target / "README.md").write_text(_card(folder))
    return target


def _card(folder: RunFolder) -> str:
    config, figures = folder.config, headline(folder)
    # What was trained, where a training was stopped before its plan.
    tokens = int(read_table(folder.path, "training")["tokens"].iloc[-1])
    lines = [f"- {name}: {value:.4g}" for name, value in figures.items()]
    # A pair's own settings say nothing of the one it went on from.
    before = "" if config.sparse.init in INITS else f", going on from the pair in {config.sparse.init}"
    return "\n".join(
        [
            f"# Sparse model and bridges for {config.model.label}",
            "",
            f"Trained on {tokens:,} tokens to a sparsity of {config.sparsity:g} (fraction of nonzero "
            f"weights), seed {config.seed}, beside the frozen dense model{before}; weights are rounded to fp16. "
            "`config.yaml` holds every setting, `tables/` what was measured on held-out documents before rounding.",
            "",
            *lines,
            "",
            "```",
            summary_text(folder),
            "```",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Two arguments: the run's folder and the target."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2:
        sys.exit("usage: python -m bridges export runs/<folder> <target>")
    try:
        torch.set_num_threads(1)
        target = export(*arguments)
    except BridgesError as error:
        sys.exit(f"error: {error}")
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"{target}: {size / 2**20:.1f} MiB")
