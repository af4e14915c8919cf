"""Where a change may be moved: positions whose token is the same in both prompts of a pair."""

from __future__ import annotations

from dataclasses import replace

import torch

from bridges.circuits.bridge_context import map_through_bridge, on_other, share_moved, shared_positions
from bridges.circuits.task import Prompts, logit_diff, prompts

from .conftest import quote_pairs


def some_prompts() -> Prompts:
    ids = torch.tensor([[0, 4, 5, 6], [0, 7, 5, 6], [0, 4, 5, 1], [0, 4, 4, 1], [0, 4, 5, 6], [0, 4, 5, 6]])
    last = torch.tensor([3, 3, 2, 2, 3, 2])
    return Prompts(ids, last, torch.tensor([[1, 2]] * 6), torch.ones(6))


def test_the_mask_by_hand():
    found = shared_positions(some_prompts())
    assert found.int().tolist() == [
        [1, 0, 1, 1],
        [1, 0, 1, 1],
        # The third token differs, and the fourth is padding.
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        # Not equally long: nothing corresponds, though the tokens are the same.
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_a_value_on_the_other_prompt_is_that_of_its_pair():
    assert on_other(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]


def test_an_exchange_is_the_other_prompts_stream_there_and_nothing_elsewhere(quote):
    batch = quote.context().batch(quote.heldout)
    ids = quote.heldout.ids
    differs = (ids[:, 0] != ids[:, 1]).repeat_interleave(2, 0)
    assert differs.sum(1).eq(1).all() and batch.aligned
    for i, h in batch.sparse.items():
        change = batch.exchange(h)
        assert not change[differs].any()
        moved = (h + change)[~differs]
        torch.testing.assert_close(moved, on_other(h)[~differs])
        # Before the second attention nothing but the cue's own token differs.
        assert bool(change.any()) == (i >= 3)


def test_pairs_of_unequal_length_move_nothing(quote):
    lengths = quote.heldout.lengths.clone()
    lengths[:, 1] = 7
    batch = quote.context().batch(replace(quote.heldout, lengths=lengths))
    assert not batch.shared.any() and not batch.aligned
    assert not any(batch.exchange(h).any() for h in batch.dense.values())


def test_a_batch_taken_apart_is_the_same_batch(quote):
    context = quote.context()
    whole = context.batch(quote.heldout)
    rows = torch.tensor([6, 7, 2, 3])
    few, again = whole.take(rows), context.batch(quote.heldout.take([3, 1]))
    assert torch.equal(few.some.ids, again.some.ids) and torch.equal(few.shared, again.shared)
    torch.testing.assert_close(few.dense_diff, again.dense_diff)
    for i in few.sparse:
        torch.testing.assert_close(few.sparse[i], again.sparse[i])


def test_batches_hold_every_pair_once_and_the_shortest_first(quote, monkeypatch):
    monkeypatch.setattr("bridges.circuits.bridge_context.TOKENS", 2 * 3 * 8 * 5)
    lengths = quote.heldout.lengths.clone()
    lengths[4:8] = 6
    pairs = replace(quote.heldout, lengths=lengths)
    batches = quote.context().batches(pairs)
    assert [len(b) for b in batches] == [6] * 10 + [4]
    order = [4, 5, 6, 7, *range(4), *range(8, 32)]
    found = torch.cat([b.sparse_diff for b in batches])
    torch.testing.assert_close(found, logit_diff(quote.sparse, prompts(pairs.take(order))).detach())


def test_a_change_is_mapped_as_the_change_of_what_is_decoded(quote):
    bridge = quote.bridges[2]
    g = torch.Generator().manual_seed(0)
    h, delta = torch.randn(4, 3, 8, generator=g), torch.randn(4, 3, 8, generator=g)
    expected = bridge.decode(h + delta) - bridge.decode(h)
    torch.testing.assert_close(map_through_bridge(bridge, delta), expected, atol=1e-5, rtol=1e-4)


def test_a_full_swap_of_the_answers_is_one():
    plain = torch.tensor([3.0, 1.0, 2.0, 2.0])
    # Each prompt is left with minus the logit difference of the other.
    assert share_moved(plain, -on_other(plain)) == 1.0
    assert share_moved(plain, plain) == 0.0
    # A change that halves the differences moves a quarter of the way.
    assert share_moved(plain, plain / 2) == 0.25
    assert torch.tensor(share_moved(-plain, plain)).isnan()


def test_ceilings_say_where_the_answer_has_been_moved_to_the_last_token(quote):
    context = quote.context()
    batch = context.batch(quote_pairs(24, 3))
    found = context.ceilings(batch)
    for i, value in found.items():
        assert abs(value - (i >= 3)) < 1e-4, found
    # The bridges are exact and the models the same: the whole sparse model moves what the dense one does.
    for i, diff in context.whole_sparse(batch).items():
        assert abs(share_moved(batch.dense_diff, diff) - found[i]) < 1e-4
    assert list(context.inner) == [1, 2, 3]


def test_no_pass_is_made_where_nothing_changes(quote, monkeypatch):
    context = quote.context()
    batch = context.batch(quote_pairs(24, 3))
    changes = {i: batch.exchange(h) for i, h in batch.dense.items()}
    assert not changes[0].any()  # tokens at shared positions are the same
    starts, run = [], context.dense.run_from
    monkeypatch.setattr(
        context.dense, "run_from", lambda entries, **options: starts.append([s for s, _ in entries]) or run(entries)
    )
    found = context.dense_diff(batch, changes)
    # Before the third bridge nothing has been moved to shared positions in this model.
    assert starts == [[context.bridges.pairs[i].dense for i in (3, 4)]] and torch.equal(found[0], batch.dense_diff)
    alone = torch.cat([context.dense_diff(batch, {i: change}) for i, change in changes.items()])
    assert torch.allclose(found, alone, atol=1e-5) and not torch.equal(found[3], batch.dense_diff)
    starts.clear()
    # Where a gradient is asked for, nothing is left out.
    nothing = torch.zeros_like(changes[0], requires_grad=True)
    (gradient,) = torch.autograd.grad(context.dense_diff(batch, {0: nothing}).sum(), nothing)
    assert starts == [[0]] and gradient.any()
