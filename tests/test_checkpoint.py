"""Who may write into a workdir."""
import json

import jax
import pytest

from cc_jax import checkpoint
from cc_jax.config import ConfigError


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
