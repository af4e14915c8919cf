"""Which kernels a process uses: the setting, then the environment variable, then what can be compiled."""

from __future__ import annotations

import os
import shutil

import pytest

from bridges import kernels
from bridges.config import Config
from bridges.errors import BridgesError, ConfigError
from bridges.kernels import build
from bridges.kernels.build import KernelsUnavailable


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(kernels, "_chosen", None)
    monkeypatch.delenv("BRIDGES_KERNELS", raising=False)


def _without_compiler():
    raise KernelsUnavailable("there is no g++")


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no g++")
def test_where_there_is_a_compiler_they_compile():
    """All other tests of kernels are skipped, or compare PyTorch with itself, where they do not."""
    build.library()


def test_python_is_taken_whatever_can_be_compiled(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert kernels.select("python") == "python" and not kernels.active()


@pytest.mark.parametrize(("library", "chosen"), [(lambda: None, "cpp"), (_without_compiler, "python")])
def test_auto_takes_what_can_be_had(monkeypatch, library, chosen):
    monkeypatch.setattr(kernels, "library", library)
    assert kernels.select("auto") == chosen and kernels.active() == (chosen == "cpp")


def test_auto_follows_the_environment_and_a_setting_does_not(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setenv("BRIDGES_KERNELS", "python")
    assert not kernels.active()
    assert kernels.select("auto") == "python" and kernels.select("cpp") == "cpp"
    monkeypatch.setenv("BRIDGES_KERNELS", "c")
    with pytest.raises(ConfigError, match=r"BRIDGES_KERNELS='c'.*cpp"):
        kernels.select("auto")


def test_cpp_that_cannot_be_had_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(kernels, "library", _without_compiler)
    with pytest.raises(BridgesError, match=r"kernels=cpp: there is no g\+\+.*kernels=auto"):
        kernels.select("cpp")


def test_the_setting_is_checked():
    assert Config(kernels="python").kernels == "python" and Config().kernels == "auto"
    with pytest.raises(ConfigError, match=r"kernels='pyhton'.*'python'"):
        Config(kernels="pyhton")
