"""The train state and the one jitted update."""
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from cc_jax.concepts import concept_attention_loss
from cc_jax.losses import phrase_loss, sigmoid_loss
from cc_jax.models.two_towers import TwoTowers
from cc_jax.sharding import over_batch, replicated


@flax.struct.dataclass
class TrainState:
    """All that a step changes. `step` counts the updates made."""
    step: jax.Array
    params: dict
    opt_state: optax.OptState


def abstract_params(model: TwoTowers, res: int) -> dict:
    """The parameters' tree with shapes and types in place of values."""
    text = jnp.zeros((1, model.text["length"]), jnp.int32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, res, res, 3)), text)["params"])


def init_state(model: TwoTowers, optimiser: optax.GradientTransformation, res: int, seed: int, mesh: Mesh) -> TrainState:
    """Random parameters and an empty optimiser state on every device; they depend on the seed, not on the mesh."""
    def init(key):
        text = jnp.zeros((1, model.text["length"]), jnp.int32)
        params = model.init(key, jnp.zeros((1, res, res, 3)), text)["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params))
    return jax.jit(init, out_shardings=replicated(mesh))(jax.random.key(seed))


def pixels(image: jax.Array) -> jax.Array:
    """uint8 (B, H, W, 3) -> float32 in [-1, 1]. On the device: a quarter of the bytes travel."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def losses(model: TwoTowers, params, batch: Mapping[str, jax.Array], weights: Mapping[str, float]) -> tuple:
    """The losses with a weight above 0, by name, and the model's outputs. Plain SigLIP never encodes a phrase."""
    concepts = weights["phrase"] > 0 or weights["concept_attention"] > 0
    image, caption, out = model.apply({"params": params}, pixels(batch["image"]), batch["caption"],
                                      want_tokens=weights["concept_attention"] > 0)
    values = {"siglip": sigmoid_loss(image, caption, out["t"], out["b"])}
    if concepts:
        num_images, slots, length = batch["phrases"].shape
        _, phrases, _ = model.apply({"params": params}, None, batch["phrases"].reshape(num_images * slots, length))
        owner = jnp.repeat(jnp.arange(num_images, dtype=jnp.int32), slots)
        given = (phrases, owner, batch["phrase_id"].ravel(), batch["phrase_mask"].ravel(), out["t"], out["b"])
        if weights["phrase"] > 0:
            values["phrase"] = phrase_loss(image, *given)
        if weights["concept_attention"] > 0:
            values["concept_attention"] = concept_attention_loss(out["concept_tokens"], *given)
    return values, out


def make_update(
    model: TwoTowers, optimiser: optax.GradientTransformation, learning_rate: optax.Schedule,
    weights: Mapping[str, float], max_scale: float | None, mesh: Mesh,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The jitted step: (state, batch) -> (state, metrics). The state's memory is reused for the new state.

    `weights` gives L = siglip * L_siglip + phrase * L_npc + concept_attention * L_xac; `max_scale` clamps exp(t).
    """
    def update(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        def total(params):
            values, out = losses(model, params, batch, weights)
            return sum(weights[name] * value for name, value in values.items()), (values, out["t"], out["b"])

        (loss, (values, scale, bias)), grads = jax.value_and_grad(total, has_aux=True)(state.params)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if max_scale is not None:
            params = params | {"t": jnp.minimum(params["t"], jnp.log(max_scale))}
        metrics = {"loss": loss} | {f"loss/{name}": value for name, value in values.items()} | {
            "scale": scale, "bias": bias, "learning_rate": learning_rate(state.step),
            "norm/gradient": optax.tree.norm(grads), "norm/parameter": optax.global_norm(params),
            "norm/update": optax.tree.norm(updates)}
        return TrainState(state.step + 1, params, opt_state), metrics

    everywhere = replicated(mesh)
    return jax.jit(update, donate_argnums=0, in_shardings=(everywhere, over_batch(mesh)),
                   out_shardings=(everywhere, everywhere))
