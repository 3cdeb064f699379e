"""Tasks for processes of their own: devices can be split and a cluster joined only before TensorFlow starts.

`start`, `result` and `start_workers` fork them, by the server of `forked.py`. As a program this module does
one task, of which its argument tells as JSON, in a process that logs as TensorFlow does.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import divtf
import divtf.evaluation.gradients
import divtf.networks.models
import divtf.pipeline.config
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import predictions
from divtf.pipeline import trained
from divtf.runtime import devices, workers
from divtf.training import callbacks, fit


def normalised(make, x, num_classes):
    x = make.dense(divtf.BatchNormalization()(keras.layers.Flatten()(x)), 6)
    return make.dense(make.activate(x), num_classes)


def convolved(make, x, num_classes):
    """Conv-3 in small."""
    x = keras.layers.MaxPooling2D(2)(make.activate(make.conv(make.activate(make.conv(x, 3)), 4)))
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(make.activate(make.conv(x, 5))))
    return make.dense(make.activate(make.dense(x, 6)), num_classes)


def register(patch):
    """Make these models known, and `tiny`."""
    tiny.register(patch)
    for model in (normalised, convolved):
        patch.setitem(divtf.networks.models.MODELS, model.__name__, model)
        patch.setitem(divtf.data.paper.SETUPS, model.__name__, divtf.data.paper.Setup("stripes", 2))


def train(directory, *, sgd=None, kill_at=None, seen=None, writes=True, patch=None, **values):
    """Train; by SGD, whose steps hide no factor, if it is given a rate. Gives the weights.

    Args:
        directory: of the run.
        sgd: learning rate.
        kill_at: die by SIGKILL after so many steps.
        seen: file for the images of every training step on this worker.
        writes: False forbids this process to write in the directory.
        patch: takes back what is changed.
        **values: of the configuration.
    """
    patch, batches = patch or pytest.MonkeyPatch(), []
    if sgd:
        patch.setattr(fit, "optimizer", lambda settings, steps: keras.optimizers.SGD(sgd))
    if kill_at:
        die_after(kill_at, patch)
    if not writes:
        forbid_writing(directory)
    step = Ensemble.train_step

    def spy(self, batch):
        tf.py_function(lambda x: batches.append(x.numpy()), [batch[0]], [])
        return step(self, batch)

    if seen:
        patch.setattr(Ensemble, "train_step", spy)
    ensemble, _ = tiny.train(Path(directory), **values)
    if seen:
        np.savez(seen, *batches)
    return [weight.tolist() for weight in ensemble.get_weights()]


def die_after(steps, patch):
    count = callbacks.Counter.on_train_batch_end

    def die(self, batch, logs=None):
        count(self, batch, logs)
        if self._state.step == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(callbacks.Counter, "on_train_batch_end", die)


def forbid_writing(directory):
    """Let this process fail as soon as it opens for writing, makes, moves or removes anything there."""
    changes = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")

    def watch(event, arguments):
        opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (opened or event in changes) and str(arguments[0]).startswith(str(directory)):
            raise AssertionError(f"{event} {arguments}")

    sys.addaudithook(watch)


def run(*, kill_at=None, writes=True, **values):
    """A whole run, as the command makes it; gives the exit code."""
    from divtf.commands import command_line, main

    if kill_at:
        die_after(kill_at, pytest.MonkeyPatch())
    if not writes:
        forbid_writing(values["run_dir"])
    return command_line.execute(main.main, lambda flags: tiny.config(**values), ["main"])


def adam(gradients, learning_rate):
    """A variable on each device, from zeros, after a step by each row of gradients [steps, devices, size]."""
    on = devices.team("mirrored").strategy
    with on.scope():
        variable = keras.Variable(np.zeros(np.shape(gradients)[-1]), dtype="float32")
        optimizer = divtf.Adam(learning_rate)
        optimizer.build([variable])

    @tf.function
    def step(rows):
        def on_replica():
            own = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply_gradients([(rows[own], variable)])

        on.run(on_replica)

    for rows in np.float32(gradients):
        step(rows)
    return [value.numpy().tolist() for value in on.experimental_local_results(variable.value)]


def received(values):
    """What the replicas receive from the first of them, the process being the chief of a team."""
    on = devices.team("mirrored").strategy
    team = workers.WorkerTeam.__new__(workers.WorkerTeam)  # Its strategy is of one process.
    team.strategy = on
    team.clear_errors = contextlib.nullcontext
    return [team.from_chief(value) for value in values]


def statistics(x, y, batch_size, members=2):
    """Moving statistics of members that are one BatchNormalization and a Dense layer, after an epoch."""
    with devices.team("mirrored").scope():
        made = []
        for index in range(members):
            keras.utils.set_random_seed(index)
            inputs = keras.Input(np.shape(x)[1:])
            logits = keras.layers.Dense(3)(divtf.BatchNormalization()(inputs))
            made.append(keras.Model(inputs, logits, name=f"member_{index}"))
        ensemble = Ensemble(made)
        ensemble.compile(keras.optimizers.SGD(0.1))
    data = tf.data.Dataset.from_tensor_slices((np.float32(x), np.array(y))).batch(batch_size)
    history = ensemble.fit(data, epochs=1, verbose=0, validation_data=data).history
    layers = [member.layers[1] for member in made]
    each = [
        [
            value.numpy().tolist()
            for variable in (layer.moving_mean, layer.moving_variance)
            for value in devices.team("mirrored").strategy.experimental_local_results(variable.value)
        ]
        for layer in layers
    ]
    return {"each": each, "history": history}


def attack(path, strategy, names, size, log=False):
    """Adversarial images of a new ensemble, its predictions on them and its gradients' statistics: a file.

    Standard error then holds the device of every operation, if `log` is true.
    """
    tf.debugging.set_log_device_placement(log)
    config = tiny.config(strategy=strategy, num_members=3)
    with devices.team(strategy).scope():
        surrogate = trained.build_ensemble(config, tiny.data().spec)
    x, y = tiny.data().test_set()
    sets = AdversarialSets(surrogate, batch_size=size)
    found = {}
    for name in names:
        found[name], _ = sets.images(divtf.make_attack(name, divtf.ThreatModel(0.1)), x, y)
        found[f"{name} predictions"] = predictions(surrogate, found[name], size)
    found["coherence"] = divtf.evaluation.gradients.gradient_statistics(
        surrogate, x, y, batch_size=size
    ).coherence
    np.savez(path, **found)


def perform(values):
    """Do the task of that name with the other values, on so many logical devices.

    What it returns is printed as a line of JSON; a whole number is the exit code.
    """
    task, number = globals()[values.pop("task")], values.pop("devices", 1)
    register(pytest.MonkeyPatch())
    forked.split_cpu(number)
    returned = task(**values)
    print(json.dumps(returned), flush=True)
    sys.exit(returned if isinstance(returned, int) else 0)


def start(task, *, cluster=None, **values):
    """A started process for a task; `cluster` is the value of TF_CONFIG, as an object."""
    values = json.loads(json.dumps({"task": task} | values, default=str))
    return forked.Forked(perform, values, environment={"TF_CONFIG": json.dumps(cluster)} if cluster else {})


def ended(started, timeout=400):
    """Exit codes, standard outputs and errors of processes, in their order; none outlives the call."""
    try:
        return [one.ended(timeout) for one in started]
    finally:
        for one in started:
            one.kill()


def result(task, **values):
    """What a task of one process returns."""
    ((code, out, err),) = ended([start(task, **values)])
    assert code == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def free_ports(count):
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


def start_workers(task, count=2, of_worker=lambda index: {}, **values):
    """Started processes, the workers of one cluster, each with the values that `of_worker` gives it too."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    return [
        start(
            task,
            cluster={"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}},
            strategy="multi_worker",
            **values | of_worker(index),
        )
        for index in range(count)
    ]


if __name__ == "__main__":
    perform(json.loads(sys.argv[1]))
