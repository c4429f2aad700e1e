"""Small sound inputs of each kind, to begin from."""
import io
import json
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

CAPTIONS = ["A man in the red hat, with two dogs' bowls.", "the state-of-the-art studio (New York) \u2013 50% off!",
            "Ein H\u00fcndchen \U0001f415 in tiefem Schnee\u2026", "\u732b\u304c\u5ea7\u3063\u3066\u3044\u308b",
            "AT&amp;T &lt;b&gt;"]


@cache
def images() -> list[bytes]:
    """A picture of 40 x 30 in every format and most modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)
    rgba = Image.fromarray(pixels).resize((40, 30))
    made = []
    for mode, form, options in (
            *((mode, "JPEG", {}) for mode in ("RGB", "L", "CMYK")), ("RGB", "JPEG", {"progressive": True}),
            *((mode, "PNG", {}) for mode in ("RGB", "RGBA", "P", "I;16", "1", "LA")),
            ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("RGB", "BMP", {}), ("P", "BMP", {}),
            *(("RGB", "TIFF", {"compression": kind}) for kind in (None, "tiff_lzw", "tiff_deflate")),
            ("P", "GIF", {}), ("RGB", "GIF", {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]})):
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256) if mode == "I;16" else rgba.convert(mode)
        stream = io.BytesIO()
        image.save(stream, form, **options)
        made.append(stream.getvalue())
    return made


def tar(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as writer:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            writer.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tars() -> list[bytes]:
    picture = images()[0]
    record = json.dumps({"caption": CAPTIONS[0], "captions_short": CAPTIONS[:2], "split": "test", "phrases": ["red hat"],
                         "similarity": 0.3}).encode()
    members = {"a.jpg": picture, "a.txt": CAPTIONS[0].encode(), "d/b.jpg": picture, "d/b.json": record,
               "\u00e9.png": images()[4], "\u00e9.txt": CAPTIONS[2].encode(), "x.pkl": b"x"}
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return [tar(members | {"long/" * 30 + "c.jpg": picture}, form) for form in forms]


@cache
def sentencepiece_model() -> bytes:
    from cc_jax.data.tokenizer import train_tokenizer
    with TemporaryDirectory() as place:
        train_tokenizer(CAPTIONS * 30, f"{place}/spm.model", 300)
        return Path(place, "spm.model").read_bytes()


@cache
def tokenizer_json() -> bytes:
    """One with Gemma's steps."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *"\u2581abcdefghijklmnopqrstuvwxyz.,'", "re", "red"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": name, "special": True, **flags} for i, name in enumerate(special)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {"type": "ByteFallback"},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": [["r", "e"], ["re", "d"]]}}).encode()


@cache
def dataset() -> dict[str, bytes]:
    """The files of a prepared dataset of five images."""
    from cc_jax.data.prepare import prepare
    with TemporaryDirectory() as place:
        place = Path(place)
        lines = []
        for i in range(5):
            (place / f"{i}.png").write_bytes(images()[4])
            lines.append(json.dumps({"image": f"{i}.png", "captions": CAPTIONS[:2]}))
        (place / "list.jsonl").write_text("\n".join(lines))
        (place / "spm.model").write_bytes(sentencepiece_model())
        prepare(f"jsonl:{place}/list.jsonl", place / "out", tokenizer=place / "spm.model")
        return {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.is_file()}


def features() -> list[bytes]:
    """As TFDS writes them, and as it did before."""
    module = "tensorflow_datasets.core.features"
    old = lambda name, content: {"type": f"{module}.{name}", "content": content}
    image = old("image_feature.Image", {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "png"})
    label = old("class_label_feature.ClassLabel", {"num_classes": 3})
    texts = old("sequence_feature.Sequence", {"feature": old("text_feature.Text", {}), "length": None})
    inner = {"image": image, "captions": texts, "phrase_start": label,
             "number": old("tensor_feature.Tensor", {"shape": [2], "dtype": "int64", "encoding": "none"})}
    return [dataset()["features.json"], json.dumps(old("features_dict.FeaturesDict", inner)).encode()]


def safetensors() -> bytes:
    values = np.arange(12, dtype=np.float32)
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                         "b": {"dtype": "F16", "shape": [12], "data_offsets": [24, 48]}}).encode()
    return len(header).to_bytes(8, "little") + header + values.tobytes()


def safetensors_header(data: bytes) -> bytes:
    return data[8:8 + int.from_bytes(data[:8], "little")]


def with_header(data: bytes, header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data[8 + int.from_bytes(data[:8], "little"):]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"params/t": np.ones(1, np.float32), "params/img/pos_embedding": np.ones((1, 4, 8), np.float16)})
    return stream.getvalue()


def parquet() -> list[bytes]:
    import pyarrow
    import pyarrow.parquet
    made = []
    for column in ([images()[0]] * 3, [{"bytes": data, "path": "a.jpg"} for data in images()[:3]]):
        table = pyarrow.table({
            "image": column, "caption": CAPTIONS[:3], "captions": [CAPTIONS[:2]] * 3, "split": ["train"] * 3})
        for compression in ("none", "snappy"):
            stream = io.BytesIO()
            pyarrow.parquet.write_table(table, stream, compression=compression, row_group_size=2)
            made.append(stream.getvalue())
    return made


HUGGING_FACE = {
    "model_type": "siglip", "vision_config": {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16,
                                              "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
    "text_config": {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2,
                    "vocab_size": 300, "max_position_embeddings": 64, "projection_size": 8,
                    "hidden_act": "gelu_pytorch_tanh"}}
OPEN_CLIP = {"model_cfg": {
    "embed_dim": 768, "vision_cfg": {"image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map",
                                     "timm_proj": "none"},
    "text_cfg": {"context_length": 64, "vocab_size": 32000, "width": 768, "heads": 12, "layers": 12, "no_causal_mask": True,
                 "proj_bias": True, "pool_type": "last", "act_kwargs": {"approximate": "tanh"}, "mlp_ratio": 4.0}}}

# A file of each format of suites, by its name.
CREPE = {"filename": "1.jpg", "caption": "a cat and a dog", "negative_caption": "a cat and two dogs"}
RELATION = {"image_path": "1.jpg", "bbox_x": 1, "bbox_y": 2, "bbox_w": 30, "bbox_h": 40, "relation_name": "on",
            "true_caption": "the cat is on the mat", "false_caption": "the mat is on the cat"}
SUITES = {
    "sugarcrepe": ("swap_att.json", [{"0": CREPE, "1": CREPE}]),
    "sugarcrepe_pp": ("swap_obj.json", [[{"id": 4, "caption2": "a dog, a cat"} | CREPE]]),
    "valse": ("relations.json", [{"a": {"image_file": "1.jpg", "caption": "there are no cats", "foil": "there are cats",
                                        "mturk": {"caption": 2, "foil": 1, "other": 0}}}]),
    "winoground": ("examples.jsonl", [
        {"id": 7, "image_0": "ex_7_img_0", "image_1": "ex_7_img_1", "caption_0": "an old person kisses a young person",
         "caption_1": "a young person kisses an old person", "collapsed_tag": "Object", "num_main_preds": 1}]),
    "aro": ("visual_genome_relation.json", [[RELATION]]),
    "aro_order": ("coco_karpathy_test.json", [
        [{"image": "val2014/1.jpg", "caption": ["A black cat sits on a red mat."]}]]),
    "json_lines": ("own.jsonl", [
        {"image": "1.jpg", "box": [0, 0, 5, 5.5], "caption": "a cat", "negatives": ["a dog", "a cow"], "category": "nouns"},
        {"images": ["1.jpg", "2.jpg"], "captions": ["a cat", "a dog"]},
        {"id": "t", "caption": ["a cat", "one cat"], "negatives": "a dog"}])}
