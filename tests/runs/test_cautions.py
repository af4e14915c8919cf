"""Warnings of a run, from tables and a command made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bridges.config import Config, DataConfig, TrainConfig
from bridges.runs.cautions import cautions, no_better_than_bigrams, worse_than_ridge
from bridges.runs.summary import summary_text
from bridges.storage.folder import RunFolder
from bridges.storage.tables import write_table


def sites(trained: dict[str, list[float]], ridge: dict[str, list[float]]) -> pd.DataFrame:
    """Rows of both sets of bridges from the KLs of each direction; every interval is 0.1 to either side."""
    rows = []
    for label, kls in (
        ("trained", trained),
        ("untrained", {k: [9.0] * len(v) for k, v in trained.items()}),
        ("ridge", ridge),
    ):
        for i in range(len(kls["d2s"])):
            row = {"bridges": label, "bridge": i, "dense_site": i, "sparse_site": i, "n_sequences": 4, "split": "test"}
            row |= {f"{error}_{part}": 0.5 for error in ("nmse", "fvu") for part in ("encoder", "decoder")}
            for key, values in kls.items():
                row |= {f"kl_{key}": values[i], f"kl_{key}_low": values[i] - 0.1, f"kl_{key}_high": values[i] + 0.1}
            rows.append(row)
    return pd.DataFrame(rows)


def paths(sparse: float = 0.9, bigram: float | None = 2.0) -> pd.DataFrame:
    rows = [("trained", "D0", "pure_dense", 0, 0.0), ("trained", "S0", "pure_sparse", 0, sparse)]
    for label in ("trained", "untrained", "ridge"):
        rows += [(label, "D0-S0", "single_d2s", 1, 1.0), (label, "S0-D0", "single_s2d", 1, 1.0)]
    if bigram is not None:
        rows.append(("none", "bigram", "bigram", 0, bigram))
    frame = pd.DataFrame(rows, columns=["bridges", "path", "kind", "crossings", "kl"])
    for name in ("ce", "ce_low", "ce_high", "kl_low", "kl_high"):
        frame[name] = frame["kl"]
    return frame.assign(n_sequences=4, n_tokens=32, split="test")


GOOD = sites({"d2s": [1.0, 1.0], "s2d": [0.5, 0.5]}, {"d2s": [1.2, 1.2], "s2d": [0.6, 0.6]})
WORSE = sites({"d2s": [1.0, 1.5, 1.28], "s2d": [0.5] * 3}, {"d2s": [1.2] * 3, "s2d": [0.6] * 3})


@pytest.fixture
def run(tmp_path: Path):
    """``run(sites, paths, command, tokens)``: the folder of an evaluated run."""

    def make(bridges: pd.DataFrame, measured: pd.DataFrame, command: str = "bridges run", tokens: int = 10_240):
        config = Config(data=DataConfig(context=256), train=TrainConfig(tokens=tokens, batch=2))
        folder = RunFolder.create(config, tmp_path / "run")
        (folder.path / "environment.json").write_text(json.dumps({"command": command.split()}))
        write_table(folder.path, "sites", bridges)
        write_table(folder.path, "paths", measured)
        matrix = {"matrix": "m", "rows": 2, "columns": 2, "numel": 4, "budget": 2, "nonzeros": 1, "fraction": 0.25}
        write_table(folder.path, "sparsity", pd.DataFrame([matrix]))
        return folder

    return make


def test_a_bridge_worse_than_ridge_is_named():
    line = worse_than_ridge(WORSE)
    # By 0.3, where the intervals do not meet, and by 0.08, where they do.
    assert line.startswith("trained bridges do worse than ridge regression: d→s at 2 of 3 (1*, 2; KL 0.3 above).")
    assert "s→d" not in line and "*: the intervals do not meet." in line
    assert worse_than_ridge(GOOD) == "" and worse_than_ridge(GOOD[GOOD["bridges"] != "ridge"]) == ""
    assert worse_than_ridge(sites({"d2s": [1.0], "s2d": [0.62]}, {"d2s": [0.99], "s2d": [0.6]})) == ""
    within = worse_than_ridge(sites({"d2s": [1.0], "s2d": [0.65]}, {"d2s": [1.0], "s2d": [0.6]}))
    assert "s→d at 1 of 1 (0; KL 0.05 above)" in within and "*" not in within and "d→s" not in within


def test_a_sparse_model_no_better_than_bigrams_is_told():
    assert no_better_than_bigrams(paths(0.9, 2.0)) == "" and no_better_than_bigrams(paths(5.0, None)) == ""
    for kl in (2.0, 2.5):
        assert f"KL of {kl:.3f} is not below that of a table of bigrams, 2.000" in no_better_than_bigrams(
            paths(kl, 2.0)
        )


def test_a_smoke_test_is_told(run):
    (line,) = cautions(run(GOOD, paths(), "bridges run train=smoke"))
    assert line.startswith("Caution: train=smoke trains 20 steps on 10,240 tokens")


@pytest.mark.parametrize(
    ("command", "tokens"), [("bridges run train=quick", 10_240), ("bridges run train=smoke", 1_000_000)]
)
def test_a_longer_run_is_no_smoke_test(run, command, tokens):
    folder = run(GOOD, paths(), command, tokens)
    assert cautions(folder) == [] and "Caution" not in summary_text(folder)


def test_the_summary_ends_with_the_warnings(run):
    lines = summary_text(run(WORSE, paths(2.5), "bridges run train=smoke")).splitlines()
    found = [line for line in lines if line.startswith("Caution: ")]
    assert lines[-3:] == found and ["ridge" in found[0], "bigrams" in found[1], "smoke" in found[2]] == [True] * 3
