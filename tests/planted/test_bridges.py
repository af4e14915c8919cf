"""Bridges that start at random find the rotation between the two models of a world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from bridges.bridge import Bridges, measure_scales, pair_sites
from bridges.config import Config, TrainConfig
from bridges.data.blocks import TokenBlocks
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import path_logits
from bridges.planted import World, plant
from bridges.training.loop import Trainer


def train_bridges(world: World, steps: int, seed: int, folder: Path, lr: float = 2e-2) -> Trainer:
    """Linear bridges trained from random weights beside a frozen sparse model, by the ordinary objective."""
    ids = world.text(512, seed=1)
    blocks = TokenBlocks({"train": ids.numpy().astype(np.int32)}, {"train": len(ids)}, "planted")
    pairs = pair_sites(world.dense.n_sublayers, world.sparse.n_sublayers)
    bridges = Bridges(world.dense.d_model, world.sparse.d_model, pairs, None, seed)
    measure_scales(bridges, world.dense.run(ids[:16]).sites, world.sparse.run(ids[:16]).sites)
    train = TrainConfig(
        tokens=steps * 16 * ids.shape[1],
        batch=16,
        lr=lr,
        weight_decay=0.0,
        hybrid_sites="1",
        precision="fp32",
        freeze_sparse=True,
        log_every=1000,
        checkpoint_every=1000,
    )
    config = Config(seed=seed, sparsity=0.01, train=train)
    trainer = Trainer(config, world.dense, world.sparse, bridges, blocks, Accelerator(cpu=True), folder)
    for _ in range(steps):
        trainer.step()
    return trainer


@pytest.fixture(scope="module")
def world() -> World:
    return plant(0, ("copy", "select"), n_layer=2, d_model=24, d_mlp=24)


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return train_bridges(world, 350, 3, tmp_path_factory.mktemp("bridges"))


@torch.no_grad()
def test_decoders_and_encoders_become_the_rotation_and_its_inverse(world, trained):
    ids, rotation = world.text(64, seed=2), world.dense.rotation
    sparse, dense = world.sparse.run(ids).sites, world.dense.run(ids).sites
    for pair, bridge in zip(trained.bridges.pairs, trained.bridges, strict=True):
        s, d = sparse[pair.sparse], dense[pair.dense]
        assert (bridge.decode(s) - d).norm() < 0.15 * d.norm()
        assert (bridge.encode(d) - s).norm() < 0.15 * s.norm()
        # As matrices they must agree in every direction in which the text varies.
        used = s.flatten(0, 1).std(0) > 0.1
        down = bridge.decoder.weight.T * bridge.scale / bridge.sparse_scale
        up = bridge.encoder.weight * bridge.sparse_scale / bridge.scale
        assert int(used.sum()) > 12
        assert torch.cosine_similarity(down, rotation, dim=1)[used].mean() > 0.98
        assert torch.cosine_similarity(up, rotation, dim=1)[used].mean() > 0.93


@torch.no_grad()
def test_hybrids_predict_what_the_dense_model_predicts(world, trained):
    ids = world.text(64, seed=2)
    reference = world.dense.logits(ids).log_softmax(-1)
    untrained = Bridges(24, 24, trained.bridges.pairs, None, 4)
    for first in "DS":
        for site in range(len(trained.bridges)):
            kl = []
            for bridges in (trained.bridges, untrained):
                logits = path_logits(MixedPath(first, (site,)), world.dense, world.sparse, bridges, ids)
                kl.append(float((reference.exp() * (reference - logits.log_softmax(-1))).sum(-1).mean()))
            assert kl[0] < 0.05 < 0.5 < kl[1]


def test_a_frozen_sparse_model_stays_as_it_was(world, trained):
    for name, value in plant(0, ("copy", "select"), n_layer=2, d_model=24, d_mlp=24).sparse.state_dict().items():
        assert torch.equal(value, world.sparse.state_dict()[name])
    # The optimizer knows of nothing but the bridges.
    known = {id(p) for group in trained.optimizer.groups for p in group["params"]}
    assert known == {id(p) for p in trained.bridges.parameters()}
