"""Whether a module that somebody else made can be unlearned, said before anything is trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..errors import ModelError
from ..runtime.collectives import Collectives
from ..runtime.sync_bn import freeze_batch_norm, local_batch_norms
from .classifier import Classifier
from .features import ADVICE, evaluating
from .heads import set_dropout_rows

TWO = 2
"""Images that a model is tried on."""


def check_classifier(
    model: Classifier, images: Tensor, *, num_outputs: int, multi_label: bool, world_size: int
) -> None:
    """Raise ModelError for a model that is no classifier of these images and labels.

    Parameters
    ----------
    images : (2, channels, H, W) as the model is to take them
    num_outputs : of the data: classes, or labels
    """
    with evaluating(model):
        logits = _logits(model, images)
        _check_logits(logits, num_outputs, multi_label=multi_label)
        with torch.no_grad():
            features = model(images).features
        if features.ndim != 2 or len(features) != len(images):
            raise ModelError(
                f"The features are {tuple(features.shape)} of {len(images)} images, and must be a "
                f"row for each: {ADVICE}."
            )
        if not torch.equal(logits, _logits(model, images)):
            raise ModelError(
                "The model answers the same images differently in evaluation mode: let it draw "
                "at random in training mode only (self.training)."
            )
        _check_used(model, logits)
    if world_size > 1:
        _check_ranks(model, images)


def _logits(model: Classifier, images: Tensor) -> Tensor:
    try:
        logits = model.module(images)
    # A stranger's module may raise anything.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise ModelError(
            f"The model does not take the images of the data, which are {_shape(images)} "
            f"({lines[0].rstrip('.')})."
        ) from err
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"The model gives no logits but a {type(logits).__name__}: wrap it in a module whose "
            "forward returns one tensor (images, outputs)."
        )
    return logits


def _shape(images: Tensor) -> str:
    channels, height, width = images.shape[1:]
    return f"{channels} x {height} x {width} (channels, height, width)"


def _check_logits(logits: Tensor, num_outputs: int, *, multi_label: bool) -> None:
    if logits.ndim != 2 or len(logits) != TWO or not logits.is_floating_point():
        raise ModelError(
            f"The model gives {tuple(logits.shape)} of {logits.dtype} for {TWO} images: logits are "
            "a row of numbers for each, one number a class or label."
        )
    if logits.shape[1] != num_outputs:
        what, advice = (
            ("labels", "give as many labels for each image")
            if multi_label
            else ("classes", f"set data.classes={logits.shape[1]} if some classes have no image")
        )
        raise ModelError(
            f"The model gives {logits.shape[1]} logits, and the data have {num_outputs} {what}: "
            f"{advice}, or give the model that belongs to the data."
        )
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("The logits of the model are NaN or infinite: check its weights.")


def _check_used(model: Classifier, logits: Tensor) -> None:
    """Refuse weights that have no part in the logits: ranks would wait for their gradients."""
    parameters = dict(model.module.named_parameters())
    if not logits.requires_grad:
        raise ModelError(
            "The logits of the model have no gradient: its forward pass must not detach them, nor "
            "run under torch.no_grad()."
        )
    gradients = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    unused = [name for name, g in zip(parameters, gradients, strict=True) if g is None]
    if unused:
        raise ModelError(
            f"{len(unused)} weights of the model have no part in its logits ({unused[0]}, ...): "
            "give the module without these layers."
        )


def _check_ranks(model: Classifier, images: Tensor) -> None:
    """Refuse what would let the number of ranks decide a result."""
    if names := local_batch_norms(model.module):
        raise ModelError(
            f"The layer {names[0]} normalises by the images of one rank alone, so that results "
            "would depend on their number: use BatchNorm with weights and a momentum, or one rank."
        )
    trained = copy.deepcopy(model).train()
    freeze_batch_norm(trained)
    set_dropout_rows(trained, [len(images)], Collectives(), 0)
    trained.seeded = False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        first, other = (trained(images).logits for _ in range(2))
    if not torch.equal(first, other):
        raise ModelError(
            "The model draws at random by other means than torch.nn.Dropout, so that results would "
            "depend on the number of ranks: set the rate of its drop path or functional dropout to "
            "0, or use one rank."
        )
