"""Zero-shot classification against its definition, on pictures of one colour."""
import json

import numpy as np
import pytest

from cc_jax.config import Config, ConfigError
from cc_jax.evals import registry, zero_shot

from .conftest import unit


def test_pictures_are_found_by_their_colour(folder, colours, tmp_path):
    source = folder("walls", c0=["red", "red", "black"], c1=["green"], c2=["blue", "green"])
    (tmp_path / "names.json").write_text(json.dumps({"c0": "red", "c1": "green", "c2": ["blue", "blue thing"]}))
    block = dict(type="zero_shot", data=source, names=str(tmp_path / "names.json"), every=5)
    result = registry.make(Config(block))(colours)
    assert dict(zip(result.outcomes["top1"].ids, result.outcomes["top1"].right, strict=True)) == {
        "c0/0.png": 1, "c0/1.png": 1, "c0/2.png": 0, "c1/0.png": 1, "c2/0.png": 1, "c2/1.png": 0}
    scores = result.scores()
    assert scores["mean_per_class"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3) and "top5" not in scores
    assert result.outcomes["top1"].chance == pytest.approx(1 / 3)
    limited = zero_shot.make(source, str(tmp_path / "names.json"), limit=2)(colours).scores()
    assert (limited["items"], limited["expected"]) == (2, 2)


def test_a_class_is_the_normalised_mean_of_its_normalised_prompts(colours):
    rng = np.random.default_rng(0)
    vectors = {text: unit([rng.normal(size=5)])[0] for text in "abcd"}

    class Texts:
        def texts(self, texts):
            assert len(set(texts)) == len(texts)
            return np.stack([vectors[text] for text in texts])

    found = zero_shot.class_embeddings([["a", "b"], ["c"], ["b", "d", "a"]], Texts())
    for row, texts in zip(found, ["ab", "c", "bda"], strict=True):
        total = sum(vectors[text].astype(np.float64) for text in texts)
        np.testing.assert_allclose(row, total / np.linalg.norm(total), rtol=1e-6)


def test_classes_of_one_name_tie_and_neither_wins(folder, colours, tmp_path):
    source = folder("walls", a=["red"], b=["red"], c=["blue"])
    (tmp_path / "names.txt").write_text("red\nred\nblue\n")
    outcomes = zero_shot.make(source, str(tmp_path / "names.txt"))(colours).outcomes["top1"]
    assert outcomes.right.tolist() == [0, 0, 1]


def test_top5_counts_of_more_than_five_classes(folder, colours):
    names = ["red", "green", "blue", "black", "white", "yellow"]
    source = folder("walls", **{name: [name] for name in names} | {"red": ["white", "red"]})
    result = zero_shot.make(source)(colours)
    assert result.scores()["top5"] >= result.scores()["top1"] == pytest.approx(6 / 7)
    assert result.outcomes["top5"].chance == pytest.approx(5 / 6)


def test_what_does_not_fit_is_an_error_before_anything_is_embedded(folder):
    with pytest.raises(ConfigError, match="has no name for"):
        zero_shot.make(folder("walls", a=["red"]), "imagenet")
    with pytest.raises(ConfigError, match="nothing reads config.tempaltes; did you mean config.templates"):
        registry.make(Config(dict(type="zero_shot", data="folder:x", tempaltes=["{}"])))


def test_suites_are_found_where_their_files_are(folder, tmp_path):
    suites = {suite.name: suite for suite in zero_shot.SUITES}
    assert not any(suite.look(tmp_path) for suite in suites.values())
    (tmp_path / "cifar10").mkdir()
    folder("cifar10/test", cat=["red"] * 2, dog=["blue"])
    found = suites["cifar10"].look(tmp_path)
    assert found.says == "3 images of 2 classes" and callable(registry.make(Config(found.block)))
    folder("imagenet/val", n01440764=["red"])
    assert suites["imagenet"].look(tmp_path).says == "1 images of 1 classes"


def test_a_suite_of_tfds_is_found(tmp_path, write_tfds, picture):
    import tensorflow_datasets as tfds
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(),
                                           "label": tfds.features.ClassLabel(names=["apple", "lawn_mower"])})
    for version in ("3.0.1", "3.0.2"):
        write_tfds(tmp_path / "cifar100" / version, features, {"test": [{"image": picture("red"), "label": 1}]}, "cifar100",
                   version)
    [suite] = [suite for suite in zero_shot.SUITES if suite.name == "cifar100"]
    found = suite.look(tmp_path)
    assert found.says == "1 images of 2 classes" and found.block["data"].endswith("cifar100/3.0.2,split=test")
