"""open_clip's SigLIP models: a directory with open_clip_config.json and open_clip_model.safetensors.

The image tower is timm's, named in the config. For B/16, L/16 (up to 384) and So400m/14 timm computes gelu exactly where
big_vision trained with its tanh form, and open_clip's config of SigLIP 1 says the same of the text tower. The text tower
can be told (`act_kwargs`), and is, in what is written here; the image tower can't, so its embeddings differ a little.
"""
import json
from collections.abc import Iterator

import numpy as np
from etils import epath

from cc_jax.convert import directory, layout, safetensors
from cc_jax.convert.layout import PATCHES, ROWS, SCALAR, Entry, dense, entry, heads, norm, out
from cc_jax.convert.weights import Sizes, Tower, Weights, WeightsError, reading_order, require, shapes_of
from cc_jax.models.vit import VARIANTS

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")
# timm's name -> variant of the image tower, patch, resolution; a name is all that open_clip can choose by.
IMAGE_TOWERS = {
    "vit_base_patch32_siglip_256": ("B", 32, 256),
    "vit_base_patch16_siglip_224": ("B", 16, 224),
    "vit_base_patch16_siglip_256": ("B", 16, 256),
    "vit_base_patch16_siglip_384": ("B", 16, 384),
    "vit_base_patch16_siglip_512": ("B", 16, 512),
    "vit_large_patch16_siglip_256": ("L", 16, 256),
    "vit_large_patch16_siglip_384": ("L", 16, 384),
    "vit_large_patch16_siglip_512": ("L", 16, 512),
    "vit_so400m_patch14_siglip_224": ("So400m", 14, 224),
    "vit_so400m_patch14_siglip_378": ("So400m", 14, 378),
    "vit_so400m_patch14_siglip_384": ("So400m", 14, 384),
    "vit_so400m_patch16_siglip_256": ("So400m", 16, 256),
    "vit_so400m_patch16_siglip_384": ("So400m", 16, 384),
    "vit_so400m_patch16_siglip_512": ("So400m", 16, 512),
    "vit_giantopt_patch16_siglip_256": ("g-opt", 16, 256),
    "vit_giantopt_patch16_siglip_384": ("g-opt", 16, 384),
}
EXACT_GELU = {name for name, (variant, patch, res) in IMAGE_TOWERS.items()
              if (variant, patch) in (("B", 16), ("So400m", 14)) or (variant == "L" and res < 512)}
TEXT = dict(no_causal_mask=True, proj_bias=True, pool_type="last")      # what makes it SigLIP's text tower


def read(path: str) -> Weights:
    """The weights of a directory. Raises WeightsError for another model, or tensors that do not fit its config."""
    sizes, notes = read_config(path)
    files = [f"{path}/{name}" for name in WEIGHTS if epath.Path(f"{path}/{name}").exists()]
    if not files:
        directory.refuse_pickles(path)
        raise WeightsError(f"{path}/{WEIGHTS[0]} is missing; fetch it too.")
    tensors = safetensors.read(files[0])
    table = list(entries(sizes))
    tensors |= {name: tensors[name].then((), lambda x: x.reshape(())) for name in ("logit_scale", "logit_bias")
                if name in tensors and tensors[name].shape == (1,)}      # either is in use
    require(shapes_of(tensors), layout.their_shapes(table, sizes), files[0], f"its {CONFIG}")
    params = layout.from_peer(table, tensors, sizes)
    return Weights(params, path, sizes, directory.tokenizer_files(path), masks_padding=False, notes=notes)


def read_config(path: str) -> tuple[Sizes, tuple[str, ...]]:
    """(sizes, notes on what the peer computes otherwise) by the directory's open_clip_config.json."""
    where = f"{path}/{CONFIG}"
    model = directory.read_json(where).get("model_cfg")
    image, text = (model.get(name) if isinstance(model, dict) else None for name in ("vision_cfg", "text_cfg"))
    if not isinstance(image, dict) or not isinstance(text, dict):
        raise WeightsError(f"{where} has no model_cfg with vision_cfg and text_cfg; this reads open_clip's SigLIP models.")
    name = image.get("timm_model_name")
    ends = image.get("timm_pool"), image.get("timm_proj")
    if name not in list(IMAGE_TOWERS) or ends != ("map", "none"):
        raise WeightsError(f"{where}: the image tower is {name!r} with timm_pool and timm_proj {ends}; this reads "
                           f"('map', 'none') and one of {', '.join(IMAGE_TOWERS)}.")
    for key, only in TEXT.items():
        if text.get(key) != only:
            raise WeightsError(f"{where}: text_cfg.{key}={text.get(key)!r}; SigLIP's text tower has {only!r}.")
    number = lambda block, key: directory.number(where, block, key)
    width, ratio = number(text, "width"), text.get("mlp_ratio", 4.0)
    if not isinstance(ratio, int | float) or not 0 < ratio < 100:
        raise WeightsError(f"{where}: text_cfg.mlp_ratio={ratio!r}; it must be a number above 0.")
    variant, patch, res = IMAGE_TOWERS[name]
    image_width, depth, mlp_dim, num_heads = VARIANTS[variant]
    sizes = Sizes(Tower(image_width, depth, mlp_dim, num_heads),
                  Tower(width, number(text, "layers"), int(width * ratio), number(text, "heads")), patch, res,
                  number(text, "vocab_size"), number(text, "context_length"), number(model, "embed_dim"))
    return directory.checked_sizes(where, sizes), gelu_notes(name, _has_tanh(text))


def gelu_notes(name: str, text_has_tanh: bool = True) -> tuple[str, ...]:
    """What is to be said of a model with this image tower: where open_clip computes another gelu than this project."""
    exact = ["image"] * (name in EXACT_GELU) + ["text"] * (not text_has_tanh)
    return (f"open_clip computes gelu exactly in the {' and the '.join(exact)} tower of this model, this project in the "
            "tanh form that SigLIP was trained with: embeddings differ a little",) if exact else ()


def _has_tanh(text: dict) -> bool:
    options = text.get("act_kwargs")
    return isinstance(options, dict) and options.get("approximate") == "tanh"


def entries(sizes: Sizes) -> Iterator[Entry]:
    """All tensors of a `CustomTextCLIP` with a SigLIP pair and the parameters they hold."""
    yield from (entry("logit_scale", "t", SCALAR), entry("logit_bias", "b", SCALAR))
    trunk, text, parts = "visual.trunk", "text", ("query", "key", "value")
    yield entry(f"{trunk}.patch_embed.proj.weight", "img/embedding/kernel", PATCHES)
    yield entry(f"{trunk}.patch_embed.proj.bias", "img/embedding/bias")
    yield entry(f"{trunk}.pos_embed", "img/pos_embedding")
    yield entry(f"{text}.token_embedding.weight", "txt/Embed_0/embedding")
    yield entry(f"{text}.positional_embedding", "txt/pos_embedding", ROWS)
    for i in range(sizes.image.depth):
        theirs, ours = f"{trunk}.blocks.{i}", f"img/Transformer/encoderblock_{i}"
        yield from norm(f"{theirs}.norm1", f"{ours}/LayerNorm_0")
        yield from norm(f"{theirs}.norm2", f"{ours}/LayerNorm_1")
        yield from heads(f"{theirs}.attn.qkv.weight", f"{theirs}.attn.qkv.bias", f"{ours}/MultiHeadDotProductAttention_0",
                         parts)
        yield from out(f"{theirs}.attn.proj", f"{ours}/MultiHeadDotProductAttention_0")
        yield from _mlp(f"{theirs}.mlp", ("fc1", "fc2"), f"{ours}/MlpBlock_0")
    for i in range(sizes.text.depth):
        theirs, ours = f"{text}.transformer.resblocks.{i}", f"txt/Encoder_0/encoderblock_{i}"
        yield from norm(f"{theirs}.ln_1", f"{ours}/LayerNorm_0")
        yield from norm(f"{theirs}.ln_2", f"{ours}/LayerNorm_1")
        yield from heads(f"{theirs}.attn.in_proj_weight", f"{theirs}.attn.in_proj_bias",
                         f"{ours}/MultiHeadDotProductAttention_0", parts)
        yield from out(f"{theirs}.attn.out_proj", f"{ours}/MultiHeadDotProductAttention_0")
        yield from _mlp(f"{theirs}.mlp", ("c_fc", "c_proj"), f"{ours}/MlpBlock_0")
    yield from norm(f"{trunk}.norm", "img/Transformer/encoder_norm")
    yield from norm(f"{text}.ln_final", "txt/Encoder_0/encoder_norm")
    yield from dense(f"{text}.text_projection", "txt/head")
    pool, head = f"{trunk}.attn_pool", "img/MAPHead_0"
    attention = f"{head}/MultiHeadDotProductAttention_0"
    yield entry(f"{pool}.latent", f"{head}/probe")
    yield from heads(f"{pool}.q.weight", f"{pool}.q.bias", attention, ("query",))
    yield from heads(f"{pool}.kv.weight", f"{pool}.kv.bias", attention, ("key", "value"))
    yield from out(f"{pool}.proj", attention)
    yield from norm(f"{pool}.norm", f"{head}/LayerNorm_0")
    yield from _mlp(f"{pool}.mlp", ("fc1", "fc2"), f"{head}/MlpBlock_0")


def _mlp(theirs: str, parts: tuple[str, str], ours: str) -> Iterator[Entry]:
    for i, part in enumerate(parts):
        yield from dense(f"{theirs}.{part}", f"{ours}/Dense_{i}")


def image_tower(sizes: Sizes, where: str) -> str:
    """timm's name for the image tower. Raises WeightsError where timm has none of these sizes."""
    tower = sizes.image
    for name, (variant, patch, res) in IMAGE_TOWERS.items():
        if (VARIANTS[variant], patch) == ((tower.width, tower.depth, tower.mlp_dim, tower.num_heads), sizes.patch) and (
                res == sizes.res and sizes.embed == tower.width):
            return name
    raise WeightsError(f"{where}: open_clip takes image towers by timm's names, and none is of {tower}, patch "
                       f"{sizes.patch}, resolution {sizes.res} and embeddings of {sizes.embed}; there are "
                       f"{', '.join(IMAGE_TOWERS)}.")


def config(sizes: Sizes, name: str, cleaning: str) -> dict:
    """open_clip_config.json."""
    ratio = sizes.text.mlp_dim / sizes.text.width
    if int(sizes.text.width * ratio) != sizes.text.mlp_dim:     # rounded down by a hair
        ratio = float(np.nextafter(ratio, np.inf))
    return dict(
        model_cfg=dict(
            embed_dim=sizes.embed, init_logit_bias=-10, custom_text=True,
            vision_cfg=dict(image_size=sizes.res, timm_model_name=name, timm_model_pretrained=False, timm_pool="map",
                            timm_proj="none"),
            text_cfg=TEXT | dict(
                context_length=sizes.length, vocab_size=sizes.vocab_size, hf_tokenizer_name="tokenizer beside this file",
                tokenizer_kwargs=dict(clean=cleaning), width=sizes.text.width, heads=sizes.text.num_heads,
                layers=sizes.text.depth, mlp_ratio=ratio, norm_kwargs=dict(eps=1e-6), act_kwargs=dict(approximate="tanh"))),
        preprocess_cfg=dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear", resize_mode="squash"))


def write(weights: Weights, path: str, dtype: np.dtype) -> None:
    """Fills the directory `path` with what `open_clip.create_model_and_transforms("local-dir:PATH")` reads."""
    sizes = weights.complete()
    name = image_tower(sizes, weights.where)
    tensors = layout.to_peer(entries(sizes), weights.params)
    safetensors.write(f"{path}/{WEIGHTS[0]}", {name: tensors[name] for name in reading_order(tensors)}, dtype)
    content = config(sizes, name, "lower" if sizes.kind == "siglip2" else "canonicalize")
    epath.Path(f"{path}/{CONFIG}").write_text(json.dumps(content, indent=2) + "\n")
    directory.write_tokenizer(weights, path, sizes.length)
