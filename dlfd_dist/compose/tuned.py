"""+tuned=FILE: the settings that a search chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from ..config.checks import chosen_on_val
from ..config.paths import PATH_SETTINGS
from ..errors import ConfigError
from .overrides import SIMPLE, as_text, parse
from .typed import read_settings, section_of

TUNED_SECTIONS = ("method", "synthesis", "ot")
"""What a file of +tuned= may set."""


def with_tuned(parsed: list[Override]) -> list[Override]:
    """Put the settings of +tuned=FILE, which a search wrote, in the place of it.

    What else is on the command line counts more, wherever it stands.
    """
    files = [word for word in parsed if word.key_or_group == "tuned"]
    if not files:
        return parsed
    rest = [word for word in parsed if word.key_or_group != "tuned"]
    methods = [str(word.value()) for word in rest if word.key_or_group == "method"] or ["dlfd"]
    path = Path(str(files[-1].value()))
    settings = _read_tuned(path, methods[-1])
    given = {word.key_or_group for word in rest}
    texts = [
        f"{name}={as_text(value, f'tuned={path}: {name}')}"
        for name, value in settings.items()
        if name not in given
    ]
    return [*rest, *parse(texts)]


def _read_tuned(path: Path, method: str) -> dict[str, Any]:
    """Return the settings of a file by name; ConfigError where they are not for this method."""
    values = read_settings(path)
    chosen_on_val(f"tuned={path}, whose objective", str(values.pop("objective", "")))
    tuned_for = section_of(values.get("method"), "method").pop("name", None)
    if tuned_for != method:
        raise ConfigError(
            f"tuned={path} is for method={tuned_for}, not for method={method}: give "
            f"method={tuned_for}, or the file of another search."
        )
    settings = {
        f"{section}.{key}": value
        for section, content in values.items()
        for key, value in section_of(content, section).items()
    }
    for name, value in settings.items():
        if name.partition(".")[0] not in TUNED_SECTIONS or name in PATH_SETTINGS:
            raise ConfigError(
                f"tuned={path} sets {name}, which is not tuned: the file may hold settings of "
                f"{', '.join(TUNED_SECTIONS)}, and no paths."
            )
        if isinstance(value, dict):
            raise ConfigError(
                f"tuned={path}: {name}={value} is not allowed: a setting is {SIMPLE}."
            )
    return settings
