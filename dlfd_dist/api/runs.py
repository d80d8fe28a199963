"""unlearn and evaluate: a run on a model and sets of this program, as the command line makes it."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..access import making
from ..compose import as_text, compose_job
from ..config import JobConfig
from ..errors import ConfigError, DlfdError
from ..factories import giving
from ..jobs import prepare, run_prepared
from ..logs import console
from ..progress import silent
from ..report.html import write_report
from ..report.records import load_with_references
from ..run_dir import RunDir
from ..runtime.collectives import Collectives
from ..runtime.env import rank_info
from ..runtime.init import process_group
from ..runtime.preemption import StopFlag, stop_flag
from ..terminal import is_live
from .given import Given, Weights, load_into, name_model, name_sets

OF_THE_CALL = (
    "seed", "method", "checkpoint", "reference", "run.dir", "model", "model.factory",
    "model.features", "data", "data.factory", "data.pixel_range",
)  # fmt: skip
"""Settings that are arguments of their own."""

Sets = Dataset[Any] | Sequence[Any]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path : its directory
    result : what result.json holds
    """

    path: Path
    result: dict[str, Any]
    _module: Callable[[], nn.Module]

    @functools.cached_property
    def model(self) -> nn.Module:
        """The module with the weights that the run delivered; that of the call is as it was."""
        module = copy.deepcopy(self._module())
        delivered = RunDir(self.path).model
        return module if self.result["verb"] == "evaluate" else load_into(module, delivered)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the page of the run, by default into its directory; return its path."""
        page = Path(out) if out is not None else self.path / "report.html"
        records = load_with_references(self.path)
        write_report(records, page, title=f"Unlearning report: {self.result['title']}")
        return page


def unlearn(
    model: nn.Module | str,
    *,
    retain: Sets | None = None,
    forget: Sets | None = None,
    val: Sets | None = None,
    test: Sets | None = None,
    train: Sets | None = None,
    data: str | None = None,
    method: str = "dlfd",
    checkpoint: str | Path | None = None,
    reference: nn.Module | str | Path | None = None,
    features: str | Callable[..., Any] | None = None,
    pixel_range: tuple[Any, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Run:
    """Let a model forget, measure it, and return the finished run.

    The same call again goes on where it was stopped, or returns the run that is finished. Under
    torchrun or srun every rank makes the call, and takes its share. Raises DlfdError, before
    anything is trained, for a model or sets that cannot be used.

    Parameters
    ----------
    model : a module that gives logits, (images, classes) or (images, labels); or the import path of
        a function that returns one, as 'mypkg.nets:build'
    retain, forget, val, test : map-style Datasets of (image, label[, identity]): what is kept and
        what is forgotten of the training set, whom methods select on, and whom figures are of
    train : in place of retain and forget: the training set, of whose identities `forget` lists some
    data : in place of the sets: the import path of a function that returns them by name
    method : one of docs/methods.md
    checkpoint : the weights to begin with, a file or a run directory; none: those of the module
    reference : the model retrained without the forgotten images, to measure the gap to
    features : the layer whose output the features are, or a function of (module, images) that
        returns features and logits; none: what the last linear layer reads
    pixel_range : (low, high), the values of the darkest and the lightest pixel, each one number or
        one a channel; see data.pixel_range
    out : the run directory; none: one under runs/
    settings : further settings by name, as {"method.lr": 0.004}
    progress : whether messages, steps and the time left go to standard error, as those of `dlfd`;
        none: where that is a terminal
    """
    sets = {"train": train, "retain": retain, "forget": forget, "val": val, "test": test}
    given, module = _named(model, sets, data, features, pixel_range, settings)
    words = {"method": method, "seed": seed, "run.dir": out}
    with _told(progress):
        return _finished("unlearn", given, module, words, checkpoint, reference, settings)


def evaluate(
    model: nn.Module | str,
    *,
    retain: Sets | None = None,
    forget: Sets | None = None,
    val: Sets | None = None,
    test: Sets | None = None,
    train: Sets | None = None,
    data: str | None = None,
    checkpoint: str | Path | None = None,
    reference: nn.Module | str | Path | None = None,
    features: str | Callable[..., Any] | None = None,
    pixel_range: tuple[Any, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Run:
    """Measure a model as it is; parameters as of `unlearn`."""
    sets = {"train": train, "retain": retain, "forget": forget, "val": val, "test": test}
    given, module = _named(model, sets, data, features, pixel_range, settings)
    words = {"seed": seed, "run.dir": out}
    with _told(progress):
        return _finished("evaluate", given, module, words, checkpoint, reference, settings)


def _told(progress: bool | None) -> contextlib.AbstractContextManager[None]:
    """Return a block in which this rank tells its progress, or says nothing."""
    shown = is_live(sys.stderr) if progress is None else progress
    return console(rank_info().rank) if shown else silent()


def _named(
    model: Any,
    sets: Mapping[str, Any],
    data: str | None,
    features: Any,
    pixel_range: Any,
    settings: Mapping[str, Any] | None,
) -> tuple[Given, Callable[[], nn.Module]]:
    given = Given()
    module = name_model(given, model, features, (settings or {}).get("model.args", {}))
    name_sets(given, sets, data)
    if pixel_range is not None:
        given.settings["data.pixel_range"] = [_plain(side) for side in pixel_range]
    return given, module


def _plain(side: Any) -> Any:
    return side.tolist() if hasattr(side, "tolist") else side


def _finished(
    verb: str,
    given: Given,
    module: Callable[[], nn.Module],
    words: Mapping[str, Any],
    checkpoint: str | Path | None,
    reference: nn.Module | str | Path | None,
    settings: Mapping[str, Any] | None,
) -> Run:
    more = dict(settings or {})
    if taken := [name for name in more if name in OF_THE_CALL]:
        raise ConfigError(f"settings holds {taken[0]}: give it as an argument of the call.")
    out = words["run.dir"]
    folder = Path(more.get("run.root", "runs")) if out is None else Path(out).parent
    paths: dict[str, Any] = {}
    files = []
    for name, weights in (("checkpoint", checkpoint or module()), ("reference", reference)):
        if isinstance(weights, nn.Module):
            files.append(Weights.of(weights, folder))
            weights = files[-1].path
        paths[name] = weights
    values = {**more, **words, **given.settings, **paths}
    config = compose_job(verb, [_word(n, v) for n, v in values.items() if v is not None])
    with giving(given.objects), _ranks(config) as (collectives, stop):
        for file in files:
            file.write(collectives)
        prepared = prepare(config, collectives.world_size)
        result = run_prepared(prepared, collectives, stop)
    return Run(prepared.run_dir.path, result, module)


def _word(name: str, value: Any) -> str:
    return f"{name}={as_text(str(value) if isinstance(value, Path) else value, name)}"


@contextlib.contextmanager
def _ranks(config: JobConfig) -> Iterator[tuple[Collectives, StopFlag]]:
    """Yield the ranks of this program; its threads and torch's generator are put back."""
    info, threads = rank_info(), torch.get_num_threads()
    if config.runtime.world_size > 1 and info.source == "single":
        raise ConfigError(
            f"runtime.world_size={config.runtime.world_size} cannot be started from a program, "
            "whose objects other processes do not have: start the program with torchrun "
            f"--nproc-per-node {config.runtime.world_size}, and leave the setting out."
        )
    try:
        with (
            making(config.run.mode),
            torch.random.fork_rng(devices=[]),
            stop_flag() as stop,
            process_group(config.runtime, info) as collectives,
        ):
            yield collectives, stop
    except OSError as err:
        raise DlfdError(f"A file cannot be read or written: {err}.") from err
    finally:
        torch.set_num_threads(threads)
