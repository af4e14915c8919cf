"""A two-layer sparse model whose weights are written by hand, so that its circuit is known (paper, section 3.1)."""

from __future__ import annotations

import pytest
import torch

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Pair
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
    return EncodedPairs("quote", "train", seed, pairs, ids, lengths, right, n)


@pytest.fixture
def quote_text() -> list[torch.Tensor]:
    """Ordinary text of the little language: one quote, or none, in every row."""
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(PLUS, MINUS + 1, (256, 8), generator=generator)
    ids[:, 0], ids[:, -1] = 0, ASK
    rows = torch.arange(256)
    ids[rows, torch.randint(1, 7, (256,), generator=generator)] = torch.randint(1, 3, (256,), generator=generator)
    return list(ids.split(64))
