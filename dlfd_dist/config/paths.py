"""Settings that are paths: taken literally, with ~ and environment variables expanded.

Hydra's grammar has other uses for many signs that stand in paths (~, spaces, =, parentheses), so a
path is quoted for it before it is parsed.
"""

from __future__ import annotations

import os
import re

from ..errors import ConfigError

PATH_SETTINGS = frozenset({
    "checkpoint", "reference", "data.root", "data.manifest", "data.cache_dir", "forget.request",
    "model.folder", "run.dir", "run.root", "tuned", "search.space", "method.reference_manifest",
})  # fmt: skip

_PART = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)""")
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def with_literal_path(override: str) -> str:
    """Return a `key=value` override whose value, where it is a path, is quoted for Hydra.

    Commas outside of quotes part the values of a grid, as in every setting. ConfigError for an
    environment variable that is not set.

    >>> with_literal_path("run.dir=/data/a (copy)"), with_literal_path("seed=1")
    ("run.dir='/data/a (copy)'", 'seed=1')
    """
    key, _, value = override.partition("=")
    if key.lstrip("+") not in PATH_SETTINGS:
        return override
    return f"{key}={','.join(_quoted(part, key) for part in _parts(value))}"


def _parts(value: str) -> list[str]:
    """Return the values between commas, where a quoted one may hold commas.

    >>> _parts("a,'b,c'")
    ['a', "'b,c'"]
    """
    parts, start = [], 0
    while match := _PART.match(value, start):
        parts.append(match[1].strip())
        if match.end() == len(value) and not match[0].endswith(","):
            return parts
        start = match.end()
    # A quote inside of a name, or one that is never closed: Hydra says what is wrong.
    return [value]


def _quoted(part: str, key: str) -> str:
    """Return a value as Hydra's quoted string; what is quoted already keeps its dollars."""
    if part in ("", "null", "None"):
        return part
    if part[0] in "'\"":
        quote, part = part[0], part[1:-1]
        part = part.replace(f"\\{quote}", quote).replace("\\\\", "\\")
        path = os.path.expanduser(part) if part.startswith("~/") else part
    else:
        path = os.path.expandvars(os.path.expanduser(part))
        if unset := _VARIABLE.search(path):
            raise ConfigError(
                f"{key.lstrip('+')}={part} names the environment variable "
                f"{unset[1].strip('{}')}, which is not set: set it, or write the path whole."
            )
    return as_hydra_string(path)


def as_hydra_string(text: str) -> str:
    """Return text in single quotes; backslashes count only before a quote, in Hydra's grammar."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (m[2] and "\\'"), text)
    return f"'{escaped}'"
