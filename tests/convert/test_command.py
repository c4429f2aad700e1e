"""`python -m cc_jax.convert`, as users run it."""
import json

import numpy as np

from cc_jax import saved
from cc_jax.convert import formats


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


def test_another_runs_weights_can_be_started_from(tiny_run, tmp_path, arrays):
    """A workdir is a format too: what it gives is what its npz gives."""
    weights = formats.open_weights(str(tiny_run))
    formats.write(weights, str(tmp_path / "run.npz"), "big_vision", "float32")
    for name, value in arrays(tmp_path / "run.npz").items():
        np.testing.assert_array_equal(value, weights.params[name].read())
    loaded, _ = formats.load(str(tmp_path / "run.npz"), saved.open_run(str(tiny_run)).params)
    np.testing.assert_array_equal(loaded["img"]["embedding"]["kernel"], weights.params["img/embedding/kernel"].read())
