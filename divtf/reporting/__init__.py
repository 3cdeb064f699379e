"""Reports: records -> tables, captions and files. No TensorFlow."""
