"""A forget request: identities or image paths, every line accounted for."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ..config import ForgetConfig
from ..errors import DataError
from ..plain import band, csv_text
from .draw import draw_people
from .label_shares import label_shares
from .manifest import Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestLine:
    """One line of the request and what became of it."""

    line: int
    entry: str
    kind: str
    """identity or image"""
    status: str
    """matched, or outside_train (known, but the model was never trained on it)"""
    num_images: int
    """training images it stands for"""


@dataclass(frozen=True)
class ResolvedRequest:
    """The lines of a request and the training rows they stand for."""

    lines: list[RequestLine]
    rows: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted training rows, so that the order of lines does not matter."""
        return hashlib.sha256(np.sort(self.rows).astype("<i8").tobytes()).hexdigest()

    def to_csv(self) -> str:
        return csv_text(
            [[field.name for field in fields(RequestLine)], *(astuple(row) for row in self.lines)]
        )


def read_request(path: Path) -> list[tuple[int, str]]:
    """Return the (line number, entry) pairs of a text or CSV file.

    A CSV has a header with the column `identity` or `image_path`, and a row of a CSV with both is
    its identity, or its image path where the identity is empty. In a text file every line is an
    entry. Empty lines and lines that start with # do not count.
    """
    try:
        if not path.is_file():
            raise DataError(f"forget.request={path} is not a file.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"forget.request={path} is not a text file: {err}.") from err
    except OSError as err:
        raise DataError(f"forget.request={path} may not be read ({err.strerror}).") from err
    lines = text.splitlines()
    header = [c.strip() for c in next(csv.reader(lines[:1]), [])]
    columns = [c for c in ("identity", "image_path") if c in header]
    if columns:
        entries = _read_csv(path, lines, header, columns)
    else:
        entries = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    entries = [(n, entry) for n, entry in entries if entry and not entry.startswith("#")]
    if not entries:
        raise DataError(
            f"forget.request={path} names nobody: write one identity or image path a line."
        )
    return entries


def _read_csv(
    path: Path, lines: list[str], header: list[str], columns: list[str]
) -> list[tuple[int, str]]:
    """Return the first filled column of every row; a row that fills none would go unaccounted."""
    # Without strict, a quote that is never closed swallows the rows after it.
    reader = csv.reader(lines, strict=True)
    entries = []
    try:
        next(reader)
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise DataError(
                    f"forget.request={path}, line {reader.line_num}: it has {len(values)} values "
                    f"and the header {len(header)} columns ({','.join(values)[:80]}): put values "
                    "that hold a comma in double quotes."
                )
            row = dict(zip(header, values, strict=True))
            entry = next((v for c in columns if (v := row[c].strip())), "")
            if not entry and any(values):
                raise DataError(
                    f"forget.request={path}, line {reader.line_num}: the column "
                    f"{' and '.join(columns)} is empty; fill it or remove the line."
                )
            entries.append((reader.line_num, entry))
    except csv.Error as err:
        raise DataError(f"forget.request={path} is not a CSV text file: {err}.") from err
    return entries


def resolve_request(path: Path, manifest: Manifest, splits: np.ndarray) -> ResolvedRequest:
    """Match every line of a request file against the manifest; see resolve_entries."""
    return resolve_entries(read_request(path), f"forget.request={path}", manifest, splits)


def resolve_entries(
    entries: Sequence[tuple[int, str]], source: str, manifest: Manifest, splits: np.ndarray
) -> ResolvedRequest:
    """Match the (line number, entry) pairs of a request against the manifest.

    An unknown line is an error that lists all unknown ones; a line that is known outside the
    training split is a warning.

    Parameters
    ----------
    source : how messages name the request
    """
    asked = {entry for _, entry in entries}
    by_identity = manifest.people.rows_of(asked)
    by_path = _rows_of(asked, manifest.image_paths)
    is_train = splits == "train"
    lines, unknown, rows = [], [], [np.empty(0, np.int64)]
    for number, entry in entries:
        if entry in by_identity:
            kind, matching = "identity", by_identity[entry]
        elif entry in by_path:
            kind, matching = "image", by_path[entry]
        else:
            unknown.append((number, entry))
            continue
        in_train = matching[is_train[matching]]
        status = "matched" if len(in_train) else "outside_train"
        lines.append(RequestLine(number, entry, kind, status, len(in_train)))
        rows.append(in_train)
    if unknown:
        raise DataError(_unknown(unknown, source, manifest))
    outside = [str(r.line) for r in lines if r.status == "outside_train"]
    forgotten = np.unique(np.concatenate(rows))
    if not len(forgotten):
        raise DataError(
            f"{source} matches no training image: all {len(outside)} of its lines are "
            "in val or test, which the model was not trained on, so there is nothing to forget. "
            "Where the model was trained on them, write 'train' for them in a column 'split' of "
            "the manifest; for a first try, name other people."
        )
    if outside:
        logger.warning(
            "%s lines of the forget request are in val or test, not in training: line %s",
            band(len(outside)), ", ".join(outside[:10]),
        )  # fmt: skip
    return ResolvedRequest(lines, forgotten)


def _unknown(unknown: Sequence[tuple[int, str]], source: str, manifest: Manifest) -> str:
    listed = ", ".join(f"'{entry}' (line {number})" for number, entry in unknown[:10])
    more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    text = f"{source} names people or images that the data does not have: {listed}{more}. "
    classes = [entry for _, entry in unknown if entry in manifest.label_names]
    if classes:
        return (
            f"{text}'{classes[0]}' is a class. Where the folder of a class is a person, set "
            "data.identity=folder; else name the person."
        )
    return f"{text}Correct or remove these lines."


def _rows_of(asked: set[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the rows that bear each name that is asked for."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if name in asked:
            rows[name].append(row)
    return {name: np.array(places) for name, places in rows.items()}


def draw_request(
    fraction: float, seed: int, manifest: Manifest, splits: np.ndarray, *, rounds: bool = False
) -> ResolvedRequest:
    """Draw a share of the training people at random, at least one, with the labels of test.

    Parameters
    ----------
    rounds : the seeds of a round take their people from one permutation, one after the other, and
        whatever labels they have
    """
    train = np.flatnonzero(splits == "train")
    persons, person_of_row = np.unique(manifest.people.of_row[train], return_inverse=True)
    people = manifest.people.names[persons]
    num = max(1, round(fraction * len(people)))
    if rounds:
        turn, place = divmod(seed, max(1, len(people) // num))
        order = np.random.default_rng(turn).permutation(len(people))
        chosen = np.sort(order[place * num : (place + 1) * num])
    else:
        unseen = label_shares(manifest.labels[splits == "test"], manifest.num_outputs)
        chosen = draw_people(manifest.labels[train], person_of_row, unseen, num=num, seed=seed)
    num_images = np.bincount(person_of_row)
    lines = [
        RequestLine(i, str(people[person]), "identity", "matched", int(num_images[person]))
        for i, person in enumerate(chosen, start=1)
    ]
    return ResolvedRequest(lines, train[np.isin(person_of_row, chosen)])


def forget_rows(cfg: ForgetConfig, manifest: Manifest, splits: np.ndarray) -> ResolvedRequest:
    """Return the resolved request of a configuration; an empty one where none is given."""
    if cfg.request is not None:
        return resolve_request(Path(cfg.request), manifest, splits)
    names_itself = manifest.images is not None and not cfg.given
    if (cfg.published or names_itself) and manifest.published_request:
        entries = list(enumerate(manifest.published_request, start=1))
        return resolve_entries(entries, "forget.published", manifest, splits)
    if cfg.fraction is not None:
        assert cfg.seed is not None, "JobConfig.drawn_forget has the seed"
        return draw_request(cfg.fraction, cfg.seed, manifest, splits, rounds=cfg.rounds)
    if cfg.published:
        raise DataError(
            f"forget.published=true finds nothing: no forget set was published with "
            f"{manifest.title}. Give forget.fraction=0.2, or forget.request=FILE instead."
        )
    return ResolvedRequest([], np.array([], dtype=np.int64))
