"""Fixtures and helpers that several test files use."""
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import jax
import nltk
import pytest

ROOT = Path(__file__).parent.parent
OFFLINE = ROOT / "tests" / "offline"

# No test needs a network: neither these processes nor those they start get one; and commands find this code.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(OFFLINE), str(ROOT), os.environ.get("PYTHONPATH"))))
offline = importlib.util.spec_from_file_location("offline", OFFLINE / "sitecustomize.py")
offline.loader.exec_module(importlib.util.module_from_spec(offline))
# Compiled programs are kept between runs of the tests, and shared with the commands they start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The tests' programs are many and small: to compile them well takes longer than it saves.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The same examples in every run, here as in CI; and a loaded machine may take long over any of them.
hypothesis.settings.register_profile("everywhere", deadline=None, derandomize=True, database=None,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("everywhere")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder that all of pytest-xdist's workers share: by the first that asks for it, while the others wait."""
    def path(name: str, make: Callable[[Path], None]) -> Path:
        base = tmp_path_factory.getbasetemp()
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                make(partial)
                partial.rename(folder)
        return folder
    return path


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of development data (not part of the repository); tests that need it are skipped without it."""
    folder = Path(os.environ.get("CC_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no development data in {folder}; set CC_JAX_TEST_DATA to its folder to run this test.")
    return folder


@pytest.fixture
def nltk_tagger(test_data, monkeypatch):
    """NLTK's own tagger data, found the way users have it found."""
    from cc_jax.data import perceptron

    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data")])
    caches = perceptron.load_tagger, perceptron.load_tag
    [cache.cache_clear() for cache in caches]
    yield "nltk"
    [cache.cache_clear() for cache in caches]


@pytest.fixture(scope="session")
def gold(test_data) -> list[dict]:
    """Captions with gold noun phrases."""
    return [json.loads(line) for line in (test_data / "np_gold" / "dev.jsonl").open(encoding="utf-8")]


@pytest.fixture(scope="session")
def command():
    """Runs one of the project's commands as a user would, `python -m MODULE ARGUMENTS`, from the repository's root."""
    def run(module: str, *arguments: str, fails: bool = False, devices: int = 1) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600,
            env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"})
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done
    return run


@pytest.fixture(scope="session")
def write_tfds():
    """Makes a folder a dataset of these features, by what TFDS has for it; one shard a split."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    def write(folder: Path, features, splits: dict[str, list], name: str = "cc", version: str = "1.1.0", **metadata) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        infos = []
        for split, records in splits.items():
            template = tfds.core.ShardedFileTemplate(
                data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record")
            writer = ArrayRecordWriter(str(template.sharded_filepath(shard_index=0, num_shards=1)), "group_size:1")
            for record in records:
                writer.write(features.serialize_example(features.encode_example(record)))
            writer.close()
            infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(records)], num_bytes=0,
                                             filename_template=template))
        tfds.folder_dataset.write_metadata(data_dir=folder, features=features, version=version, split_infos=infos,
                                           check_data=False, metadata=tfds.core.MetadataDict(metadata))
    return write


@pytest.fixture(scope="session")
def gemma_json(tmp_path_factory) -> Path:
    """A small `tokenizer.json` with the steps and special tokens of Gemma's, which SigLIP 2 uses."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    captions = [f"a {size} {colour} {shape}, to the {side} of the dog's {other} hat." for size in ("small", "large")
                for colour in ("red", "blue", "green") for shape in ("circle", "cross") for side in ("left", "right")
                for other in ("yellow", "black", "white")]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")      # Gemma's, below, would learn whole captions
    made.train_from_iterator(captions, trainers.BpeTrainer(
        vocab_size=420, special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False))
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.post_processor = processors.TemplateProcessing("<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)])
    made.enable_padding(length=7, pad_id=4, pad_token="<mask>", direction="left")       # a trap: not what SigLIP 2 does
    made.enable_truncation(5)
    whole = json.loads(made.to_str())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] in special]
    path = tmp_path_factory.mktemp("gemma") / "tokenizer.json"
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture(scope="session")
def shapes_dir(made_once) -> Path:
    """A small prepared dataset of drawn scenes, with its test split and compositional suite."""
    from cc_jax.data import prepare

    return made_once("shapes", lambda folder: prepare.prepare("shapes:scenes=300,test_scenes=40,suite_scenes=40", folder))


@pytest.fixture(scope="session")
def tiny_run(made_once, tmp_path_factory, shapes_dir) -> Path:
    """The workdir of a few steps of a tiny model with the concept losses on `shapes_dir`."""
    from cc_jax.train import train
    from configs import shapes_cc

    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    made = made_once("concepts", lambda folder: train(config, str(folder)))
    # A copy of its own for each worker: evaluations of it write there, and a test asserts that nothing is written.
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("runs") / "concepts"))
