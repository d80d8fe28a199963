"""Models and sets that cannot be used: one sentence each, before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

import dlfd_dist as dlfd
from dlfd_dist.compose import compose_job
from dlfd_dist.jobs.plan import plan
from tests.fakes.strangers import QUICK, WORDS, Faces, Net, build, splits


class Changed(Net):
    """The stranger's network with another forward pass."""

    def __init__(self, answer: Callable[[Net, Tensor], Any]):
        super().__init__()
        self.answers = answer

    def forward(self, images: Tensor) -> Any:
        return self.answers(self, images)


class Sequence(Faces):
    """The stranger's set with other items."""

    def __init__(self, item: Callable[[int, tuple[Any, ...]], Any]):
        super().__init__(range(6))
        self.item = item

    def __getitem__(self, index: int) -> Any:
        return self.item(index, super().__getitem__(index))


class Stream(IterableDataset[Any]):
    def __iter__(self):
        return iter(())


def logits(net: Net, images: Tensor) -> Tensor:
    return net.answer(net.embed(images))


def unused() -> Net:
    net = build()
    net.aside = nn.Linear(3, 3)
    return net


def broken() -> Net:
    net = build()
    nn.init.constant_(net.answer.bias, float("nan"))
    return net


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: [1, 2], r"type list: give a torch\.nn\.Module"),
    "no weights": (nn.Identity, "a module without weights"),
    "lazy layers": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), "lazy layers"),
    "a dictionary": (lambda: Changed(lambda n, x: {"logits": logits(n, x)}), "but a dict: wrap it"),
    "two tensors": (lambda: Changed(lambda n, x: (logits(n, x), x)), "but a tuple: wrap it"),
    "a map": (lambda: Changed(lambda n, x: n.stem(x)), r"gives \(2, 6, 6, 5\) .* for 2 images"),
    "class numbers": (lambda: Changed(lambda n, x: logits(n, x).argmax(1, True)), "torch.int64"),
    "one row": (lambda: Changed(lambda n, x: logits(n, x)[:1]), r"gives \(1, 2\)"),
    "another number of classes": (lambda: build(outputs=5), "5 logits, and the data have 2 cl"),
    "other channels": (lambda: build(3), r"does not take the images .* 1 x 12 x 10 \(chan"),
    "NaN weights": (broken, "NaN or infinite: check its weights"),
    "without gradient": (lambda: Changed(lambda n, x: logits(n, x).detach()), "have no gradient"),
    "random answers": (
        lambda: Changed(lambda n, x: logits(n, x) + torch.rand(1)), "differently in evaluation",
    ),
    "unused weights": (unused, r"2 weights .* no part in its logits \(aside.weight, ...\)"),
    "no linear layer": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "calls no linear layer",
    ),
}  # fmt: skip

ITEMS: dict[str, tuple[Callable[[int, tuple[Any, ...]], Any], str]] = {
    "only images": (lambda i, it: it[0], "no .image, label. or .image, label, identity., but Ten"),
    "four values": (lambda i, it: (*it, 1), "but 4 values"),
    "a text": (lambda i, it: ("a.png", it[1]), "the image is a str"),
    "a row of numbers": (lambda i, it: (it[0].flatten(), it[1]), r"the shape \(120,\)"),
    "true and false": (lambda i, it: (it[0] > 0, it[1]), r"the image is of torch\.bool"),
    "other sizes": (lambda i, it: (it[0][:, i:], it[1]), "retain/1: the image is 1 x 11 x 10"),
    "NaN pixels": (lambda i, it: (it[0] * float("nan"), it[1]), "NaN or infinite pixels"),
    "names of classes": (lambda i, it: (it[0], "cat"), "the label is 'cat': give a class number"),
    "half a class": (lambda i, it: (it[0], 0.5), r"the label is 0\.5"),
    "a negative class": (lambda i, it: (it[0], -1), "label -1 is outside"),
    "one and several": (lambda i, it: (it[0], [0, 1] if i else 1), "one label and others several"),
    "other numbers": (lambda i, it: (it[0], [0, 2]), "some items|each be 0 or 1|others several"),
    "no name": (lambda i, it: (*it[:2], ""), "the identity is ''"),
    "random pixels": (lambda i, it: (it[0] + torch.rand(1), it[1]), "when it is read again"),
    "a broken disk": (lambda i, it: 1 / 0, r"cannot be read \(division by zero\)"),
}  # fmt: skip

CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "no sets": (dict.fromkeys(("retain", "forget", "val", "test")), "There is no data"),
    "nobody": (
        {"retain": None, "forget": None, "train": Faces(range(6))}, "Nobody to forget: the sets",
    ),
    "no val": ({"val": None}, "The sets lack val"),
    "retain and train": ({"train": Faces(range(9))}, "have retain too|lack"),
    "a stream": ({"val": Stream()}, "The set val has no length"),
    "an empty set": ({"forget": []}, "The set forget is empty"),
    "sets and a function": ({"data": "a:b"}, "are both given"),
    "an unknown method": ({"method": "scrubb"}, "Did you mean 'scrub'"),
    "an unknown setting": ({"settings": {"method.lrr": 1}}, "method.lrr"),
    "a setting of its own": ({"settings": {"seed": 1}}, "settings holds seed"),
    "ranks": ({"settings": {"runtime.world_size": 2}}, "start the program with torchrun"),
    "no layer": ({"features": "trunkk"}, "no layer of the model, .* Did you mean 'trunk'"),
    "no file": ({"checkpoint": "/nowhere.pth"}, "There is no checkpoint at"),
    "blocks": ({"method": "cf_k"}, r"give method\.blocks"),
    "no block": ({"method": "cf_k", "settings": {"method.blocks": ["x"]}}, "'x' is no layer"),
    "a range of three": ({"pixel_range": (0, 1, 2)}, r"data\.pixel_range=.*\[low, high\]"),
    "a range per channel": ({"pixel_range": ([0, 0], 1)}, "have 1 channels"),
    "an upside-down range": ({"pixel_range": (1, 0)}, "lightest pixel must be above"),
    "augmentation": ({"settings": {"data.augment": "flip"}}, "data.augment=flip is for square"),
    "cleaning": ({"settings": {"data.clean": True}}, "data.clean=true is not allowed with data.f"),
    "everybody in two sets": ({"val": Faces(range(3))}, "stands in two splits"),
    "few classes": ({"settings": {"data.classes": 1}}, "data.classes=1"),
}  # fmt: skip


def refused(out: Path, match: str, model: Any = None, **more: Any) -> None:
    arguments = {**splits(), "method": "finetune", **more}
    arguments["settings"] = {**QUICK, **arguments.pop("settings", {})}
    with pytest.raises(dlfd.DlfdError, match=match) as caught:
        dlfd.unlearn(build() if model is None else model, **arguments, out=out / "run")
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    assert not (out / "run").exists()


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_unlearned(tmp_path: Path, case: str):
    make, match = MODELS[case]
    refused(tmp_path, match, make())


@pytest.mark.parametrize("case", ITEMS)
def test_items_that_cannot_be_read(tmp_path: Path, case: str):
    item, match = ITEMS[case]
    refused(tmp_path, match, retain=Sequence(item))


@pytest.mark.parametrize("case", CALLS)
def test_a_call_that_cannot_be_meant(tmp_path: Path, case: str):
    more, match = CALLS[case]
    refused(tmp_path, match, **more)


def test_labels_outside_of_the_outputs(tmp_path: Path):
    refused(
        tmp_path, "2 logits, and the data have 8 classes",
        retain=Sequence(lambda i, it: (it[0], 7 if i == 3 else it[1])),
    )  # fmt: skip


def test_a_list_of_labels_that_the_items_contradict(tmp_path: Path):
    retain = Faces(range(6))
    retain.targets = [1] * len(retain)
    refused(tmp_path, "retain/0: the label is 0, and .* list of labels says 1", retain=retain)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `strangepkg` on the path, with functions that fail in several ways."""
    folder = tmp_path / "strangepkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "raises.py").write_text("raise RuntimeError('no licence')\n")
    (folder / "needs.py").write_text("import surely_not_installed\n")
    (folder / "fine.py").write_text(
        "number = 3\ndef fails(**_):\n    raise KeyError('weights')\ndef none():\n    return None\n"
        "def sets():\n    return {'retain': [1]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.startswith("strangepkg")]:
        del sys.modules[name]


PATHS = {
    "no path": ("model", "mypkg.nets", "is no import path: write module:function"),
    "a shell": ("model", "os:system-x", "is no import path"),
    "Python's own": ("model", "os:system", "os:system is of Python's own library"),
    "no package": ("model", "surely_not:build", "there is no module surely_not. Install"),
    "no module": ("data", "strangepkg.nets:splits", "there is no module strangepkg.nets"),
    "no function": ("model", "strangepkg.fine:build", "has no 'build'"),
    "a number": ("model", "strangepkg.fine:number", "no function, but .* type int"),
    "a module that raises": ("model", "strangepkg.raises:build", "RuntimeError: no licence"),
    "a module that lacks another": ("model", "strangepkg.needs:build", "surely_not_installed"),
    "a function that raises": ("model", "strangepkg.fine:fails", "failed .KeyError: 'weights'"),
    "a function of no arguments": ("data", "strangepkg.fine:none", "returned .* type NoneType"),
    "no module returned": ("model", "strangepkg.fine:none", "returned .* type NoneType"),
    "few sets": ("data", "strangepkg.fine:sets", "lack forget, val, test"),
    "an object of another program": ("model", "given:0123456789abcdef", "only that program"),
}


@pytest.mark.parametrize("case", PATHS)
def test_import_paths_that_lead_nowhere_are_refused_by_the_dry_run(package: Path, case: str):
    section, path, match = PATHS[case]
    factories = {"model": "tests.fakes.strangers:build", "data": "tests.fakes.strangers:splits"}
    factories[section] = path
    words = [f"{name}.factory={value}" for name, value in factories.items()]
    config = compose_job("train", [*words, *WORDS, f"run.dir={package.parent / 'run'}"])
    with pytest.raises(dlfd.DlfdError, match=match) as caught:
        plan(config)
    assert "\n" not in str(caught.value)
    assert not (package.parent / "run").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["data=synthetic", "data.factory=a.b:c"], "data=synthetic and data.factory=a.b:c contra"),
        (["data=factory"], "give data.factory=PACKAGE.MODULE:FUNCTION"),
        (["model.args={width: 3}"], "model.args=.* is only for model.factory"),
        (["model.features=layer4"], "model.features=layer4 is only for model.factory"),
        (["data=synthetic", "data.pixel_range=[0,1]"], "only for data.factory"),
        (["model.factory=a.b:c", "model.arg.width=3"], "The setting 'model.arg.width' is not kn"),
    ],
)
def test_settings_that_contradict_each_other(words: list[str], match: str):
    with pytest.raises(dlfd.DlfdError, match=match):
        compose_job("train", words)


def test_arguments_of_a_function_come_from_either_form():
    words = ["model.factory=a.b:c", "model.args={width: 3, kind: [x, 2.5]}", "model.args.deep=true"]
    config = compose_job("train", ["data=synthetic", *words])
    assert config.model.args == {"width": 3, "kind": ["x", 2.5], "deep": True}
