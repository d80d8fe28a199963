"""Weights from anywhere but never from code."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from safetensors.torch import save_file
from torch import Tensor, nn

from dlfd_dist.errors import CheckpointError
from dlfd_dist.models import Classifier, load_weights, save_weights, weights_path
from dlfd_dist.models.weights import read_state
from dlfd_dist.run_dir import RunDir
from tests.fakes.models import TORCHVISION, assert_same_weights, blank, build, images
from tests.fakes.small_model import small_classifier


@pytest.fixture(scope="module")
def networks() -> dict[str, Classifier]:
    """ResNets whose every tensor, BatchNorm statistics included, differs from a fresh one's."""
    generator = torch.Generator().manual_seed(7)
    models = {}
    for head in ("linear", "mlp"):
        model = build(head=head, seed=5)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        models[head] = model
    return models


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_weights_survive_saving_and_loading(head, networks, tmp_path):
    path = tmp_path / "a folder" / "größe 'x'.safetensors"
    save_weights(networks[head], path)
    model = blank(networks[head])
    load_weights(model, path)
    assert_same_weights(networks[head], model)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def authors_state(model: Classifier) -> dict[str, Tensor]:
    """Return the state under the names of Dasol-Choi/DLFD: base_model and features."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        renamed[name.replace("backbone.", "base_model.").replace("head.", "features.")] = tensor
    assert {"base_model.conv1.weight", "features.0.weight", "features.6.bias"} <= renamed.keys()
    return renamed


def plain_state(model: Classifier) -> dict[str, Tensor]:
    """Return the state as torchvision's own resnet18 names it."""
    renamed = {
        n.removeprefix("backbone.").replace("head.0.", "fc."): t
        for n, t in model.state_dict().items()
    }
    assert renamed.keys() == tv.resnet18(num_classes=3).state_dict().keys()
    return renamed


FORMS = {
    "own": ("mlp", lambda model: model.state_dict()),
    "authors": ("mlp", authors_state),
    "torchvision": ("linear", plain_state),
    "ddp": ("linear", lambda m: {f"module.{k}": v for k, v in m.state_dict().items()}),
    "ddp_authors": ("mlp", lambda m: {f"module.{k}": v for k, v in authors_state(m).items()}),
    "state_dict": ("mlp", lambda m: {"state_dict": authors_state(m), "epoch": 3}),
    "model_state_dict": ("linear", lambda m: {"model_state_dict": plain_state(m), "loss": 0.1}),
    "model": ("linear", lambda m: {"model": m.state_dict()}),
    "no_counters": (
        "linear",
        lambda m: {k: v for k, v in plain_state(m).items() if "num_batches" not in k},
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_foreign_pth_loads_under_our_names(form, legacy, networks, tmp_path):
    head, rename = FORMS[form]
    path = tmp_path / "model.pth"
    torch.save(rename(networks[head]), path, _use_new_zipfile_serialization=not legacy)
    model = blank(networks[head])
    load_weights(model, path)
    assert_same_weights(networks[head], model)


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0"])
def test_torchvisions_own_state_gives_torchvisions_own_output(name, tmp_path):
    foreign = tv.get_model(name, num_classes=3).eval()
    torch.save(foreign.state_dict(), tmp_path / "model.pth")
    model = build(name, seed=9).eval()
    load_weights(model, tmp_path / "model.pth")
    with torch.no_grad():
        # The same kernels in the same order; flatten and pooling may fuse differently.
        torch.testing.assert_close(
            model(images(1)).logits, foreign(images(1)), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_names_become_ours(name, tmp_path):
    with torch.device("meta"):
        foreign, ours = tv.get_model(name).state_dict(), build(name).state_dict()
    torch.save({key: torch.zeros(1) for key in foreign}, tmp_path / "model.pth")
    assert read_state(tmp_path / "model.pth").keys() == ours.keys()


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        ({"name": "efficientnet_b0"}, {}, r"is of another architecture: it lacks \d+ tensors"),
        ({"head": "mlp"}, {}, r"another architecture: it .*has 4 others \(head.3"),
        ({}, {"head": "mlp"}, r"another architecture: it lacks 4 tensors \(head.3.bias"),
        ({"num_outputs": 7}, {}, r"does not fit: it has 7 outputs and the data 3 classes"),
        ({"head": "mlp", "num_outputs": 7}, {"head": "mlp"}, r"it has 7 outputs and the data 3"),
        ({"small_stem": True}, {}, r"backbone.conv1.weight is \(64, 3, 3, 3\), the model's is"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_loaded(
    saved, wanted, message, tmp_path
):
    save_weights(build(**saved), tmp_path / "m.safetensors")
    model = build(seed=4, **wanted)
    untouched = copy.deepcopy(model)
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, tmp_path / "m.safetensors")
    assert_same_weights(untouched, model)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_truncated_pth_is_refused(legacy, tmp_path):
    path = tmp_path / "m.pth"
    state = {"a": torch.zeros(2000)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    _cut(path)
    with pytest.raises(CheckpointError, match=r"m.pth is not a readable checkpoint"):
        read_state(path)


def test_truncated_safetensors_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(2000)}, path)
    _cut(path)
    with pytest.raises(CheckpointError, match=r"m.safetensors is not a readable checkpoint"):
        read_state(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world",
        b"this is a text file\n",
        b"image,label\n1,2\n",
        b"PK\x03\x04",
        b"\x80\x02",
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(content, suffix, tmp_path):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m.{suffix} (is (not a|a text|empty)|holds)"):
        read_state(path)


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(1)], torch.zeros(3), {"a": 3}, {0: torch.zeros(1)}, {"state_dict": [1]}],
    ids=["list", "tensor", "numbers", "integer names", "wrapped list"],
)
def test_a_pth_without_a_dictionary_of_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"does not hold a dictionary of tensors"):
        read_state(tmp_path / "m.pth")


class _Trap:
    """Unpickled, it would touch a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("form", ["plain pickle", "zip", "legacy", "beside tensors"])
def test_a_malicious_pickle_is_refused_and_not_run(form, tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "m.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(_Trap(trap), protocol=2))
    elif form == "beside tensors":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": _Trap(trap)}, path)
    else:
        torch.save(_Trap(trap), path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="foreign code is never run"):
        read_state(path)
    assert not trap.exists()
    os.system(_Trap(trap).__reduce__()[1][0])  # noqa: S605 - what a foreign pickle would run
    assert trap.exists(), "the trap must work, else this test proves nothing"


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"save its state_dict\(\) alone"):
        read_state(tmp_path / "m.pth")


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint at .*nothing.pth"):
        weights_path(tmp_path / "nothing.pth")


def test_run_directory_is_a_checkpoint_once_it_has_its_model(networks, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no finished model \(checkpoints/final"):
        weights_path(tmp_path)
    save_weights(networks["linear"], RunDir(tmp_path).model)
    model = build(seed=9)
    load_weights(model, str(tmp_path))
    assert_same_weights(networks["linear"], model)


@pytest.mark.parametrize("name", ["head.0.bias", "head.0.weight"])
def test_a_head_without_a_dimension_is_refused(tmp_path, name):
    state = {**small_classifier(3).state_dict(), name: torch.tensor(1.0)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="does not fit: head.0.* is \\(\\), the model's is"):
        load_weights(small_classifier(3), tmp_path / "m.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_checkpoint_without_tensors_is_refused(tmp_path, ending):
    path = tmp_path / f"m.{ending}"
    save_file({}, path) if ending == "safetensors" else torch.save({}, path)
    with pytest.raises(CheckpointError, match="holds no tensor"):
        load_weights(small_classifier(3), path)
