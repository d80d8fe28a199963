"""dlfd audit leaks: images that are there twice, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.compose import compose_job
from dlfd_dist.config import JobConfig
from dlfd_dist.errors import RunDirError
from dlfd_dist.run_dir import write_json, write_text

from ..dry_run import dry_run_text

FILES = ("leaks.json", "leaks.csv", "leaks.html")
MAX_PICTURES = 200
"""Pairs whose pictures a page shows; the list has all of them."""


def run_leaks(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Look for equal and nearly equal images; write the list, its numbers and a page."""
    config = compose_job("train", words)
    folder = Path(config.run.dir or Path(config.run.root) / "leaks")
    if dry_run:
        files = [str(folder / name) for name in FILES]
        print(dry_run_text({}, (), files, as_json=as_json))
        return 0
    counted, sentences = _audit(config, folder)
    if as_json:
        print(json.dumps({**counted, "run_dir": str(folder)}, indent=2, sort_keys=True))
        return 0
    print(f"{counted['title']}: {counted['pairs']} pairs, {counted['across_parts']} across parts")
    for kind, counts in counted["counts"].items():
        for parts, number in counts.items():
            print(f"  {kind:6} {parts:16} {number}")
    for sentence in sentences:
        print(f"request: {sentence}")
    print(f"page: {folder / 'leaks.html'}")
    return 0


def _audit(config: JobConfig, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    from dataclasses import replace

    from dlfd_dist.data.cache import make_cache_dir
    from dlfd_dist.data.leaks import audit_leaks
    from dlfd_dist.data.loaders import resolve_rows
    from dlfd_dist.report.leaks import leaks_page

    rows = resolve_rows(replace(config.data, clean=False), config.drawn_forget)
    audit = audit_leaks(
        rows.manifest,
        rows.splits,
        rows.request,
        make_cache_dir(config.data),
        verify=config.data.verify,
    )
    counted = {**audit.to_dict(), "title": rows.manifest.title, "images": len(rows.manifest)}
    shown = audit.pairs[:MAX_PICTURES] if rows.manifest.may_show else ()
    pictures = [
        tuple(rows.manifest.root / path for path in (pair.image_path, pair.other_path))
        for pair in shown
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILES[0], counted)
        write_text(folder / FILES[1], audit.to_csv())
        write_text(folder / FILES[2], leaks_page(counted, shown, pictures, rows.manifest.credit))
    except OSError as err:
        raise RunDirError(
            f"run.dir={folder} cannot be written ({err.strerror}): choose another directory."
        ) from err
    return counted, audit.stay
