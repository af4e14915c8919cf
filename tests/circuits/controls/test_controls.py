"""Each control tells a circuit that is known to be true from one that was made to fail it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.nonsense import shuffled_labels
from bridges.circuits.ablation import node_values
from bridges.circuits.attack import Attack
from bridges.circuits.circuit import Circuit, only, replaced
from bridges.circuits.controls import REGISTRY, SEARCHING, Case, adversarial, run_controls
from bridges.circuits.controls.null_searches import shuffled_model
from bridges.circuits.controls.seeds import jaccard
from bridges.circuits.node_sets import exact_parts, random_sets, set_logit_diffs
from bridges.circuits.task import logit_diff, prompts, unexplained
from bridges.config import CONTROLS
from bridges.nodes import intervene
from bridges.storage.tables import write_table

# The planted model's candidates.
YES, NO = 3, 4


def deciding(rows: list[dict], quantity: str | None = None) -> dict:
    """The row that a verdict reads."""
    (row,) = [r for r in rows if r["decides"] and quantity in (None, r["quantity"])]
    return row


def test_every_control_of_the_settings_is_registered():
    assert set(REGISTRY) == set(CONTROLS) and set(SEARCHING) <= set(CONTROLS)


# Deciding quantity, what a true circuit has at least or at most, and what a false one does not come to.
BARS = {
    "resample": ("accuracy", True, 0.95, 0.7),
    "random_text": ("accuracy", True, 0.9, 0.7),
    "necessity": ("accuracy_without", False, 0.6, 0.9),
    "random_circuits": ("worse_random_sets", True, 1.0, 0.9),
    "interchange": ("agreement", True, 0.95, 0.85),
    "stochastic": ("accuracy_0.25", True, 0.95, 0.99),
    "adversarial": ("loss", False, 0.35, 0.6),
    "reach": ("fvu", False, 0.2, 0.9),
}


@pytest.mark.parametrize("name", BARS)
def test_a_true_circuit_and_a_false_one_of_the_same_size(name, case_of, true_circuit, false_circuit):
    quantity, at_least, good, bad = BARS[name]
    rows = REGISTRY[name](case_of(true_circuit))
    row = deciding(rows, None if name == "stochastic" else quantity)
    assert row["value"] >= good if at_least else row["value"] <= good, row
    assert row["value_low"] <= row["value"] <= row["value_high"] or row["quantity"] == "worse_random_sets"
    other = deciding(REGISTRY[name](case_of(false_circuit)), None if name == "stochastic" else quantity)
    assert other["value"] < bad if at_least else other["value"] > bad, other


def test_all_controls_fill_the_table_and_repeat_exactly(case_of, true_circuit, tmp_path):
    names = [name for name in CONTROLS if name not in SEARCHING]
    small = {"random_sets": 5, "draws": 2, "adversary_steps": 2, "pairs": 8}
    one, two = (pd.DataFrame(run_controls(case_of(true_circuit, **small), names)) for _ in range(2))
    assert list(dict.fromkeys(one["control"])) == names
    pd.testing.assert_frame_equal(one, two)
    write_table(tmp_path, "controls", one)


def test_controls_are_measured_on_held_out_prompts(planted, case_of, true_circuit):
    """A circuit that is right on the training prompts alone."""
    case = case_of(true_circuit)
    case.heldout = replace(planted.heldout, candidates=planted.heldout.candidates.flip(1))
    assert deciding(REGISTRY["resample"](case))["value"] < 0.1


def test_the_interval_of_a_control_counts_frames(planted, case_of, true_circuit):
    case = case_of(true_circuit)
    assert len(set(case.resampler.groups)) == 4
    alike = torch.tensor([float(int(p.template[-1]) % 2) for p in planted.heldout.pairs]).repeat_interleave(2)
    by_frames = case.mean(alike)
    case.heldout = replace(planted.heldout, pairs=tuple(replace(p, template="one") for p in planted.heldout.pairs))
    del case.pairs, case.resampler
    by_pairs = case.mean(alike)
    assert by_frames.high - by_frames.low > 1.5 * (by_pairs.high - by_pairs.low)


# --- ablation and necessity ---------------------------------------------------------------------------------------


def test_resampled_values_come_from_other_prompts_of_the_behaviour(case_of, true_circuit, monkeypatch):
    case, used = case_of(true_circuit, draws=2), []
    monkeypatch.setattr(Case, "alone", lambda self, values=None, circuit=None: used.append(values) or self.model_diff)
    REGISTRY["resample"](case)
    whole = node_values(case.stack, case.prompts.ids)["0.v"]
    for values in used:
        rows = [next(i for i in range(len(whole)) if torch.equal(whole[i], value)) for value in values["0.v"]]
        # Clean and counterfactual ones alike, and not each prompt its own.
        assert {i % 2 for i in rows} == {0, 1} and sum(i == j for j, i in enumerate(rows)) < 12
    used.clear()
    REGISTRY["random_text"](case)
    assert not any(torch.equal(values["0.v"][0], row) for values in used for row in whole)


def test_necessity_is_low_where_the_model_can_do_without(planted, case_of, true_circuit):
    """Half of the way doubled: each half is enough, so neither is needed."""
    stack = copy.deepcopy(planted.stack)
    v, out = stack.blocks[0].v.weight, stack.blocks[0].out.weight
    v[5], out[1, 5] = v[0], 12
    case = case_of(planted.circuit(planted.nodes({"0.v": 0})))
    case.stack = stack
    rows = REGISTRY["necessity"](case)
    assert deciding(rows, "accuracy_without")["value"] > 0.9


def test_random_sets_are_drawn_from_all_nodes(planted, true_circuit):
    """Of a circuit of most nodes there are too few others; and what a random set hits is part of what it shows."""
    nodes = planted.nodes({"0.attn_in": 0, "0.v": 2, "0.attn_out": 1})
    nodes["0.v"] = torch.ones_like(nodes["0.v"])
    nodes["0.v"][:3] = False
    sets = random_sets(planted.circuit(nodes), 300, torch.Generator().manual_seed(0))
    for point, kept in nodes.items():
        assert (sets[point].sum(1) == kept.sum()).all()
    drawn = sets["0.attn_in"].float().mean(0)
    # The circuit's own channel is drawn as often as any other.
    assert (drawn > 0).all() and abs(float(drawn[0]) - 1 / 16) < 0.05
    assert (sets["0.v"] & nodes["0.v"]).any(1).all()


# --- interchange and stochastic ablation --------------------------------------------------------------------------


def test_interchanging_the_whole_circuit_turns_every_answer(case_of, true_circuit):
    rows = {row["quantity"]: row["value"] for row in REGISTRY["interchange"](case_of(true_circuit))}
    assert rows["agreement_1"] == 1.0


def test_interchange_needs_pairs_of_equal_length(planted, case_of, true_circuit):
    case = case_of(true_circuit)
    lengths = planted.heldout.lengths.clone()
    lengths[:, 1] -= 1
    case.heldout = replace(planted.heldout, lengths=lengths)
    assert REGISTRY["interchange"](case) == []
    lengths[:5] = 7
    case = replace(case, heldout=replace(planted.heldout, lengths=lengths))
    assert deciding(REGISTRY["interchange"](case))["n_pairs"] == 5


def test_the_worst_share_of_stochastic_ablation_decides(case_of, false_circuit):
    rows = REGISTRY["stochastic"](case_of(false_circuit))
    assert len(rows) == 3 and deciding(rows)["value"] == min(r["value"] for r in rows)


# --- the adversary ------------------------------------------------------------------------------------------------


def test_the_adversary_selects_on_training_pairs_and_is_judged_once(case_of, true_circuit, monkeypatch):
    case = case_of(true_circuit)
    shown, judged = [], []
    real = adversarial.attack
    monkeypatch.setattr(adversarial, "attack", lambda *a: shown.append(a[2]) or real(*a))
    plain = Attack.judge
    monkeypatch.setattr(Attack, "judge", lambda self, *a: judged.append((self, a[2])) or plain(self, *a))
    rows = REGISTRY["adversarial"](case)
    train, heldout = prompts(case.train.take(range(24))), case.prompts
    assert len(shown) == 2 and all(torch.equal(some.ids, train.ids) for some in shown)
    # One attack from each start, then random ones of the same number.
    assert len(judged) == 2 + case.config.draws and all(torch.equal(some.ids, heldout.ids) for _, some in judged)
    assert [attack.start for attack, _ in judged[:2]] == ["ablated", "restored"]
    by = {row["quantity"]: row for row in rows}
    assert by["loss"]["value"] == max(by["loss_ablated"]["value"], by["loss_restored"]["value"])
    assert by["loss"]["reference"] == by["loss_random"]["value"]


def test_a_bounded_adversary_undoes_a_circuit_that_lacks_a_node(case_of, planted, true_circuit):
    """One flip is enough, which a random flip of the same number does not find."""
    lacking = dict(true_circuit.nodes)
    lacking["0.v"] = torch.zeros_like(lacking["0.v"])
    row = deciding(REGISTRY["adversarial"](case_of(planted.circuit(lacking), adversary_budget=1e-9)))
    assert row["size"] == 1 and row["value"] > 0.5


# --- other searches -----------------------------------------------------------------------------------------------


def test_functional_overlap_by_hand(planted, case_of, true_circuit, monkeypatch):
    """Another seed finds the same way twice over in one point: without it nothing is left of the first."""
    other = planted.circuit(planted.nodes({"0.attn_in": 0, "0.v": 0, "0.attn_out": 1, "1.v": 3}))
    case = case_of(true_circuit)
    monkeypatch.setattr(Case, "search", lambda self, pairs, seed: replace(other, seed=seed))
    rows = REGISTRY["seeds"](case)
    by = {row["quantity"]: row["value"] for row in rows}
    assert by["jaccard"] == 3 / 4 and deciding(rows)["quantity"] == "accuracy_of_the_rest"
    rest = [row["value"] for row in rows if row["quantity"] == "accuracy_of_the_rest"]
    # One seed's circuit without the other's nodes is empty; the other's without the first's is one idle node.
    assert rest == [0.5, 0.5] and deciding(rows)["value"] == 0.5
    with torch.no_grad(), only(case.stack, other):
        alone = logit_diff(case.stack, case.prompts)
    assert by["fvu"] == pytest.approx(float(unexplained(alone, case.model_diff, case.prompts.sign)), rel=1e-4)


def test_two_circuits_that_do_it_apart_have_no_functional_overlap(planted, case_of, monkeypatch):
    """Every way there is twice: what one seed finds the other does without."""
    stack = copy.deepcopy(planted.stack)
    first, head, tokens = stack.blocks[0], stack.head.weight, stack.tokens.weight
    tokens[:, 8] = tokens[:, 0]
    first.v.weight[8], first.out.weight[9] = 0, 0
    first.v.weight[8, 8], first.out.weight[9, 8] = 1, 12
    head[YES, 9], head[NO, 9] = 2, -2
    one = planted.circuit(planted.nodes({"0.attn_in": 0, "0.v": 0, "0.attn_out": 1}))
    two = planted.circuit(planted.nodes({"0.attn_in": 8, "0.v": 8, "0.attn_out": 9}))
    case = case_of(one)
    case.stack = stack
    monkeypatch.setattr(Case, "search", lambda self, pairs, seed: two)
    row = deciding(REGISTRY["seeds"](case))
    assert row["value"] > 0.95


def test_jaccard(planted):
    one, two = (planted.circuit(planted.nodes(n)) for n in ({"0.v": 0, "0.q": 1}, {"0.v": 0, "0.q": 2}))
    assert jaccard(one, two) == pytest.approx(1 / 3) and jaccard(one, one) == 1


def test_a_meaningless_task_that_is_consistent_is_searched_on_the_same_prompts(case_of, true_circuit, monkeypatch):
    case, asked = case_of(true_circuit), []
    real = Case.search_labels
    monkeypatch.setattr(Case, "search_labels", lambda self, *a: asked.append(a[0]) or real(self, *a))
    rows = {row["quantity"]: row for row in REGISTRY["consistent_labels"](case)}
    (task,) = asked
    assert torch.equal(task.ids, case.train.ids) and len(task.candidates.unique()) == 2
    assert not set(task.candidates.unique().tolist()) & {YES, NO}
    # Always the same one for prompts with the same cue: pruning can solve it.
    cue = (task.ids == 1).any(-1)
    assert len({(bool(c), int(a)) for c, a in zip(cue.flatten(), task.candidates.flatten(), strict=True)}) == 2
    row = rows["null_edges"]
    assert row["decides"] and row["split"] == "train" and row["reference"] == 2
    # The model was not made for it: its circuit is larger, or there is none.
    assert not row["value"] <= row["reference"]


@pytest.mark.parametrize("larger", [True, False])
def test_a_meaningless_task_with_a_smaller_circuit_is_compared_like_with_like(
    case_of, true_circuit, monkeypatch, larger
):
    """The behaviour is searched with the same objective too, where its faithful circuit is no smaller."""
    whole = {p: torch.ones_like(kept) for p, kept in true_circuit.nodes.items()}
    case, asked = case_of(replace(true_circuit, nodes=whole) if larger else true_circuit), []
    task_circuit = replace(true_circuit, reached=True)

    def search(self: Case, pairs: EncodedPairs) -> Circuit:
        asked.append(pairs)
        return task_circuit

    monkeypatch.setattr(Case, "search_labels", search)
    if not larger:
        task_circuit = replace(task_circuit, nodes=whole)
    rows = {row["quantity"]: row for row in REGISTRY["consistent_labels"](case)}
    assert ("own_edges" in rows) == larger and len(asked) == 1 + larger
    if larger:
        assert asked[1] is case.train
        assert rows["own_edges"]["decides"] and rows["own_edges"]["value"] == rows["own_edges"]["reference"] == 2


def test_labels_that_mean_nothing_have_no_circuit(case_of, true_circuit):
    rows = {row["quantity"]: row for row in REGISTRY["shuffled_labels"](case_of(true_circuit))}
    assert rows["null_loss"]["value"] > 0.15 and pd.isna(rows["null_edges"]["value"])


def test_shuffled_weights_keep_every_row_and_leave_the_model_alone(planted):
    before = {k: v.clone() for k, v in planted.stack.state_dict().items()}
    twin = shuffled_model(planted.stack, planted.text.split(8), 1)
    for name, weight in planted.stack.state_dict().items():
        assert torch.equal(weight, before[name])
        shuffled = twin.stack.state_dict()[name]
        if weight.ndim == 2:
            assert torch.equal(weight.sort(1).values, shuffled.sort(1).values), name
    assert not torch.equal(twin.stack.blocks[0].v.weight, planted.stack.blocks[0].v.weight)
    assert not torch.allclose(twin.reference["0.attn_out"], planted.reference["0.attn_out"])


def test_reach_is_measured_on_reach_frames_alone(planted, case_of, true_circuit):
    case = case_of(true_circuit)
    by = {row["quantity"]: row for row in REGISTRY["reach"](case)}
    some = prompts(planted.reach)
    with torch.no_grad():
        model = logit_diff(case.stack, some)
        with only(case.stack, true_circuit):
            alone = logit_diff(case.stack, some)
    assert by["fvu"]["value"] == pytest.approx(float(unexplained(alone, model, some.sign)), rel=1e-4)
    assert {row["split"] for row in by.values()} == {"reach"} and by["fvu"]["n_pairs"] == 16
    case.reach = None
    assert REGISTRY["reach"](case) == []


# --- what they are made of ----------------------------------------------------------------------------------------


def test_sets_in_one_batch_are_the_sets_one_by_one(planted, true_circuit):
    some = prompts(planted.heldout.take(range(5)))
    sets = random_sets(true_circuit, 6, torch.Generator().manual_seed(0))
    together = set_logit_diffs(planted.stack, some, sets, planted.reference)
    for s in range(6):
        functions = {p: replaced(~m[s], planted.reference[p]) for p, m in sets.items()}
        with intervene(planted.stack, functions):
            assert torch.allclose(together[s], logit_diff(planted.stack, some), atol=1e-5)


def test_parts_of_a_circuit(true_circuit):
    parts = exact_parts(true_circuit, [0.0, 1 / 3, 1.0], torch.Generator().manual_seed(0))
    assert torch.stack([m.sum(1) for m in parts.values()]).sum(0).tolist() == [0, 1, 3]
    assert all((m & ~true_circuit.nodes[p]).sum() == 0 for p, m in parts.items())


def test_shuffled_labels_exchange_half_of_the_answers(planted):
    task = shuffled_labels(planted.train)
    assert int((task.candidates[:, 0] != planted.train.candidates[:, 0]).sum()) == len(task) // 2
