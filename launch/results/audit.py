"""From finished shadow models to audit.json, audit.csv and the page; people by pseudonym only."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.config import AuditConfig, JobConfig
from dlfd_dist.data.loaders import ResolvedRows, resolve_rows
from dlfd_dist.evidence.pseudonyms import Salt, new_salt, read_salt, write_salt
from dlfd_dist.plain import band, cell
from dlfd_dist.report.audit import write_audit_page
from dlfd_dist.report.ensemble import (
    Judge,
    Judged,
    Shadow,
    exposures,
    is_pooled,
    most_exposed,
    read_worlds,
)
from dlfd_dist.run_dir import write_json, write_text

from ..plan.audit import title_of
from ..plan.runs import Planned

FILES = ("audit.json", "audit.csv", "audit.salt.json", "report.html")
COLUMNS = (
    "world", "unit", "pseudonym", "num_images", "num_models", "auc", "mean_log_ratio",
    "klom_forget",
)  # fmt: skip


def rows_of(config: JobConfig) -> ResolvedRows:
    return resolve_rows(config.data, config.drawn_forget)


def write_audit(
    out: Path,
    kind: str,
    audit: AuditConfig,
    wanted: Sequence[Planned],
    done: Mapping[str, Path],
    rows: ResolvedRows,
) -> dict[str, Any]:
    """Write the result of an audit and return what audit.json holds.

    Parameters
    ----------
    kind : ulira or klom, the figures that are shown first
    wanted : every run of the audit; those not in `done` are named as missing
    done : directories of the finished runs by label
    rows : of any shadow: people, image paths and the split are the same for all
    """
    seeds = list(dict.fromkeys(one.train_seed for one in wanted))
    shadows = [
        Shadow(title_of(one), one.role, seeds.index(one.train_seed), done.get(one.label))
        for one in wanted
    ]
    manifest = rows.manifest
    worlds = read_worlds(shadows, len(seeds), len(manifest.image_paths))
    judge = Judge(worlds, manifest.identities, rows.splits.val, audit)
    people, paths = [str(name) for name in judge.names], list(manifest.image_paths)
    salt = _salt(out, [*people, *paths])
    found = {title: judge.world(title) for title in worlds if title != "retrained"}
    result = {
        "kind": kind,
        "title": manifest.title,
        "settings": _settings(audit, wanted[0]),
        "worlds": {title: _world(one, audit.top, people, salt) for title, one in found.items()},
        "cost": {title: world.seconds for title, world in worlds.items()},
        "missing": [one.label for one in wanted if one.label not in done],
    }
    write_json(out / "audit.json", result)
    write_text(out / "audit.csv", _csv(found, people, paths, salt))
    write_audit_page(out)
    return result


def _settings(audit: AuditConfig, first: Planned) -> dict[str, Any]:
    forget = first.config.forget
    return {
        "models": audit.models,
        "control": audit.control,
        "variance": "pooled" if is_pooled(audit) else "example",
        "num_bootstrap": audit.num_bootstrap,
        "forgotten": "drawn" if forget.rounds else "request",
        "fraction": forget.fraction,
        "first_seed": first.train_seed,
    }


def _world(judged: Judged, top: int, people: Sequence[str], salt: Salt) -> dict[str, Any]:
    exposed = [
        {
            "pseudonym": salt.pseudonym(people[one.number]), "auc": one.auc,
            "auc_interval": one.auc_interval, "num_images": band(one.num_images),
            "num_models": one.num_models,
        }
        for one in most_exposed(judged, top)
    ]  # fmt: skip
    aucs = sorted(one.auc for one in exposures(judged))
    return {
        "role": judged.role, "num_models": judged.num_models, **judged.figures, "roc": judged.roc,
        "person_aucs": aucs, "most_exposed": exposed,
    }  # fmt: skip


def _salt(out: Path, entries: Sequence[str]) -> Salt:
    """Return the salt of the audit, made once, so that pseudonyms stay as models are added."""
    path = out / "audit.salt.json"
    salt = read_salt(path)[0] if path.is_file() else new_salt()
    write_salt(path, salt, entries)
    return salt


def _csv(
    found: Mapping[str, Judged], people: Sequence[str], paths: Sequence[str], salt: Salt
) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for title, judged in found.items():
        for unit, entries in (("person", people), ("image", paths)):
            told = {
                salt.pseudonym(entries[one.number]): one
                for one in exposures(judged, by_image=unit == "image")
            }
            # In the order of the pseudonyms: that of the data is that of the names.
            for pseudonym, one in sorted(told.items()):
                near = "" if math.isnan(one.klom_forget) else f"{one.klom_forget:.6g}"
                writer.writerow([
                    cell(title), unit, pseudonym, band(one.num_images), one.num_models,
                    f"{one.auc:.6g}", f"{one.mean_log_ratio:.6g}", near,
                ])  # fmt: skip
    return buffer.getvalue()
