"""transforms.py: what augmentation does, and that sharding a batch does not change it."""

from __future__ import annotations

import pytest
import torch

from dlfd_dist.data.transforms import augment_batch, augmentation

NAMES = ["flip", "face", "mufac", "raf_db"]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def augment(images, name="mufac", positions=None, groups=4, key=(0, 1, 2)):
    positions = torch.arange(len(images)) if positions is None else positions
    transform = augmentation(name, 16)
    return augment_batch(images, positions, transform=transform, groups=groups, key=key)


def test_none_is_no_transform():
    assert augmentation("none", 16) is None


@pytest.mark.parametrize("name", NAMES)
def test_augmented_images_keep_shape_and_range(images, name):
    out = augment(images, name, groups=10)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, images), "one of 10 draws moves something"


def test_raf_db_is_grey_before_the_colour_jitter_and_resizes_back(images):
    out = augmentation("raf_db", 16)(images)
    assert out.shape == images.shape
    # Grey stays grey under brightness, contrast, saturation and hue.
    torch.testing.assert_close(out[:, 0], out[:, 2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_shards_equal_the_whole_batch(images, name, world_size):
    whole = augment(images, name)
    for positions in torch.arange(len(images)).tensor_split(world_size):
        shard = augment(images[positions], name, positions)
        # Exact draws; interpolation of another batch size may differ in the last bit.
        torch.testing.assert_close(shard, whole[positions], atol=1e-6, rtol=0)


def test_order_within_a_shard_does_not_matter(images):
    positions = torch.tensor([7, 2, 9, 0])
    torch.testing.assert_close(
        augment(images[positions], positions=positions), augment(images)[positions]
    )


def test_empty_shard(images):
    out = augment(images[:0], positions=torch.arange(0))
    assert out.shape == (0, 3, 16, 16)


def test_groups_share_one_draw(images):
    same = images[:1].repeat(8, 1, 1, 1)
    out = augment(same, "face", groups=4)
    torch.testing.assert_close(out[:4], out[4:])
    distinct = {tuple(image.flatten().tolist()) for image in out}
    assert len(distinct) == 4


def test_more_groups_than_samples(images):
    assert augment(images, groups=1000).shape == images.shape


def test_key_fixes_the_draw(images):
    assert torch.equal(augment(images, key=(5, 0, 1)), augment(images, key=(5, 0, 1)))
    assert not torch.equal(augment(images, key=(5, 0, 1)), augment(images, key=(5, 0, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_untouched(images, name):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    augment(images, name)
    assert torch.equal(before, torch.random.get_rng_state())


def test_accelerators_are_not_reseeded(images, monkeypatch):
    # torch.manual_seed reaches every device, and fork_rng(devices=[]) restores the CPU only.
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("reseeds the accelerators"))
    augment(images)


def test_draw_does_not_depend_on_the_global_random_state(images):
    torch.manual_seed(1)
    first = augment(images)
    torch.manual_seed(2)
    assert torch.equal(first, augment(images))


def test_float64_stays_float64(images):
    assert augment(images.double()).dtype == torch.float64


def test_input_is_not_changed(images):
    before = images.clone()
    augment(images)
    assert torch.equal(before, images)
