"""A config and a seed make one run, to the last bit; what it writes holds no secret."""
import jax
import numpy as np
import pytest

from cc_jax import checkpoint, metrics, redact, train
from cc_jax.config import ConfigError
from configs import shapes_cc

SECRETS = {"WANDB_API_KEY": "local-5f0c1d", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "HF_TOKEN": "hf_Zk3q9",
           "GOOGLE_APPLICATION_CREDENTIALS": "/keys/g7Tr2.json", "AZURE_STORAGE_KEY": "Eby8vdM02xNO"}
TIMES = "images_per_second", "seconds_per_step", "mfu", "input_wait"


def numbers(workdir) -> list[dict]:
    """All lines of metrics, without what tells how fast it went."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in metrics.read(workdir)]


def state_of(workdir, step) -> dict:
    """All arrays of a checkpoint, by name."""
    with checkpoint.open_manager(str(workdir)) as manager:
        tree = manager.restore(step)["state"]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_two_runs_of_a_config_are_bit_identical_and_no_secret_of_the_environment_is_written(
        tiny_run, shapes_dir, tmp_path, command, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    done = command("cc_jax.main", "--config", f"configs/shapes_cc.py:data={shapes_dir},runlocal",
                   "--workdir", tmp_path / "run")
    assert numbers(tmp_path / "run") == numbers(tiny_run)
    for step in (4, 6):
        again, before = state_of(tmp_path / "run", step), state_of(tiny_run, step)
        assert again.keys() == before.keys() and len(before) > 50
        [np.testing.assert_array_equal(again[name], before[name], err_msg=name) for name in before]

    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    for value in SECRETS.values():
        assert value.encode() not in written and value not in done.stdout + done.stderr


@pytest.mark.parametrize(("text", "shown"), [
    ("tar:https://me:pw@host/{0..3}.tar,captions=raw|short", "tar:https://...@host/{0..3}.tar,captions=raw|short"),
    ("csv:https://host/a.csv?X-Amz-Signature=1f&sig=2,image=#2", "csv:https://host/a.csv?...,image=#2"),
    ("tar:gs://bucket/cc12m/?????.tar", "tar:gs://bucket/cc12m/?????.tar"),
    ("jsonl:photos/a=b@c.jsonl", "jsonl:photos/a=b@c.jsonl")])
def test_credentials_in_a_url_are_not_shown(text, shown):
    assert redact.redacted(text) == shown


def test_a_config_with_credentials_is_refused_without_showing_them(shapes_dir, tmp_path):
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    config["evals"]["compositional"]["suite"] = "https://me:wJalrXUtnFEMI@host/suite"
    with pytest.raises(ConfigError, match="config.evals.compositional.suite holds a URL with a user") as error:
        train.train(config, str(tmp_path / "run"))
    assert "wJalr" not in str(error.value) and not (tmp_path / "run").exists()
