"""Run folders with every table filled in by hand, small enough to know what the page must say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bridges.storage.tables import write_table

NASTY = "</script><script>alert('x')</script>"
# behaviour -> verdict, accuracies of dense, sparse and circuit, share moved
CASES: dict[str, tuple[str, float, float, float, float]] = {
    "bracket_counting": ("reproduced", 0.981, 0.972, 0.964, 0.812),
    "single_double_quote": ("reproduced", 0.995, 0.98, 0.976, 0.744),
    "with_as": ("partial", 0.93, 0.9, 0.84, 0.35),
    NASTY: ("not", 0.9, 0.61, 0.58, 0.04),
    "lambda_func": ("dense model cannot", 0.53, 0.5, np.nan, np.nan),
    'quote "and"\ttab\nline': ("not expressible", np.nan, np.nan, np.nan, np.nan),
}
PAIRS = 9
POINTS = ("attn_in", "q", "k", "v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")
FLOW = (("q", "attn_in", "q"), ("k", "attn_in", "k"), ("v", "attn_in", "v"), ("out", "v", "attn_out"))
FLOW += (("up", "mlp_in", "mlp_neuron"), ("down", "mlp_neuron", "mlp_out"))
TOKENS = {17: "\tfor", 400: NASTY}


def _around(name: str, value: float, width: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def _files(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
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
    environment |= {"commit": "0123abc", "command": ["python", "-m", "bridges.run", f"runs_dir={folder.parent}"]}
    (folder / "environment.json").write_text(json.dumps(environment))
    stages = ("prepare", "train", "evaluate", "behaviours", "circuits", "compare")
    status = {"status": "running", "stages": {s: {"status": "finished", "seconds": 12.5} for s in stages}}
    (folder / "status.json").write_text(json.dumps(status | {"started": "2026-01-01T00:00:00+00:00"}))


def _training(rng: np.random.Generator) -> pd.DataFrame:
    steps = np.arange(1, 601)
    noise = 1 + 0.04 * rng.standard_normal(len(steps))
    fall = 1.6 + 6 * np.exp(-steps / 90)
    frame = pd.DataFrame({"step": steps, "tokens": steps * 6656, "total": 4 * fall * noise, "ce": fall * noise})
    frame["kl"], frame["kl_d2s"], frame["kl_s2d"] = frame["ce"] - 1.4, 3 * (frame["ce"] - 1.3), 2 * (frame["ce"] - 1.3)
    frame["nmse_encoder"], frame["nmse_decoder"] = 4 * np.exp(-steps / 200) + 1, 3 * np.exp(-steps / 200) + 0.4
    frame["ce_weighted"] = frame["ce"]
    frame["l0_target"] = np.maximum(0.02, 1 - steps / 300)
    frame["l0_actual"], frame["lr"] = frame["l0_target"] * 0.995, 0.003 * (1 - steps / 700)
    frame["grad_rms"], frame["dead_neurons"] = 0.01 * noise, (steps // 20).astype(int)
    return frame


def _fidelity(folder: Path, rng: np.random.Generator) -> None:
    sites, paths, likeness = [], [], []
    base = {"n_sequences": 64, "split": "test"}
    for pair in range(PAIRS):
        where = {"pair": pair, "dense_site": pair, "sparse_site": pair}
        for bridges, times in (("trained", 1.0), ("untrained", 14.0), ("ridge", 2.6)):
            d2s, s2d = (times * (0.12 + 0.02 * abs(4 - pair) + 0.01 * rng.random()) for _ in range(2))
            row: dict[str, Any] = {"bridges": bridges, **where, **base, "nmse_encoder": 0.3, "nmse_decoder": 0.2}
            row |= {"fvu_encoder": 0.31, "fvu_decoder": 0.2}
            sites.append(row | _around("kl_d2s", d2s, 0.02 * times) | _around("kl_s2d", s2d, 0.02 * times))
            for kind, value, path in (("single_d2s", d2s, f"D0-S{pair}-S8"), ("single_s2d", s2d, f"S0-D{pair}-D8")):
                row = {"bridges": bridges, "path": path, "kind": kind, "crossings": 1, "n_tokens": 16000, **base}
                paths.append(row | _around("ce", 1.6 + value, 0.02) | _around("kl", value, 0.01))
        for j, quantity in enumerate(("linear_cka", "r2_dense_to_sparse", "r2_sparse_to_dense")):
            likeness.append({**where, "quantity": quantity, "value": 0.9 - 0.1 * j - 0.02 * pair, "n": 4096})
    for kind, kl, crossings, bridges in (
        ("pure_dense", 0.0, 0, "none"),
        ("pure_sparse", 0.21, 0, "none"),
        ("bigram", 1.31, 0, None),
        ("round_trip_dense", 0.08, 2, "trained"),
        ("round_trip_sparse", 0.3, 2, "trained"),
        ("double_dsd", 0.24, 2, "trained"),
        ("double_sds", 0.33, 2, "trained"),
    ):
        row = {"bridges": bridges, "path": kind, "kind": kind, "crossings": crossings, "n_tokens": 16000, **base}
        paths.append(row | _around("ce", 1.6 + kl, 0.02) | _around("kl", kl, 0.01))
    write_table(folder, "sites", pd.DataFrame(sites))
    write_table(folder, "paths", pd.DataFrame(paths))
    write_table(folder, "similarity", pd.DataFrame(likeness))
    names = [f"{layer}.{wire}" for layer in range(4) for wire, _, _ in FLOW]
    frame = pd.DataFrame({"matrix": names, "rows": 512, "columns": 512, "numel": 512 * 512})
    write_table(folder, "sparsity", frame.assign(budget=5242, nonzeros=5242, fraction=5242 / 512**2))


def _behaviours(folder: Path) -> None:
    suite, rows = [], []
    for name, (verdict, dense, sparse, _, _) in CASES.items():
        done = verdict != "not expressible"
        row: dict[str, Any] = {"behaviour": name, "suite": "python", "description": f"Says what {name} ends with."}
        row |= {"expressible": done, "reason": None if done else "no single token for ':\\n'"}
        row |= {"train_pairs": 512 * done, "heldout_pairs": 128 * done}
        row |= {"clean": "x = [[1, 2], [3, 4" if done else None, "answer": "]]\n" if done else None}
        row |= {"counterfactual": "if a:\n\tx = [1,\x0b </b>2" if done else None, "other": "\u202e]" if done else None}
        suite.append(row)
        if not done:
            continue
        models: list[tuple[str, int | None, float]] = [("dense", None, dense), ("sparse", None, sparse)]
        models += [("bigram", None, 0.5)]
        models += [(h, pair, sparse - 0.01 * pair) for h in ("hybrid_d2s", "hybrid_s2d") for pair in range(PAIRS)]
        for model, pair, accuracy in models:
            given = {"behaviour": name, "split": "heldout", "model": model, "pair": pair, "n_pairs": 128, "seed": 0}
            given |= _around("loss", 0.2, 0.03) | _around("accuracy", accuracy, 0.02)
            rows.append(given | _around("logit_difference", 3.1, 0.2))
    write_table(folder, "suite", pd.DataFrame(suite))
    write_table(folder, "behaviours", pd.DataFrame(rows).astype({"pair": "Int64"}))


def _circuits(folder: Path, rng: np.random.Generator, size: int) -> None:
    circuits, nodes, edges, places, controls, curve = [], [], [], [], [], []
    for b, (name, (verdict, *_)) in enumerate(CASES.items()):
        if verdict in ("dense model cannot", "not expressible"):
            continue
        for model, times in (("sparse", 1), ("dense", 4)):
            which = {"behaviour": name, "model": model, "method": "learned", "seed": 0}
            kept: dict[str, list[int]] = {}
            channels = rng.choice(512, size, replace=False)
            for layer in range(4):
                for kind in POINTS:
                    number = max(
                        1, round(size * times * (0.3 + 0.2 * (kind == "mlp_neuron")) * (0.5 + rng.random() / 2))
                    )
                    pool = channels if kind.endswith(("in", "out")) else np.arange(512)
                    kept[f"{layer}.{kind}"] = sorted(rng.choice(pool, min(number, len(pool)), replace=False).tolist())
            mine = [(p, c) for p, cs in kept.items() for c in cs]
            for point, channel in mine:
                values = {"score": rng.random(), "mean": rng.normal(), "importance": abs(rng.normal()) * 0.1}
                nodes.append(which | {"point": point, "channel": channel, **values})
            before = len(edges)
            wires = [(f"{n}.{m}", f"{n}.{s}", f"{n}.{t}") for n in range(4) for m, s, t in FLOW]
            for matrix, source, target in wires:
                for target_channel in kept[target]:
                    for source_channel in rng.permutation(kept[source])[: 2 * times].tolist():
                        ends = {"source": source, "source_channel": source_channel}
                        ends |= {"target": target, "target_channel": target_channel}
                        edges.append(which | {"matrix": matrix, **ends, "weight": float(rng.normal())})
            inside = len(edges) - before
            for (token, text), channel in zip(TOKENS.items(), channels[:2].tolist(), strict=True):
                into = {"source": "embedding", "source_channel": token, "target": "stream", "target_channel": channel}
                out = {"source": "stream", "source_channel": channel, "target": "logits", "target_channel": token}
                edges.append(which | {"matrix": "tokens", **into, "weight": 0.8, "token": text})
                edges.append(which | {"matrix": "head", **out, "weight": -0.6, "token": text})
            row = which | {"ablation": "mean", "nodes": len(mine), "edges": inside, "edges_with_embeddings": inside + 4}
            row |= {"node_level_edges": 2 * inside, "total_nodes": 16384, "total_edges": 125_000, "target": 0.15}
            row |= {
                "reached": verdict != "not",
                "train_loss": 0.14,
                "heldout_loss": 0.19,
                "heldout_accuracy": CASES[name][3],
            }
            circuits.append(row | {"full_loss": 0.12, "scale": 1.4, "shift": -0.1, "n_pairs": 128})
            for level in ("node", "edge"):
                for fraction in (0.001, 0.01, 0.1, 1.0):
                    f = 1 - 0.2 * (1 - fraction) ** 2 * (1 + b)
                    point = which | {"ablation": "mean", "split": "heldout", "level": level, "fraction": fraction}
                    curve.append(point | {"f": f, "cpr": 0.8, "cmd": 0.2, "n_pairs": 128})
            if model == "dense":
                continue
            for point, channel in mine:
                for rank in range(3):
                    tokens = ["if", " x", "\t", "</script>", "(", '"', "\n", "y"]
                    values = (rng.normal(size=8) * (3 - rank)).round(4).tolist()
                    row = {"behaviour": name, "model": model, "point": point, "channel": channel, "rank": rank}
                    row |= {"value": max(values), "token": int(np.argmax(values))}
                    places.append(row | {"tokens": json.dumps(tokens), "values": json.dumps(values)})
            for control, quantity, value, bar, good in (
                ("sufficiency", "loss", 0.19, 0.3, True),
                ("necessity", "loss", 1.9, 0.7, True),
                ("nonsense", "size_ratio", 1.1, 1.5, verdict == "reproduced"),
                ("resample", "loss", 0.6, 0.5, False),
            ):
                given = which | {"control": control, "split": "heldout", "ablation": "mean", "size": len(mine)}
                given |= {"quantity": quantity, "threshold": np.nan, "passed": None, "n_pairs": 64}
                for draw in range(3):
                    controls.append(given | {"draw": draw, "value": value + 0.01 * draw, "reference": 0.69})
                last = {"draw": 0, "value": value, "reference": 0.69, "threshold": bar, "passed": good}
                controls.append(given | last)
    for table, rows in (("circuits", circuits), ("nodes", nodes), ("edges", edges), ("activations", places)):
        write_table(folder, table, pd.DataFrame(rows))
    write_table(folder, "controls", pd.DataFrame(controls))
    write_table(folder, "faithfulness", pd.DataFrame(curve))


def _verdicts(folder: Path) -> None:
    verdicts, evidence, transfer, agreement = [], [], [], []
    for name, (verdict, dense, sparse, circuit, moved) in CASES.items():
        asked = verdict in ("reproduced", "partial", "not")
        row: dict[str, Any] = {"behaviour": name, "verdict": verdict, "reason": f"because of <{verdict}>"}
        row |= {"dense_accuracy": dense, "sparse_accuracy": sparse, "circuit_accuracy": circuit}
        row |= {"nodes": 34 if asked else None, "edges": 61 if asked else None, "dense_edges": 940 if asked else None}
        row |= {"agreement": 0.95 if asked else np.nan, "correlation": 0.9 if asked else np.nan, "share_moved": moved}
        row |= {"share_moved_low": moved - 0.06, "share_moved_null": 0.05 if asked else np.nan}
        row |= {"share_moved_baseline": 0.4 if asked else np.nan, "failed": None if verdict == "reproduced" else "x, y"}
        verdicts.append(row)
        if not asked:
            continue
        for criterion, value, bar, good, veto in (
            ("share_moved", moved, 0.25, moved > 0.25, False),
            ("control_nonsense", 34.0, 60.0 if verdict == "reproduced" else 20.0, verdict == "reproduced", True),
        ):
            given = {"behaviour": name, "criterion": criterion, "threshold": bar, "passed": good, "veto": veto}
            given |= {"value": value, "value_low": value - 0.06, "value_high": value + 0.07}
            evidence.append(
                given | {"p_value": np.nan, "p_adjusted": np.nan, "meaning": "what the circuit's change moves"}
            )
        for pair in range(0, PAIRS, 2):
            where = {"behaviour": name, "pair": pair, "dense_site": pair, "sparse_site": pair, "n_pairs": 64, "seed": 0}
            for direction, top in (("circuit", moved), ("random_directions", 0.03), ("difference_of_means", 0.4)):
                for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
                    given = where | {"measurement": "steering", "direction": direction, "strength": strength}
                    given |= {"quantity": "p_counterfactual"}
                    transfer.append(given | _around("value", 0.01 + top * strength, 0.01))
                given = where | {"measurement": "interchange", "direction": direction, "strength": 1.0}
                transfer.append(given | {"quantity": "share_moved"} | _around("value", top, 0.05))
        for second in ("sparse", "circuit", "dense2"):
            given = {"behaviour": name, "first": "dense", "second": second, "n": 256, "seed": 0}
            agreement.append(given | {"quantity": "logit_difference_correlation"} | _around("value", 0.91, 0.02))
    frame = pd.DataFrame(verdicts).astype({"nodes": "Int64", "edges": "Int64", "dense_edges": "Int64"})
    write_table(folder, "verdicts", frame)
    write_table(folder, "evidence", pd.DataFrame(evidence))
    write_table(folder, "transfer", pd.DataFrame(transfer))
    write_table(folder, "agreement", pd.DataFrame(agreement))


def full_run(folder: Path, seed: int = 0, size: int = 4) -> Path:
    """A run with every table; ``size`` scales the circuits."""
    rng = np.random.default_rng(seed)
    _files(folder, seed)
    write_table(folder, "training", _training(rng))
    _fidelity(folder, rng)
    _behaviours(folder)
    _circuits(folder, rng, size)
    _verdicts(folder)
    return folder


def old_run(folder: Path, seed: int = 0) -> Path:
    """A run that came as far as the evaluation."""
    rng = np.random.default_rng(seed)
    _files(folder, seed)
    stages = {"train": {"status": "finished"}, "evaluate": {"status": "finished"}}
    (folder / "status.json").write_text(json.dumps({"status": "finished", "stages": stages}))
    write_table(folder, "training", _training(rng))
    _fidelity(folder, rng)
    (folder / "tables" / "similarity.parquet").unlink()
    return folder


@pytest.fixture
def make_full() -> Callable[..., Path]:
    """``make_full(folder, seed, size)``: see `full_run`."""
    return full_run


@pytest.fixture
def make_old() -> Callable[..., Path]:
    """``make_old(folder, seed)``: see `old_run`."""
    return old_run


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every table; tests do not change it."""
    return full_run(tmp_path_factory.mktemp("report") / "full")


@pytest.fixture(scope="session")
def nasty() -> str:
    """A behaviour's name that tries to end the script."""
    return NASTY
