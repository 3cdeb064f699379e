"""What is run on a GPU, and is none of the tests'."""
