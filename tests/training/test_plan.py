"""The plan's numbers are those of models that are really built, and what does not fit is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bridges.config import Config, SparseConfig, TrainConfig
from bridges.errors import MemoryBudgetError
from bridges.sparse import Projector, SparseTransformer
from bridges.training.plan import GIB, Plan, available_memory, check_memory, duration, estimate

CPU = torch.device("cpu")


def _plan(pair, config: Config, precision: str = "fp32", processes: int = 1) -> Plan:
    return estimate(config, pair.dense, pair.sparse.config, len(pair.bridges), 8, precision, processes, CPU)


@pytest.mark.parametrize(
    ("sparsity", "options"),
    [
        (0.05, {}),
        (0.3, {"bigram": "low_rank", "position": "concat", "bias": False, "attention_sink": False}),
        (0.001, {"bigram": "none", "position": "learned", "norm_gain": True, "n_head": 3, "n_layer": 1}),
        (1.0, {"d_mlp": 7}),
    ],
)
def test_counts_are_those_of_built_models(make_pair, sparsity, options):
    pair = make_pair(**options)
    plan = _plan(pair, Config(sparsity=sparsity, train=TrainConfig(tokens=1000, batch=4)))
    built = SparseTransformer(pair.sparse.config)
    assert plan.sparse_parameters == sum(p.numel() for p in built.parameters())
    assert plan.dense_parameters == sum(p.numel() for p in pair.dense.parameters())
    assert plan.bridge_parameters == sum(p.numel() for p in pair.bridges.parameters())
    assert plan.n_bridges == len(pair.bridges)
    matrices = pair.sparse.sparse_matrices()
    assert plan.covered_weights == sum(p.numel() for p in matrices.values())
    Projector(matrices).project(sparsity)
    assert plan.nonzeros == sum(int(p.count_nonzero()) for p in matrices.values())
    # 1000 tokens in batches of 32 are 31.25 steps.
    assert (plan.steps, plan.tokens) == (32, 1024)
    assert plan.precision == "fp32" and plan.available > 0


@pytest.mark.parametrize(("sites", "crossed"), [("all", 5), ("1", 1), ("3", 3), ("9", 5)])
def test_crossings_are_those_asked_for(tiny_pair, sites, crossed):
    assert _plan(tiny_pair, Config(train=TrainConfig(hybrid_sites=sites))).crossings == crossed


def test_states_are_weight_gradient_and_two_moments_of_what_is_trained(make_pair):
    pair = make_pair()
    dense = 4 * sum(p.numel() for p in pair.dense.parameters())
    bridges = sum(p.numel() for p in pair.bridges.parameters())
    table, sparse = 29 * 29, sum(p.numel() for p in pair.sparse.parameters())
    frozen = _plan(pair, Config(sparse=SparseConfig(train_bigram=False)))
    assert frozen.states == 16 * (sparse - table + bridges) + 4 * table + dense
    assert _plan(pair, Config(sparse=SparseConfig(train_bigram=True))).states == 16 * (sparse + bridges) + dense


def test_shards_take_less_the_more_processes_there_are(make_pair):
    pair, config = make_pair(n_layer=8, d_mlp=64), Config(train=TrainConfig(batch=8))
    frozen = 4 * sum(p.numel() for p in pair.dense.parameters())

    def states(processes: int, sharded: bool = True) -> int:
        args = (len(pair.bridges), 8, "fp32", processes, CPU)
        return estimate(config, pair.dense, pair.sparse.config, *args, sharded=sharded).states

    # What DDP keeps is the same in every process.
    assert states(2, sharded=False) == states(4, sharded=False) == _plan(pair, config).states
    assert states(8) < states(4) < states(2) < states(2, sharded=False)
    # The frozen model is whole everywhere.
    assert states(8) > frozen


def test_memory_falls_with_what_the_advice_names(tiny_pair):
    def activations(**train) -> int:
        return _plan(tiny_pair, Config(train=TrainConfig(batch=8, **train))).activations

    assert activations(accumulate=4) < activations(accumulate=2) < activations()
    assert activations(hybrid_sites="1") < activations(hybrid_sites="3") < activations()
    config = Config(train=TrainConfig(batch=8))
    assert _plan(tiny_pair, config, processes=2).activations == activations(accumulate=2)
    assert _plan(tiny_pair, config, "bf16").activations < activations()
    assert _plan(tiny_pair, config).memory == _plan(tiny_pair, config).states + activations()


def _sized(states: float, activations: float, available: float) -> Plan:
    return Plan(
        dense_parameters=1,
        sparse_parameters=1,
        covered_weights=1000,
        nonzeros=50,
        bridge_parameters=1,
        n_bridges=5,
        crossings=5,
        steps=10,
        tokens=100,
        precision="fp32",
        states=int(states * GIB),
        activations=int(activations * GIB),
        available=int(available * GIB),
    )


def test_what_cannot_fit_is_refused_with_advice():
    with pytest.raises(MemoryBudgetError, match=r"9\.0 GiB.*3\.0 GiB for weights.*8\.9 GiB are.*Lower train\.batch"):
        check_memory(_sized(3, 6, 8.9))
    with pytest.raises(MemoryBudgetError, match=r"Lower sparse\.d_model.*train\.hybrid_sites=1.*instead of 5"):
        check_memory(_sized(6, 3, 1))
    check_memory(_sized(6, 3, 9))


def test_a_plan_for_little_memory_is_refused(tiny_pair):
    plan = _plan(tiny_pair, Config())
    check_memory(plan)
    with pytest.raises(MemoryBudgetError):
        check_memory(dataclasses.replace(plan, available=plan.memory - 1))


def test_text_of_a_plan():
    plan = _sized(3, 6, 8)
    assert "50 stay (5.000%)" in plan.text() and "9.0 GiB at the peak, about; 8.0 GiB are free" in plan.text()
    assert "100 tokens in 10 steps, fp32" in plan.text() and "5 crossed per step" in plan.text()
    assert "time" not in plan.text()
    plan.seconds_per_step = 9.0
    assert "1 min 30 s about for training, 9.00 s a step" in plan.text()
    plan.done = 4
    assert "54 s about for training, 9.00 s a step" in plan.text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (60, "1 min 0 s"),
        (95, "1 min 35 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (5400, "1 h 30 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_free_memory_of_the_machine():
    assert 1 << 20 < available_memory(CPU) < 1 << 50
