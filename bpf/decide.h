// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The slow path: who talks to whom, may they, and which way. Runs for the first packet of a connection,
 * and again when something that it looked at has changed.
 *
 * A decision is always made for the connection as its initiator began it, whichever direction the packet
 * at hand goes: so a reply can never be judged as if it were a request. */
#pragma once
#include <linux/pkt_cls.h>
#include "call.h"
#include "config.h"
#include "flow.h"
#include "nat.h"
#include "permit.h"
#include "service.h"
#include "way.h"

/* Whether what begins a flow is an answer all the same, says a socket: the one that it comes from, or is for. */
static __always_inline int answers_socket(const struct packet *p, __u32 mark)
{
	return mark == MARK_PROXY_ANSWERS || p->proxied;
}

/* `mark`: of the packet at hand, out of the node's own stack. */
static __always_inline void prepare(struct flow *flow, const struct flow *old, const struct packet *p,
				    const struct service_workspace *s, __u32 mark)
{
	if (old) {
		*flow = *old;
		flow->shadow = 0;
		return;
	}
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->flags = p->from_low != answers_socket(p, mark) ? FLOW_FROM_LOW : 0;
	flow->proxied = p->proxied;
	if (mark == MARK_EGRESS_PROXY)
		flow->proxied = PROXIED_EGRESS;
	else if (mark == MARK_INGRESS_PROXY)
		flow->proxied = PROXIED_EGRESS | PROXIED_INGRESS;
	flow->state = first_state(p);
	flow->created = bpf_ktime_get_ns();
	if (s && (s->served || s->told)) {
		flow->flags |= s->told ? FLOW_DIRECT : FLOW_SERVED;
		flow->service = s->called.service;
		flow->backend = s->called.backend;
		flow->frontend_port = s->called.frontend_port;
		copy_address(flow->frontend, s->called.frontend);
	}
}

/* Whether an entry is of a pod that had one's address before: it says nothing of this one. */
static __always_inline int is_of_others(const struct flow *old, const struct party *a, const struct party *b)
{
	return (a->place == PLACE_POD && old->leg[1].ifindex != a->ifindex) ||
	       (b->place == PLACE_POD && old->leg[0].ifindex != b->ifindex);
}

/* Settles to which proxy leg 0 goes, now that policy has said what it wants. 0 or a drop reason. */
static __noinline int choose_proxy(struct __sk_buff *skb, struct workspace *w)
{
	const struct packet *p = &w->packet;
	struct flow *flow = &w->flow;

	if (w->known && p->key.protocol == IPPROTO_TCP && flow->proxy_port != w->proxy_port && !is_syn(p)) {
		if (w->proxy_port && !(p->tcp_flags & TCP_RST)) {
			w->broken_off = 1;
			return DROP_NOT_BY_PROXY;
		}
		w->parting = w->proxy_port != 0;
		w->proxy_port = flow->proxy_port; /* it holds both ends of the connection until that is over */
	}
	flow->proxy_port = w->proxy_port;
	if (!w->proxy_port)
		return 0;
	if (w->reply) /* that of a server which a proxy has to speak for */
		return is_from_own_stack(p) ? 0 : DROP_NOT_BY_PROXY;
	return asks_for_socket(p, flow) ? find_proxy(skb, p, w->proxy_port, 0) : 0;
}

#define RETRIES 168 /* ticks: longer than TCP waits before it sends again what was not answered */

/* Policy has ended the connection of the packet at hand. What its called end sends again must not pass for a connection of its own,
 * that other rules may allow: the entry stays, and holds for nothing, until nobody speaks any more. Verified on its
 * own. */
__noinline int end_flow(__u32 now)
{
	__u32 zero = 0;
	struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	struct flow *entry;

	if (!w)
		return 0;
	entry = find_flow(&w->packet.key);
	if (!entry || w->packet.key.protocol != IPPROTO_TCP || w->flow.flags & FLOW_TRANSLATED)
		return forget(&w->packet, &w->flow);
	if (entry->state != FLOW_CLOSED)
		report_flow(&w->packet.key, entry, EVENT_END);
	entry->state = FLOW_CLOSED;
	entry->epoch = epoch_of(entry->epoch_slots) - 1;
	entry->seen = now + RETRIES;
	return 0;
}

/* Whether it has been ended so. */
static __always_inline int was_ended(const struct flow *flow)
{
	return flow->state == FLOW_CLOSED && (__s32)(flow->seen - ticks()) > 1;
}

/* Says why the packet goes no further. A negative drop reason. */
static __noinline int refuse(struct __sk_buff *skb, struct packet *p, __u32 hook, struct workspace *w, int reason)
{
	struct circumstances *c = &w->c;

	if (w->reply) {
		__u32 identity = c->source_identity;
		__u16 endpoint = c->source_endpoint;

		c->flags |= EVENT_REPLY;
		c->source_identity = c->destination_identity;
		c->source_endpoint = c->destination_endpoint;
		c->destination_identity = identity;
		c->destination_endpoint = endpoint;
	}
	/* Only policy ends a connection. Who may not speak for it does not. */
	if (w->known && (reason == DROP_POLICY_DEFAULT || reason == DROP_POLICY_DENY || w->broken_off))
		end_flow(ticks());
	report_drop(skb, p, hook, reason, c);
	return -reason;
}

/* If policy lets a connection go on that it has ended, that is another one. Verified on its own. */
__noinline int begin_again(__u32 unused)
{
	__u32 zero = 0;
	struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	struct flow *flow, *old;

	if (!w)
		return unused;
	flow = &w->flow;
	old = find_flow(&w->packet.key);
	if (!old || !was_ended(old) || w->packet.tcp_flags & TCP_RST)
		return unused;
	forget(&w->packet, old);
	w->known = 0;
	flow->flags &= ~FLOW_SETTLED;
	flow->state = first_state(&w->packet);
	flow->created = bpf_ktime_get_ns();
	for (int i = 0; i < 2; i++) {
		flow->leg[i].packets = 0;
		flow->leg[i].bytes = 0;
		flow->leg[i].tcp_flags = 0;
	}
	return unused;
}

/* Who talks to whom, and may they. Fills in the workspace. Verified on its own. */
__noinline int judge(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	__u32 zero = 0, epoch, addresses_only;
	struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	const struct service_workspace *s = bpf_map_lookup_elem(&service_workspaces, &zero);
	struct flow *flow, *old, *over = NULL;
	__u32 mark;
	int reply = 0, reason, own_address = 0, served;
	struct party *a, *b;

	if (!p || !w)
		return -DROP_INVALID_PACKET;
	/* From a caller's memory, kernels before 6.2 let helpers take neither keys nor values of maps. */
	w->packet = *p;
	p = &w->packet;
	flow = &w->flow;
	a = &w->a;
	b = &w->b;
	__builtin_memset(a, 0, sizeof(*w) - offsetof(struct workspace, a));
	old = find_flow(&p->key);
	if (old && is_over(old, p)) {
		over = old;
		old = NULL;
	}
	mark = mark_of(skb, p);
	reply = old ? leg_of(old, p) : answers_socket(p, mark);

	/* Epochs are read before what they stand for: a change in between makes the flow stale at once,
	 * never silently outdated. Until their subjects are known, the addresses stand in the sum twice. */
	__u16 slots[4] = { address_slot(source_of(p)), address_slot(destination_of(p)) };

	slots[2] = slots[0];
	slots[3] = slots[1];
	epoch = epoch_of(slots);
	resolve(reply ? destination_of(p) : source_of(p), a);
	resolve(reply ? source_of(p) : destination_of(p), b);
	if (old && is_of_others(old, a, b)) {
		over = old;
		old = NULL;
		if (reply && !answers_socket(p, mark)) {
			w->spare = *a;
			*a = *b;
			*b = w->spare;
			reply = 0;
		}
	}
	prepare(flow, old, p, s, mark);
	served = flow->flags & (FLOW_SERVED | FLOW_DIRECT);
	if (flow->flags & FLOW_DIRECT)
		p->flags |= PACKET_TOLD;
	w->reply = reply;
	w->known = old != NULL;
	if (!old && !served)
		name_call(skb, p, flow);
	if (flow->service)
		remember_call(&w->c.called, flow);
	if (old && a->flags & ADDRESS_RANGE)
		a->identity = old->source_identity;
	if (old && b->flags & ADDRESS_RANGE)
		b->identity = old->destination_identity;

	reason = reply ? validate(skb, p, hook, b, a) : validate(skb, p, hook, a, b);
	if (!reason && !served && a->place != PLACE_POD && b->place != PLACE_POD) {
		/* A node is no way from the overlay to anywhere, and no proxy speaks for a pod that is gone. */
		if (p->seen == TO_UPLINK ? (reply ? b->place : a->place) == PLACE_HOST :
		    p->seen != FROM_OVERLAY || (reply ? a->place : b->place) == PLACE_HOST)
			return NOT_OURS;
		reason = DROP_UNROUTABLE;
	}
	/* From outside to what is no pod: for the node's own stack to judge. */
	if (p->seen == FROM_UPLINK && !served && (reply ? a->place : b->place) != PLACE_POD)
		return NOT_OURS;
	/* Where no route leads out, it may be an address of the node that nobody has told us of. */
	if (!reason && !old && (p->seen == FROM_POD || served) && b->place == PLACE_OUTSIDE) {
		w->routed = route(skb, p, &flow->leg[0], 0);
		if (!w->routed) {
			own_address = 1;
			b->place = PLACE_HOST;
			b->identity = IDENTITY_HOST;
		}
	}
	w->c.source_endpoint = a->endpoint;
	w->c.destination_endpoint = b->endpoint;
	w->c.source_identity = a->identity;
	w->c.destination_identity = b->identity;
	if (!reason) {
		addresses_only = epoch_of(slots);
		if (a->place == PLACE_POD)
			slots[2] = subject_slot(a->identity);
		if (b->place == PLACE_POD)
			slots[3] = subject_slot(b->identity);
		epoch += epoch_of(slots) - addresses_only;
		reason = permit(w, reply);
		if (!reason && (w->egress.flags | w->ingress.flags) & POLICY_AUTHENTICATE && !authenticate(0))
			reason = DROP_UNAUTHENTICATED;
	}
	if (!reason)
		reason = choose_proxy(skb, w);
	if (reason) {
		reason = refuse(skb, p, hook, w, reason);
		return w->broken_off ? BROKEN_OFF : reason;
	}
	if (w->known)
		begin_again(0);
	/* Nothing to remember: there may be a way for the next packet. Until then the stack answers. */
	if (own_address && !served && !flow->proxy_port)
		return NOT_OURS;
	if (over)
		forget(p, over);
	flow->source_identity = a->identity;
	flow->destination_identity = b->identity;
	flow->source_endpoint = a->endpoint;
	flow->destination_endpoint = b->endpoint;
	flow->egress_rule = w->c.egress_rule;
	flow->ingress_rule = w->c.ingress_rule;
	for (int i = 0; i < 4; i++)
		flow->epoch_slots[i] = slots[i];
	flow->epoch = w->parting ? epoch - 1 : epoch; /* none that comes again */
	return DECIDED;
}

/* Which way the packets go that `judge` has let pass, there and back; writes it down. Verified on its own. */
__noinline int direct(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	__u32 zero = 0, now = ticks(), reply, kept = 0, found;
	struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	const struct party *sender, *receiver;
	struct flow_leg *onward, *back;
	struct flow *flow;
	int reason;

	if (!p || !w)
		return -DROP_INVALID_PACKET;
	p = &w->packet; /* as `judge` left it */
	flow = &w->flow;
	reply = w->reply & 1;
	onward = &flow->leg[reply];
	back = &flow->leg[!reply];
	sender = reply ? &w->b : &w->a;
	receiver = reply ? &w->a : &w->b;
	flow->seen = now;
	onward->hook = hook;
	found = hook_back(w, !reply, hook, receiver, sender);
	if (found || comes_from_proxy(&p->key, flow, !reply))
		back->hook = found;
	/* Who sends a reply does not choose the way back to it, where there is one already. */
	if (w->known && back->action == ACTION_ROUTE)
		kept = back->ifindex;
	lead(w, reply, sender, receiver);
	if (onward->action == ACTION_ROUTE) {
		if (!w->routed && !route(skb, p, onward, 0))
			onward->action = ACTION_PASS; /* the stack knows how to refuse it */
		else if (!w->known)
			back->hook = onward->ifindex;
	} else if (onward->action == ACTION_TUNNEL) {
		onward->mtu = mtu_of(skb, overlay_ifindex);
	} else if (onward->action == ACTION_PROXY) {
		onward->mtu = 0;
	}
	lead(w, !reply, receiver, sender);
	if (back->action == ACTION_ROUTE)
		back->ifindex = kept ? kept : hook;
	if (flow->flags & FLOW_DIRECT && p->seen == FROM_OVERLAY && !reply) {
		copy_address(back->tunnel, p->tunnel_source);
		if (!route(skb, p, back, 1))
			back->action = ACTION_PASS;
	}
	if (back->action == ACTION_ROUTE || back->action == ACTION_TUNNEL)
		back->mtu = mtu_of(skb, back->ifindex);
	if (!w->known && !reply) {
		reason = masquerade_flow(skb, w, now);
		if (reason)
			return refuse(skb, p, hook, w, reason);
	}
	if (flow->flags & FLOW_MASQUERADED) /* the node speaks for itself */
		flow->leg[0].tunnel_identity = IDENTITY_REMOTE_NODE;
	if ((receiver->place == PLACE_HOST || onward->action == ACTION_PROXY) && p->seen == FROM_UPLINK)
		expect_answers();
	if (flow->proxy_port)
		begin_proxying();
	if (flow->flags & FLOW_SETTLED ? bpf_map_update_elem(&flows, &p->key, flow, BPF_ANY) :
					 bpf_map_update_elem(&half_open, &p->key, flow, BPF_ANY))
		return refuse(skb, p, hook, w, DROP_FLOW_TABLE_FULL);
	if (!w->known)
		report_flow(&p->key, flow, EVENT_NEW);
	return DECIDED;
}

/* Decides the connection that `p` belongs to and writes it into the flow table. */
static __noinline int decide(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	int result = serve(skb, p, hook);

	if (result)
		return result;
	result = judge(skb, p, hook);

	return result == DECIDED ? direct(skb, p, hook) : result;
}
