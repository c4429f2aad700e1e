"""What a config builds without touching the files of a run: its mesh, model, objective, optimiser, update, and all shapes.

`train` fills the shapes with values; `tools.compile` compiles the update for devices that are not here.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from cc_jax import objective, optim, sharding, step
from cc_jax.config import Config, ConfigError, total_steps
from cc_jax.data.packing import PhraseRows
from cc_jax.models.two_towers import TwoTowers
from cc_jax.saved import make_model


@dataclass(frozen=True)
class Built:
    """The parts of a run.

    Attributes:
      objective, optimiser, learning_rate: what a step minimises, and how; the learning rate by step.
      state, batch: their trees with shapes, types and shardings for values; the batch is the global one.
      update: the jitted step, (state, batch) -> (state, metrics).
      part: the part of a batch that this process reads.
      phrase_rows: the room for the distinct phrases of that part; None for a row per slot.
    """
    mesh: Mesh
    rules: sharding.Rules
    model: TwoTowers
    res: int
    seed: int
    objective: objective.Objective
    optimiser: optax.GradientTransformation
    learning_rate: optax.Schedule
    state: step.TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    update: Callable[[step.TrainState, dict], tuple[step.TrainState, dict]]
    part: sharding.Part
    phrase_rows: PhraseRows | None

    def init_state(self) -> step.TrainState:
        """Random parameters on the mesh, without the copies that `begin_from` makes."""
        return step.init_state(self.model, self.optimiser, self.res, self.seed, self.mesh, self.rules)

    def begin_from(self, state: step.TrainState, params: dict) -> step.TrainState:
        """The state with these parameters, and the copies of them that the run needs."""
        return step.begin_from(state, params, self.state.average is not None, self.state.start is not None)


def make_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of `config.mesh` over `devices`, all where None. Raises ConfigError where it or the batch does not fit."""
    mesh = sharding.make_mesh(config.mesh.options(sharding.AXES), devices)
    sharding.check_batch_size(config.batch_size, mesh, config.get("microbatches", 1))
    return mesh


def build(config: Config, mesh: Mesh, length: int) -> Built:
    """The parts of a run of `length` steps. Raises ConfigError, or ValueError for towers that can't be."""
    rules, goal = sharding.read_rules(config), objective.read(config, mesh, length)
    model = make_model(config, sharding.platform(mesh))
    res, seed, microbatches = config.data.res, config.get("seed", 0), config.get("microbatches", 1)
    average, part = read_average(config), sharding.part_of_batch(mesh)
    rows = make_phrase_rows(config, part, microbatches)
    params = step.abstract_params(model, res)
    optimiser, learning_rate = optim.make(config.optim, params, length)
    state = step.abstract_state(model, optimiser, res, mesh, rules, average is not None, goal.distill > 0)
    update = step.make_update(model, optimiser, learning_rate, goal, config.optim.get("max_scale", None), mesh, microbatches,
                              seed, optim.frozen(config.optim, params), average, step.shardings_of(state))
    return Built(mesh, rules, model, res, seed, goal, optimiser, learning_rate, state,
                 batch_shapes(config, mesh, part, rows), update, part, rows)


def length_without_data(config: Config) -> int:
    """A length that any run of the config could have: where it counts epochs, those of a very large dataset."""
    return total_steps(config, 10**6 * config.batch_size)


def read_average(config: Config) -> float | None:
    """`config.average`: the share of the old that a step leaves in the average of the parameters, such as 0.9998."""
    average = config.get("average", None)
    if average is not None and not 0 <= average < 1:
        raise ConfigError(f"config.average={average!r}; use a share from 0 to below 1, such as 0.9998, or None.")
    return average


def text_lengths(config: Config) -> tuple[int, int]:
    """The lengths of rows of captions and of phrases. Raises ConfigError where the text tower can't have two."""
    length = config.model.text.get("length", 64)
    phrase_length = config.data.get("phrase_length", length)
    if phrase_length < length and not config.model.text.get("mask_padding", False):
        raise ConfigError(f"config.data.phrase_length={phrase_length} is shorter than config.model.text.length={length}; "
                          "a text tower that attends to its padding needs rows of one length: make them equal, or set "
                          "config.model.text.mask_padding=True for a tower trained from scratch.")
    return length, phrase_length


def make_phrase_rows(config: Config, part: sharding.Part, microbatches: int) -> PhraseRows | None:
    """The room for the distinct phrases of a part of the batch by the config's `concepts` block; None for a row per slot.

    `concepts.rows` counts rows per image, each for up to `concepts.per_row` phrases.
    """
    concepts = config.get("concepts", {})
    rows, per_row = concepts.get("rows", None), concepts.get("per_row", 1)
    if per_row > 1 and not config.model.text.get("mask_padding", False):
        raise ConfigError(f"config.concepts.per_row={per_row} packs phrases into rows; a text tower that attends to its "
                          "padding needs a row for each: set per_row=1, or config.model.text.mask_padding=True for a tower "
                          "trained from scratch.")
    if rows is None:
        if per_row > 1:
            raise ConfigError(f"config.concepts.per_row={per_row}, but config.concepts.rows is not set; set it to the rows "
                              "per image that there is room for, such as 1.0.")
        return None
    images, multiple = config.batch_size // part.count, part.devices * microbatches
    return PhraseRows(multiple * math.ceil(rows * images / multiple), per_row)


def batch_shapes(
    config: Config, mesh: Mesh, part: sharding.Part, room: PhraseRows | None,
) -> dict[str, jax.ShapeDtypeStruct]:
    """The global batch that `data.pipeline` makes of the config's data, in shapes: see `packing.lay_out`."""
    images, slots, res = config.batch_size, config.data.get("max_phrases", 4), config.data.res
    length, phrase_length = text_lengths(config)
    shape = lambda dtype, *sizes: jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding.over_batch(mesh))
    batch = {"image": shape(jnp.uint8, images, res, res, 3), "caption": shape(jnp.int32, images, length),
             "phrase_id": shape(jnp.int32, images, slots), "phrase_mask": shape(jnp.bool, images, slots)}
    if objective.pools_spans(config):
        return batch | {"phrase_span": shape(jnp.int32, images, slots, 2)}
    rows, per_row = (images * slots, 1) if room is None else (room.rows * part.count, room.per_row)
    batch |= {"phrases": shape(jnp.int32, rows, phrase_length), "column_id": shape(jnp.int32, rows, per_row),
              "column_weight": shape(jnp.float32, rows, per_row), "phrase_overflow": shape(jnp.int32, images)}
    if per_row > 1:
        batch |= {"phrase_segment": shape(jnp.int32, rows, phrase_length),
                  "phrase_position": shape(jnp.int32, rows, phrase_length), "phrase_end": shape(jnp.int32, rows, per_row)}
    return batch
