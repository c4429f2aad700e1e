"""The forms of text against rules written out by hand, and what is written beside a tokenizer."""
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from cc_jax.data.text_form import SIGLIP, SIGLIP2, TextForm, canonicalize, lower


@pytest.mark.parametrize("text, expected", [
    ("A red HAT, and a \"blue\" one.", "a red hat and a blue one"),
    ("  two\tdogs\n run ", "two dogs run"),
    ("snake_case it's", "snake case its"),
    ("Ein ÜBER-Hut – schön", "ein überhut – schön"),
    ("...", ""),
])
def test_canonical_text_is_lower_case_without_ascii_punctuation(text, expected):
    assert canonicalize(text) == expected


@given(st.text())
def test_canonical_text_is_a_fixed_point(text):
    once = canonicalize(text)
    assert canonicalize(once) == once or "İ" in text     # its lower case has one more character, which is no letter


@pytest.mark.parametrize("text, expected", [
    ("A red HAT, and a \"blue\" one. ", "a red hat, and a \"blue\" one. "),
    (" two\tdogs\n", " two\tdogs\n"),
    ("snake_case It's", "snake_case it's"),
    ("ΣΑΣ", "σασ"),
    ("İzmir", "i̇zmir"),
])
def test_lower_case_keeps_all_else(text, expected):
    assert lower(text) == expected


@given(st.text(), st.integers(0, 20))
def test_lower_case_of_a_part_is_a_part_of_the_lower_case(text, place):
    assert lower(text) == lower(text[:place]) + lower(text[place:])


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"])))
def test_lower_case_is_that_of_the_tokenizers_library(text):
    theirs = normalizers.Lowercase().normalize_str(text)
    assert lower(text) == theirs, [unicodedata.name(character, "?") for character in text]


@pytest.mark.parametrize("form", [SIGLIP, SIGLIP2, TextForm("lower", 1)])
def test_a_form_is_read_as_it_was_written(form):
    assert TextForm.from_json(form.to_json("abc"), "abc") == form
    values = json.loads(form.to_json("abc"))
    del values["sha256"]                                # as written by hand
    assert TextForm.from_json(json.dumps(values), "any") == form


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("[]", "must be a JSON object"),
    ("{}", "with cleaning and pad_id"),
    ('{"cleaning": "lower", "pad_id": 0, "length": 32}', "no more than"),
    ('{"cleaning": "upper", "pad_id": 0}', "'upper' is not known; it is one of canonicalize, lower"),
    ('{"cleaning": ["lower"], "pad_id": 0}', "is not known"),
    ('{"cleaning": "lower", "pad_id": 2}', "pad_id=2; rows are padded with 1"),
    ('{"cleaning": "lower", "pad_id": "0"}', "pad_id='0'"),
    ('{"cleaning": "lower", "pad_id": true}', "pad_id=True"),
    ('{"cleaning": "lower", "pad_id": [0]}', "pad_id="),
    ('{"cleaning": "lower", "pad_id": 0, "sha256": "other"}', "not the one it was written for"),
])
def test_what_is_no_form_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        TextForm.from_json(text, "abc")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from(["cleaning", "pad_id", "sha256"]) | st.text(), inner))))
def test_any_other_json_is_refused_with_an_error_of_ours(value):
    with pytest.raises(ValueError):
        TextForm.from_json(json.dumps(value), "abc")
