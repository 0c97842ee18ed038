"""The Container Network Interface (CNI 1.1, github.com/containernetworking/cni, SPEC.md) as values."""
