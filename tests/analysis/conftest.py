"""Synthetic run folders: every number in them is chosen, so that what an analysis says of them is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bridges.storage.tables import TABLES, write_table

BLANK = {"int": 0, "float": np.nan, "str": "", "bool": False}


def filled(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows with whatever else the table needs."""
    columns = TABLES[table].columns
    blank = {c.name: c.choices[0] if c.choices else BLANK[c.kind] for c in columns if not c.optional}
    return pd.DataFrame([blank | row for row in rows], columns=None if rows else list(blank))


def _circuit(name: str, model: str, edges: int, reached: bool, **more: Any) -> dict[str, Any]:
    shared = {"behaviour": name, "model": model, "method": "learned", "target": 0.15, "heldout_accuracy": 0.9}
    shared |= {"objective": "faithful", "heldout_fvu": 0.1}
    return shared | {"nodes": edges + 1, "edges": edges, "reached": reached} | more


def _write_run(
    folder: Path,
    *,
    sparsity: float = 0.1,
    seed: int = 0,
    width: int = 64,
    kl: float = 1.0,
    verdicts: dict[str, str] | None = None,
    accuracy: dict[str, float] | None = None,
    moved: dict[str, float] | None = None,
    sparse: dict[str, int | None] | None = None,
    dense: dict[str, int | None] | None = None,
    robust: tuple[str, ...] = (),
    status: str = "finished",
    started: str | None = None,
    command: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    circuit_rows: list[dict[str, Any]] | None = None,
) -> Path:
    """One run: KL ``kl`` of the sparse model, twice that d→s, three times s→d; a table only where something is given.

    ``sparse`` and ``dense`` are the edges of each behaviour's circuit, negative where the target was not reached;
    ``robust`` names the reproduced behaviours whose robustness criteria all held; ``command`` is what the run was begun
    with.
    """
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "sparsity": sparsity,
        "name": folder.name,
        "model": {"name": "org/tiny", "label": "tiny"},
        "data": {"source": "python"},
        "behaviours": {"suite": "python", "path": None},
        "sparse": {"d_model": None, "n_layer": 2},
    }
    for key, value in (settings or {}).items():
        *above, last = key.split(".")
        place = config
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(json.dumps({"status": status, "stages": {}, "started": started}))
    if command is not None:
        (folder / "environment.json").write_text(json.dumps({"command": command}))
    paths = [
        {"bridges": "none", "path": "D", "kind": "pure_dense", "ce": 2.0, "kl": 0.0},
        {"bridges": "none", "path": "S", "kind": "pure_sparse", "ce": 2.0 + kl, "kl": kl},
        {"bridges": "trained", "path": "D0-S1", "kind": "single_d2s", "kl": 2 * kl},
        {"bridges": "trained", "path": "S0-D1", "kind": "single_s2d", "kl": 3 * kl},
        {"bridges": "untrained", "path": "D0-S1", "kind": "single_d2s", "kl": 9.0},
    ]
    write_table(folder, "paths", filled("paths", [row | {"split": "test"} for row in paths]))
    matrices = [
        {"matrix": "tokens.weight", "rows": 100, "columns": width, "numel": 100 * width},
        {"matrix": "head.weight", "rows": 100, "columns": width, "numel": 100 * width},
    ]
    weights = [row | {"nonzeros": round(sparsity * 100 * width), "fraction": sparsity} for row in matrices]
    write_table(folder, "sparsity", filled("sparsity", weights))
    if accuracy is not None:
        rows = [
            {"behaviour": name, "model": model, "split": split, "accuracy": value + shift}
            for name, value in accuracy.items()
            for model, split, shift in (("sparse", "heldout", 0), ("sparse", "train", 0.5), ("dense", "heldout", 0.5))
        ]
        write_table(folder, "behaviours", filled("behaviours", rows))
    if verdicts is not None:
        rows = [
            {"behaviour": name, "verdict": verdict, "share_moved": (moved or {}).get(name, np.nan)}
            | {"robust": name in robust if verdict == "reproduced" else None, "reason": f"because of {name}"}
            for name, verdict in verdicts.items()
        ]
        write_table(folder, "verdicts", filled("verdicts", rows))
    circuits = [
        _circuit(name, model, abs(edges), edges >= 0, seed=seed)
        for model, sides in (("sparse", sparse), ("dense", dense))
        for name, edges in (sides or {}).items()
    ]
    if circuits or circuit_rows is not None:
        extra = [_circuit(**{"seed": seed, "reached": True} | row) for row in circuit_rows or []]
        write_table(folder, "circuits", filled("circuits", circuits + extra))
    return folder


@pytest.fixture
def write_run() -> Callable[..., Path]:
    """Write one synthetic run."""
    return _write_run


@pytest.fixture
def write_rows() -> Callable[[Path, str, list[dict[str, Any]]], Path]:
    """Write a table of a run from rows that give only what matters."""
    return lambda folder, table, rows: write_table(folder, table, filled(table, rows))
