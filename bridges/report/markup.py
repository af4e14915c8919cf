"""Pieces of the page. Whatever is no `Raw` is escaped where it is put in: no text of a run can become markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridges.report.text import count, escape

LIMIT = 200  # rows of a table that the page shows; all of them are in the run's folder


class Raw(str):
    """Finished HTML."""

    __slots__ = ()


class Num(str):
    """Text of a number; it goes to the right of its cell."""

    __slots__ = ()


def html(value: object) -> str:
    """The value as HTML: itself where it is `Raw`, escaped otherwise."""
    return str(value) if isinstance(value, Raw) else escape(value)


def join(parts: Iterable[str]) -> Raw:
    """Finished pieces, one a line."""
    return Raw("\n".join(part for part in parts if part))


def tag(name: str, content: object = "", **attributes: str) -> Raw:
    """One element; ``class_`` is class, underscores in attributes become hyphens."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Raw(f"<{name}{given}>{html(content)}</{name}>")


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[object]], limit: int = LIMIT) -> Raw:
    """A table that scrolls sideways where it is too wide; the first column holds the rows' headings."""
    left = len(rows) - limit
    if left > 0:
        caption = f"{caption} (the first {count(limit)} of {count(len(rows))} rows)"
    numeric = [any(isinstance(row[i], Num) for row in rows) for i in range(len(headings))]

    def cell(kind: str, value: object, number: bool, scope: str = "") -> str:
        look = ' class="n"' if number else ""
        return f"<{kind}{scope}{look}>{html(value)}</{kind}>"

    head = "".join(cell("th", h, numeric[i], ' scope="col"') for i, h in enumerate(headings))
    body = "\n".join(
        "<tr>"
        + "".join(
            cell("td" if i else "th", value, numeric[i] and isinstance(value, Num), "" if i else ' scope="row"')
            for i, value in enumerate(row)
        )
        + "</tr>"
        for row in rows[:limit]
    )
    return Raw(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption><span>{html(caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def details(summary: object, content: str, class_: str = "data") -> Raw:
    """Content that is folded away."""
    return Raw(f'<details class="{class_}"><summary>{html(summary)}</summary>\n{content}\n</details>')


def note(text: str) -> Raw:
    """A quiet remark, such as why a section is empty."""
    return tag("p", text, class_="note")


def facts(pairs: Iterable[tuple[str, object]]) -> Raw:
    """A list of names and values."""
    items = "".join(f"<div><dt>{html(name)}</dt><dd>{html(value)}</dd></div>" for name, value in pairs)
    return Raw(f'<dl class="facts">{items}</dl>')


def section(name: str, title: str, parts: Iterable[str]) -> Raw:
    """A landmark of the page with its heading."""
    return Raw(
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{html(title)}</h2>\n'
        f"{join(parts)}\n</section>"
    )


# state of a criterion -> its sign and class, so that colour is never alone
STATES = {"held": ("✓", "held"), "missed": ("✗", "missed"), "open": ("~", "open"), "not measured": ("·", "off")}


def state(value: str) -> Raw:
    """A state with its sign."""
    sign, look = STATES[value]
    return Raw(f'<span class="state {look}"><span aria-hidden="true">{sign}</span> {html(value)}</span>')
