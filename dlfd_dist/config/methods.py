"""The settings of every unlearning method; docs/methods.md names the source of each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import ConfigError
from .checks import one_of, require
from .method import MethodConfig
from .rivals import (
    AMUNConfig,
    FCSConfig,
    GLIConfig,
    MSGConfig,
    ResetConfig,
    WeightDistortionConfig,
    WeightDistRegConfig,
)

RESTS = ("synthesis", "rate", "update")


@dataclass(frozen=True)
class DLFDConfig(MethodConfig):
    """DLFD (Choi and Na, AAAI 2025) and its authors' published loop."""

    name: str = "dlfd"
    forget_threshold: float = 0.05
    """Synthesis acts while the last probed forgetting score is above this, 0..0.5."""
    forget_share: float | None = None
    """Synthesis acts while the last probed forgetting score is above this share of that before the
    first step, which means the same on every set (the authors' .15 is .79 of their .19); null:
    above forget_threshold."""
    rests: str = "synthesis"
    """What rests while the score is low enough: synthesis (updates go on with unperturbed images),
    rate (the same, at a tenth of the learning rate) or update (the weights stand still)."""
    clean_share: float = 0.0
    """Share of the retain images of an update that stay unperturbed, 0..1."""
    kd_weight: float = 0.0
    """Weight of the divergence from Original's answers on the unperturbed images of an update."""
    probe_images: int | None = None
    """A probe looks first at so many forget and val images; when their forgetting score lies two
    standard errors above forget_threshold it ends there, and is no candidate of select. Else, and
    after the last step, it looks at all. null: always at all."""
    probe_fraction: float | None = None
    """Share of the validation people whose probes decide when synthesis rests, and who are then
    no part of val: weights and settings are chosen on the others. null: all people for both."""
    forget_weight: float = 3.0
    """Weight of the transport cost in the synthesis."""
    initial_retain_weight: float = 0.0
    """Weight of the classification loss in the synthesis, at the first step."""
    final_retain_weight: float = 1.0
    """The weight of the classification loss in synthesis runs linearly over the steps."""
    distancing: bool = True
    """Ablation: the optimal-transport term of the synthesis."""
    classification: bool = True
    """Ablation: the classification term of the synthesis."""
    dynamic: bool = True
    """Ablation: off, synthesis acts in every step whatever the forgetting score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.forget_threshold <= 0.5,
            "method.forget_threshold", self.forget_threshold, "between 0 and 0.5",
        )  # fmt: skip
        if self.forget_share is not None:
            require(
                0 <= self.forget_share <= 1,
                "method.forget_share",
                self.forget_share,
                "0 to 1, or null",
            )
        one_of("method.rests", self.rests, RESTS)
        require(0 <= self.clean_share < 1, "method.clean_share", self.clean_share, "0 to below 1")
        require(self.kd_weight >= 0, "method.kd_weight", self.kd_weight, ">= 0")
        if self.probe_images is not None:
            require(
                self.probe_images >= 20, "method.probe_images", self.probe_images, ">= 20, or null"
            )
            if self.forget_share is not None:
                raise ConfigError(
                    f"method.probe_images={self.probe_images} looks closer where the score is near "
                    "method.forget_threshold: it is not allowed with method.forget_share."
                )
        if self.probe_fraction is not None:
            self._check_probe_fraction()
        own = ("forget_share", "rests", "clean_share", "kd_weight", "probe_fraction")
        if self.name == "dlfd_official":
            for name in own:
                published = getattr(type(self), name)
                require(
                    getattr(self, name) == published,
                    f"method.{name}", getattr(self, name), f"{published} with method=dlfd_official",
                )  # fmt: skip
        for name in ("forget_weight", "initial_retain_weight", "final_retain_weight"):
            require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), ">= 0")
        if not (self.distancing or self.classification):
            raise ConfigError(
                "method.distancing=false and method.classification=false leave nothing to "
                "synthesise: that is method=finetune."
            )

    def _check_probe_fraction(self) -> None:
        share = self.probe_fraction
        require(
            share is not None and 0 < share < 1,
            "method.probe_fraction",
            share,
            "above 0 and below 1, or null",
        )
        if self.probe_images is not None:
            raise ConfigError(
                f"method.probe_images={self.probe_images} and method.probe_fraction={share} are "
                "two ways to probe fewer images: set one of them to null."
            )


REFERENCES = ("val_split", "manifest", "synthesised")
TEACHERS = ("none", "reset", "rewound")


@dataclass(frozen=True)
class DLFMConfig(MethodConfig):
    """DLFM: match the forget set to people who were never trained on."""

    name: str = "dlfm"
    match_weight: float = 1.0
    """Weight of the matching terms, which are added up."""
    kd_weight: float = 1.0
    """Weight of KL(original || model) on the retain set; 0: no distillation."""
    match_batch_size: int = 64
    """Most images of a forget batch, and of a reference batch, over all ranks."""
    quantiles: bool = True
    """Ablation: transport on a line between the confidences of forget and reference."""
    features: bool = True
    """Ablation: transport between their features, class by class."""
    conditional: bool = False
    """Match every forget image to what strangers of its class and difficulty get on average, over a
    memory of all strangers; the other two terms then read that memory too, features by class and
    difficulty."""
    difficulty: str = "original"
    """Whose loss says how difficult an image is (conditional): original, or teacher (the stand-in,
    which hardly knew the forget set, so that both sides are measured on one scale)."""
    difficulty_bins: int = 4
    """Bins of that loss within a class, at most (conditional)."""
    dynamic: bool = True
    """Matching acts while the probed attack is further from chance than its standard error, on
    either side. Off: in every step."""
    rests_by: str = "attack"
    """What lets matching rest (dynamic): attack (chance, as above) or equivalence (the forget set
    is told from the strangers as val people are, within margin on both sides, people resampled)."""
    margin: float = 0.1
    """Of the difference of two AUCs (rests_by=equivalence), above 0 and below 0.5."""
    reference: str = "val_split"
    """Who is matched to: val_split (some of the validation people, who are then neither probed nor
    selected on), manifest (a set of strangers) or synthesised (DLFD's images, and no people)."""
    reference_fraction: float = 0.5
    """Share of the validation people set apart, above 0 and below 1 (reference=val_split)."""
    reference_seed: int = 0
    """Seed of that draw."""
    reference_manifest: str | None = None
    """CSV of strangers with image_path, from the folder of the CSV on, and if known identity and
    label (reference=manifest). Without labels: see docs/methods.md."""
    forget_weight: float = 3.0
    """Weight of distancing in the synthesis (reference=synthesised)."""
    retain_weight: float = 1.0
    """Weight of classification in the synthesis (reference=synthesised)."""
    teacher: str = "none"
    """Stand-in for Retrained whose answers on forget images are matched too: none, reset (Original,
    reset by reset_strength) or rewound (Original as it was teacher_back epochs before its end),
    each trained for teacher_epochs on the retain set first."""
    teacher_epochs: int = 2
    """Retain epochs of the stand-in, before the first step of matching."""
    teacher_lr: float = 0.02
    """Learning rate of the stand-in at the beginning."""
    teacher_back: int = 10
    """Epochs before the end of training to go back to (teacher=rewound); needs train.keep_every."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("method.reference", self.reference, REFERENCES)
        require(self.match_weight > 0, "method.match_weight", self.match_weight, "above 0")
        for name in ("kd_weight", "forget_weight", "retain_weight", "reference_seed"):
            require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), ">= 0")
        require(
            self.match_batch_size >= 1, "method.match_batch_size", self.match_batch_size, ">= 1"
        )
        require(
            0 < self.reference_fraction < 1,
            "method.reference_fraction", self.reference_fraction, "above 0 and below 1",
        )  # fmt: skip
        if not self.meets_strangers and self.teacher == "none":
            raise ConfigError(
                "method.quantiles=false and method.features=false leave nothing to match: that is "
                "method=finetune with distillation."
            )
        self._check_teacher()
        self._check_conditional()
        self._check_equivalence()
        if (self.reference == "manifest") != (self.reference_manifest is not None):
            raise ConfigError(
                "method.reference=manifest and method.reference_manifest=FILE go together: give "
                "both or neither."
            )

    def _check_teacher(self) -> None:
        one_of("method.teacher", self.teacher, TEACHERS)
        for name in ("teacher_epochs", "teacher_back"):
            require(getattr(self, name) >= 1, f"method.{name}", getattr(self, name), ">= 1")
        require(self.teacher_lr > 0, "method.teacher_lr", self.teacher_lr, "above 0")
        if self.teacher != "none":
            one_of("method.lr_scheduler", self.lr_scheduler, ("constant", "cosine_batch"))

    def _check_conditional(self) -> None:
        require(self.difficulty_bins >= 1, "method.difficulty_bins", self.difficulty_bins, ">= 1")
        one_of("method.difficulty", self.difficulty, ("original", "teacher"))
        if self.difficulty == "teacher" and self.teacher == "none":
            raise ConfigError(
                "method.difficulty=teacher asks the stand-in for Retrained, and "
                "method.teacher=none has none: set method.teacher=reset or rewound."
            )
        if self.conditional and self.reference == "synthesised":
            raise ConfigError(
                "method.conditional=true keeps a memory of strangers, and those of "
                "method.reference=synthesised are others in every step: set "
                "method.reference=val_split or manifest."
            )

    def _check_equivalence(self) -> None:
        one_of("method.rests_by", self.rests_by, ("attack", "equivalence"))
        require(0 < self.margin < 0.5, "method.margin", self.margin, "above 0 and below 0.5")
        if self.rests_by == "attack":
            return
        if self.reference == "synthesised":
            raise ConfigError(
                "method.rests_by=equivalence compares with strangers, and "
                "method.reference=synthesised has none: set method.reference=val_split or manifest."
            )
        if not self.dynamic:
            raise ConfigError(
                "method.rests_by=equivalence says when matching rests, and method.dynamic=false "
                "lets it never rest: leave one of them out."
            )

    @property
    def meets_strangers(self) -> bool:
        """Whether a term matches forget images to strangers."""
        return self.quantiles or self.features or self.conditional

    @property
    def goes_back(self) -> tuple[str, str] | None:
        return ("method.teacher=rewound", "teacher_back") if self.teacher == "rewound" else None


@dataclass(frozen=True)
class NegGradPlusConfig(MethodConfig):
    """NegGrad+ (Kurmanji et al., NeurIPS 2023): alpha * CE(retain) - (1 - alpha) * CE(forget)."""

    name: str = "neggrad_plus"
    alpha: float = 0.95
    """Share of the retain loss, above 0 and at most 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.alpha <= 1, "method.alpha", self.alpha, "above 0 and at most 1")


@dataclass(frozen=True)
class LastBlocksConfig(MethodConfig):
    """CF-k and EU-k (Goel et al. 2022): only the last k blocks of the model are trained."""

    name: str = "cf_k"
    k: int = 3
    """Blocks that are trained, counted from the head, which is the first of them."""
    blocks: list[str] = field(default_factory=list)
    """The layers that are blocks, in forward order, the head last; needed with model.factory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 1, "method.k", self.k, ">= 1")
        if self.reset == "shrink" or (self.reset == "layers" and self.reset_blocks > self.k):
            raise ConfigError(
                f"method={self.name} trains the last {self.k} blocks alone and would leave the "
                "others as a reset makes them: set method.reset=layers and method.reset_blocks="
                f"{self.k} or less."
            )


def _check_retain_fraction(value: float) -> None:
    require(0 < value <= 1, "method.retain_fraction", value, "above 0 and at most 1")


@dataclass(frozen=True)
class UNSIRConfig(MethodConfig):
    """UNSIR (Tarun et al., TNNLS 2023): error-maximising noise, impair, repair."""

    name: str = "unsir"
    noise_steps: int = 40
    """Steps of Adam on the noise, which is learned once."""
    noise_lr: float = 0.1
    """Learning rate of Adam on the noise."""
    noise_penalty: float = 0.1
    """Weight of the squared norm of an image of noise while it is learned."""
    repair_epochs: int = 1
    """Epochs of the repair."""
    repair_lr: float = 1e-4
    """Learning rate of the repair."""
    retain_fraction: float = 1.0
    """Share of the retain set that impair and repair pass over, above 0 and at most 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise_steps >= 1, "method.noise_steps", self.noise_steps, ">= 1")
        require(self.noise_lr > 0, "method.noise_lr", self.noise_lr, "above 0")
        require(self.noise_penalty >= 0, "method.noise_penalty", self.noise_penalty, ">= 0")
        require(self.repair_epochs >= 1, "method.repair_epochs", self.repair_epochs, ">= 1")
        require(self.repair_lr > 0, "method.repair_lr", self.repair_lr, "above 0")
        one_of("method.lr_scheduler", self.lr_scheduler, ("constant",))
        _check_retain_fraction(self.retain_fraction)


@dataclass(frozen=True)
class BadTeacherConfig(MethodConfig):
    """Bad Teacher (Chundawat et al., AAAI 2023): two teachers, one of them incompetent."""

    name: str = "bad_teacher"
    temperature: float = 1.0
    """Divides the logits of teacher and student, above 0."""
    retain_fraction: float = 0.3
    """Share of the retain set that is mixed with the forget set, above 0 and at most 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "method.temperature", self.temperature, "above 0")
        _check_retain_fraction(self.retain_fraction)


@dataclass(frozen=True)
class SCRUBConfig(MethodConfig):
    """SCRUB (Kurmanji et al., NeurIPS 2023): epochs of max steps on forget, min steps on retain."""

    name: str = "scrub"
    max_epochs: int = 3
    """Epochs, from the first, that begin with a pass of max steps over the forget set."""
    forget_batch_size: int = 16
    """Images of a max step: the fewer, the more max steps there are."""
    temperature: float = 4.0
    """Divides the logits of teacher and student, above 0."""
    distill_weight: float = 0.5
    """Weight of the divergence from the original model on the retain set (their alpha)."""
    task_weight: float = 1.0
    """Weight of the classification loss on the retain set (their gamma)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_epochs", "forget_batch_size"):
            require(getattr(self, name) >= 1, f"method.{name}", getattr(self, name), ">= 1")
        require(self.temperature > 0, "method.temperature", self.temperature, "above 0")
        for name in ("distill_weight", "task_weight"):
            require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), ">= 0")


@dataclass(frozen=True)
class SalUnConfig(MethodConfig):
    """SalUn (Fan et al., ICLR 2024): random labels on the salient weights."""

    name: str = "salun"
    sparsity: float = 0.5
    """Share of the weights, those with the smallest gradient on the forget set, that stay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.sparsity < 1, "method.sparsity", self.sparsity, "at least 0 and below 1")


@dataclass(frozen=True)
class SSDConfig(MethodConfig):
    """SSD (Foster et al., AAAI 2024): dampen weights that matter more to forget than to all.

    One pass for the importances, no gradient step: of the optimizer's settings none is read.
    """

    takes_steps: ClassVar[bool] = False

    name: str = "ssd"
    selection: float = 2.0
    """A weight is selected if its importance to forget is above this times that to all (alpha)."""
    dampening: float = 1.0
    """Selected weights shrink by this times the ratio of importances, at most by 1 (lambda)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.selection > 0, "method.selection", self.selection, "above 0")
        require(self.dampening > 0, "method.dampening", self.dampening, "above 0")


@dataclass(frozen=True)
class L1SparseConfig(MethodConfig):
    """l1-sparse (Jia et al., NeurIPS 2023): fine-tune with an l1 penalty that fades out."""

    name: str = "l1_sparse"
    l1_weight: float = 1e-4
    """Weight of the sum of absolute weights in the first epoch; linear to zero over the epochs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.l1_weight >= 0, "method.l1_weight", self.l1_weight, ">= 0")


METHOD_CONFIGS: dict[str, type[MethodConfig]] = {
    "finetune": MethodConfig,
    "neggrad": MethodConfig,
    "neggrad_plus": NegGradPlusConfig,
    "cf_k": LastBlocksConfig,
    "eu_k": LastBlocksConfig,
    "unsir": UNSIRConfig,
    "bad_teacher": BadTeacherConfig,
    "scrub": SCRUBConfig,
    "salun": SalUnConfig,
    "ssd": SSDConfig,
    "l1_sparse": L1SparseConfig,
    "reset": ResetConfig,
    "weight_distortion": WeightDistortionConfig,
    "weight_dist_reg": WeightDistRegConfig,
    "gli": GLIConfig,
    "fcs": FCSConfig,
    "ct": MethodConfig,
    "msg": MSGConfig,
    "amun": AMUNConfig,
    "rewind": MethodConfig,
    "dlfd": DLFDConfig,
    "dlfd_official": DLFDConfig,
    "dlfm": DLFMConfig,
}
