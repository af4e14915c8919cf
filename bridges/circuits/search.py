"""Finding the smallest set of nodes and edges that still does a behaviour (paper, sections 2.2 and A.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.circuit import Circuit, kept_edges, only
from bridges.circuits.scores import Gates, attribution, integrated_gradients, magnitude, random_scores
from bridges.circuits.settings import CircuitSettings
from bridges.circuits.task import Calibration, Prompts, answer_margins, calibrate, prompts, task_loss
from bridges.circuits.wires import wires
from bridges.nodes import intervene, record
from bridges.stack import ResidualStack


@torch.no_grad()
def node_means(stack: ResidualStack, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean of every node over text, ``{point: [channels]}`` in fp32.

    Args:
        batches: token ids ``[B, T]`` of ordinary text, every token of which counts.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for ids in batches:
        with record(stack) as seen:
            stack.run_segment(stack.embed(ids), 0, stack.n_sublayers)
        for point, value in seen.items():
            total[point] = total.get(point, 0) + value.double().flatten(0, 1).sum(0)  # type: ignore[operator]
        count += ids.numel()
    return {point: (value / count).float().cpu() for point, value in total.items()}


class Search:
    """One search in one stack for one behaviour.

    Args:
        stack: in evaluation mode; its weights are frozen while the search runs.
        encoded: training pairs.
        reference: `node_means` over ordinary text.
        settings: of the search. seed: of every draw.
        model: ``sparse`` or ``dense``, for the circuit's label.
    """

    def __init__(
        self,
        stack: ResidualStack,
        encoded: EncodedPairs,
        reference: Mapping[str, Tensor],
        settings: CircuitSettings,
        seed: int = 0,
        model: str = "sparse",
    ):
        self.stack, self.settings, self.seed = stack, settings, seed
        if settings.ablation == "zero":
            reference = {p: torch.zeros_like(m) for p, m in reference.items()}
        self.reference = {p: reference[p] for p in stack.nodes.widths}
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        self.encoded = encoded
        self.prompts = prompts(encoded.take(range(min(settings.pairs, len(encoded)))), device)
        nothing = {p: torch.zeros(w, dtype=torch.bool) for p, w in stack.nodes.widths.items()}
        self.empty = Circuit(
            encoded.behaviour,
            model,
            settings.method,
            seed,
            settings.ablation,
            nothing,
            {p: torch.zeros(w) for p, w in stack.nodes.widths.items()},
            None,
            self.reference,
            settings.target,
            False,
            math.inf,
        )

    def measure(self, circuit: Circuit) -> Circuit:
        """The circuit with its calibration and training loss."""
        with torch.no_grad(), only(self.stack, circuit):
            margins = answer_margins(self.stack, self.prompts)
        found: Calibration = calibrate(margins, self.prompts.sign)
        loss = float(task_loss(found.apply(margins, self.prompts.sign)))
        return replace(
            circuit,
            train_loss=loss,
            reached=loss <= self.settings.target,
            scale=found.scale,
            shift=found.shift,
        )

    def run(self) -> Circuit:
        """Rank nodes, take as few of them as reach the target, and remove what is left over."""
        scores = self.rank()
        circuit = self.bisect(scores)
        circuit = replace(circuit, meta={**circuit.meta, "ranked_nodes": circuit.size})
        if not circuit.reached:
            return circuit
        circuit = self.drop_nodes(circuit)
        if self.settings.edges:
            circuit = self.drop_edges(circuit)
            circuit = self.drop_dead_ends(circuit)
        return circuit

    # --- ranking --------------------------------------------------------------------------------------------------

    def rank(self) -> dict[str, Tensor]:
        """A score for every node, ``{point: [channels]}``; the larger the more it is needed."""
        method, arguments = self.settings.method, (self.stack, self.prompts, self.reference)
        if method == "random":
            return random_scores(self.stack, self.seed)
        if method == "magnitude":
            return magnitude(*arguments)
        if method == "attribution":
            return attribution(*arguments)
        if method == "integrated_gradients":
            return integrated_gradients(*arguments)
        return self.learn()

    def learn(self) -> dict[str, Tensor]:
        """Learned pruning: gates with a straight-through gradient against a price per node; the final τ, ties broken
        by attribution."""
        settings, generator = self.settings, torch.Generator().manual_seed(self.seed)
        prior = attribution(self.stack, self.prompts, self.reference)
        gates = Gates(self.stack, self.reference, settings.temperature)
        device = self.prompts.ids.device
        for tau in gates.tau.values():
            noise = torch.randn(tau.shape, generator=generator) * settings.init_noise
            tau.data.copy_((settings.init_bias + noise).to(device))
        optimizer = torch.optim.AdamW(
            gates.tau.values(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay
        )
        count = len(self.encoded)
        warm = max(1, round(0.05 * settings.steps))
        for step in range(settings.steps):
            chosen = torch.randperm(count, generator=generator)[: settings.batch].tolist()
            batch = prompts(self.encoded.take(chosen), device)
            with torch.enable_grad(), intervene(self.stack, gates.functions()):
                loss = task_loss(answer_margins(self.stack, batch))
                rise = 0.1 ** (1 - step / max(1, settings.steps - 1))
                total = loss + settings.k_coef * rise * gates.count()
                grads = torch.autograd.grad(total, list(gates.tau.values()))
            for tau, grad in zip(gates.tau.values(), grads, strict=True):
                tau.grad = grad
            torch.nn.utils.clip_grad_norm_(gates.tau.values(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * min((step + 1) / warm, 1 - step / settings.steps)
            optimizer.step()
            for tau in gates.tau.values():
                tau.data.clamp_(-1, 1)
        largest = max(float(p.abs().max()) for p in prior.values()) or 1.0
        return {p: (tau.detach().cpu() + 1e-3 * prior[p] / largest) for p, tau in gates.tau.items()}

    # --- size -----------------------------------------------------------------------------------------------------

    def top(self, scores: Mapping[str, Tensor], count: int) -> Circuit:
        """The circuit of the ``count`` best nodes; of equal ones the earlier stays."""
        flat = torch.cat([scores[p].flatten() for p in self.reference])
        order = torch.argsort(flat, descending=True, stable=True)[:count]
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[order] = True
        widths = [len(self.reference[p]) for p in self.reference]
        nodes = dict(zip(self.reference, mask.split(widths), strict=True))
        return replace(self.empty, nodes=nodes, scores=dict(scores))

    def bisect(self, scores: Mapping[str, Tensor]) -> Circuit:
        """The smallest number of best nodes whose calibrated loss reaches the target; all nodes where none does."""
        high = sum(len(m) for m in self.reference.values())
        best = self.measure(self.top(scores, high))
        if not best.reached:
            return best
        low = 0
        # Sizes differ by orders of magnitude, so the middle is taken between logarithms.
        while high - low > 1:
            middle = max(low + 1, min(high - 1, round(math.sqrt(max(1, low) * high))))
            tried = self.measure(self.top(scores, middle))
            if tried.reached:
                best, high = tried, middle
            else:
                low = middle
        return best

    # --- leftovers ------------------------------------------------------------------------------------------------

    def drop_nodes(self, circuit: Circuit) -> Circuit:
        """Remove the nodes of least first-order effect, a share of those left at a time, while the target holds.

        The effects are measured again in every smaller circuit: nodes that stand in for each other look idle only
        together.
        """
        share, effect = 0.5, None
        tried: set[tuple[int, int]] = set()
        for _ in range(self.settings.tries):
            count = max(1, int(share * circuit.size))
            if (circuit.size, count) in tried or circuit.size < 2:
                break
            if effect is None:
                effect = attribution(self.stack, self.prompts, self.reference, circuit)
            smaller = self.measure(replace(circuit, nodes=_without_least(circuit.nodes, effect, count)))
            if smaller.reached:
                circuit, effect = smaller, None
                share = min(0.5, 1.5 * share)
            else:
                tried.add((circuit.size, count))
                share /= 2
        items = []
        effect = attribution(self.stack, self.prompts, self.reference, circuit)
        for point, kept in circuit.nodes.items():
            items += [(float(effect[point][c]), point, c) for c in kept.nonzero()[:, 0].tolist()]
        items.sort(key=lambda item: item[0])

        def without(current: Circuit, group: list) -> Circuit:
            nodes = {p: kept.clone() for p, kept in current.nodes.items()}
            for _, point, channel in group:
                nodes[point][channel] = False
            return replace(current, nodes=nodes)

        return self._greedy(circuit, items, without)

    def drop_edges(self, circuit: Circuit) -> Circuit:
        """Remove weights between kept nodes, those that carry least first, group by group while the target holds."""
        edges = kept_edges(self.stack, circuit)
        circuit = replace(circuit, edges=edges)
        spread, slope = self.spread_and_slope(circuit)
        items = []
        for wire in wires(self.stack):
            if wire.matrix not in edges:
                continue
            carried = wire.weight.detach().cpu().abs() * spread[wire.source][None] * slope[wire.target][:, None]
            for target, source in edges[wire.matrix].nonzero().tolist():
                items.append((float(carried[target, source]), wire.matrix, (target, source)))
        items.sort(key=lambda item: item[0])

        def without(current: Circuit, group: list) -> Circuit:
            assert current.edges is not None
            kept = dict(current.edges)
            for matrix in {matrix for _, matrix, _ in group}:
                kept[matrix] = kept[matrix].clone()
            for _, matrix, at in group:
                kept[matrix][at] = False
            return replace(current, edges=kept)

        return self._greedy(circuit, items, without)

    def drop_dead_ends(self, circuit: Circuit) -> Circuit:
        """Remove nodes that no kept edge enters or none leaves, as long as there are any and the target holds."""
        while True:
            edges = kept_edges(self.stack, circuit)
            enters = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
            leaves = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
            for wire in wires(self.stack):
                if wire.matrix in edges:
                    enters[wire.target] |= edges[wire.matrix].any(1)
                    leaves[wire.source] |= edges[wire.matrix].any(0)
            dead: list = []
            for point, kept in circuit.nodes.items():
                kind = point.split(".")[1]
                # Queries and keys act on scores, not through an edge of their own.
                out = torch.ones_like(kept) if kind in ("q", "k", "attn_out", "mlp_out") else leaves[point]
                into = torch.ones_like(kept) if kind in ("attn_in", "mlp_in") else enters[point]
                dead += [(0.0, point, c) for c in (kept & ~(out & into)).nonzero()[:, 0].tolist()]
            if not dead:
                return circuit
            nodes = {p: kept.clone() for p, kept in circuit.nodes.items()}
            for _, point, channel in dead:
                nodes[point][channel] = False
            smaller = self.measure(replace(circuit, nodes=nodes))
            if not smaller.reached:
                return circuit
            circuit = smaller

    def _greedy(self, circuit: Circuit, items: list, without: Callable[[Circuit, list], Circuit]) -> Circuit:
        size = max(1, len(items) // 2)
        start = 0
        for _ in range(self.settings.tries):
            if start >= len(items):
                break
            group = items[start : start + size]
            tried = self.measure(without(circuit, group))
            if tried.reached:
                circuit, start = tried, start + len(group)
                size *= 2
            elif size > 1:
                size = max(1, size // 2)
            else:
                start += 1
        return circuit

    def spread_and_slope(self, circuit: Circuit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Per node the deviation from its mean and the gradient's size, both as RMS over the prompts' tokens."""
        values: dict[str, Tensor] = {}

        def keep(point: str):
            def function(x: Tensor) -> Tensor:
                values[point] = x
                if not x.requires_grad:
                    x.requires_grad_()
                return x

            return function

        with torch.enable_grad(), only(self.stack, circuit):
            with intervene(self.stack, {p: keep(p) for p in circuit.nodes}):
                loss = task_loss(answer_margins(self.stack, self.prompts))
            grads = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
        spread = {
            p: (x.detach().float().cpu() - self.reference[p]).square().flatten(0, 1).mean(0).sqrt()
            for p, x in values.items()
        }
        slope = {
            p: torch.zeros(x.shape[-1]) if g is None else g.float().cpu().square().flatten(0, 1).mean(0).sqrt()
            for (p, x), g in zip(values.items(), grads, strict=True)
        }
        return spread, slope


def _without_least(nodes: Mapping[str, Tensor], effect: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The kept nodes but for the ``count`` of least effect."""
    flat = torch.cat([torch.where(kept, effect[p], math.inf) for p, kept in nodes.items()])
    flat[torch.argsort(flat, stable=True)[:count]] = -math.inf
    parts = flat.split([len(kept) for kept in nodes.values()])
    return {p: kept & (part > -math.inf) for (p, kept), part in zip(nodes.items(), parts, strict=True)}


def find_circuit(
    stack: ResidualStack,
    encoded: EncodedPairs,
    reference: Mapping[str, Tensor],
    settings: CircuitSettings | None = None,
    seed: int = 0,
    model: str = "sparse",
) -> Circuit:
    """Search a stack for the circuit of a behaviour; see `Search`."""
    return Search(stack, encoded, reference, settings or CircuitSettings(), seed, model).run()


def heldout_margins(
    stack: ResidualStack, circuit: Circuit, some: Prompts, values: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Calibrated margins ``[2n]`` of the circuit alone on other prompts."""
    with torch.no_grad(), only(stack, circuit, values):
        margins = answer_margins(stack, some)
    return Calibration(circuit.scale, circuit.shift).apply(margins, some.sign)
