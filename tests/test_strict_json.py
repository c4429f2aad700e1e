"""JSON from strangers: what is JSON and not deep reads as `json` reads it, all else is an error of one type."""
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_jax import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(value=VALUES, ascii_only=st.booleans())
def test_what_json_writes_reads_the_same(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert strict_json.loads(text) == value
    assert strict_json.loads("\ufeff".encode() + text.encode()) == value


@given(st.text('[]{}",:\\1 a') | st.binary())
def test_anything_else_is_a_value_error(text):
    try:
        strict_json.loads(text)
    except ValueError:
        pass


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(value=VALUES, texts=st.lists(st.text('[]{}"\\'), max_size=4), more=st.integers(0, 70))
def test_the_depth_is_that_of_lists_and_objects_and_not_of_brackets_in_texts(value, texts, more):
    value = [value, *texts]
    for _ in range(more):
        value = {"a": value}
    text = json.dumps(value)
    if depth(value) <= strict_json.MAX_DEPTH:
        assert strict_json.loads(text) == value
    else:
        with pytest.raises(ValueError, match=f"nested {depth(value)} deep, more than 64"):
            strict_json.loads(text)


@pytest.mark.parametrize("text, message", [
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' is there twice"), ("[NaN]", "NaN is no JSON number"),
    ("-Infinity", "-Infinity is no JSON number"), ("[" * 10**6, "nested 1000000 deep"), ("1" * 10_000, "4300 digits")])
def test_what_is_refused_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        strict_json.loads(text)


def test_what_pandas_writes_reads_where_it_is_asked_for():
    assert str(strict_json.loads('{"similarity": NaN}', nan=True)) == "{'similarity': nan}"


@pytest.mark.parametrize("text", ['"' + '\\"' * 10**6, '["\\' * 10**6, '"' * 10**6, "[]" * 10**6, '{"' * 10**6])
def test_time_is_linear_whatever_the_text(text):
    start = time.process_time()
    with pytest.raises(ValueError):
        strict_json.loads(text)
    assert time.process_time() - start < 5              # 0.1 s; quadratic, it would be hours
