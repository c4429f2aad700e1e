"""Run by test_sharding.py in a process of its own with eight CPU devices: ten training steps on several meshes.

python tests/across_meshes.py OUT.json     # {mesh: {"losses": [...], "bytes": {...}, ...}}
"""
import json
import math
import sys

import jax
import numpy as np

from cc_jax import objective, optim, sharding, step
from cc_jax.config import Config
from cc_jax.data import packing
from cc_jax.models.two_towers import TwoTowers
from configs.common import SHARDING

TOWER = dict(width=32, depth=1, mlp_dim=64, num_heads=4)
MODEL = TwoTowers(image=dict(patch_size=(8, 8), **TOWER), text=dict(vocab_size=64, length=12, mask_padding=True, **TOWER))
RES, IMAGES, SLOTS, STEPS = 16, 32, 3, 10
OPTIM = Config(dict(lr=3e-3, wd=1e-2, clip_norm=1.0, warmup_steps=2))
RULES = sharding.Rules(SHARDING, min_size=512)
# The mesh, and what else is asked for.
RUNS = {
    "1": (dict(), {}), "data 8": (dict(data=8), {}), "data 4 x fsdp 2": (dict(data=4, fsdp=2), {}),
    "data 2 x fsdp 2 x tensor 2": (dict(data=2, fsdp=2, tensor=2), {}),
    "fsdp 2 x tensor 2": (dict(fsdp=2, tensor=2), dict(exchange="gather", microbatches=2)),
}


def make_batch(number):
    """Random images and texts that recur; equal phrases have equal ids and tokens."""
    rng = np.random.default_rng(number % 3)
    ids = rng.integers(0, 24, (IMAGES, SLOTS)).astype(np.int32)
    tokens = np.ones((IMAGES, SLOTS, 6), np.int32)
    tokens[..., 0], tokens[..., 1] = 2 + ids % 48, np.where(ids % 2, 1, 2 + ids // 4)
    caption = np.ones((IMAGES, 12), np.int32)
    caption[:, :2 * SLOTS] = tokens[..., :2].reshape(IMAGES, -1)
    given = {"image": rng.integers(0, 256, (IMAGES, RES, RES, 3)).astype(np.uint8), "caption": caption, "phrases": tokens,
             "phrase_id": ids, "phrase_mask": np.arange(SLOTS) < rng.integers(1, SLOTS + 1, (IMAGES, 1))}
    return packing.lay_out(given, packing.PhraseRows(16, 4))


def start(mesh):
    """(model's optimiser, learning rate, its state after no step, that state's shardings)."""
    optimiser, learning_rate = optim.make(OPTIM, step.abstract_params(MODEL, RES), STEPS)
    state = step.init_state(MODEL, optimiser, RES, 0, mesh, RULES)
    shardings = step.shardings_of(step.abstract_state(MODEL, optimiser, RES, mesh, RULES, average=True))
    return optimiser, learning_rate, step.begin_from(state, state.params, average=True, keep_start=False), shardings


def run(axes, microbatches=1, exchange="ring"):
    """What ten steps give on a mesh, and what its devices hold."""
    mesh = sharding.make_mesh(axes, jax.devices()[:math.prod(axes.values())])
    concepts = dict(normaliser="positives", exchange=exchange)
    goal = objective.read(Config(dict(loss=dict(phrase=1.0, concept_attention=0.01), concepts=concepts)), mesh, STEPS)
    optimiser, learning_rate, state, shardings = start(mesh)
    first = {name: np.asarray(x).tolist() for name, x in named(state.params) if x.ndim == 1}
    update = step.make_update(MODEL, optimiser, learning_rate, goal, 100.0, mesh, microbatches, average=0.9,
                              shardings=shardings)
    losses, update = [], update.lower(state, sharding.place(make_batch(0), mesh)).compile()
    for number in range(STEPS):
        state, metrics = update(state, sharding.place(make_batch(number), mesh))
        losses.append({name: float(value) for name, value in metrics.items()})
    assert step.shardings_of(state) == shardings, "a state changes its place"
    whole = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    most = lambda tree: max(sum(shard.data.nbytes for x in jax.tree.leaves(tree) for shard in x.addressable_shards
                                if shard.device == device) for device in mesh.devices.flat)
    kept = {"params": state.params, "opt_state": state.opt_state, "average": state.average}
    return {"losses": losses, "first": first, "share": {name: most(tree) / whole(tree) for name, tree in kept.items()},
            "shards": {name: x.addressable_shards[0].data.shape for name, x in named(state.params)},
            "hlo": update.as_text()}


def named(params):
    return zip(*map(jax.tree.leaves, (optim.parameter_names(params), params)), strict=True)


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        json.dump({name: run(axes, **options) for name, (axes, options) in RUNS.items()}, file)
