"""What a run would do, said without decoding an image or writing a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import JobConfig, signed_settings
from ..data.loaders import ResolvedRows, resolve_rows
from ..methods import methods
from ..models import check_weights
from ..plain import counted
from ..run_dir import RunDir
from .context import checked_outline, input_digests, run_identity
from .course import Course, fitted
from .resurfacing import RATES, resurfacing_steps
from .trained import check_classes, check_trained


def plan(config: JobConfig) -> dict[str, Any]:
    """Return the lines of a plan, the files that would be written, and the signature."""
    config.validate(config.runtime.world_size)
    rows = resolve_rows(config.data, config.drawn_forget, draw=False)
    given = [path for path in (config.checkpoint, config.reference) if path is not None]
    check_trained(config, rows)
    if given or not config.model.is_ours or config.data.factory is not None:
        model = checked_outline(config, rows, config.runtime.world_size)
        for path in given:
            check_weights(model, path)
            check_classes(Path(path), rows.manifest.label_names)
    inputs = input_digests(config, rows)
    signature, run_dir = run_identity(config, inputs)
    run_dir.check(signature, inputs, signed_settings(config))
    return {
        "plan": _lines(config, rows, run_dir),
        "files": [str(path) for path in _files(config, rows, run_dir)],
        "signature": signature,
        "num_images": {name: len(ids) for name, ids in rows.splits.parts().items()},
    }


def num_steps(config: JobConfig, rows: ResolvedRows) -> int:
    """Return the optimizer steps of a training or unlearning run; 0 for an evaluation."""
    if config.verb == "evaluate":
        return 0
    if config.verb == "unlearn":
        build = methods.get(config.method.name)
        cfg = fitted(config.method, build, rows.splits)
        return Course(build.phases(cfg), rows.splits, cfg, config.seed).num_steps
    ids = rows.splits.train if config.train.on == "all" else rows.splits.retain
    per_epoch = -(-len(ids) // config.train.global_batch_size)
    return min(config.train.epochs * per_epoch, config.train.max_steps or 10**12)


def _lines(config: JobConfig, rows: ResolvedRows, run_dir: RunDir) -> list[str]:
    splits, request = rows.splits, rows.request
    matched = sum(line.status == "matched" for line in request.lines)
    lines = [
        f"data: {rows.manifest.title}, {counted(len(rows.manifest), 'image')}, "
        f"retain {len(splits.retain)}, "
        f"forget {len(splits.forget)}, val {len(splits.val)}, test {len(splits.test)}",
        f"request: {counted(len(request.lines), 'entry', 'entries')}, {matched} in training, "
        f"{counted(len(request.rows), 'image')}",
    ]
    if config.data.leaks and not rows.manifest.synthetic:
        lines.append("leak audit: equal and nearly equal images are looked for first (leaks.csv)")
    steps = num_steps(config, rows)
    if config.verb == "unlearn":
        lines.append(
            f"unlearn: method {config.method.name}, {steps} steps from {config.checkpoint}"
        )
    elif config.verb == "train":
        lines.append(f"train: on {config.train.on}, {steps} steps")
    else:
        lines.append(f"evaluate: {config.checkpoint}")
    again = resurfacing_steps(config, len(splits.retain)) if len(splits.forget) else 0
    if again:
        lines.append(f"resurfacing: {len(RATES)} times {again} steps on the retain set, measured")
    if config.reference:
        lines.append(f"gap to: {config.reference}")
    lines.append(f"ranks: {config.runtime.world_size}")
    state = "finished, its result is returned" if run_dir.finished() else "would run"
    lines.append(f"run directory: {run_dir.path} ({state})")
    return lines


def _files(config: JobConfig, rows: ResolvedRows, run_dir: RunDir) -> list[Path]:
    files = [
        run_dir.config,
        run_dir.identity,
        run_dir.environment,
        run_dir.request,
        run_dir.metrics,
    ]
    if config.checkpoint or config.reference:
        files.append(run_dir.prepared)
    if config.data.clean:
        files.append(run_dir.removed)
    if config.data.leaks and not rows.manifest.synthetic:
        files.append(run_dir.leaks)
    files += [run_dir.rank_log(rank) for rank in range(config.runtime.world_size)]
    if config.verb != "evaluate":
        files.append(run_dir.model)
    if config.verb == "unlearn" and config.synthesis.save:
        files += [run_dir.synthesis / "images.safetensors", run_dir.synthesis / "contact_sheet.png"]
    return [*files, run_dir.samples, run_dir.result]
