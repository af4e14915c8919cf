"""What the progress bar of a training says."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from bridges.training.readings import Readings


def test_readings_are_means_over_steps_and_bridges():
    readings = Readings(bridges=4)
    readings.add({"total": 9.0, "kl": 1.0, "kl_d2s": 2.0, "kl_s2d": 8.0})
    assert readings.text() == "kl 1.00 d→s 0.50 s→d 2.00"
    for _ in range(200):
        readings.add({"total": 9.0, "kl": 3.0, "kl_d2s": 4.0, "kl_s2d": 6.0})
    assert readings.text() == "kl 3.00 d→s 1.00 s→d 1.50"
    # A single step moves a reading by no more than its share.
    readings.add({"total": 9.0, "kl": 13.0, "kl_d2s": 4.0, "kl_s2d": 6.0})
    assert readings.text().startswith("kl 4.00 ")


def test_readings_show_what_is_computed():
    readings = Readings(bridges=2)
    assert readings.text() == ""
    readings.add({"total": 2.5, "ce": 2.5})
    assert readings.text() == "loss 2.500"
    readings.add({"total": 2.5, "kl_s2d": 3.0})
    assert readings.text() == "s→d 1.50"


@pytest.mark.parametrize("hybrid_sites", ["all", "1"])
def test_the_progress_bar_shows_kls_and_costs_no_pass(make_trainer, capsys, monkeypatch, hybrid_sites):
    trainer = make_trainer(steps=3, hybrid_sites=hybrid_sites)
    calls = []
    real = type(trainer.dense).run
    monkeypatch.setattr(type(trainer.dense), "run", lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    rows, _ = trainer.fit()
    assert len(calls) == 3  # one of the dense model a step, as the objective asks
    last = capsys.readouterr().err.rsplit("training:", 1)[1]
    found = re.search(r"kl (\d+\.\d\d) d→s (\d+\.\d\d) s→d (\d+\.\d\d), [\d,]+ tokens/s", last)
    assert found, last
    decay = pd.Series([0.81, 0.9, 1.0])
    for shown, term, count in zip(
        found.groups(), ("kl", "kl_d2s", "kl_s2d"), (1, *[len(trainer.bridges)] * 2), strict=True
    ):
        assert float(shown) == pytest.approx((rows[term] * decay).sum() / decay.sum() / count, abs=0.006)
