// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every struct and number that the kernel side and the control plane share.
 *
 * Python reads the layout of these from the compiled objects' BTF; nothing here is written twice.
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, so that one code path and one
 * table serve both families. Ports and addresses are in network byte order, the rest is native.
 */
#pragma once
#include <linux/types.h>

/* Raised when a map's meaning changes in a way that its size does not show. */
enum schema { SCHEMA_VERSION = 4 };

/* ---- identities --------------------------------------------------------------------------- */

enum identity {
	IDENTITY_UNKNOWN = 0, /* in a policy key: every peer */
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_UNMANAGED = 3,
	IDENTITY_HEALTH = 4,
	IDENTITY_INIT = 5,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,
	IDENTITY_INGRESS = 8,
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
	IDENTITY_FIRST_CLUSTER = 256,
	IDENTITY_FIRST_LOCAL = 1 << 24, /* from here on a number means something on this node only */
};

/* ---- who is where ------------------------------------------------------------------------- */

/* endpoints: address -> the local pod that owns it. Written by the agent. */
struct address_key {
	__u8 address[16];
};

struct endpoint {
	__u32 ifindex; /* host side of its veth pair */
	__u32 identity;
	__u16 id;
	__u8 mac[6]; /* of the interface inside the pod */
};

enum address_flag {
	ADDRESS_NODE = 1 << 0,	/* an address of a node, this one's with IDENTITY_HOST */
	ADDRESS_RANGE = 1 << 1, /* a node's pod range: this pod is not known yet */
	ADDRESS_ROUTED = 1 << 2, /* reachable without masquerading */
};

/* addresses: longest prefix -> identity, and the node behind which it lives. Written by the agent. */
struct prefix_key {
	__u32 prefix_length; /* bits of `address`, IPv4 prefixes counted from 96 */
	__u8 address[16];
};

struct address {
	__u32 identity;
	__u32 flags;   /* enum address_flag */
	__u8 node[16]; /* underlay address of its node; zero outside the cluster */
};

/* uplinks: ifindex -> what outgoing connections are masqueraded to; 0 -> as whom the node answers.
 * Written by the agent. */
struct uplink {
	__u8 ipv4[16]; /* zero: none */
	__u8 ipv6[16];
};

/* ---- policy ------------------------------------------------------------------------------- */

enum direction { INGRESS = 0, EGRESS = 1 };

/* policies: the longest match of (subject, peer, direction, protocol, port). Written by the agent.
 * `port` is the destination port, or the ICMP type. A subject without an entry denies. */
struct policy_key {
	__u32 prefix_length;
	__u32 subject;
	__u32 peer;
	__u8 direction;
	__u8 protocol;
	__be16 port;
};

enum policy_prefix {
	POLICY_PREFIX_PEER = 72, /* any protocol */
	POLICY_PREFIX_PROTOCOL = 80,
	POLICY_PREFIX_PORT = 96,
};

enum verdict { VERDICT_NONE = 0, VERDICT_ALLOW = 1, VERDICT_DENY = 2 };

enum policy_flag {
	POLICY_COMPLETE = 1 << 0,     /* of a peer's own entry: those for every peer are in it already */
	POLICY_AUTHENTICATE = 1 << 1, /* where it allows: the two identities must have proved who they are */
	POLICY_AUDIT = 1 << 2,	      /* it allows, and says that policy would have denied */
	POLICY_ALWAYS_FAIL = 1 << 3,  /* with POLICY_AUTHENTICATE: nothing counts as proof */
};

struct policy_value {
	__u8 verdict;
	__u8 flags;	   /* enum policy_flag */
	__be16 proxy_port; /* where it allows: what a proxy at this port of the node has to look at; 0: nothing */
	__u32 rule; /* which policies say so; 0: none selects the subject */
};

/* authenticated: which pairs of identities have proved to each other who they are. The agent writes them; the
 * datapath adds the pairs that it has missed, which the agent sees to then. */
struct authentication_key {
	__u32 subject; /* an identity of this node, whose policy asks */
	__u32 peer;
	__u8 node[16]; /* of the peer, as in `addresses`; zero: this one */
};

struct authentication {
	__u64 until; /* CLOCK_BOOTTIME, ns; 0: it is missing */
};

/* ---- services ----------------------------------------------------------------------------- */

/* One port of a Kubernetes Service, in one family, is a service here, with a number; a view of it that has other
 * backends (those of this node, for who calls from outside) is another. */

/* frontends: what clients call -> which service that is. Written by the agent.
 * The zero address of a family stands for every address of the node itself (node ports, host ports).
 * Port and protocol zero: the address is a service's. What nothing else says of it is answered (ICMP echo), or
 * refused. */
struct frontend_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 unused;
};

enum frontend_flag {
	FRONTEND_EXTERNAL = 1 << 0,	 /* served to who calls from outside the cluster as well */
	FRONTEND_SOURCE_RANGES = 1 << 1, /* of these, to whom `source_ranges` has */
	FRONTEND_DIRECT = 1 << 2,	 /* backends of other nodes answer clients by themselves (direct server return) */
	FRONTEND_WRAPPED = 1 << 3,	 /* so do all, and get the client's packets as they are, in others */
};

struct frontend {
	__u32 service; /* for callers within the cluster */
	__u32 outside; /* for the others; the same one, or a view of it */
	__u32 flags;   /* enum frontend_flag */
};

enum algorithm {
	ALGORITHM_RANDOM = 0,
	ALGORITHM_MAGLEV = 1,	/* the tuple decides, alike on all machines with the same backends */
	ALGORITHM_WEIGHTED = 2, /* at random, by weight: any place of the service's `maglev` table */
};

/* services: number -> how it is balanced. Written by the agent. */
struct service {
	__u32 backends; /* how many slots it has; 0: its callers are refused */
	__u32 affinity; /* for how many ticks a client keeps its backend; 0: each connection is balanced */
	__u32 algorithm; /* enum algorithm */
};

/* slots: the backends of a service that take new connections, numbered from 0 -> their numbers.
 * Written by the agent. */
struct slot_key {
	__u32 service;
	__u32 slot;
};

/* backends: number, from 1 on -> where it is. An entry stays as long as connections to it may go on, also when no slot
 * has it any more. Written by the agent. */
struct backend {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 flags; /* enum backend_flag */
};

enum backend_flag {
	BACKEND_LEAVING = 1 << 0, /* no slot has it any more: also to who has had it before, it is not given again */
};

/* maglev: number of a service -> a table of places, each with the number of a backend. Written by the agent. */
enum maglev_range { MAGLEV_PLACES = 16381 }; /* a prime */

struct maglev_places {
	__u32 backend[MAGLEV_PLACES];
};

/* source_ranges: who may call a service from outside. Written by the agent. */
struct source_range_key {
	__u32 prefix_length; /* bits of `service` and `address` together, IPv4 prefixes counted from 32 + 96 */
	__u32 service;	     /* `outside` of the frontend */
	__u8 address[16];
};

/* affinities: which backend a client of a service has had. Written by the datapath. */
struct affinity_key {
	__u8 client[16]; /* its address; at the socket: the cookie of its network namespace, then zeros */
	__u32 service;
};

struct affinity {
	__u32 backend;
	__u32 seen; /* ticks */
};

/* served: how often a backend was chosen for a service; 0 stands for no backend: refused. Written by the
 * datapath; the agent removes those of backends that are gone. */
struct served_key {
	__u32 service;
	__u32 backend;
};

struct served {
	__u64 connections;
};

/* calls: what the socket of a program has called, and what it got: by connect(), or, where it is not connected, by
 * the last datagram for a service. Lives with the socket. Written by the datapath. */
struct call {
	__u8 frontend[16];
	__u8 backend_address[16];
	__be16 frontend_port;
	__be16 backend_port;
	__u32 service;
	__u32 backend;
};

/* What is told of an entry of `calls`. */
struct caller {
	__u64 socket; /* cookie */
	__u32 network; /* the number of its namespace's file */
	__u32 backend;
};

/* datagrams: of sockets that send datagrams to several services, what does not stand in `calls` any more: which backend
 * stands for a service, and which service a backend. Written by the datapath. */
enum datagram_way {
	DATAGRAM_TO = 0,   /* key: the frontend */
	DATAGRAM_FROM = 1, /* key: the backend */
};

struct datagram_key {
	__u64 socket; /* cookie */
	__u8 address[16];
	__be16 port;
	__u8 way; /* enum datagram_way */
	__u8 unused[5];
};

/* announced: addresses that this node answers ARP and neighbour discovery for, by the device on which it does.
 * Written by the agent. */
struct announced_key {
	__u8 address[16];
	__u32 ifindex;
};

struct announced {
	__u64 until; /* CLOCK_BOOTTIME, ns: to then the node's lease of the address holds, if no agent renews it */
	__u8 mac[6]; /* of the device */
	__u8 unused[2];
};

/* ---- flow table --------------------------------------------------------------------------- */

/* flows, half_open: one entry a connection, found by packets of both directions: the key holds the two
 * ends in order of their bytes. Written by the datapath; the flow server removes expired entries. */
struct flow_key {
	__u8 low[16];
	__u8 high[16];
	__be16 low_port; /* ICMP queries: the identifier, on both sides */
	__be16 high_port;
	__u8 protocol;
	__u8 icmp_type;	   /* ICMP: of the question, also where this is the answer; else 0 */
	__u8 asked_by_low; /* ICMP: whether the lower end asks; else 0 */
	__u8 zone;	   /* enum zone */
};

/* A connection that a proxy looks at is two: from the client to the proxy, and from the proxy, in the client's name,
 * to whom the client has called. Their tuples may be the same. */
enum zone {
	ZONE_CLIENT = 0, /* also those that no proxy looks at */
	ZONE_PROXY = 1,	 /* begun by a proxy */
};

enum flow_state {
	FLOW_SYN_SENT = 0,
	FLOW_ESTABLISHED = 1,
	FLOW_CLOSING = 2, /* one side has sent FIN */
	FLOW_CLOSED = 3,  /* both have, or RST: the end is reported */
	FLOW_ONE_WAY = 4, /* no TCP; no reply yet */
	FLOW_TWO_WAY = 5,
	FLOW_STATES = 8, /* more than there are: a power of two, which an index is cut to */
};

enum flow_flag {
	FLOW_FROM_LOW = 1 << 0,	   /* the initiator is the lower end of the key */
	FLOW_MASQUERADED = 1 << 1, /* leg 0 leaves with nat_address:nat_port */
	FLOW_SETTLED = 1 << 2,	   /* stands in `flows`, not in `half_open` */
	FLOW_RELEASED = 1 << 3,	   /* it is over, and another connection has its nat_port */
	FLOW_SERVED = 1 << 4,	   /* leg 0 comes for `frontend`, leg 1 leaves as from there */
	FLOW_DIRECT = 1 << 5,	   /* only leg 1 is translated: another node has balanced it */
	FLOW_TELLS = 1 << 6,	   /* served, and answered directly: leg 0 says what was called */
	FLOW_WRAPPED = 1 << 7,	   /* the same: leg 0 leaves as it is, in another packet from `nat_address` */
};

enum flow_action {
	ACTION_PASS = 0,   /* on to where the packet was going anyway: host stack, or into the pod */
	ACTION_LOCAL = 1,  /* into a pod of this node */
	ACTION_TUNNEL = 2, /* through the overlay */
	ACTION_ROUTE = 3,  /* out of an uplink by the node's routes and neighbours */
	ACTION_PROXY = 4,  /* to a proxy's socket on this node */
};

/* The path of one direction of a connection: where its packets must come from, where they go. */
struct flow_leg {
	__u64 packets;
	__u64 bytes;
	__u32 hook;    /* ifindex, | HOOK_EGRESS where seen on the way out of that device */
	__u32 ifindex; /* where to: of the pod, the overlay, the uplink */
	__u32 tunnel_identity;
	__u8 action; /* enum flow_action */
	__u8 tcp_flags;
	__u8 mac[6]; /* ACTION_LOCAL: of the pod */
	__u16 mtu; /* of that way: the largest packet without its link layer header; 0: any */
	__u16 retransmissions; /* TCP: of its sender's socket, where that is on this node; 65535: or more */
	__u8 tunnel[16]; /* underlay address of the peer's node, for sending and for checking */
};

/* Where a program sees a packet. The policy that governs it depends on this, and who may be its sender. */
enum hook_kind { FROM_POD, TO_POD, FROM_UPLINK, FROM_OVERLAY, TO_UPLINK, TO_OVERLAY };

enum hook { HOOK_EGRESS = 1U << 31 };

/* What policies that are only tried would have done to a connection that has passed. */
enum shadow {
	SHADOW_EGRESS = 1 << 0,	 /* the sender's would have denied it */
	SHADOW_INGRESS = 1 << 1, /* the receiver's */
	SHADOW_AUTHENTICATED = 1 << 2, /* no trial: both ends had to prove who they are, and have */
};

/* Which halves of policy a proxy's own connection has behind it. */
enum proxied {
	PROXIED_EGRESS = 1 << 0,
	PROXIED_INGRESS = 1 << 1,
};

/* The mark of packets (SO_MARK of sockets) that go to and come from proxies of the node; elsewhere it means nothing.
 * Two bits of it are left alone that others have taken for masquerading (0xc000). */
enum mark {
	MARK_PROXY_MASK = 0x0f00,
	MARK_TO_PROXY = 0x0200,	      /* upper 16 bits: the port; to a socket of this node, whatever the address */
	MARK_PROXY_ANSWERS = 0x0900,  /* from a proxy's socket to a client */
	MARK_INGRESS_PROXY = 0x0a00,  /* from a proxy, in a client's name: what ingress policy asks for is done, */
	MARK_EGRESS_PROXY = 0x0b00,   /* egress policy's, and ingress policy's is not */
};

struct flow {
	__u32 epoch; /* sum of the epochs of its subjects when it was decided */
	__u16 epoch_slots[4];
	__u32 seen; /* time of the last packet, in ticks */
	__u8 state; /* enum flow_state */
	__u8 flags; /* enum flow_flag */
	__be16 nat_port;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u16 source_endpoint;
	__u16 destination_endpoint;
	__u64 created; /* CLOCK_MONOTONIC, ns */
	__u8 nat_address[16];
	__u8 frontend[16]; /* the service that was called, by its address; translated by whom: enum flow_flag */
	__be16 frontend_port;
	__be16 proxy_port; /* where a leg goes to a proxy: of its socket */
	__u32 service; /* its number; 0: none was called */
	__u32 backend;
	__u8 shadow; /* enum shadow */
	__u8 proxied; /* what proxies have done already before this was begun: enum proxied */
	__u8 rtt_of_initiator; /* whether it is: else it is the answering end's */
	__u8 unused;
	/* TCP, in microseconds, by the sockets of this node (tcphealth.bpf.c); 0: not measured. */
	__u32 handshake;
	__u32 rtt;
	__u32 min_rtt;
	__u32 unused_too;
	struct flow_leg leg[2]; /* 0: from the initiator, 1: to it */
};

/* usage: how much of `flows` an endpoint has: the difference. What counts is who began the connection,
 * or, for one from elsewhere, whom it is for. `held` is only written by the datapath, `collected` only by
 * the flow server, which sets the difference right whenever it has walked the table. */
struct usage {
	__u32 held;
	__u32 collected;
};

/* A tick is 2^30 ns: CLOCK_MONOTONIC >> 30 fits in 32 bits and costs no division. */
enum tick { TICK_SHIFT = 30 };

/* epochs: one element, mapped into the agent. A flow is current while the sum of its four slots has
 * not moved: its two subjects' policies, and what is known of its two addresses. */
enum epoch_range {
	EPOCH_SUBJECTS = 2048,	/* slots 0 ... : identity modulo this */
	EPOCH_ADDRESSES = 2048, /* then: hash of the address modulo this */
};

struct epochs {
	__u32 slot[EPOCH_SUBJECTS + EPOCH_ADDRESSES];
};

/* translations, half_open_translations: a tuple one end of which is not what it stands for -> who is behind that end:
 * the pod, of a masqueraded connection's; the backend, of a service's address. What comes for that end finds here
 * the connection's own tuple, which its flow has as its key. */
struct translation {
	__u8 address[16];
	__be16 port;
	__u8 stands_for_low; /* which end of the tuple is meant */
	__u8 zone; /* of the connection; enum zone */
	__u32 backend; /* its number; 0: it is a masqueraded connection's initiator that stands behind */
	__u32 seen;    /* ticks */
};

/* exhausted: where a destination cannot be reached for want of ports -> how many connections were refused. */
struct destination {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 unused;
};

/* fragments: what the first fragment says about the later ones, which carry no ports. */
struct fragment_key {
	__u8 source[16]; /* as on the wire */
	__u8 destination[16];
	__u32 id;
	__u32 ifindex; /* by which it came in */
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__u32 seen; /* ticks */
	__u8 protocol;
	__u8 icmp_type;
	__u8 unused[2];
};

/* ---- events ------------------------------------------------------------------------------- */

enum event_kind {
	EVENT_NEW = 1,	/* a connection was allowed */
	EVENT_END = 2,	/* it ended; packets and bytes are final */
	EVENT_DROP = 3, /* a packet was dropped */
};

/* Where Hubble has a number for the same reason, this is it. */
enum drop_reason {
	DROP_NONE = 0,
	DROP_INVALID_SOURCE = 132,
	DROP_POLICY_DEFAULT = 133, /* no rule allows it */
	DROP_INVALID_PACKET = 134,
	DROP_TOO_BIG = 136, /* for the way out; answered */
	DROP_UNSUPPORTED_L3 = 139,
	DROP_FLOW_TABLE_FULL = 155,
	DROP_NO_BACKEND = 158, /* of a service */
	DROP_NO_TUNNEL_ENDPOINT = 160,
	DROP_INVALID_IDENTITY = 171,
	DROP_ENCAPSULATION_PROHIBITED = 170,
	DROP_FRAGMENT_NOT_FOUND = 175,
	DROP_FORBIDDEN_ICMP6 = 176,
	DROP_NOT_IN_SOURCE_RANGE = 177, /* of a service */
	DROP_NO_PROXY = 178, /* nobody listens at the port to which policy sends it */
	DROP_POLICY_DENY = 181, /* a deny rule */
	DROP_UNAUTHENTICATED = 189, /* the two identities have not proved yet who they are */
	DROP_NAT_EXHAUSTED = 191,
	DROP_TTL_EXCEEDED = 196,
	DROP_UNKNOWN_ENDPOINT = 203,
	DROP_LINK_LOCAL = 210, /* broadcast and multicast are not forwarded; counted, not reported */
	DROP_UNROUTABLE = 211,
	DROP_NOT_BY_PROXY = 240, /* of a connection that policy sends to a proxy, which has not seen it begin: reset */
};

enum event_flag {
	EVENT_REPLY = 1 << 0,	    /* the packet went towards the initiator */
	EVENT_INGRESS = 1 << 1,	    /* decided by ingress policy, or seen on the way into a pod */
	EVENT_MASQUERADED = 1 << 2, /* nat_address and nat_port hold the source seen outside */
	EVENT_SERVED = 1 << 3,	    /* frontend and service say what was called */
	EVENT_PROXIED = 1 << 4,	    /* a proxy looks at it, at nat_port; or has begun it: zone */
	EVENT_AUDITED_EGRESS = 1 << 5,	/* egress policy that is only tried would have denied it: shadow << 5 */
	EVENT_AUDITED_INGRESS = 1 << 6, /* the same of ingress policy */
	EVENT_AUTHENTICATED = 1 << 7, /* both ends have proved who they are */
};

/* One record, always of this size: a ring buffer of them is an array. `source` is the initiator of
 * the connection for EVENT_NEW and EVENT_END, the sender of the packet for EVENT_DROP. */
struct event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 kind;   /* enum event_kind */
	__u8 reason; /* enum drop_reason */
	__u8 flags;  /* enum event_flag */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u32 packets[2]; /* from and to the initiator */
	__u64 bytes[2];
	__u16 source_endpoint;
	__u16 destination_endpoint;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 zone; /* enum zone */
	__u32 hook;
	__be16 nat_port;
	__be16 frontend_port;
	__u8 nat_address[16];
	__u8 frontend[16];
	__u32 service;
	__u32 backend;
	__u64 started; /* EVENT_END: when the connection began, as `time` */
	/* EVENT_END of TCP: as in `struct flow`. */
	__u32 handshake;
	__u32 rtt;
	__u32 min_rtt;
	__u16 retransmissions[2]; /* by the initiator, and to it */
};

/* Per CPU. drops: by reason, those that were on their way in from DROPS_INGRESS on. forwards: what has been sent on, by
 * where it was seen (`enum hook_kind`), and from FORWARD_ACTION bits on by `enum flow_action`. lost: events that found
 * their ring full, by enum ring. */
enum drops_index { DROPS_INGRESS = 256, DROPS = 512 };
enum forwards_index { FORWARD_ACTION = 3, FORWARDS = 64 };
enum ring { RING_FLOWS = 0, RING_DROPS = 1, RINGS = 2 };

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* What no map has as its key or value would be missing from the objects' BTF. */
union shared_types {
	struct event event;
	struct caller caller;
	enum schema schema;
	enum identity identity;
	enum address_flag address_flag;
	enum direction direction;
	enum policy_prefix policy_prefix;
	enum verdict verdict;
	enum policy_flag policy_flag;
	enum zone zone;
	enum shadow shadow;
	enum proxied proxied;
	enum mark mark;
	enum frontend_flag frontend_flag;
	enum algorithm algorithm;
	enum backend_flag backend_flag;
	enum datagram_way datagram_way;
	enum maglev_range maglev_range;
	struct maglev_places maglev_places;
	enum flow_state flow_state;
	enum flow_flag flow_flag;
	enum flow_action flow_action;
	enum hook hook;
	enum hook_kind hook_kind;
	enum drops_index drops_index;
	enum forwards_index forwards_index;
	enum tick tick;
	enum epoch_range epoch_range;
	enum event_kind event_kind;
	enum drop_reason drop_reason;
	enum event_flag event_flag;
	enum ring ring;
};
