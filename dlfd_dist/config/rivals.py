"""The settings of the methods of 2024 to 2026; docs/methods.md names the source of each default."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import one_of, require
from .method import MethodConfig


@dataclass(frozen=True)
class ResetConfig(MethodConfig):
    """Reset (Ash and Adams, NeurIPS 2020): shrink towards fresh weights, then retain epochs."""

    name: str = "reset"
    shrink: float = 0.5
    """Every weight becomes this times itself plus the rest times a fresh one, at least 0 and below
    1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.shrink < 1, "method.shrink", self.shrink, "at least 0 and below 1")


@dataclass(frozen=True)
class WeightDistortionConfig(MethodConfig):
    """Weight Distortion (Siddiqui et al. 2025): noise on every weight, then retain epochs."""

    name: str = "weight_distortion"
    noise_std: float = 0.02
    """Standard deviation of the normal noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise_std > 0, "method.noise_std", self.noise_std, "above 0")


@dataclass(frozen=True)
class WeightDistRegConfig(MethodConfig):
    """Weight Dist Reg (Siddiqui et al. 2025): CE(retain) less the distance from the original."""

    name: str = "weight_dist_reg"
    distance_weight: float = 1.0
    """Weight of the root mean square of what the weights have moved (their alpha)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.distance_weight > 0, "method.distance_weight", self.distance_weight, "above 0")


@dataclass(frozen=True)
class GLIConfig(MethodConfig):
    """GLI (Choi et al., CVPR workshops 2024): retain images guided away from forget images."""

    name: str = "gli"
    guide_steps: int = 2
    """Sign-gradient steps on the retain images of a batch."""
    guide_step_size: float = 0.02
    """Step of one iteration in units of the normalised image."""
    initial_retain_weight: float = 200.0
    """Weight of the classification loss in the guide, at the first step."""
    final_retain_weight: float = 1000.0
    """The weight of the classification loss in the guide runs linearly over the steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.guide_steps >= 1, "method.guide_steps", self.guide_steps, ">= 1")
        require(self.guide_step_size > 0, "method.guide_step_size", self.guide_step_size, "above 0")
        for name in ("initial_retain_weight", "final_retain_weight"):
            require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), ">= 0")


@dataclass(frozen=True)
class FCSConfig(MethodConfig):
    """FCS (winner of the NeurIPS 2023 challenge): forget towards uniform, then forget rounds of a
    contrast between retain rounds; method.lr and method.weight_decay are those of the retain
    rounds."""

    name: str = "fcs"
    uniform_lr: float = 0.005
    """Learning rate of the first pass over the forget set."""
    forget_lr: float = 3e-4
    """Learning rate of the first forget round; a cosine to zero over the epochs."""
    temperature: float = 1.15
    """Divides the products of logits in the forget rounds, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("uniform_lr", "forget_lr", "temperature"):
            require(getattr(self, name) > 0, f"method.{name}", getattr(self, name), "above 0")
        one_of("method.lr_scheduler", self.lr_scheduler, ("constant",))


@dataclass(frozen=True)
class MSGConfig(MethodConfig):
    """MSG (Cadet et al. 2024): draw the convolution weights with small gradients anew."""

    name: str = "msg"
    reinit_share: float = 0.3
    """Share of the weights of every convolution that is drawn anew, above 0 and below 1."""
    kept_gradient: float = 0.1
    """What the gradients of the other weights of convolutions are multiplied by, 0..1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.reinit_share < 1,
            "method.reinit_share", self.reinit_share, "above 0 and below 1",
        )  # fmt: skip
        require(
            0 <= self.kept_gradient <= 1,
            "method.kept_gradient", self.kept_gradient, "between 0 and 1",
        )  # fmt: skip


@dataclass(frozen=True)
class AMUNConfig(MethodConfig):
    """AMUN (Ebrahimpour-Boroojeny et al., ICML 2025): train on adversarial forget images."""

    name: str = "amun"
    attack_steps: int = 50
    """Gradient steps before the radius of an image that is not yet misclassified is doubled."""
    attack_radius: float = 0.01
    """First radius of the ball, an l2 norm in units of pixels between 0 and 1."""
    forget_images: bool = True
    """Train on the forget images under their own labels too, besides their adversarial ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.attack_steps >= 1, "method.attack_steps", self.attack_steps, ">= 1")
        require(self.attack_radius > 0, "method.attack_radius", self.attack_radius, "above 0")
