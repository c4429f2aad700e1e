"""Every HTML page that the project writes, opened in a real browser: it stands alone, fits a phone, is legible in the dark.

A page is a line in PAGES: its name, and what makes it of unwieldy and hostile data.
"""
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from cc_jax import page
from cc_jax.data import survey_page
from cc_jax.data.survey import Survey
from cc_jax.evals import gallery, results_page
from cc_jax.evals.attention import Maps
from cc_jax.evals.compare import compare
from cc_jax.evals.overlay import Example
from cc_jax.evals.result import Outcomes, Result
from cc_jax.report.curves import STYLE
from cc_jax.report.page import page as report_page
from cc_jax.report.runs import Run

HOSTILE = "<script>alert(1)</script>\"'&<img src=http://evil.example/x onerror=alert(2)>"
LONG = "a_name_without_a_space_" * 5
WINDOWS = ((390, False), (390, True), (1280, False), (1280, True))      # width in CSS pixels; dark or light


def report() -> str:
    """Many runs, one of them not finished, with long and hostile names; evaluations of known types and of others."""
    names = ["siglip", "concepts", LONG, HOSTILE, "half", "a run of another length", "seventh"]
    evals = {"compositional": ["phrase_binding", "swap_attribute", "macro"], "retrieval": ["image_to_text@1"],
             "zero_shot": ["top@1", "top@5"], "a_rather_long_name_of_an_evaluation": [f"{LONG}/score", "other"]}
    config = {"total_steps": 400, "batch_size": 64, "log_every": 10, "loss": {"siglip": 1.0},
              "evals": {name: {"type": name} for name in evals}}
    scores = {f"{name}/{score}": 0.123 for name, each in evals.items() for score in each}
    lines = lambda last: [
        {"step": step, "loss/siglip": 5 / step, "learning_rate": 1e-3, "images_per_second": 812.0, "input_wait": 0.01,
         "seconds_per_step": 0.5} | (scores if step % 100 == 0 else {}) for step in [1, *range(10, last + 1, 10)]]
    runs = [Run(name, name, config, lines(200 if name == "half" else 400)) for name in names]
    picture = np.full((60, 90, 3), 200, np.uint8)
    example = Example(LONG + " " + HOSTILE, picture, ["red couch", LONG, "dog", "hat", "a green umbrella"],
                      {run.name: np.stack([picture] * 5) for run in runs}, 1.5)
    with matplotlib.rc_context(STYLE):
        return report_page(runs, [example] * 3, without=["half"])


def survey() -> str:
    stream, made = io.BytesIO(), Survey()
    Image.new("RGB", (32, 48), "red").save(stream, "JPEG")
    for i in range(30):
        captions = [f"A red dog number {i} in {LONG} {HOSTILE}", "two"]
        made.add({"key": f"{LONG}/{i}.jpg", "image": stream.getvalue(), "captions": captions, "phrases": ["red dog", LONG],
                  "phrase_caption": [0, 0], "phrase_start": [2, 20], "phrase_end": [9, 40]}, "train" if i % 2 else "test")
    rejects = [{"key": LONG, "reason": "image_missing", "detail": HOSTILE + LONG}] * 3
    counts = {"source": f"jsonl:{LONG}", "records": 33, "rejected": {"image_missing": 3}, "notes": {"pickles": 2}}
    return survey_page.page(made, counts, rejects, LONG)


def evaluation() -> str:
    """Seven models on two suites, one of many scores."""
    names = ["siglip", "concepts", LONG, HOSTILE, "third", "a run of another length", "seventh"]
    rng, ids = np.random.default_rng(0), [str(i) for i in range(200)]

    def result(*scores: str) -> Result:
        found = {score: Outcomes(ids, rng.random(200) < rng.random(), 0.5) for score in scores}
        return Result(found, 200, 7511, means={"macro": list(scores)})
    suites = {LONG: [f"category_{i}" for i in range(12)], HOSTILE: [LONG, HOSTILE]}
    found = {suite: {name: result(*scores) for name in names} for suite, scores in suites.items()}
    return results_page.page({name: f"runs/{name}" for name in names},
                             {suite: (compare(of), next(iter(of.values()))) for suite, of in found.items()})


def attention_gallery() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (320, 100), "red").save(stream, "JPEG")
    caption = f"A red dog in {LONG} {HOSTILE}"
    record = {"image": stream.getvalue(), "captions": [caption.encode()], "phrases": [b"red dog", LONG.encode()] * 6,
              "phrase_caption": [0] * 12, "phrase_start": [2, 13] * 6, "phrase_end": [9, 40] * 6}
    attend = lambda image, phrases: Maps(np.full((len(phrases), 2, 2), 0.25), np.full((2, 2), 0.25))
    return gallery.page([record] * 3, attend, LONG, HOSTILE)


PAGES: dict[str, Callable[[], str]] = {
    "report": report, "survey": survey, "evaluation": evaluation, "gallery": attention_gallery}


@pytest.fixture(scope="module")
def browser():
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if (program := module.find()) is None:
        pytest.skip(f"no browser: none of {', '.join(module.NAMES)} is installed (Debian: apt-get install chromium).")
    with module.Browser(program) as browser:
        yield browser


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_in_a_browser_and_can_be_read(name, browser, tmp_path):
    path = tmp_path / f"{name}.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    visits = {(width, dark): browser.visit(path, width, dark) for width, dark in WINDOWS}
    for (width, dark), visit in visits.items():
        assert not visit.console and not visit.requests
        assert visit.width == width and not visit.sticking_out, f"{name} is wider than a window of {width} pixels"
        assert not visit.faint, f"texts of {name} are hard to read in the {'dark' if dark else 'light'}"
        assert not visit.tiny, f"texts of {name} are too small in a window of {width} pixels"
        with Image.open(io.BytesIO(visit.screenshot)) as shot:
            assert shot.width == width and len(np.unique(shot.convert("L"))) > 50
    assert visits[390, False].background != visits[390, True].background


def test_the_browser_sees_what_is_wrong_with_a_page(browser, tmp_path):
    """An uncaught error, a file from elsewhere, a line that is too wide, and a text that is hard to read."""
    path = tmp_path / "bad.html"
    path.write_text('<meta name="viewport" content="width=device-width"><body>'
                    '<p style="width: 600px; font-size: 7px">wide</p>'
                    '<div style="overflow: auto"><p style="width: 900px; color: #999">scrolls</p></div>'
                    '<img src="elsewhere.png"><script>nowhere()</script>')
    visit = browser.visit(path, 390)
    assert any("nowhere is not defined" in line for line in visit.console)
    assert visit.requests == [path.with_name("elsewhere.png").as_uri()]
    assert visit.width > 600 and visit.sticking_out == ["p wide"] and visit.faint == ["p scrolls"]
    assert visit.tiny == ["p wide"]


def test_a_page_can_neither_run_nor_fetch_anything(browser, tmp_path):
    """Whatever might get into one unescaped."""
    path = tmp_path / "page.html"
    path.write_text(page.document("hostile", "", HOSTILE, '<link rel="stylesheet" href="other.css">'))
    visit = browser.visit(path, 390)
    assert not visit.requests and visit.console and all("Content Security Policy" in line for line in visit.console)
