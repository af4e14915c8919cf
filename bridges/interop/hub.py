"""Runs on the Hugging Face Hub: uploaded with a model card, and fetched again as the same run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pandas as pd
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bridges.config import Config
from bridges.errors import BridgesError, HubError
from bridges.storage.folder import RunFolder, write_atomically
from bridges.storage.tables import read_table, table_names
from bridges.version import __version__

# What of a run's folder is uploaded: not the checkpoints of its training, which are as large as ten models.
FOLDERS = ("model", "bridges", "tables", "circuits")
FILES = ("config.yaml", "environment.json", "status.json", "inputs.json", "names.json", "report.html", "README.md")
# Weights go as safetensors; nothing that is unpickled is uploaded or fetched.
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
CARD_COLUMNS = ("behaviour", "verdict", "reason", "nodes", "edges")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def push(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a run: sparse model, bridges, tables, circuits, report, settings, and a model card.

    The card is written to the run's folder as ``README.md``. A repository that exists is brought to the run's state: in
    the folders above, files that the run does not have are deleted. The settings name the machine's paths, and
    ``environment.json`` the command and the machine.

    Args:
        folder: of a run whose training has finished.
        repo_id: ``user/name``; the repository is made where there is none.
        private: of a new repository.

    Returns:
        the repository's address.

    Raises:
        CheckpointError: ``folder`` holds no run.
        HubError: training has not finished, or the Hub cannot be reached or refuses.
    """
    run = RunFolder(folder)
    config = run.config
    if not run.done("train"):
        raise HubError(f"{run.path} has not finished training: go on with resume={run.path}, then push it.")
    write_atomically(run.path / "README.md", model_card(run.path, config, repo_id))
    with _explained(f"{run.path} could not be uploaded to {repo_id}"):
        api = HfApi()
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=run.path,
            commit_message=f"{run.path.resolve().name}, Bridges {__version__}",
            allow_patterns=[*FILES, *(f"{name}/*" for name in FOLDERS)],
            ignore_patterns=list(PICKLED),
            delete_patterns=[f"{name}/*" for name in FOLDERS],
        )
    return str(address)


def fetch(repo_id: str) -> Path:
    """Download a run that `push` uploaded, or find it in the local cache.

    Returns:
        its folder.

    Raises:
        HubError: the Hub cannot be reached, or has no such run.
    """
    with _explained(f"{repo_id} is neither a run folder here nor to be had from the Hub"):
        patterns = [*FILES, *(f"{name}/*" for name in FOLDERS)]
        folder = Path(
            huggingface_hub.snapshot_download(repo_id, allow_patterns=patterns, ignore_patterns=list(PICKLED))
        )
    if not (folder / "config.yaml").is_file():
        raise HubError(f"{repo_id} on the Hub is no run: it has no config.yaml.")
    return folder


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into one sentence that begins with ``what``."""
    try:
        yield
    except BridgesError:
        raise
    except Exception as error:
        raise HubError(f"{what}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and forbids it"
    if isinstance(error, HFValidationError):
        return "this is no id of the Hub; write user/name, each of letters, digits and -_. and of 96 characters at most"
    if isinstance(error, LocalTokenNotFoundError) or (status == 401 and not isinstance(error, RepositoryNotFoundError)):
        return f"nobody is logged in; {_LOGIN}"
    if status == 403:
        return "this account may not do that there; a token with write access to it is needed (`hf auth login`)"
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        return f"there is no such repository, or it is private ({_LOGIN})"
    if isinstance(error, HfHubHTTPError):
        return f"it answered with {status}: {_first_line(error)}"
    module = type(error).__module__.split(".")[0]
    from_client = module.startswith(("httpx", "httpcore", "requests", "urllib3"))
    if from_client or isinstance(error, ConnectionError | TimeoutError | LocalEntryNotFoundError):
        return "it cannot be reached; check the network (and HF_ENDPOINT, if it is set)"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200].rstrip(".")


# --- the model card ---------------------------------------------------------------------------------------------------


def model_card(folder: str | Path, config: Config, repo_id: str) -> str:
    """The Markdown of a run's model card: what it is, the verdict on every behaviour, and how to load it."""
    base = config.model.name if re.fullmatch(r"[\w.-]+/[\w.-]+", config.model.name) else None
    front = ["---", "library_name: bridges", "tags:", "- interpretability", "- sparse-transformer", "- circuits"]
    # A folder of this machine is no model of the Hub.
    if base and not Path(base).exists():
        front.append(f"base_model: {base}")
    lines = [
        *(*front, "---", ""),
        f"# {repo_id.rsplit('/', 1)[-1]}",
        "",
        f"A weight-sparse transformer (at most {config.sparsity:g} of each matrix's weights are not zero), joined to "
        f"the dense model `{config.model.label}` by bridges at every sublayer, with the circuits of its behaviours. "
        "Made with Bridges, after Gao et al., *Weight-sparse transformers have interpretable circuits* "
        "(arXiv 2511.13653).",
        "",
        "## Which behaviours of the dense model do the circuits reproduce?",
        "",
        *_verdicts(folder),
        "",
        "`report.html` holds the evidence, `tables/` every number behind it.",
        "",
        "## Use",
        "",
        "```python",
        "import bridges",
        "",
        f'run = bridges.load("{repo_id}")',
        'run.table("verdicts")  # DataFrame',
        "run.sparse, run.bridges  # the models",
        "```",
        "",
    ]
    return "\n".join(lines)


def _verdicts(folder: str | Path) -> list[str]:
    """The rows of table ``verdicts`` as Markdown."""
    if "verdicts" not in table_names(Path(folder)):
        return ["This run gives no verdicts."]
    table = read_table(Path(folder), "verdicts")
    columns = [name for name in CARD_COLUMNS if name in table.columns]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in table[columns].itertuples(index=False):
        lines.append(f"| {' | '.join(_cell(value) for value in row)} |")
    return lines


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
