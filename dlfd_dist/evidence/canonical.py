"""One way to write a JSON value as bytes, so that its digest is well defined; strict reading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..access import read_regular
from ..errors import DataError


def canonical(value: Any) -> bytes:
    """Return a JSON value as UTF-8: sorted keys, no white space, no NaN, floats as in Python."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def same(first: Any, other: Any) -> bool:
    """Whether two JSON values are written alike; 1, 1.0 and true are three values."""
    return canonical(first) == canonical(other)


def sha256(value: Any) -> str:
    """Return 64 hex digits of the SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def to_text(value: Any) -> str:
    """Return the form in which certificates are kept: as canonical, but indented for people."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def read_json(path: Path, what: str) -> tuple[Any, bytes]:
    """Return the value of a JSON file and its bytes.

    Refused with one sentence, beside what is no JSON: a key that stands twice in an object, for
    readers would not agree on its value, and numbers that JSON does not have.

    Parameters
    ----------
    what : the noun for messages, such as `certificate`
    """
    try:
        content = read_regular(path)
        value = json.loads(
            content.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant
        )
        canonical(value)
    except OSError as err:
        raise DataError(f"{path} cannot be read ({err.strerror}): give the {what}.") from err
    except (ValueError, RecursionError) as err:
        raise DataError(f"{path} is not a {what}: {_reason(err)}.") from err
    return value, content


def _reason(err: Exception) -> str:
    if isinstance(err, RecursionError):
        return "it is nested too deeply"
    return (str(err).strip().splitlines() or ["it is not JSON"])[0].rstrip(".")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"the key '{key}' stands twice in one object")
        unique[key] = value
    return unique


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
