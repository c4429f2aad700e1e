"""Damaged checkpoints, and two runs in one workdir."""
import shutil
import signal

import pytest

from cc_jax import checkpoint


@pytest.fixture(scope="session")
def stopped(server, tmp_path_factory):
    """The workdir of a run that was killed, with two checkpoints."""
    run = server.start(tmp_path_factory.mktemp("stopped") / "run", {"kill": ["step", 14]})
    assert run.wait() == -signal.SIGKILL and len(checkpoint.saved_steps(run.workdir)) == 2
    return run.workdir


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "said"), [
    (lambda folder: flip(largest(folder)), "is not what was written"),
    *(pytest.param(*each, marks=pytest.mark.long) for each in (
        (lambda folder: cut(largest(folder)), "bytes instead of"),
        (lambda folder: (folder / "state" / "_METADATA").unlink(), "_METADATA is missing"),
        (lambda folder: flip(folder / "manifest.json"), "manifest.json"),
        (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "manifest.json is missing"))),
])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(stopped, check_resumes, tmp_path, damage, said):
    workdir = shutil.copytree(stopped, tmp_path / "run")
    sound, newest = checkpoint.saved_steps(workdir)
    damage(workdir / "checkpoints" / str(newest))
    run = check_resumes(workdir, sound)
    aside = workdir / "damaged" / str(newest)
    assert f"the checkpoint of step {newest} is damaged, set aside in {aside}: " in run.said() and said in run.said()
    assert aside.is_dir()
