"""Files of divtf's classes load after `import divtf`, in whatever order Keras comes."""

import subprocess
import sys

import keras
import pytest
from keras import layers

from divtf import Adam, BatchNormalization, CrossEntropy, Ensemble

ORDERS = {
    "divtf first": "import divtf, keras",
    "Keras first": "import keras, divtf",
    "a part of Keras": "import divtf; from keras import models; import keras",
    "an attribute first": "import divtf, keras; divtf.Ensemble",
    "TensorFlow's Keras": "import divtf, tensorflow; keras = tensorflow.keras",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An ensemble with its optimizer, and a member alone, which is of one of divtf's layers."""
    members = [
        keras.Sequential(
            [keras.Input((6, 6, 1)), BatchNormalization(), layers.Flatten(), layers.Dense(3)], name=name
        )
        for name in "ab"
    ]
    ensemble = Ensemble(members, CrossEntropy())
    ensemble.compile(Adam(0.1))
    directory = tmp_path_factory.mktemp("saved")
    ensemble.save(directory / "ensemble.keras")
    members[0].save(directory / "member.keras")
    return directory


# A process each, which takes its time to import TensorFlow.
QUICK = ("divtf first", "Keras first")


@pytest.mark.parametrize(
    "order", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in ORDERS]
)
def test_a_new_process_loads_them(order, saved):
    code = (
        f"{ORDERS[order]}\n"
        f"member = keras.models.load_model({str(saved / 'member.keras')!r})\n"
        f"ensemble = keras.models.load_model({str(saved / 'ensemble.keras')!r})\n"
        "print(*(type(each).__module__ for each in (member.layers[0], ensemble, ensemble.optimizer)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == [
        "divtf.networks.layers",
        "divtf.ensembles.ensemble",
        "divtf.ensembles.adam",
    ]


def test_import_of_divtf_alone_loads_no_keras():
    code = "import sys, divtf; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
