"""What is measured on trained ensembles: transfer, gradients, adversarial subspaces."""
