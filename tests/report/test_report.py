"""What a report says of runs: of which evaluations, how long they took, where they stand."""
import pytest

from cc_jax.report.curves import panels, shorter
from cc_jax.report.runs import Run
from cc_jax.report.tables import Table, categories, tables

CONFIG = {"log_every": 10, "batch_size": 8, "total_steps": 40}


def timed(*steps: tuple[int, float]) -> list[dict]:
    return [{"step": step, "seconds_per_step": mean, "images_per_second": 8 / mean} for step, mean in steps]


def named(found: list[Table], title: str) -> dict[str, list[str]]:
    """{label: cells} of the one table whose title begins so."""
    [table] = [table for table in found if table.title.startswith(title)]
    return dict(table.rows)


def test_rows_follow_the_order_of_categories_and_macro_ends_them():
    names = ["macro", "add_object", "swap_object", "novelty", "replace_relation", "phrase_binding", "swap_attribute"]
    assert categories(names) == ["phrase_binding", "swap_attribute", "swap_object", "replace_relation", "add_object",
                                 "novelty", "macro"]


def test_training_time_adds_up_what_the_lines_say():
    """The first step compiled for 30 s, then 9 at 1 s, 10 at 1 s, 10 at 3 s; evaluations have no such time."""
    lines = timed((1, 30.0), (10, 1.0), (20, 1.0), (30, 3.0)) + [{"step": 30, "r@1": 0.5}]
    assert Run("a", "a", CONFIG, lines).seconds() == (1.0, 30 + 9 + 10 + 30)
    assert Run("a", "a", CONFIG, [{"step": 20, "r@1": 0.5}]).seconds() == (None, None)


def test_a_resumed_run_counts_its_second_compilation_once_and_the_steps_that_no_line_tells_of():
    """Killed at its checkpoint after step 24: steps 21 to 24 were logged by nobody, step 25 compiled for 20 s."""
    lines = timed((1, 30.0), (10, 1.0), (20, 1.0), (25, 20.0), (30, 2.0), (40, 1.0))
    run = Run("a", "a", CONFIG, lines)
    assert run.seconds() == (1.0, 30 + 9 + 10 + 4 * 1.0 + 20 + 5 * 2.0 + 10)
    assert run.curve("images_per_second", warm=True)[0] == [10, 20, 30, 40]


def test_the_last_step_of_a_run_that_ends_between_lines_is_no_new_start():
    run = Run("a", "a", CONFIG | {"total_steps": 25}, timed((1, 30.0), (10, 1.0), (20, 1.0), (25, 2.0)))
    assert run.seconds() == (1.0, 30 + 9 + 10 + 10)


def test_a_value_that_is_not_finite_is_left_out_of_a_curve():
    run = Run("a", "a", {}, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": "nan"}, {"step": 3, "x": 1.0}])
    assert run.curve("loss") == ([1], [2.0]) and run.final("loss") == 2.0 and run.final("y") is None


def test_an_unfinished_run_says_how_far_it_is_and_what_is_left():
    run = Run("a", "a", CONFIG, timed((1, 9.0), (10, 2.0), (20, 2.0)))
    rows = named(tables([run]), "Runs")
    assert rows["updates"] == ["20 of 40"] and rows["time still needed"] == ["40 s"]
    whole = named(tables([Run("a", "a", CONFIG, timed((1, 9.0), (40, 2.0)))]), "Runs")
    assert whole["updates"] == ["40"] and "time still needed" not in whole


@pytest.mark.parametrize("length, planned", [({"total_steps": 40}, 40), ({"total_examples": 800}, 100), ({}, None),
                                             ({"total_epochs": 2, "data": {"dir": "gone", "split": "train"}}, None)])
def test_the_planned_length_is_read_from_the_config_where_it_can_be(length, planned):
    assert Run("a", "a", {"batch_size": 8} | length, []).planned == planned


def test_epochs_are_counted_with_the_dataset_at_hand(shapes_dir):
    config = {"batch_size": 8, "total_epochs": 2, "data": {"dir": str(shapes_dir), "split": "train"}}
    assert Run("a", "a", config, []).planned == 75


def test_any_evaluation_has_a_table_and_curves():
    """Types that are not known here, and the nested names of weights in between."""
    evals = {"birds": {"type": "zero_shot"}, "sweep": {"type": "interpolated"}, "probe": {"type": "linear_probe"}}
    line = {"step": 40, "birds/top@1": 0.5, "birds/top@5": 0.75, "birds/items": 10, "birds/expected": 10,
            "sweep/0.50/macro": 0.25, "sweep/0.50/swap_attribute": 0.2, "sweep/0.50/other": 0.1, "sweep/items": 5,
            "probe/accuracy": 0.5, "probe/mean_per_class": 0.4}
    runs = [Run("a", "a", CONFIG | {"evals": evals}, [line]), Run("b", "b", CONFIG, [{"step": 40}])]
    found = tables(runs)
    assert named(found, "Birds, %") == {"top @1": ["50.0", "–"], "top @5": ["75.0", "–"]}
    assert next(table for table in found if table.title == "Birds, %").note == "10 items."
    assert list(named(found, "Sweep, %")) == ["0.50, macro", "0.50, swap attribute", "0.50, other"]
    groups = {panel.key: panel.group for panel in panels(runs)}
    assert groups == {"birds/top@1": "", "birds/top@5": "Every score", "sweep/0.50/macro": "",
                      "sweep/0.50/swap_attribute": "", "sweep/0.50/other": "Every score",
                      "probe/accuracy": "", "probe/mean_per_class": "Every score"}


@pytest.mark.parametrize("format, title", [({}, "Suite, % (chance: 50 %)"), ({"format": "winoground"}, "Suite, %")])
def test_chance_is_named_where_it_is_known(format, title):
    evals = {"suite": {"type": "compositional"} | format}
    run = Run("a", "a", CONFIG | {"evals": evals}, [{"step": 40, "suite/macro": 0.4}])
    assert tables([run])[0].title == title
    assert panels([run])[0].chance == (None if format else 0.5)


def test_scores_of_other_steps_or_of_other_items_are_told_apart():
    config = CONFIG | {"evals": {"suite": {"type": "compositional"}}}
    run = lambda name, step, items: Run(name, name, config, [
        {"step": step, "suite/swap_attribute": 0.5, "suite/items": items, "suite/expected": 7511}, {"step": 40}])
    rows = named(tables([run("a", 40, 7511), run("b", 20, 264)]), "Suite")
    assert rows["items"] == ["7 511", "264 of 7 511"] and rows["after updates"] == ["40", "20"]
    same = named(tables([run("a", 20, 264), run("b", 20, 264)]), "Suite")
    assert list(same) == ["swap attribute"]


def test_how_training_went_and_how_fast_is_drawn_too():
    run = Run("a", "a", CONFIG, [{"step": 1, "loss/siglip": 2.0, "learning_rate": 0.1, "images_per_second": 8.0,
                                  "input_wait": 0.0, "phrases": 12}])
    assert [(panel.key, panel.group) for panel in panels([run])] == [
        ("loss/siglip", ""), ("learning_rate", "Training"), ("images_per_second", "Speed"), ("input_wait", "Speed")]


def test_a_name_is_cut_in_its_middle():
    assert shorter("siglip", 6) == "siglip" and shorter("siglip-seed-3", 8) == "sig…ed-3"
