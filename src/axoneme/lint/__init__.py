"""Traps in policies, found by reading them: what says something else than it seems to say. Pure.

Read `findings` first (every trap, with its code), then `linter`. `statements` takes policies
apart, `surroundings` is what is known besides policies; `shapes`, `matching` and `relations` look for
traps in one object, between selectors and pods, and between rules.
"""
