"""What a run asks of the machine: counted by hand, and refused before anything is made."""

import dataclasses
import types

import numpy as np
import psutil
import pytest

from divtf.data.datasets import DATASETS, ImageData
from divtf.errors import InputError
from divtf.pipeline import preflight
from divtf.pipeline.config import RunConfig
from divtf.runtime import processor


def images(count):
    """So many training images of MNIST's shape; nothing looks at them."""
    x, y = np.zeros((count, 28, 28, 1), "uint8"), np.zeros(count, "int64")
    return ImageData("mnist", DATASETS["mnist"], x, y, x[:1], y[:1])


@pytest.mark.parametrize(("precision", "width"), [("float32", 4), ("mixed_bfloat16", 2)])
@pytest.mark.parametrize(
    ("members", "batch", "seen"), [(5, 8000, 8000), (5, 2**31 - 1, 12000), (41, 100, 100)]
)
def test_least_memory_is_that_of_a_count_by_hand(members, batch, seen, precision, width):
    """Conv-3 on 28 x 28: weights of 3 x 3 convolutions to 32, 64 and 128 filters, of 1024 and 10 units.

    An epoch of mode div passes over 2 x 6000 images, and a batch has no more.
    """
    weights = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + (7 * 7 * 128 + 1) * 1024 + 1025 * 10
    outputs = 28 * 28 * (32 + 64) + 14 * 14 * 128 + 1024 + 10
    config = RunConfig(model="conv3", mode="div", num_members=members, batch_size=batch, precision=precision)
    expected = members * (16 * weights + width * seen * outputs)
    assert preflight.least_bytes(config, images(6000)) == expected


def test_one_member_after_the_other_keeps_the_outputs_of_one():
    config = RunConfig(model="conv3", num_members=41)
    together, apart = (
        preflight.least_bytes(dataclasses.replace(config, memory=memory), images(6000))
        for memory in (None, "low")
    )
    outputs = 28 * 28 * (32 + 64) + 14 * 14 * 128 + 1024 + 10
    assert together - apart == 40 * 4 * 128 * outputs


def test_papers_budget_is_not_measured():
    assert preflight.least_bytes(RunConfig(model="conv3"), images(60000)) == 0


def test_memory_at_the_bound_is_enough(monkeypatch):
    config, data = RunConfig(model="conv3", num_members=41), images(100)
    least = preflight.least_bytes(config, data)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=least))
    preflight.require_memory(config, data)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=least - 1))
    with pytest.raises(InputError, match=r"memory\. Received: num_members=41 and batch_size=128, which need"):
        preflight.require_memory(config, data)


@pytest.fixture
def set_processor(monkeypatch, tmp_path):
    """Set the oneDNN setting (None unsets it), whether TensorFlow has it on, and the processor's features."""

    def make(setting, on, features):
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        if setting is not None:
            monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", setting)
        monkeypatch.setattr(preflight, "onednn_enabled", lambda: on)
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu sse {features}\n")
        monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(preflight.tf.config, "list_physical_devices", lambda kind: [])

    return make


@pytest.mark.parametrize(
    ("setting", "on", "features", "received"),
    [
        ("0", True, "avx512f", "=0 on this processor"),
        ("false", True, "avx512f", "=false on this processor"),
        ("False", True, "avx512f", "=False on this processor"),
        (None, False, "avx512f", "=unset on this processor"),
        ("1", True, "avx2", "=1 on a processor without AVX-512"),
    ],
)
def test_bfloat16_needs_onednn_and_avx512_on_a_cpu(
    setting, on, features, received, set_processor, monkeypatch
):
    set_processor(setting, on, features)
    preflight.require_fast_precision("float32")
    with pytest.raises(InputError, match=rf"^Expected oneDNN on and .*TF_ENABLE_ONEDNN_OPTS{received}$"):
        preflight.require_fast_precision("mixed_bfloat16")
    monkeypatch.setattr(preflight.tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    preflight.require_fast_precision("mixed_bfloat16")


@pytest.mark.parametrize("setting", ["1", "true", None])
def test_bfloat16_is_taken_where_onednn_and_avx512_are_there(setting, set_processor):
    set_processor(setting, True, "avx2 avx512f avx512_vnni")
    preflight.require_fast_precision("mixed_bfloat16")


def test_other_processors_than_x86_are_not_asked_for_avx512(set_processor, monkeypatch):
    set_processor("1", True, "asimd bf16")
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    preflight.require_fast_precision("mixed_bfloat16")


def test_a_system_that_does_not_tell_its_processor_is_believed(set_processor, monkeypatch, tmp_path):
    set_processor("1", True, "avx2")
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    preflight.require_fast_precision("mixed_bfloat16")
