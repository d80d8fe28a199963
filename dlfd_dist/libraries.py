"""Networks of timm and torchvision by name, and of transformers by folder: made, normalised for and
divided into blocks.

Weights are never fetched: a network begins with new ones, and `checkpoint` names a local file.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import huggingface
from .errors import ConfigError
from .registry import near_match

if TYPE_CHECKING:
    from torch import nn

    from .config import ModelConfig

INSTALL = {"timm": "dlfd-dist[timm]", "torchvision": "torchvision"}
"""By library whose networks have names, what pip installs it with."""
LIBRARIES = (*INSTALL, huggingface.LIBRARY)
"""What model.library may be."""
OURS = (
    "pretrained", "weights", "weights_backbone", "checkpoint_path", "cache_dir", "num_classes",
    "pretrained_cfg", "pretrained_cfg_overlay", "features_only",
)  # fmt: skip
"""Arguments that dlfd gives itself, or that would fetch weights or read them as a pickle."""
RANDOM_DEPTH = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""How classes of layers end that leave out a branch at random, and what holds their rate."""


def _library(name: str) -> ModuleType:
    """Return a library's module that has its models; ConfigError where it is not installed."""
    try:
        return importlib.import_module("timm" if name == "timm" else "torchvision.models")
    except ImportError as err:
        raise ConfigError(
            f"model={name} needs the package {name}. Install it with: pip install '{INSTALL[name]}'"
        ) from err


def names(library: str, pattern: str = "*") -> list[str]:
    """Return the names of a library's classifiers that match a pattern such as `resnet*`."""
    module = _library(library)
    if library == "timm":
        return module.list_models(pattern)
    return sorted(fnmatch.filter(module.list_models(module=module), pattern))


def check_name(library: str, name: str) -> None:
    """Raise ConfigError for a name that the library does not have, or that has no such weights.

    A name of timm may end with the tag of pretrained weights, whose normalisation it brings.
    """
    known = names(library)
    bare, _, tag = name.partition(".") if library == "timm" else (name, "", "")
    if bare not in known:
        raise ConfigError(
            f"model.name={name} is no network of {library}, which has {len(known)}."
            + (near_match(bare, known) or f" 'dlfd models {library}' lists them.")
        )
    if tag and tag not in (tags := _tags(bare)):
        raise ConfigError(
            f"model.name={name}: timm knows no weights '{tag}' of {bare}, but "
            f"{', '.join(tags) or 'none'}." + near_match(tag, tags)
        )


def _tags(bare: str) -> list[str]:
    listed = _library("timm").list_pretrained(f"{bare}.*")
    return [name.partition(".")[2] for name in listed if name.partition(".")[0] == bare]


def digests(cfg: ModelConfig) -> dict[str, str]:
    """Return SHA-256 of what a library's network is made by: its code, and a file that says it."""
    if cfg.library is None:
        return {}
    if cfg.library == huggingface.LIBRARY:
        assert cfg.folder is not None
        return huggingface.digests(cfg.folder)
    text = f"{cfg.library}=={version(cfg.library)}"
    return {"model_code": hashlib.sha256(text.encode()).hexdigest()}


@functools.cache
def normalisation(library: str, name: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation by channel that a network's pretrained weights expect.

    timm has them in the network's `pretrained_cfg`, torchvision in the transforms of its weights.
    """
    check_name(library, name)
    module = _library(library)
    if library == "timm":
        cfg = module.get_pretrained_cfg(name)
        return list(cfg.mean), list(cfg.std)
    transforms = module.get_model_weights(name).DEFAULT.transforms()
    return list(transforms.mean), list(transforms.std)


def build(cfg: ModelConfig, *, image_size: int, channels: int, num_outputs: int) -> nn.Module:
    """Return a network with new weights that gives logits, under its own names.

    Weights are drawn from torch's generator as the library draws them. Stochastic depth draws by
    call, so that a sample's fate would depend on its rank: its rate is 0.

    Parameters
    ----------
    image_size : edge in pixels; networks that take images of one size alone are made for it
    channels : of the images; the first convolution takes as many
    num_outputs : logits; a folder says itself how many, and how large images are

    Raises
    ------
    ConfigError where the library refuses the name, the size or model.args.
    """
    if cfg.library == huggingface.LIBRARY:
        assert cfg.folder is not None
        module = huggingface.build(cfg.folder)
    else:
        module = _by_name(cfg, image_size, channels, num_outputs)
    for layer in module.modules():
        for ending, attribute in RANDOM_DEPTH.items():
            if type(layer).__name__.endswith(ending):
                setattr(layer, attribute, 0.0)
    return module


def _by_name(cfg: ModelConfig, image_size: int, channels: int, num_outputs: int) -> nn.Module:
    assert cfg.library is not None
    check_name(cfg.library, cfg.name)
    make = _of_timm if cfg.library == "timm" else _of_torchvision
    try:
        return make(cfg.name, cfg.args, image_size, channels, num_outputs)
    # A library may raise anything of arguments that it does not take.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise ConfigError(
            f"{cfg.library} does not make model.name={cfg.name} for images of {image_size} pixels"
            + (f" with model.args={cfg.args}" if cfg.args else "")
            + f" ({lines[0].rstrip('.')})."
        ) from err


def _of_timm(
    name: str, args: Mapping[str, Any], size: int, channels: int, num_outputs: int
) -> nn.Module:
    timm = _library("timm")
    fixed = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    given = {"num_classes": num_outputs, "in_chans": channels, **fixed, **args}
    return timm.create_model(name, pretrained=False, **given)


def _of_torchvision(
    name: str, args: Mapping[str, Any], size: int, channels: int, num_outputs: int
) -> nn.Module:
    from torch import nn

    given: dict[str, Any] = {"num_classes": num_outputs}
    if name.startswith("vit_"):
        given["image_size"] = size
    if name in ("googlenet", "inception_v3"):
        # With auxiliary heads they give no tensor in training.
        given |= {"aux_logits": False, "init_weights": True}
    module = _library("torchvision").get_model(name, weights=None, **{**given, **args})
    if channels != 3:
        where, conv = next((n, m) for n, m in module.named_modules() if type(m) is nn.Conv2d)
        module.set_submodule(
            where,
            nn.Conv2d(
                channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,  # type: ignore[arg-type]
                conv.dilation, conv.groups, conv.bias is not None,  # type: ignore[arg-type]
            ),
        )  # fmt: skip
    return module


def classifier_layer(module: nn.Module) -> str | None:
    """Return the name of the linear layer that gives the logits; None where nothing says it.

    timm names it (`get_classifier`), and its input are the features. Of other networks it is found
    by a pass of images.
    """
    from torch import nn

    if not hasattr(module, "get_classifier"):
        return None
    layer = module.get_classifier()  # type: ignore[operator]
    if not isinstance(layer, nn.Linear):
        return None
    return next(name for name, other in module.named_modules() if other is layer)


def blocks(module: nn.Module) -> list[list[str]]:
    """Return the names of the layers of each block, in forward order; [] where nothing says it.

    timm's networks say it for rates that decay by layer (`group_matcher`); those of transformers
    hold their layers in lists.
    """
    if huggingface.is_of_transformers(module):
        return huggingface.blocks(module)
    if not hasattr(module, "group_matcher"):
        return []
    group_modules = importlib.import_module("timm.models").group_modules
    groups: Mapping[Any, Sequence[str]] = group_modules(
        module,
        module.group_matcher(coarse=False),  # type: ignore[operator]
    )
    return [list(groups[key]) for key in sorted(groups)]


def said(words: Sequence[str], path: str) -> Iterator[tuple[str, str]]:
    """Yield (library, name) of the networks that a checkpoint's own words and its path name.

    Parameters
    ----------
    words : whole names, with or without a tag
    path : a text that may contain names; the three longest of each library are taken
    """
    for library in INSTALL:
        try:
            known = set(names(library))
        except ConfigError:
            continue
        listed = [w.partition(".")[0] for w in words if w.partition(".")[0] in known]
        contained = sorted((n for n in known if n in path.lower()), key=lambda n: (-len(n), n))
        yield from ((library, name) for name in [*listed, *contained[:3]])


def with_as_many_parameters(
    number: int, matrices: Sequence[tuple[int, ...]]
) -> list[tuple[str, str]]:
    """Return (torchvision, name) of the networks with this number of parameters.

    torchvision says how many each has with 1,000 classes.

    Parameters
    ----------
    number : of parameters, of a network with any number of classes
    matrices : the shapes of its linear layers, of which the last gives the classes
    """
    if not matrices:
        return []
    classes, width = matrices[-1]
    wanted = number + (1000 - classes) * (width + 1)
    module = _library("torchvision")
    networks = []
    for name in names("torchvision"):
        counts = {weights.meta["num_params"] for weights in module.get_model_weights(name)}
        if wanted in counts:
            networks.append(("torchvision", name))
    return networks


def image_size(library: str, name: str) -> int:
    """Return the edge in pixels of the images that a network is made for by default."""
    if library == "timm":
        return _library("timm").get_pretrained_cfg(name).input_size[-1]
    return 224
