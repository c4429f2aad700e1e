"""Kills at random and at chosen moments: the resumed run is on the undisturbed one's curve, and no finished save is lost."""
import random
import signal
import time

import pytest

from cc_jax import checkpoint

MOST = 4        # kills of one run
POINTS = ("start", "step", "save", "saving", "manifest", "commit", "saved", "evaluation", "evaluated", "metrics")
long = pytest.mark.long


@pytest.mark.parametrize(("seed", "count"), [(0, 2), *(pytest.param(seed, 25, marks=long) for seed in range(1, 9))])
def test_runs_killed_at_random_moments_again_and_again_lose_nothing(server, check_resumes, tmp_path, seed, count):
    """Each time somewhere within the time that a run takes."""
    rng, kills, at_steps, again, length = random.Random(seed), 0, [], 0.0, server.seconds
    while kills < count:
        workdir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        for _ in range(min(MOST, count - kills)):
            run, begun = server.start(workdir), time.monotonic()
            if run.ended(rng.uniform(0, length)):
                length = 0.8 * (time.monotonic() - begun)       # it was quicker than thought
                assert run.wait() == 0, run.said()
                break
            saved, done = checkpoint.saved_steps(workdir), run.steps()
            run.signal(signal.SIGKILL)
            code = run.wait()
            assert code in (0, -signal.SIGKILL), run.said()
            if code == 0:       # it ended just before
                break
            assert set(saved[-1:]) <= set(checkpoint.saved_steps(workdir))
            kills += 1
            at_steps.append(done)
        begun = time.monotonic()
        check_resumes(workdir)
        again = max(again, time.monotonic() - begun)
    print(f"\n{kills} kills at random moments, {sum(done > 0 for done in at_steps)} of them after a step was logged; none "
          f"lost a finished save, none diverged; going on and to the end took {again:.1f} s at most")


@pytest.mark.parametrize(("point", "number"), [("commit", 2), *(
    pytest.param(point, number, marks=long) for point in POINTS for number in range(1, 4 if point != "start" else 2))])
def test_a_kill_at_any_point_of_a_step_a_save_or_an_evaluation_loses_nothing(
        server, check_resumes, tmp_path, point, number):
    run = server.start(tmp_path / "run", {"kill": [point, number]})
    assert run.wait() == -signal.SIGKILL, run.said()
    check_resumes(tmp_path / "run")
