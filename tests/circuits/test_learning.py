"""Learned pruning: how the penalty follows the loss, where it stops, and what it begins with."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bridges.behaviours import shuffled_labels
from bridges.circuits.ablation import Ablation, node_means
from bridges.circuits.search import learning
from bridges.circuits.search.gates import Gates
from bridges.circuits.search.learning import learn_gates
from bridges.circuits.search.objective import TaskLoss
from bridges.circuits.search.search import Search, find_circuit
from bridges.circuits.task import logit_diff, prompts, task_loss
from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError

from .conftest import QUOTE_CIRCUIT, nodes_of, published, quote_pairs


@pytest.fixture
def reference(quote_model, quote_text):
    return node_means(quote_model, quote_text)


@pytest.mark.parametrize("penalty", [1e-6, 1e-2])
def test_the_penalty_follows_the_loss_whatever_it_starts_from(quote_model, reference, penalty):
    circuit = find_circuit(quote_model, quote_pairs(128, 0), reference, published(penalty=penalty))
    assert circuit.reached and nodes_of(circuit) == QUOTE_CIRCUIT


def test_a_fixed_penalty_that_is_too_high_closes_everything(quote_model, reference):
    """The published rule, which the moving penalty is there to spare a user."""
    search = Search(quote_model, quote_pairs(128, 0), reference, published(penalty=1.0, penalty_rate=0.0))
    assert all(bool((s <= 0).all()) for s in search.rank().values())


def test_a_model_that_gives_nan_is_said_to(quote_model, reference):
    broken = copy.deepcopy(quote_model)
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    search = Search(broken, quote_pairs(8, 0), reference, CircuitSettings(max_node_fraction=1.0))
    with pytest.raises(BridgesError, match=r"a loss of nan at step 1: .*train\.precision=fp32"):
        search.rank()


# --- the penalty, step by step ------------------------------------------------------------------------------------


class Pull:
    """An objective whose loss stands still and whose gradient opens every gate by the same force.

    Whether gates open or close then says whether the force or the penalty is larger.
    """

    parameters: list = []  # noqa: RUF012
    target = 1.0

    def __init__(self, some, value: float, force: float):
        self.prompts, self.value, self.force = some, value, force
        self.gates: Gates | None = None

    def loss(self, world, rows) -> Tensor:
        assert self.gates is not None
        count = self.gates.count()
        return self.value - self.force * (count - count.detach())


# The published optimizer, whose steps are as large for a small gradient.
STILL = {"objective": "task_loss", "steps": 40, "batch": 2, "lr": 0.05, "penalty_rate": 0.5, "weight_decay": 0.0}


def opened(quote_model, reference, monkeypatch, value: float, force: float, **settings) -> float:
    """Share of gates that are open in the end."""
    objective = Pull(prompts(quote_pairs(4, 0)), value, force)

    class Seen(Gates):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            objective.gates = self

    monkeypatch.setattr(learning, "Gates", Seen)
    some = CircuitSettings(**(STILL | settings))
    scores = learn_gates(quote_model, objective, Ablation(quote_model, reference), some, 0)
    return float(torch.cat(list(scores.values())).gt(0).float().mean())


@pytest.mark.parametrize(("min_penalty", "share"), [(0.5, 0.0), (0.0, 1.0)])
def test_the_penalty_never_falls_below_its_floor(quote_model, reference, monkeypatch, min_penalty, share):
    """The loss is far above its target, so that the penalty falls: to half of its start, which outweighs the force, or
    without a floor to nothing."""
    found = opened(
        quote_model, reference, monkeypatch, value=100.0, force=3e-3, penalty=1e-2, min_penalty=min_penalty
    )  # fmt: skip
    assert found == share


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.0), (0.0, 1.0)])
def test_the_penalty_rises_while_the_loss_is_below_its_target(quote_model, reference, monkeypatch, rate, share):
    found = opened(quote_model, reference, monkeypatch, value=0.0, force=1e-2, penalty=1e-3, penalty_rate=rate)
    assert found == share


def test_a_loss_at_its_target_leaves_the_penalty_as_it_is(quote_model, reference, monkeypatch):
    """The target of the mean loss is ``loss_target_fraction`` of the objective's."""
    for force, share in ((1.2e-3, 1.0), (0.8e-3, 0.0)):
        assert opened(quote_model, reference, monkeypatch, value=0.8, force=force, penalty=1e-3) == share


# --- where it ends, and where it begins ---------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """One entry for every step of learned pruning."""
    done: list[int] = []
    real = TaskLoss.loss
    monkeypatch.setattr(TaskLoss, "loss", lambda *a: done.append(1) or real(*a))
    return done


def test_a_search_at_chance_ends_after_half_of_its_steps(planted, steps):
    for pairs, early_stop_loss, wanted in (
        (shuffled_labels(planted.train), 0.6, 10),
        (shuffled_labels(planted.train), None, 20),
        (planted.train, 0.6, 20),
    ):
        steps.clear()
        Search(planted.stack, pairs, planted.reference, published(steps=20, early_stop_loss=early_stop_loss)).rank()
        assert len(steps) == wanted


def test_a_search_with_far_too_many_open_gates_ends_after_half_of_its_steps(planted, steps):
    # A penalty of next to nothing closes no gate.
    free = published(steps=10, early_stop_loss=0.6, penalty=1e-12, penalty_rate=0.0)
    for share, wanted in ((0.1, 5), (0.5, 10)):
        steps.clear()
        Search(planted.stack, planted.train, planted.reference, replace(free, max_node_fraction=share)).rank()
        assert len(steps) == wanted


def test_logits_are_softened_to_the_goal_where_the_model_is_sure(planted):
    some = prompts(planted.train)
    objective = TaskLoss(planted.stack, some, 0.15)
    few = logit_diff(planted.stack, some.take(slice(16)))
    objective.soften(0.075, 8)
    factor = float(objective.log_scale.exp())
    assert factor < 1 and float(task_loss(few * factor)) == pytest.approx(0.075, rel=1e-3)
    # One that is not sure is left alone.
    other = TaskLoss(planted.stack, some, 0.15)
    other.soften(float(task_loss(few)) / 2, 8)
    assert float(other.log_scale) == 0.0


def test_in_a_model_that_is_sure_the_search_finds_the_circuit_from_any_seed(planted):
    """Without the softened start all gates closed at once, and the way back was a matter of luck."""
    for seed in range(2):
        search = Search(planted.stack, planted.train, planted.reference, published(steps=60), seed)
        circuit = search.bisect(search.rank())
        assert circuit.reached and circuit.size == 3
