"""The settings that make a run take a second, in one place for all tests."""

from __future__ import annotations

TINY_FACES = (
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "data.synthetic.images_per_identity=4", "forget.fraction=0.25",
)  # fmt: skip
"""Faces of 12 people: 8 are for training, 2 of them to be forgotten; 2 are for val, 2 for test."""

TINY_RUN = (
    "model=small", "train.epochs=2", "train.global_batch_size=8", "method.global_batch_size=8",
    "metrics.num_bootstrap=20", "metrics.resurface_steps=0", "synthesis.steps=3",
    "runtime.threads_per_rank=1",
)  # fmt: skip
"""The small backbone and few steps, for any data."""

TINY = (*TINY_FACES, *TINY_RUN)

LEARNED = ("train.epochs=24", "train.lr=0.02")
"""With these model=small learns its training people by heart: a forget loss of 0.02, against 2.3 of
Retrained. After the 2 epochs of TINY both are at chance."""
