"""synthetic.py: pure drawing, separate factors, and a folder that is written once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.config import DataConfig, SyntheticFacesConfig
from dlfd_dist.data import synthetic
from dlfd_dist.data.cache import open_cache
from dlfd_dist.data.splits import assign_splits
from dlfd_dist.data.synthetic import EXPRESSIONS, draw_face, load_synthetic, plan_images
from dlfd_dist.errors import DataError


def config(tmp_path: Path, **settings) -> DataConfig:
    faces = {"num_identities": 6, "images_per_identity": 3, "num_expressions": 2} | settings
    return DataConfig(
        name="synthetic",
        image_size=16,
        cache_dir=str(tmp_path / "cache"),
        synthetic=SyntheticFacesConfig(**faces),
    )


def draw(identity=0, expression=0, age=0.2, *, seed=0, nuisance_seed=0, image_size=24):
    return draw_face(
        identity,
        expression,
        age,
        seed=seed,
        nuisance_seed=nuisance_seed,
        image_size=image_size,
    )


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@pytest.mark.parametrize("image_size", [8, 24, 65])
def test_face_has_the_shape_that_is_asked(image_size):
    face = draw(image_size=image_size)
    assert face.shape == (3, image_size, image_size)
    assert face.dtype == np.uint8
    assert face.std() > 10


def test_same_arguments_same_pixels():
    np.random.seed(0)  # noqa: NPY002  (the global state must not matter)
    first = draw()
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(first, draw())


@pytest.mark.parametrize(
    "change", [{"identity": 1}, {"expression": 1}, {"age": 1.0}, {"seed": 1}, {"nuisance_seed": 1}]
)
def test_every_factor_changes_the_image(change):
    assert distance(draw(), draw(**change)) > 0.5


@pytest.mark.parametrize("expression", range(len(EXPRESSIONS)))
@pytest.mark.parametrize("age", [0.0, 1.0])
def test_every_expression_draws_at_any_age(expression, age):
    assert draw(expression=expression, age=age).std() > 10


def test_pictures_of_a_person_are_closer_than_those_of_two():
    faces = {(p, k): draw(p, nuisance_seed=k) for p in range(6) for k in range(4)}
    pairs = [(a, b) for a in faces for b in faces if a < b]
    same = np.mean([distance(faces[a], faces[b]) for a, b in pairs if a[0] == b[0]])
    other = np.mean([distance(faces[a], faces[b]) for a, b in pairs if a[0] != b[0]])
    assert other > 1.3 * same


def test_smile_moves_the_mouth_and_not_the_hair():
    size = 48
    moved = np.abs(
        draw(expression=1, image_size=size).astype(float) - draw(image_size=size).astype(float)
    ).mean(axis=0)
    assert moved[int(0.6 * size) : int(0.85 * size)].mean() > 5 * moved[: int(0.2 * size)].mean()


def test_plan_gives_every_person_several_expressions_in_balance():
    plan = plan_images(SyntheticFacesConfig(num_identities=9, images_per_identity=4))
    assert len(plan) == 36
    assert len({image.image_path for image in plan}) == 36
    for person in range(9):
        assert {image.expression for image in plan if image.identity == person} == {0, 1}
    single = plan_images(SyntheticFacesConfig(num_identities=8, images_per_identity=1))
    assert sum(image.expression for image in single) == 4


def test_manifest_describes_drawn_faces(tmp_path):
    manifest = load_synthetic(config(tmp_path))
    assert len(manifest) == 18
    assert manifest.synthetic
    assert manifest.may_show
    assert manifest.title == "synthetic faces (drawn, no real persons)"
    assert manifest.label_names == ["neutral", "smile"]
    assert len(set(manifest.identities)) == 6
    assert (manifest.splits == "").all()
    assert all((manifest.root / path).is_file() for path in manifest.image_paths)


def test_files_hold_the_drawn_pixels(tmp_path):
    cfg = config(tmp_path)
    images = open_cache(load_synthetic(cfg), cfg)
    plan = plan_images(cfg.synthetic)
    face = draw(
        plan[4].identity,
        plan[4].expression,
        plan[4].age,
        nuisance_seed=plan[4].nuisance_seed,
        image_size=16,
    )
    np.testing.assert_array_equal(images[4], face)


def test_splits_are_drawn_by_person(tmp_path):
    cfg = config(tmp_path)
    splits = assign_splits(load_synthetic(cfg), cfg)
    assert {name: int((splits == name).sum()) for name in ("train", "val", "test")} == {
        "train": 12,
        "val": 3,
        "test": 3,
    }


def test_second_load_draws_nothing(tmp_path, monkeypatch):
    first = load_synthetic(config(tmp_path))
    monkeypatch.setattr(synthetic, "draw_face", lambda *_, **__: pytest.fail("drawn again"))
    assert load_synthetic(config(tmp_path)).root == first.root


def test_other_parameters_make_another_folder(tmp_path):
    first, second = load_synthetic(config(tmp_path)), load_synthetic(config(tmp_path, seed=1))
    assert first.root != second.root


def test_loading_at_once_leaves_one_complete_folder(tmp_path, monkeypatch):
    barrier = threading.Barrier(3)
    write = synthetic._write_images

    def write_together(*arguments):
        barrier.wait(timeout=30)
        write(*arguments)

    monkeypatch.setattr(synthetic, "_write_images", write_together)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_synthetic(config(tmp_path))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found[0].root.name]
    assert len(list(found[0].root.rglob("*.png"))) == 18


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "draw_face", stop)
    with pytest.raises(KeyboardInterrupt):
        load_synthetic(config(tmp_path))
    assert list((tmp_path / "cache").iterdir()) == []


def test_full_disk_is_a_data_error(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "draw_face", full)
    with pytest.raises(DataError, match="cannot be written .*No space left.*data.cache_dir"):
        load_synthetic(config(tmp_path))


def test_other_label_is_refused(tmp_path):
    cfg = DataConfig(name="synthetic", label=["identity"], cache_dir=str(tmp_path))
    with pytest.raises(
        DataError, match="data.label=identity is not known: data=synthetic has only"
    ):
        load_synthetic(cfg)
