"""Folders as transformers and datasets write them, of tiny models and of drawn faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfd_dist.config import DataConfig, SyntheticFacesConfig
from dlfd_dist.data import Manifest
from dlfd_dist.data import datasets as ours

NAMES = ("calm", "glad")
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
SHAPES: dict[str, dict[str, Any]] = {
    "vit": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 32, "patch_size": 8, "hidden_dropout_prob": 0.1,
    },
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
               "layer_type": "basic"},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2,
                 "drop_path_rate": 0.3},
    "swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32,
             "window_size": 4},
}  # fmt: skip


def write_model(folder: Path, kind: str = "vit", *, dtype: str = "float32", **more: Any) -> Path:
    """Save a tiny classifier and its image processor as their owner would; return the folder."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(kind, **{**SHAPES[kind], **LABELS, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = transformers.AutoModelForImageClassification.from_config(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor = transformers.ViTImageProcessor(
        size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]
    )
    processor.save_pretrained(folder)
    return folder


def faces(people: int = 12) -> Manifest:
    """Return drawn faces as files, four of each person."""
    drawn = SyntheticFacesConfig(num_identities=people, images_per_identity=4)
    return ours.get("synthetic")(replace(DataConfig(name="synthetic"), synthetic=drawn))


def columns(manifest: Manifest) -> dict[str, list[Any]]:
    """Return the rows of drawn faces by column."""
    files = [manifest.root / path for path in manifest.image_paths]
    return {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": manifest.labels.tolist(),
        "identity": manifest.identities.tolist(),
    }


def features(**more: Any) -> Any:
    import datasets

    return datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES)),
        "identity": datasets.Value("string"), **more,
    })  # fmt: skip


def write_faces(folder: Path, held: dict[str, list[Any]], kinds: Any = None) -> Path:
    """Save a Dataset of columns; return the folder."""
    import datasets

    with_progress(False)
    datasets.Dataset.from_dict(held, features=kinds).save_to_disk(folder)
    return folder


def with_progress(shown: bool) -> None:
    import datasets

    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
