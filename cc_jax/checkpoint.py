"""Orbax checkpoints of a run: restored to where training stood, and found damaged before that. No pickle."""
import json
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from cc_jax import manifest, metrics
from cc_jax.config import ConfigError
from cc_jax.preserve import Preserve

# What may change when a run is resumed, blocks or single values: where and how safely it is computed, and what is done about
# steps that went wrong.
HOW = ("mesh", "sharding", "model.attention", "checkpoint", "data.threads", "data.timeout", "data.retries", "nonfinite",
       "spikes")
FOLDER, DAMAGED = "checkpoints", "damaged"


def open_manager(
    workdir: str, preserve: Preserve | None = None, finalised: Callable[[], None] | None = None,
) -> ocp.CheckpointManager:
    """The checkpoints of a workdir. A save is atomic: it appears whole or not at all.

    Args: finalised: called in the background when a checkpoint's files are written, before it gets its name.
    """
    return ocp.CheckpointManager(epath.Path(workdir).resolve() / FOLDER, options=ocp.CheckpointManagerOptions(
        preservation_policy=preserve or Preserve(), enable_async_checkpointing=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=finalised)))


def saved_steps(workdir: str) -> list[int]:
    """The steps of a workdir's checkpoints, in order."""
    folder = epath.Path(workdir) / FOLDER
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []


def newest_sound(workdir: str) -> tuple[int | None, dict[int, str]]:
    """The newest step whose checkpoint is whole, None where there is none; of later ones, {step: what is damaged}."""
    found = {}
    for step in reversed(saved_steps(workdir)):
        if not (damage := manifest.damage(epath.Path(workdir) / FOLDER / str(step))):
            return step, found
        found[step] = damage
    return None, found


def set_damaged_aside(workdir: str) -> None:
    """Moves checkpoints that are damaged and newer than the newest sound one into WORKDIR/damaged, and says so."""
    step, found = newest_sound(workdir)
    for damaged, damage in found.items():
        place = epath.Path(workdir) / DAMAGED
        place.mkdir(parents=True, exist_ok=True)
        number = sum(path.name.partition(".")[0] == str(damaged) for path in place.iterdir())
        target = place / (f"{damaged}.{number}" if number else str(damaged))
        (epath.Path(workdir) / FOLDER / str(damaged)).rename(target)
        metrics.say(f"the checkpoint of step {damaged} is damaged, set aside in {target}: {damage}")
    if found and step is None:
        metrics.say(f"no sound checkpoint is left in {workdir}: the run begins anew")


def read_provenance(workdir: str, step: int) -> dict[str, Any]:
    """What the checkpoint of `step` came from, as `provenance.collect` gives it; {} for one of an older version."""
    found = manifest.read(epath.Path(workdir) / FOLDER / str(step))
    return found["provenance"] if found else {}


def clear_unfinished(workdir: str) -> None:
    """Deletes what saves left that were cut off. Only for who has the workdir's lock."""
    folder = epath.Path(workdir) / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if ".orbax-checkpoint-tmp" in path.name:
            path.rmtree()


def restore(manager: ocp.CheckpointManager, like: Any, step: int) -> Any:
    """The state saved at `step`, with the structure, types and sharding of `like`."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]


def restore_params(workdir: str, like: Any, step: int | None = None, which: str = "params") -> tuple[int, Any]:
    """(step, parameters) of a workdir's checkpoint, leaving its optimiser state unread; `like` as in `restore`.

    `which` of the state's trees: "params", or "average" where the run kept one. Raises FileNotFoundError naming the steps
    there are, ConfigError for a step whose checkpoint is damaged.
    """
    saved = saved_steps(workdir)
    if not saved or step not in (None, *saved):
        raise FileNotFoundError(f"no checkpoint{'' if step is None else f' of step {step}'} in {workdir}; there are "
                                f"{saved or 'none'}.")
    if step is None:
        chosen, found = newest_sound(workdir)
    else:
        chosen, damage = step, manifest.damage(epath.Path(workdir) / FOLDER / str(step))
        found = {step: damage} if damage else {}
    for damaged, damage in found.items():
        metrics.say(f"the checkpoint of step {damaged} in {workdir} is damaged: {damage}")
    if chosen is None or chosen in found:
        raise ConfigError(f"the checkpoint of step {chosen or saved} in {workdir} is damaged; there are those of {saved}.")
    with open_manager(workdir) as manager:
        restored = manager.restore(chosen, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
            {which: like}, restore_args=ocp.checkpoint_utils.construct_restore_args({which: like}),
            partial_restore=True)))
    return chosen, restored["state"][which]


def claim_workdir(workdir: str, config: dict, force: bool = False) -> None:
    """Writes config.json into a new workdir; refuses one that holds a run of another config, naming what differs.

    How it is computed may change (HOW): the first config stays. With `force` its data may, and the new config takes
    the place of the first. Of several processes the first goes first.
    """
    path = epath.Path(workdir) / "config.json"
    config = json.loads(json.dumps(config))  # tuples become lists, as they will be when read back
    if path.exists():
        was, now = flatten(json.loads(path.read_text())), flatten(config)
        may_change = (*HOW, "data") if force else HOW
        changed = [f"config.{k}: {was.get(k, 'not set')} there, {now.get(k, 'not set')} now"
                   for k in sorted(was.keys() | now.keys())
                   if was.get(k, ...) != now.get(k, ...) and not any(f"{k}.".startswith(f"{name}.") for name in may_change)]
        if changed:
            raise ConfigError(f"workdir {workdir} holds a run of another config ({'; '.join(changed[:5])}); use another "
                              "--workdir, or that config to resume the run.")
        if force and jax.process_index() == 0:
            write_config(path, config)
    elif jax.process_index() > 0:
        raise ConfigError(f"process {jax.process_index()} does not see {path}, which process 0 has written; use a --workdir "
                          "that all hosts share, such as one in a bucket.")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_config(path, config)


def write_config(path: epath.Path, config: dict) -> None:
    partial = path.with_name(".config.json.partial")
    partial.write_text(json.dumps(config, indent=2))
    partial.replace(path)


def read_config(workdir: str) -> dict:
    """The config that a workdir's run was started with."""
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.json.")
    return json.loads(path.read_text())


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return flat
