"""How a command's models are named."""
import shutil

import pytest

from cc_jax.config import ConfigError
from cc_jax.evals.models import find_models


def test_a_workdir_is_its_newest_step_or_the_one_after_the_at_sign(tiny_run):
    steps = sorted(int(path.name) for path in (tiny_run / "checkpoints").iterdir() if path.name.isdecimal())
    newest, older = find_models([str(tiny_run), f"{tiny_run}@{steps[0]}"])
    assert (newest.name, older.name) == ("concepts", f"concepts@{steps[0]}")
    assert newest.open().step == steps[-1] and older.open().step == steps[0]
    assert any(path.parts[-2:] == ("checkpoints", str(steps[-1])) for path in [*newest.files][0].parents)
    assert set(newest.files) != set(older.files)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint of step 99999 .* there are \\[{steps[0]}"):
        find_models([f"{tiny_run}@99999"])


def test_models_of_one_name_go_by_what_was_given(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "concepts")
    given = [str(tiny_run), str(tmp_path / "concepts")]
    assert [model.name for model in find_models(given)] == given
    with pytest.raises(ConfigError, match="given twice"):
        find_models([given[0], given[0]])


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="'nowhere' is no model; name a run's workdir"):
        find_models(["nowhere"])
    with pytest.raises(ConfigError, match="is not the workdir of a run"):
        find_models([f"{tmp_path}@6"])
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="there are none"):
        find_models([str(tmp_path / "run")])
