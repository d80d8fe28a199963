"""Networks of timm and torchvision by name: made, unlearned, and known by their files."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import nn

from dlfd_dist.compose import compose_job, config_text, load_config
from dlfd_dist.config import ModelConfig, signature
from dlfd_dist.errors import DlfdError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.plan import plan
from dlfd_dist.models import (
    FoldedClassifier,
    build_model,
    check_classifier,
    check_weights,
    model_blocks,
)
from dlfd_dist.runtime import sync_bn
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from launch.cli import main
from tests.fakes.strangers import WORDS
from tests.fakes.tiny import TINY_FACES

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'dlfd-dist[timm]'")

VIT = ("model=timm", "model.name=test_vit")
EFFICIENTNET = ("model=timm", "model.name=test_efficientnet")


def classifier(library: str, name: str, *, channels: int = 3, size: int = 32, **args: Any):
    cfg = ModelConfig(name, library=library, args=args)
    return build_model(cfg, image_size=size, num_outputs=2, seed=0, channels=channels)


@pytest.mark.parametrize(
    ("library", "name", "layer", "num_blocks"),
    [
        ("timm", "test_vit", "head", 8),
        ("timm", "test_efficientnet", "classifier", 7),
        ("timm", "test_convnext", "head.fc", 11),
        ("torchvision", "resnet18", "fc", 10),
        ("torchvision", "mobilenet_v3_small", "classifier.3", 15),
    ],
)
def test_features_blocks_and_channels_are_those_of_the_network(
    library: str, name: str, layer: str, num_blocks: int
):
    model = classifier(library, name, channels=1)
    images = torch.randn(2, 1, 32, 32)
    check_classifier(model, images, num_outputs=2, multi_label=False, world_size=2)
    head = model.module.get_submodule(layer)
    assert isinstance(head, nn.Linear)
    output = model.eval()(images)
    torch.testing.assert_close(head(output.features), output.logits)
    blocks = model_blocks(model)
    assert len(blocks) == num_blocks
    numbers = [p.numel() for block in blocks for p in set(block.parameters())]
    own = sum(p.numel() for p in model.module._parameters.values() if p is not None)
    # Tokens and positions, which belong to the network or its encoder itself, are in none.
    assert sum(numbers) == sum(p.numel() for p in model.parameters()) - own


def test_stochastic_depth_is_off():
    for library, name, args in (
        ("torchvision", "convnext_tiny", {}), ("timm", "test_vit", {"drop_path_rate": 0.5}),
    ):  # fmt: skip
        layers = classifier(library, name, **args).module.modules()
        rates = [getattr(m, "drop_prob", getattr(m, "p", 0)) for m in layers]
        assert not any(rates)


@pytest.mark.parametrize("method", ["eu_k", "dlfd"])
def test_a_timm_network_is_unlearned_under_its_own_names(tmp_path: Path, method: str):
    torch.manual_seed(3)
    owners = timm.create_model("test_vit", num_classes=2, img_size=32)
    state = {f"module.{name}": t for name, t in owners.state_dict().items()}
    torch.save({"arch": "test_vit", "state_dict": state}, tmp_path / "w.pth")
    words = [
        *VIT, *TINY_FACES, *WORDS, f"method={method}", f"checkpoint={tmp_path / 'w.pth'}",
        f"run.dir={tmp_path / 'run'}", *([] if method == "dlfd" else ["method.k=2"]),
    ]  # fmt: skip
    config = compose_job("unlearn", words)
    assert (config.data.mean, config.data.std) == ([0.5] * 3, [0.5] * 3)
    run_job(config, Collectives(), StopFlag())
    delivered = timm.create_model("test_vit", num_classes=2, img_size=32)
    new = load_file(tmp_path / "run" / "checkpoints" / "final" / "model.safetensors")
    delivered.load_state_dict(new)
    moved = {n for n, t in owners.state_dict().items() if not torch.equal(t, new[n].float())}
    last = {n for n in new if n.startswith(("blocks.5.", "norm.", "head."))}
    assert moved
    assert method == "dlfd" or moved <= last


def test_the_dry_run_and_the_signature_know_the_network(tmp_path: Path):
    words = [*EFFICIENTNET, *TINY_FACES, f"run.root={tmp_path}"]
    config = compose_job("train", words)
    assert config.data.mean == [0.485, 0.456, 0.406]
    file = tmp_path / "config.yaml"
    file.write_text(config_text(config))
    assert load_config(file) == config
    planned = plan(config)["signature"]
    assert planned != signature(config, {})  # the version of timm is among its inputs
    other = compose_job("train", [*VIT, *words[2:]])
    assert plan(other)["signature"] != planned
    own = compose_job("train", [*words, "data.mean=[0.1,0.1,0.1]"])
    assert (own.data.mean, own.data.std) == ([0.1] * 3, [0.229, 0.224, 0.225])
    torchvision = compose_job("train", ["model=torchvision", "model.name=resnet50", *TINY_FACES])
    assert torchvision.data.std == [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["model=timm"], "model=timm needs the name of a network: give model.name=NAME"),
        (["model=timm", "model.name=test_vitt"], "is no network of timm.*mean 'test_vit"),
        (["model=torchvision", "model.name=resnet5"], "of torchvision.*mean 'resnet50'"),
        (["model=timm", "model.name=hf-hub:a/b"], "is no network of timm.*'dlfd models timm'"),
        (["model=timm", "model.name=test_vit.mine"], "no weights 'mine' of test_vit, but r160"),
        ([*VIT, "model.head=mlp"], "model.head=mlp is not allowed with model=timm"),
        ([*VIT, "model.small_stem=true"], "model.small_stem=true is not allowed with model=timm"),
        ([*VIT, "model.args.pretrained=true"], "model.args.pretrained is not allowed"),
        ([*VIT, "model.args.checkpoint_path=w.pth"], "give a file of weights as checkpoint=PATH"),
        ([*VIT, "model.args.deep=3"], "timm does not make model.name=test_vit for images of 32"),
        (["model.library=tim"], "one of timm, torchvision, huggingface. Did you mean 'timm'"),
        ([*VIT, "data.image_size=40"], "timm does not make model.name=test_vit|does not take"),
        (["model=torchvision", "model.name=squeezenet1_0"], "no linear layer that could read"),
    ],
)
def test_what_cannot_be_is_one_sentence(capsys, tmp_path: Path, words: list[str], match: str):
    status = main(["train", *TINY_FACES, *words, f"run.root={tmp_path}", "--dry-run"])
    said = capsys.readouterr().err
    assert status == 2
    assert len(said.strip().splitlines()) == 1
    assert re.search(match, said), said


def test_a_missing_library_names_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DlfdError, match=r"pip install 'dlfd-dist\[timm\]'"):
        compose_job("train", ["model=timm", "model.name=test_vit2"])


def test_methods_that_say_they_cannot(tmp_path: Path):
    owners = timm.create_model("test_vit", num_classes=2, img_size=32)
    torch.save(owners.state_dict(), tmp_path / "w.pth")
    words = [*VIT, *TINY_FACES, f"checkpoint={tmp_path / 'w.pth'}", f"run.root={tmp_path}"]
    config = compose_job("unlearn", [*words, "method=cf_k", "method.k=9"])
    with pytest.raises(DlfdError, match="it has 8 blocks with its head"):
        run_job(config, Collectives(), StopFlag())


def test_checkpoints_of_networks_are_known(tmp_path: Path, capsys):
    def inspected(path: Path) -> dict[str, Any]:
        assert main(["inspect", str(path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    vit = timm.create_model("test_vit", num_classes=5).state_dict()
    torch.save({"arch": "test_vit", "state_dict": vit}, tmp_path / "w.pth")
    found = inspected(tmp_path / "w.pth")
    assert (found["fits"], found["num_outputs"]) == (["model=timm model.name=test_vit"], 5)
    assert "model=timm model.name=test_vit" in found["command"]
    torch.save(vit, tmp_path / "my_test_vit_best.pth")
    assert inspected(tmp_path / "my_test_vit_best.pth")["fits"] == found["fits"]
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    torch.save(vit, folder / "pytorch_model.bin")
    assert inspected(folder / "pytorch_model.bin")["fits"] == found["fits"]
    torch.save(tv.squeezenet1_0(num_classes=3).state_dict(), tmp_path / "s.pth")
    assert inspected(tmp_path / "s.pth")["fits"] == []
    torch.save(tv.mobilenet_v3_small(num_classes=3).state_dict(), tmp_path / "m.pth")
    fits = inspected(tmp_path / "m.pth")["fits"]
    assert fits == ["model=torchvision model.name=mobilenet_v3_small"]
    with pytest.raises(DlfdError, match="fits model=torchvision model.name=mobilenet_v3_small"):
        check_weights(classifier("timm", "test_vit"), tmp_path / "m.pth")
    with pytest.raises(DlfdError, match="it has 5 outputs and the data 2 classes"):
        check_weights(classifier("timm", "test_vit", size=160), tmp_path / "w.pth")


def test_the_lists_have_the_libraries(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "'dlfd models timm [PATTERN]' lists them. [timm]" in listed
    assert main(["models", "timm", "test_v*", "--json"]) == 0
    assert "test_vit2" in json.loads(capsys.readouterr().out)
    assert main(["models", "torchvision", "nothing*"]) == 2
    assert "No network of torchvision is named nothing*" in capsys.readouterr().err


def test_normalisation_with_its_activation_is_shared_and_not_folded(
    monkeypatch: pytest.MonkeyPatch,
):
    model = classifier("timm", "test_efficientnet").double()
    norms = [m for m in model.modules() if type(m).__name__ == "GlobalBatchNormAct2d"]
    assert norms
    assert not sync_bn.local_batch_norms(model.module)
    norm = next(m for m in norms if isinstance(m.act, nn.ReLU | nn.SiLU))
    plain = copy.deepcopy(norm)
    images = torch.randn(3, norm.num_features, 4, 4, dtype=torch.float64)

    class TwoAlike:
        """Two ranks that see the same images."""

        is_initialized = staticmethod(lambda: True)
        get_world_size = staticmethod(lambda: 2)

        @staticmethod
        def all_gather(
            parts: list[torch.Tensor], own: torch.Tensor, async_op: bool
        ) -> SimpleNamespace:
            assert async_op
            for part in parts:
                part.copy_(own)
            return SimpleNamespace(wait=lambda: None)

    expected = plain.train()(images)
    monkeypatch.setattr(sync_bn, "dist", TwoAlike)
    shared = norm.train()(images)
    torch.testing.assert_close(shared, expected, rtol=1e-9, atol=1e-9)
    monkeypatch.undo()

    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with (
        FoldedClassifier(model.eval()).computed_in(pixels.shape, bfloat16=False) as folded,
        torch.no_grad(),
    ):
        torch.testing.assert_close(
            folded.eval()(pixels).logits, model(pixels).logits, rtol=1e-9, atol=1e-9
        )
