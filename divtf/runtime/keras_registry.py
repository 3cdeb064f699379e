"""divtf's classes in Keras's registry, from the moment that Keras is there.

`keras.models.load_model` finds a file's classes in that registry only. A class enters it when its module is
imported, which takes TensorFlow; `import divtf` shall not. So a placeholder stands there for each class,
which imports the class once a file asks for it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

_PACKAGE = "divtf"


def register_when_imported(homes: Mapping[str, str]) -> None:
    """Register classes of this package now if Keras is imported, or else as soon as it is.

    Args:
        homes: name of a class -> module that registers it with `package="divtf"`.
    """
    if "keras" in sys.modules:
        _register(homes)
    else:
        sys.meta_path.insert(0, _WaitsForKeras(homes))


class _WaitsForKeras:
    """A finder of modules that finds none: it sees Keras being asked for."""

    def __init__(self, homes: Mapping[str, str]):
        self._homes = homes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)  # Whoever asks may not import it.
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = self._registering(loader.exec_module)
        return spec

    def _registering(self, execute: Callable[[Any], None]) -> Callable[[Any], None]:
        def execute_and_register(module):
            execute(module)
            _register(self._homes)
            sys.meta_path.remove(self)

        return execute_and_register


class _Placeholder:
    """What the registry holds until the class itself is imported, and takes its place."""

    def __init__(self, name: str, home: str):
        self._name = name
        self._home = home

    def from_config(self, config: Mapping[str, Any]) -> Any:
        return getattr(importlib.import_module(self._home), self._name).from_config(config)


def _register(homes: Mapping[str, str]) -> None:
    import keras

    registry = keras.saving.get_custom_objects()
    for name, home in homes.items():
        registry.setdefault(f"{_PACKAGE}>{name}", _Placeholder(name, home))
