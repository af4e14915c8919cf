"""First-order effects of nodes and edges against exact ablation, and edges of attention's output under a sink."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Pair
from bridges.circuits.ablation import node_means, node_values
from bridges.circuits.attribution import attribution, edge_attribution, integrated_gradients, magnitude
from bridges.circuits.circuit import Circuit, ablated, only
from bridges.circuits.search.search import Search
from bridges.circuits.task import logit_diff, prompts
from bridges.circuits.weights import edge_matrices
from bridges.config.search import CircuitSettings
from bridges.nodes import intervene
from bridges.sparse import SparseTransformer, SparseTransformerConfig

from .conftest import CLOSE_DOUBLE, CLOSE_SINGLE, quote_pairs

VOCAB, WIDTH = 13, 12


class Toy:
    """A small model of random weights, its means over text and some prompts."""

    def __init__(self, sink: bool = False, layers: int = 1, seed: int = 0):
        config = SparseTransformerConfig(
            vocab_size=VOCAB, n_layer=layers, d_model=WIDTH, d_mlp=8, d_head=3, n_head=4, context=10,
            activation_fraction=None, attention_sink=sink, bigram="none",
        )  # fmt: skip
        self.stack = SparseTransformer(config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        for p in self.stack.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=generator))
        text = torch.randint(VOCAB, (40, 9), generator=generator)
        self.reference = node_means(self.stack, [text])
        ids = torch.randint(VOCAB, (6, 2, 9), generator=generator)
        pairs = tuple(Pair(str(i), str(i), "", "", "only") for i in range(6))
        lengths, candidates = torch.full((6, 2), 9), torch.tensor([[1, 2]] * 6)
        self.pairs = EncodedPairs("toy", "train", 0, pairs, ids, lengths, candidates)
        self.some = prompts(self.pairs)

    def whole(self) -> Circuit:
        return Search(self.stack, self.pairs, self.reference, CircuitSettings(max_node_fraction=1.0)).full

    def mean_diff(self) -> float:
        with torch.no_grad():
            return float(logit_diff(self.stack, self.some).double().mean())


def small_steps(toy: Toy, point: str, channel: int) -> float:
    """The slope of the mean logit difference along the way to a node's mean, by finite differences."""

    def at(share: float) -> float:
        def function(x: Tensor) -> Tensor:
            out = x.clone()
            mean = toy.reference[point][channel]
            out[..., channel] = mean + share * (x[..., channel] - mean)
            return out

        with torch.no_grad(), intervene(toy.stack, {point: function}):
            return float(logit_diff(toy.stack, toy.some).double().mean())

    return (at(1.001) - at(0.999)) / 0.002


@pytest.mark.parametrize("sink", [False, True])
def test_attribution_is_the_slope_towards_the_mean(sink):
    toy = Toy(sink, layers=2)
    scores = attribution(toy.stack, toy.some, toy.reference)
    assert set(scores) == set(toy.stack.nodes.widths)
    for point in ("0.attn_in", "0.q", "0.k", "0.v", "0.attn_out", "0.mlp_in", "0.mlp_neuron", "1.mlp_out"):
        for channel in (0, 5):
            wanted = small_steps(toy, point, channel)
            assert float(scores[point][channel]) == pytest.approx(wanted, abs=3e-4, rel=0.02), (point, channel)


def test_where_the_answer_is_linear_in_a_node_attribution_is_its_exact_ablation(planted, true_circuit):
    """Nearly so: the planted way is linear up to norms that hardly feel it. Positive is for the right answer."""
    some = prompts(planted.train)
    scores = attribution(planted.stack, some, planted.reference)
    with torch.no_grad():
        before = float(logit_diff(planted.stack, some).mean())
    for point, channel in (("0.v", 0), ("0.attn_in", 0)):
        nodes = {p: torch.zeros_like(kept) for p, kept in true_circuit.nodes.items()}
        nodes[point][channel] = True
        with torch.no_grad(), ablated(planted.stack, replace(true_circuit, nodes=nodes)):
            fall = before - float(logit_diff(planted.stack, some).mean())
        assert fall > 1 and 0.3 * fall < float(scores[point][channel]) < 1.5 * fall
        assert scores[point].abs().argmax() == channel


def test_a_node_that_speaks_against_the_right_answer_has_a_negative_attribution(quote_model, quote_text):
    reference, some = node_means(quote_model, quote_text), prompts(quote_pairs(24, 0))
    scores = attribution(quote_model, some, reference)
    assert float(scores["1.attn_out"][5]) > 0.1
    # Let the unembedding read the same channel the other way round beside it, half as strongly.
    quote_model.blocks[2].out.weight[7] = quote_model.blocks[2].out.weight[5]
    quote_model.head.weight[CLOSE_DOUBLE, 7], quote_model.head.weight[CLOSE_SINGLE, 7] = -1.0, 0.5
    scores = attribution(quote_model, some, node_means(quote_model, quote_text))
    assert float(scores["1.attn_out"][7]) < -0.1 < 0.1 < float(scores["1.attn_out"][5])


def test_integrated_gradients_add_up_to_what_all_nodes_do_together():
    toy = Toy(layers=1)
    with torch.no_grad(), only(toy.stack, replace(toy.whole(), nodes=nothing(toy))):
        empty = float(logit_diff(toy.stack, toy.some).double().mean())
    scores = integrated_gradients(toy.stack, toy.some, toy.reference, 60)
    gained = toy.mean_diff() - empty
    assert abs(gained) > 0.01
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(gained, rel=0.02, abs=1e-3)


def nothing(toy: Toy) -> dict[str, Tensor]:
    return {p: torch.zeros(w, dtype=torch.bool) for p, w in toy.stack.nodes.widths.items()}


def test_magnitude_is_the_rms_deviation_of_what_is_no_padding():
    toy = Toy()
    found = magnitude(toy.stack, toy.some, toy.reference)
    values = node_values(toy.stack, toy.some.ids)
    for point, value in values.items():
        wanted = (value - toy.reference[point]).square().mean((0, 1)).sqrt()
        torch.testing.assert_close(found[point], wanted)


# --- edges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("matrix", ["1.down", "1.out", "0.out"])
def test_the_attribution_of_an_edge_is_the_slope_of_its_ablation(matrix, sink):
    """By ablating a hundredth of a weight: a hundredth of the fall, whatever bends behind it."""
    toy = Toy(sink, layers=2)
    scores = edge_attribution(toy.stack, toy.some, toy.reference, toy.whole())[matrix]
    (edge,) = [m for m in edge_matrices(toy.stack) if m.name == matrix]
    mean = toy.reference[edge.source]
    weight, share = edge.weight.clone(), 0.01
    for target, source in ((0, 1), (7, 4), (5, 7)):
        before = toy.mean_diff()
        gone = torch.zeros_like(weight)
        gone[target, source] = share * weight[target, source]
        edge.weight.sub_(gone)
        if edge.attention is None:
            edge.bias.add_(gone @ mean)
        else:
            edge.attention.constant = (gone, mean)
        fall = (before - toy.mean_diff()) / share
        edge.weight.copy_(weight)
        if edge.attention is None:
            edge.bias.sub_(gone @ mean)
        else:
            edge.attention.constant = None
        assert float(scores[target, source]) == pytest.approx(fall, abs=2e-3, rel=0.03), (target, source)


def test_all_edges_out_of_a_node_add_up_to_the_node():
    """A neuron acts through its weights of ``1.down`` alone: ablating all of them is ablating it."""
    toy = Toy(layers=2)
    edges = edge_attribution(toy.stack, toy.some, toy.reference, toy.whole())["1.down"]
    nodes = attribution(toy.stack, toy.some, toy.reference)["1.mlp_neuron"]
    torch.testing.assert_close(edges.sum(0), nodes, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("sink", [False, True])
def test_edges_out_of_a_value_add_up_to_it(sink):
    toy = Toy(sink, layers=2)
    edges = edge_attribution(toy.stack, toy.some, toy.reference, toy.whole())["1.out"]
    nodes = attribution(toy.stack, toy.some, toy.reference)["1.v"]
    torch.testing.assert_close(edges.sum(0), nodes, atol=1e-5, rtol=1e-3)


def test_nothing_of_the_stack_is_left_changed():
    toy = Toy(True, layers=2)
    before = {n: p.clone() for n, p in toy.stack.named_parameters()}
    edge_attribution(toy.stack, toy.some, toy.reference, toy.whole())
    after = dict(toy.stack.named_parameters())
    assert before.keys() == after.keys() and all(torch.equal(before[n], p) for n, p in after.items())
    assert not any(p.requires_grad for p in after.values())
    assert toy.stack.blocks[0].constant is None and toy.stack.blocks[2].constant is None


# --- attention's output under a sink ------------------------------------------------------------------------------


def mixed_by_hand(stack: SparseTransformer, ids: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """What each head of layer 0 mixes of the values and of constant ones, ``[B, T, heads · width]`` twice."""
    block = stack.blocks[0]
    x = block.read(stack.embed(ids))
    heads, width = block.n_head, block.q.weight.shape[0] // block.n_head
    q, k, v = (part(x).unflatten(-1, (heads, width)) for part in (block.q, block.k, block.v))
    mixed, same = torch.zeros_like(v), torch.zeros_like(v)
    constant = value.view(heads, width)
    for b in range(len(ids)):
        for h in range(heads):
            for t in range(ids.shape[1]):
                scores = q[b, t, h] @ k[b, : t + 1, h].T / width**0.5
                sink = scores.new_tensor([-torch.inf]) if block.sink is None else block.sink[h : h + 1]
                weights = torch.cat([scores, sink]).softmax(0)[:-1]
                mixed[b, t, h] = weights @ v[b, : t + 1, h]
                same[b, t, h] = weights.sum() * constant[h]
    return mixed.flatten(2), same.flatten(2)


@pytest.mark.parametrize("sink", [False, True])
def test_a_removed_weight_of_attentions_output_gives_what_the_head_mixes_of_the_mean(sink):
    """With a sink a head's weights sum to less than 1: of a constant value it mixes less than the constant, so that to
    add ``W · mean`` would say more than the head can."""
    toy = Toy(sink)
    stack, ids = toy.stack, toy.some.ids
    circuit = toy.whole()
    kept = torch.rand(stack.blocks[0].out.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    cut = replace(circuit, edges={"0.out": kept})
    mean = toy.reference["0.v"]
    mixed, same = mixed_by_hand(stack, ids, mean)
    out = stack.blocks[0].out
    wanted = mixed @ (out.weight * kept).T + same @ (out.weight * ~kept).T + out.bias
    plain = mixed @ (out.weight * kept).T + (out.weight * ~kept) @ mean + out.bias
    with torch.no_grad(), only(stack, cut):
        found = node_values(stack, ids)["0.attn_out"]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert torch.allclose(plain, wanted, atol=1e-3) != sink


@pytest.mark.parametrize("sink", [False, True])
def test_attributions_by_token_add_up_to_the_nodes(sink):
    toy = Toy(sink)
    whole = attribution(toy.stack, toy.some, toy.reference)
    by_token = attribution(toy.stack, toy.some, toy.reference, by_token=True)
    for point, scores in whole.items():
        assert by_token[point].shape == (toy.some.ids.shape[1], len(scores))
        torch.testing.assert_close(by_token[point].sum(0), scores, rtol=1e-4, atol=1e-5)
    # Not all of it is at the last token.
    assert sum(float(s[:-1].abs().sum()) for s in by_token.values()) > 0
