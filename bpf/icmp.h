// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ICMP errors: they belong to the connection whose packet they carry, and go the way its replies go.
 * One that belongs to none is judged by policy like any other message. */
#pragma once
#include "forward.h"

#define UNRELATED (-1)

/* Reads the tuple of the packet inside the error. 0, or UNRELATED where there is none. */
static __noinline int parse_inner(struct __sk_buff *skb, const struct packet *p, struct packet *inner)
{
	__u32 at = p->l4 + 8, l4;
	__u64 source[2], destination[2];
	__be16 ports[2] = {};
	__u8 head[8] = {};

	if (p->flags & PACKET_IPV6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return UNRELATED;
		copy_address(source, &ip.saddr);
		copy_address(destination, &ip.daddr);
		inner->key.protocol = ip.nexthdr;
		l4 = at + sizeof(ip);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return UNRELATED;
		map_ipv4(source, ip.saddr);
		map_ipv4(destination, ip.daddr);
		inner->key.protocol = ip.protocol;
		l4 = at + ip.ihl * 4;
	}
	if (bpf_skb_load_bytes(skb, l4, head, sizeof(head)))
		return UNRELATED;
	if (is_icmp(inner->key.protocol)) {
		if (!icmp_is_query(inner->key.protocol, head[0]))
			return UNRELATED;
		ports[0] = ports[1] = *(__be16 *)(head + 4);
	} else {
		ports[0] = *(__be16 *)head;
		ports[1] = *(__be16 *)(head + 2);
	}
	inner->from_low = order(&inner->key, source, ports[0], destination, ports[1]);
	inner->l4 = l4;
	return 0;
}

struct replacement {
	__u32 outer; /* offsets of the addresses in the two headers, and of the port in the inner one */
	__u32 inner;
	__u32 port;
	__be16 from_port;
	__be16 to_port;
	__be32 from[4];
	__be32 to[4];
};

/* Checksums: in IPv4 the inner header's own makes up for its address, and ICMP's covers the rest. */
static __noinline int replace(struct __sk_buff *skb, const struct packet *p, const struct replacement *r)
{
	__u32 check = p->l4 + 2;

	if (p->flags & PACKET_IPV6) {
		__s64 difference = bpf_csum_diff((__be32 *)r->from, 16, (__be32 *)r->to, 16, 0);

		if (bpf_l4_csum_replace(skb, check, 0, difference, BPF_F_PSEUDO_HDR) ||
		    bpf_l4_csum_replace(skb, check, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, r->outer, r->to, 16, 0) ||
		    bpf_skb_store_bytes(skb, r->inner, r->to, 16, 0))
			return -1;
	} else {
		if (bpf_l3_csum_replace(skb, IPV4_CHECK, r->from[3], r->to[3], 4) ||
		    bpf_skb_store_bytes(skb, r->outer, &r->to[3], 4, 0) ||
		    bpf_l3_csum_replace(skb, p->l4 + 8 + offsetof(struct iphdr, check), r->from[3], r->to[3],
					4) ||
		    bpf_skb_store_bytes(skb, r->inner, &r->to[3], 4, 0))
			return -1;
	}
	if (r->from_port == r->to_port)
		return 0;
	if (bpf_l4_csum_replace(skb, check, r->from_port, r->to_port, sizeof(__be16)))
		return -1;
	return bpf_skb_store_bytes(skb, r->port, &r->to_port, sizeof(__be16), 0);
}

/* Translates an error about a masqueraded connection; `leg` is the way the error goes. */
static __noinline int translate_error(struct __sk_buff *skb, const struct packet *p, const struct flow *flow,
				      __u32 leg, const struct packet *inner)
{
	struct replacement r = {};
	int icmp = is_icmp(inner->key.protocol);
	const __u8 *pod = leg ? source_of(inner) : destination_of(inner);
	__be16 pod_port = leg ? source_port_of(inner) : destination_port_of(inner);

	/* Towards the pod: the outer destination, and the inner source; away from it the other two. */
	if (p->flags & PACKET_IPV6) {
		r.outer = leg ? IPV6_DESTINATION : IPV6_SOURCE;
		r.inner = p->l4 + 8 + (leg ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
	} else {
		r.outer = leg ? IPV4_DESTINATION : IPV4_SOURCE;
		r.inner = p->l4 + 8 + (leg ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
	}
	r.port = inner->l4 + (icmp ? 4 : leg ? 0 : 2);
	copy_address(r.from, leg ? flow->nat_address : pod);
	copy_address(r.to, leg ? pod : flow->nat_address);
	r.from_port = leg ? flow->nat_port : pod_port;
	r.to_port = leg ? pod_port : flow->nat_port;
	return replace(skb, p, &r);
}

/* A TC action when the error belongs to a connection, else UNRELATED. Verified on its own. */
__noinline int related(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	struct packet inner = {};
	struct circumstances c = {};
	struct translation *t = NULL;
	struct flow *flow;
	__u32 leg;
	int result;

	if (!p)
		return UNRELATED;
	if (parse_inner(skb, p, &inner))
		return UNRELATED;
	if (p->seen == FROM_UPLINK) {
		t = find_translation(&inner.key);
		if (t) {
			__u64 outside[2], inside[2];
			__be16 port = destination_port_of(&inner);

			copy_address(outside, destination_of(&inner));
			copy_address(inside, t->address);
			inner.from_low = order(&inner.key, inside, t->port, outside,
					       is_icmp(inner.key.protocol) ? t->port : port);
		}
	}
	flow = find_flow(&inner.key);
	if (!flow || expired(flow, ticks()))
		return UNRELATED;
	leg = !leg_of(flow, &inner);
	/* It must be for the sender of the packet that it is about. */
	if (t ? !same_address(destination_of(p), flow->nat_address) :
		!same_address(destination_of(p), source_of(&inner)))
		return UNRELATED;
	if (p->seen == FROM_POD) {
		struct endpoint *pod = bpf_map_lookup_elem(&endpoints, source_of(p));

		if (!pod || pod->ifindex != hook) {
			report_drop(skb, p, hook, DROP_INVALID_SOURCE, &c);
			return TC_ACT_SHOT;
		}
	}
	if (flow->flags & FLOW_MASQUERADED && translate_error(skb, p, flow, leg, &inner)) {
		report_drop(skb, p, hook, DROP_INVALID_PACKET, &c);
		return TC_ACT_SHOT;
	}
	result = send(skb, p, &flow->leg[leg]);
	if (result < 0) {
		report_drop(skb, p, hook, -result, &c);
		return TC_ACT_SHOT;
	}
	return result;
}
