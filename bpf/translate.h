// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A translated connection has one tuple of its own, which is its flow's key, and others by which the two sides know
 * it. What arrives is addressed as its sender knows the other end ("called"); what leaves comes from whom its
 * receiver knows ("shown"); all else in it is the connection's own:
 *
 *	leg 0  from the initiator, or as from the node (masqueraded)    to what was called, a service
 *	leg 1  from the backend, as from the service                    to the initiator, or to the node for it
 */
#pragma once
#include "flow.h"
#include "sctp.h"

#define IPV4_SOURCE (ETH_HLEN + offsetof(struct iphdr, saddr))
#define IPV4_DESTINATION (ETH_HLEN + offsetof(struct iphdr, daddr))
#define IPV4_CHECK (ETH_HLEN + offsetof(struct iphdr, check))
#define IPV6_SOURCE (ETH_HLEN + offsetof(struct ipv6hdr, saddr))
#define IPV6_DESTINATION (ETH_HLEN + offsetof(struct ipv6hdr, daddr))

#define FLOW_TRANSLATED (FLOW_MASQUERADED | FLOW_SERVED | FLOW_DIRECT)

/* What makes the destination that packets of a leg arrive with, and the source that they leave with, others than
 * the connection's own. */
static __always_inline int is_called_otherwise(const struct flow *flow, __u32 leg)
{
	return flow->flags & (leg ? FLOW_MASQUERADED : FLOW_SERVED);
}

static __always_inline int is_shown_otherwise(const struct flow *flow, __u32 leg)
{
	return flow->flags & (leg ? FLOW_SERVED | FLOW_DIRECT : FLOW_MASQUERADED);
}

/* Whether a packet has come called as those of its leg are. One that has not is another connection's, though the two
 * have one tuple. */
static __always_inline int is_called_so(const struct flow *flow, const struct packet *p, __u32 leg)
{
	__u8 how = !is_called_otherwise(flow, leg) ? 0 : leg ? PACKET_TRANSLATED : PACKET_SERVED;

	return (p->flags & (PACKET_TRANSLATED | PACKET_SERVED)) == how;
}

static __always_inline const __u8 *called_address(const struct flow *flow, const struct packet *p, __u32 leg)
{
	if (!is_called_otherwise(flow, leg))
		return destination_of(p);
	return leg ? flow->nat_address : flow->frontend;
}

static __always_inline __be16 called_port(const struct flow *flow, const struct packet *p, __u32 leg)
{
	if (!is_called_otherwise(flow, leg))
		return destination_port_of(p);
	return leg ? flow->nat_port : flow->frontend_port;
}

static __always_inline const __u8 *shown_address(const struct flow *flow, const struct packet *p, __u32 leg)
{
	if (!is_shown_otherwise(flow, leg))
		return source_of(p);
	return leg ? flow->frontend : flow->nat_address;
}

static __always_inline __be16 shown_port(const struct flow *flow, const struct packet *p, __u32 leg)
{
	if (!is_shown_otherwise(flow, leg))
		return source_port_of(p);
	return leg ? flow->frontend_port : flow->nat_port;
}

/* Whether leg 0 leaves as other than translated, in this packet (direct.h). */
static __always_inline int is_told_or_wrapped(const struct flow *flow, const struct packet *p)
{
	return flow->flags & FLOW_WRAPPED ||
	       (flow->flags & FLOW_TELLS && (p->key.protocol != IPPROTO_TCP || is_syn(p)));
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

enum end { SOURCE = 0, DESTINATION = 1 };

/* One end of a packet, as it is and as it is to be. */
struct change {
	__u8 from[16];
	__u8 to[16];
	__be16 from_port;
	__be16 to_port;
};

/* Changes one port of an SCTP packet. 0, or a negative number when it cannot be done: the checksum of what comes
 * in fragments covers bytes that are not here. */
static __always_inline int rewrite_sctp(struct __sk_buff *skb, const struct packet *p, enum end end, __be16 from,
					__be16 to)
{
	__u32 check;

	if (p->flags & PACKET_FIRST_FRAGMENT || bpf_skb_load_bytes(skb, p->l4 + 8, &check, sizeof(check)))
		return -1;
	/* Ports in the order of memory: the second one is the upper half of a little-endian word. */
	check ^= crc32c_change((__u32)(from ^ to) << (end ? 16 : 0), (p->end - p->l4) & 0xffff);
	if (bpf_skb_store_bytes(skb, p->l4 + 8, &check, sizeof(check), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + (end ? 2 : 0), &to, sizeof(to), BPF_F_RECOMPUTE_CSUM);
}

/* Writes one end of a packet anew. 0, or a negative number when the packet is too short for what it says it is. */
static __noinline int rewrite(struct __sk_buff *skb, const struct packet *p, const struct change *c, enum end end)
{
	__u8 protocol = p->key.protocol;
	__u32 check = p->l4 + checksum_offset(protocol), flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int has_check = checksum_offset(protocol) && !(p->flags & PACKET_LATER_FRAGMENT), icmp = is_icmp(protocol);
	__be16 from_port = c->from_port, to_port = c->to_port;

	if (p->flags & PACKET_IPV6) {
		__s64 difference = bpf_csum_diff((__be32 *)c->from, 16, (__be32 *)c->to, 16, 0);

		if (has_check && bpf_l4_csum_replace(skb, check, 0, difference, flags | BPF_F_PSEUDO_HDR))
			return -1;
		if (bpf_skb_store_bytes(skb, end ? IPV6_DESTINATION : IPV6_SOURCE, c->to, 16, 0))
			return -1;
	} else {
		__be32 f = ipv4_of(c->from), t = ipv4_of(c->to);

		if (has_check && !icmp &&
		    bpf_l4_csum_replace(skb, check, f, t, flags | BPF_F_PSEUDO_HDR | sizeof(t)))
			return -1;
		if (bpf_l3_csum_replace(skb, IPV4_CHECK, f, t, sizeof(t)))
			return -1;
		if (bpf_skb_store_bytes(skb, end ? IPV4_DESTINATION : IPV4_SOURCE, &t, sizeof(t), 0))
			return -1;
	}
	if (from_port == to_port || p->flags & PACKET_LATER_FRAGMENT)
		return 0;
	if (protocol == IPPROTO_SCTP)
		return rewrite_sctp(skb, p, end, from_port, to_port);
	if (bpf_l4_csum_replace(skb, check, from_port, to_port, flags | sizeof(to_port)))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + (icmp ? 4 : end ? 2 : 0), &to_port, sizeof(to_port), 0);
}

/* Makes what arrived for one end of the connection what leaves for it. 0, or a negative number when the packet is
 * too short for what it says it is. Verified on its own. */
__noinline int translate(struct __sk_buff *skb, const struct packet *p, const struct flow *flow, __u32 leg)
{
	struct change c;

	if (!p || !flow)
		return -1;
	if (is_shown_otherwise(flow, leg)) {
		copy_address(c.from, source_of(p));
		copy_address(c.to, shown_address(flow, p, leg));
		c.from_port = source_port_of(p);
		c.to_port = shown_port(flow, p, leg);
		if (rewrite(skb, p, &c, SOURCE))
			return -1;
	}
	if (!is_called_otherwise(flow, leg))
		return 0;
	copy_address(c.from, called_address(flow, p, leg));
	copy_address(c.to, destination_of(p));
	c.from_port = called_port(flow, p, leg);
	c.to_port = destination_port_of(p);
	return rewrite(skb, p, &c, DESTINATION);
}
