"""The flow server of a node, a process: it takes events out of the kernel's rings and requests from proxies,
keeps them in a store of `axoneme.flows`, serves readers, and takes what is over out of the flow table.
"""
