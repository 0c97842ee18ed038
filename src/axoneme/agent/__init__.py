"""The process that runs on every node: it turns desired state into tables and keeps them so."""
