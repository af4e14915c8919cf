"""The other way: does the circuit go on from what the dense model has computed?

Shapes: n pairs, B = 2n prompts, b bridges, R draws, s width of the sparse stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.circuit import only
from bridges.circuits.task import Calibration, calibrate, prompts, split
from bridges.compare.agreement import device_of
from bridges.compare.carry import channel_orders
from bridges.compare.crossing import TOKENS, Transfer, last_logits, margins_of
from bridges.compare.transfer import Margins, draws_of, gather
from bridges.hybrid import keep_prefix, prefix_streams


@torch.no_grad()
def continued_margins(t: Transfer, encoded: EncodedPairs, where: Sequence[int]) -> Margins:
    """Calibrated margins of the circuit that runs from each bridge on the encoded dense stream, ``[R, b, n, 2]``.

    Beside the ``circuit`` the same with ``shuffled_bridge``: the encoder's outputs in an order drawn for every pair;
    and the ``empty_circuit``, no node at all, calibrated on these very prompts: late in the dense model its answer is
    in the stream already, which goes on whatever the circuit does.

    Args:
        where: indices of the b bridges.
    """
    calibration = Calibration(t.circuit.scale, t.circuit.shift)
    empty = replace(t.circuit, nodes={p: torch.zeros_like(k) for p, k in t.circuit.nodes.items()})
    generator = t.generator(f"dense_to_sparse {encoded.split}")
    whole = prompts(encoded, device_of(t.dense))
    parts: dict[str, list[Tensor]] = {}
    for some in split(whole, TOKENS // (whole.ids.shape[1] * len(where))):
        sites = t.dense.run(some.ids).sites
        own = [t.bridges[i].encode(sites[t.bridges.pairs[i].dense]) for i in where]

        def run(streams: list[Tensor], some=some) -> Tensor:
            kept = prefix_streams(t.sparse, some.ids, t.bridges.constant_prefix)
            to = [t.bridges.pairs[i].sparse for i in where]
            entries = [(site, keep_prefix(h, kept.get(site))) for site, h in zip(to, streams, strict=True)]
            final = list(t.sparse.run_from(entries).final.values())
            return margins_of(last_logits(t.sparse, final, some), some)

        def shuffled(own: list[Tensor] = own, some=some, run=run) -> Tensor:
            width, device = own[0].shape[-1], some.ids.device
            orders = [channel_orders(len(some) // 2, width, generator, device) for _ in own]
            return run([h.gather(-1, order.expand_as(h)) for h, order in zip(own, orders, strict=True)])

        with only(t.sparse, t.circuit):
            for name, margins in (("circuit", run(own)[None]), ("shuffled_bridge", draws_of(t, shuffled))):
                parts.setdefault(name, []).append(calibration.apply(margins, some.sign))
        with only(t.sparse, empty):
            parts.setdefault("empty_circuit", []).append(run(own)[None])
    alone = torch.cat(parts["empty_circuit"], -1)[0]
    parts["empty_circuit"] = [torch.stack([calibrate(m, whole.sign).apply(m, whole.sign) for m in alone])[None]]
    return gather(parts)
