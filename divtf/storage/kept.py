"""Measurements that are kept in files, so that they are made once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from divtf.storage import checked_json, run_directory
from divtf.storage.digests import digest


def kept(directory: Path, name: str, manifest: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What was measured under this manifest, read from the directory or made now.

    Args:
        directory: where it is kept.
        name: the beginning of the file's name, which ends in a digest of the manifest.
        manifest: all that it depends on, as JSON values.
        make: measures it; gives JSON values.
    """
    path = directory / f"{name}-{digest(manifest)}.json"
    with run_directory.held(directory, wait=True):
        try:
            found = checked_json.read_checked(path) if path.exists() else {}
        except checked_json.DamagedError:
            found = {}
        if not isinstance(found, dict) or "made" not in found:
            found = {"manifest": dict(manifest), "made": make()}
            checked_json.write_checked(path, found)
    return found["made"]
