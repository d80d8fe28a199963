"""Backbones: features, sizes, seeds and the precision they compute in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dlfd_dist.config import JobConfig, ModelConfig, RuntimeConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods.dlfd import synthesise
from dlfd_dist.models import FoldedClassifier, build_model
from dlfd_dist.runtime.collectives import Collectives
from tests.fakes.models import TORCHVISION, assert_same_weights, build, images

WIDTHS = {**TORCHVISION, "small": 48}


@pytest.mark.parametrize(("small_stem", "head"), [(False, "linear"), (True, "mlp")])
@pytest.mark.parametrize("name", WIDTHS)
def test_features_are_what_the_last_linear_layer_reads(name, small_stem, head):
    model = build(name, small_stem=small_stem, head=head).eval()
    read = []
    last = model.module.head[-1]
    last.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    with torch.no_grad():
        features, logits = model(images())
        again = last(features)
    assert features.shape == (2, 128 if head == "mlp" else WIDTHS[name])
    assert logits.shape == (2, 3)
    assert torch.equal(features, read[0])
    assert torch.equal(logits, again)
    assert logits.std() > 0


@pytest.mark.parametrize(
    ("name", "layer", "edge"),
    [
        ("resnet18", "layer1", 64),
        ("small", "layer1", 64),
        ("densenet121", "features.denseblock1", 64),
        ("efficientnet_b0", "features.1", 64),
    ],
)
def test_small_stem_keeps_the_edge_of_the_image(name, layer, edge):
    sizes = {}
    for small_stem in (False, True):
        model = build(name, small_stem=small_stem).eval()
        model.module.backbone.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output, key=small_stem: sizes.update({key: output.shape[-1]})
        )
        with torch.no_grad():
            model(images(1))
    assert sizes[True] == edge
    assert sizes[False] <= edge // 2


@pytest.mark.parametrize("size", [16, 64])
def test_small_is_a_residual_network_of_about_50_000_parameters(size):
    model = build("small").eval()
    assert 45_000 < sum(p.numel() for p in model.parameters()) < 60_000
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 9
    before, block = [], model.module.backbone.get_submodule("layer1")
    block.register_forward_hook(lambda _m, inputs, output: before.extend([*inputs, output]))
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
    with torch.no_grad():
        assert model(images(2, size)).logits.isfinite().all()
    assert torch.equal(before[0], before[1])  # without its convolutions a block passes its input on


@pytest.mark.parametrize(("small_stem", "patch"), [(False, 16), (True, 8)])
def test_vit_refuses_an_image_that_its_patches_do_not_divide(small_stem, patch):
    cfg = ModelConfig(name="vit_b_16", small_stem=small_stem)
    with pytest.raises(ConfigError, match=rf"does not divide into the {patch}-pixel patches"):
        build_model(cfg, image_size=100, num_outputs=2, seed=0)


def test_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"model=resnet81 .*densenet121.* mean 'resnet18'"):
        build("resnet81")


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_weights_are_a_function_of_the_seed_and_leave_the_global_rng_alone(name):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    one = build(name, head="mlp", seed=1)
    assert torch.equal(torch.rand(4), expected)
    again, other = (build(name, head="mlp", seed=s) for s in (1, 2))
    assert_same_weights(one, again)
    for module in (one.module.backbone, one.module.head):
        assert any(p.std() > 0 for p in module.parameters())
    assert not torch.equal(one.module.head[-1].weight, other.module.head[-1].weight)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_efficientnet_draws_nothing_in_training():
    """Stochastic depth would make a sample's fate depend on its rank."""
    model = build("efficientnet_b0").train()
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            outputs.append(model(images(4)).logits)
    assert torch.equal(*outputs)


def test_bfloat16_computes_coarsely_and_answers_in_float32():
    cfg = ModelConfig()
    plain, coarse = (
        build_model(cfg, image_size=64, num_outputs=3, seed=0, bfloat16=flag).eval()
        for flag in (False, True)
    )
    with torch.no_grad():
        exact, output = plain(images()), coarse(images())
    assert (output.features.dtype, output.logits.dtype) == (torch.float32, torch.float32)
    assert all(p.dtype == torch.float32 for p in coarse.parameters())
    assert not torch.equal(output.features, exact.features)
    # bfloat16 keeps 8 bits (0.4 %); through 18 layers a few percent of the features' size.
    difference = (output.features - exact.features).norm() / exact.features.norm()
    assert difference < 0.05


@pytest.mark.parametrize(
    ("autocast", "in_synthesis", "in_update"),
    [("none", False, False), ("synthesis", True, False), ("update", False, True),
     ("bfloat16", True, True)],
)  # fmt: skip
def test_synthesis_and_update_are_computed_in_bfloat16_each_by_itself(
    monkeypatch, autocast, in_synthesis, in_update
):
    runtime = RuntimeConfig(autocast=autocast)
    model = build_model(
        ModelConfig(name="small"),
        image_size=32,
        num_outputs=3,
        seed=0,
        bfloat16=runtime.update_in_bfloat16,
    )
    config = JobConfig(runtime=runtime)
    context = SimpleNamespace(
        folded=FoldedClassifier(model, fold=False),
        config=config,
        collectives=Collectives(),
        pixel_range=(-torch.ones(3, 1, 1), torch.ones(3, 1, 1)),
    )
    images, seen = torch.zeros(2, 3, 32, 32), []
    batch = SimpleNamespace(
        images=images, forget_images=images, labels=torch.tensor([0, 1]), total=2, forget_total=2
    )
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda x: seen.append(model.in_bfloat16) or forward(x))
    synthesise(context, batch, forget_weight=1.0, retain_weight=1.0)
    assert set(seen) == {in_synthesis}
    assert model.in_bfloat16 is in_update
