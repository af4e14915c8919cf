"""What `bridges run --help` says, and that every setting has an explanation."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import bridges.cli.run  # noqa: F401  (stores the schema that the settings are composed onto)
from bridges.cli.help import OFTEN, every_setting, explain, help_text, overview, wanted
from bridges.cli.overrides import conf_folder, groups
from bridges.config import Config, flat, from_dict
from bridges.config.describe import Setting, sections, settings
from bridges.errors import ConfigError

BY_NAME = {setting.name: setting for setting in settings()}


def nested(name: str, value: object) -> dict:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value  # type: ignore[return-value]


def test_every_setting_is_described_with_its_default():
    defaults = flat(Config())
    assert list(BY_NAME) == list(defaults)
    assert {name: setting.default for name, setting in BY_NAME.items()} == defaults


@pytest.mark.parametrize("setting", [*settings(), *sections()], ids=lambda setting: setting.name)
def test_every_setting_has_an_explanation(setting: Setting):
    assert len(setting.text) > 10 and setting.text.endswith((".", ")")), setting.text
    # One that leans on the field above it says nothing where it stands alone.
    assert not re.match(r"(That|Their|Its|It|How it|Of|The same|How many of them)\b", setting.text), setting.text


@pytest.mark.parametrize("setting", [s for s in settings() if s.choices], ids=lambda setting: setting.name)
def test_the_choices_that_are_told_are_those_that_are_checked(setting: Setting):
    def build(word: str) -> Config:
        values = nested(setting.name, [word] if setting.type.startswith("list") else word)
        if setting.name == "data.vocabulary":
            values["data"]["focus"] = 1.0
        return from_dict(values)

    for word in setting.choices:
        # Some need another setting beside them, or are no choice of a run.
        if (setting.name, word) not in {("behaviours.suite", "file"), ("data.source", "files"), ("data.source", "hub")}:
            if setting.name == "circuits.method" and word != "learned":
                continue
            build(word)
    with pytest.raises(ConfigError, match=re.escape(setting.name)):
        build("nobody's")


def test_choices_are_told_wherever_a_text_lists_words():
    assert BY_NAME["train.precision"].choices == ("auto", "fp32", "bf16")
    assert BY_NAME["circuits.baselines"].choices == ("attribution", "integrated_gradients", "random", "magnitude")
    assert BY_NAME["train.lr"].choices == () and BY_NAME["circuits.controls.names"].type == "list of texts or null"


def test_the_first_screen_fits_and_shows_what_is_needed(monkeypatch):
    for columns in ("80", "110", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = overview().splitlines()
        assert len(lines) <= 45 and max(map(len, lines)) <= max(110, int(columns))
    shown = overview()
    for group, choices in groups().items():
        assert len(choices) < 2 or all(re.search(rf"[ *]{re.escape(choice)}\b", shown) for choice in choices), group
    assert set(OFTEN) <= set(BY_NAME) and all(f"  {name}=" in shown for name in OFTEN)
    assert "*quick" in shown and "*tinypython" in shown and "*smoke" not in shown


def test_all_settings_are_listed_one_a_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = every_setting().splitlines()
    for name, setting in BY_NAME.items():
        (line,) = [line for line in lines if line.startswith(f"  {name}=")]
        assert setting.text.split(" ")[0] in line and len(line) <= 160
    assert len(lines) < len(BY_NAME) + 4 * len(sections())


def test_defaults_are_those_of_a_plain_run():
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = flat(OmegaConf.to_object(compose("config")))  # type: ignore[arg-type]
    for name, value in composed.items():
        shown = re.search(r"^default: +(.*?)(?: \(.*in a notebook.*)?$", explain(name), re.M)[1]  # type: ignore[index]
        if isinstance(value, float):
            assert float(shown) == value, name
        else:
            told = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert shown == (told.replace("'", "").replace(" ", "") if isinstance(value, list) else told), name


def test_one_setting_is_explained():
    text = explain("train.tokens")
    assert "Training tokens in all." in text and "type:     whole number" in text
    assert f"({BY_NAME['train.tokens'].default} in a notebook" in text and "train=smoke (10240)" in text
    assert "choices:  auto, fp32, bf16" in explain("train.precision")
    assert "must be given" in explain("data.path")


def test_a_group_is_explained_with_its_presets_and_settings():
    text = explain("circuits")
    assert all(re.search(rf"^ [* ]{choice} ", text, re.M) for choice in groups()["circuits"])
    assert all(f"  {name}=" in text for name in BY_NAME if name.startswith("circuits."))
    assert "train.lr" not in text
    assert "  train.terms.ce=1" in explain("train.terms") and "Presets" not in explain("train.terms")
    assert "a world whose circuits" in explain("experiment").lower() and "Settings:" not in explain("launcher")


@pytest.mark.parametrize(
    ("word", "near"),
    [("train.lrr", "'train.lr'"), ("lr", "train.lr or circuits.lr"), ("circuit", "'circuits'"), ("zzz", "--help all")],
)
def test_an_unknown_word_ends_in_one_line_with_the_nearest_names(cli, word, near):
    code, out, err = cli("--help", word)
    assert code == 1 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert f"{word} is neither a setting nor a group. " in err and near in err and "  " not in err


def test_the_command_answers_before_anything_is_composed(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("--help") == (0, overview() + "\n", "")
    assert cli("-h", "all")[1] == every_setting() + "\n"
    assert cli("train.lr=1e-3", "--help")[1] == explain("train.lr") + "\n"
    assert cli("--help", "train.lr", "seed")[1] == f"{explain('train.lr')}\n\n{explain('seed')}\n"
    assert not list(tmp_path.iterdir())


def test_what_help_is_asked_for():
    assert wanted(["seed=1"]) is None and wanted(["--help"]) == []
    assert wanted(["--help", "+train.lr=3", "-m", "seed"]) == ["train.lr", "seed"]
    assert help_text(["all", "seed"]) == every_setting()
