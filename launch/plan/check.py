"""Planned runs become runs of a campaign: checked, with their key, place and shape."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlfd_dist.config import ClusterConfig, JobConfig, signature, to_dict
from dlfd_dist.run_dir import RunDir

from .runs import TRAINED, CampaignRun
from .shape import choose_spec

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedRows
    from dlfd_dist.models import Classifier

    from .runs import Planned


def digest(words: Sequence[str]) -> str:
    """Return 8 hex digits of words, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(words)).encode()).hexdigest()[:8]


class Stages:
    """Trainings, and what starts from their models; all of one data set."""

    def __init__(self, trainings: Sequence[Planned], cluster: ClusterConfig):
        self.identify = IdentifyAll(cluster)
        self.trained = self.identify.all([(one, ()) for one in absolute(trainings)])

    def start(self, planned: Sequence[Planned]) -> list[CampaignRun]:
        """Return runs that start from the trainings of their train seed."""
        from .compare import parents_of, with_models

        models = {run.label: Path(run.directory or "") for run in self.trained}
        keys = {run.label: run.key for run in self.trained}
        ready = with_models(absolute(planned), models)
        parents = [tuple(keys[label] for label in parents_of(one)) for one in ready]
        return self.identify.all(list(zip(ready, parents, strict=True)))


def absolute(planned: Sequence[Planned]) -> list[Planned]:
    """Return runs whose directories do not depend on where a job starts."""
    return [
        replace(
            one,
            config=replace(
                one.config,
                run=replace(one.config.run, root=str(Path(one.config.run.root).absolute())),
            ),
        )
        for one in planned
    ]


class IdentifyAll:
    """Turns planned runs into runs of a campaign, whatever data and draw they have."""

    def __init__(self, cluster: ClusterConfig):
        from dlfd_dist.data.loaders import RowReader

        self.cluster, self.read = cluster, RowReader(draw=False)
        self.identifiers: dict[str, Identify] = {}

    def all(self, planned: Sequence[tuple[Planned, tuple[str, ...]]]) -> list[CampaignRun]:
        """Return the runs of one stage in their order, each with a key of its own."""
        by_rows: dict[str, list[tuple[Planned, tuple[str, ...]]]] = {}
        for one, parents in planned:
            by_rows.setdefault(self._key(one.config), []).append((one, parents))
        found = [run for key, ones in by_rows.items() for run in self.identifiers[key].all(ones)]
        place = {one.label: number for number, (one, _) in enumerate(planned)}
        runs: dict[str, CampaignRun] = {}
        for run in sorted(found, key=lambda run: place[run.label]):
            # Two seeds may draw the same people.
            key = digest([run.key, run.label]) if run.key in runs else run.key
            runs[key] = replace(run, key=key)
        return list(runs.values())

    def _key(self, config: JobConfig) -> str:
        from dlfd_dist.data.loaders import rows_key

        key = rows_key(config.data, config.drawn_forget)
        if key not in self.identifiers:
            rows = self.read(config.data, config.drawn_forget)
            self.identifiers[key] = Identify(rows, self.cluster)
        return key


class Identify:
    """Turns planned runs into runs of a campaign; digests of one data set are taken once."""

    def __init__(self, rows: ResolvedRows, cluster: ClusterConfig):
        self.rows, self.cluster = rows, cluster
        self.digests = rows.digests()
        self.costs: dict[str, float] = {}
        self.models: dict[str, Classifier] = {}
        self.fitting: set[tuple[str, str]] = set()

    def all(self, planned: Sequence[tuple[Planned, tuple[str, ...]]]) -> list[CampaignRun]:
        """Return the runs of one stage, each with its key, directory and shape."""
        # Runs that may share a pack: trainings of one seed, and what has the same parents.
        together = Counter((one.train_seed if _trains(one) else None, p) for one, p in planned)
        runs = [
            self._run(one, parents, together[one.train_seed if _trains(one) else None, parents])
            for one, parents in planned
        ]
        return list({run.key: run for run in runs}.values())

    def _run(self, one: Planned, parents: tuple[str, ...], num_runs: int) -> CampaignRun:
        from dlfd_dist.jobs.context import check_enough

        config = one.config
        seconds = self._cost(config)
        spec = choose_spec(self.cluster, config, minutes=seconds / 60, num_runs=num_runs)
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
        return CampaignRun(
            key, one.label, one.role, to_dict(config), spec, one.train_seed, one.variant, parents,
            directory, seconds, draw=one.draw, tuning=one.tuning,
        )  # fmt: skip

    def _cost(self, config: JobConfig) -> float:
        """Return the estimate; runs that differ by seed and place alone cost the same."""
        from .cost import rank_seconds

        same = repr([config.verb, config.data, config.model, config.train, config.method,
                     config.synthesis, config.forget])  # fmt: skip
        if same not in self.costs:
            self.costs[same] = rank_seconds(config, self.rows, self.cluster)
        return self.costs[same]

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
        if config.verb == "unlearn" and method.checks_model():
            method.check(config.method, self._model(config))

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
        """Return SHA-256 of the models it starts from."""
        from dlfd_dist.digests import file_digest
        from dlfd_dist.models import weights_path

        return {n: file_digest(weights_path(path)) for n, path in _models(config).items()}


def _models(config: JobConfig) -> dict[str, str]:
    paths = {"checkpoint": config.checkpoint, "reference": config.reference}
    return {name: path for name, path in paths.items() if path is not None}


def _trains(one: Planned) -> bool:
    return one.role in TRAINED and one.config.verb == "train"
