"""Checkpoints of OpenAI's format against a plain forward pass that is written from the format's description."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bridges.circuits.weights import edge_matrices
from bridges.errors import CheckpointError, ConfigError
from bridges.interop.openai import is_openai_folder, load_openai, read_config
from bridges.interop.openai_save import save_openai
from bridges.nodes import record
from bridges.sparse import SparseTransformer

PLACES = "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out,resid_post_attn,resid_post_mlp"
BASE: dict[str, Any] = {
    "block_size": 11, "vocab_size": 23, "n_layer": 2, "n_head": 4, "d_head": 3, "d_model": 16, "d_mlp": 20,
    "dropout": 0.0, "bias": True, "ln_bias": True, "rms_norm": True, "residual_activation_type": "identity",
    "activation_type": "gelu", "afrac": None, "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": False, "tokenizer_name": "tinypython_2k", "enable_bigram_table": False,
    "learnable_bigram_table": False, "d_pos_emb": None, "sinusoidal_cat_pos_emb": False, "sink": False,
    "bigram_table_rank": None, "flash": True, "grad_checkpointing": True,
}  # fmt: skip
SPARSE = {"afrac": 0.25, "afrac_loctypes": PLACES.removesuffix(",resid_post_attn,resid_post_mlp")}
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "LayerNorm": {"rms_norm": False},
    "LayerNorm without bias": {"rms_norm": False, "ln_bias": False},
    "no biases": {"bias": False},
    "relu": {"activation_type": "relu"},
    "relu on the stream": {"residual_activation_type": "relu"},
    "AbsTopK": SPARSE,
    "AbsTopK everywhere": {"afrac": 0.4, "afrac_loctypes": PLACES},
    "AbsTopK on the stream alone": {"afrac": 0.3, "afrac_loctypes": "resid_post_mlp"},
    "relu and AbsTopK on the stream": {"residual_activation_type": "relu", "afrac": 0.5, "afrac_loctypes": PLACES},
    "tied": {"tied_unembed": True},
    "bigram table": {"enable_bigram_table": True, "learnable_bigram_table": True},
    "concatenated positions": {"d_pos_emb": 5},
    "concatenated positions, LayerNorm, AbsTopK": {"d_pos_emb": 4, "rms_norm": False} | SPARSE,
    "sinusoidal positions": {"d_pos_emb": 7, "sinusoidal_cat_pos_emb": True},
    "sinks": {"sink": True},
    "as released": {"sink": True, "d_pos_emb": 4, "enable_bigram_table": True} | SPARSE,
    "tied LayerNorm, everything": {
        "rms_norm": False, "tied_unembed": True, "sink": True, "d_pos_emb": 3, "enable_bigram_table": True,
        "residual_activation_type": "relu", "activation_type": "relu", "afrac": 0.6, "afrac_loctypes": PLACES,
    },
}  # fmt: skip


def random_state(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return 0.4 * torch.randn(shape, generator=generator)

    d, inner, v = config["d_model"], config["n_head"] * config["d_head"], config["vocab_size"]
    position = config["d_pos_emb"] or d
    reads = d + (config["d_pos_emb"] or 0)
    state = {"transformer.wte.weight": noise(v, d), "transformer.wpe.weight": noise(config["block_size"], position)}

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + noise(width)
        if not config["rms_norm"] and config["ln_bias"]:
            state[f"{name}.bias"] = noise(width)

    def linear(name: str, out: int, into: int) -> None:
        state[f"{name}.weight"] = noise(out, into)
        if config["bias"]:
            state[f"{name}.bias"] = noise(out)

    for layer in range(config["n_layer"]):
        h = f"transformer.h.{layer}"
        norm(f"{h}.ln_1", d)
        norm(f"{h}.ln_2", d)
        if config["d_pos_emb"]:
            norm(f"{h}.ln_p1", position)
            norm(f"{h}.ln_p2", position)
        linear(f"{h}.attn.c_attn", 3 * inner, reads)
        linear(f"{h}.attn.c_proj", d, inner)
        linear(f"{h}.mlp.c_fc", config["d_mlp"], reads)
        linear(f"{h}.mlp.c_proj", d, config["d_mlp"])
        if config["sink"]:
            state[f"{h}.attn.attn_imp.sink_logit"] = noise(config["n_head"])
    norm("transformer.ln_f", d)
    state["lm_head.weight"] = state["transformer.wte.weight"] if config["tied_unembed"] else noise(v, d)
    state["final_logits_bias"] = noise(v)
    if config["enable_bigram_table"]:
        state["bigram_table"] = noise(v, v)
    return state


def reference(config: dict[str, Any], state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits ``[B, T, V]`` of the format's model: nothing of the package is used."""
    d_pos, tokens = config["d_pos_emb"], ids.shape[1]

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        if config["rms_norm"]:
            return weight * x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight + (0 if bias is None else bias)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.tensor(0.0))

    def sparse(x: Tensor, place: str) -> Tensor:
        if config["afrac"] is None or place not in config["afrac_loctypes"].split(","):
            return x
        smallest = x.abs().sort(-1, descending=True).values[..., int(config["afrac"] * x.shape[-1]) - 1, None]
        return x * (x.abs() >= smallest)

    def stream(x: Tensor, place: str) -> Tensor:
        return sparse(torch.relu(x) if config["residual_activation_type"] == "relu" else x, place)

    wpe = state["transformer.wpe.weight"][:tokens]
    x = state["transformer.wte.weight"][ids]
    x = x if d_pos else x + wpe
    for layer in range(config["n_layer"]):
        h = f"transformer.h.{layer}"

        def read(x: Tensor, which: int, h: str = h) -> Tensor:
            seen = norm(x, f"{h}.ln_{which}")
            return torch.cat([seen, norm(wpe, f"{h}.ln_p{which}").expand(len(x), -1, -1)], -1) if d_pos else seen

        q, k, v = linear(sparse(read(x, 1), "attn_in"), f"{h}.attn.c_attn").chunk(3, -1)
        q, k, v = sparse(q, "attn_q"), sparse(k, "attn_k"), sparse(v, "attn_v")
        mixed = []
        for head in range(config["n_head"]):
            part = slice(head * config["d_head"], (head + 1) * config["d_head"])
            scores = q[..., part] @ k[..., part].mT / math.sqrt(config["d_head"])
            weights = scores.exp() * torch.ones(tokens, tokens).tril()
            total = weights.sum(-1, keepdim=True)
            if config["sink"]:
                total = total + state[f"{h}.attn.attn_imp.sink_logit"][head].exp()
            mixed.append(weights / total @ v[..., part])
        x = stream(x + sparse(linear(torch.cat(mixed, -1), f"{h}.attn.c_proj"), "attn_out"), "resid_post_attn")
        hidden = linear(sparse(read(x, 2), "mlp_in"), f"{h}.mlp.c_fc")
        if config["activation_type"] == "relu":
            hidden = hidden.clamp_min(0)
        else:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = stream(x + sparse(linear(sparse(hidden, "mlp_neuron"), f"{h}.mlp.c_proj"), "mlp_out"), "resid_post_mlp")
    logits = norm(x, "transformer.ln_f") @ state["lm_head.weight"].T + state.get("final_logits_bias", 0)
    return logits + (state["bigram_table"][ids] if config["enable_bigram_table"] else 0)


def write(folder: Path, config: dict[str, Any], state: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "beeg_config.json").write_text(json.dumps(config))
    torch.save(state, folder / "final_model.pt")
    return folder


@pytest.fixture(params=list(SWITCHES))
def config(request) -> dict[str, Any]:
    return BASE | SWITCHES[request.param]


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(23, (3, 9), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_the_logits_are_those_of_the_format(config, ids, tmp_path):
    state = random_state(config)
    model = load_openai(write(tmp_path / "x", config, state))
    assert isinstance(model, SparseTransformer) and not model.training
    torch.testing.assert_close(model.logits(ids), reference(config, state, ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_every_switch_changes_the_reference(ids):
    plain = reference(BASE, random_state(BASE), ids)
    for name, changes in SWITCHES.items():
        if changes:
            other = BASE | changes
            assert not torch.allclose(reference(other, random_state(other), ids), plain, atol=1e-2), name


@torch.no_grad()
def test_what_is_written_reads_back_the_same(config, ids, tmp_path):
    state = random_state(config)
    model = load_openai(write(tmp_path / "x", config, state))
    again = load_openai(save_openai(model, tmp_path / "y"))
    assert torch.equal(again.logits(ids), model.logits(ids))
    written = json.loads((tmp_path / "y" / "beeg_config.json").read_text())
    # A bias of LayerNorm means nothing beside RMSNorm, and a finished table is not trained.
    free = {"learnable_bigram_table", "ln_bias"} if config["rms_norm"] else {"learnable_bigram_table"}
    assert {k: v for k, v in written.items() if k not in free}.items() <= config.items()
    weights = torch.load(tmp_path / "y" / "final_model.pt", weights_only=True)
    assert set(weights) == set(state)
    torch.testing.assert_close(reference(BASE | written, weights, ids), model.logits(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"position": "none", "bigram": "low_rank"},
        {"position": "learned", "bias": False, "bigram": "none", "norm_eps": 0.1},
        {"position": "concat_shared", "norm_eps": 0.1, "activation": "relu"},
        {"position": "sinusoidal", "norm": "layer", "norm_gain": True, "norm_eps": 0.1, "norm_bias": True},
        {"tie_word_embeddings": True, "norm_eps": 0.1, "residual_activation": "relu"},
    ],
)
def test_models_made_here_are_written_with_their_logits(tiny_sparse, options, tmp_path):
    model = tiny_sparse(0, **options)
    ids = torch.randint(29, (3, 9), generator=torch.Generator().manual_seed(5))
    folder = save_openai(model, tmp_path)
    config = json.loads((folder / "beeg_config.json").read_text())
    state = torch.load(folder / "final_model.pt", weights_only=True)
    torch.testing.assert_close(reference(BASE | config, state, ids), model.logits(ids), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(load_openai(folder).logits(ids), model.logits(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"position": "concat"}, "table of positions for every read"),
        ({"activation": "gelu_tanh"}, "no activation gelu_tanh"),
        ({"n_head": 3}, "multiple of n_head=3"),
        ({"activation_fraction": 0.01}, "keeps none of the channels"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tiny_sparse, options, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        save_openai(tiny_sparse(0, **options), tmp_path)
    assert not is_openai_folder(tmp_path)


@torch.no_grad()
def test_nodes_and_weights_are_there_for_a_search(config, ids, tmp_path):
    model = load_openai(write(tmp_path / "x", config, random_state(config)))
    with record(model, "*") as seen:
        model.logits(ids)
    assert {p: x.shape[-1] for p, x in seen.items()} == model.nodes.widths
    reads = config["d_model"] + (config["d_pos_emb"] or 0)
    shapes = {w.name: tuple(w.weight.shape) for w in edge_matrices(model)}
    assert shapes["0.q"] == (12, reads) and shapes["1.up"] == (20, reads) and shapes["1.down"] == (16, 20)
    names = list(model.sparse_matrices())
    assert ("head.weight" in names) != config["tied_unembed"] and "tokens.weight" in names


@torch.no_grad()
def test_a_file_may_be_older_than_its_reader(ids, tmp_path):
    config = BASE | {"sink": True}
    state = random_state(config)
    del state["final_logits_bias"]
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 11, 11).tril()
        state[f"transformer.h.{layer}.attn.attn_imp.sink_logit"] = torch.tensor([0.7])
    older = {k: v for k, v in config.items() if k not in ("d_mlp", "tied_unembed", "sink")}
    older |= {"n_mlp": 20, "tied_unembed": False, "sink": True, "use_tied_aux_matrix": False}
    model = load_openai(write(tmp_path / "x", older, {k: v.bfloat16() for k, v in state.items()}))
    rounded = {k: v.bfloat16().float() for k, v in state.items()}
    for name in rounded:
        if name.endswith("sink_logit"):
            rounded[name] = rounded[name].expand(4)
    torch.testing.assert_close(model.logits(ids), reference(config, rounded, ids), atol=1e-4, rtol=1e-4)


def _without(key: str):
    return lambda config, state: state.pop(key)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda c, s: c.pop("n_layer"), "lacks n_layer"),
        (lambda c, s: c.update(n_layer="2"), "n_layer='2' must be a whole number"),
        (lambda c, s: c.update(n_layer=0), "n_layer=0 must be a whole number"),
        (lambda c, s: c.update(rms_norm=1), "rms_norm=1 must be true or false"),
        (lambda c, s: c.update(activation_type="swish"), "activation_type='swish' must be gelu or relu"),
        (lambda c, s: c.update(afrac=2.0), "afrac=2.0 must be"),
        (lambda c, s: c.update(afrac=0.01), "keeps none of the channels of attn_in"),
        (lambda c, s: c.update(afrac_loctypes="attn_in, attn_q"), "' attn_q'.*Did you mean 'attn_q'"),
        (lambda c, s: c.update(rotary=True), "not known here: rotary"),
        (lambda c, s: c.update(n_layer=3), "lacks transformer.h.2.ln_1.weight and"),
        (lambda c, s: c.update(d_model=24, n_head=4), "wrong form where transformer.wte.weight is .23, 16."),
        (lambda c, s: c.update(sink=True), "lacks transformer.h.0.attn.attn_imp.sink_logit"),
        (lambda c, s: c.update(n_layer=1), "beyond its settings transformer.h.1"),
        (lambda c, s: c.update(tied_unembed=True), "embedding and unembedding differ"),
        (lambda c, s: s["lm_head.weight"].fill_(math.nan), "damaged: head.weight has values that are not finite"),
        (lambda c, s: s.update({"lm_head.weight": s["lm_head.weight"].long()}), "of int64"),
        (lambda c, s: s.update(step=3), "no state dict"),
        (_without("transformer.ln_f.weight"), "lacks transformer.ln_f.weight"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(damage, words, tmp_path):
    config, state = dict(BASE), dict(random_state(BASE))
    damage(config, state)
    with pytest.raises(CheckpointError, match=words):
        load_openai(write(tmp_path / "x", config, state))


class Runs:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_files_that_are_no_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "x", BASE, random_state(BASE))
    file = folder / "final_model.pt"
    whole = file.read_bytes()
    for content in (b"", b"version https://git-lfs", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"final_model.pt is no readable file of weights") as caught:
            load_openai(folder)
        assert "weights_only" not in str(caught.value)
    torch.save({"x": Runs()}, file)
    with pytest.raises(CheckpointError, match="other things than tensors"):
        load_openai(folder)
    assert not (tmp_path / "ran").exists()
    file.unlink()
    with pytest.raises(CheckpointError, match=r"There is no .*final_model.pt"):
        load_openai(folder)


@pytest.mark.parametrize("content, words", [("{", "is no JSON"), ("[1]", "but a list"), ("[" * 100_000, "is no JSON")])
def test_settings_that_are_none(content, words, tmp_path):
    (tmp_path / "beeg_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=words):
        read_config(tmp_path)


def test_a_folder_without_settings(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no readable .*beeg_config.json"):
        read_config(tmp_path)


def test_fixed_positions_are_not_trained(tmp_path):
    fixed = BASE | {"d_pos_emb": 6, "sinusoidal_cat_pos_emb": True}
    model = load_openai(write(tmp_path / "x", fixed, random_state(fixed)))
    assert not model.positions.weight.requires_grad and model.tokens.weight.requires_grad
    assert F.mse_loss(model.positions.weight, random_state(fixed)["transformer.wpe.weight"]) == 0
