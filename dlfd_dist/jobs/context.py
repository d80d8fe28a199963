"""A run made ready: data resolved, model built and loaded, directory claimed."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..compose import config_text, load_config
from ..config import JobConfig, MethodConfig, TrainConfig, signature, signed_settings
from ..data import datasets
from ..data.loaders import Batches, DataReader, ResolvedData, ResolvedRows
from ..data.reference import ReferencePeople, reference_digest, reference_people
from ..digests import FileState, file_digest, known_files
from ..errors import CheckpointError, ConfigError, DataError, RunDirError
from ..factories import GIVEN, code_digest
from ..libraries import digests as library_digests
from ..logs import close_rank_log, open_rank_log
from ..methods import Updater, methods
from ..metrics import custom_metrics
from ..models import Classifier, backbones, check_weights, weights_path
from ..plain import band, counted
from ..provenance import of_this_process, utc
from ..run_dir import RunDir, write_json, write_text
from ..runtime.collectives import Collectives
from ..runtime.env import RankInfo, job_info
from ..runtime.init import pick_device
from ..runtime.seeding import derive_seed, purpose_key
from ..trackers import Tracking, check_trackers
from .agreement import check_agreement
from .lost_ranks import explained
from .models import DTYPES, checked_outline, make_model, num_bytes
from .trained import check_classes, check_trained

logger = logging.getLogger(__name__)


LOST_LOCK_S = 150.0
"""A start that follows another waits so long for the lock of that one, whose node may be lost."""


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs are known to be usable; nothing has been written."""

    config: JobConfig
    data: ResolvedData
    inputs: dict[str, str]
    """SHA-256 of the data, the request, and the checkpoints that go in"""
    signature: str
    run_dir: RunDir
    people: ReferencePeople | None = None
    """who is set apart, for dlfm to match to or for dlfd to probe on; they are no part of `data`"""
    model_bytes: int = 0
    """of the weights of its model"""
    files: Mapping[str, FileState] = field(default_factory=dict)
    """the checkpoints, as they were when their digests were taken"""
    rewound: str | None = None
    """the weights that the method goes back to, once method.steps has given it other epochs"""

    def finished(self) -> bool:
        """Whether the run directory holds this run's result; RunDirError if it holds another's."""
        self.run_dir.check(self.signature, self.inputs, signed_settings(self.config))
        return self.run_dir.finished()

    def claim(self) -> None:
        """Create or join the run directory."""
        self.run_dir.check(self.signature, self.inputs, signed_settings(self.config))
        if not self.run_dir.finished():
            _check_space(self)
        self.run_dir.claim(self.signature, self.inputs, config_text(self.config))
        write_text(self.run_dir.request, self.data.request.to_csv())
        if self.config.data.clean:
            write_text(self.run_dir.removed, self.data.removals.to_csv())
        if self.data.leaks is not None:
            write_text(self.run_dir.leaks, self.data.leaks.to_csv())
        record_files(self.run_dir, self.config)

    def check_unchanged(self, checkpoint: str) -> None:
        """Raise CheckpointError where a checkpoint is no longer the file that was prepared."""
        for name, path in _checkpoints(self.config, self.rewound).items():
            if path != checkpoint or name not in self.files:
                continue
            file = weights_path(path)
            if FileState.of(file) != self.files[name] and file_digest(file) != self.inputs[name]:
                raise CheckpointError(
                    f"{file} was replaced after this run was prepared: give the run a {name} that "
                    "nobody writes, in a new run.dir."
                )


@dataclass(frozen=True)
class Job:
    """A prepared run on this rank."""

    prepared: Prepared
    collectives: Collectives
    batches: Batches
    reference: Batches | None = None
    """of the people who are set apart"""
    tracking: Tracking | None = None
    """on the main rank of a run with trackers"""

    @property
    def reference_ids(self) -> np.ndarray:
        people = self.prepared.people
        return np.empty(0, dtype=np.int64) if people is None else people.ids

    @property
    def probed_apart(self) -> bool:
        """Whether what a method hears of is measured on people of its own."""
        return self.prepared.people is not None and self.prepared.people.kind == "probed"

    def reference_shard(self, ids: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Return this rank's images and labels, where known, of those who are matched to."""
        people = self.prepared.people
        assert self.reference is not None
        assert people is not None
        images, labels = self.reference.shard(ids)
        return images, labels if people.labelled else None

    @property
    def config(self) -> JobConfig:
        return self.prepared.config

    @property
    def data(self) -> ResolvedData:
        return self.prepared.data

    @property
    def run_dir(self) -> RunDir:
        return self.prepared.run_dir

    def model(self, checkpoint: str | None) -> Classifier:
        """Return a model on this rank's device, with the weights of a checkpoint if given."""
        model = make_model(self.config, self.data, checkpoint)
        if checkpoint is not None:
            self.prepared.check_unchanged(checkpoint)
        return self._placed(model)

    def fresh_model(self) -> Classifier:
        """Return a model with new weights: not those that a training of this seed began with."""
        seed = derive_seed(self.config.seed, purpose_key("fresh weights"))
        return self._placed(make_model(replace(self.config, seed=seed), self.data, None))

    def earlier_model(self) -> Classifier:
        """Return a model with the weights of the epoch that the method goes back to."""
        return self.model(self.prepared.rewound or str(earlier_weights(self.config)))

    def updater(
        self,
        model: Classifier,
        cfg: TrainConfig | MethodConfig,
        optimizers: Mapping[str, float | None] | None = None,
    ) -> Updater:
        """Return what moves the weights of a model by these settings, as runtime says.

        optimizers : as in Updater
        """
        return Updater(
            model, cfg, collectives=self.collectives, optimizers=optimizers,
            cuda_graphs=self.config.runtime.cuda_graphs,
        )  # fmt: skip

    def _placed(self, model: Classifier) -> Classifier:
        model = model.to(self.collectives.device)
        if self.config.runtime.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


def prepare(config: JobConfig, world_size: int, reader: DataReader | None = None) -> Prepared:
    """Check everything a run needs before it starts; write nothing.

    Raises DlfdError of the kind that fits: configuration, data, request or checkpoint.

    Parameters
    ----------
    reader : has the data sets that this process has read before
    """
    config.validate(world_size)
    check_trackers(config.trackers)
    pick_device(config.runtime, RankInfo())
    reader = reader or DataReader()
    rows = reader.rows(config.data, config.drawn_forget)
    data, people = matched(config, reader.data(config.data, config.drawn_forget))
    check_enough(config, data, world_size)
    check_trained(config, rows)
    model = checked_outline(config, data, world_size)
    for path in _checkpoints(config).values():
        check_weights(model, path)
        check_classes(Path(path), data.manifest.label_names)
        if config.verb == "unlearn":
            methods.get(config.method.name).check_settings(config.method, model)
    files = {name: FileState.of(weights_path(p)) for name, p in _checkpoints(config).items()}
    inputs = input_digests(config, rows)
    sign, run_dir = run_identity(config, inputs)
    return Prepared(config, data, inputs, sign, run_dir, people, num_bytes(model), files)


def _checkpoints(config: JobConfig, rewound: str | None = None) -> dict[str, str]:
    paths = {"checkpoint": config.checkpoint, "reference": config.reference}
    if config.verb == "unlearn" and config.method.goes_back:
        paths["rewound"] = rewound or str(earlier_weights(config))
    return {name: path for name, path in paths.items() if path is not None}


def earlier_weights(config: JobConfig) -> Path:
    """Return the file of the weights of the epoch that the method goes back to.

    Raises CheckpointError where the checkpoint is no training run, or one that kept none of then.
    """
    assert config.method.goes_back is not None
    reader, setting = config.method.goes_back
    run = RunDir(Path(config.checkpoint or ""))
    trained = load_config(run.config, plugins=config.plugins) if run.finished() else None
    if trained is None or trained.verb != "train":
        raise CheckpointError(
            f"checkpoint={config.checkpoint} is not the directory of a finished training run, and "
            f"{reader} goes back in its training: give that directory."
        )
    last = trained.train.epochs
    epoch = last - (num_back := getattr(config.method, setting))
    if not run.epoch_model(epoch).is_file():
        back = ", ".join(str(last - kept) for kept in reversed(run.kept_epochs()))
        advice = (
            f"set method.{setting} to one of {back}" if back else "train it with train.keep_every"
        )
        raise CheckpointError(
            f"method.{setting}={num_back} goes back to epoch {epoch} of {last}, whose "
            f"weights {config.checkpoint} did not keep: {advice}."
        )
    return run.epoch_model(epoch)


def matched(config: JobConfig, data: ResolvedData) -> tuple[ResolvedData, ReferencePeople | None]:
    """Return the data without those whom an unlearning run matches to, and them."""
    if config.verb != "unlearn":
        return data, None
    return reference_people(data, config.method, config.data)


def input_digests(config: JobConfig, rows: ResolvedRows) -> dict[str, str]:
    """Return SHA-256 of everything that goes into a run: data, request, checkpoints."""
    given = {name: file_digest(weights_path(path)) for name, path in _checkpoints(config).items()}
    strangers = reference_digest(config.method) if config.verb == "unlearn" else {}
    return rows.digests() | given | strangers | _code_digests(config)


def _code_digests(config: JobConfig) -> dict[str, str]:
    """Return SHA-256 of the code of the functions that a configuration names."""
    named = {
        "model_code": config.model.factory,
        "features_code": config.model.features if ":" in (config.model.features or "") else None,
        "data_code": config.data.factory,
        **_of_plugins(config),
    }
    digests = {
        name: code_digest(path)
        for name, path in named.items()
        if path is not None and not path.startswith(GIVEN)
    }
    return digests | library_digests(config.model)


def _of_plugins(config: JobConfig) -> dict[str, str]:
    """Return the modules of what other packages registered and this configuration chooses."""
    chosen: dict[str, Any] = {}
    if config.verb == "unlearn":
        chosen["method_code"] = methods.get(config.method.name)
    if config.model.is_ours:
        chosen["model_code"] = backbones.get(config.model.name)
    if config.data.factory is None:
        chosen["data_code"] = datasets.get(config.data.name)
    for name in config.metrics.custom:
        chosen[f"metric_{name}_code"] = custom_metrics.get(name)
    ours = __name__.partition(".")[0] + "."
    modules = {name: plugin.__module__ for name, plugin in chosen.items()}
    return {name: module for name, module in modules.items() if not module.startswith(ours)}


def run_identity(config: JobConfig, inputs: dict[str, str]) -> tuple[str, RunDir]:
    """Return the signature of a run and its directory: run.dir, or one named by the signature."""
    sign = signature(config, inputs)
    path = config.run.dir or str(Path(config.run.root) / f"{config.run.name}-{sign}")
    return sign, RunDir(Path(path))


def record_files(run_dir: RunDir, config: JobConfig) -> None:
    """Write down which digests are known of which files, so that the ranks need not read them."""
    files = {name: weights_path(path) for name, path in _checkpoints(config).items()}
    if known := known_files(files):
        write_json(run_dir.prepared, known)


def check_enough(config: JobConfig, data: ResolvedRows, world_size: int) -> None:
    """Raise DataError or ConfigError where there are too few images for what is asked."""
    smallest = {"train": data.splits.train, "unlearn": data.splits.retain}.get(config.verb)
    if smallest is not None and world_size > len(smallest):
        raise DataError(
            f"runtime.world_size={world_size} is larger than the data: there are {len(smallest)} "
            "images to share among the ranks. Use fewer ranks."
        )
    forgets = config.verb == "unlearn" or (config.verb == "train" and config.train.on == "retain")
    if forgets and not len(data.splits.forget):
        raise DataError(
            "Nobody to forget: the sets name nobody. Give the set forget, or with the set train "
            "the people of it: forget=[...] in Python, forget.request=FILE or forget.fraction=0.2."
        )
    if config.verb == "unlearn":
        _check_forget_set(config.method, len(data.splits.forget), len(data.splits.val))


def _check_forget_set(cfg: MethodConfig, num_forget: int, num_val: int) -> None:
    if cfg.probe_attack == "mia_paper" and (
        min(num_forget, num_val) < 2 or num_forget + num_val < 11
    ):
        raise DataError(
            f"method.probe_attack=mia_paper needs at least 2 forget and 2 val images and 11 "
            f"together, not {num_forget} and {num_val}: use method.probe_attack=mia."
        )
    if methods.get(cfg.name).equal_batches and num_forget < cfg.global_batch_size:
        raise ConfigError(
            f"method.global_batch_size={cfg.global_batch_size} is larger than the forget set of "
            f"{num_forget} images, and method={cfg.name} passes over batches of unequal size: "
            f"nothing would be done. Set method.global_batch_size={num_forget} or less."
        )


def _check_space(prepared: Prepared) -> None:
    """Refuse to start when the disk cannot hold the run's models: checkpoints of weights, the best
    ones and what optimizers gather, and the weights of the epochs that are kept."""
    config = prepared.config
    kept = config.train.epochs // config.train.keep_every if config.train.keep_every else 0
    needed = prepared.model_bytes * (1 + _parts(config) * (config.run.keep_checkpoints + 1))
    needed += prepared.model_bytes * kept * (config.verb == "train")
    path = prepared.run_dir.path.absolute()
    free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
    # What an earlier start of the run left is written over.
    free += sum(p.stat().st_size for p in prepared.run_dir.checkpoints.rglob("*") if p.is_file())
    if free < needed:
        raise RunDirError(
            f"run.dir={prepared.run_dir.path} has {free / 1e6:.0f} MB free, and the run needs "
            f"about {needed / 1e6:.0f} MB: free some space or choose another disk."
        )


def _parts(config: JobConfig) -> int:
    """Return how many times a checkpoint has as many values as the model."""
    if config.verb != "unlearn":
        return 3
    cfg = config.method
    optimizers = {phase.optimizer for phase in methods.get(cfg.name).phases(cfg)} | {""}
    return 2 + len(optimizers) * (2 if cfg.optimizer == "adam" else 1)


def _tell_leaks(prepared: Prepared) -> None:
    """Tell whoever asks to forget people whose near-duplicates stay."""
    leaks = prepared.data.leaks
    if leaks is None or prepared.run_dir.finished():
        return
    if leaks.stay:
        logger.warning(
            "leak audit: of %s lines of the request equal or nearly equal images stay in the "
            "retain set and are trained on; leaks.csv in the run directory lists them",
            band(len(leaks.stay)),
        )  # fmt: skip
    logger.info("leak audit: %s pairs of equal or nearly equal images", band(len(leaks.pairs)))


@contextlib.contextmanager
def open_job(prepared: Prepared, collectives: Collectives) -> Iterator[Job]:
    """Yield the job of this rank with its log file open."""
    config = prepared.config
    check_agreement(prepared.inputs, prepared.signature, collectives)
    with contextlib.ExitStack() as stack:
        if collectives.is_main:
            _start(prepared, stack)
        collectives.barrier()
        handler = open_rank_log(prepared.run_dir.rank_log(collectives.rank), collectives.rank)
        stack.callback(close_rank_log, handler)
        logger.info(
            "dlfd-dist %s, %s, %s on %s",
            __version__, config.verb, counted(collectives.world_size, "rank"), collectives.device,
        )  # fmt: skip
        _tell_leaks(prepared)
        job = make_job(prepared, collectives)
        if config.trackers and collectives.is_main and not prepared.run_dir.finished():
            tracking = Tracking(config, prepared.run_dir)
            stack.callback(tracking.close)
            job = replace(job, tracking=tracking)
        with explained(prepared.run_dir, collectives, handler):
            yield job


def _start(prepared: Prepared, stack: contextlib.ExitStack) -> None:
    """Claim the run and, unless it is finished, hold it until the stack is left."""
    run_dir = prepared.run_dir
    if not prepared.finished():
        # The file system may take its time to take the lock from a node that was lost.
        wait_s = LOST_LOCK_S if job_info().run_restarts else 0.0
        stack.enter_context(run_dir.running(wait_s=wait_s))
    prepared.claim()
    if not run_dir.finished():
        run_dir.remove_partials()
        run_dir.record_start({"started": utc(), **of_this_process()})


def make_job(prepared: Prepared, collectives: Collectives) -> Job:
    """Return the job of this rank; nothing is written."""
    config, people = prepared.config, prepared.people
    batches = _batches(config, prepared.data, collectives)
    reference = None if people is None else _batches(config, people.data, collectives)
    return Job(prepared, collectives, batches, reference)


def _batches(config: JobConfig, data: ResolvedData, collectives: Collectives) -> Batches:
    return Batches(
        data, config.data, collectives=collectives,
        dtype=DTYPES[config.runtime.dtype], channels_last=config.runtime.channels_last,
    )  # fmt: skip
