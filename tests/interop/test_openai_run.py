"""A run between two models of OpenAI's format: bridges are trained, nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import bridges
from bridges.cli.overrides import check_command_line
from bridges.config import Config, DataConfig, ModelConfig, SparseConfig, TrainConfig
from bridges.dense import load_dense
from bridges.errors import CheckpointError, ConfigError, ModelError
from bridges.interop.openai import load_openai
from bridges.interop.openai_save import save_openai
from bridges.runs.initialise import build, choose_start, finish

VOCAB = 300


@pytest.fixture(scope="module")
def folders(workplace: Path, tmp_path_factory) -> dict[str, Path]:
    """A dense and a sparse checkpoint of different depth and form; a tenth of the sparse one's weights are not zero."""
    from bridges.sparse import SparseTransformer, SparseTransformerConfig

    root = tmp_path_factory.mktemp("openai")
    shape = {"vocab_size": VOCAB, "context": 32, "norm_gain": True, "d_head": 4}
    dense = SparseTransformerConfig(
        n_layer=2, d_model=16, norm="layer", norm_bias=True, position="learned", bigram="none",
        activation_fraction=None, attention_sink=False, tie_word_embeddings=True, **shape,
    )  # fmt: skip
    sparse = SparseTransformerConfig(
        n_layer=1, d_model=24, norm_eps=None, position="concat_shared", d_position=4, activation="relu", **shape
    )
    made = {}
    for name, config in (("dense", dense), ("sparse", sparse)):
        torch.manual_seed(1)
        model = SparseTransformer(config)
        for p in model.parameters():
            p.data.normal_(0.5 if p.ndim == 1 else 0.0, 0.3)
        if name == "sparse":
            for weight in model.sparse_matrices().values():
                weight.data.mul_(torch.rand(weight.shape) < 0.08)
        made[name] = save_openai(model, root / name)
    for file in (workplace / "dense").glob("*token*"):
        shutil.copy(file, root / "dense")
    return made


def test_bridges_alone_are_trained_and_verdicts_given(command, folders, workplace):
    arguments = command(
        "model=openai",
        f"model.name={folders['dense']}",
        f"sparse.init=openai:{folders['sparse']}",
        "train.freeze_sparse=true",
        "train.precision=fp32",
        "sparsity=0.2",
        "sparse.d_model=null",
        "sparse.d_head=16",
        "name=openai",
    )
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Starting from the model in" in done.stdout and "every matrix within its budget" in done.stdout
    run = bridges.load(workplace / "runs" / "openai")
    ids = torch.randint(VOCAB, (2, 20), generator=torch.Generator().manual_seed(0))
    for mine, folder in ((run.sparse, "sparse"), (run.dense, "dense")):
        assert torch.equal(mine.logits(ids), load_openai(folders[folder]).logits(ids))
    paths = run.table("paths")
    mean = paths[paths["kind"].isin(["single_d2s", "single_s2d"])].groupby("bridges")["kl"].mean()
    assert mean["trained"] < mean["untrained"]
    verdicts = run.table("verdicts")
    # Weights are random: what can be asked for at all, the dense model does not do.
    assert len(verdicts) > 10 and set(verdicts["verdict"]) <= {"dense model cannot", "not expressible"}
    assert (verdicts["verdict"] == "dense model cannot").any()


def settings(folders, sparsity: float = 0.2, freeze: bool = True, **sparse) -> Config:
    return Config(
        sparsity=sparsity,
        model=ModelConfig(name=str(folders["dense"])),
        data=DataConfig(context=32),
        sparse=SparseConfig(**({"init": f"openai:{folders['sparse']}"} | sparse)),
        train=TrainConfig(freeze_sparse=freeze),
    )


def test_training_may_go_on_with_the_weights(folders):
    dense, _ = load_dense(str(folders["dense"]))
    config = settings(folders, 0.01, freeze=False)
    start = choose_start(config, dense, 32, 0)
    sparse, _ = build(config, dense, start)
    # From the weights that are there down to those that are asked for.
    assert start.kind == "openai" and 0.06 < start.fraction < 0.2 and sparse.config.weight_fraction == 0.01
    finish(sparse, build(config, dense, start)[1])
    assert not any(p.requires_grad for p in sparse.parameters())


def test_a_setting_that_contradicts_the_model_is_named(folders):
    dense, _ = load_dense(str(folders["dense"]))
    with pytest.raises(ConfigError, match=r"sparsity=0.001: in the fullest matrix .* train.freeze_sparse=true keeps"):
        choose_start(settings(folders, 0.001), dense, 32, 0)
    with pytest.raises(ConfigError, match=r"sparse.d_model=48 but the model has 24"):
        choose_start(settings(folders, d_model=48), dense, 32, 0)
    with pytest.raises(ConfigError, match=r"data.context=64 but the model has positions for 32"):
        choose_start(settings(folders), dense, 64, 0)
    dense.vocab_size += 1
    with pytest.raises(ConfigError, match=r"dense model has 301 tokens but the model 300"):
        choose_start(settings(folders), dense, 32, 0)
    dense.vocab_size -= 1
    with pytest.raises(ModelError, match=r"sparse.init=dense: .* is in OpenAI's format"):
        choose_start(settings(folders, init="dense"), dense, 32, 0)


def test_folders_that_hold_none(folders, tmp_path):
    dense, _ = load_dense(str(folders["dense"]))
    with pytest.raises(CheckpointError, match=r"no readable .*beeg_config.json"):
        choose_start(settings(folders, init=f"openai:{tmp_path}"), dense, 32, 0)
    with pytest.raises(ConfigError, match="openai:<folder>"):
        choose_start(settings(folders, init=str(tmp_path)), dense, 32, 0)
    with pytest.raises(ModelError, match=r"beeg_config.json"):
        load_dense(str(tmp_path))
    with pytest.raises(ConfigError, match=r"model=openai model\.name=<folder>"):
        ModelConfig(name="")


def test_the_settings_are_known_to_the_command_line(folders):
    check_command_line(["model=openai", f"model.name={folders['dense']}", f"sparse.init=openai:{folders['sparse']}"])
