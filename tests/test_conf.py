"""The presets: every choice of every group composes, and every command that is written down is one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from bridges.cli import overrides
from bridges.cli.overrides import LAUNCHERS, check_command_line, conf_folder, groups, launcher_missing
from bridges.config import CONTROLS, Config
from bridges.config.measuring import CLAIM_CONTROLS, ROBUSTNESS
from bridges.errors import ConfigError
from bridges.runs.stages import wanted

NEEDED = {
    "model=hf": ["model.name=x"],
    "model=openai": ["model.name=x"],
    "data=files": ["data.path=x"],
    "data=hub": ["data.path=x"],
    "behaviours=file": ["behaviours.path=x"],
}
CHOICES = [f"{group}={choice}" for group, choices in groups().items() for choice in choices]


@pytest.fixture(autouse=True)
def hydra_finds_the_settings() -> Iterator[None]:
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def composed(*arguments: str) -> Config:
    config = OmegaConf.to_object(compose("config", overrides=list(arguments)))
    assert isinstance(config, Config)
    return config


def _skip_without_plugin(choice: str) -> None:
    extra = launcher_missing(choice)
    if extra:
        pytest.skip(f"the plugin of bridges-interp[{extra}] is not installed")


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_passes_the_checks(choice):
    _skip_without_plugin(choice.removeprefix("launcher="))
    arguments = [choice, *NEEDED.get(choice, [])]
    check_command_line(arguments)
    composed(*arguments)


def test_the_groups_are_there():
    named = {"data", "model", "sparse", "bridge", "train", "behaviours", "circuits", "verdict", "tracking", "launcher"}
    named |= {"experiment"}
    assert named <= set(groups())


@pytest.mark.parametrize("choice", ["joblib", "slurm"])
def test_a_launcher_preset_chooses_the_plugin(choice):
    _skip_without_plugin(choice)
    settings = compose("config", overrides=[f"launcher={choice}"], return_hydra_config=True)
    target = settings.hydra.launcher._target_
    assert {"joblib": "JoblibLauncher", "slurm": "SlurmLauncher"}[choice] in target


@pytest.mark.parametrize("choice", sorted(LAUNCHERS))
def test_a_missing_plugin_names_what_installs_it(choice, monkeypatch):
    monkeypatch.setattr(overrides, "find_spec", lambda name: None)
    key = "launcher" if choice in groups()["launcher"] else "hydra/launcher"
    with pytest.raises(ConfigError, match=rf"{key}={choice} needs a plugin.*bridges-interp\[{LAUNCHERS[choice][1]}\]"):
        check_command_line(["-m", f"{key}={choice}"])


def test_a_misspelt_launcher_names_the_nearest():
    with pytest.raises(ConfigError, match="joblib"):
        check_command_line(["-m", "hydra/launcher=jobib"])
    with pytest.raises(ConfigError, match="joblib"):
        check_command_line(["-m", "launcher=jobib"])


# --- commands that are written down -------------------------------------------------------------------------------


def _commands() -> Iterator[tuple[str, str]]:
    root = Path(__file__).resolve().parent.parent
    for file in [root / "README.md", *sorted(conf_folder().rglob("*.yaml"))]:
        for line in file.read_text().splitlines():
            for found in re.finditer(r"python -m bridges\.(?:run|tune) ([^`|]*)", line):
                yield str(file.relative_to(root)), found.group(1)


def _arguments(text: str) -> list[str]:
    """The arguments of a documented command: placeholders filled in, what is said beside it left out."""
    text = re.sub(r"<[^>]*>", "x", text.split("  ")[0].split(" # ")[0])
    return shlex.split(re.sub(r"--trials \d+", "", text))


COMMANDS = sorted(set(_commands()))


def test_commands_are_found():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("file", "text"), COMMANDS)
def test_a_documented_command_is_one(file, text):
    arguments = [a for a in _arguments(text) if not a.startswith("resume=")]
    for a in arguments:
        _skip_without_plugin(a.rpartition("=")[2])
    check_command_line(arguments)
    plain = [a for a in arguments if "=" in a and not a.startswith("hydra/launcher")]
    # Of a sweep the first job; which partition Slurm has is not ours to know.
    composed(*(re.sub(r"=([^,\[]*),.*", r"=\1", a) for a in plain if not a.startswith("hydra.")))


@pytest.mark.parametrize("preset", groups()["experiment"])
def test_an_experiment_holds_its_own_command(preset):
    text = (conf_folder() / "experiment" / f"{preset}.yaml").read_text()
    assert f"experiment={preset}" in text


@pytest.mark.parametrize("preset", ["quick", "smoke", "standard", "paper"])
def test_nothing_undoes_what_a_training_preset_says(preset):
    written = OmegaConf.load(conf_folder() / "train" / f"{preset}.yaml")
    whole = compose("config", overrides=[f"train={preset}"])
    # Without a package of its own a file speaks of its group alone.
    said = written if "train" in written else OmegaConf.create({"train": written})
    assert OmegaConf.merge(whole, said) == whole


def test_the_plain_command_searches_faithful_circuits_in_both_models():
    config = composed()
    assert (config.circuits.objective, config.circuits.models) == ("faithful", ["sparse", "dense"])
    # What stands in the presets of that name is what a notebook gets.
    assert config.circuits == Config().circuits and config.verdict == Config().verdict


def test_the_published_search_is_the_papers():
    """Sections 2.2 and A.5: two-way loss of 0.15 after a fitted scale and shift, mean ablation, pruned edges."""
    found = composed("circuits=published").circuits
    assert (found.objective, found.ablation, found.target, found.edges) == ("task_loss", "mean", 0.15, True)
    assert found.penalty == 1e-4 and found.controls.names == []


def test_the_robust_preset_measures_the_whole_robustness_line():
    found = composed("circuits=robust").circuits.controls
    assert set(found.selected) == {*CLAIM_CONTROLS, *ROBUSTNESS}
    assert set(composed().circuits.controls.selected) == {*CLAIM_CONTROLS, *ROBUSTNESS} - {"adversarial", "seeds"}


def test_the_thorough_preset_leaves_nothing_out():
    found = composed("circuits=thorough").circuits
    assert set(found.controls.selected) == set(CONTROLS) and not found.controls.stop_early and found.controls.seeds == 5
    assert found.steps > composed().circuits.steps and found.curves


def test_without_circuits_there_is_no_verdict():
    config = composed("circuits=none")
    assert list(wanted(config)) == ["behaviours", "evaluate"]
    assert list(wanted(composed())) == ["behaviours", "circuits", "evaluate", "compare"]
    assert list(wanted(composed("behaviours=none"))) == ["evaluate"]
