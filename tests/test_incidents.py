"""Losses that are not finite, and those that jump: what the run does, what it keeps, and its steps run again."""
import itertools
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from cc_jax import checkpoint, incidents, metrics, saved, train
from cc_jax.config import Config, ConfigError
from cc_jax.data import pipeline
from cc_jax.optim import parameter_names
from cc_jax.tools.replay import Replay, compare, report
from configs import shapes_cc

STEPS = 12


def make_config(shapes_dir, nonfinite, init):
    """Batches of two, so that few of them hold a rare word."""
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    config |= dict(batch_size=2, total_steps=STEPS, evals={}, nonfinite=nonfinite, model_init=str(init))
    config["checkpoint"] = dict(every=4, keep=9)
    config["model"]["text"]["vocab_size"] = saved.read_tokenizer(str(shapes_dir)).vocab_size     # as weights must have it
    return config


def words_of(shapes_dir) -> list[set[int]]:
    """The pieces in each step's captions."""
    config = Config(make_config(shapes_dir, "skip", ""))
    source, tokenizer = train.open_source(config), saved.load_tokenizer(config)
    batches = pipeline.training_batches(source, train.make_example(config, tokenizer), 2, STEPS, 0)
    pieces = [set(next(batches)["caption"].ravel().tolist()) for _ in range(STEPS)]
    batches.close()
    return pieces


@pytest.fixture(scope="module")
def poisoned(shapes_dir, tiny_run, tmp_path_factory) -> tuple[Path, int, list[int]]:
    """(weights that overflow at one word, that word's piece, the steps whose captions hold it)."""
    words = words_of(shapes_dir)
    steps = {piece: [step for step, held in enumerate(words, 1) if piece in held] for piece in set().union(*words)}
    piece = next(piece for piece, held in sorted(steps.items()) if 2 <= len(held) <= 5 and 4 < held[0] < STEPS)
    params = saved.open_run(str(tiny_run)).params
    names, values = (jax.tree.leaves(tree) for tree in (parameter_names(params), jax.tree.map(np.array, params)))
    arrays = dict(zip(names, values, strict=True))
    table = "txt/Embed_0/embedding"
    arrays[table] = arrays[table][:saved.read_tokenizer(str(shapes_dir)).vocab_size]
    arrays[table][piece] = 3e38
    path = tmp_path_factory.mktemp("poisoned") / "weights.npz"
    np.savez(path, **{f"params/{name}": value for name, value in arrays.items()})
    return path, piece, steps[piece]


@pytest.fixture(scope="module")
def skipping(shapes_dir, poisoned, tmp_path_factory) -> Path:
    """A run that left out the updates of the poisoned word."""
    workdir = tmp_path_factory.mktemp("runs") / "skipping"
    train.train(make_config(shapes_dir, "skip", poisoned[0]), str(workdir))
    return workdir


def losses(workdir) -> dict:
    return {line["step"]: line["loss"] for line in metrics.read(workdir) if "loss" in line}


def state_of(workdir, step) -> dict:
    """All arrays of a checkpoint, by name."""
    with checkpoint.open_manager(str(workdir)) as manager:
        tree = manager.restore(step)["state"]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_updates_that_are_not_finite_are_left_out_counted_and_kept(shapes_dir, poisoned, skipping):
    _, piece, bad = poisoned
    lines = {line["step"]: line for line in metrics.read(skipping)}
    assert [step for step in lines if lines[step]["loss"] == "nan"] == bad
    assert [lines[step]["norm/update"] == 0 for step in lines] == [step in bad for step in lines]
    assert lines[STEPS]["skipped"] == len(bad)
    kept = sorted(int(path.stem) for path in (skipping / incidents.INCIDENTS).iterdir())
    assert kept == bad
    config = Config(make_config(shapes_dir, "skip", ""))
    source, tokenizer = train.open_source(config), saved.load_tokenizer(config)
    for step in bad:
        incident = incidents.load(str(skipping), step)
        assert incident["kind"] == "nonfinite" and incident["loss"] == "nan" and incident["seed"] == 0
        assert incident["examples"] == [2 * step - 2, 2 * step]
        assert incident["keys"] == [source[record]["key"].decode() for record in incident["records"]]
        captions = [caption.decode() for record in incident["records"] for caption in source[record]["captions"]]
        assert piece in tokenizer.encode(captions, 32)


def test_a_run_that_stopped_goes_on_by_leaving_such_updates_out(shapes_dir, poisoned, skipping, tmp_path):
    path, _, bad = poisoned
    with pytest.raises(FloatingPointError, match=rf"step {bad[0]}: loss nan .*not finite; see .*/{bad[0]}.json, .*"
                                                 "replay.*--config.nonfinite=skip"):
        train.train(make_config(shapes_dir, "stop", path), str(tmp_path))
    assert max(losses(tmp_path)) == bad[0] - 1
    train.train(make_config(shapes_dir, "skip", path), str(tmp_path))
    assert losses(tmp_path) == losses(skipping)
    whole, resumed = state_of(skipping, STEPS), state_of(tmp_path, STEPS)
    assert whole.keys() == resumed.keys()
    [np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name) for name in whole]


def test_a_step_is_run_again_bit_for_bit_and_names_what_was_not_finite(poisoned, skipping):
    _, piece, bad = poisoned
    good = next(step for step in range(6, STEPS) if step not in bad)
    for step in (bad[0], good):
        replay = Replay(str(skipping), step)
        assert replay.begin == 4 * ((step - 1) // 4)
        again = metrics.as_json(replay.losses())
        noted = next(line for line in metrics.read(skipping) if line["step"] == step)
        assert {name: again[name] for name in again if name in noted} == {name: noted[name] for name in again}
        found = {example.record: example.not_finite for example in replay.examples()}
        tokenizer = saved.read_tokenizer(str(skipping))
        held = {example.record: piece in tokenizer.encode([example.caption], 32) for example in replay.examples()}
        assert found == {record: ("caption",) if hit else () for record, hit in held.items()}
        assert any(held.values()) == (step in bad)


def test_the_replay_command_compares_and_shows(poisoned, skipping, tmp_path, command, capsys):
    bad, workdir = poisoned[2][0], tmp_path / "run"
    shutil.copytree(skipping, workdir)
    said = command("cc_jax.tools.replay", workdir, bad).stdout
    assert f"step {bad} of {STEPS}, from checkpoint 4" in said and "metrics.jsonl: the same, bit for bit" in said
    assert f"incidents/{bad}.json: the same, bit for bit" in said and "caption not finite  record " in said
    assert f"{incidents.load(str(skipping), bad)['keys'][0]}: \"" in said
    lines = [line | {"loss/siglip": 7.0} if line["step"] == 1 else line for line in metrics.read(workdir)]
    (workdir / metrics.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not report(Replay(str(workdir), 1))
    said = capsys.readouterr().out
    assert "from the start, as there is no checkpoint before it" in said and "loss/siglip 7.0 there, " in said


def test_a_step_that_the_run_does_not_have_is_refused(skipping, tmp_path):
    for step in (0, STEPS + 1):
        with pytest.raises(ConfigError, match=f"there is no step {step}: the run in .* has steps 1 to {STEPS}"):
            Replay(str(skipping), step)
    with pytest.raises(FileNotFoundError, match="is not the workdir of a run"):
        Replay(str(tmp_path), 1)
    assert compare({"loss": math.nan}, {"loss": "nan"}) == "the same, bit for bit (1 values)"


def make_watch(workdir, nonfinite="stop", spikes=8.0, active=True):
    return incidents.Watch(str(workdir), incidents.Options(nonfinite, spikes), lambda step: {"records": [step]}, active)


def values(loss=1.0, gradient=1.0, in_a_row=0):
    return {"loss": loss, "norm/gradient": gradient, "skipped": in_a_row, "skipped/in_a_row": in_a_row}


@pytest.mark.parametrize("bad", [dict(loss=math.nan), dict(loss=math.inf), dict(gradient=math.nan), dict(gradient=math.inf)])
def test_a_gradient_counts_as_a_loss_does_and_many_in_a_row_stop_a_run_that_skips(tmp_path, bad):
    with pytest.raises(FloatingPointError, match="step 3: .*gradient"):
        make_watch(tmp_path / "stop").check(3, values(**bad))
    watch = make_watch(tmp_path / "skip", "skip")
    for step in range(1, incidents.IN_A_ROW):
        watch.check(step, values(**bad, in_a_row=step))
    with pytest.raises(FloatingPointError, match="the 10th in a row"):
        watch.check(10, values(**bad, in_a_row=10))


def test_a_loss_that_stands_out_is_reported_once_and_kept(tmp_path, capsys):
    watch, rng = make_watch(tmp_path), np.random.default_rng(0)
    falling = [5 * 0.999**step * (1 + 0.02 * rng.standard_normal()) for step in range(400)]
    for step, loss in enumerate(falling, 1):
        watch.check(step, values(loss * (2 if step == 300 else 1)))
    [path] = (tmp_path / incidents.INCIDENTS).iterdir()
    assert path.name == "300.json" and json.loads(path.read_text())["kind"] == "spike"
    assert capsys.readouterr().err.count("a spike; see ") == 1
    for step, loss in enumerate(falling, 1):
        make_watch(tmp_path / "off", spikes=0.0).check(step, values(loss * (2 if step == 300 else 1)))
    assert not (tmp_path / "off").exists()


def test_incidents_do_not_fill_the_disk_or_the_log(tmp_path, capsys):
    watch, steps = make_watch(tmp_path, "skip"), itertools.count(1)
    for _ in range(2000):
        watch.check(next(steps), values(math.nan))
    make_watch(tmp_path, "skip").check(1, values(math.nan))             # a run that was resumed comes by it again
    said = capsys.readouterr().err.splitlines()
    assert all("; see " in line for line in said)
    assert len(said) - 1 == 10 + 20 == len(list((tmp_path / incidents.INCIDENTS).iterdir()))
    for path in range(incidents.FILES):
        (tmp_path / incidents.INCIDENTS / f"x{path}.json").touch()
    with pytest.raises(FloatingPointError, match="not finite. Nothing"):        # and says "see" of no file
        make_watch(tmp_path).check(5000, values(math.nan))


def test_what_can_not_be_written_is_said_and_other_processes_write_nothing(tmp_path):
    (tmp_path / incidents.INCIDENTS).write_text("a file is in the way")
    with pytest.raises(FloatingPointError, match=r"not finite \(.*/3.json can't be written: .*\). Nothing after"):
        make_watch(tmp_path).check(3, values(math.nan))
    with pytest.raises(FloatingPointError, match="not finite. Nothing after"):
        make_watch(tmp_path / "other", active=False).check(3, values(math.nan))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("changes", "message"), [
    ({"nonfinite": "ignore"}, "config.nonfinite='ignore'; .* one of stop, skip"),
    ({"spikes": -1.0}, "config.spikes=-1.0; "), ({"spikes": "often"}, "config.spikes='often'; ")])
def test_options_that_can_not_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        incidents.read(Config(changes))
