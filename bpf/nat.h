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

#define NAT_ATTEMPTS 16
#define IPV4_SOURCE (ETH_HLEN + offsetof(struct iphdr, saddr))
#define IPV4_DESTINATION (ETH_HLEN + offsetof(struct iphdr, daddr))
#define IPV4_CHECK (ETH_HLEN + offsetof(struct iphdr, check))
#define IPV6_SOURCE (ETH_HLEN + offsetof(struct ipv6hdr, saddr))
#define IPV6_DESTINATION (ETH_HLEN + offsetof(struct ipv6hdr, daddr))

static __always_inline int is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

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

/* The CRC32c of SCTP covers the ports, and there is no helper to mend it: its ports stay. */
static __always_inline int port_is_fixed(__u8 protocol)
{
	return protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && !is_icmp(protocol);
}

/* Writes the outside's view over the packet's source (leg 0), or the pod's over its destination (leg 1).
 * 0, or a negative number when the packet is too short for what it says it is. */
static __noinline int translate(struct __sk_buff *skb, const struct packet *p, const struct flow *flow, __u32 leg)
{
	const __u8 *pod = leg ? destination_of(p) : source_of(p);
	__be16 pod_port = leg ? destination_port_of(p) : source_port_of(p);
	const __u8 *from = leg ? flow->nat_address : pod, *to = leg ? pod : flow->nat_address;
	__be16 from_port = leg ? flow->nat_port : pod_port, to_port = leg ? pod_port : flow->nat_port;
	__u8 protocol = p->key.protocol;
	__u32 check = p->l4 + checksum_offset(protocol);
	__u32 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int has_check = checksum_offset(protocol) && !(p->flags & PACKET_LATER_FRAGMENT);
	int icmp = is_icmp(protocol);

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
	if (from_port == to_port || !has_check)
		return 0;
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
	order(key, node, node_port, outside, is_icmp(p->key.protocol) ? node_port : outside_port);
}

static __always_inline void translation_key(struct flow_key *key, const struct packet *p, const struct flow *flow)
{
	__u32 leg = leg_of(flow, p);

	outside_key(key, p, flow->nat_address, flow->nat_port, leg ? source_of(p) : destination_of(p),
		    leg ? source_port_of(p) : destination_port_of(p));
}

/* Takes the connection of `p` out of all tables. */
static __noinline int forget(const struct packet *p, const struct flow *flow)
{
	if (flow->flags & FLOW_MASQUERADED) {
		struct flow_key key;

		translation_key(&key, p, flow);
		bpf_map_delete_elem(&half_open_translations, &key);
		bpf_map_delete_elem(&translations, &key);
	}
	bpf_map_delete_elem(&half_open, &p->key);
	bpf_map_delete_elem(&flows, &p->key);
	return 0;
}

/* Gives a connection that has been answered a place from which nothing displaces it. Where there is none,
 * or its endpoint has had its share, it stays among those that newer ones may displace.
 * Whether it has been given one: `flow` is gone then, and the other entry counts. */
static __noinline int settle(const struct packet *p, struct flow *flow)
{
	__u32 endpoint = flow->source_endpoint ? flow->source_endpoint : flow->destination_endpoint;
	struct usage *share = bpf_map_lookup_elem(&usage, &endpoint);
	struct flow_key outside;

	if (!share || share->held - share->collected >= flow_quota)
		return 0;
	if (flow->flags & FLOW_MASQUERADED) {
		struct translation *t;

		translation_key(&outside, p, flow);
		t = bpf_map_lookup_elem(&half_open_translations, &outside);
		if (!t || bpf_map_update_elem(&translations, &outside, t, BPF_ANY))
			return 0;
	}
	flow->flags |= FLOW_SETTLED;
	if (bpf_map_update_elem(&flows, &p->key, flow, BPF_NOEXIST)) {
		flow->flags &= ~FLOW_SETTLED;
		if (flow->flags & FLOW_MASQUERADED)
			bpf_map_delete_elem(&translations, &outside);
		return 0;
	}
	__sync_fetch_and_add(&share->held, 1);
	if (flow->flags & FLOW_MASQUERADED)
		bpf_map_delete_elem(&half_open_translations, &outside);
	bpf_map_delete_elem(&half_open, &p->key);
	return 1;
}

/* The port of the node's that stands for `wanted`. What comes to that of the overlay is a tunnel's outside, never
 * an answer to a pod. */
static __always_inline __be16 node_port(const struct packet *p, __u16 wanted)
{
	__u32 range = nat_port_last - nat_port_first + 1;
	__be16 port = bpf_htons(nat_port_first + wanted % range);

	if (overlay_ifindex && p->key.protocol == IPPROTO_UDP && port == overlay_port)
		return bpf_htons(nat_port_first + (wanted + 1) % range);
	return port;
}

/* Takes a port for the connection that `p` begins; `flow` has the address already. The entry is made among
 * the half-open ones, and moves with its flow.
 * 0, or DROP_NAT_EXHAUSTED when none of those tried was free. */
static __noinline int take_port(struct packet *p, struct flow *flow, __u32 now)
{
	struct translation t = { .seen = now };
	__u16 wanted = bpf_ntohs(source_port_of(p));
	int fixed = port_is_fixed(p->key.protocol);
	struct flow_key key;

	copy_address(t.address, source_of(p));
	t.port = source_port_of(p);
	/* Pods choose their ports one after the other in ranges about as wide as ours: taking them
	 * modulo the range keeps the connections of one pod apart without a search. */
	for (int i = 0; i < NAT_ATTEMPTS; i++) {
		struct translation *other;
		__be16 port = fixed ? source_port_of(p) : node_port(p, wanted);

		flow->nat_port = port;
		outside_key(&key, p, flow->nat_address, port, destination_of(p), destination_port_of(p));
		/* In this order: what moves from one table to the other is in either at every moment. */
		if (!bpf_map_update_elem(&half_open_translations, &key, &t, BPF_NOEXIST)) {
			other = bpf_map_lookup_elem(&translations, &key);
			if (!other)
				return 0;
			bpf_map_delete_elem(&half_open_translations, &key);
		} else {
			other = find_translation(&key);
		}
		if (other) {
			struct flow *owner;

			if (other->port == t.port && same_address(other->address, t.address))
				goto ours;
			/* Its connection is over: the port is free again. */
			outside_key(&key, p, other->address, other->port, destination_of(p),
				    destination_port_of(p));
			owner = find_flow(&key);
			outside_key(&key, p, flow->nat_address, port, destination_of(p),
				    destination_port_of(p));
			if ((!owner && now - other->seen > 1) ||
			    (owner && (owner->state == FLOW_CLOSED || expired(owner, now)))) {
				bpf_map_delete_elem(&translations, &key);
				goto ours;
			}
		}
		if (fixed)
			break;
		wanted = wanted * 5 + 7919 + (bpf_get_prandom_u32() & 0x3ff);
	}
	return DROP_NAT_EXHAUSTED;
ours:
	bpf_map_update_elem(&half_open_translations, &key, &t, BPF_ANY);
	return 0;
}
