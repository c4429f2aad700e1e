"""A process that runs targets, each in a folder of its own, and writes what it finds: `__main__` sees how it ends."""
import argparse
import base64
import json
import mmap
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz import engine, mutate, seeds
from tests.fuzz.targets import TARGETS

CURRENT_BYTES = mutate.MAX_BYTES * 4        # seeds and kept inputs may be larger than what changes make


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    with open(args.out / "current", "wb+") as file, open(args.out / "findings", "a") as findings:
        file.truncate(CURRENT_BYTES + 100)
        current = mmap.mmap(file.fileno(), 0)
        for name in args.targets:
            target, start = TARGETS[name], time.process_time()
            engine.set_limits()     # anew: libraries keep threads and pools, and hang where they can't have more

            def before(data: bytes, name: str = name) -> None:
                record = f"{name} {len(data)}\n".encode() + data[:CURRENT_BYTES]
                current[:len(record)] = record

            runs = None if args.runs is None else max(10, int(args.runs * target.speed))
            with TemporaryDirectory() as folder:
                for finding in engine.session(target, Path(folder), args.seed, seeds.of(name), runs, args.seconds, before):
                    values = {"target": name, "kind": finding.kind, "place": finding.place, "detail": finding.detail,
                              "data": base64.b64encode(finding.data).decode()}
                    print(json.dumps(values), file=findings, flush=True)
            print(f"{name}: {time.process_time() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
