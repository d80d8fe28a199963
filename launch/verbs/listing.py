"""dlfd methods, models, data and metrics: what there is by name, plugins too."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from typing import Any

from dlfd_dist.errors import ConfigError
from dlfd_dist.libraries import INSTALL, names
from dlfd_dist.plugins import load_modules, offered
from dlfd_dist.registry import Registry
from dlfd_dist.terminal import print_table

SETTINGS = {"methods": "method", "models": "model", "data": "data", "metrics": "metrics.custom"}
"""By verb, the setting whose values it lists."""
WHERE_TO_START = (
    "Which method forgets best is not known yet: start with finetune and reset as baselines, and "
    "compare on your own data with 'dlfd compare data.root=DIR forget.request=FILE "
    "method=finetune,reset,dlfd compare.tune=12', which tries 12 settings of each."
)
ABBREVIATIONS = (
    "CE: classification loss; KL: Kullback-Leibler divergence; OT: optimal transport; RMS: root "
    "mean square; forget and retain: the training images of who is forgotten, and all others."
)
LIBRARIES = {
    "timm": "A network of timm by model.name; 'dlfd models timm [PATTERN]' lists them.",
    "torchvision": "A network of torchvision by model.name; 'dlfd models torchvision' lists them.",
    "huggingface": "An image classifier that transformers saved into model.folder.",
}
PACKAGES = {"huggingface": "transformers"}
"""Of libraries that are not called as their package is."""


def run_listing(verb: str, words: Sequence[str], *, as_json: bool) -> int:
    """Print the names that a setting may have, each with a sentence and the package it is of."""
    if verb == "models" and words and words[0] in INSTALL:
        return _list_library(*words, as_json=as_json)
    for word in words:
        key, _, value = word.partition("=")
        if key != "plugins" or not value:
            more = ", or timm or torchvision, whose networks it lists" if verb == "models" else ""
            raise ConfigError(
                f"'dlfd {verb}' was given {word}: give nothing, or plugins=[mypkg.mymodule]{more}."
            )
        load_modules(part.strip() for part in value.strip("[]").split(","))
    rows = [_row(SETTINGS[verb], name) for name in _table(verb).names() if name != "factory"]
    if verb == "models":
        rows += [
            {"name": name, "sentence": text, "package": PACKAGES.get(name, name)}
            for name, text in LIBRARIES.items()
        ]
    if as_json:
        print(json.dumps(rows, indent=2, sort_keys=True))
        return 0
    if not rows:
        print(f"No {verb} of other packages: give plugins=[mypkg.mymodule], or install a package.")
        return 0
    _show(rows)
    if verb == "methods":
        # A script that reads the names from standard output does not meet them.
        print(f"\n{ABBREVIATIONS}\n{WHERE_TO_START}", file=sys.stderr)
    return 0


def _show(rows: Sequence[dict[str, str]]) -> None:
    width = max(len(row["name"]) for row in rows)
    cells = []
    for row in rows:
        of = f" [{row['package']}]" if row["package"] != "dlfd-dist" else ""
        cells.append((row["name"], row["sentence"] + of))
    print_table(cells, plain="\n".join(f"{name:{width}}  {text}" for name, text in cells))


def _list_library(library: str, pattern: str = "*", *more: str, as_json: bool) -> int:
    """Print the names of the networks of a library, or of those that match a pattern."""
    if more:
        raise ConfigError(f"'dlfd models {library}' takes one pattern, as in 'resnet*'.")
    listed = names(library, pattern)
    if not listed:
        raise ConfigError(f"No network of {library} is named {pattern}: give a pattern as '*vit*'.")
    print(json.dumps(listed, indent=2) if as_json else "\n".join(listed))
    return 0


def _table(verb: str) -> Registry[Any]:
    """Return the table of a verb; what fills it is imported."""
    if verb == "methods":
        from dlfd_dist.methods import methods

        return methods
    if verb == "models":
        from dlfd_dist.models import backbones

        return backbones
    if verb == "metrics":
        from dlfd_dist.metrics import custom_metrics

        return custom_metrics
    from dlfd_dist.data import datasets

    return datasets


def _row(setting: str, name: str) -> dict[str, str]:
    point = offered(setting).get(name)
    verb = next(verb for verb, listed in SETTINGS.items() if listed == setting)
    try:
        entry = _table(verb).get(name)
    except ConfigError as err:
        # A broken plugin is listed with what is wrong.
        return {"name": name, "sentence": str(err), "package": _package(point)}
    lines = (inspect.getdoc(entry) or "").split("\n\n")[0].split("\n")
    ours = entry.__module__.startswith("dlfd_dist.")
    package = "dlfd-dist" if ours else _package(point) or entry.__module__
    return {"name": name, "sentence": " ".join(lines), "package": package}


def _package(point: Any) -> str:
    return "" if point is None else (point.dist.name if point.dist is not None else point.module)
