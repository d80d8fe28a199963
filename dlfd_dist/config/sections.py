"""Data, model, training, synthesis, transport, metrics, runtime: one frozen dataclass each.

YAML files hold values only; types, defaults, units and rules live here. Each section checks
itself when it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..access import MODES, PRIVATE
from ..errors import ConfigError
from .checks import check_sgd, one_of, require
from .factory import check_data, check_model


@dataclass(frozen=True)
class SyntheticFacesConfig:
    """The synthetic-face generator (data=synthetic). Drawn faces, no real persons."""

    num_identities: int = 24
    """People."""
    images_per_identity: int = 8
    """Images of each."""
    num_expressions: int = 2
    """Number of classes; the label is the expression, never the identity."""
    seed: int = 0
    """Of the faces."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "data.synthetic.seed", self.seed, ">= 0")
        require(
            self.num_identities >= 5, "data.synthetic.num_identities", self.num_identities, ">= 5"
        )
        require(
            self.images_per_identity >= 1,
            "data.synthetic.images_per_identity", self.images_per_identity, ">= 1",
        )  # fmt: skip
        require(
            2 <= self.num_expressions <= 8,
            "data.synthetic.num_expressions", self.num_expressions, "between 2 and 8",
        )  # fmt: skip


@dataclass(frozen=True)
class DataConfig:
    """Which images, which label, and how they become tensors."""

    name: str = "manifest"
    """Registry key: manifest, orl, synthetic, mufac, mucac, raf_db, image_folder, huggingface;
    factory where data.factory names a function."""
    factory: str | None = None
    """Import path of a function that returns the sets, as mypkg.data:splits: a dictionary of torch
    Datasets of (image, label[, identity]) under retain, forget, val and test, or train, val and
    test."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of that function by name."""
    pixel_range: list[Any] | None = None
    """With data.factory: [low, high], the values of its darkest and its lightest pixel, each one
    number or one a channel. Whole numbers are brought from there to 0..1, then mean and std are
    applied; null: all that their type holds. Images of floating-point numbers are read as they
    are; null: the range that is found in them."""
    classes: int | None = None
    """With data.factory: the number of classes; null: the largest label and one."""
    root: str | None = None
    """Folder of the data set; image paths are relative to it and may not leave it."""
    manifest: str = "metadata.csv"
    """CSV or Parquet file under `root` with the columns image_path, identity, the label, and
    optionally split."""
    label: list[str] = field(default_factory=lambda: ["label"])
    """Label column. Several columns make a multi-label task of 0/1 labels."""
    groups: list[str] = field(default_factory=list)
    """Further columns of the manifest whose groups of people are measured one by one, such as
    [gender,race]: forgetting must not cost one group more than the others."""
    image_size: int = 64
    """Edge of the square images in pixels."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    """One number, or one a channel."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    """As mean."""
    augment: str = "none"
    """Training augmentation: none, flip, face (flip, shift, scale, light), mufac, raf_db."""
    augment_groups: int = 16
    """Draws of augmentation parameters per global batch; each group of samples shares one."""
    val_fraction: float = 0.15
    """Share of the people drawn for validation where the data set names no split."""
    test_fraction: float = 0.15
    """Share of the people drawn for the test set where the data set names no split."""
    split_seed: int = 0
    """Seed of that draw."""
    clean: bool = False
    """Leave out images whose pixels are equal to another's, within a part and across parts; of
    equal ones the first is kept, in the order retain, forget, val, test."""
    clean_near: bool = True
    """With clean: near-duplicates too (cropped, compressed, mirrored, relit)."""
    leaks: bool = True
    """Look for equal and nearly equal images before a run, and tell of them in its result."""
    max_megapixels: float = 80.0
    """Largest image that is decoded, in million pixels; a decoded one takes 3 bytes a pixel."""
    draft: bool = False
    """Decode a JPEG that is much larger than data.image_size at half, a quarter or an eighth of its
    edge, at least twice data.image_size: several times faster, and some pixels differ a little."""
    skip_unsupported: bool = False
    """With data=image_folder: leave out images of formats that are not read (HEIC, SVG, raw, ...)
    and say how many; false: refuse them."""
    image_column: str | None = None
    """With data=huggingface: the column of the images; null: image."""
    identity_column: str | None = None
    """With data=huggingface: the column of whom an image shows; null: identity, where there is such
    a column, else each image is its own person."""
    split_column: str | None = None
    """With data=huggingface and a single Dataset: the column that says train, val or test; null:
    split, where there is such a column, else people are drawn."""
    identity: str = "auto"
    """With data=image_folder, who a person is: auto (the folder between class and file, else each
    image), or folder (the class folder)."""
    cache_dir: str | None = None
    """Folder of the decoded uint8 images; null: $DLFD_CACHE, else a folder under ~/.cache."""
    verify: bool = False
    """Read every image file and compare the whole cache with them, whatever is known; false: files
    that have not changed are not read again, and of a set of more than 20000 images 2000 are."""
    synthetic: SyntheticFacesConfig = field(default_factory=SyntheticFacesConfig)

    def __post_init__(self) -> None:
        require(len(self.label) >= 1, "data.label", self.label, "the name of at least one column")
        require(
            8 <= self.image_size <= 1024, "data.image_size", self.image_size, "between 8 and 1024"
        )
        check_data(self)
        require(all(s > 0 for s in self.std), "data.std", self.std, "positive")
        require(
            0 < self.max_megapixels <= 170,
            "data.max_megapixels", self.max_megapixels, "above 0 and at most 170",
        )  # fmt: skip
        one_of("data.identity", self.identity, ("auto", "folder"))
        one_of("data.augment", self.augment, ("none", "flip", "face", "mufac", "raf_db"))
        require(self.augment_groups >= 1, "data.augment_groups", self.augment_groups, ">= 1")
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0 < value < 0.5, f"data.{name}", value, "above 0 and below 0.5")
        require(self.split_seed >= 0, "data.split_seed", self.split_seed, ">= 0")
        if self.clean and self.name == "synthetic":
            raise ConfigError(
                "data.clean=true is not allowed with data=synthetic: drawn faces are all different."
            )


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: backbone, then head; the features are what the last linear layer reads."""

    name: str = "resnet18"
    """Registry key: resnet18, densenet121, efficientnet_b0, vit_b_16; small for trying things;
    factory where model.factory names a function. Of model=timm and model=torchvision the name that
    the network has there, such as convnext_tiny or resnet50."""
    head: str = "linear"
    """linear, or mlp: the 512-256-128-C head of the DLFD paper (features are the 128)."""
    dropout: float = 0.5
    """Dropout of the mlp head, 0..1; a linear head has none."""
    small_stem: bool = False
    """First convolution with stride 1 and no pooling after it, for images below about 64 pixels."""
    library: str | None = None
    """timm or torchvision: the library whose network model.name is; huggingface: transformers.
    Choose it by model=timm, model=torchvision or model=huggingface."""
    folder: str | None = None
    """With model=huggingface: the folder that save_pretrained of transformers wrote. Its weights
    are the checkpoint, where no other is given."""
    factory: str | None = None
    """Import path of a function that returns a torch.nn.Module giving logits, as
    mypkg.nets:build."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments by name of that function, or of the network of a library."""
    features: str | None = None
    """With model.factory or a library: the layer whose output are the features, or module:function
    of (module, images) that returns features and logits; null: what the last linear layer reads."""

    def __post_init__(self) -> None:
        check_model(self)
        one_of("model.head", self.head, ("linear", "mlp"))
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and below 1")

    @property
    def is_ours(self) -> bool:
        """Whether it is a backbone of the registry with a head of ours."""
        return self.factory is None and self.library is None


@dataclass(frozen=True)
class ForgetConfig:
    """Who is to be forgotten: a request file, the published set, or people drawn at random."""

    request: str | None = None
    """Text or CSV file of identities or image paths."""
    published: bool = False
    """Forget what the authors of the data set did (mufac, mucac); elsewhere as fraction says."""
    fraction: float | None = None
    """Share of the training people to draw when there is no request, above 0 and below 1; their
    labels are distributed as those of the test set."""
    seed: int | None = None
    """Seed of that draw; null: the seed of the run, so that every seed forgets other people."""
    rounds: bool = False
    """Draw in rounds, as audits do: the seeds of one round forget disjoint sets of people of equal
    size, so that over many seeds everybody is forgotten equally often. Labels play no part then."""

    def __post_init__(self) -> None:
        if self.request is not None and self.fraction is not None:
            raise ConfigError(
                "forget.request and forget.fraction are both set: give the request file or the "
                "fraction of people, not both."
            )
        if self.request is not None and self.published:
            raise ConfigError(
                "forget.request and forget.published are both set: give the request file or ask "
                "for the published forget set, not both."
            )
        if self.seed is not None:
            require(self.seed >= 0, "forget.seed", self.seed, ">= 0, or null")
        if self.fraction is not None:
            require(0 < self.fraction < 1, "forget.fraction", self.fraction, "above 0 and below 1")

    @property
    def given(self) -> bool:
        return self.request is not None or self.published or self.fraction is not None


@dataclass(frozen=True)
class TrainConfig:
    """Training from scratch: Original (on=all) and Retrained (on=retain)."""

    on: str = "all"
    """all (Original) or retain (Retrained)."""
    epochs: int = 30
    """Passes over the images."""
    lr: float = 0.02
    """Learning rate at the beginning."""
    momentum: float = 0.9
    """Of SGD, 0..1; beta1 of adam."""
    weight_decay: float = 5e-4
    """L2 penalty of the optimiser."""
    global_batch_size: int = 32
    """Images of one step, of all ranks together."""
    optimizer: str = "sgd"
    """sgd or adam."""
    clip_norm: float | None = None
    """Largest gradient norm; null: no clipping."""
    lr_scheduler: str = "cosine"
    """constant, or to zero over the epochs: cosine steps once per epoch, cosine_batch once per
    step."""
    max_steps: int | None = None
    """Steps at most; null: all epochs."""
    select: str = "last"
    """Which weights are delivered: last, or best (those of the epoch with the best validation
    accuracy, which is early stopping and removes part of what unlearning is to remove)."""
    keep_every: int | None = None
    """Epochs between the weights that are kept beside the delivered ones, for method=rewind and
    method.teacher=rewound; null: none are."""
    patience: int | None = None
    """With select=best: stop after so many epochs without a better validation accuracy; null:
    never."""

    def __post_init__(self) -> None:
        one_of("train.on", self.on, ("all", "retain"))
        check_sgd("train", self, schedulers=("constant", "cosine", "cosine_batch"))
        one_of("train.select", self.select, ("last", "best"))
        if self.keep_every is not None:
            require(
                1 <= self.keep_every < self.epochs,
                "train.keep_every", self.keep_every, ">= 1 and below train.epochs, or null",
            )  # fmt: skip
        if self.patience is not None:
            require(self.patience >= 1, "train.patience", self.patience, ">= 1, or null for never")
            if self.select == "last":
                raise ConfigError(
                    f"train.patience={self.patience} is not allowed with train.select=last, which "
                    "trains all epochs: set train.select=best, or leave train.patience out."
                )


@dataclass(frozen=True)
class SynthesisConfig:
    """Projected gradient steps on retain images (DESIGN: component 2 of DLFD)."""

    steps: int = 15
    """Iterations a step of the method."""
    step_size: float = 0.05
    """Step of one iteration in units of the normalised image."""
    pgd_radius: float | None = None
    """Radius of the infinity ball around the image, same unit; null: the range of real pixels."""
    layer: str = "features"
    """Where distributions are compared: features (input of the last linear layer) or logits."""
    save: int = 0
    """Keep the first so many synthesised images as safetensors and a contact sheet."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "synthesis.steps", self.steps, ">= 1")
        require(self.step_size > 0, "synthesis.step_size", self.step_size, "above 0")
        if self.pgd_radius is not None:
            require(
                self.pgd_radius > 0, "synthesis.pgd_radius", self.pgd_radius, "above 0, or null"
            )
        one_of("synthesis.layer", self.layer, ("features", "logits"))
        require(self.save >= 0, "synthesis.save", self.save, ">= 0")


@dataclass(frozen=True)
class TransportConfig:
    """Optimal transport between retain and forget features."""

    cost: str = "cosine"
    """Between two features."""
    solver: str = "auto"
    """exact, entropic, or auto: exact while the larger side of the plan, which with scope=global is
    that of all ranks, has at most 2048 rows, 1024 on a GPU (benchmarks/transport.py, plans.py)."""
    reg: float = 0.01
    """Entropic regularisation in units of the cost (cosine cost lies in 0..2)."""
    max_iter: int = 1000
    """Iterations of the entropic solver at most."""
    scope: str = "global"
    """global: one plan over all ranks; rank: one plan per rank (cheaper for large batches,
    and a different objective, so results then depend on the world size)."""
    lag: int = 0
    """1: an iteration of the synthesis uses the exact plan of the iteration before it, which a
    thread of the host solves while the device goes on, and the first iteration its own plan; the
    ot_cost of a step is then that of the plan used, at least the transport cost. 0: every iteration
    waits for its own plan, which reaches 2 to 4 % more transport cost (benchmarks/plans.py). An
    entropic plan never lags."""

    def __post_init__(self) -> None:
        one_of("ot.cost", self.cost, ("cosine", "squared_euclidean"))
        one_of("ot.solver", self.solver, ("auto", "exact", "entropic"))
        one_of("ot.scope", self.scope, ("global", "rank"))
        require(self.reg > 0, "ot.reg", self.reg, "above 0")
        require(self.max_iter >= 1, "ot.max_iter", self.max_iter, ">= 1")
        require(self.lag in (0, 1), "ot.lag", self.lag, "0 or 1")
        if self.lag and self.solver == "entropic":
            raise ConfigError(
                f"ot.lag={self.lag} is not allowed with ot.solver=entropic, which solves where the "
                "features lie: set ot.lag=0 or ot.solver=exact."
            )


@dataclass(frozen=True)
class MetricsConfig:
    """Evaluation at the end of every run."""

    eval_batch_size: int | None = 256
    """Images per forward pass and rank, in probes too; null: 256, and on a GPU up to 4,096, as many
    as half of its free memory holds. A number makes the passes the same on every GPU, and in a run
    that is continued."""
    num_bootstrap: int = 200
    """Times that the people of forget and unseen images are permuted for the attack's interval."""
    seed: int = 0
    """Seed of the attack's folds and of permutations."""
    separation: bool = False
    """Record the class separation of the features on val with every probe."""
    relearn_steps: int = 0
    """Most steps to relearn the forget set in after unlearning, with the settings of `train`, to
    measure how soon the model is back; 0: not measured."""
    resurface_steps: int | None = None
    """Steps on the retain set alone after training or unlearning, at Fine-tune's learning rate and
    at ten times that, to see whether the forgotten people come back; null: one epoch, and none in
    an evaluation; 0: not measured."""
    resurface_always: bool = False
    """Measure it in an evaluation and in a trial of a search too; the objective resurface sets
    it."""
    custom: list[str] = field(default_factory=list)
    """Metrics of other packages, by name; 'dlfd metrics' lists them. Their figures are
    custom_metrics of the result."""

    def __post_init__(self) -> None:
        require(self.relearn_steps >= 0, "metrics.relearn_steps", self.relearn_steps, ">= 0")
        if self.resurface_steps is not None:
            require(
                self.resurface_steps >= 0,
                "metrics.resurface_steps", self.resurface_steps, ">= 0, or null for one epoch",
            )  # fmt: skip
        if self.eval_batch_size is not None:
            require(
                self.eval_batch_size >= 1,
                "metrics.eval_batch_size", self.eval_batch_size, ">= 1, or null",
            )  # fmt: skip
        require(self.seed >= 0, "metrics.seed", self.seed, ">= 0")
        require(self.num_bootstrap >= 1, "metrics.num_bootstrap", self.num_bootstrap, ">= 1")
        twice = [name for name in self.custom if self.custom.count(name) > 1]
        if twice:
            raise ConfigError(
                f"metrics.custom=[{','.join(self.custom)}] lists {twice[0]} twice: list it once."
            )


@dataclass(frozen=True)
class RuntimeConfig:
    """Where it runs; dtype, autocast, channels_last and fast may change a result, by rounding."""

    world_size: int = 1
    """Ranks on this machine; under torchrun or srun the outer launcher decides instead."""
    device: str = "auto"
    """auto (CUDA where there is any), cpu or cuda."""
    dtype: str = "float32"
    """Of weights and updates: float32 or float64."""
    autocast: str = "none"
    """none, or bfloat16 for the forward passes (weights and updates stay in dtype): of everything,
    or with synthesis or update of that alone; update includes probes and evaluation."""
    channels_last: bool = False
    """Memory format of images and weights; faster with convolutions."""
    fast: bool = True
    """Syntheses and probes forward the model with its BatchNorm folded into the convolutions;
    false: as it is."""
    cuda_graphs: bool = False
    """Folded passes of syntheses and probes, and those of updates by one rank, are captured as CUDA
    graphs, once per shape, and replayed. Each graph holds the memory of its activations, which the
    memory that a run reports leaves out."""
    threads_per_rank: int | None = None
    """CPU threads of one rank; null: the cores of this machine shared among its ranks."""
    init_timeout_s: int = 120
    """Seconds that ranks wait for each other at the start."""
    collective_timeout_s: int = 1800
    """Seconds that ranks wait for each other later."""

    def __post_init__(self) -> None:
        require(self.world_size >= 1, "runtime.world_size", self.world_size, ">= 1")
        if self.threads_per_rank is not None:
            require(
                self.threads_per_rank >= 1,
                "runtime.threads_per_rank", self.threads_per_rank, ">= 1, or null",
            )  # fmt: skip
        for name in ("init_timeout_s", "collective_timeout_s"):
            require(getattr(self, name) >= 1, f"runtime.{name}", getattr(self, name), ">= 1")
        one_of("runtime.device", self.device, ("auto", "cpu", "cuda"))
        one_of("runtime.dtype", self.dtype, ("float32", "float64"))
        one_of("runtime.autocast", self.autocast, ("none", "bfloat16", "synthesis", "update"))
        if self.dtype == "float64" and self.autocast != "none":
            raise ConfigError(
                f"runtime.autocast={self.autocast} needs runtime.dtype=float32, not float64."
            )
        if self.cuda_graphs and not self.fast:
            raise ConfigError("runtime.cuda_graphs=true needs runtime.fast=true, not false.")

    @property
    def synthesis_in_bfloat16(self) -> bool:
        return self.autocast in ("bfloat16", "synthesis")

    @property
    def update_in_bfloat16(self) -> bool:
        return self.autocast in ("bfloat16", "update")


@dataclass(frozen=True)
class RunConfig:
    """The directory of the run and what is kept in it."""

    name: str = "run"
    """How the name of the directory begins."""
    root: str = "runs"
    """Folder of the directories."""
    dir: str | None = None
    """Directory of this run; null: <root>/<name>-<8 hex of what changes results>."""
    mode: str = PRIVATE
    """Of the directories that are made: 700, 750 (the group may read) or 770 (it may write too).
    Files have the same without the right to execute. What searches and submitted campaigns keep
    for themselves is never written by the group: it is run."""
    checkpoint_every: int = 50
    """Steps between checkpoints for resuming."""
    keep_checkpoints: int = 2
    """How many of them are kept."""
    log_every_s: float = 10.0
    """Seconds between progress lines when the output is not a terminal."""

    def __post_init__(self) -> None:
        one_of("run.mode", self.mode, MODES)
        require(self.checkpoint_every >= 1, "run.checkpoint_every", self.checkpoint_every, ">= 1")
        require(self.keep_checkpoints >= 1, "run.keep_checkpoints", self.keep_checkpoints, ">= 1")
        require(self.log_every_s > 0, "run.log_every_s", self.log_every_s, "above 0")
