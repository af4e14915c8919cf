"""One of several processes that train the tiny pair together; `test_parallel.py` starts them.

    torchrun --nproc-per-node 2 tests/training/worker.py <folder>

By each of `ENGINES` and for each of `VARIANTS` every process writes ``<engine>-<variant>-<rank>.pt``: how many bytes it
held, and the main one the training table and the weights at the end, whole.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from bridges.config import BridgeConfig, Config, DataConfig, SparseConfig, TermConfig, TrainConfig
from bridges.shards import local, sharded_like
from bridges.sparse.projection import budget, keep_mask, keep_masks
from bridges.training.loop import Trainer

CONTEXT, STEPS = 8, 6
# What Accelerate's launcher tells the processes that it starts.
ENGINES = {
    "ddp": {"ACCELERATE_USE_FSDP": "false"},
    "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
}
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
    # Gone on with from a checkpoint that one process wrote.
    "handed on": {},
    # Matrices large enough for products with the nonzeros alone, which are packed anew where weights have changed.
    "packed": {"sparsity": 0.05, "d_mlp": 1200, "anneal": 0.2},
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
    pair = helpers._tiny_pair(seed, **({"d_mlp": given.pop("d_mlp")} if "d_mlp" in given else {}))
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
    # What goes on from a checkpoint of others begins with other weights, which it must not keep.
    one = trainer(folder / variant, accelerator, variant, seed=9 if (folder / variant).exists() else 0)
    one.restore()
    rows, _ = one.fit()
    held = bytes_held(one)
    sparse, bridges = one.whole()
    if not accelerator.is_main_process:
        return {"bytes": held}
    weights = {**sparse.state_dict(), **{f"bridges.{k}": v for k, v in bridges.state_dict().items()}}
    return {"rows": rows.to_dict("list"), "weights": {k: v.clone() for k, v in weights.items()}, "bytes": held}


def bytes_held(one: Trainer) -> int:
    """Bytes of parameters and of what the optimizers keep of them that this process holds between two steps."""
    kept = [value for o in one.optimizer.optimizers for state in o.state.values() for value in state.values()]
    tensors = [*one.sparse.parameters(), *one.bridges.parameters(), *(x for x in kept if x.ndim)]
    return sum(local(x).numel() * local(x).element_size() for x in tensors)


def masks(accelerator: Accelerator) -> list[str]:
    """Draws of matrices whose mask from shards is not that of the whole matrix."""
    mesh = init_device_mesh("cpu", (accelerator.num_processes,))
    wrong = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        shapes = [(int(r), int(c)) for r, c in torch.randint(1, 40, (4, 2), generator=generator)]
        whole = [torch.randn(shape, generator=generator) for shape in shapes]
        if seed % 4 == 1:  # many equal entries
            whole = [w.mul(4).round().div(4) for w in whole]
        elif seed % 4 == 2:  # most are zero already, as in training
            whole = [w * (torch.rand(w.shape, generator=generator) < 0.2) for w in whole]
        elif seed % 4 == 3:  # slices far below all others, which their floor keeps
            whole = [w * torch.logspace(-3, 0, len(w))[:, None] * torch.logspace(-3, 0, w.shape[1]) for w in whole]
        dimensions, floor = [0, 1, None, 1], 1 + seed % 5
        fraction = float(torch.rand((), generator=generator)) ** 2
        counts = [budget(w.numel(), fraction) for w in whole]
        shards = [distribute_tensor(w, mesh, [Shard(0)]) for w in whole]
        found = keep_masks(shards, counts, dimensions, floor)
        for w, s, mask, count, dimension in zip(whole, shards, found, counts, dimensions, strict=True):
            wanted, _ = keep_mask(w, count, dimension, floor)
            mine = local(sharded_like(wanted.contiguous(), s))
            # Of zeros no one can tell which stays.
            if not torch.equal(mask & (local(s) != 0), mine & (local(s) != 0)):
                wrong.append(f"seed {seed}: {tuple(w.shape)}, {count}, {dimension}, {floor}")
    return wrong


def main() -> None:
    folder = Path(sys.argv[1])
    accelerator = Accelerator()
    assert accelerator.num_processes == int(os.environ["WORLD_SIZE"]) > 1
    rank = accelerator.process_index
    torch.save(masks(accelerator), folder / f"masks-{rank}.pt")
    for engine, environment in ENGINES.items():
        os.environ.update(environment)
        for variant in VARIANTS:
            torch.save(train(folder / engine, accelerator, variant), folder / f"{engine}-{variant}-{rank}.pt")
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
