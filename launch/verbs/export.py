"""dlfd export: the model of a run as a state dict, a torch.export program, ONNX or a folder of
transformers."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.huggingface import LIBRARY
from dlfd_dist.registry import near_match
from dlfd_dist.run_dir import RunDir

if TYPE_CHECKING:
    from dlfd_dist.config import JobConfig
    from dlfd_dist.jobs.export import Exported

FORMS = {"state-dict": ".pth", "torch-export": ".pt2", "onnx": ".onnx", LIBRARY: ""}
"""By form, the ending of the file; a state dict keeps that of the file that came in."""
SETTINGS = ("checkpoint", "model.factory", "model.features", "model.folder", "plugins")
"""What may follow the run: where what came in lies, and whose code is trusted."""


def run_export(
    words: Sequence[str], *, to: str | None, out: str | None, dry_run: bool, as_json: bool
) -> int:
    """Write the model of a finished run for other programs, compared with the model itself."""
    runs = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if len(runs) != 1:
        raise ConfigError(
            f"'dlfd export' was given {len(runs)} runs: give the directory of one, as in "
            "'dlfd export runs/unlearned --to onnx'."
        )
    for name in given:
        if name not in SETTINGS:
            raise ConfigError(
                f"'dlfd export' takes no {name}, only {', '.join(SETTINGS)}."
                + near_match(name, SETTINGS)
            )
    run = RunDir(Path(runs[0]))
    if not run.finished() or not run.model.is_file():
        raise RunDirError(
            f"{run.path} holds no finished model: give the directory of a run of train or unlearn."
        )
    return _export(run, given, _form(to), out, dry_run=dry_run, as_json=as_json)


def _form(to: str | None) -> str:
    if to is None:
        raise ConfigError(f"--to is missing: give --to {'|'.join(FORMS)}.")
    if to not in FORMS:
        raise ConfigError(
            f"--to {to} is not known. Available: {', '.join(FORMS)}." + near_match(to, FORMS)
        )
    return to


def _export(
    run: RunDir, given: dict[str, str], form: str, out: str | None, *, dry_run: bool, as_json: bool
) -> int:
    from dlfd_dist.compose import load_config
    from dlfd_dist.jobs.export import export, incoming, module_of, require_package

    for package in ("onnx", "onnxscript", "onnxruntime") if form == "onnx" else ():
        require_package(package)
    trusted = [name for name in given.get("plugins", "").strip("[]").split(",") if name]
    load = functools.partial(load_config, plugins=trusted)
    config = load(run.config)
    if form == LIBRARY or (form == "state-dict" and config.model.library == LIBRARY):
        _require_folder(run, config, form)
        folder = Path(given.get("model.folder") or str(config.model.folder))
        return _export_folder(run, config, folder, out, dry_run=dry_run, as_json=as_json)
    came = incoming(run, config, given.get("checkpoint"), load)
    ending = came.suffix if form == "state-dict" else FORMS[form]
    file = Path(out) if out else run.path / "export" / f"model{ending}"
    _check_file(file, run, given.get("checkpoint") or config.checkpoint)
    untrusted = _untrusted(config, given)
    if form != "state-dict":
        _refuse_code(run, config, untrusted)
    names = list(came.names.values())
    if dry_run:
        return _tell_plan(file, form, names, as_json=as_json)
    with _writing(file):
        done = export(run, None if untrusted else module_of(run, config), came, form, file)
    return _tell(done, names, as_json=as_json)


def _untrusted(config: JobConfig, given: dict[str, str]) -> list[str]:
    """Return the settings that name somebody's code and were not given again."""
    model = config.model
    code = {"model.factory": model.factory}
    if ":" in (model.features or ""):
        code["model.features"] = model.features
    return [f"{name}={path}" for name, path in code.items() if path and given.get(name) != path]


def _refuse_code(run: RunDir, config: JobConfig, untrusted: Sequence[str]) -> None:
    """Refuse to run a model whose code is not there, or not trusted."""
    from dlfd_dist.factories import GIVEN

    if (config.model.factory or "").startswith(GIVEN):
        raise ConfigError(
            f"The model of {run.path} was an object of a Python program, which no name leads to: "
            "take --to state-dict, or export run.model there, by torch.onnx.export say."
        )
    if untrusted:
        raise ConfigError(
            f"The run {run.path} names code: add {' '.join(untrusted)} if you trust it, or take "
            "--to state-dict, which runs none."
        )


def _require_folder(run: RunDir, config: JobConfig, form: str) -> None:
    """Refuse a model that is no folder's, and a form in which a folder's has not its own names."""
    if config.model.library != LIBRARY:
        raise ConfigError(
            f"--to huggingface is for runs of model=huggingface, and {run.path} has "
            f"model={config.model.library or config.model.name}: take --to state-dict."
        )
    if form != LIBRARY:
        raise ConfigError(
            f"--to {form} is not for runs of model=huggingface, whose weights have other names in "
            "their file: take --to huggingface, which writes model.safetensors as it came."
        )


def _export_folder(
    run: RunDir, config: JobConfig, folder: Path, out: str | None, *, dry_run: bool, as_json: bool
) -> int:
    """Write the model of a run as the folder that it came from, with a model card."""
    from dlfd_dist.jobs.export import check_folder_of, export_folder, module_of
    from dlfd_dist.report.card import model_card
    from dlfd_dist.report.records import load_with_references

    place = Path(out) if out else run.path / "export" / LIBRARY
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"{place} is there already: give another --out FOLDER, or remove it.")
    check_folder_of(run, folder)
    module = module_of(run, replace(config, model=replace(config.model, folder=str(folder))))
    names = list(module.state_dict())
    if dry_run:
        return _tell_plan(place, LIBRARY, names, as_json=as_json)
    card = model_card(load_with_references(run.path)) if config.verb == "unlearn" else None
    with _writing(place):
        done = export_folder(run, module, folder, place, card=card)
    return _tell(done, names, as_json=as_json)


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise RunDirError(
            f"The model {place} cannot be written ({err.strerror}): give another --out."
        ) from err


def _tell_plan(place: Path, form: str, names: Sequence[str], *, as_json: bool) -> int:
    outcome = {"file": str(place), "form": form, "names": [names[0], names[-1]]}
    text = f"would write {place}: {form}, {len(names)} tensors, {names[0]} ... {names[-1]}"
    print(json.dumps(outcome, indent=2, sort_keys=True) if as_json else text)
    return 0


def _tell(done: Exported, names: Sequence[str], *, as_json: bool) -> int:
    file, form = done.file, done.form
    if as_json:
        outcome = {
            "file": str(file), "form": form, "compared": done.compared,
            "largest_difference": done.largest_difference,
        }  # fmt: skip
        print(json.dumps(outcome, indent=2, sort_keys=True))
    else:
        print(
            f"{file}: {form}, {len(names)} tensors, {names[0]} ... {names[-1]}\n"
            f"compared with the model of the run by the {done.compared}: the largest difference is "
            f"{done.largest_difference:.2g}"
        )
    return 0


def _check_file(file: Path, run: RunDir, checkpoint: str | None) -> None:
    """Refuse a place where something else would be written over."""
    if file.is_dir():
        raise ConfigError(f"--out {file} is a directory: give the name of a file.")
    kept = [run.model, *([Path(checkpoint)] if checkpoint else [])]
    if any(file.resolve() == path.resolve() for path in kept):
        raise ConfigError(f"--out {file} is the model itself: give another name.")
