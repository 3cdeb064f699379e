"""JSON files that are whole, and tell of damage by a checksum of their values."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divtf.errors import InputError
from divtf.storage import files

_CHECKSUM = "checksum"


class DamagedError(InputError):
    """A file of a run is not as it was written."""


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    files.write_file(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DamagedError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"Expected JSON in {path}. Received: {error}") from None


def write_checked(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, and in it the SHA-256 of its values, so that `read_checked` finds any damage."""
    write_json(path, {**values, _CHECKSUM: _checksum(values)})


def read_checked(path: Path) -> Any:
    """The values of a JSON object that `write_checked` wrote, without their checksum.

    Files of version 0.1.0 have no checksum; they pass as they are.

    Raises:
        DamagedError: if it is not JSON, or its values are not those of its checksum.
    """
    values = read_json(path)
    if isinstance(values, dict) and _CHECKSUM in values:
        stated, computed = values.pop(_CHECKSUM), _checksum(values)
        if stated != computed:
            raise DamagedError(
                f"Expected values of checksum {stated!s:.12} in {path}. Received: {computed:.12}"
            )
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    # As they are read again: JSON has no tuples, and only text for keys.
    plain = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
