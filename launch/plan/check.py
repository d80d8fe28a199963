"""Planned runs are checked, and get their key, directory, shape and estimate."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlfd_dist.config import ClusterConfig, JobConfig, signature
from dlfd_dist.run_dir import RunDir

from .comparison import parents_of, with_models
from .runs import Run
from .shape import choose_spec
from .size import ModelSize, size_of

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedRows
    from dlfd_dist.models import Classifier


def digest(words: Sequence[str]) -> str:
    """Return 8 hex digits of words, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(words)).encode()).hexdigest()[:8]


class Stages:
    """Trainings, and the runs that start from their models."""

    def __init__(self, trainings: Sequence[Run], cluster: ClusterConfig):
        self.check = CheckAll(cluster)
        self.trained = self.check(absolute(trainings))

    def start(self, planned: Sequence[Run]) -> list[Run]:
        """Return runs that start from the trainings of their train seed."""
        models = {run.label: Path(run.directory or "") for run in self.trained}
        keys = {run.label: run.key for run in self.trained}
        return self.check([
            replace(run, parents=tuple(keys[label] for label in parents_of(run)))
            for run in with_models(absolute(planned), models)
        ])  # fmt: skip


def absolute(planned: Sequence[Run]) -> list[Run]:
    """Return runs whose directories do not depend on where a job starts."""
    runs = []
    for run in planned:
        root = str(Path(run.config.run.root).absolute())
        runs.append(run.with_config(replace(run.config, run=replace(run.config.run, root=root))))
    return runs


class CheckAll:
    """Checks runs, whatever data and draw they have; each draw is read once."""

    def __init__(self, cluster: ClusterConfig):
        from dlfd_dist.data.loaders import RowReader

        self.cluster, self.read = cluster, RowReader(draw=False)
        self.checks: dict[str, Check] = {}

    def __call__(self, planned: Sequence[Run]) -> list[Run]:
        """Return the runs of one stage in their order, each with a key of its own."""
        by_rows: dict[str, list[Run]] = {}
        for run in planned:
            by_rows.setdefault(self._rows_of(run.config), []).append(run)
        checked = [run for name, group in by_rows.items() for run in self.checks[name](group)]
        place = {run.label: number for number, run in enumerate(planned)}
        runs: dict[str, Run] = {}
        for run in sorted(checked, key=lambda run: place[run.label]):
            # Two seeds may draw the same people.
            key = digest([run.key, run.label]) if run.key in runs else run.key
            runs[key] = replace(run, key=key)
        return list(runs.values())

    def _rows_of(self, config: JobConfig) -> str:
        from dlfd_dist.data.loaders import rows_key

        name = rows_key(config.data, config.drawn_forget)
        if name not in self.checks:
            self.checks[name] = Check(self.read(config.data, config.drawn_forget), self.cluster)
        return name


class Check:
    """Checks the runs of one data set and draw; digests are taken once."""

    def __init__(self, rows: ResolvedRows, cluster: ClusterConfig):
        self.rows, self.cluster = rows, cluster
        self.digests = rows.digests()
        self.costs: dict[str, float] = {}
        self.sizes: dict[str, ModelSize] = {}
        self.models: dict[str, Classifier] = {}
        self.fitting: set[tuple[str, str]] = set()

    def __call__(self, planned: Sequence[Run]) -> list[Run]:
        """Return the runs of one stage, each with its key, directory and shape."""
        # Runs that may share a pack: trainings of one seed, and what has the same parents.
        packs = [(run.train_seed if run.trains else None, run.parents) for run in planned]
        sizes = Counter(packs)
        runs = [self._run(run, sizes[pack]) for run, pack in zip(planned, packs, strict=True)]
        return list({run.key: run for run in runs}.values())

    def _run(self, run: Run, num_runs: int) -> Run:
        from dlfd_dist.jobs.context import check_enough

        config, parents = run.config, run.parents
        size, seconds = self._size(config), self._cost(config)
        spec = choose_spec(self.cluster, config, minutes=seconds / 60, num_runs=num_runs, size=size)
        config.validate(spec.ranks_per_run)
        check_enough(config, self.rows, spec.ranks_per_run)
        finished = all(RunDir(Path(p)).finished() for p in _models(config).values() if parents)
        self._check_model(config, _models(config).values() if finished else ())
        config = replace(config, runtime=replace(config.runtime, world_size=spec.ranks_per_run))
        directory, key = None, signature(config, self.digests | {"parents": "-".join(parents)})
        if finished:
            sign = signature(config, self.digests | self._inputs(config))
            directory = str(Path(config.run.root) / f"{config.run.name}-{sign}")
            key = key if parents else sign
        return replace(
            run, key=key, settings=config, spec=spec, directory=directory, rank_seconds=seconds
        )

    def _cost(self, config: JobConfig) -> float:
        """Return the estimate; runs that differ by seed and place alone cost the same."""
        from .cost import rank_seconds

        same = repr([config.verb, config.data, config.model, config.train, config.method,
                     config.synthesis, config.forget])  # fmt: skip
        if same not in self.costs:
            self.costs[same] = rank_seconds(config, self.rows, self.cluster, self._size(config))
        return self.costs[same]

    def _size(self, config: JobConfig) -> ModelSize:
        shape = self._shape(config)
        if shape not in self.sizes:
            self.sizes[shape] = size_of(config, self.rows)
        return self.sizes[shape]

    def _check_model(self, config: JobConfig, checkpoints: Iterable[str]) -> None:
        """Refuse what the job would refuse: settings or weights that the model does not allow.

        The model has no values, so that making it takes milliseconds; weights that are there
        already are read once.
        """
        from dlfd_dist.methods import methods
        from dlfd_dist.models import check_model, check_weights

        check_model(config.model, self._image_size(config))
        method = methods.get(config.method.name)
        for path in checkpoints:
            shape = self._shape(config)
            if (shape, path) not in self.fitting:
                check_weights(self._model(config), path)
                self.fitting.add((shape, path))
        if config.verb == "unlearn" and method.checks_model(config.method):
            method.check_settings(config.method, self._model(config))

    def _shape(self, config: JobConfig) -> str:
        return repr((config.model, self._image_size(config)))

    def _image_size(self, config: JobConfig) -> int:
        return self.rows.manifest.image_shape(config.data)[-1]

    def _model(self, config: JobConfig) -> Classifier:
        from dlfd_dist.models import outline

        shape = self._shape(config)
        if shape not in self.models:
            self.models[shape] = outline(
                config.model, image_size=self._image_size(config),
                channels=self.rows.manifest.image_shape(config.data)[0],
                num_outputs=self.rows.manifest.num_outputs,
            )  # fmt: skip
        return self.models[shape]

    def _inputs(self, config: JobConfig) -> dict[str, str]:
        """Return SHA-256 of the models that the run starts from."""
        from dlfd_dist.digests import file_digest
        from dlfd_dist.models import weights_path

        return {n: file_digest(weights_path(path)) for n, path in _models(config).items()}


def _models(config: JobConfig) -> dict[str, str]:
    paths = {"checkpoint": config.checkpoint, "reference": config.reference}
    return {name: path for name, path in paths.items() if path is not None}
