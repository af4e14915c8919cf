"""Write the pages that are made from the code, ``settings.md`` and ``tables.md``: ``python docs/generate.py``.

MkDocs loads this file as a hook too, to find the pages beside ``mkdocs.yml``: a folder that MkDocs itself refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/generate.py from the code: change the text there and run it again. -->"


def on_config(config: Any) -> Any:
    """MkDocs' hook: the pages lie in the folder of ``mkdocs.yml``."""
    config.docs_dir = str(DOCS)
    return config


# --- settings -----------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """``settings.md``: a table for each section."""
    from bridges.config.describe import sections, settings

    about = {section.name: section.text for section in sections()}
    lines = ["# Settings", "", NOTE, ""]
    lines += [
        "Every setting of `bridges run`, written `key=value` on the command line. `null` means none. The defaults are "
        "those of `bridges.Config()` in Python; the command starts from the presets `data=tinypython` and "
        "`train=quick`, and `bridges run --cfg job` prints what it would use. "
        "[The command line](cli.md#presets) lists all presets.",
    ]
    section = None
    for setting in settings():
        above = setting.name.rpartition(".")[0]
        if above != section:
            section = above
            title = f"`{section}`" if section else "At the top"
            lines += ["", f"## {title}", "", *([about[section], ""] if about.get(section) else [])]
            lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        text = setting.text
        if not all(f"`{choice}`" in text for choice in setting.choices):
            text += f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}."
        lines.append(_row(f"`{setting.name}`", setting.type, f"`{_yaml(setting.default)}`", text))
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_yaml, value))}]"
    return str(value)


# --- tables -------------------------------------------------------------------------------------------------------


def tables_page() -> str:
    """``tables.md``: the columns of every table."""
    from bridges.storage.tables import SCHEMA_VERSION, TABLES

    lines = ["# Tables", "", NOTE, ""]
    lines += [
        "Everything that a run measures is a row of a table, `tables/<name>.parquet` in its folder. "
        "`bridges.load(folder).table(name)` reads one, `analysis.load(folder).table(name)` one over many runs. "
        f"Schema version {SCHEMA_VERSION}. Intervals are 95 % bootstrap intervals; a float may be missing (NaN), other "
        "types only where *optional* is said.",
    ]
    for name, table in TABLES.items():
        lines += ["", f"## `{name}`", "", f"A row is {table.row}.", "", "| column | type | meaning |", "|---|---|---|"]
        for column in table.columns:
            kind = f"{column.kind}, optional" if column.optional else column.kind
            text = column.meaning
            if column.choices:
                text += f" ({', '.join(f'`{choice}`' for choice in column.choices)})"
            lines.append(_row(f"`{column.name}`", kind, text))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


PAGES = {"settings.md": settings_page, "tables.md": tables_page}

if __name__ == "__main__":
    for file, make in PAGES.items():
        (DOCS / file).write_text(make())
        print(DOCS / file)
