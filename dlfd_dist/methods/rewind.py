"""Rewind: go back in the training of the original, and take those epochs again without forget.

Source: Mu and Klabjan, Rewind-to-Delete: Certified Machine Unlearning for Nonconvex Functions,
NeurIPS 2025. Theirs adds normal noise at the end, whose size a certificate asks for; here none is
added and nothing is certified.
"""

from __future__ import annotations

from .base import MethodContext, methods
from .finetune import FineTune


@methods.register("rewind")
class Rewind(FineTune):
    """Begin with the weights that training had method.epochs before its end; then CE(retain)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        context.model.load_state_dict(context.earlier_model().state_dict())
