"""What a run leaves behind, without the clock: however it was disturbed, that is the same."""

import io
import json
import re
import zipfile

import h5py

from divtf.storage import run_directory

# Steps: 6 of the static model, 18 of the target, 6 of the surrogate. Sets: 1 of the static model, 2 of the
# surrogate. The clock is in these fields and in TensorBoard's log, and nowhere else; environment.json has an
# entry for each start.
CLOCK = {"seconds", "hours", "date"}
# Digests of what holds the time, as Keras's archive and the fields above.
OF_CLOCK = {"checksum"}
# How the line begins that the report, its page and its table have of them.
HOURS = "Hours of training"


def timeless(value):
    """A JSON value without what depends on the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCK | OF_CLOCK}
    if isinstance(value, list):
        return [timeless(item) for item in value if not str(item).startswith(HOURS)]
    return value


def timeless_file(path):
    """A file's contents without the clock, which stands in a line of the report, too."""
    if path.name in (run_directory.RESULTS, "table.json"):
        return timeless(json.loads(path.read_text()))
    if path.suffix == ".md":
        return timeless([line.removeprefix("- ") for line in path.read_text().splitlines()])
    if path.suffix == ".html":
        # Lines of tables and of lists, one of which may tell of the clock, or of a digest of what does.
        parts = re.split(r"<tr|<li>", path.read_text())
        told = (*(f">{name}</th>" for name in CLOCK), HOURS)
        return [part for part in parts if not any(words in part for words in told)]
    if path.name == run_directory.ENSEMBLE:  # The archive has its date.
        return variables(path)
    return path.read_bytes()


def ending(root):
    """All that runs below a root left behind, without the clock: name -> contents."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        if path.name in (".lock", run_directory.ENVIRONMENT) or run_directory.TENSORBOARD in path.parts:
            continue
        if path.parent.name != run_directory.CHECKPOINTS:
            found[name] = timeless_file(path)
    for folder in root.rglob(run_directory.CHECKPOINTS):
        newest = max(folder.glob("*.json"))
        state = timeless(json.loads(newest.read_text()))
        del state["sha256"]  # The archive has its date.
        numbers = variables(newest.with_suffix(".keras"))
        assert len(numbers) > 20, "two members of four variables, and Adam's moments of them"
        found[str(folder.relative_to(root))] = (newest.name, state, numbers)
    return found


def variables(path):
    """Every weight of a .keras file, those of the optimizer too: its place -> its bytes.

    Keras notes the layers' names as well, which count the models made before in the process.
    """
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(note)
    return found


def assert_ends_as(root, whole):
    left, right = ending(root), ending(whole)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


def lose(root, *patterns):
    """Take files away, so that they have to be made again."""
    for pattern in patterns:
        paths = list(root.glob(pattern))
        assert paths, pattern
        for path in paths:
            path.unlink()
