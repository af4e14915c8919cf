"""Pruning goes on against an adversary: what keeps the rest in check joins the circuit."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from bridges.circuits.ablation import node_means
from bridges.circuits.attack import STARTS, attack
from bridges.circuits.circuit import Circuit
from bridges.circuits.measure import circuit_row
from bridges.circuits.search.adversary import Adversary
from bridges.circuits.search.gates import Gates
from bridges.circuits.search.search import Search
from bridges.circuits.task import logit_diff, prompts, task_loss
from bridges.nodes import intervene

from .conftest import published

YES, NO = 3, 4


@pytest.fixture
def balanced(planted):
    """The planted model with two channels of opposite noise: together nothing, either alone drowns the answer."""
    stack = copy.deepcopy(planted.stack)
    with torch.no_grad():
        first, head = stack.blocks[0], stack.head.weight
        first.out.weight[2] = 0
        first.out.weight[2, 1] = 100
        first.out.weight[3] = -first.out.weight[2]
        head[:, 2:4] = 0
        head[YES, 2:4], head[NO, 2:4] = 2, -2
    return replace(planted, stack=stack, reference=node_means(stack, planted.text.split(8)))


def found(planted, adversarial_steps: int, **more) -> Circuit:
    settings = published(**({"adversarial_steps": adversarial_steps, "steps": 60} | more))
    return Search(planted.stack, planted.train, planted.reference, settings).run()


def harm(planted, circuit: Circuit) -> float:
    """Two-way loss after the flip of few other nodes, in nats."""
    some = prompts(planted.train)
    budget = max(1, round(0.1 * circuit.size))
    attacks = [attack(planted.stack, circuit, some, start, budget, 6) for start in STARTS]
    held = prompts(planted.heldout)
    return max(float(task_loss(a.judge(planted.stack, circuit, held))) for a in attacks)


def test_what_keeps_the_rest_in_check_joins_the_circuit(balanced, tmp_path):
    bare, guarded = found(balanced, 0), found(balanced, 60)
    assert bare.reached and harm(balanced, bare) > 0.5 and not bare.meta.get("protected")
    assert guarded.reached and harm(balanced, guarded) < 0.3
    named = {(p, c) for p, kept in guarded.protected.items() for c in kept.nonzero()[:, 0].tolist()}
    assert {("0.attn_out", 2), ("0.attn_out", 3)} & named and all(guarded.nodes[p][c] for p, c in named)
    search = Search(balanced.stack, balanced.train, balanced.reference, published())
    rows = [circuit_row(search, c, prompts(balanced.heldout)) for c in (bare, guarded)]
    assert [row["protected"] for row in rows] == [0, len(named)]
    guarded.save(tmp_path / "c.json")
    again = Circuit.load(tmp_path / "c.json").protected
    assert all(torch.equal(again[p], kept) for p, kept in guarded.protected.items())


def test_where_no_hardened_circuit_is_small_enough_the_first_stays(balanced):
    plain = found(balanced, 0)
    total = sum(len(kept) for kept in plain.nodes.values())
    tight = found(balanced, 60, max_node_fraction=plain.size / total)
    assert tight.reached and tight.size <= plain.size and not tight.meta.get("protected")


def closed(planted) -> Gates:
    gate = Gates(planted.stack, planted.reference)
    for tau in gate.tau.values():
        tau.data.fill_(-0.5)
    return gate


def slope(planted, some, point: str, channel: int, at: float, only_it: bool) -> float:
    """Of the loss, by finite differences: one node is moved from its mean; the rest are kept, or at their means."""
    stack, reference = planted.stack, planted.reference

    def loss(share: float) -> float:
        def moved(name: str):
            def function(x):
                out = reference[name].expand_as(x).clone() if only_it else x.clone()
                if name == point:
                    mean = reference[point][channel]
                    out[..., channel] = mean + share * (x[..., channel] - mean)
                return out

            return function

        with torch.no_grad(), intervene(stack, {name: moved(name) for name in reference}):
            return float(task_loss(logit_diff(stack, some)))

    return (loss(at + 1e-3) - loss(at - 1e-3)) / 2e-3


def test_the_opponent_finds_what_the_whole_model_hangs_on_and_names_it(balanced):
    some, gate, adversary = prompts(balanced.train.take(range(8))), closed(balanced), Adversary(balanced.stack)
    taught = adversary.gradients(gate, some, 1)
    assert not any(t.any() for t in taught.values()) and not adversary.named.any()
    flipped = adversary._points(adversary.sides[True, "loss"].flipped)
    point, channel = next((p, int(f.nonzero())) for p, f in flipped.items() if f.any())
    every = {(p, c): slope(balanced, some, p, c, 1.0, False) for p in ("0.attn_out", "0.v") for c in range(4)}
    assert slope(balanced, some, point, channel, 1.0, False) <= min(every.values()) + 1e-3 < 0
    # The one that climbs margins chooses by itself, and has done nothing yet.
    adversary.gradients(gate, some, 2)
    assert not adversary.named.any()
    adversary.gradients(gate, some, 4)
    assert adversary.protected[point][channel] and int(adversary.named.sum()) == 1
    adversary.hold(gate)
    assert float(gate.tau[point][channel].detach()) == 1.0 and int(gate.count().detach()) == 1


def test_in_the_circuit_alone_the_gates_learn_from_what_was_brought_back(planted):
    some, gate, adversary = prompts(planted.train.take(range(8))), closed(planted), Adversary(planted.stack)
    taught = adversary.gradients(gate, some, 0)
    point, channel = max(
        ((p, c) for p, t in taught.items() for c in range(len(t))), key=lambda n: abs(float(taught[n[0]][n[1]]))
    )
    wanted = slope(planted, some, point, channel, 0.0, True) / 4
    assert float(taught[point][channel]) == pytest.approx(wanted, rel=0.05, abs=1e-6)
