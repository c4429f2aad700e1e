"""Metrics on disk and on the screen."""
import io
import json
import math
import resource
import subprocess
import sys

from tensorboardX.proto import event_pb2

from cc_jax import metrics


def test_lines_are_appended_and_a_resumed_run_drops_those_after_its_first_step(tmp_path):
    writer = metrics.Writer(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0 / step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a line cut by a kill
    writer = metrics.Writer(tmp_path, first_step=2)
    writer.write(3, {"loss": 7.0})
    writer.close()
    assert metrics.read(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 7.0}]


def test_a_value_that_is_not_finite_is_valid_json(tmp_path):
    writer = metrics.Writer(tmp_path)
    writer.write(1, {"loss": math.nan})
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda _: 1 / 0)["loss"] == "nan"


def test_tensorboard_files_hold_the_same_values(tmp_path):
    writer = metrics.Writer(tmp_path)
    writer.write(5, {"loss": 0.25})
    writer.close()
    [file] = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        events.append(event_pb2.Event.FromString(data[12:12 + length]))
        data = data[16 + length:]
    [value] = [(event.step, v.tag, v.simple_value) for event in events for v in event.summary.value]
    assert value == (5, "loss", 0.25)


def test_other_processes_write_nothing(tmp_path):
    writer = metrics.Writer(tmp_path, active=False)
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_the_progress_line_shows_losses_speed_and_eta():
    values = {"loss": 3.2137, "loss/siglip": 1.101, "loss/phrase": 2.009, "loss/concept_attention": 10.4,
              "images_per_second": 812.3, "mfu": 0.48, "input_wait": 0.003}
    stream = io.StringIO()
    metrics.Progress(10_000, stream).show(1200, metrics.loss_line(values), 5520)
    assert stream.getvalue() == (
        "step 1 200/10 000  loss 3.214 (siglip 1.101, phrase 2.009, attention 10.4)  812 images/s  MFU 48 %  "
        "input 0.3 %  ETA 1 h 32 min\n")


def test_training_imports_neither_pytorch_nor_nltk_which_take_seconds(tmp_path):
    code = "import sys; from cc_jax import metrics, train; metrics.Writer(sys.argv[1]).close(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert {"cc_jax.train", "tensorboardX"} <= set(done.stdout.split()) and not {"torch", "nltk"} & set(done.stdout.split())


def test_metrics_that_a_full_disk_keeps_back_are_written_once_there_is_room(tmp_path, capsys):
    writer, unlimited = metrics.Writer(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, unlimited[1]))
        writer.write(1, {"loss": 1.0})
        writer.write(2, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    writer.write(3, {"loss": 3.0})
    writer.close()
    assert metrics.read(tmp_path) == [{"step": step, "loss": float(step)} for step in (1, 2, 3)]
    assert capsys.readouterr().err.count("metrics can't be written, training goes on") == 1
