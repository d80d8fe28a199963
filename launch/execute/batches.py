"""Which runs share a job: runs of equal shape become an array, small ones are packed.

What starts from models that this submission trains waits for them in one of two ways,
whichever takes fewer jobs: an array for each seed, afterok the trainings of that seed, or arrays
over seeds, each task of which waits for the task of its own number (aftercorr).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from dlfd_dist.config import ClusterConfig

from ..plan.runs import Run
from ..plan.shape import LaunchSpec

Unit = tuple[Run, ...]
"""The runs of one task."""


@dataclass(frozen=True)
class Batch:
    """Runs of equal shape: one job, or an array where there are several."""

    name: str
    units: tuple[tuple[str, ...], ...]
    """The runs of each task, by key. A number that an array leaves out has no runs."""
    spec: LaunchSpec
    parents: tuple[str, ...] = ()
    """Keys of the runs that it waits for."""
    title: str = ""
    by_task: bool = False
    """Each task waits for the task of its number in the parents' arrays, and for no other."""
    after: tuple[str, ...] = ()
    """Keys of the runs that must have ended before it, well or not."""

    @property
    def num_tasks(self) -> int:
        return sum(map(bool, self.units))

    @property
    def array(self) -> str:
        """The numbers of the tasks as sbatch takes them; empty: a job of its own."""
        if len(self.units) == 1:
            return ""
        used = [number for number, unit in enumerate(self.units) if unit]
        ranges = []
        for _, same in itertools.groupby(enumerate(used), key=lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in same]
            ends = dict.fromkeys((numbers[0], numbers[-1]))
            ranges.append("-".join(map(str, ends)))
        return ",".join(ranges)


def make_batches(
    runs: Sequence[Run],
    cluster: ClusterConfig,
    number: int,
    joined: AbstractSet[str] = frozenset(),
) -> list[Batch]:
    """Return the jobs that do these runs, parents first.

    Parameters
    ----------
    number : of the submission, for the names
    joined : keys of runs that an earlier submission has in the queue
    """
    under_way = {run.key for run in runs} | joined
    waits = {run.key: tuple(p for p in run.parents if p in under_way) for run in runs}
    arrays = min(
        list(_per_seed(runs, waits, cluster)), list(_over_seeds(runs, waits, cluster)), key=len
    )
    arrays.sort(key=lambda batch: bool(batch.after))
    return [
        replace(batch, name=f"{number:02d}-{count:03d}-{batch.name}")
        for count, batch in enumerate(arrays, 1)
    ]


def _batch(units: Sequence[Unit], parents: tuple[str, ...] = (), *, by_task: bool = False) -> Batch:
    """Return runs of equal shape as a batch, which is named after what the runs do."""
    runs = [run for unit in units for run in unit]
    first, keys = runs[0], tuple(tuple(run.key for run in unit) for unit in units)
    name, title = "train" if first.trains else first.verb, _title(runs)
    return Batch(name, keys, first.spec, parents, title, by_task, first.after)


def _grouped(runs: Iterable[Run], key) -> Iterator[list[Run]]:
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    yield from groups.values()


# --- an array for each seed


def _per_seed(
    runs: Sequence[Run], waits: dict[str, tuple[str, ...]], cluster: ClusterConfig
) -> Iterator[Batch]:
    """Trainings of one seed share a pack and no other run does, so that afterok of a child names
    just the models it needs."""
    in_order = sorted(runs, key=lambda run: bool(run.parents or run.after))
    for group in _grouped(in_order, lambda run: (run.spec, waits[run.key], run.after, run.trains)):
        units = _units(group, cluster)
        for start in range(0, len(units), cluster.max_array):
            yield _batch(units[start : start + cluster.max_array], waits[group[0].key])


def _units(runs: Sequence[Run], cluster: ClusterConfig) -> list[Unit]:
    spec = runs[0].spec
    if not spec.packed:
        return [(run,) for run in runs]
    if runs[0].trains:
        return [tuple(same) for same in _grouped(runs, lambda run: run.train_seed)]
    size = _pack_size(runs, spec, cluster)
    return [tuple(runs[n : n + size]) for n in range(0, len(runs), size)]


def _pack_size(runs: Sequence[Run], spec: LaunchSpec, cluster: ClusterConfig) -> int:
    if cluster.pack != "auto":
        return int(cluster.pack)
    longest = max(run.rank_seconds for run in runs)
    return spec.tasks_per_node * max(1, int(cluster.pack_min * 60 / longest))


# --- arrays over the seeds


def _over_seeds(
    runs: Sequence[Run], waits: dict[str, tuple[str, ...]], cluster: ClusterConfig
) -> Iterator[Batch]:
    """The task of a seed has the same number in every array."""
    trainings = [run for run in runs if run.trains]
    trained = {run.key for run in trainings}
    children = [
        run for run in runs
        if waits[run.key] and trained.issuperset(waits[run.key]) and run.role != "trial"
    ]  # fmt: skip
    seeds = list(dict.fromkeys(run.train_seed for run in trainings))
    for start in range(0, len(seeds), cluster.max_array):
        chunk = seeds[start : start + cluster.max_array]
        yield from _arrays_of(chunk, trainings, children, waits, cluster)
    seen = trained | {run.key for run in children}
    yield from _per_seed([run for run in runs if run.key not in seen], waits, cluster)


def _arrays_of(
    seeds: Sequence[int | None], trainings: Sequence[Run], children: Sequence[Run],
    waits: dict[str, tuple[str, ...]], cluster: ClusterConfig,
) -> Iterator[Batch]:  # fmt: skip
    where: dict[str, int] = {}
    chosen = [run for run in trainings if run.train_seed in seeds]
    groups = _grouped(chosen, lambda run: (run.spec, "" if run.spec.packed else run.role))
    for count, group in enumerate(groups):
        where |= {run.key: count for run in group}
        yield _batch([tuple(run for run in group if run.train_seed == seed) for seed in seeds])
    chosen = [run for run in children if run.train_seed in seeds]
    # An array waits for whole arrays, so that its seeds must have trainings in the same ones.
    for group in _grouped(
        chosen,
        lambda run: (run.spec, run.after, frozenset(where[parent] for parent in waits[run.key])),
    ):
        by_seed = [
            _units(same, cluster) if same else []
            for same in ([run for run in group if run.train_seed == seed] for seed in seeds)
        ]
        for units in itertools.zip_longest(*by_seed, fillvalue=()):
            parents = [p for unit in units for run in unit for p in waits[run.key]]
            yield _batch(units, tuple(dict.fromkeys(parents)), by_task=len(seeds) > 1)


def _title(runs: Sequence[Run]) -> str:
    labels = [run.label for run in runs]
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
