"""TransformerLens's hook names and streams, read and changed in dense and sparse stacks."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from bridges.dense import wrap_dense
from bridges.errors import BridgesError
from bridges.hybrid import Path, path_logits
from bridges.nodes import hook_names, intervene, record

IDS = torch.randint(29, (2, 6), generator=torch.Generator().manual_seed(0))


def gpt2(randomise):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=29, n_positions=12, n_embd=16, n_layer=3, n_head=4)).eval()
    randomise(model, 0)
    return wrap_dense(model)


@pytest.fixture(params=["sparse", "gpt2"])
def stack(request, tiny_sparse, randomise):
    if request.param == "gpt2":
        return gpt2(randomise)
    return tiny_sparse(0, n_layer=3).requires_grad_(False)


@torch.no_grad()
def test_streams_are_those_of_the_sites(stack):
    sites = stack.run(IDS).sites
    names = [f"blocks.{layer}.hook_resid_{place}" for layer in range(3) for place in ("pre", "mid", "post")]
    for go in (stack.logits, stack.run):
        with record(stack, ["stream.*", *names]) as seen:
            go(IDS)
        assert set(seen) == {*(f"stream.{i}" for i in range(7)), *names}
        for site, h in sites.items():
            assert torch.equal(seen[f"stream.{site}"], h)
        for layer in range(3):
            for place, site in (("pre", 0), ("mid", 1), ("post", 2)):
                assert torch.equal(seen[f"blocks.{layer}.hook_resid_{place}"], sites[2 * layer + site])


@torch.no_grad()
def test_a_name_stands_for_its_node_point(stack):
    pairs = {
        "blocks.1.ln1.hook_normalized": "1.attn_in",
        "blocks.1.attn.hook_q": "1.q",
        "blocks.1.attn.hook_k": "1.k",
        "blocks.1.attn.hook_v": "1.v",
        "blocks.1.hook_attn_out": "1.attn_out",
        "blocks.1.ln2.hook_normalized": "1.mlp_in",
        "blocks.1.mlp.hook_post": "1.mlp_neuron",
        "blocks.1.hook_mlp_out": "1.mlp_out",
    }
    with record(stack, [*pairs, *pairs.values()]) as seen:
        stack.logits(IDS)
    assert len(seen) == 16 and all(seen[name] is seen[point] for name, point in pairs.items())
    mine, theirs = [], []
    for name, point in pairs.items():
        for key, out in ((name, theirs), (point, mine)):
            with intervene(stack, {key: lambda x: 0.5 * x}):
                out.append(stack.logits(IDS))
    plain = stack.logits(IDS)
    assert all(torch.equal(a, b) and not torch.equal(a, plain) for a, b in zip(mine, theirs, strict=True))


@torch.no_grad()
def test_globs_choose_hooks_and_leave_streams_to_themselves(stack):
    with record(stack, "blocks.*.attn.hook_*") as seen:
        stack.logits(IDS)
    assert set(seen) == {f"blocks.{layer}.attn.hook_{kind}" for layer in range(3) for kind in "qkv"}
    with record(stack, "*") as seen:
        stack.logits(IDS)
    assert set(seen) == set(stack.nodes.widths)
    with record(stack, ["*.hook_resid_mid", "0.v"]) as seen:
        stack.logits(IDS)
    assert set(seen) == {"0.v", *(f"blocks.{layer}.hook_resid_mid" for layer in range(3))}


@torch.no_grad()
def test_a_changed_stream_is_what_the_model_goes_on_with(stack):
    plain = stack.run(IDS)
    changed = plain.sites[3] + 1
    expected = stack.unembed(stack.run_segment(changed, 3, 6), IDS)
    with intervene(stack, {"blocks.1.hook_resid_mid": lambda h: h + 1}), record(stack, "stream.3") as seen:
        assert torch.equal(stack.logits(IDS), expected)
        run = stack.run(IDS)
    assert torch.equal(seen["stream.3"], changed) and torch.equal(run.sites[3], changed)
    assert torch.equal(stack.unembed(run.final[0], IDS), expected)
    assert stack.nodes.streams == 0 and torch.equal(stack.run(IDS).final[0], plain.final[0])


@torch.no_grad()
def test_the_last_and_first_streams_are_met_once(stack):
    with intervene(stack, {"blocks.2.hook_resid_post": lambda h: 2 * h, "blocks.0.hook_resid_pre": lambda h: h + 3}):
        whole = stack.logits(IDS)
        h = stack.run_segment(stack.run_segment(stack.embed(IDS), 0, 2), 2, 6)
        assert torch.equal(stack.unembed(h, IDS), whole)
    h = 2 * stack.run_segment(stack.embed(IDS) + 3, 0, 6)
    assert torch.equal(stack.unembed(h, IDS), whole)


@torch.no_grad()
def test_streams_that_join_later_are_changed_from_their_site_on(stack):
    sites = stack.run(IDS).sites
    with intervene(stack, {"stream.2": lambda h: h + 1}):
        final = stack.run_from({0: sites[0], 4: sites[4]}).final
    torch.testing.assert_close(final[0], stack.run_segment(sites[2] + 1, 2, 6))
    torch.testing.assert_close(final[4], stack.run_segment(sites[4], 4, 6))


@torch.no_grad()
def test_streams_of_both_stacks_in_a_mixed_pass(tiny_pair):
    path = Path.parse("D0-S2")
    with record(tiny_pair.dense, "stream.*") as dense, record(tiny_pair.sparse, "stream.*") as sparse:
        path_logits(path, tiny_pair.dense, tiny_pair.sparse, tiny_pair.bridges, tiny_pair.ids)
    assert set(dense) == {"stream.0", "stream.1"} and set(sparse) == {"stream.2", "stream.3", "stream.4"}


def test_a_layer_that_is_one_sublayer_has_no_middle(randomise):
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=29, max_position_embeddings=12, **shape)).eval()
    randomise(model, 0)
    stack = wrap_dense(model)
    names = hook_names(stack)
    assert names["blocks.1.hook_resid_pre"] == "stream.1" and names["blocks.1.hook_resid_post"] == "stream.2"
    close = r"no 'blocks.0.hook_resid_mid'. Did you mean 'blocks.0.hook_resid_pre'"
    with pytest.raises(BridgesError, match=close), record(stack, "blocks.0.hook_resid_mid"):
        pass
    with record(stack, "blocks.*.hook_resid_post") as seen, torch.no_grad():
        sites = stack.run(IDS).sites
    assert torch.equal(seen["blocks.0.hook_resid_post"], sites[1])


@pytest.mark.parametrize("name", ["blocks.9.hook_resid_pre", "stream.7", "stream.x", "hook_embed", "blocks.0.hook_z"])
def test_names_that_do_not_exist_are_named(stack, name):
    with pytest.raises(BridgesError, match="Valid:"), record(stack, name):
        pass
    with pytest.raises(BridgesError, match="Valid:"), intervene(stack, {name: lambda x: x}):
        pass
