"""The promise of the budget, and the floors, against a slow loop."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from bridges.sparse import Projector, budget
from bridges.sparse.projection import keep_mask, node_dimension


@pytest.mark.parametrize(
    ("numel", "fraction", "expected"),
    [
        (1000, 0.1, 100),
        (1000, 0.1001, 101),
        (100, 0.07, 7),
        (100, 0.29, 29),
        (300, 0.001, 1),
        (3, 0.34, 2),
        (1_000_000, 0.001, 1000),
        (1_000_001, 0.001, 1001),
        (10, 1.0, 10),
        (10, 1e-9, 1),
        (1, 0.5, 1),
        (30, 0.1, 3),
    ],
)
def test_budget_by_hand(numel, fraction, expected):
    assert budget(numel, fraction) == expected


def test_budget_is_the_ceiling_of_the_decimal_product():
    for thousandths in range(1, 1001):
        for numel in (1, 7, 10, 64, 1000, 4096, 1_048_576):
            exact = math.ceil(Fraction(thousandths, 1000) * numel)
            assert budget(numel, thousandths / 1000) == exact, (numel, thousandths)


def _brute_keep(weight: Tensor, kept: int, dimension: int | None, floor: int) -> Tensor:
    rows, columns = weight.shape
    entries = sorted(
        ((r, c) for r in range(rows) for c in range(columns)), key=lambda at: abs(float(weight[at])), reverse=True
    )
    chosen: list[tuple[int, int]] = []
    if dimension is not None:
        slices, length = (rows, columns) if dimension == 0 else (columns, rows)
        guaranteed = min(floor, kept // slices, length)
        for i in range(slices):
            chosen += [at for at in entries if at[dimension] == i][:guaranteed]
    chosen += [at for at in entries if at not in chosen][: kept - len(chosen)]
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for at in chosen:
        mask[at] = True
    return mask


@pytest.mark.parametrize("dimension", [0, 1, None])
def test_keep_mask_against_a_slow_loop(dimension):
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(120):
        rows, columns = rng.randint(1, 12), rng.randint(1, 12)
        # Slices of very different sizes, so that floors are needed again and again as the threshold rises.
        spread = torch.exp(rng.choice([0.0, 1.0, 3.0]) * torch.randn(rows, 1, generator=generator))
        weight = torch.randn(rows, columns, generator=generator) * spread
        weight = weight.T.contiguous() if rng.random() < 0.5 else weight
        kept, floor = rng.randint(1, weight.numel()), rng.randint(0, 6)
        true = _brute_keep(weight, kept, dimension, floor)
        for guess in (None, rng.random(), 10.0):
            mask, _ = keep_mask(weight, kept, dimension, floor, guess)
            assert torch.equal(mask, true), (weight, kept, dimension, floor, guess)
            assert int(mask.sum()) == kept


def test_floor_by_hand():
    weight = torch.tensor([[9.0, -8.0, 7.0, 6.0], [0.4, 0.3, -0.2, 0.1], [5.0, 4.0, 0.01, 0.02]])
    with_floor, _ = keep_mask(weight, 6, 0, 2)
    assert with_floor.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    without, _ = keep_mask(weight, 6, 0, 0)
    assert without.int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]
    shrunk, _ = keep_mask(weight, 5, 0, 4)
    assert shrunk.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    none_left, _ = keep_mask(weight, 2, 0, 4)
    assert none_left.int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_budget_wins_over_any_floor_even_among_equal_weights():
    for value in (0.0, 1.0):
        for dimension in (0, 1):
            for kept in range(1, 30):
                mask, _ = keep_mask(torch.full((5, 6), value), kept, dimension, 4)
                assert int(mask.sum()) == kept
                slices = mask.sum(1 - dimension)
                assert int(slices.min()) >= min(4, kept // len(slices))


def test_which_dimension_counts_nodes():
    names = {
        "blocks.0.q.weight": 0,
        "blocks.0.k.weight": 0,
        "blocks.0.v.weight": 0,
        "blocks.0.out.weight": 1,
        "blocks.1.up.weight": 0,
        "blocks.1.down.weight": 1,
        "tokens.weight": None,
        "head.weight": None,
    }
    assert {name: node_dimension(name) for name in names} == names


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.011, 0.001])
def test_projection_keeps_every_matrix_inside_its_budget_and_its_floor(tiny_sparse, fraction):
    model = tiny_sparse()
    before = {name: p.clone() for name, p in model.named_parameters()}
    projector = Projector(model.sparse_matrices(), floor=4)
    projector.project(fraction)
    nonzeros = projector.nonzeros()
    for name, p in model.sparse_matrices().items():
        allowed = math.ceil(Fraction(str(fraction)) * p.numel())
        assert nonzeros[name] == int((p != 0).sum()) == allowed
        assert torch.equal(p[p != 0], before[name][p != 0])
        dimension = node_dimension(name)
        if dimension is not None:
            per_slice = (p != 0).sum(1 - dimension)
            assert int(per_slice.min()) >= min(4, allowed // len(per_slice))
    untouched = set(before) - set(model.sparse_matrices())
    assert all(torch.equal(before[name], dict(model.named_parameters())[name]) for name in untouched)


def test_a_fraction_of_one_changes_nothing(tiny_sparse):
    model = tiny_sparse()
    before = {name: p.clone() for name, p in model.named_parameters()}
    Projector(model.sparse_matrices()).project(1.0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@torch.no_grad()
def test_weights_can_come_back():
    weight = nn.Parameter(torch.tensor([[3.0, 2.0], [1.0, 0.5]]))
    projector = Projector({"head.weight": weight})
    projector.project(0.5)
    assert weight.tolist() == [[3.0, 2.0], [0.0, 0.0]]
    weight += torch.tensor([[0.0, 0.0], [0.0, -2.5]])
    projector.project(0.5)
    assert weight.tolist() == [[3.0, 0.0], [0.0, -2.5]]


@torch.no_grad()
def test_a_remembered_threshold_never_changes_the_answer(tiny_sparse):
    used, fresh = tiny_sparse(), tiny_sparse()
    projector, generator = Projector(used.sparse_matrices(), floor=2), torch.Generator().manual_seed(0)
    for step in range(12):
        for a, b in zip(used.sparse_matrices().values(), fresh.sparse_matrices().values(), strict=True):
            noise = 0.1 * torch.randn(a.shape, generator=generator)
            size = 1e-3 if step == 6 else 5.0 if step == 9 else 1.0
            a.add_(noise).mul_(size)
            b.add_(noise).mul_(size)
        projector.project(0.9 - 0.07 * step)
        Projector(fresh.sparse_matrices(), floor=2).project(0.9 - 0.07 * step)
        for (name, a), b in zip(used.sparse_matrices().items(), fresh.sparse_matrices().values(), strict=True):
            assert torch.equal(a, b), (step, name)


@torch.no_grad()
def test_dead_neurons_by_hand(tiny_sparse):
    model = tiny_sparse()
    projector = Projector(model.sparse_matrices())
    assert projector.dead_neurons() == 0
    model.blocks[1].up.weight[[0, 3]] = 0
    model.blocks[1].down.weight[:, [3, 5]] = 0
    model.blocks[3].down.weight[:, 23] = 0
    assert projector.dead_neurons() == 4
    model.blocks[0].q.weight.zero_()
    model.blocks[3].up.weight[:, 2] = 0
    assert projector.dead_neurons() == 4
