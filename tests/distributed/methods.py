"""The settings of every method over ranks, and what two of its runs are compared by."""

from __future__ import annotations

from typing import Any

import torch

from dlfd_dist.compose import job_from_dict
from dlfd_dist.jobs import run_job
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.tiny import LEARNED

METHODS = {
    "dlfd": [
        "method=dlfd",
        "method.dynamic=false",
        "synthesis.save=12",
        "model=resnet18",
        "metrics.resurface_steps=2",
    ],
    "finetune": ["method=finetune", "method.augment=true", "data.augment=face"],
    # Statistics on 15 of the retain images in a batch of 15: 4 ranks have 4, 4, 4 and 3.
    "finetune_reset": ["method=finetune", "method.reset=shrink", "method.reset_images=15"],
    "dlfm_reset": ["method=dlfm", "method.dynamic=false", "method.reset=layers"],
    "dlfd_sync_bn": [
        "method=dlfd",
        "method.dynamic=false",
        "train_mode=sync_bn",
        "model=resnet18",
    ],
    "dlfd_dropout": ["method=dlfd", "method.dynamic=false", "model.head=mlp"],
    "dlfd_clean": [
        "method=dlfd",
        "method.clean_share=0.5",
        "method.kd_weight=1.0",
        "method.forget_share=0.9",
        "method.rests=rate",
    ],
    "dlfd_lagged": ["method=dlfd", "method.dynamic=false", "ot.lag=1"],
    "dlfd_entropic": ["method=dlfd", "method.dynamic=false", "ot.solver=entropic"],
    # Relearned in batches of 3, 3 and 2 forget images, which 4 ranks share unevenly.
    "neggrad": [
        "method=neggrad",
        "method.epochs=3",
        "method.lr=0.05",
        "metrics.relearn_steps=4",
        "train.global_batch_size=3",
        "train.lr=0.002",
    ],
    "neggrad_plus": ["method=neggrad_plus", "method.alpha=0.7"],
    "cf_k": ["method=cf_k"],
    "cf_k_frozen": ["method=cf_k", "train_mode=frozen"],
    "eu_k": ["method=eu_k"],
    "unsir": ["method=unsir", "method.retain_fraction=0.5"],  # 10 and 2 images, impair and repair
    "bad_teacher": ["method=bad_teacher", "method.epochs=2"],  # 15 mixed images: 10 and 5, twice
    "bad_teacher_dropout": ["method=bad_teacher", "method.epochs=2", "model.head=mlp"],
    # 2 of max (8 forget images in batches of 4), 3 of min, max
    "scrub": ["method=scrub", "method.forget_batch_size=4", "method.max_steps=6"],
    "salun": ["method=salun", "method.max_steps=4"],  # saliency, relabel, 2 of repair
    "ssd": ["method=ssd", "method.selection=1", "method.max_steps=null"],  # 32 mixed: 10, 10, 10, 2
    "l1_sparse": ["method=l1_sparse"],
    "reset": ["method=reset"],
    "weight_distortion": ["method=weight_distortion"],
    "weight_dist_reg": ["method=weight_dist_reg", "method.distance_weight=10"],
    "gli": ["method=gli", "method.guide_steps=3"],
    # 1 towards uniform, 1 of contrast, 3 of repair, 1 of contrast
    "fcs": ["method=fcs", "method.max_steps=6"],
    "ct": ["method=ct"],
    "msg": ["method=msg", "method.max_steps=4"],  # 2 for the gradients of 16 images, 2 of repair
    "amun": ["method=amun", "method.max_steps=3"],  # 1 of attacks, 2 of unlearn
    "rewind": ["method=rewind", "method.epochs=1", "train.epochs=3", "train.keep_every=2"],
    # 8 forget images meet 4 of one val person in batches of 3 and 2, or 8 and 2.
    "dlfm": ["method=dlfm", "method.dynamic=false", "method.match_batch_size=3"],
    "dlfm_equivalence": [
        "method=dlfm",
        "method.rests_by=equivalence",
        "method.probe_every=1",
        "method.match_batch_size=3",
    ],
    "dlfm_conditional": [
        "method=dlfm",
        "method.dynamic=false",
        "method.conditional=true",
        "method.difficulty_bins=2",
        "method.match_batch_size=3",
        "method.quantiles=false",
    ],
    # 3 steps of the stand-in, 2 of matching.
    "dlfm_teacher": [
        "method=dlfm",
        "method.dynamic=false",
        "method.teacher=reset",
        "method.teacher_epochs=1",
        "method.max_steps=5",
        "method.features=false",
        "model.head=mlp",
    ],
    "dlfm_synthesised": [
        "method=dlfm",
        "method.dynamic=false",
        "method.reference=synthesised",
        "model.head=mlp",
    ],
}
ON_2_RANKS = ("dlfd", "neggrad", "scrub")
"""Run on 2 ranks as well; tests/distributed/test_going_on.py stops others on 2 ranks."""

PHASES = {
    "unsir": ["impair", "impair", "repair"],
    "bad_teacher": ["distill"] * 3,
    "scrub": ["max", "max", "min", "min", "min", "max"],
    "salun": ["saliency", "relabel", "repair", "repair"],
    "ssd": ["importance"] * 4,
    "fcs": ["uniform", "contrast", "repair", "repair", "repair", "contrast"],
    "msg": ["gradients", "gradients", "repair", "repair"],
    "amun": ["attack", "unlearn", "unlearn"],
    "dlfm_teacher": ["teach"] * 3 + ["match"] * 2,
}
UNEVEN = [
    # 24 retain images in batches of 10, 10, 4: 10 does not divide by 4, and neither does the forget
    # batch of 8 and the val set of 8 by 3.
    "method.global_batch_size=10",
    "method.max_steps=3",
    "method.select=last",
    "method.clip_norm=1",
    "method.lr=0.002",
    "runtime.dtype=float64",
    "metrics.num_bootstrap=5",
]


def training_words(name: str, *more: str) -> list[str]:
    """Return the settings that the original model of a method is trained with."""
    read = ("model=", "model.head=", "train.epochs=", "train.keep_every=")
    words = [word for word in [*METHODS[name], *more] if word.startswith(read)]
    # model=small would be at chance on the forget set and have nothing to relearn.
    relearns = name == "neggrad" and "model=resnet18" not in words
    return [*words, *LEARNED] if relearns else words


def run_on_rank(group: Collectives, values: dict[str, Any]) -> None:
    run_job(job_from_dict(values), group, StopFlag())


def relative_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two states, tensor by tensor relative to its norm."""
    assert one.keys() == other.keys()
    return max(
        float((one[k].double() - other[k].double()).norm() / one[k].double().norm().clamp(min=1e-9))
        for k in one
    )
