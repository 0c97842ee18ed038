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

/* Whether an identity of this node and its peer have proved to each other who they are, for what policy (`flags`) asks.
 * If not, the agent finds the pair in the table. */
static __always_inline int has_proof(struct workspace *w, __u32 subject, const struct party *peer, __u8 flags)
{
	struct authentication_key *key = &w->pair;
	const struct authentication *found;

	if (!(flags & POLICY_AUTHENTICATE))
		return 1;
	if (flags & POLICY_ALWAYS_FAIL)
		return 0;
	key->subject = subject;
	key->peer = peer->identity;
	copy_address(key->node, peer->node);
	found = bpf_map_lookup_elem(&authenticated, key);
	if (found)
		return bpf_ktime_get_boot_ns() < found->until;
	/* Others have no identity that anybody could vouch for. */
	if ((peer->place == PLACE_POD || peer->place == PLACE_REMOTE) && key->peer >= IDENTITY_FIRST_CLUSTER &&
	    key->peer < IDENTITY_FIRST_LOCAL)
		bpf_map_update_elem(&authenticated, key, &w->missing, BPF_NOEXIST);
	return 0;
}

/* Of a connection that policy allows once both ends have proved who they are: whether they have. Verified on its own. */
__noinline int authenticate(__u32 unused)
{
	__u32 zero = 0;
	struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	int egress, ingress;

	if (!w)
		return 0;
	egress = has_proof(w, w->a.identity, &w->b, w->egress.flags);
	ingress = has_proof(w, w->b.identity, &w->a, w->ingress.flags);
	if (egress && ingress)
		w->flow.shadow |= SHADOW_AUTHENTICATED;
	else if (egress)
		w->c.flags |= EVENT_INGRESS;
	return egress && ingress;
}
