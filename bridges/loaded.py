"""A finished run in a notebook: ``run = bridges.load("runs/…")``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from bridges.bridge import Bridges
from bridges.dense import DenseStack, load_dense
from bridges.errors import BridgesError, CheckpointError
from bridges.folder import RunFolder
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import path_logits
from bridges.sparse import SparseTransformer
from bridges.tables import read_table


class Run:
    """One run: its models, its tables and its mixed passes. Models are loaded when first asked for.

    Args:
        path: the run's folder.
    """

    def __init__(self, path: str | Path):
        self.folder = RunFolder(path)
        self.config = self.folder.config

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}, {self.folder.status['status']})"

    @cached_property
    def _dense_and_tokenizer(self):
        m = self.config.model
        dtype = torch.bfloat16 if m.dtype == "bf16" else torch.float32
        return load_dense(m.name, gguf_file=m.gguf_file, revision=m.revision, dtype=dtype)

    @property
    def dense(self) -> DenseStack:
        """The frozen dense stack."""
        return self._dense_and_tokenizer[0]

    @property
    def tokenizer(self):
        """The dense model's tokenizer, which the sparse model shares."""
        return self._dense_and_tokenizer[1]

    @cached_property
    def sparse(self) -> SparseTransformer:
        """The trained sparse model."""
        if not self.folder.done("train"):
            raise CheckpointError(
                f"{self.folder.path} has not finished training; go on with resume={self.folder.path}."
            )
        return SparseTransformer.from_pretrained(self.folder.model).eval()

    @cached_property
    def bridges(self) -> Bridges:
        """The trained bridges."""
        return Bridges.from_pretrained(self.folder.bridges).eval()

    @torch.no_grad()
    def hybrid(
        self, ids: Tensor, *, dense_until: int | None = None, sparse_until: int | None = None, path: str | None = None
    ) -> Tensor:
        """Logits ``[B, T, V]`` of a mixed pass over token ids ``[B, T]``.

        Args:
            dense_until: dense up to this bridge, sparse from there on.
            sparse_until: sparse up to this bridge, dense from there on.
            path: any mixed path, such as ``"D0-S3-D8"`` (numbers are bridges).
        """
        if sum(x is not None for x in (dense_until, sparse_until, path)) != 1:
            raise BridgesError("Give exactly one of dense_until, sparse_until and path.")
        if path is not None:
            mixed = MixedPath.parse(path)
        else:
            mixed = MixedPath("D", (dense_until,)) if dense_until is not None else MixedPath("S", (sparse_until,))  # type: ignore[arg-type]
        return path_logits(mixed, self.dense, self.sparse, self.bridges, ids)

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's tables, such as ``"sites"``."""
        return read_table(self.folder.path, name)


def load(source: str | Path) -> Run:
    """Open a run.

    Args:
        source: a run folder, or the Hub id of an uploaded one.

    Raises:
        CheckpointError: it is neither.
    """
    if Path(source).exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "runs/")):
        return Run(source)
    from huggingface_hub import snapshot_download

    try:
        return Run(snapshot_download(str(source)))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{source} is neither a run folder here nor a run on the Hub ({type(error).__name__}). Give a path such as "
            "runs/<folder>."
        ) from error
