"""A run on a small planted world: two models whose circuits are known, and bridges that are exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
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
from bridges.planted import World, plant
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


def exact_bridges(world: World) -> Bridges:
    pairs = pair_sites(world.dense.n_sublayers, world.sparse.n_sublayers)
    bridges = Bridges(world.dense.d_model, world.sparse.d_model, pairs, None)
    for bridge in bridges.requires_grad_(False):
        bridge.decoder.weight.copy_(world.dense.rotation.T)
        bridge.encoder.weight.copy_(world.dense.rotation)
    return bridges


@pytest.fixture(scope="session")
def world() -> World:
    return plant(0, ("copy", "select"), ("select",), n_layer=2, d_model=32, d_mlp=32)


@pytest.fixture(scope="session")
def context_in(world: World) -> Callable[..., RunContext]:
    """``context_in(folder, sparse=None, bridges=None, **settings of circuits)``: a run before its measurements."""

    def make(
        folder: Path, sparse: SparseTransformer | None = None, bridges: Bridges | None = None, **circuits: Any
    ) -> RunContext:
        ids = world.text(256).numpy().astype(np.int32)
        data = TokenBlocks({"train": ids, "validation": ids[:8], "test": ids[128:160]}, {"train": 256}, "planted")
        config = settings(**circuits)
        return RunContext(
            config,
            RunFolder.create(config, folder),
            Accelerator(cpu=True),
            world.dense,  # type: ignore[arg-type]
            data,
            sparse or copy.deepcopy(world.sparse),
            bridges or exact_bridges(world),
            world.tokenizer,
            None,  # type: ignore[arg-type]
            lambda text: None,
            {"behaviours": dict(world.behaviours)},
        )

    return make


def judged(context: RunContext, name: str = "copy", dense: float = 1.0, sparse: float = 1.0) -> pd.Series:
    """Verdict, ``states`` of claims and ``tables`` of one behaviour.

    Args:
        dense, sparse: accuracies of the whole models.
    """
    folder = context.folder.path
    suite = {"behaviour": name, "suite": "planted", "description": "d", "expressible": True, "train_pairs": 48}
    suite |= {"heldout_pairs": 48, "reach_pairs": 48, "shared_last": 1.0}
    write_table(folder, "suite", pd.DataFrame([suite]))
    rows = []
    for model, accuracy in (("dense", dense), ("sparse", sparse)):
        row = {"behaviour": name, "split": "heldout", "model": model, "n_pairs": 48, "seed": 0}
        for key in ("loss", "accuracy", "logit_difference"):
            row |= {key: accuracy, f"{key}_low": accuracy, f"{key}_high": accuracy}
        rows.append(row)
    write_table(folder, "behaviours", pd.DataFrame(rows).assign(bridge=pd.array([None, None], "Int64")))
    work = BehaviourWork(context, name, ["dense", "sparse"])
    with torch.no_grad():
        work.run()
    tables = work.tables()
    claims, verdicts = decide(tables, context.config.verdict)
    row = verdicts.iloc[0]
    row["states"] = dict(zip(claims["criterion"], claims["state"], strict=True))
    row["tables"] = tables
    return row
