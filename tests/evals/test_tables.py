"""Tables and the page of an evaluation say what was found, and how certain it is."""
import html.parser
import json
import re

import numpy as np

from cc_jax.evals import results_page, tables
from cc_jax.evals.compare import compare
from cc_jax.evals.result import Outcomes, Result

RNG = np.random.default_rng(0)
BASE = RNG.random(400) < 0.6


def suites(**models):
    ids = [str(i) for i in range(400)]
    results = {name: Result({"swap <b>": Outcomes(ids, right, 0.5)}, 400, 500, means={"macro": ["swap <b>"]})
               for name, right in models.items()}
    return {"sugarcrepe": (compare(results), results["first"])}


def test_a_table_shows_intervals_chance_coverage_and_noise():
    better = BASE | (RNG.random(400) < 0.3)
    text = tables.markdown(suites(first=BASE, same=BASE, better=better))
    lines = text.splitlines()
    assert lines[0] == "## sugarcrepe: 400 of 500 items"
    assert lines[2] == "| score | items | chance | first | same | better | same - first | better - first |"
    cells = lines[4].split(" | ")
    assert cells[:3] == ["| swap <b>", "400", "50"] and re.fullmatch(r"\d\d\.\d \(\d\d\.\d to \d\d\.\d\)", cells[3])
    assert float(cells[3].split()[0]) == round(100 * BASE.mean(), 1)
    assert cells[6] == "+0.0 (+0.0 to +0.0), 0 gained, 0 lost, p 1: within noise"
    assert f"{(better & ~BASE).sum()} gained, 0 lost, p " in cells[7] and "noise" not in cells[7]
    assert "differences are to first" in text.lower()


def test_json_holds_every_number():
    found = suites(first=BASE, other=~BASE)
    read = json.loads(json.dumps(tables.to_json({"first": "runs/first", "other": "b16.npz"}, found)))
    score = read["suites"]["sugarcrepe"]["scores"]["swap <b>"]
    assert read["models"]["other"] == "b16.npz" and read["suites"]["sugarcrepe"]["expected"] == 500
    assert score["scores"]["first"]["value"] == BASE.mean() and score["chance"] == 0.5
    assert score["differences"]["other"]["lost"] == BASE.sum() and score["differences"]["other"]["certain"]


def test_the_page_stands_alone_and_is_well_formed():
    page = results_page.page({"first": "runs/<first>", "other": "b"}, suites(first=BASE, other=~BASE))
    assert not re.search(r"(src|href)=|<script|@import|url\(", page)
    assert "runs/&lt;first&gt;" in page and "swap &lt;b&gt;" in page and "swap <b>" not in page
    assert page.count("<svg class=\"chart\"") == 1 and "400 of 500 items" in page

    class Balanced(html.parser.HTMLParser):
        open = []

        def handle_starttag(self, tag, attrs):
            self.open += [tag] if tag not in ("meta",) else []

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def test_an_interval_is_drawn_where_its_numbers_are():
    [row, _] = suites(first=BASE)["sugarcrepe"][0]
    drawn = results_page.chart([row])
    low, high = map(float, re.search(r'd="M([\d.]+) [\d.]+H([\d.]+)" stroke="var\(--c0', drawn).groups())
    at = {int(share): float(x) for x, share in re.findall(r'x="([\d.]+)" y="[\d.]+" text-anchor="middle">(\d+) %', drawn)}
    place = lambda share: at[0] + (at[100] - at[0]) * share
    assert abs(low - place(row.scores["first"].low)) < 0.1 and abs(high - place(row.scores["first"].high)) < 0.1
