"""The stages of behaviours, circuits and verdicts on a planted world: tables, files, a kill, workers, a notebook."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bridges.circuits.circuit import Circuit
from bridges.cli.report import main as report
from bridges.config import VerdictConfig
from bridges.errors import BridgesError, CheckpointError
from bridges.interop.mib import mib_graph
from bridges.runs import notebook, stages
from bridges.runs.circuits import CIRCUIT_TABLES, circuit_file
from bridges.runs.notebook import Run
from bridges.storage.tables import read_table, table_path

from .conftest import exact_bridges


def bytes_of(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: table_path(folder, name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def finished(context_in, tmp_path_factory) -> Path:
    folder, told = tmp_path_factory.mktemp("stage") / "whole", []
    context = context_in(folder, curves=True, baselines=["attribution"])
    context.say = told.append
    stages.behaviours(context)
    stages.circuits(context)
    stages.compare(context)
    assert any(line.startswith("No circuits in the dense model: ") for line in told)
    # A verdict is told as soon as it is known.
    assert sum(line.startswith(("copy: ", "select: ")) for line in told) == 2
    context.folder.write_status("finished", stages={"train": {"status": "finished", "seconds": 1.0}})
    return folder


def test_the_stages_write_what_they_found(finished, world):
    tables = {name: read_table(finished, name) for name in CIRCUIT_TABLES}
    suite = read_table(finished, "suite").set_index("behaviour")
    assert (suite["shared_last"] == 1).all() and (suite["reach_pairs"] > 0).all()
    circuits = tables["circuits"].set_index(["behaviour", "method"])
    learned = circuits.loc[("copy", "learned")]
    assert learned["reached"] and learned["objective"] == "faithful" and learned["heldout_accuracy"] > 0.95
    assert learned["heldout_fvu"] < 0.2 and learned["carried"] < 0.15
    truth = {(p, c) for p, channels in world.truth["copy"]["nodes"].items() for c in channels}
    nodes = tables["nodes"].query("behaviour == 'copy' and method == 'learned'")
    found = set(zip(nodes["point"], nodes["channel"], strict=True))
    assert truth <= found and len(found) <= len(truth) + 2
    on_the_way = nodes[[node in truth for node in zip(nodes["point"], nodes["channel"], strict=True)]]
    # Every node of the way supports the right answer, and nothing is left without it.
    assert (on_the_way["effect"] > 1).all() and (on_the_way["attribution"] > 0).all()
    edges = tables["edges"].query("not source.isin(['embedding', 'stream'])")
    assert len(edges) == learned["edges"] and edges["token"].isna().all()
    # The sparse model lacks the other one: it is reported, and nothing is searched.
    assert "select" not in set(tables["circuits"]["behaviour"])
    assert ("copy", "attribution") in circuits.index
    curve = tables["faithfulness"].query("method == 'learned'")
    assert set(curve["level"]) == {"node", "edge"} and np.allclose(curve.query("fraction == 1")["f"], 1)
    shown = tables["activations"].iloc[0]
    assert json.loads(shown["values"])[shown["token"]] == pytest.approx(shown["value"], abs=1e-3)
    assert set(tables["controls"]["control"]) == {"necessity", "consistent_labels", "reach"}


def test_verdicts_and_claims(finished):
    verdicts = read_table(finished, "verdicts").set_index("behaviour")
    # Edges of a rotated stack cannot be listed, so that its circuit's size is not compared; all else holds.
    claims = read_table(finished, "claims").query("behaviour == 'copy' and claim != 'robustness'")
    assert set(claims.query("state != 'held'")["criterion"]) == {"dense_edges"}, claims["short"].tolist()
    assert verdicts.loc["copy", "verdict"] == "reproduced"
    assert "dense edges not compared" in verdicts.loc["copy", "reason"]
    assert verdicts.loc["select", "verdict"] == "not" and "sparse accuracy" in verdicts.loc["select", "reason"]
    assert (read_table(finished, "similarity").query("quantity == 'linear_cka'")["value"] > 0.999).all()
    agreement = read_table(finished, "agreement")
    assert set(agreement["behaviour"]) == {"text", "copy", "select"}
    assert not (finished / ".parts").exists()


def test_verdicts_can_be_had_again_with_other_bars(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    stages.judge(folder, VerdictConfig())
    assert bytes_of(folder, "claims", "verdicts") == bytes_of(finished, "claims", "verdicts")
    strict = stages.judge(folder, VerdictConfig(fvu=0.0001))["verdicts"].set_index("behaviour")
    assert strict.loc["copy", "verdict"] == "not" and strict.loc["copy", "failed"] == "fvu"


def test_each_circuit_has_its_files(finished, world):
    circuit = Circuit.load(circuit_file(finished, "copy"))
    assert circuit.behaviour == "copy" and circuit.reached and circuit.carried < 0.15
    assert circuit_file(finished, "copy", suffix="png").read_bytes()[:4] == b"\x89PNG"
    graph = json.loads(circuit_file(finished, "copy", suffix="mib.json").read_text())
    assert graph == mib_graph(world.sparse, circuit)
    assert not circuit_file(finished, "select").exists()


def test_a_kill_costs_one_behaviour_and_changes_no_table(context_in, finished, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    changes = {"curves": True, "baselines": ["attribution"]}
    context = context_in(folder, **changes)
    stages.behaviours(context)
    asked: list[str] = []
    real = stages.BehaviourWork.run

    def dying(self):
        asked.append(self.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages.BehaviourWork, "run", dying)
        stages.circuits(context)
    # What the sparse model can do comes first.
    assert asked == ["copy", "select"] and not table_path(folder, "circuits").exists()
    monkeypatch.setattr(stages.BehaviourWork, "run", lambda self: asked.append(self.name) or real(self))
    again = context_in_place(context_in, folder, changes)
    stages.circuits(again)
    stages.compare(again)
    assert asked == ["copy", "select", "select"]
    names = [*CIRCUIT_TABLES, "verdicts", "claims"]
    assert bytes_of(folder, *names) == bytes_of(finished, *names)


def context_in_place(context_in, folder: Path, changes: dict):
    """A context on a folder that there is already."""
    other = context_in(folder.parent / "again", **changes)
    other.folder = type(other.folder)(folder)
    return other


def test_two_workers_find_what_one_finds(context_in, finished, tmp_path):
    context = context_in(tmp_path / "side by side", workers=2, curves=True, baselines=["attribution"])
    stages.behaviours(context)
    stages.circuits(context)
    for name in CIRCUIT_TABLES:
        one, two = read_table(context.folder.path, name), read_table(finished, name)
        if name == "agreement":
            two = two[two["behaviour"] != "text"].reset_index(drop=True)
        pd.testing.assert_frame_equal(one, two, atol=1e-4)
    with context.sparse.nodes.acting({}):
        pass  # the given stack was not stopped


# --- a finished run in a notebook ---------------------------------------------------------------------------------


@pytest.fixture
def opened(finished, world, monkeypatch) -> Run:
    """The run with the models and prompts of the world of ``conftest``, which no setting names."""
    monkeypatch.setattr(notebook, "select_behaviours", lambda config, tokenizer: dict(world.behaviours))
    run = Run(finished)
    run.__dict__["sparse"], run.__dict__["bridges"] = world.sparse, exact_bridges(world)
    run.__dict__["_dense_and_tokenizer"] = (world.dense, world.tokenizer)
    return run


def test_a_circuit_of_a_run_can_be_run_and_ablated(opened, world):
    circuit = opened.circuit("copy")
    assert set(circuit.edges["source"]) <= set(circuit.nodes["point"])
    pairs = world.pairs("copy", "heldout", 16)
    pairs = pairs.take([i for i in range(16) if pairs.lengths[i, 0] == pairs.lengths[0, 0]])
    last = int(pairs.lengths[0, 0]) - 1
    ids, right, wrong = pairs.ids[:, 0], pairs.candidates[:, :1], pairs.candidates[:, 1:]

    def diff(logits: torch.Tensor) -> torch.Tensor:
        return (logits[:, last].gather(1, right) - logits[:, last].gather(1, wrong))[:, 0]

    whole = world.sparse.logits(ids)
    assert (diff(circuit.run(ids)) > 0).all() and circuit.run(ids).shape == whole.shape
    assert diff(circuit.ablated(ids)).abs().max() < 0.25 * diff(whole).min()
    with circuit.ablate() as stack:
        assert torch.equal(stack.logits(ids), circuit.ablated(ids))
    assert torch.equal(world.sparse.logits(ids), whole)


def test_a_circuit_of_a_run_can_be_drawn(opened, tmp_path):
    figure = opened.circuit("copy").draw(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml") and len(figure.axes) == 1


def test_a_circuit_of_a_run_as_an_attribution_graph(opened, finished, tmp_path, monkeypatch):
    circuit = opened.circuit("copy")
    path = circuit.save_graph(tmp_path)
    graph = json.loads(path.read_text())
    assert path.name == "copy-sparse.json"
    assert [g["slug"] for g in json.loads((tmp_path / "graph-metadata.json").read_text())["graphs"]] == ["copy-sparse"]
    pairs = opened.prompts("copy", count=1)
    kinds = [node["feature_type"] for node in graph["nodes"]]
    assert kinds.count("embedding") == len(graph["metadata"]["prompt_tokens"]) == int(pairs.lengths[0, 0])
    assert kinds.count("logit") == 2 and kinds.count("cross layer transcoder") == circuit.circuit.size
    (right,) = [node for node in graph["nodes"] if node["is_target_logit"]]
    assert right["feature"] == int(pairs.candidates[0, 0]) and right["token_prob"] > 0.5
    # Another prompt, and the command, which adds to the folder's list.
    other = circuit.save_graph(tmp_path / "other", opened.prompts("copy", split="train", count=1))
    assert json.loads(other.read_text())["metadata"]["prompt"] != graph["metadata"]["prompt"]
    monkeypatch.setattr("bridges.runs.notebook.load", lambda folder: opened)
    monkeypatch.setattr("bridges.cli.report.write_report", lambda folder: folder)
    assert report([str(finished), "--graphs", str(tmp_path / "all")]) == 0
    assert (tmp_path / "all" / "copy-sparse.json").read_text() == path.read_text()
    assert report([str(finished), str(finished), "--graphs", str(tmp_path)]) == 1
    assert report([str(finished), "--graphs", str(tmp_path), "--behaviour", "copi"]) == 1


def test_a_verdict_of_a_run(opened, finished):
    found = opened.verdict("copy")
    assert found.row["verdict"] == "reproduced" and set(found.claims["behaviour"]) == {"copy"}
    claims = read_table(finished, "claims").query("behaviour == 'copy'")
    assert found.claims["short"].tolist() == claims["short"].tolist()
    shown = repr(found).splitlines()
    assert shown[0] == f"copy: reproduced: {found.row['reason']}"
    # One line a claim, each with its criteria.
    assert len(shown) == 1 + claims["claim"].nunique()
    assert all(
        any(f"{row['short']} ({row['state']})" in line for line in shown[1:]) for row in claims.to_dict("records")
    )
    assert "<b>copy: reproduced</b>" in found._repr_html_()
    assert opened.verdict("select").row["verdict"] == "not"
    with pytest.raises(BridgesError, match=r"no behaviour 'copi'.*'copy'"):
        opened.verdict("copi")


def test_prompts_of_a_run(opened, world):
    pairs = opened.prompts("copy")
    assert pairs.ids.shape[:2] == (8, 2) and len(pairs.pairs) == 8 and pairs.behaviour == "copy"
    # Those that the run measured, from its first on.
    assert torch.equal(pairs.candidates, world.pairs("copy", "heldout", 48).candidates[:8])
    train = opened.prompts("copy", split="train", count=3)
    assert len(train) == 3 and not {p.clean for p in train.pairs} & {p.clean for p in pairs.pairs}
    assert len(opened.prompts("copy", count=10_000)) == 48
    with pytest.raises(BridgesError, match=r"no behaviour 'copi'.*'copy'"):
        opened.prompts("copi")
    with pytest.raises(BridgesError, match="split 'test'"):
        opened.prompts("copy", split="test")


def test_a_run_steers_the_dense_model_by_a_circuit(opened):
    found = opened.steer("copy")
    assert list(found.columns) == ["prompt", "before", "after"] and len(found) == 16
    assert found[["before", "after"]].stack().between(0, 1).all()
    # The bridges are exact: what the circuit computes on the other prompt turns the answer.
    assert (found["after"] > found["before"]).all() and found["after"].mean() > found["before"].mean() + 0.2
    still = opened.steer("copy", strength=0.0)
    assert np.allclose(still["after"], still["before"]) and np.allclose(still["before"], found["before"])
    few = opened.prompts("copy", split="train", count=2)
    assert opened.steer("copy", few)["prompt"].tolist() == [t for p in few.pairs for t in (p.clean, p.counterfactual)]
    with pytest.raises(BridgesError, match="No bridge was selected for 'select'"):
        opened.steer("select")


def test_asking_for_a_circuit_that_is_not_there(opened):
    with pytest.raises(BridgesError, match="'copy'"):
        opened.circuit("copi")
    with pytest.raises(BridgesError, match="sparse"):
        opened.circuit("copy", model="spars")
    with pytest.raises(BridgesError, match="no dense circuit"):
        opened.circuit("copy", model="dense")


def test_a_circuit_that_missed_its_target_is_told(opened, finished, monkeypatch):
    frame = read_table(finished, "circuits").assign(reached=False)
    monkeypatch.setattr(Run, "table", lambda self, name: frame)
    with pytest.raises(CheckpointError, match="missed its target"):
        opened.circuit("copy")
