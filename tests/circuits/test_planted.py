"""The search finds circuits that were planted, and nothing where nothing is."""

from __future__ import annotations

import pytest

from bridges.behaviours import shuffled_labels
from bridges.circuits import find_circuit, node_means
from bridges.circuits.circuit import Circuit
from bridges.config.search import CircuitSettings
from bridges.planted import SHAPES, World, plant

SMALL = {"n_layer": 2, "d_model": 32, "d_mlp": 32}


def found_in(world: World, name: str, nonsense: bool = False) -> Circuit:
    """What the search with the shipped settings finds, for the behaviour or for its nonsense twin."""
    settings = CircuitSettings()
    pairs = world.pairs(name, "train", settings.pairs)
    if nonsense:
        pairs = shuffled_labels(pairs)
    return find_circuit(world.sparse, pairs, node_means(world.sparse, [world.text(256)]), settings, world.seed)


def precision_and_recall(world: World, name: str, circuit: Circuit) -> tuple[float, float]:
    truth = world.mask(name)
    hits = sum(int((circuit.nodes[point] & kept).sum()) for point, kept in truth.items())
    planted = sum(int(kept.sum()) for kept in truth.values())
    return hits / max(1, circuit.size), hits / planted


@pytest.mark.parametrize(("seed", "name"), enumerate(SHAPES))
def test_a_planted_circuit_is_found_node_for_node(seed, name):
    # One other behaviour is there, whose cues stand in the same prompts.
    other = "copy" if name != "copy" else "select"
    world = plant(seed, (name, other), **SMALL)
    circuit = found_in(world, name)
    assert circuit.reached and circuit.train_loss <= 0.15
    assert precision_and_recall(world, name, circuit) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["copy", "detect"])
def test_a_nonsense_twin_has_no_circuit_as_small(name):
    world = plant(0, (name, "select"), **SMALL)
    circuit = found_in(world, name, nonsense=True)
    planted = sum(int(kept.sum()) for kept in world.mask(name).values())
    assert not circuit.reached or circuit.size > 3 * planted


def test_a_behaviour_that_the_sparse_model_lacks_has_no_circuit_as_small():
    world = plant(0, ("copy", "select"), ("copy",), **SMALL)
    circuit = found_in(world, "copy")
    assert not circuit.reached or circuit.size > 9


@pytest.mark.slow
def test_twenty_worlds_with_every_shape():
    scores = []
    for seed in range(20):
        world = plant(seed)
        for name in SHAPES:
            scores.append((*precision_and_recall(world, name, found_in(world, name)), seed, name))
    worst = min(scores)
    precision, recall = (sum(score[i] for score in scores) / len(scores) for i in range(2))
    print(f"precision {precision:.3f}, recall {recall:.3f}, worst {worst}")
    assert precision >= 0.95 and recall >= 0.95, worst


@pytest.mark.slow
def test_twenty_nonsense_twins():
    for seed in range(20):
        world = plant(seed)
        name = list(SHAPES)[seed % len(SHAPES)]
        circuit = found_in(world, name, nonsense=True)
        assert not circuit.reached or circuit.size > 3 * sum(int(kept.sum()) for kept in world.mask(name).values())
