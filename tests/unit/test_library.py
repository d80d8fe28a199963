"""A stranger's network and sets: the range of their pixels, and the features that are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dlfd_dist.api.given import Given, name_model
from dlfd_dist.config import DataConfig, ModelConfig
from dlfd_dist.data.pixels import Pixels
from dlfd_dist.data.sets import load_factory
from dlfd_dist.factories import giving
from dlfd_dist.models import build_model
from tests.fakes.strangers import both, build, splits

HERE = "tests.fakes.strangers"


def test_synthesised_pixels_stay_in_the_range_that_pixels_have():
    def pixels(**more: Any) -> Pixels:
        cfg = DataConfig(
            name="factory", factory=f"{HERE}:splits", mean=[0.5], std=[0.25], leaks=False, **more
        )
        images = load_factory(cfg).images
        return Pixels(cfg, images, dtype=torch.float64, device=torch.device("cpu"))

    whole = pixels(args={"kind": "int16"}, pixel_range=[0, 4000])
    assert [float(side) for side in whole.range] == [-2.0, 2.0]
    read = whole.normalise(whole.read(torch.tensor([[[[0, 1000, 4000]]]], dtype=torch.int16)))
    torch.testing.assert_close(read.flatten(), torch.tensor([-2.0, -1.0, 2.0]).double())
    assert whole.to_uint8(read).flatten().tolist() == [0, 64, 255]
    found = pixels()
    everything = torch.cat([part[i][0] for part in splits().values() for i in range(len(part))])
    assert [float(side) for side in found.range] == [everything.min(), everything.max()]
    assert torch.equal(found.normalise(found.read(everything)), everything.double())


@pytest.mark.parametrize("features", [None, "trunk", "stem", both, f"{HERE}:both"])
def test_features_are_what_is_asked_for(features):
    given = Given()
    name_model(given, build(), features, {})
    cfg = ModelConfig(
        "factory", factory=given.settings["model.factory"],
        features=given.settings.get("model.features"),
    )  # fmt: skip
    with giving(given.objects):
        model = build_model(cfg, image_size=12, num_outputs=2, seed=0).eval()
    net, images = model.module, torch.randn(3, 1, 12, 10)
    with torch.no_grad():
        output = model(images)
        torch.testing.assert_close(output.logits, net(images))
        embedded = net.embed(images)
        pooled = nn.functional.adaptive_avg_pool2d(torch.tanh(net.norm(net.stem(images))), 2)
        expected = {
            "trunk": net.trunk(pooled.flatten(1)), "stem": net.stem(images).mean((2, 3)),
        }.get(features if isinstance(features, str) else "", embedded)  # fmt: skip
    torch.testing.assert_close(output.features, expected)
