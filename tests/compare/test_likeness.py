"""Agreement and similarity against values worked out by hand or by another formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bridges.circuits.bootstrap import Resampler
from bridges.circuits.circuit import only
from bridges.circuits.task import logit_diff, prompts
from bridges.compare.agreement import agreement_rows, explained_rows, pair_logit_diffs, text_rows, token_losses
from bridges.compare.similarity import cross_validated_r2, linear_cka, similarity_rows
from bridges.storage.tables import TABLES

SIGN = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])


def agreements(dense, mine, sign=SIGN):
    rows = agreement_rows(
        "b", {"dense": np.array(dense), "circuit": np.array(mine)}, sign, Resampler(len(sign), 100, 0)
    )
    assert all(set(row) <= set(TABLES["agreement"].names) for row in rows)
    return {(row["second"], row["quantity"]): row for row in rows}


def test_agreement_by_hand():
    found = agreements([[2.0, 1.0], [3.0, -1.0], [1.0, 2.0]], [[1.0, 1.0], [2.0, -2.0], [-1.0, 3.0]])
    assert found["dense", "accuracy"]["value"] == pytest.approx(5 / 6)
    assert found["circuit", "accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["circuit", "decision_agreement"]["value"] == pytest.approx(5 / 6)
    where = found["circuit", "agreement_where_dense_wrong"]
    assert where["value"] == 1.0 and where["n"] == 1
    dense, mine = np.array([2, 1, 3, -1, 1, 2.0]), np.array([1, 1, 2, -2, -1, 3.0])
    assert found["circuit", "margin_correlation"]["value"] == pytest.approx(np.corrcoef(dense, mine)[0, 1])
    turned = np.corrcoef(dense * SIGN.ravel(), mine * SIGN.ravel())[0, 1]
    assert found["circuit", "logit_difference_correlation"]["value"] == pytest.approx(turned)


def test_labels_alone_make_one_correlation_high_and_not_the_other(rng):
    sign = np.tile([1.0, -1.0], (200, 1))
    found = agreements(3 + rng(0).normal(size=(200, 2)), 3 + rng(1).normal(size=(200, 2)), sign)
    assert found["circuit", "logit_difference_correlation"]["value"] > 0.85
    assert abs(found["circuit", "margin_correlation"]["value"]) < 0.15
    wrong = found["circuit", "agreement_where_dense_wrong"]
    assert wrong["n"] <= 3
    never = agreements([[1.0, 1.0]] * 3, [[1.0, -1.0]] * 3)["circuit", "agreement_where_dense_wrong"]
    assert np.isnan(never["value"]) and never["n"] == 0


def test_intervals_are_over_pairs(rng):
    # Both prompts of a pair alike: there are 50 independent values, not 100.
    once = (rng(0).random((50, 1)) < 0.7) * 2.0 - 1
    twice = np.repeat(once, 2, 1)
    row = agreements(twice, twice, np.tile([1.0, -1.0], (50, 1)))["dense", "accuracy"]
    spread = np.sqrt(row["value"] * (1 - row["value"]) / 50)
    assert row["value_high"] - row["value_low"] == pytest.approx(2 * 1.96 * spread, rel=0.3)


def test_margins_are_those_of_the_circuit_stage(quote, true_circuit):
    some = prompts(quote.heldout)
    assert np.allclose(pair_logit_diffs(quote.sparse, quote.heldout).ravel(), logit_diff(quote.sparse, some))
    mine = pair_logit_diffs(quote.sparse, quote.heldout, true_circuit).ravel()
    with torch.no_grad(), only(quote.sparse, true_circuit):
        assert np.allclose(mine, logit_diff(quote.sparse, some), atol=1e-5)
    # The rotated model is the same function.
    assert np.allclose(
        pair_logit_diffs(quote.dense, quote.heldout), pair_logit_diffs(quote.sparse, quote.heldout), atol=1e-4
    )


def test_what_a_circuit_explains_is_that_of_its_own_model(quote, true_circuit, false_circuit):
    sparse = pair_logit_diffs(quote.sparse, quote.heldout)
    sign = prompts(quote.heldout).sign.view(-1, 2).numpy()
    for circuit, low, high in ((true_circuit, 0.0, 0.05), (false_circuit, 0.9, 10.0)):
        diffs = {"sparse": sparse, "circuit": pair_logit_diffs(quote.sparse, quote.heldout, circuit)}
        rows = {r["quantity"]: r for r in explained_rows("b", diffs, sign, Resampler(32, 100, 0))}
        assert all(set(row) <= set(TABLES["agreement"].names) for row in rows.values())
        by_hand = ((diffs["circuit"] - sparse) ** 2).mean() / (sparse * sign).var()
        assert rows["fvu"]["value"] == pytest.approx(by_hand, rel=1e-4) and low <= by_hand < high
        assert {row["first"] for row in rows.values()} == {"sparse"} and rows["fvu"]["n"] == 64


def test_token_losses_are_cross_entropies_and_correlate_over_text(quote):
    losses = token_losses(quote.sparse, quote.text, batch=7)
    logits = quote.sparse.logits(quote.text)
    expected = cross_entropy(logits[:, :-1].transpose(1, 2), quote.text[:, 1:], reduction="none")
    assert np.allclose(losses, expected, atol=1e-5)
    rows = text_rows(
        {"dense": quote.dense, "sparse": quote.sparse, "dense2": quote.dense}, quote.text, Resampler(64, 50, 0)
    )
    assert [row["second"] for row in rows] == ["sparse", "dense2"]
    assert all(row["value"] == pytest.approx(1, abs=1e-4) for row in rows)


# --- similarity ---------------------------------------------------------------------------------------------------


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with centred Gram matrices (Kornblith et al. 2019, equation 2)."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_cka_is_the_formula_of_gram_matrices(rng):
    x = rng(0).normal(size=(60, 5)) + 3
    y = x[:, :3] @ rng(1).normal(size=(3, 7)) + 0.5 * rng(2).normal(size=(60, 7))
    assert linear_cka(x, y) == pytest.approx(gram_cka(x, y))
    turn = np.linalg.qr(rng(3).normal(size=(5, 5)))[0]
    assert linear_cka(x, 4 * x @ turn + 1) == pytest.approx(1)
    assert linear_cka(rng(4).normal(size=(2000, 5)), rng(5).normal(size=(2000, 5))) < 0.02
    assert np.isnan(linear_cka(x, np.ones((60, 2))))


def test_r2_counts_only_what_holds_in_other_sequences(rng):
    sequence = np.repeat(np.arange(20), 10)
    x = rng(0).normal(size=(200, 6))
    y = x @ rng(1).normal(size=(6, 4))
    assert cross_validated_r2(x, y, sequence, 1e-6, 5) == pytest.approx(1, abs=1e-6)
    # Half the variance is noise that nothing predicts.
    noisy = y + y.std() * rng(2).normal(size=y.shape)
    assert cross_validated_r2(x, noisy, sequence, 1e-6, 5) == pytest.approx(0.5, abs=0.1)
    # What only identifies the sequence is worth nothing in another one, however well it fits in its own.
    name, value = np.eye(20)[sequence], rng(3).normal(size=(20, 1))[sequence]
    assert cross_validated_r2(name, value, sequence, 1e-6, 5) <= 0.0
    assert np.isnan(cross_validated_r2(x, y, np.zeros(200), 1e-6, 5))


def test_rotated_streams_are_alike_at_every_bridge(quote):
    rows = similarity_rows(quote.dense, quote.sparse, quote.bridges, quote.text, 1e-6, 4)
    assert len(rows) == 3 * 5 and {row["bridge"] for row in rows} == set(range(5))
    assert all(row["value"] == pytest.approx(1, abs=1e-3) for row in rows)
    assert all(row["n"] == quote.text.numel() for row in rows)
