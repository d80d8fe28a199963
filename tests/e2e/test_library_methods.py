"""Every method on a stranger's network, and the verbs that start runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dlfd_dist as dlfd
from dlfd_dist.compose import compose_job, expand_grid
from dlfd_dist.config import METHOD_CONFIGS
from tests.fakes.strangers import QUICK, Net, build, splits

SETTINGS: dict[str, dict[str, Any]] = {
    "cf_k": {"method.k": 2, "method.blocks": ["stem", "trunk", "answer"]},
    "eu_k": {"method.k": 2, "method.blocks": ["stem", "trunk", "answer"]},
    "ssd": {"method.max_steps": None, "method.selection": 1.0},
    "dlfd_official": {
        "synthesis.layer": "logits", "synthesis.pgd_radius": None, "method.probe_every": 1,
        "method.global_batch_size": 4,
    },
}  # fmt: skip
CANNOT = {
    "rewind": "is not the directory of a finished training run, and method=rewind goes back",
}
"""Why a method cannot work on a network whose training nobody saw."""


@pytest.mark.parametrize("method", sorted(METHOD_CONFIGS))
def test_every_method_works_on_a_strangers_network_or_says_why_not(tmp_path: Path, method: str):
    settings = {**QUICK, "method.lr": 0.05, **SETTINGS.get(method, {})}

    def run() -> dlfd.Run:
        return dlfd.unlearn(
            build(), **splits(), method=method, out=tmp_path / "run", settings=settings
        )

    if method in CANNOT:
        with pytest.raises(dlfd.DlfdError, match=CANNOT[method]):
            run()
        return
    delivered = run().model
    assert type(delivered) is Net
    before = build().state_dict()
    moved = [n for n, t in delivered.state_dict().items() if not torch.equal(t, before[n])]
    assert moved


@pytest.mark.parametrize(
    ("verb", "module", "call"),
    [
        ("compare", "launch.verbs.compare", lambda f, **k: f(**k)),
        ("audit", "launch.verbs.audit", lambda f, **k: f("ulira", **{**k, "seed": 1})),
        ("search", "launch.search.search", lambda f, **k: f(**{**k, "method": "dlfd", "seed": 1})),
        ("submit", "launch.verbs.submit", lambda f, **k: f("unlearn", cluster="local", **k)),
    ],
    ids=["compare", "audit", "search", "submit"],
)
def test_the_verbs_that_start_runs_take_the_words_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, verb: str, module: str, call: Any
):
    said: dict[str, Any] = {"status": 0}

    def noted(words: list[str], **more: Any) -> int:
        said.update(words=words, **more)
        return said["status"]

    monkeypatch.setattr(f"{module}.run_{verb}", noted)
    function = getattr(dlfd, verb)
    arguments = {
        "model": "tests.fakes.strangers:build", "data": "tests.fakes.strangers:splits",
        "method": ["finetune", "scrub"], "seed": [0, 1], "out": Path("runs/a b"),
        "settings": {"method.lr": 0.5, "model.args": {"outputs": 2}},
    }  # fmt: skip
    assert call(function, **arguments) == Path("runs/a b")
    assert not said["dry_run"]
    words = [w for w in said["words"] if "=" in w and not w.startswith("cluster=")]
    points = [compose_job("train", point) for point in expand_grid(words)]
    chosen = {(p.method.name, p.seed) for p in points}
    assert len(chosen) == {"search": 1, "audit": 2}.get(verb, 4)
    for point in points:
        assert (point.method.lr, point.model.args) == (0.5, {"outputs": 2})
        assert point.run.dir == "runs/a b"
    said["status"] = 1
    with pytest.raises(dlfd.DlfdError, match=f"'dlfd {verb}' ended with exit status 1"):
        call(function, **arguments)
    with pytest.raises(dlfd.DlfdError, match="type Net, which the processes of the runs do not"):
        call(function, **{**arguments, "model": build()})
