"""A run ends where a score falls under what its config lets it be."""
import pytest

from cc_jax import metrics
from cc_jax.config import ConfigError
from cc_jax.evals.guard import Guard, Guards, ScoreFell, read
from cc_jax.train import train
from configs import shapes_cc


def test_a_bound_and_a_drop_from_the_best_end_a_run():
    guards = Guards([Guard("a/x", "below", 0.5), Guard("b/y", "drops", 0.1)])
    guards.check(0, {"a/x": 0.5, "b/y": 0.8})
    guards.check(1, {"b/y": 0.9, "c/z": 0.0})
    guards.check(2, {"b/y": 0.81})
    with pytest.raises(ScoreFell, match=r"step 3: b/y is 0.79, under 0.8, the best so far \(0.9\) less 0.1"):
        guards.check(3, {"a/x": 0.6, "b/y": 0.79})
    with pytest.raises(ScoreFell, match="step 4: a/x is 0.49, under 0.5: "):
        guards.check(4, {"a/x": 0.49, "b/y": 0.9})


def test_a_resumed_run_knows_the_best_it_had():
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "b/y": 0.9}, {"step": 3, "b/y": "nan"}]
    guards = Guards([Guard("b/y", "drops", 0.1)], history)
    with pytest.raises(ScoreFell):
        guards.check(4, {"b/y": 0.75})


@pytest.mark.parametrize(("given", "message"), [
    (["a/x"], "stop_if has 'a/x'; each is"), ([("a/x", "under", 0.5)], "one of below, drops"),
    ([("a/x", "below", "much")], "NUMBER"), ([("aa/x", "below", 0.5)], "no evaluation 'aa'; did you mean a")])
def test_a_guard_that_can_not_be_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        read(given, ["a", "retrieval"])


def test_a_score_that_is_not_given_is_named():
    guards = Guards(read([("a/x", "below", 0.5)], ["a"]))
    with pytest.raises(ConfigError, match="'a/x', but the evaluation gives no such score; did you mean a/xx"):
        guards.check(1, {"a/xx": 0.1, "b/x": 0.1})


def test_a_run_is_stopped_with_its_state_saved_and_stays_stopped(shapes_dir, tmp_path):
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal")
    config.total_steps, config.checkpoint.every, config.evaluate_start = 4, "100 %", True
    config.evals.retrieval.every, config.evals.compositional.every = "50 %", "100 %"
    config.stop_if = (("compositional/macro", "below", 0.0), ("retrieval/image_to_text@10", "drops", -1.0))    # always
    with pytest.raises(ScoreFell, match="step 0: "):
        train(config.to_dict(), str(tmp_path / "from the start"))
    config.evaluate_start = False
    workdir = str(tmp_path / "run")
    for _ in range(2):      # the second time nothing is trained or evaluated
        with pytest.raises(ScoreFell, match=r"step 2: retrieval/image_to_text@10 .* with the state saved"):
            train(config.to_dict(), workdir)
        lines = metrics.read(workdir)
        assert max(line["step"] for line in lines) == 2 and sum("retrieval/image_to_text@10" in line for line in lines) == 1
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
