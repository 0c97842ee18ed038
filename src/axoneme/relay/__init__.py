"""The flows of all nodes as one stream."""
