"""synthesis: the gradient that must act, what must stay as it was, and the pictures kept."""

from __future__ import annotations

from types import SimpleNamespace

import ot
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from dlfd_dist.config import SynthesisConfig, TransportConfig
from dlfd_dist.models import Classifier, ModelOutput
from dlfd_dist.models.heads import RowDropout
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.seeding import torch_seed
from dlfd_dist.synthesis import (
    Album,
    Objective,
    frozen,
    layer_output,
    linear_weight,
    perturb,
)
from dlfd_dist.synthesis.album import contact_sheet
from tests.fakes.small_model import of_parts

WIDE = (torch.full((1, 3, 1, 1), -50.0).double(), torch.full((1, 3, 1, 1), 50.0).double())
"""A range that no step of these tests reaches."""


@pytest.fixture
def model() -> Classifier:
    """A float64 convolution with BatchNorm and dropout on 4 x 4 images, in training mode."""
    with torch_seed(0):
        backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.AdaptiveAvgPool2d(2)
        )
        head = nn.Sequential(nn.Linear(24, 8), nn.Tanh(), RowDropout(0.5), nn.Linear(8, 3))
        return of_parts(backbone, head).double().train()


def pictures(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 4, 4, generator=generator, dtype=torch.float64)


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


def objective(model: nn.Module, n: int = 4, *, forget_seed: int = 1, **values) -> Objective:
    """Return the objective of n images against 5 forget images."""
    settings = {"forget_weight": 3.0, "retain_weight": 0.0, "layer": "features", **values}
    settings.setdefault("ot", TransportConfig())
    settings.setdefault("total", n)
    settings.setdefault("collectives", Collectives())
    forget = layer_output(model, pictures(5, forget_seed), settings["layer"])
    return Objective(forget, labels(n), **settings)


def moved(model: nn.Module, images: Tensor, goal: Objective, pixel_range=WIDE, **values):
    cfg = SynthesisConfig(**{"steps": 5, "step_size": 0.02, **values})
    return perturb(model, images, goal, cfg=cfg, pixel_range=pixel_range)


def ot_cost(model: nn.Module, images: Tensor, layer: str = "features", forget_seed: int = 1):
    """Return the transport cost by POT alone."""
    x, y = (layer_output(model, part, layer) for part in (images, pictures(5, forget_seed)))
    cost = 1 - F.cosine_similarity(x[:, None], y[None], dim=2)
    return float(ot.emd2([], [], cost.numpy()))


@pytest.mark.parametrize("layer", ["features", "logits"])
def test_transport_gradient_reaches_the_images_and_is_that_of_finite_differences(model, layer):
    """In the authors' code this gradient is zero (DESIGN.md 2); here it must act."""
    images = pictures(4).requires_grad_(True)
    goal = objective(model, forget_weight=3.0, layer=layer)
    with frozen(model):
        (gradient,) = torch.autograd.grad(goal(model(images)).total, images)
    expected, step = torch.zeros_like(gradient), 1e-5
    for index in range(images.numel()):
        ends = []
        for sign in (1, -1):
            other = images.detach().clone()
            other.view(-1)[index] += sign * step
            ends.append(3.0 * ot_cost(model, other, layer))
        expected.view(-1)[index] = (ends[0] - ends[1]) / (2 * step)
    # Central differences err by step^2 = 1e-10 times third derivatives, and by 1e-16 / 1e-5.
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)
    assert gradient.abs().max() > 1e-3


def test_one_step_goes_along_the_sign_of_the_gradient(model):
    images = pictures(4)
    goal = objective(model, retain_weight=0.5)
    found = moved(model, images, goal, steps=1, step_size=0.25)
    leaf = images.clone().requires_grad_(True)
    with frozen(model):
        (gradient,) = torch.autograd.grad(goal(model(leaf)).total, leaf)
    assert torch.equal(found.images, images + 0.25 * gradient.sign())


def test_parameters_never_require_a_gradient_inside(model):
    seen = []
    model.register_forward_hook(
        lambda module, _inputs, _output: seen.append(
            (any(p.requires_grad for p in module.parameters()), module.training)
        )
    )
    moved(model, pictures(4), objective(model))
    assert len(seen) == 1 + 5
    assert set(seen) == {(False, False)}
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_gradients_and_modes_come_back_as_they_were(model, fails):
    first = next(model.parameters())
    first.requires_grad_(False)
    model.module.backbone[1].eval()
    before = [(m, m.training) for m in model.modules()]

    def broken(_output: ModelOutput):
        raise RuntimeError("inside")

    if fails:
        with pytest.raises(RuntimeError, match="inside"):
            moved(model, pictures(4), broken)  # type: ignore[arg-type]
    else:
        moved(model, pictures(4), objective(model))
    assert [(m, m.training) for m in model.modules()] == before
    assert not first.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not first)


def test_batch_norm_statistics_and_weights_stay(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved(model, pictures(4), objective(model, retain_weight=1.0))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_originals_are_not_changed(model):
    images = pictures(4)
    before = images.clone()
    found = moved(model, images, objective(model))
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert not found.images.requires_grad
    assert not torch.equal(found.images, images)


@pytest.mark.parametrize("radius", [None, 0.1])
def test_images_stay_in_the_range_of_real_pixels_and_in_the_ball(model, radius):
    lowest = torch.tensor([-1.0, -0.5, -0.8]).double().view(1, 3, 1, 1)
    highest = torch.tensor([1.0, 0.5, 0.3]).double().view(1, 3, 1, 1)
    images = pictures(4).clamp(lowest, highest)
    goal = objective(model, retain_weight=1.0)
    found = moved(
        model, images, goal, (lowest, highest), steps=8, step_size=0.3, pgd_radius=radius
    ).images
    assert (found >= lowest).all()
    assert (found <= highest).all()
    reach = (found - images).abs().max()
    if radius is None:
        assert reach > 0.3
    else:
        # x + r - x is r up to a rounding.
        assert reach == pytest.approx(0.1, abs=1e-12)


def test_the_gradient_is_not_cut_off_at_the_border_of_the_range(model):
    """An image on the border can come back: the clamp is no part of what is differentiated."""
    lowest, highest = (
        torch.full((1, 3, 1, 1), -0.5).double(),
        torch.full((1, 3, 1, 1), 0.5).double(),
    )
    images = torch.where(pictures(4) > 0, highest, lowest)
    found = moved(model, images, objective(model), (lowest, highest), steps=1).images
    share = ((found - images).abs() > 0).double().mean()
    # About half of the signs point inwards; a gradient cut off there would move none.
    assert 0.25 < share < 0.75


@pytest.mark.parametrize("solver", ["exact", "entropic"])
@pytest.mark.parametrize("layer", ["features", "logits"])
def test_distancing_alone_raises_the_transport_cost(model, layer, solver):
    images = pictures(4)
    goal = objective(model, layer=layer, ot=TransportConfig(solver=solver, reg=0.05))
    found = moved(model, images, goal, steps=10)
    assert ot_cost(model, found.images, layer) > 1.1 * ot_cost(model, images, layer)
    assert found.last.ot_cost > found.first.ot_cost


def lagged_by_hand(model: nn.Module, images: Tensor, steps: int, lag: int) -> Tensor:
    """Return images moved up the cost of POT's plan of `lag` iterations ago, in steps of 0.02."""
    forget, plans = layer_output(model, pictures(5, 1), "features"), []
    for step in range(steps):
        leaf = images.clone().requires_grad_(True)
        with frozen(model):
            cost = 1 - F.cosine_similarity(model(leaf).features[:, None], forget[None], dim=2)
        plans.append(torch.from_numpy(ot.emd([], [], cost.detach().numpy())))
        (plans[max(step - lag, 0)] * cost).sum().backward()
        images = images + 0.02 * leaf.grad.sign()
    return images


@pytest.mark.parametrize("lag", [0, 1])
def test_an_iteration_uses_its_own_plan_or_with_a_lag_that_of_the_one_before(model, lag):
    images, steps = pictures(4), 12
    found = moved(model, images, objective(model, ot=TransportConfig(lag=lag)), steps=steps).images
    by_hand = {other: lagged_by_hand(model, images, steps, other) for other in (0, 1, 2)}
    # The same signs; steps of 0.02 add up in another order.
    torch.testing.assert_close(found, by_hand.pop(lag), rtol=0, atol=1e-12)
    # Another lag would have been seen.
    assert all((found - other).abs().max() > 0.01 for other in by_hand.values())


def test_the_first_iteration_of_a_lagged_synthesis_has_its_own_plan(model):
    goals = [objective(model, ot=TransportConfig(lag=lag)) for lag in (0, 1)]
    once, lagged = (moved(model, pictures(4), goal, steps=1) for goal in goals)
    assert torch.equal(once.images, lagged.images)
    assert torch.equal(once.last.ot_cost, lagged.last.ot_cost)


def test_classification_alone_lowers_the_cross_entropy(model):
    images = pictures(4)
    goal = objective(model, forget_weight=0.0, retain_weight=1.0)
    found = moved(model, images, goal, steps=10)
    with torch.no_grad(), frozen(model):
        before, after = (
            F.cross_entropy(model(x).logits, labels(4)) for x in (images, found.images)
        )
    assert after < 0.95 * before
    # The first loss is that of the images as they came; sums in another order.
    assert found.first.classification.item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize(("forget_weight", "depends"), [(0.0, False), (3.0, True)])
def test_the_forget_set_matters_exactly_when_its_term_has_a_weight(model, forget_weight, depends):
    found = [
        moved(
            model, pictures(4),
            objective(model, forget_seed=s, forget_weight=forget_weight, retain_weight=0.5),
        ).images
        for s in (1, 2)
    ]  # fmt: skip
    assert torch.equal(*found) is not depends


def test_without_weights_the_images_stay(model):
    goal = objective(model, forget_weight=0.0, retain_weight=0.0)
    assert torch.equal(moved(model, pictures(4), goal).images, pictures(4))


def test_objective_is_the_weighted_difference_of_its_parts(model):
    images = pictures(4)
    with torch.no_grad(), frozen(model):
        output = model(images)
        loss = objective(model, forget_weight=3.0, retain_weight=0.25)(output)
    ce = F.cross_entropy(output.logits, labels(4)).item()
    # Against POT and torch: rounding of float64.
    assert loss.ot_cost.item() == pytest.approx(ot_cost(model, images), rel=1e-12)
    assert loss.classification.item() == pytest.approx(ce, rel=1e-12)
    assert loss.total.item() == pytest.approx(3 * ot_cost(model, images) - 0.25 * ce, rel=1e-12)


def test_shards_of_the_classification_add_up_to_that_of_the_batch(model):
    with torch.no_grad(), frozen(model):
        output = model(pictures(4))
        whole = objective(model, forget_weight=0.0, retain_weight=1.0)(output)
        parts = []
        for rows in (slice(0, 3), slice(3, 4)):
            goal = objective(model, forget_weight=0.0, retain_weight=1.0)
            goal.labels = goal.labels[rows]
            parts.append(goal(ModelOutput(*(value[rows] for value in output))))
    for name in ("total", "classification"):
        # The same terms in another order.
        assert sum(getattr(p, name) for p in parts).item() == pytest.approx(
            getattr(whole, name).item(), rel=1e-12
        )


@pytest.mark.parametrize("steps", [1, 4])
def test_one_forward_pass_per_step(model, steps):
    goal, count = objective(model), []
    model.register_forward_hook(lambda *_: count.append(1))
    moved(model, pictures(4), goal, steps=steps)
    assert len(count) == steps


def test_dropout_is_off_so_synthesis_draws_nothing(model):
    before = torch.get_rng_state()
    moved(model, pictures(4), objective(model))
    assert torch.equal(torch.get_rng_state(), before)


class SecondOfTwo(Collectives):
    """The rank without rows of a batch of one image, whose features are known beforehand."""

    def __init__(self, whole: Tensor):
        super().__init__(1, 2)
        self.whole = whole

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        return self.whole


@pytest.mark.parametrize("scope", ["global", "rank"])
def test_an_empty_shard_goes_through_with_nothing(model, scope):
    group = SecondOfTwo(layer_output(model, pictures(1), "features"))
    goal = objective(
        model, 0, total=1, retain_weight=1.0, ot=TransportConfig(scope=scope), collectives=group
    )
    found = moved(model, pictures(0), goal)
    assert found.images.shape == (0, 3, 4, 4)
    assert [float(value) for value in found.last] == [0, 0, 0]


@pytest.mark.parametrize("layer", ["features", "logits"])
def test_layer_output_is_that_of_evaluation_without_gradient(model, layer):
    found = layer_output(model, pictures(3), layer)
    assert model.training
    assert not found.requires_grad
    model.eval()
    assert torch.equal(found, getattr(model(pictures(3)), layer).detach())


@pytest.mark.parametrize(
    ("step", "num_steps", "weight"),
    [(0, 5, 0.5), (1, 5, 0.75), (4, 5, 1.5), (0, 1, 0.5), (0, 2, 0.5), (1, 2, 1.5)],
)
def test_linear_weight_runs_from_the_first_step_to_the_last(step, num_steps, weight):
    assert linear_weight(step, num_steps, 0.5, 1.5) == weight


# -- album ---------------------------------------------------------------------------------------


def pairs(first: int, n: int) -> SimpleNamespace:
    """Return n pairs whose pixels are their id, and 100 more for the synthesised."""
    ids = torch.arange(first, first + n)
    original = ids.to(torch.uint8).view(-1, 1, 1, 1).expand(n, 3, 4, 4).contiguous()
    return SimpleNamespace(ids=ids, original=original, synthesised=original + 100)


def filled(folder, limit: int, *sizes: int) -> Album:
    album, first = Album(folder, limit), 0
    for n in sizes:
        new = pairs(first, n)
        album.add(new.ids, new.original, new.synthesised)
        first += n
    return album


@pytest.mark.parametrize(("sizes", "kept"), [([3], 3), ([3, 1], 4), ([3, 3], 5), ([8], 5)])
def test_album_keeps_the_first_pairs_up_to_its_limit(sizes, kept, tmp_path):
    album = filled(tmp_path, 5, *sizes)
    assert album.ids.tolist() == list(range(kept))
    assert album.original[:, 0, 0, 0].tolist() == list(range(kept))
    assert album.synthesised[:, 0, 0, 0].tolist() == [100 + i for i in range(kept)]
    assert album.full is (kept == 5)


def test_an_album_of_none_is_full(tmp_path):
    assert Album(tmp_path, 0).full


def test_album_writes_what_it_holds_and_nothing_beside(tmp_path):
    album = filled(tmp_path / "a folder", 16, 3)
    album.write()
    held = load_file(album.folder / "images.safetensors")
    assert torch.equal(held["original"], pairs(0, 3).original)
    assert torch.equal(held["synthesised"], pairs(0, 3).synthesised)
    assert held["ids"].tolist() == [0, 1, 2]
    assert {p.name for p in album.folder.iterdir()} == {"images.safetensors", "contact_sheet.png"}
    with Image.open(album.folder / "contact_sheet.png") as sheet:
        assert sheet.size == (3 * 4, 2 * 4)


def test_album_goes_back_to_the_pairs_of_a_checkpoint(tmp_path):
    filled(tmp_path, 5, 2, 2).write()
    album = Album(tmp_path, 5)
    album.restore(2)
    assert album.ids.tolist() == [0, 1]
    new = pairs(2, 9)
    album.add(new.ids, new.original, new.synthesised)
    assert album.ids.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(album.synthesised, pairs(0, 5).synthesised)


def test_an_album_without_pairs_at_the_checkpoint_needs_no_file(tmp_path):
    album = Album(tmp_path, 5)
    album.restore(0)
    assert len(album.ids) == 0


@pytest.mark.parametrize(("n", "size"), [(1, (4, 8)), (8, (32, 8)), (9, (32, 16))])
def test_contact_sheet_puts_each_original_above_what_became_of_it(n, size):
    held = pairs(0, n)
    sheet = contact_sheet(held.original, held.synthesised)
    assert sheet.size == size
    last = n - 1
    row, column = divmod(last, 8)
    assert sheet.getpixel((4 * column, 8 * row)) == (last, last, last)
    assert sheet.getpixel((4 * column, 8 * row + 4)) == (100 + last,) * 3
