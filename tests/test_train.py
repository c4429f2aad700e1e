"""The trainer: resuming, refusing, stopping; the same losses on any number of devices."""
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cc_jax import checkpoint, metrics, saved
from cc_jax.config import ConfigError, DatasetError
from cc_jax.data import phrase_noise
from cc_jax.data.text_form import SIGLIP2
from cc_jax.train import train
from configs import shapes_cc

ROOT = Path(__file__).parent.parent


def tiny(shapes_dir, steps=8, **changes):
    """The embedded config shrunk to seconds; `changes` are {"block.key": value}."""
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    for path, value in ({"total_steps": steps, "evals": {}, "checkpoint.every": 2} | changes).items():
        *blocks, key = path.split(".")
        functools.reduce(dict.__getitem__, blocks, config)[key] = value
    return config


def losses(workdir):
    return {line["step"]: line["loss"] for line in metrics.read(workdir) if "loss" in line}


def test_every_promised_metric_is_logged_and_the_loss_is_the_weighted_sum(tiny_run):
    lines = [line for line in metrics.read(tiny_run) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 7))
    for line in lines:
        assert line.keys() >= {"loss/siglip", "loss/phrase", "loss/concept_attention", "scale", "bias", "learning_rate",
                               "norm/gradient", "norm/parameter", "norm/update", "images_per_second", "mfu",
                               "input_wait"}
        total = line["loss/siglip"] + line["loss/phrase"] + 0.01 * line["loss/concept_attention"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert 0 < line["mfu"] < 1 and 0 <= line["input_wait"] <= 1
    evaluated = [line["step"] for line in metrics.read(tiny_run) if "retrieval/image_to_text@1" in line]
    assert evaluated == [3, 6]


def test_a_killed_run_resumes_on_the_same_curve(shapes_dir, tmp_path):
    """SIGKILL in mid-run: once resumed, the losses and parameters are those of an undisturbed run, bit for bit."""
    arguments = [sys.executable, "-m", "cc_jax.main", "--config", f"configs/shapes_cc.py:data={shapes_dir},runlocal",
                 "--config.total_steps=80", "--config.checkpoint.every=10", "--config.evals.retrieval.every=80",
                 "--config.evals.compositional.every=80"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*arguments, "--workdir", str(whole)], cwd=ROOT, check=True, capture_output=True, timeout=600)

    process = subprocess.Popen([*arguments, "--workdir", str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if (killed / "metrics.jsonl").exists() and len((killed / "metrics.jsonl").read_text().splitlines()) >= 25:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    assert process.wait(60) == -signal.SIGKILL
    before = losses(killed)
    assert max(before) < 80

    resumed = subprocess.run([*arguments, "--workdir", str(killed)], cwd=ROOT, check=True, capture_output=True,
                             text=True, timeout=600)
    assert "resuming" in resumed.stderr
    first = int(resumed.stderr.split("after step ")[1].split()[0])
    assert 0 < first <= max(before)
    assert losses(killed) == losses(whole) and len(losses(whole)) == 80
    a, b = (saved.open_run(str(workdir)) for workdir in (whole, killed))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(shapes_dir, tmp_path):
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    train(config, str(tmp_path))
    whole = metrics.read(tmp_path)
    kept = [line for line in whole if not (line["step"] == 6 and "compositional/macro" in line)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    train(config, str(tmp_path))
    assert len(kept) == len(whole) - 1 and metrics.read(tmp_path) == whole


def test_a_finished_run_started_again_does_nothing(shapes_dir, tmp_path):
    config = tiny(shapes_dir, steps=2, **{"optim.warmup_steps": 1})
    train(config, str(tmp_path))
    before = metrics.read(tmp_path)
    train(config, str(tmp_path))
    assert metrics.read(tmp_path) == before


def test_a_workdir_of_another_config_is_refused_and_left_alone(tiny_run, shapes_dir):
    before = sorted((path, path.stat().st_mtime_ns) for path in tiny_run.rglob("*"))
    with pytest.raises(ConfigError, match=r"another config \(config.optim.lr: .* there, 0.5 now\)"):
        c = shapes_cc.get_config(f"data={shapes_dir},runlocal")
        c.optim.lr = 0.5
        train(c.to_dict(), str(tiny_run))
    assert sorted((path, path.stat().st_mtime_ns) for path in tiny_run.rglob("*")) == before


def test_a_run_is_not_resumed_with_another_tokenizer(shapes_dir, gemma_json, tmp_path):
    path = tmp_path / "tokenizer.json"
    shutil.copy(gemma_json, path)
    config = tiny(shapes_dir, steps=4) | {"concepts": {"rows": 4.0}}
    config["model"]["text"] |= {"mask_padding": False}
    config["data"] |= {"tokenizer": str(path), "phrase_length": config["model"]["text"]["length"]}
    train(config, str(tmp_path / "run"))
    kept = saved.open_run(str(tmp_path / "run")).tokenizer
    assert kept.serialized == gemma_json.read_bytes() and kept.form == SIGLIP2
    assert all(line["phrases/overflow"] == 0 for line in metrics.read(tmp_path / "run") if "loss" in line)

    path.write_text(path.read_text() + " ")
    with pytest.raises(ConfigError, match="the run in .* has the tokenizer .*, the dataset .* now .*put the run's own back"):
        train(config, str(tmp_path / "run"))
    shutil.copy(gemma_json, path)
    path.with_name("tokenizer_form.json").write_text('{"cleaning": "canonicalize", "pad_id": 0}')
    with pytest.raises(ConfigError, match=r"\(lower, padded with 0\), .* \(canonicalize, padded with 0\)"):
        train(config, str(tmp_path / "run"))


def test_a_tower_trained_from_scratch_hides_the_padding_of_gemmas_vocabulary(shapes_dir, gemma_json, tmp_path):
    config = tiny(shapes_dir, steps=3)
    config["data"] |= {"tokenizer": str(gemma_json), "pad_id": 1}
    train(config, str(tmp_path / "run"))
    run = saved.open_run(str(tmp_path / "run"))
    assert str(run.tokenizer.form) == "lower, padded with 1"
    short, full = (run.tokenizer.encode(["a Red circle"], length) for length in (12, run.model.text["length"]))
    one, other = (run.model.apply({"params": run.params}, None, text)[1] for text in (short, full))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_run_whose_tokenizer_was_swapped_is_not_opened(tiny_run, gemma_json, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    shutil.copy(gemma_json, workdir / "tokenizer.model")
    with pytest.raises(ConfigError, match="the tokenizer file beside it is not the one it was written for"):
        saved.open_run(str(workdir))


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(shapes_dir, tmp_path):
    with pytest.raises(FloatingPointError, match="step [2-8]: loss nan .*lower config.optim.lr"):
        train(tiny(shapes_dir, **{"optim.lr": 1e30, "optim.clip_norm": 0.0, "optim.max_scale": 1e30}), str(tmp_path))
    with checkpoint.open_manager(str(tmp_path)) as manager:
        kept = manager.all_steps()
    for step in kept:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.open_run(str(tmp_path), step).params))


def test_eight_devices_and_one_give_the_same_losses(shapes_dir, tmp_path, command):
    for devices in (1, 8):
        command("cc_jax.main", "--config", f"configs/shapes_cc.py:data={shapes_dir},runlocal", "--workdir",
                tmp_path / str(devices), "--config.evals.retrieval.every=6", devices=devices)
    one, eight = losses(tmp_path / "1"), losses(tmp_path / "8")
    assert eight == pytest.approx(one, rel=2e-5)


def test_microbatches_drawn_hops_and_gathered_texts_train_on_eight_devices(shapes_dir, tmp_path, command):
    command("cc_jax.main", "--config", f"configs/shapes_cc.py:data={shapes_dir},runlocal", "--workdir", tmp_path / "run",
            "--config.concepts.exchange=gather", "--config.concepts.max_hops=3", "--config.concepts.normaliser=positives",
            "--config.concepts.ramp=50 %", "--config.microbatches=2", "--config.evals.retrieval.every=6", devices=8)
    lines = [line for line in metrics.read(tmp_path / "run") if "loss" in line]
    assert len(lines) == 6 and all(line["phrases/overflow"] == 0 and line["phrases"] > 16 for line in lines)
    for line, rise in zip(lines, (1 / 3, 2 / 3, 1, 1, 1, 1), strict=True):
        total = line["loss/siglip"] + rise * (line["loss/phrase"] + 0.01 * line["loss/concept_attention"])
        assert line["loss"] == pytest.approx(total, rel=1e-5)


def test_phrases_pooled_from_their_captions_train_in_the_debug_mode(shapes_dir, tmp_path):
    train(tiny(shapes_dir, steps=4, **{"concepts.embedding": "span", "checked": True}), str(tmp_path))
    lines = [line for line in metrics.read(tmp_path) if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"] and "phrases/overflow" not in lines[0]


def test_errors_in_phrases_leave_what_is_learned_from_captions(shapes_dir, tiny_run, tmp_path):
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal,noise=0.5").to_dict()
    assert config["data"]["phrase_noise"] == dict.fromkeys(phrase_noise.KINDS, 0.1)
    train(config | {"evals": {}}, str(tmp_path))
    [clean, *_], [noisy, *_] = metrics.read(tiny_run), metrics.read(tmp_path)
    assert clean["loss/siglip"] == pytest.approx(noisy["loss/siglip"]) and clean["loss/phrase"] != noisy["loss/phrase"]


def test_errors_in_phrases_need_a_dataset_that_says_where_phrases_stand(shapes_dir, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(shapes_dir, old)
    features = json.loads((old / "features.json").read_text())
    for name in ("phrase_start", "phrase_end"):
        del features["featuresDict"]["features"][name]
    (old / "features.json").write_text(json.dumps(features))
    train(tiny(old, steps=2, **{"optim.warmup_steps": 1}), str(tmp_path / "without"))
    with pytest.raises(DatasetError, match="does not say where phrases stand .* prepare it anew"):
        train(tiny(old, **{"data.phrase_noise.dropped": 0.1}), str(tmp_path / "with"))


def test_the_scale_never_exceeds_its_limit(shapes_dir, tmp_path):
    train(tiny(shapes_dir, **{"optim.max_scale": 12.0}), str(tmp_path))
    scales = [line["scale"] for line in metrics.read(tmp_path) if "scale" in line]
    assert scales[0] == pytest.approx(15.0) and max(scales[1:]) <= 12.0 * (1 + 1e-6)


def test_a_run_of_a_gpu_is_opened_with_the_attention_there_is_here(tiny_run, tmp_path):
    workdir = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = json.loads((workdir / "config.json").read_text())
    config["model"] |= {"attention": "cudnn", "dtype": "bfloat16"}
    (workdir / "config.json").write_text(json.dumps(config))
    assert saved.open_run(str(workdir)).model.attention == "cpu"


def test_a_saved_run_needs_nothing_but_its_workdir(tiny_run):
    run = saved.open_run(str(tiny_run))
    texts = run.embedder().texts(["a red circle", "a blue square"])
    assert run.step == 6 and texts.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    assert saved.open_run(str(tiny_run), 4).step == 4
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5 .*\[4, 6\]"):
        saved.open_run(str(tiny_run), 5)


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch_size": 0}, "batch_size=0 does not divide over 1 devices"),
    ({"data.res": 50}, "50x50 does not divide into patches of 16x16"),
    ({"data.dir": "datasets/nowhere"}, "python -m cc_jax.data.prepare .*--out datasets/nowhere"),
    ({"data.split": "validation"}, "no split 'validation'; it has train, test"),
    ({"data.phrase_length": 4, "model.text.mask_padding": False}, "phrase_length=4 is shorter"),
    ({"model.text.vocab_size": 20}, "vocab_size=20, but the tokenizer has"),
    ({"data.tokenizer": "/none/c4_en.model"}, "no tokenizer in /none/c4_en.model"),
    ({"data.pad_id": 2}, "config.data.pad_id=2; rows are padded with 1"),
    ({"data.pad_id": 0}, "mask_padding=True hides padding with 1, but .* pads with 0.*set config.data.pad_id=1"),
    ({"data.pad_id": 0, "model.text.mask_padding": False}, "phrase_length=16 is shorter"),
    ({"data.pad_id": 0, "model.text.mask_padding": False, "data.phrase_length": 32}, "per_row=4 packs phrases into rows"),
    ({"model.image.variant": "XL/16"}, "unknown model variant 'XL/16'"),
    ({"optim.name": "lamb"}, "unknown config.optim.name='lamb'"),
    ({"optim.schedule": "linear"}, "unknown config.optim.schedule='linear'"),
    ({"optim.warmup_steps": 9}, "warmup_steps=9 does not fit"),
    ({"optim.wd_mults": [("kernels", 1.0)]}, "'kernels' matches none"),
    ({"data.crop": 1.5}, "config.data.crop=1.5"),
    ({"data.captions": "last"}, "config.data.captions='last'; use 'random', 'first', or weights"),
    ({"data.phrase_noise.dropped": -0.1}, "config.data.phrase_noise.dropped=-0.1; .* 0 to 1"),
    ({"data.phrase_noise.swapped": 0.1}, "config.data.phrase_noise.swapped is not known; use some of truncated, merged"),
    ({"data.phrase_noise": 0.1}, "config.data.phrase_noise=0.1; give a rate for each kind of error"),
    ({"microbatches": 3}, "batch_size=16 does not divide over 3 microbatches on each of 1 devices.*multiple of 3"),
    ({"microbatches": 0}, "microbatches=0; it must be at least 1"),
    ({"concepts.rows": None}, "per_row=4, but config.concepts.rows is not set"),
    ({"data.phrase_length": 32, "model.text.mask_padding": False}, "per_row=4 packs phrases into rows"),
    ({"concepts.embedding": "mean"}, "config.concepts.embedding='mean' is not known; use one of tower, span"),
    ({"model.attention": "flash"}, "config.model.attention='flash'; use auto, xla, cudnn, cpu"),
    ({"mesh.data": 3}, "does not multiply to the 1 devices"),
])
def test_a_config_that_can_not_run_says_why(shapes_dir, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(tiny(shapes_dir, **changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("block", "key", "value", "message"), [
    ("optim", "warmup", 3, "nothing reads config.optim.warmup; did you mean config.optim.warmup_steps"),
    ("model", "dtipe", "float32", "nothing reads config.model.dtipe; did you mean config.model.dtype"),
    ("loss", "frase", 1.0, "nothing reads config.loss.frase; did you mean config.loss.phrase"),
    ("evals", "probe", {"type": "prob"}, "unknown evaluator type 'prob'; did you mean"),
])
def test_a_key_that_nothing_reads_stops_the_run_before_it_starts(shapes_dir, tmp_path, block, key, value, message):
    config = tiny(shapes_dir)
    config[block][key] = value
    with pytest.raises(ConfigError, match=message):
        train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_config_json_is_what_the_run_was_started_with(tiny_run, shapes_dir):
    expected = json.loads(json.dumps(shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()))
    assert checkpoint.read_config(str(tiny_run)) == expected


def test_an_average_and_the_start_are_kept_and_resumed_and_frozen_towers_stay(shapes_dir, tmp_path):
    """Stopped at step 7 and resumed, all is as in the undisturbed run; evaluations see the average."""
    config = tiny(shapes_dir, steps=8, average=0.5, **{
        "loss.distill": 0.5, "optim.lr_mults": [["img/.*", 0.0]], "optim.lr": 0.01,
        "checkpoint.keep": 9, "checkpoint.every": 1})
    train(config, str(tmp_path))
    whole, lines = saved.open_run(str(tmp_path)), metrics.read(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    train(config, str(tmp_path))
    again = saved.open_run(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
    assert losses(tmp_path) == {line["step"]: line["loss"] for line in lines} and len(lines) == 8
    assert abs(lines[0]["loss/distill"]) < 1e-5 < 1e-2 < lines[-1]["loss/distill"]

    at = lambda step, which: checkpoint.restore_params(
        str(tmp_path), jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), whole.params),
        step, which)[1]
    start, one, two, last = at(2, "start"), at(1, "params"), at(2, "params"), at(8, "params")
    jax.tree.map(np.testing.assert_array_equal, start["img"], last["img"])
    assert not np.array_equal(start["txt"]["head"]["kernel"], last["txt"]["head"]["kernel"])
    jax.tree.map(lambda mean, *each: np.testing.assert_allclose(mean, np.dot([0.25, 0.25, 0.5], [np.ravel(x) for x in each])
                 .reshape(mean.shape), atol=1e-6), at(2, "average"), start, one, two)
    jax.tree.map(np.testing.assert_array_equal, whole.params, at(8, "average"))


@pytest.mark.parametrize("average", [1.0, -0.1])
def test_an_average_that_can_not_be_is_refused(shapes_dir, tmp_path, average):
    with pytest.raises(ConfigError, match=f"config.average={average}"):
        train(tiny(shapes_dir, average=average), str(tmp_path))
