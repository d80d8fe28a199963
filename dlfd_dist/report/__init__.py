"""Tables, figures and the HTML page of finished runs; reads run directories only.

`dlfd_dist.report.html.write_report` is imported from its module, because it loads matplotlib.
"""

from .records import (
    Comparison,
    RunRecord,
    load_comparison,
    load_run,
    load_with_references,
    read_comparison,
)
from .summary import summarise
from .tables import csv_table, latex_table, markdown_table, text_table

__all__ = [
    "Comparison",
    "RunRecord",
    "csv_table",
    "latex_table",
    "load_comparison",
    "load_run",
    "load_with_references",
    "markdown_table",
    "read_comparison",
    "summarise",
    "text_table",
]
