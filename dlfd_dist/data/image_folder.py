"""Any folder of class folders, with or without split folders above and person folders below."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from ..plain import counted
from ..registry import near_match
from .decode import IMAGE_SUFFIXES, OTHER_SUFFIXES
from .manifest import SPLITS, Manifest, datasets, require_label, require_root

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderImage:
    """One image found by the walk."""

    image_path: str
    """relative to the root of the data set, with forward slashes"""
    class_name: str
    person: str | None
    """folder between the class and the file, if there is one"""

    def identity(self, rule: str) -> str:
        """Return whom it shows by data.identity: auto, or folder (the class folder)."""
        if rule == "folder":
            return self.class_name
        return self.image_path if self.person is None else self.person


def list_folders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted by name."""
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    return sorted(folders, key=lambda path: path.name)


def walk_class_folders(
    root: Path, folder: Path, *, skip_unsupported: bool = False
) -> list[FolderImage]:
    """Return the images in folder/<class>/ and folder/<class>/<person>/, sorted by class and path.

    Files that are no images, and hidden files and folders, do not count. Images of formats that are
    not read are refused, or left out with a warning.
    """
    _tell_unsupported(folder, skip=skip_unsupported)
    images = []
    for class_folder in list_folders(folder):
        name = class_folder.name
        described = [_describe(root, name, None, path) for path in _list_images(class_folder)]
        for person_folder in list_folders(class_folder):
            if deeper := list_folders(person_folder):
                raise DataError(
                    f"The folder {deeper[0]} lies too deep: images belong into <class>/ or "
                    "<class>/<person>/. Move them up."
                )
            for path in _list_images(person_folder):
                described.append(_describe(root, name, person_folder.name, path))
        if not described:
            raise DataError(
                f"The class folder {class_folder} holds no image, in itself or in person folders, "
                f"ending in {', '.join(sorted(IMAGE_SUFFIXES))}; fill it or remove it."
            )
        images += described
    if not images:
        raise DataError(f"{folder} has no class folders: images belong into {folder}/<class>/.")
    return images


def _list_images(folder: Path) -> list[Path]:
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
    ]
    return sorted(paths, key=lambda path: path.name)


def _tell_unsupported(folder: Path, *, skip: bool) -> None:
    """Refuse images of formats that are not read, or warn that they are left out."""
    files = sorted(
        path
        for depth in ("*/*", "*/*/*")
        for path in folder.glob(depth)
        if path.suffix.lower() in OTHER_SUFFIXES and path.name[0] != "." and path.is_file()
    )
    if not files:
        return
    if not skip:
        raise DataError(
            f"{folder} holds {counted(len(files), 'image')} of formats that are not read, "
            f"{files[0]} for one: convert them (to PNG, say), or leave them out with "
            "data.skip_unsupported=true."
        )
    # The name of a file or folder may be that of a person.
    kinds = sorted({Path(file).suffix.lower() for file in files})
    logger.warning(
        "left out: %s of formats that are not read (%s)",
        counted(len(files), "image"),
        ", ".join(kinds),
    )


def _describe(root: Path, class_name: str, person: str | None, path: Path) -> FolderImage:
    return FolderImage(path.relative_to(root).as_posix(), class_name, person)


def walk_split_folders(
    root: Path, names: list[str], *, skip_unsupported: bool = False
) -> tuple[list[FolderImage], np.ndarray]:
    """Return the images of root/<split>/<class>/ and their splits; all have the same classes."""
    by_split = {
        name: walk_class_folders(root, root / name, skip_unsupported=skip_unsupported)
        for name in names
    }
    classes = {name: {image.class_name for image in listed} for name, listed in by_split.items()}
    for name in names[1:]:
        if odd := sorted(classes[name] ^ classes[names[0]]):
            raise DataError(
                f"The class folder '{odd[0]}' is not in both {root / names[0]} and {root / name}; "
                "every split must have the same classes."
            )
    splits = np.repeat(names, [len(by_split[name]) for name in names])
    return [image for name in names for image in by_split[name]], splits


def number_classes(images: list[FolderImage]) -> tuple[np.ndarray, list[str]]:
    """Return class numbers and class names, numbered in sorted order as torchvision does."""
    class_names = sorted({image.class_name for image in images})
    if len(class_names) < 2:
        raise DataError(f"There is one class folder only ({class_names[0]}); a task needs two.")
    number = {name: i for i, name in enumerate(class_names)}
    return np.array([number[image.class_name] for image in images], dtype=np.int64), class_names


@datasets.register("image_folder")
def load_image_folder(cfg: DataConfig) -> Manifest:
    """Read root/<class>/ or root/{train,val,test}/<class>/.

    Without split folders the splits are drawn later, by identity. The identity is the folder
    between class and file, so that a person may appear in several classes; where there is none,
    every image is its own person. With data.identity=folder it is the class folder.
    """
    root = require_root(cfg)
    require_label(cfg)
    names = [folder.name for folder in list_folders(root)]
    if "train" in names:
        _check_split_names(root, names)
        images, splits = walk_split_folders(
            root, [name for name in SPLITS if name in names], skip_unsupported=cfg.skip_unsupported
        )
    else:
        images = walk_class_folders(root, root, skip_unsupported=cfg.skip_unsupported)
        splits = np.full(len(images), "", dtype="<U5")
    labels, label_names = number_classes(images)
    return Manifest(
        root=root,
        image_paths=[image.image_path for image in images],
        identities=np.array([image.identity(cfg.identity) for image in images]),
        labels=labels,
        splits=splits,
        label_names=label_names,
        title=root.name,
    )


def _check_split_names(root: Path, names: list[str]) -> None:
    for name in names:
        if name not in SPLITS:
            raise DataError(
                f"The folder {root / name} stands beside train, but it is no split; the splits "
                f"are train, val and test. Rename it or move it away.{near_match(name, SPLITS)}"
            )
