"""What settings say of a model or a data set that a function makes."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..huggingface import LIBRARY as HUGGINGFACE
from ..libraries import INSTALL, LIBRARIES, OURS
from .checks import one_of, require


def check_data(cfg: Any) -> None:
    """Refuse what is for sets of a function alone, and what is for image files alone."""
    _check_function("data", cfg)
    counts = {len(cfg.mean), len(cfg.std)}
    numbers = "one number, or one a channel" if cfg.factory else "three numbers"
    require(
        len(counts) == 1 and (counts == {3} or bool(cfg.factory)) and 0 not in counts,
        "data.mean", cfg.mean, f"{numbers}, as data.std",
    )  # fmt: skip
    if cfg.pixel_range is not None:
        require(
            len(cfg.pixel_range) == 2, "data.pixel_range", cfg.pixel_range,
            "[low, high], each one number or one a channel",
        )  # fmt: skip
    if cfg.classes is not None:
        require(cfg.classes >= 2, "data.classes", cfg.classes, ">= 2, or null")
    for name in ("pixel_range", "classes"):
        _only_with_function("data", name, cfg)
    has_no_files = cfg.factory is not None or cfg.name == HUGGINGFACE
    for name in ("clean", "leaks"):
        if has_no_files and getattr(cfg, name):
            owner = "data=huggingface" if cfg.factory is None else "data.factory"
            raise ConfigError(
                f"data.{name}=true is not allowed with {owner}, whose images are no files "
                f"that could be compared: set data.{name}=false."
            )
    for name in ("image_column", "identity_column", "split_column"):
        value = getattr(cfg, name)
        if value is not None and cfg.name != HUGGINGFACE:
            raise ConfigError(
                f"data.{name}={value} is only for data=huggingface: leave it out with "
                f"data={cfg.name}."
            )


def check_model(cfg: Any) -> None:
    """Refuse what is for a module of a function or a library alone, and what is for ours."""
    _check_function("model", cfg)
    if cfg.folder is not None and cfg.library != HUGGINGFACE:
        raise ConfigError(f"model.folder={cfg.folder} is only for model=huggingface: leave it out.")
    if cfg.library is None:
        _only_with_function("model", "features", cfg)
        return
    one_of("model.library", cfg.library, LIBRARIES)
    if cfg.library in INSTALL and cfg.name == cfg.library:
        raise ConfigError(
            f"model={cfg.library} needs the name of a network: give model.name=NAME, as in "
            f"model.name=resnet50. 'dlfd models {cfg.library}' lists them."
        )
    if cfg.head != "linear" or cfg.small_stem:
        named = "model.small_stem=true" if cfg.small_stem else f"model.head={cfg.head}"
        raise ConfigError(
            f"{named} is not allowed with model={cfg.library}, whose network keeps its own layers: "
            "leave it out."
        )
    if cfg.library == HUGGINGFACE and cfg.folder is None:
        raise ConfigError(
            "model=huggingface needs the folder of a model: give model.folder=DIR, which "
            "save_pretrained of transformers wrote."
        )
    if cfg.library == HUGGINGFACE and cfg.args:
        raise ConfigError(
            f"model.args={cfg.args} is not allowed with model=huggingface, whose config.json says "
            "how the network is made: leave it out."
        )
    for name in cfg.args:
        if name in OURS:
            raise ConfigError(
                f"model.args.{name} is not allowed with model={cfg.library}: dlfd makes the "
                "network without weights and with as many outputs as the data have. Leave it out, "
                "and give a file of weights as checkpoint=PATH."
            )


def _check_function(section: str, cfg: Any) -> None:
    """Refuse a function without the name that stands for it, and the other way round."""
    if (cfg.name == "factory") != (cfg.factory is not None):
        advice = (
            f"give {section}.factory=PACKAGE.MODULE:FUNCTION"
            if cfg.factory is None
            else f"leave {section}={cfg.name} out"
        )
        raise ConfigError(
            f"{section}={cfg.name} and {section}.factory={cfg.factory or 'null'} contradict each "
            f"other: {advice}."
        )
    if cfg.args and cfg.factory is None and getattr(cfg, "library", None) is None:
        raise ConfigError(f"{section}.args={cfg.args} is only for {section}.factory: leave it out.")


def _only_with_function(section: str, name: str, cfg: Any) -> None:
    value = getattr(cfg, name)
    if value is not None and cfg.factory is None:
        raise ConfigError(
            f"{section}.{name}={value} is only for {section}.factory: leave it out with "
            f"{section}={cfg.name}."
        )
