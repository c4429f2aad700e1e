"""What a run's process holds does not grow; `make long` is the same over 20 000 steps."""
import subprocess
import sys
from pathlib import Path

import pytest

from cc_jax import metrics

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_threads_files_and_logs_of_a_run_stay_what_they_are(shapes_dir, tmp_path):
    done = subprocess.run(
        [sys.executable, "tests/long_run.py", "--data", shapes_dir, "--workdir", tmp_path / "run", "--steps", "600",
         "--every", "100", "--warm", "200", "--growth", "0.05"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = metrics.read(tmp_path / "run")
    assert len(lines) == 600 // 10 + 1 + 6      # every tenth step, the first one, the evaluations
