"""The same towers and step in PyTorch, to be timed beside: timm's image tower, open_clip's text tower and SigLIP loss."""
import contextlib
import functools
from collections.abc import Callable, Mapping

import numpy as np

from cc_jax.models.two_towers import TwoTowers, sizes


@functools.cache
def missing_operators() -> object:
    """Declares two operators that torchvision expects of PyTorch, and a CPU-only build lacks; they last as long as this."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):     # they are there
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def import_torch():
    """PyTorch, beside which torchvision can be imported. Raises ImportError where it is not installed."""
    import torch

    missing_operators()
    return torch


def make_towers(model: TwoTowers, res: int):
    """(image tower, text tower) of a model's sizes, with random weights; each gives embeddings that are not normalised."""
    torch = import_torch()
    from open_clip.transformer import TextTransformer
    from timm.models.vision_transformer import VisionTransformer

    image, text = sizes(model.image), sizes(model.text)
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    ratio = lambda tower: (tower.get("mlp_dim") or 4 * tower["width"]) / tower["width"]
    image_tower = VisionTransformer(
        img_size=res, patch_size=image["patch_size"], embed_dim=image["width"], depth=image["depth"],
        num_heads=image["num_heads"], mlp_ratio=ratio(image), num_classes=0, global_pool="map", class_token=False,
        norm_layer=norm, act_layer="gelu_tanh")
    text_tower = TextTransformer(
        context_length=text.get("length", 64), vocab_size=text["vocab_size"], width=text["width"], layers=text["depth"],
        heads=text["num_heads"], mlp_ratio=ratio(text), output_dim=image["width"], no_causal_mask=True, pool_type="last",
        proj_bias=True, norm_layer=norm, act_layer=functools.partial(torch.nn.GELU, approximate="tanh"))
    return image_tower, text_tower


def make_step(model: TwoTowers, batch: Mapping[str, np.ndarray]) -> Callable[[], float]:
    """A function that makes one training step of plain SigLIP on the images and captions of a batch, and waits for it.

    float32 on a CPU; on a GPU bfloat16 (autocast), compiled, with fused scaled dot-product attention.
    """
    torch = import_torch()
    from open_clip.loss import SigLipLoss

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    towers = torch.nn.ModuleList(make_towers(model, batch["image"].shape[1])).to(device)
    scale, bias = (torch.nn.Parameter(torch.tensor(value, device=device)) for value in (np.log(10.0), -10.0))
    parameters = [*towers.parameters(), scale, bias]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4, fused=True)
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch["image"], 3, 1))).to(device).float() / 127.5 - 1
    tokens, loss_of = torch.from_numpy(np.array(batch["caption"])).long().to(device), SigLipLoss()
    unit = functools.partial(torch.nn.functional.normalize, dim=-1)

    def loss():
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            return loss_of(unit(towers[0](pixels)), unit(towers[1](tokens)), scale.exp(), bias)

    forward = torch.compile(loss) if gpu else loss

    def run() -> float:
        optimiser.zero_grad(set_to_none=True)
        value = forward()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        return value.item()
    return run


def peak_memory() -> float | str:
    """GB of a GPU that PyTorch has held at most; empty on a CPU, where nobody counts."""
    torch = import_torch()
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else ""
