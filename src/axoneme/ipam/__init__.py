"""Addresses for pods: which are free, and which to give out next."""
