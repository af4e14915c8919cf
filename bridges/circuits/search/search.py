"""Finding the smallest set of nodes and edges that still does a behaviour (paper, sections 2.2 and A.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.ablation import Removed
from bridges.circuits.attribution import attribution, integrated_gradients, magnitude, random_scores
from bridges.circuits.circuit import Circuit, only
from bridges.circuits.search.adversarial import hardened
from bridges.circuits.search.gates import learn_gates
from bridges.circuits.search.greedy import drop_dead_ends, drop_edges, drop_nodes
from bridges.circuits.task import Calibration, Prompts, answer_margins, calibrate, prompts, task_loss
from bridges.config.search import CircuitSettings
from bridges.stack import ResidualStack

# Keeps the draws of resampled values apart from those of the gates.
VALUES_SEED = 7_000_003


class Search:
    """One search in one stack for one behaviour.

    Args:
        stack: in evaluation mode; its weights are frozen while the search runs.
        encoded: training pairs.
        reference: `node_means` over ordinary text.
        settings: of the search. seed: of every draw.
        model: ``sparse`` or ``dense``, for the circuit's label.
        text: token ids ``[n, context]``, where removed nodes are resampled.
    """

    def __init__(
        self,
        stack: ResidualStack,
        encoded: EncodedPairs,
        reference: Mapping[str, Tensor],
        settings: CircuitSettings,
        seed: int = 0,
        model: str = "sparse",
        text: Tensor | None = None,
    ):
        self.stack, self.settings, self.seed, self.encoded = stack, settings, seed, encoded
        self.removed = Removed(stack, reference, settings.ablation, text)
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        self.prompts = prompts(encoded.take(range(min(settings.pairs, len(encoded)))), device)
        # One draw for the whole search: circuits are compared on the same values.
        generator = torch.Generator().manual_seed(seed + VALUES_SEED)
        self.values = self.removed.values(self.prompts, generator)
        widths = stack.nodes.widths
        self.empty = Circuit(
            behaviour=encoded.behaviour,
            model=model,
            method=settings.method,
            seed=seed,
            ablation=settings.ablation,
            nodes={p: torch.zeros(w, dtype=torch.bool) for p, w in widths.items()},
            scores={p: torch.zeros(w) for p, w in widths.items()},
            edges=None,
            reference=self.removed.reference,
            target=settings.target,
            reached=False,
            train_loss=math.inf,
        )

    @property
    def full(self) -> Circuit:
        """Every node, measured."""
        return self.measure(replace(self.empty, nodes={p: torch.ones_like(k) for p, k in self.empty.nodes.items()}))

    def measure(self, circuit: Circuit) -> Circuit:
        """The circuit with its calibration and training loss."""
        with torch.no_grad(), only(self.stack, circuit, self.values):
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
        """The circuit: `by_nodes`, and of its edges those that are needed."""
        return self.by_edges(self.by_nodes())

    def by_nodes(self, full: Circuit | None = None) -> Circuit:
        """Rank nodes, take as few of them as reach the target, and remove what is left over; where that makes a
        circuit, go on against an adversary (``hardening``) and do the same with the hardened ranking.

        Where the hardened ranking leads to no circuit, it is the first one's. Where the whole model's loss is above
        ``give_up`` all nodes are returned, and where no number of nodes reaches the target the most there may be
        (``largest``), not `reached`.

        Args:
            full: the circuit of all nodes, where it is measured already.
        """
        full = self.full if full is None else full
        if full.train_loss > max(self.settings.give_up, self.settings.target):
            return full
        ranked = self.bisect(self.rank(), full)
        if not (self.settings.hardening and self.settings.method == "learned"):
            return self.cut(ranked)
        # Few enough as they are: that leftovers can go needs no proof before the hardened ranking's are looked for.
        small = ranked.reached and ranked.size <= self.most
        circuit = ranked if small else self.cut(ranked)
        if not circuit.reached:
            return circuit
        scores, guards = hardened(self, ranked.scores)
        found = self.cut(self.bisect(scores), guards)
        if found.reached:
            return found
        return self.cut(ranked) if small else circuit

    def cut(self, ranked: Circuit, guards: Mapping[str, list[int]] | None = None) -> Circuit:
        """A circuit that `bisect` took from a ranking, without what is left over, and with no more nodes than it may
        have.

        Args:
            guards: channels by point that are no leftovers though the circuit alone does without them.
        """
        circuit = replace(ranked, meta={"ranked_nodes": ranked.size, **({"guards": dict(guards)} if guards else {})})
        if circuit.reached:
            circuit = drop_nodes(self, circuit)
        if circuit.size <= self.most:
            return circuit
        return replace(self.measure(self.top(ranked.scores, self.most)), meta=circuit.meta)

    def by_edges(self, circuit: Circuit) -> Circuit:
        """A circuit without the edges, and then nodes, that it can do without; as it is where it misses the target."""
        if not (circuit.reached and self.settings.edges):
            return circuit
        return drop_dead_ends(self, drop_edges(self, circuit))

    @property
    def most(self) -> int:
        """How many nodes a circuit may have."""
        return max(1, round(self.settings.largest * sum(len(k) for k in self.empty.nodes.values())))

    def rank(self) -> dict[str, Tensor]:
        """A score for every node, ``{point: [channels]}``; the larger the more it is needed."""
        method, arguments = self.settings.method, (self.stack, self.prompts, self.removed.reference)
        if method == "random":
            return random_scores(self.stack, self.seed)
        if method == "magnitude":
            return magnitude(*arguments)
        if method == "attribution":
            return attribution(*arguments)
        if method == "integrated_gradients":
            return integrated_gradients(*arguments)
        return learn_gates(self.stack, self.encoded, self.removed, self.settings, self.seed)

    def top(self, scores: Mapping[str, Tensor], count: int) -> Circuit:
        """The circuit of the ``count`` best nodes; of equal ones the earlier stays."""
        flat = torch.cat([scores[p].flatten() for p in self.empty.nodes])
        order = torch.argsort(flat, descending=True, stable=True)[:count]
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[order] = True
        nodes = dict(zip(self.empty.nodes, mask.split([len(k) for k in self.empty.nodes.values()]), strict=True))
        return replace(self.empty, nodes=nodes, scores=dict(scores))

    def bisect(self, scores: Mapping[str, Tensor], full: Circuit | None = None) -> Circuit:
        """The fewest best nodes whose calibrated loss reaches the target; as many as are tried where none do.

        Without the setting ``bisect`` those that learned pruning has opened, where they reach it and are few enough.
        Twice as many are tried as a circuit may have: of a ranking much is left over.

        Args:
            full: the circuit of all nodes, where it is measured already.
        """
        total = sum(len(k) for k in self.empty.nodes.values())
        most = min(total, 2 * self.most)
        if most < total:
            best = self.measure(self.top(scores, most))
        else:
            best = replace(self.full if full is None else full, scores=dict(scores))
        low, high = 0, most
        if self.settings.method == "learned":
            # Learning has opened about as many gates as are needed, and may do the behaviour better than all nodes do.
            count = min(most, int(sum(int((s > 0).sum()) for s in scores.values())))
            opened = self.measure(self.top(scores, count)) if count < most else best
            if opened.reached and not self.settings.bisect and count <= self.most:
                return opened
            if opened.reached:
                best, high = opened, count
            else:
                low = count
        if not best.reached:
            return best
        # Sizes differ by orders of magnitude, so the middle is taken between logarithms.
        # A ranking without learning is a baseline, whose size need not be known to the node.
        fine = 50 if self.settings.method == "learned" else 10
        while high - low > max(1, high // fine):
            middle = max(low + 1, min(high - 1, round(math.sqrt(max(1, low) * high))))
            tried = self.measure(self.top(scores, middle))
            if tried.reached:
                best, high = tried, middle
            else:
                low = middle
        return best


def find_circuit(
    stack: ResidualStack,
    encoded: EncodedPairs,
    reference: Mapping[str, Tensor],
    settings: CircuitSettings | None = None,
    seed: int = 0,
    model: str = "sparse",
    text: Tensor | None = None,
) -> Circuit:
    """Search a stack for the circuit of a behaviour; see `Search`."""
    return Search(stack, encoded, reference, settings or CircuitSettings(), seed, model, text).run()


def heldout_margins(
    stack: ResidualStack, circuit: Circuit, some: Prompts, values: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Calibrated margins ``[2n]`` of the circuit alone on other prompts."""
    with torch.no_grad(), only(stack, circuit, values):
        margins = answer_margins(stack, some)
    return Calibration(circuit.scale, circuit.shift).apply(margins, some.sign)
