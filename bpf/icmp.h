// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ICMP errors: they belong to the connection whose packet they carry, and go the way its replies go.
 * One that belongs to none is judged by policy like any other message. */
#pragma once
#include "forward.h"

#define UNRELATED (-2) /* TC_ACT_UNSPEC is -1 */

/* Too large for the stack. Programs on one CPU do not nest. */
struct error_workspace {
	struct packet inner; /* the packet that the error is about */
	struct ends ends;
	struct circumstances c; /* nothing is known */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct error_workspace);
} error_workspaces SEC(".maps");

/* Reads the tuple of the packet inside the error. 0, or UNRELATED where there is none. */
static __noinline int parse_inner(struct __sk_buff *skb, const struct packet *p, struct packet *inner,
				  struct ends *e)
{
	__u32 at = p->l4 + 8;
	__u8 head[8] = {};
	int l4;

	if (p->flags & PACKET_IPV6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return UNRELATED;
		copy_address(e->source, &ip.saddr);
		copy_address(e->destination, &ip.daddr);
		e->protocol = ip.nexthdr;
		l4 = skip_extensions(skb, e, at + sizeof(ip));
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return UNRELATED;
		map_ipv4(e->source, ip.saddr);
		map_ipv4(e->destination, ip.daddr);
		e->protocol = ip.protocol;
		e->later_fragment = (ip.frag_off & IP_FRAGMENT_OFFSET) != 0;
		l4 = at + ip.ihl * 4;
	}
	if (l4 < 0 || e->later_fragment || bpf_skb_load_bytes(skb, l4, head, sizeof(head)))
		return UNRELATED;
	if (is_icmp(e->protocol)) {
		if (!icmp_is_query(e->protocol, head[0]))
			return UNRELATED;
		e->source_port = e->destination_port = *(__be16 *)(head + 4);
	} else if (e->protocol == IPPROTO_TCP || e->protocol == IPPROTO_UDP || e->protocol == IPPROTO_SCTP) {
		e->source_port = *(__be16 *)head;
		e->destination_port = *(__be16 *)(head + 2);
	}
	inner->icmp_type = head[0];
	name_connection(inner, e);
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

/* Whether an error about this connection can have come from where it was seen: from one of its ends, or from
 * who forwards its packets. Pods do not; other nodes do for their own. */
static __noinline int on_the_way(struct __sk_buff *skb, const struct packet *p, const struct flow *flow, __u32 leg,
				 __u32 hook)
{
	struct prefix_key from = { .prefix_length = 128 };
	const struct address *known;
	__u32 ifindex = flow->leg[leg].hook;

	switch (p->seen) {
	case FROM_POD:
		return flow->leg[leg].hook == hook;
	case TO_POD:
		return skb->ingress_ifindex <= LOOPBACK;
	case FROM_OVERLAY:
		return flow->leg[leg].hook == hook && same_address(p->tunnel_source, flow->leg[!leg].tunnel);
	default: /* FROM_UPLINK: by any of them, in nobody's name of this node */
		copy_address(from.address, source_of(p));
		if (bpf_map_lookup_elem(&endpoints, from.address))
			return 0;
		known = bpf_map_lookup_elem(&addresses, &from);
		return !(known && known->identity == IDENTITY_HOST) && bpf_map_lookup_elem(&uplinks, &ifindex);
	}
}

/* A TC action when the error belongs to a connection, else UNRELATED. Verified on its own. */
__noinline int related(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	__u32 zero = 0, leg;
	struct error_workspace *w = bpf_map_lookup_elem(&error_workspaces, &zero);
	struct translation *t = NULL;
	struct packet *inner;
	struct flow *flow;
	int result;

	if (!p || !w)
		return UNRELATED;
	inner = &w->inner;
	__builtin_memset(w, 0, sizeof(*w));
	if (parse_inner(skb, p, inner, &w->ends))
		return UNRELATED;
	if (p->seen == FROM_UPLINK) {
		t = find_translation(&inner->key);
		if (t) {
			__u64 outside[2], inside[2];
			__be16 port = destination_port_of(inner);

			copy_address(outside, destination_of(inner));
			copy_address(inside, t->address);
			inner->from_low = order(&inner->key, inside, t->port, outside,
					       is_icmp(inner->key.protocol) ? t->port : port);
			if (is_icmp(inner->key.protocol))
				inner->key.asked_by_low = inner->from_low;
		}
	}
	flow = find_flow(&inner->key);
	if (!flow && (predecessors_have(&inner->key) || predecessors_translate(&inner->key)))
		return TC_ACT_UNSPEC;
	if (!flow || expired(flow, ticks()) || flow->epoch != epoch_of(flow->epoch_slots))
		return UNRELATED;
	leg = !leg_of(flow, inner);
	if (!on_the_way(skb, p, flow, leg, hook))
		return UNRELATED;
	/* It must be for the sender of the packet that it is about. */
	if (t ? !same_address(destination_of(p), flow->nat_address) :
		!same_address(destination_of(p), source_of(inner)))
		return UNRELATED;
	if (p->seen == FROM_POD) {
		__u64 sender[2]; /* on our own stack: see `judge` */
		struct endpoint *pod;

		copy_address(sender, source_of(p));
		pod = bpf_map_lookup_elem(&endpoints, sender);
		if (!pod || pod->ifindex != hook) {
			report_drop(skb, p, hook, DROP_INVALID_SOURCE, &w->c);
			return TC_ACT_SHOT;
		}
	}
	if (flow->flags & FLOW_MASQUERADED && translate_error(skb, p, flow, leg, inner)) {
		report_drop(skb, p, hook, DROP_INVALID_PACKET, &w->c);
		return TC_ACT_SHOT;
	}
	if (p->seen == TO_POD) /* from the node's own stack: it is on its way */
		return TC_ACT_OK;
	result = send(skb, p, &flow->leg[leg]);
	if (result < 0) {
		report_drop(skb, p, hook, -result, &w->c);
		return TC_ACT_SHOT;
	}
	return result;
}
