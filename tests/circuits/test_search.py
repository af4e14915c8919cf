"""The search on a model whose circuit is known, and its parts one by one."""

from __future__ import annotations

import itertools

import pytest
import torch

from bridges.circuits.ablation import node_means
from bridges.circuits.attribution import integrated_gradients
from bridges.circuits.circuit import Circuit, ablated, circuit_logits, count_edges, kept_edges, only
from bridges.circuits.search import search as search_module
from bridges.circuits.search.search import Search, find_circuit
from bridges.circuits.task import Calibration, logit_diff, prompts, task_loss
from bridges.circuits.weights import edge_matrices
from bridges.config.search import METHODS, CircuitSettings
from bridges.errors import CheckpointError, ConfigError

from .conftest import QUOTE_CIRCUIT, QUOTE_EDGES, nodes_of, published, quote_pairs


@pytest.fixture
def reference(quote_model, quote_text):
    return node_means(quote_model, quote_text)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pruning_finds_exactly_the_circuit_written_by_hand(quote_model, reference, seed):
    circuit = find_circuit(quote_model, quote_pairs(64, seed), reference, published(), seed)
    assert circuit.reached and circuit.train_loss <= 0.15
    assert nodes_of(circuit) == QUOTE_CIRCUIT
    assert count_edges(quote_model, circuit).inside == QUOTE_EDGES
    some = prompts(quote_pairs(200, seed + 50))
    with torch.no_grad(), only(quote_model, circuit):
        held = Calibration(circuit.scale, circuit.shift).apply(logit_diff(quote_model, some), some.sign)
    assert float(task_loss(held)) < 0.2 and (held > 0).float().mean() > 0.97


def test_a_meaningless_labelling_has_no_such_circuit(quote_model, reference):
    pairs = quote_pairs(128, 0)
    flip = torch.rand(128, generator=torch.Generator().manual_seed(3)) < 0.5
    pairs.candidates[flip] = pairs.candidates[flip].flip(1)
    circuit = find_circuit(quote_model, pairs, reference, published(), 0)
    assert not circuit.reached


def test_without_the_circuit_the_model_guesses(quote_model, reference):
    circuit = find_circuit(quote_model, quote_pairs(64, 0), reference, published())
    some = prompts(quote_pairs(100, 7))
    before = {n: p.clone() for n, p in quote_model.named_parameters()}
    with torch.no_grad(), ablated(quote_model, circuit):
        without = logit_diff(quote_model, some)
    whole = logit_diff(quote_model, some)
    assert (whole > 0).float().mean() > 0.97 and (without > 0).float().mean() == 0.5
    assert all(torch.equal(before[n], p) for n, p in quote_model.named_parameters())


def test_edge_counts_agree_with_counting_one_by_one(quote_model, reference):
    generator = torch.Generator().manual_seed(0)
    search = Search(quote_model, quote_pairs(8, 0), reference, CircuitSettings())
    nodes = {p: torch.rand(w, generator=generator) < 0.7 for p, w in quote_model.nodes.widths.items()}
    circuit = Circuit(**{**search.empty.__dict__, "nodes": nodes})
    expected = 0
    for matrix in edge_matrices(quote_model):
        if matrix.source in nodes and matrix.target in nodes:
            for target, source in itertools.product(range(matrix.weight.shape[0]), range(matrix.weight.shape[1])):
                nonzero = float(matrix.weight[target, source]) != 0
                expected += nonzero and bool(nodes[matrix.target][target]) and bool(nodes[matrix.source][source])
    assert expected > 0 and count_edges(quote_model, circuit).inside == expected
    # Embedding rows of tokens 1 and 4 into channels that some kept node reads.
    reads = torch.stack([nodes[p] for p in nodes if p.endswith("_in")]).any(0)
    rows = quote_model.tokens.weight[[1, 4]] != 0
    tokens = torch.tensor([[1, 4, 4]])
    assert count_edges(quote_model, circuit, tokens).with_embeddings == expected + int((rows & reads).sum())


def test_a_removed_edge_gives_its_source_s_mean(quote_model, reference):
    circuit = find_circuit(quote_model, quote_pairs(32, 0), reference, published(steps=30, prune_attempts=2))
    everything = {p: torch.ones_like(kept) for p, kept in circuit.nodes.items()}
    edges = kept_edges(quote_model, Circuit(**{**circuit.__dict__, "nodes": everything, "edges": None}))
    edges["0.down"] = edges["0.down"].clone()
    edges["0.down"][3, 0] = False
    cut = Circuit(**{**circuit.__dict__, "nodes": everything, "edges": edges})
    ids = quote_pairs(5, 3).ids.flatten(0, 1)
    with torch.no_grad():
        ours = circuit_logits(quote_model, cut, ids)
        # By hand: the neuron's value, as this one weight sees it, is its mean.
        before = quote_model.blocks[1].down.weight[3, 0].clone()
        quote_model.blocks[1].down.weight[3, 0] = 0
        quote_model.blocks[1].down.bias[3] += before * reference["0.mlp_neuron"][0]
        theirs = quote_model.logits(ids)
    torch.testing.assert_close(ours, theirs)


def test_an_error_inside_leaves_the_weights_as_they_were(quote_model, reference):
    circuit = find_circuit(quote_model, quote_pairs(32, 0), reference, published(steps=30, prune_attempts=2))
    before = {n: p.clone() for n, p in quote_model.named_parameters()}
    with pytest.raises(IndexError):
        circuit_logits(quote_model, circuit, torch.tensor([[99]]))
    assert all(torch.equal(before[n], p) for n, p in quote_model.named_parameters())
    assert not any(quote_model.nodes.active(p) for p in quote_model.nodes.widths)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_circuit_that_reaches_the_target(quote_model, reference, method):
    circuit = find_circuit(quote_model, quote_pairs(64, 0), reference, published(method=method, edges=False), 0)
    assert circuit.reached and circuit.method == method
    assert len(QUOTE_CIRCUIT) - 1 <= circuit.size <= sum(quote_model.nodes.widths.values())


def test_circuits_survive_a_file(quote_model, reference, tmp_path):
    circuit = find_circuit(quote_model, quote_pairs(32, 0), reference, published(steps=30, prune_attempts=2))
    circuit.save(tmp_path / "c.json")
    back = Circuit.load(tmp_path / "c.json")
    for name in ("nodes", "edges", "scores", "reference"):
        for key, value in getattr(circuit, name).items():
            assert torch.equal(getattr(back, name)[key], value), (name, key)
    assert (back.train_loss, back.scale, back.shift) == (circuit.train_loss, circuit.scale, circuit.shift)
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(CheckpointError, match="no readable circuit"):
        Circuit.load(tmp_path / "c.json")


def test_settings_are_checked():
    for key, value in (
        ("method", "lerned"),
        ("objective", "faithfull"),
        ("ablation", "men"),
        ("target", 0),
        ("steps", -1),
        ("penalty", -1e-3),
        ("min_penalty", -0.1),
        ("carried_target", 0),
        ("carried_weight", -1.0),
    ):
        with pytest.raises(ConfigError, match=f"circuits.{key}"):
            CircuitSettings(**{key: value})


def test_a_circuit_that_needs_too_many_nodes_is_not_reached(quote_model, reference):
    pairs = quote_pairs(64, 0)
    total = sum(quote_model.nodes.widths.values())
    enough = find_circuit(quote_model, pairs, reference, published(max_node_fraction=0.9))
    few = find_circuit(quote_model, pairs, reference, published(max_node_fraction=(enough.size - 2) / total))
    assert enough.reached and not few.reached and few.size == enough.size - 2
    with pytest.raises(ConfigError, match=r"circuits\.max_node_fraction=0 "):
        CircuitSettings(max_node_fraction=0)


def test_without_bisection_what_was_opened_is_kept_unless_it_is_too_much(quote_model, reference):
    pairs, total = quote_pairs(64, 0), sum(quote_model.nodes.widths.values())

    def bisected(**more) -> int:
        search = Search(quote_model, pairs, reference, published(prune_attempts=0, **more))
        # All but ten are open, those of the last layer first.
        scores = torch.arange(total) - 10.0
        return search.bisect(dict(zip(reference, scores.split([len(r) for r in reference.values()]), strict=True))).size

    assert bisected(bisect=False) == total - 11  # a score of 0 is no open gate
    fewest = bisected()
    assert fewest < total - 11 and bisected(bisect=False, max_node_fraction=fewest / total) == fewest


def test_no_search_where_the_model_itself_is_hopeless(quote_model, reference, monkeypatch):
    pairs = quote_pairs(64, 0)
    flip = torch.rand(64, generator=torch.Generator().manual_seed(3)) < 0.5
    pairs.candidates[flip] = pairs.candidates[flip].flip(1)
    monkeypatch.setattr(Search, "rank", lambda self: pytest.fail("searched all the same"))
    circuit = find_circuit(quote_model, pairs, reference, published())
    assert not circuit.reached and circuit.train_loss > published().max_model_loss


@pytest.mark.parametrize("found_at", [2, 3])
def test_a_search_that_is_stuck_starts_again_from_importance(quote_model, reference, monkeypatch, found_at):
    """Its first ranking leads nowhere: everything but the circuit. The second starts from their importance, the third
    does not; the circuit of the first ranking that leads to one is taken."""
    asked: list[dict] = []
    settings = CircuitSettings(max_node_fraction=0.3, pairs=32, warm_start=0.2)
    search = Search(quote_model, quote_pairs(64, 0), reference, settings)
    upside_down = {p: torch.ones(w) for p, w in quote_model.nodes.widths.items()}
    for point, channel in QUOTE_CIRCUIT:
        upside_down[point][channel] = -1.0

    def learn(*arguments, **more):
        asked.append({"warm_start": arguments[3].warm_start, "seed": arguments[4], **more})
        return {p: -scores if len(asked) == found_at else scores for p, scores in upside_down.items()}

    monkeypatch.setattr(search_module, "learn_gates", learn)
    circuit = search.run()
    assert circuit.reached and nodes_of(circuit) == QUOTE_CIRCUIT
    assert [call["warm_start"] for call in asked] == [0.2, 0.4, 0.4][:found_at]
    expected = integrated_gradients(quote_model, search.prompts, search.ablation.reference)
    for call in asked[:2]:
        torch.testing.assert_close(call["order"], expected)
    # From the same start the third would end where the first did: it begins from all nodes alike, with other noise.
    assert all(call["order"] is None and call["seed"] != asked[0]["seed"] for call in asked[2:])
    assert all("start" not in call for call in asked)
