"""The commands of the README, run as a user runs them."""
import pytest

from cc_jax import metrics


@pytest.mark.parametrize("config", [
    "shapes_cc", "photos_cc", "siglip_b16", "siglip_b16_cc", "siglip_b16_cc_finetune", "siglip_lit"])
def test_every_config_runs_locally(config, shapes_dir, tmp_path, command):
    command("cc_jax.main", "--config", f"configs/{config}.py:data={shapes_dir},runlocal", "--workdir", tmp_path)
    lines = metrics.read(tmp_path)
    assert lines[-1]["step"] == 6 and any("retrieval/image_to_text@1" in line for line in lines)
    assert ("loss/concept_attention" in lines[0]) == (config not in ("siglip_b16", "siglip_lit"))


@pytest.mark.parametrize(("arguments", "message"), [
    (("--config", "configs/siglip_b16_cc.py:runlocal"), "python -m cc_jax.data.prepare --source jsonl:FILE --out datasets/"),
    (("--config", "configs/shapes_cc.py:step=3"), "unknown config argument 'step'.*did you mean 'steps'"),
    (("--config", "configs/shapes_cc.py:runlocal", "--config.optim.lrr=1"), "lrr"),
    (("--config", "configs/nothing.py"), "nothing.py"),
])
def test_a_wrong_command_ends_with_one_readable_message(arguments, message, tmp_path, command):
    import re
    error = command("cc_jax.main", *arguments, "--workdir", tmp_path / "run", fails=True).stderr
    assert re.search(message, error, re.DOTALL) and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_real_photos_are_learned(test_data, tmp_path, command):
    """The README's "your own data", reduced: the loss falls and retrieval of unseen photos is above chance."""
    command("cc_jax.data.prepare", "--source", f"jsonl:{test_data}/flickr8k_small/captions.jsonl", "--out",
            tmp_path / "photos")
    command("cc_jax.main", "--config", f"configs/photos_cc.py:data={tmp_path}/photos,steps=60,batch_size=32", "--workdir",
            tmp_path / "run", "--config.evals.retrieval.every=60")
    lines = metrics.read(tmp_path / "run")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    [scores] = [line for line in lines if "retrieval/image_to_text@10" in line]
    assert scores["retrieval/text_to_image@10"] > 1.1 * 10 / 300  # chance is 10 of 300
