"""The leak audit finds planted twins, tells the request of them, and names nobody in a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlfd_dist.data.clean import image_digests
from dlfd_dist.data.forget_request import resolve_entries
from dlfd_dist.data.leaks import _mark, audit_leaks, near_duplicates, thumbnail
from dlfd_dist.data.manifest import Manifest
from dlfd_dist.data.near import SIDE, Pairs, aligned_cosine, candidates, near_pairs
from dlfd_dist.data.orl import find_orl
from dlfd_dist.data.splits import make_splits
from launch.cli import main
from tests.fakes.planted import CHANGES

PEOPLE = range(1, 13)


@pytest.fixture(scope="module")
def faces() -> list[Image.Image]:
    """Two photographs each of twelve people."""
    root = find_orl()
    return [Image.open(root / f"s{p}" / f"{k}.pgm").convert("RGB") for p in PEOPLE for k in (1, 6)]


@pytest.mark.parametrize("side", [None, 48])
@pytest.mark.parametrize("change", list(CHANGES))
def test_planted_near_duplicates_are_found_and_nothing_else(faces, change, side):
    """48 pixels are those of CK+48, whose images a stronger demand on the cosine missed."""
    if side is not None:
        faces = [face.resize((side, side)) for face in faces]
    rng = np.random.default_rng(0)
    changed = [CHANGES[change](face, rng) for face in faces]
    pairs = near_pairs(np.stack([thumbnail(image) for image in [*faces, *changed]]))
    planted = {(i, i + len(faces)) for i in range(len(faces))}
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(found & planted) >= 0.95 * len(planted)
    assert found <= planted
    assert (pairs.first < pairs.second).all()


def test_all_hashes_nearer_than_there_are_chunks_are_looked_at():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (60, SIDE, SIDE)).astype(np.uint8)
    noisy = (base.astype(int) + rng.integers(-2, 3, base.shape)).clip(0, 255).astype(np.uint8)
    first, second, mirrored = candidates(np.concatenate([base, noisy, base[:, :, ::-1]]))
    found = set(zip(first.tolist(), second.tolist(), mirrored.tolist(), strict=True))
    assert {(i, i + 60, False) for i in range(60)} <= found
    assert {(i, i + 120, True) for i in range(60)} <= found


def test_images_that_show_nothing_are_no_pairs():
    plain = np.repeat(np.arange(5, dtype=np.uint8), SIDE * SIDE).reshape(5, SIDE, SIDE)
    assert len(near_pairs(plain)) == 0


def test_the_cosine_does_not_see_light_and_small_shifts(faces):
    one = np.stack([thumbnail(face) for face in faces[:4]]).astype(np.float32)
    np.testing.assert_allclose(aligned_cosine(one, 0.5 * one + 20), 1, atol=1e-4)
    assert aligned_cosine(one, one[[1, 2, 3, 0]]).max() < 0.9


@pytest.fixture
def planted(tmp_path: Path, faces) -> Manifest:
    """Four people; a near-duplicate of Ada's first image is Bob's, an equal one stands in test."""
    names = ["Ada", "Ada", "Bob", "Bob", "Bob", "Cid", "Cid", "Dee", "Dee"]
    images = [*faces[:4], CHANGES["JPEG 60"](faces[0], np.random.default_rng(0)), *faces[4:7]]
    for i, image in enumerate([*images, faces[2]]):
        image.save(tmp_path / f"{i}.png")
    splits = np.array(["train"] * 5 + ["val"] * 2 + ["test"] * 2)
    return Manifest(
        tmp_path, [f"{i}.png" for i in range(9)], np.array(names), np.array([0, 1] * 4 + [0]),
        splits, ["a", "b"], "planted", may_show=True,
    )  # fmt: skip


def test_a_request_is_told_of_twins_that_stay(planted: Manifest, tmp_path: Path):
    request = resolve_entries([(1, "Ada")], "request", planted, planted.splits)
    splits = make_splits(planted.splits, request.rows)
    folder = tmp_path / "cache"
    folder.mkdir()
    audit = audit_leaks(planted, splits, request, folder)
    assert audit.counts() == {"exact": {"retain-test": 1}, "near": {"retain-forget": 1}}
    assert audit.stay == (
        "Ada: 1 of the images to forget has a twin in the retain set, which stays and is trained "
        "on",
    )
    told = audit.to_dict()
    assert (told["across_parts"], told["forget_retain"], told["lines_told"]) == (2, 1, 1)
    assert "Ada" not in str(told)
    assert audit_leaks(planted, splits, request, folder).digest == audit.digest
    assert audit_leaks(planted, splits, request, None).digest == audit.digest


NO_PAIR = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
OTHER_PAIR = Pairs(np.array([1]), np.array([5]), np.array([0.99], np.float32))


@pytest.mark.parametrize(
    ("pairs", "marked", "verify"),
    [(None, "", False), (NO_PAIR, "", False), (OTHER_PAIR, "", False), (OTHER_PAIR, "so", False),
     (NO_PAIR, "for others", False), (NO_PAIR, "so", True)],
    ids=["damaged", "no pair", "another pair", "another pair, marked so", "of other images",
         "no pair, marked so, with data.verify"],
)  # fmt: skip
def test_a_kept_list_that_is_not_of_these_images_is_not_believed(
    pairs: Pairs | None, marked: str, verify: bool, planted: Manifest, tmp_path: Path
):
    first = near_duplicates(planted, tmp_path)
    assert len(first) == 1
    assert len(near_duplicates(planted, tmp_path)) == 1
    [path] = tmp_path.glob("near-*.npz")
    if pairs is None:
        path.write_bytes(path.read_bytes()[:-30])
    else:
        digests = image_digests(planted, tmp_path)
        mark = _mark(pairs, digests if marked == "so" else digests[::-1]) if marked else "0" * 64
        held = np.stack([pairs.first, pairs.second, pairs.similarity]).astype(float)
        np.savez(path, pairs=held, mark=mark)
    again = near_duplicates(planted, tmp_path, verify=verify)
    np.testing.assert_array_equal([again.first, again.second], [first.first, first.second])


def test_a_kept_list_is_used_again(planted: Manifest, tmp_path: Path, monkeypatch):
    near_duplicates(planted, tmp_path)
    monkeypatch.setattr("dlfd_dist.data.leaks.near_pairs", None)
    assert len(near_duplicates(planted, tmp_path)) == 1


def test_a_twin_in_retain_is_told_whatever_lies_between(tmp_path: Path, faces):
    """One picture as Ada's, in test and in retain, and a near one in test, Bob's and Ada's: in the
    order of the rows a stranger's image stands between hers and the one that is trained on."""
    near = CHANGES["JPEG 60"](faces[0], np.random.default_rng(0))
    given = [
        ("Ada", "train", faces[0]), ("Cid", "test", faces[0]), ("Bob", "train", faces[0]),
        ("Ada", "train", faces[4]), ("Dee", "test", near), ("Bob", "train", near),
        ("Ada", "train", near), ("Eve", "val", faces[6]),
    ]  # fmt: skip
    for i, (_, _, image) in enumerate(given):
        image.save(tmp_path / f"{i}.png")
    names, parts, _ = (np.array(one) for one in zip(*given, strict=True))
    planted = Manifest(
        tmp_path, [f"{i}.png" for i in range(len(given))], names, np.zeros(len(given), np.int64),
        parts, ["a"], "planted", may_show=True,
    )  # fmt: skip
    request = resolve_entries([(1, "Ada")], "request", planted, parts)
    audit = audit_leaks(planted, make_splits(parts, request.rows), request, None)
    assert audit.counts()["exact"] == {
        "forget-test": 2, "retain-forget": 2, "retain-test": 2
    }  # fmt: skip
    joined = {(p.image_path, p.other_path) for p in audit.pairs if p.kind == "near"}
    assert {("2.png", "6.png"), ("5.png", "0.png"), ("2.png", "5.png")} <= joined
    assert audit.stay[0].startswith("Ada: 2 of the images to forget have a twin")


def test_the_command_writes_list_numbers_and_page(tmp_path: Path, planted: Manifest, capsys):
    rows = zip(planted.image_paths, planted.identities, planted.labels, planted.splits, strict=True)
    lines = ["image_path,identity,label,split", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "request.txt").write_text("Ada\n", encoding="utf-8")
    words = [f"data.root={tmp_path}", f"forget.request={tmp_path / 'request.txt'}"]
    assert main(["audit", "leaks", *words, f"run.dir={tmp_path / 'leaks'}"]) == 0
    said = capsys.readouterr().out
    assert "2 pairs, 2 across parts" in said
    assert "request: Ada: 1 of the images" in said
    page = (tmp_path / "leaks" / "leaks.html").read_text(encoding="utf-8")
    # On the page, which is handed on, a person could be known by the number.
    assert "1 to 2 pairs show one picture twice" in page
    assert "<td>1</td>" not in page
    assert main(["audit", "leaks", words[0], f"run.dir={tmp_path / 'all'}"]) == 0
    of_nobody = (tmp_path / "all" / "leaks.html").read_text(encoding="utf-8")
    assert "images: 2 pairs show one picture twice" in of_nobody
    assert "does not allow its images to be shown" in page
    assert "Ada" not in page
    assert len((tmp_path / "leaks" / "leaks.csv").read_text().splitlines()) == 3
