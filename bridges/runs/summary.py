"""The few figures of a run that a person reads first, from its tables alone."""

from __future__ import annotations

import shlex
import shutil
import textwrap

import numpy as np
import pandas as pd

from bridges.report.scope import scope_text
from bridges.runs.cautions import cautions, command_of
from bridges.storage.folder import RunFolder
from bridges.storage.tables import read_table, table_names
from bridges.storage.tables.verdicts import VERDICTS

# Two-way accuracy on held-out pairs from which a model counts as able to do a behaviour.
ABLE = 0.9


def headline(folder: RunFolder) -> dict[str, float]:
    """Stable names for sweeps and W&B: losses, mean single-crossing KLs and their baselines, nonzeros."""
    paths, sparsity = read_table(folder.path, "paths"), read_table(folder.path, "sparsity")
    trained = paths[paths["bridges"] == "trained"]
    pure = {str(r["kind"]): r for r in trained.to_dict("records") if r["crossings"] == 0}
    out = {
        "dense/ce": float(pure["pure_dense"]["ce"]),
        "sparse/ce": float(pure["pure_sparse"]["ce"]),
        "sparse/kl": float(pure["pure_sparse"]["kl"]),
        "sparse/nonzero_fraction": float(sparsity["nonzeros"].sum() / sparsity["numel"].sum()),
        "sparse/over_budget": int((sparsity["nonzeros"] > sparsity["budget"]).sum()),
    }
    for label in ("trained", "ridge", "untrained"):
        for direction in ("d2s", "s2d"):
            rows = paths[(paths["bridges"] == label) & (paths["kind"] == f"single_{direction}")]
            out[f"hybrid/kl_{direction}" + ("" if label == "trained" else f"_{label}")] = float(rows["kl"].mean())
    if "behaviours" in table_names(folder.path):
        done = read_table(folder.path, "behaviours").query("split == 'heldout' and bridge.isna()", engine="python")
        out["behaviours/measured"] = int(done["behaviour"].nunique())
        for model in ("dense", "sparse"):
            able = done.loc[done["model"] == model, "accuracy"] >= ABLE
            out[f"behaviours/{model}"] = int(able.sum())
    out |= _circuits(folder)
    bigram = paths[paths["kind"] == "bigram"]
    if len(bigram):
        out["bigram/ce"], out["bigram/kl"] = float(bigram["ce"].iloc[0]), float(bigram["kl"].iloc[0])
    return out


def _circuits(folder: RunFolder) -> dict[str, float]:
    """Sizes of the learned circuits and counts of the verdicts, as far as the run has them."""
    written = table_names(folder.path)
    out: dict[str, float] = {}
    if "circuits" in written:
        circuits = read_table(folder.path, "circuits").query("method == 'learned' and reached")
        for model, end in (("sparse", ""), ("dense", "_dense")):
            edges = circuits.loc[circuits["model"] == model, "edges"]
            out[f"circuits/found{end}"] = len(edges)
            # A behaviour that the bigram table does needs no edge: such circuits are counted apart and enter no mean.
            out[f"circuits/without_edges{end}"] = int((edges == 0).sum())
            out[f"circuits/geo_mean_edges{end}"] = float(np.exp(np.log(edges[edges > 0]).mean()))
        both = circuits[circuits["edges"] > 0].pivot_table(index="behaviour", columns="model", values="edges").dropna()
        if len(both.columns) == 2:
            out["circuits/edge_ratio"] = float(np.exp(np.log(both["dense"] / both["sparse"]).mean()))
    if "verdicts" in written:
        counts = read_table(folder.path, "verdicts")["verdict"].value_counts()
        out |= {f"verdict/{name.replace(' ', '_')}": int(counts.get(name, 0)) for name in VERDICTS}
    return out


def verdict_text(folder: RunFolder) -> str:
    """The verdicts in the terminal: one line a behaviour and why, then what to do next; empty where there are none.

    A reason that is longer than the terminal goes on below; none is cut off.
    """
    if "verdicts" not in table_names(folder.path):
        return ""
    verdicts = read_table(folder.path, "verdicts")
    rank = {name: i for i, name in enumerate(VERDICTS)}
    rows = verdicts.iloc[verdicts["verdict"].map(rank).argsort(kind="stable")].to_dict("records")
    heads = ("behaviour", "verdict", "nodes", "edges", "moved s→d", "moved d→s", "why")
    cells = [
        (
            row["behaviour"],
            row["verdict"] + (", robust" if pd.notna(row["robust"]) and row["robust"] else ""),
            *("–" if pd.isna(row[key]) else f"{int(row[key]):,}" for key in ("nodes", "edges")),
            _of_ceiling(row["share_moved"], row["ceiling"]),
            _of_ceiling(row["share_back"], row["ceiling_back"]),
            row["reason"],
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (heads, *cells)) for i in range(len(heads) - 1)]
    left = sum(widths) + 2 * len(widths)
    room = shutil.get_terminal_size((160, 40)).columns - left
    # In a narrow terminal the reasons stand below their lines.
    beside = room >= 24
    lines = ["Which behaviours of the dense model does a sparse circuit reproduce?", ""]
    for *values, reason in (heads, *cells):
        # Counts end in one column, all else begins in one.
        sides = ("<", "<", ">", ">", "<", "<")
        parts = [f"{value:{side}{width}}" for value, side, width in zip(values, sides, widths, strict=True)]
        why = textwrap.wrap(reason, max(24, room if beside else room + left - 4), break_long_words=False) or [""]
        if beside:
            lines.append(f"{'  '.join(parts)}  {why[0]}".rstrip())
            lines += [" " * left + part for part in why[1:]]
        elif values[0] != heads[0]:
            lines += ["  ".join(parts).rstrip(), *("    " + part for part in why)]
        else:
            lines.append("  ".join(parts).rstrip())
    counts = verdicts["verdict"].value_counts()
    tally = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
    return "\n".join([*lines, "", f"verdicts: {tally}", "", *_next_steps(folder, rows[0]["behaviour"])])


def _of_ceiling(moved: float, ceiling: float) -> str:
    return "–" if pd.isna(moved) else f"{moved:.2f} of {'–' if pd.isna(ceiling) else f'{ceiling:.2f}'}"


def _next_steps(folder: RunFolder, behaviour: str) -> list[str]:
    """Where to read more, in the browser and in Python, and the command that says whether other seeds agree."""
    kept = [
        part
        for part in command_of(folder)[1:]
        if "=" in part and not part.startswith(("-", "seed=", "name=", "resume=", "tracking"))
    ]
    seed = folder.config.seed
    again = shlex.join(["bridges", "run", "-m", f"seed={seed + 1},{seed + 2}", *kept])
    return [
        f"report:     {folder.path / 'report.html'}",
        f"in Python:  bridges.load({str(folder.path)!r}).verdict({behaviour!r})",
        f"more seeds: {again}",
    ]


def summary_text(folder: RunFolder) -> str:
    """The tables a run ends with in the terminal."""
    figures, sites = headline(folder), read_table(folder.path, "sites")
    sparsity = read_table(folder.path, "sparsity")
    rows = []
    for i in sorted(sites["bridge"].unique()):
        mine = sites[sites["bridge"] == i].set_index("bridges")
        t = mine.loc["trained"]
        row = {
            "bridge": i,
            "dense site": int(t["dense_site"]),
            "sparse site": int(t["sparse_site"]),
            "FVU enc": t["fvu_encoder"],
            "FVU dec": t["fvu_decoder"],
        }
        for direction, arrow in (("d2s", "KL d→s"), ("s2d", "KL s→d")):
            low, high = t[f"kl_{direction}_low"], t[f"kl_{direction}_high"]
            row[arrow] = f"{t[f'kl_{direction}']:.3f} [{low:.3f}, {high:.3f}]"
            for label in ("ridge", "untrained"):
                if label in mine.index:
                    row[f"{arrow} {label}"] = f"{mine.loc[label, f'kl_{direction}']:.3f}"
        rows.append(row)
    table = pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.3f}")
    n = int(sites["n_sequences"].iloc[0])
    bigram = (
        f"; bigram only: CE {figures['bigram/ce']:.3f}, KL {figures['bigram/kl']:.3f}" if "bigram/ce" in figures else ""
    )
    kept, numel = sparsity["nonzeros"].sum(), sparsity["numel"].sum()
    over = figures["sparse/over_budget"]
    budget = "every matrix within its budget" if not over else f"{over} MATRICES OVER THEIR BUDGET"
    able = []
    if "behaviours/measured" in figures:
        able = [
            f"behaviours at {ABLE:.0%} two-way accuracy or better: dense model {figures['behaviours/dense']}, "
            f"sparse model {figures['behaviours/sparse']} of {figures['behaviours/measured']}"
        ]
    return "\n".join(
        [
            f"Single crossings on {n} held-out sequences (KL to the dense model in nats, 95 % intervals):",
            table,
            "",
            f"mean single-crossing KL: d→s {figures['hybrid/kl_d2s']:.3f} (untrained bridges "
            f"{figures['hybrid/kl_d2s_untrained']:.3f}), s→d {figures['hybrid/kl_s2d']:.3f} (untrained "
            f"{figures['hybrid/kl_s2d_untrained']:.3f})",
            f"sparse model: CE {figures['sparse/ce']:.3f}, KL {figures['sparse/kl']:.3f}; dense model: CE "
            f"{figures['dense/ce']:.3f}{bigram}",
            f"nonzero weights: {kept:,} of {numel:,} ({kept / numel:.3%}), {budget}",
            *able,
            *_sizes(figures),
            *_scope(folder),
            *cautions(folder),
            *(["", text] if (text := verdict_text(folder)) else []),
        ]
    )


def _scope(folder: RunFolder) -> list[str]:
    """What a narrow run's models know and what they do not."""
    if "scope" not in table_names(folder.path):
        return []
    return ["", scope_text(read_table(folder.path, "scope").to_dict("records"))]  # type: ignore[arg-type]


def _sizes(figures: dict[str, float]) -> list[str]:
    if not figures.get("circuits/found"):
        return []
    line = (
        f"circuits: {figures['circuits/found']} found in the sparse model, geometric mean "
        f"{figures['circuits/geo_mean_edges']:.0f} edges"
    )
    if "circuits/edge_ratio" in figures:
        line += f"; where both models have one, the dense model's is {figures['circuits/edge_ratio']:.1f} times larger"
    return [line]
