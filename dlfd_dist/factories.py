"""Functions named by import path, as `mypkg.nets:build`, and objects that a program gives.

A path is imported, never unpickled. An object of a running program has a name too, `given:` and
what tells it from others, so that a run knows one kind of name only.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError, DlfdError

GIVEN = "given:"
"""How the name of an object begins that a program gave."""
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_given: dict[str, Callable[..., Any]] = {}


@contextlib.contextmanager
def giving(objects: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let names that begin with GIVEN stand for these inside the block."""
    before = dict(_given)
    _given.update(objects)
    try:
        yield
    finally:
        _given.clear()
        _given.update(before)


def named(setting: str, path: str) -> Callable[..., Any]:
    """Return the function that a setting names.

    Raises ConfigError where it cannot be imported, or is nothing that can be called.
    """
    if path.startswith(GIVEN):
        if path not in _given:
            raise ConfigError(
                f"{setting}={path} was an object of the Python program that made this run: only "
                "that program can make it again. Name a function, as in mypkg.nets:build."
            )
        return _given[path]
    if not PATH.fullmatch(path):
        raise ConfigError(
            f"{setting}={path} is no import path: write module:function, as in mypkg.nets:build."
        )
    module, _, name = path.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(
            f"{setting}={path} is of Python's own library, which makes no model and no data set: "
            "name a function of yours, as in mypkg.nets:build."
        )
    target: Any = _imported(setting, path, module)
    for part in name.split("."):
        if not hasattr(target, part):
            raise ConfigError(f"{setting}={path}: the module {module} has no '{name}'.")
        target = getattr(target, part)
    if not callable(target):
        raise ConfigError(
            f"{setting}={path} is no function, but an object of the type {type(target).__name__}."
        )
    return target


def _imported(setting: str, path: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as err:
        if err.name is not None and (module == err.name or module.startswith(f"{err.name}.")):
            raise ConfigError(
                f"{setting}={path} cannot be imported: there is no module {err.name}. Install its "
                "package, or set PYTHONPATH to the absolute path of the folder that holds it."
            ) from err
        raise ConfigError(f"{setting}={path} cannot be imported ({_first_line(err)}).") from err
    # A stranger's module may raise anything.
    except Exception as err:
        raise ConfigError(f"{setting}={path} cannot be imported ({_first_line(err)}).") from err


def called(setting: str, path: str, args: Mapping[str, Any]) -> Any:
    """Return what the function of a setting returns; ConfigError where it fails."""
    function = named(setting, path)
    try:
        return function(**args)
    except DlfdError:
        raise
    except Exception as err:
        raise ConfigError(f"{setting}={path} failed ({_first_line(err)}).") from err


def _first_line(err: Exception) -> str:
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0].rstrip('.')}" if lines else type(err).__name__


@functools.cache
def code_digest(path: str) -> str:
    """Return the SHA-256 of the Python files of the package that an import path leads into.

    Of a module that is in no package it is that of its file alone.
    """
    digest = hashlib.sha256()
    for name, file in _sources(path.partition(":")[0]):
        digest.update(f"{name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _sources(module: str) -> list[tuple[str, Path]]:
    """Return the name, relative to their package, and the path of the files that count."""
    package = sys.modules.get(module.partition(".")[0])
    file = getattr(package, "__file__", None)
    if file is not None and Path(file).name == "__init__.py":
        folder = Path(file).parent
        return [(p.relative_to(folder).as_posix(), p) for p in sorted(folder.rglob("*.py"))]
    own = getattr(sys.modules.get(module), "__file__", None)
    return [] if own is None else [(Path(own).name, Path(own))]
