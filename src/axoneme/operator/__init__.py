"""What is done once in a cluster, and not on every node."""
