"""What a run measures after training: one function a stage, each of which leaves tables in the run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bridges.behaviours import get_suite
from bridges.behaviours.narrow_text import split_prompts
from bridges.behaviours.pair import Behaviour
from bridges.behaviours.stage import measure_behaviour
from bridges.circuits.bootstrap import Resampler
from bridges.compare.agreement import text_rows
from bridges.compare.similarity import similarity_rows
from bridges.compare.verdict import decide
from bridges.config import Config, DataConfig, VerdictConfig
from bridges.data.corpus import Document
from bridges.data.reading import read_documents
from bridges.errors import DataError
from bridges.fidelity.hybrids import bridge_errors, measure_paths, measure_table, site_table
from bridges.fidelity.scope import ROWS, TOKENS, readable, scope_rows
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import all_paths
from bridges.report.scope import scope_text
from bridges.runs.cautions import cautions
from bridges.runs.circuits import CIRCUIT_TABLES, BehaviourWork, searchable, warm_up
from bridges.runs.context import RunContext
from bridges.storage.runner import run_each
from bridges.storage.tables import TABLES, read_table, table_names, write_table
from bridges.storage.tables.hybrids import HELDOUT, OTHERS, REACH, TEXT, TRAINED

JUDGED_BY = ("suite", "behaviours", "circuits", "controls", "agreement", "transfer")
_BATCH = 8
# Of the cross-validated regressions between streams: penalty relative to the inputs' mean square, and folds.
RIDGE, FOLDS = 1e-4, 5
# Characters of an ordinary document that a narrow run is tried on.
_BEGINNING = 400


@torch.no_grad()
def evaluate(context: RunContext) -> None:
    """The ``sites`` and ``paths`` tables on held-out documents, the baselines among them; warns of what they show."""
    config, dense, sparse = context.config, context.dense, context.sparse
    ids = context.data.chunks("test", context.rows(config.eval.sequences), context.rows(config.eval.batch))
    shared: dict[str, Any] = {"batch": context.rows(config.eval.batch), "device": context.device}
    measured = shared | {"bootstrap": config.eval.bootstrap, "seed": config.seed, "split": "test"}
    count = len(context.bridges)
    singles = [MixedPath(first, (i,)) for first in "DS" for i in range(count)]
    paths, sites = [], []
    for label, some, which in (
        ("trained", context.bridges, all_paths(count, config.eval.double_paths, config.seed)),
        ("untrained", context.untrained, singles),
        ("ridge", context.ridge, singles),
    ):
        frame = measure_paths(which, dense, sparse, some, ids, label=label, autocast=context.autocast(), **measured)
        errors = bridge_errors(dense, sparse, some, ids, autocast=context.autocast(), **shared)
        paths.append(frame)
        sites.append(site_table(errors, frame, label))
    if context.bigram is not None:
        paths.append(measure_table(context.bigram, dense, ids, **measured))
    write_table(context.folder.path, "paths", pd.concat(paths, ignore_index=True))
    write_table(context.folder.path, "sites", pd.concat(sites, ignore_index=True))
    for line in cautions(context.folder):
        context.say(line)


def scope(context: RunContext) -> None:
    """The ``scope`` table of a narrow run: how far its models reach beyond the prompts that they were trained on."""
    config, tokenizer = context.config, context.tokenizer
    mine = context.behaviours
    suite = config.behaviours.suite
    every = get_suite(suite if suite in ("python", "english") else "english")
    others = {name: behaviour for name, behaviour in every.items() if name not in mine}
    seed = config.seed

    def drawn(some: Mapping[str, Behaviour], split: str) -> list[tuple[str, str]]:
        each = max(2, ROWS // max(1, len(some)))
        return [prompt for behaviour in some.values() for prompt in split_prompts(behaviour, split, each, seed)]

    texts = {
        TRAINED: drawn(mine, "train"),
        HELDOUT: drawn(mine, "heldout"),
        REACH: drawn(mine, "reach"),
        OTHERS: drawn(others, "heldout"),
        TEXT: [(d.text[:_BEGINNING], "") for d in islice(_ordinary(config.data), 4 * ROWS) if d.split == "test"][:ROWS],
    }
    # With the token that all begin with, as many as both models have positions for.
    limit = min(TOKENS, context.dense.context - 1, context.sparse.context - 1)
    rows = scope_rows(
        {kind: readable(some, tokenizer, limit) for kind, some in texts.items() if some},
        context.dense,
        context.sparse,
        bigram=None if context.bigram is None else context.bigram.to(context.device),
        skip=context.bridges.constant_prefix,
        bootstrap=config.eval.bootstrap,
        seed=seed,
        device=context.device,
        autocast=context.autocast(),
    )
    write_table(context.folder.path, "scope", pd.DataFrame(rows))
    context.say(scope_text(rows))


def _ordinary(config: DataConfig) -> Iterator[Document]:
    """Documents of the text that stands beside the prompts; none where it cannot be read."""
    with suppress(DataError):
        yield from read_documents(config)


def behaviours(context: RunContext) -> None:
    """The ``suite`` and ``behaviours`` tables."""
    names = list(context.behaviours)
    place = context.folder.path / ".parts" / "behaviours"
    bar = context.bar(len(names), "behaviours")
    bigram = None if context.bigram is None else context.bigram.to(context.device)

    def work(mine: RunContext, name: str) -> Any:
        config = mine.config
        return measure_behaviour(
            mine.behaviours[name],
            config.behaviours,
            mine.dense,
            mine.sparse,
            mine.bridges,
            mine.tokenizer,
            bigram=bigram,
            device=mine.device,
            autocast=mine.autocast,
            bootstrap=config.eval.bootstrap,
            seed=config.seed,
        )

    tables = ("suite", "behaviours")
    # Nothing is intervened on: the models can be shared.
    own = [context] * context.worker_count(len(names))
    done = run_each(place, names, tables, own, work, lambda name: bar.set_postfix_str(name) or bar.update())
    bar.close()
    _write(context, done, place)


def circuits(context: RunContext) -> None:
    """The circuits of what the dense model can do and all that verdicts are read from, verdict by verdict."""
    config, names = context.config, list(context.behaviours)
    for model in config.circuits.models:
        if why := searchable(context, model):
            context.say(f"No circuits in the {model} model: {why}")
    measured = read_table(context.folder.path, "behaviours")
    suite = read_table(context.folder.path, "suite")
    shared = dict(zip(suite["behaviour"], suite["shared_last"], strict=True))
    held = measured[(measured["split"] == "heldout") & measured["bridge"].isna()]
    accuracy = {m: held[held["model"] == m].set_index("behaviour")["accuracy"] for m in ("dense", "sparse")}

    def able(name: str) -> list[str]:
        """The models that do a behaviour, and not by the last token alone: those that a circuit is searched in."""
        dense, sparse = (float(accuracy[m].get(name, -1.0)) for m in ("dense", "sparse"))
        if dense < config.verdict.dense_accuracy or shared.get(name, 0.0) < 1.0:
            return []
        return ["dense", "sparse"] if sparse >= config.verdict.sparse_accuracy * dense else ["dense"]

    # Long ones first leave least to wait for at the end, and what the sparse model does best is likeliest to be found.
    order = sorted(names, key=lambda n: (-len(able(n)), -accuracy["sparse"].get(n, -1.0)))
    place = context.folder.path / ".parts" / "circuits"
    bar = context.bar(len(names), "circuits")
    with context.autocast():
        warm_up(context)
        own = context.workers(len(names))

    def work(mine: RunContext, name: str) -> Any:
        with mine.autocast():
            return BehaviourWork(mine, name, able(name)).run()

    done = run_each(place, names, CIRCUIT_TABLES, own, work, lambda n: bar.set_postfix_str(n) or bar.update(), order)
    bar.close()
    _write(context, done, place)


def compare(context: RunContext) -> None:
    """Likeness of the whole models on text, and the verdicts with their corrections over all behaviours."""
    config, folder = context.config, context.folder.path
    with context.autocast():
        text = context.chunks("test", config.compare.text_tokens)
        draws = Resampler(sum(map(len, text)), config.compare.bootstrap, config.seed)
        whole = text_rows({"dense": context.dense, "sparse": context.sparse}, text, draws)
        likeness = similarity_rows(
            context.dense,
            context.sparse,
            context.bridges,
            context.chunks("test", config.compare.similarity_tokens),
            RIDGE,
            FOLDS,
            _BATCH,
        )
    rows = pd.DataFrame(whole, columns=TABLES["agreement"].names)
    pairs = read_table(folder, "agreement")
    pairs = pairs[pairs["behaviour"] != "text"]
    write_table(folder, "agreement", pd.concat([rows, pairs], ignore_index=True) if len(pairs) else rows)
    write_table(folder, "similarity", pd.DataFrame(likeness))
    judge(folder, config.verdict)


def judge(folder: Path, config: VerdictConfig) -> dict[str, pd.DataFrame]:
    """Claims and verdicts of a run from its tables alone; they are written too.

    Args:
        folder: of the run. config: the bars, perhaps others than when it ran.
    """
    written = table_names(folder)
    found = decide({name: read_table(folder, name) for name in JUDGED_BY if name in written}, config)
    done = dict(zip(("claims", "verdicts"), found, strict=True))
    for name, frame in done.items():
        write_table(folder, name, frame)
    return done


def _write(context: RunContext, tables: dict[str, pd.DataFrame], place: Path) -> None:
    """Write finished tables and remove the parts they were put together from."""
    for name, frame in tables.items():
        write_table(context.folder.path, name, frame)
    shutil.rmtree(place, ignore_errors=True)
    if place.parent.is_dir() and not any(place.parent.iterdir()):
        place.parent.rmdir()


def wanted(config: Config) -> dict[str, Callable[[RunContext], None]]:
    """The stages after training that these settings ask for, in order: verdicts are not kept waiting by anything that
    they are not read from."""
    stages: dict[str, Callable[[RunContext], None]] = {}
    if config.behaviours.suite != "none":
        stages["behaviours"] = behaviours
        if config.circuits.models:
            stages["circuits"] = circuits
    stages["evaluate"] = evaluate
    if config.data.focus:
        stages["scope"] = scope
    if "circuits" in stages and "sparse" in config.circuits.models:
        stages["compare"] = compare
    return stages
