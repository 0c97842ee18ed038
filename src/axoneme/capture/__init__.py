"""Packets of chosen flows, written as pcapng: who sent them, to whom, and what was decided.

taps.py      what passes a node's devices
packets.py   whose connection is it? by its bytes
chosen.py    which connections are wanted, and what is known of them
pcapng.py    the file's format
recorder.py  holds packets until their flow is known, and writes those that are wanted
session.py   from taps and flows to a recorder, for a while
"""
