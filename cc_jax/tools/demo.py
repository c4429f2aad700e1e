"""The main job on the embedded dataset: plain SigLIP against the concept losses, from the commands a user would type.

python -m cc_jax.tools.demo --out demo              # what `make demo` runs: one seed, then the report
python -m cc_jax.tools.demo --out runs/seeds --seeds 3   # the README's table: mean and deviation over seeds

With several seeds, plain SigLIP is also trained as long as the concept model took in time, not in steps. A step that is
done already is not done again, so an interrupted demo goes on where it stopped.
"""
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import app, flags

from cc_jax import metrics
from cc_jax.data import dataset

OUT = flags.DEFINE_string("out", "demo", "The folder for data, runs and report.")
SEEDS = flags.DEFINE_integer("seeds", 1, "How many seeds to train; more than one writes a table instead of the report.",
                             lower_bound=1)
STEPS = flags.DEFINE_integer("steps", None, "Training steps; by default the config's.", lower_bound=1)
SCENES = flags.DEFINE_string("scenes", "shapes", "The source of the scenes, as in cc_jax.data.prepare --source.")
CONFIG_ARGUMENTS = flags.DEFINE_string("config_arguments", "", "More arguments for configs/shapes_cc.py, as runlocal.")


def run(module: str, *arguments: str) -> None:
    """Runs one of the project's commands and shows it; ends the demo where it fails."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print(f"\n$ python {shlex.join(command[1:])}", flush=True)
    if code := subprocess.run(command).returncode:
        raise SystemExit(f"demo: that command failed with exit status {code}.")


def train(workdir: Path, data: Path, **arguments) -> Path:
    """Trains configs/shapes_cc.py into `workdir` (resumes, or returns at once, where that has begun or is done)."""
    given = [f"data={data}", *(f"{name}={value}" for name, value in arguments.items() if value is not None),
             *filter(None, CONFIG_ARGUMENTS.value.split(","))]
    run("cc_jax.main", "--config", f"configs/shapes_cc.py:{','.join(given)}", "--workdir", workdir)
    return workdir


def seconds(workdir: Path) -> float:
    """What a run's steps took, the first (it compiles) and the evaluations left out."""
    lines = [line for line in metrics.read(str(workdir)) if "seconds_per_step" in line][1:]
    return lines[-1]["step"] * statistics.median(line["seconds_per_step"] for line in lines)


def final_scores(workdir: Path) -> dict[str, float]:
    """The scores of a run's last evaluation."""
    lines = [line for line in metrics.read(str(workdir)) if any(name.startswith("compositional/") for name in line)]
    return {name: value for name, value in lines[-1].items()
            if name.startswith(("compositional/", "retrieval/")) and not name.endswith(("/items", "/expected"))}


def table(runs: Mapping[str, Sequence[Path]]) -> str:
    """A Markdown table of the final scores in percent: mean and standard deviation over each kind's runs."""
    scores = {kind: [final_scores(workdir) for workdir in workdirs] for kind, workdirs in runs.items()}
    lines = ["| | " + " | ".join(runs) + " |", "| --- |" + " ---: |" * len(runs)]
    for name in next(iter(scores.values()))[0]:
        cells = []
        for each in scores.values():
            values = [100 * score[name] for score in each]
            cells.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    steps = {kind: [metrics.read(str(workdir))[-1]["step"] for workdir in workdirs] for kind, workdirs in runs.items()}
    lines.append("| steps | " + " | ".join(f"{statistics.mean(each):.0f}" for each in steps.values()) + " |")
    lines.append("| training time, s | " + " | ".join(
        f"{statistics.mean(map(seconds, workdirs)):.0f}" for workdirs in runs.values()) + " |")
    return "\n".join(lines) + "\n"


def main(_: list[str]) -> None:
    out = Path(OUT.value)
    data = out / "shapes"
    if not dataset.is_finished(data):
        run("cc_jax.data.prepare", "--source", SCENES.value, "--out", data)
    if SEEDS.value == 1:
        workdirs = [train(out / "siglip", data, concepts=False, steps=STEPS.value),
                    train(out / "concepts", data, steps=STEPS.value)]
        run("cc_jax.tools.report", *workdirs, "--out", out / "report")
        return
    runs = {"SigLIP": [], "SigLIP, same time": [], "with concept losses": []}
    for seed in range(SEEDS.value):
        plain = train(out / f"siglip-{seed}", data, concepts=False, steps=STEPS.value, seed=seed)
        concepts = train(out / f"concepts-{seed}", data, steps=STEPS.value, seed=seed)
        if seed == 0:
            longer = round(metrics.read(str(plain))[-1]["step"] * seconds(concepts) / seconds(plain))
        runs["SigLIP"].append(plain)
        runs["SigLIP, same time"].append(
            train(out / f"siglip-same-time-{seed}", data, concepts=False, steps=longer, seed=seed))
        runs["with concept losses"].append(concepts)
        (out / "seeds.md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    app.run(main)
