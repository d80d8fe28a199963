"""Too few people to rank methods by are told before the runs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dlfd_dist.compose import compose_job
from dlfd_dist.data.loaders import resolve_rows
from launch.cli import main
from launch.plan.few import too_few
from tests.fakes.campaigns import make_campaigns


def data(people: int, share: float) -> list[str]:
    """Drawn people, of whom 70 % are for training and 15 % for test; a share is forgotten."""
    return [
        "data=synthetic", "data.image_size=32", f"data.synthetic.num_identities={people}",
        "data.synthetic.images_per_identity=1", f"forget.fraction={share}",
    ]  # fmt: skip


ENOUGH, FEW_FORGOTTEN, FEW_IN_TEST = data(110, 0.25), data(110, 0.1), data(80, 0.5)


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        (ENOUGH, ""),
        (FEW_FORGOTTEN, "with 8 people to forget and 16 people in test"),
        (FEW_IN_TEST, "with 28 people to forget and 12 people in test"),
    ],
)
def test_sixteen_people_of_each_are_enough(words: Sequence[str], beginning: str):
    config = compose_job("unlearn", [*words, "checkpoint=original"])
    warning = too_few(resolve_rows(config.data, config.drawn_forget, draw=False))
    assert warning.startswith(beginning)
    assert bool(warning) == bool(beginning)


@pytest.mark.parametrize(("words", "is_warned"), [(FEW_FORGOTTEN, True), (ENOUGH, False)])
def test_a_comparison_here_and_on_a_cluster_tells_it_beforehand(
    tmp_path, monkeypatch, capfd, words: Sequence[str], is_warned: bool
):
    make_campaigns(tmp_path, monkeypatch, capfd)
    rest = ["method=finetune", "model=small", f"run.dir={tmp_path}/out", "--dry-run"]
    for verb in (["compare"], ["submit", "compare", "cluster=slurm_generic"]):
        assert main([*verb, *words, *rest]) == 0
        assert ("warning: with 8 people to forget" in capfd.readouterr().err) == is_warned
