"""Hubble's gRPC API: its messages, from records to bytes, its services, and a client."""
