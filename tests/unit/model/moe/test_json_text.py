"""Whatever is wrong with a JSON text is a ValueError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.moe.json_text import MAX_DEPTH, parse_json, strange_part

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{", "", b"\xff", "nul"])
def test_every_fault_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@given(VALUES)
def test_plain_values_pass(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert strange_part(value) is None


@pytest.mark.parametrize("value", ["\ud800", ["a", {"b": "x\udc00"}], {"\ud800": 1}])
def test_half_a_surrogate_pair_is_strange(value: object) -> None:
    assert "half a surrogate pair" in str(strange_part(value))


def test_depth_is_bounded() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert strange_part(value) is None
    assert "nested too deeply" in str(strange_part([value]))
