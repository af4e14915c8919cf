"""A sparse model written by hand and the same model with its stream rotated: a dense model whose circuit is known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Pair
from bridges.bridge import Bridges, pair_sites
from bridges.circuits.ablation import node_means
from bridges.circuits.bridge_context import BridgeContext
from bridges.circuits.circuit import Circuit
from bridges.circuits.search.search import Search
from bridges.compare.case import TransferCase
from bridges.config import CompareConfig
from bridges.config.search import CircuitSettings
from bridges.planted import Rotated, random_rotation
from bridges.sparse import SparseTransformer, SparseTransformerConfig

DOUBLE, SINGLE, PLUS, MINUS, ASK, CLOSE_DOUBLE, CLOSE_SINGLE = range(1, 8)
WIDTH = 8
# "A quote is here" and "it is a double one" go to channels 3 and 4 of the stream at the quote; the last token's head
# looks for the first and copies the second to channel 5.
QUOTE = {
    "0.mlp_in": (0, 1),
    "0.mlp_neuron": (0, 1),
    "0.mlp_out": (3, 4),
    "1.attn_in": (3, 4),
    "1.k": (0,),
    "1.v": (0,),
    "1.attn_out": (5,),
}
# The distractors' way: real nodes, none of which the answer needs.
DISTRACTOR = {"0.mlp_in": (2,), "0.mlp_neuron": (2,), "0.mlp_out": (6,), "1.mlp_in": (6,), "1.mlp_out": (7,)}


def quote_model() -> SparseTransformer:
    """Closes a quote as it was opened; channels 2, 6 and 7 carry distractors."""
    config = SparseTransformerConfig(
        vocab_size=8, n_layer=2, d_model=WIDTH, d_mlp=4, d_head=2, n_head=2, context=12, activation_fraction=None,
        attention_sink=False, bigram="none", norm_gain=False,
    )  # fmt: skip
    model = SparseTransformer(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.zero_()
    tokens, blocks = model.tokens.weight, model.blocks
    tokens[DOUBLE, 0] = tokens[SINGLE, 0] = 1.0
    tokens[DOUBLE, 1] = tokens[PLUS, 1] = 1.0
    tokens[SINGLE, 1] = tokens[MINUS, 1] = -1.0
    tokens[PLUS, 2] = tokens[MINUS, 2] = tokens[ASK, 2] = tokens[0, 2] = 1.0
    first, head = blocks[1], blocks[2]
    first.up.weight[0, 0], first.up.bias[0], first.up.weight[1, 1] = 4.0, -2.0, 4.0
    first.down.weight[3, 0] = first.down.weight[4, 1] = 0.5
    head.q.bias[0] = 6.0
    head.k.weight[0, 3], head.v.weight[0, 4], head.out.weight[5, 0] = 6.0, 1.0, 2.0
    model.head.weight[CLOSE_DOUBLE, 5], model.head.bias[CLOSE_SINGLE] = 3.0, 2.0
    first.up.weight[2, 2], first.down.weight[6, 2] = 2.0, 0.1
    blocks[3].up.weight[0, 6], blocks[3].down.weight[7, 0] = 1.0, 0.1
    model.head.weight[CLOSE_DOUBLE, 7] = model.head.weight[CLOSE_SINGLE, 6] = 0.02
    return model


def exact_bridges(turn: Tensor, sublayers: int) -> Bridges:
    """Bridges that undo the rotation, with two scales that must cancel."""
    width = len(turn)
    bridges = Bridges(width, width, pair_sites(sublayers, sublayers), None)
    with torch.no_grad():
        for bridge in bridges:
            bridge.scale.fill_(3.0)
            bridge.sparse_scale.fill_(0.5)
            # Streams are divided by their scale on the way in and multiplied by the other one on the way out.
            bridge.encoder.weight.copy_(turn * 3.0 / 0.5)
            bridge.decoder.weight.copy_(turn.T * 0.5 / 3.0)
    return bridges.requires_grad_(False)


def quote_pairs(n: int, seed: int, split: str = "train") -> EncodedPairs:
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
    pairs = tuple(Pair(str(ids[i, 0].tolist()), str(ids[i, 1].tolist()), "", "", f"at {at[i]}") for i in range(n))
    return EncodedPairs("quote", split, seed, pairs, ids, torch.full((n, 2), 8), right)


def quote_text() -> Tensor:
    """Ordinary text of the little language: one quote in every row."""
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(PLUS, MINUS + 1, (64, 8), generator=generator)
    ids[:, 0], ids[:, -1] = 0, ASK
    ids[torch.arange(64), torch.randint(1, 7, (64,), generator=generator)] = torch.randint(
        1, 3, (64,), generator=generator
    )
    return ids


class Quote:
    """The pair of models, its bridges, prompts, and circuits by the nodes they keep.

    The answer comes to the last token with the second attention, sublayer 2: at bridges 3 and 4 there is something to
    move at the positions that both prompts share, at those before there is nothing.
    """

    def __init__(self) -> None:
        self.sparse, self.turn = quote_model(), random_rotation(WIDTH, 0)
        # A copy, so that what is done to the nodes of one is not done to the other.
        self.dense = Rotated(copy.deepcopy(self.sparse), self.turn)
        self.bridges = exact_bridges(self.turn, 4)
        self.train, self.heldout = quote_pairs(24, 1), quote_pairs(32, 2, "heldout")
        self.text = quote_text()
        self.reference = node_means(self.sparse, [self.text])

    def context(self, bridges: Bridges | None = None, sparse: SparseTransformer | None = None) -> BridgeContext:
        """Both models with the exact bridges, or others; random ones beside them."""
        untrained = Bridges(WIDTH, WIDTH, self.bridges.pairs, None, seed=5).requires_grad_(False)
        for mine, theirs in zip(untrained, self.bridges, strict=True):
            mine.scale.copy_(theirs.scale)
            mine.sparse_scale.copy_(theirs.sparse_scale)
        return BridgeContext(self.dense, sparse or self.sparse, bridges or self.bridges, untrained)

    def search(self, context: BridgeContext | None = None, **settings) -> Search:
        """A search on the training pairs; as many nodes may be kept as there are."""
        values = {"max_node_fraction": 1.0, "pairs": 24, "batch": 12} | settings
        sparse = self.sparse if context is None else context.sparse
        return Search(sparse, self.train, self.reference, CircuitSettings(**values), context=context)

    def circuit(self, nodes: dict[str, tuple[int, ...]] | None = None, context: BridgeContext | None = None) -> Circuit:
        """A measured circuit of these nodes; None: of all."""
        search = self.search(context)
        if nodes is None:
            return search.full
        chosen = {p: torch.zeros(w, dtype=torch.bool) for p, w in self.sparse.nodes.widths.items()}
        for point, channels in nodes.items():
            chosen[point][list(channels)] = True
        return search.measure(replace(search.empty, nodes=chosen))

    def transfer(self, circuit: Circuit, context: BridgeContext | None = None, **config) -> TransferCase:
        """The circuit between the models."""
        context = context or self.context()
        small = {"pairs": 32, "train_pairs": 24, "bootstrap": 200, "draws": 2}
        with torch.no_grad():
            sites = context.sparse.run(self.text).sites
        means = torch.stack([sites[pair.sparse].mean((0, 1)) for pair in context.bridges.pairs])
        return TransferCase(context, circuit, means, CompareConfig(**(small | config)))

    def without_attention(self) -> SparseTransformer:
        """The sparse model with its attention's outputs zeroed: it knows every token and mixes no positions."""
        model = copy.deepcopy(self.sparse)
        for layer in range(2):
            model.blocks[2 * layer].out.weight.zero_()
        return model


@cache
def _quote() -> Quote:
    return Quote()


@pytest.fixture(scope="session")
def quote() -> Quote:
    return _quote()


@pytest.fixture
def true_circuit(quote: Quote) -> Circuit:
    return quote.circuit(QUOTE)


@pytest.fixture
def false_circuit(quote: Quote) -> Circuit:
    return quote.circuit(DISTRACTOR)


@pytest.fixture
def rng() -> Callable[[int], np.random.Generator]:
    return np.random.default_rng
