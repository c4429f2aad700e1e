"""The command that trains: `python -m cc_jax.main --config configs/shapes_cc.py --workdir runs/shapes`."""
import os

import jax
from absl import app, flags, logging

from cc_jax import config_flag, distributed, memory, metrics, train
from cc_jax.config import ConfigError
from cc_jax.data.reading import InputFailed
from cc_jax.evals.guard import ScoreFell
from cc_jax.preemption import Preemption, Told
from cc_jax.processes import find_place
from cc_jax.saving import SaveFailed

CONFIG = config_flag.define()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run keeps its checkpoints and metrics. Started again with the same one, it resumes.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST[:PORT] of process 0, where the processes of a run meet. SLURM, Kubernetes and TPU slices are "
    "recognised without these three.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the run has.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", None, "--distributed: an error where nothing says which of several processes this is; --nodistributed: "
    "one process alone, whatever started it.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the checkpoint library logs twenty lines a save
    values = CONFIG.value.to_dict()
    try:
        place = find_place(os.environ, COORDINATOR.value, PROCESSES.value, PROCESS.value, DISTRIBUTED.value)
        distributed.start(place, values, WORKDIR.value)
        if "MALLOC_ARENA_MAX" not in os.environ:
            memory.few_heaps()
        if jax.default_backend() == "cpu":
            memory.keep_freed()
        preemption = Preemption()
        train.train(values, WORKDIR.value, preemption.install() if place is None else preemption)
    except Told:
        metrics.say("told to stop before the first step: there was nothing to save; the same command starts again")
    except InputFailed as error:
        distributed.stop(f"{type(error).__name__}: {error}", hangs=True)
    except (ConfigError, FloatingPointError, ScoreFell, SaveFailed) as error:
        distributed.stop(f"{type(error).__name__}: {error}")
    except BaseException as error:
        distributed.stop_after(error)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=config_flag.parse)
