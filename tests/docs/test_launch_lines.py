"""The launch lines on the page on several GPUs: Accelerate's parser reads them, and what they start is a command."""

from __future__ import annotations

import re
import shlex

import pytest
from accelerate.commands.launch import launch_command_parser

from bridges.cli.overrides import check_command_line

from .conftest import ROOT

TEXT = (ROOT / "docs" / "processes.md").read_text()
LINES = [line.strip() for line in TEXT.splitlines() if re.match(r"    .*accelerate launch ", line)]


def test_lines_are_found() -> None:
    assert len(LINES) == 3
    assert any("--use_fsdp" in line for line in LINES) and any("--multi_gpu" in line for line in LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_launch_line_is_one(line: str) -> None:
    words = shlex.split(line.partition("accelerate launch ")[2])
    found = launch_command_parser().parse_args(words)
    assert found.module and found.training_script == "bridges.run"
    assert found.multi_gpu != found.use_fsdp and int(found.num_processes) > 1
    if found.use_fsdp:
        # The launcher's own default is version 1, which is refused.
        assert int(found.fsdp_version) == 2
    check_command_line(found.training_script_args)


def test_the_batch_script_starts_a_task_a_gpu_and_its_command_is_one() -> None:
    script = re.search(r"```bash title=\"train.sbatch\"\n(.*?)```", TEXT, re.S)
    assert script is not None
    given = dict(re.findall(r"--([\w-]+)=(\S+)", script.group(1)))
    assert given["ntasks-per-node"] == given["gpus-per-node"] and "gpus-per-task" not in given
    (command,) = re.findall(r"^srun .*bridges run (.*)$", script.group(1), re.M)
    check_command_line(shlex.split(command))
    batch = int(re.findall(r"train\.batch=(\d+)", command)[0])
    assert batch % (int(given["nodes"]) * int(given["ntasks-per-node"])) == 0
