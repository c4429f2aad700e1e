"""Orbax checkpoints of a run: saved asynchronously, restored to where training stood. No pickle."""
import json
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from cc_jax.config import ConfigError

# What may change when a run is resumed, blocks or single values: where and how it is computed, and what is done about steps
# that went wrong.
SPREAD = ("mesh", "sharding", "model.attention", "nonfinite", "spikes")


def open_manager(workdir: str, keep: int = 2) -> ocp.CheckpointManager:
    """The checkpoints of a workdir; the `keep` newest are kept. A save is atomic: it appears whole or not at all."""
    policy = ocp.checkpoint_managers.LatestN(keep)
    return ocp.CheckpointManager(epath.Path(workdir).resolve() / "checkpoints", options=ocp.CheckpointManagerOptions(
        preservation_policy=policy, enable_async_checkpointing=True))


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Starts saving `state` as that of `step`; training goes on meanwhile."""
    if step not in manager.all_steps():
        manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))


def restore(manager: ocp.CheckpointManager, like: Any, step: int | None = None) -> Any:
    """The state saved at `step` (the newest where None), with the structure, types and sharding of `like`."""
    step = newest(manager, step)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]


def restore_params(workdir: str, like: Any, step: int | None = None, which: str = "params") -> tuple[int, Any]:
    """(step, parameters) of a workdir's checkpoint, leaving its optimiser state unread; `like` as in `restore`.

    `which` of the state's trees: "params", or "average" where the run kept one.
    """
    with open_manager(workdir) as manager:
        step = newest(manager, step)
        restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
            {which: like}, restore_args=ocp.checkpoint_utils.construct_restore_args({which: like}),
            partial_restore=True)))
    return step, restored["state"][which]


def newest(manager: ocp.CheckpointManager, step: int | None) -> int:
    """`step` if it was saved, the newest step where None. Raises FileNotFoundError naming those there are."""
    saved = sorted(manager.all_steps())
    if not saved or (step is not None and step not in saved):
        raise FileNotFoundError(f"no checkpoint{'' if step is None else f' of step {step}'} in {manager.directory}; there "
                                f"are {saved or 'none'}.")
    return saved[-1] if step is None else step


def claim_workdir(workdir: str, config: dict) -> None:
    """Writes config.json into a new workdir; refuses one that holds a run of another config, naming what differs.

    How a run is spread over devices may change: the first config stays. Of several processes the first goes first.
    """
    path = epath.Path(workdir) / "config.json"
    config = json.loads(json.dumps(config))  # tuples become lists, as they will be when read back
    if path.exists():
        was, now = flatten(json.loads(path.read_text())), flatten(config)
        changed = [f"config.{k}: {was.get(k, 'not set')} there, {now.get(k, 'not set')} now"
                   for k in sorted(was.keys() | now.keys())
                   if was.get(k, ...) != now.get(k, ...) and not any(f"{k}.".startswith(f"{name}.") for name in SPREAD)]
        if changed:
            raise ConfigError(f"workdir {workdir} holds a run of another config ({'; '.join(changed[:5])}); use another "
                              "--workdir, or that config to resume the run.")
    elif jax.process_index() > 0:
        raise ConfigError(f"process {jax.process_index()} does not see {path}, which process 0 has written; use a --workdir "
                          "that all hosts share, such as one in a bucket.")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(".config.json.partial")
        partial.write_text(json.dumps(config, indent=2))
        partial.rename(path)


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
