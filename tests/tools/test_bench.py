"""The benchmark: what it prints and keeps. Its times are its business; the FLOPs it derives are checked."""
import json

import jax
import pytest

from cc_jax.config import Config
from cc_jax.data.images import is_whole
from cc_jax.data.sources import open_source
from cc_jax.tools import bench, bench_peer, bench_prepare, bench_saving, bench_step
from configs import shapes_cc, siglip_b16

NO_PEERS = "needs the peers: pip install -e '.[peers]'"


def run(command, tmp_path, *arguments):
    done = command("cc_jax.tools.bench", *arguments, "--repeats", "1", "--json", tmp_path / "bench.json")
    return done.stdout, json.loads((tmp_path / "bench.json").read_text())


def test_losses_are_timed_against_the_plain_formula(command, tmp_path):
    shown, kept = run(command, tmp_path, "losses", "--sizes", "8x24x9x16,4x8x3x8")
    first, second = kept["losses"]
    assert first["images x phrases x tokens x width"] == "8x24x9x16" and "| 4x8x3x8 |" in shown
    assert first["speed-up"] == pytest.approx(first["plain, ms"] / first["this, ms"])
    assert first["memory ratio"] < 1 and first["share of peak"] > 0


def test_a_step_is_timed_against_siglips_and_fed_from_a_dataset(command, tmp_path, shapes_dir):
    shown, kept = run(command, tmp_path, "step", "--data", shapes_dir, "--form", "packed, equal ones once",
                      "--config.batch_size=8")
    siglip, packed = kept["step"]
    [share] = [name for name in siglip if name.startswith("of the matmul peak")]
    assert siglip["time / SigLIP"] == 1 and packed["FLOPs / SigLIP"] > 1
    assert 0 < siglip[share] < 1 and siglip["memory, GB"] > 0
    assert siglip["images/s"] == pytest.approx(8 / siglip["ms"] * 1e3)
    [fed] = kept["fed from a dataset"]
    assert fed["input"] == str(shapes_dir) and 0 <= fed["input wait"] < 1
    assert len(kept["FLOPs over plain SigLIP, ViT-B/16, 4 phrases an image"]) == len(bench.BATCHES)


def tiny(**model) -> dict:
    values = siglip_b16.get_config("runlocal").to_dict() | {"batch_size": 4}
    values["model"] |= model
    return values


def test_a_start_from_the_cache_compiles_faster_than_a_cold_one():
    cold, cached = bench_step.bench_start(tiny())
    assert cached["compile, s"] < cold["compile, s"] and cold["both, s"] == cold["trace, s"] + cold["compile, s"]


def test_the_peer_has_the_same_towers_and_learns():
    pytest.importorskip("torch", reason=NO_PEERS)
    torch = bench_peer.import_torch()
    pytest.importorskip("open_clip", reason=NO_PEERS)
    made = bench_step.prepare(tiny())
    towers = torch.nn.ModuleList(bench_peer.make_towers(made.model, made.res))
    ours = sum(leaf.size for leaf in jax.tree.leaves(made.state.params))
    assert sum(parameter.numel() for parameter in towers.parameters()) == ours - 2      # scale and bias
    update = bench_peer.make_step(made.model, jax.device_get(bench_step.draw(made)))
    first, *rest = [update() for _ in range(5)]
    assert min(rest) < first


def test_batches_are_tried_with_each_policy_and_those_without_room_shown_as_such(monkeypatch):
    need = []
    monkeypatch.setattr(bench_step, "REMAT_POLICIES", ("none", "full"))
    monkeypatch.setattr(bench_step, "check_room", lambda memory: need.append(memory))
    [row] = bench_step.bench_sweep(tiny(), [4], 1)
    assert row["batch"] == "4" and len(need) == 2
    for policy in ("none", "full"):
        rate, gigabytes = map(float, row[f"{policy}: images/s, GB"].split(","))
        assert rate > 0 and gigabytes > 0

    def no_room(memory: float) -> None:
        raise MemoryError
    monkeypatch.setattr(bench_step, "check_room", no_room)
    assert set(bench_step.bench_sweep(tiny(), [4], 1)[0].values()) == {"4", "out of memory"}


def test_phrases_of_real_batches_say_how_many_rows_they_take(command, tmp_path, shapes_dir):
    _, kept = run(command, tmp_path, "phrases", "--data", shapes_dir)
    for row in kept["phrases"]:
        assert 1 <= row["phrases an image"] <= 4 and row["distinct phrases an image"] <= row["phrases an image"]
        assert 0 < row["rows of 16 an image, 4 phrases each"] <= row["distinct phrases an image"]


def test_finding_phrases_is_timed_against_nltks_recipe(command, tmp_path, test_data, monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(test_data / "nltk_data"))
    captions = (test_data / "captions" / "flickr30k_part.txt").read_text("utf-8").splitlines()[:300]
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    _, kept = run(command, tmp_path, "captions", "--captions", tmp_path / "captions.txt")
    recipe, whole, this = kept["captions"]
    assert recipe["/ pos_tag + RegexpParser"] == 1 and whole["captions/s"] > 0
    assert this["captions/s"] > 1.5 * recipe["captions/s"] > 0      # 2.5 on a quiet machine


def test_preparation_is_timed_against_finding_phrases_alone():
    captions = [f"a red dog and {i} small cats near the house" for i in range(400)]
    alone, copied, whole, several_alone, _, several = bench_prepare.bench_prepare(captions, 2, 1)
    ratio = "rate by CPU / phrases alone"
    assert alone[ratio] == several_alone[ratio] == 1 > whole[ratio] == pytest.approx(
        alone["CPU, us a record"] / whole["CPU, us a record"])
    assert several["records/s / one process"] == pytest.approx(several["records/s"] / whole["records/s"])
    assert whole["way"] == "preparation, 1 process" and several["way"] == "preparation, 2 processes"
    assert 0 <= whole["of it the system's"] < whole["CPU, us a record"] > copied["CPU, us a record"]


def test_the_shards_that_preparation_is_timed_on_are_read_whole(tmp_path):
    bench_prepare.write_shards(tmp_path / "shards", [["a dog", "a cat"], ["ein Hündchen"]])
    records = list(open_source(f"tar:{tmp_path / 'shards'}"))
    assert [record.captions for record in records] == [("a dog",), ("a cat",), ("ein Hündchen",)]
    assert all(20_000 < len(record.image) < 30_000 and is_whole(record.image) for record in records)


def test_saving_is_timed_against_steps_without(shapes_dir, monkeypatch):
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    monkeypatch.setattr(bench_saving, "INTERVALS", (2,))
    [row] = bench_saving.bench_saving(config, *bench.batches(Config(config), 1), 1)
    assert row["a save every"] == "2 steps" and row["with, ms"] > 0 and row["MB"] == pytest.approx(3 * 0.3263, rel=0.01)


@pytest.mark.parametrize("of_a_dataset", [False, True])
def test_images_are_timed_against_pillows_full_decode(command, tmp_path, shapes_dir, of_a_dataset):
    shown, kept = run(command, tmp_path, "input", *(["--data", shapes_dir] if of_a_dataset else []))
    [title] = [title for title in kept if title.startswith("input")]
    baseline, alone, whole = kept[title]
    assert title in shown and (str(shapes_dir) if of_a_dataset else "drawn here") in title
    assert baseline["/ Pillow"] == 1 and baseline["mean difference, /255"] == 0
    assert alone["/ Pillow"] == pytest.approx(alone["images/s"] / baseline["images/s"]) and whole["images/s"] > 0
    assert alone["mean difference, /255"] <= alone["of the worst image"] < 1


def test_the_methods_overhead_stays_within_its_budget():
    """ViT-B/16, global batch 768, 4 phrases an image: released weights, from scratch, pooled from the caption."""
    [row] = [row for row in bench.overhead() if row["global batch"] == 768]
    assert row["rows of 64"] <= 1.05 and row["rows of 16"] <= 0.32 and row["span"] <= 0.08
    assert row["packed, 0.75 rows of 16"] < row["rows of 16"]


def test_an_unknown_kind_is_refused(command):
    kinds = "losses, step, phrases, captions, prepare, embed, saving, input"
    assert f"give one of {kinds}" in command("cc_jax.tools.bench", "speed", fails=True).stderr


def test_embedding_is_timed_against_the_bare_forward_passes(command, tmp_path, shapes_dir):
    shown, kept = run(command, tmp_path, "embed", "--data", shapes_dir, "--limit", "20")
    [(title, (images, captions))] = [item for item in kept.items() if item[0].startswith("embedding")]
    assert title in shown and images["embedded"] == "20 images" and captions["embedded"].endswith(" captions")
    for row in (images, captions):
        assert row["whole / bare"] == pytest.approx(row["whole, s"] / row["bare passes, s"])
