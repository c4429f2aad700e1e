"""The demo's chain of commands, on a handful of scenes and steps."""


def test_the_demo_prepares_trains_evaluates_and_reports(tmp_path, command):
    arguments = ("--out", tmp_path, "--scenes", "shapes:scenes=120,test_scenes=20,suite_scenes=10",
                 "--config_arguments", "runlocal")
    command("cc_jax.tools.demo", *arguments)
    page = (tmp_path / "report.html").read_text()
    assert "phrase binding" in page and "concepts" in page and "siglip" in page
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "concepts" / "metrics.jsonl").read_text()
    command("cc_jax.tools.demo", *arguments)  # a second run trains nothing again
    assert (tmp_path / "concepts" / "metrics.jsonl").read_text() == before


def test_several_seeds_give_a_table_with_equal_time(tmp_path, command):
    done = command("cc_jax.tools.demo", "--out", tmp_path, "--scenes", "shapes:scenes=120,test_scenes=20,suite_scenes=10",
                   "--config_arguments", "runlocal", "--seeds", "2")
    assert "| | SigLIP | SigLIP, same time | with concept losses |" in done.stdout
    assert "| compositional/phrase_binding |" in (tmp_path / "seeds.md").read_text()
    assert (tmp_path / "siglip-same-time-1" / "checkpoints").is_dir()
