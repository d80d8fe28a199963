"""CF-k and EU-k: only the last k blocks are trained on the retain set, the rest stays.

CF-k goes on from their weights (catastrophic forgetting), EU-k from new ones (exact unlearning).
Source: Goel et al., Towards Adversarial Evaluations for Inexact Machine Unlearning, 2022.
"""

from __future__ import annotations

from torch import nn

from ..config import LastBlocksConfig, MethodConfig
from ..errors import ConfigError
from ..models import Classifier, knows_blocks, model_blocks
from .base import MethodContext, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("cf_k")
class CFk(UnlearningMethod):
    """Fine-tune the last k blocks."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        self.trained = self._last_blocks(context.model)
        context.model.requires_grad_(False)
        self.trained.requires_grad_(True)

    @classmethod
    def check(cls, cfg: MethodConfig, model: Classifier) -> None:
        assert isinstance(cfg, LastBlocksConfig)
        if not cfg.blocks and not knows_blocks(model):
            names = ", ".join(name for name, _ in model.module.named_children())
            raise ConfigError(
                f"method={cfg.name} trains the last blocks, and nobody has said which layers of "
                f"this model are blocks: give method.blocks=[...], in forward order (it has "
                f"{names})."
            )
        if cfg.k > (count := len(model_blocks(model, cfg.blocks))):
            raise ConfigError(
                f"method.k={cfg.k} is larger than the model: it has {count} blocks with its head. "
                f"Set method.k={count} or less."
            )

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        set_training_mode(self.context, batch)
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)

    def _last_blocks(self, model: Classifier) -> nn.ModuleList:
        cfg = self.context.config.method
        assert isinstance(cfg, LastBlocksConfig)
        return nn.ModuleList(model_blocks(model, cfg.blocks)[-cfg.k :])


@methods.register("eu_k")
class EUk(CFk):
    """Train the last k blocks anew."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        self.trained.load_state_dict(self._last_blocks(context.fresh_model()).state_dict())

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        set_training_mode(self.context, batch)
        if batch.total > 1:
            # New weights come with new statistics, which train_mode=frozen must not freeze.
            self.trained.train()
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)
