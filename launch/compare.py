"""dlfd compare: methods x seeds against Original and Retrained; no run is done twice."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlfd_dist.compose import compose_job, config_text, expand_grid, known_settings
from dlfd_dist.config import METHOD_CONFIGS, JobConfig, to_dict
from dlfd_dist.data.loaders import ResolvedData
from dlfd_dist.errors import ConfigError, DlfdError, RunDirError
from dlfd_dist.jobs import Prepared, prepare
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.jobs.plan import plan
from dlfd_dist.logs import setup_console
from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import load_comparison
from dlfd_dist.report.tables import csv_table, markdown_table, summarise, text_table
from dlfd_dist.run_dir import write_json, write_text

from .job import print_dry_run
from .local import run_local

logger = logging.getLogger("dlfd_dist.compare")


@dataclass(frozen=True)
class Planned:
    """A run of the comparison: its role, and what it needs."""

    role: str
    """original, retrained or method"""
    config: JobConfig

    @property
    def label(self) -> str:
        return self.config.method.name if self.role == "method" else self.role


def plan_points(overrides: Sequence[str]) -> list[JobConfig]:
    """Return one unlearning configuration per method and seed.

    A setting of one method only (method.forget_weight) does not reach the others.
    """
    overrides = list(overrides)
    if not any(o.startswith("method=") for o in overrides):
        overrides.append("method=dlfd,finetune")
    points = expand_grid(overrides)
    names = {_method_of(point) for point in points}
    known = {n: set(known_settings(METHOD_CONFIGS.get(n, METHOD_CONFIGS["dlfd"]))) for n in names}
    everything = set().union(*known.values())
    configs = []
    for point in points:
        mine = known[_method_of(point)]
        kept = [o for o in point if _key(o) in mine or _key(o) not in everything]
        # The checkpoint is the comparison's own Original; its path is filled in when it is known.
        configs.append(compose_job("unlearn", [*kept, "checkpoint=original"]))
    return configs


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+")


def _method_of(point: Sequence[str]) -> str:
    return next(o.split("=", 1)[1] for o in point if o.startswith("method="))


def training_runs(
    configs: Sequence[JobConfig], runs: Path, world_size: int | None = None
) -> list[Planned]:
    """Return the Retrained and Original runs, two per seed, on `world_size` ranks if given."""
    planned = []
    for config in {c.seed: c for c in configs}.values():
        for role, on in (("retrained", "retain"), ("original", "all")):
            run = replace(config.run, root=str(runs), dir=None, name=f"{role}-seed{config.seed}")
            train = replace(config.train, on=on)
            runtime = replace(config.runtime, world_size=world_size or config.runtime.world_size)
            trained = replace(
                config, verb="train", train=train, run=run, runtime=runtime, checkpoint=None
            )
            planned.append(Planned(role, trained))
    return planned


def unlearning_runs(
    configs: Sequence[JobConfig], runs: Path, models: dict[tuple[str, int], Path]
) -> list[Planned]:
    """Return the method runs whose Original and Retrained are there."""
    planned = []
    for config in configs:
        original, retrained = (
            models.get((role, config.seed)) for role in ("original", "retrained")
        )
        if original is None or retrained is None:
            continue
        run = replace(
            config.run, root=str(runs), dir=None, name=f"{config.method.name}-seed{config.seed}"
        )
        ready = replace(config, checkpoint=str(original), reference=str(retrained), run=run)
        planned.append(Planned("method", ready))
    return planned


def run_stage(planned: Sequence[Planned]) -> dict[tuple[str, int], Path]:
    """Run what is not finished, one after another; return the directories of what is."""
    prepared: list[tuple[Planned, Prepared]] = []
    for one in planned:
        prepared.append((one, prepare(one.config, one.config.runtime.world_size)))
    pending = [(one, p) for one, p in prepared if not p.finished()]
    for _, p in pending:
        p.claim()
    if pending:
        reused = len(prepared) - len(pending)
        logger.info("%d runs to do, %d finished before", len(pending), reused)
        status = run_local(
            [one.config for one, _ in pending], [p.run_dir.config for _, p in pending]
        )
        if status == 75:
            raise Stopped()
    return {
        (one.label, one.config.seed): p.run_dir.path for one, p in prepared if p.run_dir.finished()
    }


class Stopped(DlfdError):
    """A run of the comparison was asked to stop."""

    exit_status = 75

    def __init__(self) -> None:
        super().__init__(
            "The comparison was stopped as asked; the same command goes on from there."
        )


def run_compare(
    overrides: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
    title: str = "Comparison",
    training_world_size: int | None = None,
) -> int:
    """Run a comparison and write table, summary and page into run.dir.

    training_world_size : ranks of Original and Retrained; None for runtime.world_size
    """
    configs = plan_points(overrides)
    _check(configs)
    out = Path(configs[0].run.dir or "runs/compare")
    runs = out / "runs"
    trainings = training_runs(configs, runs, training_world_size)
    if dry_run:
        methods = [replace(c, run=replace(c.run, root=str(runs), dir=None)) for c in configs]
        _print_plan(trainings, methods, out, as_json=as_json)
        return 0
    setup_console()
    first = prepare(trainings[0].config, trainings[0].config.runtime.world_size)
    for config in configs:
        check_enough(config, first.data, config.runtime.world_size)
    _claim(out, configs)
    models = run_stage(trainings)
    done = models | run_stage(unlearning_runs(configs, runs, models))
    missing = _write_results(out, trainings, configs, done, title=title, data=first.data)
    _show(out, missing, as_json=as_json)
    return 1 if missing else 0


def _check(configs: Sequence[JobConfig]) -> None:
    if not configs[0].forget.given:
        raise ConfigError("Nobody to forget: give forget.request=FILE or forget.fraction=0.2.")
    for config in configs:
        config.validate(config.runtime.world_size)


def _claim(out: Path, configs: Sequence[JobConfig]) -> None:
    try:
        is_other = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if is_other and not (out / "runs").is_dir():
            raise RunDirError(
                f"run.dir={out} exists and is not a comparison: choose another directory."
            )
        (out / "runs").mkdir(parents=True, exist_ok=True)
        write_text(out / "config.yaml", config_text(configs[0]))
    except OSError as err:
        raise RunDirError(
            f"run.dir={out} cannot be written ({err.strerror}): free some space or choose another "
            "directory."
        ) from err


def _write_results(
    out: Path,
    trainings: Sequence[Planned],
    configs: Sequence[JobConfig],
    done: dict[tuple[str, int], Path],
    *,
    title: str,
    data: ResolvedData,
) -> list[str]:
    """Write comparison.json, summary.json, tables and page; return the runs that are missing."""
    wanted = [(p.role, None, p.config.seed) for p in trainings]
    wanted += [("method", c.method.name, c.seed) for c in configs]
    entries, missing = [], []
    for role, method, seed in wanted:
        path = done.get((method or role, seed))
        if path is None:
            missing.append(f"{method or role} seed {seed}")
        else:
            entries.append(
                {
                    "role": role,
                    "method": method,
                    "seed": seed,
                    "run_dir": os.path.relpath(path, out),
                }
            )
    full_title = f"{title}: {data.manifest.title}"
    write_json(
        out / "comparison.json",
        {"title": full_title, "runs": entries, "missing": missing},
    )
    records = load_comparison(out)
    rows = summarise(records)
    write_json(out / "summary.json", rows)
    write_text(out / "table.md", markdown_table(rows))
    write_text(out / "table.csv", csv_table(rows))
    write_report(records, out / "report.html", title=full_title, missing=missing)
    return missing


def _show(out: Path, missing: Sequence[str], *, as_json: bool) -> None:
    rows = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    report = out / "report.html"
    if as_json:
        print(
            json.dumps({"summary": rows, "missing": list(missing), "report": str(report)}, indent=2)
        )
        return
    for name in missing:
        print(f"not finished: {name} (its log lies under {out / 'runs'})")
    print()
    print(text_table(rows))
    print(f"report: {report}")


def _print_plan(
    trainings: Sequence[Planned], methods: Sequence[JobConfig], out: Path, *, as_json: bool
) -> None:
    first = plan(trainings[0].config)
    names = [p.label + f" seed {p.config.seed}" for p in trainings]
    names += [f"{c.method.name} seed {c.seed}" for c in methods]
    files = ["comparison.json", "summary.json", "table.md", "table.csv", "report.html"]
    if as_json:
        shown: dict[str, Any] = {
            "dry_run": True, "config": to_dict(methods[0]), "plan": first["plan"], "runs": names,
            "files": [str(out / f) for f in files],
        }  # fmt: skip
        print(json.dumps(shown, indent=2, sort_keys=True))
        return
    print_dry_run([trainings[0].config], as_json=False)
    print(f"# comparison: {len(names)} runs under {out / 'runs'}, those finished before are reused")
    for name in names:
        print(f"  {name}")
    print("# files that would be written")
    for file in files:
        print(f"  {out / file}")
