"""The domain of the cluster's names."""

from typing import Final

DOMAIN: Final = "cluster.local"
