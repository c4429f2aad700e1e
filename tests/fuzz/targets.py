"""What reads the files of strangers, with the errors it may raise. An answer that makes no sense is an AssertionError."""
import csv
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cc_jax import strict_json
from cc_jax.config import ConfigError
from cc_jax.data import annotate, dataset, given_phrases, images, phrases, sources, text_form, transforms
from cc_jax.data.readers import captions, files, options
from cc_jax.data.records import Note, Record, Reject
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.evals import captioned, labelled, pointing, prompts
from cc_jax.evals.suites import FORMATS
from tests.fuzz import samples
from tests.fuzz.engine import Target

MAX_PIXELS = 2**20              # while fuzzing, so that memory shows whether the limit is kept
transforms.MAX_PIXELS = images.MAX_PIXELS = MAX_PIXELS


def image(data: bytes, _: Path) -> str:
    whole = images.is_whole(data)
    try:
        pixels = transforms.decode(data, MAX_PIXELS)
    except transforms.ImageError as error:
        assert error.reason.isidentifier() and len(error.detail) < 2000
        pixels = None
    for crop in (None, 0.3):
        try:
            square = transforms.load(data, 16, crop, np.random.default_rng(0))
            assert square.shape == (16, 16, 3) and square.dtype == np.uint8 and pixels is not None
        except transforms.ImageError:
            pass
    if pixels is not None:
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        images.check(images.shrink(data, 8), decode=True)
    images_check(data)
    return f"{whole} {pixels is None or pixels.shape}"


def images_check(data: bytes) -> None:
    try:
        images.check(data)
    except transforms.ImageError:
        pass


def caption(data: bytes, _: Path) -> str:
    text = data.decode("utf-8", "surrogateescape")
    cleaned, notes = captions.clean(text)
    problem = annotate.check_caption(cleaned)
    if problem is None:
        cleaned.encode()
        assert text_form.canonicalize(cleaned).isascii() or cleaned
        text_form.lower(cleaned)
    captions.printable(text).encode()
    return f"{problem and problem[0]} {notes}"


def phrase_extraction(data: bytes, _: Path) -> int:
    text = data.decode("utf-8", "replace")
    if annotate.check_caption(text):
        return -1
    found = phrases.located_phrases(text)
    for phrase, span in found:
        assert 0 <= span.start < span.end <= len(text) and phrases.normalise(text[span.start:span.end]) == phrase
    return min(len(found), 5)


def phrases_given(data: bytes, _: Path) -> str:
    text = data.decode("utf-8", "replace")
    given, _, text = text.partition("\n")
    try:
        listed = json.loads(given)
    except (ValueError, RecursionError):
        listed = given.split("|")
    if annotate.check_caption(text) or not isinstance(listed, list):
        return "no caption"
    located, problems = given_phrases.locate(listed, text)
    for phrase, span in located:
        assert phrases.normalise(text[span.start:span.end]) == phrase
    return f"{len(located) > 0} {sorted({reason for reason, _ in problems})}"


TEXTS = ["", "a red dog", samples.CAPTIONS[0], samples.CAPTIONS[2], "<eos> <pad> \u2581 \x00 \u0130 e\u0301", "x" * 3000]


def tokenizer(name: str, data: bytes, folder: Path) -> str:
    (folder / name).write_bytes(data)
    made = Tokenizer.load(folder / name)
    rows = made.encode(TEXTS, 16)
    assert rows.shape == (len(TEXTS), 16) and rows.min() >= 0 and rows.max() < made.vocab_size
    for text in TEXTS:
        spans = made.token_spans(text, [(0, len(text)), (0, min(1, len(text)))], 64)
        assert spans.shape == (2, 2) and 0 <= spans.min() and spans.max() <= 64
    return str(made.form)


def tokenizer_form(data: bytes, folder: Path) -> str:
    (folder / "spm.model").write_bytes(samples.sentencepiece_model())
    (folder / "spm_form.json").write_bytes(data)
    return str(Tokenizer.load(folder / "spm.model").form)


def tfds(name: str, data: bytes, folder: Path) -> str:
    """A prepared dataset one of whose files is this."""
    for file, content in samples.dataset().items():
        (folder / file).write_bytes(data if file == name else content)
    outcome = ""
    for door in (lambda: dataset.open_split(folder, "train"), lambda: dataset.read_metadata(folder),
                 lambda: labelled.open_labelled(f"tfds:{folder},split=train,label=phrase_start")):
        try:
            door()
        except ConfigError as error:
            assert str(folder) in str(error), f"unnamed: {error}"
            outcome += f"{str(error)[len(str(folder)):][:20]}"
    return outcome + source("tfds", folder)


def source(kind: str, path: Path, spec: str = "") -> str:
    """The reasons of what a source gives. Keys are unique, and every item is sound."""
    keys, reasons = set(), set()
    for item in sources.open_source(f"{kind}:{path}{spec}"):
        item.key.encode()
        if isinstance(item, Record):
            assert isinstance(item.image, bytes) and isinstance(item.captions, tuple) and item.key not in keys
            keys.add(item.key)
            annotate.check_captions(item)
        elif isinstance(item, Reject):
            assert item.reason.isidentifier() and 0 < len(item.detail) < 2000
            reasons.add(item.reason)
        else:
            assert isinstance(item, Note)
            reasons.add(item.reason)
    return f"{min(len(keys), 3)} {sorted(reasons)}"


def of_file(kind: str, name: str, spec: str, data: bytes, folder: Path) -> str:
    for number in range(3):
        if not (folder / f"{number}.png").exists():
            (folder / f"{number}.png").write_bytes(samples.images()[4])
    (folder / name).write_bytes(data)
    return source(kind, folder / name, spec)


def of_folder(data: bytes, folder: Path) -> str:
    (folder / "a.jpg").write_bytes(samples.images()[0])
    (folder / "a.txt").write_bytes(data)
    return source("folder", folder)


def npz(data: bytes, folder: Path) -> int:
    from cc_jax.convert import big_vision
    (folder / "w.npz").write_bytes(data)
    weights = big_vision.read([str(folder / "w.npz")])
    return len([lazy.read() for lazy in weights.params.values()])


def npy(data: bytes, folder: Path) -> int:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("params/t.npy", data)
    return npz(stream.getvalue(), folder)


def safetensors(data: bytes, folder: Path) -> list:
    from cc_jax.convert import safetensors as reader
    (folder / "model.safetensors").write_bytes(data)
    return [lazy.read().shape for lazy in reader.read(str(folder / "model.safetensors")).values()]


def weights_config(kind: str, data: bytes, folder: Path) -> str:
    from cc_jax.convert import hugging_face, open_clip
    module = {"hugging_face": hugging_face, "open_clip": open_clip}[kind]
    (folder / module.CONFIG).write_bytes(data)
    sizes = module.read_config(str(folder))
    return type(sizes).__name__


def weights_index(data: bytes, folder: Path) -> list:
    from cc_jax.convert import hugging_face
    (folder / "a.safetensors").write_bytes(samples.safetensors())
    (folder / hugging_face.INDEX).write_bytes(data)
    return sorted(hugging_face.read_tensors(str(folder)))


def suite(kind: str, data: bytes, folder: Path) -> str:
    name, _ = samples.SUITES[kind]
    (folder / name).write_bytes(data)
    items = FORMATS[kind](str(folder)).items
    for item in items:
        for text in (*item.right, *item.wrong):
            text.encode()
    return f"{min(len(items), 3)} {sorted({item.category for item in items})[:3]}"


def captions_of(name: str, data: bytes, folder: Path) -> int:
    (folder / "a.png").write_bytes(samples.images()[4])
    (folder / name).write_bytes(data)
    found = captioned.open_file(str(folder / name), "test", partial=True)
    for text in (text for of_image in found.captions for text in of_image):
        text.encode()
    return len(found.ids)


def boxes(data: bytes, folder: Path) -> int:
    (folder / "a.png").write_bytes(samples.images()[4])
    (folder / "boxes.jsonl").write_bytes(data)
    return len(pointing.read(str(folder / "boxes.jsonl")))


def class_names(data: bytes, folder: Path) -> int:
    (folder / "names.json").write_bytes(data)
    return len(prompts.read_names(["a", "b"], str(folder / "names.json")))


def templates(data: bytes, folder: Path) -> int:
    (folder / "templates.txt").write_bytes(data)
    return len(prompts.read_templates(str(folder / "templates.txt")))


def plain_json(data: bytes, _: Path) -> str:
    """As `json` reads it, where both do."""
    value = strict_json.loads(data)
    assert repr(json.loads(data.decode("utf-8-sig"))) == repr(value)
    return type(value).__name__


def config(name: str) -> Callable[[bytes, Path], Any]:
    import importlib
    get_config = importlib.import_module(f"configs.{name}").get_config
    return lambda data, _: len(get_config(data.decode("utf-8", "surrogateescape")).to_dict())


def arguments(data: bytes, folder: Path) -> str:
    """What follows `--source KIND:`, without a look at files."""
    text = data.decode("utf-8", "surrogateescape")
    _, given = options.parse_argument("tar", text, ("captions", "split"))
    names = []
    for name in files.expand_braces(text):
        names.append(name)
        if len(names) == 1000:
            break
    return f"{len(names)} {sorted(given)} {options.names(text)}"[:200]


def number_of_steps(data: bytes, _: Path) -> Any:
    from cc_jax.config import steps
    return steps(data.decode("utf-8", "surrogateescape"), 1000)


def as_json(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def lines(*values: Any) -> list[bytes]:
    return [b"\n".join(as_json(*values))]


def table(delimiter: str) -> list[bytes]:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(["image", "caption", "split"])
    writer.writerows([["0.png", 'a "red" dog,\nin\ttwo lines', "train"], ["1.png", "b", "test"]])
    return [stream.getvalue().encode()]


def json_target(run: Callable, seeds: Callable, name: str = "", **changes: Any) -> Target:
    return Target(run, seeds, (ConfigError,), name, is_json=True, **changes)


def source_target(kind: str, name: str, spec: str, seeds: Callable, **changes: Any) -> Target:
    return Target(partial(of_file, kind, name, spec), seeds, (ValueError, FileNotFoundError), **changes)


def tfds_target(name: str, seeds: Callable | None = None, **changes: Any) -> Target:
    allowed = ValueError, FileNotFoundError
    return Target(partial(tfds, name), seeds or (lambda: [samples.dataset()[name]]), allowed, speed=0.2, **changes)


def config_target(name: str) -> Target:
    tokens = (b"batch_size=", b"steps=", b"res=", b"=True", b",", b"guard")
    return Target(config(name), lambda: [b"runlocal", b"batch_size=64,res=256,runlocal", b"data=datasets/x"], (ValueError,),
                  speed=0.05, tokens=tokens)


def suite_target(kind: str) -> Target:
    return json_target(partial(suite, kind), lambda: lines(*samples.SUITES[kind][1]), speed=0.5)


CAPTION_BYTES = lambda: [text.encode() for text in samples.CAPTIONS]
PICTURES = [{"image": "0.png", "caption": "a red dog", "split": "test"},
            {"image": "1.png", "captions": samples.CAPTIONS[:2], "phrases": [["man"], None]}]
KARPATHY = {"images": [{"filename": "a.png", "filepath": "", "split": "test", "sentences": [{"raw": "a dog"}]}]}
CAPTIONED = [{"image": "a.png", "caption": "a", "split": "test"}, {"image": "a.png", "captions": ["b"], "split": "test"}]
BOXES = {"image": "a.png", "phrases": [{"text": "red", "boxes": [[0, 0, 4, 4]], "category": "x"}]}
SHARD = "cc-train.array_record-00000-of-00001"

TARGETS: dict[str, Target] = {
    # What records hold.
    "image": Target(image, samples.images, speed=2),
    "caption": Target(caption, CAPTION_BYTES, speed=2),
    "phrases": Target(phrase_extraction, CAPTION_BYTES, tokens=(
        b" of ", b"the ", b"'s ", b"-", b". ", b" and ", b"n't", b"...")),
    "phrases_given": Target(
        phrases_given, lambda: [b'["red hat", "the dog"]\nA man in the red hat with the dog.', b"a|b\na b"]),
    # Sources.
    "tar": source_target("tar", "0.tar", ",captions=caption|txt,split=split", samples.tars, tokens=(
        b"ustar\x0000", b"ustar  \0", b"0000644\0", b"LongLink", b"30 path=a.jpg\n")),
    "tar_gz": source_target("tar", "0.tar.gz", "", lambda: [samples.tar({"a.txt": b"a" * 99}, mode="w:gz")], speed=0.3),
    "tar_xz": source_target("tar", "0.tar.xz", "", lambda: [samples.tar({"a.txt": b"a" * 99}, mode="w:xz")], speed=0.3),
    "jsonl": source_target("jsonl", "0.jsonl", "", lambda: lines(*PICTURES), is_json=True),
    "csv": source_target("csv", "0.csv", ",split=split", lambda: table(",")),
    "tsv": source_target("tsv", "0.tsv", ",image=#1,captions=#2,quotes=no", lambda: table("\t")),
    "parquet": source_target("parquet", "0.parquet", "", samples.parquet),
    "folder": Target(of_folder, CAPTION_BYTES, (ValueError, FileNotFoundError), speed=0.5),
    "arguments": Target(arguments, lambda: [b"a/{00..12}.tar,captions=a|b,split=x", b"{a,b{0..3}}*.tar"], (ValueError,),
                        tokens=(b"{0..99999999}", b"{", b"..", b"}", b",", b"{9..1}", b"{{")),
    # Prepared datasets and vocabularies.
    "tfds_features": tfds_target("features.json", samples.features, is_json=True),
    "tfds_info": tfds_target("dataset_info.json", is_json=True),
    "tfds_metadata": tfds_target("metadata.json", is_json=True),
    "array_record": tfds_target(SHARD),
    "sentencepiece": Target(
        partial(tokenizer, "spm.model"), lambda: [samples.sentencepiece_model()], (ValueError,), "spm.model"),
    "tokenizer_json": Target(
        partial(tokenizer, "t.json"), lambda: [samples.tokenizer_json()], (ValueError,), "t.json", is_json=True),
    "tokenizer_form": Target(tokenizer_form, lambda: as_json({"cleaning": "lower", "pad_id": 0}), (ValueError,),
                             "spm_form.json", is_json=True, speed=0.2),
    # Weights.
    "npz": Target(npz, lambda: [samples.npz()], (ConfigError,), "w.npz"),
    "npy": Target(npy, lambda: [samples.npy(np.ones((2, 3), kind)) for kind in ("f4", ">f8", "V2", "f2")], (ConfigError,),
                  "w.npz", tokens=(b"'descr': '|O'", b"'shape': (9999999999,)", b"'fortran_order': True", b"V2", b"<f4")),
    "safetensors": Target(safetensors, lambda: [samples.safetensors()], (ConfigError,), "model.safetensors",
                          json_within=(samples.safetensors_header, samples.with_header)),
    "hugging_face": json_target(
        partial(weights_config, "hugging_face"), lambda: as_json(samples.HUGGING_FACE), "config.json"),
    "open_clip": json_target(
        partial(weights_config, "open_clip"), lambda: as_json(samples.OPEN_CLIP), "open_clip_config.json"),
    "weights_index": json_target(
        weights_index, lambda: as_json({"weight_map": dict.fromkeys("ab", "a.safetensors")}), "safetensors", speed=0.5),
    # What models are evaluated on.
    **{f"suite_{kind}": suite_target(kind) for kind in samples.SUITES},
    "karpathy": json_target(partial(captions_of, "k.json"), lambda: as_json(KARPATHY), "k.json"),
    "captions_jsonl": json_target(partial(captions_of, "k.jsonl"), lambda: lines(*CAPTIONED), "k.jsonl"),
    "captions_csv": Target(partial(captions_of, "k.csv"), lambda: [b'filename,raw,split\na.png,"[""a"", ""b""]",test\n'],
                           (ConfigError,), "k.csv"),
    "boxes": json_target(boxes, lambda: lines(BOXES), "boxes.jsonl"),
    "class_names": json_target(class_names, lambda: as_json({"a": "hen", "b": ["cup", "mug"]}), "names.json", speed=0.5),
    "templates": Target(templates, lambda: [b"a photo of a {}.\n{}\n"], (ConfigError,), "templates.txt", speed=0.3),
    # What is typed, and JSON itself.
    **{f"config_{name}": config_target(name) for name in (
        "shapes_cc", "photos_cc", "siglip_b16", "siglip_b16_cc", "siglip_b16_cc_finetune", "siglip_lit")},
    "steps": Target(
        number_of_steps, lambda: [b"10", b"2 %", b"0.5 %", b"1000000"], (ValueError,), tokens=(b" %", b"e", b"inf")),
    "json": Target(plain_json, lambda: as_json(samples.HUGGING_FACE, [1, -2.5e3, "\u00e9\\\"", None, True]), (ValueError,),
                   is_json=True),
}
