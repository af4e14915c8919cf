"""Paths in settings, which mean the folder that they were typed in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bridges.config import Config

# Values of `sparse.init` that name no folder.
INITS = ("auto", "random", "dense", "shipped", "planted")
# A dense model that is no folder even where a folder has its name.
_BUNDLED = "tinypython"


def absolute(config: Config) -> Config:
    """Make every path in the settings absolute, so that a run that is gone on with elsewhere reads the same files.

    Names that may also mean something on the Hub (``model.name``, ``data.path`` of a data set) are paths where there is
    such a file or folder. ``runs_dir`` and ``resume`` stay as they were typed: a run's folder is not asked for them.
    """
    data, behaviours, sparse, model = config.data, config.behaviours, config.sparse, config.model
    if data.path and (data.source == "files" or (data.source == "hub" and _exists(data.path))):
        data = replace(data, path=_absolute(data.path))
    if behaviours.suite == "file" and behaviours.path:
        behaviours = replace(behaviours, path=_absolute(behaviours.path))
    if sparse.init not in INITS:
        kind, colon, path = sparse.init.partition(":")
        # A folder in a format of its own is written `format:folder`.
        init = f"{kind}:{_absolute(path)}" if colon and not _exists(sparse.init) else _absolute(sparse.init)
        sparse = replace(sparse, init=init)
    if model.name != _BUNDLED and (_exists(model.name) or model.name.startswith((".", "/", "~"))):
        model = replace(model, name=_absolute(model.name))
    return replace(config, data=data, behaviours=behaviours, sparse=sparse, model=model)


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
