"""The weight-sparse transformer by hand, against a slow NumPy one, and through its files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from bridges.config.literals import NODE_KINDS, STREAM_POINTS
from bridges.errors import CheckpointError, ConfigError
from bridges.nodes import record
from bridges.sparse import SparseTransformer, SparseTransformerConfig, load_sparse

OPTIONS = {
    "paper": {},
    "learned positions, low rank": {"position": "learned", "bigram": "low_rank"},
    "concatenated positions, no bigram": {"position": "concat", "bigram": "none"},
    "plain": {"bias": False, "attention_sink": False, "bigram": "none", "activation_fraction": None},
    "gains and relu": {"norm_gain": True, "activation": "relu", "norm_eps": 0.01},
    "sparse stream": {"activation_points": [*NODE_KINDS, *STREAM_POINTS], "activation_fraction": 0.4},
    "some points": {"activation_points": ["q", "mlp_out"], "activation_fraction": 0.1, "n_head": 3, "d_mlp": 7},
    "everything": {
        "position": "concat",
        "d_position": 3,
        "norm_gain": True,
        "bigram": "low_rank",
        "bias": False,
        "n_layer": 1,
        "activation_points": ["v", "resid_post_attn", "attn_in"],
    },
}
IDS = torch.randint(29, (2, 9), generator=torch.Generator().manual_seed(4))


@pytest.fixture(params=list(OPTIONS))
def options(request) -> dict:
    return OPTIONS[request.param]


class _Slow:
    """The same model token by token in double precision."""

    def __init__(self, model: SparseTransformer):
        self.config = model.config
        self.weights = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        eps = np.finfo(np.float32).eps if self.config.norm_eps is None else self.config.norm_eps
        gain = self.weights.get(f"{name}.weight", 1.0)
        return gain * x / math.sqrt(np.mean(x**2) + eps)

    def top_k(self, kind: str, x: np.ndarray) -> np.ndarray:
        if kind not in self.config.activation_points or self.config.activation_fraction is None:
            return x
        k = max(1, math.floor(self.config.activation_fraction * len(x) + 1e-9))
        out = np.zeros_like(x)
        for i in sorted(range(len(x)), key=lambda i: -abs(x[i]))[:k]:
            out[i] = x[i]
        return out

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return self.weights[f"{name}.weight"] @ x + self.weights.get(f"{name}.bias", 0.0)

    def read(self, h: np.ndarray, t: int, block: str) -> np.ndarray:
        x = self.norm(h, f"{block}.read.norm")
        table = self.weights.get(f"{block}.read.positions.weight")
        if table is None:
            return x
        return np.concatenate([x, table[t] / math.sqrt(np.mean(table[t] ** 2) + np.finfo(np.float32).eps)])

    def attention(self, stream: list[np.ndarray], block: str) -> list[np.ndarray]:
        heads, size = self.config.n_head, self.config.d_head
        q, k, v = [], [], []
        for t, h in enumerate(stream):
            x = self.top_k("attn_in", self.read(h, t, block))
            for kind, into in (("q", q), ("k", k), ("v", v)):
                into.append(self.top_k(kind, self.linear(x, f"{block}.{kind}")).reshape(heads, size))
        out = []
        for t, h in enumerate(stream):
            mixed = np.zeros((heads, size))
            for head in range(heads):
                terms = [math.exp(q[t][head] @ k[s][head] / math.sqrt(size)) for s in range(t + 1)]
                total = sum(terms)
                if self.config.attention_sink:
                    total += math.exp(self.weights[f"{block}.sink"][head])
                for s, term in enumerate(terms):
                    mixed[head] += term / total * v[s][head]
            write = self.top_k("attn_out", self.linear(mixed.ravel(), f"{block}.out"))
            out.append(self.top_k("resid_post_attn", h + write))
        return out

    def neuron(self, x: float) -> float:
        return max(0.0, x) if self.config.activation == "relu" else x * 0.5 * (1 + math.erf(x / math.sqrt(2)))

    def mlp(self, stream: list[np.ndarray], block: str) -> list[np.ndarray]:
        out = []
        for t, h in enumerate(stream):
            x = self.top_k("mlp_in", self.read(h, t, block))
            x = np.array([self.neuron(value) for value in self.linear(x, f"{block}.up")])
            write = self.top_k("mlp_out", self.linear(self.top_k("mlp_neuron", x), f"{block}.down"))
            out.append(self.top_k("resid_post_mlp", h + write))
        return out

    def logits(self, ids: list[int]) -> np.ndarray:
        w = self.weights
        stream = [w["tokens.weight"][token].copy() for token in ids]
        if self.config.position == "learned":
            stream = [h + w["positions.weight"][t] for t, h in enumerate(stream)]
        for layer in range(self.config.n_layer):
            stream = self.mlp(self.attention(stream, f"blocks.{2 * layer}"), f"blocks.{2 * layer + 1}")
        out = []
        for token, h in zip(ids, stream, strict=True):
            row = self.linear(self.norm(h, "norm"), "head")
            if self.config.bigram == "full":
                row = row + w["bigram.weight"][token]
            elif self.config.bigram == "low_rank":
                row = row + w["bigram.1.weight"] @ w["bigram.0.weight"][token]
            out.append(row)
        return np.stack(out)


@torch.no_grad()
def test_logits_equal_those_of_a_slow_model_in_double_precision(tiny_sparse, options):
    model = tiny_sparse(**options)
    slow = _Slow(model)
    expected = np.stack([slow.logits(row) for row in IDS.tolist()])
    np.testing.assert_allclose(model(IDS).logits.numpy(), expected, rtol=2e-4, atol=2e-5)


@torch.no_grad()
def test_logits_of_hand_written_weights():
    model = SparseTransformer(
        SparseTransformerConfig(
            vocab_size=2,
            n_layer=1,
            d_model=2,
            d_mlp=2,
            d_head=1,
            n_head=1,
            context=4,
            activation="relu",
            bias=False,
            norm_eps=None,
            activation_fraction=0.5,
            activation_points=["mlp_in"],
        )
    )

    def put(parameter, values) -> None:
        parameter.copy_(torch.tensor(values))

    attention, mlp = model.blocks
    # Streams of RMS one, (1, 1) and (1, -1), are read as they are.
    put(model.tokens.weight, [[1.0, 1.0], [1.0, -1.0]])
    # q is 1, k is ln 2 and -ln 2: with the sink's term 1 the weights are 2/3, then 4/7 and 1/7.
    put(attention.q.weight, [[1.0, 0.0]])
    put(attention.k.weight, [[0.0, math.log(2)]])
    # v is 9 and -78: attention writes 2/3·9 = 6, then (4·9 - 78)/7 = -6, so that the stream is (1, 7), then (1, -7).
    put(attention.v.weight, [[-34.5, 43.5]])
    put(attention.out.weight, [[0.0], [1.0]])
    # Of RMS 5, read as (0.2, ±1.4), of which AbsTopK keeps ±1.4: the neurons are (7, 0), then (0, 7).
    put(mlp.up.weight, [[5.0, 5.0], [5.0, -5.0]])
    # They write (6, 0), then (0, 6): the stream is (7, 7), then (1, -1), both normalised to ones.
    put(mlp.down.weight, [[6 / 7, 0.0], [0.0, 6 / 7]])
    put(model.head.weight, [[2.0, 0.0], [1.0, 3.0]])
    put(model.bigram.weight, [[0.5, -0.5], [0.0, 1.0]])
    expected = torch.tensor([[[2.5, 3.5], [2.0, -1.0]]])
    torch.testing.assert_close(model(torch.tensor([[0, 1]])).logits, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_saved_and_loaded_models_give_identical_logits(tiny_sparse, options, tmp_path):
    model = tiny_sparse(**options)
    model.save_pretrained(tmp_path)
    expected = model(IDS).logits
    for loaded in (SparseTransformer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert type(loaded) is SparseTransformer and not loaded.training
        assert torch.equal(loaded(IDS).logits, expected)
        assert loaded.nodes.widths == model.nodes.widths
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, SparseTransformerConfig)
    for key in SparseTransformerConfig().to_dict():
        if key not in ("transformers_version", "architectures", "dtype", "_name_or_path"):
            assert getattr(config, key, None) == getattr(model.config, key, None), key


@torch.no_grad()
def test_a_later_token_never_changes_an_earlier_logit(tiny_sparse, options):
    model = tiny_sparse(**options)
    plain = model(IDS).logits
    for t in range(1, 9):
        changed = IDS.clone()
        changed[:, t] = (changed[:, t] + 1) % 29
        logits = model(changed).logits
        assert torch.equal(logits[:, :t], plain[:, :t])
        assert not torch.equal(logits[:, t], plain[:, t])
        torch.testing.assert_close(model(IDS[:, :t]).logits, plain[:, :t], rtol=1e-4, atol=1e-5)


def test_loss_is_that_of_the_next_token(tiny_sparse):
    model = tiny_sparse()
    out = model(IDS, labels=IDS)
    expected = F.cross_entropy(out.logits[:, :-1].reshape(-1, 29), IDS[:, 1:].reshape(-1))
    torch.testing.assert_close(out.loss, expected)
    assert model(IDS).loss is None


@pytest.mark.parametrize(
    ("options", "key", "nearest"),
    [
        ({"activation": "gellu"}, "sparse.activation", "gelu"),
        ({"position": "learnt"}, "sparse.position", "learned"),
        ({"bigram": "lowrank"}, "sparse.bigram", "low_rank"),
        ({"activation_points": ["q", "mlp_neurons"]}, "sparse.activation_points", "mlp_neuron"),
        ({"activation_points": ["resid_post_mpl"]}, "sparse.activation_points", "resid_post_mlp"),
    ],
)
def test_a_misspelt_option_names_the_nearest(options, key, nearest):
    with pytest.raises(ConfigError, match=rf"{key}=.*Did you mean.*'{nearest}'"):
        SparseTransformerConfig(**options)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_fraction", 0.0),
        ("activation_fraction", 1.5),
        ("n_layer", 0),
        ("d_model", 0),
        ("d_mlp", -1),
        ("d_head", 0),
        ("n_head", 0),
        ("context", 0),
        ("vocab_size", 0),
    ],
)
def test_an_impossible_size_names_its_key(key, value):
    with pytest.raises(ConfigError, match=rf"sparse\.{key}={value} "):
        SparseTransformerConfig(**{key: value})


def test_defaults_that_follow_from_others():
    config = SparseTransformerConfig(d_model=48, d_head=16)
    assert (config.d_mlp, config.n_head, config.d_position) == (192, 3, 0)
    assert SparseTransformerConfig(d_model=8, d_head=16).n_head == 1
    assert (config.kept(48), config.kept(3), SparseTransformerConfig(activation_fraction=None).kept(48)) == (12, 1, 48)


def test_the_budget_covers_exactly_embedding_unembedding_and_block_matrices(tiny_sparse, options):
    model = tiny_sparse(**options)
    expected = {"tokens.weight", "head.weight"}
    for layer in range(model.config.n_layer):
        expected |= {f"blocks.{2 * layer}.{part}.weight" for part in ("q", "k", "v", "out")}
        expected |= {f"blocks.{2 * layer + 1}.{part}.weight" for part in ("up", "down")}
    matrices, parameters = model.sparse_matrices(), dict(model.named_parameters())
    assert set(matrices) == expected
    assert all(p is parameters[name] and p.ndim == 2 for name, p in matrices.items())


def test_node_widths_are_those_of_the_recorded_values(tiny_sparse, options):
    model = tiny_sparse(**options)
    with torch.no_grad(), record(model) as seen:
        model(IDS)
    assert {point: value.shape[-1] for point, value in seen.items()} == model.nodes.widths
    assert list(seen) == list(model.nodes.widths)


def test_fresh_weights():
    torch.manual_seed(0)
    model = SparseTransformer(
        SparseTransformerConfig(
            vocab_size=200, n_layer=1, d_model=48, context=8, norm_gain=True, initializer_range=0.05
        )
    )
    for name, p in model.named_parameters():
        if name == "bigram.weight" or name.endswith(("bias", "sink")):
            assert not p.any(), name
        elif "norm" in name:
            assert (p == 1).all(), name
        else:
            assert p.std().item() == pytest.approx(0.05, rel=0.1), name
    assert model.head.weight is not model.tokens.weight


# --- what is wrong with its files --------------------------------------------------------------------------------


@pytest.fixture
def written(tiny_sparse, tmp_path):
    """A folder with a sparse model in it."""
    tiny_sparse().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_it_is_read_as_it_was_written(written, tiny_sparse):
    assert torch.equal(load_sparse(written).logits(IDS), tiny_sparse().logits(IDS))


def test_pickled_weights_are_refused_in_words_of_ours(written, tmp_path):
    class Code:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (written / "model.safetensors").unlink()
    torch.save({"tokens.weight": Code()}, written / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="the file holds pickled Python objects") as caught:
        load_sparse(written)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_weights_that_lack_are_not_left_random(written):
    state = load_file(written / "model.safetensors")
    del state["blocks.0.q.weight"]
    save_file(state, written / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"is not whole: 1 weights such as blocks\.0\.q\.weight lack"):
        load_sparse(written)


def test_damaged_files_and_missing_folders(written, tmp_path):
    (written / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_sparse(written)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_sparse(tmp_path / "nowhere")
