"""The SavedModel of an ensemble: written by Keras, read by TensorFlow alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import served


def write(ensemble: Ensemble, path: Path, *, uint8: bool = False) -> None:
    """Write a SavedModel with endpoints `serve`, `members` and `disagreement`.

    Args:
        ensemble: with images [B, ...].
        path: of a new directory.
        uint8: whether `serving_default` is to take uint8 images in 0..255 instead of being `serve`.
    """
    archive, signature = served.archive(ensemble), served.signature(ensemble)

    def serve(images):
        return {"probabilities": served.outputs(ensemble, images)["probabilities"]}

    def members(images):
        return {"probabilities": served.outputs(ensemble, images)["members"]}

    def disagreement(images):
        return {"disagreement": served.outputs(ensemble, images)["disagreement"]}

    for endpoint in (serve, members, disagreement):
        archive.add_endpoint(endpoint.__name__, endpoint, input_signature=signature)
    if uint8:
        whole = [tf.TensorSpec(signature[0].shape, tf.uint8, name="images")]
        divisor = served.divisor(ensemble)

        def serving_default(images):
            return serve(tf.cast(images, tf.float32) / divisor)

        archive.add_endpoint("serving_default", serving_default, input_signature=whole)
    archive.write_out(str(path), verbose=False)


def load(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written model as a function from images to `served.OUTPUTS`; uint8 ones ask `serving_default`."""
    loaded = tf.saved_model.load(str(path))

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        given = tf.constant(images)
        if images.dtype == np.uint8:
            outputs = loaded.signatures["serving_default"](images=given)
            return {"probabilities": outputs["probabilities"].numpy()}
        return {
            "probabilities": loaded.serve(given)["probabilities"].numpy(),
            "members": loaded.members(given)["probabilities"].numpy(),
            "disagreement": loaded.disagreement(given)["disagreement"].numpy(),
        }

    return predict
