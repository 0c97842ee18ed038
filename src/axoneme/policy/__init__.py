"""Policies and identities compiled to the kernel's policy table. Pure: values in, values out.

Read `engine` first, then `flatten` (how rules become entries) and `table` (in which order they are
written). `lookup` and `explain` answer what a table says about a packet, and why.
"""
