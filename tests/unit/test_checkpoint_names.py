"""Checkpoints as other trainings write them: wrapped, prefixed, renamed; or something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dlfd_dist.config import ModelConfig
from dlfd_dist.errors import CheckpointError
from dlfd_dist.models import Classifier, build_model, load_weights, save_weights
from dlfd_dist.models.weights import read_state
from tests.fakes.models import blank


def build(name: str = "resnet18", *, num_outputs: int = 3, seed: int = 0, **values) -> Classifier:
    cfg = ModelConfig(name=name, **values)
    return build_model(cfg, image_size=32, num_outputs=num_outputs, seed=seed)


def plain(model: Classifier) -> dict[str, Tensor]:
    """Return the state as torchvision's own resnet18 names it."""
    state = model.state_dict().items()
    return {n.removeprefix("backbone.").replace("head.0.", "fc."): t for n, t in state}


def prefixed(prefix: str) -> Callable[[Classifier], dict[str, Tensor]]:
    return lambda model: {f"{prefix}{name}": t for name, t in plain(model).items()}


FORMS: dict[str, Callable[[Classifier], dict[str, Any]]] = {
    "compiled": prefixed("_orig_mod."),
    "compiled_ddp": prefixed("module._orig_mod."),
    "compiled_inside": lambda m: {
        k.replace("head.", "head._orig_mod."): v for k, v in m.state_dict().items()
    },
    "lightning": lambda m: {
        "epoch": 3, "state_dict": prefixed("model.module.")(m), "optimizer_states": [{"state": {}}],
    },
    "net": lambda m: {"net": plain(m), "acc": 91.2, "epoch": 7},
    "one_dictionary": lambda m: {"weights of it": plain(m), "epoch": 7},
    "two_levels": lambda m: {"state_dict": {"model": plain(m)}, "epoch": 7},
    "dropout_and_linear": lambda m: {k.replace("fc.", "fc.1."): v for k, v in plain(m).items()},
}  # fmt: skip


@pytest.fixture(scope="module")
def source() -> Classifier:
    return build(seed=5)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_other_trainings_load(form, source, tmp_path):
    model = blank(source)
    torch.save(FORMS[form](source), tmp_path / "model.pth")
    load_weights(model, tmp_path / "model.pth")
    torch.testing.assert_close(model.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_a_prefix_of_some_names_only_is_a_name(tmp_path):
    torch.save({"model.a.weight": torch.zeros(1), "b.weight": torch.ones(1)}, tmp_path / "m.pth")
    assert set(read_state(tmp_path / "m.pth")) == {"backbone.model.a.weight", "backbone.b.weight"}


def test_two_dictionaries_of_tensors_are_not_chosen_between(tmp_path):
    torch.save({"a": {"x": torch.zeros(1)}, "b": {"x": torch.zeros(1)}}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="does not hold a dictionary of tensors"):
        read_state(tmp_path / "m.pth")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 45\n"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LFS, r"is a text file \(a git-LFS pointer: .*\), not a checkpoint"),
        ("<!DOCTYPE html><title>404</title>", r"is a text file \(a web page\), not a checkpoint"),
        ("hello\n", "is a text file, not a checkpoint"),
        ("", "is empty, and not a checkpoint"),
    ],
)
def test_a_text_file_is_called_one(text, message, suffix, tmp_path):
    (tmp_path / f"m.{suffix}").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_state(tmp_path / f"m.{suffix}")


def test_a_damaged_file_is_not_said_to_hold_code(tmp_path):
    (tmp_path / "m.pth").write_bytes(bytes(range(255, 0, -1)) * 4)
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        read_state(tmp_path / "m.pth")


def test_the_model_that_would_fit_is_said(tmp_path):
    path = tmp_path / "m.safetensors"
    save_weights(build("small", small_stem=True, head="mlp", num_outputs=5), path)
    expected = r"It fits model=small model.head=mlp model.small_stem=false or true: set these\."
    with pytest.raises(CheckpointError, match=expected):
        load_weights(build(), path)


def test_names_that_fit_nothing_are_shown(tmp_path):
    torch.save({"stem.0.weight": torch.zeros(1), "out.bias": torch.zeros(1)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"names are stem.0.weight, out.bias: .*none of.*vit"):
        load_weights(build(), tmp_path / "m.pth")


def test_labels_from_1_are_suspected_where_one_class_is_too_many(tmp_path):
    save_weights(build(num_outputs=3), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"3 outputs and .* 4 classes \(labels that begin"):
        load_weights(build(num_outputs=4), tmp_path / "m.safetensors")
