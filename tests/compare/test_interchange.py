"""Interchange between a hand-written model and its rotated twin, both ways, where every share is arithmetic."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from bridges.circuits.bridge_context import map_through_bridge, on_other, share_moved
from bridges.compare.case import equal_pairs
from bridges.compare.dense_to_sparse import circuit_diffs, dense_to_sparse, null_dense_to_sparse
from bridges.compare.interchange import baseline_interchange, interchange, null_interchange, plain_diffs
from bridges.compare.necessity import necessity
from bridges.compare.nulls import TO_DENSE, TO_SPARSE
from bridges.compare.selection import label_directions, select_bridge, shares
from bridges.compare.steering import STRENGTHS, steering
from bridges.planted import Rotated

from .conftest import DISTRACTOR, QUOTE


def moved_to_dense(quote, case, where=range(5)) -> dict[str, np.ndarray]:
    """Share moved by direction, ``[bridges]``."""
    batches = case.context.batches(quote.heldout)
    plain = plain_diffs(batches)
    return {name: shares(plain, m) for name, m in interchange(case, batches, where).items()}


def moved_to_sparse(quote, case, where=range(5)) -> dict[str, np.ndarray]:
    batches = case.context.batches(quote.heldout)
    own = circuit_diffs(case, batches)
    return {name: shares(own, m) for name, m in dense_to_sparse(case, batches, where).items()}


# --- from sparse to dense -----------------------------------------------------------------------------------------


def test_the_true_circuit_moves_what_the_dense_model_does_once_the_answer_has_been_moved(quote, true_circuit):
    found = moved_to_dense(quote, quote.transfer(true_circuit))
    for mover in ("dense", "sparse", "circuit"):
        assert np.allclose(found[mover][:3], 0, atol=1e-5), (mover, found[mover])
    assert np.allclose(found["dense"][3:], 1, atol=1e-4) and np.allclose(found["sparse"][3:], 1, atol=1e-4)
    # The distractors that the circuit lacks weigh a hundredth in the answer.
    assert np.allclose(found["circuit"][3:], 1, atol=0.02)


def test_a_circuit_beside_the_way_moves_nothing(quote, false_circuit):
    found = moved_to_dense(quote, quote.transfer(false_circuit))["circuit"]
    assert np.allclose(found, 0, atol=1e-3)


def test_a_sparse_model_that_knows_each_token_but_mixes_no_positions_moves_nothing(quote):
    """Its stream carries the cue's own token, and a change that is added there hands the answer over."""
    context = quote.context(sparse=quote.without_attention())
    case = quote.transfer(quote.circuit(context=context), context)
    found = moved_to_dense(quote, case)
    assert np.allclose(found["sparse"], 0, atol=1e-6) and np.allclose(found["circuit"], 0, atol=1e-6)
    assert np.allclose(found["dense"][3:], 1, atol=1e-4)
    batch = context.batch(quote.heldout)
    h = batch.sparse[2]
    everywhere = map_through_bridge(context.bridges[2], on_other(h) - h)
    assert share_moved(batch.dense_diff, context.dense_diff(batch, {2: everywhere})[0]) > 0.9


def test_bridges_that_carry_wrongly_move_nothing_of_it(quote, true_circuit):
    wrong = copy.deepcopy(quote.bridges)
    for bridge in wrong:
        bridge.decoder.weight.copy_(bridge.decoder.weight.roll(1, 1))
    found = moved_to_dense(quote, quote.transfer(true_circuit, quote.context(wrong)))
    assert abs(found["circuit"][3]) < 0.3 and found["dense"][3] > 0.99


def test_every_null_moves_less_than_the_circuit(quote, true_circuit):
    case = quote.transfer(true_circuit, draws=4)
    batches = case.context.batches(quote.heldout)
    plain, nulls = plain_diffs(batches), null_interchange(case, batches, 3)
    assert set(nulls) == set(TO_DENSE) and all(m.shape == (4, 1, 32, 2) for m in nulls.values())
    for name, m in nulls.items():
        assert abs(shares(plain, m)[0]) < 0.5, name
    again = null_interchange(case, batches, 3)
    assert all(np.array_equal(again[name], m) for name, m in nulls.items())


def test_directions_of_the_labels_point_to_the_other_answer(quote, true_circuit):
    case = quote.transfer(true_circuit)
    shown, judged = case.context.batches(quote.train), case.context.batches(quote.heldout)
    plain = plain_diffs(judged)
    found = baseline_interchange(case, judged, 3, label_directions(shown, 3))
    assert set(found) == {"difference_of_means", "probe", "pca"}
    for name, m in found.items():
        assert shares(plain, m)[0] > 0.5, name


# --- from dense to sparse -----------------------------------------------------------------------------------------


def test_the_dense_models_change_moves_the_circuit_as_its_own_does(quote, true_circuit):
    found = moved_to_sparse(quote, quote.transfer(true_circuit))
    for mover in ("circuit", "dense"):
        assert np.allclose(found[mover][:3], 0, atol=1e-5), mover
        # The bridges are exact: what comes back is the circuit's own change and some distractors'.
        assert np.allclose(found[mover][3:], 1, atol=0.02), mover


def test_what_is_measured_is_the_circuit_alone(quote):
    """The whole sparse model would follow: only a neuron behind the bridge tells the two circuits apart."""
    sparse = copy.deepcopy(quote.sparse)
    sparse.blocks[3].up.weight[1, 5], sparse.blocks[3].down.weight[7, 1] = 4.0, 0.5
    sparse.head.weight[6, 5], sparse.head.weight[6, 7], sparse.head.bias[7] = 0.0, 3.0, 1.0
    context = replace(quote.context(sparse=sparse), dense=Rotated(copy.deepcopy(sparse), quote.turn))
    whole = quote.circuit(context=context)
    lacking = {p: kept.clone() for p, kept in whole.nodes.items()}
    lacking["1.mlp_neuron"][1] = False
    fell = []
    for circuit in (whole, replace(whole, nodes=lacking)):
        case = quote.transfer(circuit, context)
        batches = case.context.batches(quote.heldout)
        fell.append((circuit_diffs(case, batches) - dense_to_sparse(case, batches, [3])["dense"][0, 0]).mean())
    own = circuit_diffs(quote.transfer(whole, context), batches)
    # Without the neuron only the size of the stream is left to be seen, by the last norm.
    assert fell[0] == pytest.approx(2 * own.mean(), rel=1e-3) and abs(fell[1]) < 0.25 * fell[0]
    assert (plain_diffs(batches) > 0).mean() > 0.9


def test_nulls_of_the_way_back_move_less(quote, true_circuit):
    case = quote.transfer(true_circuit, draws=4)
    batches = case.context.batches(quote.heldout)
    own, nulls = circuit_diffs(case, batches), null_dense_to_sparse(case, batches, 3)
    assert set(nulls) == set(TO_SPARSE)
    for name, m in nulls.items():
        assert abs(shares(own, m)[0]) < 0.5, name


def test_a_sparse_model_that_mixes_no_positions_has_no_way_back_to_measure(quote):
    context = quote.context(sparse=quote.without_attention())
    found = moved_to_sparse(quote, quote.transfer(quote.circuit(context=context), context))
    # Its own logit differences cancel within a pair: there is nothing to move.
    assert np.isnan(found["circuit"]).all() or np.allclose(found["circuit"], 0, atol=1e-4)


# --- which bridge -------------------------------------------------------------------------------------------------


def test_a_bridge_is_selected_where_there_is_something_to_move(quote, true_circuit):
    case = quote.transfer(true_circuit)
    assert select_bridge(case, case.context.batches(quote.train), 0.5) == 3
    # No bridge has so high a ceiling.
    assert select_bridge(case, case.context.batches(quote.train), 1.5) is None


def test_the_weaker_way_decides(quote, true_circuit, monkeypatch):
    """Shares at bridges 1 to 3; both ways count as shares of their own ceilings."""
    ahead = {"circuit": [0.9, 0.6, 0.4], "dense": [1.0, 1.0, 0.4], "sparse": [1.0] * 3}
    back = {"dense": [0.2, 0.5, 0.9], "circuit": [1.0, 1.0, 1.0]}

    def as_moved(rows: dict[str, list[float]], where: list[int]):
        # Every logit difference is 1, so that a share x of the whole swap leaves 1 − 2x.
        return {k: np.array([[[[1 - 2 * row[i - 1]] * 2] * 4 for i in where]]) for k, row in rows.items()}

    module = "bridges.compare.selection."
    monkeypatch.setattr(module + "interchange", lambda case, batches, where, movers: as_moved(ahead, where))
    monkeypatch.setattr(module + "dense_to_sparse", lambda case, batches, where: as_moved(back, where))
    monkeypatch.setattr(module + "plain_diffs", lambda *_: np.ones((4, 2)))
    monkeypatch.setattr(module + "circuit_diffs", lambda *_: np.ones((4, 2)))
    case = quote.transfer(true_circuit)
    # The third moves all of its ceiling, which is too low; of 0.2 and 0.5 the second has more.
    assert select_bridge(case, [], 0.5) == 2
    assert select_bridge(case, [], 0.3) == 3


# --- beside the verdict -------------------------------------------------------------------------------------------


def test_without_the_circuits_channels_the_dense_model_is_lost(quote, true_circuit):
    case = quote.transfer(true_circuit)
    batches = case.context.batches(quote.heldout)
    plain = plain_diffs(batches)
    found = {name: m[:, 0].mean(0) for name, m in necessity(case, batches, 3).items()}
    assert set(found) == {"circuit", "random_directions", "other_channels"}
    assert (plain > 0).mean() > 0.95 and (found["circuit"] > 0).mean() == 0.5
    assert (found["other_channels"] > 0).mean() > 0.9


def test_steering_grows_with_its_strength(quote, true_circuit):
    case = quote.transfer(true_circuit)
    batches = case.context.batches(quote.heldout)
    curves = {name: m.mean((0, 2, 3)) for name, m in steering(case, batches, 3).items()}
    assert curves["circuit"].shape == (len(STRENGTHS),) and (np.diff(curves["circuit"]) > 0).all()
    # Full strength is the exchange itself: the other prompt's answer is as likely as it is there.
    whole = batches[0]
    logits = case.context.dense.logits(whole.some.ids)[torch.arange(64), whole.some.last].softmax(-1)
    there = logits.gather(-1, whole.some.choice[:, :1]).mean()
    assert curves["circuit"][-1] == pytest.approx(float(there), abs=0.02)
    assert np.allclose(curves["none"], curves["circuit"][0], atol=1e-6)
    assert curves["random_directions"][-1] < 0.6 * curves["circuit"][-1]


def test_only_pairs_that_can_be_exchanged_count(quote):
    lengths, ids = quote.heldout.lengths.clone(), quote.heldout.ids.clone()
    lengths[0, 1] = 7
    ids[1, 1, -1] = 3
    pairs = replace(quote.heldout, lengths=lengths, ids=ids)
    found = equal_pairs(pairs, 64)
    assert len(found) == 30 and found.pairs == quote.heldout.pairs[2:]
    assert len(equal_pairs(pairs, 5)) == 5


def test_circuits_of_this_file_are_what_they_are_meant_to_be(quote, true_circuit, false_circuit):
    assert true_circuit.size == sum(map(len, QUOTE.values())) and true_circuit.train_loss < 0.05
    assert false_circuit.size == sum(map(len, DISTRACTOR.values())) and false_circuit.train_loss > 0.9
