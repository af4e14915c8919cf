"""The largest entries of tensors whose rows are spread over processes: the mask that one process would choose.

No process sees a whole tensor. The threshold is found by counting: the bits of a float without its sign order as the
magnitudes do, and three rounds of histograms, each of ten or eleven bits, lead to the budget's last entry exactly. A
round is one sum over the processes for all tensors together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

# (lowest bit, number of bits) of each round; the 31 bits of a magnitude in all.
_ROUNDS = ((20, 11), (10, 10), (0, 10))


def top_k_masks(magnitudes: Sequence[Tensor], counts: Sequence[int], mesh: DeviceMesh) -> list[Tensor]:
    """For each of several tensors the mask of its largest entries over all processes, exactly as many as wanted.

    Args:
        magnitudes: this process's rows of each tensor in fp32; negative entries are out of the question.
        counts: how many of each tensor's entries stay; of equal ones those with the lowest index, process by process.
        mesh: the processes, in the order of their rows.

    Returns:
        masks of this process's rows.
    """
    bits = [m.reshape(-1).contiguous().view(torch.int32) for m in magnitudes]
    left = torch.tensor(list(counts), dtype=torch.int64)
    # What is known of each threshold: its leading bits.
    prefix = torch.zeros(len(bits), dtype=torch.int64)
    for low, width in _ROUNDS:
        table = torch.zeros(len(bits), 1 << width, dtype=torch.int64, device=bits[0].device)
        for row, b in enumerate(bits):
            # Negative numbers have a sign bit: their shift is negative, and equal to no prefix.
            there = b[(b >> (low + width)) == int(prefix[row])] >> low
            table[row] = torch.bincount(there & ((1 << width) - 1), minlength=1 << width)
        dist.all_reduce(table, group=mesh.get_group())
        # Entries from each digit upwards; the threshold's digit is the largest with enough of them.
        above = table.cpu().flip(1).cumsum(1).flip(1)
        digit = ((above >= left[:, None].clamp_min(1)).sum(1) - 1).clamp_min(0)
        beyond = torch.cat([above, above.new_zeros(len(bits), 1)], 1).gather(1, digit[:, None] + 1)[:, 0]
        left = left - beyond
        prefix = (prefix << width) | digit
    return _with_ties(magnitudes, bits, prefix, left, torch.tensor(list(counts)), mesh)


def _with_ties(
    magnitudes: Sequence[Tensor], bits: list[Tensor], threshold: Tensor, room: Tensor, counts: Tensor, mesh: DeviceMesh
) -> list[Tensor]:
    """Masks of what is above each threshold, and of as many equal entries as there is room for, the lowest first."""
    equal = [b == int(t) for b, t in zip(bits, threshold, strict=True)]
    mine = torch.stack([e.sum() for e in equal])
    everywhere = [torch.empty_like(mine) for _ in range(mesh.size())]
    dist.all_gather(everywhere, mine, group=mesh.get_group())
    before = torch.stack(everywhere)[: mesh.get_local_rank()].sum(0).cpu()
    masks = []
    for i, m in enumerate(magnitudes):
        if counts[i] <= 0:
            masks.append(torch.zeros_like(m, dtype=torch.bool))
            continue
        mask = bits[i] > int(threshold[i])
        take = max(0, int(room[i] - before[i]))
        mask[equal[i].nonzero()[:take, 0]] = True
        masks.append(mask.view_as(m))
    return masks
