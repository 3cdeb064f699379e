"""What a finished run shows in TensorBoard, beside the curves of its training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from divtf.attacks.attack import Attack
from divtf.pipeline import shown
from divtf.pipeline.config import RunConfig
from divtf.storage import run_directory
from divtf.storage.digests import digest
from divtf.storage.records import TargetRecord

# A directory of its own: to HParams all scalars beside a run's settings are figures to compare runs by.
_FINAL = "final"
_SHOWN_IMAGES = 8


def show_record(config: RunConfig, record: TargetRecord) -> None:
    """A line of HParams: the run's settings, and its final accuracies by which runs compare."""
    directory = Path(config.run_dir)
    writer = tf.summary.create_file_writer(str(directory / run_directory.TENSORBOARD / _FINAL))
    trial = f"{directory.name} {digest(config.identity())[:8]}"
    with writer.as_default(step=0):
        hparams.hparams(shown.settings(config), trial_id=trial)
        for name, value in shown.figures(record).items():
            tf.summary.scalar(name, value)
    writer.close()


def show_images(x: np.ndarray, attacked: Mapping[Attack, np.ndarray], directory: Path) -> None:
    """The first clean images beside adversarial ones.

    Args:
        x: clean images [n, H, W, C].
        attacked: what each attack made of them.
        directory: of the run.
    """
    writer = tf.summary.create_file_writer(str(directory / run_directory.TENSORBOARD))
    with writer.as_default(step=0):
        for attack, x_adv in attacked.items():
            pairs = np.concatenate([x[:_SHOWN_IMAGES], x_adv[:_SHOWN_IMAGES]], axis=2)
            name = f"clean and {attack.name}, epsilon {attack.threat.epsilon:g}"
            tf.summary.image(name, pairs, max_outputs=_SHOWN_IMAGES)
    writer.close()
