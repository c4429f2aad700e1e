"""`python -m tests.fuzz SECONDS [TARGET...]`: fuzzes targets one after the other, and keeps the input of each finding."""
import argparse
import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz import seeds

WORKER = "-m", "tests.fuzz.worker"


def findings(targets: Sequence[str], seed: int, *limit: str) -> Iterator[dict]:
    """What a process of targets finds: {"target", "kind", "place", "detail", "data" in Base64}; its death is a finding, too.

    Args: limit: "--runs", N or "--seconds", T, of each target.
    """
    with TemporaryDirectory() as out:
        command = [sys.executable, *WORKER, "--out", out, "--seed", str(seed), *limit, *targets]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=Path(__file__).parents[2])
        print(done.stdout, end="", flush=True)
        if (path := Path(out, "findings")).exists():
            yield from map(json.loads, path.read_text().splitlines())
        if done.returncode:
            current = Path(out, "current").read_bytes() if Path(out, "current").exists() else b""
            head, _, rest = current.partition(b"\n")
            target, _, size = head.decode().partition(" ")
            data = base64.b64encode(rest[:int(size or 0)]).decode()
            yield {"target": target.strip("\0"), "kind": "Death", "place": f"exit code {done.returncode}",
                   "detail": done.stderr[-3000:], "data": data}


def main() -> None:
    from tests.fuzz.targets import TARGETS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, help="in all")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    names = args.targets or list(TARGETS)
    print(f"seed {args.seed}")
    found = 0
    for name in names:
        stop = time.monotonic() + args.seconds / len(names)
        seed = args.seed
        while (left := stop - time.monotonic()) > 0:        # again where the process died
            dead = False
            for finding in findings([name], seed, "--seconds", f"{left:.0f}"):
                found += 1
                dead = dead or finding["kind"] == "Death"
                path = seeds.keep(finding["target"] or name, base64.b64decode(finding["data"]))
                print(f"\n{name}: {finding['kind']} at {finding['place']}, input in {path}\n{finding['detail']}\n")
            if not dead:
                break
            seed += 1
    print(f"{found} findings in {len(names)} targets.")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
