"""Train the bundled dense model: ``python -m bridges pretrain out=<folder>``.

A GPT-2 of 4 layers and width 256 over a 2048-token Python BPE. It reads the standard library, the installed packages
under permissive licences and a generated component of short idioms (`bridges.data.idioms`), all from their training
splits, and leaves a folder in Hugging Face format with a model card and the loss curve.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

import bridges.kernels as kernels
from bridges.data.corpus import Document, permissive_packages, standard_library
from bridges.data.idioms import documents as idiom_documents
from bridges.data.tokenizer import leading_token, train_tokenizer
from bridges.errors import nearest
from bridges.kernels import attention
from bridges.training.optimizers import ParameterGroup, build_optimizer
from bridges.training.precision import autocast, resolve_precision

SOURCES = ("stdlib", "packages", "idioms")


@dataclass
class PretrainConfig:
    """What decides the bundled model.

    Attributes:
        out: folder that is written.
        tokens: training tokens in all.
        batch: sequences per step.
        mixture: share of each batch drawn from stdlib, packages and idioms.
        idiom_chars: characters of generated idioms (of which 2 % are held out).
        tokenizer: a folder whose tokenizer is kept; empty trains one of ``vocab_size`` on the same sources.
        precision: ``auto`` (bf16 where the hardware has it), ``bf16`` or ``fp32``.
        lr: peak rate of AdamW (embeddings, gains, biases). muon_lr: peak rate of Muon (block matrices).
        warmup: steps of linear warm-up; then the rate falls linearly to zero.
        seconds: stop early after so many seconds, for trials (0: never).
    """

    out: str = "tinypython"
    tokens: int = 32_000_000
    batch: int = 16
    context: int = 256
    vocab_size: int = 2048
    tokenizer: str = ""
    precision: str = "auto"
    n_layer: int = 4
    n_embd: int = 256
    n_head: int = 16
    mixture: tuple[float, float, float] = (0.3, 0.35, 0.35)
    idiom_chars: int = 60_000_000
    lr: float = 3e-3
    muon_lr: float = 5e-3
    weight_decay: float = 0.1
    warmup: int = 100
    seed: int = 0
    eval_every: int = 250
    seconds: float = 0.0


def _idioms(config: PretrainConfig) -> Iterator[Document]:
    for i, text in enumerate(idiom_documents(config.idiom_chars, config.seed)):
        yield Document(f"idioms/{config.seed}/{i}", text)


def _token_stream(docs: list[Document], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """All documents' tokens in one array, `leading_token` before each."""
    lead = leading_token(tokenizer)
    parts: list[np.ndarray] = []
    for start in range(0, len(docs), 256):
        texts = [d.text for d in docs[start : start + 256]]
        batch = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        parts.extend(np.array([lead, *ids], dtype=np.int32) for ids in batch)
    return np.concatenate(parts)


def prepare(config: PretrainConfig, cache: Path) -> tuple[PreTrainedTokenizerBase, dict[str, dict[str, np.ndarray]]]:
    """Tokenizer and token streams ``{split: {source: tokens}}``, kept in ``cache`` for a restart."""
    from transformers import PreTrainedTokenizerFast

    if (cache / "done").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(cache)
        return tokenizer, {s: {n: np.load(cache / f"{s}-{n}.npy") for n in SOURCES} for s in ("train", "validation")}
    sources = {
        "stdlib": list(standard_library()),
        "packages": list(permissive_packages()),
        "idioms": list(_idioms(config)),
    }
    rng = random.Random(config.seed)
    sample = [d.text for docs in sources.values() for d in rng.sample(docs, min(len(docs), 4000)) if d.split == "train"]
    if config.tokenizer:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(config.tokenizer)
    else:
        tokenizer = train_tokenizer(sample, config.vocab_size, config.context)
    cache.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(cache)
    streams: dict[str, dict[str, np.ndarray]] = {}
    for split in ("train", "validation"):
        streams[split] = {}
        for name, docs in sources.items():
            chosen = [d for d in docs if d.split == split]
            rng.shuffle(chosen)
            budget = int(1.3 * config.tokens * config.mixture[SOURCES.index(name)] * 4)  # characters: ~3 a token
            kept, total = [], 0
            for d in chosen:
                if total > budget:
                    break
                kept.append(d)
                total += len(d.text)
            streams[split][name] = _token_stream(kept, tokenizer)
            np.save(cache / f"{split}-{name}.npy", streams[split][name])
    (cache / "done").touch()
    return tokenizer, streams


def _blocks(streams: dict[str, np.ndarray], config: PretrainConfig, step: int) -> torch.Tensor:
    """The batch of one step, a function of seed and step alone: ids ``[batch, context + 1]``."""
    rng = np.random.default_rng([config.seed, step])
    rows = []
    for source in rng.choice(len(SOURCES), size=config.batch, p=config.mixture):
        tokens = streams[SOURCES[source]]
        start = rng.integers(0, len(tokens) - config.context - 1)
        rows.append(tokens[start : start + config.context + 1])
    return torch.from_numpy(np.stack(rows)).long()


@torch.inference_mode()
def held_out_loss(model: GPT2LMHeadModel, tokens: np.ndarray, context: int, blocks: int = 64) -> float:
    """Mean next-token cross-entropy in nats over evenly spaced blocks of held-out documents."""
    starts = np.linspace(0, len(tokens) - context - 1, blocks).astype(int)
    ids = torch.from_numpy(np.stack([tokens[s : s + context + 1] for s in starts])).long()
    losses = [
        F.cross_entropy(model(b[:, :-1]).logits.float().flatten(0, 1), b[:, 1:].flatten()).item() for b in ids.split(16)
    ]
    return float(np.mean(losses))


def pretrain(config: PretrainConfig) -> Path:
    """Train, or go on from ``out/checkpoint.pt``; returns the folder with model, tokenizer, card and curve."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, streams = prepare(config, out / "tokens")
    torch.manual_seed(config.seed)
    eos = tokenizer.eos_token_id
    shape = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=leading_token(tokenizer),
        eos_token_id=eos,
    )
    # PyTorch's own flash backward is slow in bf16 on a CPU, so much that no fusing at all is faster.
    loading: Any = GPT2LMHeadModel._from_config
    model = loading(shape, attn_implementation=attention.register() if kernels.active() else "eager")
    blocks = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    others = [p for n, p in model.named_parameters() if not (".h." in n and p.ndim == 2)]
    optimizer = build_optimizer(
        [ParameterGroup(blocks, config.muon_lr, muon=True), ParameterGroup(others, config.lr)],
        weight_decay=config.weight_decay,
    )
    steps = config.tokens // (config.batch * config.context)
    first, curve, spent = 0, [], 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_whole_state_dict(saved["optimizer"])
        first, curve, spent = saved["step"], saved["curve"], saved["seconds"]
    started = time.monotonic() - spent
    cpu = torch.device("cpu")
    precision = resolve_precision(config.precision, cpu)
    running = 0.0
    for step in range(first, steps):
        ids = _blocks(streams["train"], config, step)
        with autocast(precision, cpu):
            logits = model(ids[:, :-1]).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"Loss became {loss.item()} at step {step}; {checkpoint} is the last good state.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(min((step + 1) / config.warmup, (steps - step) / max(1, steps - config.warmup)))
        optimizer.zero_grad()
        running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
        done, elapsed = step + 1, time.monotonic() - started
        if done % config.eval_every == 0 or done == steps:
            row = {"step": done, "tokens": done * config.batch * config.context, "seconds": elapsed, "train": running}
            row |= {name: held_out_loss(model, streams["validation"][name], config.context) for name in SOURCES}
            curve.append(row)
            print(json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.whole_state_dict(),
                "step": done,
                "curve": curve,
            }
            torch.save(state | {"seconds": elapsed}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
        if config.seconds and elapsed > config.seconds:
            print(json.dumps({"stopped": done, "train": running, "s/step": elapsed / (done - first)}))
            break
    _save(model, tokenizer, config, curve, out)
    return out


def _save(model, tokenizer, config: PretrainConfig, curve: list[dict], out: Path) -> None:
    import pandas as pd

    folder = out / "model"
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pd.DataFrame(curve).to_csv(folder / "loss_curve.csv", index=False)
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """``key=value`` arguments over the fields of `PretrainConfig`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    defaults = dataclasses.asdict(PretrainConfig())
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n\nSettings, key=value: " + ", ".join(f"{k}={v}" for k, v in defaults.items()))
        return
    overrides: dict[str, Any] = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in defaults and not value:
            sys.exit(f"error: {key} has no value: write {key}=….")
        if key not in defaults:
            sys.exit(f"error: {argument!r} is no setting. {nearest(key, defaults)}")
        try:
            overrides[key] = yaml.safe_load(value) if key == "mixture" else type(defaults[key])(value)
        except ValueError as error:
            sys.exit(f"error: {argument}: {error}")
    pretrain(PretrainConfig(**overrides))
