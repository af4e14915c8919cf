"""A sparse model's weights on disk as what is not zero: positions and values, in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bridges.errors import CheckpointError, in_brief

PACKED = "packed.safetensors"
# A tensor with more nonzeros than this is smaller as it is.
DENSE_ABOVE = 0.3


def save_packed(state: dict[str, Tensor], folder: str | Path) -> Path:
    """Write a state dict as fp16, sparse tensors as index gaps and values.

    Args:
        state: floating-point tensors of any shape. Values are rounded to fp16; what was zero stays zero, and what was
            not is not rounded to it, so that the number of nonzeros is kept.
        folder: where ``packed.safetensors`` goes.
    """
    out: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in state.items():
        flat = tensor.detach().float().cpu().flatten()
        half = flat.half()
        vanished = (half == 0) & (flat != 0)
        half[vanished] = torch.copysign(torch.full_like(flat, 2.0**-24), flat)[vanished].half()
        shapes[name] = list(tensor.shape)
        index = half.nonzero()[:, 0]
        if len(index) > DENSE_ABOVE * len(half):
            out[name] = half
            continue
        gaps = np.diff(index.numpy(), prepend=-1) - 1
        # Gaps of 255 and more are written as that many 255s and a rest, so that one byte is enough.
        count, rest = np.divmod(gaps, 255)
        coded = np.full(len(gaps) + int(count.sum()), 255, dtype=np.uint8)
        coded[np.cumsum(count + 1) - 1] = rest
        out[f"{name}:gaps"] = torch.from_numpy(coded)
        out[f"{name}:values"] = half[index]
    path = Path(folder) / PACKED
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, path, metadata={"shapes": json.dumps(shapes)})
    return path


def load_packed(folder: str | Path) -> dict[str, Tensor]:
    """The state dict of a model folder in fp32, packed or in plain safetensors.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    folder = Path(folder)
    path = folder / PACKED
    try:
        if not path.exists():
            return {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
        parts = load_file(path)
        shapes = json.loads(_metadata(path)["shapes"])
        state = {}
        for name, shape in shapes.items():
            if name in parts:
                state[name] = parts[name].float().view(shape)
                continue
            coded = parts[f"{name}:gaps"].numpy().astype(np.int64)
            # A byte of 255 goes on, any other ends a gap.
            ends = np.flatnonzero(coded != 255)
            index = np.cumsum(coded)[ends] + np.arange(len(ends))
            flat = torch.zeros(int(np.prod(shape)))
            flat[torch.from_numpy(index)] = parts[f"{name}:values"].float()
            state[name] = flat.view(shape)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"No readable weights in {folder}: {in_brief(error)}.") from error
    return state


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        return opened.metadata()
