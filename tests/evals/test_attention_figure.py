"""The attention command: a figure, the peaks it prints, and one clear line for what it can't draw."""
import re

import numpy as np
import pytest
from PIL import Image

from cc_jax.data import dataset
from cc_jax.evals.attention import Maps, phrase_attention
from cc_jax.evals.attention_figure import figure, peak_place, write
from cc_jax.saved import open_run


@pytest.fixture(scope="module")
def picture(shapes_dir):
    return dataset.open_split(shapes_dir, "test")[0]["image"]


def test_the_command_writes_the_figure_and_prints_the_peaks(command, tiny_run, picture, tmp_path):
    (tmp_path / "a.png").write_bytes(picture)
    out = tmp_path / "new" / "figure.png"
    done = command("cc_jax.evals.attention", tiny_run, tmp_path / "a.png", "A red circle", "star", "--out", out)
    [head, first, second, last] = done.stdout.strip().splitlines()
    assert head.startswith("concepts  MAP head  peak ") and last == f"written to {out}"
    attention = phrase_attention(open_run(str(tiny_run)), picture, ["red circle", "star"])
    for line, each in zip((first, second), attention, strict=True):
        peak, row, column = re.search(r"peak (\S+) x .* row (\d) of 3, column (\d) of 3", line).groups()
        assert peak == f"{each.max() * 9:.2f}"
        assert (int(row) - 1, int(column) - 1) == np.unravel_index(each.argmax(), each.shape)
    with Image.open(out) as image:
        assert image.width > 900 and len(image.convert("L").getcolors()) > 50


def test_errors_are_one_line(command, tiny_run, picture, tmp_path):
    missing = command("cc_jax.evals.attention", tiny_run, tmp_path / "a.png", "star", fails=True).stderr
    assert "No such file" in missing and "a.png" in missing and "Traceback" not in missing
    assert "give a model, an image and phrases" in command("cc_jax.evals.attention", tiny_run, "a.png", fails=True).stderr


@pytest.mark.parametrize(("change", "error", "message"), [
    (dict(image=b"no image"), ValueError, "image_undecodable"),
    (dict(phrases=[]), ValueError, "there is no phrase"),
    (dict(phrases=["star", " "]), ValueError, "or an empty one"),
    (dict(phrases=["star"] * 9), ValueError, "9 phrases, and a figure has room for 8"),
    (dict(out="a.txt"), ValueError, "--out=a.txt: write a file that ends in one of .png"),
    (dict(models=["nowhere"]), FileNotFoundError, "'nowhere' is no model"),
])
def test_what_can_not_be_drawn_is_named_and_nothing_is_written(picture, tmp_path, change, error, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        write(**dict(out="a.png", image=picture, phrases=["star"], models=["nowhere"]) | change)
    assert not list(tmp_path.iterdir())


def maps(*phrases, pooling=None):
    """Of 2 x 2 patches."""
    square = lambda each: np.array(each).reshape(2, 2)
    return Maps(np.stack([square(each) for each in phrases]), None if pooling is None else square(pooling))


def test_a_row_for_each_model_on_one_scale_for_phrases_and_one_for_map_heads():
    picture = np.full((20, 40, 3), 255, np.uint8)
    drawn = figure(picture, ["a cat", "$x_1$"], {
        "sharp": maps([0.7, 0.1, 0.1, 0.1], [0.25] * 4, pooling=[0, 0, 0, 1.0]),
        "flat": maps([0.25] * 4, [0.4, 0.2, 0.2, 0.2])})
    grid, scales = drawn.subfigs
    titles = [axes.get_title() for axes in grid.axes]
    assert titles == ["image", "MAP head", "a cat", "$x_1$"] + [""] * 4
    assert [axes.get_xlabel() for axes in grid.axes] == [
        "", "peak 4.00 ×", "peak 2.80 ×", "peak 1.00 ×", "", "", "peak 1.00 ×", "peak 1.60 ×"]
    assert [grid.axes[i].get_ylabel() for i in (0, 4)] == ["sharp", "flat"]
    assert [text.get_text() for text in grid.axes[5].texts] == ["the tower has none"]
    ends = [[label.get_text() for label in axes.get_xticklabels()] for axes in scales.axes]
    assert ends == [["≤ 1 ×", "4.00 ×"], ["≤ 1 ×", "2.80 ×"]]
    brightest = [axes.images[0].get_array().max() for i, axes in enumerate(grid.axes) if i in (2, 6, 7)]
    assert brightest[0] == 255 and brightest[1] < brightest[2] < 255        # the second model's are on the first's scale
    [ring] = {(line.get_xdata()[0], line.get_ydata()[0]) for line in grid.axes[1].lines}
    assert ring == (0.75, 0.75) == peak_place(maps([0, 0, 0, 1.0]).phrases[0])
