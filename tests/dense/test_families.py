"""Every family of dense model, as a tiny random one: the stack is the model, its nodes are the model's."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import nn

from bridges.dense import FAMILIES, check_parity, wrap_dense
from bridges.dense.gpt2 import GPT2Stack
from bridges.errors import BridgesError, ModelError
from bridges.nodes import NODE_KINDS, intervene, record

WINDOW = 6  # of the tiny models with sliding or local attention

# model type -> its layers, and in each the projections to q (or q, k and v at once), k, v, MLP hidden, stream
PATHS = {
    "gpt2": ("transformer.h", "attn.c_attn", None, None, "mlp.c_fc", "mlp.c_proj"),
    "gpt_neo": (
        "transformer.h",
        "attn.attention.q_proj",
        "attn.attention.k_proj",
        "attn.attention.v_proj",
        "mlp.c_fc",
        "mlp.c_proj",
    ),
    "opt": ("model.decoder.layers", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "fc1", "fc2"),
    "gpt_neox": (
        "gpt_neox.layers",
        "attention.query_key_value",
        None,
        None,
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    ),
}
LLAMA = (
    "model.layers",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def parts(case, layer: int) -> dict[str, nn.Module | None]:
    root, *paths = PATHS.get(case.model.config.model_type, LLAMA)
    block = case.model.get_submodule(root)[layer]
    names = ("q", "k", "v", "up", "down")
    return {name: path and block.get_submodule(path) for name, path in zip(names, paths, strict=True)}


def of_fused(case, x: torch.Tensor, kind: str) -> torch.Tensor:
    """A view of the part of a fused projection that makes q, k or v; channels last."""
    index = "qkv".index(kind)
    if case.model.config.model_type == "gpt2":
        return x.unflatten(-1, (3, -1))[..., index, :]
    return x.unflatten(-1, (case.model.config.num_attention_heads, 3, -1))[..., index, :]


@pytest.mark.parametrize("length", [1, 2, WINDOW, WINDOW + 1, 40])
def test_logits_are_the_models(case, length):
    ids = case.ids(length)
    reference = case.reference(ids)
    assert reference.abs().max() > 0.1
    assert (case.stack.logits(ids) - reference).abs().max() <= 1e-4 * max(1.0, reference.abs().max().item())
    assert case.stack.vocab_size == reference.shape[-1]


def test_sites_are_the_models_hidden_states(case):
    ids = case.ids(20)
    with torch.no_grad():
        hidden = case.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    sites = case.stack.run(ids).sites
    per_layer = 1 if case.name == "gpt_neox" else 2
    assert case.stack.n_sublayers == per_layer * case.model.config.num_hidden_layers
    assert case.stack.n_layers == case.model.config.num_hidden_layers
    assert sorted(sites) == list(range(case.stack.n_sublayers + 1))
    for layer in range(case.stack.n_layers):  # the last hidden state is normalised
        torch.testing.assert_close(sites[layer * per_layer], hidden[layer], atol=1e-5, rtol=1e-5)


def test_running_on_from_any_site_gives_the_same_logits(case):
    ids = case.ids(20)
    reference = case.reference(ids)
    sites = case.stack.run(ids).sites
    final = case.stack.run_from(sites).final
    assert set(final) == set(sites)
    for h in final.values():
        torch.testing.assert_close(case.stack.unembed(h, ids), reference, atol=1e-4, rtol=1e-4)
    middle = case.stack.n_sublayers // 2
    alone = case.stack.run_segment(sites[middle], middle, case.stack.n_sublayers)
    torch.testing.assert_close(case.stack.unembed(alone, ids), reference, atol=1e-4, rtol=1e-4)


def test_nodes_are_what_plain_hooks_see(case):
    ids = case.ids(9)
    stack, model = case.stack, case.model
    layers = range(stack.n_layers)
    assert list(stack.nodes.widths) == [f"{layer}.{kind}" for layer in layers for kind in NODE_KINDS]
    plain: dict[str, torch.Tensor] = {}

    def keep(name: str, output: bool):
        def hook(module, args, result):
            plain[name] = (result if output else args[0]).reshape(*ids.shape, -1)

        return hook

    handles = []
    for layer in range(stack.n_layers):
        at = parts(case, layer)
        fused = at["k"] is None
        handles.append(at["q"].register_forward_hook(keep(f"{layer}.attn_in", False)))
        handles.append(at["up"].register_forward_hook(keep(f"{layer}.mlp_in", False)))
        handles.append(at["down"].register_forward_hook(keep(f"{layer}.mlp_neuron", False)))
        for kind in ["qkv"] if fused else "qkv":
            handles.append(at[kind[0]].register_forward_hook(keep(f"{layer}.{kind}", True)))
    case.reference(ids)
    for handle in handles:
        handle.remove()
    with record(stack) as seen:
        sites = stack.run(ids).sites
    for layer in range(stack.n_layers):
        if f"{layer}.qkv" in plain:
            whole = plain.pop(f"{layer}.qkv")
            plain.update({f"{layer}.{kind}": of_fused(case, whole, kind).flatten(2) for kind in "qkv"})
        # What a sublayer writes is the change of the stream.
        wrote = [seen[f"{layer}.attn_out"], seen[f"{layer}.mlp_out"]]
        if stack.parallel:
            wrote = [wrote[0] + wrote[1]]
        for site, change in enumerate(wrote, len(wrote) * layer):
            torch.testing.assert_close(change, sites[site + 1] - sites[site], atol=1e-5, rtol=1e-5)
    assert len(plain) == 6 * stack.n_layers
    for name, value in plain.items():
        torch.testing.assert_close(seen[name], value, atol=1e-5, rtol=1e-5)
        assert seen[name].shape[-1] == stack.nodes.widths[name]
    torch.testing.assert_close(model(ids, use_cache=False).logits, stack.logits(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_zeroing_a_projection_is_zeroing_its_weights(case, kind):
    ids = case.ids(12)
    plain = case.reference(ids)
    with intervene(case.stack, {f"0.{kind}": torch.zeros_like}), torch.no_grad():
        changed = case.stack.logits(ids)
    own = parts(case, 0)[kind] if parts(case, 0)["k"] is not None else None
    for weight in (own or parts(case, 0)["q"]).parameters():
        transposed = weight.ndim == 2 and case.model.config.model_type != "gpt2"  # GPT-2 keeps channels last
        channels_last = weight.data.T if transposed else weight.data
        (channels_last if own else of_fused(case, channels_last, kind)).zero_()
    reference = case.reference(ids)
    assert (reference - plain).abs().max() > 1e-3
    torch.testing.assert_close(changed, reference, atol=1e-4, rtol=1e-4)


def test_every_point_acts_and_leaves_nothing_behind(case):
    ids = case.ids(12)
    reference = case.stack.logits(ids)
    for point in case.stack.nodes.widths:
        with intervene(case.stack, {point: lambda x: x * 0.5 + 1.0}):
            changed = case.stack.logits(ids)
        # A constant on every key is invisible to the softmax, but halving the keys is not.
        assert (changed - reference).abs().max() > 1e-4, point
    with pytest.raises(RuntimeError, match="inside"), intervene(case.stack, {"*": torch.zeros_like}):
        raise RuntimeError("inside")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.stack.modules())
    assert torch.equal(case.stack.logits(ids), reference)
    with pytest.raises(BridgesError, match=r"9\.q"), record(case.stack, "9.q"):
        pass


def test_recording_changes_nothing_and_nested_interventions_stack(case):
    ids = case.ids(7)
    reference = case.stack.logits(ids)
    with record(case.stack) as seen:
        torch.testing.assert_close(case.stack.logits(ids), reference)
    with intervene(case.stack, {"1.v": lambda x: x + 1}):
        with record(case.stack, "1.v") as changed:
            case.stack.logits(ids)
        torch.testing.assert_close(changed["1.v"], seen["1.v"] + 1)
        case.stack.logits(ids)
    assert torch.equal(case.stack.logits(ids), reference)


def test_gradients_reach_the_stream_and_no_weight(case):
    ids = case.ids(10)
    with torch.inference_mode():  # what this caches must not spoil a later backward pass
        h = case.stack.run(ids).sites[1]
    h = h.clone().requires_grad_()
    case.stack.unembed(case.stack.run_segment(h, 1, case.stack.n_sublayers), ids).sum().backward()
    assert torch.isfinite(h.grad).all() and h.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in case.stack.parameters())
    case.stack.train()
    assert not any(m.training for m in case.stack.modules())


def test_parity_in_other_dtypes(case):
    case.stack.logits(case.ids(32))  # caches in fp32
    assert check_parity(case.stack.bfloat16()) <= 0.5
    assert check_parity(case.stack.double()) <= 1e-8 * 1e3


def test_eager_attention_is_masked_too(tiny_model):
    model = tiny_model("gpt2")
    model.set_attn_implementation("eager")
    wrap_dense(model)


def test_sequences_beyond_the_position_table(tiny_model):
    stack = wrap_dense(tiny_model("gpt2"))
    with pytest.raises(ModelError, match="64"):
        stack.logits(torch.zeros(1, 65, dtype=torch.long))


class WithoutNorm(GPT2Stack):
    def mlp_out(self, layer, h):
        return self.layers[layer].mlp(h)


class LooksAhead(GPT2Stack):
    def mask(self, h, sliding=False):
        return torch.ones(h.shape[1], h.shape[1], dtype=torch.bool)


@pytest.mark.parametrize("broken", [WithoutNorm, LooksAhead])
def test_a_broken_adapter_fails_parity(tiny_model, broken):
    with pytest.raises(ModelError, match=rf"{broken.__name__} does not give this gpt2 model's own logits"):
        check_parity(broken(tiny_model("gpt2")))


def test_weights_that_are_not_finite(tiny_model):
    model = tiny_model("gpt2")
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        wrap_dense(model)


@pytest.mark.parametrize("change", [{"do_layer_norm_before": False}, {"word_embed_proj_dim": 16}])
def test_an_opt_that_is_no_residual_stack(tiny_model, change):
    with pytest.raises(ModelError, match="OPT-350m"):
        wrap_dense(tiny_model("opt", **change))


def test_an_architecture_without_adapter():
    model = hf.BloomForCausalLM(hf.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(ModelError, match=r"'bloom' are not supported.*gpt2.*llama.*@register\(\"bloom\"\)"):
        wrap_dense(model)


def test_every_family_is_covered(tiny_configs):
    assert {config.model_type for config in tiny_configs.values()} == set(FAMILIES)
