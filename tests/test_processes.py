"""Several processes of one command: Slurm's tasks find each other, and a lost one is told of once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bridges.cli.processes import end_with_the_others, first_host, join_slurm, lost_another
from bridges.cli.sweep import FILE, Outcome
from bridges.errors import ConfigError, ProcessLost

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[03-04]", "gpu03"),
        ("gpu[7,9-12],login1", "gpu7"),
        ("a100-1-[2-3]-ib,b1", "a100-1-2-ib"),
        ("node1,node2", "node1"),
        ("localhost", "localhost"),
    ],
)
def test_the_first_host_of_slurm_s_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_a_list_that_cannot_be_read_names_what_to_set() -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        first_host("[1-2]")


def test_a_task_of_slurm_is_told_to_accelerate_as_its_launcher_would() -> None:
    env = dict(STEP)
    assert join_slurm(env)
    told = {name: env[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")}
    assert told == {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "gpu03"}
    # All tasks of a job take the same port, another job another.
    other = STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert join_slurm(other) and other["MASTER_PORT"] == env["MASTER_PORT"]
    next_job = STEP | {"SLURM_JOB_ID": "4712"}
    assert join_slurm(next_job) and 1024 < int(next_job["MASTER_PORT"]) != int(env["MASTER_PORT"])
    chosen = STEP | {"MASTER_ADDR": "head", "MASTER_PORT": "5000"}
    assert join_slurm(chosen) and (chosen["MASTER_ADDR"], chosen["MASTER_PORT"]) == ("head", "5000")


@pytest.mark.parametrize(
    "env",
    [{}, STEP | {"RANK": "0"}, STEP | {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}],
    ids=["no Slurm", "started by a launcher", "one task", "the batch script itself"],
)
def test_what_is_one_process_stays_one(env: dict[str, str]) -> None:
    before = dict(env)
    assert not join_slurm(env) and env == before


def test_the_lowest_rank_that_is_left_tells_of_a_lost_one() -> None:
    """Of three siblings: while the first lives the others are silent."""
    child = "import sys; from bridges.cli.processes import speaks_for_its_machine; sys.stdin.readline(); "
    child += "print(speaks_for_its_machine(), flush=True); sys.stdin.readline()"
    siblings = [
        subprocess.Popen(
            [sys.executable, "-c", child],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LOCAL_RANK": str(rank)},
        )
        for rank in range(3)
    ]

    def asked(rank: int) -> str:
        stdin, stdout = siblings[rank].stdin, siblings[rank].stdout
        assert stdin is not None and stdout is not None
        stdin.write("\n")
        stdin.flush()
        return stdout.readline().strip()

    try:
        assert [asked(0), asked(2)] == ["True", "False"]
        # A killed one is a zombie until whoever started it asks.
        siblings[0].kill()
        os.waitid(os.P_PID, siblings[0].pid, os.WEXITED | os.WNOWAIT)
        assert asked(1) == "True"
    finally:
        for process in siblings:
            process.kill()
            process.wait()


def test_the_launcher_s_signal_ends_in_one_message() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        end_with_the_others("Go on with: this")
        with pytest.raises(ProcessLost, match=r"another process.*Go on with: this"):
            signal.raise_signal(signal.SIGTERM)
        # A second one does not break off what cleans up.
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_gloo_s_errors_of_a_lost_process_are_known() -> None:
    text = "[third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:40134: Connection reset by peer."
    assert lost_another(RuntimeError(text))
    assert not lost_another(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_of_processes_that_train_together_one_keeps_the_job_s_record(tmp_path) -> None:
    Outcome(tmp_path / "0", ["seed=0"], main=False).write(status="finished")
    assert not (tmp_path / "0" / FILE).exists()
    Outcome(tmp_path / "0", ["seed=0"]).write(status="finished")
    assert (tmp_path / "0" / FILE).exists()
