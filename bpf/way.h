// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which way the packets of a connection go, there and back, and as whom it leaves. */
#pragma once
#include "config.h"
#include "nat.h"
#include "service.h"
#include "workspace.h"

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
