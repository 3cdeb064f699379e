"""Whatever a user gets wrong is answered by one line that says what was expected and what was received."""

import dataclasses
import importlib.util
import json
import pickle
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import own_models
import psutil
import pytest
import tiny
from absl import flags
from damage import Hostile

from divtf.commands import command_line, config_flags, main, table2
from divtf.data.datasets import DATASETS
from divtf.ensembles.serving import litert_file, onnx_file
from divtf.ensembles.serving.formats import CHOICES
from divtf.errors import InputError
from divtf.pipeline import experiment
from divtf.pipeline.finished import read_record
from divtf.pipeline.protocols import Protocol
from divtf.storage import checked_json, digests, files, run_directory

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"error: Expected [^\n]+\. Received: [^\n]+\n")


pytestmark = pytest.mark.usefixtures("tiny_world")


def command(*arguments, table=False):
    """What `python -m divtf.main` (or table2) does with these arguments, in this process; the exit code."""
    values = flags.FlagValues()
    config_flags.define_flags(values)
    if table:
        table2.define_flags(values)
    read = table2.table_from_flags if table else config_flags.config_from_flags
    try:
        left = command_line.parse(["command", *arguments], values)
    except SystemExit as stopped:
        return stopped.code
    start = (lambda given: table2.main(*given)) if table else main.main
    return command_line.execute(start, read, left, values)


def assert_refused(code, capsys, *words):
    errors = capsys.readouterr().err
    assert code == 2
    assert LINE.fullmatch(errors), errors
    for word in words:
        assert word in errors


FLAGS = [
    # Not to be parsed.
    *("--moddel=conv3", "--gpu", "-x", "--=", "--epochs", "--epochs=", "--epochs=two", "--epochs=2.5"),
    *("--epochs=1e3", "--learning_rate=fast", "--learning_rate=", "--gal_weight=0,5", "--seed=0x"),
    *("--resume=perhaps", "--nodeterministic=1", "--noepochs", "--deterministic=2", "--batch_size=big"),
    *("--flagfile=/no/such/file", "--flagfile=/", "--flagfile=/proc/self/mem"),
    # Unknown names.
    *("--model=conv5", "--model=", "--model=Conv3", "--model=nets:", "--model=:net", "--model=my nets:net"),
    *(
        "--model=keras:",
        "--model=a.keras,",
        "--model=a.keras,conv3",
        "--model=a.h5",
        "--model=s3://a/b.keras",
    ),
    *("--mode=diverse", "--mode=", "--dataset=imagenet"),
    *("--dataset=", "--activation=gelu", "--schedule=step", "--strategy=tpu", "--precision=float16"),
    *("--attacks=fgsm,deepfool", "--attacks=fgsm,fgsm", "--attacks=fgsm,", "--attacks=;"),
    # Out of range.
    *("--num_members=0", "--num_members=-3", "--num_members=1", "--num_members=3000000000"),
    *("--epochs=0", "--epochs=-1", "--epochs=99999999999999999999", "--batch_size=0", "--batch_size=-128"),
    *("--learning_rate=0", "--learning_rate=-1", "--learning_rate=nan", "--learning_rate=inf"),
    *("--gal_weight=-0.5", "--gal_weight=nan", "--gal_weight=-inf", "--weight_decay=-1"),
    *("--weight_decay=nan", "--negative_slope=-0.1", "--negative_slope=1", "--negative_slope=nan"),
    *("--max_train_examples=0", "--max_train_examples=-5", "--max_test_examples=0"),
    *("--max_attack_examples=0", "--max_attack_examples=-1", "--checkpoint_minutes=0"),
    *("--checkpoint_minutes=-1", "--checkpoint_minutes=nan"),
    *("--epsilons=0", "--epsilons=-0.1", "--epsilons=1.5", "--epsilons=8", "--epsilons=0.1,0.1"),
    *("--epsilons=", "--epsilons=a", "--epsilons=0.1;0.3", "--epsilons=nan", "--epsilons=inf"),
    *("--epsilons=1e-400", "--epsilons=0.1,", "--learning_rate=1e-400", "--learning_rate=1e999"),
    # Images of one's own: epsilons are asked for, sizes are two numbers.
    *("--dataset=tfds:mnist", "--dataset=/tmp", "--dataset=./mnist5k", "--dataset=digits.npz"),
    *("--image_size=", "--image_size=big", "--image_size=0", "--image_size=32,", "--image_size=32,32,3"),
    *("--image_size=-8,8", "--image_size=8.5", "--image_size=5000", "--flips=perhaps", "--noflips=1"),
    # Absurd sizes.
    *("--num_members=1001", "--num_members=1000000", "--batch_size=2147483648", "--epochs=2147483648"),
    *("--max_train_examples=2147483648", "--max_test_examples=99999999999999999999"),
    *("--max_attack_examples=2147483648", "--checkpoint_minutes=1e999", "--gal_weight=1e39"),
    *("--learning_rate=1e300", "--weight_decay=4e38"),
    *("--seed=-1", "--seed=2147483648", "--surrogate_seed=-1", "--static_seed=-7", "--static_attack=step"),
    # Contradictions.
    *("--seed=1000", "--seed=2000", "--surrogate_seed=2000", "--static_seed=0", "--surrogate_seed=0"),
    # Exports.
    *("--export_format=onnx", "--export_format=", "--export_format=tflite", "--export_format=onnx,onnx"),
    *("--export_format=onnx,", "--export_format=ONNX", "--export_format=litert_int4"),
    *("--track=mlfow", "--track=wandb,wandb", "--track=mlflow,", "--track=tensorboard"),
    # No paths on this machine: an unset shell variable, a bucket, characters that nothing can show.
    *("--run_dir=", "--data_dir=", "--run_dir=gs://bucket/run", "--export=s3://bucket/model"),
    *("--run_dir=a\0b", "--run_dir=a\nb", "--run_dir=\udcff", "--export=a\tb", "--data_dir=\x1b[1m"),
    # No flags.
    *("conv3", "resume=true"),
]
TABLE_FLAGS = [
    *("--models=nets:", "--models=a:net,b:net", "--models=nets:net,nets:net", "--models=conv3,none.keras"),
    *("--models=conv5", "--models=", "--models=conv3,conv3", "--modes=diverse", "--modes="),
    *("--modes=base,base", "--seeds=a", "--seeds=-1", "--seeds=0.5", "--seeds=3,3", "--seeds=1000"),
    *("--seeds=", "--run_dir=", "--model=conv3", "--mode=div", "--export=model", "--num_members=1"),
    *("--epsilons=2", "--tables=1"),
    # A protocol, and what changes it.
    *("--protocol=strnog", "--protocol=", "--surrogates=plain", "--images=9", "--images=0", "--queries=-1"),
    *("--queries=9", "--query_images=0"),
]
# Beside a protocol.
PROTOCOL_FLAGS = [
    *("--surrogates=plane", "--surrogates=", "--surrogates=plain,plain", "--surrogates=plain+"),
    *("--surrogates=none.keras", "--surrogates=plain0", "--surrogates=a.h5", "--surrogates=T_Div"),
    *("--queries=1", "--stored_as=png", "--max_test_examples=9", "--images=many", "--surrogate_seed=1998"),
]


@pytest.mark.parametrize("argument", FLAGS)
def test_flag_is_refused(argument, capsys):
    assert_refused(command(argument), capsys)


EXPORTS = [
    (("--export", "--export_format=lite"), "did you mean litert?"),
    (("--export", "--export_format="), "at least one"),
    (("--export", "--export_format=onnx,onnx"), "distinct names"),
    (("--noexport", "--export_format=onnx"), "--export with --export_format"),
    (("--export=model", "--export_format=onnx,litert"), "--export without a path for several formats"),
]


@pytest.mark.parametrize(("arguments", "words"), EXPORTS, ids=str)
def test_export_that_contradicts_itself_is_refused(arguments, words, capsys):
    assert_refused(command(*arguments), capsys, words)


@pytest.mark.parametrize("argument", TABLE_FLAGS)
def test_flag_of_the_table_is_refused(argument, capsys):
    assert_refused(command(argument, table=True), capsys)


@pytest.mark.parametrize("argument", PROTOCOL_FLAGS)
def test_flag_of_a_protocol_is_refused(argument, capsys, monkeypatch):
    monkeypatch.setattr(Protocol, "needs_art", False)
    assert_refused(command("--protocol=strong", argument, table=True), capsys)


def test_protocol_without_its_extra_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None)
    assert_refused(command("--protocol=strong", table=True), capsys, "pip install 'divtf[attacks]'")


@pytest.mark.parametrize(
    "content", [b"--epochs=x\n", b"epochs=3\n", b"\xff\xfe\x00--seed", b"--modl=conv3\n", b"--seed=-1\n"]
)
def test_flagfile_is_refused(content, tmp_path, capsys):
    path = tmp_path / "some.flags"
    path.write_bytes(content)
    assert_refused(command(f"--flagfile={path}"), capsys)


FAST = {"epochs": 1, "batch_size": 24, "attacks": ("fgsm",)}


def run(directory, *arguments):
    budget = ["--model=tiny", "--num_members=2", "--learning_rate=0.01"]
    budget += ["--epochs=1", "--batch_size=24", "--attacks=fgsm"]
    return command(*budget, f"--run_dir={directory}", *arguments)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("a file"), "Expected a directory"),
        (lambda path: (path.mkdir(), (path / "thesis.txt").write_text("")), "which holds other files"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{")), "Expected JSON in"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[]")), "a configuration in"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{}")), "model=None there"),
        (lambda path: (path.mkdir(), (path / "config.json").mkdir()), "usable file or directory"),
        (lambda path: path.symlink_to(path / "nowhere" / "at" / "all"), "usable file or directory"),
        (lambda path: path.symlink_to(path), "usable file or directory"),
    ],
    ids=["file", "foreign", "damaged", "no object", "other version", "no file", "dangling link", "loop"],
)
def test_run_directory_is_refused(make, words, tmp_path, capsys):
    make(tmp_path / "run")
    assert_refused(run(tmp_path / "run"), capsys, words)


@pytest.mark.parametrize("path", ["/proc/run", "/dev/null/run", "/dev/null", "x" * 300, "/proc/self/mem/run"])
def test_run_directory_that_cannot_be_made_is_refused(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(path), capsys)


def other_version(path, **changed):
    """A run of this configuration, but for some fields."""
    values = tiny.config(**FAST, run_dir=str(path)).identity() | changed
    path.mkdir()
    (path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"colour": "red"}, "colour='red' there, None here"),
        ({"batch_size": None}, "batch_size=None there, 24 here"),
        ({"batch_size": "24"}, "batch_size='24' there, 24 here"),
        ({"epochs": 2, "seed": 1}, "epochs=2 there, 1 here, seed=1 there, 0 here"),
        ({"attacks": "fgsm"}, "attacks='fgsm' there"),
    ],
    ids=["newer", "older", "other type", "other values", "other form"],
)
def test_configuration_of_another_version_is_refused(changed, words, tmp_path, capsys):
    other_version(tmp_path / "run", **changed)
    assert_refused(run(tmp_path / "run", "--resume"), capsys, "run directory of this configuration", words)


def instead(path, content):
    """A directory (None), a link (a Path) or a file in the place of what a run would write."""
    if content is None:
        path.mkdir()
    elif isinstance(content, Path):
        path.symlink_to(content)
    else:
        path.write_text(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((".lock", None), ("environment.json", None), ("results.json", None), ("exports.json", None)),
        *(("environment.json", "{"), ("environment.json", "7"), ("exports.json", "7"), ("exports.json", "{")),
        (".lock", Path("/proc/none")),
    ],
    ids=lambda value: {None: "directory"}.get(value, str(value)),
)
def test_what_lies_in_the_place_of_a_runs_file_is_refused(name, content, tmp_path, capsys, monkeypatch):
    """Before any training."""
    monkeypatch.setattr(experiment, "_train", None)
    other_version(tmp_path / "run")
    instead(tmp_path / "run" / name, content)
    assert_refused(run(tmp_path / "run", "--resume", f"--export={tmp_path / 'model'}"), capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["run/checkpoints", "run/tensorboard", "shared-models", "run/saved_model"],
)
def test_file_in_the_place_of_a_runs_directory_is_refused(name, tmp_path, capsys):
    other_version(tmp_path / "run")
    (tmp_path / name).write_text("mine")
    assert_refused(run(tmp_path / "run", "--resume", "--export"), capsys)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.md"])
def test_directory_in_the_place_of_a_written_file_is_refused(name, tmp_path, capsys, finished):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / name).mkdir()
    assert_refused(run(tmp_path / "run", "--resume"), capsys, name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the budget of `run`."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    assert run(directory) == 0
    return directory


def test_linked_run_directory_is_the_run_itself(finished, tmp_path, capsys):
    """Read, held and gone on with through the link; what a link leads to is not replaced by it."""
    shutil.copytree(finished, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert_refused(run(tmp_path / "link"), capsys, "--resume")
    assert run(tmp_path / "link", "--resume") == 0
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 0}', '{"schema": 1}'])
def test_results_of_something_else_are_refused(content, tmp_path, capsys):
    config = tiny.config(**FAST)
    with run_directory.open_run(tmp_path, config.identity(), resume=False):
        (tmp_path / run_directory.RESULTS).write_text(content)
    assert_refused(run(tmp_path, "--resume"), capsys, "results.json")


@pytest.mark.parametrize("taken", ["a file", "a SavedModel that is not ours", "a link to a directory"])
def test_export_to_a_taken_place_is_refused(taken, tmp_path, capsys):
    """The one place where a SavedModel can be given: none is ever read."""
    place = tmp_path / "model"
    if taken == "a file":
        place.write_text("mine")
    else:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "saved_model.pb").write_bytes(b"not ours")
        place.symlink_to(tmp_path / "there") if "link" in taken else (tmp_path / "there").rename(place)
    assert_refused(run(tmp_path / "run", f"--export={place}"), capsys, "a new path")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["onnx", "litert_int8"])
def test_file_is_not_exported_to_a_taken_place(name, tmp_path, capsys):
    place = tmp_path / "model"
    place.mkdir()  # A SavedModel would take an empty directory.
    options = (f"--export={place}", f"--export_format={name}")
    assert_refused(run(tmp_path / "run", *options), capsys, "a new path for the", "which exists")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "place", ["run/model.tflite", "run/report.md", "run/model.onnx/1", "a file/model.onnx"]
)
def test_file_is_not_exported_to_where_it_cannot_be(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "_train", None)
    (tmp_path / "a file").write_text("mine")
    options = (f"--export={tmp_path / place}", "--export_format=onnx")
    assert_refused(
        run(tmp_path / "run", *options), capsys, "ONNX" if "file/" in place else "--export outside"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("onnx", "tf2onnx", "onnx"), ("litert_int8", "ai_edge_litert", "litert")]
)
def test_export_without_its_extra_is_refused_before_the_training(
    name, module, extra, tmp_path, monkeypatch, capsys
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *rest: None if wanted == module else find(wanted, *rest)
    )
    monkeypatch.setattr(experiment, "_train", None)
    code = run(tmp_path / "run", "--export", f"--export_format=saved_model,{name}")
    assert_refused(code, capsys, f"pip install 'divtf[{extra}]'", module)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["onnx", pytest.param("litert", marks=pytest.mark.slow)])
def test_full_disk_at_an_export_is_one_line_and_leaves_nothing_half_written(
    name, tmp_path, monkeypatch, capsys
):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    assert run(tmp_path / "run") == 0
    before = {path.name for path in (tmp_path / "run").iterdir()}
    with monkeypatch.context() as patch:
        writer = onnx_file if name == "onnx" else litert_file
        patch.setattr(writer, "write", lambda _, path, **options: full(path, bytes(20)))
        code = run(tmp_path / "run", "--resume", "--export", f"--export_format={name}")
    assert_refused(code, capsys, "No space left on device")
    assert {path.name for path in (tmp_path / "run").iterdir()} - before == {"exports.json"}
    assert run(tmp_path / "run", "--resume", "--export", f"--export_format={name}") == 0
    assert (tmp_path / "run" / CHOICES[name].file).is_file()


@pytest.mark.parametrize("place", ["run", "run/checkpoints", "run/saved_model/1", ".", "a file/model"])
def test_export_to_where_it_cannot_be_is_refused_before_the_training(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "_train", None)
    (tmp_path / "a file").write_text("mine")
    assert_refused(
        run(tmp_path / "run", f"--export={tmp_path / place}"),
        capsys,
        "SavedModel" if "file" in place else "xport",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": "x"}, "Expected seed as"),
        ({"seed": 5}, "results of ('tiny', 'stripes', 0)"),
        ({"model": "vgg"}, "results of ('tiny', 'stripes', 0)"),
        ({"results": []}, "at least one result"),
        ({"results": [7]}, "results"),
        ({"coherence": ["a"]}, "Expected coherence as"),
        ({"pair_cosines": [[1.0, 0.0], [0.0]]}, "Expected pair_cosines [N][N]"),
        ({"budget": [1]}, "Expected budget as"),
        ({"gradients": 5}, "Expected gradients as"),
        ({"provenance": None}, "Expected provenance as"),
        ({"correct": 999}, "correct <= total"),
        ({"correct": "5"}, "Expected correct as"),
        ({"total": 0}, "correct <= total"),
        ({"epsilon": "0.1"}, "Expected epsilon as"),
        ({"epsilon": True}, "Expected epsilon as"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_wrong_values_in_results_are_refused(changed, words, finished, tmp_path, capsys):
    """Without a checksum, as version 0.1.0 wrote them, or anybody."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.md").unlink()
    path = tmp_path / "run" / run_directory.RESULTS
    values = checked_json.read_checked(path)
    within = {name: value for name, value in changed.items() if name in values["results"][0]}
    values |= {name: value for name, value in changed.items() if name not in within}
    if within:
        values["results"][0] |= within
    checked_json.write_json(path, values)
    assert_refused(run(tmp_path / "run", "--resume"), capsys, words)


def forged_checkpoint(directory, write):
    """A run with a whole checkpoint, by its hash, that `write` wrote."""
    other_version(directory)
    path = directory / run_directory.CHECKPOINTS / "step-00000001.keras"
    path.parent.mkdir()
    write(path)
    checked_json.write_checked(path.with_suffix(".json"), {"step": 1, "sha256": digests.file_digest(path)})


def archive(path, configuration, **files):
    """A .keras file of this configuration."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": ""}))
        file.writestr("config.json", json.dumps(configuration))
        for name, content in files.items():
            file.writestr(name, content)


def calls(module, name, *arguments):
    """A layer's configuration that asks Keras for a function of another module, called with arguments."""
    return {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "l", "function": {"module": module, "class_name": "function", "config": name}}
        | {"arguments": dict(zip("ab", arguments, strict=False))},
        "registered_name": None,
    }


def hostile_checkpoints(witness):
    """Name -> a function that writes a .keras file which, believed, makes the witness file."""
    import keras

    def saved_lambda(path):
        inputs = keras.Input((2,))
        code = f"lambda x: __import__('pathlib').Path({str(witness)!r}).touch() or x"
        outputs = keras.layers.Lambda(eval(code))(inputs)
        keras.Model(inputs, outputs).save(path)
        witness.unlink()  # It was made when the layer was.

    def model(*layers):
        return {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"name": "s", "layers": list(layers)},
            "registered_name": None,
        }

    unsafe = calls("keras.config", "enable_unsafe_deserialization")
    system = {"module": "os", "class_name": "system", "config": {"command": f"touch {witness}"}}
    opened = {"module": "builtins", "class_name": "open", "config": {"file": str(witness), "mode": "w"}}
    return {
        "Lambda": saved_lambda,
        "pickle": lambda path: path.write_bytes(pickle.dumps(Hostile(witness))),
        "os.system": lambda path: archive(path, system | {"registered_name": None}),
        "open": lambda path: archive(path, opened | {"registered_name": None}),
        "safe mode off": lambda path: archive(path, model(unsafe, calls("os", "system", f"touch {witness}"))),
        "no configuration": lambda path: archive(path, ["nothing"]),
    }


@pytest.mark.parametrize(
    "name", ["Lambda", "pickle", "os.system", "open", "safe mode off", "no configuration"]
)
def test_hostile_checkpoint_is_refused_and_not_run(name, tmp_path, capsys):
    witness = tmp_path / "executed"
    forged_checkpoint(tmp_path / "run", hostile_checkpoints(witness)[name])
    assert_refused(run(tmp_path / "run", "--resume"), capsys, "that Keras can load", "step-00000001.keras")
    assert not witness.exists()


def test_witness_is_made_where_a_hostile_file_is_believed(tmp_path):
    """Else the test above could not fail."""
    import keras

    witness = tmp_path / "executed"
    pickle.loads(pickle.dumps(Hostile(witness))).close()
    assert witness.exists()
    witness.unlink()
    hostile_checkpoints(witness)["Lambda"](tmp_path / "model.keras")
    assert not witness.exists()
    keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)(np.zeros((1, 2)))
    assert witness.exists()


def test_checkpoint_of_a_plain_keras_model_is_refused(tmp_path, capsys):
    import keras

    inputs = keras.Input(tiny.SHAPE)
    plain = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    forged_checkpoint(tmp_path / "run", plain.save)
    assert_refused(run(tmp_path / "run", "--resume"), capsys, "a checkpoint of an ensemble")


@pytest.mark.parametrize(
    "budget",
    [
        ["--num_members=1000", "--dataset=stripes"],
        ["--num_members=1000", "--batch_size=2147483647", "--model=mix", "--dataset=stripes"],
        pytest.param(["--batch_size=2147483647", "--dataset=mnist5k"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_step_that_cannot_fit_into_memory_is_refused(budget, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=2 * 2**30))
    code = command("--model=conv3", f"--run_dir={tmp_path / 'run'}", *budget)
    assert_refused(code, capsys, "fits into the 2 GiB of this machine's memory")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_absurd_sizes_that_cost_nothing_are_taken(tmp_path):
    """There are no more images than there are; an epoch is one batch then."""
    huge = [f"--max_{what}_examples=2147483647" for what in ("train", "test", "attack")]
    huge += ["--batch_size=2147483647", "--seed=2147483647", "--checkpoint_minutes=3e38"]
    assert run(tmp_path / "run", *huge) == 0
    record = read_record(tmp_path / "run")
    assert (record.budget["training images"], record.budget["attacked images"]) == (72, 24)


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["--learning_rate=3e38", "--gal_weight=3e38", "--weight_decay=3e38"])
def test_absurd_number_is_one_line(argument, tmp_path, capsys):
    assert_refused(run(tmp_path / "run", argument), capsys, "a finite")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A directory with a module and files of the user's."""
    import keras

    from divtf.networks.models import build_members

    place = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        own_models.importable(patch, place)
        own_models.write(place, "half_written", "def net(:")
        own_models.write(place, "lacking", "import nothing_of_that_name")
        own_models.write(place, "leaving", "raise SystemExit(3)")
        made = build_members(f"{own_models.NAME}:plain", 2, tiny.SHAPE, tiny.CLASSES, seed=1)
        for stem, member in zip("ab", made, strict=True):
            member.save(place / f"{stem}.keras")
        made[0].save(place / "again.keras")
        module = __import__(own_models.NAME)
        for name in ("of_other_images", "of_other_classes", "with_lambda", "with_unknown_layer"):
            member = getattr(module, name)(
                input_shape=tiny.SHAPE, num_classes=tiny.CLASSES, name=name, seed=0
            )
            member.save(place / f"{name}.keras")
        (place / "words.keras").write_text("words")
        (place / "directory.keras").mkdir()
        archive(place / "empty.keras", {"class_name": "Nothing", "config": {}})
        data = (place / "a.keras").read_bytes()
        (place / "half.keras").write_bytes(data[: len(data) // 2])
        inputs = keras.Input(tiny.SHAPE)
        keras.Model(inputs, keras.layers.Flatten()(inputs)).save(place / "pixels.keras")
        yield place


M = own_models.NAME
OWN = {
    f"{M}:smal": "did you mean small?",
    f"{M}:number": "as a function",
    f"{M}:small.more": "no more in",
    "no_such_module:net": "No module named 'no_such_module'",
    "half_written:net": "SyntaxError",
    "lacking:net": "nothing_of_that_name",
    "leaving:net": "SystemExit",
    f"{M}:of_other_arguments": "to be called with input_shape, num_classes, name, seed",
    f"{M}:nothing": "a Keras model of",
    f"{M}:failing": "RuntimeError: no weights today",
    f"{M}:leaving": "SystemExit: 3",
    f"{M}:constant": "members 0 and 1 with the same weights",
    f"{M}:of_other_images": "of images (8, 8, 1)",
    f"{M}:of_other_classes": "with 3 outputs, one a class",
    f"{M}:of_two_inputs": "of images (8, 8, 1)",
    f"{M}:of_named_outputs": "Received: a dict",
    f"{M}:with_lambda": "Lambda",
    f"{M}:with_unknown_layer": "Could not locate class 'Unknown'",
    f"{M}:not_exact": "exact to second order",
    "keras:MobileNetV3Smal": "did you mean MobileNetV3Small?",
    "keras:layers": "of keras.applications",
    "keras:MobileNet": "at least 32x32",
    "none.keras,a.keras": "none.keras: no file",
    "directory.keras,a.keras": "no file",
    "words.keras,a.keras": "no .keras file",
    "half.keras,a.keras": "no .keras file",
    "empty.keras,a.keras": "a model that Keras saved",
    "with_lambda.keras,a.keras": "Lambda",
    "with_unknown_layer.keras,a.keras": "Could not locate class 'Unknown'",
    "of_other_images.keras,a.keras": "of images (8, 8, 1)",
    "of_other_classes.keras,a.keras": "with 3 outputs, one a class",
    "pixels.keras,a.keras": "with 3 outputs, one a class",
    "a.keras,again.keras": "members 0 and 1 with the same weights",
    "a.keras#0123456789ab,b.keras": "changed since",
    "a.keras": "num_members=1",
    f"{M}:small --num_members=1": "at least 2 for mode div",
    f"{M}:small --activation=relu": "no --activation",
    f"{M}:small --negative_slope=0.2": "no --negative_slope",
    "a.keras,b.keras --num_members=3": "--num_members=2, as many as the files",
    "a.keras,b.keras --precision=mixed_bfloat16": "--precision=float32 for saved members",
}


@pytest.mark.parametrize("model", OWN)
def test_own_model_is_refused_before_anything_is_made(model, own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(own)
    budget = ["--dataset=stripes", "--epochs=1", f"--run_dir={tmp_path / 'runs' / 'run'}"]
    count = [] if "keras" in model else ["--num_members=2"]
    assert_refused(command(*budget, *count, *f"--model={model}".split()), capsys, OWN[model])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("left_out", "name"), [("--epochs=1", "epochs"), ("--dataset=stripes", "dataset")])
def test_what_the_paper_does_not_give_is_asked_for(left_out, name, capsys):
    given = [argument for argument in ("--epochs=1", "--dataset=stripes") if argument != left_out]
    code = command("--model=nets:net", *given)
    assert_refused(code, capsys, f"--{name} for --model=nets:net, for which the paper gives none")


@pytest.mark.parametrize("setting", ["0", "false", "FALSE"])
def test_bfloat16_without_onednn_is_refused_before_anything_is_made(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", setting)
    code = run(tmp_path / "run", "--precision=mixed_bfloat16")
    assert_refused(
        code,
        capsys,
        "oneDNN on and a processor with AVX-512 for --precision=mixed_bfloat16",
        f"ONEDNN_OPTS={setting}",
    )
    assert not (tmp_path / "run").exists()


X, Y = np.zeros((6, *tiny.SHAPE), "uint8"), np.arange(6) % tiny.CLASSES


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X[:0], Y[:0], "at least one image"),
        (X / 255, Y, "uint8 images"),
        (np.full(X.shape, np.nan), Y, "uint8 images"),
        (X.astype("int64") - 1, Y, "uint8 images"),
        (X[:, :5], Y, "images of shape (8, 8, 1)"),
        (X[..., 0], Y, "images of shape (8, 8, 1)"),
        (X.repeat(3, -1), Y, "images of shape (8, 8, 1)"),
        (X, Y[:5], "6 labels"),
        (X, Y[:, None], "6 labels"),
        (X, np.eye(3)[Y], "6 labels"),
        (X, Y + 0.5, "integer labels"),
        (X, Y - 1, "labels in [0, 3)"),
        (X, Y + 1, "labels in [0, 3)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_data_that_does_not_fit_is_refused(split, x, y, words, tmp_path, monkeypatch, capsys):
    good, bad = (X, Y), (x, y)
    splits = (bad, good) if split == "train" else (good, bad)
    spec = dataclasses.replace(DATASETS["stripes"], load=lambda: splits)
    monkeypatch.setitem(DATASETS, "stripes", spec)
    assert_refused(run(tmp_path / "run"), capsys, words, f"{split} split")
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_is_one_line(tmp_path, capsys):
    code = run(tmp_path / "run", "--mode=base", "--learning_rate=1e38")
    assert_refused(code, capsys, "a finite", "NaN or infinity at step", "checkpoint")


def test_last_step_that_diverges_is_one_line(tmp_path, capsys):
    """No step follows that would find the weights that it leaves: the test images do."""
    for _ in range(2):
        code = run(tmp_path / "run", "--mode=base", "--learning_rate=1e38", "--batch_size=72", "--resume")
        assert_refused(
            code, capsys, "finite measures at the end of an epoch", "after step 1", "no checkpoint"
        )
        assert not (tmp_path / "run" / run_directory.METRICS).exists()


def test_checkpoint_that_cannot_be_read_is_not_replaced(tmp_path, capsys):
    """A link to itself: what permissions or a failing disk do, and root cannot be kept from reading."""
    forged_checkpoint(tmp_path / "run", lambda path: path.write_text("weights"))
    path = tmp_path / "run" / run_directory.CHECKPOINTS / "step-00000001.keras"
    path.unlink()
    path.symlink_to(path)
    assert_refused(run(tmp_path / "run", "--resume"), capsys, "usable file", path.name)
    assert path.is_symlink() and path.with_suffix(".json").exists()


def test_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "step-00000003.keras")

    monkeypatch.setattr(files, "_sync_directory", full)
    assert_refused(run(tmp_path / "run"), capsys, "No space left on device")


@pytest.mark.parametrize(
    "arguments",
    [
        ["divtf.main", "--mode=div", "--num_members=1"],
        ["divtf.main", "--modle=conv3"],
        ["divtf.main", "--flagfile=/no/such/file"],
        ["divtf.table2", "--modes=base,diverse"],
    ],
    ids=" ".join,
)
def test_process_ends_with_one_line_and_a_code(arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert LINE.fullmatch(done.stderr)


def test_experiment_raises_the_words_that_the_command_prints(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("")
    config = tiny.config(**FAST, run_dir=str(tmp_path))
    with pytest.raises(InputError) as raised:
        experiment.run(config)
    run(tmp_path)
    assert capsys.readouterr().err == f"error: {raised.value}\n"
