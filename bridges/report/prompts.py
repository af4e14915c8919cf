"""A behaviour's example: two prompts that differ in one thing, the differing tokens marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from bridges.report.markup import Raw, html, join
from bridges.report.text import escape, known

# Shared text between two differences is shown with so many characters at either end.
ENDS = 20
_PIECE = re.compile(r"[^\S\n]*\w+|\n|[^\S\n]+|[^\S\n]*[^\w\s]")


@dataclass(frozen=True)
class Segment:
    """A stretch of the two prompts: the same text in both, or where they differ."""

    clean: str
    counterfactual: str

    @property
    def shared(self) -> bool:
        """Whether both prompts have the same text here."""
        return self.clean == self.counterfactual


def segments(clean: str, counterfactual: str) -> list[Segment]:
    """Both prompts cut where they differ, in pieces of a word or a sign with the space before it.

    The tables hold text and no token ids, so that a piece may be more than one token.
    """
    first, second = _PIECE.findall(clean), _PIECE.findall(counterfactual)
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    return [
        Segment("".join(first[a:b]), "".join(second[c:d])) for _, a, b, c, d in matcher.get_opcodes() if a < b or c < d
    ]


def has_example(row: dict[str, Any] | None) -> bool:
    """Whether a row of table ``suite`` holds a prompt pair."""
    return row is not None and known(row.get("clean")) and known(row.get("counterfactual"))


def compact_pair(row: dict[str, Any]) -> Raw:
    """The pair in one line: shared text once, differing text and answers above each other."""
    cut = segments(row["clean"], row["counterfactual"])
    parts = []
    for i, segment in enumerate(cut):
        if segment.shared:
            # Indentation is told by a sign for the line break before it.
            text = _shortened(re.sub(r" {2,}", " ", segment.clean), first=i == 0)
            parts.append(f"<span>{_line(text)}</span>")
        else:
            parts.append(_fork(segment.clean, segment.counterfactual))
    answers = _fork(_text(row, "answer"), _text(row, "other"), "fork answers")
    spoken = (
        f"{row['clean']} is followed by {_text(row, 'answer')}; "
        f"{row['counterfactual']} is followed by {_text(row, 'other')}"
    )
    shown = "".join(parts) + '<span class="then">→</span>' + answers
    return Raw(
        f'<span class="compact" aria-hidden="true">{shown}</span>'
        f'<span class="spoken">Prompt pair: {html(spoken)}</span>'
    )


def full_pair(row: dict[str, Any]) -> Raw:
    """Both prompts in full, one block each, with what differs marked and the right next token after it."""
    cut = segments(row["clean"], row["counterfactual"])
    blocks = []
    for side, answer, title in (
        ("clean", "answer", "Clean prompt"),
        ("counterfactual", "other", "Counterfactual prompt"),
    ):
        code = "".join(
            _lines(getattr(s, side)) if s.shared else f"<mark>{_lines(getattr(s, side))}</mark>" for s in cut
        )
        right = f'<span class="answer" title="the token that is right here">{_line(_text(row, answer))}</span>'
        blocks.append(
            f'<figure class="prompt"><figcaption>{title}</figcaption><pre tabindex="0" aria-label="{title}">'
            f"<code>{code}{right}</code></pre></figure>"
        )
    return Raw(f'<div class="pair">{join(blocks)}</div>')


def _text(row: dict[str, Any], column: str) -> str:
    return str(row[column]) if known(row.get(column)) else ""


def _fork(clean: str, counterfactual: str, look: str = "fork") -> str:
    branches = "".join(
        f"<span>{_line(text)}</span>" if text else '<span class="nothing"></span>' for text in (clean, counterfactual)
    )
    return f'<span class="{look}">{branches}</span>'


def _shortened(text: str, first: bool) -> str:
    """Only what is near a difference or the answer."""
    start = "" if first else text[:ENDS]
    return text if len(text) <= len(start) + ENDS + 3 else f"{start}…{text[-ENDS:]}"


def _line(text: str) -> str:
    """Escaped text in one line; line breaks are signs."""
    return escape(text).replace("⏎", '<span class="break">⏎</span>')


def _lines(text: str) -> str:
    """Escaped text in which line breaks are both shown and made."""
    return '<span class="break" aria-hidden="true">⏎</span>\n'.join(escape(line) for line in text.split("\n"))
