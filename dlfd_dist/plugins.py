"""What other packages add, by entry point or by plugins=[mypkg.mymethod]; GROUPS says what.

A plugin is a module that registers what it has when it is imported. One by entry point is imported
when its name is first asked for, so that a broken package is met by nobody who does not use it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from .errors import ConfigError, DlfdError

GROUPS = {
    "method": "dlfd_dist.methods",
    "model": "dlfd_dist.models",
    "data": "dlfd_dist.datasets",
    "metrics.custom": "dlfd_dist.metrics",
    "trackers": "dlfd_dist.trackers",
}
"""By setting, the group of the entry points whose names it may have."""


@functools.cache
def offered(setting: str) -> dict[str, EntryPoint]:
    """Return the entry points of installed packages by the name that a setting may have."""
    return {point.name: point for point in entry_points(group=GROUPS[setting])}


def load(setting: str, name: str) -> None:
    """Import the plugin that offers a name, if one does; ConfigError where that fails."""
    point = offered(setting).get(name)
    if point is not None:
        _import(point.module, f"{setting}={name} is of the package {_package(point)}, which")


def load_modules(modules: Iterable[str]) -> None:
    """Import the modules of the setting `plugins`."""
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ConfigError(f"plugins=[{module}] is no module: write mypkg.mymethod.")
        _import(module, f"plugins=[{module}]")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module


def _import(module: str, what: str) -> None:
    try:
        importlib.import_module(module)
    except DlfdError:
        raise
    # A stranger's module may raise anything.
    except Exception as err:
        lines = str(err).strip().splitlines() or [""]
        raise ConfigError(
            f"{what} cannot be imported ({type(err).__name__}: {lines[0].rstrip('.')}): install "
            "what it needs, or set PYTHONPATH to the absolute path of its folder."
        ) from err
