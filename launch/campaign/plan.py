"""A campaign: any grid of runs as a DAG, original and retrained -> unlearn -> report.

A run evaluates itself, so that a stage `evaluate` exists only where that is the verb. Nothing is
written and no scheduler is asked here. torch and Hydra are loaded only where runs are planned:
status and logs read plans too.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.access import PRIVATE
from dlfd_dist.config import ClusterConfig, JobConfig, signature, to_dict
from dlfd_dist.errors import ConfigError
from dlfd_dist.run_dir import RunDir

from .attempts import read_attempts
from .spec import LaunchSpec, choose_spec

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedRows
    from dlfd_dist.models import Classifier

    from ..comparison.planning import Planned

VERBS = ("train", "unlearn", "evaluate", "audit", "compare", "search")
TRAINED = ("original", "retrained", "control")
"""The roles of the models that a comparison or an audit trains, and measures."""


@dataclass(frozen=True)
class CampaignRun:
    """A run of the campaign, as its plan file holds it."""

    key: str
    """8 hex digits: the signature or, before its models exist, that of settings and parents."""
    label: str
    role: str
    """original, retrained, control, trial, method, train or evaluate"""
    config: dict[str, Any]
    spec: LaunchSpec
    train_seed: int | None = None
    variant: str = ""
    parents: tuple[str, ...] = ()
    """Keys of the runs whose models it starts from."""
    directory: str | None = None
    """Where it lies, when that is known before it has run."""
    rank_seconds: float = 0.0
    """The estimate on one rank."""
    after: tuple[str, ...] = ()
    """Keys of the runs that must have ended before it, well or not."""
    draw: int | None = None
    tuning: bool = False
    """Both as in launch/comparison/planning.py."""


def campaign_name(path: Path) -> str:
    """Return 8 hex digits of the directory: in job names, so that squeue tells campaigns apart."""
    return hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Campaign:
    """What a submission asks for."""

    path: Path
    verb: str
    words: list[str]
    cluster: ClusterConfig
    runs: list[CampaignRun]
    left_out: list[str] = field(default_factory=list)
    directories: dict[str, str] = field(default_factory=dict)
    """Where runs lie that have begun, beyond what the plan knows."""
    later: dict[str, Any] = field(default_factory=dict)
    """What jobs and the report need of the request, in plain values: no job reads the words."""

    @property
    def name(self) -> str:
        return campaign_name(self.path)

    @property
    def mode(self) -> str:
        """Mode of the directories that the runs make (run.mode)."""
        return self.runs[0].config["run"]["mode"] if self.runs else PRIVATE

    @functools.cached_property
    def by_key(self) -> dict[str, CampaignRun]:
        return {run.key: run for run in self.runs}

    def finished(self) -> dict[str, Path]:
        """Return the directories of the runs that are finished, by key."""
        known = {run.key: run.directory for run in self.runs if run.directory} | self.directories
        paths = {run.key: Path(known[run.key]) for run in self.runs if run.key in known}
        return {key: path for key, path in paths.items() if RunDir(path).finished()}

    def text(self) -> str:
        """Return the plan file: everything that tasks, retry and report need."""
        values = {
            "verb": self.verb,
            "words": self.words,
            "cluster": to_dict(self.cluster),
            "later": self.later,
            "runs": [asdict(run) for run in self.runs],
        }
        return json.dumps(values, sort_keys=True) + "\n"

    @property
    def plan_name(self) -> str:
        """Name of the plan file, from its content: the same request again writes the same file."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:12] + ".json"


def read_plan(file: Path) -> tuple[dict[str, Any], list[CampaignRun]]:
    """Return what a plan file holds: verb, words and cluster, and the runs."""
    values = json.loads(file.read_text(encoding="utf-8"))
    runs = [
        CampaignRun(
            **{
                **run,
                "spec": LaunchSpec(**run["spec"]),
                "parents": tuple(run["parents"]),
                "after": tuple(run.get("after", ())),
            }
        )
        for run in values.pop("runs")
    ]
    return values, runs


def plan_campaign(verb: str, words: Sequence[str]) -> Campaign:
    """Return the campaign that `dlfd submit VERB ...` asks for, every run validated."""
    if verb not in VERBS:
        raise ConfigError(
            f"'dlfd submit {verb}' is not known: it takes {', '.join(VERBS[:-1])} or {VERBS[-1]}."
        )
    from dlfd_dist.compose import split_cluster, with_sweep

    if verb == "audit":
        return _audit_campaign(words)
    cluster, rest = split_cluster(words)
    if verb == "search":
        from ..search.submit import search_campaign

        return search_campaign(rest, cluster)
    if verb == "compare":
        rest = with_sweep(rest)
    keys = {word.split("=", 1)[0] for word in rest}
    if verb == "compare" or (verb == "unlearn" and "checkpoint" not in keys):
        if verb == "unlearn" and "method" not in keys:
            rest.append("method=dlfd")
        return _compare_campaign(verb, rest, cluster)
    return _grid_campaign(verb, rest, cluster)


# --- comparisons: methods x seeds on their own Original and Retrained


def _compare_campaign(verb: str, words: Sequence[str], cluster: ClusterConfig) -> Campaign:
    from ..comparison.contrasts import named_contrasts
    from ..comparison.planning import (
        make_plan,
        measurement_runs,
        training_runs,
        unlearning_runs,
    )
    from ..comparison.trial_people import original_of, tuning_measurements, tuning_models
    from ..comparison.tuning import plan_trials, races_of, trial_runs, tuning_record

    plan = make_plan(words)
    first = plan.configs[0]
    if not first.names_people:
        raise ConfigError("Nobody to forget: give forget.request=FILE or forget.fraction=0.2.")
    stages = _Stages([*training_runs(plan), *tuning_models(plan)], cluster)
    planned_trials = plan_trials(plan)
    tries = trial_runs(planned_trials)
    trials = stages.start(tries)
    measurements = stages.start([*measurement_runs(plan), *tuning_measurements(plan)])
    methods = stages.start(unlearning_runs(plan, plan.configs))
    out, originals = plan.out.absolute(), {original_of(plan, one) for one in tries}
    needed = [one.key for one in measurements if one.label in originals]
    runs = [*stages.trained, *trials, *measurements, *_after_trials(out, methods, trials, needed)]
    later = {
        "contrasts": named_contrasts(plan),
        "tuning": tuning_record(plan, []) if plan.compare.tune else None,
        "races": {title: race.values() for title, race in races_of(plan, planned_trials).items()},
    }
    return Campaign(out, verb, list(words), cluster, runs, plan.left_out, later=later)


def _after_trials(
    out: Path, methods: Sequence[CampaignRun], trials: Sequence[CampaignRun],
    measured: Sequence[str],
) -> list[CampaignRun]:  # fmt: skip
    """Let every run of a method wait for the end of the method's trials, which choose its settings.

    Its directory is known when it has begun: the attempts tell it.

    Parameters
    ----------
    measured : keys of the runs that say what the untouched Original is worth to the trials
    """
    by_title: dict[str, list[str]] = {}
    for trial in trials:
        by_title.setdefault(title_of(trial), []).append(trial.key)
    found = []
    for run in methods:
        after = tuple(by_title.get(title_of(run), ()))
        if after:
            after = (*after, *measured)
            key = hashlib.sha256("-".join([run.key, *after]).encode()).hexdigest()[:8]
            directory = _begun(out, key)
            run = replace(run, key=key, after=after, directory=directory)
        found.append(run)
    return found


def _begun(campaign: Path, key: str) -> str | None:
    last = read_attempts(campaign, key).last
    return last["directory"] if last else None


def title_of(run: CampaignRun) -> str:
    """Return the method of a run with its variant, as a comparison calls it."""
    return f"{run.config['method']['name']} {run.variant}".strip()


def choice_file(campaign: Path, run: CampaignRun) -> Path:
    """Where the settings stand that the trials before a run chose."""
    digest = hashlib.sha256("-".join(run.after).encode()).hexdigest()[:8]
    name = "".join(c if c.isalnum() or c in "=-._" else "-" for c in title_of(run))
    return campaign / "tuning" / f"{name}-{digest}.json"


class _Stages:
    """Trainings, and what starts from their models; all of one data set."""

    def __init__(self, trainings: Sequence[Planned], cluster: ClusterConfig):
        self.identify = _IdentifyAll(cluster)
        self.trained = self.identify.all([(one, ()) for one in _absolute(trainings)])

    def start(self, planned: Sequence[Planned]) -> list[CampaignRun]:
        """Return runs that start from the trainings of their train seed."""
        from ..comparison.planning import parents_of, with_models

        models = {run.label: Path(run.directory or "") for run in self.trained}
        keys = {run.label: run.key for run in self.trained}
        ready = with_models(_absolute(planned), models)
        parents = [tuple(keys[label] for label in parents_of(one)) for one in ready]
        return self.identify.all(list(zip(ready, parents, strict=True)))


def _audit_campaign(words: Sequence[str]) -> Campaign:
    from dlfd_dist.compose import split_cluster

    from ..audit.planning import plan_audit, trainings, unlearnings

    # The first word is the kind of audit, which is no setting.
    cluster, rest = split_cluster(words[1:])
    words = [*words[:1], *rest]
    plan = plan_audit(words)
    runs = []
    for seed in plan.seeds:
        # Each shadow model forgets people of its own.
        own, others = (
            [one for one in stage if one.train_seed == seed]
            for stage in (trainings(plan), unlearnings(plan))
        )
        stages = _Stages(own, cluster)
        runs += [*stages.trained, *stages.start(others)]
    later = {"kind": plan.kind, "audit": to_dict(plan.audit)}
    left_out = plan.plan.left_out
    return Campaign(plan.out.absolute(), "audit", list(words), cluster, runs, left_out, later=later)


def _absolute(planned: Sequence[Planned]) -> list[Planned]:
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


# --- plain grids: train, evaluate, unlearn from a given checkpoint


def _grid_campaign(verb: str, words: Sequence[str], cluster: ClusterConfig) -> Campaign:
    from dlfd_dist.compose import expand_grid

    from ..comparison.planning import Planned, placed

    points = expand_grid(words)
    listed = [k for k in _keys(points) if len({_value(p, k) for p in points}) > 1]
    composed = list(_compose_points(verb, points))
    out = Path(composed[0].run.dir or f"runs/{verb}-{_digest(words)}").absolute()
    planned: list[tuple[Planned, tuple[str, ...]]] = []
    for point, config in zip(points, composed, strict=True):
        title = " ".join(f"{key}={_value(point, key)}" for key in listed) or verb
        name = "".join(c if c.isalnum() or c in "=-._" else "-" for c in title)[:80]
        one = Planned(title, verb, config.seed, placed(config, out / "runs", name))
        planned.append((one, ()))
    return Campaign(out, verb, list(words), cluster, _IdentifyAll(cluster).all(planned))


def _keys(points: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(word.split("=", 1)[0] for word in points[0]))


def _value(point: Sequence[str], key: str) -> str:
    return next((w.split("=", 1)[1] for w in reversed(point) if w.split("=", 1)[0] == key), "")


def _compose_points(verb: str, points: Sequence[Sequence[str]]) -> Iterator[JobConfig]:
    """Yield the configurations; points that differ by their seed alone are composed once."""
    from dlfd_dist.compose import compose_job

    known: dict[tuple[str, ...], JobConfig] = {}
    for point in points:
        seed = _value(point, "seed")
        rest = tuple(word for word in point if not word.startswith("seed="))
        if rest in known and seed.isdecimal():
            yield replace(known[rest], seed=int(seed))
        else:
            yield known.setdefault(rest, compose_job(verb, point))


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(words)).encode()).hexdigest()[:8]


# --- identity, place and shape of a run


class _IdentifyAll:
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
            key = _digest([run.key, run.label]) if run.key in runs else run.key
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
