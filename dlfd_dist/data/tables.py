"""Tables on disk, CSV or Parquet, as columns of the strings that a CSV holds."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

BATCH_ROWS = 500_000
"""Rows of a Parquet file that are read at a time."""


def read_columns(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the columns of a CSV or Parquet file that has the required ones, values stripped.

    Equal values are one string, and rows are never held as such: of a million rows the columns take
    about 200 bytes each.

    Parameters
    ----------
    optional : what else is read of a Parquet file; of a CSV every column is
    """
    if not path.is_file():
        raise DataError(f"There is no manifest at {path}: give data.root and data.manifest.")
    if path.suffix == ".parquet":
        names, values = _read_parquet(path, required, optional)
    else:
        names, values = _read_csv(path, required)
    columns = dict(zip(names, values, strict=True))
    if not columns[required[0]]:
        raise DataError(f"{path} has no rows.")
    empty = [(columns[name].index(""), k) for k, name in enumerate(required) if "" in columns[name]]
    if empty:
        index, k = min(empty)
        raise DataError(f"{path}, row {index + 2}: the column {required[k]} is empty.")
    return columns


def _read_csv(path: Path, required: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Without strict, a quote that is never closed swallows the rows after it.
            reader = csv.reader(file, strict=True)
            names = [name.strip() for name in next((row for row in reader if row), [])]
            _check_header(path, names, required)
            return names, _strip(reader, names, path)
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path} is not a CSV text file: {err}.") from err
    except OSError as err:
        raise DataError(f"{path} may not be read ({err.strerror}).") from err


def _check_header(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        hint = " Columns are separated by commas." if len(names) == 1 else ""
        raise DataError(
            f"{path} lacks the column {missing[0]}; it has {', '.join(names) or 'none'}.{hint}"
        )
    # An index without a name, as pandas writes one, is nobody's column.
    doubled = [name for name, count in Counter(names).items() if name and count > 1]
    if doubled:
        raise DataError(f"{path} has {doubled[0]} twice in its header: rename or remove a column.")


def _strip(rows: Any, names: Sequence[str], path: Path) -> list[list[str]]:
    """Return the columns of the rows that are not blank; rows of another length are refused.

    Parameters
    ----------
    rows : a csv.reader behind the header
    """
    columns: list[list[str]] = [[] for _ in names]
    # No two images have one path: to look for an equal one would cost what it is to save.
    keep: list[Callable[[str], str]] = [
        str if name == "image_path" else sys.intern for name in names
    ]
    number = 1
    for row in rows:
        if not row:
            continue
        number += 1
        if len(row) != len(names):
            raise DataError(
                f"{path}, row {number}: it has {len(row)} values and the header {len(names)} "
                f"columns ({','.join(row)[:80]}): put values that hold a comma in double quotes."
            )
        for column, value, kept in zip(columns, row, keep, strict=True):
            column.append(kept(value.strip()))
    return columns


def _read_parquet(
    path: Path, required: Sequence[str], optional: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return the columns that are asked for and there; a missing value is "", true is 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise DataError(
            f"{path} is a Parquet file, and pyarrow is not installed: run pip install "
            "'dlfd-dist[parquet]', or give data.manifest a CSV file."
        ) from err
    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_header(path, file.schema_arrow.names, required)
        names = [name for name in (*required, *optional) if name in file.schema_arrow.names]
        names = list(dict.fromkeys(names))
        return names, [_strings(file, name, path) for name in names]
    except pyarrow.ArrowException as err:
        raise DataError(f"{path} is not a Parquet file that can be read: {err}.") from err
    except OSError as err:
        raise DataError(f"{path} may not be read ({err.strerror or err}).") from err


def _strings(file: Any, name: str, path: Path) -> list[str]:
    """Return one column, read in parts, so that little is held twice at a time."""
    import pyarrow
    from pyarrow import compute, types

    kind = file.schema_arrow.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or _is_text(kind)
    ):
        raise DataError(
            f"{path}: the column {name} holds {kind}, which is neither text nor a number: write it "
            "as text."
        )
    values: list[str] = []
    distinct: dict[str, str] = {}
    for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
        column = batch.column(0)
        if types.is_boolean(kind):
            column = column.cast(pyarrow.int8())
        text = compute.call_function("utf8_trim_whitespace", [column.cast(pyarrow.string())])
        text = text.fill_null("")
        if name == "image_path":
            values += text.to_numpy(zero_copy_only=False).tolist()
            continue
        codes = text.dictionary_encode()
        words = [distinct.setdefault(word, word) for word in codes.dictionary.to_pylist()]
        values += np.array(words, dtype=object)[codes.indices.to_numpy()].tolist()
    pyarrow.default_memory_pool().release_unused()
    return values


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the rows of a table that has the required columns; optional as in read_columns."""
    columns = read_columns(path, required, optional)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
