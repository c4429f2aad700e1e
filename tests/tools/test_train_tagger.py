"""The tagger's training, on a few sentences."""
import json
import os
import subprocess
import sys

import pytest
from nltk.tag.perceptron import PerceptronTagger

from cc_jax.data import perceptron
from cc_jax.tools import train_tagger


@pytest.fixture(scope="module")
def scenes():
    return list(train_tagger.scene_sentences(150, seed=0))


def test_scene_sentences_are_tagged_by_rule(scenes):
    tags = {pair for sentence in scenes for pair in sentence}
    assert {("red", "JJ"), ("circle", "NN"), ("crosses", "NNS"), ("left", "NN"), ("above", "IN")} <= tags
    assert scenes == list(train_tagger.scene_sentences(150, seed=0)) != list(train_tagger.scene_sentences(150, seed=1))


def test_training_learns_its_sentences_and_repeats_to_the_byte(scenes):
    texts = [train_tagger.compress(train_tagger.train(list(scenes), iterations=3, seed=5), 100_000) for _ in range(2)]
    assert texts[0] == texts[1]
    tagger = train_tagger.train(list(scenes), iterations=3, seed=5)
    assert tagger.accuracy(scenes) > 0.97


def test_compression_keeps_the_size_and_most_tags(scenes, tmp_path):
    tagger = train_tagger.train(list(scenes), iterations=3, seed=0)
    whole = sum(map(len, train_tagger.compress(tagger, 10**9).values()))
    texts = train_tagger.compress(tagger, whole // 2)
    assert sum(len(text.encode()) for text in texts.values()) <= whole // 2
    for part, text in texts.items():
        (tmp_path / perceptron.TAGGER_FILES[part]).write_text(text)
    assert perceptron.read_tagger(tmp_path).accuracy(scenes) > 0.9


def test_too_small_a_size_is_refused(scenes):
    with pytest.raises(ValueError, match="max_bytes=10 is too small"):
        train_tagger.compress(train_tagger.train(list(scenes), iterations=1, seed=0), 10)


def test_captions_of_the_evaluation_set_are_left_out_whatever_their_case(tmp_path):
    (tmp_path / "a.txt").write_text("A dog.\nA  cat.\n\na dog.\n")
    (tmp_path / "b.txt").write_text("An owl\n")
    assert train_tagger.read_captions([tmp_path / "a.txt", tmp_path / "b.txt"], ["a CAT."]) == ["a dog.", "An owl"]


def test_the_student_sees_lower_case_and_the_teachers_tags():
    teacher = PerceptronTagger(load=False)
    teacher.tagdict = {"young": "JJ", "dogs": "NNS", "run": "VBP", ".": ".", "Rome": "NNP", "in": "IN"}
    sentences = list(train_tagger.tag_captions(["Young dogs run. Young dogs in Rome.", ""], teacher))
    assert [word for word, _ in sentences[1]] == ["young", "dogs", "in", "rome", "."]
    assert [tag for _, tag in sentences[1]] == ["JJ", "NNS", "IN", "NNP", "."]
    assert len(sentences) == 2


def test_the_command_writes_a_tagger_the_package_can_read(tmp_path, test_data):
    captions = (test_data / "captions" / "coco_val2017.txt").read_text("utf-8").splitlines()[:40]
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    (tmp_path / "gold.jsonl").write_text(json.dumps({"caption": captions[0]}))
    command = [sys.executable, "-m", "cc_jax.tools.train_tagger", "--captions", tmp_path / "captions.txt",
               "--exclude", tmp_path / "gold.jsonl", "--out", tmp_path / "out", "--scenes", "10", "--iterations", "1"]
    subprocess.run(command, check=True, env={**os.environ, "NLTK_DATA": str(test_data / "nltk_data")})
    assert perceptron.read_tagger(tmp_path / "out").tag(["a"]) == [("a", "DT")]
