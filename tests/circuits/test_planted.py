"""The search finds circuits that were planted, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridges.behaviours import shuffled_labels
from bridges.bridge import Bridges, pair_sites
from bridges.circuits import Search, find_circuit, node_means
from bridges.circuits.attribution import attribution
from bridges.circuits.bridge_context import BridgeContext, share_moved
from bridges.circuits.circuit import Circuit
from bridges.config.search import CircuitSettings
from bridges.planted import SHAPES, World, plant

SMALL = {"n_layer": 2, "d_model": 32, "d_mlp": 32}


# Small worlds have few nodes, of which a circuit is more than a tenth.
QUICK = {"max_node_fraction": 0.4, "prune_attempts": 20, "pairs": 48}


def found_in(world: World, name: str, nonsense: bool = False, **changes) -> Circuit:
    """What the search finds, for the behaviour or for its nonsense twin; without bridges there is no carried term."""
    settings = CircuitSettings(**(QUICK | changes))
    pairs = world.pairs(name, "train", settings.pairs)
    if nonsense:
        pairs = shuffled_labels(pairs)
        settings = replace(settings, objective="task_loss", target=0.15, max_model_loss=1e6)
    return find_circuit(world.sparse, pairs, node_means(world.sparse, [world.text(256)]), settings, world.seed)


def bridged(world: World) -> BridgeContext:
    """The world's own rotation as bridges."""
    pairs = pair_sites(world.dense.n_sublayers, world.sparse.n_sublayers)
    bridges = Bridges(world.dense.d_model, world.sparse.d_model, pairs, None)
    for bridge in bridges.requires_grad_(False):
        bridge.decoder.weight.copy_(world.dense.rotation.T)
        bridge.encoder.weight.copy_(world.dense.rotation)
    return BridgeContext(world.dense, world.sparse, bridges)


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
    assert circuit.reached and circuit.train_loss <= CircuitSettings().target
    precision, recall = precision_and_recall(world, name, circuit)
    assert recall == 1.0 and precision >= 0.75


def test_across_exact_bridges_the_search_finds_it_too():
    world = plant(0, ("copy", "select"), **SMALL)
    settings = CircuitSettings(**QUICK)
    means = node_means(world.sparse, [world.text(256)])
    circuit = find_circuit(
        world.sparse, world.pairs("copy", "train", settings.pairs), means, settings, 0, context=bridged(world)
    )  # fmt: skip
    assert circuit.reached and circuit.carried <= settings.carried_target
    assert precision_and_recall(world, "copy", circuit)[1] == 1.0


@pytest.mark.parametrize("name", ["copy", "detect"])
def test_a_nonsense_twin_has_no_circuit_as_small(name):
    world = plant(0, (name, "select"), **SMALL)
    circuit = found_in(world, name, nonsense=True)
    planted = sum(int(kept.sum()) for kept in world.mask(name).values())
    assert not circuit.reached or circuit.size > 3 * planted


def test_a_behaviour_that_the_sparse_model_lacks_is_not_carried():
    """Whatever explains its own chance answers moves nothing in the dense model."""
    world = plant(0, ("copy", "select"), ("copy",), **SMALL)
    context = bridged(world)
    batch = context.batch(world.pairs("copy", "train", 24))
    ceilings = context.ceilings(batch)
    assert max(ceilings[i] for i in context.inner) > 0.5
    for i, diff in context.whole_sparse(batch).items():
        assert abs(share_moved(batch.dense_diff, diff)) < 0.1, i


def test_a_warm_start_sees_a_key_behind_saturated_attention():
    """The gradient at the model as it is hardly sees it: all attention is on one token."""
    world = plant(0, ("detect", "copy"), n_layer=2, d_model=96, d_mlp=64)
    means = node_means(world.sparse, [world.text(128)])
    search = Search(world.sparse, world.pairs("detect", "train", 32), means, CircuitSettings(pairs=32))
    local = attribution(world.sparse, search.prompts, means)
    point, (key, *_) = next((p, c) for p, c in world.truth["detect"]["nodes"].items() if p.endswith(".k"))

    def share(scores):
        return float(scores[point][key].abs()) / max(float(s.abs().max()) for s in scores.values())

    assert share(local) < 0.3 < 0.6 < share(search.importance()), (share(local), share(search.importance()))


@pytest.mark.slow
def test_twenty_worlds_with_every_shape():
    scores = []
    for seed in range(20):
        world = plant(seed)
        for name in SHAPES:
            found = found_in(world, name, max_node_fraction=0.1)
            scores.append((*precision_and_recall(world, name, found), seed, name))
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
