"""Models whose weights are written by hand, so that their circuits are known (paper, section 3.1).

The quote model is exact and free of noise; the planted one has noise in every other weight.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Pair
from bridges.bridge import Bridges, pair_sites
from bridges.circuits.ablation import node_means
from bridges.circuits.bridge_context import BridgeContext
from bridges.circuits.circuit import Circuit
from bridges.circuits.controls import Case
from bridges.circuits.controls.null_searches import shuffled_model
from bridges.circuits.search.search import Search
from bridges.config import ControlsConfig
from bridges.config.search import CircuitSettings
from bridges.planted import Rotated, random_rotation
from bridges.sparse import SparseTransformer, SparseTransformerConfig

DOUBLE, SINGLE, PLUS, MINUS, ASK, CLOSE_DOUBLE, CLOSE_SINGLE = range(1, 8)
# Two neurons and one head: "a quote is here" and "it is a double one" are written to the stream, and the last token's
# head looks for the first and copies the second. Queries are constant, so no query node is needed.
QUOTE_CIRCUIT = {
    ("0.mlp_in", 0),
    ("0.mlp_in", 1),
    ("0.mlp_neuron", 0),
    ("0.mlp_neuron", 1),
    ("0.mlp_out", 3),
    ("0.mlp_out", 4),
    ("1.attn_in", 3),
    ("1.attn_in", 4),
    ("1.k", 0),
    ("1.v", 0),
    ("1.attn_out", 5),
}
QUOTE_EDGES = 7


@pytest.fixture
def quote_model() -> SparseTransformer:
    """Width 8, of which channels 6 and 7 and two neurons a layer carry distractors."""
    torch.manual_seed(0)
    config = SparseTransformerConfig(
        vocab_size=8, n_layer=2, d_model=8, d_mlp=4, d_head=2, n_head=2, context=12, activation_fraction=None,
        attention_sink=False, bigram="none",
    )  # fmt: skip
    model = SparseTransformer(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.zero_()
    tokens, blocks = model.tokens.weight, model.blocks
    tokens[DOUBLE, 0] = tokens[SINGLE, 0] = 1.0
    tokens[DOUBLE, 1] = tokens[PLUS, 1] = 1.0
    tokens[SINGLE, 1] = tokens[MINUS, 1] = -1.0
    tokens[PLUS, 2] = tokens[MINUS, 2] = tokens[ASK, 2] = 1.0
    tokens[0, 2] = 1.0
    first = blocks[1]
    first.up.weight[0, 0], first.up.bias[0] = 4.0, -2.0
    first.up.weight[1, 1] = 4.0
    first.down.weight[3, 0] = first.down.weight[4, 1] = 0.5
    head = blocks[2]
    head.q.bias[0] = 6.0
    head.k.weight[0, 3], head.v.weight[0, 4], head.out.weight[5, 0] = 6.0, 1.0, 2.0
    model.head.weight[CLOSE_DOUBLE, 5], model.head.bias[CLOSE_SINGLE] = 3.0, 2.0
    # Distractors: they work, and nothing of them is needed.
    first.up.weight[2, 2], first.down.weight[6, 2] = 2.0, 0.1
    blocks[0].v.weight[2, 2], blocks[0].out.weight[7, 2] = 1.0, 0.1
    blocks[3].up.weight[0, 6], blocks[3].down.weight[7, 0] = 1.0, 0.1
    model.head.weight[CLOSE_DOUBLE, 7] = model.head.weight[CLOSE_SINGLE, 6] = 0.02
    return model


def quote_pairs(n: int, seed: int) -> EncodedPairs:
    """A quote somewhere among plain tokens that look double or single but are none; then the question."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(PLUS, MINUS + 1, (n, 1, 8), generator=generator).repeat(1, 2, 1)
    ids[:, :, 0], ids[:, :, -1] = 0, ASK
    at = torch.randint(1, 7, (n,), generator=generator)
    swap = torch.rand(n, generator=generator) < 0.5
    for row in range(n):
        ids[row, 0, at[row]], ids[row, 1, at[row]] = (DOUBLE, SINGLE) if swap[row] else (SINGLE, DOUBLE)
    right = torch.where(
        swap[:, None], torch.tensor([CLOSE_DOUBLE, CLOSE_SINGLE]), torch.tensor([CLOSE_SINGLE, CLOSE_DOUBLE])
    )
    pairs = tuple(Pair("", "", "", "", "quote") for _ in range(n))
    lengths = torch.full((n, 2), 8)
    return EncodedPairs("quote", "train", seed, pairs, ids, lengths, right)


def published(**changes: object) -> CircuitSettings:
    """Settings of the published search: two-way loss after a fitted scale and shift; as many nodes as there are."""
    values = {"objective": "task_loss", "target": 0.15, "max_node_fraction": 1.0, "penalty": 1e-4, "min_penalty": 0.5}
    values |= {"loss_target_fraction": 0.5, "lr": 3e-2, "edges": True, "prune_attempts": 14}
    values |= {"steps": 100, "warm_start": 0.0}
    return CircuitSettings(**(values | changes))  # type: ignore[arg-type]


def nodes_of(circuit: Circuit) -> set[tuple[str, int]]:
    """The kept nodes, ``(point, channel)``."""
    return {(p, c) for p, kept in circuit.nodes.items() for c in kept.nonzero()[:, 0].tolist()}


class Turned:
    """A sparse model, the same with its stream rotated as the dense one, and bridges that undo the rotation."""

    def __init__(self, sparse: SparseTransformer, text: list[Tensor]):
        self.sparse, width = sparse, sparse.d_model
        turn = random_rotation(width, 0)
        bridges = Bridges(width, width, pair_sites(sparse.n_sublayers, sparse.n_sublayers), None)
        for bridge in bridges.requires_grad_(False):
            bridge.encoder.weight.copy_(turn)
            bridge.decoder.weight.copy_(turn.T)
        self.context = BridgeContext(Rotated(copy.deepcopy(sparse), turn), sparse, bridges)
        self.reference = node_means(sparse, text)


@pytest.fixture
def quote_text() -> list[torch.Tensor]:
    """Ordinary text of the little language: one quote, or none, in every row."""
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(PLUS, MINUS + 1, (256, 8), generator=generator)
    ids[:, 0], ids[:, -1] = 0, ASK
    rows = torch.arange(256)
    ids[rows, torch.randint(1, 7, (256,), generator=generator)] = torch.randint(1, 3, (256,), generator=generator)
    return list(ids.split(64))


# --- the planted model --------------------------------------------------------------------------------------------

VOCAB, LENGTH = 29, 7
A, B, YES, NO = 1, 2, 3, 4
TRUE = {"0.attn_in": 0, "0.v": 0, "0.attn_out": 1}


def planted_model() -> SparseTransformer:
    """Answers YES where the prompt holds A and NO where it holds B, through three nodes; every other weight is noise.

    The sign of A and B stands in channel 0 of the embedding, uniform attention carries its mean over all tokens to
    channel 1 of the stream, and the unembedding reads it there.
    """
    options = {"d_model": 16, "d_mlp": 24, "d_head": 4, "n_head": 4, "context": 16, "position": "none"}
    config = SparseTransformerConfig(
        vocab_size=VOCAB, n_layer=2, activation_fraction=None, attention_sink=False, bigram="none", **options
    )
    model = SparseTransformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.05 * torch.randn(p.shape, generator=generator))
        tokens = torch.randn(VOCAB, 16, generator=generator)
        tokens[:, :2] = 0
        tokens[A, 0], tokens[B, 0] = 4, -4
        model.tokens.weight.copy_(tokens)
        for name, p in model.named_parameters():
            if name.endswith("weight") and any(f".{part}." in name for part in ("q", "k")):
                p.zero_()
        first = model.blocks[0]
        first.v.weight[0], first.out.weight[1] = 0, 0
        first.v.weight[0, 0], first.out.weight[1, 0] = 1, 12
        model.head.weight[YES, 1], model.head.weight[NO, 1] = 2, -2
    return model.eval().requires_grad_(False)


SPLITS = ("train", "heldout", "reach")


def planted_pairs(split: str, count: int) -> EncodedPairs:
    generator = torch.Generator().manual_seed(SPLITS.index(split))
    ids = torch.randint(5, VOCAB, (count, 1, LENGTH), generator=generator).repeat(1, 2, 1)
    at = torch.randint(LENGTH - 1, (count,), generator=generator)
    rows = torch.arange(count)
    ids[rows, 0, at], ids[rows, 1, at] = A, B
    pairs = tuple(
        Pair(f"{row[0].tolist()}", f"{row[1].tolist()}", "yes", "no", f"{split} {i % 4}") for i, row in enumerate(ids)
    )
    lengths = torch.full((count, 2), LENGTH)
    return EncodedPairs("planted", split, 0, pairs, ids, lengths, torch.tensor([[YES, NO]] * count))


@dataclass
class Planted:
    stack: SparseTransformer
    train: EncodedPairs
    heldout: EncodedPairs
    reach: EncodedPairs
    text: Tensor
    reference: dict[str, Tensor]

    def circuit(self, nodes: dict[str, Tensor], **settings: object) -> Circuit:
        """A measured circuit of these nodes."""
        search = Search(self.stack, self.train, self.reference, CircuitSettings(**settings))  # type: ignore[arg-type]
        return search.measure(replace(search.empty, nodes=nodes))

    def nodes(self, named: dict[str, int]) -> dict[str, Tensor]:
        chosen = {p: torch.zeros(w, dtype=torch.bool) for p, w in self.stack.nodes.widths.items()}
        for point, channel in named.items():
            chosen[point][channel] = True
        return chosen


@cache
def _planted() -> Planted:
    stack = planted_model()
    text = torch.randint(5, VOCAB, (32, 12), generator=torch.Generator().manual_seed(2))
    text[::2, 3], text[1::2, 4] = A, B
    pairs = [planted_pairs(split, count) for split, count in zip(SPLITS, (48, 32, 16), strict=True)]
    return Planted(stack, *pairs, text, node_means(stack, text.split(8)))


@pytest.fixture(scope="session")
def planted() -> Planted:
    return _planted()


@pytest.fixture
def case_of(planted: Planted) -> Callable[..., Case]:
    """``case_of(circuit, settings={…}, **changes of the controls' config)``."""

    def make(circuit: Circuit, settings: dict | None = None, **config) -> Case:
        small = {"random_sets": 20, "pairs": 32, "adversary_steps": 3}
        return Case(
            planted.stack,
            circuit,
            planted.train,
            planted.heldout,
            planted.reach,
            planted.reference,
            planted.text,
            ControlsConfig(**(small | config)),
            CircuitSettings(**({"steps": 30, "lr": 0.1, "pairs": 24} | (settings or {}))),
            lambda: shuffled_model(planted.stack, planted.text.split(8), 0),
            bootstrap=200,
        )

    return make


@pytest.fixture
def true_circuit(planted: Planted) -> Circuit:
    return planted.circuit(planted.nodes(TRUE))


@pytest.fixture
def false_circuit(planted: Planted) -> Circuit:
    """As many nodes at the same points, none of them the right one."""
    return planted.circuit(planted.nodes(dict.fromkeys(TRUE, 7)))
