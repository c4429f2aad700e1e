"""A run goes on with other devices in another number of processes: the same examples, parameters and losses."""
import json
import shutil

import pytest

ALL = [(1, 4), (1, 2), (1, 1), (2, 1), (2, 2), (4, 1)]      # processes, devices of each
CHANGES = {"optim__lr": 1e-4, "checkpoint__every": 12, "evals__retrieval__every": 24}


def run(server, folder, processes, devices, **changes):
    """The run's first process, and what all told: {example: key}, {("saved", step): hash, ...}."""
    folder.mkdir(exist_ok=True)
    several = server.start_several(processes, folder.parent / "run", {"tell": str(folder)}, devices=devices,
                                   **CHANGES, **changes)
    assert [each.wait() for each in several] == [0] * processes, [each.said() for each in several]
    lines = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    hashes = {tuple(line[:2]): line[2] for line in lines if len(line) == 3}
    assert all(hashes[tuple(line[:2])] == line[2] for line in lines if len(line) == 3)      # on all processes
    return several[0], dict(line for line in lines if len(line) == 2), hashes


@pytest.fixture(scope="session")
def saved(server, tmp_path_factory):
    """A whole run of 2 processes with 4 devices each, whose parameters lie in parts on two of them."""
    folder = tmp_path_factory.mktemp("elastic")
    return run(server, folder / "told", 2, 4, mesh__data=4, mesh__fsdp=2, sharding__min_size=512)


@pytest.mark.long
@pytest.mark.parametrize(("processes", "devices"), ALL)
def test_saved_by_two_processes_with_eight_devices_it_goes_on_with_others(server, saved, tmp_path, processes, devices):
    first, examples, hashes = saved
    shutil.copytree(first.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "24")
    again, examples_again, hashes_again = run(server, tmp_path / "told", processes, devices)
    assert again.first_step() == 12 and hashes_again["restored", 12] == hashes["saved", 12]
    numbers = range(12 * 8, 24 * 8)
    assert [examples_again[number] for number in numbers] == [examples[number] for number in numbers]
    ours, theirs = again.losses(), first.losses()
    assert ours.keys() == theirs.keys() == set(range(1, 25))
    for step in ours:
        assert ours[step] == pytest.approx(theirs[step], rel=1e-5 if step > 12 else 0)
