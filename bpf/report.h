// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Telling the control plane: one record of fixed size an event, without waking anybody; the reader
 * comes by at its own pace. Drops have a ring of their own, which no other load can fill. */
#pragma once
#include "packet.h"

static __always_inline void count(void *map, __u32 index, __u64 packets, __u64 bytes)
{
	struct counter *c = bpf_map_lookup_elem(map, &index);

	if (c) {
		c->packets += packets;
		c->bytes += bytes;
	}
}

/* A packet has been sent on its way. Verified on its own. */
__noinline int report_forward(struct __sk_buff *skb, __u32 seen, __u32 action)
{
	count(&forwards, seen | action << FORWARD_ACTION, skb->gso_segs > 1 ? skb->gso_segs : 1, skb->len - ETH_HLEN);
	return 0;
}

static __always_inline struct event *reserve(void *ring, __u32 which)
{
	struct event *e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);

	if (!e)
		count(&lost, which, 1, 0);
	else
		__builtin_memset(e, 0, sizeof(*e));
	return e;
}

/* A connection began or ended. The ends are those of its initiator's packets. */
__noinline int report_flow(const struct flow_key *key, const struct flow *flow, __u32 kind)
{
	struct event *e;
	int low;

	if (!key || !flow)
		return 0;
	e = reserve(&flow_events, RING_FLOWS);
	if (!e)
		return 0;
	low = flow->flags & FLOW_FROM_LOW;
	e->time = bpf_ktime_get_ns();
	e->started = flow->created;
	copy_address(e->source, low ? key->low : key->high);
	copy_address(e->destination, low ? key->high : key->low);
	e->source_port = low ? key->low_port : key->high_port;
	e->destination_port = low ? key->high_port : key->low_port;
	e->protocol = key->protocol;
	e->icmp_type = key->icmp_type;
	e->kind = kind;
	e->source_identity = flow->source_identity;
	e->destination_identity = flow->destination_identity;
	e->egress_rule = flow->egress_rule;
	e->ingress_rule = flow->ingress_rule;
	e->source_endpoint = flow->source_endpoint;
	e->destination_endpoint = flow->destination_endpoint;
	e->packets[0] = flow->leg[0].packets;
	e->packets[1] = flow->leg[1].packets;
	e->bytes[0] = flow->leg[0].bytes;
	e->bytes[1] = flow->leg[1].bytes;
	e->tcp_flags = flow->leg[0].tcp_flags | flow->leg[1].tcp_flags;
	e->hook = flow->leg[0].hook;
	e->handshake = flow->handshake;
	e->rtt = flow->rtt;
	e->min_rtt = flow->min_rtt;
	e->retransmissions[0] = flow->leg[0].retransmissions;
	e->retransmissions[1] = flow->leg[1].retransmissions;
	if (!flow->source_endpoint && flow->destination_endpoint)
		e->flags |= EVENT_INGRESS;
	e->zone = key->zone;
	e->flags |= (flow->shadow & (SHADOW_EGRESS | SHADOW_INGRESS | SHADOW_AUTHENTICATED)) << 5;
	if (flow->proxy_port || key->zone == ZONE_PROXY) {
		e->flags |= EVENT_PROXIED;
		e->nat_port = flow->proxy_port;
	}
	if (flow->flags & FLOW_MASQUERADED) {
		e->flags |= EVENT_MASQUERADED;
		e->nat_port = flow->nat_port;
		copy_address(e->nat_address, flow->nat_address);
	}
	if (flow->service) {
		e->flags |= EVENT_SERVED;
		e->service = flow->service;
		e->backend = flow->backend;
		e->frontend_port = flow->frontend_port;
		copy_address(e->frontend, flow->frontend);
	}
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Which service was called, and the backend that it stood for; all zero: none was. */
struct called {
	__u8 frontend[16];
	__be16 frontend_port;
	__u8 unused[2];
	__u32 service;
	__u32 backend;
};

static __always_inline void remember_call(struct called *called, const struct flow *flow)
{
	copy_address(called->frontend, flow->frontend);
	called->frontend_port = flow->frontend_port;
	called->service = flow->service;
	called->backend = flow->backend;
}

/* What the slow path knew of a packet when it dropped it; zero where it had not got so far. */
struct circumstances {
	__u32 source_identity;
	__u32 destination_identity;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u16 source_endpoint;
	__u16 destination_endpoint;
	__u8 flags; /* enum event_flag */
	__u8 unused[3];
	struct called called;
};

/* Verified on its own, as is `report_flow`: they are called from many places. */
__noinline int report_drop(struct __sk_buff *skb, const struct packet *p, __u32 hook, __u32 reason,
			   const struct circumstances *c)
{
	struct event *e;

	if (!p || !c)
		return 0;
	count(&drops, (reason & 0xff) | (c->flags & EVENT_INGRESS ? DROPS_INGRESS : 0), 1, skb->len - ETH_HLEN);
	if (reason == DROP_LINK_LOCAL)
		return 0;
	e = reserve(&drop_events, RING_DROPS);
	if (!e)
		return 0;
	e->time = bpf_ktime_get_ns();
	copy_address(e->source, source_of(p));
	copy_address(e->destination, destination_of(p));
	e->source_port = source_port_of(p);
	e->destination_port = destination_port_of(p);
	e->protocol = p->key.protocol;
	e->kind = EVENT_DROP;
	e->reason = reason;
	e->flags = c->flags;
	e->source_identity = c->source_identity;
	e->destination_identity = c->destination_identity;
	e->egress_rule = c->egress_rule;
	e->ingress_rule = c->ingress_rule;
	e->source_endpoint = c->source_endpoint;
	e->destination_endpoint = c->destination_endpoint;
	e->packets[0] = 1;
	e->bytes[0] = skb->len - ETH_HLEN;
	if (c->called.service) {
		e->flags |= EVENT_SERVED;
		e->service = c->called.service;
		e->backend = c->called.backend;
		e->frontend_port = c->called.frontend_port;
		copy_address(e->frontend, c->called.frontend);
	}
	e->tcp_flags = p->tcp_flags;
	e->icmp_type = p->icmp_type;
	e->icmp_code = p->icmp_code;
	e->zone = p->key.zone;
	e->hook = hook;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}
