"""A rotated stack computes what the inner one does, in another basis."""

from __future__ import annotations

import torch

from bridges.nodes import intervene, record
from bridges.planted import Rotated, random_rotation
from bridges.stack import ResidualStack


def test_a_rotation_is_orthogonal_and_nothing_else():
    rotation = random_rotation(24, 0)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(24), atol=1e-6, rtol=0)
    assert rotation.abs().max() < 0.9 and not torch.equal(rotation, random_rotation(24, 1))


def test_logits_are_the_same_and_streams_are_turned(tiny_sparse):
    for options in ({}, {"activation_fraction": None, "position": "concat", "norm_gain": True}):
        inner = tiny_sparse(0, **options)
        rotated = Rotated(inner, random_rotation(inner.d_model, 3))
        assert isinstance(rotated, ResidualStack)
        ids = torch.randint(29, (3, 9), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(rotated(ids), inner.logits(ids), atol=1e-4, rtol=1e-4)
        there, here = inner.run(ids).sites, rotated.run(ids).sites
        assert here.keys() == there.keys()
        for site, h in there.items():
            torch.testing.assert_close(here[site], h @ rotated.rotation, atol=1e-5, rtol=1e-4)
            assert (here[site] - h).norm() > 0.5 * h.norm()


def test_a_norm_without_gain_does_not_see_the_rotation():
    """What makes the rotated stack one of the same form: it can be written with turned weights and the same norm."""
    rotation, norm = random_rotation(8, 0), torch.nn.RMSNorm(8, elementwise_affine=False)
    h = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(norm(h @ rotation), norm(h) @ rotation)


def test_nodes_are_those_of_the_inner_stack(tiny_sparse):
    inner = tiny_sparse()
    rotated = Rotated(inner, random_rotation(inner.d_model, 3))
    ids = torch.randint(29, (3, 9), generator=torch.Generator().manual_seed(0))
    with record(inner) as there:
        inner.logits(ids)
    with record(rotated) as here:
        rotated.logits(ids)
    assert here.keys() == there.keys()
    for point, value in there.items():
        torch.testing.assert_close(here[point], value, atol=1e-4, rtol=1e-4)
    off = {"1.mlp_neuron": lambda x: 0 * x}
    with intervene(inner, off):
        expected = inner.logits(ids)
    with intervene(rotated, off):
        torch.testing.assert_close(rotated.logits(ids), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(rotated.logits(ids), expected, atol=1e-2)


def test_it_is_frozen_and_passes_gradients_on(tiny_sparse):
    inner = tiny_sparse()
    rotated = Rotated(inner, random_rotation(inner.d_model, 3)).train()
    assert not rotated.training and not any(p.requires_grad for p in rotated.parameters())
    assert "rotation" in rotated.state_dict()
    h = torch.randn(1, 4, inner.d_model, requires_grad=True)
    rotated.run_segment(h, 1, 4).square().sum().backward()
    assert h.grad is not None and h.grad.abs().sum() > 0
