"""From finished shadow models to audit.json, audit.csv and the page; people by pseudonym only."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import AuditConfig
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

from ..plan.runs import Run
from .ended import Ended

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedRows

FILES = ("audit.json", "audit.csv", "audit.salt.json", "report.html")
COLUMNS = (
    "world", "unit", "pseudonym", "num_images", "num_models", "auc", "mean_log_ratio",
    "klom_forget",
)  # fmt: skip


def write_audit(ended: Ended) -> dict[str, Any]:
    """Write the result of an audit and return what audit.json holds."""
    # It loads torch, which the report of no other campaign needs.
    from dlfd_dist.data.loaders import resolve_rows

    plan, first = ended.plan, ended.plan.runs[0].config
    # Of any shadow: people, image paths and the split are the same for all.
    rows = resolve_rows(first.data, first.drawn_forget)
    kind, audit = plan.for_finisher["kind"], AuditConfig(**plan.for_finisher["audit"])
    return _write(plan.path, kind, audit, plan.runs, ended.done, rows)


def _write(
    out: Path,
    kind: str,
    audit: AuditConfig,
    wanted: Sequence[Run],
    done: Mapping[str, Path],
    rows: ResolvedRows,
) -> dict[str, Any]:
    """Write the files of an audit.

    Parameters
    ----------
    kind : ulira or klom, the figures that are shown first
    wanted : every run of the audit; those not in `done` are named as missing
    done : directories of the finished runs by label
    """
    judge = _judge(audit, wanted, done, rows)
    people, paths = [str(name) for name in judge.names], list(rows.manifest.image_paths)
    salt = _salt(out, [*people, *paths])
    judged = {title: judge.world(title) for title in judge.worlds if title != "retrained"}
    result = {
        "kind": kind,
        "title": rows.manifest.title,
        "settings": _settings(audit, wanted[0]),
        "worlds": {
            title: _world(world, audit.top, people, salt) for title, world in judged.items()
        },
        "cost": {title: world.seconds for title, world in judge.worlds.items()},
        "missing": [run.label for run in wanted if run.label not in done],
    }
    write_json(out / "audit.json", result)
    write_text(out / "audit.csv", _csv(judged, people, paths, salt))
    write_audit_page(out)
    return result


def _judge(
    audit: AuditConfig, wanted: Sequence[Run], done: Mapping[str, Path], rows: ResolvedRows
) -> Judge:
    seeds = list(dict.fromkeys(run.train_seed for run in wanted))
    shadows = [
        Shadow(run.title, run.role, seeds.index(run.train_seed), done.get(run.label))
        for run in wanted
    ]
    worlds = read_worlds(shadows, len(seeds), len(rows.manifest.image_paths))
    return Judge(worlds, rows.manifest.identities, rows.splits.val, audit)


def _settings(audit: AuditConfig, first: Run) -> dict[str, Any]:
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
            "pseudonym": salt.pseudonym(people[person.number]), "auc": person.auc,
            "auc_interval": person.auc_interval, "num_images": band(person.num_images),
            "num_models": person.num_models,
        }
        for person in most_exposed(judged, top)
    ]  # fmt: skip
    aucs = sorted(person.auc for person in exposures(judged))
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
    worlds: Mapping[str, Judged], people: Sequence[str], paths: Sequence[str], salt: Salt
) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for title, judged in worlds.items():
        for unit, entries in (("person", people), ("image", paths)):
            exposed = {
                salt.pseudonym(entries[exposure.number]): exposure
                for exposure in exposures(judged, by_image=unit == "image")
            }
            # In the order of the pseudonyms: that of the data is that of the names.
            for pseudonym, exposure in sorted(exposed.items()):
                near = "" if math.isnan(exposure.klom_forget) else f"{exposure.klom_forget:.6g}"
                writer.writerow([
                    cell(title), unit, pseudonym, band(exposure.num_images), exposure.num_models,
                    f"{exposure.auc:.6g}", f"{exposure.mean_log_ratio:.6g}", near,
                ])  # fmt: skip
    return buffer.getvalue()
