"""Training curves: ``python -m analysis.training runs/<folder> [runs/<other> …]``, and where each run ended."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from bridges.errors import BridgesError

from .command import Result, run_command, table_text, unfinished_text
from .load import Runs
from .style import GREY, PALETTE, log_scale, new_figure

# column of the training table -> (title, log scale)
PANELS: dict[str, tuple[str, bool]] = {
    "total": ("loss, total", False),
    "ce": ("cross-entropy, sparse model (nats)", False),
    "kl": ("KL(dense ‖ sparse) (nats)", True),
    "kl_d2s": ("KL dense → sparse, sum over crossings", True),
    "kl_s2d": ("KL sparse → dense, sum over crossings", True),
    "nmse_encoder": ("NMSE of the encoders, sum over sites", True),
    "nmse_decoder": ("NMSE of the decoders, sum over sites", True),
    "l0_actual": ("nonzero weights (grey: target)", True),
    "lr": ("learning rate", False),
    "grad_rms": ("gradient RMS before clipping", True),
    "dead_neurons": ("dead MLP neurons", False),
}
MAX_RUNS = len(PALETTE)
SMOOTHED_FROM = 80  # rows; below it, every point can be seen as it is


def training_figure(runs: Runs) -> Figure:
    """One panel per logged quantity over training tokens, one colour per run.

    Long curves are drawn faint with their running mean on top.

    Raises:
        BridgesError: no run has logged training, or there are too many to tell apart.
    """
    frame = runs.table("training")
    names = list(frame["run"].drop_duplicates())
    if len(names) > MAX_RUNS:
        raise BridgesError(
            f"{len(names)} runs are too many for one figure; give the folders of at most {MAX_RUNS}, such as "
            f"{runs.records[-1].folder}."
        )
    shown = [column for column in PANELS if column in frame.columns and frame[column].notna().any()]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = new_figure(3.9, 2.5, rows, columns)
    for axis, column in zip(axes, shown, strict=False):
        _panel(axis, frame, column, names)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("training tokens", fontsize=9)
    if len(names) > 1:
        handles = [Line2D([], [], color=PALETTE[i], linewidth=2, label=name) for i, name in enumerate(names)]
        columns = 1 if len(names) < 4 else 2
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)
    else:
        figure.suptitle(names[0], x=0.01, ha="left", fontsize=10)
    return figure


def _panel(axis: Axes, frame: pd.DataFrame, column: str, names: list[str]) -> None:
    title, logarithmic = PANELS[column]
    for i, name in enumerate(names):
        rows = frame[frame["run"] == name].sort_values("step")
        if column == "l0_actual" and "l0_target" in rows:
            axis.plot(rows["tokens"], rows["l0_target"], color=GREY, linestyle="--", linewidth=1.0, zorder=1)
        values = rows[column]
        smooth = column not in ("l0_actual", "lr", "dead_neurons") and len(rows) >= SMOOTHED_FROM
        width, alpha = (0.7, 0.3) if smooth else (1.4, 1.0)
        axis.plot(rows["tokens"], values, color=PALETTE[i], linewidth=width, alpha=alpha)
        if smooth:
            window = max(5, len(rows) // 30)
            mean = values.rolling(window, center=True, min_periods=1).mean()
            axis.plot(rows["tokens"], mean, color=PALETTE[i], linewidth=1.6)
    if logarithmic and bool((frame[column].dropna() > 0).all()):
        log_scale(axis, "y", percent=column == "l0_actual")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_title(title, loc="left", fontsize=9)


def training_table(runs: Runs) -> pd.DataFrame:
    """The last logged step of each run.

    Columns: run, step, tokens, and every quantity of `PANELS` that a run has logged.

    Raises:
        BridgesError: no run has logged training.
    """
    frame = runs.table("training")
    last = frame.sort_values("step", kind="stable").groupby("run", sort=False).tail(1)
    shown = [column for column in PANELS if column in frame.columns and frame[column].notna().any()]
    return last[["run", "step", "tokens", *shown]].reset_index(drop=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def make(runs: Runs, _: object) -> Result:
        frame = training_table(runs)
        units = "The last step of each run; losses and KL in nats, l0_actual is the share of weights that are nonzero:"
        formats = {"lr": ".2g", "grad_rms": ".2g", "l0_actual": ".2%", "dead_neurons": ".0f"}
        # The rows behind the curves are the runs' own tables; what is written beside the figure is what is printed.
        text = "\n\n".join(filter(None, [units, table_text(frame, formats), unfinished_text(runs)]))
        return Result(text, frame, training_figure(runs))

    return run_command("training", __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
