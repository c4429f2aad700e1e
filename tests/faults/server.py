"""A process that has imported the project, and starts the real command as processes of their own without that wait.

Reads lines of JSON: {"start": [ARGUMENTS], "log": FILE, "faults": {...}, "devices": 1} answers with a process's number,
{"wait": NUMBER} with its exit code once it has ended. See inject.py for the faults.
"""
import json
import os
import sys

from absl import app

sys.path[:0] = [os.path.dirname(__file__), os.getcwd()]
import inject  # noqa: E402

from cc_jax import config_flag, main  # noqa: E402


def run(request: dict) -> None:
    """The command, in a process of its own, to its end."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={request['devices']}"
    inject.inject(request["faults"])
    main.flags.mark_flags_as_required(["config", "workdir"])
    sys.argv = ["cc_jax.main", *request["start"]]
    app.run(main.main, flags_parser=config_flag.parse)


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            if (number := os.fork()) == 0:
                run(asked)          # ends as the command does
            print(number, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
