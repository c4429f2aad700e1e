"""Which checkpoints are kept."""
import pytest

from cc_jax.config import Config, ConfigError
from cc_jax.preserve import Preserve


def test_the_newest_the_multiples_and_the_best_are_kept():
    preserve = Preserve.read(Config({"keep": 2, "keep_every": "40 %", "best": "retrieval/r1"}), 100, ["retrieval"])
    assert preserve.kept(range(10, 80, 10)) == {40, 60, 70}
    preserve.remember([{"step": step, "retrieval/r1": score} for step, score in ((5, 0.9), (20, 0.5), (30, 0.5), (50, 0.4))])
    assert preserve.kept(range(10, 80, 10)) == {30, 40, 60, 70}
    assert preserve.kept([10]) == {10} and preserve.kept([]) == set()


@pytest.mark.parametrize(("block", "message"), [
    ({"keep": 0}, "config.checkpoint.keep=0; keep at least 1"),
    ({"keep_every": "0 %"}, "duration '0 %'"),
    ({"best": "retreival/r1"}, "no evaluation 'retreival'; did you mean retrieval"),
])
def test_a_policy_that_can_not_be_is_refused(block, message):
    with pytest.raises(ConfigError, match=message):
        Preserve.read(Config(block), 100, ["retrieval"])


def test_a_best_score_that_its_evaluation_does_not_give_is_refused():
    with pytest.raises(ConfigError, match="config.checkpoint.best='a/r2', but .* did you mean a/r1"):
        Preserve(best="a/r2").remember([{"step": 1, "b/r2": 0.1}, {"step": 2, "a/r1": 0.1}])
