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
#include "party.h"
#include "policy.h"
#include "service.h"

/* What the slow path works on: too large for the stack. Programs on one CPU do not nest. */
struct workspace {
	struct flow flow;
	struct packet packet;
	struct party a, b; /* the initiator, and whom it calls */
	struct party spare;
	struct circumstances c;
	struct outcome egress, ingress;
	__be16 proxy_port; /* where policy wants leg 0 to go */
	__u8 reply;  /* the packet at hand goes from b to a */
	__u8 known;  /* the connection stands in a table */
	__u8 broken_off; /* policy now wants another proxy for a connection that lives */
	__u8 parting; /* the packet at hand ends one of these, says its sender: it passes, and settles nothing */
	__u8 routed; /* the way onward has been looked up */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct workspace);
} workspaces SEC(".maps");

/* What a policy calls the port of the connection that `p` belongs to. */
static __always_inline __be16 policy_port(const struct packet *p, int reply)
{
	__u8 type = p->icmp_type;

	if (p->key.protocol == IPPROTO_ICMP || p->key.protocol == IPPROTO_ICMPV6) {
		if (reply && p->key.protocol == IPPROTO_ICMP)
			type = type == ICMP_ECHO_REPLY ? ICMP_ECHO_REQUEST : (type - 1) | 1;
		else if (reply && type == ICMP6_ECHO_REPLY)
			type = ICMP6_ECHO_REQUEST;
		return bpf_htons(type);
	}
	return reply ? source_port_of(p) : destination_port_of(p);
}

/* One half of policy: its outcome into `o`, and what the connection is to be for it. 0 or a drop reason. */
static __always_inline int permit_half(struct workspace *w, struct policy_key *key, const struct party *peer,
				       struct outcome *o, __u8 half)
{
	int reason = evaluate(key, peer->identity, o);

	if (reason)
		return reason;
	if (o->flags & POLICY_AUTHENTICATE) /* nobody can, so far */
		return DROP_UNAUTHENTICATED;
	if (o->flags & POLICY_AUDIT)
		w->flow.shadow |= half == PROXIED_EGRESS ? SHADOW_EGRESS : SHADOW_INGRESS;
	if (!o->proxy_port || w->flow.proxied & half)
		return 0;
	if (!may_be_proxied(key->protocol))
		return DROP_NO_PROXY;
	if (!w->proxy_port) /* the sender's proxy comes first, and begins one that goes to the receiver's */
		w->proxy_port = o->proxy_port;
	return 0;
}

/* Both halves of policy: the sender's egress and the receiver's ingress, each where it lives. */
static __noinline int permit(struct workspace *w, int reply)
{
	const struct packet *p = &w->packet;
	const struct party *from = &w->a, *to = &w->b;
	struct circumstances *c = &w->c;
	struct policy_key key = {
		.prefix_length = POLICY_PREFIX_PORT,
		.protocol = p->key.protocol,
		.port = policy_port(p, reply),
	};
	int reason;

	/* A pod may always reach itself. */
	if (from->place == PLACE_POD && to->place == PLACE_POD && from->ifindex == to->ifindex)
		return 0;
	if (from->place == PLACE_POD) {
		key.subject = from->identity;
		key.direction = EGRESS;
		reason = permit_half(w, &key, to, &w->egress, PROXIED_EGRESS);
		c->egress_rule = w->egress.rule;
		if (reason)
			return reason;
	}
	if (to->place == PLACE_POD) {
		key.subject = to->identity;
		key.direction = INGRESS;
		reason = permit_half(w, &key, from, &w->ingress, PROXIED_INGRESS);
		c->ingress_rule = w->ingress.rule;
		if (reason) {
			c->flags |= EVENT_INGRESS;
			return reason;
		}
	}
	return 0;
}

/* The largest packet that a device sends; 0 when it takes all that IP can describe. */
static __noinline __u16 mtu_of(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;

	return bpf_check_mtu(skb, ifindex, &mtu, 0, 0) >= 0 && mtu < 0xffff ? mtu : 0;
}

#define FIB_LOOKUP_SKIP_NEIGH (1U << 2) /* Linux 6.3 */

/* Writes into the leg the device by which the node's routes lead to the packet's destination (`back`: to its source),
 * and how large packets may be on that way. Whether there is one: not for what is the node's own address. */
static __noinline int route(struct __sk_buff *skb, const struct packet *p, struct flow_leg *leg, int back)
{
	const __u8 *from = back ? destination_of(p) : source_of(p), *to = back ? source_of(p) : destination_of(p);
	/* With a length, even if it is not the packet's, the MTU of the route is told, not the device's. */
	struct bpf_fib_lookup fib = {
		.ifindex = skb->ifindex,
		.l4_protocol = p->key.protocol,
		.tot_len = 1,
	};
	long result;

	if (p->flags & PACKET_IPV6) {
		fib.family = 10; /* AF_INET6 */
		copy_address(fib.ipv6_src, from);
		copy_address(fib.ipv6_dst, to);
	} else {
		fib.family = 2; /* AF_INET */
		fib.ipv4_src = ipv4_of(from);
		fib.ipv4_dst = ipv4_of(to);
	}
	result = bpf_fib_lookup(skb, &fib, sizeof(fib), FIB_LOOKUP_SKIP_NEIGH);
	if (result < 0)
		result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	leg->ifindex = fib.ifindex;
	/* The length is overwritten by the MTU only when all has been found. */
	if (result == BPF_FIB_LKUP_RET_SUCCESS)
		leg->mtu = fib.mtu_result;
	else if (result == BPF_FIB_LKUP_RET_NO_NEIGH)
		leg->mtu = mtu_of(skb, fib.ifindex);
	else
		return 0;
	return 1;
}

/* Where the packets of the other direction than the one at hand are seen; 0: that is not known yet. Theirs is the
 * sender of the one at hand as receiver. */
static __always_inline __u32 hook_back(const struct workspace *w, __u32 direction, __u32 hook,
				       const struct party *sender, const struct party *receiver)
{
	__u32 device = hook & ~HOOK_EGRESS;

	if (comes_from_proxy(&w->packet.key, &w->flow, direction)) {
		if (receiver->place == PLACE_HOST)
			return 0; /* by loopback */
		if (receiver->place == PLACE_POD)
			device = receiver->ifindex;
		else if (overlay_ifindex && receiver->place == PLACE_REMOTE)
			device = overlay_ifindex;
		return device | HOOK_EGRESS;
	}
	if (sender->place == PLACE_POD)
		return sender->ifindex;
	if (sender->place == PLACE_HOST)
		return (receiver->ifindex ? receiver->ifindex : hook) | HOOK_EGRESS;
	if (overlay_ifindex && sender->place == PLACE_REMOTE)
		return overlay_ifindex;
	return w->packet.seen == TO_UPLINK && !w->known ? device : 0;
}

/* How packets of one direction go from here. */
static __always_inline void lead(struct workspace *w, __u32 direction, const struct party *sender,
				 const struct party *receiver)
{
	struct flow *flow = &w->flow;
	struct flow_leg *leg = &flow->leg[direction];
	const struct flow_leg *back = &flow->leg[!direction];
	int speaks = comes_from_proxy(&w->packet.key, flow, direction); /* the stack has chosen the device */

	leg->action = ACTION_ROUTE;
	if (receiver->place == PLACE_POD) {
		leg->action = leg->hook & HOOK_EGRESS ? ACTION_PASS : ACTION_LOCAL;
		leg->ifindex = receiver->ifindex;
		leg->mtu = 0;
		__builtin_memcpy(leg->mac, receiver->mac, sizeof(leg->mac));
	} else if (receiver->place == PLACE_HOST || (!speaks && (back->hook | leg->hook) & HOOK_EGRESS)) {
		leg->action = ACTION_PASS;
	} else if (overlay_ifindex && (receiver->place == PLACE_REMOTE ||
				       (back->hook == overlay_ifindex && !(flow->flags & FLOW_DIRECT)))) {
		leg->action = ACTION_TUNNEL;
		leg->ifindex = overlay_ifindex;
		leg->tunnel_identity = sender->identity;
		copy_address(leg->tunnel, receiver->node);
	} else if (speaks) {
		leg->action = ACTION_PASS;
		leg->ifindex = leg->hook & ~HOOK_EGRESS;
		leg->mtu = 0;
	}
	if (goes_to_proxy(&w->packet.key, flow, direction))
		leg->action = ACTION_PROXY;
}

/* As whom a connection leaves that may not leave as its initiator, if he is to be answered by us. NULL: as itself. */
static __always_inline const __u8 *other_source(const struct packet *p, const struct workspace *w)
{
	const struct flow *flow = &w->flow;
	__u32 ifindex = flow->leg[0].ifindex;
	const struct uplink *link;
	int served = flow->flags & FLOW_SERVED;

	/* Of a pod that calls itself: else it would answer itself, past us. */
	if (served && w->a.place == PLACE_POD && w->a.ifindex == w->b.ifindex)
		return flow->frontend;
	if (flow->leg[0].action == ACTION_TUNNEL)
		ifindex = 0; /* as whom other nodes know this one */
	else if (flow->leg[0].action != ACTION_ROUTE && p->seen != TO_UPLINK)
		return NULL;
	if (w->a.place == PLACE_POD) {
		if (!masquerade || !ifindex || w->b.flags & ADDRESS_ROUTED)
			return NULL;
		if (w->b.place != PLACE_OUTSIDE && !(w->b.place == PLACE_NODE && overlay_ifindex))
			return NULL;
	} else if (!served) {
		return NULL;
	}
	link = bpf_map_lookup_elem(&uplinks, &ifindex);
	return !link ? NULL : p->flags & PACKET_IPV6 ? link->ipv6 : link->ipv4;
}

/* How the backend, and not we, will answer a connection that begins: FLOW_WRAPPED, FLOW_TELLS; 0: it will not. */
static __always_inline __u8 direct_return(const struct workspace *w, const struct service_workspace *s)
{
	if (!(w->flow.flags & FLOW_SERVED) || w->a.place != PLACE_OUTSIDE)
		return 0;
	if (s->flags & FRONTEND_WRAPPED)
		return w->flow.leg[0].action == ACTION_ROUTE ? FLOW_WRAPPED : 0;
	if (s->flags & FRONTEND_DIRECT && w->b.place == PLACE_REMOTE) /* what a node itself answers, it does not hear */
		return FLOW_TELLS;
	return 0;
}

/* Gives a connection that begins the node's address, if it needs one. 0 or a drop reason. */
static __noinline int masquerade_flow(struct __sk_buff *skb, struct workspace *w, __u32 now)
{
	__u32 zero = 0;
	const struct service_workspace *s = bpf_map_lookup_elem(&service_workspaces, &zero);
	struct flow *flow = &w->flow;
	const __u8 *address = other_source(&w->packet, w);
	__u8 returns = s ? direct_return(w, s) : 0;
	__u16 more = growth(&w->packet, returns);

	if (returns && (address || returns == FLOW_TELLS)) {
		if (returns == FLOW_WRAPPED)
			copy_address(flow->nat_address, address);
		flow->flags |= returns;
		flow->leg[0].tunnel_identity = IDENTITY_WORLD;
		if (flow->leg[0].mtu > more)
			flow->leg[0].mtu -= more;
		return 0;
	}
	if (!address || !(address[0] | address[10] | address[15]))
		/* A client's connection would not come back through us. */
		return flow->flags & FLOW_SERVED && w->a.place != PLACE_POD &&
				       (flow->leg[0].action == ACTION_TUNNEL || flow->leg[0].action == ACTION_ROUTE) ?
			       DROP_UNROUTABLE : 0;
	copy_address(flow->nat_address, address);
	flow->flags |= FLOW_MASQUERADED;
	return take_port(skb, &w->packet, flow, now);
}

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
