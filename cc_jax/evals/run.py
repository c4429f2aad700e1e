"""Evaluates a saved checkpoint: `python -m cc_jax.evals.run --workdir runs/shapes`.

Without further options it runs the evaluations of the run's own config; --suite and --retrieval name others.
"""
import json
from collections.abc import Mapping

from absl import app, flags, logging
from etils import epath

from cc_jax.config import ConfigError
from cc_jax.data.dataset import DatasetError
from cc_jax.evals import compositional, registry, retrieval
from cc_jax.saved import SavedRun, open_run

WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate.", required=True)
STEP = flags.DEFINE_integer("step", None, "Which of its checkpoints; the newest by default.")
SUITE = flags.DEFINE_string("suite", None, "A folder of compositional tests in SugarCrepe's format.")
IMAGES = flags.DEFINE_string("images", "", "The folder of the suite's images; by default `images` in the suite's folder.")
PARTIAL = flags.DEFINE_bool("partial", False, "Evaluate the suite's items whose image is at hand; others are counted.")
RETRIEVAL = flags.DEFINE_string("retrieval", None, "A prepared dataset to retrieve in.")
SPLIT = flags.DEFINE_string("split", "test", "The split of --retrieval.")


def chosen_evaluators(run: SavedRun) -> dict:
    """{name: evaluator}: those the flags name, or else those of the run's config."""
    evaluators = {}
    if SUITE.value:
        evaluators["compositional"] = compositional.make(SUITE.value, IMAGES.value, partial=PARTIAL.value)
    if RETRIEVAL.value:
        evaluators["retrieval"] = retrieval.make(RETRIEVAL.value, SPLIT.value)
    if not evaluators:
        blocks = run.config.get("evals", {})
        evaluators = {name: registry.make(blocks[name]) for name in blocks.keys()}
    if not evaluators:
        raise ConfigError("the run's config has no evaluations; name one with --suite or --retrieval.")
    return evaluators


def table(scores: Mapping[str, float]) -> str:
    """The scores as a Markdown table: shares in percent, counts as they are."""
    lines = ["| score | value |", "| --- | ---: |"]
    for name, value in scores.items():
        shown = f"{value:.0f}" if name.endswith(("/items", "/expected")) else f"{100 * value:.1f} %"
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --.")
    logging.set_verbosity(logging.WARNING)
    try:
        run = open_run(WORKDIR.value, STEP.value)
        evaluators, embedder = chosen_evaluators(run), run.embedder()
        scores = {f"{name}/{key}": value for name, evaluate in evaluators.items()
                  for key, value in evaluate(embedder).scores().items()}
    except (ConfigError, DatasetError, FileNotFoundError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(f"{WORKDIR.value}, step {run.step}\n\n{table(scores)}")
    path = epath.Path(WORKDIR.value) / f"evaluation-{run.step}.json"
    path.write_text(json.dumps({"step": run.step} | scores, indent=2) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    app.run(main)
