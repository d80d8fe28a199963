"""YAML as OmegaConf reads and writes it, by libyaml where that is there: ten times as fast."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml import YAMLError

if TYPE_CHECKING:
    from yaml import SafeDumper as BaseDumper
    from yaml import SafeLoader as BaseLoader
else:  # PyYAML may be built without libyaml
    BaseDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = ["YAMLError", "read_yaml", "write_yaml"]

FLOAT, TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
NUMBER = re.compile(
    r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
"""Floats of OmegaConf, whose 1e-3 is a number; by YAML 1.1 it is a text."""


class Loader(BaseLoader):
    """Plain values alone; a date stays a text, and a key that stands twice is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark,
                    f"found duplicate key {key.value}", key.start_mark,
                )  # fmt: skip
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


class Dumper(BaseDumper):
    """Writes what Loader reads back: a text that looks like a number is quoted."""


Loader.add_implicit_resolver(FLOAT, NUMBER, list("-+0123456789."))
Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != TIMESTAMP]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
# Other readers of YAML 1.1 take these for numbers and truth values; dates it knows already.
Dumper.add_implicit_resolver(FLOAT, NUMBER, list("-+0123456789."))
Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))


def read_yaml(text: str) -> Any:
    """Return what a text holds; YAMLError where it is no YAML of plain values."""
    try:
        return yaml.load(text, Loader)  # noqa: S506 - Loader is a SafeLoader and makes plain values
    except (ValueError, TypeError, RecursionError) as err:  # a number or a key that cannot be
        raise YAMLError(str(err)) from err


def write_yaml(values: Any) -> str:
    """Return plain values as a text, the keys in their order."""
    return yaml.dump(values, Dumper=Dumper, allow_unicode=True, sort_keys=False)
