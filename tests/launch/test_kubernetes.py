"""Runs on Kubernetes: the manifest and xpk's command, read as a cluster would read them, and a container's end."""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.processes import find_place

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
NASTY = ["a  b", "it's", '"', "$(touch oops)", "`id`", "$0", "*", "", "--", "-n", "\\", "two\nlines", "ü", "!;&|#~", "$$",
         "$(JOBSET_NAME)", "{x}", "\x85\u2028\ufeff\x01\x7f", "- a: b", "$(HOME)\n$$"]
# YAML has no other noncharacters and surrogates than an argument of a command has: none.
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cn"])), min_size=1)
GKE = ["--name", "cc", "--cluster", "pods", "--type", "v5litepod-16", "--image", "r/cc"]
JOBSET = ["--name", "cc", "--nodes", "4", "--gpus", "8", "--image", "r/cc:1"]
RECORDS = """#!/usr/bin/env bash
printf '%s\\0' "$@" > "$0.arguments"
cat > "$0.input"
"""


def launch(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([LAUNCH / script, *arguments], env=os.environ | env, capture_output=True, text=True, timeout=30,
                          stdin=subprocess.DEVNULL)


def fake(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(RECORDS)
    path.chmod(0o755)
    return path


def arguments_of(path: Path) -> list[str]:
    return Path(f"{path}.arguments").read_bytes().decode().split("\0")[:-1]


def expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of a container's command: $$ is a dollar sign, $(NAME) the value of a variable that is set."""
    return re.sub(r"\$(\$|\(([^)]*)\))", lambda m: "$" if m[1] == "$" else variables.get(m[2], m[0]), text)


def container_of(manifest: str) -> dict:
    job = yaml.safe_load(manifest)["spec"]["replicatedJobs"][0]["template"]["spec"]
    return job["template"]["spec"]["containers"][0]


def variables_of(container: dict) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


@settings(max_examples=10)
@given(WORDS)
def test_every_argument_is_in_the_manifest_as_it_was_written(words):
    container = container_of(launch("jobset.sh", *JOBSET, "--dry-run", "--", *words, *NASTY).stdout)
    command = [expanded(word, variables_of(container)) for word in container["command"]]
    assert command == ["launch/stoppable.sh", "python", "-u", "-m", "cc_jax.main", "--distributed", *words, *NASTY]


def test_the_pods_of_the_manifest_find_each_other():
    """By what JobSet promises: the pods' host names, their service, and the index that Kubernetes gives each."""
    manifest = launch("jobset.sh", *JOBSET, "--dry-run", "--", "x").stdout
    spec, container = yaml.safe_load(manifest)["spec"], container_of(manifest)
    job = spec["replicatedJobs"][0]
    assert spec["network"]["enableDNSHostnames"] and job["replicas"] == 1
    assert job["template"]["spec"]["completionMode"] == "Indexed"
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"] == 4
    for index in range(4):
        place = find_place(variables_of(container) | {"JOB_COMPLETION_INDEX": str(index)}, distributed=True, tpu=False)
        assert (place.processes, place.process) == (4, index)
        assert place.coordinator.startswith(f"cc-{job['name']}-0-0.cc:")


def test_a_pod_that_fails_restarts_all_and_one_of_a_drained_node_does_so_without_being_counted():
    spec = yaml.safe_load(launch("jobset.sh", *JOBSET, "--restarts", "3", "--dry-run", "--", "x").stdout)["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["podFailurePolicy"]["rules"] == [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    assert spec["failurePolicy"] == {"maxRestarts": 3, "rules": [
        {"action": "RestartJobSetAndIgnoreMaxRestarts", "onJobFailureReasons": ["PodFailurePolicy"]}]}


def test_gpus_labels_and_the_claim_are_asked_for_only_when_given():
    manifest = launch("jobset.sh", *JOBSET, "--select", "a.b/gpu=h100", "--claim", "shared", "--dry-run", "--", "x").stdout
    pod = yaml.safe_load(manifest)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert container_of(manifest)["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert pod["nodeSelector"] == {"a.b/gpu": "h100"}
    assert pod["volumes"][1]["persistentVolumeClaim"] == {"claimName": "shared"}
    assert container_of(manifest)["volumeMounts"][1] == {"name": "claim", "mountPath": "/data"}
    plain = launch("jobset.sh", *JOBSET, "--dry-run", "--", "x").stdout
    assert "nodeSelector" not in plain and "claim" not in plain


def test_kubectl_is_given_what_a_dry_run_prints(tmp_path):
    kubectl, path = fake(tmp_path, "kubectl"), f"{tmp_path}:{os.environ['PATH']}"
    assert launch("jobset.sh", *JOBSET, "--namespace", "team", "--", *NASTY, PATH=path).returncode == 0
    assert arguments_of(kubectl) == ["--namespace=team", "create", "-f", "-"]
    assert Path(f"{kubectl}.input").read_text() == launch("jobset.sh", *JOBSET, "--dry-run", "--", *NASTY).stdout
    assert launch("jobset.sh", "--name", "cc", "--delete", PATH=path).returncode == 0
    assert arguments_of(kubectl) == ["delete", "jobset", "cc"]


@settings(max_examples=10)
@given(WORDS)
def test_every_argument_reaches_xpks_pod_as_it_was_written(tmp_path_factory, words):
    """xpk writes the command between parentheses, into a block of YAML; a shell of the pod then runs it."""
    folder = tmp_path_factory.mktemp("pod")
    xpk = fake(folder, "xpk")
    printed = launch("gke_xpk.sh", *GKE, "--dry-run", "--", *words, *NASTY, LC_ALL="C.UTF-8").stdout
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", printed], env=env, check=True, stdin=subprocess.DEVNULL)
    command = arguments_of(xpk)[-1].removeprefix("--command=")
    assert command.isascii() and "\n" not in command
    script = yaml.safe_load(f"command:\n- |\n  echo start;\n  ({command}) & PID=$!;\n  wait $PID\n")["command"][0]
    (folder / "launch").mkdir()
    stoppable = fake(folder / "launch", "stoppable.sh")
    ran = expanded(script.replace("$!", "$$!").replace("wait $PID", "wait $$PID"), {"JOBSET_NAME": "cc", "HOME": "/"})
    subprocess.run(["bash", "-c", ran], cwd=folder, check=True, env=env, stdin=subprocess.DEVNULL)
    assert arguments_of(stoppable) == ["python", "-u", "-m", "cc_jax.main", *words, *NASTY]
    assert not (folder / "oops").exists()


def test_xpk_is_asked_for_the_slices_and_restarts_and_to_delete(tmp_path):
    xpk, path = fake(tmp_path, "xpk"), f"{tmp_path}:{os.environ['PATH']}"
    assert launch("gke_xpk.sh", *GKE, "--slices", "2", "--zone", "z", "--project=p", "--", "x", PATH=path).returncode == 0
    assert arguments_of(xpk)[:-1] == [
        "workload", "create", "--workload=cc", "--cluster=pods", "--zone=z", "--project=p", "--tpu-type=v5litepod-16",
        "--num-slices=2", "--docker-image=r/cc", "--max-restarts=10", "--restart-on-exit-codes=1",
        "--termination-grace-period-seconds=300"]
    assert launch("gke_xpk.sh", "--name", "cc", "--cluster", "pods", "--delete", PATH=path).returncode == 0
    assert arguments_of(xpk) == ["workload", "delete", "--workload=cc", "--cluster=pods"]


@pytest.mark.parametrize(("script", "arguments", "message"), [
    ("gke_xpk.sh", ["--cluster", "c"], "--name is missing"),
    ("gke_xpk.sh", ["--name", "CC"], "--name is 'CC'; allowed"),
    ("gke_xpk.sh", ["--name", "cc"], "--cluster is missing"),
    ("gke_xpk.sh", ["--name", "cc", "--cluster", "c"], "--type is missing"),
    ("gke_xpk.sh", ["--name", "cc", "--cluster", "c", "--type", "v6e-8"], "--image is missing"),
    ("gke_xpk.sh", [*GKE, "--slices", "0", "--", "x"], "--slices is '0'; allowed"),
    ("gke_xpk.sh", [*GKE, "--restarts", "many", "--", "x"], "--restarts is 'many'; allowed"),
    ("gke_xpk.sh", GKE, "nothing to run"),
    ("gke_xpk.sh", [*GKE, "--config", "c.py"], "unknown option '--config'"),
    ("gke_xpk.sh", ["--name", "cc", "--cluster", "c", "--delete", "--", "x"], "--delete starts no run"),
    ("jobset.sh", ["--nodes", "1"], "--name is missing"),
    ("jobset.sh", ["--name", "a" * 41], "allowed: up to 40"),
    ("jobset.sh", ["--name", "cc", "--nodes", "2"], "--gpus is missing"),
    ("jobset.sh", ["--name", "cc", "--nodes", "two"], "--nodes is 'two'; allowed"),
    ("jobset.sh", ["--name", "cc", "--nodes", "2", "--gpus", "8"], "--image is missing"),
    ("jobset.sh", [*JOBSET, "--restarts", "-1", "--", "x"], "--restarts is '-1'; allowed"),
    ("jobset.sh", [*JOBSET, "--select", "h100", "--", "x"], "--select needs KEY=VALUE, found 'h100'"),
    ("jobset.sh", [*JOBSET, "--"], "nothing to run"),
    ("jobset.sh", ["--name", "cc", "--delete", "--", "x"], "--delete starts no run"),
])
def test_a_mistake_is_named_before_anything_runs(script, arguments, message):
    result = launch(script, *arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr


@pytest.mark.parametrize(("script", "arguments", "tool"), [
    ("gke_xpk.sh", [*GKE, "--", "x"], "xpk"), ("jobset.sh", [*JOBSET, "--", "x"], "kubectl")])
def test_a_missing_tool_is_named(tmp_path, script, arguments, tool):
    for name in ("bash", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    result = launch(script, *arguments, PATH=str(tmp_path))
    assert result.returncode == 2 and f"{tool} is not on PATH" in result.stderr


@pytest.mark.parametrize(("on_term", "status"), [("sys.exit(0)", 143), ("sys.exit(7)", 7)])
def test_what_was_told_to_stop_saves_and_ends_with_the_signals_status_or_its_own_error(tmp_path, on_term, status):
    saves = f"""
import os, signal, sys, time
def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.3)
    os.write(1, b"saved\\n")      # print may just be at work, and is not to be entered twice
    {on_term}
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(9)
"""
    run = subprocess.Popen([LAUNCH / "stoppable.sh", sys.executable, "-c", saves], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    run.send_signal(signal.SIGTERM)  # again, as SLURM does when the time is up
    assert run.communicate(timeout=9)[0] == "saved\n" and run.returncode == status


def test_what_was_not_told_to_stop_keeps_its_status():
    for status in (0, 3):
        assert subprocess.run([LAUNCH / "stoppable.sh", "bash", "-c", f"exit {status}"]).returncode == status


def test_the_image_holds_what_the_containers_run():
    """The image is not built here: what its recipe copies must exist, and hold the command of the manifest."""
    recipe = (LAUNCH / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", recipe, re.MULTILINE) for word in line.split()]
    assert all((ROOT / name).exists() for name in copied) and {"cc_jax", "configs", "launch"} <= set(copied)
    assert os.access(LAUNCH / "stoppable.sh", os.X_OK)
