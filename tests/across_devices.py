"""Run by test_pairs.py in a process of its own with eight CPU devices: the losses on 1, 2, 4 and 8 of them.

python tests/across_devices.py OUT.npz     # the arrays of `batch`, and each loss and its gradients by mesh and exchange
"""
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cc_jax.concepts import AttentionCosine, concept_attention_loss
from cc_jax.losses import phrase_loss, sigmoid_loss
from cc_jax.pairs import ALONE, Exchange, Held, Texts, pair_loss

IMAGES, SLOTS, TOKENS, WIDTH = 16, 3, 13, 24


def unit(x):
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    count = IMAGES * SLOTS
    return dict(
        image=unit(rng.normal(size=(IMAGES, WIDTH))), text=unit(rng.normal(size=(IMAGES, WIDTH))),
        tokens=unit(rng.normal(size=(IMAGES, TOKENS, WIDTH))), phrases=unit(rng.normal(size=(count, WIDTH))),
        owner=rng.permutation(np.repeat(np.arange(IMAGES, dtype=np.int32), SLOTS)),  # phrases far from their images
        phrase_id=rng.integers(-9, 9, count).astype(np.int32), valid=rng.random(count) < 0.8,
        scale=np.float32(117.0), bias=np.float32(-7.0))


def losses(batch, exchange, normaliser="texts"):
    """{name: (loss function of the differentiated arguments, those arguments)}."""
    slots = batch["owner"], batch["phrase_id"], batch["valid"]
    ends = batch["scale"], batch["bias"]
    options = dict(exchange=exchange, normaliser=normaliser)
    return {
        "siglip": (functools.partial(sigmoid_loss, exchange=exchange), (batch["image"], batch["text"], *ends)),
        "phrase": (lambda v, p, s, b: phrase_loss(v, p, *slots, s, b, **options), (batch["image"], batch["phrases"], *ends)),
        "attention": (lambda t, p, s, b: concept_attention_loss(t, p, *slots, s, b, **options),
                      (batch["tokens"], batch["phrases"], *ends))}


def mesh_of(count, axes=1):
    shape, names = ((count,), ("data",)) if axes == 1 else ((2, count // 2), ("replica", "data"))
    return jax.make_mesh(shape, names, devices=jax.devices()[:count], axis_types=(AxisType.Auto,) * axes)


def placed(arguments, mesh):
    sharding = lambda x: NamedSharding(mesh, PartitionSpec(mesh.axis_names if x.ndim else None))
    return [jax.device_put(x, sharding(x) if x.ndim else NamedSharding(mesh, PartitionSpec())) for x in arguments]


def main(path):
    batch, results = make_batch(), {}
    meshes = {"1": None} | {str(n): mesh_of(n) for n in (2, 4, 8)} | {"2x4": mesh_of(8, axes=2)}
    for name, mesh in meshes.items():
        for kind in ("ring", "gather") if mesh else ("ring",):
            for normaliser in ("texts", "positives") if name in ("1", "8") else ("texts",):
                for loss, (function, arguments) in losses(batch, Exchange(mesh, kind), normaliser).items():
                    arguments = placed(arguments, mesh) if mesh else arguments
                    step = jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2, 3))).lower(*arguments).compile()
                    value, gradients = step(*arguments)
                    where = f"{loss}/{name}/{kind}/{normaliser}"
                    results |= {f"{where}/{i}": np.asarray(g) for i, g in enumerate((value, *gradients))}
                    if name == "8" and normaliser == "texts":
                        results[f"hlo/{loss}/{kind}"] = step.as_text()
    results |= sampled(batch, mesh_of(8))
    np.savez(path, **batch, **results)


def sampled(batch, mesh, draws=200, max_hops=3):
    """The loss and its gradient by the phrases for many keys, with two of the seven other devices' chunks drawn."""
    held = Held(batch["phrase_id"].reshape(IMAGES, SLOTS), np.ones((IMAGES, SLOTS), bool))

    def loss(phrases, key=None, exchange=ALONE):
        texts = Texts(phrases, batch["phrase_id"], jnp.ones(len(phrases)))
        return pair_loss(AttentionCosine(), batch["tokens"], held, texts, 10.0, -7.0, exchange=exchange, key=key)
    value, gradient = jax.jit(jax.value_and_grad(loss))(batch["phrases"])
    step = jax.jit(jax.value_and_grad(functools.partial(loss, exchange=Exchange(mesh, "ring", max_hops))))
    drawn = [step(batch["phrases"], jax.random.key(i)) for i in range(draws)]
    return {"sampled/loss": np.array([v for v, _ in drawn]), "sampled/gradient": np.array([g for _, g in drawn]),
            "whole/loss": value, "whole/gradient": gradient}


if __name__ == "__main__":
    main(sys.argv[1])
