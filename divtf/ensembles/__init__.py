"""Ensembles: alignment, objectives, the Keras model, its optimizer and its export."""
