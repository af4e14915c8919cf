"""Where a run's models, text and behaviours come from; planted worlds, which have all three, among them."""

from __future__ import annotations

from typing import Any

from bridges.behaviours import get_suite
from bridges.behaviours.from_file import load
from bridges.behaviours.pair import Behaviour, BehaviourError
from bridges.config import BehavioursConfig
from bridges.errors import nearest
from bridges.planted import world_named


def select_behaviours(config: BehavioursConfig, tokenizer: Any) -> dict[str, Behaviour]:
    """The behaviours that the settings name.

    Raises:
        BehaviourError: a name is unknown, or the file of pairs is missing or broken.
    """
    if config.suite == "none":
        return {}
    every: dict[str, Behaviour] = {}
    if config.suite == "file":
        every |= load(config.path or "", tokenizer)
    elif config.suite == "planted":
        every |= world_named(config.path or "0").behaviours
    else:
        every |= get_suite(config.suite)
    for name in config.names or ():
        if name not in every:
            raise BehaviourError(f"behaviours.names: there is no behaviour {name!r}. {nearest(name, every)}")
    return {name: every[name] for name in every if config.names is None or name in config.names}
