"""A run goes to a stub of the Hub on loopback, with its card, and comes back the same; what goes wrong is named."""

from __future__ import annotations

import base64
import filecmp
import hashlib
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pandas as pd
import pytest
import torch

import bridges
from bridges.bridge import Bridges, pair_sites
from bridges.config import Config, ModelConfig
from bridges.errors import CheckpointError, HubError
from bridges.interop.hub import fetch, model_card, push
from bridges.interop.push import main
from bridges.storage.folder import RunFolder
from bridges.storage.tables import TABLES, write_table

TOKEN = "hf_stub"


class Stub:
    """What of the Hub's HTTP interface an upload and a download of small files ask for.

    Attributes:
        repos: ``{user/name: {path: bytes}}``. refuse: a status that every request is answered with, or None.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.refuse: int | None = None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                try:
                    status, headers, content = stub.answer(self, urlsplit(self.path), body)
                except Exception as error:
                    status, headers, content = 500, {}, repr(error).encode()
                self.send_response(status)
                headers.setdefault("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_DELETE = _answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit(self, repo: str) -> str:
        state = sorted((path, hashlib.sha1(content).hexdigest()) for path, content in self.repos[repo].items())
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()

    def answer(self, request, url, body: bytes) -> tuple[int, dict[str, str], bytes]:
        def as_json(value: object, status: int = 200, **headers: str):
            return status, {"Content-Type": "application/json"} | headers, json.dumps(value).encode()

        if self.refuse:
            return as_json({"error": "refused"}, self.refuse)
        logged_in = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        parts = unquote(url.path).strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            if not logged_in:
                return as_json({"error": "Invalid username or password."}, 401)
            given = json.loads(body)
            repo = "/".join(filter(None, (given.get("organization"), given["name"])))
            self.repos.setdefault(repo, {})
            return as_json({"url": f"{self.address}/{repo}", "id": repo, "name": repo})
        repo = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        if repo not in self.repos:
            return as_json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        files, rest = self.repos[repo], parts[4:]
        if parts[0] != "api":
            return self.resolve(repo, "/".join(parts[4:]))
        if rest[:1] == ["preupload"]:
            listed = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            return as_json({"files": listed})
        if rest[:1] == ["commit"]:
            for line in filter(None, body.decode().split("\n")):
                step = json.loads(line)
                if step["key"] == "file":
                    files[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
                elif step["key"] == "deletedFile":
                    del files[step["value"]["path"]]
            commit = {"commitOid": self.commit(repo), "commitUrl": f"{self.address}/{repo}/commit/{self.commit(repo)}"}
            return as_json({**commit, "success": True, "pullRequestUrl": None, "hookOutput": ""})
        if rest[:1] == ["tree"]:
            return as_json(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in sorted(files.items())
                ]
            )
        info = {"id": repo, "modelId": repo, "sha": self.commit(repo), "private": False, "tags": [], "downloads": 0}
        return as_json(info | {"siblings": [{"rfilename": p} for p in sorted(files)]})

    def resolve(self, repo: str, path: str) -> tuple[int, dict[str, str], bytes]:
        content = self.repos[repo].get(path)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        tags = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.commit(repo)}
        return 200, tags | {"Content-Length": str(len(content))}, content


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Stub]:
    stub = Stub()
    constants = huggingface_hub.constants
    for name, value in {
        "ENDPOINT": stub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": stub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_STORED_TOKENS_PATH": str(tmp_path / "no-tokens"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture
def run(tmp_path, tiny_sparse) -> Path:
    """The folder of a run whose training has finished, with verdicts."""
    folder = RunFolder.create(Config(model=ModelConfig(name="gpt2", label="gpt2"), sparsity=0.1), tmp_path / "run")
    tiny_sparse(3, n_layer=1).save_pretrained(folder.model)
    Bridges(12, 16, pair_sites(2, 2, None), 0.25, 0).save_pretrained(folder.bridges)
    for name in ("checkpoints/step-1", "tables", "circuits", "wandb"):
        (folder.path / name).mkdir(parents=True)
    (folder.path / "checkpoints/step-1/optimizer.pt").write_bytes(b"large")
    (folder.path / "model/pytorch_model.bin").write_bytes(b"pickled")
    (folder.path / "wandb/log").write_text("x")
    (folder.path / "circuits/for_while.json").write_text("{}")
    (folder.path / "report.html").write_text("<p>report</p>")
    blank = {"str": "", "float": math.nan, "int": None, "bool": None}
    unused = {column.name: blank[column.kind] for column in TABLES["verdicts"].columns}
    rows = [
        {"behaviour": "for_while", "verdict": "reproduced", "reason": "moves 0.81 | of 0.9", "nodes": 12, "edges": 9},
        {"behaviour": "with_as", "verdict": "not", "reason": "the circuit is\nlarge"},
    ]
    write_table(folder.path, "verdicts", pd.DataFrame([unused | row for row in rows]))
    folder.write_status("finished", stages={"train": {"status": "finished", "seconds": 1.0}})
    return folder.path


def test_a_pushed_run_loads_back_the_same(hub, run):
    address = push(run, "someone/quotes")
    assert address == f"{hub.address}/someone/quotes"
    files = hub.repos["someone/quotes"]
    assert not [p for p in files if p.startswith(("checkpoints", "wandb")) or p.endswith((".bin", ".pt"))]
    assert {"config.yaml", "report.html", "README.md", "circuits/for_while.json"} <= set(files)
    assert "model/model.safetensors" in files
    loaded = bridges.load("someone/quotes")
    original = bridges.load(run)
    assert loaded.folder.path != original.folder.path and loaded.config == original.config
    for path in files:
        assert filecmp.cmp(run / path, loaded.folder.path / path, shallow=False), path
    ids = torch.arange(8)[None]
    assert torch.equal(loaded.sparse.logits(ids), original.sparse.logits(ids))
    for mine, theirs in zip(loaded.bridges.parameters(), original.bridges.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    pd.testing.assert_frame_equal(loaded.table("verdicts"), original.table("verdicts"))


def test_the_card_has_the_verdicts(run):
    card = model_card(run, RunFolder(run).config, "someone/quotes")
    assert card.startswith("---\nlibrary_name: bridges\n") and 'bridges.load("someone/quotes")' in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert rows == [
        "| behaviour | verdict | reason | nodes | edges |",
        "|---|---|---|---|---|",
        "| for_while | reproduced | moves 0.81 \\| of 0.9 | 12 | 9 |",
        "| with_as | not | the circuit is large |  |  |",
    ]
    (run / "tables" / "verdicts.parquet").unlink()
    assert "This run gives no verdicts." in model_card(run, RunFolder(run).config, "someone/quotes")


def test_a_model_of_the_hub_is_named_as_the_base(run):
    config = Config(model=ModelConfig(name="EleutherAI/pythia-70m", label="pythia"))
    assert "\nbase_model: EleutherAI/pythia-70m\n" in model_card(run, config, "a/b")
    assert "base_model" not in model_card(run, Config(model=ModelConfig(name=str(run), label="x")), "a/b")


def test_pushing_again_takes_away_what_the_run_no_longer_has(hub, run):
    push(run, "someone/quotes")
    hub.repos["someone/quotes"]["LICENSE"] = b"theirs"
    (run / "circuits/for_while.json").rename(run / "circuits/with_as.json")
    push(run, "someone/quotes")
    files = set(hub.repos["someone/quotes"])
    assert "circuits/with_as.json" in files and "circuits/for_while.json" not in files and "LICENSE" in files


def test_the_command_pushes_and_says_where(hub, run, capsys):
    assert main([str(run), "someone/quotes"]) == 0
    assert f"is at {hub.address}/someone/quotes." in capsys.readouterr().out
    assert main([str(run), "some one/quotes"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "write user/name" in said and said.count("\n") == 1


def refused(status):
    return lambda hub, monkeypatch: setattr(hub, "refuse", status)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda hub, monkeypatch: monkeypatch.setenv("HF_TOKEN", "hf_wrong"), "nobody is logged in; log in with"),
        (refused(403), "may not do that there"),
        (refused(400), "it answered with 400"),
        (lambda hub, m: m.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True), "HF_HUB_OFFLINE is set"),
        (lambda hub, m: m.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9"), "cannot be reached"),
    ],
)
def test_what_keeps_a_run_from_the_hub_is_one_message(hub, run, monkeypatch, spoil, words):
    spoil(hub, monkeypatch)
    with pytest.raises(HubError, match=words) as caught:
        push(run, "someone/quotes")
    assert "could not be uploaded to someone/quotes" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_run_is_not_pushed(hub, run, tmp_path):
    with pytest.raises(CheckpointError, match="is no run folder"):
        push(tmp_path, "someone/quotes")
    RunFolder(run).write_status("failed", stages={"train": {"status": "failed", "seconds": 1.0}})
    with pytest.raises(HubError, match="has not finished training: go on with resume="):
        push(run, "someone/quotes")
    assert not hub.repos


def test_what_the_hub_does_not_have_is_one_message(hub, monkeypatch):
    with pytest.raises(HubError, match=r"someone/else is neither a run folder here .* no such repository"):
        bridges.load("someone/else")
    hub.repos["someone/other"] = {"config.json": b"{}"}
    with pytest.raises(HubError, match=r"is no run: it has no config.yaml"):
        bridges.load("someone/other")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot be reached"):
        fetch("someone/else")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"cannot be reached|HF_HUB_OFFLINE"):
        fetch("someone/else")
