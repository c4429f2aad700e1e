"""--config FILE:ARGUMENTS --config.KEY=VALUE, of each command that takes a config."""
from absl import flags
from ml_collections import config_flags


def define(default: str | None = None, what: str = "") -> flags.FlagHolder:
    """The flag; its value is the file's ConfigDict, overrides applied."""
    return config_flags.DEFINE_config_file("config", default, f"{what}A config file, with its arguments after a colon "
                                           "(configs/siglip_b16_cc.py:runlocal,res=256); single values are overridden by "
                                           "--config.KEY=VALUE.")


def parse(argv: list[str]) -> list[str]:
    """absl's parser; a wrong argument or override, or a config file that is not there, ends with one line."""
    try:
        remaining = flags.FLAGS(argv)
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # a file that did not load raises only when it is used
        return remaining
    except (ValueError, AttributeError, KeyError, OSError, flags.Error) as error:
        text, last = f"{type(error).__name__}: {error}", str(error).strip().splitlines()[-1].strip()
        # A ValueError of the config's own speaks to its user; of any other error its author wants the traceback.
        raise SystemExit(last if last.startswith(("ValueError:", "[Errno")) else text) from None
