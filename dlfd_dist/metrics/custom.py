"""Figures of other packages: functions of what a model says of every part of the data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Any

from ..errors import MetricError
from ..registry import Registry
from .outputs import ModelOutputs

Metric = Callable[[ModelOutputs], Mapping[str, float]]
"""Returns figures by name; it draws nothing at random, so that every evaluation gives the same."""

custom_metrics: Registry[Metric] = Registry("metrics.custom")
"""Name -> metric, filled by plugins alone."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def custom_figures(
    names: Sequence[str], outputs: ModelOutputs, *, taken: Collection[str] = ()
) -> dict[str, float]:
    """Return the figures of metrics, by the name that each figure has.

    Parameters
    ----------
    names : of the metrics (metrics.custom)
    taken : names of figures that are dlfd's own

    Raises
    ------
    MetricError where a metric fails, or returns what is no figure or has the name of another.
    """
    figures: dict[str, float] = {}
    for metric in names:
        for name, value in _returned(metric, outputs).items():
            _check_name(metric, name)
            if name in figures or name in taken:
                owner = "another metric" if name in figures else "dlfd itself"
                raise MetricError(
                    f"metrics.custom=[{metric}] returned a figure {name}, which {owner} has too: "
                    "give it another name."
                )
            figures[name] = _number(metric, name, value)
    return figures


def _returned(metric: str, outputs: ModelOutputs) -> Mapping[Any, Any]:
    try:
        returned = custom_metrics.get(metric)(outputs)
    # A stranger's function may raise anything.
    except Exception as err:
        lines = str(err).strip().splitlines() or [""]
        raise MetricError(
            f"metrics.custom=[{metric}] failed ({type(err).__name__}: {lines[0].rstrip('.')}): "
            "correct the metric, or leave it out."
        ) from err
    if not isinstance(returned, Mapping) or not returned:
        shown = "an empty dictionary" if returned == {} else f"a {type(returned).__name__}"
        raise MetricError(
            f"metrics.custom=[{metric}] returned {shown}: it must return a dictionary of figures "
            "by name."
        )
    return returned


def _check_name(metric: str, name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise MetricError(
            f"metrics.custom=[{metric}] returned a figure named {name!r:.60}: a name has small "
            "letters, digits and underscores, and begins with a letter."
        )


def _number(metric: str, name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise MetricError(
            f"metrics.custom=[{metric}] returned {name}={value!r:.60}, a {type(value).__name__}: "
            "a figure is a plain number, as float(value) makes it."
        )
    if not math.isfinite(value):
        raise MetricError(
            f"metrics.custom=[{metric}] returned {name}={float(value)}: a figure is a finite "
            "number; leave it out where it has no value."
        )
    return float(value)
