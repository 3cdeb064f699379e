"""Names of members' architectures: the paper's, and models of the user's own. No TensorFlow.

A model of the user's own is one of

- MODULE:FUNCTION, called with input_shape, num_classes, name and seed;
- keras:NAME of keras.applications;
- FILE.keras,FILE.keras, members that Keras saved, to go on from; after "new:" their architectures alone, with
  weights drawn anew. A configuration writes the paths in full and adds to each the file's digest, as
  FILE.keras#0123456789ab: another content is another run.
"""

import dataclasses
import json
import re
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

from divtf.errors import require
from divtf.runtime.own_code import is_reference
from divtf.storage.digests import file_digest

KERAS, NEW = "keras:", "new:"
FORMS = "MODULE:FUNCTION, keras:NAME, FILE.keras,FILE.keras"
_FILE = re.compile(r"(?P<path>.*[^/]\.keras)(#(?P<digest>[0-9a-f]{12}))?")
# Longer names of several files tell the first one, and how many there are.
_LONGEST = 40


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A file of the user's.

    Attributes:
        path: as it was given.
        digest: the beginning of its SHA-256; "" if it was not asked for yet.
    """

    path: Path
    digest: str = ""

    def __str__(self):
        return f"{self.path}#{self.digest}" if self.digest else str(self.path)


def is_own(model: str) -> bool:
    """Whether a name has the form of a model of the user's own."""
    return bool(files_of(model)) or is_reference(model)


def is_new(model: str) -> bool:
    """Whether weights are drawn anew for the architectures of files."""
    return bool(files_of(model)) and model.startswith(NEW)


def files_of(model: str) -> list[SavedModel]:
    """The files of a model that is made of some; none of any other."""
    texts = [text.strip() for text in model.removeprefix(NEW).split(",")]
    found = [match for text in texts if (match := _FILE.fullmatch(text))]
    if len(found) < len(texts) or not model.isprintable():
        return []
    return [SavedModel(Path(match["path"]).expanduser(), match["digest"] or "") for match in found]


def module_of(model: str) -> str:
    """The module of MODULE:FUNCTION; "" of any other model."""
    module, _, _ = model.partition(":")
    return "" if files_of(model) or model.startswith(KERAS) or module == model else module


def pinned(model: str) -> str:
    """A model whose files have their full paths and digests; any other one as it is.

    Raises:
        InputError: if a file is not there.
        OSError: if it cannot be read.
    """
    files = files_of(model)
    for file in files:
        require(bool(file.digest) or file.path.is_file(), "files of saved members", f"{file.path}: no file")
    whole = [SavedModel(file.path.absolute(), file.digest or file_digest(file.path)[:12]) for file in files]
    prefix = NEW if is_new(model) else ""
    return prefix + ",".join(map(str, whole)) if files else model


def anew(model: str) -> str:
    """The same architectures without the weights of files."""
    return NEW + model if files_of(model) and not is_new(model) else model


def members_in(model: str) -> int | None:
    """How many members the files of a model hold, an Ensemble alone its own; None if that is not told."""
    files = files_of(model)
    if len(files) != 1:
        return len(files) or None
    try:
        with zipfile.ZipFile(files[0].path) as archive:
            values = json.loads(archive.read("config.json"))
        return len(values["config"]["members"]) if values["class_name"] == "Ensemble" else 1
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        return None  # Whoever loads it says what is wrong.


def short(model: str, taken: Collection[str] = ()) -> str:
    """A short name of a user's own model, for directories and tables; "own-" before one that is taken."""
    stems = [file.path.stem for file in files_of(model)] or [re.split(r"[:.]", model)[-1]]
    name = "+".join(stems)
    if len(name) > _LONGEST:
        name = f"{stems[0][:_LONGEST]}+{len(stems) - 1}"
    name = re.sub(r"[^\w.+-]", "_", name)
    return f"own-{name}" if name in taken or name.startswith((".", "-")) else name


def joined(items: Iterable[str]) -> list[str]:
    """The models of a comma-separated list: files that follow each other are one model."""
    models: list[str] = []
    for item in items:
        if models and files_of(models[-1]) and files_of(item) and not is_new(item):
            models[-1] += f",{item}"
        else:
            models.append(item)
    return models
