"""Tuning on models whose circuits are known: what is tried, what is kept, and what a kill costs."""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch

from bridges.circuits.ablation import node_means
from bridges.circuits.circuit import count_edges
from bridges.circuits.search.search import Search, find_circuit
from bridges.cli.overrides import check_command_line
from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError, CheckpointError, ConfigError
from bridges.training.precision import autocast, resolve_precision
from bridges.tuning.circuits import PAPER, RANGES, SEARCHES, command, score, trial, tune

from .conftest import QUOTE_EDGES, published, quote_pairs

FEW = published(steps=3, pairs=8, batch=4, prune_attempts=2)
NAMES = list(RANGES)


@pytest.fixture
def tasks():
    return {"first": quote_pairs(24, 0), "second": quote_pairs(24, 1)}


@pytest.fixture
def reference(quote_model, quote_text):
    return node_means(quote_model, quote_text)


def stand_in(stack, encoded, reference, settings, seed, model, text):
    """A circuit whose size follows from the settings, in no time: a bowl around lr = 0.01 and penalty = 0.001."""
    far = abs(math.log10(settings.lr) + 2) + abs(math.log10(settings.penalty) + 3) + encoded.seed
    width = stack.nodes.widths["0.mlp_in"]
    nodes = {p: torch.arange(w) < min(width, 1 + round(2 * far)) for p, w in stack.nodes.widths.items()}
    empty = Search(stack, encoded, reference, settings, seed, model, text).empty
    return replace(empty, nodes=nodes, reached=far < 6, train_loss=0.1 * far)


@pytest.fixture
def searched(monkeypatch):
    """The names of the behaviours searched for, with `stand_in` for the search."""
    calls: list[str] = []

    def counting(stack, encoded, *rest):
        calls.append(encoded.behaviour)
        return stand_in(stack, encoded, *rest)

    monkeypatch.setattr(trial, "find_circuit", counting)
    return calls


class Kill(BaseException):
    """What ends the process in the middle of a search."""


def killed_at(monkeypatch, nth: int) -> None:
    """The nth search from now on never returns."""
    left = [nth]

    def dying(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise Kill
        return stand_in(*arguments)

    monkeypatch.setattr(trial, "find_circuit", dying)


# --- what a trial is worth ----------------------------------------------------------------------------------------


def test_any_circuit_that_reaches_beats_any_that_does_not_and_those_stand_in_order_of_loss():
    assert score(1000, True, 0.1, 0.15, 5000) == pytest.approx(3.0)
    assert score(0, True, 0.1, 0.15, 5000) == 0.0
    missed = [score(3, False, loss, 0.15, 5000) for loss in (0.16, 0.3, 0.69)]
    assert missed == sorted(missed) and score(5000, True, 0.15, 0.15, 5000) < missed[0]
    assert missed[2] - missed[1] == pytest.approx(0.39)


def test_the_value_is_the_geometric_mean_of_edges(quote_model, tasks, reference):
    settings = published(steps=25, pairs=16, batch=8, prune_attempts=8)
    study = tune(quote_model, tasks, reference, settings, trials=1)
    circuits = [find_circuit(quote_model, pairs, reference, study.settings) for pairs in tasks.values()]
    edges = [count_edges(quote_model, circuit).inside for circuit in circuits]
    assert study.table["edges"].tolist() == edges and max(edges) <= QUOTE_EDGES
    assert 10**study.value == pytest.approx(np.sqrt(edges[0] * edges[1]))


def test_without_edges_nodes_are_counted(quote_model, tasks, reference):
    study = tune(quote_model, tasks, reference, replace(FEW, edges=False), trials=1)
    assert study.table["edges"].isna().all()
    assert study.value == pytest.approx(np.log10(study.table["nodes"]).mean())
    SEARCHES.arrow(study.table)


def test_the_given_settings_come_first_and_the_paper_s_second(quote_model, tasks, reference, searched):
    given = replace(FEW, penalty=5e-3, lr=5e-2, weight_decay=0.0)
    study = tune(quote_model, tasks, reference, given, trials=3)
    first, second, third = study.trials[NAMES].to_dict("records")
    assert first == {n: getattr(given, n) for n in NAMES} | {"weight_decay": RANGES["weight_decay"][0]}
    assert second == PAPER
    assert all(RANGES[n][0] <= v <= RANGES[n][1] for n, v in third.items()) and third not in (first, second)
    assert study.settings.steps == given.steps and study.best in (first, second, third)
    assert f"circuits.lr={study.settings.lr:g}" in study.overrides


def test_tpe_comes_nearer_than_its_random_start(quote_model, tasks, reference, searched):
    wide = replace(FEW, lr=0.3, penalty=1e-5)
    study = tune(quote_model, {"first": tasks["first"]}, reference, wide, trials=30, startup=6)

    def far(rows):
        return (np.log10(rows["lr"]) + 2).abs() + (np.log10(rows["penalty"]) + 3).abs()

    assert far(study.trials[20:]).mean() < 0.6 * far(study.trials[2:8]).mean()


# --- going on -----------------------------------------------------------------------------------------------------


def same(a, b) -> None:
    """All but the seconds."""
    for name in ("trials", "table"):
        left, right = (getattr(s, name).drop(columns="seconds", errors="ignore") for s in (a, b))
        assert left.equals(right), f"{name}\n{left}\n{right}"
    assert a.settings == b.settings


def test_a_study_goes_on_as_if_it_had_not_stopped(quote_model, tasks, reference, tmp_path, searched):
    options = {"seed": 3, "startup": 3}
    whole = tune(quote_model, tasks, reference, FEW, trials=7, **options)
    once = len(searched)
    searched.clear()
    part = tune(quote_model, tasks, reference, FEW, trials=4, storage=tmp_path / "s.db", **options)
    rest = tune(quote_model, tasks, reference, FEW, trials=7, storage=tmp_path / "s.db", **options)
    assert len(part.trials) == 4 and len(rest.trials) == 7 and len(searched) == once
    same(whole, rest)
    searched.clear()
    same(whole, tune(quote_model, tasks, reference, FEW, trials=7, storage=tmp_path / "s.db", **options))
    assert not searched
    other = tune(quote_model, tasks, reference, FEW, trials=7, seed=4, startup=3)
    assert not other.trials[NAMES].iloc[2:].equals(whole.trials[NAMES].iloc[2:])


@pytest.mark.parametrize("nth", [1, 4])
def test_a_kill_costs_one_search_and_changes_nothing(quote_model, tasks, reference, tmp_path, monkeypatch, nth):
    """The behaviours are searched two a trial, so that kills fall on the first and on the second of a trial."""
    options = {"trials": 5, "startup": 2, "seed": 1}
    monkeypatch.setattr(trial.Objective, "should_stop", lambda *_: False)
    monkeypatch.setattr(trial, "find_circuit", stand_in)
    whole = tune(quote_model, tasks, reference, FEW, **options)
    killed_at(monkeypatch, nth)
    with pytest.raises(Kill):
        tune(quote_model, tasks, reference, FEW, storage=tmp_path / "s.db", **options)
    calls = []
    monkeypatch.setattr(trial, "find_circuit", lambda *a: calls.append(1) or stand_in(*a))
    same(whole, tune(quote_model, tasks, reference, FEW, storage=tmp_path / "s.db", **options))
    assert len(calls) == 10 - (nth - 1)


def test_a_study_of_something_else_is_refused(quote_model, tasks, reference, tmp_path, searched):
    storage = tmp_path / "s.db"
    tune(quote_model, tasks, reference, FEW, trials=1, storage=storage)
    with pytest.raises(ConfigError, match="other steps, target;"):
        tune(quote_model, tasks, reference, replace(FEW, steps=7, target=0.2), trials=2, storage=storage)
    with pytest.raises(ConfigError, match="other training pairs;"):
        tune(quote_model, tasks | {"second": quote_pairs(24, 9)}, reference, FEW, trials=2, storage=storage)
    with torch.no_grad():
        quote_model.head.weight[0, 0] += 1
    with pytest.raises(ConfigError, match="other weights;"):
        tune(quote_model, tasks, reference, FEW, trials=2, storage=storage)


def test_a_storage_in_use_and_a_damaged_one(quote_model, tasks, reference, tmp_path, monkeypatch):
    storage = tmp_path / "s.db"
    inner = []

    def also(*arguments):
        with pytest.raises(ConfigError, match="Another process"):
            tune(quote_model, tasks, reference, FEW, trials=1, storage=storage)
        inner.append(1)
        return stand_in(*arguments)

    monkeypatch.setattr(trial, "find_circuit", also)
    tune(quote_model, tasks, reference, FEW, trials=1, storage=storage)
    assert inner
    (tmp_path / "bad.db").write_text("no database, however long this line is made to be")
    with pytest.raises(CheckpointError, match="no study that can be read"):
        tune(quote_model, tasks, reference, FEW, trials=1, storage=tmp_path / "bad.db")


# --- trials that are given up or fail -----------------------------------------------------------------------------


def scores_of(monkeypatch, table: list[tuple[float, ...]]) -> None:
    """Every trial's searches are worth what stands in its row."""
    seen: dict[float, int] = {}

    def search(self, stack, name, encoded, settings):
        row = seen.setdefault(settings.lr, len(seen))
        value = table[row][list(self.tasks).index(name)]
        if isinstance(value, Exception):
            raise value
        return {"behaviour": name, "nodes": 1, "edges": 1, "reached": True, "train_loss": 0.1, "score": value,
                "seconds": 0.0}  # fmt: skip

    monkeypatch.setattr(trial.Objective, "search", search)


def test_a_trial_above_the_median_of_the_complete_ones_is_given_up(quote_model, tasks, reference, monkeypatch):
    tasks = tasks | {"third": quote_pairs(24, 2)}
    # An easy first behaviour must not save the fourth trial, whose mean so far is 3 against 2, 2.5 and 3.5.
    rows = [(1, 3, 1), (1, 4, 1), (1, 6, 1), (1, 5, 1), (9, 0, 0), (1, 1, 1)]
    scores_of(monkeypatch, rows)
    lines: list[str] = []
    study = tune(quote_model, tasks, reference, FEW, trials=6, startup=3, progress=lines.append)
    assert study.trials["state"].tolist() == ["complete"] * 3 + ["pruned"] * 2 + ["complete"]
    assert study.trials["behaviours"].tolist() == [3, 3, 3, 2, 1, 3]
    assert study.trials["value"].isna().tolist() == [False] * 3 + [True] * 2 + [False]
    assert study.value == 1.0 and study.settings.lr == study.trials["lr"][5]
    assert len(study.table) == study.trials["behaviours"].sum()
    assert lines[3] == "trial 4 of 6: given up after 2 behaviours, at 3.000"


def test_failures_and_nan_are_recorded_and_the_study_goes_on(quote_model, tasks, reference, monkeypatch, tmp_path):
    count = [0]

    def broken(*arguments):
        count[0] += 1
        if count[0] == 1:
            raise RuntimeError("out of memory")
        circuit = stand_in(*arguments)
        return replace(circuit, train_loss=math.nan) if count[0] == 3 else circuit

    monkeypatch.setattr(trial, "find_circuit", broken)
    study = tune(quote_model, tasks, reference, FEW, trials=4, storage=tmp_path / "s.db")
    assert study.trials["state"].tolist() == ["failed", "failed", "complete", "complete"]
    assert "out of memory" in study.trials["error"][0] and "DivergenceError: second" in study.trials["error"][1]
    assert study.trials["behaviours"].tolist() == [0, 1, 2, 2]
    # Failed trials count: they are not tried again.
    assert len(tune(quote_model, tasks, reference, FEW, trials=4, storage=tmp_path / "s.db").trials) == 4
    assert count[0] == 7


def test_where_every_trial_fails_the_last_error_is_told(quote_model, tasks, reference, monkeypatch):
    scores_of(monkeypatch, [(ValueError("no such thing"), 0)] * 2)
    with pytest.raises(BridgesError, match=r"None of 2 trials.*ValueError: no such thing"):
        tune(quote_model, tasks, reference, FEW, trials=2)


# --- side by side -------------------------------------------------------------------------------------------------


def test_searches_side_by_side_do_not_read_each_other(quote_model, tasks, reference, monkeypatch):
    before = {n: p.clone() for n, p in quote_model.named_parameters()}
    stacks, threads, meeting = set(), torch.get_num_threads(), threading.Barrier(2, timeout=60)

    def both(stack, *rest):
        stacks.add(id(stack))
        meeting.wait()  # neither goes on before the other is inside
        return find_circuit(stack, *rest)

    monkeypatch.setattr(trial, "find_circuit", both)
    study = tune(quote_model, {"first": tasks["first"]}, reference, FEW, trials=4, jobs=2, seed=5)
    assert len(stacks) == 2 and torch.get_num_threads() == threads
    for row in study.table.to_dict("records"):
        settings = replace(FEW, **{n: row[n] for n in NAMES})
        with autocast(resolve_precision("auto", torch.device("cpu")), torch.device("cpu")):
            alone = find_circuit(quote_model, tasks["first"], reference, settings, 5)
        assert (alone.train_loss, count_edges(quote_model, alone).inside) == (row["train_loss"], row["edges"])
    assert all(torch.equal(before[n], p) for n, p in quote_model.named_parameters())


def test_rounds_side_by_side_repeat_and_go_on_exactly(quote_model, tasks, reference, searched, tmp_path):
    options = {"jobs": 3, "seed": 5, "startup": 3}
    whole = tune(quote_model, tasks, reference, FEW, trials=9, **options)
    tune(quote_model, tasks, reference, FEW, trials=6, storage=tmp_path / "s.db", **options)
    same(whole, tune(quote_model, tasks, reference, FEW, trials=9, storage=tmp_path / "s.db", **options))


def test_an_interrupt_side_by_side_leaves_a_study_that_goes_on(quote_model, tasks, reference, monkeypatch, tmp_path):
    options = {"trials": 6, "jobs": 2, "seed": 2, "storage": tmp_path / "s.db"}
    killed_at(monkeypatch, 6)
    with pytest.raises(Kill):
        tune(quote_model, tasks, reference, FEW, **options)
    monkeypatch.undo()
    monkeypatch.setattr(trial, "find_circuit", stand_in)
    went_on = tune(quote_model, tasks, reference, FEW, **options)
    same(went_on, tune(quote_model, tasks, reference, FEW, **{**options, "storage": None}))


# --- errors -------------------------------------------------------------------------------------------------------


def test_without_optuna_the_command_that_installs_it_is_named(quote_model, tasks, reference, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'bridges-interp\[tune\]'"):
        tune(quote_model, tasks, reference, FEW, trials=1)


def test_heldout_pairs_are_refused(quote_model, tasks, reference):
    with pytest.raises(ConfigError, match="first: these are heldout pairs"):
        tune(quote_model, {"first": replace(tasks["first"], split="heldout")}, reference, FEW, trials=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "trials=0"),
        ({"jobs": 0}, "jobs=0"),
        ({"tasks": {}}, "no behaviour"),
        ({"settings": CircuitSettings(method="random")}, "nothing to tune"),
        ({"ranges": {"k_coeff": (1.0, 2.0)}}, "k_coeff cannot be tuned"),
        ({"ranges": {"lr": (0.0, 2.0)}}, "above 0"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_searched(quote_model, tasks, reference, change, message):
    arguments = {"tasks": tasks, "settings": FEW, "trials": 1} | change
    with pytest.raises(ConfigError, match=message):
        tune(quote_model, reference=reference, **arguments)


def test_optuna_s_own_log_is_quiet_and_then_as_it_was(quote_model, tasks, reference, searched, capfd):
    before = optuna.logging.get_verbosity()
    tune(quote_model, tasks, reference, FEW, trials=2)
    assert capfd.readouterr().err == "" and optuna.logging.get_verbosity() == before


def test_behaviours_out_of_reach_of_the_whole_model_are_left_out(quote_model, tasks):
    flip = torch.rand(24, generator=torch.Generator().manual_seed(3)) < 0.5
    nonsense = quote_pairs(24, 0)
    nonsense.candidates[flip] = nonsense.candidates[flip].flip(1)
    able, unable = command.reachable(quote_model, {"sense": tasks["first"], "nonsense": nonsense}, published())
    assert list(able) == ["sense"] and list(unable) == ["nonsense"] and unable["nonsense"] > 0.5


def test_the_command_prints_the_overrides_of_the_best_trial(
    quote_model, tasks, reference, searched, monkeypatch, capsys, tmp_path
):
    asked = []

    def tuned(*arguments):
        asked.append(arguments)
        return tune(quote_model, tasks, reference, FEW, trials=4, seed=1)

    monkeypatch.setattr(command, "tune_run", tuned)
    assert command.main([str(tmp_path), "--trials", "4", "--behaviours", "a,b", "--jobs", "2"]) == 0
    assert asked == [(tmp_path, 4, ["a", "b"], 2, None)]
    last = capsys.readouterr().out.splitlines()[-1]
    # What is printed is a line of settings that the real command takes, and gives back what was tried.
    check_command_line(last.split())
    given = {o.split("=")[0].removeprefix("circuits."): float(o.split("=")[1]) for o in last.split()}
    assert given == tune(quote_model, tasks, reference, FEW, trials=4, seed=1).best


def test_the_command_on_a_folder_without_a_run_says_so(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err
