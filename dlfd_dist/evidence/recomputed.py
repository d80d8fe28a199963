"""Certified figures against the same figures measured again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .canonical import same

RELATIVE = 1e-6
ABSOLUTE = 1e-9
"""For figures near zero, where a relative tolerance means nothing."""


NOT_MEASURED_AGAIN = {
    "relearn", "relearn_steps", "relearn_steps_retrained", "anamnesis_index", "against_original",
    "resurfacing", "resurfaced_accuracy", "resurfaced_attack", "passes", "start",
}  # fmt: skip
"""Figures of a training: rounding grows with its steps, and another machine may count one more.
And what a method moved: the checkpoint before it is what was to be deleted."""


def compare_figures(certified: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether figures agree, and a sentence on how; NOT_MEASURED_AGAIN are left out.

    The same machine with the same number of threads gives them bit for bit; elsewhere sums round
    differently, and RELATIVE is allowed.
    """
    certified, again = (
        {name: value for name, value in figures.items() if name not in NOT_MEASURED_AGAIN}
        for figures in (certified, again)
    )
    if same(certified, again):
        return True, "all figures are equal bit for bit"
    apart = list(_apart(certified, again, ""))
    if not apart:
        return True, f"all figures are equal within {RELATIVE:g} relative, not bit for bit"
    more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
    return False, f"these figures differ: {'; '.join(apart[:3])}{more}"


def _apart(certified: Any, again: Any, where: str) -> Iterator[str]:
    if isinstance(certified, dict) and isinstance(again, dict):
        for name in sorted(certified.keys() | again.keys()):
            inside = f"{where}.{name}" if where else name
            if name not in again:
                yield f"{inside} is certified, and was not measured again"
            elif name not in certified:
                yield f"{inside} is measured, and not certified"
            else:
                yield from _apart(certified[name], again[name], inside)
    elif isinstance(certified, list) and isinstance(again, list) and len(certified) == len(again):
        for i, (first, other) in enumerate(zip(certified, again, strict=True)):
            yield from _apart(first, other, f"{where}[{i}]")
    elif not _near(certified, again):
        yield f"{where} is {again}, certified {certified}"


def _near(first: Any, other: Any) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (first, other))
    if numbers:
        return math.isclose(first, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return same(first, other)
