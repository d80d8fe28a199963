"""A run takes the model of a run directory only on the splits and images that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dlfd_dist.compose import compose_job
from dlfd_dist.data.loaders import resolve_rows
from dlfd_dist.errors import CheckpointError
from dlfd_dist.jobs.plan import plan
from dlfd_dist.jobs.trained import check_trained
from tests.fakes.tiny import TINY


def check(model: Path, *words: str, name: str = "checkpoint") -> None:
    others = {} if name == "checkpoint" else {"checkpoint": "weights.safetensors"}
    paths = [f"{key}={path}" for key, path in {**others, name: model}.items()]
    config = compose_job("unlearn", [*TINY, *paths, *words])
    check_trained(config, resolve_rows(config.data, config.drawn_forget, draw=False))


@pytest.mark.parametrize("name", ["checkpoint", "reference"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.split_seed=1"], r"data.split_seed=0 \(here 1\), so that people of val or test may"),
        (
            ["data.split_seed=3", "data.val_fraction=0.3"],
            r"data.split_seed=0 \(here 3\) and data.val_fraction=0.15 \(here 0.3\), so that",
        ),
        (["data.image_size=48"], r"data.image_size=\d+ \(here 48\): show it images as"),
        (["data.mean=[0.1,0.1,0.1]"], r"data.mean=\[0.485, .*: show it images as"),
    ],
)
def test_a_model_of_other_splits_or_images_is_refused(
    name: str, words: list[str], said: str, trained: Callable[..., Path]
):
    model = trained(on="all" if name == "checkpoint" else "retain")
    check(model, name=name)
    with pytest.raises(CheckpointError, match=f"{name}={model} was trained with {said}"):
        check(model, *words, name=name)


def test_other_data_may_have_other_splits(trained: Callable[..., Path], tmp_path: Path):
    check(trained(on="all"), "data.synthetic.num_identities=30")
    check(trained(on="all") / "checkpoints" / "final" / "model.safetensors", "data.split_seed=1")


def test_a_dry_run_refuses_what_the_run_would(trained: Callable[..., Path]):
    given = [*TINY, f"checkpoint={trained(on='all')}"]
    plan(compose_job("unlearn", given))
    with pytest.raises(CheckpointError, match="was trained with data.split_seed=0"):
        plan(compose_job("unlearn", [*given, "data.split_seed=1"]))
    with pytest.raises(CheckpointError, match="is of another architecture"):
        plan(compose_job("unlearn", [*given, "model=resnet18"]))
