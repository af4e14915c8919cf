"""One of several processes that train the tiny pair together; `test_parallel.py` starts them.

    torchrun --nproc-per-node 2 tests/training/worker.py <folder> <engine>

For each of `VARIANTS` the main process writes ``<engine>-<variant>.pt``: the training table, and the weights at the
end, whole. What each process holds goes to ``<engine>-bytes-<rank>.json``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from bridges.config import BridgeConfig, Config, DataConfig, SparseConfig, TermConfig, TrainConfig
from bridges.training.loop import Trainer

CONTEXT, STEPS = 8, 6
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parts": {"accumulate": 2},
    # Bridges without a gradient: all of them before the first crossing, afterwards those that were not drawn.
    "sampled": {
        "hybrid_sites": "1",
        "hybrid_from": 0.4,
        "terms": TermConfig(nmse_encoder=None, nmse_decoder=None),
        "hybrid_sampling": "importance",
    },
    "refit": {"refit": 2, "prefix": 1},
    "sparser": {"sparsity": 0.02, "floor": 4},
}


def _helpers() -> Any:
    path = Path(__file__).parent.parent / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_things", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def trainer(folder: Path, accelerator: Accelerator, variant: str, seed: int = 0, **more: Any) -> Trainer:
    """A trainer of the tiny pair."""
    helpers = _helpers()
    given = VARIANTS[variant] | more
    refit, prefix = given.pop("refit", 0), given.pop("prefix", 0)
    sparsity, floor = given.pop("sparsity", 0.3), given.pop("floor", 2)
    pair = helpers._tiny_pair(seed)
    pair.bridges.constant_prefix = prefix
    settings = {"batch": 4, "lr": 0.01, "precision": "fp32", "log_every": 1, "checkpoint_every": 3} | given
    config = Config(
        sparsity=sparsity,
        data=DataConfig(context=CONTEXT),
        sparse=SparseConfig(floor=floor),
        bridge=BridgeConfig(refit=refit),
        train=TrainConfig(tokens=STEPS * 4 * CONTEXT, **settings),
    )
    dense = helpers._tiny_pair(0).dense
    return Trainer(config, dense, pair.sparse, pair.bridges, helpers._tiny_blocks(), accelerator, folder)


def train(folder: Path, accelerator: Accelerator, variant: str) -> dict[str, Any]:
    """Train a variant; its table and its weights, whole."""
    one = trainer(folder / variant, accelerator, variant)
    rows, _ = one.fit()
    weights = {**one.sparse.state_dict(), **{f"bridges.{k}": v for k, v in one.bridges.state_dict().items()}}
    return {"rows": rows.to_dict("list"), "weights": {k: v.clone() for k, v in weights.items()}}


def main() -> None:
    folder, engine = Path(sys.argv[1]), sys.argv[2]
    accelerator = Accelerator()
    assert accelerator.num_processes == int(os.environ["WORLD_SIZE"]) > 1
    for variant in VARIANTS:
        result = train(folder / engine, accelerator, variant)
        if accelerator.is_main_process:
            torch.save(result, folder / f"{engine}-{variant}.pt")
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
