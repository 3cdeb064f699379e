"""Pages: records -> one self-contained HTML file a result, and an index of results. No TensorFlow."""
