"""Each control passes a circuit that is known to be true and refuses one that was made to fail it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from bridges.circuits.controls.shuffled_weights import shuffled_model

from bridges.behaviours import shuffled_labels
from bridges.circuits import attack as flips
from bridges.circuits.ablation import windows
from bridges.circuits.attack import worst_attack
from bridges.circuits.circuit import replaced
from bridges.circuits.controls import REGISTRY, run_controls
from bridges.circuits.controls import case as case_module
from bridges.circuits.controls.adversarial import halves
from bridges.circuits.controls.seeds import chance_jaccard, jaccard
from bridges.circuits.node_sets import exact_parts, random_sets, set_logit_diffs
from bridges.circuits.search.search import Search, find_circuit
from bridges.circuits.search.search import gates as gates_module
from bridges.circuits.task import Prompts, fitted_loss, logit_diff, prompts
from bridges.config import CONTROLS
from bridges.config.search import CircuitSettings
from bridges.nodes import intervene
from bridges.storage.tables import write_table


def verdict(rows: list[dict]) -> dict:
    """The row that decides."""
    (deciding,) = [row for row in rows if row["passed"] is not None]
    return deciding


def test_every_control_of_the_settings_is_registered():
    assert set(REGISTRY) == set(CONTROLS)


def test_the_planted_circuit_is_what_the_search_finds(planted, true_circuit):
    assert true_circuit.reached and true_circuit.train_loss < 0.01
    found = find_circuit(planted.stack, planted.train, planted.reference, seed=0)
    assert {p for p, k in found.nodes.items() if k.any()} <= {"0.attn_in", "0.v", "0.attn_out"} and found.reached


# The planted model's candidates.
YES, NO = 3, 4
# Controls that look at one circuit as it is.
GIVEN = ["sufficiency", "resample", "necessity", "random_circuits", "interchange", "stochastic", "adversarial"]


@pytest.mark.parametrize("name", GIVEN)
def test_a_true_circuit_passes(name, case_of, true_circuit):
    deciding = verdict(REGISTRY[name](case_of(true_circuit)))
    assert deciding["passed"] is True and math.isfinite(deciding["threshold"])


@pytest.mark.parametrize("name", GIVEN)
def test_a_false_circuit_of_the_same_size_fails(name, case_of, false_circuit):
    deciding = verdict(REGISTRY[name](case_of(false_circuit)))
    assert deciding["passed"] is False and math.isfinite(deciding["threshold"])


def test_a_failed_circuit_costs_no_further_search_where_that_is_asked_for(case_of, false_circuit, true_circuit):
    quick = {"names": ["seeds", "sufficiency"], "stop_early": True, "seeds": 2, "null_steps": 5}
    assert {r["control"] for r in run_controls(case_of(false_circuit, **quick))} == {"sufficiency"}
    assert {r["control"] for r in run_controls(case_of(false_circuit, **quick | {"stop_early": False}))} == {
        "sufficiency", "seeds",
    }  # fmt: skip
    assert {r["control"] for r in run_controls(case_of(true_circuit, **quick))} == {"sufficiency", "seeds"}


def test_the_search_that_found_the_circuit_is_not_run_again(case_of, planted, monkeypatch):
    settings = {"steps": 30, "lr": 0.1, "pairs": 24}
    search = Search(planted.stack, planted.train, planted.reference, CircuitSettings(**settings))
    by_nodes = search.by_nodes()
    case = replace(case_of(search.by_edges(by_nodes), settings), by_nodes=by_nodes)
    again = [case.search(planted.train, seed) for seed in range(2)]
    runs: list[int] = []
    real = case_module.find_circuit
    monkeypatch.setattr(case_module, "find_circuit", lambda *a: runs.append(a[4]) or real(*a))
    repeats = case.repeats
    assert runs == [1] and repeats[0] is by_nodes
    for known, searched in zip(repeats, again, strict=True):
        assert known.train_loss == searched.train_loss
        assert all(torch.equal(known.nodes[p], searched.nodes[p]) for p in known.nodes)
    other = replace(case, config=replace(case.config, null_steps=29))
    assert other.repeats[0] is not by_nodes and runs == [1, 0, 1]


def test_a_null_is_given_up_by_its_loss_alone(case_of, planted, true_circuit, monkeypatch):
    """Not because it wants more nodes than a circuit may have: fewer could still come of them."""
    looks: list[bool] = []
    real = gates_module.should_stop
    monkeypatch.setattr(gates_module, "should_stop", lambda *a: looks.append(real(*a)) or looks[-1])
    case = case_of(
        true_circuit, {"steps": 20, "lr": 0.1, "pairs": 24, "early_stop_loss": 0.6, "largest": 0.01}, null_steps=20
    )
    null = case.null_search(shuffled_labels(planted.train))
    assert looks == [True] and not null.reached
    # What is to be found is found, with every gate open at half of the steps and a hundredth of them allowed.
    slow = replace(case, settings=replace(case.settings, penalty=1e-12, adapt=0.0))
    assert slow.null_search(planted.train).reached and looks == [True, False]
    assert not slow.search(planted.train, 0).reached and looks == [True, False, True]


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_adversary_keeps_to_its_budget_and_off_the_circuit(start, case_of, true_circuit):
    case = case_of(true_circuit)
    ablated = worst_attack(case.stack, case.circuit, case.prompts, start, budget=3, steps=4)
    outside = torch.cat([~kept for kept in true_circuit.nodes.values()])
    flat = torch.cat(list(ablated.values()), 1)
    assert flat.shape[0] == 4 and not (flat & ~outside).any()
    assert ((flat if start else outside & ~flat).sum(1) == 3).all()


def test_the_adversary_is_judged_on_pairs_it_has_not_seen(case_of, true_circuit, monkeypatch):
    case = case_of(true_circuit)
    some = case.prompts
    shown, judged = halves(some, case.generator("adversarial"))
    used: dict[str, list[Prompts]] = {"worst_attack": [], "set_logit_diffs": []}
    for name, calls in used.items():
        real = getattr(flips, name)
        at = 2 if name == "worst_attack" else 1
        monkeypatch.setattr(flips, name, lambda *a, real=real, calls=calls, at=at: calls.append(a[at]) or real(*a))
    REGISTRY["adversarial"](case)
    for name, wanted in (("worst_attack", shown), ("set_logit_diffs", judged)):
        assert len(used[name]) == 4 and all(torch.equal(mine.ids, wanted.ids) for mine in used[name])
    assert len(shown) + len(judged) == len(some) and len(shown) % 2 == len(judged) % 2 == 0
    whole = torch.cat([shown.ids, judged.ids]).unflatten(0, (-1, 2)).flatten(1)
    assert torch.equal(whole.sort(0).values, some.ids.unflatten(0, (-1, 2)).flatten(1).sort(0).values)
    # Pairs stand in the order of their templates, so that halves by turns would share none.
    by_turns = some.ids.unflatten(0, (-1, 2))[0::2].flatten(0, 1)
    assert not torch.equal(shown.ids, by_turns)
    alone = some.take(slice(2))
    assert all(torch.equal(half.ids, alone.ids) for half in halves(alone, torch.Generator().manual_seed(0)))


def test_an_adversary_without_a_bound_does_what_one_with_a_bound_cannot(case_of, true_circuit, planted):
    """The bound matters: of a circuit that lacks a node the model needs, one flip is enough."""
    point = next(p for p, kept in true_circuit.nodes.items() if kept.any())
    lacking = dict(true_circuit.nodes)
    lacking[point] = torch.zeros_like(lacking[point])
    rows = REGISTRY["adversarial"](case_of(planted.circuit(lacking), adversary_budget=1e-9))
    assert verdict(rows)["passed"] is False and {r["size"] for r in rows} == {1}


def test_sufficiency_is_measured_on_held_out_prompts(planted, case_of, true_circuit):
    """A circuit that is right on the training prompts alone."""
    case = case_of(true_circuit)
    case.heldout = replace(planted.heldout, candidates=planted.heldout.candidates.flip(1))
    assert verdict(REGISTRY["sufficiency"](case))["passed"] is False


def test_necessity_fails_where_the_model_can_do_without(planted, case_of, true_circuit):
    """Half of the way doubled: each half is enough, so neither is needed."""
    model = planted.stack
    with torch.no_grad():
        v, out = model.blocks[0].v.weight, model.blocks[0].out.weight
        kept = v[5].clone(), out[1, 5].clone()
        v[5], out[1, 5] = v[0], 12
    try:
        half = planted.circuit(planted.nodes({"0.v": 0}))
        assert verdict(REGISTRY["necessity"](case_of(half, quantile=1.0)))["passed"] is False
    finally:
        with torch.no_grad():
            v[5], out[1, 5] = kept


def test_interchange_needs_pairs_of_equal_length(planted, case_of, true_circuit):
    case = case_of(true_circuit)
    lengths = planted.heldout.lengths.clone()
    lengths[:, 1] -= 1
    case.heldout = replace(planted.heldout, lengths=lengths)
    (row,) = REGISTRY["interchange"](case)
    assert row["passed"] is None and row["n_pairs"] == 0


def test_interchanging_the_whole_circuit_turns_every_answer(case_of, true_circuit):
    rows = {row["quantity"]: row["value"] for row in REGISTRY["interchange"](case_of(true_circuit))}
    assert rows["agreement_1"] == 1.0 and rows["correlation"] > 0.9
    # With no node overwritten the circuit is itself, and its own nodes hold what they hold in the whole model.
    assert rows["overwritten_loss_0"] < 0.1 and rows["overwritten_loss_1"] < 0.1


def test_nonsense_passes_where_there_is_something_to_find(case_of, true_circuit):
    rows = REGISTRY["nonsense"](case_of(true_circuit))
    assert verdict(rows)["passed"] is True and verdict(rows)["value"] <= 4


def test_nonsense_fails_where_the_labels_mean_nothing_either(planted, case_of, true_circuit):
    case = case_of(true_circuit, train=shuffled_labels(planted.train))
    assert verdict(REGISTRY["nonsense"](case))["passed"] is False


@pytest.mark.parametrize("name", ["nonsense", "shuffled_weights"])
def test_a_target_that_anything_reaches_proves_nothing(name, case_of, true_circuit):
    rows = REGISTRY[name](case_of(true_circuit, {"target": 0.75}))
    assert verdict(rows)["passed"] is False
    assert verdict(rows)["reference"] <= verdict(rows)["value"] * 1.5


def test_random_weights_passes_where_learning_made_the_circuit(case_of, true_circuit):
    assert verdict(REGISTRY["shuffled_weights"](case_of(true_circuit)))["passed"] is True


def test_random_weights_fails_where_the_circuit_was_in_the_random_model_too(planted, case_of, true_circuit):
    case = case_of(true_circuit)
    case.null = lambda: type("Same", (), {"stack": planted.stack, "reference": planted.reference})()  # type: ignore[assignment]
    assert verdict(REGISTRY["shuffled_weights"](case))["passed"] is False


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


def test_seeds_pass_where_the_search_finds_the_same(case_of, true_circuit):
    assert verdict(REGISTRY["seeds"](case_of(true_circuit)))["passed"] is True


def test_seeds_fail_where_many_circuits_do_the_same(planted, case_of, true_circuit):
    """Six channels of each kind, every one of which is enough, taken in random order."""
    case = case_of(true_circuit, {"method": "random", "tries": 8})
    case.stack = copy.deepcopy(planted.stack)
    ways = torch.arange(8, 14)
    with torch.no_grad():
        first, head, tokens = case.stack.blocks[0], case.stack.head.weight, case.stack.tokens.weight
        tokens[:, ways] = tokens[:, :1]
        first.v.weight[ways[:, None], ways], first.out.weight[ways[:, None], ways] = 1, 12
        head[YES, ways], head[NO, ways] = 2, -2
    deciding = verdict(REGISTRY["seeds"](case))
    assert deciding["passed"] is False and deciding["value"] < deciding["threshold"]


def test_seeds_have_no_overlap_where_one_of_them_misses_the_target(case_of, true_circuit):
    case = case_of(true_circuit)
    case.__dict__["repeats"] = [true_circuit, replace(true_circuit, reached=False)]
    deciding = verdict(REGISTRY["seeds"](case))
    assert deciding["passed"] is False and math.isnan(deciding["value"])


# --- what they are made of ----------------------------------------------------------------------------------------


def test_sets_in_one_batch_are_the_sets_one_by_one(planted, true_circuit):
    some = prompts(planted.heldout.take(range(5)))
    sets = random_sets(true_circuit, 6, torch.Generator().manual_seed(0))
    together = set_logit_diffs(planted.stack, some, sets, planted.reference)
    for s in range(6):
        functions = {p: replaced(~m[s], planted.reference[p]) for p, m in sets.items()}
        with intervene(planted.stack, functions):
            assert torch.allclose(together[s], logit_diff(planted.stack, some), atol=1e-5)


def test_random_sets_match_the_circuit_point_by_point(true_circuit):
    sets = random_sets(true_circuit, 20, torch.Generator().manual_seed(0))
    for point, kept in true_circuit.nodes.items():
        assert (sets[point].sum(1) == kept.sum()).all()
    assert len({tuple(s.nonzero()[:, 0].tolist()) for s in sets["0.v"]}) > 5


def test_parts_of_a_circuit(planted, true_circuit):
    parts = exact_parts(true_circuit, [0.0, 1 / 3, 1.0], torch.Generator().manual_seed(0))
    assert torch.stack([m.sum(1) for m in parts.values()]).sum(0).tolist() == [0, 1, 3]
    assert all((m & ~true_circuit.nodes[p]).sum() == 0 for p, m in parts.items())


def test_jaccard_and_what_chance_gives(planted):
    one, two = (planted.circuit(planted.nodes(n)) for n in ({"0.v": 0, "0.q": 1}, {"0.v": 0, "0.q": 2}))
    assert jaccard(one, two) == pytest.approx(1 / 3) and jaccard(one, one) == 1
    generator = torch.Generator().manual_seed(0)
    width = len(one.nodes["0.v"])
    # One channel of v each, drawn among all of them.
    first, second = torch.randint(width, (2, 2000), generator=generator)
    shared = (first == second).float().tolist()
    assert 2 * sum(shared) / 2000 / (4 - 2 * sum(shared) / 2000) == pytest.approx(chance_jaccard(one, two), abs=0.01)


def test_windows_come_from_the_text():
    text = torch.arange(40).view(4, 10)
    drawn = windows(text, 50, 4, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 4) and (drawn.diff(dim=1) == 1).all() and len(drawn.unique(dim=0)) > 10
    assert windows(text, 3, 25, torch.Generator().manual_seed(0)).shape == (3, 25)


def test_a_fitted_loss_cannot_be_helped_by_information_that_is_not_there():
    sign = torch.tensor([1.0, -1.0] * 20)
    assert fitted_loss(sign * 5, sign) == pytest.approx(math.log(2), abs=1e-3)
    assert fitted_loss(torch.ones(40), sign) < 0.01


def test_all_controls_fill_the_table_and_repeat_exactly(case_of, true_circuit, tmp_path):
    small = {"random_sets": 5, "draws": 2, "seeds": 2, "null_steps": 5, "adversary_steps": 2}
    one, two = (pd.DataFrame(run_controls(case_of(true_circuit, **small))) for _ in range(2))
    assert set(one["control"]) == set(CONTROLS) and (one.groupby("control")["passed"].count() == 1).all()
    pd.testing.assert_frame_equal(one, two)
    write_table(tmp_path, "controls", one)


def test_random_sets_hold_no_node_of_the_circuit(planted):
    nodes = planted.nodes({"0.attn_in": 0, "0.v": 2, "0.attn_out": 1})
    nodes["0.v"] = torch.ones_like(nodes["0.v"])
    nodes["0.v"][:3] = False
    sets = random_sets(planted.circuit(nodes), 200, torch.Generator().manual_seed(0))
    for point, kept in nodes.items():
        assert not (sets[point] & kept).any()
        # Of v only three channels are left outside.
        size = 3 if point == "0.v" else int(kept.sum())
        assert (sets[point].sum(1) == size).all()
    drawn = sets["0.attn_in"].float().mean(0)
    assert drawn[0] == 0 and (drawn[1:] > 0).all()
