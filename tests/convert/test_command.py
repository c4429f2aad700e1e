"""`python -m cc_jax.convert`, as users run it."""
import dataclasses
import json

import numpy as np
import pytest

from cc_jax import saved
from cc_jax.convert import formats, vocabulary
from cc_jax.convert.weights import WeightsError
from cc_jax.train import train
from configs import shapes_cc


def test_a_run_that_hides_its_padding_is_refused_unless_told(command, tiny_run, tmp_path):
    refused = command("cc_jax.convert", tiny_run, tmp_path / "out", "--to", "huggingface", fails=True)
    assert "was trained with model.text.mask_padding=True" in refused.stderr and "Traceback" not in refused.stderr
    assert not list(tmp_path.iterdir())
    done = command("cc_jax.convert", tiny_run, tmp_path / "out", "--to", "huggingface", "--ignore_padding_mask")
    assert "texts get other embeddings" in done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json", "spiece.model", "tokenizer_config.json"}
    assert (tmp_path / "out" / "spiece.model").read_bytes() == (tiny_run / "tokenizer.model").read_bytes()
    run = saved.open_run(str(tiny_run))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vision_config"]["image_size"] == run.res
    head = formats.open_weights(str(tmp_path / "out")).params["txt/head/kernel"].read()
    np.testing.assert_array_equal(head, run.params["txt"]["head"]["kernel"])


@pytest.mark.parametrize(("tokenizer", "dont_load", "message"), [
    ({"spiece.model": b"another"}, (), r"is not the one that lies beside peer \(spiece.model\).*--tokenizer FILE"),
    ({}, (), r"has \d+ pieces, the text tower of peer 512"), ({}, ("txt/Embed.*",), None), ("own", (), None)])
def test_another_tokenizer_than_the_weights_were_trained_with_is_refused(tiny_run, tokenizer, dont_load, message):
    weights, own = formats.open_weights(str(tiny_run)), saved.open_run(str(tiny_run)).tokenizer
    weights = dataclasses.replace(weights, where="peer", tokenizer=weights.tokenizer if tokenizer == "own" else tokenizer)
    if message is None:
        vocabulary.check(weights, own, dont_load)
    else:
        with pytest.raises(WeightsError, match=message):
            vocabulary.check(weights, own, dont_load)


def test_a_run_starts_from_the_weights_it_is_given(tiny_run, shapes_dir, tmp_path):
    """With a learning rate of 0 it also ends with them, but for what is not to be loaded."""
    formats.write(formats.open_weights(str(tiny_run)), str(tmp_path / "peer"), "huggingface", "float32")
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    config |= dict(model_init=str(tmp_path / "peer"), dont_load=["txt/head/.*"], model_cache="unused", seed=7)
    config["optim"] |= dict(lr=0.0)
    config["evals"] = {}
    train(config, str(tmp_path / "run"))
    first, second = (formats.open_weights(str(path)).params for path in (tiny_run, tmp_path / "run"))
    differ = {name for name in first if not np.array_equal(first[name].read(), second[name].read())}
    assert "txt/head/kernel" in differ and differ <= {"txt/head/kernel", "txt/head/bias"}


def test_another_runs_weights_can_be_started_from(tiny_run, tmp_path, arrays):
    """A workdir is a format too: what it gives is what its npz gives."""
    weights = formats.open_weights(str(tiny_run))
    formats.write(weights, str(tmp_path / "run.npz"), "big_vision", "float32")
    for name, value in arrays(tmp_path / "run.npz").items():
        np.testing.assert_array_equal(value, weights.params[name].read())
    loaded, _ = formats.load(str(tmp_path / "run.npz"), saved.open_run(str(tiny_run)).params)
    np.testing.assert_array_equal(loaded["img"]["embedding"]["kernel"], weights.params["img/embedding/kernel"].read())
