"""The real command, end to end, on a tiny random model and a few files of text."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import bridges
from bridges.cli.overrides import launcher_missing
from bridges.storage.folder import RunFolder

Command = Callable[..., list[str]]
TABLES = ("training", "sites", "paths", "sparsity")


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"BRIDGES_ALLOCATOR": "off", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture(scope="module")
def finished(command: Command, workplace: Path) -> Path:
    done = run(command("name=whole"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mean single-crossing KL" in done.stdout and "every matrix within its budget" in done.stdout
    return workplace / "runs" / "whole"


def test_run_keeps_its_promises(finished: Path) -> None:
    opened = bridges.load(finished)
    sparsity = opened.table("sparsity")
    assert (sparsity["nonzeros"] <= sparsity["budget"]).all()
    assert opened.table("training")["step"].tolist() == list(range(1, 11))
    sites = opened.table("sites")
    assert set(sites["bridges"]) == {"trained", "untrained", "ridge"} and len(sites) == 15
    ids = opened.tokenizer("print(f1(", return_tensors="pt")["input_ids"]
    assert torch.equal(opened.hybrid(ids, dense_until=4), opened.hybrid(ids, path="D0-S4"))
    assert opened.hybrid(ids, path="D0-S1-D3").shape == (*ids.shape, 300)


def test_a_killed_run_resumes_to_identical_tables(command: Command, workplace: Path, finished: Path) -> None:
    env = os.environ | {"BRIDGES_ALLOCATOR": "off", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    folder = workplace / "runs" / "killed"
    process = subprocess.Popen(command("name=killed"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert RunFolder(folder).status["status"] != "finished"
    again = run([sys.executable, "-m", "bridges.run", f"resume={folder}"])
    assert again.returncode == 0, again.stdout + again.stderr
    for table in TABLES:
        one, two = ((f / "tables" / f"{table}.parquet").read_bytes() for f in (finished, folder))
        assert one == two, table


def test_resume_refuses_other_settings(finished: Path) -> None:
    done = run([sys.executable, "-m", "bridges.run", f"resume={finished}", "seed=3"])
    assert done.returncode == 1 and "leave out seed=3" in done.stderr and "Traceback" not in done.stderr


def test_sweep_goes_on_past_a_failed_job_and_is_not_repeated(command: Command, workplace: Path) -> None:
    sweep = command("sparsity=0.5,0.1", "train.lr=1e-3,1e30")
    sweep.insert(3, "-m")
    first = run(sweep)
    assert first.returncode == 1 and "2 of 4 jobs failed" in first.stdout, first.stdout + first.stderr
    folders = [p.parent for p in (workplace / "runs").glob("dense-*/status.json")]
    states = sorted(json.loads((f / "status.json").read_text())["status"] for f in folders)
    assert states == ["failed", "failed", "finished", "finished"]
    again = run(sweep)
    assert again.stdout.count("is finished already; skipped") == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["launcher=joblib", "hydra/launcher=joblib", "hydra/launcher=submitit_local"])
def test_a_sweep_s_jobs_run_elsewhere(command: Command, workplace: Path, launcher: str) -> None:
    if launcher_missing(launcher.partition("=")[2]):
        pytest.skip("its plugin is not installed")
    runs = workplace / re.sub(r"\W", "-", launcher)
    sweep = command("seed=0,1", "train.tokens=128", f"runs_dir={runs}", "behaviours=none", launcher)
    sweep.insert(3, "-m")
    done = run(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("finished ") == 2, done.stdout
    folders = [p.parent for p in runs.glob("dense-*/status.json")]
    assert [RunFolder(f).status["status"] for f in folders] == ["finished", "finished"]


@pytest.mark.parametrize("engine", [["--multi_gpu"], ["--use_fsdp", "--fsdp_version", "2"]], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_tables_of_one(
    command: Command, workplace: Path, finished: Path, engine: list[str]
) -> None:
    machine = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *engine, *machine]
    name = f"two{len(engine)}"
    done = run([*launch, *command(f"name={name}")[1:]], ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stdout + done.stderr
    for table in ("training", "sites", "paths", "sparsity"):
        one, two = (bridges.load(f).table(table) for f in (finished, workplace / "runs" / name))
        pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-5)
    # Half of a step's two sequences each: sums are taken in another order, so not every last bit is the same.
    trained = [bridges.load(f).sparse.state_dict() for f in (finished, workplace / "runs" / name)]
    assert any(not torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_lost_process_ends_the_others_in_one_message_and_the_run_is_gone_on_with(
    command: Command, workplace: Path
) -> None:
    """Two tasks as Slurm starts them, with FSDP2; one is killed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = os.environ | {"BRIDGES_ALLOCATOR": "off", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MASTER_PORT": port}
    env |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    env |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "1"}
    folder = workplace / "runs" / "lost"
    arguments = command("name=lost", "train.tokens=12800")
    tasks = [
        subprocess.Popen(
            arguments,
            env=env | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in (0, 1)
    ]
    try:
        deadline = time.monotonic() + 280
        while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < deadline and tasks[0].poll() is None:
            time.sleep(0.02)
        tasks[1].kill()
        _, said = tasks[0].communicate(timeout=60)
    finally:
        for task in tasks:
            task.kill()
    assert tasks[0].returncode == 1 and list(folder.glob("checkpoints/step-*")), said
    assert said.count("error: ") == 1 and "Traceback" not in said, said
    assert "Another process of this run has ended" in said and f"resume={folder}" in said, said
    again = run([sys.executable, "-m", "bridges.run", f"resume={folder}"])
    assert again.returncode == 0 and "Going on from step" in again.stdout, again.stdout + again.stderr
    opened = bridges.load(folder)
    assert opened.table("training")["step"].tolist() == list(range(1, 201))
    assert (opened.table("sparsity")["nonzeros"] <= opened.table("sparsity")["budget"]).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.lrr=3"], "train.lr"),
        (["model=gtp2"], "gpt2"),
        (["train.precision=f32"], "fp32"),
        (["train.lr=abc"], "train.lr=abc"),
        (["sparsity=0"], "(0, 1]"),
        (["resume=/nowhere"], "no run folder"),
        (["model=hf"], "model.name is empty"),
        (["experiment=null"], "a group cannot be empty"),
        (["runs_dir=/dev/null"], "cannot be made"),
        (["data=files", f"data.path={__file__}"], "is a file"),
        (["circuits.method=random"], "circuits.baselines=[random]"),
        (["circuits.targt=0.1"], "circuits.target"),
        (["circuits=fast"], "published"),
        (["behaviours.names=[for_whlie]"], "for_while"),
    ],
)
def test_wrong_settings_end_in_one_message(overrides: list[str], message: str) -> None:
    done = run([sys.executable, "-m", "bridges.run", *overrides])
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_cannot_be_had_ends_in_one_message(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "bridges.run", "model=gpt2", f"runs_dir={tmp_path}"])
    assert done.returncode == 1 and "gpt2" in done.stderr and "Traceback" not in done.stderr
