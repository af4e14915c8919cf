"""Bridges: an encoder and a decoder at every pair of sites (paper, sections 2.3 and A.3)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


# Where a standardised stream is clipped, in deviations: what a token with a massive activation, a thousand of them, has
# to say is said by the clipped one, and no weight is multiplied by a thousand.
CLIP = 6.0
# A number, so that weights on disk stay finite.
NO_CLIP = torch.finfo(torch.float32).max
# A token whose stream is so many times as long as the median one is left out where means and deviations are measured.
OUTLIER = 5.0
# The least deviation of a channel, as a share of the mean one: channels that hardly vary are not blown up.
LEAST_DEVIATION = 0.01


class Bridge(nn.Module):
    """One encoder and one decoder.

    The dense stream is standardised channel by channel: in pretrained models some channels vary a hundred times as much
    as others, and a few tokens have activations a thousand times as large (Sun et al. 2024, "Massive Activations in
    Large Language Models"). The sparse stream is divided by its typical size, which changes while it trains. So one
    learning rate serves every model and depth.

    Args:
        d_dense, d_sparse: widths of the two streams.
        kept: entries AbsTopK leaves of an encoded vector (``d_sparse``: a linear encoder).

    Attributes:
        mean, scale: of every dense channel over text, ``[d_dense]`` each; measured once. 0 and 1 before that.
        clip: deviations at which the standardised stream is cut off; the largest number there is before that.
        sparse_scale: typical RMS of the sparse stream, which training follows.
    """

    mean: Tensor
    scale: Tensor
    clip: Tensor
    sparse_scale: Tensor

    def __init__(self, d_dense: int, d_sparse: int, kept: int):
        super().__init__()
        self.kept = kept
        self.encoder = nn.Linear(d_dense, d_sparse)
        self.decoder = nn.Linear(d_sparse, d_dense)
        self.register_buffer("mean", torch.zeros(d_dense))
        self.register_buffer("scale", torch.ones(d_dense))
        self.register_buffer("clip", torch.tensor(NO_CLIP))
        self.register_buffer("sparse_scale", torch.ones(()))

    def standardise(self, h: Tensor) -> Tensor:
        """Dense stream ``[..., d_dense]`` with mean 0 and deviation 1 in every channel, clipped; in fp32."""
        return ((h.float() - self.mean) / self.scale).clamp(-self.clip, self.clip)

    def text_moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[d_dense]`` and variance (a scalar, summed over channels) that errors of the decoder are held against.

        Those of ordinary tokens over text, as they were measured: a batch's own are far off where a massive activation
        is among its tokens, and nearly zero where its prompts are alike.

        Args:
            mean, variance: of the batch, for bridges that nothing was measured for.
        """
        measured = self.clip < NO_CLIP
        return torch.where(measured, self.mean, mean), torch.where(measured, self.scale.square().sum(), variance)

    def encode(self, h: Tensor) -> Tensor:
        """Dense stream ``[B, T, d_dense]`` to sparse stream ``[B, T, d_sparse]``: linear, then AbsTopK."""
        return abs_topk(self.encoder(self.standardise(h)), self.kept).float() * self.sparse_scale

    def decode(self, h: Tensor) -> Tensor:
        """Sparse stream ``[B, T, d_sparse]`` to dense stream ``[B, T, d_dense]``: linear."""
        return self.decoder(h / self.sparse_scale).float() * self.scale + self.mean

    def decode_change(self, delta: Tensor) -> Tensor:
        """What a change of the sparse stream is in the dense one: ``decode(h + delta) - decode(h)``, whatever h is.

        The decoder's linear part alone, ``[..., d_sparse]`` to ``[..., d_dense]`` in fp32.
        """
        return (delta.float() / self.sparse_scale) @ self.decoder.weight.float().T * self.scale

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        # Bridges of earlier versions have one scale for all channels and neither means nor a clip.
        scale = state_dict.get(f"{prefix}scale")
        if scale is not None and scale.ndim == 0:
            state_dict[f"{prefix}scale"] = scale.expand(len(self.scale)).clone()
            state_dict.setdefault(f"{prefix}mean", torch.zeros_like(self.mean))
            state_dict.setdefault(f"{prefix}clip", torch.full_like(self.clip, NO_CLIP))
        super()._load_from_state_dict(state_dict, prefix, *args)


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

    Attributes:
        constant_prefix: number of leading positions whose streams are the same in every sequence, such as that of a
            token that all begin with. There is nothing to translate there: hybrids keep the stream of the model that
            is crossed into (`bridges.hybrid.keep_prefix`), and neither scales nor errors look at them.
    """

    _constant_prefix: Tensor

    def __init__(
        self, d_dense: int, d_sparse: int, pairs: Sequence[SitePair], activation_fraction: float | None, seed: int = 0
    ):
        super().__init__()
        self.config = BridgesConfig(d_dense, d_sparse, tuple((p.dense, p.sparse) for p in pairs), activation_fraction)
        self.pairs = list(pairs)
        self.bridges = nn.ModuleList(Bridge(d_dense, d_sparse, kept(activation_fraction, d_sparse)) for _ in pairs)
        # A buffer, so that checkpoints and files keep it.
        self.register_buffer("_constant_prefix", torch.zeros((), dtype=torch.long))
        generator = torch.Generator().manual_seed(seed)
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5, generator=generator)
            nn.init.zeros_(linear.bias)

    @property
    def constant_prefix(self) -> int:
        """See the class."""
        return int(self._constant_prefix)

    @constant_prefix.setter
    def constant_prefix(self, length: int) -> None:
        if length < 0:
            raise ConfigError(f"A constant prefix of {length} positions cannot be.")
        self._constant_prefix.fill_(length)

    def like(self, seed: int = 0) -> Bridges:
        """Other random bridges with these ones' shape, means, scales and constant prefix, on the same device."""
        other = Bridges(
            self.config.d_dense, self.config.d_sparse, self.pairs, self.config.activation_fraction, seed
        ).to(self._constant_prefix.device)
        learned = {name for name, _ in self.named_parameters()}
        measured = {name: value for name, value in self.state_dict().items() if name not in learned}
        other.load_state_dict(other.state_dict() | measured)
        return other

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        # Bridges of earlier versions know of no constant prefix.
        state_dict.setdefault(f"{prefix}_constant_prefix", torch.zeros_like(self._constant_prefix))
        super()._load_from_state_dict(state_dict, prefix, *args)

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
def measure_scales(
    bridges: Bridges,
    dense: Mapping[int, Tensor] | Sequence[Mapping[int, Tensor]],
    sparse: Mapping[int, Tensor] | Sequence[Mapping[int, Tensor]],
) -> None:
    """Set every bridge's means and scales to those of the two streams at its sites, in place.

    Positions of the constant prefix and tokens with massive activations are left out of the dense stream's.

    Args:
        bridges: the bridges.
        dense, sparse: ``{site: stream [B, T, d]}`` of either stack on some text, or such of several batches.

    Raises:
        ConfigError: the text is no longer than the constant prefix.
    """
    start = bridges.constant_prefix

    def tokens(streams: Mapping[int, Tensor] | Sequence[Mapping[int, Tensor]], site: int) -> Tensor:
        batches = [streams] if isinstance(streams, Mapping) else streams
        return torch.cat([batch[site][:, start:].flatten(0, 1) for batch in batches])

    for pair, bridge in zip(bridges.pairs, bridges, strict=True):
        h = tokens(dense, pair.dense)
        if not h.numel():
            raise ConfigError(f"Sequences must be longer than the constant prefix of {start} positions.")
        sizes = token_sizes(h)
        h = h[sizes <= OUTLIER * sizes.median()].float()
        deviation = h.std(0, correction=0)
        bridge.mean.copy_(h.mean(0))
        bridge.scale.copy_(deviation.clamp_min(LEAST_DEVIATION * float(deviation.mean())).clamp_min(1e-6))
        bridge.clip.fill_(CLIP)
        # A mean can be taken in parts, by processes that each see some of the batch; the median could not.
        bridge.sparse_scale.copy_(token_sizes(tokens(sparse, pair.sparse)).mean())


@torch.no_grad()
def fit_ridge(
    bridges: Bridges, streams: Iterable[tuple[dict[int, Tensor], dict[int, Tensor]]], ridge: float = 1e-4
) -> None:
    """Set every encoder and decoder to the closed-form ridge regression between the two streams, in place.

    It is done between the standardised streams, clipped on both sides of the regression: otherwise a few tokens with
    massive activations decide it. The constant prefix is left out.

    Args:
        bridges: the bridges to overwrite; AbsTopK stays behind the encoders.
        streams: pairs ``({dense site: [B, T, d_dense]}, {sparse site: [B, T, d_sparse]})`` over some batches of text.
        ridge: penalty relative to the mean square of the inputs.
    """
    d, s, start = bridges.config.d_dense, bridges.config.d_sparse, bridges.constant_prefix
    up = [_Moments(d, s) for _ in bridges.pairs]
    down = [_Moments(s, d) for _ in bridges.pairs]
    for dense, sparse in streams:
        for pair, bridge, encoder, decoder in zip(bridges.pairs, bridges, up, down, strict=True):
            x = bridge.standardise(dense[pair.dense][:, start:])
            y = sparse[pair.sparse][:, start:].float() / bridge.sparse_scale
            encoder.add(x, y)
            decoder.add(y, x)
    for bridge, encoder, decoder in zip(bridges, up, down, strict=True):
        for linear, moments in ((bridge.encoder, encoder), (bridge.decoder, decoder)):
            weight, bias = moments.solve(ridge)
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
