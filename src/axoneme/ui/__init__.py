"""The server of the web UI: the service map, flows, policies and nodes for a browser."""
