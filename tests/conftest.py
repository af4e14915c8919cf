"""Tiny stacks, bridges and texts that the tests share; weights are random everywhere, so that nothing hides at zero."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from bridges.bridge import Bridges, pair_sites
from bridges.data.blocks import TokenBlocks
from bridges.data.tokenizer import train_tokenizer
from bridges.sparse import SparseTransformer, SparseTransformerConfig

VOCAB = 29
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_layer": 2,
    "d_model": 16,
    "d_mlp": 24,
    "d_head": 4,
    "n_head": 4,
    "context": 12,
    "d_position": 4,
    "bigram_rank": 3,
}
DENSE: dict[str, Any] = {
    "d_model": 12,
    "d_mlp": 20,
    "n_head": 3,
    "activation_fraction": None,
    "attention_sink": False,
    "bigram": "none",
    "position": "learned",
    "norm_gain": True,
}


def _randomise(module: nn.Module, seed: int, std: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = std * torch.randn(p.shape, generator=generator)
            p.copy_(1 + noise if "norm" in name else noise)


def _tiny_sparse(seed: int = 0, **options: Any) -> SparseTransformer:
    model = SparseTransformer(SparseTransformerConfig(**(SHAPE | options)))
    _randomise(model, seed)
    return model.eval()


@dataclass
class Pair:
    """A frozen dense stack, a sparse one, their bridges and some text."""

    dense: SparseTransformer
    sparse: SparseTransformer
    bridges: Bridges
    ids: Tensor


def _tiny_pair(seed: int = 0, dense: dict[str, Any] | None = None, every: int | None = None, **options: Any) -> Pair:
    frozen = _tiny_sparse(seed + 1, **(DENSE | (dense or {}))).requires_grad_(False)
    sparse = _tiny_sparse(seed + 2, **options)
    pairs = pair_sites(frozen.n_sublayers, sparse.n_sublayers, every)
    bridges = Bridges(frozen.d_model, sparse.d_model, pairs, 0.25, seed)
    with torch.no_grad():
        for i, bridge in enumerate(bridges.bridges):
            bridge.encoder.bias.normal_(std=0.3, generator=torch.Generator().manual_seed(i))
            bridge.decoder.bias.normal_(std=0.3, generator=torch.Generator().manual_seed(i + 100))
            bridge.scale.fill_(0.5 + i)
    ids = torch.randint(VOCAB, (5, 10), generator=torch.Generator().manual_seed(seed))
    return Pair(frozen, sparse, bridges, ids)


def _tiny_blocks(seed: int = 0, count: int = 40, context: int = 8, vocab: int = VOCAB) -> TokenBlocks:
    rng = np.random.default_rng(seed)
    ids = np.empty((count, context), dtype=np.int32)
    ids[:, 0] = rng.integers(0, vocab, count)
    for t in range(1, context):
        random = rng.integers(0, vocab, count)
        ids[:, t] = np.where(rng.random(count) < 0.1, random, (3 * ids[:, t - 1] + 1) % vocab)
    return TokenBlocks({"train": ids, "validation": ids[:4], "test": ids[:4]}, {"train": count}, "tiny")


@pytest.fixture
def tiny_sparse() -> Callable[..., SparseTransformer]:
    """``tiny_sparse(seed, **options)``: 2 layers of width 16 over 29 tokens; options override its configuration."""
    return _tiny_sparse


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """``make_pair(seed, dense={options}, every=None, **sparse options)``: see `tiny_pair`."""
    return _tiny_pair


@pytest.fixture
def tiny_pair() -> Pair:
    """A dense (width 12) and a sparse (width 16) stack of 4 sublayers, 5 random bridges, ids ``[5, 10]``."""
    return _tiny_pair()


@pytest.fixture
def tiny_blocks() -> Callable[..., TokenBlocks]:
    """``tiny_blocks(seed, count, context, vocab)``: text of a noisy cycle, in which there is something to learn."""
    return _tiny_blocks


@pytest.fixture
def randomise() -> Callable[..., None]:
    """``randomise(module, seed, std)``: every parameter random, gains around one."""
    return _randomise


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random dense model and its tokenizer (``dense``) and files of text (``text``)."""
    root = tmp_path_factory.mktemp("run")
    texts = [f"def f{i}(x):\n    return x + {i}\n\n\nprint(f{i}({i}))\n" * 12 for i in range(120)]
    (root / "text").mkdir()
    for i, text in enumerate(texts):
        (root / "text" / f"{i}.py").write_text(text)
    tokenizer = train_tokenizer(texts, 300, 32)
    tokenizer.save_pretrained(root / "dense")
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(bos_token_id=299, eos_token_id=299, **shape)).save_pretrained(root / "dense")
    return root


@pytest.fixture(scope="session")
def tiny_settings(workplace: Path) -> list[str]:
    """Overrides for a run of ten steps on `workplace`."""
    return [
        "model=hf",
        f"model.name={workplace / 'dense'}",
        "data=files",
        f"data.path={workplace / 'text'}",
        "data.context=32",
        "train.tokens=640",
        "train.batch=2",
        "train.log_every=1",
        "train.checkpoint_every=3",
        "sparse.d_model=16",
        "sparse.d_head=4",
        "eval.sequences=4",
        "eval.bootstrap=20",
        "eval.ridge_tokens=256",
        "behaviours.pairs=16",
        "behaviours.hybrid_pairs=4",
        f"runs_dir={workplace / 'runs'}",
    ]


@pytest.fixture(scope="session")
def command(tiny_settings: list[str]) -> Callable[..., list[str]]:
    """``command(*overrides)``: the real command with `tiny_settings` and other settings in place of some of them."""

    def arguments(*overrides: str) -> list[str]:
        given = {o.split("=")[0] for o in overrides}
        kept = [s for s in tiny_settings if s.split("=")[0] not in given]
        return [sys.executable, "-m", "bridges.run", *kept, *overrides]

    return arguments


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """``cli(*arguments)``: ``python -m bridges.run`` in this process; exit status, output and error output."""
    from bridges.cli import run

    log = logging.getLogger("bridges")
    before = log.handlers, log.propagate, log.level
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bridges.cli.run", *arguments])
        capsys.readouterr()
        code = 0
        try:
            run.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    log.handlers, log.propagate, log.level = before
