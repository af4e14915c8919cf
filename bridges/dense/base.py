"""A Hugging Face causal language model as a residual stack.

An adapter for a new architecture is one short file: a subclass of `DenseStack` with `layers`, `embed`,
`attention_out`, `mlp_out`, `unembed`, `node_points` and, for circuits in it, `node_weights`, under
``@register("model_type")``. `check_parity` then tells whether it is right.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from bridges.dense.points import NodePoint, NodeWeight, attach
from bridges.errors import ModelError
from bridges.nodes import NODE_KINDS, NodeBus
from bridges.sparse.folded import Folded
from bridges.stack import ResidualStack

_KEPT_LENGTHS = 16


class DenseStack(nn.Module, ResidualStack):
    """A frozen pretrained model, run sublayer by sublayer through its own submodules.

    The weights take no gradient and the model stays in evaluation mode; gradients pass through to the stream.
    There is neither a key-value cache nor padding: every sequence has the same length, and right padding is
    harmless because attention is causal.

    Args:
        model: the model, which is frozen in place.
        tokenizer: kept as `tokenizer` for convenience.

    Attributes:
        model: the wrapped model.
        tokenizer: its tokenizer, or None.
        attn_implementation: what this architecture is loaded with.
    """

    attn_implementation: ClassVar[str] = "sdpa"
    model: Any  # a PreTrainedModel, whose submodules have other names in every architecture

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None):
        super().__init__()
        self.model = model.requires_grad_(False)
        _fuse_activations(self.model)
        self.tokenizer = tokenizer
        self.check_form()
        self.eval()
        config = model.config
        self.d_model = config.hidden_size
        self.n_layers = len(self.layers)
        self.n_sublayers = self.n_layers * (1 if self.parallel else 2)
        self.vocab_size = model.get_output_embeddings().weight.shape[0]
        self.context = config.max_position_embeddings
        self._by_length: dict[Hashable, Any] = {}
        self._points = self._named_points()
        self._handles: list[RemovableHandle] = []
        self.nodes = NodeBus({name: point.width for name, point in self._points.items()})
        self.nodes.on_first = self._attach
        self.nodes.on_last = self._detach

    # What an architecture defines.

    @property
    @abstractmethod
    def layers(self) -> Any:
        """The model's own layers in order, a ``ModuleList``."""

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP read the same stream, so that a layer is one sublayer."""
        return False

    def check_form(self) -> None:
        """Raise `ModelError` where the model's configuration is no residual stack of this form."""

    @abstractmethod
    def attention_out(self, layer: int, h: Tensor) -> Tensor:
        """What attention in ``layer`` adds to the stream ``h``, ``[B, T, d]`` both."""

    @abstractmethod
    def mlp_out(self, layer: int, h: Tensor) -> Tensor:
        """What the MLP in ``layer`` adds to the stream ``h``, ``[B, T, d]`` both."""

    @abstractmethod
    def node_points(self, layer: int) -> dict[str, NodePoint]:
        """The node points of ``layer`` by kind (`bridges.nodes.NODE_KINDS`)."""

    def node_weights(self, layer: int) -> dict[str, NodeWeight]:
        """The weights between the nodes of ``layer`` by name: ``q``, ``k``, ``v``, ``out``, ``gate``, ``up``, ``down``.

        ``out`` reads the channels of ``v``; where n heads share a head of values it is ``out.0`` … ``out.n-1``,
        the i-th of the i-th head of each group. ``gate`` is there where MLPs are gated.

        Raises:
            ModelError: this adapter does not say.
        """
        raise ModelError(
            f"The edges of {self.model.config.model_type!r} cannot be listed: {type(self).__name__} has no "
            "`node_weights`, so that no circuit is cut out of this model."
        )

    def folded(self) -> Folded:
        """The model's weights with every LayerNorm folded away, for a sparse model that starts from them.

        Raises:
            ModelError: this architecture has parts that the sparse transformer lacks, such as gated MLPs or rotary
                positions.
        """
        raise ModelError(
            f"sparse.init=dense: a sparse transformer cannot start from the weights of {self.model.config.model_type!r}"
            " (gated MLPs, rotary positions and parallel blocks have no place in it). It can from gpt2 and opt; "
            "elsewhere use sparse.init=random."
        )

    def activation(self, name: str) -> str:
        """The sparse transformer's name of an MLP nonlinearity of transformers."""
        known = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
        if name not in known:
            raise ModelError(f"sparse.init=dense: the sparse transformer has no activation {name!r}.")
        return known[name]

    # What all of them share.

    def sublayer(self, index: int, h: Tensor) -> Tensor:
        """The stream at site ``index`` to the stream at site ``index + 1``; ``[B, T, d]`` both."""
        if self.parallel:
            return self.mlp_out(index, h) + self.attention_out(index, h) + h
        layer, is_mlp = divmod(index, 2)
        return h + (self.mlp_out if is_mlp else self.attention_out)(layer, h)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[B, T]`` to logits ``[B, T, V]``."""
        return self.logits(ids)

    def train(self, mode: bool = True) -> DenseStack:
        """Stay in evaluation mode: a training loop that owns this stack must not switch its dropout on."""
        super().train(False)
        return self

    def positions(self, ids: Tensor) -> Tensor:
        """``[1, T]`` position numbers for learned position embeddings.

        Raises:
            ModelError: the sequence is longer than the table.
        """
        if ids.shape[1] > self.context:
            raise ModelError(f"Sequences of {ids.shape[1]} tokens exceed the model's context {self.context}.")
        return torch.arange(ids.shape[1], device=ids.device)[None]

    def mask(self, h: Tensor, sliding: bool = False) -> Any:
        """The causal mask in the form that the model's attention wants; None where it is causal by itself."""
        create = create_sliding_window_causal_mask if sliding else create_causal_mask
        return self.per_length(
            ("mask", sliding),
            h,
            lambda x: create(self.model.config, inputs_embeds=x, attention_mask=None, past_key_values=None),
        )

    def per_length(self, name: Hashable, h: Tensor, build: Callable[[Tensor], Any]) -> Any:
        """``build(x)``, kept per length, device and dtype of ``h``; ``x`` is an empty ``[1, T, 1]``."""
        key = (name, h.shape[1], h.device, h.dtype)
        if key not in self._by_length:
            if len(self._by_length) >= _KEPT_LENGTHS:
                self._by_length.clear()
            # A tensor made in inference mode could not take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                shape = torch.empty(1, h.shape[1], 1, device=h.device, dtype=h.dtype)
                self._by_length[key] = build(shape)
        return self._by_length[key]

    def _named_points(self) -> dict[str, NodePoint]:
        named = {}
        for layer in range(self.n_layers):
            points = self.node_points(layer)
            if unknown := set(points) - set(NODE_KINDS):
                raise ModelError(f"{type(self).__name__} declares unknown node kinds {sorted(unknown)}.")
            named.update({f"{layer}.{kind}": points[kind] for kind in NODE_KINDS if kind in points})
        return named

    def _attach(self) -> None:
        self._handles = [attach(name, point, self.nodes) for name, point in self._points.items()]

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _fuse_activations(model: nn.Module) -> None:
    """Put PyTorch's one-pass tanh GELU where transformers spells the same formula out in eight."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
