"""The blocks of a model in the order of its forward pass."""

from __future__ import annotations

import pytest
import torch

from dlfd_dist.models import model_blocks
from tests.fakes.models import build, images

BLOCKS = {
    # A stem, the blocks between, and the head.
    "resnet18": 1 + 8 + 1,
    "densenet121": 1 + 7 + 1,
    "efficientnet_b0": 1 + 16 + 1 + 1,
    "vit_b_16": 1 + 12 + 1,
    "small": 1 + 3 + 1,
}


@pytest.mark.parametrize("small_stem", [False, True], ids=["stem", "small_stem"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_is_in_one_block_and_the_head_is_the_last(name, small_stem):
    with torch.device("meta"):
        model = build(name, small_stem=small_stem, head="mlp")
    blocks = model_blocks(model)
    assert len(blocks) == BLOCKS[name]
    assert list(blocks[-1]) == [model.module.head]
    held = [id(p) for block in blocks for p in block.parameters()]
    assert len(held) == len(set(held))
    left = {n for n, p in model.module.named_parameters() if id(p) not in held}
    own = {"backbone.class_token", "backbone.encoder.pos_embedding"}
    assert left == (own if name == "vit_b_16" else set())
    buffers = {id(b) for block in blocks for b in block.buffers()}
    assert all(id(b) in buffers for b in model.buffers())


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_in_the_order_of_the_forward_pass(name):
    model = build(name).eval()
    called = []
    for number, block in enumerate(model_blocks(model)[:-1]):
        for module in block:
            module.register_forward_hook(lambda _m, _i, _o, number=number: called.append(number))
    with torch.no_grad():
        model(images(1))
    assert called == sorted(called)
    assert set(called) == set(range(BLOCKS[name] - 1))


def test_a_normalisation_belongs_to_what_it_follows():
    model = build("resnet18")
    assert list(model_blocks(model)[0]) == [model.module.backbone.conv1, model.module.backbone.bn1]
    assert list(model_blocks(model)[-2]) == [model.module.backbone.get_submodule("layer4.1")]
    dense = build("densenet121")
    last = [dense.module.backbone.get_submodule(f"features.{n}") for n in ("denseblock4", "norm5")]
    assert list(model_blocks(dense)[-2]) == last
