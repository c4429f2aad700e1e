"""Evaluates models and compares them:

    python -m cc_jax.evals.run runs/siglip runs/concepts --suite sugarcrepe,winoground --data evaluation --out both
    python -m cc_jax.evals.run --suite list --data evaluation       # what each suite needs, and what of it is there
    python -m cc_jax.evals.run runs/concepts@600                    # the evaluations of the run's own config, at step 600

Each MODEL is a run's workdir, WORKDIR@STEP, weights of any format that cc_jax.convert reads, or a released model's name.
With several, each is compared with the first. A suite is one of the list, or TYPE:PATH[,OPTION=VALUE] for data of one's
own, by the types and options of a config's `evals`: retrieval:datasets/photos,split=test. Writes OUT.json, OUT.md and
OUT.html.
"""
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import app, flags, logging

from cc_jax.config import Config, ConfigError
from cc_jax.data.transforms import ImageError
from cc_jax.evals import cache, catalog, registry, results_page, tables
from cc_jax.evals.cache import CachedEmbedder
from cc_jax.evals.compare import Row, compare
from cc_jax.evals.models import Model, find_models
from cc_jax.evals.result import Result

SUITE = flags.DEFINE_multi_string("suite", [], "Suites, with commas between; or TYPE:PATH[,OPTION=VALUE]; or `list`. Repeat "
                                               "it for more. Default: the evaluations of the first run's config.")
DATA = flags.DEFINE_string("data", None, "The folder of evaluation data, for suites that go by a name.")
IMAGES = flags.DEFINE_string("images", None, "The folder of images, or several with commas between; by default those beside "
                                             "the suite.")
PARTIAL = flags.DEFINE_bool("partial", None, "Evaluate the items whose image is at hand; the others are counted.")
LIMIT = flags.DEFINE_integer("limit", None, "Only the first so many items of each category, or images.", lower_bound=1)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "The vocabulary file, for weights that have none beside them.")
CACHE = flags.DEFINE_string("cache", cache.CACHE, "Where embeddings are kept; empty: nowhere.")
OUT = flags.DEFINE_string("out", "evaluation", "The files to write, less their endings.")


def chosen_evaluators(models: list[Model]) -> dict[str, Callable]:
    """{name: evaluator}: those of --suite, or else of the first run's config. All their files are looked at now."""
    blocks = {}
    for given in SUITE.value:
        blocks |= catalog.blocks(given, DATA.value, images=IMAGES.value, partial=PARTIAL.value, limit=LIMIT.value)
    if not SUITE.value:
        from cc_jax import checkpoint  # its libraries take a second to import, and suites by name do without

        workdir = next((model.workdir for model in models if model.workdir), None)
        blocks = checkpoint.read_config(workdir).get("evals", {}) if workdir else {}
    if not blocks:
        raise ConfigError("there is nothing to evaluate: the config names no evaluations; name suites with --suite; "
                          "`--suite list` shows those there are.")
    return {name: registry.make(Config(block, f"evals.{name}")) for name, block in blocks.items()}


def evaluate(models: list[Model], evaluators: Mapping[str, Callable]) -> dict[str, dict[str, Result]]:
    """{suite: {model: result}}. A model is open only while it is evaluated, and only where its embeddings are not cached."""
    results = {name: {} for name in evaluators}
    for model in models:
        folder = cache.model_folder(CACHE.value, model.files) if CACHE.value and model.files is not None else None
        embedder = CachedEmbedder(lambda model=model: model.open().embedder(), folder)
        for name, evaluator in evaluators.items():
            start = time.perf_counter()
            results[name][model.name] = result = evaluator(embedder)
            print(f"{model.name}: {name}, {tables.coverage(result)}, {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return results


def write(out: str, opened_from: Mapping[str, str], suites: Mapping[str, tuple[list[Row], Result]]) -> None:
    """OUT.json, OUT.md and OUT.html."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    contents = {"json": json.dumps(tables.to_json(opened_from, suites), indent=1) + "\n", "md": tables.markdown(suites),
                "html": results_page.page(opened_from, suites)}
    for ending, content in contents.items():
        Path(f"{out}.{ending}").write_text(content)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        if SUITE.value == ["list"]:
            print(catalog.listing(DATA.value))
            return
        if not argv[1:]:
            raise app.UsageError("name the MODELs to evaluate, or --suite list.")
        models = find_models(argv[1:], TOKENIZER.value)
        results = evaluate(models, chosen_evaluators(models))
        suites = {name: (compare(of), next(iter(of.values()))) for name, of in results.items()}
    except (ConfigError, FileNotFoundError, ImageError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    write(OUT.value, {model.name: given for model, given in zip(models, argv[1:], strict=True)}, suites)
    print(f"{tables.markdown(suites)}\nwritten to {OUT.value}.json, .md and .html")


if __name__ == "__main__":
    app.run(main)
