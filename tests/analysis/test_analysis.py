"""Analysis over run folders: numbers against hand-computed ones, and broken folders that do not stop it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import analysis
from analysis.frontier import frontier, frontier_figure
from analysis.overview import overview
from analysis.summary import summary_text
from analysis.training import training_figure
from bridges.errors import BridgesError
from bridges.storage.tables import write_table

ROOT = Path(analysis.__file__).parents[1]


def path_rows(kl_sparse: float, split: str = "test") -> pd.DataFrame:
    """Single crossings of ``kl_sparse`` times 1, 2, 3 (d→s) and 2, 4, 6 (s→d); ten times that untrained."""
    rows = [
        ("trained", "D", "pure_dense", 0, 2.0, 0.0),
        ("trained", "S", "pure_sparse", 0, 2.0 + kl_sparse, kl_sparse),
        ("none", "bigram", "bigram", 0, 4.0, 1.5),
        ("trained", "D0-S1-D2", "double_dsd", 2, 9.0, 9.0),
    ]
    for bridges, times in (("trained", 1.0), ("untrained", 10.0), ("ridge", 3.0)):
        for i in (1, 2, 3):
            rows.append((bridges, f"D0-S{i}", "single_d2s", 1, 3.0, kl_sparse * times * i))
            rows.append((bridges, f"S0-D{i}", "single_s2d", 1, 3.0, kl_sparse * times * 2 * i))
    frame = pd.DataFrame(rows, columns=["bridges", "path", "kind", "crossings", "ce", "kl"])
    for name in ("ce", "kl"):
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] * 0.9, frame[name] * 1.1
    return frame.assign(n_sequences=4, n_tokens=64, split=split)


def make_run(
    folder: Path, *, sparsity=0.1, seed=0, lr=0.003, status="finished", kl: float | None = 0.5, label="tiny"
) -> Path:
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "sparsity": sparsity,
        "runs_dir": str(folder),
        "name": folder.name,
        "resume": None,
        "model": {"name": f"org/{label}", "label": label},
        "data": {"source": "python"},
        "sparse": {"d_model": 128, "n_layer": 4, "activation_points": ["q", "k"]},
        "train": {"lr": lr, "terms": {"ce": 1.0}},
        "tracking": {"mode": "off", "tags": [folder.name]},
    }
    trained = {"status": "finished", "seconds": 30.0}
    stages = {"train": trained, "evaluate": {"status": status, "seconds": 2.25}}
    message = "evaluate: OSError: disk full" if status == "failed" else None
    state = {"status": status, "stages": stages, "message": message, "started": "2026-01-01T00:00:00+00:00"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(json.dumps(state))
    steps = np.arange(1, 101)
    training = pd.DataFrame({"step": steps, "tokens": steps * 64, "total": 5.0 / steps, "kl": 1.0 / steps})
    write_table(folder, "training", training.assign(l0_target=sparsity, l0_actual=sparsity, dead_neurons=3))
    if kl is not None:
        write_table(folder, "paths", path_rows(kl))
        budget = [round(sparsity * 1000), round(sparsity * 3000)]
        matrices = {"matrix": ["a", "b"], "rows": [10, 30], "columns": [100, 100], "numel": [1000, 3000]}
        sparse = pd.DataFrame(matrices).assign(budget=budget, nonzeros=budget, fraction=sparsity)
        write_table(folder, "sparsity", sparse)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two seeds at each of two sparsities; one run that goes on, one that failed, three that are broken."""
    root = tmp_path / "runs"
    make_run(root / "a0", sparsity=0.1, seed=0, kl=0.5)
    make_run(root / "a1", sparsity=0.1, seed=1, kl=0.7)
    make_run(root / "sweep" / "b0", sparsity=0.02, seed=0, kl=1.0)
    make_run(root / "sweep" / "b1", sparsity=0.02, seed=1, kl=1.2)
    make_run(root / "going", sparsity=0.1, seed=2, status="running", kl=None)
    make_run(root / "failed", sparsity=0.1, seed=3, status="failed", kl=0.1)
    (make_run(root / "no-status") / "status.json").unlink()
    (make_run(root / "bad-yaml") / "config.yaml").write_text("seed: [1")
    (make_run(root / "bad-table") / "tables" / "paths.parquet").write_bytes(b"PAR1")
    wandb_files = root / "a0" / "wandb" / "run-1" / "files"
    wandb_files.mkdir(parents=True)
    (wandb_files / "config.yaml").write_text("seed: 5")
    (root / ".sweeps" / "0").mkdir(parents=True)
    (root / ".sweeps" / "0" / "config.yaml").write_text("seed: 5")
    return root


def test_load_reads_every_run_and_lists_what_is_wrong(folder):
    runs = analysis.load(folder)
    names = sorted(record.name for record in runs.records)
    assert names == ["a0", "a1", "b0", "b1", "bad-table", "failed", "going"]
    reasons = dict(runs.problems.itertuples(index=False))
    assert set(reasons) == {"going", "failed", "no-status", "bad-yaml", "bad-table"}
    assert reasons["going"] == "running" and reasons["failed"] == "failed: evaluate: OSError: disk full"
    assert reasons["no-status"] == "no status.json" and "config.yaml cannot be read" in reasons["bad-yaml"]
    assert "table paths" in reasons["bad-table"] and "damaged" in reasons["bad-table"]
    assert sorted(runs) == ["paths", "sparsity", "training"] and len(runs["training"]) == 700
    assert set(runs["paths"]["run"]) == {"a0", "a1", "b0", "b1", "failed"}


def test_settings_stand_in_every_table(folder):
    runs = analysis.load(folder)
    row = runs.table("training").query("run == 'b1'").iloc[0]
    assert (row["status"], row["model"], row["sparsity"], row["seed"]) == ("finished", "tiny", 0.02, 1)
    assert (row["sparse.d_model"], row["sparse.n_layer"]) == (128, 4)
    assert "train.lr" not in runs["training"] and runs.varying == ["sparsity", "seed"]
    make_run(folder / "other", lr=0.01)
    runs = analysis.load(folder)
    assert runs.varying == ["sparsity", "seed", "train.lr"]
    assert runs["paths"].groupby("run")["train.lr"].first()["other"] == 0.01
    with pytest.raises(BridgesError, match="Did you mean 'sparsity'"):
        runs.table("sparsities")


def test_a_table_of_another_version_is_a_problem_and_is_left_out(tmp_path):
    import pyarrow.parquet as pq

    make_run(tmp_path / "new"), make_run(tmp_path / "old")
    path = tmp_path / "old" / "tables" / "paths.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["crossings", "kl_low"]), path)
    runs = analysis.load(tmp_path)
    assert set(runs["paths"]["run"]) == {"new"} and set(runs["training"]["run"]) == {"new", "old"}
    [[run, reason]] = runs.problems.to_numpy().tolist()
    assert run == "old" and "table paths: another version wrote it, without crossings, kl_low" in reason
    with pytest.raises(BridgesError, match=r"no finished run|No finished run"):
        frontier(analysis.load(tmp_path / "old"))


def test_a_column_of_the_table_keeps_its_name(tmp_path, monkeypatch):
    from bridges.storage.tables import TABLES, Column, Table

    columns = (Column("model", "str", "which model"), Column("seed", "int", "of the search"))
    monkeypatch.setitem(TABLES, "behaviours", Table("behaviours", "one behaviour", columns))
    frame = pd.DataFrame({"model": ["dense"], "seed": [9]})
    write_table(make_run(tmp_path / "r", seed=4), "behaviours", frame)
    row = analysis.load(tmp_path)["behaviours"].iloc[0]
    assert (row["model"], row["seed"], row["config.model"], row["config.seed"]) == ("dense", 9, "tiny", 4)


def test_one_run_several_folders_and_equal_names(tmp_path):
    first, second = make_run(tmp_path / "x" / "0"), make_run(tmp_path / "y" / "0", seed=1)
    assert [r.name for r in analysis.load(first).records] == ["0"]
    assert [r.name for r in analysis.load(first, first, tmp_path / "x").records] == ["0"]
    assert [r.name for r in analysis.load(tmp_path).records] == [first.as_posix(), second.as_posix()]


def test_nothing_to_load(tmp_path, monkeypatch):
    with pytest.raises(BridgesError, match=r"no runs in .*python -m bridges\.run"):
        analysis.load(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BridgesError, match="no folder runs"):
        analysis.load()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "status.json").write_text("{")
    runs = analysis.load(tmp_path)
    assert len(runs) == 0 and len(runs.problems) == 1 and overview(runs).empty
    assert "broken" in summary_text(runs)
    with pytest.raises(BridgesError, match="No run has written a table yet"):
        runs.table("paths")


def test_overview_against_numbers_by_hand(folder):
    frame = overview(analysis.load(folder)).set_index("run")
    row = frame.loc["a0"]
    expected = {
        "ce_dense": 2.0,
        "ce_sparse": 2.5,
        "kl_sparse": 0.5,
        "kl_bigram": 1.5,
        "kl_d2s": 0.5 * 2,
        "kl_s2d": 0.5 * 4,
        "kl_d2s_untrained": 10.0,
        "kl_s2d_untrained": 20.0,
        "kl_d2s_ridge": 3.0,
        "fraction": 0.1,
        "seconds": 32.25,
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value), name
    assert row["status"] == "finished" and row["seed"] == 0
    assert frame.loc["b1", "kl_d2s"] == pytest.approx(2.4)
    assert frame.loc["b1", "fraction"] == pytest.approx(0.02)
    assert frame.loc["going", "status"] == "running" and np.isnan(frame.loc["going", "kl_sparse"])


def test_the_overview_takes_one_split(tmp_path):
    both = pd.concat([path_rows(0.5, "test"), path_rows(8.0, "train")])
    write_table(make_run(tmp_path / "two"), "paths", both)
    write_table(make_run(tmp_path / "one"), "paths", path_rows(3.0, "train"))
    frame = overview(analysis.load(tmp_path)).set_index("run")
    assert frame["kl_sparse"].to_dict() == {"one": 3.0, "two": 0.5}


def test_frontier_against_numbers_by_hand(folder):
    frame = frontier(analysis.load(folder))
    assert set(frame["run"]) == {"a0", "a1", "b0", "b1"}, "only finished runs"
    assert set(frame["settings"]) == {""}
    means = frame.groupby(["measure", "sparsity"])["kl"].mean()
    assert means["kl_sparse", 0.1] == pytest.approx(0.6) and means["kl_sparse", 0.02] == pytest.approx(1.1)
    assert means["kl_d2s", 0.1] == pytest.approx(1.2) and means["kl_s2d", 0.02] == pytest.approx(4.4)
    assert means["kl_s2d_untrained", 0.02] == pytest.approx(44.0)
    [axis] = frontier_figure(frame).axes
    lines = [np.array(line.get_xydata()) for line in axis.lines]
    for expected in ([[0.02, 1.1], [0.1, 0.6]], [[0.02, 2.2], [0.1, 1.2]], [[0.02, 22.0], [0.1, 12.0]]):
        assert any(line.shape == (2, 2) and np.allclose(line, expected) for line in lines), expected
    points = [[0.02, 1.0], [0.02, 1.2], [0.1, 0.5], [0.1, 0.7]]
    assert any(line.shape == (4, 2) and np.allclose(sorted(line.tolist()), points) for line in lines)
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_runs_that_are_no_repeats_get_panels_of_their_own(folder):
    make_run(folder / "lr", sparsity=0.1, seed=0, lr=0.01)
    make_run(folder / "big", sparsity=0.1, seed=0, label="large")
    frame = frontier(analysis.load(folder))
    assert set(frame["settings"]) == {"train.lr=0.003", "train.lr=0.01"}
    titles = [axis.get_title(loc="left") for axis in frontier_figure(frame).axes if axis.get_visible()]
    assert titles == ["large\ntrain.lr=0.003", "tiny\ntrain.lr=0.003", "tiny\ntrain.lr=0.01"]


def test_a_setting_that_follows_from_the_sparsity_does_not_split(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", sparsity=0.1, seed=seed, lr=0.003)
        make_run(tmp_path / f"b{seed}", sparsity=0.02, seed=seed, lr=0.01)
    assert set(frontier(analysis.load(tmp_path))["settings"]) == {""}


def test_no_frontier_without_a_finished_run(tmp_path):
    make_run(tmp_path / "going", status="running", kl=None)
    with pytest.raises(BridgesError, match="No finished run"):
        frontier(analysis.load(tmp_path))


def test_training_figure(folder):
    figure = training_figure(analysis.load(folder / "a0", folder / "sweep"))
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    assert len(titles) == 4 and titles[0] == "loss, total"
    total = [line.get_xydata() for line in figure.axes[0].lines]
    assert any(np.allclose(line[:, 1], 5.0 / np.arange(1, 101)) for line in total)
    for i in range(8):
        make_run(folder / "many" / str(i))
    with pytest.raises(BridgesError, match="too many"):
        training_figure(analysis.load(folder / "many"))


def command(module: str, *arguments: object) -> subprocess.CompletedProcess:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    line = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)


def test_the_summary_command(folder, tmp_path):
    done = command("analysis.summary", folder, "--out", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("b0"))
    assert row[:4] == ["b0", "finished", "0.02", "0"]
    assert row[4:] == ["2.000", "3.000", "1.000", "2.000", "4.000", "1.500", "2.000%", "32"]
    assert "no-status: no status.json" in done.stdout
    assert "failed: evaluate: OSError: disk full" in done.stdout
    csv = pd.read_csv(tmp_path / "figures" / "frontier.csv")
    assert len(csv) == 4 * 8 and csv.query("run == 'b0' and measure == 'kl_sparse'")["kl"].item() == 1.0
    assert (tmp_path / "figures" / "frontier.png").stat().st_size > 10_000


def test_the_summary_counts_verdicts(tmp_path, write_run):
    verdicts = {"a": "reproduced", "b": "undecided", "c": "not", "d": "last token suffices", "e": "partial"}
    write_run(tmp_path / "a", verdicts=verdicts)
    write_run(tmp_path / "b", sparsity=0.2)
    runs = analysis.load(tmp_path)
    row = overview(runs).set_index("run").loc["a"]
    assert row[["reproduced", "partial", "undecided", "judged"]].tolist() == [1, 1, 1, 4]
    assert overview(runs).set_index("run").loc["b", ["reproduced", "judged"]].isna().all()
    lines = [line.split() for line in summary_text(runs).splitlines()]
    heading, row = (next(line for line in lines if line[:1] == [word]) for word in ("run", "a"))
    assert heading[-5:] == ["reproduced", "partial", "undecided", "judged", "seconds"]
    assert row[-5:-1] == ["1", "1", "1", "4"]


def test_the_commands_say_what_to_do(tmp_path):
    done = command("analysis.summary", tmp_path)
    assert done.returncode == 1 and "python -m bridges.run" in done.stderr and "Traceback" not in done.stderr


def test_the_training_command(folder):
    done = command("analysis.training", folder / "a0")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("a0"))
    assert row[:5] == ["a0", "100", "6400", "0.050", "0.010"], "the last step: 5 / 100 and 1 / 100"
    assert str(folder / "a0" / "training.png") in done.stdout
    assert (folder / "a0" / "training.png").stat().st_size > 10_000
