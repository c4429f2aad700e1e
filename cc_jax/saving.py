"""Saves the states of a run: in the background, each with its manifest; a save that fails is tried again, with pauses."""
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from cc_jax import checkpoint, manifest, metrics
from cc_jax.preserve import Preserve

WAITS = (1.0, 5.0, 20.0, 60.0)      # seconds between the tries


class SaveFailed(RuntimeError):
    """A state could not be saved, however often that was tried."""


class Saver:
    """Of several processes one that can't save ends its run at once: the others could not be told to try again."""

    def __init__(self, workdir: str, preserve: Preserve, provenance: Mapping[str, Any], waits: Sequence[float] = WAITS):
        self._workdir, self._provenance, self._waits = workdir, provenance, waits
        self.manager = checkpoint.open_manager(workdir, preserve, self._write_manifest)
        self._step = None                           # that is being saved
        self._fails, self._again = 0, math.inf      # tries in a row that failed; when to try again

    def save(self, step: int, state: Any) -> None:
        """Starts saving `state` as that of `step`; training goes on meanwhile. Raises SaveFailed after the last try."""
        if not self._settle() or step in self.manager.all_steps():
            return
        try:
            self._step = step
            self.manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
        except Exception as error:      # of Orbax, TensorStore and the system: whatever a failing disk makes them raise
            self._failed(error)

    def due(self) -> bool:
        """Whether to save out of turn, as the last save failed and its pause is over."""
        if self._step is not None and jax.process_count() == 1 and not self.manager.is_saving_in_progress():
            self._settle()
        return time.monotonic() >= self._again

    def finish(self, step: int, state: Any) -> None:
        """Returns when the state of `step` is saved. Raises SaveFailed after the last try."""
        while True:
            self.save(step, state)
            self._settle()
            if step in self.manager.all_steps():
                return
            time.sleep(max(0.0, self._again - time.monotonic()))

    def close(self) -> None:
        """Waits for the save under way; another error may be on its way, so a failing save is only told."""
        try:
            self.manager.wait_until_finished()
            self.manager.close()
        except Exception as error:
            metrics.say(f"the last save failed: {error}")

    def _settle(self) -> bool:
        """Waits for the save under way. Returns whether another may begin: not while a failed one pauses."""
        if self._step is not None:
            try:
                self.manager.wait_until_finished()
                self._fails, self._again, self._step = 0, math.inf, None
            except Exception as error:
                self._failed(error)
        return self._again == math.inf or time.monotonic() >= self._again

    def _failed(self, error: Exception) -> None:
        """Makes room for another try, and says when that will be."""
        step, self._step = self._step, None
        self._fails += 1
        if jax.process_count() > 1:
            raise SaveFailed(f"the state after step {step} can't be saved: {error}") from error
        try:
            checkpoint.clear_unfinished(self._workdir)
            self.manager.reload()
        except OSError as another:      # tried again with the save
            error = another
        why = str(error)[:400]      # TensorStore's may go on for pages
        kept = f"the checkpoints of steps {checkpoint.saved_steps(self._workdir) or 'none'} are untouched"
        if self._fails > len(self._waits):
            raise SaveFailed(f"the state after step {step} can't be saved, tried {self._fails} times: {why}; {kept}. "
                             "Make room or mend the filesystem; the same command then resumes.") from error
        wait = self._waits[self._fails - 1]
        self._again = time.monotonic() + wait
        metrics.say(f"the state after step {step} could not be saved, {kept}; the next try is in {wait:g} s: {why}")

    def _write_manifest(self) -> None:
        """Orbax has written all files of the checkpoint, and is about to give it its name."""
        folder = epath.Path(self._workdir).resolve() / checkpoint.FOLDER
        unfinished = list(folder.glob(f"{self._step}.orbax-checkpoint-tmp*"))
        manifest.write(unfinished[0] if unfinished else folder / str(self._step), self._step, self._provenance)
