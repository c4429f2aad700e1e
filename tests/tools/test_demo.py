"""The demo's chain of commands, on a handful of scenes and steps."""
import shutil
from pathlib import Path

import pytest

ARGUMENTS = "--scenes", "shapes:scenes=120,test_scenes=20,suite_scenes=10", "--config_arguments", "runlocal"


@pytest.fixture(scope="module")
def demo(command, tmp_path_factory) -> Path:
    """The folder of a demo of one seed."""
    out = tmp_path_factory.mktemp("demo")
    command("cc_jax.tools.demo", "--out", out, *ARGUMENTS)
    return out


def test_the_demo_prepares_trains_evaluates_and_reports(demo):
    page = (demo / "report.html").read_text()
    assert "phrase binding" in page and "concepts" in page and "siglip" in page
    assert (demo / "report.png").read_bytes().startswith(b"\x89PNG")


def test_several_seeds_give_a_table_with_equal_time_and_what_is_done_is_not_done_again(demo, command):
    firsts = [Path(shutil.copytree(demo / kind, demo / f"{kind}-0")) for kind in ("siglip", "concepts")]    # its seed is 0
    # Times are among a run's metrics: trained again, it would have others.
    kept = lambda: [(demo / "shapes" / "dataset_info.json").stat().st_mtime_ns,
                    *((workdir / "metrics.jsonl").read_bytes() for workdir in firsts)]
    before = kept()
    done = command("cc_jax.tools.demo", "--out", demo, *ARGUMENTS, "--seeds", "2")
    assert kept() == before
    assert "| | SigLIP | SigLIP, same time | with concept losses |" in done.stdout
    assert "| compositional/phrase_binding |" in (demo / "seeds.md").read_text()
    assert (demo / "siglip-same-time-1" / "checkpoints").is_dir()
