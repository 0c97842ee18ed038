// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Masquerading: a pod's connection to the outside leaves with its node's address and a port of the
 * node's, from a range in which the node's own sockets never get theirs by chance.
 *
 * `translations` has the tuple as the outside sees it, ordered as in the flow table, and the pod's
 * address and port behind it. A port is taken by inserting that entry; another connection to the same
 * destination that would get the same tuple fails to insert, and tries the next port. */
#pragma once
#include "config.h"
#include "flow.h"
#include "packet.h"
#include "sctp.h"
#include "succession.h"

#define EEXIST 17
#define NAT_ATTEMPTS 32
#define TIME_WAIT 56 /* ticks: how long the other end may remember a connection that is over */
#define IPV4_SOURCE (ETH_HLEN + offsetof(struct iphdr, saddr))
#define IPV4_DESTINATION (ETH_HLEN + offsetof(struct iphdr, daddr))
#define IPV4_CHECK (ETH_HLEN + offsetof(struct iphdr, check))
#define IPV6_SOURCE (ETH_HLEN + offsetof(struct ipv6hdr, saddr))
#define IPV6_DESTINATION (ETH_HLEN + offsetof(struct ipv6hdr, daddr))

static __always_inline __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMPV6:
	case IPPROTO_ICMP:
		return 2;
	default:
		return 0; /* SCTP's CRC covers no addresses; others have none that we know */
	}
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       is_icmp(protocol);
}

/* Changes one port of an SCTP packet: the first (leg 0) or the second. 0, or a negative number when it cannot
 * be done: the checksum of what comes in fragments covers bytes that are not here. */
static __always_inline int translate_sctp(struct __sk_buff *skb, const struct packet *p, __u32 leg, __be16 from,
					  __be16 to)
{
	__u32 check;

	if (p->flags & PACKET_FIRST_FRAGMENT || bpf_skb_load_bytes(skb, p->l4 + 8, &check, sizeof(check)))
		return -1;
	/* Ports in the order of memory: the second one is the upper half of a little-endian word. */
	check ^= crc32c_change((__u32)(from ^ to) << (leg ? 16 : 0), (p->end - p->l4) & 0xffff);
	if (bpf_skb_store_bytes(skb, p->l4 + 8, &check, sizeof(check), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + (leg ? 2 : 0), &to, sizeof(to), BPF_F_RECOMPUTE_CSUM);
}

/* Writes the outside's view over the packet's source (leg 0), or the pod's over its destination (leg 1).
 * 0, or a negative number when the packet is too short for what it says it is. Verified on its own. */
__noinline int translate(struct __sk_buff *skb, const struct packet *p, const struct flow *flow, __u32 leg)
{
	const __u8 *pod, *from, *to;
	__be16 pod_port, from_port, to_port;
	__u32 check, flags;
	int has_check, icmp;
	__u8 protocol;

	if (!p || !flow)
		return -1;
	pod = leg ? destination_of(p) : source_of(p);
	pod_port = leg ? destination_port_of(p) : source_port_of(p);
	from = leg ? flow->nat_address : pod;
	to = leg ? pod : flow->nat_address;
	from_port = leg ? flow->nat_port : pod_port;
	to_port = leg ? pod_port : flow->nat_port;
	protocol = p->key.protocol;
	check = p->l4 + checksum_offset(protocol);
	flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	has_check = checksum_offset(protocol) && !(p->flags & PACKET_LATER_FRAGMENT);
	icmp = is_icmp(protocol);

	if (p->flags & PACKET_IPV6) {
		__be32 f[4], t[4];
		__s64 difference;

		copy_address(f, from);
		copy_address(t, to);
		difference = bpf_csum_diff(f, 16, t, 16, 0);
		if (has_check && bpf_l4_csum_replace(skb, check, 0, difference, flags | BPF_F_PSEUDO_HDR))
			return -1;
		if (bpf_skb_store_bytes(skb, leg ? IPV6_DESTINATION : IPV6_SOURCE, t, 16, 0))
			return -1;
	} else {
		__be32 f = ipv4_of(from), t = ipv4_of(to);

		if (has_check && !icmp &&
		    bpf_l4_csum_replace(skb, check, f, t, flags | BPF_F_PSEUDO_HDR | sizeof(t)))
			return -1;
		if (bpf_l3_csum_replace(skb, IPV4_CHECK, f, t, sizeof(t)))
			return -1;
		if (bpf_skb_store_bytes(skb, leg ? IPV4_DESTINATION : IPV4_SOURCE, &t, sizeof(t), 0))
			return -1;
	}
	if (from_port == to_port || p->flags & PACKET_LATER_FRAGMENT)
		return 0;
	if (protocol == IPPROTO_SCTP)
		return translate_sctp(skb, p, leg, from_port, to_port);
	if (bpf_l4_csum_replace(skb, check, from_port, to_port, flags | sizeof(to_port)))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + (icmp ? 4 : leg ? 2 : 0), &to_port, sizeof(to_port), 0);
}

static __always_inline struct translation *find_translation(const struct flow_key *key)
{
	struct translation *t = bpf_map_lookup_elem(&translations, key);

	return t ? t : bpf_map_lookup_elem(&half_open_translations, key);
}

/* The key of a packet between `outside` and the node, or the pod behind it. An ICMP query has one
 * identifier, which stands for the port on both sides. */
static __always_inline void outside_key(struct flow_key *key, const struct packet *p, const __u8 *node,
					__be16 node_port, const __u8 *outside, __be16 outside_port)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->protocol = p->key.protocol;
	key->icmp_type = p->key.icmp_type;
	if (is_icmp(p->key.protocol)) /* the node asks */
		key->asked_by_low = order(key, node, node_port, outside, node_port);
	else
		order(key, node, node_port, outside, outside_port);
}

static __always_inline void translation_key(struct flow_key *key, const struct packet *p, const struct flow *flow)
{
	__u32 leg = leg_of(flow, p);

	outside_key(key, p, flow->nat_address, flow->nat_port, leg ? source_of(p) : destination_of(p),
		    leg ? source_port_of(p) : destination_port_of(p));
}

/* What giving a port, or a place, works on: too large for the stack. Programs on one CPU do not nest. */
struct nat_workspace {
	struct flow_key key, other;
	struct translation own;
	struct bpf_sock_tuple tuple;
	struct flow flow;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_workspace);
} nat_workspaces SEC(".maps");

/* Takes the connection of `p` out of all tables, and says that it has ended. Verified on its own. */
__noinline int forget(const struct packet *p, const struct flow *flow)
{
	struct flow_key key;

	if (!p || !flow)
		return 0;
	if (flow->state != FLOW_CLOSED)
		report_flow(&p->key, flow, EVENT_END);
	if ((flow->flags & (FLOW_MASQUERADED | FLOW_RELEASED)) == FLOW_MASQUERADED) {
		translation_key(&key, p, flow);
		bpf_map_delete_elem(&half_open_translations, &key);
		bpf_map_delete_elem(&translations, &key);
	}
	key = p->key; /* on our own stack: see `judge` */
	bpf_map_delete_elem(&half_open, &key);
	bpf_map_delete_elem(&flows, &key);
	return 0;
}

/* Gives a connection that has been answered a place from which nothing displaces it. Where there is none,
 * or its endpoint has had its share, it stays among those that newer ones may displace.
 * Whether it has been given one: `flow` is gone then, and the other entry counts. Verified on its own. */
__noinline int settle(const struct packet *p, struct flow *flow)
{
	struct flow_key outside, own;
	struct usage *share;
	__u32 endpoint, zero = 0;
	struct nat_workspace *w = bpf_map_lookup_elem(&nat_workspaces, &zero);
	long result;

	if (!p || !flow || !w)
		return 0;
	endpoint = flow->source_endpoint ? flow->source_endpoint : flow->destination_endpoint;
	share = bpf_map_lookup_elem(&usage, &endpoint);
	if (!share || share->held - share->collected >= flow_quota || sharing())
		return 0;
	if (flow->flags & FLOW_MASQUERADED) {
		struct translation *t;

		translation_key(&outside, p, flow);
		t = bpf_map_lookup_elem(&half_open_translations, &outside);
		if (!t || bpf_map_update_elem(&translations, &outside, t, BPF_ANY))
			return 0;
	}
	flow->flags |= FLOW_SETTLED;
	own = p->key; /* on our own stack: see `judge` */
	w->flow = *flow;
	result = bpf_map_update_elem(&flows, &own, &w->flow, BPF_NOEXIST);
	if (result == -EEXIST) /* another CPU has just done the same */
		return 1;
	if (result) {
		flow->flags &= ~FLOW_SETTLED;
		if (flow->flags & FLOW_MASQUERADED)
			bpf_map_delete_elem(&translations, &outside);
		return 0;
	}
	__sync_fetch_and_add(&share->held, 1);
	if (flow->flags & FLOW_MASQUERADED)
		bpf_map_delete_elem(&half_open_translations, &outside);
	bpf_map_delete_elem(&half_open, &own);
	return 1;
}

/* Counts a connection that got no port, for the destination that it was for. */
static __noinline int count_exhausted(const struct packet *p)
{
	struct destination to = { .port = destination_port_of(p), .protocol = p->key.protocol };
	struct counter one = { .packets = 1 }, *known;

	copy_address(to.address, destination_of(p));
	known = bpf_map_lookup_elem(&exhausted, &to);
	if (known)
		__sync_fetch_and_add(&known->packets, 1);
	else
		bpf_map_update_elem(&exhausted, &to, &one, BPF_ANY);
	return DROP_NAT_EXHAUSTED;
}

/* Whether the port that `other` has may become that of the connection which `p` begins, and is then not
 * that of its own any more. It may when that is over. But the server at the other end may remember that one
 * (TIME_WAIT), and refuse what looks older; from the same pod nothing does, for its clock goes on (RFC 6191).
 * Only when no other port is to be had, in `need`, one is given that may be refused. */
static __always_inline int may_take(const struct packet *p, const struct translation *other, __u32 now, int need,
				    struct flow_key *key)
{
	struct flow *owner;
	__u32 seen = other->seen;
	int free;

	outside_key(key, p, other->address, other->port, destination_of(p), destination_port_of(p));
	owner = find_flow(key);
	if (owner) {
		if (owner->state != FLOW_CLOSED && !expired(owner, now))
			return 0;
		seen = owner->seen;
	} else if ((__s32)(now - seen) <= 1) {
		return 0; /* its flow is about to be written */
	}
	free = need || p->key.protocol != IPPROTO_TCP || same_address(other->address, source_of(p)) ||
	       (__s32)(now - seen) > TIME_WAIT;
	if (owner && free)
		owner->flags |= FLOW_RELEASED;
	return free;
}

/* Of a masqueraded connection that has no place of its own yet: whether its port is its own still. What has
 * been displaced meanwhile is put back; what another has taken is lost. Verified on its own. */
__noinline int keeps_port(const struct packet *p, const struct flow *flow, __u32 now)
{
	struct translation t = { .seen = now }, *known;
	struct flow_key key;

	if (!p || !flow)
		return 0;
	copy_address(t.address, source_of(p));
	t.port = source_port_of(p);
	outside_key(&key, p, flow->nat_address, flow->nat_port, destination_of(p), destination_port_of(p));
	known = find_translation(&key);
	if (!known)
		return !bpf_map_update_elem(&half_open_translations, &key, &t, BPF_NOEXIST);
	return known->port == t.port && same_address(known->address, t.address);
}

/* Whether the node itself has a socket that the answers to this connection would be for. The overlay's are
 * tunnels' outsides, whoever sends them. */
static __always_inline int port_of_a_socket(struct __sk_buff *skb, const struct packet *p, const struct flow *flow,
					    struct bpf_sock_tuple *tuple)
{
	struct bpf_sock *socket;
	__u32 size;

	if (p->key.protocol != IPPROTO_TCP && p->key.protocol != IPPROTO_UDP)
		return 0;
	if (overlay_ifindex && p->key.protocol == IPPROTO_UDP && flow->nat_port == overlay_port)
		return 1;
	if (p->flags & PACKET_IPV6) {
		size = sizeof(tuple->ipv6);
		copy_address(tuple->ipv6.saddr, destination_of(p));
		copy_address(tuple->ipv6.daddr, flow->nat_address);
		tuple->ipv6.sport = destination_port_of(p);
		tuple->ipv6.dport = flow->nat_port;
	} else {
		size = sizeof(tuple->ipv4);
		tuple->ipv4.saddr = ipv4_of(destination_of(p));
		tuple->ipv4.daddr = ipv4_of(flow->nat_address);
		tuple->ipv4.sport = destination_port_of(p);
		tuple->ipv4.dport = flow->nat_port;
	}
	socket = p->key.protocol == IPPROTO_TCP ? bpf_skc_lookup_tcp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0) :
						  bpf_sk_lookup_udp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

/* Tries to give a port to the connection that `p` begins; `flow` has the address and the port. The entry is
 * made among the half-open ones, and moves with its flow. Whether it has been given. Verified on its own. */
__noinline int try_port(struct __sk_buff *skb, struct packet *p, struct flow *flow, __u32 now, int need)
{
	__u32 zero = 0;
	struct nat_workspace *w = bpf_map_lookup_elem(&nat_workspaces, &zero);
	struct translation *other;

	if (!p || !flow || !w || port_of_a_socket(skb, p, flow, &w->tuple))
		return 0;
	copy_address(w->own.address, source_of(p));
	w->own.port = source_port_of(p);
	w->own.seen = now;
	outside_key(&w->key, p, flow->nat_address, flow->nat_port, destination_of(p), destination_port_of(p));
	if (predecessors_translate(&w->key))
		return 0;
	/* In this order: what moves from one table to the other is in either at every moment. */
	if (!bpf_map_update_elem(&half_open_translations, &w->key, &w->own, BPF_NOEXIST)) {
		other = bpf_map_lookup_elem(&translations, &w->key);
		if (!other)
			return 1;
		bpf_map_delete_elem(&half_open_translations, &w->key);
	} else {
		other = find_translation(&w->key);
	}
	if (!other)
		return 0;
	if ((other->port != w->own.port || !same_address(other->address, w->own.address)) &&
	    !may_take(p, other, now, need, &w->other))
		return 0;
	bpf_map_update_elem(&half_open_translations, &w->key, &w->own, BPF_ANY);
	bpf_map_delete_elem(&translations, &w->key);
	return 1;
}

/* Takes a port for the connection that `p` begins. 0, or DROP_NAT_EXHAUSTED when none of those tried was
 * free. */
static __always_inline int take_port(struct __sk_buff *skb, struct packet *p, struct flow *flow, __u32 now)
{
	__u32 range = nat_port_last - nat_port_first + 1;
	__u16 wanted = bpf_ntohs(source_port_of(p));

	if (!has_ports(p->key.protocol))
		return try_port(skb, p, flow, now, 1) ? 0 : count_exhausted(p);
	/* Pods choose their ports one after the other in ranges about as wide as ours: taking them
	 * modulo the range keeps the connections of one pod apart without a search. */
	for (int i = 0; i < NAT_ATTEMPTS; i++) {
		flow->nat_port = bpf_htons(nat_port_first + wanted % range);
		if (try_port(skb, p, flow, now, i >= NAT_ATTEMPTS / 2))
			return 0;
		wanted = wanted * 5 + 7919 + (bpf_get_prandom_u32() & 0x3ff);
	}
	return count_exhausted(p);
}
