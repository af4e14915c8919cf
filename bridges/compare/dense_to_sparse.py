"""The other way: does the circuit go on from what the dense model has computed?

Shapes: n pairs, B = 2n prompts, b bridges, R draws, s width of the sparse stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.circuit import only
from bridges.circuits.task import Calibration, prompts, split
from bridges.compare.agreement import device_of
from bridges.compare.carry import channel_orders
from bridges.compare.crossing import TOKENS, Transfer, last_logits, margins_of
from bridges.compare.transfer import Margins, draws_of, gather


@torch.no_grad()
def continued_margins(t: Transfer, encoded: EncodedPairs, where: Sequence[int], nulls: bool = True) -> Margins:
    """Calibrated margins of the circuit that runs from each bridge on the encoded dense stream, ``[R, b, n, 2]``.

    Beside the ``circuit`` the same with ``shuffled_bridge``: the encoder's outputs in an order drawn for every pair.

    Args:
        where: indices of the b bridges. nulls: whether ``shuffled_bridge`` is wanted.
    """
    calibration = Calibration(t.circuit.scale, t.circuit.shift)
    generator = t.generator(f"dense_to_sparse {encoded.split}")
    whole = prompts(encoded, device_of(t.dense))
    parts: dict[str, list[Tensor]] = {}
    for some in split(whole, TOKENS // (whole.ids.shape[1] * len(where))):
        sites = t.dense.run(some.ids).sites
        own = [t.bridges[i].encode(sites[t.bridges.pairs[i].dense]) for i in where]

        def run(streams: list[Tensor], some=some) -> Tensor:
            entries = [(t.bridges.pairs[i].sparse, h) for i, h in zip(where, streams, strict=True)]
            final = list(t.sparse.run_from(entries).final.values())
            return calibration.apply(margins_of(last_logits(t.sparse, final, some), some), some.sign)

        def shuffled(own: list[Tensor] = own, some=some, run=run) -> Tensor:
            width, device = own[0].shape[-1], some.ids.device
            orders = [channel_orders(len(some) // 2, width, generator, device) for _ in own]
            return run([h.gather(-1, order.expand_as(h)) for h, order in zip(own, orders, strict=True)])

        with only(t.sparse, t.circuit):
            parts.setdefault("circuit", []).append(run(own)[None])
            if nulls:
                parts.setdefault("shuffled_bridge", []).append(draws_of(t, shuffled))
    return gather(parts)
