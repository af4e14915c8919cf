"""What a run is about to do, before it does it: parameters, nonzeros, tokens, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil
import torch

from bridges.config import Config
from bridges.errors import MemoryBudgetError
from bridges.losses import chunk_entries
from bridges.sparse import SparseTransformer, SparseTransformerConfig, budget
from bridges.stack import ResidualStack

GIB = 1 << 30


@dataclass
class Plan:
    """Sizes in parameters and bytes, time in seconds (0: not yet measured)."""

    dense_parameters: int
    sparse_parameters: int
    covered_weights: int
    nonzeros: int
    bridge_parameters: int
    n_bridges: int
    crossings: int
    steps: int
    tokens: int
    precision: str
    states: int
    activations: int
    available: int
    # Of the dense streams that are kept in the machine's memory, where training runs there too.
    stored: int = 0
    seconds_per_step: float = 0.0
    # Steps that were done before, by a run that is gone on with.
    done: int = 0

    @property
    def memory(self) -> int:
        """Estimated peak in bytes."""
        return self.states + self.activations + self.stored

    def text(self) -> str:
        """The plan as a person reads it."""
        share = self.nonzeros / self.covered_weights
        lines = [
            f"dense model      {self.dense_parameters:>14,} parameters, frozen",
            f"sparse model     {self.sparse_parameters:>14,} parameters; of {self.covered_weights:,} weights in "
            f"matrices {self.nonzeros:,} stay ({share:.3%})",
            f"bridges          {self.bridge_parameters:>14,} parameters in {self.n_bridges} encoder–decoder pairs, "
            f"{self.crossings} crossed per step and direction",
            f"training         {self.tokens:>14,} tokens in {self.steps:,} steps, {self.precision}",
            f"memory           {self.memory / GIB:>13.1f} GiB at the peak, about; "
            f"{self.available / GIB:.1f} GiB are free",
        ]
        if self.seconds_per_step:
            total = self.seconds_per_step * (self.steps - self.done)
            each = f"{self.seconds_per_step:.2f} s a step"
            lines.append(f"time             {duration(total):>14} about for training, {each}")
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """``95`` to ``1 min 35 s``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def available_memory(device: torch.device) -> int:
    """Bytes free on the device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _sublayer_bytes(config: SparseTransformerConfig, element: int) -> int:
    """What one token leaves behind for the backward pass in an attention and an MLP sublayer together.

    Each AbsTopK point keeps its mask (1 byte) and its output; norms and the nonlinearity keep their inputs; the stream
    itself is fp32.
    """
    d, heads, mlp = config.d_model, config.n_head * config.d_head, config.d_mlp
    attention = d * 8 + (d + 3 * heads + d) * (element + 1) + 3 * heads * element + 2 * heads * element
    return attention + d * 8 + (d + mlp + d) * (element + 1) + 2 * mlp * element


def estimate(
    config: Config,
    dense: ResidualStack,
    sparse: SparseTransformerConfig,
    n_bridges: int,
    context: int,
    precision: str,
    processes: int,
    device: torch.device,
    length: float | None = None,
    sharded: bool = False,
) -> Plan:
    """The plan of a run, from shapes alone: nothing of the sparse model is allocated.

    The memory is that of the widest moment of a step. Against the peak that Linux counted for whole steps on a CPU it
    came out between equal and a quarter too large, over widths of 256 to 1024, both precisions and kernels.

    Args:
        sparse: configuration of the sparse model. n_bridges: number of bridges.
        context: tokens of the longest row of text. length: of a row on average (None: as many).
        processes: that share the global batch. sharded: and split weights, gradients and moments among them.
    """
    with torch.device("meta"):
        model = SparseTransformer(sparse)
    covered = {name: p.numel() for name, p in model.sparse_matrices().items()}
    total = sum(p.numel() for p in model.parameters())
    frozen = 0
    if model.bigram is not None and not config.sparse.train_bigram:
        frozen = sum(p.numel() for p in model.bigram.parameters())
    bridge = n_bridges * (2 * dense.d_model * sparse.d_model + dense.d_model + sparse.d_model)
    dense_params = list(dense.parameters())  # type: ignore[attr-defined]
    crossings = n_bridges
    if config.train.hybrid_sites != "all":
        crossings = min(n_bridges, int(config.train.hybrid_sites))
    a_step = config.train.batch * (context if length is None else length)
    steps = math.ceil(config.train.tokens / a_step)
    element = 2 if precision == "bf16" else 4
    # fp32 weight, gradient and two moments of everything trained; bf16 copies of the weights where products need them.
    trained = total - frozen + bridge
    copies = trained * 2 if element == 2 else 0
    states = trained * 16 + frozen * 4
    if sharded:
        # Whole for the time of a step, with their gradients: what is outside of the blocks, and two blocks in turn. The
        # copies in half precision are whole too, since backward reads them.
        blocks = [sum(p.numel() for p in block.parameters()) for block in model.blocks]
        states = states // processes + (total - sum(blocks) + bridge + 2 * max(blocks)) * 8
    states += copies
    states += sum(p.numel() * p.element_size() for p in dense_params)
    tokens = config.train.batch // (processes * config.train.accumulate) * context
    # A hybrid from site i passes what lies behind i: on average half of the stack.
    passes = 1 + crossings / 2
    stack_bytes = tokens * sparse.n_layer * _sublayer_bytes(sparse, element) * passes
    # Frozen weights need no inputs for a gradient of their own: norms, attention and the nonlinearity keep theirs.
    dense_bytes = tokens * dense.n_sublayers * dense.d_model * (8 + 5 * element) * crossings / 2
    widest = tokens * (1 + crossings) * (sparse.d_mlp * 12 + sparse.d_model * 8)
    streams = tokens * n_bridges * (dense.d_model + sparse.d_model) * 16
    logits = (5 if element == 2 else 4) * 4 * min(chunk_entries(device), tokens * (1 + crossings) * sparse.vocab_size)
    head = 2 * 4 * sparse.vocab_size * sparse.d_model
    return Plan(
        dense_parameters=sum(p.numel() for p in dense_params),
        sparse_parameters=total,
        covered_weights=sum(covered.values()),
        nonzeros=sum(budget(n, config.sparsity) for n in covered.values()),
        bridge_parameters=bridge,
        n_bridges=n_bridges,
        crossings=crossings,
        steps=steps,
        tokens=round(steps * a_step),
        precision=precision,
        states=states,
        activations=int(stack_bytes + dense_bytes + widest + streams + logits + head),
        available=available_memory(device),
    )


def check_memory(plan: Plan) -> None:
    """Refuse what cannot fit.

    Raises:
        MemoryBudgetError: with the settings that shrink it.
    """
    if plan.memory <= plan.available:
        return
    bigger = "sparse.d_model" if plan.states > plan.activations else "train.batch, or raise train.accumulate"
    raise MemoryBudgetError(
        f"This run needs about {plan.memory / GIB:.1f} GiB ({plan.states / GIB:.1f} GiB for weights and optimizer, "
        f"{plan.activations / GIB:.1f} GiB for activations) and {plan.available / GIB:.1f} GiB are free. "
        f"Lower {bigger}; train.hybrid_sites=1 crosses one site per step instead of {plan.crossings}."
    )
