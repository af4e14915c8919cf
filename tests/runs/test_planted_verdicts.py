"""Verdicts on worlds whose circuits are known, under the default settings of search and verdict.

    pytest -m slow -s tests/runs/test_planted_verdicts.py

takes some minutes a world. The worlds are hard: AbsTopK, attention sinks and a bigram table, and a behaviour that the
dense model does by another route than the sparse one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bridges.behaviours import two_way
from bridges.config import BehavioursConfig, CircuitsConfig, Config, ControlsConfig, TrainConfig
from bridges.planted import plant, world_named

from .conftest import context_in, context_of, judged  # noqa: F401

SEEDS = range(4)
WIDE = {"n_layer": 2, "d_model": 144, "d_mlp": 96}


def test_another_route_to_the_same_answers_is_not_reproduced(tmp_path, context_in):  # noqa: F811
    """Both models do it, the sparse one's circuit is found, and nothing of it moves the dense model."""
    world = plant(0, ("agree", "copy"), other_route=("agree",), **WIDE)
    for model in (world.dense, world.sparse):
        assert two_way(model.logits, world.pairs("agree", "heldout", 64))["correct"].mean() > 0.98
    quick = context_in(tmp_path / "quick").config
    row = judged(context_of(world, quick, tmp_path / "route"), "agree")
    assert row["verdict"] in ("not", "partial"), (row["verdict"], row["reason"])
    assert row["states"]["fvu"] == "held" and row["states"]["share_to_dense"] == "missed", row["states"]


@pytest.mark.slow
def test_hard_worlds(tmp_path: Path) -> None:
    """Of what both models do alike nine in ten are reproduced and the rest undecided; of all else nothing is."""
    found = []
    for seed in SEEDS:
        world = world_named(f"planted:{seed}:hard")
        for name, truth in world.truth.items():
            accuracy = {
                key: float(two_way(stack.logits, world.pairs(name, "heldout", 64))["correct"].mean())
                for key, stack in (("dense", world.dense), ("sparse", world.sparse))
            }
            alike = truth["in_sparse"] and name != "agree"
            controls = ControlsConfig(names=["necessity", "consistent_labels", "reach"], random_sets=200)
            config = Config(
                seed=seed,
                sparsity=0.15,
                train=TrainConfig(precision="fp32"),
                behaviours=BehavioursConfig(suite="planted", pairs=128),
                circuits=CircuitsConfig(controls=controls, workers=1),
            )
            able = [model for model, share in accuracy.items() if share >= 0.9]
            context = context_of(world, config, tmp_path / f"{seed}-{name}", documents=1024)
            row = judged(context, name, **accuracy, able=able)
            planted = sum(map(len, truth["nodes"].values()))
            print(f"{seed} {name}: {row['verdict']}, {row['nodes']} nodes of {planted}; {row['reason']}", flush=True)
            found.append((alike, row["verdict"]))
    right = [verdict == "reproduced" for alike, verdict in found if alike]
    false = [verdict == "reproduced" for alike, verdict in found if not alike]
    print(f"reproduced: {sum(right)} of {len(right)} that are alike, {sum(false)} of {len(false)} that are not")
    assert {verdict for alike, verdict in found if alike} <= {"reproduced", "undecided"}
    assert sum(right) >= 0.9 * len(right) and not any(false)
