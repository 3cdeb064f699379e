"""Speed, as ratios measured side by side in one run: python -m benchmarks."""

from divtf.runtime.processor import prepare_tensorflow

# Before any benchmark loads TensorFlow, as a command does.
prepare_tensorflow()
