"""DLFM: distribution-level feature matching, beyond the paper.

Pushing features away is not the same as never having seen somebody. Here the distribution of the
forget set is pulled onto that of people the model was never trained on, in confidence and, class
by class, in features, while retain images and the original model's answers on them keep the task.
docs/methods.md has the reasoning and the limits.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..config import DLFMConfig, MethodConfig
from ..metrics import CHANCE
from ..models import (
    ModelOutput,
    task_confidence,
    task_divergence,
    task_loss,
    task_prediction,
)
from ..synthesis import frozen
from ..transport import match_quantiles, solve_by_class
from .bad_teacher import as_teacher
from .base import MethodContext, Phase, Probe, StepBatch, UnlearningMethod, methods
from .dlfd import synthesise
from .stand_in import StandIn
from .strangers import Strangers, Target, expected_cost
from .update import Updater


@methods.register("dlfm")
class DLFM(UnlearningMethod):
    """Lower CE(retain) + kd_weight * KL(original || model) + match_weight * OT(forget, strangers).

    With method.teacher, KL(stand-in for Retrained || model) on forget images is matched as well.
    Only forget images carry the gradient of the matching: from those they are matched to the model
    learns only where their distribution lies.
    """

    authors_train_mode: ClassVar[str] = "frozen"
    refuses_over_forgetting: ClassVar[bool] = True

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, DLFMConfig)
        self.cfg: DLFMConfig = context.config.method
        self.original = as_teacher(copy.deepcopy(context.model))
        self.stand_in = StandIn(context, self.cfg) if self.cfg.teacher != "none" else None
        self.memory = self._memory() if self.cfg.conditional else None
        self.matching = True

    def _memory(self) -> Strangers:
        bins, collectives = self.cfg.difficulty_bins, self.context.collectives
        if self.cfg.difficulty == "original":
            return Strangers(lambda: self.original, bins, collectives, one_scale=False)
        assert self.stand_in is not None
        return Strangers(self.stand_in.teacher, bins, collectives, one_scale=True)

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        assert isinstance(cfg, DLFMConfig)
        size = cfg.match_batch_size
        strangers = size if cfg.meets_strangers and cfg.reference != "synthesised" else 0
        teach = Phase("teach", epochs=cfg.teacher_epochs, lr=cfg.teacher_lr, selectable=False)
        match = Phase("match", epochs=cfg.epochs, forget_batch=size, reference_batch=strangers)
        return [match] if cfg.teacher == "none" else [teach, match]

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if batch.phase == "teach":
            assert self.stand_in is not None
            (lr, *_) = (group["lr"] for group in updater.optimizer.param_groups)
            return self.stand_in.learn(batch, lr=lr, stop=stop)
        matching = self.matching
        target = self._target(batch) if matching and self.cfg.meets_strangers else None
        kept = self.original(batch.images).logits
        own = len(batch.images)

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            logits = output.logits[:own]
            task = task_loss(logits, batch.labels, "sum") / batch.total
            divergence = task_divergence(logits, kept, batch.labels).sum() / batch.total
            parts = {"retain_loss": task, "retain_divergence": divergence}
            loss = task + self.cfg.kd_weight * divergence
            if matching:
                terms = self._terms(ModelOutput(*(part[own:] for part in output)), target, batch)
                loss = loss + self.cfg.match_weight * torch.stack(list(terms.values())).sum()
                parts |= terms
            return {"loss": loss, **parts}

        # Frozen BatchNorm, and no dropout: both sides of the matching must be the same model.
        self.context.model.eval()
        images = batch.both if matching else batch.images
        return updater.step(images, objective, stop=stop) | {"matching": matching}

    def observe(self, probe: Probe) -> dict[str, Any]:
        if self.cfg.dynamic:
            acts = self._tells(probe)
            if self.memory is not None and acts and not self.matching:
                self.memory.forget_strangers()
            self.matching = acts
        return {"matching": self.matching, "over_forgotten": probe.over_forgotten}

    def _tells(self, probe: Probe) -> bool:
        """Return whether the forget set can still be told from people never seen."""
        if self.cfg.rests_by == "equivalence":
            # Too few people show nothing, which is no equivalence.
            return not (probe.equivalence and probe.equivalence.holds)
        by_confidence = abs(probe.mia_auc - CHANCE) > probe.auc_error
        by_any_attack = probe.forgetting_score > probe.forgetting_score_se
        return by_confidence or by_any_attack

    def state_dict(self) -> dict[str, Any]:
        return {"matching": self.matching}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.matching = state["matching"]

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor
            for name, part in self._parts().items()
            for key, tensor in part.tensors().items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, part in self._parts().items():
            own = {k: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            part.load_tensors({k.removeprefix(f"{name}."): v for k, v in own.items()})

    def _parts(self) -> dict[str, StandIn | Strangers]:
        """Return what has tensors of its own, by name."""
        parts = {"stand_in": self.stand_in, "memory": self.memory}
        return {name: part for name, part in parts.items() if part is not None}

    def _target(self, batch: StepBatch) -> Target:
        images, labels, total = (
            batch.reference_images,
            batch.reference_labels,
            batch.reference_total,
        )
        if self.cfg.reference == "synthesised":
            made = synthesise(
                self.context, batch,
                forget_weight=self.cfg.forget_weight, retain_weight=self.cfg.retain_weight,
            )  # fmt: skip
            images, labels, total = made.images, batch.labels, batch.total
        assert images is not None
        model, gather = self.context.model, self.context.collectives.gather_rows
        with frozen(model), torch.no_grad():
            output = model(images)
        labelled = labels is not None
        classes, judged = labels, labels
        if classes is None or judged is None:
            classes = task_prediction(self.original(images).logits, batch.labels)
            judged = task_prediction(output.logits, batch.labels)
        confidence = task_confidence(output.logits, judged)
        target = Target(
            gather(output.features, total), gather(confidence, total), gather(classes, total),
            gather(batch.forget_labels, batch.forget_total), labelled,
        )  # fmt: skip
        return target if self.memory is None else self.memory.widened(batch, target)

    def _terms(
        self, output: ModelOutput, target: Target | None, batch: StepBatch
    ) -> dict[str, Tensor]:
        """Return this rank's parts of the matching terms that are switched on."""
        terms = {} if target is None else self._stranger_terms(output, target, batch)
        if self.stand_in is not None:
            known = self.stand_in.teacher()(batch.forget_images).logits
            apart = task_divergence(output.logits, known, batch.forget_labels).sum()
            terms["teacher_divergence"] = apart / batch.forget_total
        return terms

    def _stranger_terms(
        self, output: ModelOutput, target: Target, batch: StepBatch
    ) -> dict[str, Tensor]:
        total, collectives, terms = batch.forget_total, self.context.collectives, {}
        labels, ot = batch.forget_labels, self.context.config.ot
        judged = labels if target.labelled else task_prediction(output.logits, labels)
        confidence = task_confidence(output.logits, judged)
        if self.cfg.quantiles:
            terms["quantile_cost"] = match_quantiles(
                confidence, target.confidence, total=total, collectives=collectives
            )
        if self.cfg.conditional:
            own = target.forget_classes[collectives.shard(total)]
            cost = expected_cost(confidence, own, target.confidence, target.classes)
            terms["expected_cost"] = cost / total
        if self.cfg.features:
            terms["ot_cost"] = solve_by_class(
                output.features, target.features, target.forget_classes, target.classes,
                total=total, collectives=collectives,
                cost=ot.cost, solver=ot.solver, reg=ot.reg, max_iter=ot.max_iter,
            ).value  # fmt: skip
        return terms
