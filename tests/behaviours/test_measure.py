"""The two-way measures against numbers worked out by hand, and the two meaningless tasks."""

from __future__ import annotations

import math

import pytest
import torch

from bridges.behaviours import (
    BehaviourError,
    EncodedPairs,
    Pair,
    consistent_nonsense,
    shuffled_labels,
    summarise,
    two_way,
)

VOCAB = 6


def tiny() -> EncodedPairs:
    """Two pairs; the last real token of each prompt is 2, 3, 4 or 5 and chooses its row of LOGITS."""
    pairs = tuple(Pair(f"c{i}", f"k{i}", "a", "b", "t") for i in range(2))
    return EncodedPairs(
        "tiny",
        "train",
        0,
        pairs,
        ids=torch.tensor([[[0, 2, 1], [0, 0, 3]], [[4, 1, 1], [0, 5, 1]]]),
        lengths=torch.tensor([[2, 3], [1, 2]]),
        candidates=torch.tensor([[0, 1], [1, 0]]),
    )


# by last token: logits of the tokens 0 and 1; the others are large and must not matter
LOGITS = {2: (2.0, 0.0), 3: (0.0, 1.0), 4: (3.0, 0.0), 5: (0.0, 0.0)}


def logits_fn(ids: torch.Tensor) -> torch.Tensor:
    out = torch.full((*ids.shape, VOCAB), 50.0)
    for token, values in LOGITS.items():
        out[ids == token] = torch.tensor([*values, 50.0, 50.0, 50.0, 50.0])
    return out


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_by_hand(batch_size):
    rows = two_way(logits_fn, tiny(), batch_size)
    assert rows["logit_diff"].tolist() == [2.0, 1.0, -3.0, 0.0]
    assert rows["correct"].tolist() == [True, True, False, False]
    assert rows["pair"].tolist() == [0, 0, 1, 1]
    assert rows["prompt"].tolist() == ["clean", "counterfactual"] * 2
    expected = [math.log(1 + math.exp(-d)) for d in (2.0, 1.0, -3.0, 0.0)]
    assert rows["loss"].tolist() == pytest.approx(expected)


def test_summary_by_hand():
    rows = two_way(logits_fn, tiny())
    out = summarise(rows, n_boot=2000, seed=1)
    pair_losses = [(0.126928 + 0.313262) / 2, (3.048587 + 0.693147) / 2]
    assert out["loss"] == pytest.approx(sum(pair_losses) / 2, abs=1e-5)
    assert out["accuracy"] == 0.5 and out["logit_diff"] == 0.0
    # With two pairs a resample has mean a, b or between: a quarter of the draws is either end.
    assert out["loss_low"] == pytest.approx(pair_losses[0], abs=1e-5)
    assert out["loss_high"] == pytest.approx(pair_losses[1], abs=1e-5)
    assert (out["n_pairs"], out["n_prompts"], out["seed"]) == (2, 4, 1)
    assert summarise(rows, n_boot=2000, seed=1) == out


def test_chance_is_ln_2():
    rows = two_way(lambda ids: torch.zeros(*ids.shape, VOCAB), tiny())
    assert summarise(rows)["loss"] == pytest.approx(math.log(2))


def test_bad_logits_are_refused():
    with pytest.raises(BehaviourError, match="not finite"):
        two_way(lambda ids: torch.full((*ids.shape, VOCAB), math.nan), tiny())
    with pytest.raises(BehaviourError, match="logits_fn gave"):
        two_way(lambda ids: torch.zeros(len(ids), VOCAB), tiny())
    with pytest.raises(BehaviourError, match="no rows"):
        summarise(two_way(logits_fn, tiny()).head(0))


def solver(encoded):
    """A model that knows the answer to each prompt of `encoded`."""
    known = {
        tuple(encoded.ids[i, s, : encoded.lengths[i, s]].tolist()): int(encoded.candidates[i, s])
        for i in range(len(encoded))
        for s in (0, 1)
    }

    def logits(ids: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(*ids.shape, 5000)
        for i, row in enumerate(ids.tolist()):
            for end in range(1, len(row) + 1):
                if tuple(row[:end]) in known:
                    out[i, end - 1, known[tuple(row[:end])]] = 9.0
        return out

    return logits


@pytest.mark.parametrize("name", ["single_double_quote", "class_init"])
def test_whoever_solves_the_behaviour_guesses_on_its_twin(encoded_of, name):
    encoded = encoded_of("trained", name, "train")
    model = solver(encoded)
    assert summarise(two_way(model, encoded))["accuracy"] == 1.0
    twin = shuffled_labels(encoded)
    assert summarise(two_way(model, twin))["accuracy"] == pytest.approx(0.5, abs=0.02)
    assert summarise(two_way(solver(twin), twin))["accuracy"] == 1.0  # the labels can be memorised


def test_the_twin_has_the_same_prompts_and_other_labels(encoded_of):
    encoded = encoded_of("trained", "for_while", "heldout")
    twin, again, other = shuffled_labels(encoded), shuffled_labels(encoded), shuffled_labels(encoded, key=1)
    assert twin.behaviour == "nonsense:for_while" and twin.split == "heldout"
    assert torch.equal(twin.ids, encoded.ids) and torch.equal(twin.lengths, encoded.lengths)
    assert torch.equal(twin.candidates, again.candidates)
    assert not torch.equal(twin.candidates, other.candidates)
    flipped = (twin.candidates != encoded.candidates).any(1)
    assert flipped.sum() == len(encoded) // 2
    for i, (before, after) in enumerate(zip(encoded.pairs, twin.pairs, strict=True)):
        assert (after.clean, after.counterfactual) == (before.clean, before.counterfactual)
        assert (after.clean_token == before.counterfactual_token) == bool(flipped[i])
    for template in {p.template for p in encoded.pairs}:
        share = [bool(f) for f, p in zip(flipped, encoded.pairs, strict=True) if p.template == template]
        assert abs(sum(share) - len(share) / 2) <= 0.5


def test_consistent_nonsense_follows_the_cue(encoded_of):
    encoded, heldout = (encoded_of("trained", "for_while", split) for split in ("train", "heldout"))
    task, other = consistent_nonsense(encoded), consistent_nonsense(encoded, key=1)
    judged = consistent_nonsense(heldout, like=encoded)
    assert task.behaviour == "consistent nonsense:for_while" and judged.split == "heldout"
    assert torch.equal(task.ids, encoded.ids) and torch.equal(task.lengths, encoded.lengths)
    a, b = task.candidates.unique().tolist()
    assert not {a, b} & set(encoded.candidates.unique().tolist()) and set(other.candidates.unique().tolist()) != {a, b}
    assert {a, b} <= set(encoded.ids[:, :, 1:].unique().tolist())
    differ = (encoded.ids[:, 0] != encoded.ids[:, 1])[:, None].expand_as(encoded.ids)
    assert not {a, b} & set(encoded.ids[differ].unique().tolist())  # no answer is the cue itself
    # One rule from the behaviour's own answers to the two tokens, in both splits.
    rule = {}
    for before, after in ((encoded, task), (heldout, judged)):
        for own, arbitrary in zip(
            before.candidates.flatten().tolist(), after.candidates.flatten().tolist(), strict=True
        ):
            assert rule.setdefault(own, arbitrary) == arbitrary
    assert set(rule.values()) == {a, b}
    assert task.pairs[0].clean_token == f"token {int(task.candidates[0, 0])}"
    assert summarise(two_way(solver(task), task))["accuracy"] == 1.0


def test_consistent_nonsense_of_copied_names_is_a_function_of_the_name(encoded_of):
    encoded = encoded_of("trained", "var_swap", "train")
    task = consistent_nonsense(encoded)
    assert 0.25 * len(encoded) < len(task) < 0.75 * len(encoded) and len(task.candidates.unique()) == 2
    where = {pair.clean: i for i, pair in enumerate(encoded.pairs)}
    rule = {}
    for pair, arbitrary in zip(task.pairs, task.candidates.tolist(), strict=True):
        assert arbitrary[0] != arbitrary[1]
        for own, token in zip(encoded.candidates[where[pair.clean]].tolist(), arbitrary, strict=True):
            assert rule.setdefault(own, token) == token
    assert len(rule) > 20


def test_consistent_nonsense_needs_two_tokens_that_are_no_answers():
    with pytest.raises(BehaviourError, match="no two tokens that are never an answer"):
        consistent_nonsense(tiny().take([1]))
