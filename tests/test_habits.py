"""What people who know Keras do with their own models, as they would write it: each habit is served."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import divtf

RNG = np.random.default_rng(0)
X = RNG.random((16, 8, 8, 3), dtype="float32")
Y = RNG.integers(3, size=16)


def model(name="model", *, norm=None, head=None):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = norm(x) if norm else x
    outputs = layers.Dense(3, activation=head)(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name=name)


def trained(members, x=X, y=Y, **fit):
    ensemble = divtf.Ensemble(members, divtf.GradientAlignment(0.5))
    ensemble.compile("adam")
    history = ensemble.fit(x, y, epochs=2, verbose=0, **fit).history
    assert np.isfinite(history["gal"]).all()
    return ensemble


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.flatten, self.dense = layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)

    def call(self, inputs):
        return self.dense(self.flatten(tf.nn.relu(self.conv(inputs))))


def subclassed_models(_):
    trained([Net(), Net()])


def sequential_models_without_an_input(_):
    trained([keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)]) for _ in range(2)])


def one_builder_called_twice(_):
    trained([divtf.build_member("conv3", (8, 8, 3), 3), divtf.build_member("conv3", (8, 8, 3), 3)])


def one_hot_labels(_):
    trained([model(), model()], y=keras.utils.to_categorical(Y, 3))


def soft_labels_and_smoothing(_):
    trained([model(), model()], y=RNG.dirichlet(np.ones(3), size=16))
    divtf.GradientAlignment(0.5, label_smoothing=0.1)


def sample_weights(_):
    trained([model(), model()], sample_weight=RNG.random(16))


def class_weights(_):
    trained([model(), model()], class_weight={0: 1.0, 1: 2.0, 2: 0.5})


def images_as_bytes_before_a_rescaling(_):
    members = [
        keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), model()]) for _ in range(2)
    ]
    trained(members, (255 * X).astype("uint8"))


def models_with_layer_normalisation(_):
    members = [model(norm=layers.LayerNormalization()) for _ in range(2)]
    with pytest.raises(divtf.InputError, match=r"LayerNormalization.*divtf.convert_member"):
        divtf.Ensemble(members)
    trained([divtf.convert_member(member) for member in members])


def models_with_a_softmax(_):
    members = [model(head="softmax") for _ in range(2)]
    with pytest.raises(divtf.InputError, match=r"divtf.convert_member\(member\) takes its softmax off"):
        divtf.Ensemble(members)
    trained([divtf.convert_member(member) for member in members])


def a_list_of_models_attacked(_):
    attack = divtf.make_attack("pgd_cw", divtf.ThreatModel(0.1))
    surrogate = [model("a"), model("b")]
    results = divtf.evaluate_transfer(surrogate, {"one": model(), "two": surrogate}, (X, Y), attack)
    assert [result.target for result in results] == ["one"] * 3 + ["two"] * 3


def a_dataset_of_dictionaries(_):
    dataset = tf.data.Dataset.from_tensor_slices({"image": X, "label": Y}).batch(5)
    (result,) = divtf.evaluate_transfer(None, model(), dataset, [])
    assert result.total == 16


def loading_a_saved_ensemble_elsewhere(directory):
    ensemble = trained([model("a"), model("b")])
    ensemble.save(directory / "e.keras")
    code = f"import divtf, keras; keras.models.load_model({str(directory / 'e.keras')!r}).summary()"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


HABITS = [
    *(subclassed_models, sequential_models_without_an_input, one_builder_called_twice),
    *(one_hot_labels, soft_labels_and_smoothing, sample_weights, class_weights),
    *(images_as_bytes_before_a_rescaling, models_with_layer_normalisation, models_with_a_softmax),
    *(a_list_of_models_attacked, a_dataset_of_dictionaries, loading_a_saved_ensemble_elsewhere),
]


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__.replace("_", " "))
def test_a_habit_of_keras_users_is_served(habit, tmp_path):
    habit(tmp_path)
