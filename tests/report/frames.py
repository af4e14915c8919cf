"""Tables of a run filled in by hand, small enough to know what the page must say; circuits are in `circuit_frames`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bridges.storage.tables import write_table

NASTY = "</script><script>alert('x')</script>"
NAN = float("nan")
BRIDGES = 9
WIDTH = 512

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What the tables say of one behaviour; ``moved`` of a ceiling of 0.9, both ways."""

    verdict: str
    reason: str
    dense: float = 0.98
    sparse: float = 0.97
    moved: float = NAN
    back: float = NAN
    fvu: float = NAN
    robust: bool | None = None

    @property
    def judged(self) -> bool:
        return self.verdict in ("reproduced", "partial", "undecided", "not")


CASES: dict[str, Case] = {
    "bracket_counting": Case("reproduced", "all five claims hold", moved=0.8, back=0.7, fvu=0.12, robust=True),
    "single_double_quote": Case("reproduced", "all five claims hold", moved=0.6, back=0.5, fvu=0.15, robust=False),
    "with_as": Case("partial", "dense to sparse: share 0.31 < 0.50", moved=0.55, back=0.28, fvu=0.18, robust=False),
    "for_while": Case("undecided", "FVU 0.19 [0.15, 0.24] straddles 0.20", moved=0.5, back=0.5, fvu=0.19),
    NASTY: Case("not", "FVU 0.64 > 0.20 <b>", sparse=0.61, moved=0.04, back=0.02, fvu=0.64),
    "else_elif": Case("last token suffices", "the bigram table answers 0.99"),
    "lambda_func": Case("dense model cannot", "accuracy 0.53 < 0.90", dense=0.53, sparse=0.5),
    'quote "and"\ttab\nline': Case("not expressible", "no single token for ':\\n'", dense=NAN, sparse=NAN),
}


def around(name: str, value: float, width: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def write_files(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config: Row = {
        "seed": seed,
        "sparsity": 0.02,
        "runs_dir": str(folder.parent),
        "name": folder.name,
        "resume": None,
        "model": {"name": "tinypython", "label": "tinypython", "revision": None},
        "data": {"source": "python", "path": None, "note": "a & b <i>"},
        "sparse": {"d_model": 512, "n_layer": 4, "d_head": 16, "activation_points": ["q", "k"]},
        "train": {"lr": 0.003, "tokens": 4_000_000, "terms": {"ce": 1.0, "kl": None}},
        "tracking": {"mode": "off", "tags": []},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = {"python": "3.12.1", "platform": "Linux", "cpus": 2, "device": "cpu", "versions": {"torch": "2.8.0"}}
    environment |= {"commit": "0123abc", "command": ["bridges", "run", f"runs_dir={folder.parent}"]}
    (folder / "environment.json").write_text(json.dumps(environment))
    stages = ("prepare", "train", "evaluate", "behaviours", "circuits", "compare")
    status = {"status": "running", "stages": {s: {"status": "finished", "seconds": 12.5} for s in stages}}
    (folder / "status.json").write_text(json.dumps(status | {"started": "2026-01-01T00:00:00+00:00"}))


def training_frame(rng: np.random.Generator) -> pd.DataFrame:
    steps = np.arange(1, 601)
    noise = 1 + 0.04 * rng.standard_normal(len(steps))
    fall = 1.6 + 6 * np.exp(-steps / 90)
    frame = pd.DataFrame({"step": steps, "tokens": steps * 6656, "total": 4 * fall * noise, "ce": fall * noise})
    frame["kl"], frame["kl_d2s"], frame["kl_s2d"] = frame["ce"] - 1.4, 3 * (frame["ce"] - 1.3), 2 * (frame["ce"] - 1.3)
    frame["nmse_encoder"], frame["nmse_decoder"] = 4 * np.exp(-steps / 200) + 1, 3 * np.exp(-steps / 200) + 0.4
    frame["l0_target"] = np.maximum(0.02, 1 - steps / 300)
    frame["l0_actual"], frame["lr"] = frame["l0_target"] * 0.995, 0.003 * (1 - steps / 700)
    frame["grad_rms"], frame["dead_neurons"] = 0.01 * noise, (steps // 20).astype(int)
    return frame


def write_fidelity(folder: Path, rng: np.random.Generator) -> None:
    sites, paths, likeness = [], [], []
    base = {"n_sequences": 64, "split": "test"}
    for bridge in range(BRIDGES):
        where = {"bridge": bridge, "dense_site": bridge, "sparse_site": bridge}
        for bridges, times in (("trained", 1.0), ("untrained", 14.0), ("ridge", 2.6)):
            d2s, s2d = (times * (0.12 + 0.02 * abs(4 - bridge) + 0.01 * rng.random()) for _ in range(2))
            row: Row = {"bridges": bridges, **where, **base, "nmse_encoder": 0.3, "nmse_decoder": 0.2}
            row |= {"fvu_encoder": 0.31, "fvu_decoder": 0.2}
            sites.append(row | around("kl_d2s", d2s, 0.02 * times) | around("kl_s2d", s2d, 0.02 * times))
            for kind, value, path in (("single_d2s", d2s, f"D0-S{bridge}-S8"), ("single_s2d", s2d, f"S0-D{bridge}-D8")):
                row = {"bridges": bridges, "path": path, "kind": kind, "crossings": 1, "n_tokens": 16000, **base}
                paths.append(row | around("ce", 1.6 + value, 0.02) | around("kl", value, 0.01))
        for j, quantity in enumerate(("linear_cka", "r2_dense_to_sparse", "r2_sparse_to_dense")):
            likeness.append({**where, "quantity": quantity, "value": 0.9 - 0.1 * j - 0.02 * bridge, "n": 4096})
    for kind, kl, crossings, which in (
        ("pure_dense", 0.0, 0, "none"),
        ("pure_sparse", 0.21, 0, "none"),
        ("bigram", 1.31, 0, None),
        ("round_trip_dense", 0.08, 2, "trained"),
        ("double_sds", 0.33, 2, "trained"),
    ):
        row = {"bridges": which, "path": kind, "kind": kind, "crossings": crossings, "n_tokens": 16000, **base}
        paths.append(row | around("ce", 1.6 + kl, 0.02) | around("kl", kl, 0.01))
    write_table(folder, "sites", pd.DataFrame(sites))
    write_table(folder, "paths", pd.DataFrame(paths))
    write_table(folder, "similarity", pd.DataFrame(likeness))
    names = [f"{layer}.{matrix}" for layer in range(4) for matrix in ("q", "k", "v", "out", "up", "down")]
    frame = pd.DataFrame({"matrix": names, "rows": WIDTH, "columns": WIDTH, "numel": WIDTH**2})
    write_table(folder, "sparsity", frame.assign(budget=5242, nonzeros=5242, fraction=5242 / WIDTH**2))


def write_behaviours(folder: Path) -> None:
    suite, rows = [], []
    for name, case in CASES.items():
        done = case.verdict != "not expressible"
        row: Row = {"behaviour": name, "suite": "python", "description": f"Gives what `{name}` ends with."}
        row |= {"expressible": done, "reason": None if done else "no single token for ':\\n'"}
        row |= {"train_pairs": 512 * done, "heldout_pairs": 128 * done, "reach_pairs": 64, "shared_last": 1.0}
        row |= {"clean": "x = [[1, 2], [3, 4" if done else None, "answer": "]]\n" if done else None}
        row |= {"counterfactual": "x = [1,\x0b </b>2, [3, 4" if done else None, "other": "\u202e]" if done else None}
        suite.append(row)
        if not done:
            continue
        models: list[tuple[str, int | None, float]] = [("dense", None, case.dense), ("sparse", None, case.sparse)]
        models += [("bigram", None, 0.5)]
        models += [(h, b, case.sparse - 0.01 * b) for h in ("hybrid_d2s", "hybrid_s2d") for b in range(BRIDGES)]
        for model, bridge, accuracy in models:
            given = {"behaviour": name, "split": "heldout", "model": model, "bridge": bridge, "n_pairs": 128, "seed": 0}
            given |= around("loss", 0.2, 0.03) | around("accuracy", accuracy, 0.02)
            rows.append(given | around("logit_difference", 3.1, 0.2))
    write_table(folder, "suite", pd.DataFrame(suite))
    write_table(folder, "behaviours", pd.DataFrame(rows).astype({"bridge": "Int64"}))


# claim, criterion, bar, whether the value has to be at least the bar, and the value of a case
CRITERIA = (
    ("done", "dense_accuracy", 0.9, True, lambda c: c.dense),
    ("sufficient", "fvu", 0.2, False, lambda c: c.fvu),
    ("sufficient", "circuit_accuracy", 0.9, True, lambda c: 0.96),
    ("necessary", "accuracy_without", 0.7, False, lambda c: 0.52),
    ("small", "edges_of_dense", 940.0, False, lambda c: 61.0),
    ("same computation", "share_to_dense", 0.5, True, lambda c: c.moved / 0.9),
    ("same computation", "share_to_sparse", 0.5, True, lambda c: c.back / 0.9),
    ("robustness", "resample", 0.2, False, lambda c: 0.1 if c.robust else 0.4),
    ("robustness", "adversarial", 0.5, False, lambda c: NAN),
)


def claim_rows(name: str, case: Case) -> list[Row]:
    rows = []
    for claim, criterion, bar, at_least, measure in CRITERIA:
        value, width = measure(case), 0.0 if bar > 1 else 0.03
        row = {"behaviour": name, "claim": claim, "criterion": criterion, "bar": bar, "at_least": at_least}
        row |= around("value", value, width) | {"p_value": NAN, "p_adjusted": NAN}
        good = (value - width >= bar) if at_least else (value + width <= bar)
        bad = (value + width < bar) if at_least else (value - width > bar)
        state = "not measured" if np.isnan(value) else "held" if good else "missed" if bad else "open"
        row |= {"state": state, "short": f"{criterion} {value:.2f}", "meaning": f"what {criterion} <is>"}
        rows.append(row)
    return rows


def transfer_rows(name: str, case: Case) -> list[Row]:
    """Interchange rises from nothing at bridge 0 to its full share at bridge 5, where it is selected."""
    rows = []
    for bridge in range(BRIDGES):
        where = {"behaviour": name, "bridge": bridge, "dense_site": bridge, "sparse_site": bridge, "n_pairs": 64}
        where |= {"seed": 0, "selected": bridge == 5, "p_value": NAN, "strength": 1.0, "quantity": "share_moved"}
        part = min(1.0, bridge / 5)
        shares = [("interchange", d, v) for d, v in (("dense", 0.9), ("sparse", 0.85), ("circuit", case.moved))]
        shares += [("dense_to_sparse", "circuit", 0.9), ("dense_to_sparse", "dense", case.back)]
        if bridge == 5:
            shares += [("interchange", "random_directions", 0.03), ("dense_to_sparse", "shuffled_bridge", 0.02)]
        for measurement, direction, value in shares:
            given = where | {"measurement": measurement, "direction": direction}
            rows.append(given | around("value", value * part, 0.04))
        if bridge == 5:
            for strength in (0.0, 0.5, 1.0):
                given = where | {"measurement": "steering", "direction": "circuit", "strength": strength}
                rows.append(given | {"quantity": "p_counterfactual"} | around("value", 0.6 * strength, 0.02))
    return rows


def verdict_row(name: str, case: Case) -> Row:
    known = case.judged
    row: Row = {"behaviour": name, "verdict": case.verdict, "robust": case.robust, "reason": case.reason}
    row |= {"dense_accuracy": case.dense, "sparse_accuracy": case.sparse, "circuit_accuracy": 0.96 if known else NAN}
    row |= {"nodes": 34 if known else None, "edges": 61 if known else None, "dense_edges": 940 if known else None}
    row |= {"fvu": case.fvu, "faithfulness": 0.9 if known else NAN, "accuracy_without": 0.52 if known else NAN}
    row |= {"bridge": 5 if known else None, "share_moved": case.moved, "ceiling": 0.9 if known else NAN}
    row |= {"share_moved_sparse": 0.85 if known else NAN, "share_back": case.back}
    row |= {"ceiling_back": 0.9 if known else NAN, "reach_fvu": 0.4 if known else NAN}
    return row | {"failed": None if case.verdict == "reproduced" else "fvu, share_to_sparse"}


def write_verdicts(folder: Path) -> None:
    judged = {name: case for name, case in CASES.items() if case.judged}
    whole = ["nodes", "edges", "dense_edges", "bridge"]
    verdicts = pd.DataFrame([verdict_row(*item) for item in CASES.items()])
    write_table(folder, "verdicts", verdicts.astype(dict.fromkeys(whole, "Int64") | {"robust": "boolean"}))
    write_table(folder, "claims", pd.DataFrame([row for item in judged.items() for row in claim_rows(*item)]))
    write_table(folder, "transfer", pd.DataFrame([row for item in judged.items() for row in transfer_rows(*item)]))
    agreement = [
        {
            "behaviour": name,
            "first": "dense",
            "second": "circuit",
            "quantity": "decision_agreement",
            "n": 256,
            "seed": 0,
        }
        | around("value", 0.91, 0.02)
        for name in judged
    ]
    write_table(folder, "agreement", pd.DataFrame(agreement))
