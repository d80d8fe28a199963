"""People never trained on who are set apart: dlfm matches to them, dlfd may probe on them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DataConfig, DLFDConfig, DLFMConfig, MethodConfig
from ..errors import DataError
from .cache import open_cache
from .forget_request import ResolvedRequest
from .loaders import ResolvedData, ResolvedRows
from .manifest import Manifest, check_inside, encode_multi_label
from .splits import Splits
from .tables import read_rows

NOBODY = np.empty(0, dtype=np.int64)
MATCHED = (
    "method.reference=val_split {} give strangers by method.reference=manifest "
    "method.reference_manifest=FILE."
)
PROBED = "method.probe_fraction {} set it to null."


@dataclass(frozen=True)
class ReferencePeople:
    """Who the forget set is matched to, or probed against to know when synthesis rests.

    Attributes
    ----------
    kind : val_split or manifest, or of dlfd probed
    data : the set that the images are of
    ids : their sample ids in it, ascending
    labelled : whether their labels are known
    """

    kind: str
    data: ResolvedData
    ids: np.ndarray
    labelled: bool

    @property
    def num_people(self) -> int:
        return len(np.unique(self.data.manifest.identities[self.ids]))


def set_apart(rows: ResolvedRows, share: float, seed: int, needed: str) -> np.ndarray:
    """Return the rows of a share of the validation people, ascending.

    People are drawn, never images, so that nobody is both set apart and selected on; at least one
    of either. Raises DataError where there is only one.

    Parameters
    ----------
    needed : what needs them, and what else can be done; `{}` is where the sentence goes on
    """
    identities = rows.manifest.identities[rows.splits.val]
    people = np.unique(identities)
    if len(people) < 2:
        raise DataError(
            needed.format(
                "needs at least 2 validation people, one of them to select on, and there is "
                f"{len(people)}: raise data.val_fraction, or"
            )
        )
    count = min(max(1, round(share * len(people))), len(people) - 1)
    drawn = np.random.default_rng(seed).permutation(people)[:count]
    return rows.splits.val[np.isin(identities, drawn)]


def reference_people(
    data: ResolvedData, method: MethodConfig, cfg: DataConfig
) -> tuple[ResolvedData, ReferencePeople | None]:
    """Return the data without the people who are set apart, and those people.

    None where the method sets nobody apart.
    """
    if isinstance(method, DLFDConfig) and method.probe_fraction is not None:
        ids = set_apart(data, method.probe_fraction, 0, PROBED)
        return _without(data, ids), ReferencePeople("probed", data, ids, True)
    if not isinstance(method, DLFMConfig) or method.reference == "synthesised":
        return data, None
    if method.reference == "manifest":
        return data, _strangers(data, method, cfg)
    ids = set_apart(data, method.reference_fraction, method.reference_seed, MATCHED)
    return _without(data, ids), ReferencePeople("val_split", data, ids, True)


def _without(data: ResolvedData, ids: np.ndarray) -> ResolvedData:
    """Return the data with fewer validation images."""
    return replace(data, splits=replace(data.splits, val=np.setdiff1d(data.splits.val, ids)))


def reference_digest(method: MethodConfig) -> dict[str, str]:
    """Return the SHA-256 of the list of strangers, where a method reads one."""
    if not isinstance(method, DLFMConfig) or method.reference_manifest is None:
        return {}
    return {"strangers": hashlib.sha256(_path(method).read_bytes()).hexdigest()}


def describe_reference(
    people: ReferencePeople | None, method: MethodConfig
) -> dict[str, Any] | None:
    """Return what a result says of those the forget set was matched to; None where it was not.

    Of dlfd with method.probe_fraction it says on how many people it was probed.
    """
    if people is not None and people.kind == "probed":
        return {"kind": "probed", "people": people.num_people, "images": len(people.ids)}
    if not isinstance(method, DLFMConfig):
        return None
    if people is None:
        return {"kind": "synthesised", "labelled": True, "people": 0, "images": 0}
    return {
        "kind": people.kind,
        "labelled": people.labelled,
        "people": people.num_people,
        "images": len(people.ids),
    }


def _path(method: DLFMConfig) -> Path:
    path = Path(method.reference_manifest or "").expanduser()
    if not path.is_file():
        raise DataError(f"method.reference_manifest={method.reference_manifest} is not a file.")
    return path.resolve()


def _strangers(data: ResolvedData, method: DLFMConfig, cfg: DataConfig) -> ReferencePeople:
    if data.manifest.images is not None:
        raise DataError(
            "method.reference=manifest lists image files, and data.factory gives none: set "
            "method.reference=val_split, or synthesised."
        )
    path = _path(method)
    rows = read_rows(path, ["image_path"], ["identity", *cfg.label])
    paths = [row["image_path"].strip() for row in rows]
    for number, image_path in enumerate(paths, start=2):
        check_inside(path.parent, image_path, f"{path}, row {number}")
    identities = [(row.get("identity") or "").strip() for row in rows]
    _check_strangers(path, identities, data)
    labels = _labels(path, rows, data.manifest, cfg)
    no_labels = np.zeros((len(rows), *data.manifest.labels.shape[1:]), dtype=np.int64)
    manifest = Manifest(
        root=path.parent,
        image_paths=paths,
        identities=np.array([who or where for who, where in zip(identities, paths, strict=True)]),
        labels=no_labels if labels is None else labels,
        splits=np.full(len(rows), ""),
        label_names=data.manifest.label_names,
        title=path.stem,
    )
    if labels is None and method.rests_by == "equivalence":
        raise DataError(
            f"method.rests_by=equivalence compares answers with labels, and {path} has none: add "
            f"the column {', '.join(cfg.label)}, or leave method.rests_by out."
        )
    empty = Splits(NOBODY, NOBODY, NOBODY, NOBODY, NOBODY)
    resolved = ResolvedData(manifest, empty, ResolvedRequest([], NOBODY), open_cache(manifest, cfg))
    return ReferencePeople("manifest", resolved, np.arange(len(rows)), labels is not None)


def _check_strangers(path: Path, identities: list[str], data: ResolvedData) -> None:
    """Refuse people of the data set: matching would then train or measure on them."""
    known = set(data.manifest.identities.tolist())
    for number, who in enumerate(identities, start=2):
        if who in known:
            raise DataError(
                f"{path}, row {number}: '{who}' is one of the people of the data set, and "
                "method.reference_manifest lists strangers: leave the row out or rename the person."
            )


def _labels(
    path: Path, rows: list[dict[str, str]], manifest: Manifest, cfg: DataConfig
) -> np.ndarray | None:
    """Return the labels in the numbering of the data set, None where a column is missing."""
    if any(column not in rows[0] for column in cfg.label):
        return None
    if len(cfg.label) > 1:
        columns = {name: [row[name] for row in rows] for name in cfg.label}
        return encode_multi_label(columns, str(path))
    number = {str(i): i for i in range(manifest.num_outputs)}
    number |= {name: i for i, name in enumerate(manifest.label_names)}
    values = [(row[cfg.label[0]] or "").strip() for row in rows]
    for index, value in enumerate(values, start=2):
        if value not in number:
            raise DataError(
                f"{path}, row {index}: the label '{value}' is unknown; the data set has "
                f"{', '.join(manifest.label_names[:12])}. "
                "Leave the column out where labels are unknown."
            )
    return np.array([number[value] for value in values], dtype=np.int64)
