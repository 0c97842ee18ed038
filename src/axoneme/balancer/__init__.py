"""The standalone load balancer, `axo lb`: the datapath's services on a machine without a cluster.

`main` (the process) puts together: `config` (what the machine is), `sources` (what is wanted, and who may
change it), `monitor` and `probes` (which backends are up), `machine` (the kernel), `api` (REST).
"""
