"""A run on a small planted world: two models whose circuits are known, and bridges that are exact."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from bridges.bridge import Bridges, pair_sites
from bridges.compare.verdict import decide
from bridges.config import (
    BehavioursConfig,
    CircuitsConfig,
    CompareConfig,
    Config,
    ControlsConfig,
    EvalConfig,
    TrainConfig,
)
from bridges.data.blocks import TokenBlocks
from bridges.planted import Rotated, World, plant
from bridges.runs.circuits import BehaviourWork
from bridges.runs.context import RunContext
from bridges.sparse import SparseTransformer
from bridges.storage.folder import RunFolder
from bridges.storage.tables import write_table

# What decides a planted behaviour, so that no control but those of the claims is needed.
FEW = ["necessity", "consistent_labels", "reach"]


def settings(**circuits: Any) -> Config:
    values = {"max_node_fraction": 0.4, "steps": 60, "pairs": 32, "batch": 16, "prune_attempts": 12, "workers": 1}
    values |= {"reference_tokens": 4096, "activation_tokens": 256, "top_activations": 2}
    controls = ControlsConfig(names=FEW, random_sets=40, pairs=24, draws=1)
    return Config(
        sparsity=0.15,
        kernels="python",
        train=TrainConfig(precision="fp32"),
        eval=EvalConfig(bootstrap=50),
        behaviours=BehavioursConfig(suite="planted", pairs=48, hybrid_pairs=8),
        circuits=CircuitsConfig(**({"controls": controls} | values | circuits)),
        compare=CompareConfig(pairs=32, train_pairs=24, draws=2, bootstrap=300, text_tokens=512, similarity_tokens=512),
    )


def turned_bridges(dense: Rotated, sparse: SparseTransformer) -> Bridges:
    """Bridges that are exact, where the dense stack is the sparse one in another basis."""
    bridges = Bridges(dense.d_model, sparse.d_model, pair_sites(dense.n_sublayers, sparse.n_sublayers), None)
    for bridge in bridges.requires_grad_(False):
        bridge.decoder.weight.copy_(dense.rotation.T)
        bridge.encoder.weight.copy_(dense.rotation)
    return bridges


def exact_bridges(world: World) -> Bridges:
    return turned_bridges(world.dense, world.sparse)


@pytest.fixture(scope="session")
def world() -> World:
    return plant(0, ("copy", "select"), ("select",), n_layer=2, d_model=32, d_mlp=32)


@pytest.fixture(scope="session")
def context_in(world: World) -> Callable[..., RunContext]:
    """``context_in(folder, sparse=None, bridges=None, **settings of circuits)``: a run before its measurements."""

    def make(
        folder: Path, sparse: SparseTransformer | None = None, bridges: Bridges | None = None, **circuits: Any
    ) -> RunContext:
        return context_of(world, settings(**circuits), folder, sparse, bridges)

    return make


def context_of(
    world: World,
    config: Config,
    folder: Path,
    sparse: SparseTransformer | None = None,
    bridges: Bridges | None = None,
    documents: int = 256,
) -> RunContext:
    """A run on a world before its measurements; the world's own sparse model and exact bridges unless others are
    given."""
    ids = world.text(documents).numpy().astype(np.int32)
    half = documents // 2
    parts = {"train": ids, "validation": ids[: documents // 32], "test": ids[half : half + max(32, documents // 8)]}
    return RunContext(
        config,
        RunFolder.create(config, folder),
        Accelerator(cpu=True),
        world.dense,  # type: ignore[arg-type]
        TokenBlocks(parts, {"train": documents}, "planted"),
        sparse or copy.deepcopy(world.sparse),
        bridges or exact_bridges(world),
        world.tokenizer,
        None,  # type: ignore[arg-type]
        lambda text: None,
        {"behaviours": dict(world.behaviours)},
    )


def judged(
    context: RunContext,
    name: str = "copy",
    dense: float = 1.0,
    sparse: float = 1.0,
    able: Sequence[str] = ("dense", "sparse"),
) -> pd.Series:
    """Verdict, ``states`` of claims and ``tables`` of one behaviour.

    Args:
        dense, sparse: accuracies of the whole models. able: those in which circuits are searched for.
    """
    folder = context.folder.path
    count = context.config.behaviours.pairs
    suite = {"behaviour": name, "suite": "planted", "description": "d", "expressible": True, "train_pairs": count}
    suite |= {"heldout_pairs": count, "reach_pairs": 48, "shared_last": 1.0}
    write_table(folder, "suite", pd.DataFrame([suite]))
    rows = []
    for model, accuracy in (("dense", dense), ("sparse", sparse)):
        row = {"behaviour": name, "split": "heldout", "model": model, "n_pairs": count, "seed": 0}
        for key in ("loss", "accuracy", "logit_difference"):
            row |= {key: accuracy, f"{key}_low": accuracy, f"{key}_high": accuracy}
        rows.append(row)
    write_table(folder, "behaviours", pd.DataFrame(rows).assign(bridge=pd.array([None, None], "Int64")))
    work = BehaviourWork(context, name, able)
    with torch.no_grad():
        work.run()
    tables = work.tables()
    claims, verdicts = decide(tables, context.config.verdict)
    row = verdicts.iloc[0]
    row["states"] = dict(zip(claims["criterion"], claims["state"], strict=True))
    row["tables"] = tables
    return row
