"""The DNS proxy of a node: says which names may be asked for, and learns what the answers have.

`message` (pure) reads what travels, `desk` decides what becomes of it; `datagrams` and `streams` have the
clients, `upstream` the servers. `learning` sees to it that an answer's addresses are known before it is let
out: by the agent (`agentlink`), or, while there is none, by itself (`kernel`); `memory` and `journal` keep
what was learnt. `process` is where all of it begins.
"""
