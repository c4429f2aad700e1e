"""The line of work that is counted."""
import itertools

from cc_jax import progress
from cc_jax.evals.embedder import Sized


def test_long_work_says_how_far_it_is_and_short_work_nothing(monkeypatch, capsys):
    clock = itertools.count(0, 4.0)             # each look at it is four seconds later
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.counted(Sized(8, iter("abcdefgh")), "images")) == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["3 of 8 images  0.25 a second  ETA 20 s", "6 of 8 images  0.25 a second  ETA 8 s"]
    list(progress.counted(iter(range(3)), "texts"))
    assert capsys.readouterr().err.splitlines() == ["3 of 3 texts  0.25 a second  ETA 0 s"]
    list(progress.counted((i for i in range(4)), "texts"))
    assert capsys.readouterr().err.splitlines() == ["3 texts  0.25 a second"]
    list(progress.counted("ab", "texts"))
    assert not capsys.readouterr().err
