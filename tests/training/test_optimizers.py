"""Muon's update, weight decay, the boost, and states that go on as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bridges.training.optimizers import Muon, ParameterGroup, build_optimizer


def _parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def _planted(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with singular values from 0.03 to 1, and the orthogonal matrix with the same singular vectors."""
    random = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    u, _, v = torch.linalg.svd(random, full_matrices=False)
    return u @ torch.diag(torch.linspace(0.03, 1.0, min(rows, columns))) @ v, u @ v


@pytest.mark.parametrize("shape", [(24, 6), (6, 24), (12, 12), (1, 9), (9, 1)])
def test_singular_values_of_muon_s_update_are_near_one(shape):
    p = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([p], lr=1.0, weight_decay=0.0)
    gradient, orthogonal = _planted(*shape)
    p.grad = 50 * gradient
    optimizer.step()
    update = -p.detach() / (0.2 * max(shape) ** 0.5)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6 and values.max() < 1.3
    cosine = (update * orthogonal).sum() / (update.norm() * orthogonal.norm())
    assert cosine > 0.96


def test_muon_s_update_has_adamw_s_typical_rms():
    for shape in ((64, 16), (16, 64), (32, 32)):
        p = nn.Parameter(torch.zeros(shape))
        optimizer = Muon([p], lr=0.01, weight_decay=0.0)
        p.grad = _planted(*shape)[0]
        optimizer.step()
        assert p.detach().square().mean().sqrt().item() == pytest.approx(0.002, rel=0.25)


def test_muon_s_momentum_by_hand():
    p = nn.Parameter(torch.zeros(3, 3))
    optimizer = Muon([p], lr=1.0, momentum=0.75, weight_decay=0.0)
    seen = []
    plain = Muon._orthogonal
    optimizer._orthogonal = lambda x: seen.append(x.clone()) or plain(x)  # type: ignore[method-assign]
    first, second = torch.eye(3), torch.ones(3, 3)
    for grad in (first, second):
        p.grad = grad.clone()
        optimizer.step()
    # The average m is g1/4, then 3/16·g1 + g2/4; Nesterov looks ahead to g/4 + 3/4·m.
    torch.testing.assert_close(seen[0][0], 7 / 16 * first)
    torch.testing.assert_close(seen[1][0], 9 / 64 * first + 7 / 16 * second)


def test_matrices_of_one_shape_are_stepped_as_if_alone():
    together = [_parameter(4, 6, seed=i) for i in range(3)] + [_parameter(6, 4, seed=5)]
    alone = copy.deepcopy(together)
    joint, single = Muon(together, lr=0.1), [Muon([p], lr=0.1) for p in alone]
    for step in range(3):
        for i, (a, b) in enumerate(zip(together, alone, strict=True)):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(10 * step + i))
            b.grad = a.grad.clone()
        joint.step()
        for optimizer in single:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("muon", [False, True])
def test_weight_decay_acts_on_matrices_and_not_on_vectors(muon):
    matrix, vector, scalar = _parameter(3, 4), _parameter(4), _parameter(1)
    before = [p.detach().clone() for p in (matrix, vector, scalar)]
    optimizer = build_optimizer([ParameterGroup([matrix, vector, scalar], 0.5, muon=muon)], weight_decay=0.2)
    for p in (matrix, vector, scalar):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), 0.9 * before[0])
    assert torch.equal(vector.detach(), before[1]) and torch.equal(scalar.detach(), before[2])


def test_factor_reaches_every_group_and_boost_only_the_boosted():
    parameters = [_parameter(2, 3, seed=i) for i in range(4)] + [_parameter(3)]
    before = [p.detach().clone() for p in parameters]
    a, b, c, d, vector = parameters
    optimizer = build_optimizer(
        [
            ParameterGroup([a], 0.1, boosted=True),
            ParameterGroup([b], 0.1),
            ParameterGroup([c, vector], 0.2),
            ParameterGroup([d], 0.1, muon=True, boosted=True),
        ],
        weight_decay=0.0,
    )
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step(factor=0.5, boost=3.0)
    # Adam's first step has the size of its rate.
    moved = [float((x - p.detach()).abs().mean()) for x, p in zip(before, parameters, strict=True)]
    assert moved[0] == pytest.approx(0.15, rel=1e-4)
    assert moved[1] == pytest.approx(0.05, rel=1e-4)
    assert moved[2] == pytest.approx(0.1, rel=1e-4) and moved[4] == pytest.approx(0.1, rel=1e-4)
    assert sorted(g["lr"] for g in optimizer.groups) == pytest.approx([0.05, 0.1, 0.1, 0.15, 0.15])
    optimizer.step()
    assert sorted(g["lr"] for g in optimizer.groups) == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2])


def test_adamw_s_settings_arrive():
    p = _parameter(2, 2)
    optimizer = build_optimizer([ParameterGroup([p], 0.1)], betas=(0.8, 0.7), eps=0.3, weight_decay=0.05)
    reference = copy.deepcopy(p)
    true = torch.optim.AdamW([reference], lr=0.1, betas=(0.8, 0.7), eps=0.3, weight_decay=0.05)
    for step in range(3):
        p.grad = torch.randn(2, 2, generator=torch.Generator().manual_seed(step))
        reference.grad = p.grad.clone()
        optimizer.step()
        true.step()
    assert torch.equal(p, reference)


def _build(parameters: list[nn.Parameter]):
    return build_optimizer(
        [ParameterGroup(parameters[:2], 0.03, muon=True, boosted=True), ParameterGroup(parameters[2:], 0.01)]
    )


def _advance(optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for i, p in enumerate(parameters):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i))
        optimizer.step(1.0 / (step + 1), 1.5)
        optimizer.zero_grad()
        assert all(p.grad is None for p in parameters)


def test_a_restored_state_goes_on_identically(tmp_path):
    whole = [_parameter(4, 5), _parameter(4, seed=1), _parameter(5, 3, seed=2), _parameter(3, seed=3)]
    parts = copy.deepcopy(whole)
    _advance(_build(whole), whole, range(7))
    first = _build(parts)
    _advance(first, parts, range(4))
    torch.save(first.whole_state_dict(), tmp_path / "state.pt")
    second = _build(parts)
    second.load_whole_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    _advance(second, parts, range(4, 7))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    fresh = copy.deepcopy(parts)
    _advance(_build(fresh), fresh, range(1))
    assert not torch.equal(fresh[2], parts[2])


def test_a_state_of_other_groups_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        _build([_parameter(2, 2), _parameter(2, 2), _parameter(2)]).load_whole_state_dict(
            build_optimizer([ParameterGroup([_parameter(2, 2)], 0.1)]).whole_state_dict()
        )
