"""A user's own pairs through the real command: what is broken in the file ends in one message that names the line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = {"clean": "print(f1(", "counterfactual": "print(f2(", "clean_token": "1", "counterfactual_token": "2"}
BROKEN = {
    "no JSON": ('{"clean": "x"', r"line 2: this is no JSON"),
    "a key is missing": (json.dumps({k: GOOD[k] for k in list(GOOD)[:3]}), "line 2: missing counterfactual_token"),
    "the same prompt twice": (json.dumps(GOOD | {"counterfactual": "print(f1("}), "line 2: clean and counterfactual"),
    "no such split": (json.dumps(GOOD | {"split": "test"}), "line 2: split is 'test'"),
    "no token of its own": (json.dumps(GOOD | {"clean_token": "xyzzy plugh"}), "line 2: the answer merges with"),
}


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"BRIDGES_ALLOCATOR": "off", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=env)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_ends_in_one_message(fault: str, command: Callable[..., list[str]], tmp_path: Path) -> None:
    line, message = BROKEN[fault]
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    done = run(command("behaviours=file", f"behaviours.path={path}", "name=broken", f"runs_dir={tmp_path}"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}, {message}"), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
