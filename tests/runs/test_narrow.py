"""A narrow run through the command: any family of dense model, its tables, its report, and what goes wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers as hf
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import bridges
from bridges.data.tokenizer import leading_token, vocabulary_size
from bridges.dense import family_of
from bridges.errors import BridgesError
from bridges.storage.tables.hybrids import HELDOUT, OTHERS, REACH, SCOPE_TEXTS, TEXT, TRAINED

VOCAB = 2048
ENDS = {"vocab_size": VOCAB, "bos_token_id": VOCAB - 1, "eos_token_id": VOCAB - 1, "pad_token_id": None}
SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 128}
ROTARY = {**ENDS, **SIZE, "intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16}
CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: hf.GPT2Config(**ENDS, n_embd=32, n_layer=3, n_head=2, n_positions=128),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**ENDS, **SIZE, intermediate_size=48),
    "gemma": lambda: hf.GemmaConfig(**ROTARY),
    "opt": lambda: hf.OPTConfig(**ENDS, **SIZE, ffn_dim=48, word_embed_proj_dim=32),
    "llama": lambda: hf.LlamaConfig(**ROTARY),
}
PROMPT = "while True:"


def _model(name: str, seed: int = 0) -> Any:
    """A random model with weights large enough that its answers differ from prompt to prompt."""
    config = CONFIGS[name]()
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=family_of(config.model_type).attn_implementation
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5 * p.shape[-1] ** -0.5)
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("narrow")
    (root / "text").mkdir()
    for i in range(120):
        (root / "text" / f"{i}.py").write_text(f"def f{i}(x):\n    while x:\n        return x + {i}\n\n\n" * 20)
    return root


@pytest.fixture(scope="module")
def saved(place: Path) -> Callable[..., Path]:
    """``saved(family, change=None)``: the folder of a random model with the bundled tokenizer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(resources.files("bridges") / "assets" / "tinypython"))

    def save(family: str, change: Callable[[Any], None] | None = None, label: str = "") -> Path:
        folder = place / "models" / (label or family)
        if not folder.exists():
            model = _model(family)
            with torch.no_grad():
                if change is not None:
                    change(model)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def narrow(cli: Callable[..., Any], place: Path) -> Callable[..., tuple[int, str, str]]:
    """``narrow(model, *overrides)``: the command with ``experiment=narrow`` and tiny sizes."""

    def call(model: Path | str, *overrides: str) -> tuple[int, str, str]:
        given = {
            "experiment": "narrow",
            "model": "hf",
            "model.name": str(model),
            "behaviours": "python",
            "behaviours.names": "[while_return_true]",
            "circuits": "none",
            "data": "files",
            "data.path": str(place / "text"),
            "data.context": "64",
            "data.prompts": "64",
            "train.tokens": "4000",
            "train.batch": "16",
            "train.log_every": "1",
            "train.precision": "fp32",
            "kernels": "python",
            "sparse.n_layer": "2",
            "sparse.d_model": "24",
            "sparse.d_head": "8",
            "eval.sequences": "8",
            "eval.bootstrap": "20",
            "eval.ridge_tokens": "512",
            "behaviours.pairs": "64",
            "behaviours.hybrid_pairs": "4",
            "runs_dir": str(place / "runs"),
        }
        changed = [o.lstrip("+").split("=", 1) for o in overrides]
        given |= dict(changed)
        return cli(*(f"{key}={value}" for key, value in given.items() if value != "absent"))

    return call


def _loss_stays_low(run: bridges.Run, factor: float = 2.0) -> None:
    training = run.table("training")
    assert len(training) >= 5
    # Where hybrids begin later, their terms are added to the sum: each part is held against its own beginning.
    for _, part in training.groupby(training["kl_s2d"].notna()):
        assert part["total"].max() <= factor * part["total"].iloc[0], part["total"].tolist()


def _one_line(code: int, err: str) -> str:
    assert code == 1 and err.startswith("error: ") and err.strip().count("\n") == 0, err
    return err


@pytest.mark.parametrize("family", list(CONFIGS))
def test_a_narrow_run_of_every_family(narrow, saved, place, family):
    code, out, err = narrow(saved(family), f"name={family}", "train.tokens=7000")
    assert code == 0, out + err
    run = bridges.load(place / "runs" / family)
    _loss_stays_low(run)
    assert "answer_weighted" in run.table("training")
    scope = run.table("scope").set_index("text")
    assert set(scope.index) == set(SCOPE_TEXTS) == {TRAINED, HELDOUT, REACH, OTHERS, TEXT}
    assert scope.loc[[TRAINED, HELDOUT], "kl"].gt(0).all() and scope.loc[[TRAINED, HELDOUT], "known"].eq(1).all()
    assert 0 < scope.loc[TEXT, "known"] <= 1
    profile = run.table("profile")
    assert set(profile["behaviour"]) == {"while_return_true"} and (profile["n"] == 8).all()
    # NaN where the random model answers the wrong way round.
    assert abs(profile["share_moved"].fillna(0).iloc[0]) < 1e-4
    assert "knows those alone: KL to the dense model" in out and "on trained prompts" in out
    assert "streams are kept for training" in out and "Narrowing the dense model to" in out
    assert (run.folder.path / "report.html").stat().st_size > 10_000
    # What is read back: the logits are the full model's own.
    assert run.dense.vocab_size == run.sparse.vocab_size == vocabulary_size(run.tokenizer) < VOCAB / 3
    assert run.bridges.constant_prefix >= 1
    pair = run.prompts("while_return_true", count=1).pairs[0]
    ids = torch.tensor(
        [[leading_token(run.tokenizer), *run.tokenizer(pair.clean, add_special_tokens=False)["input_ids"]]]
    )
    logits = run.hybrid(pair.clean, dense_until=1)
    assert logits.shape == (*ids.shape, run.dense.vocab_size) and torch.isfinite(logits).all()
    assert torch.equal(logits, run.hybrid(ids, path="D0-S1"))
    full, words = bridges.load_dense(str(saved(family)), check=False)
    old = torch.tensor([[leading_token(words), *words(pair.clean, add_special_tokens=False)["input_ids"]]])
    columns = [words.convert_tokens_to_ids(run.tokenizer.convert_ids_to_tokens(i)) for i in range(run.dense.vocab_size)]
    torch.testing.assert_close(run.dense.logits(ids), full.logits(old)[..., columns], rtol=1e-4, atol=1e-4)
    with pytest.raises(BridgesError, match=r"is not among the [0-9]+ tokens that this narrow run knows") as e:
        run.hybrid("x = lambda y", dense_until=1)
    assert "\n" not in str(e.value)
    assert run.data.fingerprint == json.loads((run.folder.path / "inputs.json").read_text())["text"]["hash"]


def _massive_token(model: Any) -> None:
    """The stream of the token that all texts begin with is a thousand times as long."""
    model.get_input_embeddings().weight[VOCAB - 1] *= 1000


def _massive_channel(model: Any) -> None:
    """An MLP writes a thousand times as much into one channel, at every token."""
    model.model.layers[0].mlp.down_proj.weight[5] *= 1000


@pytest.mark.parametrize("change", [_massive_token, _massive_channel])
def test_massive_activations_do_not_blow_up_a_narrow_run(narrow, saved, place, change):
    name = change.__name__
    # All crossings at every step, from the first on, so that no loss depends on which one was drawn.
    settings = ("train.tokens=8000", "train.hybrid_sites=all", "train.hybrid_from=0")
    code, out, err = narrow(saved("llama", change, name), f"name={name}", *settings)
    assert code == 0, out + err
    run = bridges.load(place / "runs" / name)
    h = run.dense.run(run.prompts("while_return_true", count=4).ids[:, 0]).sites[2]
    if change is _massive_token:
        sizes = h.norm(dim=-1)
        assert float(sizes[:, 0].min()) > 100 * float(sizes[:, 1:].median())
    else:
        spread = h[:, 1:].flatten(0, 1).std(0)
        assert float(spread[5]) > 100 * float(spread.median())
    # Tokens near the mean of a massive channel dominate the decoders' NMSE: single steps reach 2.4 times the first.
    _loss_stays_low(run, 2.0 if change is _massive_token else 3.0)
    training = run.table("training")
    assert training["total"].tail(3).median() < training["total"].iloc[0]


def test_a_narrow_run_with_circuits_and_half_ordinary_text(narrow, saved, place):
    code, out, err = narrow(
        saved("gpt2"),
        "name=circuits",
        "data.focus=0.5",
        "circuits=default",
        "circuits.models=[sparse]",
        "circuits.steps=4",
        "circuits.pairs=16",
        "circuits.workers=1",
    )
    assert code == 0, out + err
    run = bridges.load(place / "runs" / "circuits")
    _loss_stays_low(run)
    assert run.table("training")["answer_weighted"].isna().any()
    assert run.verdict("while_return_true").row["verdict"] != "reproduced"
    assert run.data.answered is not None and not run.data.answered["train"].all()


def test_circuits_of_a_dense_model_with_gated_mlps_and_shared_values(narrow, saved, place):
    code, out, err = narrow(
        saved("llama"),
        "name=gated",
        "circuits=default",  # the dense model's own circuits too, which narrow runs leave out
        "circuits.steps=4",
        "circuits.pairs=16",
        "circuits.workers=1",
        "circuits.max_node_fraction=1",
        "circuits.controls.names=[]",
        "circuits.controls.stop_early=false",
        # A random model does nothing nine times in ten.
        "verdict.dense_accuracy=0.01",
        "verdict.sparse_accuracy=0.01",
    )
    assert code == 0, out + err
    run = bridges.load(place / "runs" / "gated")
    circuits = run.table("circuits").set_index("model")
    assert circuits.loc["dense", "edges"] > 0 and circuits.loc["dense", "nodes"] < circuits.loc["dense", "total_nodes"]
    claims = run.verdict("while_return_true").claims.set_index("criterion")
    assert claims.loc["dense_edges", "bar"] == circuits.loc["dense", "edges"]
    graph = json.loads((place / "runs" / "gated" / "circuits" / "while_return_true.dense.mib.json").read_text())
    assert graph["cfg"]["n_heads"] == 2


def test_prompts_of_ones_own(narrow, saved, place):
    pairs = [
        {"clean": f"{name} = [{i}", "counterfactual": f"{name} = ({i}", "clean_token": "]", "counterfactual_token": ")"}
        for name in ("x", "y", "value", "self.a")
        for i in range(10)
    ]
    file = place / "mine.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    code, out, err = narrow(
        saved("gpt_neox"), "name=mine", "behaviours=file", f"behaviours.path={file}", "behaviours.names=null",
        "train.tokens=2000",
    )  # fmt: skip
    assert code == 0, out + err
    run = bridges.load(place / "runs" / "mine")
    _loss_stays_low(run)
    assert run.behaviours == ["mine"] and run.dense.vocab_size < 60
    assert set(run.table("scope")["text"]) >= {TRAINED, HELDOUT, TEXT}
    assert run.hybrid("self.a = [3", dense_until=0).shape[-1] == run.dense.vocab_size
    # Ordinary text is longer than any prompt here.
    assert max(len(ids) for ids in run.data.blocks["train"]) < 12 < run.sparse.context


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["behaviours=none", "behaviours.names=null"],
            "data.focus=1 trains on the behaviours' prompts, and there are none",
        ),
        (["behaviours.names=[]"], "data.focus=1 trains on the behaviours' prompts, and there are none"),
        (["data.focus=0"], "data.vocabulary=seen needs data.focus above 0"),
        (["model.leading_token=bos"], "model.leading_token='bos' is no token of this model"),
        (["behaviours=english", "behaviours.names=[capitals]"], "expresses none of the behaviours"),
        (
            ["model=planted", "model.name=absent", "behaviours=planted", "behaviours.names=null"],
            "data.vocabulary=seen needs a Hugging Face model",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_line(narrow, saved, place, overrides, message):
    before = sorted((place / "runs").glob("*"))
    code, _, err = narrow(saved("gpt2"), *overrides)
    assert message in _one_line(code, err)
    assert sorted((place / "runs").glob("*")) == before


def test_a_model_of_the_hub_without_network(narrow, monkeypatch, tmp_path):
    def unreachable(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    code, _, err = narrow("absent", "model=gpt2")
    assert "gpt2" in _one_line(code, err) and "model=hf model.name=<folder>" in err
