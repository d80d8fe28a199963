"""launch/search, configs/search: spaces, refusals, what is chosen, +tuned=. No Ray starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.compose import compose_job, known_settings, load_config
from dlfd_dist.config import (
    METHOD_CONFIGS,
    Choice,
    Uniform,
    draw_from,
    read_space,
    search_space,
)
from dlfd_dist.errors import ConfigError, DataError, RunDirError
from dlfd_dist.methods import methods
from dlfd_dist.resources import resource_dir
from launch.plan.comparison import with_settings
from launch.search import cluster, identity, plan, results
from launch.search.algorithms import nearest
from launch.search.cluster import Room
from launch.search.pinning import pinned
from launch.search.plan import make_plan
from tests.fakes.tiny import LEARNED, TINY

GIVEN = ["data=synthetic", "forget.fraction=0.25", "checkpoint=original"]
FREE = [*GIVEN, "search.objective=nomus"]
"""Of a search whose objective needs no Retrained."""
SPACES = resource_dir("configs") / "search" / "space"


@pytest.fixture
def write(tmp_path: Path):
    def space(text: str) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return space


def test_every_method_of_the_registry_has_a_space():
    assert sorted(path.stem for path in SPACES.glob("*.yaml")) == methods.names()


@pytest.mark.parametrize("method", sorted(METHOD_CONFIGS))
def test_a_space_names_settings_of_its_method_and_bounds_that_it_allows(method: str):
    config = compose_job("unlearn", [*GIVEN, f"method={method}"])
    known = known_settings(METHOD_CONFIGS[method])
    for name, values in search_space(method).items():
        assert name in known
        ends = (values.low, values.high) if isinstance(values, Uniform) else values.values
        for value in ends:
            with_settings(config, {name: value})


PAPERS_EPOCHS = {
    "finetune": 2, "neggrad": 1, "neggrad_plus": 10, "cf_k": 30, "eu_k": 62, "unsir": 1,
    "bad_teacher": 1, "scrub": 5, "salun": 10, "l1_sparse": 10, "reset": 2,
    "weight_distortion": 100, "weight_dist_reg": 100, "gli": 1, "fcs": 8, "ct": 3, "msg": 5,
    "amun": 10, "rewind": 10, "dlfd": 1,
}  # fmt: skip
"""Epochs of the papers, or of their authors' code, as docs/methods.md states them."""


@pytest.mark.parametrize("method", PAPERS_EPOCHS)
def test_the_epochs_of_its_paper_are_in_the_range_of_every_method(method: str):
    names = {"unsir": "method.repair_epochs"}
    values = search_space(method)[names.get(method, "method.epochs")]
    assert isinstance(values, Choice)
    assert PAPERS_EPOCHS[method] in values.values


def test_every_method_with_epochs_in_its_space_has_those_of_its_paper_named():
    drawn = {m for m in METHOD_CONFIGS if any("epochs" in n for n in search_space(m))}
    assert drawn - {"dlfm"} == set(PAPERS_EPOCHS)  # DLFM is our own


def test_what_is_appended_to_a_space_leaves_the_draws_before_it_alone():
    space = search_space("dlfd")
    before = dict(list(space.items())[:7])
    drawn = draw_from(space, "dlfd", 3, 0)
    assert {name: drawn[name] for name in before} == draw_from(before, "dlfd", 3, 0)
    assert draw_from(space, "dlfd", 3, 1) != drawn


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no settings"),
        ("method.lr: {low: 0.1, high: 0.001}", "low must be below high"),
        ("method.lr: {low: 0.1, high: 0.1}", "low must be below high"),
        ("method.lr: {low: 0.0, high: 0.1, log: true}", "low must be above 0"),
        ("method.lr: {low: 0.1}", "write a list of values"),
        ("method.lr: 3", "write a list of values"),
        ("method.lr: []", "give at least one"),
        ("method.lr: {low: much, high: 1}", "'much' is not a number"),
        ("method.lr: {low: 0, high: 1, step: 2}", "It has 'step'"),
        ("method.lr: [0.1", "cannot be read"),
    ],
)
def test_a_space_that_cannot_be_is_refused_with_the_setting(write: Any, text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        read_space(write(text))


def test_bounds_may_be_written_as_yaml_takes_for_a_text(write: Any):
    space = read_space(write("method.lr: {low: 1e-4, high: 1e-2, log: true}\nmethod.k: [1, null]"))
    assert space["method.lr"] == Uniform(1e-4, 1e-2, log=True)
    assert str(space["method.k"]) == "1, null"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=dlfd_official"], "method=dlfd_official holds no settings"),
        (["method=ssd", "method.selection=2", "method.dampening=1"], "that you gave a value"),
        (["method=ssd", "search=pbt"], "in_flight"),
        (["search.objective=gap"], r"search.objective=gap .* train.on=retain.*reference=ITS_DIR"),
        (["search.objective=attack_at_most"], "holds every trial against the Retrained model"),
        (["search.objective=resurface", "search=asha", "reference=x"], "search.scheduler=none"),
        (
            [
                "search=random",
                "search.objective=resurface",
                "reference=x",
                "metrics.resurface_steps=0",
            ],
            "search.objective=resurface .* these are 0",
        ),
        (["search.objective=test_nomus"], "would choose by the test set"),
        (["search.objective=nomsu"], "Did you mean 'nomus'"),
        (["search=ahsa"], "Did you mean 'asha'"),
        (["search.nmu_samples=3"], "Did you mean 'search.num_samples'"),
        (["search.num_samples=0"], ">= 1"),
        (["search=optuna", "search.sampler=nsga2"], "search.objective=pareto"),
        (["search=pbt", "search.sampler=tpe"], "leave search.sampler=random"),
        (["search=pbt", "search.objective=pareto"], "needs one"),
        (["search=pbt", "search.num_samples=1"], "at least 2"),
        (["method=dlfd,scrub"], "of one method"),
        (["runtime.world_size=2"], "search.workers_per_trial"),
        (["search.space=nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_a_sentence(overrides: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        make_plan([*FREE, *overrides])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method.rl: [1]", "which is not a setting of unlearning"),
        ("train.lr: [0.1]", "which is not a setting of unlearning"),
        ("method.lr: {low: -1, high: 1}", "lets method.lr be -1.0"),
        ("method.momentum: [0.5, 1.5]", "lets method.momentum be 1.5"),
    ],
)
def test_a_space_of_ones_own_is_checked_before_the_first_trial(write: Any, text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        make_plan([*FREE, f"search.space={write(text)}"])


def test_what_the_command_line_says_is_not_drawn_and_the_first_trial_is_the_methods_own():
    found = make_plan([*FREE, "method.lr=0.5", "search=random", "search.num_samples=3"])
    assert "method.lr" not in found.space
    assert "method.max_forgetting_score" not in found.space
    first, *others = found.points()
    assert first["method.forget_weight"] == 3.0
    assert len(others) == 2
    assert others[0] != others[1]
    own = make_plan([*FREE, "method.select=accuracy"])
    assert "method.max_forgetting_score" in own.space


def test_pbt_changes_the_forgetting_weights_alone():
    assert set(make_plan([*FREE, "search=pbt"]).space) == {
        "method.forget_weight", "method.initial_retain_weight", "method.forget_threshold",
        "method.final_retain_weight",
    }  # fmt: skip


def test_a_trial_that_no_machine_here_can_run_is_refused_at_once():
    search = replace(make_plan([*FREE, "method.lr=0.1"]).search, workers_per_trial=3)
    with pytest.raises(ConfigError, match="needs 3 cores .* there are 2"):
        Room(2, 0).check(search, 0)
    with pytest.raises(ConfigError, match="needs 1.5 GPUs"):
        Room(8, 1).check(search, 0.5)
    assert Room(8, 0).at_a_time(search, 0) == 2
    assert Room(8, 1).at_a_time(search, 0.1) == 2


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'dlfd-dist\[search\]'"):
        cluster.require_ray()


class Held:
    """A search in a directory, to be gone on with."""

    def __init__(self, tmp_path: Path):
        self.plan = make_plan([*FREE, f"run.dir={tmp_path / 'out'}", f"checkpoint={tmp_path}"])

    def claim(
        self, monkeypatch: pytest.MonkeyPatch, *, resume: bool | None, **changes: Any
    ) -> None:
        mine = {
            "inputs": {"data": "aa", "request": "bb"}, "code": {"version": "1", "revision": "cc"},
            "config": "dd", "search": {"num_samples": 3}, "space": {}, "method": "dlfd",
        } | changes  # fmt: skip
        monkeypatch.setattr(identity, "identity", lambda *_: json.loads(json.dumps(mine)))
        identity.claim(self.plan, None, resume=resume)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": {"data": "zz", "request": "bb"}}, "its data set is aa, and this one's is zz"),
        ({"inputs": {"data": "aa", "request": "zz"}}, "its forget request is bb"),
        ({"code": {"version": "1", "revision": "zz"}}, "begun at code revision cc"),
        ({"search": {"num_samples": 4}}, "search.num_samples is 3"),
        ({"method": "scrub"}, "its method is dlfd"),
        (
            {"space": {"method.lr": "1 to 2"}},
            "its range of method.lr is none, and this one's is 1 to 2",
        ),
        ({"config": "zz"}, "its digest of the settings is dd, and this one's is zz"),
    ],
)
def test_a_search_goes_on_as_the_same_search_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, said: str
):
    held = Held(tmp_path)
    held.claim(monkeypatch, resume=False)
    held.claim(monkeypatch, resume=True)
    with pytest.raises(RunDirError, match="add --resume"):
        held.claim(monkeypatch, resume=False)
    with pytest.raises(RunDirError, match=said):
        held.claim(monkeypatch, resume=True, **changes)


def test_a_job_comes_back_though_somebody_committed_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    held, newer = Held(tmp_path), {"version": "1", "revision": "zz"}
    held.claim(monkeypatch, resume=None)
    held.claim(monkeypatch, resume=None, code=newer)
    assert "goes on though it was begun at code revision cc" in capsys.readouterr().err
    held.claim(monkeypatch, resume=None, code=newer)
    assert not capsys.readouterr().err
    assert json.loads(held.plan.identity.read_text())["went_on_at"] == [newer]
    with pytest.raises(RunDirError, match="its data set is aa"):
        held.claim(monkeypatch, resume=None, code=newer, inputs={"data": "zz", "request": "bb"})


def test_there_must_be_a_search_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = Held(tmp_path)
    with pytest.raises(RunDirError, match="holds no search"):
        held.claim(monkeypatch, resume=True)
    held.plan.out.mkdir()
    (held.plan.out / "letter.txt").write_text("dear")
    with pytest.raises(RunDirError, match="is not a search"):
        held.claim(monkeypatch, resume=False)


def row(trial: int, objective: float, **more: Any) -> dict[str, Any]:
    base = {
        "trial": trial, "state": "finished", "objective": objective, "accuracy": 0.5,
        "forgetting_score": 0.1, "nomus_se": 0.05, "left_as_is": False,
    }  # fmt: skip
    return base | more


def test_the_winner_is_the_trial_with_the_best_bound_and_not_the_luckiest():
    search = make_plan(FREE).search
    rows = [row(0, 0.70), row(1, 0.90), row(2, 0.80)]
    lucky = results.judged(rows[1], [row(1, v) for v in (0.95, 0.60, 0.75)], search)
    steady = results.judged(rows[2], [row(2, v) for v in (0.74, 0.75, 0.76)], search)
    assert lucky["mean"] > steady["mean"]
    assert lucky["bound"] < steady["bound"]
    chosen = results.winner(rows, [lucky, steady], search, untouched=0.5)
    assert chosen is not None
    assert chosen["trial"] == 2


def test_the_bound_is_students():
    search = make_plan(FREE).search
    found = results.judged(row(1, 0.9), [row(1, v) for v in (0.7, 0.8, 0.9)], search)
    # t of 90 % with 2 degrees of freedom is 1.8856; the standard deviation is 0.1.
    assert found["bound"] == pytest.approx(0.8 - 1.8856 * 0.1 / 3**0.5, abs=1e-4)
    one = results.judged(row(1, 0.9), [row(1, 0.8)], search)
    assert one["bound"] == pytest.approx(0.8 - 1.2816 * 0.05, abs=1e-4)


def test_of_one_seed_another_objective_than_nomus_has_no_bound():
    search = make_plan([*GIVEN, "reference=retrained"]).search
    rows = [row(0, 0.10), row(1, 0.05)]
    found = [
        results.judged(r, [row(r["trial"], v)], search)
        for r, v in zip(rows, (0.11, 0.04), strict=True)
    ]
    assert [one["bound"] for one in found] == [None, None]
    assert results.winner(rows, found, search, untouched=0.2) is rows[1]
    # A candidate of several seeds has a bound, and comes before a candidate of one.
    several = results.judged(rows[0], [row(0, v) for v in (0.10, 0.11, 0.12)], search)
    assert several["bound"] > several["mean"]
    assert results.winner(rows, [several, found[1]], search, untouched=0.2) is rows[0]
    assert results.bound_text(None, 3) == "no bound of one seed"
    assert results.bound_text(0.25, 3) == "bound 0.250"


def test_of_a_gap_the_small_one_wins():
    search = make_plan([*GIVEN, "reference=retrained"]).search
    rows = [row(0, 0.10), row(1, 0.05), row(2, 0.01, state="stopped")]
    assert [one["trial"] for one in results.ranked(rows, search)] == [1, 0]
    assert results.winner(rows, [], search, untouched=0.2) is rows[1]


def test_a_trial_that_left_the_model_as_it_is_is_no_candidate_and_never_chosen():
    search = make_plan(FREE).search
    rows = [row(0, 0.9, left_as_is=True), row(1, 0.95, left_as_is=True), row(2, 0.6)]
    assert results.candidates(rows, search) == [rows[2]]
    assert results.front(rows) == [2]
    assert results.winner(rows, [], search, untouched=0.5) is rows[2]
    assert results.winner(rows[:2], [], search, untouched=0.5) is None
    said = results.why_none(rows[:2], search, 0.5)
    assert "No trial did better than leaving the model as it is" in said
    assert "2 of them left it as it is" in said


@pytest.mark.parametrize(("objective", "sign"), [("nomus", 1), ("gap", -1), ("pareto", 1)])
def test_nothing_is_chosen_that_is_no_better_than_the_untouched_model(objective: str, sign: int):
    words = [f"search.objective={objective}", "reference=retrained"]
    search = make_plan([*GIVEN, *words]).search
    untouched, gains = 0.5, (0.0, -0.1)
    rows = [row(n, untouched + sign * gain) for n, gain in enumerate(gains)]
    assert results.winner(rows, [], search, untouched) is None
    better = [*rows, row(2, untouched + sign * 0.1)]
    assert results.winner(better, [], search, untouched) is better[2]
    # It was luck: over other seeds its mean is no better.
    again = [row(2, untouched + sign * gain) for gain in (-0.2, 0.1, 0.1)]
    lucky = results.judged(better[2], again, search)
    assert results.winner(better, [lucky], search, untouched) is None
    assert "did better than leaving" in results.why_none(better, search, untouched)


def test_a_reference_that_plainly_is_no_retrained_of_these_people_is_refused(
    trained: Callable[..., Path],
):
    from dlfd_dist.data.loaders import resolve_rows

    def check(reference: Path, *words: str) -> None:
        given = [*TINY, f"checkpoint={reference}", f"reference={reference}", *words]
        found = make_plan(given)
        rows = resolve_rows(found.config.data, found.config.drawn_forget, draw=False)
        plan.check_reference(found, rows)

    check(trained(on="retain"))
    with pytest.raises(DataError, match="was trained on everybody, and is no model retrained"):
        check(trained(on="all"))
    with pytest.raises(DataError, match="was trained without other people"):
        check(trained(on="retain"), "forget.seed=5")
    check(trained(on="all"), "search.objective=nomus")


def test_the_front_holds_what_no_other_trial_beats_in_both():
    rows = [
        row(0, 0, accuracy=0.9, forgetting_score=0.3),
        row(1, 0, accuracy=0.6, forgetting_score=0.1),
        row(2, 0, accuracy=0.6, forgetting_score=0.2),
        row(3, 0, accuracy=0.95, forgetting_score=0.0, state="stopped"),
    ]
    assert results.front(rows) == [0, 1]


def test_importance_finds_the_setting_that_acts():
    found = make_plan([*FREE, "search.num_samples=40"])
    rows = [
        row(n, settings["method.forget_weight"] / 20, settings=settings)
        for n, settings in enumerate(found.points())
    ]
    shares = results.importance(rows, found)
    assert next(iter(shares)) == "method.forget_weight"
    assert sum(shares.values()) == pytest.approx(1)
    assert results.importance(rows[:3], found) == {}


@pytest.mark.parametrize(
    ("values", "value", "expected"),
    [
        (Uniform(1.0, 2.0), 5.0, 2.0), (Uniform(1.0, 2.0), None, 2.0),
        (Choice((1, 5)), 4, 5), (Choice((None, 2)), None, None), (Choice(("a", "b")), "c", "a"),
    ],
)  # fmt: skip
def test_a_value_outside_a_range_moves_to_its_nearest(values: Any, value: Any, expected: Any):
    assert nearest(values, value) == expected


def test_two_trials_are_bound_to_different_cores():
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one core")
    with pinned(1) as first:
        if not first:
            pytest.skip("trials of somebody else hold the cores")
        assert os.sched_getaffinity(0) == set(first)
        os.sched_setaffinity(0, before)
        with pinned(1) as second:
            assert not set(first) & set(second)
    assert os.sched_getaffinity(0) == before


def tuned_file(folder: Path) -> Path:
    path = folder / "best.yaml"
    path.write_text(
        "method:\n  name: dlfd\n  lr: 0.0123\n  clip_norm: null\nsynthesis:\n  layer: logits\n"
    )
    return path


def test_tuned_settings_come_after_the_methods_own_and_before_the_command_line(tmp_path: Path):
    path = tuned_file(tmp_path)
    config = compose_job("unlearn", [*GIVEN, "method=dlfd", f"+tuned={path}"])
    assert config.method.lr == 0.0123
    assert config.method.clip_norm is None
    assert config.synthesis.layer == "logits"
    assert config.synthesis.steps == 5
    config = compose_job("unlearn", [*GIVEN, "method.lr=0.5", f"+tuned={path}"])
    assert config.method.lr == 0.5


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run: {dir: /elsewhere}", "sets run.dir, which is not tuned"),
        ("forget: {request: other.csv}", "sets forget.request, which is not tuned"),
        ("data: {root: /elsewhere}", "sets data.root, which is not tuned"),
        ("train: {lr: 1}", "sets train.lr, which is not tuned"),
        ("checkpoint: other.pth", "checkpoint=other.pth is not allowed"),
        ("ot: {method: '${oc.env:HOME}'}", r"ot.method=\$\{oc.env:HOME\} is not allowed"),
        ("ot: {sinkhorn_reg: '${oc.env:SECRET}'}", r"\$\{oc.env:SECRET\} is not allowed"),
        ("synthesis: {layer: 'logits,penultimate'}", "layer=logits,penultimate is not"),
        ("ot: {solver: {a: 1}}", "a setting is a number, a word or a list"),
    ],
)  # fmt: skip
def test_a_tuned_file_sets_what_is_tuned_and_nothing_else(tmp_path, monkeypatch, line, said):
    monkeypatch.setenv("SECRET", "0.5")
    path = tuned_file(tmp_path)
    path.write_text("method: {name: dlfd}\n" + line + "\n")
    with pytest.raises(ConfigError, match=said):
        compose_job("unlearn", [*GIVEN, f"+tuned={path}"])


def test_a_tuned_file_names_no_file_to_read(tmp_path: Path):
    path = tmp_path / "best.yaml"
    path.write_text("method: {name: dlfd, reference_manifest: /etc/passwd}\n")
    with pytest.raises(ConfigError, match=r"sets method.reference_manifest.*and no paths"):
        compose_job("unlearn", [*GIVEN, f"+tuned={path}"])


def test_a_stored_configuration_resolves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    path = tmp_path / "config.yaml"
    path.write_text("verb: train\nrun: {name: '${oc.env:SECRET}'}\n")
    with pytest.raises(ConfigError, match=r"run.name=\$\{oc.env:SECRET\} is not allowed"):
        load_config(path)


def test_settings_tuned_for_another_method_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="is for method=dlfd, not for method=scrub"):
        compose_job("unlearn", [*GIVEN, "method=scrub", f"+tuned={tuned_file(tmp_path)}"])
    with pytest.raises(ConfigError, match="no configuration at nowhere"):
        compose_job("unlearn", [*GIVEN, "+tuned=nowhere"])


@pytest.mark.parametrize("objective", ["test accuracy", "test_nomus", "NoMUS on unseen people"])
def test_settings_that_were_chosen_by_the_test_set_are_refused(tmp_path: Path, objective: str):
    path = tuned_file(tmp_path)
    settings = path.read_text()
    path.write_text(f"objective: {objective}\n{settings}")
    with pytest.raises(
        ConfigError, match=f"{objective} is not allowed: it would choose by the test"
    ):
        compose_job("unlearn", [*GIVEN, f"+tuned={path}"])
    path.write_text(f"objective: validation NoMUS\n{settings}")
    assert compose_job("unlearn", [*GIVEN, f"+tuned={path}"]).method.lr == 0.0123


@pytest.mark.parametrize("method", sorted(METHOD_CONFIGS))
def test_the_papers_number_of_epochs_lies_inside_its_range(method: str):
    epochs = search_space(method).get("method.epochs")
    if epochs is not None:
        own = compose_job("unlearn", [*GIVEN, f"method={method}"]).method.epochs
        assert isinstance(epochs, Choice)
        assert min(epochs.values) <= own <= max(epochs.values)
        assert own in epochs.values


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_the_range_of_ssd_stays_below_what_no_weight_can_reach(share: float):
    words = ["data=synthetic", f"forget.fraction={share}", "checkpoint=original", "method=ssd"]
    space = make_plan([*words, "search.objective=nomus"]).space
    selection = space["method.selection"]
    assert isinstance(selection, Uniform)
    assert selection.low == 1.0
    assert 1.0 < selection.high < 1 / share
    # A weight with ten times the importance to forget that it has to retain, at this share.
    assert selection.high == pytest.approx(10 / (10 * share + (1 - share)))


def test_the_share_of_a_request_is_that_of_its_images(write: Any, tmp_path: Path):
    from dlfd_dist.data.loaders import resolve_rows

    drawn = compose_job("unlearn", [*TINY, "checkpoint=original", "method=ssd"])
    rows = resolve_rows(drawn.data, drawn.drawn_forget, draw=False)
    request = tmp_path / "people.txt"
    people = sorted({str(rows.manifest.identities[row]) for row in rows.splits.forget})
    request.write_text("\n".join(people))
    words = [*TINY, "checkpoint=original", "method=ssd", "search.objective=nomus"]
    asked = make_plan([*words, "forget.fraction=null", f"forget.request={request}"])
    assert asked.space == make_plan(words).space


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("end", ["low", "high"])
def test_both_ends_of_the_range_of_ssd_select_weights(
    trained: Callable[..., Path], tmp_path: Path, end: str, seed: int
):
    """Of a model that knows its people by heart, whoever of them is forgotten."""
    from dlfd_dist.jobs import run_job
    from dlfd_dist.run_dir import read_events
    from dlfd_dist.runtime.collectives import Collectives
    from dlfd_dist.runtime.preemption import StopFlag

    words = [
        *TINY, f"checkpoint={trained(*LEARNED)}", "method=ssd", f"forget.seed={seed}",
        f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    value = getattr(make_plan([*words, "search.objective=nomus"]).space["method.selection"], end)
    run_job(
        compose_job("unlearn", [*words, f"method.selection={value}"]), Collectives(), StopFlag()
    )
    events = read_events(tmp_path / "run" / "metrics.jsonl")
    (dampened,) = [event["dampened"] for event in events if "dampened" in event]
    assert 0 < dampened < 1


def test_a_search_without_a_winner_leaves_no_settings_and_says_why_on_the_page(tmp_path: Path):
    found = make_plan([*FREE, f"run.dir={tmp_path}", "method=ssd"])
    more = {
        "settings": found.own_settings(), "run_dir": None, "step": 1, "seconds": 1.0, "nomus": 0.6,
        "device_seconds": 1.0, "forgetting_score_se": 0.1, "seed": None, "failed": "",
    }  # fmt: skip
    rows = [row(0, 0.6, left_as_is=True, **more), row(1, 0.55, **more)]
    for untouched, chosen in ((0.5, 1), (0.6, None)):
        content = results.write_all(found, rows, [], [], untouched, 1.0)
        results.write_end(found, content, 0)
        assert (content["winner"], content["left_as_is"]) == (chosen, 1)
        assert (tmp_path / "best.yaml").exists() == (chosen is not None)
        page = (tmp_path / "report.html").read_text()
        assert ("No trial did better than leaving the model as it is" in page) == (chosen is None)
        assert json.loads((tmp_path / "result.json").read_text())["winner"] == chosen
