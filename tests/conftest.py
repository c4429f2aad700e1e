"""Fixtures and helpers that several test files use."""
import os
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent

# Compiled programs are kept between runs of the tests, and shared with the commands they start.
CACHE = ROOT / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of development data (not part of the repository); tests that need it are skipped without it."""
    folder = Path(os.environ.get("CC_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no development data in {folder}; set CC_JAX_TEST_DATA to its folder to run this test.")
    return folder
