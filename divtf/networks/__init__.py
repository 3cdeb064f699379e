"""The members' networks: architectures, exact layers, logits."""
