"""models: features, seeds, heads, and weights from anywhere but never from code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from dlfd_dist.config import JobConfig, ModelConfig, RuntimeConfig
from dlfd_dist.errors import CheckpointError, ConfigError
from dlfd_dist.methods.dlfd import synthesise
from dlfd_dist.models import (
    Classifier,
    build_model,
    load_weights,
    model_blocks,
    save_weights,
    set_dropout_rows,
    task_divergence,
    task_loss,
    weights_path,
)
from dlfd_dist.models.heads import Head, RowDropout
from dlfd_dist.models.weights import read_state
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives

TORCHVISION = {"resnet18": 512, "densenet121": 1024, "efficientnet_b0": 1280, "vit_b_16": 768}
WIDTHS = {**TORCHVISION, "small": 48}


def build(name: str = "resnet18", *, num_outputs: int = 3, seed: int = 0, **values) -> Classifier:
    return build_model(
        ModelConfig(name=name, **values), image_size=64, num_outputs=num_outputs, seed=seed
    )


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)


@pytest.fixture(scope="module")
def trained() -> dict[str, Classifier]:
    """ResNets whose every tensor, BatchNorm statistics included, differs from a fresh one's."""
    generator = torch.Generator().manual_seed(7)
    models = {}
    for head in ("linear", "mlp"):
        model = build(head=head, seed=5)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        models[head] = model
    return models


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("small_stem", [False, True], ids=["stem", "small_stem"])
@pytest.mark.parametrize("name", WIDTHS)
def test_features_are_what_the_last_linear_layer_reads(name, small_stem, head):
    model = build(name, small_stem=small_stem, head=head).eval()
    read = []
    last = model.head[-1]
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
        model.backbone.get_submodule(layer).register_forward_hook(
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
    before, block = [], model.backbone.get_submodule("layer1")
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
    for module in (one.backbone, one.head):
        assert any(p.std() > 0 for p in module.parameters())
    assert not torch.equal(one.head[-1].weight, other.head[-1].weight)
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
        ModelConfig(), image_size=32, num_outputs=3, seed=0, bfloat16=runtime.update_in_bfloat16
    )
    config = JobConfig(runtime=runtime)
    context = SimpleNamespace(
        model=model,
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


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_weights_survive_saving_and_loading(head, trained, tmp_path):
    path = tmp_path / "a folder" / "größe 'x'.safetensors"
    save_weights(trained[head], path)
    model = build(head=head, seed=9)
    load_weights(model, path)
    assert_same_weights(trained[head], model)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def authors_state(model: Classifier) -> dict[str, Tensor]:
    """Return the state under the names of Dasol-Choi/DLFD: base_model and features."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        renamed[name.replace("backbone.", "base_model.").replace("head.", "features.")] = tensor
    assert {"base_model.conv1.weight", "features.0.weight", "features.6.bias"} <= renamed.keys()
    return renamed


def plain_state(model: Classifier) -> dict[str, Tensor]:
    """Return the state as torchvision's own resnet18 names it."""
    renamed = {
        n.removeprefix("backbone.").replace("head.0.", "fc."): t
        for n, t in model.state_dict().items()
    }
    assert renamed.keys() == tv.resnet18(num_classes=3).state_dict().keys()
    return renamed


FORMS = {
    "own": ("mlp", lambda model: model.state_dict()),
    "authors": ("mlp", authors_state),
    "torchvision": ("linear", plain_state),
    "ddp": ("linear", lambda m: {f"module.{k}": v for k, v in m.state_dict().items()}),
    "ddp_authors": ("mlp", lambda m: {f"module.{k}": v for k, v in authors_state(m).items()}),
    "state_dict": ("mlp", lambda m: {"state_dict": authors_state(m), "epoch": 3}),
    "model_state_dict": ("linear", lambda m: {"model_state_dict": plain_state(m), "loss": 0.1}),
    "model": ("linear", lambda m: {"model": m.state_dict()}),
    "no_counters": (
        "linear",
        lambda m: {k: v for k, v in plain_state(m).items() if "num_batches" not in k},
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_foreign_pth_loads_under_our_names(form, legacy, trained, tmp_path):
    head, rename = FORMS[form]
    path = tmp_path / "model.pth"
    torch.save(rename(trained[head]), path, _use_new_zipfile_serialization=not legacy)
    model = build(head=head, seed=9)
    load_weights(model, path)
    assert_same_weights(trained[head], model)


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0"])
def test_torchvisions_own_state_gives_torchvisions_own_output(name, tmp_path):
    foreign = tv.get_model(name, num_classes=3).eval()
    torch.save(foreign.state_dict(), tmp_path / "model.pth")
    model = build(name, seed=9).eval()
    load_weights(model, tmp_path / "model.pth")
    with torch.no_grad():
        # The same kernels in the same order; flatten and pooling may fuse differently.
        torch.testing.assert_close(
            model(images(1)).logits, foreign(images(1)), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_names_become_ours(name, tmp_path):
    with torch.device("meta"):
        foreign, ours = tv.get_model(name).state_dict(), build(name).state_dict()
    torch.save({key: torch.zeros(1) for key in foreign}, tmp_path / "model.pth")
    assert read_state(tmp_path / "model.pth").keys() == ours.keys()


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        ({"name": "efficientnet_b0"}, {}, r"is of another architecture: it lacks \d+ tensors"),
        ({"head": "mlp"}, {}, r"another architecture: it .*has 4 others \(head.3"),
        ({}, {"head": "mlp"}, r"another architecture: it lacks 4 tensors \(head.3.bias"),
        ({"num_outputs": 7}, {}, r"does not fit: it has 7 outputs and the data 3 classes"),
        ({"head": "mlp", "num_outputs": 7}, {"head": "mlp"}, r"it has 7 outputs and the data 3"),
        ({"small_stem": True}, {}, r"backbone.conv1.weight is \(64, 3, 3, 3\), the model's is"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_loaded(
    saved, wanted, message, tmp_path
):
    save_weights(build(**saved), tmp_path / "m.safetensors")
    model, untouched = build(seed=4, **wanted), build(seed=4, **wanted)
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, tmp_path / "m.safetensors")
    assert_same_weights(untouched, model)


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
    assert list(blocks[-1]) == [model.head]
    held = [id(p) for block in blocks for p in block.parameters()]
    assert len(held) == len(set(held))
    left = {n for n, p in model.named_parameters() if id(p) not in held}
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
    assert list(model_blocks(model)[0]) == [model.backbone.conv1, model.backbone.bn1]
    assert list(model_blocks(model)[-2]) == [model.backbone.get_submodule("layer4.1")]
    dense = build("densenet121")
    last = [dense.backbone.get_submodule(f"features.{n}") for n in ("denseblock4", "norm5")]
    assert list(model_blocks(dense)[-2]) == last


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_truncated_pth_is_refused(legacy, tmp_path):
    path = tmp_path / "m.pth"
    state = {"a": torch.zeros(2000)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    _cut(path)
    with pytest.raises(CheckpointError, match=r"m.pth is not a readable checkpoint"):
        read_state(path)


def test_truncated_safetensors_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(2000)}, path)
    _cut(path)
    with pytest.raises(CheckpointError, match=r"m.safetensors is not a readable checkpoint"):
        read_state(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world",
        b"this is a text file\n",
        b"image,label\n1,2\n",
        b"PK\x03\x04",
        b"\x80\x02",
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(content, suffix, tmp_path):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m.{suffix} (is (not a|a text|empty)|holds)"):
        read_state(path)


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(1)], torch.zeros(3), {"a": 3}, {0: torch.zeros(1)}, {"state_dict": [1]}],
    ids=["list", "tensor", "numbers", "integer names", "wrapped list"],
)
def test_a_pth_without_a_dictionary_of_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"does not hold a dictionary of tensors"):
        read_state(tmp_path / "m.pth")


class _Trap:
    """Unpickled, it would touch a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("form", ["plain pickle", "zip", "legacy", "beside tensors"])
def test_a_malicious_pickle_is_refused_and_not_run(form, tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "m.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(_Trap(trap), protocol=2))
    elif form == "beside tensors":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": _Trap(trap)}, path)
    else:
        torch.save(_Trap(trap), path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="foreign code is never run"):
        read_state(path)
    assert not trap.exists()
    os.system(_Trap(trap).__reduce__()[1][0])
    assert trap.exists(), "the trap must work, else this test proves nothing"


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"save its state_dict\(\) alone"):
        read_state(tmp_path / "m.pth")


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint at .*nothing.pth"):
        weights_path(tmp_path / "nothing.pth")


def test_run_directory_is_a_checkpoint_once_it_has_its_model(trained, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no finished model \(checkpoints/final"):
        weights_path(tmp_path)
    save_weights(trained["linear"], RunDir(tmp_path).model)
    model = build(seed=9)
    load_weights(model, str(tmp_path))
    assert_same_weights(trained["linear"], model)


def dropout(p: float = 0.5) -> RowDropout:
    return RowDropout(p).train()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_row_dropout_of_the_shards_is_that_of_the_whole_batch(world_size):
    whole = torch.ones(7, 50)
    head = Head(nn.Identity(), dropout(), nn.Identity())
    set_dropout_rows(head, [7], Collectives(), 3, 4)
    expected = head(whole)
    parts = []
    for rank in range(world_size):
        group = Collectives(rank, world_size)
        set_dropout_rows(head, [7], group, 3, 4)
        parts.append(head(whole[group.shard(7)]))
    assert torch.equal(torch.cat(parts), expected)
    # 350 draws of 1/2: four standard errors are 4 * sqrt(.25 / 350) = 0.11.
    assert (expected == 0).double().mean() == pytest.approx(0.5, abs=0.11)
    assert set(expected.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("totals", [(7, 5), (0, 5), (5, 0), (3, 4, 2)])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_row_dropout_of_several_batches_in_one_pass_is_that_of_each(totals, world_size):
    """A rank forwards its shard of every batch, one after the other; each row keeps its mask."""
    head = Head(nn.Identity(), dropout(), nn.Identity())
    set_dropout_rows(head, totals, Collectives(), 3, 4)
    whole = head(torch.ones(sum(totals), 50)).split(list(totals))
    for rank in range(world_size):
        group = Collectives(rank, world_size)
        shards = [torch.ones(total, 50)[group.shard(total)] for total in totals]
        set_dropout_rows(head, totals, group, 3, 4)
        found = head(torch.cat(shards))
        expected = [rows[group.shard(len(rows))] for rows in whole]
        assert torch.equal(found, torch.cat(expected))


def test_row_dropout_differs_between_layers_and_keys():
    head = Head(dropout(), dropout())
    masks = {}
    for key in (1, 2):
        set_dropout_rows(head, [4], Collectives(), key)
        for number, layer in enumerate(head):
            masks[key, number] = tuple(layer(torch.ones(4, 50)).flatten().tolist())
    assert len(set(masks.values())) == 4


def test_row_dropout_without_rows_is_torchs():
    torch.manual_seed(2)
    expected = F.dropout(torch.ones(6, 20), 0.3)
    torch.manual_seed(2)
    assert torch.equal(dropout(0.3)(torch.ones(6, 20)), expected)


def test_row_dropout_with_rows_leaves_the_global_rng_alone():
    layer = dropout()
    layer.set_rows(1, 6, torch.arange(6))
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    layer(torch.ones(6, 20))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True)])
def test_row_dropout_is_off_in_evaluation_and_at_zero(p, training):
    layer = RowDropout(p).train(training)
    layer.set_rows(1, 6, torch.arange(6))
    assert torch.equal(layer(torch.ones(6, 20)), torch.ones(6, 20))


REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_task_loss_of_one_label_is_cross_entropy(reduction):
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    expected = F.cross_entropy(logits, labels, reduction=reduction)
    assert torch.equal(task_loss(logits, labels, reduction), expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_task_loss_of_several_labels_is_the_mean_bce_over_labels(reduction):
    logits, labels = torch.randn(5, 3), torch.tensor([[0, 1, 1]] * 4 + [[1, 0, 0]])
    entries = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    expected = {"none": entries.mean(1), "sum": entries.sum() / 3, "mean": entries.mean()}
    # Sums in another order: rounding of float32.
    torch.testing.assert_close(
        task_loss(logits, labels, reduction), expected[reduction], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("labels", [torch.zeros(0).long(), torch.zeros(0, 3).long()])
def test_task_loss_of_no_samples_sums_to_zero(labels):
    assert task_loss(torch.zeros(0, 3), labels, "sum") == 0


def logits_of_two(n: int = 6, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = 3 * torch.randn(2, n, width, generator=generator).double()
    return drawn[0], drawn[1]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
@pytest.mark.parametrize(
    ("distribution", "labels"),
    [(Categorical, torch.zeros(6).long()), (Bernoulli, torch.zeros(6, 4).long())],
    ids=["classes", "labels"],
)
def test_task_divergence_is_kl_from_the_target_to_the_model(distribution, labels, temperature):
    model, target = logits_of_two()
    known, learned = (distribution(logits=x / temperature) for x in (target, model))
    expected, reverse = kl_divergence(known, learned), kl_divergence(learned, known)
    if labels.ndim == 2:
        expected, reverse = expected.mean(1), reverse.mean(1)
    found = task_divergence(model, target, labels, temperature=temperature)
    # Logarithms of sums in another form: rounding of float64.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(found, reverse)


@pytest.mark.parametrize("labels", [torch.zeros(6).long(), torch.zeros(6, 4).long()])
def test_task_divergence_has_no_gradient_at_the_target_and_none_for_it(labels):
    model, target = (x.requires_grad_(True) for x in logits_of_two())
    assert (task_divergence(model, model, labels).abs() < 1e-15).all()
    task_divergence(model, model, labels).sum().backward()
    assert model.grad is not None
    assert model.grad.abs().max() < 1e-15
    task_divergence(model, target, labels).sum().backward()
    assert target.grad is None
    assert model.grad.abs().max() > 0.01


@pytest.mark.parametrize("labels", [torch.zeros(2).long(), torch.zeros(2, 3).long()])
def test_task_divergence_of_sure_models_is_finite(labels):
    model = torch.tensor([[500.0, -500.0, 0.0], [-500.0, 500.0, 0.0]], requires_grad=True)
    target = torch.tensor([[-500.0, 500.0, 0.0], [-500.0, 500.0, 0.0]])
    found = task_divergence(model, target, labels)
    found.sum().backward()
    assert found[0] > 100
    assert found[1] == 0
    assert torch.isfinite(found).all()
    assert model.grad is not None
    assert torch.isfinite(model.grad).all()


@pytest.mark.parametrize("labels", [torch.zeros(0).long(), torch.zeros(0, 3).long()])
def test_task_divergence_of_no_samples_sums_to_zero(labels):
    assert task_divergence(torch.zeros(0, 3), torch.zeros(0, 3), labels).sum() == 0
