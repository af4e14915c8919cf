"""A run's stages take a world wherever they take a pretrained model, a corpus or a suite."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from bridges.cli.overrides import conf_folder
from bridges.config import BehavioursConfig, Config, DataConfig, ModelConfig, SparseConfig
from bridges.data.blocks import token_blocks
from bridges.dense import load_dense
from bridges.errors import ConfigError, ModelError
from bridges.planted import CONTEXT, Rotated, world_named
from bridges.runs.initialise import build, choose_start, finish
from bridges.runs.sources import select_behaviours


def config(name: str = "planted:2", sparsity: float = 0.15, **sparse) -> Config:
    return Config(
        sparsity=sparsity,
        model=ModelConfig(name=name, label="planted"),
        data=DataConfig(source="planted", path="2", context=CONTEXT),
        sparse=SparseConfig(**({"init": "planted"} | sparse)),
    )


def test_the_dense_model_and_its_tokenizer():
    stack, tokenizer = load_dense("planted:2")
    assert isinstance(stack, Rotated) and stack.vocab_size == len(tokenizer)
    words = world_named("2").language.asked[0].all
    assert len(tokenizer(" ".join(words))["input_ids"]) == len(words)


def test_text_and_behaviours_are_those_of_the_same_world():
    tokenizer = load_dense("planted:2")[1]
    settings = DataConfig(source="planted", path="2", context=CONTEXT, max_chars=200_000)
    data = token_blocks(settings, tokenizer, CONTEXT)
    # A block is a document: its end token stands first and nowhere else.
    for blocks in data.blocks.values():
        ids = torch.from_numpy(blocks)
        assert (ids[:, 0] == tokenizer.eos_token_id).all() and (ids[:, 1:] != tokenizer.eos_token_id).all()
        assert (ids != tokenizer.unk_token_id).all()
    behaviours = select_behaviours(BehavioursConfig(suite="planted", path="2", names=["agree", "copy-2"]), tokenizer)
    assert list(behaviours) == ["agree", "copy-2"]


def test_the_sparse_model_starts_as_it_was_planted_and_keeps_every_weight():
    world, dense = world_named("planted:2"), load_dense("planted:2")[0]
    start = choose_start(config(), dense, CONTEXT, 0)
    sparse, bridges = build(config(), dense, start)
    finish(sparse, bridges)
    assert sparse is not world.sparse and start.fraction == sparse.config.weight_fraction == 0.15
    ids = world.text(4)
    assert torch.equal(sparse.logits(ids), world.sparse.logits(ids))
    assert len(bridges) == dense.n_sublayers + 1
    assert torch.equal(world_named("planted:2").sparse.tokens.weight, sparse.tokens.weight)


def test_a_start_from_random_weights_has_the_world_s_depth_and_width():
    dense = load_dense("planted:2")[0]
    start = choose_start(config(init="auto"), dense, CONTEXT, 0)
    assert (start.kind, start.shape.n_layer, start.shape.d_model) == ("random", dense.n_layers, dense.d_model)


@pytest.mark.parametrize(
    ("settings", "context", "message"),
    [
        (config(name="gpt2"), CONTEXT, "model=planted"),
        (config(sparsity=0.01), CONTEXT, r"Use 0\.03"),
        (config(), 2 * CONTEXT, f"{CONTEXT} tokens"),
    ],
)
def test_what_does_not_fit_a_world(settings, context, message):
    with pytest.raises(ConfigError, match=message):
        choose_start(settings, load_dense("planted:2")[0], context, 0)


def test_a_world_has_no_folded_weights():
    with pytest.raises(ModelError, match="planted or random"):
        choose_start(config(init="dense"), load_dense("planted:2")[0], CONTEXT, 0)


def test_the_preset_s_world_is_that_of_the_run_s_seed():
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = OmegaConf.to_object(compose("config", overrides=["experiment=planted", "seed=5"]))
    assert isinstance(composed, Config)
    assert (composed.model.name, composed.data.path, composed.behaviours.path) == ("planted:5", "5", "5")
    assert composed.train.freeze_sparse and composed.sparse.init == "planted"
    for seed in range(3):
        assert world_named(f"planted:{seed}").density <= composed.sparsity
