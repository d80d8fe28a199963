"""What the planner takes a network for: the table is right, and those of strangers are counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlfd_dist.compose import compose_job
from dlfd_dist.config import ClusterConfig, JobConfig
from dlfd_dist.data.loaders import resolve_rows
from launch.plan.cost import rank_seconds
from launch.plan.shape import choose_spec, outer_step
from launch.plan.size import MODEL_SIZES, _counted, known_size, size_of

HERE = "tests.unit.test_network_sizes"
DATA = ["data=synthetic", "data.image_size=64", "data.synthetic.num_identities=12"]


def config_of(*words: str) -> JobConfig:
    return compose_job("train", [*words, *DATA])


def rows_of(config: JobConfig):
    return resolve_rows(config.data, config.drawn_forget, draw=False)


class Wide(nn.Module):
    """A network whose making computes with values, which a device without values refuses."""

    def __init__(self, width: int = 1000):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=4)
        assert float(self.stem.weight.detach().abs().max()) > 0
        self.head = nn.Linear(width, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).mean((2, 3)))


class Odd(Wide):
    """A network that cannot be tried on one image."""

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("two images at least")


@pytest.mark.parametrize("name", [name for name in MODEL_SIZES if name != "vit_b_16"])
def test_the_table_of_our_networks_is_what_is_counted(name: str):
    config = config_of(f"model={name}")
    table, found = known_size(config), _counted(config, rows_of(config))
    assert found.parameters == pytest.approx(table.parameters, rel=0.02)
    assert found.width == table.width
    assert found.cost == pytest.approx(table.cost, rel=0.4)
    assert size_of(config, rows_of(config)) == table


def test_a_network_of_a_library_is_counted_without_values(monkeypatch: pytest.MonkeyPatch):
    config = config_of("model=torchvision", "model.name=resnet50")
    rows = rows_of(config)
    monkeypatch.setattr("dlfd_dist.jobs.models.model_outline", None)
    size = size_of(config, rows)
    assert (size.parameters, size.width) == (23_512_130, 2048)
    # 4.09 G multiply-adds at 224 px, those of ResNet18 being 1.81.
    assert size.cost == pytest.approx(4.09 / 1.81 / 4, rel=0.05)
    assert "a network of 23,512,130 parameters, 0.56 times the cost of ResNet18" in size.note


def test_the_estimate_and_the_shape_are_those_of_the_network():
    cluster, large = ClusterConfig(), config_of("model.factory=" + HERE + ":Wide")
    rows = rows_of(large)
    size = size_of(large, rows)
    assert size.parameters == 1000 * 3 * 9 + 1000 + 1000 * 8 + 8
    assert size.width == 1000
    assert outer_step(cluster, large, size).parameters == size.parameters
    small = known_size(config_of("model=small"))
    assert rank_seconds(large, rows, cluster, size) < rank_seconds(large, rows, cluster, small)
    spec = choose_spec(cluster, large, minutes=90, num_runs=1, size=size)
    assert spec.why.endswith(size.note)


def test_a_network_that_cannot_be_tried_is_said_not_to_be_known():
    config = config_of("model.factory=" + HERE + ":Odd")
    size = size_of(config, rows_of(config))
    assert size.note == "the network's cost is not known (RuntimeError): ResNet18 is assumed"
    assert (size.parameters, size.cost) == (MODEL_SIZES["resnet18"][0], 0.25)
    assert torch.get_default_device().type == "cpu"
