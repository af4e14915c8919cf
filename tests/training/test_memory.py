"""The plan's memory against what Linux counts for a process that really does the steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys
from pathlib import Path
import numpy as np, psutil, torch
from accelerate import Accelerator
from bridges import kernels
from bridges.bridge import pair_sites
from bridges.config import from_dict
from bridges.data.blocks import TokenBlocks
from bridges.dense import load_dense
from bridges.runs.initialise import build, choose_start
from bridges.training.loop import Trainer
from bridges.training.plan import estimate

config = from_dict(json.loads(sys.argv[1]))
kernels.select(config.kernels)
accelerator = Accelerator(cpu=True)
dense, _ = load_dense("tinypython")
before = psutil.Process().memory_info().rss
start = choose_start(config, dense, 256, 0)
count = len(pair_sites(dense.n_sublayers, 2 * start.shape.n_layer, config.bridge.every))
plan = estimate(config, dense, start.shape, count, 256, "fp32", 1, accelerator.device)
ids = np.random.default_rng(0).integers(0, dense.vocab_size, (16, 256)).astype(np.int32)
data = TokenBlocks({"train": ids, "validation": ids, "test": ids}, {"train": 16}, "")
trainer = Trainer(config, dense, *build(config, dense, start), data, accelerator, Path("unused"))
trainer.step()
trainer.step()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
frozen = sum(p.numel() * p.element_size() for p in dense.parameters())
print(json.dumps([plan.memory - frozen, peak]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in bytes elsewhere")
@pytest.mark.parametrize(
    ("d_model", "batch", "sites"),
    [
        pytest.param(256, 2, "all", id="activations"),  # most of it is left behind for the backward pass
        pytest.param(768, 1, "1", id="states"),  # most of it are weights, gradients and moments
    ],
)
def test_the_peak_is_about_the_estimate(d_model, batch, sites):
    settings = {
        "kernels": "python",
        "sparse": {"init": "random", "d_model": d_model},
        "train": {"batch": batch, "hybrid_sites": sites, "precision": "fp32"},
    }
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings)], capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr
    estimated, peak = json.loads(done.stdout.splitlines()[-1])
    assert peak > 200e6 and 0.75 < estimated / peak < 1.45, (estimated, peak)
