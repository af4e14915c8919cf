"""Where nodes peak in text, against every value looked at."""

from __future__ import annotations

import json

import torch

from bridges.circuits.ablation import node_values
from bridges.circuits.activations import AFTER, BEFORE, Peaks, activation_rows, prompt_rows


class Letters:
    @staticmethod
    def decode(ids):
        return f"<{ids[0]}>"


def test_peaks_are_the_largest_values_of_the_best_blocks(planted, true_circuit):
    text, count = planted.text, 4
    peaks = Peaks.find(planted.stack, text, count, batch=3)
    whole = node_values(planted.stack, text)
    rows = activation_rows(peaks, true_circuit, Letters())
    assert {(r["point"], r["channel"]) for r in rows} <= {
        (p, c) for p, kept in true_circuit.nodes.items() for c in kept.nonzero()[:, 0].tolist()
    }
    assert rows
    for row in rows:
        value = whole[row["point"]][..., row["channel"]]
        heights, places = value.abs().max(1)
        block = int(torch.argsort(heights, descending=True, stable=True)[row["rank"]])
        at = int(places[block])
        start, stop = max(0, at - BEFORE), min(text.shape[1], at + AFTER + 1)
        assert row["value"] == float(value[block, at]) != 0 and row["token"] == at - start
        assert json.loads(row["tokens"]) == [f"<{t}>" for t in text[block, start:stop].tolist()]
        assert json.loads(row["values"]) == [round(float(v), 4) for v in value[block, start:stop]]


def test_the_example_pair_is_that_of_the_suite_with_every_token(planted, true_circuit):
    rows = prompt_rows(planted.stack, true_circuit, planted.heldout, Letters())
    assert len(rows) == 2 * true_circuit.size
    for side, prompt in enumerate(("clean", "counterfactual")):
        ids = planted.heldout.ids[0, side]
        whole = node_values(planted.stack, ids[None])
        shown = [row for row in rows if row["prompt"] == prompt]
        assert len(shown) == true_circuit.size
        for row in shown:
            assert json.loads(row["tokens"]) == [f"<{t}>" for t in ids.tolist()]
            value = whole[row["point"]][0, :, row["channel"]]
            assert json.loads(row["values"]) == [round(float(v), 4) for v in value]
