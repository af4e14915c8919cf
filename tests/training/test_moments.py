"""Moments against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from bridges.training.moments import Moments


def test_moments_by_hand():
    h = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], requires_grad=True)
    moments = Moments.of(h)
    assert moments.mean.tolist() == [4.0, 5.0] and not moments.mean.requires_grad
    assert float(moments.square) == (5 + 25 + 61 + 113) / 4
    assert float(moments.variance) == (9 + 9 + 1 + 1 + 1 + 1 + 9 + 9) / 4


def test_parts_average_to_the_whole():
    h = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)) + 2
    whole = Moments.of(h)
    parts = Moments.average([Moments.of(part) for part in h.chunk(3)])
    torch.testing.assert_close(parts.mean, whole.mean)
    assert float(parts.variance) == pytest.approx(float(h.flatten(0, 1).var(0, correction=0).sum()), rel=1e-5)


def test_a_constant_stream_has_no_negative_variance():
    assert float(Moments.of(torch.full((3, 5, 7), 0.1)).variance) >= 0
