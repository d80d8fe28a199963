"""Inputs nobody thought of: each is refused in one sentence, or every row of it is accounted for.

CI tries 200 cases in all, `.ci/nightly` 2,000 (DLFD_FUZZ_CASES).
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from dlfd_dist.compose import compose_job, config_text, load_config
from dlfd_dist.config import DataConfig, ForgetConfig
from dlfd_dist.data.loaders import ResolvedRows, resolve_rows
from dlfd_dist.data.manifest import load_manifest
from dlfd_dist.errors import CheckpointError, ConfigError, DataError, DlfdError
from dlfd_dist.models.weights import load_weights
from tests.fakes.small_model import small_classifier

CASES = int(os.environ.get("DLFD_FUZZ_CASES", "200")) // 4
T = TypeVar("T")

fuzzed = settings(
    max_examples=CASES, deadline=None, database=None,
    derandomize="DLFD_FUZZ_CASES" not in os.environ,  # CI tries the same cases each time
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def usable(do: Callable[[], T], *kinds: type[DlfdError]) -> T | None:
    """Return what comes of an input; None where it is refused, which takes one sentence."""
    try:
        return do()
    except kinds as err:
        text, status = str(err), err.exit_status
    assert text.strip() == text
    assert text.endswith((".", "?")), text
    assert "Traceback" not in text
    assert status == 2
    return None


# --- manifests

VALUES = [
    "a",
    "b",
    "p 1",
    "0",
    "1",
    "2.0",
    "",
    " ",
    "nan",
    "-1",
    "é",
    "a\u2028b",
    "a\x85b",
    "\t",
    '"',
]
NAMES = ["image_path", "identity", "label", "split", "", "other", "label", " label "]
cells = st.one_of(st.sampled_from(VALUES), st.text(max_size=6))
SANE = {
    "image_path": [f"i{n}.png" for n in range(8)] + ["d/ä.png", "../x.png", "/x.png"],
    "identity": ["a", "b", "c", "d", "e", "f", "g", "p 1", "a,b"],
    "label": ["0", "1"],
    "split": ["train", "train", "val", "test"],
}


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Return a CSV that is mostly as it should be."""
    columns = [
        "image_path",
        "identity",
        "label",
        *draw(st.sampled_from([[], ["split"], ["other"]])),
    ]
    rows = [
        [draw(st.sampled_from(SANE.get(c, VALUES))) for c in columns]
        for _ in range(draw(st.integers(0, 12)))
    ]
    for _ in range(draw(st.integers(0, 2))):
        if rows:
            row = rows[draw(st.integers(0, len(rows) - 1))]
            row[draw(st.integers(0, len(row) - 1))] = draw(cells)
    if draw(st.integers(0, 9)) == 0:
        columns[draw(st.integers(0, len(columns) - 1))] = draw(st.sampled_from(NAMES))
    text = io.StringIO()
    end = draw(st.sampled_from(["\n", "\r\n"]))
    csv.writer(text, lineterminator=end).writerows([columns, *rows])
    return (
        draw(st.sampled_from(["", "\ufeff"]))
        + text.getvalue()
        + draw(st.sampled_from(["", "", "", end, "a,b", '"', "\x00", "i9.png,a,0"]))
    )


@given(tables())
@fuzzed
def test_a_manifest_is_refused_or_keeps_every_row(text: str):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "metadata.csv").write_text(text, encoding="utf-8", newline="")
        manifest = usable(lambda: load_manifest(DataConfig(root=folder)), DataError)
        if manifest is None:
            return
        rows = [r for r in csv.reader(io.StringIO(text.lstrip("\ufeff"), newline="")) if r]
        header = [name.strip() for name in rows[0]]
        there = [dict(zip(header, map(str.strip, row), strict=True)) for row in rows[1:]]
        assert manifest.image_paths == [row["image_path"] for row in there]
        assert manifest.identities.tolist() == [row["identity"] for row in there]
        named = [manifest.label_names[number] for number in manifest.labels]
        assert [float(name) for name in named] == [float(row["label"]) for row in there] or (
            named == [row["label"] for row in there]
        )


# --- requests

PEOPLE = [f"p{n}" for n in range(6)] + ["p 6", "a,b", 'q"uote', "ä", "image_path"]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> DataConfig:
    root = tmp_path_factory.mktemp("people")
    rows = [
        [f"{n}/{k}.png", person, str(k), "val" if n == 5 else "test" if n == 4 else "train"]
        for n, person in enumerate(PEOPLE)
        for k in range(2)
    ]
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image_path", "identity", "label", "split"], *rows])
    return DataConfig(root=str(root))


entries = st.one_of(
    st.sampled_from([*PEOPLE, "0/1.png", "5/0.png", "# a comment", "", "  p1  ", "nobody"]),
    st.sampled_from([*PEOPLE[:6], "1/0.png"]),
    st.text(max_size=5),
)


@given(
    st.lists(entries, max_size=8),
    st.sampled_from([None, ["identity"], ["image_path"], ["identity", "note"]]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
@fuzzed
def test_a_request_is_refused_or_every_line_is_accounted_for(people, lines, header, end):
    text = io.StringIO()
    if header is None:
        text.write(end.join(lines))
        wanted = [part.strip() for part in text.getvalue().replace("\r", "\n").split("\n")]
    else:
        rows = [[line, *["x"] * (len(header) - 1)] for line in lines]
        csv.writer(text, lineterminator=end).writerows([header, *rows])
        wanted = [line.strip() for line in lines]
    wanted = [line for line in wanted if line and not line.startswith("#")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.txt"
        path.write_text(text.getvalue(), encoding="utf-8", newline="", errors="replace")
        forget = ForgetConfig(request=str(path))
        found = usable(lambda: resolve_rows(people, forget, draw=False), DataError)
    if found is None:
        return
    check_request(found, wanted)


def check_request(found: ResolvedRows, wanted: list[str]) -> None:
    manifest, splits = found.manifest, found.splits
    assert [line.entry for line in found.request.lines] == wanted
    for line in found.request.lines:
        names = manifest.identities if line.kind == "identity" else np.array(manifest.image_paths)
        rows = np.flatnonzero(names == line.entry)
        assert line.num_images == np.isin(rows, splits.train).sum()
        assert (line.status == "matched") == (line.num_images > 0)
        assert np.isin(rows[np.isin(rows, splits.train)], splits.forget).all()
    parts = np.concatenate(list(splits.parts().values()))
    assert sorted(parts.tolist()) == list(range(len(manifest)))


# --- settings

KEYS = [
    "seed", "train.epochs", "train.lr", "train.on", "train.global_batch_size", "method.lr",
    "method.epochs", "method", "model", "model.head", "data.image_size", "data.label", "data.mean",
    "forget.fraction", "forget.request", "runtime.world_size", "runtime.device", "metrics.seed",
    "run.dir", "train.epoch", "nothing", "train", "data.groups", "run.checkpoint_every", "compare",
]  # fmt: skip
SETTINGS = [
    "1", "0", "-1", "0.5", "1e-3", "nan", "inf", "null", "true", "all", "retain", "[1,2]", "[]",
    "{a:1}", "a b", "x", "", "'", "[", "${seed}", "${oc.env:HOME}", "9" * 30, "1_000", "0x10", "é",
    "small", "finetune", "dlfd", "mlp", "cpu", "???", "~", "\x00", "../x", "[0.1,0.2,0.3]",
]  # fmt: skip
words = st.builds(
    lambda sign, key, value: f"{sign}{key}={value}",
    st.sampled_from(["", "", "", "", "+", "++", "~"]),
    st.one_of(st.sampled_from(KEYS), st.text("abc._", max_size=6)),
    st.one_of(st.sampled_from(SETTINGS), st.text(max_size=6)),
)


@given(st.sampled_from(["train", "unlearn", "evaluate"]), st.lists(words, max_size=2))
@fuzzed
def test_settings_are_refused_or_written_down_as_they_count(verb: str, given_words: list[str]):
    given_words = ["data=synthetic", "checkpoint=x", *given_words]
    config = usable(lambda: compose_job(verb, given_words), ConfigError, DlfdError)
    if config is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(config_text(config), encoding="utf-8")
        assert load_config(file) == config
    for word in given_words[2:]:
        key, _, value = word.partition("=")
        if (
            value.isdecimal()
            and len(value) < 10
            and key in ("seed", "train.epochs", "metrics.seed")
        ):
            last = [w for w in given_words if w.lstrip("+").partition("=")[0] == key][-1]
            if last == word:
                assert at(config, key) == int(value)


def at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


# --- checkpoints


def plain_state() -> dict[str, torch.Tensor]:
    model = small_classifier(3)
    return {k: v.contiguous() for k, v in model.state_dict().items()}


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[bytes, str]:
    """Return the bytes of a file that is nearly a checkpoint, and its ending."""
    state = plain_state()
    name = draw(st.sampled_from(sorted(state)))
    how = draw(st.sampled_from(["good", "drop", "shape", "rename", "prefix", "type", "scalar"]))
    if how == "drop":
        del state[name]
    elif how == "shape":
        state[name] = state[name].reshape(-1)[: draw(st.integers(0, 5))].clone()
    elif how == "rename":
        state[draw(st.text(max_size=8))] = state.pop(name)
    elif how == "prefix":
        prefix = draw(st.sampled_from(["module.", "model.", "_orig_mod.", "x."]))
        state = {prefix + key: value for key, value in state.items()}
    elif how == "type":
        kind = draw(st.sampled_from([torch.float16, torch.float32, torch.int64, torch.bool]))
        state[name] = state[name].to(kind)
    elif how == "scalar":
        state[name] = torch.tensor(1.0)
    ending = draw(st.sampled_from([".safetensors", ".pth", ".pt"]))
    if ending == ".safetensors":
        content = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    damage = draw(st.sampled_from(["none", "none", "cut", "flip", "insert", "header"]))
    where = draw(st.integers(0, len(content) - 1))
    if damage == "cut":
        content = content[:where]
    elif damage == "flip":
        content = content[:where] + bytes([content[where] ^ 0xFF]) + content[where + 1 :]
    elif damage == "insert":
        content = content[:where] + draw(st.binary(max_size=9)) + content[where:]
    elif damage == "header":
        head = json.dumps(draw(st.dictionaries(st.text(max_size=4), st.integers()))).encode()
        content = len(head).to_bytes(8, "little") + head
    return content, ending


@given(checkpoints())
@fuzzed
def test_a_checkpoint_is_refused_or_loaded_whole(checkpoint: tuple[bytes, str]):
    content, ending = checkpoint
    model = small_classifier(3, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{ending}"
        path.write_bytes(content)
        loaded = usable(lambda: load_weights(model, path) or True, CheckpointError)
    after = model.state_dict()
    same = [torch.equal(before[name], after[name]) for name in before]
    if loaded is None:
        assert all(same)
        return
    changing = [n for n in before if not n.endswith("num_batches_tracked")]
    assert any(not torch.equal(before[name], after[name]) for name in changing)
