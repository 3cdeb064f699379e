"""The command for one target: python -m divtf.main --model=resnet20 --mode=div."""

from absl import flags

from divtf import cli


def main(config) -> None:
    """Run the configuration and print its table and where things lie."""
    # TensorFlow loads once the flags are known to be right.
    from divtf import distribution, experiment, finished, report, workers

    directory = experiment.run(config)
    if not workers.is_chief(distribution.strategy(config.strategy)):
        return
    print()
    print(report.table_text([finished.read_record(directory)]))
    print(experiment.summary(directory, config))


if __name__ == "__main__":
    cli.define_flags()
    flags.adopt_module_key_flags(cli)
    cli.launch(main)
