"""The command for one target: python -m divtf.main --model=resnet20 --mode=div."""

from absl import flags

from divtf.commands import command_line, config_flags
from divtf.pipeline import static_fields
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import OutputPart
from divtf.runtime import quiet_start

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


def main(config: RunConfig) -> None:
    """Run the configuration and print its table and where things lie."""
    quiet_start.import_tensorflow()  # Once the flags are known to be right.
    from divtf.pipeline import experiment, finished
    from divtf.reporting import plain_text
    from divtf.runtime import devices

    directory = experiment.run(config)
    if not devices.team(config.strategy).is_chief:
        return
    print()
    print(plain_text.table_text([finished.read_record(directory)]))
    print(experiment.summary(config.part(OutputPart)))


def config_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> RunConfig:
    """The run; a table's modes share flags that not each of them takes, but this is one alone.

    Raises:
        InputError: if a value does not fit.
    """
    config = config_flags.config_from_flags(flag_values)
    given = [name for name in static_fields.NAMES if flag_values[name].present]
    static_fields.require_used(given, config.mode)
    return config


def launch() -> None:
    """The command: flags of one run, and the run."""
    config_flags.define_flags()
    command_line.run(main, config_from_flags)
