"""The version, in a module of its own so that setup.py can read it without importing TensorFlow."""

__version__ = "0.2.0"
