"""The bytes of a tf.train.Example, against the protobuf library's."""
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from cc_jax.data import dataset, tf_example

SIZES = st.one_of(st.integers(0, 20), st.sampled_from([100, 127, 128, 16_383, 16_384, 2**21]))
TEXTS = st.one_of(st.text(max_size=20), st.tuples(st.sampled_from("aé🐕"), SIZES).map(lambda pair: pair[0] * pair[1]))
NUMBERS = st.lists(st.one_of(st.integers(0, 127), st.integers(-2**63, 2**63 - 1), st.sampled_from([128, 2**31 - 1, -1])))


def by_protobuf(record: dict) -> bytes:
    example = tf_example_pb2.Example()
    for name, value in record.items():
        feature, values = example.features.feature[name], value if isinstance(value, list) else [value]
        kind = feature.int64_list if name in dataset.INTEGERS else feature.bytes_list
        kind.SetInParent()
        kind.value.extend(text.encode() if isinstance(text, str) else text for text in values)
    return example.SerializeToString(deterministic=True)


@given(st.fixed_dictionaries({
    "key": TEXTS, "image": SIZES.map(bytes), "captions": st.lists(TEXTS, max_size=4), "phrases": st.lists(TEXTS, max_size=4),
    "phrase_caption": NUMBERS, "phrase_start": NUMBERS, "phrase_end": NUMBERS}))
def test_bytes_are_those_of_the_protobuf_library(record):
    assert dataset.serialize(record) == by_protobuf(record)
    assert dataset.serialize(dict(reversed(record.items()))) == by_protobuf(record)


def test_names_of_any_length():
    record = {"n" * 200: ["x"], "é": [1, 300]}
    example = tf_example_pb2.Example.FromString(tf_example.make_serialize(record, ["é"])(record))
    assert example.features.feature["n" * 200].bytes_list.value == [b"x"]
    assert example.features.feature["é"].int64_list.value == [1, 300]
