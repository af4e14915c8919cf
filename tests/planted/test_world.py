"""A world does what it says: every behaviour is solved, and by its planted circuit alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bridges.behaviours import two_way
from bridges.circuits import Search, node_means
from bridges.circuits.circuit import count_edges
from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError, ConfigError
from bridges.planted import SHAPES, World, plant, world_named
from bridges.planted.named import STANDARD, STANDARD_ONLY_DENSE

SMALL = {"n_layer": 2, "d_model": 32, "d_mlp": 32}


@pytest.fixture(scope="module")
def world() -> World:
    return plant(0, only_dense=("select",))


def search_in(world: World, behaviour: str, pairs: int) -> Search:
    means = node_means(world.sparse, [world.text(128)])
    return Search(world.sparse, world.pairs(behaviour, "train", pairs), means, CircuitSettings())


def loss_without(search: Search, truth: dict[str, Tensor], removed: tuple[tuple[str, int], ...]) -> float:
    nodes = {point: kept.clone() for point, kept in truth.items()}
    for point, channel in removed:
        nodes[point][channel] = False
    return search.measure(replace(search.empty, nodes=nodes)).train_loss


def test_both_models_solve_what_is_in_them_and_the_sparse_one_nothing_else(world):
    for name in world.behaviours:
        for split in ("train", "heldout", "reach"):
            pairs = world.pairs(name, split, 64)
            assert two_way(world.dense.logits, pairs)["correct"].mean() > 0.98
            sparse = two_way(world.sparse.logits, pairs)
            if name == "select":
                # Each pair holds both answers and what is left cannot tell its prompts apart.
                assert sparse["correct"].mean() == 0.5 and sparse["loss"].mean() > 0.6
            else:
                assert sparse["correct"].mean() > 0.98


@pytest.mark.parametrize("seed", range(1, 7))
def test_standard_worlds_of_other_seeds(seed):
    world = plant(seed, STANDARD, STANDARD_ONLY_DENSE)
    for name in world.behaviours:
        correct = two_way(world.dense.logits, world.pairs(name, "heldout", 32))["correct"]
        assert correct.mean() > 0.95, name
    assert world.density < 0.12


def test_the_shapes(world):
    sizes = {"copy": (3, 2), "select": (5, 3), "agree": (7, 6), "detect": (11, 7)}
    for name, (nodes, edges) in sizes.items():
        truth = world.truth[name]
        assert (sum(map(len, truth["nodes"].values())), truth["edges"]) == (nodes, edges)
        assert truth["in_sparse"] == (name != "select")
        assert sum(int(kept.sum()) for kept in world.mask(name).values()) == nodes


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "select"])
def test_the_edges_are_the_weights_between_the_nodes(world, name):
    search = search_in(world, name, 8)
    edges = count_edges(world.sparse, replace(search.empty, nodes=world.mask(name)))
    assert edges.inside == world.truth[name]["edges"]


@pytest.mark.parametrize("name", ["copy", "select", "agree"])
def test_no_part_of_a_planted_circuit_does_its_behaviour(name):
    world = plant(1, (name,), **SMALL)
    search, truth = search_in(world, name, 24), world.mask(name)
    nodes = [(point, channel) for point, channels in world.truth[name]["nodes"].items() for channel in channels]
    assert loss_without(search, truth, ()) < 0.05
    for size in range(1, len(nodes)):
        for removed in itertools.combinations(nodes, size):
            assert loss_without(search, truth, removed) > 0.15, removed


@pytest.mark.parametrize("seed", [0, 1])
def test_every_node_of_a_large_circuit_is_needed(seed):
    world = plant(seed, ("detect", "agree"))
    for name in world.behaviours:
        search, truth = search_in(world, name, 32), world.mask(name)
        assert loss_without(search, truth, ()) < 0.05
        for point, channels in world.truth[name]["nodes"].items():
            for channel in channels:
                assert loss_without(search, truth, ((point, channel),)) > 0.3, (point, channel)


def test_one_behaviours_circuit_is_no_use_to_another(world):
    for name, other in (("copy", "detect"), ("detect", "agree"), ("agree", "copy")):
        search = search_in(world, name, 24)
        assert loss_without(search, world.mask(other), ()) > 0.6


def test_the_circuits_are_distinct_and_lie_among_working_distractors(world):
    masks = [torch.cat(list(world.mask(name).values())) for name in world.behaviours]
    assert int(torch.stack(masks).sum(0).max()) == 1
    bare, ids = plant(0), world.text(16)
    whole = bare.sparse.logits(ids)
    with torch.no_grad():
        for layer in range(3):
            circuits = {c for t in bare.truth.values() for c in t["nodes"].get(f"{layer}.mlp_neuron", [])}
            idle = [c for c in range(bare.sparse.config.d_mlp) if c not in circuits]
            bare.sparse.blocks[2 * layer + 1].down.weight[:, idle] = 0
    answers = [bare.tokenizer.convert_tokens_to_ids(w) for words in bare.language.asked for w in words.answers]
    change = (bare.sparse.logits(ids) - whole)[..., answers].abs().mean()
    assert 0.01 < change < 1.0


def test_the_text_says_what_the_circuits_compute(world):
    """At a question the right answer is the likeliest of all words, wherever in a document it stands."""
    ids = world.text(64)
    assert ids.shape == (64, 32) and (ids[:, 0] == world.tokenizer.eos_token_id).all() and (ids[:, 1:] > 1).all()
    logits = world.dense.logits(ids)
    asked = right = 0
    for words in world.language.asked:
        at = ids[:, :-1] == world.tokenizer.convert_tokens_to_ids(words.ask)
        asked += int(at.sum())
        right += int((logits[:, :-1].argmax(-1) == ids[:, 1:])[at].sum())
    assert asked > 50 and right / asked > 0.95


def test_a_document_is_a_block(world):
    documents = list(world.documents(40))
    assert len({d.name for d in documents}) == 40
    assert {len(world.tokenizer(d.text)["input_ids"]) for d in documents} == {31}


def test_the_splits_of_a_behaviour_share_no_filler(world):
    words = {split: {w for pair in world.pairs("copy", split).pairs for w in pair.clean.split()} for split in SPLITS}
    fillers = [set(world.language.fillers[split]) for split in SPLITS]
    assert words["train"] & fillers[0] and not words["train"] & fillers[1]
    assert words["heldout"] & fillers[1] and not words["heldout"] & fillers[0]


SPLITS = ("train", "heldout")


def test_a_seed_decides_everything(world):
    again, other = plant(0, only_dense=("select",)), plant(1, only_dense=("select",))
    for name, value in world.sparse.state_dict().items():
        assert torch.equal(value, again.sparse.state_dict()[name])
    assert torch.equal(world.dense.rotation, again.dense.rotation)
    assert not torch.equal(world.dense.rotation, other.dense.rotation)
    assert torch.equal(world.text(4), again.text(4)) and not torch.equal(world.text(4), other.text(4))
    assert world.truth == again.truth and world.truth != other.truth


def test_repeated_shapes_get_numbers():
    world = plant(0, ("copy", "copy", "select", "copy"), ("copy-3",))
    assert list(world.behaviours) == list(world.truth) == ["copy", "copy-2", "select", "copy-3"]
    assert [t["in_sparse"] for t in world.truth.values()] == [True, True, True, False]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"behaviours": ("copi",)}, ConfigError, "'copy'"),
        ({"only_dense": ("copy-2",)}, ConfigError, "'copy'"),
        ({"behaviours": ("copy",) * 17}, BridgesError, "No channel of the stream is free"),
        ({"behaviours": ("copy",) * 15}, ConfigError, "d_model"),
        ({"behaviours": ("detect",), "n_layer": 1}, BridgesError, "two layers"),
    ],
)
def test_what_cannot_be_planted(arguments, error, message):
    with pytest.raises(error, match=message):
        plant(0, **arguments)


def test_names_of_worlds():
    assert world_named("planted") is not None and world_named("planted:3").seed == world_named("3").seed == 3
    with pytest.raises(ConfigError, match="planted:<seed>"):
        world_named("planted:x")
