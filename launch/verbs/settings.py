"""`dlfd VERB --help`: the settings of a verb by section, each with the value that would run now.

The sentences are those that stand under the fields in dlfd_dist/config/; the choices are those that
the fields are checked against.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlfd_dist.compose import (
    as_text,
    compose_job,
    split_audit,
    split_cluster,
    split_compare,
    split_search,
)
from dlfd_dist.config import read_by, to_dict
from dlfd_dist.yaml_text import read_yaml

from ..plan.compare import SYNTHESISE

WIDTH = 96
NEEDED = {
    "unlearn": ("checkpoint", "forget.request"),
    "evaluate": ("checkpoint",),
}
"""Settings without which a verb does not run; help shows them as such."""
JOB_VERB = {"train": "train", "evaluate": "evaluate"}
"""Whose settings a verb takes; those that are not here take all of unlearning."""
OWN = {
    "compare": ("compare", split_compare),
    "demo": ("compare", split_compare),
    "audit": ("audit", split_audit),
    "search": ("search", split_search),
    "submit": ("cluster", split_cluster),
}


def verb_help(verb: str, words: Sequence[str]) -> str:
    """Return the settings of a verb as text; `words` are those of the command line.

    Raises ConfigError for words that the verb would refuse.
    """
    job_verb = JOB_VERB.get(verb, "unlearn")
    own_text, rest = "", list(words)
    if verb in OWN:
        section, split = OWN[verb]
        own, rest = split(rest)
        own_text = "\n".join(_section(own, f"{section}.", to_dict(own), ()))
    given = {word.partition("=")[0] for word in rest}
    missing = [name for name in NEEDED.get(job_verb, ()) if not _is_given(name, given)]
    config = compose_job(job_verb, [*(f"{name}=needed" for name in missing), *rest])
    values = read_by(job_verb, to_dict(config))
    if verb not in JOB_VERB and verb not in ("unlearn", "bench"):
        values = to_dict(config)
    lines = [
        "Each setting has the value that would run now; with further words, as in 'dlfd",
        f"{verb} --help method=scrub', the values that would run with them.",
        *_section(config, "", values, missing),
    ]
    for field in dataclasses.fields(config):
        section_value = getattr(config, field.name)
        unread = field.name in ("synthesis", "ot") and config.method.name not in SYNTHESISE
        if dataclasses.is_dataclass(section_value) and field.name in values and not unread:
            lines += _section(section_value, f"{field.name}.", values[field.name], missing)
    return "\n".join([*lines, own_text]).rstrip() + "\n"


def _is_given(name: str, given: set[str]) -> bool:
    """Whether a setting, or for the people to forget any way of naming them, is given."""
    if name.startswith("forget."):
        return "data.factory" in given or any(word.startswith("forget.") for word in given)
    return name in given


def _section(
    config: Any, prefix: str, values: Mapping[str, Any], missing: Sequence[str]
) -> Iterator[str]:
    """Yield the lines of one section: its title, and every setting with its sentences."""
    texts, allowed = sentences(type(config)), choices(type(config))
    yield ""
    yield f"{prefix.rstrip('.') or 'run'}: {_first_line(type(config))}"
    for field in dataclasses.fields(config):
        if field.name == "verb" or field.name not in values:
            continue
        value, inner = values[field.name], getattr(config, field.name)
        if dataclasses.is_dataclass(inner):
            # The sections of a run follow it; those within a section are shown in it.
            yield from _section(inner, f"{prefix}{field.name}.", value, ()) if prefix else ()
            continue
        name = f"{prefix}{field.name}"
        yield f"  {name}={'(needed)' if name in missing else _shown(value, name)}"
        text = " ".join(texts.get(field.name, "").split())
        listed = [c for c in allowed.get(name, ()) if c not in text]
        if listed:
            text = f"{text} One of {', '.join(allowed[name])}.".strip()
        yield from textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _shown(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # A word that looks like a number is quoted: run.mode='700'.
    is_plain = isinstance(value, str) and read_yaml(value) == value
    return value if is_plain else as_text(value, name)


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def sentences(cls: type) -> dict[str, str]:
    """Return the text under each field of a section, of what it inherits too."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = _tree(base).body
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                constant = text.value if isinstance(text, ast.Expr) else None
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    texts[field.target.id] = constant.value
    return texts


def choices(cls: type) -> dict[str, tuple[str, ...]]:
    """Return the words that a setting may be, by its whole name, as `one_of` checks them."""
    words: dict[str, tuple[str, ...]] = {}
    for base in cls.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        for node in ast.walk(_tree(base)):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "one_of"):
                continue
            name, _, allowed = node.args
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                words.setdefault(name.value, _words(allowed, base))
    return words


def _words(allowed: ast.expr, base: type) -> tuple[str, ...]:
    if isinstance(allowed, ast.Name):
        return tuple(getattr(sys.modules[base.__module__], allowed.id))
    return tuple(ast.literal_eval(allowed))


@functools.cache
def _tree(cls: type) -> ast.ClassDef:
    """Return the source of a class, which takes 2 ms to find; help asks for each of them twice."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    return tree
