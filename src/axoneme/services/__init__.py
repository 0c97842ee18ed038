"""Services: from what Kubernetes objects or a balancer's file say to the tables by which packets go.

Two steps, both pure. Whoever knows what shall be balanced (Services and EndpointSlices as a node sees
them, or a standalone balancer's configuration) says it as `balanced.Balanced`; the tables are made from
these alone.
"""
