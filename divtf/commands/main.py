"""The command for one target: python -m divtf.main --model=resnet20 --mode=div."""

from divtf.commands import command_line, config_flags


def main(config) -> None:
    """Run the configuration and print its table and where things lie."""
    # TensorFlow loads once the flags are known to be right.
    from divtf.pipeline import experiment, finished
    from divtf.reporting import plain_text
    from divtf.runtime import devices, workers

    directory = experiment.run(config)
    if not workers.is_chief(devices.strategy(config.strategy)):
        return
    print()
    print(plain_text.table_text([finished.read_record(directory)]))
    print(experiment.summary(directory, config))


def launch() -> None:
    """The command: flags of one run, and the run."""
    config_flags.define_flags()
    command_line.run(main)
