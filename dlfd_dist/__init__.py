"""dlfd-dist: distributed machine unlearning by Distribution-Level Feature Distancing.

`import dlfd_dist as dlfd` gives the functions of DOORS; see docs/library.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Run, evaluate, unlearn
    from .errors import DlfdError

__version__ = "0.2.0"

DOORS = {
    "DlfdError": "dlfd_dist.errors",
    "Run": "dlfd_dist.api",
    "evaluate": "dlfd_dist.api",
    "unlearn": "dlfd_dist.api",
    "audit": "launch.library",
    "certify": "launch.library",
    "compare": "launch.library",
    "search": "launch.library",
    "submit": "launch.library",
}
"""Where the public names are. Each is imported when it is first asked for: `dlfd --help` loads no
torch, and no module of the library needs `launch`, which the last of them lead into."""

__all__ = ["DlfdError", "Run", "__version__", "evaluate", "unlearn"]


def __getattr__(name: str) -> Any:
    if name not in DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *DOORS})
