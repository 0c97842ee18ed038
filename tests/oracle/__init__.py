"""Slow and simple judges of the real thing, and generators of cases to judge it on."""
