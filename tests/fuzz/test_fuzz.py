"""A short session over everything that reads the files of strangers, the same in every run; `make fuzz` has long ones."""
import base64
import subprocess
import sys

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import engine, mutate, seeds
from tests.fuzz.targets import TARGETS

RUNS, GROUPS = 1200, 3


@pytest.mark.parametrize("group", range(GROUPS))
def test_no_input_does_what_must_not_happen(group):
    """First the kept inputs, each of which once did."""
    found = list(fuzz.findings(list(TARGETS)[group::GROUPS], 0, "--runs", str(RUNS)))
    assert not found, "\n".join(f"{each['target']}: {each['kind']} at {each['place']}\n{each['detail']}" for each in found)


def test_kept_inputs_are_of_targets():
    assert {path.name for path in seeds.FOLDER.iterdir()} <= set(TARGETS)


def target(run, **options):
    return engine.Target(run, lambda: [b"{}", b"12345678"], **options)


def findings(run, tmp_path, runs=0, **options):
    return list(engine.session(target(run, **options), tmp_path, 0, runs=runs))


def test_errors_that_are_not_allowed_or_do_not_name_their_file_are_findings(tmp_path):
    def run(data, _):
        raise KeyError("x.json") if data == b"{}" else ValueError("of y.json")
    kinds = lambda **options: sorted(finding.kind for finding in findings(run, tmp_path, **options))
    assert kinds() == ["KeyError", "ValueError"] and kinds(allowed=(KeyError,), named="x.json") == ["ValueError"]
    assert kinds(allowed=(KeyError, ValueError), named="x.json") == ["Unnamed"]


def test_what_is_found_is_found_again_by_the_same_seed_and_made_small(tmp_path):
    def run(data, _):
        assert b"\xff" not in data
    first, again = (findings(run, tmp_path, runs=2000) for _ in range(2))
    assert [finding.data for finding in first] == [finding.data for finding in again] == [b"\xff"]


def test_inputs_that_reach_something_new_are_built_on(tmp_path):
    """Four steps, each of which only one change in hundreds takes: together out of reach of any one."""
    def run(data, _):
        reached = next((i for i, byte in enumerate(b"fuzz") if data[i:i + 1] != bytes([byte])), 4)
        assert reached < 4
        return reached
    tokens = tuple(bytes([byte]) for byte in b"fuzz")
    assert [finding.data for finding in findings(run, tmp_path, runs=60_000, tokens=tokens)] == [b"fuzz"]


def test_json_is_changed_as_the_tree_it_is():
    rng = engine.Random(0)
    made = {mutate.change_json(b'{"a": [1, {"b": "c"}]}', rng) for _ in range(200)}
    assert len(made) > 100 and None not in made
    assert mutate.change_json(b"no JSON", rng) is None


WORKER = """
import signal, sys
from pathlib import Path
from tests.fuzz import engine
engine.CPU_SECONDS, engine.MAX_GROWTH, engine.MAX_ALLOCATION = 0.3, 2**26, 2**28
engine.set_limits()
run = lambda data, folder: eval(sys.argv[1])
print([finding.kind for finding in engine.session(engine.Target(run, lambda: [b"x"]), Path(), 0, runs=0)])
"""


@pytest.mark.parametrize(("run", "kind"), [
    ("[1 for _ in iter(int, 1)]", "Hang"), ("len(bytearray(b'1') * 2**27)", "Memory"), ("bytearray(2**32)", "MemoryError"),
    ("len(data)", "")])
def test_hangs_and_memory_are_findings(run, kind):
    done = subprocess.run([sys.executable, "-c", WORKER, run], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([kind] if kind else [])


DEADLY = """
import os
from tests.fuzz import engine, worker
worker.TARGETS["deadly"] = engine.Target(lambda data, _: data == b"x" or os.abort(), lambda: [b"kills", b"x"])
worker.main()
"""


def test_the_death_of_the_process_is_a_finding_with_its_input(monkeypatch, tmp_path):
    (tmp_path / "worker.py").write_text(DEADLY)
    monkeypatch.setattr(fuzz, "WORKER", (str(tmp_path / "worker.py"),))
    [found] = fuzz.findings(["caption", "deadly"], 0, "--runs", "10")
    assert (found["target"], found["kind"]) == ("deadly", "Death") and base64.b64decode(found["data"]) == b"kills"
