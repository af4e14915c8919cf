"""The shipped sparse model itself, seen in another basis, as the dense one: what it does is reproduced.

    pytest -m slow -s tests/runs/test_ceiling.py

takes up to ten minutes a behaviour; `-k for_while` asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from bridges.behaviours import encode, two_way
from bridges.cli.overrides import conf_folder
from bridges.config import Config
from bridges.planted import Rotated, random_rotation
from bridges.runs.context import RunContext
from bridges.runs.pipeline import prepare
from bridges.storage.folder import RunFolder

from .conftest import judged, turned_bridges

# What the shipped sparse model does at about 90 % or better.
BEHAVIOURS = (
    "while_return_true", "for_while", "single_double_quote", "fstring_brace", "var_if", "else_elif", "final_kwarg",
    "enumerate_range", "set_or_string_fixedvarname", "indent_for",
)  # fmt: skip
verdicts: dict[str, str] = {}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunContext]:
    few = "circuits.controls.names=[necessity,consistent_labels,reach]"
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = OmegaConf.to_object(compose("config", overrides=[few, "circuits.workers=1"]))
    assert isinstance(config, Config)
    folder = RunFolder.create(config, tmp_path_factory.mktemp("ceiling"))
    made, _ = prepare(config, folder, Accelerator(cpu=True), lambda text: None)
    dense = Rotated(made.sparse, random_rotation(made.sparse.d_model, 0))
    yield replace(made, dense=dense, bridges=turned_bridges(dense, made.sparse), shared={})  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_what_the_model_does_is_reproduced_by_itself(name: str, context: RunContext, tmp_path: Path) -> None:
    pairs = encode(context.behaviours[name], context.tokenizer, "heldout", context.config.behaviours.pairs, 0)
    accuracy = float(two_way(context.sparse.logits, pairs)["correct"].mean())
    if accuracy < context.config.verdict.dense_accuracy:
        pytest.skip(f"the model does it at {accuracy:.2f} only")
    mine = replace(context, folder=RunFolder.create(context.config, tmp_path / "run"))
    row = judged(mine, name, accuracy, accuracy)
    verdicts[name] = row["verdict"]
    print(f"{name}: {row['verdict']}, {row['nodes']} nodes; {row['reason']}", flush=True)
    assert row["verdict"] in ("reproduced", "undecided"), row["states"]


@pytest.mark.slow
def test_nine_in_ten() -> None:
    reproduced = sum(verdict == "reproduced" for verdict in verdicts.values())
    print(f"reproduced: {reproduced} of {len(verdicts)}")
    assert verdicts and reproduced >= 0.9 * len(verdicts)
