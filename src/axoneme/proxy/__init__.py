"""Proxies of a node: Envoy for HTTP, gRPC and TLS, our own for DNS and Kafka."""
