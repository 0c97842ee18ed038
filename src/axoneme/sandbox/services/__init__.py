"""What a control plane does for Services: addresses and node ports as its API server gives them out
(`allocation`, which is pure; `registry` writes it), and EndpointSlices as its controller manager keeps them
(`slices`, which is pure; `controller` asks, and applies).
"""
