"""A planted world: two models, a language and behaviours whose circuits are known.

    world = plant(seed=0, behaviours=("copy", "detect", "copy"), only_dense=("copy-2",))
    world.truth["detect"]["nodes"]                            # {"0.mlp_in": [31, 4], …}
    find_circuit(world.sparse, world.pairs("detect"), …)

The sparse model is written by hand, the dense one is the same with every behaviour in it, its stream rotated. Whether a
method finds the circuits and tells which behaviours the sparse model lacks can therefore be checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bridges.behaviours.encoded import EncodedPairs, encode
from bridges.behaviours.pair import Split
from bridges.data.corpus import Document
from bridges.errors import ConfigError, nearest
from bridges.planted.bed import Bed, Weight, write
from bridges.planted.distractors import distractors
from bridges.planted.language import CONTEXT, Language, PlantedBehaviour, Words
from bridges.planted.rotated import Rotated, random_rotation
from bridges.planted.shapes import CUE, DESCRIPTIONS, ROUTES, SHAPES, Plot
from bridges.sparse import SparseTransformer, SparseTransformerConfig

NAME = "planted"
DOCUMENTS = 4000
# Nonzeros of each row of the embedding in channels of no circuit; share of fillers with a sign in a decoy channel.
_IDLE, _DECOYS = 3, 0.6
# What the question adds to both answers' logits, and what they lose everywhere.
_ASKED, _UNASKED = 8.0, -4.0
# Deviation of the log-odds in a bigram table.
_BIGRAM = 0.3


class Truth(TypedDict):
    """What is known of one behaviour.

    Attributes:
        nodes: ``{point: channels}`` of its circuit, points without any left out. edges: weights between them.
        in_sparse: whether the sparse model has the circuit; the dense one has all.
    """

    nodes: dict[str, list[int]]
    edges: int
    in_sparse: bool


@dataclass
class World:
    """Everything planted from one seed.

    Attributes:
        seed: of every draw.
        sparse: the sparse model. dense: the rotated one.
        language: its words. tokenizer: of both models.
        behaviours: by name. truth: of each.
    """

    seed: int
    sparse: SparseTransformer
    dense: Rotated
    language: Language
    tokenizer: PreTrainedTokenizerFast
    behaviours: dict[str, PlantedBehaviour]
    truth: dict[str, Truth]

    def pairs(self, behaviour: str, split: Split = "train", count: int = 64, seed: int = 0) -> EncodedPairs:
        """Prompt pairs of a behaviour."""
        return encode(self.behaviours[behaviour], self.tokenizer, split, count, seed)

    def documents(self, count: int = DOCUMENTS, seed: int | None = None) -> Iterator[Document]:
        """Text of the language, one block of ``CONTEXT`` tokens each."""
        seed = self.seed if seed is None else seed
        for i, text in enumerate(self.language.documents(count, seed)):
            yield Document(f"{NAME}/{seed}/{i}", text)

    def text(self, count: int, seed: int | None = None) -> Tensor:
        """So many documents as token ids, ``[count, CONTEXT]``."""
        texts = [document.text for document in self.documents(count, seed)]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return torch.tensor([[self.tokenizer.eos_token_id, *row] for row in ids])

    def mask(self, behaviour: str) -> dict[str, Tensor]:
        """The planted circuit as `bridges.circuits.Circuit` holds its nodes, ``{point: bool [channels]}``."""
        mask = {point: torch.zeros(width, dtype=torch.bool) for point, width in self.sparse.nodes.widths.items()}
        for point, channels in self.truth[behaviour]["nodes"].items():
            mask[point][channels] = True
        return mask

    @cached_property
    def density(self) -> float:
        """Share of nonzero weights in the fullest matrix of the sparse model."""
        return max(float((p != 0).float().mean()) for p in self.sparse.sparse_matrices().values())


def plant(
    seed: int,
    behaviours: Sequence[str] = tuple(SHAPES),
    only_dense: Sequence[str] = (),
    *,
    other_route: Sequence[str] = (),
    n_layer: int = 3,
    d_model: int = 48,
    d_mlp: int = 64,
    d_head: int = 4,
    activation_fraction: float | None = None,
    attention_sink: bool = False,
    bigram: bool = False,
) -> World:
    """A world in which these behaviours are planted.

    Args:
        seed: decides channels, layers, signs, distractors, rotation and text.
        behaviours: shapes (`bridges.planted.SHAPES`). The first of a shape is called as it, the next ``<shape>-2``, ….
        only_dense: names of behaviours whose circuits the sparse model lacks.
        other_route: names of behaviours whose answers the dense model reaches by another circuit than the sparse one
            (shapes of `bridges.planted.shapes.ROUTES`).
        n_layer, d_model, d_mlp, d_head: of both models.
        activation_fraction, attention_sink: AbsTopK and sinks, as sparse models have them by default. bigram: a table
            of random log-odds of the next token, which cannot tell two prompts that end in the same token apart.

    Raises:
        ConfigError: there is no such shape or behaviour.
        BridgesError: the model is too small for so many circuits.
    """
    names = _names(behaviours)
    for name in only_dense:
        if name not in names:
            raise ConfigError(f"only_dense: no behaviour {name!r} is planted. {nearest(name, names)}")
    for name in other_route:
        if names.get(name) not in ROUTES:
            raise ConfigError(
                f"other_route: {name!r} is no planted behaviour of a shape that has two ({list(ROUTES)})."
            )
    language = Language.of([Words.of(name, modes=shape == "agree") for name, shape in names.items()])
    ids = {word: i for i, word in enumerate(language.vocabulary)}
    shape = SparseTransformerConfig(
        vocab_size=len(ids),
        n_layer=n_layer,
        d_model=d_model,
        d_mlp=d_mlp,
        d_head=d_head,
        context=CONTEXT,
        activation_fraction=activation_fraction,
        attention_sink=attention_sink,
        bigram="full" if bigram else "none",
        bos_token_id=0,
        eos_token_id=0,
    )
    rng = np.random.default_rng([seed, 7])
    bed = Bed(shape, rng)
    plots, detours = {}, {}
    for w in language.asked:
        if w.behaviour in other_route:
            plots[w.behaviour], detours[w.behaviour] = (make(bed, w, ids) for make in ROUTES[names[w.behaviour]])
        else:
            plots[w.behaviour] = SHAPES[names[w.behaviour]](bed, w, ids)
    every = [*plots.values(), *detours.values()]
    asking = {w.behaviour: bed.channel() for w in language.asked}
    idle = bed.rest()
    if len(idle) < 4:
        raise ConfigError(f"{len(names)} behaviours fill {d_model} channels: plant fewer, or make d_model larger.")
    embedding = _embedding(language, ids, every, asking, idle, d_model, rng)
    answers = [ids[word] for w in language.asked for word in w.answers]
    soil = distractors(bed, idle, [plot.output for plot in every], answers)
    for w in language.asked:
        soil += [Weight("head", ids[word], asking[w.behaviour], _ASKED / CUE) for word in w.answers]
    soil += [Weight("head", ids[word], int(rng.choice(idle)), bed.sign() * 0.4) for word in language.every_filler]

    table = torch.from_numpy(rng.normal(0.0, _BIGRAM, (len(ids), len(ids)))).float() if bigram else None

    def model(circuits: list[Plot]) -> SparseTransformer:
        made = SparseTransformer(shape).eval().requires_grad_(False)
        for parameter in made.parameters():
            parameter.zero_()
        made.tokens.weight.copy_(embedding)
        if made.bigram is not None:
            made.bigram.weight.copy_(table)
        write(made, soil + [weight for plot in circuits for weight in plot.weights])
        made.head.bias[answers] += _UNASKED
        return made

    sparse = model([plot for name, plot in plots.items() if name not in only_dense])
    dense = Rotated(model(list((plots | detours).values())), random_rotation(d_model, seed))
    world = World(
        seed,
        sparse,
        dense,
        language,
        language.tokenizer(),
        {w.behaviour: PlantedBehaviour(w, language, DESCRIPTIONS[names[w.behaviour]]) for w in language.asked},
        {name: Truth(nodes=p.nodes, edges=p.edges, in_sparse=name not in only_dense) for name, p in plots.items()},
    )
    sparse.config.weight_fraction = world.density
    return world


def _names(behaviours: Sequence[str]) -> dict[str, str]:
    """``{name: shape}``; a shape that occurs again gets a number."""
    names: dict[str, str] = {}
    for i, shape in enumerate(behaviours):
        if shape not in SHAPES:
            raise ConfigError(f"There is no planted shape {shape!r}. {nearest(shape, SHAPES)}")
        before = list(behaviours[:i]).count(shape)
        names[f"{shape}-{before + 1}" if before else shape] = shape
    return names


def _embedding(
    language: Language,
    ids: dict[str, int],
    plots: list[Plot],
    asking: dict[str, int],
    idle: list[int],
    d_model: int,
    rng: np.random.Generator,
) -> Tensor:
    """``[V, d]``, every row with an RMS of 1: what the circuits need, and some idle channels to fill it up."""
    rows = np.zeros((len(ids), d_model))
    owner: dict[str, str] = {}
    for plot in plots:
        words = plot.words
        # Two words of a pair must not differ but in what is planted.
        for pair in (words.cues, words.modes):
            owner |= dict.fromkeys(pair[1:], pair[0]) if pair else {}
        for word, values in plot.embedding.items():
            rows[ids[word], list(values)] = list(values.values())
        rows[ids[words.ask], asking[words.behaviour]] = CUE
        for word in language.every_filler:
            for channel in plot.decoys:
                if rng.random() < _DECOYS:
                    rows[ids[word], channel] = rng.choice((-CUE, CUE))
    for word, i in ids.items():
        chosen = rng.choice(idle, min(_IDLE, len(idle)), replace=False)
        sizes = rng.choice((-1.0, 1.0), len(chosen)) * rng.uniform(0.7, 1.3, len(chosen))
        if word in owner:
            first = ids[owner[word]]
            rows[i, idle] = rows[first, idle]
            continue
        left = d_model - (rows[i] ** 2).sum()
        rows[i, chosen] = sizes * np.sqrt(max(left, 1.0) / (sizes**2).sum())
    return torch.from_numpy(rows).float()
