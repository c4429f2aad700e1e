"""Weights from big_vision's npz files: one to one, blocks stacked or not, towers apart or not, nothing in them run."""
import dataclasses
import io
import tracemalloc
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_jax.config import ConfigError
from cc_jax.convert import formats, npz
from cc_jax.convert.weights import Lazy, shapes_of


@pytest.mark.parametrize("prefix", ["params/", ""])
def test_parameters_come_back_bit_for_bit(tmp_path, initial, write_npz, prefix):
    params = initial()
    path = write_npz(tmp_path / "weights.npz", params, prefix, **{"opt/count": np.zeros(3)})
    loaded, _ = formats.load(path, initial(seed=1))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize("model_scans", [False, True])
@pytest.mark.parametrize("file_scans", [False, True])
def test_blocks_may_be_stacked_on_either_side(tmp_path, initial, embeddings, write_npz, file_scans, model_scans):
    stored = initial(scan=file_scans)
    loaded, _ = formats.load(write_npz(tmp_path / "weights.npz", stored), initial(scan=model_scans, seed=1))
    image, text = np.ones((1, 16, 16, 3), np.float32), np.full((1, 8), 7)
    np.testing.assert_allclose(embeddings(stored, image, text, scan=file_scans)[0],
                               embeddings(loaded, image, text, scan=model_scans)[0], atol=1e-6)
    np.testing.assert_allclose(embeddings(stored, image, text, scan=file_scans)[1],
                               embeddings(loaded, image, text, scan=model_scans)[1], atol=1e-6)


def test_towers_may_lie_in_files_apart(tmp_path, initial, named):
    params = initial()
    for tower in ("img", "txt"):
        np.savez(tmp_path / f"{tower}.npz", **{f"params/{name.removeprefix(tower + '/')}": value
                                                for name, value in named(params).items() if name.startswith(tower)})
    both = f"{tmp_path}/img.npz,{tmp_path}/txt.npz"
    start = initial(seed=1)
    with pytest.raises(ConfigError, match="2 of .* differ(.|\n)*t: absent in the file"):
        formats.load(both, start)
    loaded, notes = formats.load(both, start, dont_load=["t", "b"])
    jax.tree.map(np.testing.assert_array_equal, loaded, params | {name: start[name] for name in "tb"})
    assert notes == ["2 parameters not loaded, as config.dont_load says: b, t"]
    image_only, _ = formats.load(f"{tmp_path}/img.npz", start, dont_load=["txt/.*", "t", "b"])
    jax.tree.map(np.testing.assert_array_equal, image_only, start | {"img": params["img"]})


def test_two_files_of_one_tower_are_refused(tmp_path, initial, write_npz):
    for name in "ab":
        write_npz(tmp_path / f"{name}.npz", initial())
    with pytest.raises(ConfigError, match="another file has too"):
        formats.open_weights(f"{tmp_path}/a.npz,{tmp_path}/b.npz")


def test_bfloat16_is_read_and_written_as_big_vision_does(tmp_path, arrays):
    values = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    np.savez(tmp_path / "theirs.npz", **{"params/t": values.view("V2")})
    npz.write(str(tmp_path / "ours.npz"), {"params/t": Lazy.of(values)})
    with np.load(tmp_path / "ours.npz") as file:
        assert file["params/t"].view(ml_dtypes.bfloat16).tolist() == values.tolist()
    for name in ("theirs", "ours"):
        np.testing.assert_array_equal(arrays(tmp_path / f"{name}.npz")["t"], values)


def test_arrays_in_any_order_of_memory_and_bytes_are_read(tmp_path, arrays):
    values = np.arange(6.0).reshape(2, 3)
    np.savez_compressed(tmp_path / "a.npz", f=np.asfortranarray(values), big=values.astype(">f4"), none=values[:0],
                        half=values.astype(np.float16), one=values[0, 0])
    read = arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(read["f"], values)
    np.testing.assert_array_equal(read["big"], values)
    assert (read["none"].shape, read["one"].shape, read["big"].dtype) == ((0, 3), (), np.float32)


def test_parameters_are_read_one_at_a_time(tmp_path, random_weights, arrays):
    size = 2**22
    np.savez(tmp_path / "a.npz", **{f"p{i}": np.ones(size, np.float32) for i in range(8)})
    weights = formats.open_weights(str(tmp_path / "a.npz"))
    tracemalloc.start()
    for lazy in weights.params.values():
        lazy.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 4 * size


def test_what_does_not_match_is_listed_with_both_sides(tmp_path, initial, small, write_npz):
    path = write_npz(tmp_path / "weights.npz", initial(), extra_parameter=np.zeros(2))
    with pytest.raises(ConfigError) as error:
        formats.load(path, initial(dataclasses.replace(small, vocab_size=60)))
    assert "txt/Embed_0/embedding: (50, 16) in the file, (60, 16) in the model" in str(error.value)
    assert "extra_parameter: (2,) in the file, absent in the model" in str(error.value)
    assert "config.model.text.vocab_size=50" in str(error.value)


def test_a_checkpoint_of_another_architecture_is_named(tmp_path, initial):
    np.savez(tmp_path / "resnet.npz", conv1=np.ones(3))
    with pytest.raises(ConfigError, match="another architecture"):
        formats.load(str(tmp_path / "resnet.npz"), initial())


def test_a_missing_file_says_what_to_name(tmp_path, initial):
    with pytest.raises(ConfigError, match="does not exist.*big_vision .npz"):
        formats.load(str(tmp_path / "none.npz"), initial())


def test_pickled_arrays_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code in the file was run",))

    np.savez(tmp_path / "bomb.npz", **{"params/t": np.array([Bomb()], dtype=object)})
    with pytest.raises(ConfigError, match="array of objects"):
        formats.open_weights(str(tmp_path / "bomb.npz"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, initial, write_npz, value):
    params = initial()
    params["txt"]["head"]["bias"] = np.full(16, value, np.float32)
    with pytest.raises(ConfigError, match="txt/head/bias holds 16 numbers that are not finite, of 16"):
        formats.load(write_npz(tmp_path / "weights.npz", params), initial())


def test_whole_numbers_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", t=np.arange(3))
    with pytest.raises(ConfigError, match="'t' is of int64"):
        formats.open_weights(str(tmp_path / "a.npz"))


def test_a_zip_bomb_is_refused_unread(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", t=np.zeros(2**24, np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**18
    tracemalloc.start()
    with pytest.raises(ConfigError, match="zip bomb"):
        formats.open_weights(str(tmp_path / "bomb.npz"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


def test_an_array_larger_than_its_part_of_the_file_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr="<f4", fortran_order=False, shape=(2**50,)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("params/t.npy", header.getvalue() + bytes(64))
    with pytest.raises(ConfigError, match="is to hold an array"):
        formats.open_weights(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="weights.npz"):
        formats.open_weights(str(tmp_path / "weights.npz"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), piece=st.binary(min_size=1, max_size=30), kind=st.sampled_from(["write", "insert", "cut"]),
       compressed=st.booleans())
def test_a_damaged_file_gives_its_arrays_or_a_clear_error(tmp_path, where, piece, kind, compressed):
    """Never another exception, and never other numbers than were written: the zip has checksums."""
    path = tmp_path / "a.npz"
    written = {f"params/img/{i}": np.linspace(0.5, 1.5, 7, dtype=np.float32) * i for i in range(4)}
    (np.savez_compressed if compressed else np.savez)(path, **written)
    data = path.read_bytes()
    place = int(where * len(data))
    rest = {"write": data[place + len(piece):], "insert": data[place:], "cut": b""}[kind]
    path.write_bytes(data[:place] + (b"" if kind == "cut" else piece) + rest)
    try:
        weights = formats.open_weights(str(path))
        for name, lazy in weights.params.items():
            expected = written.get(f"params/{name}")
            if expected is not None and shapes_of(weights.params)[name] == expected.shape:
                np.testing.assert_array_equal(lazy.read(), expected)
            else:
                lazy.read()
    except ConfigError as error:
        assert str(path) in str(error)
