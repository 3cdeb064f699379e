"""What a run asks of the machine, found out before anything is written or trained."""

import os

import keras
import numpy as np
import psutil
import tensorflow as tf

from divtf.data.datasets import ImageData
from divtf.errors import require
from divtf.networks import names
from divtf.networks.models import MIX, build_members
from divtf.pipeline.config import RunConfig
from divtf.runtime.private_names import onednn_enabled
from divtf.runtime.processor import has_avx512

# Members x images a step below which no memory is asked for: building a member to measure it takes a second,
# and 8 times the paper's budget fits wherever TensorFlow does.
_USUAL = 8 * 5 * 128
_FLOAT = 4
# A weight, its gradient and Adam's two moments.
_COPIES = 4


def require_fast_precision(precision: str) -> None:
    """Refuse bfloat16 where a CPU would have to emulate it.

    Raises:
        InputError: if oneDNN is off or the processor has no AVX-512, and there is no GPU to do the work.
    """
    setting = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "unset")
    # Unset, it depends on the processor; TensorFlow has no public word for that.
    fast = setting.lower() not in ("0", "false") and onednn_enabled()
    lacking = has_avx512() is False
    where = "a processor without AVX-512" if lacking else "this processor"
    require(
        precision == "float32" or (fast and not lacking) or bool(tf.config.list_physical_devices("GPU")),
        "oneDNN on and a processor with AVX-512 for --precision=mixed_bfloat16, which is some 10 to 25 times "
        "slower on a CPU without them",
        f"TF_ENABLE_ONEDNN_OPTS={setting} on {where}",
    )


def require_memory(config: RunConfig, data: ImageData) -> None:
    """Refuse a training step that cannot fit into this machine's memory.

    Raises:
        InputError: if the least that a step keeps is more than the machine has.
    """
    least, memory = least_bytes(config, data), psutil.virtual_memory().total
    require(
        least <= memory,
        f"a training step that fits into the {memory / 2**30:.0f} GiB of this machine's memory",
        f"num_members={config.num_members} and batch_size={config.batch_size}, which need "
        f"{least / 2**30:.0f} GiB at least",
    )


def least_bytes(config: RunConfig, data: ImageData) -> int:
    """A lower bound on what a training step keeps in memory; 0 for usual budgets, which are not measured.

    Counted are the weights with their gradients and moments, and the outputs of one forward pass of the
    layers that have weights, in the width of bfloat16 where that is the precision; with --memory=low of one
    member.
    """
    epoch = len(config.defence.sources) * len(data.x_train)
    # Workers on several machines share a batch, so that none of them need hold it.
    images = 0 if config.strategy == "multi_worker" else min(config.batch_size, epoch)
    if config.num_members * images <= _USUAL and config.num_members <= _USUAL // 128:
        return 0
    of_one_kind = 1 if not names.files_of(config.model) else config.num_members
    built = min(config.num_members, len(MIX) if config.model == "mix" else of_one_kind)
    members = build_members(config.model, built, data.spec.image_shape, data.spec.num_classes, seed=0)
    weights = sum(member.count_params() for member in members)
    outputs = sum(
        int(np.prod(output.shape[1:]))
        for member in members
        for layer in member.layers
        if layer.weights and hasattr(layer, "output")  # Layers of a subclassed model have none.
        for output in keras.tree.flatten(layer.output)
    )
    width = _FLOAT if config.precision == "float32" else _FLOAT // 2
    at_a_time = 1 if config.memory == "low" else config.num_members
    kept = config.num_members * _COPIES * _FLOAT * weights + at_a_time * width * images * outputs
    return kept // built
