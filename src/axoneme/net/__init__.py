"""Links, addresses, routes and network namespaces of the node and of its pods."""
