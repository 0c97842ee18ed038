"""The kubelet of every node: makes pods of what the shared state says, and says what became of them.

`kubelet` watches the pods of its node and gives each a `worker`, which goes through the pod's life:
network (`network`), containers (`programs` decides what a container is here, `containers` runs it),
probes (`probes`, `probing`), status (`podstatus`), and the end. What a later supervisor must know is in
files below ``pods/<uid>`` (`records`).
"""
