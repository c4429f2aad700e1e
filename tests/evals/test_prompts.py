"""Prompts from names and templates: files, what is shipped, and how broken ones are named."""
import json

import pytest

from cc_jax.config import ConfigError
from cc_jax.evals.prompts import TEMPLATES, prompts, read_names, read_templates

CLASSES = ["n01", "n02"]


@pytest.fixture
def write(tmp_path):
    def make(name, content):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return str(tmp_path / name)
    return make


def test_every_template_meets_every_name(write):
    names = write("names.json", {"n02": ["cup", "mug"], "n01": "hen"})
    templates = write("templates.txt", "one {}.\n\n{} two\n")
    assert prompts(CLASSES, names, templates) == [["one hen.", "hen two"], ["one cup.", "cup two", "one mug.", "mug two"]]
    assert prompts(CLASSES, write("names.txt", "hen\n cup \n"), ["{}"]) == [["hen"], ["cup"]]


def test_by_default_classes_are_named_as_they_are():
    assert prompts(["maple_tree", "auk"])[0] == [template.replace("{}", "maple tree") for template in TEMPLATES]
    assert read_names(["maple_tree"]) == [["maple tree"]]


def test_imagenet_is_shipped():
    from cc_jax.evals.prompts import SHIPPED
    ids = sorted(json.loads((SHIPPED / "imagenet.json").read_text()))
    names = [name for [name] in read_names(ids, "imagenet")]
    assert (len(names), names[0], names[207], names[999]) == (1000, "tench", "Golden Retriever", "toilet paper")
    assert sorted(name for name in set(names) if names.count(name) > 1) == ["missile", "sunglasses"]
    templates = read_templates("imagenet")
    assert len(set(templates)) == 80 and "a photo of a {}." in templates


def test_the_names_shipped_are_the_peers_own():
    """open_clip's file, read without importing it."""
    import ast
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("open_clip")
    if found is None:
        pytest.skip("needs the peers: pip install -e '.[peers]'")
    tree = ast.parse((Path(found.origin).parent / "zero_shot_metadata.py").read_text())
    [theirs] = [node.value.elts for node in tree.body
                if isinstance(node, ast.Assign) and node.targets[0].id == "IMAGENET_CLASSNAMES"]
    from cc_jax.evals.prompts import SHIPPED
    shipped = json.loads((SHIPPED / "imagenet.json").read_text())
    assert [shipped[key] for key in sorted(shipped)] == [node.value for node in theirs]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("n.json", {"n01": "hen"}, "n.json has no name for 1 classes, such as 'n02'"),
    ("n.json", {"n01": "hen", "n02": "cup", "n03": "cat"}, "names, but there is no 1 classes, such as 'n03'"),
    ("n.json", {"n01": "hen", "n02": []}, r"class 'n02' has the names \[\]"),
    ("n.json", {"n01": "hen", "n02": 3}, "class 'n02' has the names 3"),
    ("n.json", {"n01": "hen", "n02": " "}, "class 'n02' has the names"),
    ("n.json", '{"n01": "hen", "n01": "cup"}', "key 'n01' is there twice"),
    ("n.json", ["hen", "cup"], "holds no JSON object"), ("n.json", "[]", "holds no JSON object"),
    ("n.json", "{}", "has no name for 2 classes"),
    ("n.json", "{", "n.json is no JSON"),
    ("n.txt", "hen\ncup\ncat\n", "n.txt has 3 names, and there are 2 classes, 'n01' to 'n02'")])
def test_names_that_do_not_fit_are_refused(write, name, content, message):
    with pytest.raises(ConfigError, match=message):
        read_names(CLASSES, write(name, content))


@pytest.mark.parametrize(("content", "message"), [
    ("a photo\n", "templates.txt: template 1, 'a photo', must hold {} once"), ("{}\n{} or {}\n", "template 2"),
    ("\n", "templates.txt is empty")])
def test_templates_that_do_not_fit_are_refused(write, content, message):
    with pytest.raises(ConfigError, match=message):
        read_templates(write("templates.txt", content))


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no class names in .*gone.json .*or 'imagenet'"):
        read_names(CLASSES, str(tmp_path / "gone.json"))
    (tmp_path / "t.txt").write_bytes(b"a \xff {}")
    with pytest.raises(ConfigError, match="t.txt is not UTF-8 at byte 2"):
        read_templates(str(tmp_path / "t.txt"))
