"""Pictures and graphs of circuits, and the curves of circuits of growing size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from bridges.circuits.draw import draw_circuit, places, snippet
from bridges.circuits.faithfulness import FRACTIONS, areas, edge_curve, node_curve, standings
from bridges.circuits.measure import members
from bridges.circuits.task import prompts
from bridges.interop.mib import mib_graph


def test_areas_are_those_of_the_curve():
    k = np.array([0.5, 1.0])
    assert areas(np.array([0.5, 1.0]), k) == pytest.approx((0.5, 0.5))
    assert areas(np.array([1.0, 1.0]), k) == pytest.approx((0.75, 0.25))


def test_the_best_entries_and_of_equal_ones_the_first():
    found = standings({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[3.0], [2.0]])})
    assert found["a"].tolist() == [3, 0] and found["b"].tolist() == [[1], [2]]


def test_the_exported_graph_is_the_way_through_the_model(planted, true_circuit):
    graph = mib_graph(planted.stack, true_circuit)
    assert graph["cfg"] == {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 16}
    assert set(graph["edges"]) == {"input->a0.h0<v>", "a0.h0->logits", "input->logits"}
    assert [n for n, v in graph["nodes"].items() if v["in_graph"]] == ["input", "a0.h0", "logits"]
    weight = planted.stack.blocks[0]
    assert graph["edges"]["a0.h0->logits"]["score"] == pytest.approx(float(weight.out.weight[1, 0].abs()))


def test_nodes_stand_in_the_order_of_the_forward_pass(true_circuit):
    nodes = pd.DataFrame(members(true_circuit), columns=["point", "channel"])
    at = places(nodes)
    assert at[("0.attn_in", 0)][0] < at[("0.v", 0)][0] < at[("0.attn_out", 1)][0] and len(set(at.values())) == 3


def test_a_circuit_of_many_nodes_and_one_of_none_can_be_drawn(tmp_path):
    many = pd.DataFrame([{"point": f"{i % 4}.mlp_neuron", "channel": i, "attribution": i} for i in range(400)])
    none = pd.DataFrame(columns=["source", "source_channel", "target", "target_channel", "weight"])
    for frame in (many, many[:0]):
        draw_circuit(frame, none, path=tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_a_snippet_is_one_line_that_ends_in_the_marked_token():
    assert snippet(["def", " f", "(", "\n", " x"], 3) == "def f([⏎]"
    assert "$" not in snippet(["$a", "$"], 1).replace(r"\$", "")


def test_curves_begin_at_nothing_and_end_at_the_whole_model(planted, true_circuit):
    some = prompts(planted.heldout.take(range(8)))
    scores = {p: kept.float() for p, kept in true_circuit.nodes.items()}
    circuit = type(true_circuit)(**(true_circuit.__dict__ | {"scores": scores}))
    for curve in (node_curve(planted.stack, circuit, some), edge_curve(planted.stack, circuit, some, some)):
        f = [row["f"] for row in curve]
        assert [row["fraction"] for row in curve] == list(FRACTIONS) and f[-1] == pytest.approx(1)
        # Three nodes of 272 and two weights of some hundred are nearly all there is.
        assert f[4] > 0.8, f
