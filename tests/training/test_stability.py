"""Trainings beside models with planted massive activations: the loss stays low, and bridges are as good as ridge.

GPT-2 and SmolLM2's shape in the ordinary run; the table of all five families:
``pytest -m slow -s tests/training/test_stability.py``.
"""

from __future__ import annotations

import email
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from bridges import kernels
from bridges.cli.overrides import conf_folder
from bridges.config import Config
from bridges.dense import wrap_dense
from bridges.fidelity.hybrids import measure_paths
from bridges.hybrid import Path as MixedPath
from bridges.runs.initialise import finish
from bridges.runs.pipeline import prepare, trainer_of
from bridges.storage.folder import RunFolder

from ..dense.massive import FAMILIES, LENGTH, massive_model, measured

VOCAB = 2048
# What the loss may reach, in that of its first step: of training, and of the part in which hybrids are trained.
HIGHEST = 2.0
# Trained bridges may have a KL so much above that of ridge regression, as a share of it and in nats per token: they are
# fitted one optimizer step before the end.
SLACK, NATS = 0.05, 0.02
# Every crossing at every step, so that no loss depends on which one was drawn.
COMMON = {
    "model": "hf",
    "circuits": "none",
    "data": "files",
    "data.context": "48",
    "train.hybrid_sites": "all",
    "train.log_every": "1",
    "train.checkpoint_every": "1000",
    "train.precision": "fp32",
    "kernels": "python",
    "sparse.n_layer": "2",
    "sparse.d_model": "32",
    "sparse.d_head": "8",
    "bridge.every": "1",
    "eval.ridge_tokens": "3072",
}
MODES = {
    "smoke": {"train": "smoke", "behaviours": "none", "train.tokens": "2880"},
    "narrow": {
        "experiment": "narrow",
        "behaviours": "python",
        "behaviours.names": "[while_return_true]",
        "behaviours.pairs": "64",
        "data.prompts": "64",
        "train.batch": "16",
        "train.tokens": "6000",
    },
}


@dataclass
class Outcome:
    """One training.

    Attributes:
        rows: the training table. kl: of each single crossing, columns ``trained`` and ``ridge``.
    """

    rows: pd.DataFrame
    kl: pd.DataFrame

    @property
    def parts(self) -> list[pd.Series]:
        """The loss of each part of training, before and after hybrids begin: their terms are added to the sum."""
        return [part["total"] for _, part in self.rows.groupby(self.rows["kl_s2d"].notna())]

    def check(self) -> None:
        for total in self.parts:
            assert total.map(math.isfinite).all() and total.max() <= HIGHEST * total.iloc[0], total.tolist()
        worse = self.kl[self.kl["trained"] > (1 + SLACK) * self.kl["ridge"] + NATS]
        assert worse.empty, worse


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pieces of Python for documents, each of about a row, so that many rows have a first token."""
    root = tmp_path_factory.mktemp("stable")
    (root / "text").mkdir()
    source = "".join(path.read_text() for path in sorted(Path(email.__file__).parent.glob("*.py")))
    for i, start in enumerate(range(0, 150_000, 250)):
        (root / "text" / f"{i}.py").write_text(source[start : start + 250])
    return root


@pytest.fixture(scope="module")
def saved(place: Path) -> Callable[[str], Path]:
    """``saved(family)``: the folder of a model with planted massive activations and the bundled tokenizer."""

    def save(family: str) -> Path:
        folder = place / "models" / family
        if not folder.exists():
            massive_model(family, VOCAB).save_pretrained(folder)
            bundled = resources.files("bridges") / "assets" / "tinypython"
            PreTrainedTokenizerFast.from_pretrained(str(bundled)).save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def train(saved: Callable[[str], Path], place: Path, tmp_path: Path) -> Callable[[str, str], Outcome]:
    """``train(family, mode, *overrides)``: what the command trains, and single crossings of it on held-out text."""

    def call(family: str, mode: str, *overrides: str) -> Outcome:
        given = COMMON | MODES[mode] | {"model.name": str(saved(family)), "data.path": str(place / "text")}
        given |= dict(o.split("=", 1) for o in overrides)
        ConfigStore.instance().store(name="schema", node=Config)
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = OmegaConf.to_object(compose("config", overrides=[f"{k}={v}" for k, v in given.items()]))
        assert isinstance(config, Config)
        kernels.select(config.kernels)
        folder = RunFolder.create(config, tmp_path / f"{family}-{mode}")
        context, _ = prepare(config, folder, Accelerator(cpu=True), lambda text: None)
        trainer = trainer_of(context, lambda row, step: None)
        context.fit_to_text()
        trainer.store()
        rows, _ = trainer.fit()
        finish(context.sparse, context.bridges)
        return Outcome(rows, _crossings(context))

    return call


def _crossings(context) -> pd.DataFrame:
    paths = [MixedPath(first, (i,)) for first in "DS" for i in range(len(context.bridges))]
    ids = context.data.chunks("test", context.rows(8), context.rows(8))
    found = {}
    for label, some in (("trained", context.bridges), ("ridge", context.ridge)):
        frame = measure_paths(
            paths, context.dense, context.sparse, some, ids, batch=64, bootstrap=2, seed=0, split="test", label=label
        )
        found[label] = frame.set_index("path")["kl"]
    return pd.DataFrame(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_massive_activations_are_as_they_were_planted(saved, family):
    """What is loaded from the folder is an ordinary model."""
    model = AutoModelForCausalLM.from_pretrained(saved(family))
    stack = wrap_dense(model)
    ids = torch.randint(VOCAB - 1, (8, 48), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = VOCAB - 1
    for site in (stack.n_sublayers - 1, stack.n_sublayers):
        length, spread = measured(lambda x: stack.run(x).sites, ids, site)
        assert 100 <= length <= 200 and abs(length / LENGTH - 1) < 0.1
        assert 70 <= spread <= 200
    logp = stack.logits(ids)[:, 1:].log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1).mean()
    assert 2 < float(entropy) < math.log(VOCAB) - 1


@pytest.mark.parametrize(("family", "mode"), [("gpt2", "smoke"), ("smollm2", "narrow")])
def test_a_training_beside_massive_activations(train, family, mode):
    train(family, mode).check()


@pytest.mark.slow
def test_every_family(train):
    print("\nfamily   training  first loss  highest/first  with hybrids  KL trained (ridge): d→s         s→d")
    outcomes = {}
    for mode in MODES:
        for family in FAMILIES:
            outcome = outcomes[family, mode] = train(family, mode)
            highest = [f"{total.max() / total.iloc[0]:.2f}" for total in outcome.parts]
            means = outcome.kl.groupby(outcome.kl.index.str[0]).mean()
            kl = [f"{means.loc[k, 'trained']:.3f} ({means.loc[k, 'ridge']:.3f})" for k in "DS"]
            first = outcome.rows["total"].iloc[0]
            before, behind = (highest[0], highest[1]) if len(highest) == 2 else ("", highest[0])
            print(f"{family:8} {mode:8} {first:11.1f} {before:>14} {behind:>13}  {kl[0]:>29} {kl[1]:>15}", flush=True)
    for outcome in outcomes.values():
        outcome.check()
