"""Told to stop, full disks, storage that fails or hangs, a clock that is set: the run goes on, or says what to do."""
import re
import shutil
import signal
import time

import pytest

from cc_jax import checkpoint

long = pytest.mark.long
LIMIT = 220_000     # bytes of a file: under those of a checkpoint, over those of what a run says of its failing
BOUND = 60      # seconds from SIGTERM to the end, on a machine that does other things too


def stop_well(run, workdir):
    """Sends SIGTERM; claims that the run saves what it has, and ends well in time."""
    run.signal(signal.SIGTERM)
    assert run.ended(BOUND) and run.wait() == 0, run.said()
    saved = int(run.said().split("saved after step ")[1].split()[0])
    assert checkpoint.saved_steps(workdir)[-1] == saved == max(run.logged())


@long
def test_told_to_stop_between_saves_it_saves_and_goes_on_from_there(server, check_resumes, tmp_path):
    run = server.start(tmp_path / "run", checkpoint__every=100)
    run.reached(5)
    stop_well(run, tmp_path / "run")
    check_resumes(tmp_path / "run")


def test_told_to_stop_in_a_long_evaluation_it_does_not_end_that_first(server, check_resumes, tmp_path):
    run = server.start(tmp_path / "run", {"evaluations_hang": 600})
    run.reached(8)
    time.sleep(0.3)
    stop_well(run, tmp_path / "run")
    check_resumes(tmp_path / "run")


@long
def test_told_to_stop_before_the_first_step_it_ends_well_and_told_twice_at_once(server, tmp_path):
    first, second = server.start(tmp_path / "first"), server.start(tmp_path / "second", {"evaluations_hang": 600})
    first.signal(signal.SIGTERM)
    assert first.ended(BOUND) and first.wait() in (0, -signal.SIGTERM)  # the latter, while it imports
    second.reached(8)
    second.signal(signal.SIGTERM)
    second.signal(signal.SIGTERM)
    assert second.ended(BOUND) and second.wait() in (0, 128 + signal.SIGTERM)


@long
def test_a_run_in_a_workdir_in_use_is_refused(server, check_resumes, tmp_path):
    first = server.start(tmp_path / "run")
    first.reached(1)
    second = server.start(tmp_path / "run")
    assert second.wait() == 1 and f"in use by process {first.number} on " in second.said()
    assert "Traceback" not in second.said()
    first.signal(signal.SIGKILL)
    first.wait()
    check_resumes(tmp_path / "run")


@long
def test_a_disk_that_is_full_for_a_while_costs_a_save_not_the_run(server, whole, tmp_path):
    run = server.start(tmp_path / "run", {"file_limit": [LIMIT, 6, 9]})
    assert run.wait() == 0, run.said()
    assert re.search(r"could not be saved, the checkpoints of steps .* are untouched; the next try is in 0.1 s", run.said())
    assert run.losses() == whole and checkpoint.saved_steps(tmp_path / "run")[-1] == 24


def test_a_disk_that_stays_full_stops_the_run_and_leaves_what_was_saved(server, check_resumes, tmp_path):
    run = server.start(tmp_path / "run", {"file_limit": [LIMIT, 11, 1000]}, checkpoint__retries="(0.1,)")
    assert run.wait() == 1 and "SaveFailed: the state after step " in run.said()
    assert "tried 2 times: " in run.said() and "the same command then resumes" in run.said()
    assert checkpoint.saved_steps(tmp_path / "run") in ([4], [4, 8])     # the second may have been under way
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if "tmp" in path.name] == []
    check_resumes(tmp_path / "run")


@long
def test_a_record_that_is_unreadable_for_a_while_changes_nothing(server, whole, tmp_path):
    run = server.start(tmp_path / "run", {"unreadable": [80, 2]})
    assert run.wait() == 0 and run.losses() == whole


def test_a_record_that_stays_unreadable_stops_the_run_with_its_place_and_the_state_saved(server, check_resumes, tmp_path):
    run = server.start(tmp_path / "run", {"unreadable": [80, None]})
    assert run.wait() == 1, run.said()
    assert "InputFailed: record " in run.said()
    assert "train.array_record-00000-of-00001 can't be read, tried 3 times: " in run.said()
    assert "Traceback" not in run.said()
    assert checkpoint.saved_steps(tmp_path / "run")[-1] == max(run.logged()) > 0     # several batches are read at a time
    check_resumes(tmp_path / "run")


@long
def test_a_shard_that_is_damaged_stops_the_run_until_it_is_mended(server, whole, check_resumes, shapes_dir, tmp_path):
    data = shutil.copytree(shapes_dir, tmp_path / "data")
    shard = next(data.glob("*-train.*"))
    sound = shard.read_bytes()
    shard.write_bytes(sound[:len(sound) // 3] + bytes(1000) + sound[len(sound) // 3 + 1000:])
    run = server.start(tmp_path / "run", data=data)
    assert run.wait() == 1 and f"{shard.name} can't be read, tried 3 times" in run.said(), run.said()
    assert "Traceback" not in run.said()
    shard.write_bytes(sound)
    check_resumes(tmp_path / "run", data=data)


@pytest.mark.parametrize(("stage", "said"), [
    ("reading", "reading record "), pytest.param("decoding", "decoding the image and text of ", marks=long),
    pytest.param("batching", "putting the batch", marks=long)])
def test_an_input_that_hangs_is_stopped_and_named(server, check_resumes, tmp_path, stage, said):
    run = server.start(tmp_path / "run", {"hang": stage}, data__timeout=8.0)
    assert run.wait() == 1, run.said()
    assert f"no batch for 8 s (config.data.timeout): the input hangs in {said}" in run.said()
    assert checkpoint.saved_steps(tmp_path / "run")[-1] == max(run.logged())
    check_resumes(tmp_path / "run", data__timeout=8.0)


@long
@pytest.mark.parametrize("seconds", [-1e6, 1e6])
def test_a_clock_that_is_set_changes_nothing(server, whole, tmp_path, seconds):
    run = server.start(tmp_path / "run", {"clock": [seconds, 5]})
    assert run.wait() == 0 and run.losses() == whole, run.said()
