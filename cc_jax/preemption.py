"""SIGTERM to a process that runs alone: it saves and ends well. Of several processes JAX tells all (`train`)."""
import os
import signal
import sys
from collections.abc import Callable


class Told(BaseException):
    """This process was told to stop while nothing was under way that would be lost."""


class Preemption:
    """Whether this process was told to stop.

    A step that is under way is ended and saved. What can be cut short, is: the start of a run, and evaluations, which are
    made up for when it resumes. Told twice, the process ends at once.
    """

    def __init__(self):
        self.told, self.can_cut = False, True

    def install(self) -> "Preemption":
        """From now on SIGTERM is what tells it. Only in the main thread."""
        signal.signal(signal.SIGTERM, self._tell)
        return self

    def cut_short(self, function: Callable, *arguments) -> None:
        """Calls the function, unless told to stop, and leaves it where that comes meanwhile."""
        try:
            self.can_cut = True
            if not self.told:
                function(*arguments)
        except Told:
            pass
        finally:
            self.can_cut = False

    def _tell(self, number: int, frame: object) -> None:
        if self.told:
            os._exit(128 + number)
        self.told = True
        print("told to stop", file=sys.stderr, flush=True)
        if self.can_cut:
            raise Told
