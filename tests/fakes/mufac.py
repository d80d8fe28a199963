"""MUFAC in a folder, resolved with its published forget set."""

from __future__ import annotations

from pathlib import Path

from dlfd_dist.config import DataConfig, ForgetConfig
from dlfd_dist.data.loaders import ResolvedRows, resolve_rows


def config(root: Path, **settings) -> DataConfig:
    cache_dir = str(root / "cache")
    return DataConfig(
        **{"name": "mufac", "root": str(root), "image_size": 8, "cache_dir": cache_dir, **settings}
    )


def resolve(root: Path, **settings) -> ResolvedRows:
    return resolve_rows(config(root, **settings), ForgetConfig(published=True))


def file_names(rows: ResolvedRows) -> dict[str, list[str]]:
    paths = rows.manifest.image_paths
    return {part: [Path(paths[i]).name for i in ids] for part, ids in rows.splits.parts().items()}
