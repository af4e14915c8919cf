"""Site pairing, the bridges' maps by hand, their closed-form start, and their files."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bridges.bridge import CLIP, Bridge, Bridges, SitePair, fit_ridge, measure_scales, pair_sites
from bridges.errors import CheckpointError, ConfigError
from bridges.runs.initialise import shipped_pair
from bridges.sparse.ops import abs_topk


def _plain(pairs: list[SitePair]) -> list[tuple[int, int]]:
    return [(p.dense, p.sparse) for p in pairs]


def test_equal_depth_is_the_identity():
    assert _plain(pair_sites(8, 8)) == [(i, i) for i in range(9)]
    assert _plain(pair_sites(1, 1)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (None, [(5 * i, i) for i in range(13)]),
        (1, [(5 * i, i) for i in range(13)]),
        (2, [(0, 0), (10, 2), (20, 4), (30, 6), (40, 8), (50, 10), (60, 12)]),
        (3, [(0, 0), (15, 3), (30, 6), (45, 9), (60, 12)]),
        (4, [(0, 0), (20, 4), (40, 8), (60, 12)]),
        (5, [(0, 0), (25, 5), (50, 10), (60, 12)]),
        (6, [(0, 0), (30, 6), (60, 12)]),
        (7, [(0, 0), (35, 7), (60, 12)]),
        (11, [(0, 0), (55, 11), (60, 12)]),
        (12, [(0, 0), (60, 12)]),
        (99, [(0, 0), (60, 12)]),
    ],
)
def test_a_deep_dense_model_beside_a_shallow_sparse_one(every, expected):
    assert _plain(pair_sites(60, 12, every)) == expected


def test_a_shallow_dense_model_beside_a_deep_sparse_one():
    assert _plain(pair_sites(4, 12)) == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)]
    assert _plain(pair_sites(4, 12, 6)) == [(0, 0), (2, 6), (4, 12)]


def test_pairs_of_any_two_depths_rise_from_first_to_last():
    rng = random.Random(0)
    for _ in range(3000):
        n_dense, n_sparse = rng.randint(1, 70), rng.randint(1, 70)
        every = rng.choice([None, rng.randint(1, n_sparse + 3)])
        pairs = _plain(pair_sites(n_dense, n_sparse, every))
        case = (n_dense, n_sparse, every, pairs)
        assert pairs[0] == (0, 0) and pairs[-1] == (n_dense, n_sparse), case
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs)), case
        if every is None:
            assert len(pairs) == min(n_dense, n_sparse) + 1, case
        elif n_dense >= n_sparse:
            assert [s for _, s in pairs] == sorted({*range(0, n_sparse, every), n_sparse}), case
        assert all(abs(d - s * n_dense / n_sparse) <= max(1, n_dense / n_sparse) / 2 for d, s in pairs), case


@pytest.mark.parametrize("every", [0, -2])
def test_every_must_be_positive(every):
    with pytest.raises(ConfigError, match=r"bridge\.every"):
        pair_sites(4, 4, every)


def test_encoder_and_decoder_by_hand():
    bridge = Bridge(2, 3, kept=1)
    with torch.no_grad():
        bridge.scale.fill_(2.0)
        bridge.sparse_scale.fill_(4.0)
        bridge.encoder.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        bridge.encoder.bias.copy_(torch.tensor([0.0, 0.5, -1.0]))
        bridge.decoder.weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, -1.0]]))
        bridge.decoder.bias.copy_(torch.tensor([0.25, 0.0]))
    # (4, -6) / 2 = (2, -3) is encoded as (2, -2.5, -2), of which the largest magnitude stays, times 4.
    encoded = bridge.encode(torch.tensor([[[4.0, -6.0]]]))
    torch.testing.assert_close(encoded, torch.tensor([[[0.0, -10.0, 0.0]]]))
    torch.testing.assert_close(bridge.decode(torch.tensor([[[4.0, -4.0, 12.0]]])), torch.tensor([[[-1.5, -6.0]]]))


@pytest.mark.parametrize(("fraction", "kept"), [(None, 10), (1.0, 10), (0.25, 2), (0.01, 1)])
def test_share_of_an_encoded_vector_that_stays(fraction, kept):
    bridges = Bridges(6, 10, pair_sites(2, 2), fraction)
    assert len(bridges) == 3
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    for i in range(3):
        assert (bridges[i].encode(x).count_nonzero(dim=-1) == kept).all()


def test_initial_weights_follow_the_seed_alone():
    make = [Bridges(6, 10, pair_sites(2, 2), 0.25, seed) for seed in (3, 3, 4)]
    for (name, a), b, c in zip(make[0].state_dict().items(), *(m.state_dict().values() for m in make[1:]), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == (not name.endswith("weight"))


def test_every_dense_channel_is_standardised_and_clipped():
    bridge = Bridge(2, 2, kept=2)
    with torch.no_grad():
        bridge.mean.copy_(torch.tensor([10.0, -1.0]))
        bridge.scale.copy_(torch.tensor([2.0, 0.5]))
        bridge.clip.fill_(3.0)
        bridge.sparse_scale.fill_(4.0)
        bridge.encoder.weight.copy_(torch.eye(2))
        bridge.encoder.bias.zero_()
        bridge.decoder.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        bridge.decoder.bias.zero_()
    h = torch.tensor([[[12.0, -2.0], [1000.0, -1.0], [10.0, -900.0]]])
    # Deviations of (1, -2), (495, 0) and (0, -1798), cut off at 3; times 4.
    torch.testing.assert_close(bridge.encode(h), 4 * torch.tensor([[[1.0, -2.0], [3.0, 0.0], [0.0, -3.0]]]))
    # (8, 400) / 4 = (2, 100) turned round, and not cut off.
    torch.testing.assert_close(bridge.decode(torch.tensor([[[8.0, 400.0]]])), torch.tensor([[[210.0, 0.0]]]))


def test_the_decoded_change_is_the_difference_of_what_is_decoded(tiny_pair):
    generator = torch.Generator().manual_seed(0)
    h, delta = torch.randn(2, 3, 4, 16, generator=generator)
    for bridge in tiny_pair.bridges:
        with torch.no_grad():
            bridge.mean.normal_(generator=generator)
            bridge.scale.uniform_(0.5, 50, generator=generator)
            bridge.sparse_scale.fill_(0.3)
        difference = bridge.decode(h + delta) - bridge.decode(h)
        torch.testing.assert_close(bridge.decode_change(delta), difference, rtol=1e-4, atol=1e-3)
        assert bridge.decode_change(delta.bfloat16()).dtype == torch.float32


def test_means_and_scales_are_those_of_each_channel_and_the_sparse_one_is_followed():
    bridges = Bridges(2, 4, [SitePair(0, 0), SitePair(3, 2)], None)
    stream = torch.tensor([[[1.0, -1.0], [1.0, 7.0], [4.0, 3.0]]])
    measure_scales(bridges, {0: stream, 1: stream * 99, 3: 10 * stream}, {0: stream, 1: stream, 2: 3 * stream})
    for bridge, factor in zip(bridges, (1, 10), strict=True):
        torch.testing.assert_close(bridge.mean, factor * torch.tensor([2.0, 3.0]))
        torch.testing.assert_close(bridge.scale, factor * torch.tensor([2.0**0.5, (32 / 3) ** 0.5]))
        assert float(bridge.clip) == CLIP
    # RMS of the tokens: 1, 5 and the root of 12.5.
    typical = (1 + 5 + 12.5**0.5) / 3
    assert float(bridges[0].sparse_scale) == pytest.approx(typical)
    assert float(bridges[1].sparse_scale) == pytest.approx(3 * typical)
    bridges.follow(torch.tensor([typical, 3 * typical + 10]), rate=0.1)
    assert float(bridges[0].sparse_scale) == pytest.approx(typical)
    assert float(bridges[1].sparse_scale) == pytest.approx(3 * typical + 1)


def _with_massive_activations() -> tuple[torch.Tensor, torch.Tensor]:
    """A plain stream ``[4, 50, 6]``, and the same with massive activations in the first token and some others.

    One channel of both varies a hundred times as much as the rest, and one never varies.
    """
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(4, 50, 6, generator=generator) + 0.5
    plain[..., 4] *= 100
    plain[..., 5] = 7.0
    massive = plain.clone()
    massive[:, 0, 1] = 1e5
    massive[:, 7::20, 2] = -1e5
    return plain, massive


def test_massive_activations_do_not_decide_means_and_scales():
    plain, massive = _with_massive_activations()
    found = []
    for stream in (plain, massive):
        bridges = Bridges(6, 4, [SitePair(0, 0), SitePair(1, 1)], None)
        bridges.constant_prefix = 1
        measure_scales(bridges, {0: stream, 1: stream}, {0: plain[..., :4], 1: plain[..., :4]})
        found.append(bridges[0])
    torch.testing.assert_close(found[0].mean, found[1].mean, rtol=0.1, atol=3.0)
    torch.testing.assert_close(found[0].scale, found[1].scale, rtol=0.1, atol=0.01)
    assert found[1].scale[:5].tolist() == pytest.approx([1, 1, 1, 1, 100], rel=0.15)
    # A channel that does not vary is not blown up: 1 % of the mean deviation.
    assert float(found[1].scale[5]) == pytest.approx(0.01 * 104 / 6, rel=0.1)
    assert float(found[1].standardise(massive).abs().max()) == CLIP


def test_the_constant_prefix_is_left_out_of_scales_and_regression():
    generator = torch.Generator().manual_seed(0)
    dense, sparse = torch.randn(8, 20, 5, generator=generator), torch.randn(8, 20, 4, generator=generator)
    found = []
    for prefix, value in ((0, None), (2, 1e4), (2, -77.0)):
        start = 2 if value is None else 0
        x, y = dense[:, start:].clone(), sparse[:, start:].clone()
        if value is not None:
            x[:, :2], y[:, :2] = value, value
        bridges = Bridges(5, 4, [SitePair(0, 0), SitePair(1, 1)], None)
        bridges.constant_prefix = prefix
        streams = {0: x, 1: x}, {0: y, 1: y}
        measure_scales(bridges, *streams)
        fit_ridge(bridges, [streams])
        found.append({k: v for k, v in bridges.state_dict().items() if k != "_constant_prefix"})
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]) and torch.equal(value, found[2][name]), name
    with pytest.raises(ConfigError, match="longer than the constant prefix of 2"):
        measure_scales(bridges, {0: dense[:, :2], 1: dense}, {0: sparse, 1: sparse})
    with pytest.raises(ConfigError, match="-1"):
        bridges.constant_prefix = -1


def test_ridge_is_not_decided_by_tokens_with_massive_activations():
    """Ordinary tokens are decoded as well as without them."""
    plain, massive = _with_massive_activations()
    generator = torch.Generator().manual_seed(1)
    sparse = plain[..., :5] @ torch.randn(5, 9, generator=generator) + torch.randn(4, 50, 9, generator=generator)
    errors = []
    for stream in (plain, massive):
        bridges = Bridges(6, 9, [SitePair(0, 0), SitePair(1, 1)], None)
        streams = {0: stream, 1: stream}, {0: sparse, 1: sparse}
        measure_scales(bridges, *streams)
        fit_ridge(bridges, [streams])
        ordinary = torch.ones(50, dtype=torch.bool)
        ordinary[0] = ordinary[7::20] = False
        difference = (bridges[0].decode(sparse).detach() - plain)[:, ordinary] / bridges[0].scale
        errors.append(float(difference.square().mean()))
    # Without the clip on what is regressed on it would be about 5e7.
    assert errors[0] < 0.2 and errors[1] < 1


def _planted(d: int, s: int, n: int = 3):
    """Streams ``y = (x / scale) A + a`` at two site pairs with different maps, in ``n`` batches."""
    generator = torch.Generator().manual_seed(d)
    maps = {site: (torch.randn(d, s, generator=generator), torch.randn(s, generator=generator)) for site in (0, 4)}
    scales = {0: 3.0, 4: 0.5}
    batches = []
    for _ in range(n):
        dense = {site: scales[site] * torch.randn(2, 11, d, generator=generator) + 1.5 for site in (0, 4)}
        sparse = {site // 2: dense[site] / scales[site] @ maps[site][0] + maps[site][1] for site in (0, 4)}
        batches.append((dense, sparse))
    bridges = Bridges(d, s, [SitePair(0, 0), SitePair(4, 2)], None)
    for bridge, scale in zip(bridges.bridges, scales.values(), strict=True):
        bridge.scale.fill_(scale)
    return bridges, batches, list(maps.values())


def test_ridge_recovers_a_planted_affine_encoder_and_its_inverse():
    bridges, batches, maps = _planted(4, 6)
    fit_ridge(bridges, iter(batches), ridge=1e-12)
    for bridge, (weight, bias), site in zip(bridges.bridges, maps, (0, 4), strict=True):
        torch.testing.assert_close(bridge.encoder.weight, weight.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(bridge.encoder.bias, bias, rtol=1e-4, atol=1e-4)
        for dense, sparse in batches:
            torch.testing.assert_close(bridge.encode(dense[site]), sparse[site // 2], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(bridge.decode(sparse[site // 2]), dense[site], rtol=1e-3, atol=1e-3)


def test_ridge_is_the_textbook_solution_with_a_free_intercept():
    bridges, batches, _ = _planted(6, 3)
    noise = torch.Generator().manual_seed(9)
    batches = [(x, {k: v + torch.randn(v.shape, generator=noise) for k, v in y.items()}) for x, y in batches]
    fit_ridge(bridges, iter(batches), ridge=0.01)
    for bridge, site in zip(bridges.bridges, (0, 4), strict=True):
        x = torch.cat([b[0][site].flatten(0, 1) for b in batches]).double() / bridge.scale.double()
        y = torch.cat([b[1][site // 2].flatten(0, 1) for b in batches]).double()
        for linear, source, target in ((bridge.encoder, x, y), (bridge.decoder, y, x)):
            centred = source - source.mean(0)
            penalty = 0.01 * source.square().sum(0).mean() * torch.eye(source.shape[1], dtype=torch.float64)
            weight = torch.linalg.inv(centred.T @ centred + penalty) @ centred.T @ (target - target.mean(0))
            torch.testing.assert_close(linear.weight.double(), weight.T, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                linear.bias.double(), target.mean(0) - source.mean(0) @ weight, rtol=1e-4, atol=1e-5
            )


@pytest.fixture
def saved(tmp_path, tiny_pair):
    tiny_pair.bridges.save_pretrained(tmp_path / "bridges")
    return tmp_path / "bridges", tiny_pair


def test_what_is_loaded_is_what_was_saved(saved):
    folder, p = saved
    loaded = Bridges.from_pretrained(folder)
    assert loaded.pairs == p.bridges.pairs and loaded.config == p.bridges.config
    for (name, a), (other, b) in zip(p.bridges.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)
    x, y = torch.randn(2, 3, 12), torch.randn(2, 3, 16)
    for i in range(5):
        assert torch.equal(loaded[i].encode(x), p.bridges[i].encode(x))
        assert torch.equal(loaded[i].decode(y), p.bridges[i].decode(y))


def test_others_like_them_differ_in_their_weights_alone(tiny_pair):
    bridges = tiny_pair.bridges
    bridges.constant_prefix = 3
    bridges[1].sparse_scale.fill_(9.0)
    bridges[1].mean.fill_(2.0)
    bridges[1].clip.fill_(30.0)
    first, second = bridges.like(4), bridges.like(5)
    assert first.pairs == bridges.pairs and first.config == bridges.config and first.constant_prefix == 3
    for name, value in bridges.state_dict().items():
        same = torch.equal(value, first.state_dict()[name])
        assert same == ("coder" not in name), name
        assert torch.equal(first.state_dict()[name], second.state_dict()[name]) == (not name.endswith("weight"))


def _as_of_old(state: dict[str, torch.Tensor], scales: list[float]) -> dict[str, torch.Tensor]:
    """A state dict in the form of earlier versions: one scale a bridge, nothing else measured."""
    old = {name: value for name, value in state.items() if not name.endswith(("mean", "clip", "prefix"))}
    for i, scale in enumerate(scales):
        old[f"bridges.{i}.scale"] = torch.tensor(scale)
    return old


def test_bridges_of_earlier_versions_give_what_they_gave(saved):
    folder, p = saved
    scales = [0.37 + i for i in range(5)]
    save_file(_as_of_old(p.bridges.state_dict(), scales), folder / "bridges.safetensors")
    loaded = Bridges.from_pretrained(folder)
    assert loaded.constant_prefix == 0
    generator = torch.Generator().manual_seed(0)
    x, y = 50 * torch.randn(2, 3, 12, generator=generator), torch.randn(2, 3, 16, generator=generator)
    for bridge, scale in zip(loaded, scales, strict=True):
        # What encode and decode were, to the last bit.
        encoded = abs_topk(bridge.encoder(x / torch.tensor(scale)), bridge.kept).float() * bridge.sparse_scale
        decoded = bridge.decoder(y / bridge.sparse_scale).float() * torch.tensor(scale)
        assert torch.equal(bridge.encode(x), encoded) and torch.equal(bridge.decode(y), decoded)
    # A whole trained pair, as `load_state_dict` puts it into bridges that were measured before.
    p.bridges.constant_prefix = 2
    p.bridges.load_state_dict(_as_of_old(p.bridges.state_dict(), scales))
    assert p.bridges.constant_prefix == 0 and torch.equal(p.bridges[3].encode(x), loaded[3].encode(x))


def test_the_bridges_that_ship_give_what_they_gave():
    folder = shipped_pair("tinypython") / "bridges"
    loaded = Bridges.from_pretrained(folder)
    raw = {name: value.float() for name, value in load_file(folder / "bridges.safetensors").items()}
    generator = torch.Generator().manual_seed(0)
    for i, bridge in enumerate(loaded):
        get = {name: raw[f"bridges.{i}.{name}"] for name in ("scale", "sparse_scale")}
        x = get["scale"] * torch.randn(2, 7, 256, generator=generator)
        y = get["sparse_scale"] * torch.randn(2, 7, 512, generator=generator)
        up, down = (
            lambda h, part=part, i=i: F.linear(h, raw[f"bridges.{i}.{part}.weight"], raw[f"bridges.{i}.{part}.bias"])
            for part in ("encoder", "decoder")
        )
        if get["scale"].ndim == 0:
            assert torch.equal(bridge.encode(x), abs_topk(up(x / get["scale"]), 128) * get["sparse_scale"])
            assert torch.equal(bridge.decode(y), down(y / get["sparse_scale"]) * get["scale"])
        else:
            assert bridge.encode(x).isfinite().all() and bridge.decode(y).isfinite().all()


def _cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _wrong_width(folder) -> None:
    config = json.loads((folder / "bridges.json").read_text())
    (folder / "bridges.json").write_text(json.dumps(config | {"d_sparse": 17}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: _cut(f / "bridges.safetensors"),
        lambda f: (f / "bridges.safetensors").write_bytes(b""),
        lambda f: _cut(f / "bridges.json"),
        lambda f: (f / "bridges.json").write_text("{}"),
        lambda f: (f / "bridges.json").unlink(),
        lambda f: (f / "bridges.safetensors").unlink(),
        _wrong_width,
    ],
)
def test_damaged_files_are_a_checkpoint_error(saved, damage):
    folder, _ = saved
    damage(folder)
    with pytest.raises(CheckpointError, match="No readable bridges"):
        Bridges.from_pretrained(folder)
