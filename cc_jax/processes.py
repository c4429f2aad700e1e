"""Which process of how many this is, by its flags or by what started it: SLURM, Kubernetes, a TPU slice."""
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jax._src.hardware_utils import num_available_tpu_chips_and_device_id

from cc_jax.config import ConfigError

PORT = 8476     # where the first process listens, unless an address names another port


@dataclass(frozen=True)
class Place:
    """This process's place: number `process` of `processes`, which meet at `coordinator`, an address of the first.

    `local_devices` are the accelerators of the host that it uses, all where None. `source` says where this is known from;
    `method` names JAX's own way to find all of it, on TPU hosts.
    """
    source: str
    coordinator: str = ""
    processes: int = 0
    process: int = 0
    local_devices: tuple[int, ...] | None = None
    method: str | None = None

    def __str__(self) -> str:
        return (f"a process of a TPU slice ({self.source})" if self.method else
                f"process {self.process} of {self.processes}, coordinator {self.coordinator} ({self.source})")


def find_place(
    environment: Mapping[str, str], coordinator: str | None = None, processes: int | None = None,
    process: int | None = None, distributed: bool | None = None, tpu: bool | None = None,
) -> Place | None:
    """This process's place by the flags, else by the environment; None for a process that runs alone.

    Known are JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, the tasks of a SLURM step, the hosts of a TPU
    slice, and the pods of a Kubernetes JobSet.

    Args:
      distributed: False asks for a process alone whatever the environment says, True refuses to be one by mistake.
      tpu: whether this host has TPUs; looked up where None.
    Raises: ConfigError for values that are missing or can't be, with those that were found.
    """
    flags = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    given = {name: value for name, value in flags.items() if value is not None}
    if distributed is False:
        if given:
            raise ConfigError(f"--nodistributed asks for one process, {' '.join(given)} for several; give one or the other.")
        return None
    if given:
        place = complete("flags", flags, {name: f"{name}={value}" for name, value in given.items()})
    else:
        place = by_variables(environment) or by_slurm(environment) or by_tpu(environment, tpu) or by_jobset(environment)
    if distributed and place is None:
        raise ConfigError("--distributed, but nothing says which process of how many this is: no JAX_COORDINATOR_ADDRESS, "
                          "no step of several SLURM tasks, no TPU slice, no JobSet; give --coordinator HOST:PORT "
                          "--processes N --process I.")
    return None if place is None or place.processes == 1 else place


def complete(source: str, values: Mapping[str, str | int | None], found: Mapping[str, str]) -> Place:
    """The place by (address, number of processes, own number), under the names that they have in `source`."""
    (address_name, address), (processes_name, processes), (process_name, process) = values.items()
    if missing := [name for name, value in values.items() if value in (None, "")]:
        raise ConfigError(f"{' and '.join(missing)} missing; of the {source} there are {', '.join(found.values())}. Give "
                          f"all of {', '.join(values)}.")
    numbers = {}
    for name, value in ((processes_name, processes), (process_name, process)):
        if not str(value).isdecimal():
            raise ConfigError(f"{name}={value} is not a number.")
        numbers[name] = int(value)
    if not numbers[process_name] < numbers[processes_name]:
        raise ConfigError(f"{process_name}={process} with {processes_name}={processes}: processes are counted from 0 to "
                          f"{numbers[processes_name] - 1}.")
    address = str(address) if re.search(r":\d+$", str(address)) else f"{address}:{PORT}"
    return Place(source, address, numbers[processes_name], numbers[process_name])


def by_variables(environment: Mapping[str, str]) -> Place | None:
    """The variables that are named as JAX's own options; in an indexed Kubernetes job the number may be the job's."""
    if not environment.get("JAX_COORDINATOR_ADDRESS"):
        return None
    process = "JOB_COMPLETION_INDEX" if "JAX_PROCESS_ID" not in environment and "JOB_COMPLETION_INDEX" in environment else (
        "JAX_PROCESS_ID")
    values = {name: environment.get(name) for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", process)}
    return complete("environment", values, {name: f"{name}={value}" for name, value in values.items() if value})


def by_slurm(environment: Mapping[str, str]) -> Place | None:
    """The tasks that `srun` started, which meet at the step's first node. One alone on a node uses its accelerators."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_LOCALID")
    if any(name not in environment for name in names):
        return None
    job, tasks, process, nodes, local = (environment[name] for name in names)
    node = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if node is None:
        raise ConfigError(f"SLURM_STEP_NODELIST={nodes!r} does not name a node; give --coordinator, --processes, --process.")
    # Another port for each step, above those that systems give away, so that steps on one node do not meet.
    port = 61_440 + (17 * int(job) + int(environment.get("SLURM_STEP_ID", 0))) % 4096
    address = f"{''.join(filter(None, node.groups()))}:{port}"
    place = complete("SLURM", {"address": address, names[1]: tasks, names[2]: process}, {})
    on_this_node = tasks_of_node(environment)
    seen = environment.get("CUDA_VISIBLE_DEVICES", "")
    bound = bool(seen) and len(seen.split(",")) == 1    # srun gave this task an accelerator of its own
    own = (int(local),) if on_this_node > 1 and not bound else None
    return replace(place, local_devices=own)


def tasks_of_node(environment: Mapping[str, str]) -> int:
    """How many of the step's tasks are on this node, by "2(x3),1" (two on each of three nodes, then one)."""
    counts = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, nodes = part.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(nodes or 1)
    return counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]


def by_tpu(environment: Mapping[str, str], tpu: bool | None = None) -> Place | None:
    """The hosts of a TPU slice: JAX asks GKE's variables, or a TPU VM's metadata server. None where JAX is to use a CPU."""
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] not in ("tpu", ""):
        return None
    hosts = environment.get("TPU_WORKER_HOSTNAMES", environment.get("TPU_PROCESS_ADDRESSES", ""))
    if len(hosts.split(",")) > 1 or environment.get("MEGASCALE_NUM_SLICES", "1") != "1":
        return Place("TPU_WORKER_HOSTNAMES", method="gketpu")
    if not hosts and "TPU_SKIP_MDS_QUERY" not in environment and "KUBERNETES_SERVICE_HOST" not in environment and (
            num_available_tpu_chips_and_device_id()[0] if tpu is None else tpu):
        return Place("the TPU VM's metadata", method="gcetpu")
    return None


def by_jobset(environment: Mapping[str, str]) -> Place | None:
    """The pods of a replicated job: JOBSET_NAME and REPLICATED_JOB_NAME hold its labels, JAX_NUM_PROCESSES its pods."""
    needed = ("JOBSET_NAME", "JOB_COMPLETION_INDEX")
    if any(not environment.get(name) for name in needed) or "TPU_WORKER_HOSTNAMES" in environment:
        return None
    name, job = environment["JOBSET_NAME"], environment.get("REPLICATED_JOB_NAME")
    address = f"{name}-{job}-0-0.{name}:{PORT}" if job else None
    values = {"REPLICATED_JOB_NAME": address, **{key: environment.get(key) for key in (
        "JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX")}}
    found = {key: f"{key}={environment[key]}" for key in ("JOBSET_NAME", *values) if environment.get(key)}
    return complete("JobSet's environment", values, found)
