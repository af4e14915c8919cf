"""The measured tables against logits held all at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from bridges.data.blocks import bigram_log_probabilities
from bridges.fidelity.hybrids import bootstrap_interval, bridge_errors, measure_paths, measure_table, site_table
from bridges.hybrid import Path, all_paths, path_logits
from bridges.losses import nmse

SETTINGS = {"bootstrap": 50, "seed": 3, "split": "test"}


def _per_sequence(logits: torch.Tensor, dense: torch.Tensor, ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    ce = F.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none").mean(1)
    kl = kl_divergence(Categorical(logits=dense), Categorical(logits=logits)).mean(1)
    return ce.double().numpy(), kl.double().numpy()


@pytest.mark.parametrize("batch", [2, 5])
def test_every_measured_path_equals_its_own_direct_run(tiny_pair, batch):
    p = tiny_pair
    paths = [*all_paths(5), Path.parse("D0-S1-D2-S2-D3"), Path.parse("S0-D1-S1-D4")]
    frame = measure_paths(paths, p.dense, p.sparse, p.bridges, p.ids, batch=batch, label="trained", **SETTINGS)
    assert list(frame["path"]) == [str(path) for path in paths]
    with torch.no_grad():
        dense = p.dense.logits(p.ids)
        for path, row in zip(paths, frame.itertuples(), strict=True):
            ce, kl = _per_sequence(path_logits(path, p.dense, p.sparse, p.bridges, p.ids), dense, p.ids)
            assert row.ce == pytest.approx(ce.mean(), rel=1e-4), row.path
            assert row.kl == pytest.approx(kl.mean(), rel=1e-4, abs=1e-5), row.path
            for name, values in (("ce", ce), ("kl", kl)):
                _, low, high = bootstrap_interval(values, 50, 3)
                measured = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
                assert measured == pytest.approx((low, high), rel=1e-4, abs=1e-5), row.path
            assert (row.kind, row.crossings) == (path.kind, len(path.crossings))
    pure = frame.set_index("path")
    assert pure.loc["D0", "kl"] == pytest.approx(0, abs=1e-6)
    assert (frame["n_sequences"] == 5).all() and (frame["n_tokens"] == 50).all()
    assert set(frame["split"]) == {"test"} and set(frame["bridges"]) == {"trained"}


def test_measured_paths_through_stacks_of_unequal_depth(make_pair):
    p = make_pair(dense={"n_layer": 3}, n_layer=1)
    paths = all_paths(len(p.bridges))
    frame = measure_paths(paths, p.dense, p.sparse, p.bridges, p.ids, batch=3, label="x", **SETTINGS).set_index("path")
    with torch.no_grad():
        dense = p.dense.logits(p.ids)
        for path in paths:
            ce, kl = _per_sequence(path_logits(path, p.dense, p.sparse, p.bridges, p.ids), dense, p.ids)
            assert frame.loc[str(path), "ce"] == pytest.approx(ce.mean(), rel=1e-4), path
            assert frame.loc[str(path), "kl"] == pytest.approx(kl.mean(), rel=1e-4, abs=1e-5), path


def test_bootstrap_against_a_slow_loop():
    values = np.array([0.3, 2.0, -1.0, 0.5, 4.0, 4.0])
    index = np.random.default_rng(7).integers(0, 6, (200, 6))
    means = sorted(sum(values[i] for i in row) / 6 for row in index)

    # The linear-interpolation percentile of 200 sorted draws lies between the neighbours of position 0.025·199.
    def percentile(q: float) -> float:
        at = q * 199
        below = int(at)
        return means[below] + (at - below) * (means[below + 1] - means[below])

    mean, low, high = bootstrap_interval(values, 200, 7)
    assert (mean, low, high) == pytest.approx((9.8 / 6, percentile(0.025), percentile(0.975)))


def test_bootstrap_is_deterministic_and_follows_the_normal_law():
    values = np.random.default_rng(0).normal(2.0, 3.0, 900)
    first = bootstrap_interval(values, 4000, 1)
    assert first == bootstrap_interval(values, 4000, 1)
    assert first != bootstrap_interval(values, 4000, 2)
    mean, low, high = first
    half = 1.96 * values.std() / 30
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - half, abs=0.1 * half) and high == pytest.approx(mean + half, abs=0.1 * half)


def test_bootstrap_of_two_values_and_of_one():
    assert bootstrap_interval(np.array([0.0, 1.0]), 500, 0) == (0.5, 0.0, 1.0)
    assert bootstrap_interval(np.array([1.25]), 10, 0) == (1.25, 1.25, 1.25)


def test_measured_table_is_the_table_s_own_cross_entropy_and_kl(tiny_pair, tiny_blocks):
    p = tiny_pair
    table = bigram_log_probabilities(tiny_blocks().blocks["train"], 29)
    frame = measure_table(table, p.dense, p.ids, batch=2, **SETTINGS)
    with torch.no_grad():
        ce, kl = _per_sequence(table[p.ids], p.dense.logits(p.ids), p.ids)
    (row,) = frame.to_dict("records")
    assert (row["path"], row["kind"], row["bridges"], row["crossings"]) == ("bigram", "bigram", "none", 0)
    assert row["ce"] == pytest.approx(ce.mean(), rel=1e-5) and row["kl"] == pytest.approx(kl.mean(), rel=1e-5)
    assert (row["ce_low"], row["ce_high"]) == pytest.approx(bootstrap_interval(ce, 50, 3)[1:], rel=1e-5)
    assert (row["kl_low"], row["kl_high"]) == pytest.approx(bootstrap_interval(kl, 50, 3)[1:], rel=1e-5)
    assert (row["n_sequences"], row["n_tokens"], row["split"]) == (5, 50, "test")


@pytest.mark.parametrize("batch", [2, 5])
def test_bridge_errors_are_the_training_loss_over_all_sequences(make_pair, batch):
    p = make_pair(dense={"n_layer": 3})
    frame = bridge_errors(p.dense, p.sparse, p.bridges, p.ids, batch=batch)
    assert [(r.bridge, r.dense_site, r.sparse_site) for r in frame.itertuples()] == [
        (i, pair.dense, pair.sparse) for i, pair in enumerate(p.bridges.pairs)
    ]
    with torch.no_grad():
        dense, sparse = p.dense.run(p.ids).sites, p.sparse.run(p.ids).sites
        for row, pair in zip(frame.to_dict("records"), p.bridges.pairs, strict=True):
            x, y, bridge = dense[pair.dense], sparse[pair.sparse], p.bridges[row["bridge"]]
            for name, estimate, target in (("encoder", bridge.encode(x), y), ("decoder", bridge.decode(y), x)):
                mean = target.mean((0, 1))
                assert row[f"nmse_{name}"] == pytest.approx(float(nmse(estimate, target, mean)), rel=1e-4)
                fvu = float((estimate - target).square().sum() / (target - mean).square().sum())
                assert row[f"fvu_{name}"] == pytest.approx(fvu, rel=1e-4)


def test_site_table_takes_each_bridge_s_own_crossings():
    names = [str(path) for path in all_paths(3)]
    paths = pd.DataFrame(
        {
            "bridges": ["other"] * len(names) + ["mine"] * len(names),
            "path": names * 2,
            "kl": np.arange(2.0 * len(names)),
            "split": "test",
            "n_sequences": 4,
        }
    )
    paths["kl_low"], paths["kl_high"] = paths["kl"] - 0.25, paths["kl"] + 0.5
    sites = {"dense_site": [0, 5, 9], "sparse_site": [0, 1, 2]}
    errors = pd.DataFrame({"bridge": [0, 1, 2], **sites, "nmse_encoder": [3.0, 4, 5]})
    table = site_table(errors, paths.sample(frac=1, random_state=0), "mine")
    first = len(names)
    assert list(table["kl_d2s"]) == [first + 2, first + 3, first + 4]
    assert list(table["kl_s2d"]) == [first + 5, first + 6, first + 7]
    assert list(table["kl_d2s_low"]) == [first + 1.75, first + 2.75, first + 3.75]
    assert list(table["kl_s2d_high"]) == [first + 5.5, first + 6.5, first + 7.5]
    assert list(table["nmse_encoder"]) == [3, 4, 5] and list(table["dense_site"]) == [0, 5, 9]
    assert set(table["bridges"]) == {"mine"} and set(table["n_sequences"]) == {4} and set(table["split"]) == {"test"}
    assert "bridges" not in errors
