"""Edges of dense models: every weight between two nodes, of fused, shared and gated projections too."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Pair
from bridges.circuits.ablation import node_means, node_values
from bridges.circuits.attribution import edge_attribution
from bridges.circuits.circuit import Circuit, count_edges, edges_ablated, kept_edges
from bridges.circuits.controls.null_searches import shuffled_model
from bridges.circuits.task import logit_diff, prompts
from bridges.circuits.weights import edge_matrices, with_biases
from bridges.dense import DenseStack, wrap_dense
from bridges.errors import BridgesError
from bridges.interop.graph_links import CircuitRun, into_reads
from bridges.interop.mib import mib_graph
from bridges.nodes import intervene


def whole(stack: DenseStack, **changes) -> Circuit:
    """Every node and edge; removed ones would give their mean over random text."""
    text = torch.randint(97, (8, 9), generator=torch.Generator().manual_seed(3))
    nodes = {p: torch.ones(w, dtype=torch.bool) for p, w in stack.nodes.widths.items()}
    values = {"edges": None, "reference": node_means(stack, [text]), "scores": {p: k.float() for p, k in nodes.items()}}
    return Circuit(
        "toy", "dense", "learned", 0, "mean", nodes, target=0.0, reached=True, train_loss=math.inf, **(values | changes)
    )


def cut(stack: DenseStack, names: list[str], channel: int) -> dict[str, Tensor]:
    """Edges without those that leave one channel through some matrices."""
    edges = {m.name: torch.ones(m.weight.shape, dtype=torch.bool) for m in edge_matrices(stack) if m.name in names}
    for kept in edges.values():
        kept[:, channel] = False
    return edges


def test_every_weight_of_the_layers_is_an_edge(case):
    inside = [m for m in edge_matrices(case.stack) if m.source in case.stack.nodes.widths]
    listed = sum(m.weight.numel() for m in inside)
    assert listed == sum(p.numel() for p in case.stack.layers.parameters() if p.ndim == 2)
    for matrix in inside:
        assert matrix.weight.shape == tuple(case.stack.nodes.widths[p] for p in (matrix.target, matrix.source))
    assert len({m.name for m in inside}) == len(inside)
    assert count_edges(case.stack, whole(case.stack)).inside == listed


@pytest.mark.parametrize("kind", ["attn_in", "v", "mlp_in", "mlp_neuron"])
def test_cutting_every_edge_of_a_node_is_ablating_it(case, kind):
    stack, ids = case.stack, case.ids(11)
    circuit, point, channel = whole(stack), f"1.{kind}", 5
    names = [m.name for m in edge_matrices(stack) if m.source == point]
    before = {name: p.clone() for name, p in stack.named_parameters()}

    def ablate(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., channel] = circuit.reference[point][channel]
        return x

    with torch.no_grad():
        with intervene(stack, {point: ablate}):
            expected = stack.logits(ids)
        with edges_ablated(stack, whole(stack, edges=cut(stack, names, channel))):
            found = stack.logits(ids)
        assert not torch.allclose(expected, stack.logits(ids), atol=1e-3)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    after = dict(stack.named_parameters())
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_an_edge_changes_its_target_alone(case, kind):
    stack, ids = case.stack, case.ids(7)
    plain = node_values(stack, ids)
    with edges_ablated(stack, whole(stack, edges=cut(stack, [f"0.{kind}"], 3))):
        changed = node_values(stack, ids)
    for other in "qkv":
        assert torch.allclose(changed[f"0.{other}"], plain[f"0.{other}"], atol=1e-5) == (other != kind)


@pytest.mark.parametrize("matrix", ["0.out.0", "0.out.1", "1.q", "1.gate", "1.up", "1.down"])
def test_the_attribution_of_an_edge_is_the_slope_of_its_ablation(tiny_model, matrix):
    stack = wrap_dense(tiny_model("llama"), check=False)
    ids = torch.randint(97, (6, 2, 9), generator=torch.Generator().manual_seed(0))
    pairs = tuple(Pair(str(i), str(i), "", "", "only") for i in range(6))
    some = prompts(EncodedPairs("toy", "train", 0, pairs, ids, torch.full((6, 2), 9), torch.tensor([[1, 2]] * 6)))
    circuit = whole(stack)
    scores = edge_attribution(stack, some, circuit.reference, circuit)[matrix]
    with torch.no_grad(), with_biases(stack):
        (edge,) = [m for m in edge_matrices(stack) if m.name == matrix]
        weight, bias, share = edge.weight.clone(), edge.bias.clone(), 0.05

        def at(target: int, source: int, part: float) -> float:
            gone = torch.zeros_like(weight)
            gone[target, source] = part * weight[target, source]
            edge.put(weight - gone, bias + gone @ circuit.reference[edge.source])
            return float(logit_diff(stack, some).double().mean())

        for target, source in ((0, 1), (7, 4), (5, 17)):
            fall = (at(target, source, -share) - at(target, source, share)) / (2 * share)
            assert float(scores[target, source]) == pytest.approx(fall, abs=2e-4, rel=0.03), (target, source)
        edge.put(weight, bias)


def test_the_benchmarks_graph_of_heads_that_share_their_values(tiny_model):
    stack = wrap_dense(tiny_model("llama"), check=False)
    everything = mib_graph(stack, whole(stack))
    assert everything["cfg"]["n_heads"] == 4 and not everything["cfg"]["parallel_attn_mlp"]
    # Two layers: what is written before each part that reads.
    assert len(everything["edges"]) == 4 * 3 * 1 + 5 + 4 * 3 * 6 + 10 + 11
    circuit = whole(stack)
    circuit.nodes["0.v"][:16] = False
    graph = mib_graph(stack, circuit)
    writing = {name.split("->")[0] for name in graph["edges"]}
    assert [f"a0.h{head}" in writing for head in range(4)] == [False, False, True, True]
    assert {"input->a0.h1<k>", "input->a0.h2<v>"} <= set(graph["edges"]) and "input->a0.h1<v>" not in graph["edges"]
    assert kept_edges(stack, circuit)["0.out.1"].sum() == 32 * 16


def test_the_benchmarks_graph_of_parallel_blocks(tiny_model):
    stack = wrap_dense(tiny_model("gpt_neox"), check=False)
    graph = mib_graph(stack, whole(stack))
    assert graph["cfg"]["parallel_attn_mlp"] and "input->m0" in graph["edges"] and "a0.h0->m1" in graph["edges"]
    assert not any(name.startswith("a0") and name.endswith("->m0") for name in graph["edges"])


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gpt2"])
def test_shuffled_weights_are_every_matrix(tiny_model, name):
    """Fused and shared ones too: each row keeps its entries in another order."""
    stack = wrap_dense(tiny_model(name), check=False)
    twin = shuffled_model(stack, [torch.randint(97, (4, 9))], 1).stack
    for matrix, mixed in zip(edge_matrices(stack), edge_matrices(twin), strict=True):
        own, other = (m.weight.T if m.source == "embedding" else m.weight for m in (matrix, mixed))
        assert not torch.equal(own, other), matrix.name
        torch.testing.assert_close(own.sort(-1).values, other.sort(-1).values)


def test_parallel_blocks_do_not_read_each_other():
    nodes = [("0.attn_out", 3), ("0.mlp_in", 3), ("1.mlp_in", 3)]
    run = CircuitRun({"0.attn_out": torch.ones(2, 8)}, torch.zeros(2, 8), torch.zeros(1, 2, 8), torch.zeros(5))
    order = {"0.attn_out": 0, "0.mlp_in": 1, "1.mlp_in": 2}
    arguments = nodes, order, dict.fromkeys(nodes, 1), dict.fromkeys(nodes, 1.0)
    for parallel, read in ((False, {"0.mlp_in", "1.mlp_in"}), (True, {"1.mlp_in"})):
        assert {link[1][0] for link in into_reads(*arguments, run, parallel)} == read


def test_an_adapter_without_weights_says_so(tiny_model, monkeypatch):
    stack = wrap_dense(tiny_model("opt"), check=False)
    monkeypatch.setattr(type(stack), "node_weights", DenseStack.node_weights)
    with pytest.raises(BridgesError, match="edges of 'opt' cannot be listed: OPTStack has no `node_weights`"):
        edge_matrices(stack)
