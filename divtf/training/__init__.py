"""Training of one ensemble in a run directory. Knows no RunConfig."""
