"""Node points are read after AbsTopK, changed for the length of a block, and always given back."""

from __future__ import annotations

import pytest
import torch

from bridges.errors import BridgesError
from bridges.nodes import NODE_KINDS, NodeBus, intervene, record

IDS = torch.randint(29, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny_sparse):
    return tiny_sparse(activation_fraction=0.3).requires_grad_(False)


def test_recorded_values_have_exactly_k_nonzeros(model):
    with record(model) as seen:
        model.logits(IDS)
    assert list(seen) == [f"{layer}.{kind}" for layer in range(2) for kind in NODE_KINDS]
    kept = {"mlp_neuron": 7}
    for point, value in seen.items():
        assert value.shape == (2, 6, model.nodes.widths[point])
        assert (value.count_nonzero(dim=-1) == kept.get(point[2:], 4)).all(), point


def test_recorded_values_are_those_the_model_goes_on_with(model):
    with record(model, ["0.attn_out", "0.mlp_neuron", "0.mlp_out"]) as seen:
        sites = model.run(IDS).sites
    torch.testing.assert_close(sites[0] + seen["0.attn_out"], sites[1])
    torch.testing.assert_close(sites[1] + seen["0.mlp_out"], sites[2])
    down = model.blocks[1].down
    wide = seen["0.mlp_neuron"] @ down.weight.T + down.bias
    kept = seen["0.mlp_out"] != 0
    torch.testing.assert_close(seen["0.mlp_out"][kept], wide[kept])


def test_recording_changes_nothing_and_leaves_nothing(model):
    plain = model.logits(IDS)
    with record(model, "*.q"):
        assert torch.equal(model.logits(IDS), plain)
        assert model.nodes.active("0.q") and model.nodes.active("1.q") and not model.nodes.active("0.k")
    assert not any(model.nodes.active(point) for point in model.nodes.widths)


def test_an_intervention_acts_as_its_function_says_and_only_inside_the_block(model):
    plain = model.logits(IDS)
    with intervene(model, {"*.attn_out": lambda x: 0 * x, "*.mlp_out": lambda x: 0 * x}):
        changed = model.logits(IDS)
    torch.testing.assert_close(changed, model.unembed(model.embed(IDS), IDS))
    assert torch.equal(model.logits(IDS), plain)


def test_an_ablated_neuron_is_as_if_its_weights_were_zero(model):
    ablated = {"1.mlp_neuron": lambda x: torch.cat([0 * x[..., :5], x[..., 5:]], -1)}
    with intervene(model, ablated):
        changed = model.logits(IDS)
    model.blocks[3].down.weight[:, :5] = 0
    torch.testing.assert_close(changed, model.logits(IDS))


def test_restored_when_the_block_raises(model):
    plain = model.logits(IDS)
    with pytest.raises(ZeroDivisionError), intervene(model, {"*": lambda x: x + 1}):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="inside the pass"), record(model):

        def fail(x):
            raise RuntimeError("inside the pass")

        with intervene(model, {"1.v": fail}):
            model.logits(IDS)
    assert torch.equal(model.logits(IDS), plain)
    assert not any(model.nodes.active(point) for point in model.nodes.widths)


def _at_zero_k(model) -> torch.Tensor:
    return model.nodes("0.k", torch.ones(1))


def test_nested_functions_act_in_the_order_they_were_put_on(model):
    with intervene(model, {"0.k": lambda x: x + 1}):
        with intervene(model, {"0.k": lambda x: x * 10}):
            assert float(_at_zero_k(model)) == 20
        assert float(_at_zero_k(model)) == 2
        with intervene(model, {"0.k": lambda x: x - 5}):
            assert float(_at_zero_k(model)) == -3
    assert float(_at_zero_k(model)) == 1


def test_one_function_may_stand_on_a_point_twice(model):
    def double(x):
        return 2 * x

    def add(x):
        return x + 1

    with intervene(model, {"0.k": double}):
        with intervene(model, {"0.k": add}), intervene(model, {"0.k": double}):
            assert float(_at_zero_k(model)) == 6
        assert float(_at_zero_k(model)) == 2
        with intervene(model, {"*.k": double}):
            assert float(_at_zero_k(model)) == 4
    assert float(_at_zero_k(model)) == 1


def test_a_recorder_sees_what_an_outer_intervention_made(model):
    with intervene(model, {"0.mlp_neuron": lambda x: 0 * x + 3}), record(model, "0.mlp_neuron") as seen:
        model.logits(IDS)
    assert (seen["0.mlp_neuron"] == 3).all()


@pytest.mark.parametrize(
    "make", [lambda m: record(m, "1.mlp_neurn"), lambda m: intervene(m, {"1.mlp_neurn": torch.neg})]
)
def test_a_pattern_that_matches_nothing_names_the_nearest(model, make):
    with pytest.raises(BridgesError, match=r"'1\.mlp_neurn'.*Did you mean '1\.mlp_neuron'"), make(model):
        pass
    with pytest.raises(BridgesError, match=r"'7\.\*'"):
        model.nodes.match(["0.*", "7.*"])


def test_matches_come_once_and_in_forward_order():
    bus = NodeBus({"0.q": 1, "0.k": 1, "1.q": 1})
    assert bus.match(["1.*", "*.q", "0.k"]) == ["0.q", "0.k", "1.q"]


def test_first_and_last_are_called_once_around_nested_blocks():
    bus, events = NodeBus({"0.q": 1, "0.k": 1}), []
    bus.on_first, bus.on_last = (lambda: events.append("first")), (lambda: events.append("last"))
    with bus.acting({}):
        pass
    with bus.acting({"0.q": torch.neg}):
        with bus.acting({"0.k": torch.neg, "0.q": torch.neg}):
            pass
        events.append("inner done")
    assert events == ["first", "inner done", "last"]


def test_two_patterns_that_meet_on_a_point_both_act(model):
    with intervene(model, {"*.k": lambda x: x + 1, "0.*": lambda x: x * 10}):
        assert float(_at_zero_k(model)) == 20
