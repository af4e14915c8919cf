"""Training on prompts: what answers count for, dense streams that are kept, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from torch.distributions import Categorical, kl_divergence

from bridges.bridge import fit_ridge
from bridges.config import BridgeConfig, Config, DataConfig, SparseConfig, TermConfig, TrainConfig
from bridges.data.blocks import TokenBlocks
from bridges.hybrid import Path, path_logits
from bridges.training.crossings import Crossings
from bridges.training.loop import Trainer
from bridges.training.refit import refit_steps
from bridges.training.stored import StoredStreams, stored_bytes
from bridges.training.terms import Objective
from bridges.training.timing import _typical, _work, time_step

COEFFICIENTS = {"kl": 0.5, "kl_d2s": 0.7, "kl_s2d": 1.5}
VOCAB = 29

# --- the term of the answers ------------------------------------------------------------------------------------------


def _answer_kl(p, path: Path) -> torch.Tensor:
    """KL to the dense model at the position before the last token, from whole logits."""
    with torch.no_grad():
        dense = p.dense.logits(p.ids)[:, -2]
    logits = path_logits(path, p.dense, p.sparse, p.bridges, p.ids)[:, -2]
    return kl_divergence(Categorical(logits=dense), Categorical(logits=logits)).mean()


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("term", ["kl", "kl_d2s", "kl_s2d", "all"])
def test_answers_count_so_much_more(tiny_pair, term, prefix):
    p, answer = tiny_pair, 3.0
    if prefix:
        p.ids[:, 0] = 7
        p.bridges.constant_prefix = prefix
    coefficients = COEFFICIENTS if term == "all" else {term: COEFFICIENTS[term]}
    d2s, s2d = Crossings((0, 3), (2.0, 0.5)), Crossings((1, 4), (1.0, 4.0))
    plain = Objective(p.dense, p.sparse, p.bridges, coefficients)(p.ids, d2s, s2d, answered=True)
    more = Objective(p.dense, p.sparse, p.bridges, coefficients, answer=answer)(p.ids, d2s, s2d, answered=True)
    expected = torch.zeros(())
    if "kl" in coefficients:
        expected = expected + coefficients["kl"] * _answer_kl(p, Path("S"))
    for name, first, crossings in (("kl_d2s", "D", d2s), ("kl_s2d", "S", s2d)):
        if name in coefficients:
            for b, weight in zip(crossings.bridges, crossings.weights, strict=True):
                expected = expected + coefficients[name] * weight * _answer_kl(p, Path(first, (b,)))
    expected = answer * expected
    assert float(expected.detach()) > 0.01
    torch.testing.assert_close(more.weighted["answer"], expected.detach())
    torch.testing.assert_close(more.total - plain.total, expected)
    assert more.values.keys() == plain.values.keys()
    for name, value in plain.values.items():
        torch.testing.assert_close(more.values[name], value)
    torch.testing.assert_close(more.total, torch.stack(list(more.weighted.values())).sum())
    # Its gradient is that of the formula.
    parameters = [q for q in (*p.sparse.parameters(), *p.bridges.parameters()) if q.requires_grad]
    mine, base, true = (
        torch.autograd.grad(total, parameters, allow_unused=True) for total in (more.total, plain.total, expected)
    )
    for a, b, c in zip(mine, base, true, strict=True):
        zero = torch.zeros(())
        difference = (zero if a is None else a) - (zero if b is None else b)
        assert torch.isfinite(difference).all()
        torch.testing.assert_close(difference, (zero if c is None else c).expand_as(difference), rtol=1e-3, atol=2e-5)


def test_ordinary_text_has_no_answer(tiny_pair):
    p = tiny_pair
    found = [
        Objective(p.dense, p.sparse, p.bridges, COEFFICIENTS, answer=answer)(
            p.ids, range(5), range(5), answered=answered
        )
        for answer, answered in ((3.0, False), (0.0, True), (0.0, False))
    ]
    assert all("answer" not in losses.weighted for losses in found)
    assert len({float(losses.total.detach()) for losses in found}) == 1


# --- kept streams and whole trainings ---------------------------------------------------------------------------------


def _prompts(seed: int = 0) -> TokenBlocks:
    """Prompts of 6 and 8 tokens whose answer is their second token, and ordinary rows of 10; all begin with 28."""
    rng = np.random.default_rng(seed)
    lengths = np.array([6] * 14 + [8] * 10 + [10] * 8)
    ids = rng.integers(0, VOCAB - 1, (32, 10)).astype(np.int32)
    ids[:, 0] = VOCAB - 1
    for i, n in enumerate(lengths):
        ids[i, n - 1] = ids[i, 1]
        ids[i, n:] = VOCAB - 1
    answered = lengths < 10
    return TokenBlocks(
        {"train": ids, "validation": ids[:4], "test": ids[:4]},
        {"train": 32},
        "prompts",
        lengths={"train": lengths, "validation": lengths[:4], "test": lengths[:4]},
        answered={"train": answered, "validation": answered[:4], "test": answered[:4]},
    )


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def make_trainer(make_pair, accelerator, tmp_path) -> Callable[..., Trainer]:
    """``make_trainer(folder, seed, steps, log_row, **train settings)`` on prompts."""

    def make(
        folder="run", seed=0, steps=24, log_row=lambda row, step: None, refit=0, keep_bridges=False, **train
    ) -> Trainer:
        pair, data = make_pair(seed), _prompts()
        settings = {"batch": 4, "lr": 0.01, "precision": "fp32", "log_every": 1, "checkpoint_every": 100}
        settings |= {"terms": TermConfig(ce=0, kl=4, answer=1), "hybrid_sites": "1", "hybrid_sampling": "importance"}
        settings |= train
        # A little less than so many steps, which rounding up must not exceed.
        settings["tokens"] = int(steps * settings["batch"] * data.mean_length - 1)
        config = Config(
            sparsity=0.3,
            data=DataConfig(context=10, focus=0.5),
            sparse=SparseConfig(floor=2),
            train=TrainConfig(**settings),
            bridge=BridgeConfig(refit=refit),
        )
        pair.bridges.constant_prefix = 1
        return Trainer(
            config,
            make_pair(0).dense,
            pair.sparse,
            pair.bridges,
            data,
            accelerator,
            tmp_path / folder,
            log_row,
            keep_bridges=keep_bridges,
        )

    return make


def test_kept_streams_are_those_of_the_dense_model(make_trainer):
    trainer = make_trainer()
    assert trainer.store()
    for step in range(9):
        ids = trainer.micro_batches(step)[0]
        kept, fresh = trainer._stored(step, ids.shape[1]), trainer.dense.run(ids)
        assert set(kept.sites) == {pair.dense for pair in trainer.bridges.pairs}
        for site, h in kept.sites.items():
            assert h.shape == fresh.sites[site].shape and h.dtype == torch.float32
            torch.testing.assert_close(h, fresh.sites[site], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(kept.final[0], fresh.final[0], rtol=1e-5, atol=1e-5)


def test_losses_and_gradients_with_kept_streams_are_the_same(make_trainer):
    kept, plain = make_trainer("kept"), make_trainer("plain")
    assert kept.store() and plain.stored is None
    kinds = set()
    for step in range(9):
        a, b = kept.gradients(step), plain.gradients(step)
        assert a.keys() == b.keys()
        kinds.add("answer_weighted" in a)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)
        for p, q in zip(kept.parameters, plain.parameters, strict=True):
            if p.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)
        for trainer in (kept, plain):
            trainer.optimizer.zero_grad()
    assert kinds == {True, False}


def test_streams_kept_in_half_the_bytes_are_near(make_trainer):
    trainer = make_trainer()
    sites = [pair.dense for pair in trainer.bridges.pairs]
    device = torch.device("cpu")
    stored = StoredStreams(trainer.dense, trainer.data, sites, torch.bfloat16, device, nullcontext)
    assert stored.kept.dtype == torch.bfloat16
    rows = trainer.data.rows(3, 4, 0)
    ids = trainer.data.batch(3, 4, 0)
    for site, h in stored(rows, ids.shape[1]).sites.items():
        torch.testing.assert_close(h, trainer.dense.run(ids).sites[site], rtol=1e-2, atol=1e-2)


def test_what_is_worth_keeping(monkeypatch):
    data, size = _prompts(), 32 * 10 * 5 * 64 * 4
    config = Config(train=TrainConfig(batch=8))
    machine = SimpleNamespace(total=2**30)
    monkeypatch.setattr("bridges.training.stored.psutil.virtual_memory", lambda: machine)
    assert stored_bytes(config, data, 8, 5, 64, "fp32") == size
    assert stored_bytes(config, data, 7, 5, 64, "fp32") == 0, "each row is read less than twice"
    assert stored_bytes(Config(train=TrainConfig(batch=8, accumulate=2)), data, 8, 5, 64, "fp32") == 0
    ordinary = TokenBlocks(data.blocks, data.documents, "x")
    assert stored_bytes(config, ordinary, 1000, 5, 64, "fp32") == 0
    machine.total = 5 * size - 5
    assert stored_bytes(config, data, 8, 5, 64, "fp32") == 0
    assert stored_bytes(config, data, 8, 5, 64, "bf16") == size // 2


class Stopped(Exception):
    """What an interrupted training ends with here."""


@pytest.mark.parametrize(("keep", "refit"), [(True, 0), (False, 0), (True, 4)])
def test_an_interrupted_training_on_prompts_goes_on_bit_for_bit(make_trainer, keep, refit):
    def stop(row, step) -> None:
        if step == 8:
            raise Stopped

    whole = make_trainer("whole", refit=refit)
    assert not keep or whole.store()
    rows, _ = whole.fit()
    assert len(rows) == 24 and rows["answer_weighted"].isna().any() and rows["answer_weighted"].notna().any()
    first = make_trainer("cut", log_row=stop, checkpoint_every=5, refit=refit)
    assert not keep or first.store()
    with pytest.raises(Stopped):
        first.fit()
    second = make_trainer("cut", seed=9, checkpoint_every=100, refit=refit)
    assert second.restore() and second.progress.step == 5
    assert not keep or second.store()
    assert time_step(second) > 0
    resumed, _ = second.fit()
    pd.testing.assert_frame_equal(resumed, rows, check_exact=True, check_like=True)
    for mine, theirs in ((second.sparse, whole.sparse), (second.bridges, whole.bridges)):
        state = theirs.state_dict()
        assert [name for name, value in mine.state_dict().items() if not torch.equal(value, state[name])] == []


def test_bridges_that_come_trained_are_never_fitted_anew(make_trainer):
    assert make_trainer(refit=4).refits and not make_trainer(refit=4, keep_bridges=True).refits


def test_fits_of_the_bridges_count_into_the_time_of_a_step(make_trainer, monkeypatch):
    trainer = make_trainer(steps=20, refit=5)
    clock, rows = [0.0], []
    monkeypatch.setattr("bridges.training.timing.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("bridges.training.timing._PART", 2)
    run = trainer.sparse.run

    def costly(ids):
        clock[0] += 3.0
        rows.append(len(ids))
        return run(ids)

    monkeypatch.setattr(trainer.sparse, "run", costly)
    monkeypatch.setattr(trainer, "gradients", lambda step: None)
    monkeypatch.setattr(trainer, "rescale_gradients", lambda: 0.0)
    bridges = {name: value.clone() for name, value in trainer.bridges.state_dict().items()}
    # Text of 32 rows in groups of at most four of one length: nine, of which five are run; five fits in twenty steps.
    assert time_step(trainer) == pytest.approx(5 * 9 * 3.0 / 20)
    assert len(rows) == 5
    assert all(torch.equal(value, bridges[name]) for name, value in trainer.bridges.state_dict().items())
    trainer.progress.step = 19
    assert time_step(trainer) == pytest.approx(9 * 3.0)


def test_a_usual_step_stands_for_the_others(make_trainer, monkeypatch):
    """Of rows of 6, 8 and 10 tokens, and crossings at any bridge, one near the mean."""
    trainer = make_trainer(steps=40, hybrid_sites="1")
    work = np.array([_work(trainer, step) for step in range(40)])
    assert work.max() > 1.5 * work.min()
    assert work[_typical(trainer, 0, 40)] == pytest.approx(work.mean(), rel=0.1)
    # Longer rows and crossings further down take more.
    monkeypatch.setattr(trainer, "sampler", lambda step: (Crossings((step,), (1.0,)), Crossings((), ())))
    data, lengths = trainer.data, trainer.data.lengths["train"]
    monkeypatch.setattr(data, "rows", lambda step, size, seed: np.flatnonzero(lengths == 6)[:4])
    by_site = [_work(trainer, bridge) for bridge in range(5)]
    assert by_site == sorted(by_site, reverse=True) and by_site[0] > 1.5 * by_site[-1]
    monkeypatch.setattr(data, "rows", lambda step, size, seed: np.flatnonzero(lengths == 10)[:4])
    assert _work(trainer, 0) == pytest.approx(by_site[0] * 10 / 6)


def test_a_training_on_prompts_learns_the_answers(make_trainer):
    trainer = make_trainer(steps=60, terms=TermConfig(ce=0, kl=4, answer=4), hybrid_sites="all", lr=0.02)
    trainer.store()
    rows, _ = trainer.fit()
    answers = rows["answer_weighted"].dropna()
    assert answers.tail(10).mean() < 0.7 * answers.head(10).mean()
    assert rows["kl"].tail(10).mean() < 0.8 * rows["kl"].head(10).mean()


@pytest.mark.parametrize("keep", [True, False])
def test_bridges_that_are_fitted_anew_are_as_good_as_a_regression(make_trainer, keep):
    assert refit_steps(24, 4) == {6, 12, 17, 23} and refit_steps(24, 0) == set() and refit_steps(1, 3) == {0}

    def errors(trainer: Trainer) -> tuple[float, float]:
        """Squared errors of the decoders as trained and of a regression between the finished models' streams."""
        start, found = trainer.bridges.constant_prefix, []
        fitted = trainer.bridges.like(5)
        streams = [
            (trainer.dense.run(ids).sites, trainer.sparse.run(ids).sites)
            for ids in trainer.data.chunks("train", 40, 40)
        ]
        with torch.no_grad():
            fit_ridge(fitted, streams)
            for bridges in (trainer.bridges, fitted):
                parts = [
                    (bridge.decode(s[pair.sparse]) - d[pair.dense])[:, start:].square().mean()
                    for d, s in streams
                    for pair, bridge in zip(bridges.pairs, bridges, strict=True)
                ]
                found.append(float(torch.stack(parts).mean()))
        return found[0], found[1]

    trained = {}
    for refit in (0, 4):
        trainer = make_trainer(f"refit-{refit}", refit=refit, anneal=0.5, anneal_shape="exponential")
        assert not keep or trainer.store()
        trainer.fit()
        trained[refit] = errors(trainer)
    mine, regression = trained[4]
    assert mine < 1.1 * regression
    # Without it, so few steps leave the bridges behind.
    assert trained[0][0] > 1.5 * trained[0][1]
