"""RAF-DB, emotions on faces from the web (Li, Deng and Du, CVPR 2017), as an ImageFolder."""

from __future__ import annotations

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from .image_folder import number_classes, walk_split_folders
from .manifest import Manifest, datasets, require_label, require_root

EMOTIONS = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happiness",
    "5": "sadness",
    "6": "anger",
    "7": "neutral",
}
"""Folder name of the distribution -> emotion; other folder names stand for themselves."""


@datasets.register("raf_db")
def load_raf_db(cfg: DataConfig) -> Manifest:
    """Read root/{train,test}/<class>/ of RAF-DB.

    It names no people, so every image is its own person. The official test set is kept; val is a
    share `data.val_fraction` of the training images, drawn by `data.split_seed`.
    """
    root = require_root(cfg)
    require_label(cfg, "emotion")
    for name in ("train", "test"):
        if not (root / name).is_dir():
            raise DataError(f"There is no folder {root / name}: RAF-DB has train and test.")
    images, splits = walk_split_folders(
        root, ["train", "test"], skip_unsupported=cfg.skip_unsupported
    )
    labels, folders = number_classes(images)
    image_paths = [image.image_path for image in images]
    return Manifest(
        root=root,
        image_paths=image_paths,
        identities=np.array(image_paths),
        labels=labels,
        splits=_draw_val(splits, cfg),
        label_names=[EMOTIONS.get(folder, folder) for folder in folders],
        title="RAF-DB",
    )


def _draw_val(splits: np.ndarray, cfg: DataConfig) -> np.ndarray:
    """Return the splits with a share of the training rows, at least one, turned into val."""
    train = np.flatnonzero(splits == "train")
    order = np.random.default_rng(cfg.split_seed).permutation(train)
    drawn = splits.copy()
    drawn[order[: max(1, round(cfg.val_fraction * len(train)))]] = "val"
    return drawn
