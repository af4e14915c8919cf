"""Stacked runs equal single ones, and identity bridges make every path the plain model."""

from __future__ import annotations

import pytest
import torch

from bridges.bridge import Bridges, pair_sites
from bridges.hybrid import all_paths, path_logits


def _streams(model, count: int, batch: int = 2, length: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(batch, length, model.d_model, generator=generator) for _ in range(count)]


def _alone(model, h: torch.Tensor, site: int) -> list[torch.Tensor]:
    sites = [h]
    for index in range(site, model.n_sublayers):
        sites.append(model.sublayer(index, sites[-1]))
    return sites


@pytest.fixture
def counted(tiny_sparse, monkeypatch):
    model = tiny_sparse()
    calls: list[int] = []
    plain = model.sublayer

    def sublayer(index, h):
        calls.append(index)
        return plain(index, h)

    monkeypatch.setattr(model, "sublayer", sublayer)
    return model, calls


def test_mapping_of_entries_equals_each_run_alone_and_calls_every_sublayer_once(counted):
    model, calls = counted
    starts = [3, 0, 4, 1]
    entries = dict(zip(starts, _streams(model, 4), strict=True))
    run = model.run_from(entries)
    assert calls == [0, 1, 2, 3]
    assert list(run.final) == starts
    assert run.sites == {}
    for site, h in entries.items():
        torch.testing.assert_close(run.final[site], _alone(model, h, site)[-1])


def test_sequence_of_entries_may_start_twice_at_one_site(counted):
    model, calls = counted
    starts = [2, 1, 2, 4, 4]
    entries = list(zip(starts, _streams(model, 5), strict=True))
    run = model.run_from(entries)
    assert calls == [1, 2, 3]
    assert list(run.final) == [0, 1, 2, 3, 4]
    for key, (site, h) in enumerate(entries):
        torch.testing.assert_close(run.final[key], _alone(model, h, site)[-1])


@pytest.mark.parametrize("record", [0, 1, 2, 3])
def test_recorded_entry_is_kept_at_every_site_from_its_own(tiny_sparse, record):
    model = tiny_sparse()
    entries = list(zip([2, 0, 2, 4], _streams(model, 4), strict=True))
    sites = model.run_from(entries, record=record).sites
    start, h = entries[record]
    assert list(sites) == list(range(start, 5))
    for mine, true in zip(sites.values(), _alone(model, h, start), strict=True):
        torch.testing.assert_close(mine, true)


def test_gradients_of_a_stacked_run_are_those_of_each_run_alone(tiny_sparse):
    model = tiny_sparse().requires_grad_(False)
    starts, streams = [1, 3, 1], [h.requires_grad_() for h in _streams(model, 3)]
    final = model.run_from(list(zip(starts, streams, strict=True))).final
    weights = _streams(model, 3)
    stacked = torch.autograd.grad(sum((w * final[i]).sum() for i, w in enumerate(weights)), streams)
    for start, h, w, grad in zip(starts, streams, weights, stacked, strict=True):
        (alone,) = torch.autograd.grad((w * _alone(model, h, start)[-1]).sum(), [h])
        torch.testing.assert_close(grad, alone)


@pytest.mark.parametrize("site", [-1, 5])
def test_a_site_outside_the_stack_is_an_error(tiny_sparse, site):
    model = tiny_sparse()
    h = _streams(model, 1)[0]
    with pytest.raises(IndexError, match=r"sites 0 to 4"):
        model.run_from({0: h, site: h})
    with pytest.raises(IndexError, match=rf"\[{site}\]"):
        model.run_from([(site, h)])


def test_no_entries_leave_nothing(tiny_sparse):
    run = tiny_sparse().run_from({})
    assert run.final == {} and run.sites == {}


def test_run_and_logits_are_the_composition_of_the_sublayers(tiny_sparse):
    model = tiny_sparse(position="learned")
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    sites = _alone(model, model.embed(ids), 0)
    run = model.run(ids)
    assert list(run.sites) == [0, 1, 2, 3, 4]
    for site, true in enumerate(sites):
        torch.testing.assert_close(run.sites[site], true)
    torch.testing.assert_close(run.final[0], sites[-1])
    torch.testing.assert_close(model.run_segment(sites[1], 1, 3), sites[3])
    torch.testing.assert_close(model.logits(ids), model.unembed(sites[-1], ids))


def test_identity_bridges_between_equal_stacks_give_the_plain_logits_on_every_path(tiny_sparse):
    model = tiny_sparse()
    bridges = Bridges(16, 16, pair_sites(4, 4), activation_fraction=None)
    with torch.no_grad():
        for bridge in bridges.bridges:
            for linear in (bridge.encoder, bridge.decoder):
                linear.weight.copy_(torch.eye(16))
                linear.bias.zero_()
    ids = torch.randint(29, (2, 7), generator=torch.Generator().manual_seed(1))
    plain = model.logits(ids)
    paths = all_paths(5)
    assert len(paths) == 42
    with torch.no_grad():
        for path in paths:
            torch.testing.assert_close(path_logits(path, model, model, bridges, ids), plain, msg=str(path))
