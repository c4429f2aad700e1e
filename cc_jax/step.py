"""The train state and the one jitted update."""
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.experimental import checkify
from jax.sharding import Mesh

from cc_jax.models.two_towers import TwoTowers
from cc_jax.objective import Encoded, Objective, encode, losses
from cc_jax.sharding import Rules, constrain, layout, of_state, over_batch, replicated


@flax.struct.dataclass
class TrainState:
    """All that a step changes, and what it is compared with. `step` counts the updates made."""
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    average: dict | None = None         # of the parameters, where the config asks for one: `config.average`
    start: dict | None = None           # the parameters that `loss.distill` holds on to
    skipped: jax.Array | None = None    # (2,): updates left out as the loss or gradient was not finite, in all and in a row


def abstract_params(model: TwoTowers, res: int) -> dict:
    """The parameters' tree with shapes and types in place of values."""
    text = jnp.zeros((1, model.text["length"]), jnp.int32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, res, res, 3)), text)["params"])


def abstract_state(
    model: TwoTowers, optimiser: optax.GradientTransformation, res: int, mesh: Mesh, rules: Rules = Rules(),     # noqa: B008
    average: bool = False, keep_start: bool = False,
) -> TrainState:
    """The train state's tree with shapes, types and shardings for values; `average` and `keep_start` as in `begin_from`."""
    params = abstract_params(model, res)
    copy = lambda wanted: params if wanted else None
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(optimiser.init, params), copy(average),
                       copy(keep_start), jax.ShapeDtypeStruct((2,), jnp.int32))
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state,
                        of_state(state, layout(params, mesh, rules), mesh))


def shardings_of(state: TrainState) -> TrainState:
    """The tree of a state, abstract or not, with the sharding of each array."""
    return jax.tree.map(lambda x: x.sharding, state)


def init_state(
    model: TwoTowers, optimiser: optax.GradientTransformation, res: int, seed: int, mesh: Mesh,
    rules: Rules = Rules(),     # noqa: B008
) -> TrainState:
    """Random parameters and an empty optimiser state, split by the rules; they depend on the seed, not on the mesh."""
    def init(key):
        text = jnp.zeros((1, model.text["length"]), jnp.int32)
        params = model.init(key, jnp.zeros((1, res, res, 3)), text)["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), skipped=jnp.zeros(2, jnp.int32))
    shardings = shardings_of(abstract_state(model, optimiser, res, mesh, rules))
    return jax.jit(init, out_shardings=shardings)(jax.random.key(seed))


def begin_from(state: TrainState, params: dict, average: bool, keep_start: bool) -> TrainState:
    """The state with these parameters, and copies of them where the run needs some."""
    copy = lambda wanted: jax.tree.map(jnp.copy, params) if wanted else None
    return state.replace(params=params, average=copy(average), start=copy(keep_start))


def make_update(
    model: TwoTowers, optimiser: optax.GradientTransformation, learning_rate: optax.Schedule, objective: Objective,
    max_scale: float | None, mesh: Mesh, microbatches: int = 1, seed: int = 0, frozen: dict | None = None,
    average: float | None = None, shardings: TrainState | None = None,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The jitted step: (state, batch) -> (state, metrics). The state's memory is reused for the new state.

    Where the loss or the gradient's norm is not finite, all but `step` stays as it was, and `skipped` counts.

    `max_scale` clamps exp(t); `seed` is of what a step draws; `microbatches` as in `accumulated`; `frozen`, True for
    parameters that the optimiser leaves alone, saves their gradients; `average` is the share of the old that a step leaves
    in the running average of the parameters; `shardings` are those of the state, on every device where None. With
    `objective.checked` an embedding that is not normalised raises.
    """
    if mesh.size > 1:
        model = model.clone(constrain=functools.partial(constrain, mesh=mesh))
    here = lambda params: params if shardings is None else lax.with_sharding_constraint(params, shardings.params)
    gradients = accumulated(microbatches, mesh, here) if microbatches > 1 else whole
    hold = lambda params: params if frozen is None else jax.tree.map(
        lambda value, held: lax.stop_gradient(value) if held else value, params, frozen)

    def update(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        key, weights = jax.random.fold_in(jax.random.key(seed), state.step), objective.weights(state.step)

        def total(encoded: Encoded, t: jax.Array, b: jax.Array):
            values = losses(encoded, batch, jnp.exp(t[0]), b[0], objective, key)
            return sum(weights[name] * value for name, value in values.items()), values

        encoder = lambda params, batch: encode(model, hold(params), batch, objective, state.start)
        (loss, values), grads = gradients(encoder, total, state.params, batch)
        grads = here(grads)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if max_scale is not None:
            params = params | {"t": jnp.minimum(params["t"], jnp.log(max_scale))}
        mean = state.average if average is None else jax.tree.map(
            lambda old, new: average * old + (1 - average) * new, state.average, params)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        params, opt_state, mean = jax.tree.map(lambda new, old: jnp.where(finite, new, old), (params, opt_state, mean),
                                               (state.params, state.opt_state, state.average))
        skipped = jnp.where(finite, state.skipped * jnp.array([1, 0]), state.skipped + 1)
        metrics = {"loss": loss} | {f"loss/{name}": value for name, value in values.items()} | {
            "scale": jnp.exp(state.params["t"][0]), "bias": state.params["b"][0],
            "learning_rate": learning_rate(state.step), "norm/gradient": norm, "norm/parameter": optax.tree.norm(params),
            "norm/update": jnp.where(finite, optax.tree.norm(updates), 0.0), "skipped": skipped[0],
            "skipped/in_a_row": skipped[1]}
        if objective.has_concepts:
            metrics |= {"phrases": batch["phrase_mask"].sum()}
            if "phrase_overflow" in batch:
                metrics |= {"phrases/overflow": batch["phrase_overflow"].sum()}
        return TrainState(state.step + 1, params, opt_state, mean, state.start, skipped), metrics

    everywhere = replicated(mesh)
    of_the_state = everywhere if shardings is None else shardings
    options = dict(donate_argnums=0, in_shardings=(of_the_state, over_batch(mesh)))
    if not objective.checked:
        return jax.jit(update, out_shardings=(of_the_state, everywhere), **options)
    checked = jax.jit(checkify.checkify(update), out_shardings=(None, (of_the_state, everywhere)), **options)

    def raising(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        error, result = checked(state, batch)
        error.throw()
        return result
    return raising


def whole(encoder: Callable, total: Callable, params: dict, batch: dict) -> tuple:
    """((loss, values), gradients) of total(encoder(params, batch), t, b), in one pass."""
    function = lambda params: total(encoder(params, batch), params["t"], params["b"])
    return jax.value_and_grad(function, has_aux=True)(params)


def accumulated(microbatches: int, mesh: Mesh, here: Callable) -> Callable:
    """`whole` with the towers' memory of a microbatch: the same numbers, but for rounding.

    A contrastive loss is not a sum over microbatches. So the embeddings (and tokens) of all are made first and kept, the
    loss and its gradient by them taken once, over the full batch, and each microbatch is then encoded again to carry its
    part of that gradient to the parameters: one forward pass more (Gao et al. 2021, arXiv 2101.06983). `here` keeps a sum of
    gradients where its parameters are.
    """
    def split(x: jax.Array) -> jax.Array:
        # Every device splits its own rows: no row moves.
        x = x.reshape(len(x) // microbatches, microbatches, *x.shape[1:])
        return jnp.moveaxis(constrain(x, mesh=mesh), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        return constrain(x.reshape(-1, *x.shape[2:]), mesh=mesh)

    def gradients(encoder: Callable, total: Callable, params: dict, batch: dict) -> tuple:
        parts = jax.tree.map(split, batch)
        encoded = jax.tree.map(join, lax.map(lambda part: encoder(params, part), parts))
        (loss, values), (d_encoded, d_t, d_b) = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(
            encoded, params["t"], params["b"])

        def add(grads, part):
            batch, cotangent = part
            _, pullback = jax.vjp(lambda params: encoder(params, batch), params)
            return here(jax.tree.map(jnp.add, grads, pullback(cotangent)[0])), None

        grads, _ = lax.scan(add, here(jax.tree.map(jnp.zeros_like, params)), (parts, jax.tree.map(split, d_encoded)))
        return (loss, values), grads | {"t": grads["t"] + d_t, "b": grads["b"] + d_b}
    return gradients
