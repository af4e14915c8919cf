"""What is installed from a wheel is all there: the default command runs in an empty folder, far from a checkout.

pytest -m slow tests/test_wheel.py
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from bridges.storage.folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
# Whatever else stands in these folders is no Python and must be told to the build.
CARRIED = {"bridges/assets": "bridges/assets", "bridges/kernels": "bridges/kernels", "conf": "bridges/conf"}


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # Where there is no network, pip would try for minutes.
    env |= {"PIP_RETRIES": "0", "PIP_TIMEOUT": "15", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=580, env=env, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    here = importlib.util.find_spec("hatchling") is not None
    line = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out, ROOT]
    try:
        done = run(*line, *(["--no-build-isolation"] if here else []), cwd=out)
    except subprocess.TimeoutExpired:
        if here:
            raise
        pytest.skip("hatchling is not installed, and no index answers")
    told = done.stdout + done.stderr
    if done.returncode and not here and "No matching distribution found" in told:
        pytest.skip("hatchling is neither installed nor to be had from an index: pip install hatchling")
    assert done.returncode == 0, told
    (built,) = out.glob("bridges_interp-*.whl")
    return built


@pytest.mark.slow
def test_everything_that_is_no_python_travels(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, target in CARRIED.items():
        files = [f for f in (ROOT / folder).rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        assert files and {f"{target}/{f.relative_to(ROOT / folder).as_posix()}" for f in files} <= names
    loose = [f for f in (ROOT / "bridges").rglob("*") if f.suffix in (".cpp", ".h", ".html", ".css", ".js", ".json")]
    assert {f.relative_to(ROOT).as_posix() for f in loose} <= names
    assert not any(name.startswith(("tests/", "runs/")) for name in names)


@pytest.mark.slow
def test_the_default_command_runs_where_only_the_wheel_is(wheel: Path, tmp_path: Path) -> None:
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    assert run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path).returncode == 0
    python = home / "bin" / "python"
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=empty).stdout.strip()
    )
    # The dependencies are borrowed. Editable installs among them stay out: a .pth in a borrowed folder is not read.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    where = run(python, "-c", "import bridges; print(bridges.__file__)", cwd=empty)
    assert where.stdout.strip() == str(packages / "bridges" / "__init__.py"), where.stderr
    smoke = ("train=smoke", "train.tokens=1024", "eval.sequences=4", "behaviours=none", "name=run")
    done = run(python, "-m", "bridges.run", *smoke, cwd=empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert RunFolder(empty / "runs" / "run").status["status"] == "finished"
    compared = run(python, "-m", "bridges.analysis.summary", "runs/", cwd=empty)
    assert compared.returncode == 0 and "tinypython" in compared.stdout, compared.stderr
    # A top-level package of that name would clash with other people's.
    assert run(python, "-c", "import analysis", cwd=empty).returncode != 0
    (empty / "analysis.py").write_text("raise SystemExit('a file of the user was imported')\n")
    told = run(python, "-m", "bridges", "compare", "--help", cwd=empty)
    assert told.returncode == 0 and "python -m bridges.analysis.compare" in told.stdout, told.stderr
