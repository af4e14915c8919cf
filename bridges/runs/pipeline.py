"""The stages of a run, in order; a finished stage is not done again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

import bridges.kernels as kernels
from bridges.behaviours.narrow_text import longest_prompt
from bridges.behaviours.pair import Behaviour
from bridges.bridge import Bridges, pair_sites
from bridges.config import Config, flat
from bridges.config.paths import absolute
from bridges.data.blocks import TokenBlocks
from bridges.data.tokenizer import leading_token
from bridges.dense import DenseStack
from bridges.errors import CheckpointError, ConfigError, DiskFullError, in_brief
from bridges.report import write_report
from bridges.runs.context import RunContext
from bridges.runs.disk import bytes_missing, bytes_needed, full_message, is_disk_full, readable
from bridges.runs.initialise import Start, build, choose_start, finish, trained_bridges
from bridges.runs.inputs import behaviour_inputs, check_inputs, model_inputs, other_versions, text_inputs
from bridges.runs.models import load_models, load_text
from bridges.runs.placement import placed_pairs
from bridges.runs.sources import select_behaviours
from bridges.runs.stages import wanted
from bridges.runs.summary import headline, summary_text
from bridges.sparse import Projector, SparseTransformer, budget, load_sparse
from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table, table_names, write_table
from bridges.storage.tracking import Tracker, open_tracker
from bridges.training.loop import LogRow, Trainer
from bridges.training.parallel import strategy
from bridges.training.plan import Plan, check_memory, duration, estimate
from bridges.training.precision import resolve_precision
from bridges.training.stored import stored_bytes
from bridges.training.timing import time_step

log = logging.getLogger(__name__)


def plan_of(
    config: Config,
    dense: DenseStack,
    start: Start,
    accelerator: Accelerator,
    context: int | None = None,
    length: float | None = None,
) -> Plan:
    """What training takes.

    Args:
        context: tokens of the longest row. length: of a row on average. None: ``data.context`` both.
    """
    device, pairs = accelerator.device, pair_sites(dense.n_sublayers, 2 * start.shape.n_layer, config.bridge.every)
    precision, processes = resolve_precision(config.train.precision, device), accelerator.num_processes
    context = context or config.data.context
    length, sharded = length or float(context), strategy(accelerator) == "fsdp2"
    return estimate(config, dense, start.shape, len(pairs), context, precision, processes, device, length, sharded)


def prepare(
    config: Config, folder: RunFolder, accelerator: Accelerator, say: Callable[[str], None]
) -> tuple[RunContext, Plan]:
    """Load the dense model and the text, decide whether it fits, and build what will be trained."""
    device, narrow = accelerator.device, config.data.focus > 0
    strategy(accelerator, config.train)
    say(f"Loading {config.model.name} …")
    dense, tokenizer = load_models(config, device, say=say)
    if config.data.context > dense.context:
        raise ConfigError(
            f"data.context={config.data.context} is longer than the {dense.context} tokens {config.model.label} takes."
        )
    # A misspelt name or a broken file must not wait until training is over.
    behaviours = select_behaviours(config.behaviours, tokenizer)
    read = partial(_text, config, dense, tokenizer, behaviours, say, folder.text, accelerator.is_main_process)
    data = read() if narrow else None
    context = config.data.context if data is None else data.context
    room = context
    if data is not None:
        # Positions for what is judged too, which may be longer than any row that is trained on.
        judged = longest_prompt(behaviours, tokenizer, config.behaviours.pairs, config.seed)
        room = max(context, config.data.context, judged)
    start = choose_start(config, dense, room, tokenizer.eos_token_id)
    start.shape.bos_token_id = leading_token(tokenizer)
    plan = plan_of(config, dense, start, accelerator, context, None if data is None else data.mean_length)
    if data is not None and device.type == "cpu":
        sites, width = plan.n_bridges, dense.d_model
        plan.stored = stored_bytes(config, data, plan.steps, sites, width, plan.precision)
    check_memory(plan)
    # Ordinary text is long: what does not fit into memory need not wait for it.
    data = data or read()
    found = model_inputs(config, dense) | text_inputs(config, data) | behaviour_inputs(config)
    check_inputs(folder.path, found, config.allow_changed, write=accelerator.is_main_process, say=say)
    pairs = placed_pairs(
        config, folder.path, dense, tokenizer, behaviours, 2 * start.shape.n_layer, accelerator.is_main_process, say
    )
    sparse, bridges = build(config, dense, start, pairs)
    if start.note:
        say(start.note)
    parts = RunContext(
        config, folder, accelerator, dense, data, sparse.to(device), bridges.to(device), tokenizer, start, say
    )
    return parts, plan


def _text(
    config: Config,
    dense: DenseStack,
    tokenizer: PreTrainedTokenizerBase,
    behaviours: Mapping[str, Behaviour],
    say: Callable[[str], None],
    keep: Path,
    write: bool,
) -> TokenBlocks:
    say(
        f"Drawing prompts of {len(behaviours)} behaviours …"
        if config.data.focus
        else f"Reading text ({config.data.source}) …"
    )
    return load_text(config, tokenizer, behaviours, dense.vocab_size, keep, write)


def trainer_of(parts: RunContext, log_row: LogRow) -> Trainer:
    """The trainer of what has been prepared.

    Args:
        log_row: called with each row of the training table and its step.
    """
    return Trainer(
        parts.config,
        parts.dense,
        parts.sparse,
        parts.bridges,
        parts.data,
        parts.accelerator,
        parts.folder.checkpoints,
        log_row,
        start=parts.start.fraction,
        anneal_activation=parts.start.anneal_activation,
        rate=parts.config.train.pair_rate if parts.start.kind == "pair" else 1.0,
        keep_bridges=trained_bridges(parts.start, parts.bridges) is not None,
    )


def _train(parts: RunContext, plan: Plan, tracker: Tracker) -> None:
    """Train sparse model and bridges, and write them with the training tables."""
    folder, main = parts.folder, parts.accelerator.is_main_process
    trainer = trainer_of(parts, lambda row, step: tracker.log(row, step, "train"))
    if trainer.restore():
        parts.say(f"Going on from step {trainer.progress.step} of {trainer.steps}.")
    else:
        parts.fit_to_text()
    if trainer.progress.step < trainer.steps:
        if trainer.store():
            parts.say("The dense model has been run once on all prompts; its streams are kept for training.")
        plan.seconds_per_step, plan.done = time_step(trainer), trainer.progress.step
    parts.say(plan.text())
    training, timing = trainer.fit()
    parts.sparse, parts.bridges = trainer.whole()
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


def _load_trained(parts: RunContext) -> None:
    """Put the finished training's weights into the parts."""
    try:
        parts.sparse.load_state_dict(load_sparse(parts.folder.model).state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"The trained model in {parts.folder.model} has another shape than this run's settings give. "
            f"({in_brief(error)})"
        ) from error
    parts.bridges.load_state_dict(Bridges.from_pretrained(parts.folder.bridges).state_dict())
    finish(parts.sparse, parts.bridges)


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
    config = absolute(config)
    existed, fresh = path.exists(), not (path / "config.yaml").exists()
    folder = RunFolder(path)
    try:
        if main:
            RunFolder.create(config, path)
        accelerator.wait_for_everyone()
        if folder.done(list(wanted(config))[-1]):
            if main:
                folder.write_status("finished")
            tell(f"{path} is finished already.\n\n{summary_text(folder)}")
            return folder
        if not fresh and (versions := other_versions(path)):
            tell(f"Since this run was begun, other versions were installed: {', '.join(versions)}.")
        with folder.failure_recorded() if main else nullcontext():
            _stages(config, folder, accelerator, tell)
    except BaseException as error:
        if main and fresh and not folder.computed:
            folder.discard(existed)
        if is_disk_full(error):
            raise DiskFullError(full_message(path, folder.needed)) from error
        raise
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
            parts, plan = prepare(config, folder, accelerator, tell)
            folder.needed = bytes_needed(plan, config.train.keep_checkpoints, parts.data)
            if (missing := bytes_missing(path, folder.needed)) > 0:
                tell(f"This run may write {readable(missing)} more than is free on the disk that holds {path}.")
        if folder.done("train"):
            _load_trained(parts)
        else:
            with _stage(folder, "train", main):
                _train(parts, plan, tracker)
        if main:
            for name, work in wanted(config).items():
                if not folder.done(name):
                    with folder.stage(name):
                        work(parts)
            write_report(path)
            for name in table_names(path):
                if name not in ("training", "timing"):
                    tracker.table(name, read_table(path, name))
            tracker.summary(headline(folder))
            folder.write_status("finished")
            shutil.rmtree(folder.text, ignore_errors=True)
            tell(f"\n{summary_text(folder)}\n")
            total = sum(s["seconds"] for s in folder.status["stages"].values())
            tell(f"Finished in {duration(total)}: {path}")
            tracker.artifact(folder.model, "sparse-model", "model")
            tracker.artifact(folder.bridges, "bridges", "model")
            tracker.artifact(path / "tables", "tables", "tables")
            tracker.artifact(path / "report.html", "report", "report")
            if (path / "circuits").is_dir():
                tracker.artifact(path / "circuits", "circuits", "circuits")
        code = 0
    finally:
        tracker.finish(code)
