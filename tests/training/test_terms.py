"""The stacked objective against the plain one, term by term."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from bridges.bridge import measure_scales
from bridges.cli.bench import plain_objective, plain_operations
from bridges.hybrid import Path, path_logits
from bridges.losses import nmse
from bridges.stack import Streams
from bridges.training.moments import Moments
from bridges.training.terms import TERMS, Objective

COEFFICIENTS = {"ce": 1.0, "kl": 0.5, "nmse_encoder": 2.0, "nmse_decoder": 0.25, "kl_d2s": 0.7, "kl_s2d": 1.5}
ALL = range(5)


def _objective(p, coefficients, **options) -> Objective:
    return Objective(p.dense, p.sparse, p.bridges, coefficients, **options)


def _trained(p) -> dict[str, Tensor]:
    return {**dict(p.sparse.named_parameters()), **{f"bridges.{n}": q for n, q in p.bridges.named_parameters()}}


def _gradients(p, value: Tensor) -> dict[str, Tensor]:
    parameters = _trained(p)
    if not value.requires_grad:
        return {name: torch.zeros_like(q) for name, q in parameters.items()}
    grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(q) if grad is None else grad
        for (name, q), grad in zip(parameters.items(), grads, strict=True)
    }


def _assert_same(mine: dict[str, Tensor], true: dict[str, Tensor]) -> None:
    assert mine.keys() == true.keys()
    for name, grad in true.items():
        torch.testing.assert_close(mine[name], grad, rtol=1e-3, atol=2e-5, msg=lambda t, name=name: f"{name}: {t}")


def _direct(p, term: str, sites: Sequence[int] = ALL, detach: bool = True) -> Tensor:
    """One term from its formula, over logits held all at once and one hybrid after the other."""
    with torch.no_grad():
        dense = Categorical(logits=p.dense.logits(p.ids))
        h_dense = p.dense.run(p.ids).sites
    if term in ("ce", "kl"):
        logits = p.sparse.logits(p.ids)
        if term == "ce":
            return F.cross_entropy(logits[:, :-1].reshape(-1, 29), p.ids[:, 1:].reshape(-1))
        return kl_divergence(dense, Categorical(logits=logits)).mean()
    total = torch.zeros(())
    h_sparse = p.sparse.run(p.ids).sites
    for i in sites:
        x, y, bridge = h_dense[p.bridges.pairs[i].dense], h_sparse[p.bridges.pairs[i].sparse], p.bridges[i]
        if term == "nmse_encoder":
            total = total + nmse(bridge.encode(x), y.detach() if detach else y, y.detach().mean((0, 1)))
        elif term == "nmse_decoder":
            total = total + nmse(bridge.decode(y), x, x.mean((0, 1)))
        else:
            path = Path("D" if term == "kl_d2s" else "S", (i,))
            logits = path_logits(path, p.dense, p.sparse, p.bridges, p.ids)
            total = total + kl_divergence(dense, Categorical(logits=logits)).mean()
    return total


def test_total_is_the_sum_of_the_weighted_terms(tiny_pair):
    losses = _objective(tiny_pair, COEFFICIENTS)(tiny_pair.ids, ALL, ALL)
    assert set(losses.values) == set(losses.weighted) == set(TERMS)
    torch.testing.assert_close(losses.total, torch.stack(list(losses.weighted.values())).sum())
    for term, coefficient in COEFFICIENTS.items():
        torch.testing.assert_close(losses.weighted[term], coefficient * losses.values[term])
        assert not losses.values[term].requires_grad and not losses.weighted[term].requires_grad


def test_autocast_rounds_no_reported_value(tiny_pair):
    with torch.autocast("cpu", torch.bfloat16):
        losses = _objective(tiny_pair, COEFFICIENTS)(tiny_pair.ids, [0, 2], [1, 3])
    assert all(value.dtype == torch.float32 for value in losses.values.values())
    for term in ("kl_d2s", "kl_s2d"):
        torch.testing.assert_close(losses.values[term], losses.crossed[term].sum() * 5 / 2, rtol=1e-6, atol=0)
    torch.testing.assert_close(losses.total, torch.stack(list(losses.weighted.values())).sum(), rtol=1e-6, atol=0)


def test_total_and_gradients_equal_the_plain_objective(make_pair):
    p = make_pair(dense={"n_layer": 3})
    mine = _objective(p, dict.fromkeys(TERMS, 1.0))(p.ids, ALL, ALL).total
    plain = plain_objective(p.dense, p.sparse, p.bridges, p.ids)
    torch.testing.assert_close(mine, plain)
    with plain_operations():
        textbook = plain_objective(p.dense, p.sparse, p.bridges, p.ids)
        true = _gradients(p, textbook)
    torch.testing.assert_close(mine, textbook)
    _assert_same(_gradients(p, mine), true)
    assert all(grad.any() for grad in true.values())


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_has_the_value_and_gradient_of_its_formula(tiny_pair, term):
    p = tiny_pair
    losses = _objective(p, {term: 1.3})(p.ids, ALL, ALL)
    true = _direct(p, term)
    assert set(losses.values) == {term}
    torch.testing.assert_close(losses.values[term], true.detach())
    torch.testing.assert_close(losses.total.detach(), 1.3 * true.detach())
    _assert_same(_gradients(p, losses.total), _gradients(p, 1.3 * true))


@pytest.fixture
def calls(tiny_pair, monkeypatch):
    """How often each bridge and each stack is run."""
    count = {"encode": 0, "decode": 0, "dense": 0, "sparse streams": 0}

    def counted(name, plain):
        def function(h):
            count[name] += 1
            return plain(h)

        return function

    for bridge in tiny_pair.bridges.bridges:
        for name in ("encode", "decode"):
            monkeypatch.setattr(bridge, name, counted(name, getattr(bridge, name)))
    dense_run, sparse_run = tiny_pair.dense.run_from, tiny_pair.sparse.run_from

    def run_dense(entries, **options):
        count["dense"] += 1
        return dense_run(entries, **options)

    def run_sparse(entries, **options):
        count["sparse streams"] += len(entries)
        return sparse_run(entries, **options)

    monkeypatch.setattr(tiny_pair.dense, "run_from", run_dense)
    monkeypatch.setattr(tiny_pair.sparse, "run_from", run_sparse)
    return count


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (("ce",), {"encode": 0, "decode": 0, "dense": 1, "sparse streams": 1}),
        (("ce", "nmse_encoder"), {"encode": 5, "decode": 0, "dense": 1, "sparse streams": 1}),
        (("kl", "nmse_decoder"), {"encode": 0, "decode": 5, "dense": 1, "sparse streams": 1}),
        (("kl_d2s",), {"encode": 5, "decode": 0, "dense": 1, "sparse streams": 6}),
        (("kl_s2d",), {"encode": 0, "decode": 5, "dense": 2, "sparse streams": 1}),
    ],
)
def test_an_absent_term_is_not_computed(tiny_pair, calls, terms, expected):
    losses = _objective(tiny_pair, dict.fromkeys(terms, 1.0))(tiny_pair.ids, ALL, ALL)
    assert calls == expected
    assert set(losses.values) == set(terms)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_with_coefficient_zero_is_logged_and_gives_no_gradient(tiny_pair, term):
    p = tiny_pair
    other = "kl" if term == "ce" else "ce"
    losses = _objective(p, {other: 1.0, term: 0.0})(p.ids, ALL, ALL)
    torch.testing.assert_close(losses.values[term], _direct(p, term).detach())
    assert float(losses.weighted[term]) == 0
    torch.testing.assert_close(losses.total.detach(), _direct(p, other).detach())
    _assert_same(_gradients(p, losses.total), _gradients(p, _direct(p, other)))


@pytest.mark.parametrize("term", ["kl_d2s", "kl_s2d"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_mean_over_all_samples_of_sites_is_the_full_sum(tiny_pair, term, size):
    p = tiny_pair
    objective = _objective(p, {term: 1.0})
    full = objective(p.ids, ALL, ALL)
    samples = [(i,) for i in ALL] if size == 1 else [(i, j) for i in ALL for j in range(i)]
    drawn = [objective(p.ids, sites, sites) for sites in samples]
    torch.testing.assert_close(torch.stack([d.values[term] for d in drawn]).mean(), full.values[term])
    total = torch.stack([d.total for d in drawn]).mean()
    torch.testing.assert_close(total, full.total)
    _assert_same(_gradients(p, total), _gradients(p, full.total))
    torch.testing.assert_close(drawn[0].values[term], 5 / size * _direct(p, term, samples[0]).detach())


def test_each_direction_has_its_own_sample(tiny_pair):
    p = tiny_pair
    losses = _objective(p, {"kl_d2s": 1.0, "kl_s2d": 1.0})(p.ids, [1], [2, 4])
    torch.testing.assert_close(losses.values["kl_d2s"], 5 * _direct(p, "kl_d2s", [1]).detach())
    torch.testing.assert_close(losses.values["kl_s2d"], 2.5 * _direct(p, "kl_s2d", [2, 4]).detach())


@pytest.mark.parametrize("detach", [True, False])
def test_the_encoder_s_target_is_drawn_only_where_it_is_not_detached(tiny_pair, detach):
    p = tiny_pair
    total = _objective(p, {"nmse_encoder": 1.0}, detach_encoder_target=detach)(p.ids, ALL, ALL).total
    mine = _gradients(p, total)
    _assert_same(mine, _gradients(p, _direct(p, "nmse_encoder", detach=detach)))
    assert mine["bridges.bridges.2.encoder.weight"].any()
    drawn = any(grad.any() for name, grad in mine.items() if not name.startswith("bridges."))
    assert drawn != detach


def test_the_decoder_draws_the_sparse_stream(tiny_pair):
    p = tiny_pair
    grads = _gradients(p, _objective(p, {"nmse_decoder": 1.0})(p.ids, ALL, ALL).total)
    assert grads["tokens.weight"].any() and grads["bridges.bridges.0.decoder.weight"].any()
    assert not any(grad.any() for name, grad in grads.items() if ".encoder." in name)


def test_shared_moments_are_what_normalises(tiny_pair):
    p = tiny_pair

    def moments_of(h):
        return Moments(Moments.of(h).mean + 1, Moments.of(h).square * 1e4)

    losses = _objective(p, {"nmse_decoder": 1.0}, moments_of=moments_of)(p.ids, ALL, ALL)
    with torch.no_grad():
        dense, sparse = p.dense.run(p.ids).sites, p.sparse.run(p.ids).sites
        estimates = {i: p.bridges[i].decode(sparse[i]) for i in ALL}
        moments = {i: moments_of(dense[i]) for i in ALL}
        true = sum(nmse(estimates[i], dense[i], moments[i].mean, moments[i].variance) for i in ALL)
        # With so large a variance every deviation lies below the floor, a tenth of it.
        floored = sum(((estimates[i] - dense[i]) ** 2).sum(-1).mean() / (0.1 * moments[i].variance) for i in ALL)
    torch.testing.assert_close(losses.values["nmse_decoder"], true)
    torch.testing.assert_close(losses.values["nmse_decoder"], floored)


def test_measured_bridges_hold_the_decoder_against_the_text_and_not_the_batch(tiny_pair):
    p = tiny_pair
    dense, sparse = p.dense.run(p.ids).sites, p.sparse.run(p.ids).sites
    measure_scales(p.bridges, dense, sparse)
    # All sequences of the batch are one: its own moments say little of the text.
    ids = p.ids[:1].expand(3, -1)
    losses = _objective(p, {"nmse_encoder": 1.0, "nmse_decoder": 1.0})(ids, ALL, ALL)
    x, y, expected = p.dense.run(ids).sites, p.sparse.run(ids).sites, {"encoder": 0.0, "decoder": 0.0}
    with torch.no_grad():
        for pair, bridge in zip(p.bridges.pairs, p.bridges, strict=True):
            h, own = x[pair.dense], y[pair.sparse]
            text = dense[pair.dense].flatten(0, 1)
            expected["decoder"] += float(nmse(bridge.decode(own), h, text.mean(0), text.var(0, correction=0).sum()))
            expected["encoder"] += float(nmse(bridge.encode(h), own, own.mean((0, 1))))
    for name, value in expected.items():
        assert float(losses.values[f"nmse_{name}"]) == pytest.approx(value, rel=1e-4)


def test_a_massive_token_does_not_hide_the_others_errors(tiny_pair):
    p = tiny_pair
    plain = p.dense.run(p.ids)
    measure_scales(p.bridges, plain.sites, p.sparse.run(p.ids).sites)
    massive = {site: h.clone() for site, h in plain.sites.items()}
    for h in massive.values():
        h[0, 0, 3] = 1e4
    objective = _objective(p, {"nmse_decoder": 1.0})
    values = [
        float(objective(p.ids, ALL, ALL, dense=Streams(plain.final, sites)).values["nmse_decoder"])
        for sites in (plain.sites, massive)
    ]
    # It is one token of fifty, and is missed by all that it deviates, which counts as one at each of five bridges.
    with torch.no_grad():
        own = p.sparse.run(p.ids).sites
        before = 0.0
        for pair, bridge in zip(p.bridges.pairs, p.bridges, strict=True):
            h, (mean, variance) = plain.sites[pair.dense], bridge.text_moments(torch.zeros(12), torch.zeros(()))
            before += float(nmse(bridge.decode(own[pair.sparse])[:1, :1], h[:1, :1], mean, variance))
    assert values[1] == pytest.approx(values[0] + (5 - before) / 50, rel=1e-2)


def test_moments_of_parts_are_those_of_the_whole(tiny_pair):
    p = tiny_pair
    objective = _objective(p, {"nmse_decoder": 1.0})
    whole, parts = objective.moments([p.ids[:4]]), objective.moments([p.ids[:2], p.ids[2:4]])
    for side in ("dense", "sparse"):
        for a, b in zip(getattr(whole, side), getattr(parts, side), strict=True):
            torch.testing.assert_close(a.mean, b.mean)
            torch.testing.assert_close(a.variance, b.variance)
    assert objective.normalises and not _objective(p, {"ce": 1.0}).normalises
