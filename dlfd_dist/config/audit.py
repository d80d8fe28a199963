"""Settings of dlfd audit itself: how many shadow models, and how they are judged."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import one_of, require


@dataclass(frozen=True)
class AuditConfig:
    """The section `audit` of the command line; no run knows of it."""

    models: int = 16
    """Shadow models: so many each of Original, Retrained, control, and of every method. Asked for
    more later, the first ones are found again."""
    control: bool = True
    """Train Retrained a second time with another seed and audit it as if it were a method: it must
    come out at chance. Without it nothing tests the audit itself."""
    variance: str = "auto"
    """Of the Gaussian fits: example (one per image), pooled (one per world, over all images), or
    auto: pooled below 64 models, as few values give no variance (Carlini et al. 2022, VI-D)."""
    num_bootstrap: int = 1000
    """Resamples of models and people behind every interval."""
    top: int = 10
    """How many of the most exposed people are listed."""
    workers: int | None = None
    """Runs at a time, each on its share of the cores; null: one per core."""

    def __post_init__(self) -> None:
        require(self.models >= 2, "audit.models", self.models, ">= 2")
        one_of("audit.variance", self.variance, ("auto", "example", "pooled"))
        require(self.num_bootstrap >= 1, "audit.num_bootstrap", self.num_bootstrap, ">= 1")
        require(self.top >= 0, "audit.top", self.top, ">= 0")
        if self.workers is not None:
            require(self.workers >= 1, "audit.workers", self.workers, ">= 1, or null")
