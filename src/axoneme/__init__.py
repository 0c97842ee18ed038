"""eBPF networking, security and observability for containers."""

__version__ = "0.1.0"
