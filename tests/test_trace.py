"""A trace holds the steps that it was asked for, in the format that xprof reads."""
import jax
import jax.numpy as jnp
import pytest

from cc_jax.config import ConfigError
from cc_jax.trace import Trace


def test_the_steps_asked_for_are_traced(tmp_path):
    trace, work = Trace(str(tmp_path), (2, 3), 5), jax.jit(lambda x: jnp.sin(x) @ x)
    for step in range(1, 6):
        trace.before(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = work(jnp.ones((64, 64)))
        trace.after(step, result)
    trace.close()
    [path] = (tmp_path / "profile").rglob("*.xplane.pb")
    events = [event for plane in jax.profiler.ProfileData.from_file(str(path)).planes
              for line in plane.lines for event in line.events if event.name == "train"]
    assert sorted(dict(event.stats)["step_num"] for event in events) == [2, 3]


def test_a_run_that_ends_early_keeps_its_trace(tmp_path):
    trace = Trace(str(tmp_path), (1, 9), 9)
    trace.before(1)
    trace.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize("steps", [(3,), (0, 2), (4, 3), (4, 12), ("a", "b"), (1.5, 3)])
def test_steps_that_can_not_be_traced_are_refused(steps, tmp_path):
    with pytest.raises(ConfigError, match="profile_steps=.*run's 11"):
        Trace(str(tmp_path), steps, 11)
    Trace(str(tmp_path), (), 11).before(1)
