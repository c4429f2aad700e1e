"""Configs are read to the last key, and every error names the nearest name."""
import pytest

from cc_jax.config import Config, ConfigError, steps, total_steps
from configs import common


def test_a_key_that_nothing_reads_is_an_error_with_the_nearest_name():
    config = Config({"optim": {"lr": 1.0, "warmup": 10}})
    assert config.optim.lr == 1.0
    assert config.optim.get("warmup_steps", 0) == 0
    with pytest.raises(ConfigError, match=r"nothing reads config.optim.warmup; did you mean config.optim.warmup_steps\?"):
        config.check_all_read()


def test_a_block_that_nothing_reads_is_an_error():
    config = Config({"optim": {"lr": 1.0}, "optimizer": {"lr": 2.0}})
    assert config.optim.lr == 1.0
    with pytest.raises(ConfigError, match="nothing reads config.optimizer; did you mean config.optim"):
        config.check_all_read()


def test_a_config_read_to_the_last_key_passes():
    config = Config({"a": 1, "block": {"b": 2}})
    assert config.a + config["block"].b == 3
    config.check_all_read()


def test_a_missing_key_is_named_with_the_nearest_there_is():
    with pytest.raises(ConfigError, match=r"config.batch_sise is not set; did you mean config.batch_size\?"):
        _ = Config({"batch_size": 8}).batch_sise


def test_options_refuse_a_name_their_reader_does_not_know():
    with pytest.raises(ConfigError, match=r"nothing reads config.mesh.dat; did you mean config.mesh.data\?"):
        Config({"mesh": {"dat": 1}}).mesh.options({"data", "fsdp"})


@pytest.mark.parametrize(("duration", "expected"), [
    (7, 7), ("7", 7), ("2 %", 20), ("2%", 20), ("0.01 %", 1), ("100 %", 1000)])
def test_durations_are_steps_or_shares_of_the_run(duration, expected):
    assert steps(duration, 1000) == expected


@pytest.mark.parametrize("duration", [0, -3, "0", "5 s", "x %", "120 %", "0 %", "3 % of it"])
def test_a_duration_that_is_neither_is_refused(duration):
    with pytest.raises(ConfigError, match="duration"):
        steps(duration, 1000)


@pytest.mark.parametrize(("length", "expected"), [
    ({"total_steps": 5}, 5), ({"total_examples": 320}, 10), ({"total_epochs": 2}, 6)])
def test_the_length_of_a_run_in_any_unit(length, expected):
    assert total_steps(Config({"batch_size": 32} | length), examples_per_epoch=96) == expected


@pytest.mark.parametrize("length", [{}, {"total_steps": 5, "total_epochs": 1}])
def test_the_length_of_a_run_is_given_once(length):
    with pytest.raises(ConfigError, match="exactly one of total_steps, total_examples, total_epochs"):
        total_steps(Config({"batch_size": 32} | length), 96)


def test_config_arguments_take_the_type_of_their_default():
    arg = common.parse_arg("res=256,runlocal,lr=0.5", res=224, lr=1e-3, data="cc12m", runlocal=False)
    assert (arg.res, arg.lr, arg.data, arg.runlocal) == (256, 0.5, "cc12m", True)
    assert common.parse_arg("concepts=False", concepts=True).concepts is False


@pytest.mark.parametrize(("arg", "message"), [
    ("rez=256", "unknown config argument 'rez'.*did you mean 'res'"),
    ("res=big", "res='big' is not of type int"),
    ("runlocal=perhaps", "runlocal='perhaps' is a switch"),
])
def test_a_wrong_config_argument_is_named(arg, message):
    with pytest.raises(ValueError, match=message):
        common.parse_arg(arg, res=224, runlocal=False)
