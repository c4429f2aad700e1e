"""Who may write into a workdir, and what may go on there."""
import functools
import json
import shutil
import socket
import subprocess
import sys

import jax
import pytest

from cc_jax import checkpoint, distributed, lock, provenance
from cc_jax.config import ConfigError
from cc_jax.data import prepare
from cc_jax.train import train
from configs import shapes_cc


def test_a_run_may_go_on_with_another_mesh_rules_and_attention_but_nothing_else(tmp_path):
    config = {"seed": 0, "mesh": {"data": -1}, "sharding": {"rules": ((".*", "fsdp"),)}, "model": {"attention": "cudnn"}}
    checkpoint.claim_workdir(str(tmp_path), config)
    checkpoint.claim_workdir(str(tmp_path), {"seed": 0, "mesh": {"data": 4, "fsdp": 2}, "model": {"attention": "xla"}})
    assert checkpoint.read_config(str(tmp_path)) == json.loads(json.dumps(config))
    with pytest.raises(ConfigError, match=r"another config \(config.seed: 0 there, 1 now\)"):
        checkpoint.claim_workdir(str(tmp_path), config | {"seed": 1})
    with pytest.raises(ConfigError, match=r"another config \(config.model.attention_heads: not set there, 2 now\)"):
        checkpoint.claim_workdir(str(tmp_path), config | {"model": {"attention": "xla", "attention_heads": 2}})


def test_a_workdir_that_the_hosts_do_not_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ConfigError, match="process 1 does not see .*config.json, which process 0 has written"):
        checkpoint.claim_workdir(str(tmp_path / "run"), {"seed": 0})
    assert not (tmp_path / "run").exists()


def test_two_runs_in_one_workdir_are_refused_until_the_first_is_gone(tmp_path, monkeypatch):
    """The holder is killed: the lock goes with it."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    holder = subprocess.Popen([sys.executable, "-c", "import sys, time; from cc_jax.lock import WorkdirLock as Lock\n"
                               "lock = Lock(sys.argv[1]); lock.take(); lock.sign(); print(flush=True); time.sleep(600)",
                               str(tmp_path)], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with lock.WorkdirLock(str(tmp_path)) as second, pytest.raises(
            ConfigError, match=f"in use by process {holder.pid} on {socket.gethostname()}; .* use another --workdir"):
        second.take()
    holder.kill()
    holder.wait()
    with lock.WorkdirLock(str(tmp_path)) as third:
        third.take()


def test_a_dataset_is_known_by_its_description_and_shards(shapes_dir, tmp_path):
    print_of = functools.partial(provenance.dataset_fingerprint, split="train")
    first, copy = print_of(shapes_dir), shutil.copytree(shapes_dir, tmp_path / "copy")
    assert print_of(copy) == first != provenance.dataset_fingerprint(copy, "test")
    shard = next(copy.glob("*-train.*"))
    with shard.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"other" * 10)
    assert print_of(copy) != first


def test_a_run_goes_on_with_another_dataset_only_when_forced(shapes_dir, tmp_path):
    """Its place is then that of config.json, too."""
    data = shutil.copytree(shapes_dir, tmp_path / "data")
    config = shapes_cc.get_config(f"data={data},runlocal").to_dict()
    config |= {"evals": {}, "total_steps": 4, "checkpoint": {"every": 2}}
    train(config, str(tmp_path / "run"))
    saved = checkpoint.read_provenance(str(tmp_path / "run"), 4)
    assert saved["config"]["data"]["dir"] == str(data) and saved["code"] == distributed.code_version()

    shutil.rmtree(data)
    prepare.prepare("shapes:scenes=301,test_scenes=4,suite_scenes=4", data)
    for name in ("tokenizer.model", "tokenizer_form.json"):
        shutil.copy(shapes_dir / name, data)
    with pytest.raises(ConfigError, match="of step 4 .* with the dataset .*, now it is .*--config.checkpoint.force=True"):
        train(config, str(tmp_path / "run"))
    moved = data.rename(tmp_path / "moved")
    config["data"]["dir"] = str(moved)
    with pytest.raises(ConfigError, match="another config"):
        train(config, str(tmp_path / "run"))
    train(config | {"checkpoint": {"every": 2, "force": True}}, str(tmp_path / "run"))
    assert checkpoint.read_config(str(tmp_path / "run"))["data"]["dir"] == str(moved)
