// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Whether policy lets a connection pass: the sender's half and the receiver's. */
#pragma once
#include "workspace.h"

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
