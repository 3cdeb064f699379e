"""What the server of `forked.py` imports once, for all processes that it forks. TensorFlow starts in them."""

import gc

import pandas.io.formats.csvs  # noqa: F401
import pytest  # noqa: F401
import tensorflow as tf
import tqdm  # noqa: F401

import divtf.commands.main
import divtf.pipeline.experiment
import divtf.reporting.report  # noqa: F401

# The first use imports it.
_ = tf.summary.scalar
# What is imported is never garbage: a fork need not look through it, nor copy the memory that it shares.
gc.freeze()
