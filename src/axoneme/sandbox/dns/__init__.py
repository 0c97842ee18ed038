"""Names: the cluster's DNS, and the name server of the world outside.

`cluster` (pure) knows what a name of the cluster has, `zonefile` what one of the world has; `answering` makes
messages of it, `forwarding` asks others, `listeners` has the sockets. One process, `server`, plays every pod
of the cluster's DNS (`workload`), as the echo server plays others, with sockets of the pod's own network.
"""
