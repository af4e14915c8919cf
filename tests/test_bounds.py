"""What pyproject.toml promises: bounds are tested at their lowest (lowest.txt) and their newest (constraints.txt)."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Tools of the tests themselves, of which the newest are good enough.
TOOLS = {"pytest", "ruff", "mypy", "pandas-stubs", "types-pyyaml"}


def _pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def _promised() -> dict[str, Requirement]:
    every = [*PROJECT["dependencies"], *EXTRAS["test"]]
    found = {canonicalize_name(r.name): r for r in map(Requirement, every)}
    return {name: r for name, r in found.items() if name not in TOOLS}


@pytest.mark.parametrize("package", sorted(_promised()))
def test_every_lower_bound_is_the_release_that_is_tested(package):
    [bound] = [s for s in _promised()[package].specifier if s.operator == ">="]
    assert _pins("lowest.txt")[package] == Version(bound.version)


def test_the_newest_are_within_the_bounds():
    newest = _pins("constraints.txt")
    for package, requirement in _promised().items():
        if package in newest:
            assert newest[package] in requirement.specifier, package


def test_what_is_pinned_is_asked_for():
    assert set(_pins("lowest.txt")) == set(_promised())


def test_extras_and_tests_agree():
    tests = {canonicalize_name(r.name): r.specifier for r in map(Requirement, EXTRAS["test"])}
    for extra in set(EXTRAS) - {"test"}:
        for requirement in map(Requirement, EXTRAS[extra]):
            name = canonicalize_name(requirement.name)
            assert name not in tests or tests[name] == requirement.specifier, name


@pytest.mark.parametrize("package", ["transformers", "accelerate", "huggingface_hub", "hydra-core", "wandb"])
def test_what_a_library_needs_itself_lies_within_ours(package):
    """Where a library asks for a newer release of another than we do, our bound could never be installed."""
    ours = _promised()
    for text in metadata.requires(package) or []:
        theirs = Requirement(text)
        if theirs.marker is not None and not theirs.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(theirs.name)
        newest = _pins("constraints.txt").get(name)
        if name in ours and newest is not None:
            assert newest in theirs.specifier, f"{package}: {theirs}"


def test_every_library_that_is_imported_is_asked_for():
    modules = {"yaml": "pyyaml", "sklearn": "scikit-learn", "hydra": "hydra-core", "omegaconf": "hydra-core"}
    # Triton comes with PyTorch where there are GPUs.
    optional = {"datasets", "gguf", "optuna", "triton"}
    imported = set()
    for file in [*(ROOT / "bridges").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            imported |= {name.split(".")[0] for name in names}
    imported -= set(sys.stdlib_module_names) | {"bridges", "analysis"} | optional
    asked = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    assert {canonicalize_name(modules.get(name, name)) for name in imported} <= asked
