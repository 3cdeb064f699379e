"""Images to train and test on, and what the paper gives as data."""
