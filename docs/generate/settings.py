"""The page of all settings, from the dataclasses of dlfd_dist.config and their fields' texts."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

from dlfd_dist import config

SECTIONS: dict[str, type] = {
    "data": config.DataConfig,
    "data.synthetic": config.SyntheticFacesConfig,
    "forget": config.ForgetConfig,
    "model": config.ModelConfig,
    "train": config.TrainConfig,
    "synthesis": config.SynthesisConfig,
    "ot": config.TransportConfig,
    "metrics": config.MetricsConfig,
    "runtime": config.RuntimeConfig,
    "run": config.RunConfig,
    "compare": config.CompareConfig,
    "audit": config.AuditConfig,
    "search": config.SearchConfig,
    "cluster": config.ClusterConfig,
}


def settings_page() -> str:
    """Return the page of every section but the methods', which have pages of their own."""
    parts = [
        "# Settings",
        "A setting is a word `section.key=value` on the command line, or a line of a YAML file. "
        "`dlfd VERB --help` prints the settings of a verb. Each method has its own settings: "
        "see [Methods](../methods.md).",
        "## General\n\n" + table(config.JobConfig, skip=set(SECTIONS) | {"method"}),
    ]
    for name, kind in SECTIONS.items():
        summary = (kind.__doc__ or "").split("\n\n")[0]
        nested = {key.rpartition(".")[2] for key in SECTIONS if key.startswith(name + ".")}
        parts.append(f"## {name}\n\n{summary}\n\n{table(kind, prefix=name + '.', skip=nested)}")
    return "\n\n".join(parts) + "\n"


def table(kind: type, *, prefix: str = "", skip: frozenset[str] | set[str] = frozenset()) -> str:
    """Return a table of a dataclass: setting, default, meaning."""
    meanings = field_texts(kind)
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(kind):
        if field.name not in skip:
            meaning = meanings.get(field.name, "").replace("|", "\\|")
            rows.append(f"| `{prefix}{field.name}` | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def field_texts(kind: type) -> dict[str, str]:
    """Return what stands below each field of a dataclass and of those it derives from."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            assert isinstance(tree.body[0], ast.ClassDef)
            texts |= _below_fields(tree.body[0].body)
    return texts


def _below_fields(body: list[ast.stmt]) -> dict[str, str]:
    texts, name = {}, None
    for statement in body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif name and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            texts[name] = " ".join(str(statement.value.value).split())
            name = None
        else:
            name = None
    return texts


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "must be given"
    words = {None: "null", True: "true", False: "false", "": '""'}
    shown = words[value] if isinstance(value, bool | str | None) and value in words else str(value)
    return f"`{shown}`".replace("|", "\\|")
