"""Command-line flags, declared once from the configuration's fields."""

import dataclasses
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags

from divtf.errors import InputError, require
from divtf.pipeline.config import RunConfig, field_type
from divtf.pipeline.fields import nearest

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.

FLAGS = flags.FLAGS


class _SwitchParser(flags.ArgumentParser):
    """--name is "", --noname is None, and --name=PATH is PATH."""

    syntactic_help = "nothing, or a path"

    def parse(self, argument):
        named = {"true": "", "false": None}
        return named.get(argument.lower(), argument) if isinstance(argument, str) else argument


def define_flags(flag_values: flags.FlagValues = FLAGS, names: Collection[str] = ()) -> None:
    """Declare a flag for every field of RunConfig, or for those named."""
    for field in dataclasses.fields(RunConfig):
        if names and field.name not in names:
            continue
        kind, text = field_type(field.name), _help(field)
        options: dict[str, Any] = {"help": text, "flag_values": flag_values}
        if field.metadata.get("switch"):
            switch: Any = flags.Flag(_SwitchParser(), None, field.name, field.default, text, boolean=True)
            flags.DEFINE_flag(switch, flag_values)
        elif typing.get_origin(kind) is tuple:
            default: Any = field.default
            flags.DEFINE_list(field.name, default and list(default), **options)
        else:
            define: dict[Any, Callable] = {
                bool: flags.DEFINE_bool,
                int: flags.DEFINE_integer,
                float: flags.DEFINE_float,
            }
            define.get(kind, flags.DEFINE_string)(field.name, field.default, **options)
    _define_earlier_names(flag_values)


def _define_earlier_names(flag_values: flags.FlagValues) -> None:
    """--static_attack, as versions before had it with one value."""
    if "static_attacks" in flag_values:
        flags.DEFINE_alias("static_attack", "static_attacks", flag_values=flag_values)


def help_text(text: str, names: Collection[str] = (), stands_for: str = "") -> str:
    """What --help says of a flag: its values where they have names, and what stands for a value not given."""
    values = f"<{'|'.join(names)}>: " if names else ""
    return f"{values}{text}{f' Default: {stands_for}.' if stands_for else ''}"


def _help(field: dataclasses.Field) -> str:
    metadata = field.metadata
    return help_text(metadata["help"], metadata["check"].names, metadata.get("stands_for", ""))


def config_from_flags(flag_values: flags.FlagValues = FLAGS, **overrides: Any) -> RunConfig:
    """The configuration that the parsed flags ask for.

    Args:
        flag_values: where the flags of `define_flags` were parsed.
        **overrides: values of fields, in place of their flags'.

    Raises:
        InputError: if a value does not fit.
    """
    return RunConfig(**values_of(flag_values) | overrides)


def values_of(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The values of the parsed flags, by field.

    Raises:
        InputError: if a part of a list is of another type.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(RunConfig):
        value, kind = flag_values[field.name].value, field_type(field.name)
        items = typing.get_args(kind)
        values[field.name] = parse_list(field.name, value, items[0]) if isinstance(value, list) else value
    return values


def parse_list(name: str, texts: Sequence[str], kind: type) -> tuple:
    """The values of a list flag.

    Raises:
        InputError: if one is not of the kind.
    """
    try:
        return tuple(kind(text.strip()) for text in texts)
    except ValueError:
        raise InputError(
            f"Expected --{name} as a comma-separated list of {kind.__name__}. Received: {','.join(texts)}"
        ) from None


def distinct(name: str, values: Sequence, known: Collection[str] = ()) -> tuple:
    """The values of a list flag.

    Args:
        name: of the flag.
        values: those given.
        known: those that may be given; none stands for any.

    Raises:
        InputError: if there is none, one is given twice, or it is not of the known ones.
    """
    among = f" of {{{', '.join(known)}}}" if known else ""
    holds = 0 < len(set(values)) == len(values) and (not known or set(values) <= set(known))
    shown = ",".join(map(str, values)) + nearest(tuple(values), known)
    require(holds, f"--{name} as distinct values{among}, at least one", f"{name}={shown}")
    return tuple(values)
