"""Site pairing, the bridges' maps by hand, their closed-form start, and their files."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import torch

from bridges.bridge import Bridge, Bridges, SitePair, fit_ridge, measure_scales, pair_sites
from bridges.errors import CheckpointError, ConfigError


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


def test_scales_are_the_typical_sizes_of_the_tokens_and_follow_the_sparse_stream():
    bridges = Bridges(2, 4, [SitePair(0, 0), SitePair(3, 2)], None)
    # RMS of the tokens at site 0: 1, 5 (of (1, 7)) and 2; at site 3 ten times as much.
    stream = torch.tensor([[[1.0, -1.0], [1.0, 7.0], [2.0, 2.0]]])
    measure_scales(bridges, {0: stream, 1: stream * 99, 3: 10 * stream}, {0: stream, 1: stream, 2: 3 * stream})
    assert float(bridges[0].scale) == pytest.approx(2.0)
    assert float(bridges[1].scale) == pytest.approx(20.0)
    assert float(bridges[0].sparse_scale) == pytest.approx(8 / 3)
    assert float(bridges[1].sparse_scale) == pytest.approx(8.0)
    bridges.follow(torch.tensor([8 / 3, 18.0]), rate=0.1)
    assert float(bridges[0].sparse_scale) == pytest.approx(8 / 3)
    assert float(bridges[1].sparse_scale) == pytest.approx(9.0)


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
        x = torch.cat([b[0][site].flatten(0, 1) for b in batches]).double() / float(bridge.scale)
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
