"""The embedded default: real Kubernetes manifests on virtual nodes of one Linux machine.

`lifecycle` makes and removes sandboxes; `supervisor` is the process that keeps one running: it makes the
network (`underlay`), starts an agent per node (`nodes`), plays the controllers of a cluster (`workloads`)
and the kubelet of every node (`kubelet`). `echo` stands in for images, which are never pulled. `client`
and `execute` are the ways into a pod.
"""
