"""The whole pipeline on the pair that ships, and on four things that can reproduce nothing.

    pytest -m slow -s tests/compare/test_nulls.py

takes some minutes a case; the same on a planted world, in seconds: tests/runs/test_floor.py. The first case is the pair
as it is, without which the others would show nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bridges.behaviours import SPLITS, encode, get_behaviour, shuffled_labels
from bridges.dense import load_dense
from bridges.runs.initialise import shipped_pair
from bridges.sparse.packed import load_packed, save_packed
from bridges.storage.tables import read_table

# What the shipped pair does reproduce.
BEHAVIOUR = "while_return_true"


def shuffled(folder: Path) -> list[str]:
    """The shipped pair, its bridges wired to the wrong channels of the sparse stream, another order at every bridge."""
    shutil.copytree(shipped_pair("tinypython"), folder)
    path = folder / "bridges" / "bridges.safetensors"
    weights, generator = load_file(path), torch.Generator().manual_seed(0)
    for name in sorted(n for n in weights if n.endswith("encoder.weight")):
        order = torch.randperm(len(weights[name]), generator=generator)
        for other, along in ((name, 0), (name.replace("weight", "bias"), 0), (name.replace("encoder", "decoder"), 1)):
            weights[other] = weights[other].index_select(along, order).contiguous()
    save_file(weights, path)
    # So few steps at this rate leave everything where it is.
    return [f"sparse.init={folder}", "train.freeze_sparse=true", "train.bridge_lr=1e-9"]


def meaningless(path: Path) -> list[str]:
    """The behaviour's prompts with the right answers of half of them exchanged."""
    _, tokenizer = load_dense("tinypython")
    with path.open("w") as file:
        for split in SPLITS:
            for pair in shuffled_labels(encode(get_behaviour(BEHAVIOUR), tokenizer, split=split, n=512, seed=0)).pairs:
                row = {"clean": pair.clean, "counterfactual": pair.counterfactual, "split": split}
                row |= {"clean_token": pair.clean_token, "counterfactual_token": pair.counterfactual_token}
                file.write(json.dumps(row) + "\n")
    # Neither model is asked whether it can: the search itself must come to nothing.
    able = ["verdict.dense_accuracy=0", "verdict.sparse_accuracy=0"]
    return ["behaviours=file", f"behaviours.path={path}", *able]


def without_attention(folder: Path) -> list[str]:
    """The shipped pair, whose sparse model knows each token and mixes no positions."""
    shutil.copytree(shipped_pair("tinypython"), folder)
    state = load_packed(folder / "model")
    for name in [name for name in state if name.endswith(".out.weight")]:
        state[name].zero_()
    save_packed(state, folder / "model")
    return [f"sparse.init={folder}", "train.freeze_sparse=true", "train.bridge_lr=1e-9", "verdict.sparse_accuracy=0"]


# Verdicts that may come out.
NEVER = {"not", "partial", "undecided"}
CASES: dict[str, tuple[Callable[[Path], list[str]], set[str]]] = {
    "as it ships": (lambda _: [], {"reproduced", "partial", "undecided"}),
    "untrained": (lambda _: ["sparse.init=random"], {"not"}),
    "shuffled bridges": (shuffled, NEVER),
    "no attention": (without_attention, NEVER),
    "nonsense": (meaningless, NEVER | {"dense model cannot"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_nulls_reproduce_nothing(case: str, tmp_path: Path) -> None:
    make, allowed = CASES[case]
    mine = make(tmp_path / "given")
    names = [] if case == "nonsense" else [f"behaviours.names=[{BEHAVIOUR}]"]
    tokens = [] if case == "as it ships" else ["train.tokens=2048"]
    arguments = [*mine, *names, *tokens, f"runs_dir={tmp_path}", "name=run"]
    done = subprocess.run([sys.executable, "-m", "bridges.run", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdicts = read_table(tmp_path / "run", "verdicts")
    print(case, verdicts[["behaviour", "verdict", "reason"]].to_string())
    assert set(verdicts["verdict"]) <= allowed, verdicts["reason"].tolist()
    if case != "as it ships":
        claims = read_table(tmp_path / "run", "claims")
        held = claims[claims["criterion"].isin(["share_to_dense", "share_to_sparse"]) & (claims["state"] == "held")]
        assert len(held) < 2
