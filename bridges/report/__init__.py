"""One self-contained HTML page per run, made from the tables of its folder alone: ``python -m bridges.report runs/<folder>``."""

from bridges.report.page import write_report

__all__ = ["write_report"]
