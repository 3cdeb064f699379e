"""Command lines as the commands parse them, for tests."""

from absl import flags

from divtf.commands import command_line, config_flags, table2


def parsed(*arguments, table=False):
    """Fresh flags, parsed from a command line; none of it may be left over."""
    values = flags.FlagValues()
    config_flags.define_flags(values)
    if table:
        table2.define_flags(values)
    assert command_line.parse(["command", *arguments], values) == ["command"]
    return values


def config(*arguments):
    return config_flags.config_from_flags(parsed(*arguments))


def parts(*arguments):
    return table2.configs_from_flags(parsed(*arguments, table=True))
