"""Whatever a user gets wrong is answered by one line that says what was expected and what was received."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from absl import flags

from divtf import cli, experiment, main, run_dir, table2
from divtf.datasets import DATASETS
from divtf.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"error: Expected [^\n]+\. Received: [^\n]+\n")


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        tiny.register(patch)
        yield


def command(*arguments, table=False):
    """What `python -m divtf.main` (or table2) does with these arguments, in this process; the exit code."""
    values = flags.FlagValues()
    cli.define_flags(values)
    if table:
        table2.define_flags(values)
    read = table2.parts_from_flags if table else cli.config_from_flags
    try:
        left = cli.parse(["command", *arguments], values)
    except SystemExit as stopped:
        return stopped.code
    return cli.execute(table2.main if table else main.main, read, left, values)


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
    *("--model=conv5", "--model=", "--model=Conv3", "--mode=diverse", "--mode=", "--dataset=imagenet"),
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
    *("--seed=-1", "--seed=2147483648", "--surrogate_seed=-1", "--static_seed=-7"),
    # Contradictions.
    *("--seed=1000", "--seed=2000", "--surrogate_seed=2000", "--static_seed=0", "--surrogate_seed=0"),
    # No flags.
    *("conv3", "resume=true"),
]
TABLE_FLAGS = [
    *("--models=conv5", "--models=", "--models=conv3,conv3", "--modes=diverse", "--modes="),
    *("--modes=base,base", "--seeds=a", "--seeds=-1", "--seeds=0.5", "--seeds=3,3", "--seeds=1000"),
    *("--model=conv3", "--mode=div", "--export=model", "--num_members=1", "--epsilons=2", "--tables=1"),
]


@pytest.mark.parametrize("argument", FLAGS)
def test_flag_is_refused(argument, capsys):
    assert_refused(command(argument), capsys)


@pytest.mark.parametrize("argument", TABLE_FLAGS)
def test_flag_of_the_table_is_refused(argument, capsys):
    assert_refused(command(argument, table=True), capsys)


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


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema": 0}', '{"schema": 1}', '{"schema": 1, "a":'])
def test_damaged_results_are_refused(content, tmp_path, capsys):
    config = tiny.config(**FAST)
    with run_dir.open_run(tmp_path, config.identity(), resume=False):
        (tmp_path / run_dir.RESULTS).write_text(content)
    assert_refused(run(tmp_path, "--resume"), capsys, "results.json")


def test_export_to_a_taken_place_is_refused(tmp_path, capsys):
    (tmp_path / "model").write_text("mine")
    assert_refused(run(tmp_path / "run", f"--export={tmp_path / 'model'}"), capsys, "a new path")


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
    spec = dataclasses.replace(DATASETS["stripes"], load=lambda data_dir: splits)
    monkeypatch.setitem(DATASETS, "stripes", spec)
    assert_refused(run(tmp_path / "run"), capsys, words, f"{split} split")
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_is_one_line(tmp_path, capsys):
    code = run(tmp_path / "run", "--mode=base", "--learning_rate=1e38")
    assert_refused(code, capsys, "a finite", "NaN or infinity at step", "checkpoint")


def test_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "step-00000003.keras")

    monkeypatch.setattr(run_dir, "_sync_directory", full)
    assert_refused(run(tmp_path / "run"), capsys, "No space left on device")


def library():
    """Name -> a call that the library refuses; the words are the command's."""
    import keras

    import divtf
    from divtf.config import RunConfig

    def member(name, shape=(4, 4, 1), classes=3, activation=None):
        inputs = keras.Input(shape)
        x = keras.layers.Flatten()(inputs)
        return keras.Model(inputs, keras.layers.Dense(classes, activation)(x), name=name)

    def fit(labels, images=None):
        ensemble = divtf.Ensemble([member("a"), member("b")])
        ensemble.compile()
        ensemble.fit(np.zeros((2, 4, 4, 1), "float32") if images is None else images, labels, verbose=0)

    def attack(images, labels=(0, 1), epsilon=0.1):
        divtf.make_attack("fgsm", divtf.ThreatModel(epsilon))(member("a"), images, np.array(labels))

    def transfer(images, labels=(0, 1), attacks=(), **options):
        target = divtf.Ensemble([member("a"), member("b")])
        target.compile()
        divtf.evaluate_transfer(target, target, (images, np.array(labels)), attacks, **options)

    images = np.full((2, 4, 4, 1), 0.5, "float32")
    return {
        "member alone": lambda: divtf.Ensemble([member("a")]),
        "no members": lambda: divtf.Ensemble([], divtf.CrossEntropy()),
        "members of one name": lambda: divtf.Ensemble([member("a"), member("a")]),
        "other input shapes": lambda: divtf.Ensemble([member("a"), member("b", (5, 5, 1))]),
        "other class counts": lambda: divtf.Ensemble([member("a"), member("b", classes=4)]),
        "probabilities": lambda: divtf.Ensemble([member("a"), member("b", activation="softmax")]),
        "sigmoid outputs": lambda: divtf.Ensemble([member("a"), member("b", activation="sigmoid")]),
        "no models": lambda: divtf.Ensemble([np.sin, np.cos]),
        "negative lambda": lambda: divtf.GradientAlignment(-0.5),
        "lambda in words": lambda: divtf.GradientAlignment("half"),
        "epsilon in words": lambda: divtf.ThreatModel("small"),
        "lambda NaN": lambda: divtf.GradientAlignment(float("nan")),
        "negative epsilon": lambda: divtf.ThreatModel(-0.1),
        "epsilon NaN": lambda: divtf.ThreatModel(float("nan")),
        "other norm": lambda: divtf.ThreatModel(0.1, norm="l2"),
        "empty range": lambda: divtf.ThreatModel(0.1, clip_min=1.0, clip_max=0.0),
        "unknown attack": lambda: divtf.make_attack("deepfool", divtf.ThreatModel(0.1)),
        "unknown parameter": lambda: divtf.make_attack("ifgsm", divtf.ThreatModel(0.1), stepz=3),
        "images above 1": lambda: attack(images + 1),
        "images below 0": lambda: attack(images - 1),
        "images of 255": lambda: attack(images * 255),
        "NaN pixels": lambda: attack(images * np.nan),
        "clean images of 255": lambda: transfer(images * 255),
        "other clean images of 255": lambda: transfer(images, clean=(images * 255, np.array([0, 1]))),
        "clean images NaN": lambda: transfer(images * np.nan),
        "clean label too large": lambda: transfer(images, (0, 9)),
        "clean label negative": lambda: transfer(images, (0, -1)),
        "clean labels as numbers": lambda: transfer(images, (0.0, 1.0)),
        "clean labels one-hot": lambda: transfer(images, ((1, 0, 0), (0, 1, 0))),
        "too few labels": lambda: attack(images, (0,)),
        "no images": lambda: attack(images[:0], ()),
        "label too large": lambda: fit(np.array([0, 3])),
        "label negative": lambda: fit(np.array([0, -1])),
        "labels one-hot": lambda: fit(np.eye(3)[[0, 1]]),
        "labels as numbers": lambda: fit(np.array([0.0, 1.0])),
        "NaN in training": lambda: fit(np.array([0, 1]), images * np.nan),
        "unknown model": lambda: divtf.build_member("conv5", (28, 28, 1), 10),
        "tiny images": lambda: divtf.build_member("conv3", (2, 2, 1), 10),
        "one class": lambda: divtf.build_member("conv3", (28, 28, 1), 1),
        "unknown data set": lambda: divtf.load_dataset("imagenet"),
        "unknown field": lambda: RunConfig.from_json({"colour": "red"}),
        "configuration out of range": lambda: divtf.run(RunConfig(epochs=0)),
        "export over a file": lambda: divtf.export_saved_model(
            divtf.Ensemble([member("a"), member("b")]), ROOT
        ),
    }


@pytest.fixture(scope="module")
def library_cases():
    return library()


NAMES = [
    *("member alone", "no members", "members of one name", "other input shapes", "other class counts"),
    *("probabilities", "no models", "negative lambda", "lambda NaN", "negative epsilon", "epsilon NaN"),
    *("other norm", "empty range", "unknown attack", "unknown parameter", "images above 1"),
    *("images below 0", "images of 255", "NaN pixels", "too few labels", "no images", "label too large"),
    *("label negative", "labels one-hot", "labels as numbers", "NaN in training", "unknown model"),
    *("tiny images", "one class", "unknown data set", "unknown field", "configuration out of range"),
    *("export over a file", "sigmoid outputs", "lambda in words", "epsilon in words"),
    *("clean images of 255", "other clean images of 255", "clean images NaN", "clean label too large"),
    *("clean label negative", "clean labels as numbers", "clean labels one-hot"),
]


@pytest.mark.parametrize("name", NAMES)
def test_library_refuses_with_a_value_error_in_one_line(name, library_cases):
    with pytest.raises(ValueError, match=r"^Expected .*Received: .+") as raised:
        library_cases[name]()
    assert isinstance(raised.value, InputError)
    assert "\n" not in str(raised.value)


def test_table_of_the_library_is_whole(library_cases):
    assert sorted(library_cases) == sorted(NAMES)


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
