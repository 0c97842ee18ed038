"""The echo server: stands in for images, which the sandbox does not pull.

One process serves every such pod of a sandbox, and the addresses of the world: it opens each listening
socket in the pod's network namespace and serves all of them in one event loop. On a TCP port it speaks
whatever the client speaks (`streams`): HTTP/1.1, HTTP/2 without TLS and with prior knowledge, gRPC, or
plain bytes. It answers with who it is, who asked, and the request it saw (`answers`).
"""
