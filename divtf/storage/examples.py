"""Records of a few images: clean and attacked, and what a target and its members make of each."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from divtf.storage.records import Record
from divtf.storage.typed import as_tuples, checked


@dataclasses.dataclass(frozen=True)
class Seen:
    """One picture, and what is made of it.

    Attributes:
        attack: that made it; `records.CLEAN` of the image itself.
        epsilon: l_inf budget; 0 of the image itself.
        png: the picture as a PNG file, base64.
        ensemble: the class that all members together give.
        members: the class that each of them gives.
    """

    attack: str
    epsilon: float
    png: str
    ensemble: int
    members: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Example:
    """A test image, clean and attacked.

    Attributes:
        number: of the test image.
        label: its true class.
        seen: its pictures, the clean one first.
    """

    number: int
    label: int
    seen: tuple[Seen, ...]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Example":
        """From a JSON object of all attributes.

        Raises:
            ValueError: if a value is of another type.
        """
        seen = tuple(
            checked(Seen(**{**each, "members": as_tuples(each["members"])})) for each in record["seen"]
        )
        return checked(cls(record["number"], record["label"], seen))


@dataclasses.dataclass(frozen=True)
class ExamplesRecord(Record):
    """The first attacked test images of a run, and what each member of its target makes of them.

    Attributes:
        examples: one for each image.
        surrogate: on which the attacked ones were made.
        class_names: what the labels mean; empty where nobody says.
    """

    examples: tuple[Example, ...]
    surrogate: str = ""
    class_names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it."""
        return super().to_json() | {"examples": [dataclasses.asdict(example) for example in self.examples]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: if the record was written under another schema, or a value is of another type.
        """
        examples = [Example.from_json(example) for example in record["examples"]]
        return super().from_json({**record, "examples": examples})
