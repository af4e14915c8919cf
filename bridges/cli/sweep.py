"""What happens at the end of a sweep: one line per job, and an exit status that tells of failures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepSummary(Callback):
    """Prints every job's outcome; the process ends with status 1 if any failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        outcomes = [
            json.loads(file.read_text())
            for file in sorted(folder.glob("*/outcome.json"), key=lambda f: int(f.parent.name))
        ]
        print("\nSweep:")
        for outcome in outcomes:
            where = outcome.get("folder") or outcome.get("message")
            print(f"  {outcome['status']:<9} {' '.join(outcome['overrides'])}  {where}")
        failed = sum(o["status"] == "failed" for o in outcomes)
        if failed:
            print(f"{failed} of {len(outcomes)} jobs failed; the same command tries them again and skips the others.")
            sys.exit(1)
