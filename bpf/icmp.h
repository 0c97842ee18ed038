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

/* Writes an address of the error itself anew. */
static __noinline int replace_outer(struct __sk_buff *skb, const struct packet *p, const struct change *c, enum end end)
{
	if (p->flags & PACKET_IPV6) {
		__s64 difference = bpf_csum_diff((__be32 *)c->from, 16, (__be32 *)c->to, 16, 0);

		if (bpf_l4_csum_replace(skb, p->l4 + 2, 0, difference, BPF_F_PSEUDO_HDR))
			return -1;
		return bpf_skb_store_bytes(skb, end ? IPV6_DESTINATION : IPV6_SOURCE, c->to, 16, 0);
	}
	if (bpf_l3_csum_replace(skb, IPV4_CHECK, ipv4_of(c->from), ipv4_of(c->to), 4))
		return -1;
	return bpf_skb_store_bytes(skb, end ? IPV4_DESTINATION : IPV4_SOURCE, c->to + 12, 4, 0);
}

/* Writes an end of the packet inside anew. Checksums: in IPv4 the inner header's own makes up for its address, and
 * ICMP's covers the rest. */
static __noinline int replace_inner(struct __sk_buff *skb, const struct packet *p, const struct packet *inner,
				    const struct change *c, enum end end)
{
	__u32 check = p->l4 + 2, ip = p->l4 + 8 - ETH_HLEN; /* added to an offset in a frame */

	if (p->flags & PACKET_IPV6) {
		__s64 difference = bpf_csum_diff((__be32 *)c->from, 16, (__be32 *)c->to, 16, 0);

		if (bpf_l4_csum_replace(skb, check, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, ip + (end ? IPV6_DESTINATION : IPV6_SOURCE), c->to, 16, 0))
			return -1;
	} else {
		if (bpf_l3_csum_replace(skb, ip + IPV4_CHECK, ipv4_of(c->from), ipv4_of(c->to), 4) ||
		    bpf_skb_store_bytes(skb, ip + (end ? IPV4_DESTINATION : IPV4_SOURCE), c->to + 12, 4, 0))
			return -1;
	}
	if (c->from_port == c->to_port)
		return 0;
	if (bpf_l4_csum_replace(skb, check, c->from_port, c->to_port, sizeof(__be16)))
		return -1;
	return bpf_skb_store_bytes(skb, inner->l4 + (is_icmp(inner->key.protocol) ? 4 : end ? 2 : 0), &c->to_port,
				   sizeof(__be16), 0);
}

/* Translates an error about a translated connection. It goes against the packet inside, and must speak of that as
 * its sender knows it. */
static __noinline int translate_error(struct __sk_buff *skb, const struct packet *p, const struct flow *flow,
				      const struct packet *inner)
{
	__u32 leg = leg_of(flow, inner);
	struct change c;

	if (is_shown_otherwise(flow, leg)) {
		copy_address(c.from, shown_address(flow, inner, leg));
		copy_address(c.to, source_of(inner));
		c.from_port = shown_port(flow, inner, leg);
		c.to_port = source_port_of(inner);
		if (replace_inner(skb, p, inner, &c, SOURCE) || replace_outer(skb, p, &c, DESTINATION))
			return -1;
	}
	if (!is_called_otherwise(flow, leg))
		return 0;
	copy_address(c.from, destination_of(inner));
	copy_address(c.to, called_address(flow, inner, leg));
	c.from_port = destination_port_of(inner);
	c.to_port = called_port(flow, inner, leg);
	if (replace_inner(skb, p, inner, &c, DESTINATION))
		return -1;
	/* A router on the way to a service speaks for itself. On the way to a masqueraded client, the node does. */
	if (!leg && !same_address(source_of(p), c.from))
		return 0;
	copy_address(c.from, source_of(p));
	return replace_outer(skb, p, &c, SOURCE);
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
	case TO_UPLINK:
	case TO_OVERLAY:
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
	const struct translation *t;
	struct packet *inner;
	struct flow *flow;
	int result;

	if (!p || !w)
		return UNRELATED;
	inner = &w->inner;
	__builtin_memset(w, 0, sizeof(*w));
	if (parse_inner(skb, p, inner, &w->ends))
		return UNRELATED;
	/* Whoever stands behind its source, as it left us. */
	t = find_translation(&inner->key);
	if (t && t->stands_for_low != inner->from_low)
		t = NULL;
	if (t) {
		__u64 called[2];
		__be16 port = is_icmp(inner->key.protocol) ? t->port : destination_port_of(inner);

		copy_address(called, destination_of(inner));
		inner->from_low = order(&inner->key, t->address, t->port, called, port);
		inner->key.zone = t->zone;
		if (is_icmp(inner->key.protocol))
			inner->key.asked_by_low = inner->from_low;
	}
	flow = find_flow(&inner->key);
	if (!flow && !t) {
		inner->key.zone = ZONE_PROXY;
		flow = find_flow(&inner->key);
	}
	if (!flow && (predecessors_have(&inner->key) || predecessors_translate(&inner->key)))
		return TC_ACT_UNSPEC;
	if (!flow || expired(flow, ticks()) || flow->epoch != epoch_of(flow->epoch_slots))
		return UNRELATED;
	leg = !leg_of(flow, inner);
	if (!on_the_way(skb, p, flow, leg, hook))
		return UNRELATED;
	/* It must be for the sender of the packet that it is about. */
	if (!t != !is_shown_otherwise(flow, !leg) ||
	    !same_address(destination_of(p), shown_address(flow, inner, !leg)))
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
	if (flow->flags & FLOW_TRANSLATED && translate_error(skb, p, flow, inner)) {
		report_drop(skb, p, hook, DROP_INVALID_PACKET, &w->c);
		return TC_ACT_SHOT;
	}
	if (is_from_own_stack(p) && flow->leg[leg].action != ACTION_PROXY) /* it is on its way */
		return TC_ACT_OK;
	result = depart(skb, p, flow, leg);
	if (result < 0) {
		report_drop(skb, p, hook, -result, &w->c);
		return TC_ACT_SHOT;
	}
	return result;
}
