"""The circuit stage on a model whose circuit is known: its tables, its files, a kill half way, and the run's door."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bridges.circuits.stage as stage
import numpy as np
import pandas as pd
import pytest
import torch
from bridges.circuits.mib import mib_graph
from bridges.circuits.stage import CIRCUIT_TABLES, CircuitContext, circuit_file, file_name, find_circuits
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridges.behaviours import load
from bridges.circuits.circuit import Circuit
from bridges.circuits.draw import draw_circuit, places, snippet
from bridges.circuits.faithfulness import areas, standings
from bridges.circuits.measure import members
from bridges.config import CircuitsConfig, ControlsConfig, to_dict
from bridges.config import Config as RunConfig
from bridges.data.blocks import TokenBlocks
from bridges.errors import BridgesError, CheckpointError
from bridges.runs.notebook import Run
from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table

NAMES = ("planted", "again/harder?", "backwards")
SMALL = {"random_sets": 10, "draws": 2, "seeds": 2, "null_steps": 15, "null_pairs": 16, "adversary_steps": 2}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(29)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=16)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two behaviours that the planted model does and one that it does not: the right tokens exchanged."""
    rng, lines = np.random.default_rng(0), []
    for name in NAMES:
        for _ in range(48):
            words = [f"w{i}" for i in rng.integers(5, 29, 6 if name == "planted" else 8)]
            at = rng.integers(len(words) - 1)
            clean, other = (" ".join([*words[:at], w, *words[at + 1 :]]) for w in ("w1", "w2"))
            right = (" w4", " w3") if name == "backwards" else (" w3", " w4")
            row = {"clean": clean, "counterfactual": other, "clean_token": right[0], "counterfactual_token": right[1]}
            lines.append(json.dumps(row | {"behaviour": name}))
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(lines))
    return path


def config(**changes) -> CircuitsConfig:
    values = {"steps": 20, "lr": 0.1, "pairs": 16, "reference_tokens": 512, "activation_tokens": 240}
    values |= {"heldout_pairs": 24, "models": ["sparse"], "controls": ControlsConfig(**SMALL)}
    return CircuitsConfig(**(values | changes))


@pytest.fixture(scope="module")
def shop_in(planted, tokenizer):
    """``shop_in(folder, **changes of the config)``."""

    def make(folder: Path, **changes) -> CircuitContext:
        ids = planted.text.numpy().astype(np.int32)
        data = TokenBlocks({"train": ids, "validation": ids[:4], "test": ids}, {"train": 32}, "planted")
        return CircuitContext(folder, config(**changes), {"sparse": planted.stack}, data, tokenizer, 24, 0)

    return make


def results(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def accuracies() -> dict[str, float]:
    return dict.fromkeys(NAMES, 1.0)


@pytest.fixture(scope="module")
def finished(shop_in, tokenizer, pairs_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage") / "whole"
    find_circuits(shop_in(folder), load(pairs_file, tokenizer), accuracies())
    return folder


def test_the_stage_writes_what_it_found(finished, planted):
    tables = {name: read_table(finished, name) for name in CIRCUIT_TABLES}
    circuits = tables["circuits"].set_index(["behaviour", "method"])
    assert list(tables["circuits"]["behaviour"].unique()) == list(NAMES)
    learned = circuits.loc[("planted", "learned")]
    assert learned["reached"] and learned["heldout_accuracy"] == 1.0 and learned["nodes"] <= 4
    assert learned["edges"] == len(
        tables["edges"].query("behaviour == 'planted' and not source.isin(['embedding', 'stream'])")
    )
    assert learned["edges_with_embeddings"] == len(tables["edges"].query("behaviour == 'planted'"))
    said = tables["edges"]["token"].notna()
    assert said.any() and said.tolist() == tables["edges"]["matrix"].isin(["tokens", "head"]).tolist()
    assert set(circuits.loc["planted"].index) == {
        "learned", "attribution", "integrated_gradients",
    }  # fmt: skip
    # A behaviour that the sparse model does not do is reported, and nothing more is made of it.
    assert not circuits.loc[("backwards", "learned"), "reached"]
    assert "backwards" not in set(tables["nodes"]["behaviour"]) and not circuit_file(finished, "backwards").exists()
    nodes = tables["nodes"].query("behaviour == 'planted'")
    assert {"0.attn_in", "0.v", "0.attn_out"} == set(nodes["point"])
    # Each node of the way is indispensable: without it only chance is left.
    assert (nodes["importance"] > 0.4).all()
    assert tables["controls"].query("behaviour == 'planted'").groupby("control")["passed"].count().eq(1).all()
    curve = tables["faithfulness"].query("behaviour == 'planted' and method == 'learned'")
    assert set(curve["level"]) == {"node", "edge"} and np.allclose(curve.query("fraction == 1")["f"], 1)
    shown = tables["activations"].query("behaviour == 'planted' and point == '0.v' and rank == 0").iloc[0]
    assert json.loads(shown["values"])[shown["token"]] == pytest.approx(shown["value"], abs=1e-3)
    assert set(json.loads(shown["tokens"])) & {"w1", "w2"}


def test_each_circuit_has_its_files(finished, planted):
    for name in NAMES[:2]:
        circuit = Circuit.load(circuit_file(finished, name))
        assert circuit.behaviour == name and circuit.reached and circuit.meta["ranked_nodes"] >= circuit.size
        assert circuit_file(finished, name, suffix="png").read_bytes()[:4] == b"\x89PNG"
        graph = json.loads(circuit_file(finished, name, suffix="mib.json").read_text())
        assert graph == mib_graph(planted.stack, circuit)
    assert not (finished / "circuits" / ".parts").exists()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("piece", ["find_nodes", "one_behaviour"])
def test_a_kill_costs_one_piece_and_changes_no_byte(
    piece, workers, finished, shop_in, tokenizer, pairs_file, tmp_path, monkeypatch
):
    folder, done = tmp_path / "killed", {"find_nodes": [], "one_behaviour": []}
    real = {name: getattr(stage, name) for name in done}

    def counting(name: str, kill: bool):
        def work(shop, expressed, *rest):
            if kill and name == piece and len(done[name]) == 1:
                raise KeyboardInterrupt
            result = real[name](shop, expressed, *rest)
            done[name].append(expressed.behaviour.name)
            return result

        return work

    behaviours = load(pairs_file, tokenizer)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in done:
            patch.setattr(stage, name, counting(name, True))
        find_circuits(shop_in(folder, workers=workers), behaviours, accuracies())
    assert not (folder / "tables").exists()
    if workers == 1:
        assert done == {"find_nodes": list(NAMES[: 1 if piece == "find_nodes" else 3]), "one_behaviour": []} | {
            piece: list(NAMES[:1])
        }
    for name in done:
        monkeypatch.setattr(stage, name, counting(name, False))
    find_circuits(shop_in(folder, workers=workers), behaviours, accuracies())
    assert {n: sorted(d) for n, d in done.items()} == dict.fromkeys(done, sorted(NAMES))
    assert results(folder) == results(finished)
    assert not list((folder / "circuits").glob(".*"))


def test_two_workers_find_the_same(finished, shop_in, tokenizer, pairs_file, tmp_path):
    folder, told = tmp_path / "side by side", []
    shop = shop_in(folder, workers=2)
    find_circuits(shop, load(pairs_file, tokenizer), accuracies(), progress=told.append)
    assert results(folder) == results(finished)
    assert sorted(told) == sorted([*NAMES, *NAMES])
    with shop.stacks["sparse"].nodes.acting({}):
        pass  # the given stack was not stopped


def test_only_what_the_dense_model_does_is_searched(shop_in, tokenizer, pairs_file, tmp_path):
    tables = find_circuits(shop_in(tmp_path), load(pairs_file, tokenizer), {"planted": 0.89})
    assert all(frame.empty for frame in tables.values())
    assert all(read_table(tmp_path, name).empty for name in CIRCUIT_TABLES)


def test_a_stack_without_known_wires_is_left_out_in_words(shop_in, tokenizer, pairs_file, tmp_path, planted):
    shop, told = shop_in(tmp_path, models=["dense"]), []
    shop.stacks = {"dense": torch.nn.Linear(1, 1)}
    tables = find_circuits(shop, load(pairs_file, tokenizer), accuracies(), say=told.append)
    assert tables["circuits"].empty and "No circuits in the dense model" in told[0]


# --- a finished run ------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(finished, planted, tokenizer, tmp_path) -> Run:
    folder = shutil.copytree(finished, tmp_path / "run")
    RunFolder.create(RunConfig(), folder)
    run = Run(folder)
    run.__dict__["sparse"], run.__dict__["_dense_and_tokenizer"] = planted.stack, (None, tokenizer)
    return run


def test_a_circuit_of_a_run_can_be_run_and_ablated(opened, planted):
    circuit = opened.circuit("planted")
    assert set(circuit.nodes["point"]) == {"0.attn_in", "0.v", "0.attn_out"}
    assert set(circuit.edges["source"]) <= set(circuit.nodes["point"])
    ids = planted.heldout.ids[:, 0]
    alone, whole = circuit.run(ids)[:, -1], planted.stack.logits(ids)
    assert (alone[:, 3] > alone[:, 4]).all() and alone.shape == whole[:, -1].shape
    without = circuit.ablated(ids)[:, -1]
    # Without it the model cannot tell the two prompts of a pair apart.
    other = circuit.ablated(planted.heldout.ids[:, 1])[:, -1]
    assert (without - other)[:, 3].abs().max() < 0.05 * whole[:, -1, 3].abs().mean()
    with circuit.ablate() as stack:
        assert torch.equal(stack.logits(ids)[:, -1], without)
    assert torch.equal(planted.stack.logits(ids), whole)


def test_a_circuit_of_a_run_can_be_drawn(opened, tmp_path):
    figure = opened.circuit("planted").draw(tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert text.startswith("<?xml") and len(figure.axes) == 1
    assert {t.get_text() for t in figure.axes[0].texts} >= {"0.v:0", "0.attn_out:1"}


def test_asking_for_a_circuit_that_is_not_there(opened):
    with pytest.raises(BridgesError, match="planted"):
        opened.circuit("plantet")
    with pytest.raises(CheckpointError, match="did not reach"):
        opened.circuit("backwards")
    with pytest.raises(BridgesError, match="sparse"):
        opened.circuit("planted", model="spars")


# --- parts ---------------------------------------------------------------------------------------------------------


def test_file_names_stay_apart():
    assert file_name("with_as") == "with_as"
    assert len({file_name(n) for n in ("a/b", "a_b", "a:b", "..")}) == 4
    assert all("/" not in file_name(n) and not file_name(n).startswith(".") for n in ("a/b", "../x", ".."))


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
    many = pd.DataFrame([{"point": f"{i % 4}.mlp_neuron", "channel": i} for i in range(400)])
    none = pd.DataFrame(columns=["source", "source_channel", "target", "target_channel", "weight"])
    for frame in (many, many[:0]):
        draw_circuit(frame, none, path=tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_a_snippet_is_one_line_that_ends_in_the_marked_token():
    assert snippet(["def", " f", "(", "\n", " x"], 3) == "def f([⏎]"
    assert "$" not in snippet(["$a", "$"], 1).replace(r"\$", "")


def test_the_settings_survive_their_file():
    from bridges.config import from_dict

    mine = RunConfig(circuits=config())
    assert from_dict(to_dict(mine)) == mine
