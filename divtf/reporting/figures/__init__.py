"""Pictures: records -> matplotlib figures. No TensorFlow."""
