"""Nodes on which a behaviour hangs in the whole model join its circuit; a hopeless search ends early."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from bridges.behaviours import nonsense_twin
from bridges.circuits import gates
from bridges.circuits.circuit import Circuit
from bridges.circuits.flips import attack
from bridges.circuits.guards import guards_of
from bridges.circuits.measure import circuit_row
from bridges.circuits.removed import node_means
from bridges.circuits.search import Search
from bridges.circuits.settings import CircuitSettings
from bridges.circuits.task import prompts

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


def found(planted, rounds: int) -> Circuit:
    settings = CircuitSettings(guard_rounds=rounds, edges=True)
    return Search(planted.stack, planted.train, planted.reference, settings).run()


def harm(planted, circuit: Circuit) -> float:
    some = prompts(planted.heldout)
    return max(max(a.losses) for a in attack(planted.stack, circuit, some, some, 0.1, 6).values())


def test_what_keeps_the_rest_in_check_joins_the_circuit(balanced):
    bare, guarded = found(balanced, 0), found(balanced, 4)
    assert bare.reached and harm(balanced, bare) > 0.5 and not bare.meta.get("guards")
    assert guarded.reached and harm(balanced, guarded) < 0.3
    named = {(p, c) for p, kept in guards_of(guarded).items() for c in kept.nonzero()[:, 0].tolist()}
    assert {("0.attn_out", 2), ("0.attn_out", 3)} & named and all(guarded.nodes[p][c] for p, c in named)
    search = Search(balanced.stack, balanced.train, balanced.reference, CircuitSettings())
    rows = [circuit_row(search, c, prompts(balanced.heldout)) for c in (bare, guarded)]
    assert [row["guards"] for row in rows] == [0, len(named)]


def test_a_circuit_on_which_nothing_else_bears_has_no_guards(planted):
    assert found(planted, 4).meta.get("guards") is None


def test_guards_are_kept_in_the_circuits_file(balanced, tmp_path):
    circuit = found(balanced, 4)
    circuit.save(tmp_path / "c.json")
    again = guards_of(Circuit.load(tmp_path / "c.json"))
    assert all(torch.equal(again[p], kept) for p, kept in guards_of(circuit).items())


def test_a_search_at_chance_ends_after_half_of_its_steps(planted, monkeypatch):
    real, steps = gates.prompts, []
    monkeypatch.setattr(gates, "prompts", lambda *a: steps.append(1) or real(*a))
    for pairs, abandon, wanted in (
        (nonsense_twin(planted.train), 0.6, 30),
        (nonsense_twin(planted.train), None, 60),
        (planted.train, 0.6, 60),
    ):
        steps.clear()
        settings = CircuitSettings(steps=60, abandon=abandon)
        Search(planted.stack, pairs, planted.reference, settings).rank()
        assert len(steps) == wanted
