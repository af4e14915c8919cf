"""The adversary keeps to its budget and off the circuit, and does what a search of every choice would."""

from __future__ import annotations

import pytest
import torch

from bridges.circuits.attack import STARTS, attack, random_attack, worst_attack
from bridges.circuits.node_sets import set_logit_diffs
from bridges.circuits.task import prompts, task_loss


@pytest.mark.parametrize("start", STARTS)
def test_budget_and_bounds(start, planted, true_circuit):
    some = prompts(planted.train.take(range(8)))
    outside = torch.cat([~kept for kept in true_circuit.nodes.values()])
    sets = worst_attack(planted.stack, true_circuit, some, STARTS[start], budget=3, steps=4)
    drawn = random_attack(true_circuit, start, 3, torch.Generator().manual_seed(0))
    for ablated in (torch.cat(list(sets.values()), 1), torch.cat(list(drawn.ablated.values()))[None]):
        assert not (ablated & ~outside).any()
        flipped = ablated if start == "ablated" else outside & ~ablated
        assert (flipped.sum(1) == 3).all()


def test_a_random_attack_is_drawn_anew(true_circuit):
    g = torch.Generator().manual_seed(0)
    one, two = (torch.cat(list(random_attack(true_circuit, "ablated", 3, g).ablated.values())) for _ in range(2))
    assert not torch.equal(one, two)


def test_the_strongest_of_its_tries_is_taken(planted, true_circuit):
    some = prompts(planted.train.take(range(8)))
    found = attack(planted.stack, true_circuit, some, "ablated", 2, 3)
    loss = float(task_loss(found.judge(planted.stack, true_circuit, some)))
    tried = [worst_attack(planted.stack, true_circuit, some, 1.0, 2, 3, goal) for goal in ("loss", "margin")]
    losses = [task_loss(d) for sets in tried for d in set_logit_diffs(planted.stack, some, sets, planted.reference)]
    assert loss == pytest.approx(float(max(losses)), abs=1e-5)


def test_of_a_circuit_that_lacks_its_value_the_adversary_ablates_that(planted, true_circuit):
    lacking = dict(true_circuit.nodes)
    lacking["0.v"] = torch.zeros_like(lacking["0.v"])
    circuit = planted.circuit(lacking)
    found = attack(planted.stack, circuit, prompts(planted.train.take(range(8))), "ablated", 1, 4)
    assert [(p, int(m.nonzero())) for p, m in found.ablated.items() if m.any()] == [("0.v", 0)]
