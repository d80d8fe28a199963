"""Planned runs are checked, and get their key, directory, shape and estimate."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import ClusterConfig, JobConfig, signature
from dlfd_dist.run_dir import RunDir

from .comparison import with_models
from .runs import Plan, Run, digest
from .shape import choose_spec
from .size import ModelSize, size_of

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedRows
    from dlfd_dist.models import Classifier


class Check:
    """Checks runs, whatever data and draw they have; what several runs share is read once."""

    def __init__(self, cluster: ClusterConfig):
        from dlfd_dist.data.loaders import RowReader

        self.cluster, self.read = cluster, RowReader(draw=False)
        self._known: dict[Hashable, Any] = {}

    def plan(self, plan: Plan) -> Plan:
        """Return the plan of a comparison or an audit with its runs checked, stage by stage."""
        by_label: dict[str, Run] = {}
        for _, stage in itertools.groupby(map(_absolute, plan.runs), _stage):
            runs = _ready(list(stage), by_label)
            by_label |= {run.label: own for run, own in zip(runs, self._stage(runs), strict=True)}
        runs = list({run.key: run for run in by_label.values()}.values())
        for_finisher = dict(plan.for_finisher)
        if races := for_finisher.get("races"):
            for_finisher["races"] = _of_checked(races, by_label)
        return replace(plan, path=plan.path.absolute(), runs=runs, for_finisher=for_finisher)

    def __call__(self, planned: Sequence[Run]) -> list[Run]:
        """Return the runs of one stage, each with its key, directory and shape.

        Of runs that are equal the first is returned.
        """
        return list({run.key: run for run in self._stage(planned)}.values())

    def _stage(self, planned: Sequence[Run]) -> list[Run]:
        """Return each run of a stage checked; for a run equal to an earlier run, that one."""
        from dlfd_dist.data.loaders import rows_key

        draws = [rows_key(run.config.data, run.config.drawn_forget) for run in planned]
        # Runs that may share a pack: trainings of one seed, and what has the same parents.
        packs = [
            (draw, run.train_seed if run.trains else None, run.parents)
            for draw, run in zip(draws, planned, strict=True)
        ]
        sizes, draw_of, first, runs = Counter(packs), {}, {}, []
        for run, draw, pack in zip(planned, draws, packs, strict=True):
            run = self._run(run, sizes[pack])
            if draw_of.setdefault(run.key, draw) != draw:
                # Two seeds may draw the same people.
                run = replace(run, key=digest(json.dumps(sorted([run.key, run.label]))))
            runs.append(first.setdefault(run.key, run))
        return runs

    def _once(self, make: Callable[[], Any], *key: Hashable) -> Any:
        """Return what a function makes, which is called once for a key."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _run(self, run: Run, num_runs: int) -> Run:
        from dlfd_dist.jobs.context import check_enough, input_digests, run_identity
        from dlfd_dist.jobs.trained import check_trained

        config, parents = run.config, run.parents
        rows = self.read(config.data, config.drawn_forget)
        size, seconds = self._size(config, rows), self._cost(config, rows)
        spec = choose_spec(self.cluster, config, minutes=seconds / 60, num_runs=num_runs, size=size)
        config.validate(spec.ranks_per_run)
        check_enough(config, rows, spec.ranks_per_run)
        models = _models(config)
        finished = all(RunDir(Path(p)).finished() for p in models.values() if parents)
        self._check_model(config, rows, models.values() if finished else ())
        if models and not parents:
            asked = (*models.values(), repr(config.data), repr(config.forget), config.seed)
            self._once(lambda: check_trained(config, rows), "trained", *asked)
        config = replace(config, runtime=replace(config.runtime, world_size=spec.ranks_per_run))
        directory, key = None, signature(config, rows.digests() | {"parents": "-".join(parents)})
        if finished:
            sign, run_dir = run_identity(config, input_digests(config, rows))
            directory, key = str(run_dir.path), key if parents else sign
        if run.after:
            # The settings are chosen later: the attempts say which directory the run has.
            directory, key = None, digest("-".join([key, *run.after]))
        return replace(
            run, key=key, settings=config, spec=spec, directory=directory, rank_seconds=seconds
        )

    def _cost(self, config: JobConfig, rows: ResolvedRows) -> float:
        """Return the estimate; runs that differ by seed and place alone cost the same."""
        from .cost import rank_seconds

        same = (config.verb, config.model, config.train, config.method, config.synthesis)

        def cost() -> float:
            return rank_seconds(config, rows, self.cluster, self._size(config, rows))

        return self._once(cost, "cost", id(rows), repr(same))

    def _size(self, config: JobConfig, rows: ResolvedRows) -> ModelSize:
        return self._once(lambda: size_of(config, rows), "size", id(rows), repr(config.model))

    def _check_model(
        self, config: JobConfig, rows: ResolvedRows, checkpoints: Iterable[str]
    ) -> None:
        """Refuse what the job would refuse: settings or weights that the model does not allow.

        The model has no values, so that making it takes milliseconds; weights that are there
        already are read once.
        """
        from dlfd_dist.methods import methods
        from dlfd_dist.models import check_model, check_weights, outline

        channels, *_, size = rows.manifest.image_shape(config.data)
        outputs = rows.manifest.num_outputs
        shape = (repr(config.model), size, channels, outputs)

        def model() -> Classifier:
            return self._once(
                lambda: outline(
                    config.model, image_size=size, channels=channels, num_outputs=outputs
                ),
                "model", *shape,
            )  # fmt: skip

        check_model(config.model, size)
        for path in checkpoints:
            self._once(lambda path=path: check_weights(model(), path), "weights", path, *shape)
        method = methods.get(config.method.name)
        if config.verb == "unlearn" and method.checks_model(config.method):
            method.check_settings(config.method, model())


def _stage(run: Run) -> tuple[int, bool]:
    """Return what runs that may share a job have in common."""
    return run.stage, run.role == "trial"


def _absolute(run: Run) -> Run:
    """Return a run whose directory does not depend on where a job starts."""
    root = str(Path(run.config.run.root).absolute())
    return run.with_config(replace(run.config, run=replace(run.config.run, root=root)))


def _ready(stage: list[Run], checked: Mapping[str, Run]) -> list[Run]:
    """Return runs that start from models of checked runs and know these by their keys."""
    if not stage[0].parents:
        return stage
    models = {label: Path(run.directory or "") for label, run in checked.items()}

    def keys(labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(checked[label].key for label in labels))

    return [
        replace(run, parents=keys(run.parents), after=keys(run.after))
        for run in with_models(stage, models)
    ]


def _of_checked(races: Mapping[str, Any], checked: Mapping[str, Run]) -> dict[str, Any]:
    """Return races whose trials name, in place of a run equal to another, that one."""
    return {
        name: {**race, "trials": [_of_checked_runs(trial, checked) for trial in race["trials"]]}
        for name, race in races.items()
    }


def _of_checked_runs(trial: Mapping[str, Any], checked: Mapping[str, Run]) -> dict[str, Any]:
    against = [tuple(checked[label].label for label in labels) for labels in trial["against"]]
    return {**trial, "against": tuple(against)}


def _models(config: JobConfig) -> dict[str, str]:
    paths = {"checkpoint": config.checkpoint, "reference": config.reference}
    return {name: path for name, path in paths.items() if path is not None}
