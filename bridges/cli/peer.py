"""The published implementation of weight-sparse transformers beside ours: one step of one model, in one process.

OpenAI's ``circuit_sparsity`` (Gao et al. 2025) publishes its model, not the training of bridges. So what both do is
compared: cross-entropy of a sparse model on a batch and its gradient, of the same weights on the same tokens, with no
dense model, no bridge and no optimizer.
"""

from __future__ import annotations

import importlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bridges.errors import BridgesError, in_brief
from bridges.interop.openai import WEIGHTS_FILE, read_settings
from bridges.interop.openai_save import save_openai
from bridges.sparse import SparseTransformer
from bridges.training.precision import autocast

PACKAGE, MODULE = "circuit_sparsity", "circuit_sparsity.inference.gpt"
# Rounds in which each of the two is timed once, at least.
ROUNDS = 3


def import_peer(folder: str | Path) -> ModuleType:
    """Import the module that defines the published model from a checkout; nothing else of the folder is run.

    Args:
        folder: that holds ``circuit_sparsity/inference/gpt.py``.

    Raises:
        BridgesError: it does not, it needs a package that is not installed, or it cannot be imported.
    """
    folder = Path(folder).expanduser().resolve()
    file = folder / "circuit_sparsity" / "inference" / "gpt.py"
    if not file.is_file():
        raise BridgesError(
            f"--peer {folder} is no checkout of https://github.com/openai/circuit_sparsity: it has no "
            f"{file.relative_to(folder)}. Clone that repository and give its folder."
        )
    # A package of that name may be installed as well; the one in the folder is meant.
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == PACKAGE}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == PACKAGE:
            raise BridgesError(f"The checkout in {folder} is not whole: it has no {error.name}.") from error
        raise BridgesError(
            f"{file} needs the package {error.name}, which is not installed: pip install {error.name}."
        ) from error
    except Exception as error:
        raise BridgesError(f"{file} cannot be imported ({in_brief(error)}).") from error
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(hidden)


def peer_model(peer: ModuleType, sparse: SparseTransformer) -> nn.Module:
    """The published model with the weights of ours, with the fastest of its switches (no recomputation).

    Args:
        peer: of `import_peer`. sparse: without positions; it is written in their format, and read by them.

    Raises:
        BridgesError: their model has not the settings or the weights of the format.
    """
    with TemporaryDirectory() as place, redirect_stdout(io.StringIO()):
        save_openai(sparse, place)
        settings = {k: v for k, v in read_settings(place).items() if k != "bigram_table_rank"}
        # The bigram table is trained in both or in neither.
        learns = sparse.bigram is not None and all(p.requires_grad for p in sparse.bigram.parameters())
        settings |= {"flash": True, "grad_checkpointing": False, "learnable_bigram_table": learns}
        state = torch.load(os.path.join(place, WEIGHTS_FILE), weights_only=True)
        try:
            model = peer.GPT(peer.GPTConfig(**settings))
            model.load_state_dict(state)
        except (AttributeError, TypeError, AssertionError, RuntimeError) as error:
            raise BridgesError(
                f"The model in {peer.__file__} is another one than was published in 2025 ({in_brief(error)})."
            ) from error
    return cast(nn.Module, model.to(next(sparse.parameters()).device))


def alternated(functions: Sequence[Callable[[], Tensor]], rounds: int) -> list[tuple[float, float]]:
    """Median wall time in seconds and value of each function, called in turn; a first round is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    values = [float(function()) for function in functions]
    for _ in range(rounds):
        for function, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            # A number on this side: whatever device it is computed on is done with it.
            float(function())
            found.append(time.perf_counter() - started)
    return [(statistics.median(found), value) for found, value in zip(times, values, strict=True)]


def peer_rows(
    peer: ModuleType, sparse: SparseTransformer, ids: Tensor, precision: str, repeats: int
) -> dict[str, dict[str, float]]:
    """A step of one sparse model, ours and theirs: ``{name: {"s/step", "tokens/s", "loss"}}``.

    Args:
        peer: of `import_peer`. ids: ``[B, T]``. precision: ``fp32`` or ``bf16``, of both.
    """
    theirs = peer_model(peer, sparse)
    # As theirs wants them: −1 where there is no next token.
    targets = F.pad(ids[:, 1:], (0, 1), value=-1)

    def step(model: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
        with autocast(precision, ids.device):
            total = loss()
        total.backward()
        model.zero_grad(set_to_none=True)
        return total.detach()

    def own_loss() -> Tensor:
        logits = sparse.unembed(sparse.run(ids).final[0], ids)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1)

    functions = (lambda: step(sparse, own_loss), lambda: step(theirs, lambda: theirs(ids, targets=targets)[1]))
    measured = alternated(functions, max(ROUNDS, repeats))
    names = ("bridges, one sparse model", "peer, one sparse model")
    return {
        name: {"s/step": seconds, "tokens/s": ids.numel() / seconds, "loss": value}
        for name, (seconds, value) in zip(names, measured, strict=True)
    }


def peer_text(rows: dict[str, dict[str, float]]) -> str:
    """What `peer_rows` found, in words."""
    (_, ours), (_, theirs) = rows.items()
    difference = abs(ours["loss"] - theirs["loss"]) / abs(theirs["loss"])
    return (
        f"one sparse model, forward and backward, medians: {1e3 * ours['s/step']:,.0f} ms a step, "
        f"{ours['tokens/s']:,.0f} tokens/s; published implementation {1e3 * theirs['s/step']:,.0f} ms, "
        f"{theirs['tokens/s']:,.0f} tokens/s: {theirs['s/step'] / ours['s/step']:.2f} times faster than it "
        f"(losses differ by {difference:.1e}). It has no bridges; their step is compared with `plain`."
    )
