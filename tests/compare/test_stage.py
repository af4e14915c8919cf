"""The stage on a pair of models whose answer is known: its tables, a kill half way, and null pipelines."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bridges.circuits.search.search import Search
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import bridges.compare.stage as stage
from bridges.behaviours import load
from bridges.behaviours.pair import Behaviour
from bridges.behaviours.stage import express, measure_behaviours
from bridges.bridge import Bridges
from bridges.circuits.circuit import Circuit
from bridges.circuits.measure import which
from bridges.circuits.stage import circuit_file
from bridges.compare.stage import COMPARE_TABLES, Bench, compare_models, judge
from bridges.config import BehavioursConfig, CompareConfig, VerdictConfig
from bridges.config.search import CircuitSettings
from bridges.data.blocks import TokenBlocks
from bridges.storage.tables import TABLES, read_table, table_path, write_table

SMALL = {"pairs": 24, "site_pairs": 8, "heldout_pairs": 24, "train_pairs": 16, "steering_pairs": 8}
SMALL |= {"bootstrap": 200, "folds": 2}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(8)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=12)


@pytest.fixture(scope="module")
def behaviours(tmp_path_factory, tokenizer) -> dict[str, Behaviour]:
    """Closing a quote; the same with its right tokens exchanged in every other pair; and with uneven prompts."""
    rng, lines = np.random.default_rng(0), []
    for name in ("quote", "nonsense", "uneven"):
        for i in range(72):
            words = [f"w{k}" for k in rng.integers(3, 5, 6)]
            at = rng.integers(6)
            clean, other = (" ".join(["w0", *words[:at], q, *words[at + 1 :], "w5"]) for q in ("w1", "w2"))
            other = other.replace("w0 ", "w0 w3 ") if name == "uneven" else other
            right = [" w7", " w6"] if name == "nonsense" and i % 2 else [" w6", " w7"]
            row = {"clean": clean, "counterfactual": other, "clean_token": right[0], "counterfactual_token": right[1]}
            lines.append(json.dumps(row | {"behaviour": name}))
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(lines))
    return load(path, tokenizer)


@pytest.fixture(scope="module")
def bench_in(quote, tokenizer, behaviours):
    """``bench_in(folder, …)``: a run's folder as it is before the stage, with the true circuit of ``quote``."""

    def prepare(folder: Path, bridges: Bridges | None = None, sparse=None, nodes=None, names=behaviours) -> Bench:
        bridges, sparse = bridges or quote.bridges, sparse or quote.sparse
        ids = quote.text.numpy().astype(np.int32)
        data = TokenBlocks({"train": ids, "validation": ids[:4], "test": ids[:16]}, {"train": 64}, "quotes")
        config = BehavioursConfig(suite="file", path="-", pairs=24)
        cpu = torch.device("cpu")
        suite, measured = measure_behaviours(
            {n: behaviours[n] for n in names}, config, quote.dense, sparse, bridges, tokenizer, bigram=None, device=cpu,
            autocast=nullcontext, bootstrap=50, seed=0,
        )  # fmt: skip
        circuits, controls = [], []
        for name in names:
            expressed = express(behaviours[name], tokenizer, 24, 0)
            search = Search(sparse, expressed.train, quote.reference, CircuitSettings())
            kept = {p: torch.zeros(w, dtype=torch.bool) for p, w in sparse.nodes.widths.items()}
            for point, channels in (nodes or TRUE).items():
                kept[point][list(channels)] = True
            circuit: Circuit = search.measure(replace(search.empty, nodes=kept))
            circuits.append(summary_of(circuit))
            if circuit.reached:
                circuit.save(circuit_file(folder, name))
                row = which(circuit) | {"control": "sufficiency", "split": "heldout", "ablation": "mean", "draw": 0}
                row |= {"size": circuit.size, "quantity": "loss", "value": 0.1, "reference": 0.1, "threshold": 0.3}
                controls.append(row | {"passed": True, "n_pairs": 24})
        for name, rows in (("suite", suite), ("behaviours", measured), ("circuits", circuits), ("controls", controls)):
            write_table(folder, name, pd.DataFrame(rows, columns=TABLES[name].names))
        return Bench(
            folder, CompareConfig(**SMALL), VerdictConfig(), quote.dense, sparse, bridges, quote.bridges, data,
            tokenizer, 24, 0, quote.dense,
        )  # fmt: skip

    return prepare


TRUE = {
    "0.mlp_in": (0, 1),
    "0.mlp_neuron": (0, 1),
    "0.mlp_out": (3, 4),
    "1.attn_in": (3, 4),
    "1.k": (0,),
    "1.v": (0,),
    "1.attn_out": (5,),
}


def summary_of(circuit: Circuit) -> dict[str, object]:
    """A row of table ``circuits`` with what verdicts read; the rest is filled in."""
    empty = {"int": 0, "float": np.nan, "bool": False}
    row = {c.name: c.choices[0] if c.choices else empty.get(c.kind, "") for c in TABLES["circuits"].columns}
    given = {"reached": circuit.reached, "train_loss": circuit.train_loss, "target": circuit.target}
    return row | which(circuit) | given | {"nodes": circuit.size, "edges": 7}


def results(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def finished(bench_in, behaviours, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "whole"
    compare_models(bench_in(folder), behaviours)
    return folder


def test_the_true_circuit_reproduces_what_the_dense_model_does(finished):
    tables = {name: read_table(finished, name) for name in COMPARE_TABLES}
    verdicts = tables["verdicts"].set_index("behaviour")
    # The fixture puts the circuit to one control; the others count as not measured.
    failed = tables["evidence"].query("behaviour == 'quote' and not passed and value.notna()")
    # A difference of means is a rival that knows the answer's direction; whether it is beaten is not the point here.
    assert set(failed["criterion"]) <= {"beats_difference_of_means"}, failed[["criterion", "value", "threshold"]]
    assert verdicts.loc["quote", "verdict"] in ("reproduced", "partial")
    assert verdicts.loc["quote", "share_moved"] == pytest.approx(1, abs=1e-3)
    assert verdicts.loc["nonsense", "verdict"] == "dense model cannot"
    # Both models do it, but nothing can be exchanged between prompts of unequal length.
    assert verdicts.loc["uneven", "verdict"] == "partial" and verdicts.loc["uneven", "circuit_accuracy"] == 1
    assert "beats_nulls" in verdicts.loc["uneven", "failed"] and "not measured" in verdicts.loc["uneven", "reason"]
    text = tables["agreement"].query("behaviour == 'text'").set_index("second")["value"]
    assert text["sparse"] == pytest.approx(1, abs=1e-4) and text["dense2"] == pytest.approx(1, abs=1e-4)
    assert (tables["similarity"].query("quantity == 'linear_cka'")["value"] > 0.999).all()
    assert not (finished / "compare").exists()


def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(finished, bench_in, behaviours, tmp_path, monkeypatch):
    bench, asked = bench_in(tmp_path / "killed"), []
    work = stage.one_behaviour

    def counted(bench, behaviour):
        asked.append(behaviour.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return work(bench, behaviour)

    monkeypatch.setattr(stage, "one_behaviour", counted)
    with pytest.raises(KeyboardInterrupt):
        compare_models(bench, behaviours)
    told: list[str] = []
    compare_models(bench, behaviours, told.append)
    # Those with a circuit first.
    assert asked == ["quote", "uneven", "uneven", "nonsense"] and told == ["quote", "uneven", "nonsense"]
    assert results(bench.folder) == results(finished)


def test_two_workers_find_the_same(finished, bench_in, behaviours, tmp_path):
    bench, told = bench_in(tmp_path / "side by side"), []
    bench.count = 2
    compare_models(bench, behaviours, told.append)
    assert sorted(told) == sorted(behaviours)
    for name in COMPARE_TABLES:
        pd.testing.assert_frame_equal(read_table(bench.folder, name), read_table(finished, name), atol=1e-5)
    with bench.sparse.nodes.acting({}):
        pass  # the given stack was not stopped


def test_verdicts_can_be_had_again_with_other_bars(finished, tmp_path):
    for name in ("suite", "behaviours", "circuits", "controls", "agreement", "transfer"):
        write_table(tmp_path, name, read_table(finished, name))
    judge(tmp_path, VerdictConfig())
    for name in ("evidence", "verdicts"):
        assert table_path(tmp_path, name).read_bytes() == table_path(finished, name).read_bytes()
    strict = judge(tmp_path, VerdictConfig(alpha=0.0))["verdicts"].set_index("behaviour")
    assert strict.loc["quote", "verdict"] == "not" and "beats_nulls" in strict.loc["quote", "failed"]


def test_null_pipelines_reproduce_nothing(quote, bench_in, behaviours, tmp_path):
    only = {"quote": behaviours["quote"]}
    shuffled = copy.deepcopy(quote.bridges)
    for bridge in shuffled:
        # Every channel takes the next one's place: with so few of them a random order is sometimes right by chance.
        bridge.decoder.weight.copy_(bridge.decoder.weight.roll(1, 1))
        bridge.encoder.weight.copy_(bridge.encoder.weight.roll(1, 0))
    untrained = copy.deepcopy(quote.sparse)
    generator = torch.Generator().manual_seed(0)
    for p in untrained.parameters():
        p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    distractor = {"0.mlp_in": (2,), "0.mlp_neuron": (2,), "0.mlp_out": (6,)}
    for label, changes in (
        ("shuffled", {"bridges": shuffled}),
        ("untrained", {"sparse": untrained}),
        ("beside", {"nodes": distractor}),
    ):
        made = compare_models(bench_in(tmp_path / label, names=only, **changes), only)["verdicts"]
        assert made.set_index("behaviour").loc["quote", "verdict"] == "not", (label, made.iloc[0]["reason"])
