"""Every command that the documentation shows is parsed by the program itself, with all of its checks, and not run."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import analysis
import bridges.cli.run
from bridges.cli.help import help_text
from bridges.cli.help import wanted as help_wanted
from bridges.cli.main import COMMANDS
from bridges.cli.overrides import check_command_line, conf_folder, groups, launcher_missing
from bridges.config import Config

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
# The lookahead tells a command from the picture with a line that begins with `bridges` too.
STARTS = r"(?:python -m bridges\.run|python -m bridges|bridges|python -m analysis\.\w+)(?=$| [^\s<])"
BLOCK, INLINE = re.compile(rf"({STARTS}.*)"), re.compile(rf"`({STARTS}[^`]+)`")


def _code_lines(text: str) -> Iterator[str]:
    """Lines of indented and fenced code, but for Python, and what stands in backticks."""
    fence = ""
    for line in text.splitlines():
        if line.startswith("```"):
            fence = "" if fence else line[3:].split()[0] if line[3:] else "text"
        elif fence not in ("", "python"):
            yield line
        elif not fence:
            if line.startswith("    "):
                yield line
            yield from (found.group(1) for found in INLINE.finditer(line))


def _commands() -> Iterator[tuple[str, str]]:
    for name in PAGES:
        for line in _code_lines((ROOT / name).read_text()):
            # `… && .venv/bin/python -m bridges.run`
            for part in line.split("&&"):
                found = BLOCK.fullmatch(re.sub(r"^\S*/python ", "python ", part.strip()))
                # A `#` sets off what is said beside a command; `…` stands for any.
                if found and "…" not in found.group(1):
                    yield name, re.split(r"\s+#\s", found.group(1))[0].strip()


FOUND = sorted(set(_commands()))


class Parsed(Exception):
    """The arguments were read without an error, and that is enough."""


@contextmanager
def parsing_only() -> Iterator[None]:
    """Every parser of the block stops once it has read its arguments."""
    real = argparse.ArgumentParser.parse_known_args

    def parse(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        _, left = real(self, args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        raise Parsed

    def intermixed(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        patch.undo()
        settings(self.parse_intermixed_args(args, namespace).overrides)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
        patch.setattr(argparse.ArgumentParser, "parse_intermixed_args", intermixed)
        # The two commands that have no parser.
        patch.setattr("bridges.cli.export.export", _nothing)
        patch.setattr("bridges.cli.pretrain.pretrain", _nothing)
        yield


def settings(arguments: list[str]) -> None:
    """Check and compose settings as `bridges run` does; of a sweep the first job."""
    if (words := help_wanted(arguments)) is not None:
        assert help_text(words)
        return
    for argument in arguments:
        extra = launcher_missing(argument.rpartition("=")[2])
        if extra:
            pytest.skip(f"the plugin of bridges-interp[{extra}] is not installed")
    check_command_line(list(arguments))
    written = [a for a in arguments if "=" in a and not a.startswith(("-", "hydra", "resume="))]
    plain = [re.sub(r"=([^,\[]*),.*", r"=\1", a) for a in written]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        assert isinstance(OmegaConf.to_object(compose("config", overrides=plain)), Config)


def _nothing(*arguments: Any, **options: Any) -> Any:
    raise Parsed


def parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one documented command with the program that it names.

    Raises:
        Parsed: it is one.
    """
    words = shlex.split(re.sub(r"<[^>]*>", "x", line))
    words = words[2:] if words[0] == "python" else ["bridges.cli", *words[1:]]
    module, *arguments = words
    if module == "bridges.run":
        arguments = ["run", *arguments]
    elif module.startswith("analysis."):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with parsing_only():
            import_module(module).main(arguments)
        return
    assert arguments and arguments[0] in COMMANDS, line
    name, *arguments = arguments
    if name == "run":
        settings(arguments)
        raise Parsed
    command = import_module(COMMANDS[name][0])
    monkeypatch.setattr(sys, "argv", [f"bridges {name}", *arguments])
    with parsing_only():
        command.main()


def test_commands_are_found():
    assert len(FOUND) > 40
    assert {"README.md", "docs/tutorial.md", "docs/cli.md", "docs/extending.md"} <= {name for name, _ in FOUND}


@pytest.mark.parametrize(("name", "line"), FOUND)
def test_a_documented_command_is_one(name, line, monkeypatch):
    if only_a_name := re.fullmatch(r"(?:bridges|python -m bridges)(?: ([a-z-]+))?", line):
        assert only_a_name[1] in (None, *COMMANDS)
        return
    with pytest.raises(Parsed):
        parsed(line, monkeypatch)


@pytest.mark.parametrize(
    "line",
    ["bridges report", "bridges bench --layer", "bridges tune train.lrr=1", "bridges run sparsty=1", "bridges export x",
     "bridges pretrain token=1", "python -m analysis.summary --measure fvu"],
)  # fmt: skip
def test_a_command_with_a_mistake_in_it_is_refused(line, monkeypatch):
    with pytest.raises((SystemExit, bridges.BridgesError)):
        parsed(line, monkeypatch)


def _section(name: str) -> str:
    """What ``docs/cli.md`` says of one command."""
    text = (ROOT / "docs" / "cli.md").read_text()
    assert f"\n## `{name}`\n" in text, f"docs/cli.md has no section on {name}."
    return text.split(f"\n## `{name}`\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_s_page_has_every_command_with_its_options(name, monkeypatch, capsys):
    section = _section(f"bridges {name}")
    assert f"    bridges {name}" in section
    if name in ("run", "export", "pretrain"):
        return  # no parser of their own
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        import_module(COMMANDS[name][0]).main()
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"(?<![\w-])--[a-z][\w-]*", section)), f"docs/cli.md, bridges {name}"


def test_the_command_line_s_page_has_every_analysis():
    named = set(re.findall(r"python -m analysis\.(\w+)", _section("python -m analysis.…")))
    assert named == set(analysis.MODULES)


def test_the_command_line_s_page_has_every_preset():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", _section("bridges run"), re.M)
    listed = {group: set(re.findall(r"`([\w.-]+)`", text)) for group, text in rows}
    assert set(listed) == set(groups())
    settings_named = {"model.name", "data.path", "behaviours.path"}
    assert {group: sorted(names - settings_named) for group, names in listed.items()} == groups()


def test_the_notebook_s_own_run_composes():
    cells = json.loads((ROOT / "analysis" / "read_a_circuit.ipynb").read_text())["cells"]
    source = "".join(next(cell["source"] for cell in cells if cell.get("id") == "load"))
    written = re.search(r"SMALL = (\[\n.*?\n\])", source, re.S)
    assert written is not None
    settings(ast.literal_eval(written.group(1)))
