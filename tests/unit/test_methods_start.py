"""A start that forgets: which weights are reset, what BatchNorm then says, and what is told."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlfd_dist.compose import compose_job
from dlfd_dist.config import (
    METHOD_CONFIGS,
    MethodConfig,
    given_settings,
    signature,
    to_dict,
    used_space,
)
from dlfd_dist.config.method import NO_RESET
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods import methods, start
from dlfd_dist.models import Classifier, model_blocks
from dlfd_dist.runtime.sync_bn import measure_statistics
from tests.fakes.method_lab import equal, original, pictures
from tests.fakes.small_model import small_classifier


def parameters(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def keeps_the_share_that_is_to_be_new(own: nn.Module, fresh: nn.Module, kept: float) -> None:
    """Wrong: own and fresh are taken for each other."""
    for old, new in zip(own.parameters(), fresh.parameters(), strict=True):
        old.data.mul_(1 - kept).add_(new, alpha=kept)


RIGHT = start.shrink_towards


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize(
    ("shrink", "holds"), [(RIGHT, True), (keeps_the_share_that_is_to_be_new, False)]
)
def test_a_reset_is_as_far_on_the_way_to_fresh_weights_as_its_strength(
    shrink, holds, strength, monkeypatch
):
    monkeypatch.setattr(start, "shrink_towards", shrink)
    model, fresh = original(), small_classifier(seed=99)
    ends = list(zip(parameters(model), parameters(fresh), strict=True))
    start.reset_weights(model, fresh, MethodConfig(reset="shrink", reset_strength=strength))
    expected = [old + strength * (new - old) for old, new in ends]
    found = zip(parameters(model), expected, strict=True)
    assert all(torch.allclose(a, b) for a, b in found) is holds


def all_blocks(model: Classifier, cfg: MethodConfig) -> list[nn.Module]:
    """Wrong: every block is reset, however many are asked for."""
    return list(model_blocks(model))


@pytest.mark.parametrize(("parts", "holds"), [(start._parts, True), (all_blocks, False)])
def test_layers_resets_the_last_blocks_alone(parts: Callable, holds, monkeypatch):
    monkeypatch.setattr(start, "_parts", parts)
    model, before = original(), original()
    cfg = MethodConfig(reset="layers", reset_strength=1.0, reset_blocks=2)
    start.reset_weights(model, small_classifier(seed=99), cfg)
    pairs = zip(model_blocks(model), model_blocks(before), strict=True)
    moved = [
        any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        for one, two in pairs
    ]
    assert (moved == [False, True, True]) is holds


def the_other_way_round(cfg: MethodConfig, count: int) -> list[float]:
    """Wrong: the head is taken for the first block."""
    return STRENGTHS(cfg, count)[::-1]


STRENGTHS = start.strengths


@pytest.mark.parametrize(("strengths", "holds"), [(STRENGTHS, True), (the_other_way_round, False)])
@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"reset": "shrink", "reset_profile": "rising"}, [1 / 3, 2 / 3, 1]),
        ({"reset": "shrink", "reset_profile": "falling"}, [1, 2 / 3, 1 / 3]),
        ({"reset": "layers", "reset_blocks": 2, "reset_profile": "rising"}, [0, 1 / 2, 1]),
        ({"reset": "layers", "reset_blocks": 2, "reset_profile": "falling"}, [0, 1, 1 / 2]),
    ],
)
def test_a_profile_gives_each_block_its_strength(settings, shares, strengths, holds, monkeypatch):
    monkeypatch.setattr(start, "strengths", strengths)
    model, before, fresh = original(), original(), small_classifier(seed=99)
    start.reset_weights(model, fresh, MethodConfig(reset_strength=0.6, **settings))
    right = [
        torch.allclose(now, old + 0.6 * share * (new - old))
        for share, *blocks in zip(shares, *map(model_blocks, (model, before, fresh)), strict=True)
        for now, old, new in zip(*(block.parameters() for block in blocks), strict=True)
    ]
    assert all(right) is holds


@pytest.mark.parametrize("profile", ["rising", "falling"])
def test_parameters_in_no_block_are_reset_with_the_first(profile):
    model, fresh = original(), small_classifier(seed=99)
    for one, value in ((model, 0.0), (fresh, 1.0)):  # as a class token is
        token = nn.Parameter(torch.full((2,), value, dtype=torch.float64))
        one.module.backbone.register_parameter("token", token)  # type: ignore[union-attr]
    start.reset_weights(model, fresh, MethodConfig(reset="shrink", reset_profile=profile))
    first = {"falling": 0.5, "rising": 0.5 / 3}[profile]
    token = dict(model.named_parameters())["module.backbone.token"]
    torch.testing.assert_close(token.detach(), torch.full((2,), first, dtype=torch.float64))


def batches(*sizes: int) -> list[tuple[Tensor, int]]:
    return [(part, len(part)) for part in pictures(sum(sizes)).split(list(sizes))]


def first_norm(model: Classifier) -> nn.BatchNorm2d:
    return next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_statistics_are_those_of_the_images_whatever_was_known_before():
    model, others = original(), original()
    with torch.no_grad():
        for tensor in others.buffers():
            tensor.fill_(7)
    assert measure_statistics(model, batches(6, 12)) == 18
    measure_statistics(others, batches(6, 12))
    own, again = dict(model.named_buffers()), dict(others.named_buffers())
    assert equal(own, again)
    # The first layer reads the images themselves, so that its mean over batches is that of all.
    norm, maps = first_norm(model), model.module.backbone[0](pictures(18))  # type: ignore[union-attr]
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)).detach())
    by_batch = [maps[:6].var((0, 2, 3)), maps[6:].var((0, 2, 3))]
    expected = (by_batch[0] / 3 + 2 * by_batch[1] / 3).detach()
    torch.testing.assert_close(norm.running_var, expected)


def test_measuring_statistics_moves_nothing_else():
    model = original(head="mlp").train()
    before, weights = copy.deepcopy(model), parameters(model)
    measure_statistics(model, batches(9, 9))
    assert all(torch.equal(a, b) for a, b in zip(weights, parameters(model), strict=True))
    for one, two in zip(model.modules(), before.modules(), strict=True):
        assert one.training is two.training
        assert getattr(one, "momentum", None) == getattr(two, "momentum", None)


def test_a_model_without_batch_norm_is_not_forwarded():
    def never():
        raise AssertionError("it was forwarded")
        yield

    assert measure_statistics(nn.Linear(2, 2), never()) == 0


# --- which methods


def test_a_method_that_starts_elsewhere_refuses_a_reset_and_says_why():
    for name, reason in NO_RESET.items():
        with pytest.raises(ConfigError, match=f"not allowed with method={name}, which {reason}"):
            METHOD_CONFIGS[name](name=name, reset="shrink")
    assert NO_RESET.keys() <= set(methods.names())


@pytest.mark.parametrize(
    "settings", [{"reset": "shrink"}, {"reset": "layers", "reset_blocks": 4, "k": 3}]
)
def test_cf_k_resets_no_block_that_it_does_not_train(settings):
    with pytest.raises(ConfigError, match="set method.reset=layers and method.reset_blocks="):
        METHOD_CONFIGS["cf_k"](name="cf_k", **settings)
    METHOD_CONFIGS["cf_k"](name="cf_k", reset="layers", reset_blocks=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reset": "shrnk"}, "Did you mean 'shrink'"),
        ({"reset_strength": 0.0}, "above 0 and at most 1"),
        ({"reset_strength": 1.1}, "above 0 and at most 1"),
        ({"reset_profile": "risng"}, "Did you mean 'rising'"),
        ({"reset_blocks": 0}, "method.reset_blocks=0 .* >= 1"),
        ({"reset_images": 1}, "method.reset_images=1 .* >= 2"),
    ],
)
def test_a_reset_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        MethodConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reset": "layers"}, "method.reset=layers resets block by block"),
        ({"reset": "shrink", "reset_profile": "rising"}, "method.reset_profile=rising resets"),
    ],
)
def test_blocks_that_nobody_knows_are_refused(settings, said):
    model = Classifier(nn.Linear(2, 2), lambda module, images: (images, module(images)))
    assert methods.get("finetune").checks_model(MethodConfig(**settings))
    with pytest.raises(ConfigError, match=said):
        methods.get("finetune").check_settings(MethodConfig(**settings), model)


def test_more_blocks_than_the_model_has_are_refused():
    cfg = MethodConfig(reset="layers", reset_blocks=4)
    with pytest.raises(ConfigError, match="it has 3 blocks with its head"):
        methods.get("finetune").check_settings(cfg, small_classifier())


GIVEN = ("checkpoint=original", "forget.fraction=0.2", "method=finetune")


def test_a_run_without_a_reset_is_the_run_that_it_was_before_there_were_resets():
    plain, reset = (
        compose_job("unlearn", [*GIVEN, *words]) for words in ([], ["method.reset=shrink"])
    )
    assert not [name for name in given_settings(to_dict(plain))["method"] if "reset" in name]
    assert signature(plain, {}) != signature(reset, {})


def test_the_strength_is_drawn_where_weights_are_reset():
    drawn = [used_space(MethodConfig(reset=reset)) for reset in ("none", "shrink", "layers")]
    assert ["method.reset_strength" in space for space in drawn] == [False, True, True]
    assert ["method.reset_blocks" in space for space in drawn] == [False, False, True]
