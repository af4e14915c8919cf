"""What MIB's evaluation makes of an exported circuit. `Loaded` follows the semantics of EAP-IG's ``Graph.from_json``,
``prune`` and ``evaluate_graph`` (activation patching), written anew for the stacks here."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from bridges.circuits.circuit import Circuit
from bridges.circuits.weights import edge_matrices
from bridges.dense import wrap_dense
from bridges.interop.mib import mib_graph, save_mib


class Loaded:
    """A graph as EAP-IG holds it: ``edges[writer, reader]``, ``nodes[writer]`` and, in neuron mode, channels."""

    def __init__(self, path):
        values = json.loads(path.read_text())
        cfg = values["cfg"]
        assert set(cfg) == {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"} and not cfg["parallel_attn_mlp"]
        layers, heads = range(cfg["n_layers"]), range(cfg["n_heads"])
        self.layers, self.heads, self.d_model = layers, heads, cfg["d_model"]
        self.writers, self.readers, self.reads_of = ["input"], [], {"input": []}
        self.real = set()
        for layer in layers:
            attention = [f"a{layer}.h{head}" for head in heads]
            for name in attention:
                self.reads_of[name] = [f"{name}<{kind}>" for kind in "qkv"]
                self.readers += self.reads_of[name]
            self.real |= {(w, r) for w in self.writers for name in attention for r in self.reads_of[name]}
            self.writers += attention
            self.real |= {(w, f"m{layer}") for w in self.writers}
            self.writers.append(f"m{layer}")
            self.readers.append(f"m{layer}")
            self.reads_of[f"m{layer}"] = [f"m{layer}"]
        self.real |= {(w, "logits") for w in self.writers}
        self.readers.append("logits")
        self.nodes = dict.fromkeys(self.writers, False)
        self.edges: set[tuple[str, str]] = set()
        channels = {w: torch.zeros(self.d_model, dtype=torch.bool) for w in self.writers}
        for name, node in values["nodes"].items():
            if name == "logits":
                continue
            assert isinstance(node["in_graph"], bool)
            self.nodes[name] = node["in_graph"]
            if "neurons" in node:
                given = torch.tensor(node["neurons"]).bool()
                assert given.shape == (self.d_model,)
                # The loader indexes heads by a slice over their layer.
                together = [w for w in self.writers if w[0] == "a" and w.split(".")[0] == name.split(".")[0]]
                for writer in together or [name]:
                    channels[writer] = given
        self.neurons = channels if any("neurons" in node for node in values["nodes"].values()) else None
        for name, edge in values["edges"].items():
            writer, reader = name.split("->")
            assert (writer, reader) in self.real and isinstance(edge["score"], float)
            if edge["in_graph"]:
                self.edges.add((writer, reader))

    def weighted_edge_count(self) -> float:
        if self.neurons is None:
            return float(len(self.edges))
        return sum(int(self.neurons[w].sum()) for w, _ in self.edges) / self.d_model

    def prune(self) -> None:
        before = None
        while before != (self.nodes, self.edges):
            before = (dict(self.nodes), set(self.edges))
            read, written = {r for _, r in self.edges}, {w for w, _ in self.edges}
            self.nodes = {
                w: w in written and (w == "input" or any(r in read for r in self.reads_of[w])) for w in self.writers
            }
            there = {"logits"} | {r for w, kept in self.nodes.items() if kept for r in self.reads_of[w]}
            self.edges = {(w, r) for w, r in self.edges if self.nodes[w] and r in there}
        if self.neurons is not None:
            self.neurons = {w: c & self.nodes[w] for w, c in self.neurons.items()}

    def corrupted(self, writer: str, reader: str) -> Tensor:
        """Which channels of ``writer`` come from the corrupted prompt where ``reader`` reads them."""
        if self.neurons is None:
            return torch.full((self.d_model,), (writer, reader) not in self.edges)
        kept = self.neurons[writer]
        whole_edge = bool(kept.all()) and (writer, reader) in self.edges
        return ~kept & torch.tensor(not whole_edge)


def run(stack, ids: Tensor, mix=None):
    """Logits, and what each part writes; ``mix(writer, reader, value)`` is what ``reader`` sees of a writer's value."""
    gpt2 = hasattr(stack, "model")
    heads = stack.model.config.n_head if gpt2 else stack.config.n_head
    weight = {w.name: (w.weight, w.bias) for w in edge_matrices(stack)}
    written, biases = {"input": stack.embed(ids)}, 0

    def stream(reader: str) -> Tensor:
        return sum(v if mix is None else mix(w, reader, v) for w, v in written.items()) + biases

    for layer in range(stack.n_layers):
        if gpt2:
            block = stack.layers[layer]
            norms, act = (block.ln_1, block.ln_2), block.mlp.act
        else:
            first, second = stack.blocks[2 * layer], stack.blocks[2 * layer + 1]
            norms, act = (first.read, second.read), second.activation
        out, bias = weight[f"{layer}.out"]
        outputs = {}
        for head in range(heads):
            name, parts = f"a{layer}.h{head}", {}
            for kind in "qkv":
                w, b = (t.chunk(heads)[head] for t in weight[f"{layer}.{kind}"])
                parts[kind] = F.linear(norms[0](stream(f"{name}<{kind}>")), w, b)
            scores = parts["q"] @ parts["k"].mT / math.sqrt(parts["q"].shape[-1])
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
            outputs[name] = scores.softmax(-1) @ parts["v"] @ out.chunk(heads, 1)[head].T
        written |= outputs
        biases = biases + bias
        hidden = act(F.linear(norms[1](stream(f"m{layer}")), *weight[f"{layer}.up"]))
        written[f"m{layer}"] = F.linear(hidden, *weight[f"{layer}.down"])
    return stack.unembed(stream("logits"), ids), written


def circuit_logits(stack, graph: Loaded, clean: Tensor, corrupted: Tensor) -> Tensor:
    theirs = run(stack, corrupted)[1]
    return run(stack, clean, lambda w, r, value: torch.where(graph.corrupted(w, r), theirs[w], value))[0]


def faithfulness(stack, graph: Loaded, clean: Tensor, corrupted: Tensor) -> float:
    """MIB's f, of the difference between the clean and the corrupted prompt's likeliest tokens."""
    full, none = stack.logits(clean)[:, -1], stack.logits(corrupted)[:, -1]
    right, wrong = full.argmax(-1, keepdim=True), (none - full).argmax(-1, keepdim=True)

    def metric(logits: Tensor) -> float:
        return float((logits.gather(-1, right) - logits.gather(-1, wrong)).mean())

    mine = metric(circuit_logits(stack, graph, clean, corrupted)[:, -1])
    return (mine - metric(none)) / (metric(full) - metric(none))


def circuit_of(stack, kept: dict[str, Tensor] | None = None) -> Circuit:
    """All nodes, but of the points in ``kept`` those."""
    nodes = {p: torch.ones(w, dtype=torch.bool) for p, w in stack.nodes.widths.items()} | (kept or {})
    return Circuit("x", "sparse", "learned", 0, "mean", nodes, {}, None, {}, 0.1, True, 0.0)


@pytest.fixture(params=["sparse", "gpt2"])
def stack(request, tiny_sparse, randomise):
    if request.param == "gpt2":
        config = GPT2Config(vocab_size=29, n_positions=12, n_embd=16, n_layer=2, n_head=4)
        model = GPT2LMHeadModel(config).eval()
        randomise(model, 0)
        return wrap_dense(model)
    model = tiny_sparse(0, activation_fraction=None, attention_sink=False, bigram="none").requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.sparse_matrices().values():
        weight.mul_(torch.rand(weight.shape, generator=generator) < 0.2)
    # A head that nothing reads through weights, one that reads nothing, and one that does neither.
    block = model.blocks[0]
    for part in (block.q, block.k, block.v):
        part.weight[:8] = 0
    block.out.weight[:, 4:12] = 0
    return model


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(3)
    clean = torch.randint(29, (6, 10), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 2:5] = torch.randint(29, (6, 3), generator=generator)
    return clean, corrupted


@torch.no_grad()
def test_a_whole_model_scores_1_and_weighs_every_edge(stack, prompts, tmp_path):
    graph = Loaded(save_mib(stack, circuit_of(stack), tmp_path / "x.json"))
    assert graph.weighted_edge_count() == len(graph.real) == len(graph.edges)
    graph.prune()
    assert graph.weighted_edge_count() == len(graph.real)
    torch.testing.assert_close(run(stack, prompts[0])[0], stack.logits(prompts[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(circuit_logits(stack, graph, *prompts), stack.logits(prompts[0]), atol=1e-4, rtol=1e-4)
    assert faithfulness(stack, graph, *prompts) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_without_the_neurons_of_input_and_heads_the_loader_counts_them_as_removed(stack, prompts, tmp_path):
    values = mib_graph(stack, circuit_of(stack))
    for name, node in values["nodes"].items():
        if name[0] in "ia":
            del node["neurons"]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(values))
    graph = Loaded(path)
    assert graph.weighted_edge_count() < len(graph.real) / 2
    graph.prune()
    assert abs(faithfulness(stack, graph, *prompts) - 1) > 0.01


@torch.no_grad()
def test_a_smaller_circuit_keeps_its_own_channels_and_heads(stack, prompts, tmp_path):
    d = stack.d_model
    half = torch.arange(d) % 2 == 0
    v = torch.ones(d, dtype=torch.bool)
    v[4:8] = False
    # Of layer 1 head 1 is removed with its value channels, of attn_out every other channel, the MLP as a whole.
    nothing = torch.zeros(stack.nodes.widths["1.mlp_neuron"], dtype=torch.bool)
    kept = {"1.v": v, "1.attn_out": half, "1.mlp_out": half & ~half, "1.mlp_neuron": nothing}
    circuit = circuit_of(stack, kept)
    graph = Loaded(save_mib(stack, circuit, tmp_path / "x.json"))
    graph.prune()
    expected = {w: torch.ones(d, dtype=torch.bool) for w in graph.writers}
    expected |= {f"a1.h{head}": half for head in (0, 2, 3)}
    expected |= {"a1.h1": half & ~half, "m1": half & ~half}
    for writer, channels in expected.items():
        if graph.nodes[writer] or not channels.any():
            assert torch.equal(graph.neurons[writer], channels), writer
    assert {w for w in graph.writers if not graph.nodes[w]} >= {"a1.h1", "m1"}
    assert not [(w, r) for w, r in graph.edges if w == "a1.h1" or r.startswith("a1.h1<")]
    theirs = run(stack, prompts[1])[1]
    direct = run(stack, prompts[0], lambda w, r, value: torch.where(expected[w], value, theirs[w]))[0]
    loaded = circuit_logits(stack, graph, *prompts)
    torch.testing.assert_close(loaded, direct, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(loaded, stack.logits(prompts[0]), atol=1e-2)


@torch.no_grad()
def test_removed_weights_take_their_edges_out(stack, tmp_path):
    whole = circuit_of(stack)
    layer_1 = {w.name: w for w in edge_matrices(stack)}["1.up"]
    cut = replace(whole, edges={"1.up": torch.zeros_like(layer_1.weight, dtype=torch.bool)})
    graph = Loaded(save_mib(stack, cut, tmp_path / "x.json"))
    assert not [e for e in graph.edges if e[1] == "m1"]
    assert {e for e in graph.real if e[1] != "m1"} - graph.edges <= {e for e in graph.real if e[0] == "m1"}
