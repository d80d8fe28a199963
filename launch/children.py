"""Python processes that we start run our code, whatever lies in the working directory.

`python -m` looks for modules in the working directory first: a `launch/` or `random.py` there would
run in place of ours. `-P` and PYTHONSAFEPATH leave it out, for a child and for its own children.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dlfd_dist.errors import ConfigError
from dlfd_dist.resources import checkout, root

SAFE_PATH = "PYTHONSAFEPATH"
HAS_SAFE_PATH = sys.version_info >= (3, 11)
"""Python 3.10 knows neither -P nor PYTHONSAFEPATH."""
OURS = ("dlfd_dist", "launch")


def python_words(module: str, python: str | None = None) -> list[str]:
    """Return the words that run a module without the working directory on the path.

    Parameters
    ----------
    python : an interpreter of another environment, whose version is not known and which has only
        the PYTHONSAFEPATH of its environment; None: this interpreter
    """
    flag = ["-P"] if HAS_SAFE_PATH and python is None else []
    return [python or sys.executable, *flag, "-m", module]


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: our code first on an explicit path, and a safe one.

    Empty and relative entries of PYTHONPATH mean the working directory, and are left out.
    """
    environ = os.environ if environ is None else environ
    entries = [e for e in environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(e)]
    if (code := checkout()) is not None:  # nothing else tells a child where it is
        entries = list(dict.fromkeys([str(code), *entries]))
    path = {"PYTHONPATH": os.pathsep.join(entries)} if entries else {}
    kept = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    return {**kept, **path, SAFE_PATH: "1"}


@contextlib.contextmanager
def findable(paths: Iterable[str]) -> Iterator[None]:
    """Let children import inside the block what this program imports by these paths.

    The folders that its sys.path has go to the end of PYTHONPATH. A folder is left out, with a note
    on standard error, whose other modules would run in place of those of the same names.

    paths : as 'mypkg.nets:build'
    """
    before = os.environ.get("PYTHONPATH")
    known = {*(before or "").split(os.pathsep), *site.getsitepackages(), site.getusersitepackages()}
    added = [
        folder
        for name in dict.fromkeys(path.partition(":")[0].partition(".")[0] for path in paths)
        if (folder := _folder_of(name)) is not None
        and str(folder) not in known
        and _gives_way(folder, name)
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, *map(str, added)]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update({} if before is None else {"PYTHONPATH": before})


def _folder_of(name: str) -> Path | None:
    """Return the folder in which this program finds a module or package; None where it does not."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that was made by hand
        return None
    if name == "__main__" or spec is None or not spec.has_location or spec.origin is None:
        return None
    file = Path(spec.origin).absolute()
    return file.parent.parent if spec.submodule_search_locations else file.parent


def _gives_way(folder: Path, name: str) -> bool:
    names = shadowing(folder)
    if names:
        print(
            f"dlfd: note: the processes of the runs do not look for {name} in {folder}, whose "
            f"{', '.join(names[:5])} would run in place of the modules of that name: move {name} "
            "into a folder of its own.",
            file=sys.stderr,
        )
    return not names


def shadowing(folder: Path) -> list[str]:
    """Return the files and packages of a folder that bear the name of a module that we may use."""
    others = [entry for entry in sys.path if entry and Path(entry).resolve() != folder.resolve()]
    return sorted(
        path.name for path, name in _modules(folder) if _is_known(name, others) and not _own(path)
    )


def _modules(folder: Path) -> Iterator[tuple[Path, str]]:
    suffixes = importlib.machinery.all_suffixes()
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        name, _, suffix = path.name.partition(".")
        if f".{suffix}" in suffixes or (path / "__init__.py").is_file():
            yield path, name


def _is_known(name: str, path: list[str]) -> bool:
    if name in OURS or name in sys.stdlib_module_names:
        return True
    return name.isidentifier() and importlib.machinery.PathFinder.find_spec(name, path) is not None


def _own(path: Path) -> bool:
    return path.resolve().parent == root()


def mind_working_directory() -> None:
    """Name on standard error the modules of the working directory that children do not use.

    Raises ConfigError where this Python cannot leave it out.
    """
    names = shadowing(Path.cwd())
    if not names:
        return
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if not HAS_SAFE_PATH:
        raise ConfigError(
            f"The working directory has {listed}, which Python 3.10 would run in place of the "
            "modules of that name: start dlfd in another directory, or with Python 3.11."
        )
    print(
        f"dlfd: note: {listed} of the working directory bears the name of a module and is not used",
        file=sys.stderr,
    )
