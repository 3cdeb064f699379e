"""What a training step minimises: the paper's objective, its rivals', and how they are made by name."""
