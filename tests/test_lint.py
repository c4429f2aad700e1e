"""The rules of `make lint` that keep what is read from being run: each finds what it is there for."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN_CODE = {
    "pickle": "import pickle", "from pickle": "from pickle import loads", "in a function": "def f():\n    import pickle",
    "marshal": "import marshal",
    "cloudpickle": "import cloudpickle", "dill": "import dill", "joblib": "import joblib", "shelve": "import shelve",
    "torch": "import torch", "tensorflow": "import tensorflow as tf", "eval": "eval(text)", "exec": "exec(text)",
    "shell": "import subprocess\nsubprocess.run(f'ls {name}', shell=True)",
    "os.system": "import os\nos.system(f'ls {name}')", "popen": "import os\nos.popen(command)",
    "yaml": "import yaml\nyaml.load(text)",
    "extractall": "import tarfile\nwith tarfile.open(path) as tar:\n    tar.extractall('/tmp')",
    "tfds": "import tensorflow_datasets as tfds\ntfds.builder_from_directory(folder)",
    "tfds.load": "import tensorflow_datasets as tfds\ntfds.load(name)"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Ruff's findings, but for unknown names, in a file for each of RUN_CODE."""
    folder = tmp_path_factory.mktemp("lint")
    for name, text in RUN_CODE.items():
        (folder / f"{name}.py").write_text(text + "\n")
    ruff = [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", "--no-cache"]
    options = ["--extend-ignore", "E,F,I,W,UP,B", "--output-format", "concise"]
    return subprocess.run([*ruff, *options, folder], capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", RUN_CODE)
def test_what_runs_code_is_found(found, name):
    assert f"{name}.py:" in found


def test_no_array_may_hold_pickled_objects():
    """Ruff has no rule for it. NumPy refuses them unless told otherwise."""
    calls = [(path, node) for folder in ("cc_jax", "configs", "tests") for path in (ROOT / folder).rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    allowed = [f"{path}:{node.lineno}" for path, node in calls for keyword in node.keywords if keyword.arg == "allow_pickle"
               and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)]
    assert len(calls) > 1000 and not allowed
