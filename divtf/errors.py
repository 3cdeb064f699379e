"""Errors that a user can mend, in one form of words."""


class InputError(ValueError):
    """What the user gave does not fit; the message says what was expected and what was received.

    The library raises it as the ValueError that it is; the command prints its message as one line.
    """


def require(holds: bool, expected: str, received: str) -> None:
    """Raise InputError unless the condition holds.

    Raises:
        InputError: "Expected {expected}. Received: {received}".
    """
    if not holds:
        raise InputError(f"Expected {expected}. Received: {received}")
