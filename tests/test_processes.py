"""Which process of how many: by flags, by what SLURM, Kubernetes and TPU slices set, or alone."""
import pytest

from cc_jax.config import ConfigError
from cc_jax.processes import Place, find_place

SLURM = {"SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
         "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
SLURM_PORT = 61_440 + (17 * 1234 + 2) % 4096
JOBSET = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOBSET_NAME": "cc", "REPLICATED_JOB_NAME": "workers",
          "JOB_COMPLETION_INDEX": "2", "JAX_NUM_PROCESSES": "4"}
GKE_TPU = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "TPU_WORKER_HOSTNAMES": "cc-0.cc,cc-1.cc", "TPU_WORKER_ID": "1"}


@pytest.mark.parametrize(("environment", "place"), [
    ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, Place("environment", "a:1", 2, 1)),
    ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "0"},
     Place("environment", "a:8476", 2, 0)),
    (SLURM, Place("SLURM", f"gpu07:{SLURM_PORT}", 4, 3, local_devices=(1,))),
    (SLURM | {"CUDA_VISIBLE_DEVICES": "5"}, Place("SLURM", f"gpu07:{SLURM_PORT}", 4, 3)),
    (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "3,1", "SLURM_STEP_NODELIST": "n1,n[3-4]"},
     Place("SLURM", f"n1:{SLURM_PORT}", 4, 3)),
    (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_STEP_NODELIST": "n[3,7-9]-gpu"},
     Place("SLURM", f"n3-gpu:{SLURM_PORT}", 4, 3)),
    (JOBSET, Place("JobSet's environment", "cc-workers-0-0.cc:8476", 4, 2)),
    (GKE_TPU, Place("TPU_WORKER_HOSTNAMES", method="gketpu")),
    (GKE_TPU | JOBSET, Place("TPU_WORKER_HOSTNAMES", method="gketpu"))])
def test_what_starts_several_processes_is_recognised(environment, place):
    assert find_place(environment, tpu=False) == place
    assert find_place(environment, "b:2", 3, 0, tpu=False) == Place("flags", "b:2", 3, 0)
    assert find_place(environment, distributed=False, tpu=True) is None


def test_a_tpu_vm_asks_its_metadata_unless_jax_is_to_use_a_cpu():
    assert find_place({}, tpu=True) == Place("the TPU VM's metadata", method="gcetpu")
    assert find_place({"JAX_PLATFORMS": "cpu"}, tpu=True) is None
    assert find_place({"TPU_WORKER_HOSTNAMES": "localhost"}, tpu=True) is None


@pytest.mark.parametrize("environment", [
    {}, {"JAX_NUM_PROCESSES": "4"}, SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    {name: value for name, value in SLURM.items() if "STEP" not in name},           # the batch script itself: no srun
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, GKE_TPU | {"TPU_WORKER_HOSTNAMES": "localhost"}])
def test_a_process_alone_stays_alone(environment):
    assert find_place(environment, tpu=False) is None


def test_one_process_of_one_is_alone():
    assert find_place({}, "a:1", 1, 0) is None


@pytest.mark.parametrize(("environment", "flags", "message"), [
    ({}, dict(coordinator="a:1"), "--processes and --process missing; of the flags there are --coordinator=a:1. Give all"),
    ({}, dict(processes=2, process=0), "--coordinator missing; of the flags there are --processes=2, --process=0"),
    ({}, dict(coordinator="a:1", processes=2, process=2), "--process=2 with --processes=2: .* from 0 to 1"),
    ({}, dict(coordinator="a:1", processes=2, process=1, distributed=False), "--nodistributed asks for one process"),
    ({}, dict(distributed=True), "--distributed, but nothing says which process of how many"),
    ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "1"}, {},
     "JAX_NUM_PROCESSES missing; of the environment there are JAX_COORDINATOR_ADDRESS=a:1, JAX_PROCESS_ID=1"),
    (JOBSET | {"JAX_NUM_PROCESSES": ""}, {}, "JAX_NUM_PROCESSES missing; .*JOBSET_NAME=cc"),
    (JOBSET | {"JAX_NUM_PROCESSES": "four"}, {}, "JAX_NUM_PROCESSES=four is not a number"),
    (SLURM | {"SLURM_STEP_NODELIST": ""}, {}, "SLURM_STEP_NODELIST='' does not name a node")])
def test_values_that_are_missing_or_can_not_be_are_named(environment, flags, message):
    with pytest.raises(ConfigError, match=message):
        find_place(environment, **flags, tpu=False)
