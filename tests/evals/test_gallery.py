"""The gallery: complete, self-contained, and with what it is given shown as it is."""
import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cc_jax.data import dataset
from cc_jax.evals import gallery
from cc_jax.evals.attention import Maps


def fake(image, phrases):
    """Attends to the upper left patch."""
    maps = np.full((len(phrases), 2, 2), 0.1)
    maps[:, 0, 0] = 0.7
    return Maps(maps, None)


@pytest.fixture(scope="module")
def record(shapes_dir):
    return dataset.open_split(shapes_dir, "test")[0]


def test_the_command_shows_evenly_spaced_images_with_their_phrases(command, tiny_run, shapes_dir, tmp_path):
    out = tmp_path / "new" / "gallery.html"
    done = command("cc_jax.evals.gallery", tiny_run, "--data", shapes_dir, "--count", 4, "--out", out)
    assert done.stdout.strip() == f"4 images, written to {out}"
    page, source = out.read_text(), dataset.open_split(shapes_dir, "test")
    assert page.count("<section>") == 4 and "<script" not in page and "<link" not in page
    assert re.sub(r'src="data:image/jpeg;base64,[^"]+"', "", page).count("src=") == 0       # all is inside
    shown = [re.sub("<[^>]+>", "", each) for each in re.findall(r'<section>\n<p dir="auto">(.*?)</p>', page)]
    records = [source[i] for i in (0, 10, 20, 30)]
    assert shown == [each["captions"][0].decode() for each in records]
    phrases = [len({p for p, c in zip(each["phrases"], each["phrase_caption"], strict=True) if c == 0}) for each in records]
    assert page.count("<img") == page.count(' alt="') == sum(phrases) + 2 * 4               # the image, and the MAP head
    assert page.count("<mark>") == sum(phrases)
    first = base64.b64decode(re.search(r'base64,([^"]+)', page).group(1))
    with Image.open(io.BytesIO(first)) as image:
        assert image.size == (240, 240)
    assert list(out.parent.iterdir()) == [out]


def test_texts_are_escaped_and_a_caption_without_phrases_is_its_own(record):
    odd = record | {"captions": [b"<b>5 & \"6\"</b>"]} | {name: [] for name in record if name.startswith("phrase")}
    page = gallery.page([odd], fake, "a<b>", "c&d")
    assert "<b>" not in page and "a&lt;b&gt;" in page and "c&amp;d" in page
    assert page.count("&lt;b&gt;5 &amp; &quot;6&quot;&lt;/b&gt;") == 4        # caption, its map, two descriptions
    assert page.count("<img") == 2 and "2.80 ×" in page                     # no MAP head


def test_more_phrases_than_there_is_room_for_are_counted(record):
    many = [f"thing {i}".encode() for i in range(11)]
    listed = record | {name: [0] * 12 for name in dataset.INTEGERS} | {"phrases": [*many, many[0]]}
    page = gallery.page([listed], fake, "m", "d")
    assert "3 more phrases are not drawn" in page and page.count("<img") == 1 + gallery.MAX_PHRASES


def test_a_dataset_without_places_of_phrases_is_shown_without_marks(record):
    old = {key: value for key, value in record.items() if key not in ("phrase_start", "phrase_end")}
    page = gallery.page([old], fake, "m", "d")
    assert "<mark>" not in page and page.count("<img") > 2


def test_what_is_not_there_is_named(tiny_run, shapes_dir, tmp_path):
    out = str(tmp_path / "g.html")
    with pytest.raises(dataset.DatasetError, match="no split 'tst'"):
        gallery.write(str(tiny_run), str(shapes_dir), out, split="tst")
    with pytest.raises(dataset.DatasetError, match="no prepared dataset"):
        gallery.write(str(tiny_run), str(tmp_path), out)
    with pytest.raises(FileNotFoundError, match="'nowhere' is no model"):
        gallery.write("nowhere", str(shapes_dir), out)
    assert not list(tmp_path.iterdir())
