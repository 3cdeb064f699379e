"""What the package runs on: processor, devices, replicas, workers."""
