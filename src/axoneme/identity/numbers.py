"""What an identity's number says: reserved, of a cluster, or known to one node only.

=====================  ============================================================================
0                      nobody in particular: every peer, in policy tables
1 to 255               reserved: a role that the system itself gives
256 to 65535           pods of the cluster with number 0, which is the only one without a mesh
C << 16 | 256…65535    pods of the cluster with number C, 1 to 255
1 << 24 and above      prefixes outside, numbered by each node for itself; never sent to another
=====================  ============================================================================
"""

from __future__ import annotations

import enum

from axoneme.model.labels import RESERVED, Label, Labels

FIRST_CLUSTER = 256
LAST_CLUSTER = 65535
LAST_CLUSTER_ID = 255
CLUSTER_SHIFT = 16
FIRST_NODE_LOCAL = 1 << 24
LAST_NODE_LOCAL = (1 << 25) - 1


class Reserved(enum.IntEnum):
    """A node with one address family calls everything outside ``WORLD``, one with both the last two."""

    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10

    @property
    def label(self) -> Label:
        """The label that names the role, such as ``reserved:remote-node``."""
        return Label(RESERVED, self.name.lower().replace("_", "-"))

    @property
    def labels(self) -> Labels:
        """All labels of the identity: an API server is a node too, and the world's halves are the world."""
        return Labels((self.label, *_ALSO.get(self, ())))


_ALSO = {
    Reserved.KUBE_APISERVER: (Reserved.REMOTE_NODE.label,),
    Reserved.WORLD_IPV4: (Reserved.WORLD.label,),
    Reserved.WORLD_IPV6: (Reserved.WORLD.label,),
}


def is_reserved(number: int) -> bool:
    return 0 < number < FIRST_CLUSTER


def is_cluster(number: int) -> bool:
    """Whether the number stands for pods, of this cluster or of another one."""
    return 0 <= number < FIRST_NODE_LOCAL and number & 0xFFFF >= FIRST_CLUSTER


def is_node_local(number: int) -> bool:
    return FIRST_NODE_LOCAL <= number <= LAST_NODE_LOCAL


def cluster_of(number: int) -> int:
    """The number of the cluster in a number for which `is_cluster` holds."""
    return number >> CLUSTER_SHIFT


def in_cluster(cluster: int, number: int) -> int:
    """The full number of ``number`` (256 to 65535) in a cluster; ValueError when either is out of range."""
    if not 0 <= cluster <= LAST_CLUSTER_ID:
        raise ValueError(f"cluster number {cluster}: expected 0 to {LAST_CLUSTER_ID}")
    if not FIRST_CLUSTER <= number <= LAST_CLUSTER:
        raise ValueError(f"identity {number}: expected {FIRST_CLUSTER} to {LAST_CLUSTER}")
    return cluster << CLUSTER_SHIFT | number
