"""One self-contained HTML page per run, from its tables alone: ``python -m bridges report runs/<folder>``."""

from bridges.report.page import write_report

__all__ = ["write_report"]
