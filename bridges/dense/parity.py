"""Does a stack compute what its model computes?"""

from __future__ import annotations

import torch

from bridges.dense.base import DenseStack
from bridges.errors import ModelError

# Largest difference allowed, as a share of the largest logit (at least 1).
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}


@torch.no_grad()
def check_parity(stack: DenseStack, tokens: int = 32) -> float:
    """Compare the stack's logits with its model's own on two random sequences, in the model's dtype.

    Args:
        stack: the stack to check.
        tokens: length of the sequences, cut to the model's context.

    Returns:
        The largest absolute difference.

    Raises:
        ModelError: the difference exceeds the dtype's `TOLERANCE`, or the logits are not finite.
    """
    model = stack.model
    rows = min(stack.vocab_size, model.get_input_embeddings().weight.shape[0])
    ids = torch.randint(rows, (2, min(tokens, stack.context)), generator=torch.Generator().manual_seed(0))
    ids = ids.to(model.device)
    theirs = model(input_ids=ids, use_cache=False).logits
    ours = stack.logits(ids)
    kind, adapter = model.config.model_type, f"{type(stack).__module__}.{type(stack).__name__}"
    if not torch.isfinite(theirs).all():
        raise ModelError(
            f"This {kind} model's logits are not finite in {theirs.dtype}: its weights are damaged, or it "
            "needs another dtype (model.dtype=fp32)."
        )
    if ours.shape != theirs.shape:
        raise ModelError(f"{adapter} gives logits {tuple(ours.shape)}, its model {tuple(theirs.shape)}.")
    difference = (ours.double() - theirs.double()).abs().max().item()
    allowed = TOLERANCE.get(theirs.dtype, 1e-4) * max(1.0, theirs.abs().max().item())
    if not difference <= allowed:
        raise ModelError(
            f"{adapter} does not give this {kind} model's own logits: they differ by up to {difference:.3g}, "
            f"more than {allowed:.3g}. The model has a feature the adapter does not know, or the adapter "
            "is wrong; nothing computed with it would be about this model."
        )
    return difference
