"""Hugging Face's `SiglipModel`: a directory with config.json and model.safetensors, whole or in shards.

SigLIP 2 models of a fixed resolution are of this class, too; those of any resolution ("naflex", `Siglip2Model`) are not.
"""
import json
import re
from collections.abc import Iterator

import numpy as np
from etils import epath

from cc_jax.convert import directory, layout, safetensors
from cc_jax.convert.layout import PATCHES, ROWS, Entry, dense, entry, heads, norm, out
from cc_jax.convert.weights import Lazy, Sizes, Tower, Weights, WeightsError, reading_order, require, shapes_of

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# What a config leaves out, with the class's own defaults (B/16 224).
TOWER_DEFAULTS = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                      hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
TEXT_DEFAULTS = TOWER_DEFAULTS | dict(vocab_size=32_000, max_position_embeddings=64)
IMAGE_DEFAULTS = TOWER_DEFAULTS | dict(image_size=224, patch_size=16, num_channels=3, vision_use_head=True)
FIXED = dict(hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, num_channels=3, vision_use_head=True)
SHARD = re.compile(r"[\w-][\w.-]{0,200}")      # a file's name, without folders
BUFFERS = ("embeddings.position_ids",)      # older files hold these counters


def read(path: str) -> Weights:
    """The weights of a directory. Raises WeightsError for another model, or tensors that do not fit its config."""
    sizes = read_config(path)
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if not name.endswith(BUFFERS)}
    table = list(entries(sizes))
    require(shapes_of(tensors), layout.their_shapes(table, sizes), path, f"its {CONFIG}")
    params = layout.from_peer(table, tensors, sizes)
    return Weights(params, path, sizes, directory.tokenizer_files(path), masks_padding=False)


def read_config(path: str) -> Sizes:
    """The sizes that the directory's config.json gives."""
    config = directory.read_json(f"{path}/{CONFIG}")
    if config.get("model_type") != "siglip":
        raise WeightsError(f"{path}/{CONFIG} is of a model of type {config.get('model_type')!r}; this reads 'siglip': "
                           "SigLIP and SigLIP 2 with both towers and a fixed resolution (not naflex).")
    image, text = ({} if config.get(name) is None else config[name] for name in ("vision_config", "text_config"))
    if not isinstance(image, dict) or not isinstance(text, dict):
        raise WeightsError(f"{path}/{CONFIG}: vision_config and text_config must be objects of settings.")
    image, text = IMAGE_DEFAULTS | image, TEXT_DEFAULTS | text
    for name, only in FIXED.items():
        for found in (image.get(name, only), text.get(name, only)):
            if found != only:
                raise WeightsError(f"{path}/{CONFIG}: {name}={found!r}; this architecture has {only!r}.")
    number = lambda block, name: directory.number(f"{path}/{CONFIG}", block, name)
    tower = lambda block: Tower(*(number(block, name) for name in (
        "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")))
    return directory.checked_sizes(f"{path}/{CONFIG}", Sizes(
        tower(image), tower(text), number(image, "patch_size"), number(image, "image_size"), number(text, "vocab_size"),
        number(text, "max_position_embeddings"), number({"projection_size": text["hidden_size"]} | text, "projection_size")))


def read_tensors(path: str) -> dict[str, Lazy]:
    """The tensors of the one file, or of all shards that the index lists."""
    if epath.Path(f"{path}/{WEIGHTS}").exists():
        return safetensors.read(f"{path}/{WEIGHTS}")
    if not epath.Path(f"{path}/{INDEX}").exists():
        directory.refuse_pickles(path)
        raise WeightsError(f"{path} has neither {WEIGHTS} nor {INDEX}; fetch it too.")
    listed = directory.read_json(f"{path}/{INDEX}").get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) and SHARD.fullmatch(file) for file in listed.values()):
        raise WeightsError(f"{path}/{INDEX} has no 'weight_map' from tensors to files in its directory.")
    tensors = {}
    for file in sorted(set(listed.values())):
        if not epath.Path(f"{path}/{file}").is_file():
            raise WeightsError(f"{path}/{file} is missing, a shard that {INDEX} lists; fetch it too.")
        shard = safetensors.read(f"{path}/{file}")
        wrong = sorted(shard.keys() ^ {name for name, place in listed.items() if place == file})
        if wrong:
            raise WeightsError(f"{path}/{file} and {INDEX} differ about {len(wrong)} tensors, such as {wrong[0]!r}; fetch "
                               "both again.")
        tensors |= shard
    return tensors


def entries(sizes: Sizes) -> Iterator[Entry]:
    """All tensors of a `SiglipModel` and the parameters they hold."""
    yield from (entry("logit_scale", "t"), entry("logit_bias", "b"))        # the scale's logarithm on both sides
    vision, text = "vision_model", "text_model"
    yield entry(f"{vision}.embeddings.patch_embedding.weight", "img/embedding/kernel", PATCHES)
    yield entry(f"{vision}.embeddings.patch_embedding.bias", "img/embedding/bias")
    yield entry(f"{vision}.embeddings.position_embedding.weight", "img/pos_embedding", ROWS)
    yield entry(f"{text}.embeddings.token_embedding.weight", "txt/Embed_0/embedding")
    yield entry(f"{text}.embeddings.position_embedding.weight", "txt/pos_embedding", ROWS)
    for theirs, ours, depth in ((vision, "img/Transformer", sizes.image.depth), (text, "txt/Encoder_0", sizes.text.depth)):
        for i in range(depth):
            yield from _block(f"{theirs}.encoder.layers.{i}", f"{ours}/encoderblock_{i}")
    yield from norm(f"{vision}.post_layernorm", "img/Transformer/encoder_norm")
    yield from norm(f"{text}.final_layer_norm", "txt/Encoder_0/encoder_norm")
    yield from dense(f"{text}.head", "txt/head")
    head, attention = "img/MAPHead_0", "img/MAPHead_0/MultiHeadDotProductAttention_0"
    yield entry(f"{vision}.head.probe", f"{head}/probe")
    yield from heads(f"{vision}.head.attention.in_proj_weight", f"{vision}.head.attention.in_proj_bias", attention,
                     ("query", "key", "value"))
    yield from out(f"{vision}.head.attention.out_proj", attention)
    yield from norm(f"{vision}.head.layernorm", f"{head}/LayerNorm_0")
    yield from _mlp(f"{vision}.head.mlp", f"{head}/MlpBlock_0")


def _block(theirs: str, ours: str) -> Iterator[Entry]:
    yield from norm(f"{theirs}.layer_norm1", f"{ours}/LayerNorm_0")
    yield from norm(f"{theirs}.layer_norm2", f"{ours}/LayerNorm_1")
    for their_part, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        projection = f"{theirs}.self_attn.{their_part}"
        yield from heads(f"{projection}.weight", f"{projection}.bias", f"{ours}/MultiHeadDotProductAttention_0", (part,))
    yield from out(f"{theirs}.self_attn.out_proj", f"{ours}/MultiHeadDotProductAttention_0")
    yield from _mlp(f"{theirs}.mlp", f"{ours}/MlpBlock_0")


def _mlp(theirs: str, ours: str) -> Iterator[Entry]:
    yield from dense(f"{theirs}.fc1", f"{ours}/Dense_0")
    yield from dense(f"{theirs}.fc2", f"{ours}/Dense_1")


def config(sizes: Sizes, dtype: str) -> dict:
    """config.json of a `SiglipModel`."""
    tower = lambda tower: dict(TOWER_DEFAULTS, hidden_size=tower.width, intermediate_size=tower.mlp_dim,
                               num_hidden_layers=tower.depth, num_attention_heads=tower.num_heads)
    ends = dict(pad_token_id=0, eos_token_id=1, bos_token_id=2) if sizes.kind == "siglip2" else dict(
        pad_token_id=1, eos_token_id=1, bos_token_id=None)
    return dict(
        architectures=["SiglipModel"], model_type="siglip", dtype=dtype, initializer_factor=1.0,
        vision_config=tower(sizes.image) | dict(model_type="siglip_vision_model", image_size=sizes.res,
                                                patch_size=sizes.patch, num_channels=3),
        text_config=tower(sizes.text) | ends | dict(model_type="siglip_text_model", vocab_size=sizes.vocab_size,
                                                    max_position_embeddings=sizes.length, projection_size=sizes.embed))


def preprocessor(sizes: Sizes) -> dict:
    """preprocessor_config.json: this project's own transform, bilinear with antialias to a square, to [-1, 1]."""
    return dict(image_processor_type="SiglipImageProcessor", processor_class="SiglipProcessor", do_convert_rgb=True,
                do_resize=True, size=dict(height=sizes.res, width=sizes.res), resample=2, do_rescale=True,
                rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def write(weights: Weights, path: str, dtype: np.dtype) -> None:
    """Fills the directory `path` with what `SiglipModel.from_pretrained` and `SiglipProcessor.from_pretrained` read."""
    sizes = weights.complete()
    if sizes.embed != sizes.image.width:
        raise WeightsError(f"{weights.where}: the image tower ends in a Dense from {sizes.image.width} to {sizes.embed}, "
                           "for which `SiglipModel` has no place; only models without it (num_classes=0) can be written.")
    tensors = layout.to_peer(entries(sizes), weights.params)
    safetensors.write(f"{path}/{WEIGHTS}", {name: tensors[name] for name in reading_order(tensors)}, dtype)
    files = {CONFIG: config(sizes, str(dtype)), "preprocessor_config.json": preprocessor(sizes)}
    for name, content in files.items():
        epath.Path(f"{path}/{name}").write_text(json.dumps(content, indent=2) + "\n")
    directory.write_tokenizer(weights, path, sizes.length)
