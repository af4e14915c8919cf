"""What the documentation is tested on: its own text, and a finished run on a small planted world."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate import Accelerator

from bridges.bridge import Bridges, pair_sites
from bridges.config import from_dict
from bridges.data.blocks import token_blocks
from bridges.planted import world_named
from bridges.runs import stages
from bridges.runs.context import RunContext
from bridges.storage.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
# A behaviour that both of its models do.
BEHAVIOUR = "copy"
SETTINGS = {
    "sparsity": 0.15,
    "kernels": "python",
    "model": {"name": "planted:0", "label": "planted"},
    "data": {"source": "planted", "path": "0", "context": 32},
    "train": {"precision": "fp32"},
    "eval": {"bootstrap": 50},
    "behaviours": {"suite": "planted", "path": "0", "names": [BEHAVIOUR], "pairs": 48, "hybrid_pairs": 8},
    "circuits": {
        "models": ["sparse"],
        "max_node_fraction": 0.4,
        "pairs": 32,
        "workers": 1,
        "reference_tokens": 4096,
        "activation_tokens": 256,
        "controls": {"names": ["necessity"], "random_sets": 40, "pairs": 24, "draws": 1},
    },
    "compare": {
        "pairs": 32,
        "train_pairs": 24,
        "draws": 2,
        "bootstrap": 300,
        "text_tokens": 512,
        "similarity_tokens": 512,
    },
}


@pytest.fixture(scope="session")
def page() -> Callable[[str], str]:
    """``page("README.md")``, ``page("docs/tutorial.md")``: the text of a page."""
    return lambda name: (ROOT / name).read_text()


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """``docs/generate.py``."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module  # where a dataclass looks for its types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one circuit, `BEHAVIOUR`'s, which `bridges.load` opens; tests do not change it.

    Nothing is trained: the world's own sparse model, and bridges that turn its stream exactly.
    """
    config, world = from_dict(SETTINGS), world_named("planted:0")
    bridges = Bridges(
        world.dense.d_model, world.sparse.d_model, pair_sites(world.dense.n_sublayers, world.sparse.n_sublayers), None
    )
    for bridge in bridges.requires_grad_(False):
        bridge.decoder.weight.copy_(world.dense.rotation.T)
        bridge.encoder.weight.copy_(world.dense.rotation)
    folder = RunFolder.create(config, tmp_path_factory.mktemp("docs") / "first")
    context = RunContext(
        config,
        folder,
        Accelerator(cpu=True),
        copy.deepcopy(world.dense),  # type: ignore[arg-type]
        token_blocks(config.data, world.tokenizer, config.data.context),
        copy.deepcopy(world.sparse),
        bridges,
        world.tokenizer,
        None,  # type: ignore[arg-type]
        lambda text: None,
    )
    with torch.no_grad():
        stages.behaviours(context)
    stages.circuits(context)
    stages.compare(context)
    world.sparse.save_pretrained(folder.model)
    bridges.save_pretrained(folder.bridges)
    names = ("train", "evaluate", "behaviours", "circuits", "compare")
    folder.write_status("finished", stages={name: {"status": "finished", "seconds": 1.0} for name in names})
    return folder.path
