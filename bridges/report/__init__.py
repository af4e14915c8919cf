"""One self-contained HTML page per run, from its tables alone: ``python -m bridges report runs/<folder>``."""

from bridges.report.page import write_report
from bridges.report.picture import write_picture

__all__ = ["write_picture", "write_report"]
