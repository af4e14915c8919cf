"""One picture of a run as SVG: the dense model, the bridges, the sparse model and one circuit's core, side by side.

Depth goes from top to bottom. The bands of the sparse model's sublayers run on to the right, so that every node of the
core stands at the height of the sublayer it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridges.errors import BridgesError, nearest
from bridges.report.charts import Figures
from bridges.report.circuits import graph
from bridges.report.core_graph import ANSWER, Core, core_graph
from bridges.report.depth import shares
from bridges.report.examples import Examples
from bridges.report.source import Source
from bridges.report.text import brief, counted, escape, known, percent
from bridges.report.verdicts import behaviour_order, label, model_name, verdict_rows

WIDTH, MARGIN = 1000, 20
# Left and right edges of the columns.
DENSE, SPARSE, CORE = (20, 128), (250, 358), (380, 980)
TOP, ROW, PAD, THIN = 84, 42, 8, 24  # of the first band; of a row of nodes; around rows; of a band without nodes
CARD, CARD_HEIGHT, GAP = 112, 32, 10
STYLE = """
  .paper { fill: #fff; stroke: #dedcd5; } .band { fill: #f7f6f3; } .box { fill: #fff; stroke: #3a3a37; }
  .ink { fill: #1c1c1a; } .quiet { fill: #5d5c57; } .bridge { stroke: #8a8982; } .selected { stroke: #0b5c8f; }
  .point { fill: #8a8982; } .selected-point { fill: #0b5c8f; } .accent { fill: #0b5c8f; } .end { fill: #edebe5; }
  .plus { stroke: #0072b2; } .minus { stroke: #c24e00; stroke-dasharray: 6 3; } .free { stroke: #8a8982; }
  .meter.plus { fill: #0072b2; stroke: none; } .meter.minus { fill: #c24e00; stroke: none; }
  .link { fill: none; opacity: .85; } text { font: 12px system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
  .title { font-weight: 650; font-size: 14px; } .small { font-size: 11px; } .name { font-weight: 600; font-size: 11px; }
  .code { font: 10.5px ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace; white-space: pre; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #161614; stroke: #3b3a36; } .band { fill: #1f1f1c; } .box { fill: #161614; stroke: #d4d2cb; }
    .ink { fill: #ecebe6; } .quiet { fill: #a9a79f; } .bridge { stroke: #7d7b74; } .selected { stroke: #79bdec; }
    .point { fill: #7d7b74; } .selected-point { fill: #79bdec; } .accent { fill: #79bdec; } .end { fill: #2a2926; }
    .plus { stroke: #56b4e9; } .minus { stroke: #f0894a; } .free { stroke: #7d7b74; }
    .meter.plus { fill: #56b4e9; } .meter.minus { fill: #f0894a; }
  }
"""


@dataclass
class _Drawing:
    """Pieces of the picture, what lies below first."""

    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, said: object, look: str = "ink", anchor: str = "middle") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{look}" text-anchor="{anchor}">{escape(said)}</text>')

    def box(self, x: float, y: float, width: float, height: float, look: str, round_: float = 4) -> None:
        size = f'width="{width:.1f}" height="{height:.1f}" rx="{round_:g}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{look}"/>')

    def line(self, d: str, look: str, width: float) -> None:
        self.parts.append(f'<path d="{d}" class="{look}" stroke-width="{width:.2f}"/>')


def run_picture(folder: str | Path, behaviour: str | None = None, nodes: int = 12) -> str:
    """The picture of a run as the text of an SVG file; the same tables give the same text.

    Args:
        folder: the run's. behaviour: whose circuit; None: the one that the report opens with. nodes: of its core.

    Raises:
        BridgesError: the run has no circuit, or none of this behaviour.
        CheckpointError: there is no run there, or one of its files is damaged.
    """
    source = Source(folder)
    circuits, examples = Figures(), Examples(source)
    found = {name: graph(name, source, circuits, examples) for name in behaviour_order(source)}
    having = [name for name, number in found.items() if number is not None]
    if not having:
        raise BridgesError(f"{folder} has no circuit to draw. {source.missing('nodes')}")
    name = having[0] if behaviour is None else behaviour
    if name not in having:
        raise BridgesError(f"{folder} has no circuit of {name!r}. {nearest(name, having)}")
    number = found[name]
    assert number is not None
    circuit = circuits.graphs[number]["circuits"][0]
    return _Picture(source, name, core_graph(circuit, nodes), examples).svg()


def write_picture(folder: str | Path, path: str | Path, behaviour: str | None = None, nodes: int = 12) -> Path:
    """Write `run_picture` to a file, whose name must end in ``.svg``."""
    path = Path(path)
    if path.suffix != ".svg":
        raise BridgesError(f"The picture is an SVG file: its name must end in .svg, not {path.name!r}.")
    text = run_picture(folder, behaviour, nodes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


class _Picture:
    """Lays the picture out and draws it."""

    def __init__(self, source: Source, name: str, core: Core, examples: Examples) -> None:
        self.source, self.name, self.core, self.examples = source, name, core, examples
        rows = source.rows("sites")
        self.bridges = sorted({(int(r["bridge"]), int(r["dense_site"]), int(r["sparse_site"])) for r in rows})
        layers = 1 + max((item.layer for item in core.items if item.kind), default=0)
        self.sparse = max([2 * layers, *(s for _, _, s in self.bridges)])
        self.dense = max([1, *(d for _, d, _ in self.bridges)]) if self.bridges else self.sparse
        # Bands from top to bottom: the rows of nodes in each sublayer, each row as the places of items.
        self.rows: list[list[list[int]]] = [[] for _ in range(self.sparse)]
        for depth in sorted({item.depth for item in core.items if item.kind}):
            row = [i for i, item in enumerate(core.items) if item.kind and item.depth == depth]
            most = int((CORE[1] - CORE[0]) // (CARD + GAP))
            band = self.rows[
                min(2 * core.items[row[0]].layer + core.items[row[0]].kind.startswith("mlp"), self.sparse - 1)
            ]
            band.extend(row[start : start + most] for start in range(0, len(row), most))
        self.edges = [TOP]
        for band in self.rows:
            self.edges.append(self.edges[-1] + max(THIN, len(band) * ROW + PAD))
        self.bottom = self.edges[-1]
        self.at: dict[int, tuple[float, float]] = {}

    def svg(self) -> str:
        """The whole file."""
        drawing = _Drawing()
        self._place()
        height = self.bottom + 92
        drawing.box(0.5, 0.5, WIDTH - 1, height - 1, "paper", 10)
        self._heads(drawing)
        self._models(drawing)
        self._bridges(drawing)
        self._core(drawing)
        self._foot(drawing)
        title = f"{model_name(self.source)}, bridges, sparse model, and the core of the circuit of {self.name}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n'
            f"<style>{STYLE}</style>\n" + "\n".join(drawing.parts) + "\n</svg>\n"
        )

    def _place(self) -> None:
        """The middle of every item: rows from top to bottom, each ordered by what it is joined to, three times."""
        middle = (CORE[0] + CORE[1]) / 2
        ends = [
            [i for i, t in enumerate(self.core.items) if not t.kind and (t.depth == ANSWER) == last] for last in (0, 1)
        ]
        rows = [(TOP - 14.0, ends[0])]
        for top, band in zip(self.edges, self.rows, strict=False):
            rows += [(top + PAD / 2 + (k + 0.5) * ROW, row) for k, row in enumerate(band)]
        rows.append((self.bottom + 16.0, ends[1]))
        x = {i: middle for _, row in rows for i in row}
        near: dict[int, list[int]] = {i: [] for i in x}
        for link in self.core.links:
            near[link.source].append(link.target)
            near[link.target].append(link.source)
        for sweep in range(8):
            for _, row in rows if sweep % 2 == 0 else rows[::-1]:
                wish = {i: sum(x[j] for j in near[i]) / len(near[i]) if near[i] else x[i] for i in row}
                order = sorted(row, key=lambda i: (wish[i], i))
                width = [self._width(i) + GAP for i in order]
                start = sum(wish.values()) / max(1, len(wish)) - sum(width) / 2
                start = max(CORE[0] + 4, min(start, CORE[1] - sum(width)))
                for i, room in zip(order, width, strict=True):
                    x[i] = start + room / 2
                    start += room
        self.at = {i: (x[i], y) for y, row in rows for i in row}

    def _width(self, i: int) -> float:
        item = self.core.items[i]
        return CARD if item.kind else 16 + 6.6 * len(_fit(item.text, 14))

    def _heads(self, drawing: _Drawing) -> None:
        weights = self.source.rows("sparsity")
        kept, numel = (sum(int(r[c]) for r in weights) for c in ("nonzeros", "numel"))
        share = f"{percent(kept / numel, 0)} of weights nonzero" if numel else "few weights nonzero"
        for x, title, below in (
            (sum(DENSE) / 2, "Dense model", model_name(self.source)),
            ((DENSE[1] + SPARSE[0]) / 2, "Bridges", "linear maps"),
            (sum(SPARSE) / 2, "Sparse model", share),
        ):
            drawing.text(x, 30, title, "ink title")
            drawing.text(x, 47, below, "quiet small")
        verdict = verdict_rows(self.source).get(self.name, {})
        total = counted(self.core.total, "node")
        said = f"the {len([t for t in self.core.items if t.kind])} nodes of largest attribution, of {total}"
        if known(verdict.get("edges")):
            said += f" and {counted(verdict['edges'], 'edge')}"
        found = f": {label(verdict['verdict'])}" if verdict else ""
        drawing.text(sum(CORE) / 2, 30, f"Circuit of {self.name}{found}", "ink title")
        drawing.text(sum(CORE) / 2, 47, said, "quiet small")

    def _models(self, drawing: _Drawing) -> None:
        for i, (top, end) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            drawing.box(SPARSE[0], top + 3, CORE[1] - SPARSE[0], end - top - 6, "band", 6)
            drawing.box(SPARSE[0], top + 3, SPARSE[1] - SPARSE[0], end - top - 6, "box", 6)
            drawing.text(
                sum(SPARSE) / 2, (top + end) / 2 + 4, f"{'mlp' if i % 2 else 'attention'} {i // 2}", "ink small"
            )
        same = self.dense == self.sparse
        for i in range(self.dense):
            start, stop = self._dense(i), self._dense(i + 1)
            drawing.box(DENSE[0], start + 3, DENSE[1] - DENSE[0], stop - start - 6, "box", 6)
            said = f"{'mlp' if i % 2 else 'attention'} {i // 2}" if same else f"sublayer {i}"
            if stop - start >= 18:
                drawing.text(sum(DENSE) / 2, (start + stop) / 2 + 4, said, "ink small")

    def _dense(self, site: int) -> float:
        """The height of a site of the dense model: that of the same site of the sparse model, if it is as deep."""
        if self.dense == self.sparse:
            return self.edges[site]
        return TOP + (self.bottom - TOP) * site / self.dense

    def _bridges(self, drawing: _Drawing) -> None:
        verdict = verdict_rows(self.source).get(self.name, {})
        best = int(verdict["bridge"]) if known(verdict.get("bridge")) else None
        for bridge, dense, sparse in self.bridges:
            y0, y1, bright = self._dense(dense), self.edges[sparse], bridge == best
            line, point = ("selected", "selected-point") if bright else ("bridge", "point")
            drawing.line(f"M{DENSE[1] + 8} {y0:.1f}L{SPARSE[0] - 8} {y1:.1f}", f"link {line}", 2.4 if bright else 1.2)
            for x, y, way in ((DENSE[1] + 2, y0, 1), (SPARSE[0] - 2, y1, -1)):
                tip = f"M{x} {y:.1f}l{7 * way} -3.5v7Z"
                drawing.parts.append(f'<path d="{tip}" class="{point}"/>')
        if best is not None:
            moved = shares(self.source.of("transfer", self.name), "interchange")
            found = {way: next((r for r in rows if r["bridge"] == best), None) for way, rows in moved.items()}
            circuit, ceiling = found.get("circuit"), found.get("dense")
            if circuit is not None and ceiling is not None:
                y = self.edges[next(s for b, _, s in self.bridges if b == best)]
                said = f"moves {brief(circuit['value'])} of {brief(ceiling['value'])}"
                drawing.text((DENSE[1] + SPARSE[0]) / 2, y - 6, said, "accent small")

    def _core(self, drawing: _Drawing) -> None:
        sides: dict[bool, int] = {False: 0, True: 0}
        most = max([abs(link.attribution) for link in self.core.links] + [1e-12])
        for link in sorted(self.core.links, key=lambda one: abs(one.attribution)):
            (x0, y0), (x1, y1) = self.at[link.source], self.at[link.target]
            y0 += CARD_HEIGHT / 2 if self.core.items[link.source].kind else 10
            y1 -= CARD_HEIGHT / 2 if self.core.items[link.target].kind else 10
            d = self._curve(x0, y0, x1, y1, sides)
            if link.direct:
                look = "link minus" if link.attribution < 0 else "link plus"
                drawing.line(d, look, 1 + 3.5 * (abs(link.attribution) / most) ** 0.5)
            else:
                drawing.parts.append(f'<path d="{d}" class="link free" stroke-width="1.3" stroke-dasharray="2 4"/>')
        top = max([abs(item.attribution) for item in self.core.items] + [1e-12])
        for i, item in enumerate(self.core.items):
            x, y = self.at[i]
            width = self._width(i)
            if not item.kind:
                drawing.box(x - width / 2, y - 10, width, 20, "end", 5)
                drawing.text(x, y + 4, _fit(item.text, 14), "ink code")
                continue
            round_ = CARD_HEIGHT / 2 if item.kind.startswith("mlp") else 3
            drawing.box(x - width / 2, y - CARD_HEIGHT / 2, width, CARD_HEIGHT, "box", round_)
            hint = self._hint(item.key)
            drawing.text(
                x,
                y - 3 if hint else y + 1,
                _fit(self.source.names.names.get(item.key, "") or item.text, 18),
                "ink name",
            )
            drawing.text(x, y + 7.5, hint, "quiet code")
            size = (width - 30) * abs(item.attribution) / top
            drawing.box(
                x - (width - 30) / 2, y + 11.5, size, 2, f"meter {'minus' if item.attribution < 0 else 'plus'}", 1
            )

    @staticmethod
    def _curve(x0: float, y0: float, x1: float, y1: float, sides: dict[bool, int]) -> str:
        """A link from top to bottom; one that passes rows goes around them, on the side with fewer such links."""
        if y1 - y0 < ROW + THIN:
            middle = (y0 + y1) / 2
            return f"M{x0:.1f} {y0:.1f}C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
        right = sides[True] < sides[False] if abs(x1 - x0) < CARD / 2 else x1 > x0
        out = CARD / 2 + 14 + 12 * sides[right]
        sides[right] += 1
        x = max(x0, x1) + out if right else min(x0, x1) - out
        x = min(max(x, CORE[0] + 6), CORE[1] - 6)
        bend = min(60.0, (y1 - y0) / 2)
        return (
            f"M{x0:.1f} {y0:.1f}C{x0:.1f} {y0 + bend / 2:.1f} {x:.1f} {y0 + bend / 3:.1f} {x:.1f} {y0 + bend:.1f}"
            f"L{x:.1f} {y1 - bend:.1f}C{x:.1f} {y1 - bend / 3:.1f} {x1:.1f} {y1 - bend / 2:.1f} {x1:.1f} {y1:.1f}"
        )

    def _hint(self, key: str) -> str:
        """Tokens that a node is most active on."""
        return _fit(" · ".join(self.examples.peaks(key)[:2]), 15)

    def _foot(self, drawing: _Drawing) -> None:
        y = self.bottom + 50
        x = CORE[0] + 6.0
        for look, dash, said in (
            ("plus", "", "supports the right answer"),
            ("minus", "", "works against it"),
            ("free", ' stroke-dasharray="2 4"', "through the stream, or nodes not shown"),
        ):
            drawing.parts.append(f'<path d="M{x} {y - 4}h24" class="link {look}" stroke-width="2"{dash}/>')
            drawing.text(x + 30, y, said, "quiet small", "start")
            x += 44 + 6.1 * len(said)
        suite: dict[str, Any] = next(iter(self.source.of("suite", self.name)), {})
        pairs = [(suite.get("clean"), suite.get("answer")), (suite.get("counterfactual"), suite.get("other"))]
        for k, (prompt, answer) in enumerate(pairs):
            if known(prompt) and known(answer):
                said = f"{_end(str(prompt), 100)} → {answer}"
                drawing.text(MARGIN, y + 19 + 15 * k, said, "quiet code", "start")


def _fit(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"
