"""A sparse transformer whose circuit is known, a behaviour it does, and cases made of true and false circuits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from bridges.behaviours import EncodedPairs, Pair
from bridges.circuits.circuit import Circuit
from bridges.circuits.controls import Case
from bridges.circuits.controls.random_weights import shuffled_model
from bridges.circuits.search import Search, node_means
from bridges.circuits.settings import CircuitSettings
from bridges.config import ControlsConfig
from bridges.sparse import SparseTransformer, SparseTransformerConfig

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


def planted_pairs(split: str, count: int) -> EncodedPairs:
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    ids = torch.randint(5, VOCAB, (count, 1, LENGTH), generator=generator).repeat(1, 2, 1)
    at = torch.randint(LENGTH - 1, (count,), generator=generator)
    rows = torch.arange(count)
    ids[rows, 0, at], ids[rows, 1, at] = A, B
    pairs = tuple(Pair(f"{row[0].tolist()}", f"{row[1].tolist()}", "yes", "no", "only") for row in ids)
    lengths = torch.full((count, 2), LENGTH)
    return EncodedPairs("planted", split, 0, pairs, ids, lengths, torch.tensor([[YES, NO]] * count), count)


@dataclass
class Planted:
    stack: SparseTransformer
    train: EncodedPairs
    heldout: EncodedPairs
    text: Tensor
    reference: dict[str, Tensor]

    def circuit(self, nodes: dict[str, Tensor], **settings: object) -> Circuit:
        """A calibrated circuit of these nodes."""
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
    return Planted(
        stack, planted_pairs("train", 48), planted_pairs("heldout", 32), text, node_means(stack, text.split(8))
    )


@pytest.fixture
def planted() -> Planted:
    return _planted()


@pytest.fixture
def case_of(planted: Planted) -> Callable[..., Case]:
    """``case_of(circuit, settings={…}, **changes of the controls' config)``."""

    def make(circuit: Circuit, settings: dict | None = None, train: EncodedPairs | None = None, **config) -> Case:
        small = {"twin_steps": 30, "twin_pairs": 24, "set_pairs": 16, "pairs": 32}
        return Case(
            planted.stack,
            circuit,
            planted.train if train is None else train,
            planted.heldout,
            planted.reference,
            planted.text,
            ControlsConfig(**(small | config)),
            CircuitSettings(**({"steps": 30, "lr": 0.1} | (settings or {}))),
            lambda: shuffled_model(planted.stack, planted.text.split(8), 0),
        )

    return make


@pytest.fixture
def true_circuit(planted: Planted) -> Circuit:
    return planted.circuit(planted.nodes(TRUE))


@pytest.fixture
def false_circuit(planted: Planted) -> Circuit:
    """As many nodes at the same points, none of them the right one."""
    return planted.circuit(planted.nodes(dict.fromkeys(TRUE, 7)))
