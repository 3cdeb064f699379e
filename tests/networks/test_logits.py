"""Logits of targets that tell of their members, and of those that do not."""

import numpy as np
import tensorflow as tf

from divtf.networks.logits import member_logits

X = np.arange(6, dtype="float32").reshape(2, 3)


class Committee:
    """Two members, one of which doubles what the other gives."""

    def member_logits(self, x):
        return tf.stack([x, 2 * x])

    def __call__(self, x):
        raise AssertionError("the members are asked, not their mean")


def test_members_are_asked_where_the_target_has_them():
    np.testing.assert_array_equal(member_logits(Committee(), tf.constant(X)), [X, 2 * X])


def test_callable_counts_as_its_own_only_member():
    np.testing.assert_array_equal(member_logits(lambda x: 3 * x, tf.constant(X)), [3 * X])
    np.testing.assert_array_equal(member_logits(lambda x: x.numpy(), tf.constant(X)), [X])
