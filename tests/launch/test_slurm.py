"""launch/slurm.sh: what it prints, and real jobs of a SLURM cluster of two nodes, both of them this machine."""
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cc_jax import metrics

ROOT = Path(__file__).parents[2]
NASTY = ["a  b", "it's", '"', "$(touch oops)", "`id`", "$0", "*", "", "--", "-n", "\\", "two\nlines", "ü", "!;&|#~", "$$",
         "%j", "END_OF_JOB", "\nEND_OF_JOB\n"]
HOST = socket.gethostname()
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"    # where Debian has daemons
DAEMONS = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol"]
# The first node's name must lead to it: the processes meet there.
CONFIG = """ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName={host}-other NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Notes its arguments; the first time it waits to be told to stop, "saves", and ends well.
STUB = """#!/usr/bin/env bash
trap 'sleep 0.3; echo "saved by task $SLURM_PROCID"; exit 0' TERM
printf '%s\\0' "$@" > "arguments.$SLURM_PROCID"
echo "start ${SLURM_RESTART_COUNT:-0} of task $SLURM_PROCID on $SLURMD_NODENAME"
[[ ${SLURM_RESTART_COUNT:-0} == 0 && $* == *wait* ]] || exit "${CODE:-0}"
sleep 60 & wait
"""


class Repository:
    """A copy of what slurm.sh needs, with a trainer of the test's own where the virtual environment's Python belongs."""

    def __init__(self, folder: Path, trainer: str, **env: str):
        self.root = folder / "re po"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for path, text in ((folder / "bin" / "make", "#!/bin/sh\n"), (self.root / ".venv" / "bin" / "python", trainer)):
            path.parent.mkdir(parents=True)
            path.write_text(text)
            path.chmod(0o755)
        self.env = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | env

    def launch(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([self.root / "launch" / "slurm.sh", *arguments], env=self.env, capture_output=True, text=True,
                              timeout=60)

    def arguments_of(self, task: int) -> list[str]:
        return (self.root / f"arguments.{task}").read_bytes().decode().split("\0")[:-1]


@pytest.fixture
def printed(tmp_path) -> Callable[..., str]:
    """What a dry run of these arguments prints."""
    repository = Repository(tmp_path, STUB)

    def dry_run(*arguments: str) -> str:
        result = repository.launch("--dry-run", *arguments)
        assert result.returncode == 0, result.stderr
        assert not (repository.root / "logs").exists()
        return result.stdout
    return dry_run


def options_of(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


def test_a_job_of_gpus_is_one_task_a_node_which_goes_on_when_it_is_preempted(printed):
    script = printed("--name", "cc", "--nodes", "4", "--gpus=8", "--cpus", "64", "--time", "1-00:00:00", "--sbatch",
                     "--partition=a100", "--", "x")
    assert options_of(script) == [
        "--job-name=cc", "--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=64", "--time=1-00:00:00",
        '--output="logs/%x.%j.log"', "--open-mode=append", "--requeue", "--signal=TERM@300", "--partition=a100"]
    assert "srun --kill-on-bad-exit=1 --cpus-per-task=64 launch/stoppable.sh .venv/bin/python" in script
    assert ".venv/bin/pip install --quiet -e .\\[cuda\\]" in script


def test_what_is_not_given_is_left_to_the_cluster(printed):
    script = printed("--name", "cc", "--nodes", "1", "--", "x")
    assert not any(option.startswith(("--gpus", "--cpus", "--time")) for option in options_of(script))
    assert "pip install" not in script and "--cpus-per-task" not in script


@pytest.mark.parametrize(("arguments", "message"), [
    (["--nodes", "2", "--", "x"], "--name is missing"),
    (["--name", "a b", "--nodes", "2", "--", "x"], "--name is 'a b'; allowed"),
    (["--name", "cc", "--", "x"], "--nodes is missing"),
    (["--name", "cc", "--nodes", "0", "--", "x"], "--nodes is '0'; allowed"),
    (["--name", "cc", "--nodes", "2", "--gpus", "all", "--", "x"], "--gpus is 'all'; allowed"),
    (["--name", "cc", "--nodes", "2", "--gpus", "8", "--tasks", "4", "--", "x"], "--tasks is 4 with --gpus 8; allowed: 1"),
    (["--name", "cc", "--nodes", "2", "--time", "a day", "--", "x"], "--time is 'a day'; allowed"),
    (["--name", "cc", "--nodes", "2", "--logs", 'a"b', "--", "x"], "--logs is 'a\"b'; allowed"),
    (["--name", "cc", "--nodes", "2", "--sbatch", "a100", "--", "x"], "--sbatch needs an option of sbatch, found 'a100'"),
    (["--name", "cc", "--nodes", "2", "--sbatch", "--comment=a\nb", "--", "x"], "--sbatch needs an option of sbatch"),
    (["--name", "cc", "--nodes", "2", "--config", "c.py"], "unknown option '--config'"),
    (["--name", "cc", "--nodes", "2"], "nothing to run"),
])
def test_a_mistake_is_named_before_anything_runs(tmp_path, arguments, message):
    result = Repository(tmp_path, STUB).launch(*arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr


def test_a_missing_sbatch_is_named(tmp_path):
    repository = Repository(tmp_path, STUB)
    for name in ("bash", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    repository.env["PATH"] = str(tmp_path / "bin")
    result = repository.launch("--name", "cc", "--nodes", "2", "--", "x")
    assert result.returncode == 2 and "sbatch is not on PATH" in result.stderr


def test_the_printed_job_is_the_one_that_is_submitted_whatever_the_arguments_are(tmp_path):
    """bash reads the dry run, with an sbatch and an srun that only do what they are told."""
    repository = Repository(tmp_path, STUB)
    stubs = {"sbatch": 'cat > "$JOB"; echo 7', "scontrol": "exit 1",
             "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"'}
    for name, text in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    arguments = ["--name", "cc", "--nodes", "2", "--logs", "my logs", "--", *NASTY]
    jobs = tmp_path / "printed", tmp_path / "submitted"
    printed = repository.launch("--dry-run", *arguments).stdout
    subprocess.run(["bash", "-c", printed], cwd=repository.root, check=True, env=repository.env | {"JOB": str(jobs[0])})
    repository.env["JOB"] = str(jobs[1])
    submitted = repository.launch(*arguments)
    assert jobs[0].read_text() == jobs[1].read_text()
    assert "job 7; its log, once it runs: tail -F my\\ logs/cc.7.log; its end: scancel 7" in submitted.stdout
    subprocess.run(["bash", jobs[1]], check=True, env=repository.env | {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"})
    assert repository.arguments_of(0) == ["-u", "-m", "cc_jax.main", "--distributed", *NASTY]


# Runs its command as two tasks, tells both to stop, and kills the other as soon as one has ended badly, as srun does.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for task in 0 1; do SLURM_PROCID=$task "$@" & tasks[task]=$!; done
until [[ -e arguments.0 && -e arguments.1 ]]; do sleep 0.05; done
kill -TERM "${tasks[@]}"
status=0
for _ in 0 1; do wait -n || { status=$?; pkill -KILL -P $$; break; }; done
exit $status
"""
# Saves, the second task longer than the first.
SAVES = """#!/usr/bin/env bash
trap 'sleep "0.$SLURM_PROCID"; sleep "0.$SLURM_PROCID"; touch "saved.$SLURM_PROCID"; exit "${CODE:-0}"' TERM
touch "arguments.$SLURM_PROCID"
sleep 60 & wait
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_saves_longer_than_another_is_waited_for(tmp_path, code):
    repository = Repository(tmp_path, SAVES, CODE=str(code), SLURM_JOB_ID="7")
    stubs = {"sbatch": f"cat > {tmp_path}/job; echo 7", "scontrol": f'echo "$*" >> {tmp_path}/told', "srun": SRUN}
    for name, text in stubs.items():
        (tmp_path / "bin" / name).write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    assert repository.launch("--name", "cc", "--nodes", "2", "--", "x").returncode == 0

    job = subprocess.run(["bash", tmp_path / "job"], env=repository.env, timeout=60)

    assert job.returncode == (code or 143)
    assert code or (repository.root / "saved.0").exists() and (repository.root / "saved.1").exists()
    assert (tmp_path / "told").exists() == (code == 0)      # that it queues again
    assert not list((repository.root / "logs").iterdir())


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable[[], bool], said: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds} s: {said()}"
        time.sleep(0.1)


class Cluster:
    """A controller and two nodes, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, []
        self.env = {"SLURM_CONF": str(folder / "slurm.conf")}
        (folder / "slurm.conf").write_text(
            CONFIG.format(folder=folder, ports=free_ports(3), user=getpass.getuser(), host=HOST))
        (folder / "state").mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)

    def begin(self) -> None:
        folder = self.folder
        self.start("munged", "--foreground", "--force", *(f"--{name}={folder}/{path}" for name, path in {
            "key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
            "seed-file": "munged.seed"}.items()))
        wait_for((folder / "munge.socket").exists, self.said)
        self.start("slurmctld", "-D")
        for node in (HOST, f"{HOST}-other"):
            self.start("slurmd", "-D", "-N", node)
        wait_for(lambda: self.run("sinfo", "--noheader", "--format=%D %t").stdout == "2 idle\n", self.said)

    def start(self, *command: str) -> None:
        with (self.folder / f"{len(self.daemons)}.{command[0]}.out").open("w") as log:
            program = shutil.which(command[0], path=SEARCHED)
            self.daemons.append(subprocess.Popen([program, *command[1:]], env=os.environ | self.env, stdout=log, stderr=log))

    def stop(self) -> None:
        if all(daemon.poll() is None for daemon in self.daemons):
            self.run("scancel", f"--user={getpass.getuser()}")
            wait_for(lambda: not self.run("squeue", "--noheader").stdout, self.said)  # a node outlives the jobs on it
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(30)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, timeout=60)

    def said(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.out")))

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job: JobState, Restarts, ExitCode, ..."""
        return dict(pair.split("=", 1) for pair in self.run("scontrol", "show", "job", number).stdout.split() if "=" in pair)

    def wait_for(self, number: str, *states: str, log: Path, seconds: float = 60) -> dict[str, str]:
        """Waits until the job is in one of these states."""
        wait_for(lambda: self.job(number).get("JobState") in states,       # a busy controller may not answer
                 lambda: (self.job(number), log.exists() and log.read_text(), self.said()), seconds)
        return self.job(number)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = [name for name in DAEMONS if not shutil.which(name, path=SEARCHED)]
    if missing:
        pytest.skip(f"no SLURM on this machine ({', '.join(missing)} missing): apt-get install slurm-wlm munge.")
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.begin()
        yield made
    finally:
        made.stop()


def submit(cluster: Cluster, repository: Repository, *arguments: str) -> tuple[str, Path]:
    """The number of the job that slurm.sh made, and its log."""
    result = repository.launch("--name", "cc", "--nodes", "2", "--logs", "my logs", *arguments)
    assert result.returncode == 0, result.stderr
    number = result.stdout.rpartition("\njob ")[2].partition(";")[0]
    return number, repository.root / "my logs" / f"cc.{number}.log"


def test_a_real_job_that_is_told_to_stop_saves_queues_again_and_ends(cluster, tmp_path):
    repository = Repository(tmp_path, STUB, **cluster.env)
    number, log = submit(cluster, repository, "--", "wait", *NASTY)
    wait_for(lambda: log.exists() and log.read_text().count("start 0") == 2, cluster.said)
    assert f"start 0 of task 0 on {HOST}" in log.read_text() and f"start 0 of task 1 on {HOST}-other" in log.read_text()

    cluster.run("scancel", "--signal=TERM", number)  # the signal of a preemption, and of a time limit that is near

    wait_for(lambda: cluster.job(number).get("Restarts") == "1",
             lambda: (log.read_text(), cluster.job(number), cluster.said()))
    wait_for(lambda: not cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now").returncode, cluster.said)
    assert cluster.wait_for(number, "COMPLETED", log=log)["ExitCode"] == "0:0"
    assert log.read_text().count("saved by task") == log.read_text().count("start 1 of task") == 2
    for task in (0, 1):
        assert repository.arguments_of(task) == ["-u", "-m", "cc_jax.main", "--distributed", "wait", *NASTY]
    assert not (repository.root / "oops").exists()


def test_a_real_job_that_fails_or_is_cancelled_does_not_queue_again(cluster, tmp_path):
    repository = Repository(tmp_path, STUB, **cluster.env, CODE="3")
    number, log = submit(cluster, repository, "--", "x")
    failed = cluster.wait_for(number, "FAILED", log=log)
    assert failed["ExitCode"] == "3:0" and failed["Restarts"] == "0"

    number, log = submit(cluster, repository, "--", "wait")
    wait_for(lambda: log.exists() and log.read_text().count("start 0") == 2, cluster.said)
    cluster.run("scancel", number)
    wait_for(lambda: cluster.run("squeue", "--noheader").stdout == "", cluster.said)
    assert cluster.job(number)["JobState"] == "CANCELLED" and cluster.job(number)["Restarts"] == "0"


def test_a_real_job_trains_by_two_processes_is_told_to_stop_and_resumes(cluster, shapes_dir, tmp_path):
    trainer = f'#!/usr/bin/env bash\ncd {str(ROOT)!r} && exec {sys.executable} "$@"\n'
    repository = Repository(tmp_path, trainer, **cluster.env, JAX_PLATFORMS="cpu",
                            XLA_FLAGS="--xla_backend_optimization_level=0")
    workdir = tmp_path / "run"
    options = {"total_steps": 60, "checkpoint.every": 50, "evals.retrieval.every": 60, "evals.compositional.every": 60,
               "log_every": 1}
    number, log = submit(
        cluster, repository, "--", "--config", f"configs/shapes_cc.py:data={shapes_dir},runlocal", "--workdir",
        str(workdir), *(f"--config.{key}={value}" for key, value in options.items()))

    def lines() -> list[dict]:
        path = workdir / metrics.METRICS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wait_for(lambda: len(lines()) > 3, lambda: (log.exists() and log.read_text(), cluster.said()), 300)

    cluster.run("scancel", "--signal=TERM", number)

    wait_for(lambda: cluster.job(number).get("Restarts") == "1", lambda: (log.read_text(), cluster.job(number)), 120)
    wait_for(lambda: not cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now").returncode, cluster.said)
    cluster.wait_for(number, "COMPLETED", log=log, seconds=300)
    said = log.read_text()
    for process in (0, 1):
        assert said.count(f"process {process} of 2, coordinator {HOST}:") == 2, said
    saved = int(said.split("saved after step ")[1].split()[0])
    assert 0 < saved < 60 and f"after step {saved} of 60" in said.split("resuming ")[1]
    assert [line["step"] for line in lines() if "loss" in line] == list(range(1, 61))
