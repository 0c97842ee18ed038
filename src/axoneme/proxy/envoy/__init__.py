"""HTTP, gRPC and TLS by Envoy, which is told by xDS what to do and knows nothing of identities."""
