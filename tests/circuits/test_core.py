"""What the first k nodes of a circuit recover, against circuits of k nodes run by themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bridges.circuits.circuit import only
from bridges.circuits.core import core_shares, core_sizes
from bridges.circuits.measure import members, node_rows
from bridges.circuits.task import logit_diff, prompts


def test_sizes_rise_and_end_with_the_whole_circuit():
    assert core_sizes(0) == [] and core_sizes(1) == [1] and core_sizes(7) == [1, 5, 7]
    sizes = core_sizes(1400)
    assert sizes == sorted(set(sizes)) and sizes[-1] == 1400 and {10, 12} < set(sizes) and len(sizes) < 20
    assert all(type(size) is int for size in sizes)


def _alone(planted, circuit, nodes) -> float:
    """Mean logit difference with only these nodes kept."""
    kept = {p: torch.zeros_like(k) for p, k in circuit.nodes.items()}
    for point, channel in nodes:
        kept[point][channel] = True
    with torch.no_grad(), only(planted.stack, replace(circuit, nodes=kept)):
        return float(logit_diff(planted.stack, prompts(planted.train)).double().mean())


def test_shares_are_those_of_circuits_of_the_first_nodes(planted, true_circuit):
    nodes = {p: kept.clone() for p, kept in true_circuit.nodes.items()}
    nodes["1.mlp_neuron"][:3] = True
    circuit = replace(true_circuit, nodes=nodes)
    ranked = sorted(members(circuit), key=lambda node: (node[0].startswith("1."), node))
    shares = core_shares(planted.stack, circuit, prompts(planted.train), ranked)
    nothing, whole = _alone(planted, circuit, []), _alone(planted, circuit, ranked)
    assert list(shares) == core_sizes(len(ranked)) == [1, 5, 6]
    for k, share in shares.items():
        recovered = (_alone(planted, circuit, ranked[:k]) - nothing) / (whole - nothing)
        lost = (whole - _alone(planted, circuit, ranked[k:])) / (whole - nothing)
        assert share == pytest.approx((recovered, lost), abs=1e-4), k
    assert shares[6] == pytest.approx((1, 1))
    # All three planted nodes, which come first, are needed, and they are enough.
    assert abs(shares[1].recovered) < 0.2 and shares[1].lost == pytest.approx(1, abs=0.2)
    assert shares[5].recovered == pytest.approx(1, abs=0.2)


def test_a_circuit_without_an_effect_has_no_shares(planted, true_circuit):
    nodes = {p: torch.zeros_like(kept) for p, kept in true_circuit.nodes.items()}
    # Of the last layer's queries nothing depends, since all keys are zero.
    nodes["1.q"][0] = True
    circuit = replace(true_circuit, nodes=nodes)
    shares = core_shares(planted.stack, circuit, prompts(planted.train), members(circuit))
    assert set(shares) == {1} and all(map(math.isnan, shares[1]))
    assert core_shares(planted.stack, replace(circuit, nodes={}), prompts(planted.train), []) == {}


def test_rows_of_nodes_hold_the_share_at_their_rank(planted, true_circuit):
    some = prompts(planted.train)
    rows = node_rows(planted.stack, true_circuit, some)
    ranked = sorted(rows, key=lambda row: -abs(row["attribution"]))
    assert [not math.isnan(row["recovered"]) for row in ranked] == [
        k + 1 in core_sizes(len(rows)) for k in range(len(rows))
    ]
    assert ranked[-1]["recovered"] == ranked[-1]["lost"] == pytest.approx(1)
