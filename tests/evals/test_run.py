"""The command that evaluates and compares: its tables, its errors, what it keeps."""
import json
import re

import pytest

from cc_jax import metrics
from cc_jax.config import ConfigError
from cc_jax.evals import catalog


@pytest.fixture(scope="module")
def evaluate(command, tmp_path_factory):
    """Runs it; embeddings are kept between the tests, as between a user's commands."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda *arguments, **options: command("cc_jax.evals.run", *arguments, "--cache", cache, **options)


def test_a_run_is_evaluated_as_in_training(tiny_run, evaluate, tmp_path):
    done = evaluate(tiny_run, "--out", tmp_path / "found")
    assert "## compositional: " in done.stdout and "| swap_attribute | " in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["models"] == {"concepts": str(tiny_run)}
    in_training = {k: v for line in metrics.read(tiny_run) if line["step"] == 6 for k, v in line.items()}
    for name in ("retrieval/image_to_text@5", "compositional/swap_attribute", "compositional/macro"):
        suite, score = name.split("/")
        assert found["suites"][suite]["scores"][score]["scores"]["concepts"]["value"] == pytest.approx(in_training[name])
    assert found["suites"]["compositional"]["items"] == in_training["compositional/items"]
    assert (tmp_path / "found.md").read_text() in done.stdout and "<svg" in (tmp_path / "found.html").read_text()


def test_two_models_are_compared_on_a_published_suite_and_embedded_once(tiny_run, test_data, evaluate, tmp_path):
    steps = [path.name for path in (tiny_run / "checkpoints").iterdir() if path.name.isdecimal()]
    models = [f"{tiny_run}@{step}" for step in sorted(steps, key=int)]
    arguments = (*models, "--suite", "sugarcrepe", "--data", test_data, "--out", tmp_path / "both")
    assert re.search("150[0-9] images .* are not", evaluate(*arguments, fails=True).stderr)
    done = evaluate(*arguments, "--partial")
    assert "## sugarcrepe: 264 of 7 511 items" in done.stdout
    first, second = (f"concepts@{model.rpartition('@')[2]}" for model in models)
    assert f"| score | items | chance | {first} | {second} | {second} - {first} |" in done.stdout
    assert re.search(r"\| macro \| 264 \| 50 \| \d+\.\d \(\d+\.\d to \d+\.\d\)", done.stdout)
    numbers = lambda text: [line for line in text.splitlines() if line.startswith("|")]
    again = evaluate(*arguments, "--partial")
    assert numbers(again.stdout) == numbers(done.stdout)


def test_data_of_ones_own_is_a_suite_by_its_type(shapes_dir, tiny_run, evaluate, tmp_path):
    own = tmp_path / "own.jsonl"
    [image] = sorted((shapes_dir / "suite" / "images").iterdir())[:1]
    item = {"image": image.name, "caption": "a red circle", "negatives": ["a blue cross", "a"]}
    own.write_text(json.dumps(item) + "\n")
    done = evaluate(tiny_run, "--suite", f"compositional:{own},format=json_lines,images={image.parent}", "--suite",
                    f"retrieval:{shapes_dir},split=test", "--limit", 8, "--out", tmp_path / "own")
    assert "## compositional:own.jsonl: 1 of 1 items" in done.stdout
    assert "## retrieval:shapes: 8 of " in done.stdout and "| text_to_image@10 | 16 |" in done.stdout


@pytest.mark.parametrize(("given", "data", "message"), [
    ("sugarcrape", "x", "no suite 'sugarcrape'; did you mean sugarcrepe"), ("valse", None, "name it with --data"),
    ("winoground", ".", "not in .; it needs winoground/data/examples.jsonl"),
    ("retrievel:x", None, "evaluator type 'retrievel'; did you mean retrieval"),
    ("retrieval:x,splt=test", None, "no option 'splt'; did you mean split"),
    ("retrieval:x,limit=many", None, "limit='many' of evaluator retrieval is not of type int")])
def test_a_suite_that_can_not_be_is_named(given, data, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        catalog.blocks(given, data)


def test_an_option_goes_to_those_that_take_it(test_data):
    found = catalog.blocks("sugarcrepe,flickr8k", str(test_data), limit=3, partial=True)
    assert all(block["limit"] == 3 and block["partial"] is True for block in found.values())
    assert "partial" not in catalog.blocks("zero_shot:folder:x", None, partial=True)["zero_shot:folder:x"]


def test_the_list_says_what_each_suite_needs_and_what_was_found(test_data, evaluate):
    listed = evaluate("--suite", "list", "--data", test_data).stdout
    assert "7 511 items, 264 with their images" in listed and "needs winoground/data/examples.jsonl" in listed
    assert "MODELs" in evaluate(fails=True).stderr
    assert "Traceback" not in evaluate("runs/nowhere", fails=True).stderr
