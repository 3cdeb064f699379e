"""What the benchmarks' commands have in common."""

from absl import flags

from divtf.data.paper import SETUPS


def models(default: list[str], help_text: str) -> flags.FlagHolder[list[str]]:
    """The flag --models, which takes names of models only."""
    names = flags.DEFINE_list("models", default, help_text)
    known = f"names of {{{', '.join(SETUPS)}}}"
    flags.register_validator(names, lambda values: set(values) <= set(SETUPS), message=f"Expected {known}.")
    return names
