"""What a checkpoint came from: the config, the code, the dataset and the tokenizer; written into its manifest."""
import hashlib
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from cc_jax.config import ConfigError
from cc_jax.distributed import PACKAGES, code_version

SAMPLE = 2**16          # bytes at the start and at the end of a shard that its fingerprint holds
SHARDS = 64             # evenly spaced ones, of which so much is read; of all others name and size count
FORMAT = "dataset_info.json", "features.json"


def collect(values: Mapping[str, Any], dataset: str, tokenizer: str) -> dict[str, Any]:
    """Args: values: the run's config. dataset, tokenizer: their fingerprints."""
    return {"config": values, "dataset": dataset, "tokenizer": tokenizer, "code": code_version(), "commit": commit(),
            "packages": {name: metadata.version(name) for name in PACKAGES}}


def commit() -> str | None:
    """The commit of the repository that the code lies in, with "+" where files differ from it; None without one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = lambda *command: subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        changed = run("status", "--porcelain", "--untracked-files=no", "--", "cc_jax")
        return run("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def dataset_fingerprint(folder: str | Path, split: str) -> str:
    """A hash of a dataset's description, its shards' names and sizes, and the ends of some of them: a second for terabytes.

    A dataset that was copied, or prepared again from the same source, keeps it.
    """
    folder, digest = Path(folder), hashlib.sha256()
    for path in (folder / name for name in FORMAT):
        if path.is_file():
            digest.update(path.read_bytes())
    shards = sorted(path for path in folder.iterdir() if f"-{split}." in path.name and path.is_file())
    digest.update("\n".join(f"{path.name} {path.stat().st_size}" for path in shards).encode())
    for path in shards[::-(-len(shards) // SHARDS) or 1]:
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            file.seek(max(0, path.stat().st_size - SAMPLE))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where a run would go on with another dataset or tokenizer than its checkpoint was made with."""
    changed = [f"the {name} {saved[name]}, now it is {now[name]}" for name in ("dataset", "tokenizer")
               if name in saved and saved[name] != now[name]]
    if changed:
        raise ConfigError(f"the checkpoint {where} was made with {' and '.join(changed)}; put back what it was "
                          "made with, use another --workdir, or go on all the same with --config.checkpoint.force=True.")
