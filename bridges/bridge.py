"""Bridges: an encoder and a decoder at every pair of sites (paper, sections 2.3 and A.3)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bridges.errors import CheckpointError, ConfigError, in_brief
from bridges.sparse.config import kept
from bridges.sparse.ops import abs_topk


@dataclass(frozen=True)
class SitePair:
    """A dense and a sparse site that a bridge joins."""

    dense: int
    sparse: int


def pair_sites(n_dense: int, n_sparse: int, every: int | None = None) -> list[SitePair]:
    """Pairs of sites, increasing from (0, 0) to (last, last).

    Args:
        n_dense, n_sparse: sublayers of the two stacks (one less than their sites).
        every: a pair at every ``every``-th sublayer of the *sparse* stack, the last always among them. None: at every
            sublayer of the shallower stack.

    Returns:
        pairs whose sites rise strictly on both sides. With equal depth and ``every=None`` the identity pairing.
    """
    if every is not None and every < 1:
        raise ConfigError(f"bridge.every={every} must be at least 1, or null.")
    shallow = min(n_dense, n_sparse)
    marks = range(shallow + 1) if every is None else [*range(0, n_sparse, every), n_sparse]
    steps = shallow if every is None else n_sparse
    pairs: list[SitePair] = []
    for mark in marks:
        pair = SitePair(round(mark * n_dense / steps), round(mark * n_sparse / steps))
        # Where rounding gives one site twice, as with a sparse stack deeper than the dense one, the first stays.
        if not pairs or (pair.dense > pairs[-1].dense and pair.sparse > pairs[-1].sparse):
            pairs.append(pair)
    last = SitePair(n_dense, n_sparse)
    if pairs[-1] != last:
        pairs[-1] = last
    return pairs


class Bridge(nn.Module):
    """One encoder and one decoder.

    Both work on streams divided by their typical size at the site: pretrained streams differ by orders of magnitude
    between models and depths, a sparse stream grows or shrinks while it trains, and one learning rate must serve all.

    Args:
        d_dense, d_sparse: widths of the two streams.
        kept: entries AbsTopK leaves of an encoded vector (``d_sparse``: a linear encoder).

    Attributes:
        scale: typical RMS of the dense stream, measured once.
        sparse_scale: the same of the sparse stream, which training follows.
    """

    scale: Tensor
    sparse_scale: Tensor

    def __init__(self, d_dense: int, d_sparse: int, kept: int):
        super().__init__()
        self.kept = kept
        self.encoder = nn.Linear(d_dense, d_sparse)
        self.decoder = nn.Linear(d_sparse, d_dense)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("sparse_scale", torch.ones(()))

    def encode(self, h: Tensor) -> Tensor:
        """Dense stream ``[B, T, d_dense]`` to sparse stream ``[B, T, d_sparse]``: linear, then AbsTopK."""
        return abs_topk(self.encoder(h / self.scale), self.kept).float() * self.sparse_scale

    def decode(self, h: Tensor) -> Tensor:
        """Sparse stream ``[B, T, d_sparse]`` to dense stream ``[B, T, d_dense]``: linear."""
        return self.decoder(h / self.sparse_scale).float() * self.scale


@dataclass(frozen=True)
class BridgesConfig:
    """What is needed to build the bridges again."""

    d_dense: int
    d_sparse: int
    pairs: tuple[tuple[int, int], ...]
    activation_fraction: float | None


class Bridges(nn.Module):
    """The bridges of all site pairs, from first to last.

    Args:
        d_dense, d_sparse: widths of the two streams.
        pairs: the site pairs, see `pair_sites`.
        activation_fraction: share of an encoded vector that AbsTopK keeps (paper: ¼; None: all of it).
        seed: of the random initial weights.
    """

    def __init__(
        self, d_dense: int, d_sparse: int, pairs: Sequence[SitePair], activation_fraction: float | None, seed: int = 0
    ):
        super().__init__()
        self.config = BridgesConfig(d_dense, d_sparse, tuple((p.dense, p.sparse) for p in pairs), activation_fraction)
        self.pairs = list(pairs)
        self.bridges = nn.ModuleList(Bridge(d_dense, d_sparse, kept(activation_fraction, d_sparse)) for _ in pairs)
        generator = torch.Generator().manual_seed(seed)
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5, generator=generator)
            nn.init.zeros_(linear.bias)

    def __len__(self) -> int:
        return len(self.pairs)

    def keep(self, fraction: float | None) -> None:
        """Let AbsTopK keep this share of an encoded vector from now on; training anneals it."""
        for bridge in self:
            bridge.kept = kept(fraction, self.config.d_sparse)

    @torch.no_grad()
    def follow(self, sizes: Tensor, rate: float = 0.05) -> None:
        """Move every ``sparse_scale`` towards the sparse stream's present size, ``[bridges]``."""
        for bridge, size in zip(self, sizes, strict=True):
            bridge.sparse_scale.lerp_(size, rate)

    def __getitem__(self, index: int) -> Bridge:
        return cast(Bridge, self.bridges[index])

    def __iter__(self) -> Iterator[Bridge]:
        return (self[i] for i in range(len(self)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``bridges.json`` and ``bridges.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in self.state_dict().items()}, folder / "bridges.safetensors")
        (folder / "bridges.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Bridges:
        """Read what `save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "bridges.json").read_text())
            pairs = [SitePair(*p) for p in config["pairs"]]
            bridges = cls(config["d_dense"], config["d_sparse"], pairs, config["activation_fraction"])
            bridges.load_state_dict(load_file(folder / "bridges.safetensors"))
        except Exception as error:
            raise CheckpointError(f"No readable bridges in {folder}: {in_brief(error)}.") from error
        return bridges


class _Moments:
    """Streaming second moments of ``(x, y)`` for a ridge regression with an unpenalised intercept."""

    def __init__(self, d_in: int, d_out: int):
        self.count = 0
        self.xx = torch.zeros(d_in + 1, d_in + 1, dtype=torch.float64)
        self.xy = torch.zeros(d_in + 1, d_out, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        x = torch.cat([x.flatten(0, -2), x.new_ones(x[..., 0].numel(), 1)], dim=1).double().cpu()
        self.xx += x.T @ x
        self.xy += x.T @ y.flatten(0, -2).double().cpu()
        self.count += len(x)

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight ``[out, in]`` and bias ``[out]``; ``ridge`` is relative to the mean square of the inputs."""
        penalty = ridge * self.xx.diagonal()[:-1].mean() * torch.ones(len(self.xx), dtype=torch.float64)
        penalty[-1] = 0.0
        solution = torch.linalg.lstsq(self.xx + penalty.diag(), self.xy, driver="gelsd").solution
        return solution[:-1].T.float().contiguous(), solution[-1].float()


def token_sizes(h: Tensor) -> Tensor:
    """RMS of each token's stream, ``[B, T, d]`` to ``[B, T]``, without gradient; never zero."""
    return h.detach().float().square().mean(-1).sqrt().clamp_min(1e-6)


@torch.no_grad()
def measure_scales(bridges: Bridges, dense: dict[int, Tensor], sparse: dict[int, Tensor]) -> None:
    """Set every bridge's scales to the typical sizes of the two streams at its sites, in place.

    Args:
        bridges: the bridges.
        dense, sparse: ``{site: stream [B, T, d]}`` of either stack on some text.
    """
    for pair, bridge in zip(bridges.pairs, bridges, strict=True):
        # The median passes over the few tokens with massive activations that pretrained models have. The mean can be
        # taken in parts, by processes that each see some of the batch.
        bridge.scale.copy_(token_sizes(dense[pair.dense]).median())
        bridge.sparse_scale.copy_(token_sizes(sparse[pair.sparse]).mean())


@torch.no_grad()
def fit_ridge(
    bridges: Bridges, streams: Iterable[tuple[dict[int, Tensor], dict[int, Tensor]]], ridge: float = 1e-4
) -> None:
    """Set every encoder and decoder to the closed-form ridge regression between the two streams, in place.

    Args:
        bridges: the bridges to overwrite; AbsTopK stays behind the encoders.
        streams: pairs ``({dense site: [B, T, d_dense]}, {sparse site: [B, T, d_sparse]})`` over some batches of text.
        ridge: penalty relative to the mean square of the inputs.
    """
    d, s = bridges.config.d_dense, bridges.config.d_sparse
    up = [_Moments(d, s) for _ in bridges.pairs]
    down = [_Moments(s, d) for _ in bridges.pairs]
    for dense, sparse in streams:
        for pair, bridge, encoder, decoder in zip(bridges.pairs, bridges, up, down, strict=True):
            x, y = dense[pair.dense].float() / bridge.scale, sparse[pair.sparse].float() / bridge.sparse_scale
            encoder.add(x, y)
            decoder.add(y, x)
    for bridge, encoder, decoder in zip(bridges, up, down, strict=True):
        for linear, moments in ((bridge.encoder, encoder), (bridge.decoder, decoder)):
            weight, bias = moments.solve(ridge)
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
