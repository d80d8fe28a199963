"""Folders of transformers and datasets: unlearned as they are, without a network."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dlfd_dist.compose import compose_job
from dlfd_dist.config import DataConfig, ModelConfig
from dlfd_dist.data import datasets as ours
from dlfd_dist.data.decode import decode
from dlfd_dist.errors import DlfdError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.plan import plan
from dlfd_dist.models import (
    FoldedClassifier,
    build_model,
    check_classifier,
    load_weights,
    model_blocks,
)
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from launch.cli import main
from tests.fakes.huggingface import (
    NAMES,
    columns,
    faces,
    features,
    write_faces,
    write_model,
)
from tests.fakes.strangers import WORDS

INSTALL = "pip install 'dlfd-dist[huggingface]'"
transformers = pytest.importorskip("transformers", reason=f"transformers is missing: {INSTALL}")
hf_datasets = pytest.importorskip("datasets", reason=f"datasets is missing: {INSTALL}")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in these tests may connect anywhere."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def held() -> dict[str, list[Any]]:
    return columns(faces())


@pytest.fixture(scope="module")
def faces_folder(held, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("data") / "drawn faces", held, features())


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a maker of folders with a model of a kind; each is made once, and is for reading."""
    base, made = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_model(base / f"my {kind}", kind)
        return made[kind]

    return make


@pytest.fixture
def words(faces_folder: Path) -> list[str]:
    return [
        "model=huggingface", "data=huggingface", f"data.root={faces_folder}",
        "data.image_size=32", "forget.fraction=0.25", *WORDS,
    ]  # fmt: skip


def unlearned(words: list[str], folder: Path, run: Path, *more: str) -> RunDir:
    config = compose_job("unlearn", [*words, f"model.folder={folder}", f"run.dir={run}", *more])
    run_job(config, Collectives(), StopFlag())
    return RunDir(run)


def answers(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Return what transformers' own model of a folder says."""
    model = transformers.AutoModelForImageClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    )
    with torch.no_grad():
        return model.double().eval()(pixel_values=images).logits


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_folder_is_unlearned_and_goes_back_as_it_came(
    capsys, words, model_folder, tmp_path: Path, kind: str
):
    came = model_folder(kind)
    run = unlearned(words, came, tmp_path / "run", "method=dlfd")
    assert run.read_result()["num_steps"] == 3
    assert main(["export", str(run.path), "--to", "huggingface", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["compared"] == "outputs of 4 and 3 images"
    assert told["largest_difference"] < 1e-6
    out = Path(told["file"])
    assert out == run.path / "export" / "huggingface"
    files = {path.name for path in out.iterdir()}
    assert files == {path.name for path in came.iterdir()} | {"README.md"}
    card = (out / "README.md").read_text()
    names = [*faces().identities.tolist(), *NAMES, came.name, "drawn faces", str(tmp_path)]
    assert not [name for name in names if name in card]
    assert card.splitlines()[2] == "library_name: transformers"
    assert (out / "config.json").read_text() == (came / "config.json").read_text()
    # The names and the precision of the file are those of the file that came in.
    before, after = (load_file(folder / "model.safetensors") for folder in (came, out))
    assert {n: t.dtype for n, t in before.items()} == {n: t.dtype for n, t in after.items()}
    assert any(not torch.equal(before[name], after[name]) for name in before)
    processor = transformers.AutoImageProcessor.from_pretrained(out, local_files_only=True)
    assert list(processor.image_mean) == [0.4, 0.5, 0.6]
    # transformers' own answers are those of the model of the run, and not of the one that came.
    images = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    cfg = ModelConfig(library="huggingface", folder=str(came))
    delivered = build_model(cfg, image_size=32, num_outputs=2, seed=0).double().eval()
    delivered.load_state_dict(load_file(run.model))
    torch.testing.assert_close(
        answers(out, images), delivered(images).logits, rtol=1e-5, atol=1e-5, check_dtype=False
    )
    assert not torch.allclose(answers(out, images), answers(came, images), atol=1e-5)


def test_half_precision_comes_back_in_half_precision(capsys, words, tmp_path: Path):
    came = write_model(tmp_path / "half", "vit", dtype="float16")
    run = unlearned(words, came, tmp_path / "run", "method=finetune", "runtime.dtype=float32")
    out = tmp_path / "out"
    assert main(["export", str(run.path), "--to", "huggingface", "--out", str(out)]) == 0
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.float16}
    assert main(["export", str(run.path), "--to", "huggingface", "--out", str(out)]) == 2
    assert "is there already: give another --out FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "layer", "num_blocks"),
    [("vit", "classifier", 4), ("resnet", "classifier.1", 4), ("convnext", "classifier", 5),
     ("swin", "classifier", 5)],
)  # fmt: skip
def test_features_and_blocks_are_those_of_the_network(
    model_folder, kind: str, layer: str, num_blocks: int
):
    cfg = ModelConfig(library="huggingface", folder=str(model_folder(kind)))
    model = build_model(cfg, image_size=32, num_outputs=2, seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    check_classifier(model, images, num_outputs=2, multi_label=False, world_size=2)
    head = model.module.get_submodule(layer)
    assert isinstance(head, nn.Linear)
    output = model(images)
    torch.testing.assert_close(head(output.features), output.logits)
    blocks = model_blocks(model)
    assert len(blocks) == num_blocks
    numbers = {p for block in blocks for p in block.parameters()}
    assert numbers == set(model.module.parameters())
    folded = FoldedClassifier(model)
    with folded.computed_in(images.shape, bfloat16=False) as one:
        torch.testing.assert_close(one(images).logits, output.logits, rtol=1e-4, atol=1e-5)


def test_cf_k_trains_the_last_layers_of_a_transformer(words, model_folder, tmp_path: Path):
    came = model_folder("vit")
    run = unlearned(words, came, tmp_path / "run", "method=cf_k", "method.k=2")
    cfg = ModelConfig(library="huggingface", folder=str(came))
    before = build_model(cfg, image_size=32, num_outputs=2, seed=0)
    load_weights(before, came)
    new = load_file(run.model)
    moved = {n for n, t in before.state_dict().items() if not torch.equal(t.double(), new[n])}
    assert moved
    assert all(
        name.startswith(("vit.layers.1.", "vit.layernorm.", "classifier.")) for name in moved
    )


def test_the_signature_knows_the_config_and_not_the_place(words, model_folder, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(model_folder("vit"), moved)

    def signature(folder: Path) -> str:
        config = compose_job("unlearn", [*words, f"model.folder={folder}", "method=finetune"])
        assert config.checkpoint == str(folder)
        assert (config.data.mean, config.data.std) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
        return plan(config)["signature"]

    first = signature(model_folder("vit"))
    assert signature(moved) == first
    changed = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**changed, "layer_norm_eps": 1e-5}))
    assert signature(moved) != first


def test_a_certificate_has_the_digest_of_the_config_and_no_place(
    capsys, words, model_folder, tmp_path: Path
):
    came = model_folder("resnet")
    run = unlearned(words, came, tmp_path / "run", "method=finetune")
    capsys.readouterr()
    assert main(["certify", str(run.path)]) == 0
    text = (run.path / "certificate.json").read_text()
    named = json.loads(text)["sections"]["config"]["named_code"]
    assert named.keys() == {"model_code", "model_config"}
    assert str(came) not in text
    assert came.name not in text
    shutil.rmtree(run.path / "export", ignore_errors=True)
    other = tmp_path / "other"
    shutil.copytree(came, other)
    held = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**held, "hidden_act": "gelu"}))
    given = ["export", str(run.path), "--to", "huggingface", f"model.folder={other}"]
    assert main(given) == 2
    assert "has another config.json than the model of" in capsys.readouterr().err


def test_normalisation_is_the_image_processors_unless_a_setting_says_how(words, model_folder):
    folder = model_folder("vit")
    more = [*words, f"model.folder={folder}", "method=finetune"]
    assert compose_job("unlearn", [*more, "data.mean=[0.1,0.1,0.1]"]).data.std == [0.2, 0.25, 0.3]
    factory = [
        "model=huggingface", f"model.folder={folder}", "method=finetune", "forget.fraction=0.2",
        "data.factory=tests.fakes.strangers:splits",
    ]  # fmt: skip
    assert compose_job("unlearn", factory).data.mean == [0.0]


def test_a_folder_is_inspected_and_listed(capsys, model_folder):
    folder = model_folder("swin")
    assert main(["inspect", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fits"] == [f"model=huggingface model.folder={folder}"]
    assert facts["num_outputs"] == 2
    assert main(["models"]) == 0
    assert "transformers saved into model.folder. [transformers]" in capsys.readouterr().out


def test_rows_are_those_of_the_files(faces_folder: Path):
    manifest = faces()
    cfg = DataConfig(name="huggingface", root=str(faces_folder), image_size=24, leaks=False)
    read = ours.get("huggingface")(cfg)
    assert read.identities.tolist() == manifest.identities.tolist()
    assert read.labels.tolist() == manifest.labels.tolist()
    assert read.label_names == list(NAMES)
    assert set(read.splits) == {""}
    assert read.image_paths[:2] == ["all/0", "all/1"]
    assert read.images is not None
    rows = np.array([0, 5, 40])
    wanted = np.stack([decode(manifest, int(row), 24) for row in rows])
    assert torch.equal(read.images[rows], torch.from_numpy(wanted))


def read_back(folder: Path, **settings: Any) -> Any:
    return ours.get("huggingface")(
        DataConfig(name="huggingface", root=str(folder), image_size=16, leaks=False, **settings)
    )


def test_columns_labels_and_splits_have_the_names_that_settings_give(held, tmp_path: Path):
    parts = np.repeat(["train", "validation", "test"], 16).tolist()
    moods = [NAMES[label] for label in held["label"]]
    named = {"photo": held["image"], "mood": moods, "who": held["identity"], "part": parts}
    glad = held["label"]
    kinds = hf_datasets.Features({
        "photo": hf_datasets.Image(), "mood": hf_datasets.Value("string"),
        "who": hf_datasets.Value("string"), "part": hf_datasets.Value("string"),
        "glad": hf_datasets.Value("int8"), "rest": hf_datasets.Value("bool"),
    })  # fmt: skip
    more = {"glad": glad, "rest": [bool(1 - value) for value in glad]}
    folder = write_faces(tmp_path / "named", {**named, **more}, kinds)
    settings = {"image_column": "photo", "identity_column": "who", "split_column": "part"}
    read = read_back(folder, label=["mood"], **settings)
    assert read.labels.tolist() == held["label"]
    assert read.label_names == list(NAMES)
    assert read.splits.tolist() == np.repeat(["train", "val", "test"], 16).tolist()
    both = read_back(folder, label=["glad", "rest"], **settings)
    assert both.label_names == ["glad", "rest"]
    assert both.labels.tolist() == [[value, 1 - value] for value in glad]


def test_the_splits_of_a_dataset_dict_are_kept(held, tmp_path: Path):
    whole = hf_datasets.Dataset.from_dict(held, features=features())
    ranges = {"train": range(32), "validation": range(32, 40), "test": range(40, 48)}
    parts = {name: whole.select(rows) for name, rows in ranges.items()}
    hf_datasets.DatasetDict(parts).save_to_disk(tmp_path / "dict")
    read = read_back(tmp_path / "dict")
    assert read.splits.tolist() == ["train"] * 32 + ["val"] * 8 + ["test"] * 8
    alone = whole.remove_columns("identity")
    alone.save_to_disk(tmp_path / "alone")
    assert read_back(tmp_path / "alone").identities[0] == "all/0"


def config_of(folder: Path, **changes: Any) -> None:
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, **changes}))


def processor_of(folder: Path, **changes: Any) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_a_weight(folder: Path) -> None:
    from safetensors.torch import save_file

    held = load_file(folder / "model.safetensors")
    del held["classifier.bias"]
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")


NO_CHANGE: Callable[[Path], Any] = lambda folder: None  # noqa: E731


@pytest.mark.parametrize(
    ("change", "more", "match"),
    [
        (shutil.rmtree, [], "model.folder=.* is not a folder"),
        (lambda f: (f / "config.json").unlink(), [], "has no config.json: give a folder that save"),
        (lambda f: (f / "config.json").write_text("{"), [], "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), [], "holds no settings: it must be a"),
        (lambda f: (f / "config.json").write_text("{}"), [], "a config.json without a model_type"),
        (lambda f: config_of(f, model_type="bert"), [], "type bert, for which transformers has no"),
        (lambda f: config_of(f, model_type="mine"), [], "that transformers .* does not read"),
        (
            lambda f: config_of(f, model_type="mine", auto_map={"AutoConfig": "mine.Mine"}), [],
            "names code of its own .auto_map., which is never run",
        ),
        (lambda f: config_of(f, hidden_size=24), [], "transformers does not read"),
        (lambda f: config_of(f, num_labels=3), [], "transformers does not read|3 logits"),
        (
            lambda f: config_of(f, id2label={"0": "glad", "1": "calm"}), [],
            "The class 0 is 'glad' in config.json .*, and 'calm' in the data: number the classes",
        ),
        (pickled, [], "as a pickle .pytorch_model.bin., which is never read: save it with"),
        (sharded, [], "holds its weights in several files: save it with one model.safetensors"),
        (without_a_weight, [], "lacks 1 weights of the model that its config.json says"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 99), [], "does not read .* .*"),
        (lambda f: processor_of(f, rescale_factor=1 / 127.5), [], "not with 1/255: give data.mean"),
        (lambda f: processor_of(f, image_std=None), [], "has no image_mean and image_std: give"),
        (lambda f: processor_of(f, image_std=[0, 0, 0]), [], r"data.std=\[0.* must be positive"),
        (NO_CHANGE, ["data.image_size=40"], "The model does not take the images of the data"),
        (NO_CHANGE, ["model.head=mlp"], "model.head=mlp is not allowed with model=huggingface"),
        (NO_CHANGE, ["model.args.depth=3"], "not allowed with model=huggingface, whose config"),
        (NO_CHANGE, ["model.folder=null"], "model=huggingface needs the folder of a model: give"),
        (NO_CHANGE, ["model=small"], "model.folder=.* is only for model=huggingface: leave it out"),
        (NO_CHANGE, ["model.features=nowhere"], "features=nowhere is no layer of the model"),
        (NO_CHANGE, ["data.clean=true"], "data.clean=true is not allowed with data=huggingface"),
        (NO_CHANGE, ["data.root=/nowhere"], "data.root=/nowhere is not a folder"),
        (NO_CHANGE, ["data.label=age"], "data.label=age is no column of .*, which has image,"),
        (NO_CHANGE, ["data.identity_column=ident"], "is no column of .*Did you mean 'identity'"),
        (NO_CHANGE, ["data.image_column=label"], "of .* holds no images: cast it to"),
        (NO_CHANGE, ["data.split_column=part"], "data.split_column=part is no column of"),
        (NO_CHANGE, ["data.split_column=label"], "holds 'calm': a split is train, val"),
        (NO_CHANGE, ["data=synthetic", "data.image_column=x"], "is only for data=huggingface"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    capsys, words, model_folder, tmp_path: Path, change: Callable[[Path], Any], more, match: str
):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("vit"), folder)
    change(folder)
    words = [*words, f"model.folder={folder}", "method=finetune", f"run.root={tmp_path}", *more]
    capsys.readouterr()  # what transformers printed while it saved the folder
    status = main(["unlearn", *words, "--dry-run"])
    said = capsys.readouterr().err
    assert status == 2, said
    assert len(said.strip().splitlines()) == 1
    assert re.search(match, said), said


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": [0, 1] * 23 + [0, -1]}, "all/47: the label -1 is outside of the 2 classes"),
        ({"label": [0, None] * 24}, "all/1: the label label is None: a label is a class number"),
        ({"identity": ["a", None] * 24}, "Row 1 of the column identity is None: an identity is"),
        ({"identity": ["", "a"] * 24}, "Row 0 of the column identity is ''"),
        (
            {"image": [{"bytes": b"GIF", "path": None}] * 48},
            "all/0: .* image cannot be decoded",
        ),
        ({"image": [None] * 48}, "all/0: the item cannot be read .the column image is empty"),
    ],
)
def test_rows_that_cannot_be_are_named(held, tmp_path: Path, change: dict[str, Any], match: str):
    folder = write_faces(tmp_path / "wrong", {**held, **change}, features())
    with pytest.raises(DlfdError, match=match):
        read_back(folder)


def test_images_outside_of_the_folder_are_not_read(held, tmp_path: Path):
    manifest = faces()
    paths = [{"bytes": None, "path": str(manifest.root / p)} for p in manifest.image_paths]
    struct = {"bytes": hf_datasets.Value("binary"), "path": hf_datasets.Value("string")}
    folder = write_faces(tmp_path / "paths", {**held, "image": paths}, features(image=struct))
    info = json.loads((folder / "dataset_info.json").read_text())
    info["features"]["image"] = {"_type": "Image"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DlfdError, match="holds a path in place of an image: save the data set"):
        read_back(folder)


def test_a_folder_that_is_none_of_datasets_is_said(tmp_path: Path):
    with pytest.raises(DlfdError, match="cannot be read .* that save_to_disk of datasets wrote"):
        read_back(tmp_path)
