"""yaml_text.py: what OmegaConf reads and writes, and nothing but plain values."""

from __future__ import annotations

import io
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dlfd_dist.compose import compose_job
from dlfd_dist.config import METHOD_CONFIGS, to_dict
from dlfd_dist.yaml_text import YAMLError, read_yaml, write_yaml

WORDS = ("data=synthetic", "checkpoint=x", "forget.fraction=0.2")
NEEDS = {"dlfm": ["method.reference=val_split"]}
LOOKS_LIKE_ANOTHER = [
    "1e-3", ".5", "1_000", "0x1f", "1:30.5", "yes", "off", "y", "N", "~", "null", "", "2026-11-29",
    ".nan", "# x", "a: b", " lead", "line\nbreak\n", "'q'", "\u2028", "${x}",
]  # fmt: skip


@pytest.mark.parametrize("method", sorted(set(METHOD_CONFIGS) - {"rewind"}))
def test_a_configuration_is_written_and_read_as_omegaconf_does(method: str):
    values = to_dict(compose_job("unlearn", [*WORDS, f"method={method}", *NEEDS.get(method, [])]))
    text = write_yaml(values)
    assert text == OmegaConf.to_yaml(OmegaConf.create(values))
    assert read_yaml(text) == values
    assert read_yaml(text) == OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))


@pytest.mark.parametrize("text", LOOKS_LIKE_ANOTHER)
def test_a_text_stays_a_text_for_other_readers_too(text: str):
    written = write_yaml({"a": text, text: 1})
    assert read_yaml(written) == yaml.safe_load(written) == {"a": text, text: 1}


@pytest.mark.parametrize("value", [1e-5, 1e20, -0.0, 3, True, None, [1, [2.5, {"a": []}]], {}])
def test_values_keep_their_kinds(value: Any):
    again = read_yaml(write_yaml({"a": value}))["a"]
    assert (again, type(again)) == (value, type(value))


def test_a_number_as_people_write_it_is_one():
    assert read_yaml("a: 1e-3\nb: 2026-11-29\n") == {"a": 1e-3, "b": "2026-11-29"}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_any_plain_value_survives(value: Any):
    assert read_yaml(write_yaml(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n", "a: [", "a: !!python/object/apply:os.system [exit 1]", "? [1, 2]\n: 3",
        "!!int x", "a: \x00",
    ],
    ids=["twice", "open", "a command", "a list for a key", "no number", "a control character"],
)  # fmt: skip
def test_anything_else_is_refused(text: str):
    with pytest.raises(YAMLError):
        read_yaml(text)


def test_what_is_no_plain_value_is_not_written():
    with pytest.raises(YAMLError):
        write_yaml({"a": object()})
