"""The report of real runs: complete, self-contained, and clear about what is missing."""
import json
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from cc_jax import metrics
from cc_jax.tools import report

VOID = {"meta", "img", "br", "path", "use", "line"}


class Page(HTMLParser):
    """The tags, addresses and table rows of a page; every tag has to be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.addresses, self.rows, self.ids, self._open = [], [], [], [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def cells(self, label: str) -> list[str]:
        return next(row[1:] for row in self.rows if row[0] == label)


@pytest.fixture
def copy(tiny_run, tmp_path):
    """Copies the run under another name, its lines of metrics changed by a function."""
    def make(name: str, change=lambda line: line):
        workdir = tmp_path / name
        shutil.copytree(tiny_run, workdir, ignore=shutil.ignore_patterns("tensorboard"))
        lines = [change(dict(line)) for line in metrics.read(str(tiny_run))]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(workdir)
    return make


def test_the_command_reports_runs_side_by_side(command, copy, tiny_run, tmp_path):
    def forget(line):
        return {key: value for key, value in line.items() if key not in ("loss/phrase", "compositional/swap_attribute")}

    out = tmp_path / "new" / "report"
    done = command("cc_jax.tools.report", copy("siglip", forget), str(tiny_run), "--out", str(out), "--images", "2")
    assert f"{out}.html" in done.stdout and f"{out}.png" in done.stdout
    page = Page(out.with_suffix(".html").read_text())

    assert "script" not in page.tags
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    final = {key: value for line in metrics.read(str(tiny_run)) for key, value in line.items()}
    assert page.cells("swap attribute") == ["–", f"{100 * final['compositional/swap_attribute']:.1f}"]
    assert page.cells("text to image @5") == [f"{100 * final['retrieval/text_to_image@5']:.1f}"] * 2
    assert page.cells("updates") == [str(final["step"])] * 2
    pictures = page.tags.count("img")
    assert pictures >= 2 + 2 * 2 * 2        # two images, and of each two phrases or more by two runs
    with Image.open(out.with_suffix(".png")) as poster:
        assert poster.width == 1440 and poster.height > 720 and len(poster.convert("L").getcolors()) > 50


def test_a_run_without_evaluations_or_times_is_reported_with_dashes(copy, tmp_path):
    workdir = copy("early", lambda line: {"step": line["step"], "loss/siglip": 1.5})
    shutil.rmtree(f"{workdir}/checkpoints")     # without images, no checkpoint is needed
    html, png = report.write([workdir], str(tmp_path / "r"), images=0)
    page = Page(html.read_text())
    assert page.cells("time per update") == page.cells("training time") == page.cells("no scores") == ["–"]
    assert "img" not in page.tags and png.stat().st_size > 0


def test_names_are_shown_as_they_are(copy, tmp_path):
    html, _ = report.write([copy("a<b>&c"), copy("$\\x_1$")], str(tmp_path / "r"), images=0)
    assert ["", "a<b>&c", "$\\x_1$"] in Page(html.read_text()).rows


def test_a_workdir_that_holds_no_run_is_named(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not the workdir of a run"):
        report.write([str(tmp_path / "nowhere")], str(tmp_path / "r"))
    workdir = copy("untrained")
    (tmp_path / "untrained" / "metrics.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match="holds no metrics; train the run first"):
        report.write([workdir], str(tmp_path / "r"))
    (tmp_path / "untrained" / "metrics.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="metrics.jsonl is missing"):
        report.write([workdir], str(tmp_path / "r"))
    assert not (tmp_path / "r.html").exists()


def test_a_run_without_checkpoint_is_named_beside_the_others_attention(copy, tiny_run, tmp_path):
    """As one that began a minute ago."""
    workdir = copy("young", lambda line: line if line["step"] < 3 else {"step": 2})
    shutil.rmtree(f"{workdir}/checkpoints")
    html, _ = report.write([str(tiny_run), workdir], str(tmp_path / "r"), images=1)
    page = Page(html.read_text())
    assert "Not shown, for want of a checkpoint: young." in html.read_text()
    assert page.tags.count("img") >= 3 and page.cells("updates") == ["6", "2 of 6"]
    html, _ = report.write([workdir], str(tmp_path / "r"), images=1)
    assert "img" not in Page(html.read_text()).tags


def test_two_runs_of_one_name_are_refused(copy, tmp_path):
    with pytest.raises(ValueError, match="two of the workdirs are named 'siglip'"):
        report.write([copy("x/siglip"), copy("y/siglip")], str(tmp_path / "r"))
