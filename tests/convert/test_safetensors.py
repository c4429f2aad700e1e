"""Directories of safetensors: the format as its own library has it, and everything that may be wrong with a stranger's."""
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_jax.config import ConfigError
from cc_jax.convert import formats
from cc_jax.convert import safetensors as ours
from cc_jax.convert.weights import Lazy

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.ones(3, np.float16),
          "scalar": np.array(7, np.float32), "none": np.zeros((0, 4), np.float32)}


@pytest.fixture(params=["huggingface", "open_clip"])
def folder(request, tmp_path, small, random_weights, monkeypatch):
    """A sound directory of either peer, and the name of its file of weights."""
    monkeypatch.setitem(formats.open_clip.IMAGE_TOWERS, "small", ("small", small.patch, small.res))
    monkeypatch.setitem(formats.open_clip.VARIANTS, "small", (16, 2, 32, 2))
    formats.write(random_weights(), str(tmp_path / "peer"), request.param, "float32")
    return tmp_path / "peer", {"huggingface": "model.safetensors", "open_clip": "open_clip_model.safetensors"}[request.param]


def rewrite(path, change):
    """Changes the header (a dict) and the data of a file, as no library would."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header, body = change(header, data[8 + length:])
    encoded = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + body)


def test_files_are_those_of_the_safetensors_library(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs.safetensors")
    read = ours.read(str(tmp_path / "theirs.safetensors"))
    assert read.keys() == ARRAYS.keys()
    for name, lazy in read.items():
        assert (lazy.shape, lazy.dtype) == (ARRAYS[name].shape, ARRAYS[name].dtype)
        np.testing.assert_array_equal(lazy.read(), ARRAYS[name])
    ours.write(str(tmp_path / "ours.safetensors"), {name: Lazy.of(x) for name, x in ARRAYS.items()}, np.dtype(np.float32))
    for name, value in safetensors.numpy.load_file(tmp_path / "ours.safetensors").items():
        np.testing.assert_array_equal(value, ARRAYS[name])
        assert value.dtype == np.float32


def test_bfloat16_keeps_its_bits(tmp_path):
    values = np.array([1.0, -3.140625, 1e-38], ml_dtypes.bfloat16)
    ours.write(str(tmp_path / "a.safetensors"), {"a": Lazy.of(values)}, values.dtype)
    np.testing.assert_array_equal(ours.read(str(tmp_path / "a.safetensors"))["a"].read(), values)


def test_a_truncated_file_is_refused(folder):
    path, name = folder
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[:-4])
    with pytest.raises(ConfigError, match=f"{name} is no sound safetensors file(.|\n)*truncated"):
        formats.open_weights(str(path))


def test_a_header_longer_than_the_file_is_refused(folder):
    path, name = folder
    (path / name).write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ConfigError, match="header is to have 1099511627776 bytes, the whole file has 10"):
        formats.open_weights(str(path))


def test_tensors_beyond_the_file_are_refused(folder):
    path, name = folder

    def beyond(header, body):
        header["logit_bias"]["data_offsets"] = [len(body), len(body) + 4]
        return header, body

    rewrite(path / name, beyond)
    with pytest.raises(ConfigError, match="no sound safetensors file"):
        formats.open_weights(str(path))


def test_a_size_that_is_not_the_shapes_is_refused(folder):
    path, name = folder

    def huge(header, body):
        header["logit_bias"]["shape"] = [2**40, 2**20]
        return header, body

    rewrite(path / name, huge)
    with pytest.raises(ConfigError, match="'logit_bias' of shape .* has 4611686018427387904 bytes, but its place is"):
        formats.open_weights(str(path))


def test_tensors_on_top_of_each_other_are_refused(folder):
    path, name = folder

    def overlap(header, body):
        header["logit_bias"]["data_offsets"] = header["logit_scale"]["data_offsets"]
        return header, body

    rewrite(path / name, overlap)
    with pytest.raises(ConfigError, match="comes next"):
        formats.open_weights(str(path))


def test_a_name_that_is_there_twice_is_refused(folder):
    path, name = folder

    def twice(header, body):
        entry = json.dumps(header["logit_bias"])
        return f'{{"logit_bias": {entry}, '.encode() + json.dumps(header)[1:].encode(), body

    rewrite(path / name, twice)
    with pytest.raises(ConfigError, match="'logit_bias' is there twice"):
        formats.open_weights(str(path))


def test_a_renamed_tensor_is_listed_on_both_sides(folder):
    path, name = folder

    def rename(header, body):
        header["logit_bios"] = header.pop("logit_bias")
        return header, body

    rewrite(path / name, rename)
    with pytest.raises(ConfigError) as error:
        formats.open_weights(str(path))
    assert "logit_bias: absent in the file, (" in str(error.value)
    assert "logit_bios: (" in str(error.value) and "absent in the model" in str(error.value)


def test_numbers_of_another_type_are_refused(folder, initial):
    path, name = folder

    def whole(header, body):
        header["logit_bias"]["dtype"] = "I32"
        return header, body

    rewrite(path / name, whole)
    with pytest.raises(ConfigError, match="logit_bias is of type I32; weights are F32, F16, BF16"):
        formats.load(str(path), initial())


def test_nan_is_refused(folder, initial):
    path, name = folder

    def spoil(header, body):
        begin, _ = header["logit_bias"]["data_offsets"]
        return header, body[:begin] + np.float32(np.nan).tobytes() + body[begin + 4:]

    rewrite(path / name, spoil)
    with pytest.raises(ConfigError, match="logit_bias holds 1 numbers that are not finite"):
        formats.load(str(path), initial())


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt"])
def test_pickles_are_refused_and_the_safe_way_named(folder, suffix):
    path, name = folder
    (path / name).unlink()
    pickle = path / f"pytorch_model{suffix}"
    pickle.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    for given_path in (pickle, path):
        with pytest.raises(ConfigError, match="is a pickle, which can run any code(.|\n)*safetensors"):
            formats.open_weights(str(given_path))


def test_a_config_of_another_model_is_refused(folder, tmp_path):
    path, _ = folder
    clip = dict(model_type="clip", model_cfg=dict(vision_cfg=dict(timm_model_name="resnet50"), text_cfg={}))
    for name in ("config.json", "open_clip_config.json"):
        if (path / name).exists():
            (path / name).write_text(json.dumps(clip))
    with pytest.raises(ConfigError, match="'clip'; this reads 'siglip'|'resnet50'"):
        formats.open_weights(str(path))


@pytest.mark.parametrize("index", [{"weight_map": {"t": "../../etc/passwd"}}, {"weight_map": {"t": "gone.safetensors"}}, {}])
def test_an_index_of_shards_leads_nowhere_else(tmp_path, random_weights, index):
    formats.write(random_weights(), str(tmp_path / "peer"), "huggingface", "float32")
    (tmp_path / "peer" / "model.safetensors").unlink()
    (tmp_path / "peer" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="no 'weight_map'|gone.safetensors is missing"):
        formats.open_weights(str(tmp_path / "peer"))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(["weights", "config"]), where=st.one_of(st.floats(0, 1), st.floats(0, 0.05)),
       piece=st.binary(min_size=1, max_size=30), kind=st.sampled_from(["write", "insert", "cut"]))
def test_a_damaged_directory_gives_weights_of_its_shapes_or_an_error(folder, tmp_path_factory, file, where, piece, kind):
    """Never another exception. (The format has no checksum: other finite numbers can't be told from the right ones.)"""
    path, name = folder
    damaged = tmp_path_factory.mktemp("damaged") / "peer"
    shutil.copytree(path, damaged)
    target = damaged / name if file == "weights" else next(damaged.glob("*config.json"))
    data = target.read_bytes()
    place = int(where * len(data))
    rest = {"write": data[place + len(piece):], "insert": data[place:], "cut": b""}[kind]
    target.write_bytes(data[:place] + (b"" if kind == "cut" else piece) + rest)
    try:
        weights = formats.open_weights(str(damaged))
        for parameter, lazy in weights.params.items():
            assert lazy.read().shape == weights.sizes.shapes()[parameter]
    except ConfigError as error:
        assert str(damaged) in str(error)
