"""Gates: open above zero, closed below, with the gradient of a sigmoid."""

from __future__ import annotations

import pytest
import torch

from bridges.circuits.ablation import node_means, node_values
from bridges.circuits.search.gates import Gates
from bridges.circuits.search.search import find_circuit
from bridges.nodes import intervene

from .conftest import QUOTE_CIRCUIT, nodes_of, published, quote_pairs


@pytest.fixture
def reference(quote_model, quote_text):
    return node_means(quote_model, quote_text)


def test_an_open_gate_changes_nothing_and_a_closed_one_gives_the_mean(quote_model, reference):
    gates = Gates(quote_model, reference)
    for tau in gates.tau.values():
        tau.data.fill_(0.1)
    gates.tau["0.mlp_neuron"].data[1] = -0.1
    seen = {}
    functions = gates.functions()
    ids = quote_pairs(3, 0).ids.flatten(0, 1)

    def kept(x):
        seen["x"] = functions["0.mlp_neuron"](x)
        return seen["x"]

    with torch.no_grad(), intervene(quote_model, {"0.mlp_neuron": kept}):
        quote_model.logits(ids)
    whole = node_values(quote_model, ids)["0.mlp_neuron"]
    torch.testing.assert_close(seen["x"][..., 0], whole[..., 0])
    assert (seen["x"][..., 1] == reference["0.mlp_neuron"][1]).all()
    assert not torch.equal(whole[..., 1], seen["x"][..., 1])
    assert float(gates.count().detach()) == pytest.approx(sum(map(len, reference.values())) - 1)


def test_the_gradient_of_a_gate_is_that_of_a_sigmoid(quote_model, reference):
    gates = Gates(quote_model, reference, temperature=0.5)
    tau = gates.tau["1.v"]
    tau.data.fill_(0.3)
    (grad,) = torch.autograd.grad(gates.count(), [tau])
    soft = torch.sigmoid(torch.tensor(0.6))
    torch.testing.assert_close(grad, torch.full_like(grad, float(soft * (1 - soft) / 0.5)))


def test_tied_queries_and_keys_share_a_gate(quote_model, reference):
    gates = Gates(quote_model, reference, tied=True)
    assert "1.k" not in gates.tau and "1.q" in gates.tau
    gates.tau["1.q"].data.copy_(torch.tensor([0.1, -0.1, 0.1, -0.1]))
    scores = gates.scores()
    assert torch.equal(scores["1.q"], scores["1.k"])
    # Both of the pair count.
    for tau in gates.tau.values():
        tau.data.fill_(-1.0)
    gates.tau["1.q"].data[0] = 1.0
    assert float(gates.count().detach()) == pytest.approx(2)
    circuit = find_circuit(quote_model, quote_pairs(128, 0), reference, published(tied=True))
    assert circuit.reached and nodes_of(circuit) <= QUOTE_CIRCUIT | {("1.q", 0)}
