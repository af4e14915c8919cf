"""The published model beside ours: a stand-in of its shape, written by the test, and folders that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bridges.cli import bench
from bridges.cli.peer import alternated, import_peer, peer_model, peer_rows, peer_text
from bridges.errors import BridgesError
from bridges.sparse import SparseTransformer, SparseTransformerConfig

SMALL = ["--d-sparse", "32", "--d-dense", "16", "--layers", "1", "--vocab", "64", "--context", "16", "--batch", "2"]

# Names and settings of the published model, its operations in textbook form.
MODEL = """
from dataclasses import dataclass
from circuit_sparsity.inference.places import every
import torch
from torch import nn

@dataclass
class GPTConfig:
    block_size: int; vocab_size: int; n_layer: int; n_head: int; d_head: int; d_model: int; d_mlp: int
    dropout: float; bias: bool; ln_bias: bool; rms_norm: bool; residual_activation_type: str; activation_type: str
    afrac: float; afrac_loctypes: str; tied_unembed: bool; enable_bigram_table: bool; learnable_bigram_table: bool
    d_pos_emb: int | None; sinusoidal_cat_pos_emb: bool; sink: bool; flash: bool; grad_checkpointing: bool

def kept(c, x):
    least = x.abs().topk(int(c.afrac * x.shape[-1])).values[..., -1:]
    return x * (x.abs() >= least)

class Sink(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.sink_logit = nn.Parameter(torch.zeros(c.n_head))

class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, width = c, c.n_head * c.d_head
        self.c_attn, self.c_proj = nn.Linear(c.d_model, 3 * width), nn.Linear(width, c.d_model)
        self.attn_imp = Sink(c)
    def forward(self, x):
        c, (b, t, _) = self.c, x.shape
        q, k, v = (kept(c, part).view(b, t, c.n_head, c.d_head).transpose(1, 2)
                   for part in self.c_attn(kept(c, x)).chunk(3, -1))
        scores = (q @ k.mT / c.d_head**0.5).masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
        e, sink = scores.exp(), self.attn_imp.sink_logit.exp().view(1, -1, 1, 1)
        y = (e / (e.sum(-1, keepdim=True) + sink)) @ v
        return kept(c, self.c_proj(y.transpose(1, 2).reshape(b, t, -1)))

class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.c_fc, self.c_proj = c, nn.Linear(c.d_model, c.d_mlp), nn.Linear(c.d_mlp, c.d_model)
    def forward(self, x):
        return kept(self.c, self.c_proj(kept(self.c, nn.functional.gelu(self.c_fc(kept(self.c, x))))))

class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1, self.ln_2 = nn.RMSNorm(c.d_model), nn.RMSNorm(c.d_model)
        self.attn, self.mlp = Attention(c), MLP(c)
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

class GPT(nn.Module):
    def __init__(self, c):
        super().__init__()
        assert c.afrac_loctypes.split(",") == every and c.rms_norm and not c.tied_unembed
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(c.vocab_size, c.d_model), wpe=nn.Embedding(c.block_size, c.d_model),
            h=nn.ModuleList([Block(c) for _ in range(c.n_layer)]), ln_f=nn.RMSNorm(c.d_model)))
        self.lm_head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        self.register_buffer("final_logits_bias", torch.zeros(c.vocab_size))
        self.bigram_table = nn.Parameter(torch.zeros(c.vocab_size, c.vocab_size))
        print("number of parameters: many")
    def forward(self, idx, targets=None):
        x = self.transformer.wte(idx) + self.transformer.wpe.weight[: idx.shape[1]]
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x)) + self.final_logits_bias + self.bigram_table[idx]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        return logits, loss, []
"""
PLACES = 'every = "attn_in attn_q attn_k attn_v attn_out mlp_in mlp_neuron mlp_out".split()\n'


@pytest.fixture
def checkout(tmp_path):
    """``checkout(text of gpt.py)``: a folder like a checkout of the published sources."""

    def make(model: str = MODEL, name: str = "checkout") -> Path:
        folder = tmp_path / name / "circuit_sparsity" / "inference"
        folder.mkdir(parents=True)
        (folder / "gpt.py").write_text(model)
        (folder / "places.py").write_text(PLACES)
        return tmp_path / name

    return make


def _sparse() -> SparseTransformer:
    torch.manual_seed(0)
    sparse = SparseTransformer(SparseTransformerConfig(vocab_size=64, n_layer=2, d_model=32, d_head=8, context=16))
    with torch.no_grad():
        for p in sparse.parameters():
            p.normal_(0, 0.5)
    return sparse


def test_both_compute_the_same_loss_and_gradient(checkout, capsys):
    sparse, ids = _sparse(), torch.randint(0, 64, (2, 16))
    peer = import_peer(checkout())
    theirs = peer_model(peer, sparse)
    loss = theirs(ids, targets=F.pad(ids[:, 1:], (0, 1), value=-1))[1]
    loss.backward()
    sparse.zero_grad()
    F.cross_entropy(sparse.logits(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    torch.testing.assert_close(theirs.lm_head.weight.grad, sparse.head.weight.grad, rtol=1e-3, atol=1e-5)
    rows = peer_rows(peer, sparse, ids, "fp32", 1)
    ours, published = rows["bridges, one sparse model"], rows["peer, one sparse model"]
    assert ours["loss"] == pytest.approx(published["loss"], rel=1e-5) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert ours["tokens/s"] == pytest.approx(32 / ours["s/step"])
    # Neither the model's own words nor gradients are left.
    assert capsys.readouterr().out == "" and all(p.grad is None for p in sparse.parameters())


def test_one_after_the_other_and_the_median(monkeypatch):
    clock, order = [0.0], []
    lasts = {"a": iter([50.0, 1.0, 9.0, 2.0]), "b": iter([50.0, 4.0, 4.0, 80.0])}
    monkeypatch.setattr("bridges.cli.peer.time.perf_counter", lambda: clock[0])

    def named(name: str):
        def function() -> torch.Tensor:
            order.append(name)
            clock[0] += next(lasts[name])
            return torch.tensor(float(len(name)))

        return function

    assert alternated([named("a"), named("b")], 3) == [(2.0, 1.0), (4.0, 1.0)]
    assert order == ["a", "b"] * 4


def test_the_ratio_is_theirs_over_ours():
    rows = {
        name: {"s/step": seconds, "tokens/s": 100 / seconds, "loss": loss}
        for name, seconds, loss in (("ours", 0.5, 2.002), ("theirs", 1.25, 2.0))
    }
    text = peer_text(rows)
    assert "500 ms a step, 200 tokens/s" in text and "1,250 ms, 80 tokens/s: 2.50 times faster" in text
    assert "differ by 1.0e-03" in text and "no bridges" in text


def test_the_command_prints_both(checkout, monkeypatch, capsys):
    folder = checkout()
    monkeypatch.setattr(sys, "argv", ["bridges bench", "--peer", str(folder), "--skip-plain", "--repeats", "1", *SMALL])
    assert bench.main() == 0
    out = capsys.readouterr().out
    assert "GFLOP/s" in out and "times faster than it" in out and '"peer, one sparse model"' in out
    assert "circuit_sparsity" not in sys.modules and str(folder) not in sys.path


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, r"is no checkout of https://github.com/openai/circuit_sparsity: it has no circuit_sparsity.*Clone"),
        ("import no_such_package.part", r"needs the package no_such_package, which is not installed: pip install"),
        ("import circuit_sparsity.inference.gone", r"is not whole: it has no circuit_sparsity\.inference\.gone"),
        ("x = 1 / 0", r"cannot be imported \(ZeroDivisionError"),
        ("x = 1", r"is another one than was published in 2025 \(AttributeError"),
        (MODEL.replace("sink: bool;", ""), r"is another one than was published in 2025 \(TypeError"),
        (MODEL.replace("lm_head", "head"), r"is another one than was published in 2025 \(RuntimeError"),
    ],
)
def test_other_folders_end_in_one_message(checkout, tmp_path, monkeypatch, capsys, model, message):
    folder = tmp_path if model is None else checkout(model)
    with pytest.raises(BridgesError, match=message):
        peer_model(import_peer(folder), _sparse())
    if model is None:
        monkeypatch.setattr(sys, "argv", ["bridges bench", "--peer", str(folder), *SMALL])
        assert bench.main() == 1
        found = capsys.readouterr()
        assert found.out == "" and found.err.startswith("error: --peer")


def test_an_installed_package_of_that_name_is_not_meant(checkout):
    first, second = checkout("place = 1\n", "first"), checkout("place = 2\n", "second")
    assert (import_peer(first).place, import_peer(second).place) == (1, 2)


def test_it_does_not_go_with_scaling(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bridges bench", "--scaling", "--peer", "somewhere"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--peer does not go with --scaling" in capsys.readouterr().err
