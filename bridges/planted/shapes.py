"""The shapes of planted circuits, after those the paper takes apart by hand (section 3.1).

Each is written so that no smaller one does the same: whatever could stand in for a node, such as the scale and shift of
the calibration, is met by other words of the prompt.

    copy     attention carries the cue's sign, averaged over the prompt, to the last token   3 nodes, 2 edges
    select   fillers carry signs too, so that a key has to pick out the cue                   5 nodes, 3 edges
    agree    two neurons tell whether the signs of cue and mode are the same                  7 nodes, 6 edges
    detect   two neurons say "a cue" and "its sign", a later head selects and copies         11 nodes, 7 edges
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridges.errors import ConfigError
from bridges.planted.bed import Bed, Weight
from bridges.planted.language import LENGTHS, Words

# Value of a cue's channels in the embedding, whose rows have an RMS of 1.
CUE = 3.0
# Typical tokens of a prompt, over which a head without keys averages.
_TOKENS = sum(sum(lengths) for lengths in LENGTHS.values()) / sum(len(lengths) for lengths in LENGTHS.values())
# What a circuit leaves on the stream at the last token, and by how much it moves the logit of either answer. The former
# is small: near the start of a prompt the same mean is taken over few tokens, and the stream must not be drowned there.
_OUT, _LOGIT = 1.0, 4.0
# Where a circuit writes something or nothing: the middle between them, lower than half of what it writes by what norms
# and the attention to other tokens take away.
_MIDDLE = -0.75 * _OUT
# Score by which a cue stands above the other tokens of a prompt.
_SCORE = 7.0


@dataclass
class Plot:
    """One planted circuit.

    Attributes:
        words: of its behaviour.
        output: channel of the stream that the unembedding reads it from.
        embedding: ``{word: {channel: value}}`` of the behaviour's own words.
        decoys: channels in which fillers have random signs.
        weights: inside the blocks and of the unembedding.
        nodes: ``{point: channels}``.
    """

    words: Words
    output: int
    embedding: dict[str, dict[int, float]] = field(default_factory=dict)
    decoys: list[int] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    nodes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def edges(self) -> int:
        """Weights inside the blocks."""
        return sum(weight.edge for weight in self.weights)

    def node(self, point: str, channel: int) -> int:
        """Count a channel of a point among the nodes."""
        channels = self.nodes.setdefault(point, [])
        if channel not in channels:
            channels.append(channel)
        return channel

    def join(self, matrix: str, target: int, source: int | None, value: float) -> None:
        """A weight, or a bias where there is no source."""
        self.weights.append(Weight(matrix, target, source, value))

    def cue(self, channel: int, values: tuple[float, float], words: tuple[str, ...] = ()) -> None:
        """Give two words, the cues unless others are named, a value each in a channel of the embedding."""
        for word, value in zip(words or self.words.cues, values, strict=True):
            self.embedding.setdefault(word, {})[channel] = value

    def answer(self, ids: dict[str, int]) -> None:
        """Let the unembedding read the output, positive for the first answer."""
        for word, sign in zip(self.words.answers, (1.0, -1.0), strict=True):
            self.join("head", ids[word], self.output, sign * _LOGIT / _OUT)


def _mean(plot: Plot, bed: Bed, layer: int, source: int, target: int, size: float) -> None:
    """A head without keys: a channel's mean over the prompt, so that one cue in it makes ``size``."""
    v, sign = bed.head(layer)[0], bed.sign()
    plot.node(f"{layer}.attn_in", source)
    plot.node(f"{layer}.v", v)
    plot.node(f"{layer}.attn_out", target)
    plot.join(f"{layer}.v", v, source, sign * bed.about(1.0))
    plot.join(f"{layer}.out", target, v, sign * bed.about(size * _TOKENS / CUE))


def _pick(plot: Plot, bed: Bed, layer: int, key: int, value: int, target: int, size: float, lift: float) -> None:
    """A head that looks for ``CUE`` in channel ``key`` and carries what channel ``value`` has there.

    Args:
        size: what a value of ``CUE`` becomes in channel ``target``. lift: a constant beside it.
    """
    channels = bed.head(layer)
    k, v, sign = channels[0], channels[1], bed.sign()
    for point, channel in (("attn_in", key), ("attn_in", value), ("k", k), ("v", v), ("attn_out", target)):
        plot.node(f"{layer}.{point}", channel)
    # Scores are divided by the root of the head's width.
    score = bed.about(_SCORE) * bed.shape.d_head**0.5 / CUE
    plot.join(f"{layer}.q", k, None, 2.0)
    plot.join(f"{layer}.k", k, key, score / 2.0)
    plot.join(f"{layer}.v", v, value, sign * bed.about(1.0))
    plot.join(f"{layer}.out", target, v, sign * bed.about(size / CUE))
    plot.join(f"{layer}.out", target, None, lift)


def copy(bed: Bed, words: Words, ids: dict[str, int]) -> Plot:
    """Cue's sign → value → output, by attention alone."""
    plot, sign = Plot(words, bed.channel()), bed.channel()
    plot.cue(sign, (CUE, -CUE))
    _mean(plot, bed, bed.layer(), sign, plot.output, _OUT)
    plot.answer(ids)
    return plot


def select(bed: Bed, words: Words, ids: dict[str, int]) -> Plot:
    """Cue's sign among the signs of fillers: a key finds the cue."""
    plot, here, sign = Plot(words, bed.channel()), bed.channel(), bed.channel()
    plot.cue(here, (CUE, CUE))
    plot.cue(sign, (CUE, -CUE))
    plot.decoys.append(sign)
    _pick(plot, bed, bed.layer(), here, sign, plot.output, _OUT, 0.0)
    plot.answer(ids)
    return plot


def agree(bed: Bed, words: Words, ids: dict[str, int]) -> Plot:
    """The sum of the signs of cue and mode, by attention; two neurons make its size of it."""
    first = bed.layer()
    return _agree(bed, words, ids, first, bed.layer(first))


def agree_late(bed: Bed, words: Words, ids: dict[str, int]) -> Plot:
    """The same, its neurons in the last layer: up to there only the sum is on the stream."""
    return _agree(bed, words, ids, bed.layer(), bed.shape.n_layer - 1)


def agree_by_difference(bed: Bed, words: Words, ids: dict[str, int]) -> Plot:
    """The answers of `agree_late` by another route: the *difference* of the signs, which is small where they agree.

    Sum and difference of two balanced signs are uncorrelated: no linear map leads from one to the other.
    """
    return _agree(bed, words, ids, bed.layer(), bed.shape.n_layer - 1, difference=True)


def _agree(bed: Bed, words: Words, ids: dict[str, int], first: int, second: int, difference: bool = False) -> Plot:
    """Attention of layer ``first`` and two neurons of layer ``second``."""
    plot, sign, total = Plot(words, bed.channel()), bed.channel(), bed.channel()
    plot.cue(sign, (CUE, -CUE))
    plot.cue(sign, (-CUE, CUE) if difference else (CUE, -CUE), words.modes)
    # The sum is kept small: its size would otherwise show in the length of the stream, which every norm divides by.
    size, turn = 0.2, -1.0 if difference else 1.0
    _mean(plot, bed, first, sign, total, size)
    plot.node(f"{second}.mlp_in", total)
    for direction in (1.0, -1.0):
        neuron = plot.node(f"{second}.mlp_neuron", bed.neuron(second))
        plot.join(f"{second}.up", neuron, total, direction * bed.about(10.0))
        plot.join(f"{second}.down", plot.output, neuron, turn * bed.about(2 * _OUT / (2 * 10.0 * size)))
    plot.node(f"{second}.mlp_out", plot.output)
    # Below the middle: where agreement is averaged over a long document less of it is left.
    plot.join(f"{second}.down", plot.output, None, turn * -0.5 * _OUT)
    plot.answer(ids)
    return plot


def detect(bed: Bed, words: Words, ids: dict[str, int]) -> Plot:
    """One neuron fires on a cue, one on its sign, on which fillers make it fire too; a later head picks out the cue.

    The quote circuit of the paper.
    """
    if bed.shape.n_layer < 2:
        raise ConfigError("The shape 'detect' needs two layers: plant it with n_layer=2 or more.")
    plot, here, sign = Plot(words, bed.channel()), bed.channel(), bed.channel()
    found, value = bed.channel(), bed.channel()
    plot.cue(here, (CUE, CUE))
    plot.cue(sign, (CUE, -CUE))
    plot.decoys.append(sign)
    second = bed.layer(1)
    first = int(bed.rng.integers(0, second))
    for source, target, threshold, size in ((here, found, -2.0, CUE), (sign, value, 0.0, 1.0)):
        neuron = bed.neuron(first)
        plot.node(f"{first}.mlp_in", source)
        plot.node(f"{first}.mlp_neuron", neuron)
        plot.node(f"{first}.mlp_out", target)
        plot.join(f"{first}.up", neuron, source, 2.0)
        plot.join(f"{first}.up", neuron, None, threshold)
        plot.join(f"{first}.down", target, neuron, bed.about(size / (2 * CUE + threshold)))
    _pick(plot, bed, second, found, value, plot.output, 2 * _OUT * CUE, _MIDDLE)
    plot.answer(ids)
    return plot


SHAPES: dict[str, Callable[[Bed, Words, dict[str, int]], Plot]] = {
    "copy": copy,
    "select": select,
    "agree": agree,
    "detect": detect,
}
# Behaviours that two models may do by routes of their own: that of the sparse one, and that of the dense one.
ROUTES: dict[str, tuple[Callable[[Bed, Words, dict[str, int]], Plot], ...]] = {
    "agree": (agree_late, agree_by_difference)
}
DESCRIPTIONS = {
    "copy": "The cue decides; attention carries its sign.",
    "select": "The cue decides, among fillers of either sign; a key finds it.",
    "agree": "Cue and mode decide together; two neurons tell whether they agree.",
    "detect": "The cue decides, among fillers of either sign; neurons detect it, a later head copies it.",
}
