"""What `--dry-run` shows of a verb: the plan, and the files that would be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def dry_run_text(
    values: Mapping[str, Any], lines: Iterable[str], files: Sequence[str], *, as_json: bool
) -> str:
    """Return a dry run as JSON of the values or as lines, with the files in both."""
    if as_json:
        return json.dumps({"dry_run": True, **values, "files": files}, indent=2, sort_keys=True)
    return "\n".join([*lines, "# files that would be written", *indented(files)])


def indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]
