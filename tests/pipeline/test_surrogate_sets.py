"""Surrogates of files and of several parts: what is refused in one line, and how each is told."""

import json
import zipfile

import keras
import pytest
import tiny

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.objectives.gal import GradientAlignment
from divtf.errors import InputError
from divtf.pipeline.surrogate_sets import SurrogatePlan
from divtf.storage.digests import file_digest

pytestmark = pytest.mark.usefixtures("tiny_world")


def model(classes=tiny.CLASSES):
    inputs = keras.Input(tiny.SHAPE)
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Name -> content of each part of a file that Keras wrote."""
    path = tmp_path_factory.mktemp("whole") / "whole.keras"
    model().save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def changed(path, place, values):
    """Other bytes from some place on within the file."""
    content = bytearray(path.read_bytes())
    content[place : place + len(values)] = values
    path.write_bytes(content)


def without(name):
    return lambda path, parts: zipped(path, {key: value for key, value in parts.items() if key != name})


def with_part(name, content):
    return lambda path, parts: zipped(path, parts | {name: content})


def with_config(**values):
    def made(path, parts):
        whole = json.loads(parts["config.json"])
        return zipped(path, parts | {"config.json": json.dumps(whole | values)})

    return made


def with_layers(layers):
    def made(path, parts):
        inner = json.loads(parts["config.json"])["config"]
        return with_config(config=inner | {"layers": layers})(path, parts)

    return made


def cut(path, parts):
    zipped(path, parts)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_byte(path, parts):
    """In the configuration, which then fails its checksum."""
    zipped(path, parts)
    changed(path, path.read_bytes().find(parts["config.json"]) + 9, b"?")


def no_stream(path, parts):
    """A compressed part that cannot be decompressed."""
    zipped(path, parts, zipfile.ZIP_DEFLATED)
    changed(path, path.read_bytes().find(b"config.json") + len("config.json"), b"\xff" * 60)


def marked(within, value):
    """A field of every part's entry, at the end of the file and before its content."""

    def made(path, parts):
        zipped(path, parts)
        for begin, place in zip((b"PK\x01\x02", b"PK\x03\x04"), within, strict=True):
            found = path.read_bytes().find(begin)
            while found >= 0:
                changed(path, found + place, bytes([value]))
                found = path.read_bytes().find(begin, found + 1)

    return made


# Name -> writes the file, from its path and the parts of a whole one.
DAMAGED = {
    "empty": lambda path, parts: path.write_bytes(b""),
    "text": lambda path, parts: path.write_text("?"),
    "cut": cut,
    "another byte": another_byte,
    "no stream": no_stream,
    "encrypted": marked((8, 6), 1),
    "unknown compression": marked((10, 8), 99),
    "no configuration": without("config.json"),
    "no weights": without("model.weights.h5"),
    "no JSON": with_part("config.json", b"{"),
    "no text": with_part("config.json", b"\xff\xfe\x00"),
    "nested": with_part("config.json", b"[" * 100_000),
    **{f"JSON of {text}": with_part("config.json", text) for text in ("[]", "null", "3", '"a"', "{}")},
    "unknown class": with_config(class_name="Nope", module="nowhere"),
    "null within": with_config(config=None),
    "nothing within": with_config(config={}),
    "list within": with_config(config=[1]),
    "a layer without a name": with_layers([{}]),
    "a number of layers": with_layers(3),
    "weights of nothing": with_part("model.weights.h5", b""),
    "weights of text": with_part("model.weights.h5", b"junk"),
    "cut weights": lambda path, parts: with_part("model.weights.h5", parts["model.weights.h5"][:3000])(
        path, parts
    ),
    "weights with a hole": lambda path, parts: with_part(
        "model.weights.h5", parts["model.weights.h5"][:96] + bytes(4000) + parts["model.weights.h5"][4096:]
    )(path, parts),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(damage, parts, tmp_path):
    path = tmp_path / "a.keras"
    DAMAGED[damage](path, parts)
    with pytest.raises(
        InputError, match=r"Expected a surrogate that Keras can load in .*a\.keras\. "
    ) as said:
        SurrogatePlan.of(["noise", str(path)], [tiny.config(run_dir=str(tmp_path / "run"))], tiny.data())
    assert "\n" not in str(said.value)
    assert not (tmp_path / "shared-models").exists(), "nothing was trained"


def test_what_is_no_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", lambda path, **given: keras.layers.Dense(3))
    (tmp_path / "a.keras").touch()
    with pytest.raises(InputError, match=r"Expected a Keras model in .*a\.keras\. Received: a Dense"):
        SurrogatePlan.of([str(tmp_path / "a.keras")], [tiny.config()], tiny.data())


def told(names, config):
    x, y = tiny.data().test_set(6)
    return [sets.told(x, y) for sets in SurrogatePlan.of(names, [config], tiny.data()).sets().values()]


def test_every_surrogate_is_told_whole(tmp_path):
    """By itself and as a part: what differs has one value for each part, in their order."""
    config = tiny.config(run_dir=str(tmp_path / "run"), epochs=1, batch_size=24)
    plain, div, both = told(["plain1", "div", "plain1+div"], config)
    assert (plain["objective"], plain["members"], plain["seed"]) == ("CrossEntropy", 1, 1101)
    assert div["objective"].startswith("GradientAlignment")
    assert both == {
        "members": 3,
        "objective": f"CrossEntropy + {div['objective']}",
        "mode": "base + div",
        "model": "tiny",
        "dataset": "stripes",
        "seed": "1101 + 1002",
        "epochs": 1,
        "batch size": 24,
        "learning rate": 0.01,
        "training images": 72,
        "clean accuracy": both["clean accuracy"],
        "made of": "plain1+div",
    }


def test_a_file_tells_its_path_content_and_objective(tmp_path):
    first, second = (str(tmp_path / name) for name in ("a.keras", "b.keras"))
    model().save(first)
    Ensemble([model(), model()], GradientAlignment(0.5)).save(second)
    digests = [file_digest(tmp_path / name) for name in ("a.keras", "b.keras")]
    config = tiny.config(run_dir=str(tmp_path / "run"), epochs=1, batch_size=24)
    alone, ensemble, among = told([first, second, f"{first}+plain"], config)
    assert (alone["file"], alone["SHA-256"], alone["members"]) == (first, digests[0], 1)
    assert (ensemble["file"], ensemble["SHA-256"], ensemble["members"]) == (second, digests[1], 2)
    assert ensemble["objective"] == "GradientAlignment, weight 0.5" and "objective" not in alone
    assert (among["file"], among["SHA-256"]) == (f"- + {first}", f"- + {digests[0]}")
    assert (among["seed"], among["objective"], among["members"]) == ("1000 + -", "CrossEntropy + -", 3)
