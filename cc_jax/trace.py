"""A trace of some steps, for xprof or Perfetto: `--config.profile_steps=20,25` writes it into WORKDIR/profile."""
import tempfile
from pathlib import Path

import jax
from etils import epath

from cc_jax.config import ConfigError


class Trace:
    """Traces the steps from the first to the last one, both included. A run's first step compiles: leave it out."""

    def __init__(self, workdir: str, steps: tuple[int, int] | tuple[()], length: int):
        """Raises ConfigError for steps that are not two numbers, in order, of a run of `length`."""
        two = len(steps) == 2 and all(isinstance(step, int) for step in steps)
        if steps and not (two and 0 < steps[0] <= steps[1] <= length):
            raise ConfigError(f"config.profile_steps={steps!r}; give the first and the last step to trace, such as 20,25, "
                              f"of the run's {length}.")
        self._first, self._last = steps or (None, None)
        self._target = epath.Path(workdir) / "profile"
        self._folder = None

    def before(self, step: int) -> None:
        if step == self._first:
            # The profiler writes to local disks only.
            self._folder = tempfile.mkdtemp(prefix="cc_jax-profile-") if "://" in str(self._target) else str(self._target)
            jax.profiler.start_trace(self._folder)

    def after(self, step: int, result) -> None:
        """`result`: what the step has made; it is waited for before the trace ends."""
        if step == self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends and keeps a trace that is under way."""
        if self._folder is None:
            return
        jax.profiler.stop_trace()
        if self._folder != str(self._target):
            for path in (path for path in Path(self._folder).rglob("*") if path.is_file()):
                target = self._target / path.relative_to(self._folder).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        self._folder = None
