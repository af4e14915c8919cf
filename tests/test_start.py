"""Where training starts: a copy of the dense model computes the dense model, a pair goes on, and clashes are named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from bridges.bridge import Bridges, pair_sites
from bridges.config import Config, ModelConfig, SparseConfig
from bridges.dense.gpt2 import GPT2Stack
from bridges.dense.opt import OPTStack
from bridges.errors import CheckpointError, ConfigError
from bridges.runs import pipeline
from bridges.runs.initialise import build, choose_start, trained_bridges
from bridges.sparse import Schedule, SparseTransformer
from bridges.sparse.packed import PACKED, load_packed, save_packed


def gpt2(seed: int = 0) -> GPT2Stack:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=37, n_positions=16, n_embd=12, n_layer=2, n_head=3, attn_implementation="sdpa")
    return GPT2Stack(_disturbed(AutoModelForCausalLM.from_config(config)))


def opt() -> OPTStack:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=37,
        hidden_size=12,
        word_embed_proj_dim=12,
        num_hidden_layers=2,
        ffn_dim=20,
        num_attention_heads=3,
        max_position_embeddings=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return OPTStack(_disturbed(AutoModelForCausalLM.from_config(config)))


def _disturbed(model):
    """Gains away from 1 and biases away from 0, so that forgetting to fold one shows."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


def settings(**sparse) -> Config:
    return Config(sparsity=0.2, sparse=SparseConfig(**sparse))


@pytest.mark.parametrize("make", [gpt2, opt])
@pytest.mark.parametrize("width", [1, 2])
def test_a_copy_of_the_dense_model_gives_its_predictions(make, width):
    dense = make()
    start = choose_start(settings(init="dense", width=width), dense, 16, 0)
    sparse, _ = build(settings(init="dense", width=width), dense, start)
    sparse.activation_fraction = 1.0
    ids = torch.randint(0, 37, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = sparse.logits(ids).log_softmax(-1), dense.logits(ids).log_softmax(-1)
    assert sparse.d_model == width * dense.d_model
    assert theirs.exp().max() > 0.2  # a flat prediction would prove nothing
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_the_spare_channels_of_a_copy_get_gradients():
    dense = gpt2()
    config = settings(init="dense", width=2)
    sparse, _ = build(config, dense, choose_start(config, dense, 16, 0))
    sparse.activation_fraction = 1.0
    ids = torch.randint(0, 37, (3, 16), generator=torch.Generator().manual_seed(1))
    sparse(ids, labels=ids).loss.backward()
    assert sparse.tokens.weight.grad[:, dense.d_model :].abs().sum() > 0
    assert sparse.blocks[1].down.weight.grad[:, 48:].abs().sum() > 0


def test_a_copy_needs_room():
    dense = gpt2()
    with pytest.raises(ConfigError, match=r"sparse.d_model=8.*at least the dense model's 12"):
        config = settings(init="dense", d_model=8)
        build(config, dense, choose_start(config, dense, 16, 0))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    dense, config = gpt2(), settings(init="random", position="concat", d_position=4, d_head=4)
    sparse, bridges = build(config, dense, choose_start(config, dense, 16, 0))
    with torch.no_grad():
        for p in sparse.sparse_matrices().values():
            p.mul_(torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    sparse.save_pretrained(tmp_path / "model")
    bridges.save_pretrained(tmp_path / "bridges")
    return tmp_path


def test_a_pair_goes_on_with_its_own_shape_and_weights(pair):
    config = settings(init=str(pair))
    config.sparsity = 0.05
    start = choose_start(config, gpt2(), 16, 0)
    sparse, _ = build(config, gpt2(), start)
    saved = SparseTransformer.from_pretrained(pair / "model")
    assert (start.kind, start.fraction) == ("pair", 0.2)
    assert sparse.config.position == "concat" and sparse.config.weight_fraction == 0.05
    assert all(
        torch.equal(a, b) for a, b in zip(sparse.state_dict().values(), saved.state_dict().values(), strict=True)
    )


def test_a_pair_brings_its_bridges_along_where_they_join_the_same_sites(pair):
    config = settings(init=str(pair))
    config.sparsity = 0.2
    start = choose_start(config, gpt2(), 16, 0)
    _, bridges = build(config, gpt2(), start)
    saved, found = Bridges.from_pretrained(pair / "bridges").state_dict(), trained_bridges(start, bridges)
    assert found is not None and all(torch.equal(value, saved[name]) for name, value in found.state_dict().items())
    config.bridge.every = 2
    assert trained_bridges(start, build(config, gpt2(), start)[1]) is None
    assert trained_bridges(choose_start(settings(init="random"), gpt2(), 16, 0), bridges) is None


def test_a_run_tells_its_training_whether_the_bridges_came_with_the_pair(pair, monkeypatch):
    told = {}
    monkeypatch.setattr(pipeline, "Trainer", lambda *args, **options: told.update(options))
    for init, kept in ((str(pair), True), ("random", False)):
        config = settings(init=init)
        start = choose_start(config, gpt2(), 16, 0)
        sparse, bridges = build(config, gpt2(), start)
        parts = {"config": config, "dense": gpt2(), "sparse": sparse, "bridges": bridges, "start": start}
        parts |= {"data": None, "accelerator": None, "folder": SimpleNamespace(checkpoints=None)}
        pipeline.trainer_of(SimpleNamespace(**parts), lambda row, step: None)
        assert told["keep_bridges"] == kept


@pytest.mark.parametrize(
    ("sparse", "message"),
    [
        ({"width": 2}, "sparse.width=2 but the pair is 12 wide"),
        ({"d_head": 8}, "sparse.d_head=8 but the pair has 4"),
        ({"bigram": "none"}, "sparse.bigram=none but the pair has full"),
    ],
)
def test_a_setting_that_the_pair_contradicts_is_named(pair, sparse, message):
    with pytest.raises(ConfigError, match=message):
        choose_start(settings(init=str(pair), **sparse), gpt2(), 16, 0)


def test_no_pair_where_one_was_named():
    with pytest.raises(ConfigError, match="neither auto, random, dense nor shipped"):
        choose_start(settings(init="danse"), gpt2(), 16, 0)
    with pytest.raises(ConfigError, match="no trained pair ships for 'gpt2'"):
        config = Config(model=ModelConfig(name="gpt2"), sparse=SparseConfig(init="shipped"))
        choose_start(config, gpt2(), 16, 0)


def test_packed_weights_keep_zeros_nonzeros_and_values(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sparse = torch.randn(300, 700, generator=generator) * (torch.rand(300, 700, generator=generator) < 0.002)
    sparse[299, 699] = 1e-9  # below the smallest fp16, but not zero
    state = {"a": sparse, "b": torch.randn(5, 3, generator=generator), "c": torch.tensor(2.0), "d": torch.zeros(1000)}
    save_packed(state, tmp_path)
    back = load_packed(tmp_path)
    for name, tensor in state.items():
        assert torch.equal(back[name] != 0, tensor != 0), name
        torch.testing.assert_close(back[name], tensor, rtol=1e-3, atol=1e-7)
    assert (tmp_path / PACKED).stat().st_size < 4000  # 420 weights of three or four bytes, not 420,000


def test_damaged_packed_weights(tmp_path):
    (tmp_path / PACKED).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="No readable weights"):
        load_packed(tmp_path)


def test_annealing_goes_on_from_the_pair_s_fraction():
    schedule = Schedule(100, 0.01, start=0.05)
    assert schedule.fraction(0) == 0.05
    assert schedule.fraction(99) == 0.01
    assert all(schedule.fraction(i) >= schedule.fraction(i + 1) for i in range(99))
    assert schedule.boost(0) == 1.0 and abs(schedule.boost(99) - 5**0.5) < 1e-9


def test_bridges_let_everything_pass_when_told():
    bridges = Bridges(8, 12, pair_sites(2, 2), 0.25)
    h = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
    assert (bridges[0].encode(h) != 0).sum(-1).max() == 3
    bridges.keep(1.0)
    assert (bridges[0].encode(h) != 0).sum(-1).min() == 12
