"""Data sets: manifests, splits, forget requests, the image cache and batches."""

from . import huggingface, image_folder, mucac, mufac, orl, raf_db, sets, synthetic  # noqa: F401  (fill the registry)
from .manifest import Manifest, datasets
from .splits import Splits

__all__ = ["Manifest", "Splits", "datasets"]
