"""What `import dlfd_dist as dlfd` gives beyond single runs: the verbs that start runs themselves.

Their runs are processes of their own, here or on the nodes of a cluster, so the model and the sets
are named by import path; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.errors import ConfigError, DlfdError

from .children import findable

Several = str | Sequence[str]


def compare(
    model: str,
    data: str,
    *,
    method: Several,
    out: str | Path,
    seed: int | Sequence[int] = 0,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Compare methods over seeds against Original and Retrained, as `dlfd compare`.

    Returns the directory, which holds table, summary and page.

    Parameters
    ----------
    model, data : import paths of functions, as 'mypkg.nets:build' and 'mypkg.data:splits'
    method, seed : one, or several
    settings : further settings by name, as {"compare.trials": 8}
    """
    from .verbs.compare import run_compare

    words = _words(model, data, method, seed, out, settings)
    return _run("compare", run_compare, words, [model, data], out)


def audit(
    kind: str,
    model: str,
    data: str,
    *,
    method: Several,
    out: str | Path,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Judge methods over many models, as `dlfd audit KIND`; parameters as of `compare`.

    kind : ulira or klom
    """
    from .verbs.audit import run_audit

    words = [kind, *_words(model, data, method, seed, out, settings)]
    return _run("audit", run_audit, words, [model, data], out)


def search(
    model: str,
    data: str,
    *,
    method: str,
    out: str | Path,
    seed: int = 0,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Search the settings of a method, as `dlfd search`; parameters as of `compare`."""
    from .search.search import run_search

    words = _words(model, data, method, seed, out, settings)
    return _run("search", run_search, words, [model, data], out, resume=resume)


def submit(
    verb: str,
    model: str,
    data: str,
    *,
    cluster: str,
    method: Several,
    out: str | Path,
    seed: int | Sequence[int] = 0,
    settings: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Path:
    """Submit a verb and grid as SLURM jobs, as `dlfd submit VERB`; parameters as of `compare`.

    cluster : a file of configs/cluster/, such as slurm_generic
    dry_run : print the plan and every batch script, and queue nothing; needs no SLURM
    """
    from .verbs.submit import run_submit

    words = [verb, *_words(model, data, method, seed, out, settings), f"cluster={cluster}"]
    return _run("submit", run_submit, words, [model, data], out, dry_run=dry_run, test_only=False)


def certify(path: str | Path, *, key: str | Path | None = None, names: bool = False) -> Path:
    """Write the certificate of a finished run, as `dlfd certify`; return its path."""
    from dlfd_dist.evidence import CERTIFICATE

    from .verbs.certify import run_certify

    private_key = None if key is None else str(key)
    run_certify([str(path)], key=private_key, names=names, dry_run=False, as_json=False)
    return Path(path) / CERTIFICATE


def _words(
    model: str,
    data: str,
    method: Several,
    seed: int | Sequence[int],
    out: str | Path,
    settings: Mapping[str, Any] | None,
) -> list[str]:
    """Return the call as the command line has it."""
    from dlfd_dist.compose import as_text

    for setting, path in (("model", model), ("data", data)):
        if not isinstance(path, str):
            raise ConfigError(
                f"{setting} is an object of the type {type(path).__name__}, which the processes of "
                "the runs do not have: give the import path of a function, as mypkg.nets:build."
            )
        if path.startswith("__main__:"):
            raise ConfigError(
                f"{setting}={path} lies in the program itself, which the processes of the runs do "
                "not run: put the function into a module beside it, and name that."
            )
    values = {"model.factory": model, "data.factory": data, **(settings or {}), "run.dir": str(out)}
    return [
        f"method={_several(method)}",
        f"seed={_several(seed)}",
        *(f"{name}={as_text(value, name)}" for name, value in values.items()),
    ]


def _several(values: Any) -> str:
    return str(values) if isinstance(values, str | int) else ",".join(map(str, values))


def _run(
    name: str, run: Callable[..., int], words: Sequence[str], code: Sequence[str], out: str | Path,
    **options: bool,
) -> Path:  # fmt: skip
    """Run a verb whose processes import the code; return its directory."""
    with findable(code):
        status = run(words, **{"dry_run": False, "as_json": False, **options})
    if status:
        raise DlfdError(f"'dlfd {name}' ended with exit status {status}: its messages say why.")
    return Path(out)
