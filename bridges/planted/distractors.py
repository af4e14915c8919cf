"""Distractors: heads and neurons that do work which no planted behaviour needs."""

from __future__ import annotations

from bridges.planted.bed import Bed, Weight

# How far a distractor reaches into a circuit's output, where the circuit itself writes about 1.
NOISE = 0.05


def distractors(bed: Bed, channels: list[int], outputs: list[int], answers: list[int]) -> list[Weight]:
    """Weights of half of the free heads and neurons of every layer, and of the unembedding's other rows.

    They read and write channels in which the two cues of a behaviour are alike, so that no cue can be told from them,
    and put some noise on the circuits' outputs and on the answers.

    Args:
        channels: those of the stream that no circuit uses. outputs: those that circuits write to and are read from.
        answers: token ids of all answers.
    """
    rng, found = bed.rng, []

    def some() -> int:
        return int(rng.choice(channels))

    def value(size: float) -> float:
        return bed.sign() * bed.about(size)

    for layer in range(bed.shape.n_layer):
        for _ in range(bed.heads_left(layer) // 2):
            first, second, third, _ = (*bed.head(layer), 0, 0, 0)[:4]
            found += [Weight(f"{layer}.{part}", first, some(), value(1.0)) for part in ("q", "k")]
            for channel in (second, third):
                found.append(Weight(f"{layer}.v", channel, some(), value(1.0)))
                found.append(Weight(f"{layer}.out", some(), channel, value(0.3)))
                found.append(Weight(f"{layer}.out", int(rng.choice(outputs)), channel, value(NOISE)))
        for _ in range(bed.neurons_left(layer) // 2):
            neuron = bed.neuron(layer)
            found += [Weight(f"{layer}.up", neuron, some(), value(0.7)) for _ in range(2)]
            found.append(Weight(f"{layer}.up", neuron, None, value(0.3)))
            found.append(Weight(f"{layer}.down", some(), neuron, value(0.25)))
            found.append(Weight(f"{layer}.down", int(rng.choice(outputs)), neuron, value(NOISE)))
    found += [Weight("head", answer, some(), value(0.1)) for answer in answers]
    return found
