"""A command on several processes: those that Slurm starts find each other, and all end when one does."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import MutableMapping
from pathlib import Path
from types import FrameType

import psutil

from bridges.errors import ConfigError, ProcessLost

# Where the first process listens. Jobs that share a node take ports of their own, by Slurm's number of the job.
_PORTS = range(20000, 29000)


def first_host(nodes: str) -> str:
    """The first host of Slurm's list: ``node[03-05,9],login1`` to ``node03``."""
    found = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if not found:
        raise ConfigError(f"Slurm's list of nodes {nodes!r} cannot be read; set MASTER_ADDR to the first node's name.")
    name, number, rest = found.groups()
    return f"{name}{number or ''}{rest or ''}"


def join_slurm(environment: MutableMapping[str, str] | None = None) -> bool:
    """Where ``srun`` started several tasks, tell Accelerate of them as its own launcher would.

    Args:
        environment: what is read and set; None: the process's own.

    Returns:
        whether there was something to tell.

    Raises:
        ConfigError: Slurm's list of nodes cannot be read.
    """
    env = os.environ if environment is None else environment
    # Set in a job's steps alone: a script that sbatch runs is one process, whatever the job was given.
    tasks = env.get("SLURM_STEP_NUM_TASKS", "1")
    if "RANK" in env or not tasks.isdigit() or int(tasks) < 2:
        return False
    port = _PORTS[int(env.get("SLURM_JOB_ID", "0")) % len(_PORTS)]
    here = re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", tasks))
    env.update(RANK=env["SLURM_PROCID"], WORLD_SIZE=tasks, LOCAL_RANK=env["SLURM_LOCALID"])
    env.setdefault("LOCAL_WORLD_SIZE", here.group() if here else "1")
    env.setdefault("MASTER_ADDR", first_host(env["SLURM_STEP_NODELIST"]))
    env.setdefault("MASTER_PORT", str(port))
    return True


def end_with_the_others(go_on: str) -> None:
    """Let the signal that a launcher sends when a process has ended, or a cluster when time is up, end in one message.

    Args:
        go_on: how to go on, a sentence.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ProcessLost(
            f"Stopped from outside: another process of this run has ended, or the job's time is up. {go_on}"
        )

    # Whoever has an answer of their own to that signal, as Submitit has, keeps it.
    alone = threading.current_thread() is threading.main_thread()
    if alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)


def lost_another(error: BaseException) -> bool:
    """Whether an error says that another process can no longer be reached."""
    import torch.distributed as dist

    text = str(error)
    closed = any(sign in text for sign in ("Connection reset", "Connection closed", "Broken pipe", "imed out"))
    return isinstance(error, dist.DistError) or ("gloo" in text and closed)


def speaks_for_its_machine() -> bool:
    """Whether no process of this run and machine with a lower rank is left to tell what happened to all of them."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        siblings = psutil.Process(os.getppid()).children()
    except psutil.Error:
        return True
    for process in siblings:
        try:
            # What a process was started with: by a launcher, or by Slurm.
            started = process.environ()
            other = int(started.get("LOCAL_RANK", started.get("SLURM_LOCALID", "-1")))
            if 0 <= other < rank and process.status() != psutil.STATUS_ZOMBIE:
                return False
        except (psutil.Error, ValueError):
            continue
    return True


def resumes(path: Path) -> str:
    """How a run is gone on with, a sentence."""
    return f"What was computed is in {path}; go on with the same launch line and resume={path}"
