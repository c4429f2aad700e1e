"""Weights out and in against the peers themselves: the same embeddings, by their own loaders."""
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from cc_jax.convert import formats, npz
from cc_jax.convert import open_clip as reader
from cc_jax.convert.weights import Sizes, Tower, rolled
from cc_jax.data import transforms
from cc_jax.data.tokenizer import Tokenizer

# Patch 14, heads of 18, an odd MLP, a text tower of another width: nothing that B/16 could hide.
ODD = Sizes(Tower(72, 3, 269, 4), Tower(48, 2, 179, 3), patch=14, res=45, vocab_size=32_000, length=64, embed=72)
B16 = Sizes(Tower(768, 12, 3072, 12), Tower(768, 12, 3072, 12), patch=16, res=224, vocab_size=32_000, length=64, embed=768)
CLOSE = 1e-5
STEP = 2 / 255 + 1e-6      # one level of 256, of pixels in [-1, 1]


def inputs(sizes: Sizes, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images of the size the peer takes, and rows of tokens."""
    rng = np.random.default_rng(5)
    return (rng.uniform(-1, 1, (count, sizes.res, sizes.res, 3)).astype(np.float32),
            rng.integers(0, sizes.vocab_size, (count + 1, sizes.length)))


@pytest.fixture
def ours(embeddings, abstract):
    """What this project makes of the weights at a path; pixels that fill no patch are left out, as peers do."""
    def embed(path, sizes: Sizes, image, text) -> tuple[np.ndarray, np.ndarray]:
        params, _ = formats.load(str(path), abstract(sizes, scan=True))
        side = sizes.grid * sizes.patch
        return embeddings(params, image[:, :side, :side], text, sizes, scan=True)
    return embed


def hugging_faces(model, image, text) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.no_grad():
        out = model(input_ids=torch.tensor(text), pixel_values=torch.tensor(image.transpose(0, 3, 1, 2)))
    return out.image_embeds.numpy(), out.text_embeds.numpy()


def open_clips(model, image, text) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.no_grad():
        return (model.encode_image(torch.tensor(image.transpose(0, 3, 1, 2)), normalize=True).numpy(),
                model.encode_text(torch.tensor(text), normalize=True).numpy())


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=CLOSE, rtol=0)


def shake(model):
    """Makes every parameter random: norms and biases begin as ones and zeros."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def test_a_model_of_transformers_embeds_alike_here(tmp_path, transformers, ours):
    sizes = ODD
    config = transformers.SiglipConfig(
        vision_config=peer_tower(sizes.image) | dict(image_size=sizes.res, patch_size=sizes.patch),
        text_config=peer_tower(sizes.text) | dict(vocab_size=sizes.vocab_size, max_position_embeddings=sizes.length,
                                                  projection_size=sizes.embed))
    model = shake(transformers.SiglipModel(config))
    model.save_pretrained(tmp_path / "peer")
    image, text = inputs(sizes)
    assert_close(hugging_faces(model, image, text), ours(tmp_path / "peer", sizes, image, text))
    weights = formats.open_weights(str(tmp_path / "peer"))
    assert weights.sizes == sizes
    assert weights.params["t"].read()[0] == pytest.approx(np.log(model.logit_scale.exp().item()), rel=1e-6)
    assert weights.params["b"].read()[0] == model.logit_bias.item()


def peer_tower(tower: Tower) -> dict:
    return dict(hidden_size=tower.width, intermediate_size=tower.mlp_dim, num_hidden_layers=tower.depth,
                num_attention_heads=tower.num_heads)


def test_shards_of_transformers_are_read(tmp_path, transformers, random_weights, arrays):
    sizes = dataclasses.replace(ODD, vocab_size=2000)
    formats.write(random_weights(sizes), str(tmp_path / "whole"), "huggingface", "float32")
    model = transformers.SiglipModel.from_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = arrays(tmp_path / "whole"), arrays(tmp_path / "shards")
    assert whole.keys() == shards.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, shards[name])


@pytest.mark.parametrize("sizes", [ODD, B16], ids=["odd", "B/16"])
def test_transformers_opens_what_is_written(tmp_path, transformers, random_weights, ours, sizes):
    formats.write(random_weights(sizes), str(tmp_path / "out"), "huggingface", "float32")
    model, report = transformers.SiglipModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())                                  # nothing missing, unexpected or of another shape
    image, text = inputs(sizes, count=1)
    assert_close(hugging_faces(model.eval(), image, text), ours(tmp_path / "out", sizes, image, text))


def test_bfloat16_is_written_for_transformers(tmp_path, transformers, random_weights):
    import torch

    weights = random_weights(ODD)
    formats.write(weights, str(tmp_path / "out"), "huggingface", "bfloat16")
    model = transformers.SiglipModel.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    bias = model.text_model.head.bias.detach().float()
    np.testing.assert_allclose(bias, weights.params["txt/head/bias"].read(), rtol=2**-8)


@pytest.fixture(scope="module")
def timm_tower(open_clip):
    """An image tower of ODD's sizes among timm's; its gelu can be chosen."""
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer

    def vit_odd_patch14_siglip_45(pretrained=False, act_layer=None, **options):
        options = {name: options[name] for name in ("num_classes", "global_pool") if name in options}
        return VisionTransformer(img_size=45, patch_size=14, embed_dim=72, depth=3, num_heads=4, mlp_ratio=269.5 / 72,
                                 class_token=False, act_layer=gelu["form"], **options)

    gelu = {"form": "gelu_tanh"}
    vit_odd_patch14_siglip_45.__module__ = "timm.models.vision_transformer"
    register_model(vit_odd_patch14_siglip_45)
    return gelu


@pytest.fixture
def tiny_tower(timm_tower, monkeypatch):
    """The same among those that the reader here knows."""
    monkeypatch.setitem(reader.IMAGE_TOWERS, "vit_odd_patch14_siglip_45", ("odd", 14, 45))
    monkeypatch.setitem(reader.VARIANTS, "odd", (72, 3, 269, 4))
    monkeypatch.setitem(timm_tower, "form", "gelu_tanh")
    return timm_tower


def test_open_clip_opens_what_is_written(tmp_path, open_clip, tiny_tower, random_weights, ours):
    formats.write(random_weights(ODD), str(tmp_path / "out"), "open_clip", "float32")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    image, text = inputs(ODD)
    assert_close(open_clips(model.eval(), image, text), ours(tmp_path / "out", ODD, image, text))


def test_a_model_of_open_clip_embeds_alike_here(tmp_path, open_clip, tiny_tower, random_weights, ours):
    """A model that open_clip made and saved itself, by a config like its own for SigLIP 2."""
    import torch
    from safetensors.torch import save_file

    formats.write(random_weights(ODD), str(tmp_path / "out"), "open_clip", "float32")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    shake(model)
    model.logit_scale.data = torch.tensor([3.0])                     # stored as () or as (1,)
    save_file(model.state_dict(), tmp_path / "out" / "open_clip_model.safetensors")
    image, text = inputs(ODD)
    assert_close(open_clips(model, image, text), ours(tmp_path / "out", ODD, image, text))
    assert formats.open_weights(str(tmp_path / "out")).params["t"].read().tolist() == [3.0]


def test_what_exact_gelu_costs_is_small_and_said(tmp_path, open_clip, tiny_tower, random_weights, ours):
    """open_clip's own config of SigLIP 1: no act_kwargs, and an image tower that timm computes with exact gelu."""
    formats.write(random_weights(ODD), str(tmp_path / "out"), "open_clip", "float32")
    path = tmp_path / "out" / "open_clip_config.json"
    config = json.loads(path.read_text())
    del config["model_cfg"]["text_cfg"]["act_kwargs"]
    path.write_text(json.dumps(config))
    tiny_tower["form"] = "gelu"
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    image, text = inputs(ODD)
    theirs, here = open_clips(model.eval(), image, text), ours(tmp_path / "out", ODD, image, text)
    for a, b in zip(theirs, here, strict=True):
        assert CLOSE / 10 < np.abs(a - b).max() < 0.01
    assert "gelu exactly in the text tower" in formats.open_weights(str(tmp_path / "out")).notes[0]


def test_every_image_tower_is_timms(open_clip):
    """Sizes, resolution and the form of gelu, as timm has them."""
    import timm
    import torch

    for name, (variant, patch, res) in reader.IMAGE_TOWERS.items():
        with torch.device("meta"):
            tower = timm.create_model(name, num_classes=0, weight_init="skip")
        found = (tower.embed_dim, len(tower.blocks), tower.blocks[0].mlp.fc1.out_features, tower.blocks[0].attn.num_heads)
        assert found == reader.VARIANTS[variant]
        assert (tower.patch_embed.patch_size[0], tower.patch_embed.img_size[0]) == (patch, res)
        tanh = getattr(tower.blocks[0].mlp.act, "approximate", "tanh") == "tanh"
        assert tanh == (name not in reader.EXACT_GELU), name


def test_the_peers_preprocess_alike(tmp_path, transformers, open_clip, tiny_tower, random_weights, ours, photos, captions,
                                    test_data):
    """Real photos and captions, each side by its own preprocessing: nearly the same pixels, the same tokens."""
    weights = dataclasses.replace(random_weights(ODD), tokenizer={
        "spiece.model": (test_data / "tokenizer" / "spm32k.model").read_bytes()})
    for to in ("huggingface", "open_clip"):
        formats.write(weights, str(tmp_path / to), to, "float32")
    pixels = np.stack([transforms.resize(transforms.decode(photo.read_bytes()), ODD.res) for photo in photos])
    pixels = pixels.astype(np.float32) / 127.5 - 1
    tokens = Tokenizer.load(test_data / "tokenizer" / "spm32k.model").encode(captions, ODD.length)
    images = [Image.open(photo).convert("RGB") for photo in photos]

    processor = transformers.SiglipProcessor.from_pretrained(tmp_path / "huggingface")
    inputs = processor(text=captions, images=images, padding="max_length", truncation=True, return_tensors="np")
    theirs = inputs["pixel_values"].transpose(0, 2, 3, 1)
    assert np.abs(theirs - pixels).mean() < STEP                     # ours resizes in a third of the time, nearly alike
    np.testing.assert_array_equal(inputs["input_ids"], tokens)
    model = transformers.SiglipModel.from_pretrained(tmp_path / "huggingface").eval()
    assert_close(hugging_faces(model, theirs, inputs["input_ids"]), ours(tmp_path / "huggingface", ODD, theirs, tokens))

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'open_clip'}")
    theirs = np.stack([preprocess(image).numpy() for image in images]).transpose(0, 2, 3, 1)
    assert np.abs(theirs - pixels).mean() < STEP
    rows = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'open_clip'}")(captions).numpy()
    np.testing.assert_array_equal(rows, tokens)
    assert_close(open_clips(model.eval(), theirs, rows), ours(tmp_path / "open_clip", ODD, theirs, tokens))


@pytest.mark.parametrize("stacked", [False, True])
def test_open_clips_reader_of_big_vision_agrees(tmp_path, open_clip, tiny_tower, random_weights, stacked):
    """An independent reading of big_vision's npz: tensor by tensor, every bit what is written for open_clip here."""
    import torch
    from open_clip.convert import load_big_vision_weights

    weights = random_weights(ODD)
    params = rolled(weights.params) if stacked else weights.params
    npz.write(str(tmp_path / "weights.npz"), {f"params/{name}": lazy for name, lazy in params.items()})
    formats.write(weights, str(tmp_path / "out"), "open_clip", "float32")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    written = {name: value.clone() for name, value in model.state_dict().items()}
    shake(model)
    with torch.no_grad():
        load_big_vision_weights(model, str(tmp_path / "weights.npz"))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, written[name], err_msg=name)
