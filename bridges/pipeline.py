"""The stages of a run, in order; a finished stage is not done again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from tqdm import tqdm

from bridges import kernels
from bridges.behaviours.stage import chosen, measure_behaviours
from bridges.bridge import Bridges, fit_ridge, pair_sites
from bridges.circuits.stage import Workshop, find_circuits
from bridges.config import Config, flat
from bridges.data.blocks import TokenBlocks, bigram_log_probabilities, token_blocks
from bridges.dense import DenseStack, load_dense
from bridges.errors import CheckpointError, ConfigError
from bridges.evaluate import bridge_errors, measure_paths, measure_table, site_table
from bridges.folder import RunFolder
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import all_paths
from bridges.sparse import Projector, SparseTransformer, budget
from bridges.start import (
    FULL_BIGRAM_LIMIT,
    UNTRAINED_SEED,
    Start,
    build,
    choose_start,
    finish,
    fit_to_text,
    stream_pairs,
)
from bridges.summary import headline, summary_text
from bridges.tables import read_table, table_names, write_table
from bridges.tracking import Tracker, open_tracker
from bridges.training.loop import Trainer
from bridges.training.plan import Plan, check_memory, duration, estimate, time_step
from bridges.training.precision import autocast, resolve_precision

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """What the stages work on."""

    config: Config
    folder: RunFolder
    accelerator: Accelerator
    dense: DenseStack
    data: TokenBlocks
    sparse: SparseTransformer
    bridges: Bridges
    tokenizer: Any
    start: Start
    say: Callable[[str], None]


def _prepare(
    config: Config, folder: RunFolder, accelerator: Accelerator, say: Callable[[str], None]
) -> tuple[Parts, Plan]:
    """Load the dense model and the text, decide whether it fits, and build what will be trained."""
    device = accelerator.device
    dtype = torch.bfloat16 if config.model.dtype == "bf16" else torch.float32
    say(f"Loading {config.model.name} …")
    dense, tokenizer = load_dense(
        config.model.name, gguf_file=config.model.gguf_file, revision=config.model.revision, dtype=dtype, device=device
    )
    if config.data.context > dense.context:
        raise ConfigError(
            f"data.context={config.data.context} is longer than the {dense.context} tokens {config.model.label} takes."
        )
    start = choose_start(config, dense, config.data.context, tokenizer.eos_token_id)
    shape = start.shape
    pairs = pair_sites(dense.n_sublayers, 2 * shape.n_layer, config.bridge.every)
    precision = resolve_precision(config.train.precision, device)
    plan = estimate(config, dense, shape, len(pairs), config.data.context, precision, accelerator.num_processes, device)
    check_memory(plan)
    chosen(config.behaviours, tokenizer)  # a misspelt name or a broken file must not wait until training is over
    say(f"Reading text ({config.data.source}) …")
    data = token_blocks(config.data, tokenizer, config.data.context)
    sparse, bridges = build(config, dense, start)
    if start.note:
        say(start.note)
    parts = Parts(
        config, folder, accelerator, dense, data, sparse.to(device), bridges.to(device), tokenizer, start, say
    )
    return parts, plan


def _train(parts: Parts, plan: Plan, tracker: Tracker) -> None:
    """Train sparse model and bridges, and write them with the training tables."""
    folder, main = parts.folder, parts.accelerator.is_main_process
    trainer = Trainer(
        parts.config,
        parts.dense,
        parts.sparse,
        parts.bridges,
        parts.data,
        parts.accelerator,
        folder.checkpoints,
        lambda row, step: tracker.log(row, step, "train"),
        start=parts.start.fraction,
        anneal_activation=parts.start.anneal_activation,
        rate=parts.config.train.pair_rate if parts.start.kind == "pair" else 1.0,
    )
    if trainer.restore():
        parts.say(f"Going on from step {trainer.progress.step} of {trainer.steps}.")
    else:
        fit_to_text(
            parts.config,
            parts.start,
            parts.dense,
            parts.sparse,
            parts.bridges,
            parts.data,
            parts.accelerator.device,
        )
    if trainer.progress.step < trainer.steps:
        plan.seconds_per_step = time_step(trainer)
    parts.say(plan.text())
    training, timing = trainer.fit()
    finish(parts.sparse, parts.bridges)
    if not main:
        return
    parts.sparse.save_pretrained(folder.model)
    parts.tokenizer.save_pretrained(folder.model)
    parts.bridges.save_pretrained(folder.bridges)
    write_table(folder.path, "training", training)
    write_table(folder.path, "timing", timing)
    write_table(folder.path, "sparsity", sparsity_table(parts.sparse, parts.config.sparsity))


def sparsity_table(sparse: SparseTransformer, fraction: float) -> pd.DataFrame:
    """Budget and nonzeros of every matrix: the promise and whether it was kept."""
    matrices = sparse.sparse_matrices()
    nonzeros = Projector(matrices).nonzeros()
    return pd.DataFrame(
        [
            {
                "matrix": name,
                "rows": p.shape[0],
                "columns": p.shape[1],
                "numel": p.numel(),
                "budget": budget(p.numel(), fraction),
                "nonzeros": nonzeros[name],
                "fraction": nonzeros[name] / p.numel(),
            }
            for name, p in matrices.items()
        ]
    )


def _load_trained(parts: Parts) -> None:
    """Put the finished training's weights into the parts."""
    try:
        trained = SparseTransformer.from_pretrained(parts.folder.model)
        parts.sparse.load_state_dict(trained.state_dict())
    except Exception as error:
        raise CheckpointError(f"The trained model in {parts.folder.model} cannot be read: {error}") from error
    parts.bridges.load_state_dict(Bridges.from_pretrained(parts.folder.bridges).state_dict())
    finish(parts.sparse, parts.bridges)


@torch.no_grad()
def _evaluate(parts: Parts) -> None:
    """The ``sites`` and ``paths`` tables on held-out documents, the baselines among them."""
    config, device = parts.config, parts.accelerator.device
    dense, sparse, bridges = parts.dense, parts.sparse.eval(), parts.bridges.eval()
    ids = parts.data.take("test", config.eval.sequences)
    precision = resolve_precision(config.train.precision, device)
    shared = {"batch": config.eval.batch, "device": device}
    measured = shared | {"bootstrap": config.eval.bootstrap, "seed": config.seed, "split": "test"}
    count = len(bridges)
    pairs = bridges.pairs
    kept = config.bridge.activation_fraction
    untrained = Bridges(dense.d_model, sparse.d_model, pairs, kept, config.seed + UNTRAINED_SEED).to(device)
    ridge = Bridges(dense.d_model, sparse.d_model, pairs, kept).to(device)
    for other in (untrained, ridge):
        for mine, trained in zip(other, bridges, strict=True):
            mine.scale.copy_(trained.scale)
            mine.sparse_scale.copy_(trained.sparse_scale)
    tokens = config.eval.ridge_tokens
    fit_ridge(ridge, stream_pairs(dense, sparse, parts.data, tokens, config.eval.batch, device), config.bridge.ridge)
    singles = [MixedPath(first, (i,)) for first in "DS" for i in range(count)]
    paths, sites = [], []
    for label, some, which in (
        ("trained", bridges, all_paths(count, config.eval.double_paths, config.seed)),
        ("untrained", untrained, singles),
        ("ridge", ridge, singles),
    ):
        frame = measure_paths(
            which, dense, sparse, some, ids, label=label, autocast=autocast(precision, device), **measured
        )
        errors = bridge_errors(dense, sparse, some, ids, autocast=autocast(precision, device), **shared)
        paths.append(frame)
        sites.append(site_table(errors, frame, label))
    if dense.vocab_size <= FULL_BIGRAM_LIMIT:
        table = bigram_log_probabilities(parts.data.blocks["train"], dense.vocab_size)
        paths.append(measure_table(table, dense, ids, **measured))
    write_table(parts.folder.path, "paths", pd.concat(paths, ignore_index=True))
    write_table(parts.folder.path, "sites", pd.concat(sites, ignore_index=True))


def _behaviours(parts: Parts) -> None:
    """The ``suite`` and ``behaviours`` tables."""
    config, device = parts.config, parts.accelerator.device
    behaviours = chosen(config.behaviours, parts.tokenizer)
    bigram = None
    if parts.dense.vocab_size <= FULL_BIGRAM_LIMIT:
        bigram = bigram_log_probabilities(parts.data.blocks["train"], parts.dense.vocab_size).to(device)
    bar = tqdm(total=len(behaviours), unit="behaviour", desc="behaviours", dynamic_ncols=True, mininterval=20.0)
    suite, rows = measure_behaviours(
        behaviours,
        config.behaviours,
        parts.dense,
        parts.sparse.eval(),
        parts.bridges.eval(),
        parts.tokenizer,
        bigram=bigram,
        device=device,
        autocast=autocast(resolve_precision(config.train.precision, device), device),
        bootstrap=config.eval.bootstrap,
        seed=config.seed,
        progress=lambda name: bar.update(),
    )
    bar.close()
    write_table(parts.folder.path, "suite", suite)
    write_table(parts.folder.path, "behaviours", rows)


def _circuits(parts: Parts) -> None:
    """The circuits of what the dense model can do, and their tables."""
    config = parts.config
    behaviours = chosen(config.behaviours, parts.tokenizer)
    measured = read_table(parts.folder.path, "behaviours")
    dense = measured[(measured["model"] == "dense") & (measured["split"] == "heldout")]
    shop = Workshop(
        parts.folder.path,
        config.circuits,
        {"sparse": parts.sparse.eval().requires_grad_(False), "dense": parts.dense},
        parts.data,
        parts.tokenizer,
        config.behaviours.pairs,
        config.seed,
    )
    accuracies = dict(zip(dense["behaviour"], dense["accuracy"], strict=True))
    able = sum(accuracies.get(name, -1.0) >= config.circuits.min_accuracy for name in behaviours)
    bar = tqdm(total=able, unit="behaviour", desc="circuits", dynamic_ncols=True, mininterval=1.0)
    find_circuits(shop, behaviours, accuracies, lambda name: bar.set_postfix_str(name) or bar.update(), parts.say)
    bar.close()


def _wanted(config: Config) -> dict[str, Callable[[Parts], None]]:
    """The stages after training that these settings ask for, in order."""
    stages: dict[str, Callable[[Parts], None]] = {"evaluate": _evaluate}
    if config.behaviours.suite != "none":
        stages["behaviours"] = _behaviours
        if config.circuits.models:
            stages["circuits"] = _circuits
    return stages


def _stage(folder: RunFolder, name: str, main: bool) -> AbstractContextManager[None]:
    """A stage that the main process records."""
    return folder.stage(name) if main else nullcontext()


def run(config: Config, path: Path, accelerator: Accelerator, say: Callable[[str], None] = print) -> RunFolder:
    """Do a run, or what is left of one.

    Args:
        config: the settings. path: the run's folder, new or begun.
        accelerator: device and processes; one process writes.
        say: where progress is told.

    Returns:
        the finished folder.
    """
    main = accelerator.is_main_process
    tell = say if main else (lambda text: None)
    if main:
        folder = RunFolder.create(config, path)
    accelerator.wait_for_everyone()
    folder = RunFolder(path)
    if folder.done(list(_wanted(config))[-1]):
        if main:
            folder.write_status("finished")
        tell(f"{path} is finished already.\n\n{summary_text(folder)}")
        return folder
    with folder.failure_recorded() if main else nullcontext():
        _stages(config, folder, accelerator, tell)
    return folder


def _stages(config: Config, folder: RunFolder, accelerator: Accelerator, tell: Callable[[str], None]) -> None:
    """What is left of a run's stages."""
    path, main = folder.path, accelerator.is_main_process
    kernels.select(config.kernels)
    tracker = open_tracker(
        mode=config.tracking.mode if main else "off",
        folder=path,
        project=config.tracking.project,
        entity=config.tracking.entity,
        name=path.name,
        group=config.tracking.group,
        tags=config.tracking.tags,
        config=flat(config),
        resume_id=None,
    )
    code = 1
    try:
        with _stage(folder, "prepare", main):
            parts, plan = _prepare(config, folder, accelerator, tell)
        if folder.done("train"):
            _load_trained(parts)
        else:
            with _stage(folder, "train", main):
                _train(parts, plan, tracker)
        if main:
            for name, work in _wanted(config).items():
                if not folder.done(name):
                    with folder.stage(name):
                        work(parts)
            for name in table_names(path):
                if name not in ("training", "timing"):
                    tracker.table(name, read_table(path, name))
            tracker.summary(headline(folder))
            folder.write_status("finished")
            tell(f"\n{summary_text(folder)}\n")
            total = sum(s["seconds"] for s in folder.status["stages"].values())
            tell(f"Finished in {duration(total)}: {path}")
            tracker.artifact(folder.model, "sparse-model", "model")
            tracker.artifact(folder.bridges, "bridges", "model")
            tracker.artifact(path / "tables", "tables", "tables")
        code = 0
    finally:
        tracker.finish(code)
