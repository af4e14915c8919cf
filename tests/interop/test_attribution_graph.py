"""The attribution-graph JSON: types as the viewers declare them, and links that add up."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from bridges.circuits.circuit import Circuit, circuit_logits, only
from bridges.dense import wrap_dense
from bridges.errors import BridgesError
from bridges.interop.attribution_graph import attribution_graph, cantor, given_names, save_attribution_graph
from bridges.nodes import record

IDS = torch.tensor([3, 7, 1, 7, 12])
TOKENS = ["a", " b", "\n", " b", '"']
ANSWERS = {5: '")', 9: " x"}
# Fields and types of circuit-tracer's models of the file, which Neuronpedia's types agree with.
METADATA = {
    "slug": str, "scan": str, "transcoder_list": list, "prompt_tokens": list, "prompt": str, "node_threshold": float,
    "schema_version": int, "info": dict,
}  # fmt: skip
PARAMETERS = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str}
NODE = {
    "node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str, "token_prob": float,
    "is_target_logit": bool, "run_idx": int, "reverse_ctx_idx": int, "jsNodeId": str, "clerp": str,
    "influence": (float, type(None)), "activation": (float, type(None)),
}  # fmt: skip
LINK = {"source": str, "target": str, "weight": float}


def fits(value: dict, types: dict) -> bool:
    def right(v, t) -> bool:
        # A bool is an int to Python, and not to JSON.
        return isinstance(v, t) and (t is not int or not isinstance(v, bool))

    return set(value) == set(types) and all(right(value[k], t) for k, t in types.items())


def circuit_of(stack, kept: dict[str, list[int]] | None = None) -> Circuit:
    nodes, reference = {}, {}
    for point, width in stack.nodes.widths.items():
        nodes[point] = torch.ones(width, dtype=torch.bool)
        if kept is not None:
            nodes[point] = torch.isin(torch.arange(width), torch.tensor(kept.get(point, []), dtype=torch.long))
        reference[point] = torch.full((width,), 0.1)
    return Circuit("quote closing", "sparse", "learned", 0, "mean", nodes, {}, None, reference, 0.1, True, 0.0)


def scores(stack) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {p: torch.randn(w, generator=generator) for p, w in stack.nodes.widths.items()}


@pytest.fixture(params=["sparse", "LayerNorm", "gpt2"])
def stack(request, tiny_sparse, randomise):
    if request.param == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=29, n_positions=12, n_embd=16, n_layer=2, n_head=4)).eval()
        randomise(model, 0)
        return wrap_dense(model)
    form = {"norm": "layer", "norm_bias": True, "norm_gain": True} if request.param == "LayerNorm" else {}
    return tiny_sparse(0, position="concat", activation_fraction=None, **form).requires_grad_(False)


SOME = {"0.attn_in": [2], "0.v": [1], "0.attn_out": [3, 4], "0.mlp_out": [3], "1.mlp_in": [3], "1.mlp_out": [0]}


def test_the_types_are_those_of_the_viewers(stack, tmp_path):
    names = {("0.attn_out", 3): "a quote", ("0.attn_out", 4): "a quote", ("0.v", 1): "copies"}
    edges = [("0.attn_in", 2, "0.v", 1, 0.5), ("0.v", 1, "0.attn_out", 3, -2.0)]
    groups = {"quotes": [("0.attn_out", 3), ("0.attn_out", 4)]}
    circuit = circuit_of(stack, SOME)
    graph = attribution_graph(stack, circuit, IDS, TOKENS, ANSWERS, scores(stack), edges, names, groups)
    assert set(graph) == {"metadata", "qParams", "nodes", "links"}
    assert fits(graph["metadata"], METADATA) and fits(graph["qParams"], PARAMETERS)
    assert all(fits(node, NODE) for node in graph["nodes"]) and all(fits(link, LINK) for link in graph["links"])
    nodes = {node["node_id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"]) == 5 + 7 + 2
    # The viewer's own key of a node.
    assert len({(n["layer"], n["feature"], n["ctx_idx"]) for n in graph["nodes"]}) == len(nodes)
    assert all(link["source"] in nodes and link["target"] in nodes for link in graph["links"])
    assert graph["metadata"]["prompt_tokens"] == TOKENS and graph["metadata"]["prompt"] == "".join(TOKENS)
    assert graph["qParams"]["clickedId"] in nodes and set(graph["qParams"]["pinnedIds"]) <= set(nodes)
    ((label, *members),) = graph["qParams"]["supernodes"]
    assert label == "quotes" and set(members) <= set(graph["qParams"]["pinnedIds"])
    assert [nodes[m]["clerp"] for m in members] == ["a quote"] * 2
    assert {n["clerp"] for n in nodes.values()} >= {"copies", "1.mlp_in:3"}
    answers = [n for n in graph["nodes"] if n["feature_type"] == "logit"]
    assert [n["is_target_logit"] for n in answers] == [True, False] and answers[0]["clerp"].split('"')[1] == "”)"
    for n in answers:
        assert float(n["clerp"].split("(p=")[1].split(")")[0]) == pytest.approx(n["token_prob"], abs=1e-3)
    path = save_attribution_graph(graph, tmp_path)
    assert path.name == "quote-closing.json" and json.loads(path.read_text()) == graph
    save_attribution_graph(graph, tmp_path)
    listed = json.loads((tmp_path / "graph-metadata.json").read_text())["graphs"]
    assert [g["slug"] for g in listed] == ["quote-closing"]


def test_a_feature_is_the_pair_of_row_and_channel():
    pairs = [(x, y) for x in range(20) for y in range(20)]
    assert len({cantor(*pair) for pair in pairs}) == len(pairs)
    assert cantor(0, 0) == 0 and cantor(3, 5) == 8 * 9 // 2 + 5


@torch.no_grad()
def test_the_probabilities_and_activations_are_the_circuits(stack):
    circuit = circuit_of(stack, SOME)
    graph = attribution_graph(stack, circuit, IDS, TOKENS, ANSWERS, scores(stack), [])
    expected = circuit_logits(stack, circuit, IDS[None])[0, -1].softmax(-1)
    given = {n["feature"]: n["token_prob"] for n in graph["nodes"] if n["feature_type"] == "logit"}
    assert given == {t: pytest.approx(float(expected[t]), abs=1e-5) for t in ANSWERS}
    by_label = {n["clerp"]: n for n in graph["nodes"]}
    with only(stack, circuit), record(stack) as seen:
        stack.logits(IDS[None])
    for point, channels in SOME.items():
        for c in channels:
            values = seen[point][0, :, c]
            node = by_label[f"{point}:{c}"]
            assert node["activation"] == pytest.approx(float(values[node["ctx_idx"]]), abs=1e-6)
            assert (values - 0.1).abs().max() == pytest.approx(abs(node["activation"] - 0.1), abs=1e-6)


@torch.no_grad()
def test_the_direct_effects_of_a_whole_model_add_up_to_its_logits(stack):
    graph = attribution_graph(stack, circuit_of(stack), IDS, TOKENS, ANSWERS, scores(stack), [])
    streams = stack.run(IDS[None])
    logits = stack.unembed(streams.final[0], IDS[None])[0, -1]
    without = stack.unembed(torch.zeros_like(streams.final[0]), IDS[None])[0, -1]
    for token in ANSWERS:
        (target,) = [n["node_id"] for n in graph["nodes"] if n["jsNodeId"] == f"L_{token}-4"]
        total = sum(link["weight"] for link in graph["links"] if link["target"] == target)
        assert total == pytest.approx(float(logits[token] - without[token]), abs=1e-3)


def test_a_read_channel_shares_its_attribution_among_its_writers(stack):
    given = scores(stack)
    graph = attribution_graph(stack, circuit_of(stack, SOME), IDS, TOKENS, ANSWERS, given, [])
    nodes = {n["node_id"]: n for n in graph["nodes"]}
    (read,) = [i for i, n in nodes.items() if n["clerp"] == "1.mlp_in:3"]
    into = {nodes[e["source"]]["clerp"] or "token": e["weight"] for e in graph["links"] if e["target"] == read}
    # Of the channels that are written, those of the same number, and the token.
    assert set(into) == {"0.attn_out:3", "0.mlp_out:3", "token"}
    assert sum(map(abs, into.values())) == pytest.approx(abs(float(given["1.mlp_in"][3])), rel=1e-4)


def test_edges_that_are_given_stand_for_themselves(stack):
    edges = [
        ("0.mlp_out", 3, "1.mlp_in", 3, 7.0),
        ("1.mlp_out", 0, "logits", 5, 2.0),
        ("embedding", 7, "0.attn_in", 2, 3.0),
        ("stream", 3, "logits", 9, 1.0),
        ("embedding", 3, "stream", 2, 1.0),
    ]
    graph = attribution_graph(stack, circuit_of(stack, SOME), IDS, TOKENS, ANSWERS, scores(stack), edges)
    label = {n["node_id"]: n["clerp"] or n["node_id"] for n in graph["nodes"]}
    links = {(label[e["source"]], label[e["target"]]): e["weight"] for e in graph["links"]}
    answer = next(n["clerp"] for n in graph["nodes"] if n["jsNodeId"] == "L_5-4")
    assert {k: v for k, v in links.items() if k[1] == "1.mlp_in:3"} == {("0.mlp_out:3", "1.mlp_in:3"): 7.0}
    assert {k: v for k, v in links.items() if k[1] == answer} == {("1.mlp_out:0", answer): 2.0}
    # The token 7 stands at two places.
    assert {k[0]: v for k, v in links.items() if k[1] == "0.attn_in:2"} == {"E_7_1": 1.5, "E_7_3": 1.5}


def test_a_node_stands_where_its_attribution_is(stack):
    given = scores(stack)
    by_token = {p: torch.zeros(5, len(a)) for p, a in given.items()}
    for p, a in given.items():
        by_token[p][2], by_token[p][4] = 1.5 * a, -0.5 * a
    plain, placed = (
        attribution_graph(stack, circuit_of(stack, SOME), IDS, TOKENS, ANSWERS, a, []) for a in (given, by_token)
    )
    for first, second in zip(plain["nodes"], placed["nodes"], strict=True):
        if ":" in first["clerp"] and "." in first["clerp"]:
            assert second["ctx_idx"] == 2 and second["influence"] == pytest.approx(first["influence"])


def test_names_are_read_from_a_runs_file(tiny_sparse):
    circuit = circuit_of(tiny_sparse(0), SOME)
    values = {
        "names": {"0.v:1": "copies", "dense/0.v:1": "other model", "0.v:2": "not kept", "9.v:1": "x", "0.v:99": "x"},
        "groups": {"quotes": ["0.attn_out:3", "0.attn_out:4", "1.q:0"], "elsewhere": ["dense/0.attn_out:3"]},
    }
    names, groups = given_names(values, circuit)
    assert names == {("0.v", 1): "copies"}
    assert groups == {"quotes": [("0.attn_out", 3), ("0.attn_out", 4)]}


def test_the_slider_hides_the_weakest_nodes_first(stack):
    given = scores(stack)
    graph = attribution_graph(stack, circuit_of(stack, SOME), IDS, TOKENS, ANSWERS, given, [])
    size = {f"{p}:{c}": abs(float(given[p][c])) for p, channels in SOME.items() for c in channels}
    influence = {n["clerp"]: n["influence"] for n in graph["nodes"] if n["clerp"] in size}
    order = sorted(size, key=lambda name: -size[name])
    assert sorted(influence, key=lambda name: influence[name]) == order
    assert influence[order[0]] == pytest.approx(size[order[0]] / sum(size.values())) and influence[order[-1]] <= 1.0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tokens": TOKENS[:-1]}, "5,. ids and 4 texts"),
        ({"answers": {}}, "at least one answer"),
        ({"attribution": {}}, "no value for 0.attn_in:2"),
        ({"attribution": {"0.attn_in": torch.zeros(4, 16)}}, "0.attn_in is .4, 16.; the prompt has 5 tokens"),
        ({"attribution": {"0.attn_in": torch.full((16,), math.inf)}}, "attribution of 0.attn_in:2 is not finite"),
        ({"edges": [("0.v", 0, "0.attn_out", 3, 1.0)]}, "An edge names 0.v:0"),
        ({"edges": [("embedding", 28, "0.attn_in", 2, 1.0), ("0.v", 1, "logits", 1, 1.0)]}, "logits:1"),
        ({"edges": [("0.v", 1, "0.attn_out", 3, math.nan)]}, "has the weight nan"),
        ({"groups": {"x": [("1.q", 3)]}}, "name or group is of 1.q:3"),
        ({"names": {("1.q", 0): "x"}}, "name or group is of 1.q:0"),
    ],
)
def test_inputs_that_do_not_fit_are_named(tiny_sparse, changes, words):
    stack = tiny_sparse(0)
    inputs = {"tokens": TOKENS, "answers": ANSWERS, "attribution": scores(stack), "edges": []} | changes
    with pytest.raises(BridgesError, match=words):
        attribution_graph(stack, circuit_of(stack, SOME), IDS, **inputs)
