"""Transfer between a hand-written model and its rotated twin, where every share is arithmetic."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bridges.bridge import Bridges, pair_sites
from bridges.circuits.task import answer_margins, prompts
from bridges.compare import rows
from bridges.compare.bootstrap import Resampler
from bridges.compare.choice import choose, gain
from bridges.compare.crossing import Transfer, crossings, differences, equal_pairs
from bridges.compare.dense_to_sparse import continued_margins
from bridges.compare.rows import transfer_rows
from bridges.compare.transfer import DRAWN, NULLS, interchange_margins, necessity_margins, share_moved, steering_chances
from bridges.config import CompareConfig
from bridges.nodes import NodeBus
from bridges.stack import ResidualStack
from bridges.storage.tables import TABLES, write_table


def shares(t: Transfer, quote) -> dict[str, np.ndarray]:
    """Share moved by direction, ``[bridges]``."""
    choice = choose(t, quote.train)
    batches = list(crossings(t, equal_pairs(quote.heldout, 64)))
    plain, margins = interchange_margins(t, batches, choice.directions, range(len(t.bridges)))
    found = {}
    for name, m in margins.items():
        parts = [share_moved(plain, m[:, i]) for i in range(m.shape[1])]
        found[name] = np.array([above.sum() / below.sum() for above, below in parts])
    return found


def table(t: Transfer, quote, tmp_path) -> pd.DataFrame:
    frame = pd.DataFrame(transfer_rows(t, quote.train, quote.heldout), columns=TABLES["transfer"].names)
    frame["channel"] = frame["channel"].astype("Int64")
    write_table(tmp_path, "transfer", frame)
    return frame


# --- interchange --------------------------------------------------------------------------------------------------


def test_the_true_circuit_moves_everything_and_nothing_else_does(quote, true_circuit):
    found = shares(quote.transfer(true_circuit), quote)
    # Whatever the other prompt would change on the answer's way is carried, at every bridge.
    assert np.allclose(found["circuit"], 1, atol=1e-3)
    inner = slice(1, 4)
    for null in DRAWN:
        assert (found[null][inner] < 0.7).all(), (null, found[null])
    # Before the first MLP only the tokens are there to be carried, after it only what it has made of them.
    assert np.allclose(found["tokens"][:4], [1, 1, 0, 0], atol=1e-3)


def test_channels_beside_the_way_move_nothing(quote, false_circuit):
    found = shares(quote.transfer(false_circuit), quote)["circuit"]
    # At the last site one distractor's change is real, and weighs 0.02 in the answer.
    assert np.allclose(found[:4], 0, atol=1e-6) and abs(found[4]) < 1e-3


def test_a_change_on_half_of_the_way_moves_its_part(quote):
    # Only "a double one" (channel 4) and not "a quote is here" (3), which is the same in both prompts.
    part = quote.circuit({"0.mlp_out": (4,), "1.attn_in": (4,)})
    found = shares(quote.transfer(part), quote)["circuit"]
    # Written by the first MLP and read by the second attention: it is not there at the last token afterwards.
    assert found[2] == pytest.approx(1, abs=1e-3) and found[3] == pytest.approx(0, abs=1e-3)


def test_bridges_that_carry_wrongly_move_nothing_of_it(quote, true_circuit):
    wrong = copy.deepcopy(quote.bridges)
    for bridge in wrong:
        bridge.decoder.weight.copy_(bridge.decoder.weight.roll(1, 1))
    found = shares(quote.transfer(true_circuit, wrong), quote)["circuit"]
    assert (found[1:4] < 0.6).all()


class Linear(ResidualStack, nn.Module):
    """No sublayer does anything, and the logits are the stream's first channels."""

    def __init__(self, table: Tensor):
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)
        self.vocab_size, self.d_model = table.shape
        self.n_sublayers, self.n_layers, self.context, self.nodes = 2, 1, 9, NodeBus({"0.attn_in": 8, "0.attn_out": 8})

    def embed(self, ids: Tensor) -> Tensor:
        return self.table[ids]

    def sublayer(self, index: int, h: Tensor) -> Tensor:
        return h

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return h


def test_in_a_linear_model_the_share_is_the_channels_and_grows_with_the_strength(quote, true_circuit):
    stack = Linear(torch.zeros(8, 8))
    # After A the model answers 2 by 3 logits, after B it answers 4 by 1: they differ by 3 + 1 in channels 2 and 4.
    stack.table[0, 2], stack.table[1, 4] = 3.0, 1.0
    ids = torch.tensor([[[0], [1]]] * 3)
    pairs = replace(
        quote.heldout.take(range(3)), ids=ids, lengths=torch.ones(3, 2, dtype=torch.long),
        candidates=torch.tensor([[2, 4]] * 3),
    )  # fmt: skip
    nodes = {"0.attn_in": torch.zeros(8, dtype=torch.bool), "0.attn_out": torch.zeros(8, dtype=torch.bool)}
    nodes["0.attn_in"][2] = True
    bridges = Bridges(8, 8, pair_sites(2, 2), None)
    for bridge in bridges:
        bridge.decoder.weight.data.copy_(torch.eye(8))
    config = CompareConfig(strengths=[0.0, 0.5, 1.0], channels=2, bootstrap=20)
    t = Transfer(stack, stack, bridges, None, replace(true_circuit, nodes=nodes), torch.zeros(3, 8), config)
    choice = choose(t, pairs)
    batches = list(crossings(t, pairs))
    plain, margins = interchange_margins(t, batches, choice.directions, range(3))
    # Channel 2 goes from 3 to 0 after A, from 0 to 3 after B: each margin falls by 3, of the 4 that a swap moves.
    assert np.allclose(plain, [[3, 1]] * 3)
    assert np.allclose(margins["circuit"][0, 0], [[0, -2]] * 3)
    above, below = share_moved(plain, margins["circuit"][:, 0])
    assert np.allclose(above / below, 6 / 8)
    # The channel is read by sublayer 0 alone, so that it is not live afterwards.
    assert np.allclose(margins["circuit"][0, 1:], plain)
    chosen = replace(choice, bridge=0, channel_bridge=0, channel=2)
    chances = steering_chances(t, batches, chosen)["all"]["circuit"][0]
    for k, strength in enumerate(config.strengths):
        after_a, after_b = torch.zeros(8), torch.zeros(8)
        after_a[2], after_b[4], after_b[2] = 3 - 3 * strength, 1, 3 * strength
        expected = [after_a.softmax(0)[4], after_b.softmax(0)[2]]
        assert np.allclose(chances[k], [expected] * 3, atol=1e-6)


# --- choice -------------------------------------------------------------------------------------------------------


def test_choices_are_made_on_training_pairs_and_never_at_the_ends(quote, true_circuit):
    t = quote.transfer(true_circuit)
    assert list(t.inner) == [1, 2, 3]
    broken = copy.deepcopy(quote.bridges)
    for i in (0, 1, 3, 4):
        broken[i].decoder.weight.zero_()
    t = quote.transfer(true_circuit, broken)
    choice = choose(t, quote.train)
    # Only there does anything arrive; "a double one" is channel 4.
    assert (choice.bridge, choice.channel_bridge, choice.channel) == (2, 2, 4)


def test_the_bridge_is_where_the_weakest_of_the_comparisons_is_strongest():
    plain = np.array([[2.0, 2.0]])
    # Shares moved at five bridges: of the 8 that a swap moves, per prompt 4 · share.
    steered = {
        "circuit": [1.0, 0.75, 0.9, 1.0, 1.0],
        "random_directions": [0.1, 0.0, 0.0, 0.0, 0.0],
        "random_nodes": [0.2, 0.0, 0.6, 0.0, 0.0],
        "shuffled_bridge": [0.0, 0.25, 0.0, 0.4, 0.0],
        "tokens": [0.0, 0.0, 0.0, 0.0, 0.9],
        "difference_of_means": [0.5, 0.0, 1.5, 1.5, 0.0],
    }
    moved = {name: np.array([[[[2 - 4 * share] * 2] for share in row]]) for name, row in steered.items()}
    # Without the channels: no harm at the first bridge, as much as with others at the third, all is lost elsewhere.
    needed = {
        "circuit": np.array([[[[2.0, 2.0]], *[[[0.0, 0.0]]] * 4]]),
        "random_nodes": np.array([[[[2.0, 2.0]], [[100.0, 100.0]], [[0.0, 0.0]], *[[[100.0, 100.0]]] * 2]]),
        "random_directions": np.full((1, 5, 1, 2), 100.0),
    }
    # The least of 0.8 and 0, of 0.5, 0.75 and 1, of 0.3, -0.05 and 0, of 0.6 and 1, where what moves all is not beaten,
    # and at the last, where the tokens alone do nearly as much, of 0.1 and 1.
    assert np.allclose(gain(plain, moved, needed), [0, 0.5, -0.05, 0.6, 0.1])
    # The worse of the two nulls counts.
    other = needed | {"random_nodes": needed["random_directions"], "random_directions": needed["random_nodes"]}
    assert np.allclose(gain(plain, moved, other), gain(plain, moved, needed))
    # Without a null to compare with nothing is shown.
    needed["random_nodes"][0, 1] = np.nan
    assert gain(plain, moved, needed)[1] == -np.inf
    # A dense model that is wrong about the training pairs: nothing is left to choose by.
    assert not gain(-plain, moved, needed).any()


def test_without_a_live_channel_nothing_is_steered(quote, false_circuit):
    nothing = replace(false_circuit, nodes={p: torch.zeros_like(k) for p, k in false_circuit.nodes.items()})
    t = quote.transfer(nothing)
    choice = choose(t, quote.train)
    assert choice.channel == -1
    assert set(steering_chances(t, list(crossings(t, quote.heldout)), choice)) == {"all"}
    assert not shares(t, quote)["circuit"].any()


# --- necessity, and the way back ----------------------------------------------------------------------------------


def test_without_the_circuits_channels_the_dense_model_is_lost(quote, true_circuit, false_circuit):
    for circuit, needed in ((true_circuit, True), (false_circuit, False)):
        t = quote.transfer(circuit)
        batches = list(crossings(t, quote.heldout))
        plain = answer_margins(quote.dense, prompts(quote.heldout)).double().numpy()
        margins = necessity_margins(t, batches, range(5))
        losses = {name: np.logaddexp(0, -m[0]).mean((1, 2)) for name, m in margins.items()}
        loss, whole = losses.pop("circuit"), np.logaddexp(0, -plain).mean()
        # What counts is how much worse than the worse of the two nulls.
        assert set(losses) == {"random_directions", "random_nodes"}
        found = rows.necessity_rows(t, plain.reshape(-1, 2), margins, range(5), 1)
        beyond = [row["value"] for row in found if row["quantity"] == "loss_minus_null"]
        assert np.allclose(beyond, loss - np.max(list(losses.values()), axis=0))
        assert (loss[1:4] > whole + 0.3).all() if needed else (loss[1:4] < whole + 0.05).all()


def test_the_circuit_goes_on_from_the_dense_stream(quote, true_circuit, false_circuit):
    margins = continued_margins(quote.transfer(true_circuit), quote.heldout, range(5))
    assert ((margins["circuit"] > 0).mean((0, 2, 3)) == 1).all()
    assert ((margins["shuffled_bridge"] > 0).mean((0, 2, 3))[1:4] < 0.8).all()
    lost = continued_margins(quote.transfer(false_circuit), quote.heldout, range(5))["circuit"]
    # Nothing of the circuit leads from the quote to the answer: before the answer is written it is a guess.
    assert ((lost > 0).mean((0, 2, 3))[:3] == 0.5).all()
    # At the last site nothing is left to do: the margins are the whole model's, calibrated.
    doubled = quote.transfer(replace(true_circuit, scale=2.0, shift=0.0))
    final = continued_margins(doubled, quote.heldout, range(5))["circuit"]
    whole = answer_margins(quote.sparse, prompts(quote.heldout)).double().numpy()
    assert np.allclose(final[0, -1].ravel(), 2 * whole, atol=1e-3)


# --- batches ------------------------------------------------------------------------------------------------------


def test_only_equally_long_pairs_are_carried_and_the_batch_does_not_matter(quote, true_circuit, monkeypatch):
    lengths = quote.heldout.lengths.clone()
    lengths[0, 1] = 7
    assert len(equal_pairs(replace(quote.heldout, lengths=lengths), 64)) == 31
    t = quote.transfer(true_circuit)
    whole, parts = list(crossings(t, quote.heldout)), []
    monkeypatch.setattr("bridges.compare.crossing.TOKENS", 2 * 3 * 8 * 5)
    parts = list(crossings(t, quote.heldout))
    assert len(whole) == 1 and [len(c.some) for c in parts] == [6] * 10 + [4]
    assert torch.allclose(torch.cat([c.margins for c in parts]), whole[0].margins, atol=1e-5)
    joined = [torch.cat(d) for d in zip(*(differences(t, c) for c in parts), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(joined, differences(t, whole[0]), strict=True))


# --- rows ---------------------------------------------------------------------------------------------------------


def test_rows_fit_the_table_and_say_what_was_found(quote, true_circuit, tmp_path):
    t = quote.transfer(true_circuit, bootstrap=100, draws=2)
    t.ridge = quote.bridges
    frame = table(t, quote, tmp_path)
    moved = frame.query("measurement == 'interchange' and quantity == 'share_moved'")
    assert set(moved["direction"]) == {
        "circuit", "none", *NULLS, "ridge_bridge", "difference_of_means", "probe", "pca",
    }  # fmt: skip
    by = moved.set_index(["direction", "pair"])["value"]
    assert np.allclose(by["none"], 0) and np.allclose(by["circuit"], by["ridge_bridge"], atol=1e-4)
    beyond = frame.query("quantity == 'share_moved_minus_null'").set_index("pair")
    best = np.max([by[name].sort_index() for name in NULLS], axis=0)
    assert np.allclose(beyond["value"].sort_index(), by["circuit"].sort_index() - best)
    assert (beyond.loc[2:3, "p_value"] <= 0.02).all() and (beyond.loc[2:3, "value_low"] > 0).all()
    # At the first inner bridge nothing has been computed yet that could be carried.
    assert beyond.loc[1, "p_value"] > 0.5 and moved[moved["chosen"]]["pair"].unique() in (2, 3)
    curve = frame.query("measurement == 'steering' and direction == 'circuit' and nodes == 'all'")
    assert (curve.sort_values("strength")["value"].diff().dropna() > 0).all()
    steered = frame.query("measurement == 'steering' and strength == 0").groupby("nodes")["value"]
    assert (steered.max() - steered.min() < 1e-5).all()
    assert set(frame.query("nodes == 'best'")["channel"].dropna()) <= {0, 1, 3, 4, 5}
    again = pd.DataFrame(transfer_rows(t, quote.train, quote.heldout), columns=TABLES["transfer"].names)
    again["channel"] = again["channel"].astype("Int64")
    pd.testing.assert_frame_equal(frame, again)


def test_without_equally_long_pairs_only_the_way_back_is_measured(quote, true_circuit):
    lengths = quote.heldout.lengths.clone()
    lengths[:, 1] = 7
    rows = transfer_rows(quote.transfer(true_circuit), quote.train, replace(quote.heldout, lengths=lengths))
    assert {row["measurement"] for row in rows} == {"dense_to_sparse"}


def test_shares_are_ratios_of_sums_over_pairs():
    plain, steered = np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([[[0.0, 1.0], [-1.0, 0.0]]])
    above, below = share_moved(plain, steered)
    assert above.tolist() == [2.0, 2.0] and below.tolist() == [6.0, 2.0]
    assert Resampler(2, 5, 0).ratio(above, below)[0] == pytest.approx(0.5)


def test_only_the_chosen_bridge_is_measured_on_all_pairs(quote, true_circuit):
    rows = pd.DataFrame(transfer_rows(quote.transfer(true_circuit, site_pairs=4), quote.train, quote.heldout))
    whole = pd.DataFrame(transfer_rows(quote.transfer(true_circuit), quote.train, quote.heldout))
    rows, whole = rows.query("measurement != 'steering'"), whole.query("measurement != 'steering'")
    assert (rows["n_pairs"] == np.where(rows["chosen"], 32, 4)).all() and (whole["n_pairs"] == 32).all()
    keys = ["measurement", "pair", "direction", "quantity"]
    assert rows[keys].to_dict("list") == whole[keys].to_dict("list")
    # The chosen bridge does not hang on what is done at the others.
    own = rows["chosen"] & (rows["direction"] == "circuit") & ~rows["quantity"].str.contains("minus")
    assert np.allclose(rows.loc[own, "value"], whole.loc[own, "value"], atol=1e-5)


def test_the_way_back_starts_where_the_circuit_has_something_to_do(quote, true_circuit, monkeypatch):
    t, right, wrong = quote.transfer(true_circuit), np.ones((4, 2)), np.array([[1.0, -1.0]] * 4)

    def margins(empty):
        return lambda *_: {"circuit": np.stack([right] * 5)[None], "empty_circuit": np.stack(empty)[None]}

    # At the second bridge nothing is decided without the circuit; at the others everything is.
    monkeypatch.setattr(rows, "continued_margins", margins([wrong, right, wrong, right, right]))
    assert rows.best_continued(t, quote.train) == 2
    # The answer is in the dense stream at every inner bridge: only from the tokens on is the work the circuit's.
    monkeypatch.setattr(rows, "continued_margins", margins([wrong, right, right, right, right]))
    assert rows.best_continued(t, quote.train) == 0
