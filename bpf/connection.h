// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A packet of a connection, start to end: find its flow, or have it decided; count it; send it on. */
#pragma once
#include "answer.h"
#include "decide.h"
#include "icmp.h"

/* As whom the other node lets the initiator speak. What it has balanced is of the outside, of which each node knows
 * in its own way. */
static __always_inline __u32 identity_in_tunnel(const struct flow *flow)
{
	return flow->flags & FLOW_DIRECT ? IDENTITY_WORLD : flow->source_identity;
}

/* Whether what the table says of this packet still holds, and holds for where it came from. */
static __always_inline int holds(const struct flow *flow, const struct packet *p, __u32 hook, __u32 now)
{
	__u32 leg = leg_of(flow, p);

	if (flow->leg[leg].hook != hook || flow->epoch != epoch_of(flow->epoch_slots))
		return 0;
	if (!is_called_so(flow, p, leg) || expired(flow, now) || begins_anew(flow, p))
		return 0;
	/* A call that another node has balanced is no answer (see `is_over`). */
	if (leg && is_unanswered(flow) && p->seen != FROM_POD && has_options(p))
		return 0;
	if (p->seen == FROM_OVERLAY &&
	    (p->tunnel_identity != (leg ? flow->destination_identity : identity_in_tunnel(flow)) ||
	     !same_address(p->tunnel_source, flow->leg[!leg].tunnel)))
		return 0;
	return 1;
}

static __noinline int drop(struct __sk_buff *skb, struct packet *p, __u32 hook, int reason)
{
	struct circumstances c = { .flags = is_arriving(p) ? EVENT_INGRESS : 0 };

	report_drop(skb, p, hook, reason, &c);
	return TC_ACT_SHOT;
}

/* So that the later fragments of what passes are known when they come. */
static __noinline int remember_fragment(struct __sk_buff *skb, const struct packet *p, const struct flow *flow)
{
	__u32 leg = leg_of(flow, p);
	__be16 port = called_port(flow, p, leg);
	struct fragment value = {
		.source_port = is_icmp(p->key.protocol) ? port : source_port_of(p),
		.destination_port = port,
		.seen = ticks(),
		.protocol = p->key.protocol,
		.icmp_type = p->icmp_type,
	};
	struct fragment_key key;

	fragment_key(skb, &key, source_of(p), called_address(flow, p, leg), p->fragment_id);
	bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
	return 0;
}

/* The flow that a proxy has begun and that this packet, which no mark says anything of, answers; it is `p`'s then. */
static __noinline struct flow *find_begun_by_proxy(struct packet *p, __u32 hook, __u32 now)
{
	struct flow *flow;

	p->key.zone = ZONE_PROXY;
	flow = find_flow(&p->key);
	if (flow && flow->leg[leg_of(flow, p) & 1].hook == hook && !expired(flow, now) && !begins_anew(flow, p))
		return flow;
	p->key.zone = ZONE_CLIENT;
	return NULL;
}

/* The connection of `p`, which was decided no longer to be, is ended. Verified on its own. */
__noinline int end_both(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	__u32 zero = 0;
	const struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	int result;

	if (!p || !w)
		return TC_ACT_SHOT;
	result = break_off(skb, p, &w->flow);
	return result < 0 ? drop(skb, p, hook, -result) : result;
}

static __always_inline int handle(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	__u32 now = ticks(), leg;
	struct flow *flow, *begun;
	int result, cut;

	if (p->flags & PACKET_ICMP_ERROR) {
		result = related(skb, p, hook);
		if (result != UNRELATED)
			return result;
	}
	if (is_of_proxy(mark_of(skb, p)))
		p->key.zone = ZONE_PROXY;
	flow = find_flow(&p->key);
	if (!flow && !is_from_own_stack(p) && !(p->flags & (PACKET_TRANSLATED | PACKET_SERVED))) {
		if (look_behind(p))
			flow = find_flow(&p->key);
		else if (predecessors_translate(&p->key))
			return TC_ACT_UNSPEC;
	}
	if (p->key.zone == ZONE_CLIENT && (!flow || flow->leg[leg_of(flow, p)].hook != hook) &&
	    may_be_proxied(p->key.protocol) && is_proxying()) {
		begun = find_begun_by_proxy(p, hook, now);
		if (begun)
			flow = begun;
	}
	if (!flow && predecessors_have(&p->key))
		return TC_ACT_UNSPEC;
	if (!flow || !holds(flow, p, hook, now)) {
		/* Nothing begins at a translated port. What is over there, the node itself says so. */
		if (p->flags & PACKET_TRANSLATED && (!flow || expired(flow, now) || begins_anew(flow, p) ||
						     !(flow->flags & FLOW_MASQUERADED))) {
			if (p->seen == FROM_UPLINK)
				return TC_ACT_OK;
			read_again(skb, p);
		}
		if (!flow && p->key.zone == ZONE_CLIENT && may_be_for_caller(p) && is_proxying()) {
			p->proxied = find_caller(skb, p);
			p->key.zone = p->proxied ? ZONE_PROXY : ZONE_CLIENT;
		}
		result = decide(skb, p, hook);
		if (result == NOT_OURS)
			return TC_ACT_OK;
		if (result < 0)
			return answer(skb, p, -result, 0);
		if (result == BROKEN_OFF)
			return end_both(skb, p, hook);
		flow = find_flow(&p->key);
		if (!flow)
			return drop(skb, p, hook, DROP_FLOW_TABLE_FULL);
	}
	leg = leg_of(flow, p);
	if ((flow->flags & (FLOW_MASQUERADED | FLOW_SETTLED)) == FLOW_MASQUERADED && !leg && flow->leg[0].packets &&
	    !keeps_port(p, flow, now)) {
		forget(p, flow);
		return drop(skb, p, hook, DROP_NAT_EXHAUSTED);
	}
	if (unsettled(flow, p, leg) && settle(p, flow)) {
		flow = bpf_map_lookup_elem(&flows, &p->key);
		if (!flow)
			return drop(skb, p, hook, DROP_FLOW_TABLE_FULL);
	}
	result = obstacle(skb, p, &flow->leg[leg]);
	cut = result == DROP_TOO_BIG && may_be_cut(p, flow);
	if (result && !cut) {
		drop(skb, p, hook, result);
		return answer(skb, p, result, flow->leg[leg].mtu);
	}
	account(skb, p, flow, leg, now);
	if (p->flags & PACKET_FIRST_FRAGMENT)
		remember_fragment(skb, p, flow);
	result = cut && flow->leg[leg].action == ACTION_ROUTE ? TC_ACT_OK : forward(skb, p, flow, leg);
	if (result < 0)
		return drop(skb, p, hook, -result);
	report_forward(skb, p->seen, flow->leg[leg].action);
	return result;
}

/* Headers may lie outside of the linear part; programs read only there. */
#define HEADERS 128

static __always_inline void linearise(struct __sk_buff *skb)
{
	if ((void *)(long)skb->data + 94 > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
}
