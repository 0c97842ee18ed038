// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What stands behind an end of a tuple: `translations` has the tuple as one side of us sees it, ordered as in the
 * flow table, and who is meant by one of its ends: the initiator of a masqueraded connection, or a service's backend.
 *
 * Masquerading: a pod's connection to the outside, or a client's to a backend elsewhere, leaves with its node's
 * address and a port of the node's, from a range in which the node's own sockets never get theirs by chance. A port
 * is taken by inserting that entry; another connection to the same destination that would get the same tuple fails
 * to insert, and tries the next port. */
#pragma once
#include "config.h"
#include "flow.h"
#include "packet.h"
#include "succession.h"
#include "translate.h"

#define EEXIST 17
#define NAT_ATTEMPTS 32
#define TIME_WAIT 56 /* ticks: how long the other end may remember a connection that is over */

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       is_icmp(protocol);
}

static __always_inline struct translation *find_translation(const struct flow_key *key)
{
	struct translation *t = bpf_map_lookup_elem(&translations, key);

	return t ? t : bpf_map_lookup_elem(&half_open_translations, key);
}

/* The key of what passes between `outside` and an end that another stands behind. An ICMP query has one identifier,
 * which stands for the port on both sides; it is the end with another behind it that asks. Whether that is the lower
 * one. */
static __always_inline int outside_key(struct flow_key *key, const struct packet *p, const __u8 *end,
				       __be16 end_port, const __u8 *outside, __be16 outside_port)
{
	int icmp = is_icmp(p->key.protocol), low;

	__builtin_memset(key, 0, sizeof(*key));
	key->protocol = p->key.protocol;
	key->icmp_type = p->key.icmp_type;
	low = order(key, end, end_port, outside, icmp ? end_port : outside_port);
	if (icmp)
		key->asked_by_low = low;
	return low;
}

/* As the backend, or the outside, knows a masqueraded connection. */
static __always_inline int masqueraded_key(struct flow_key *key, const struct packet *p, const struct flow *flow)
{
	__u32 leg = leg_of(flow, p);

	return outside_key(key, p, flow->nat_address, flow->nat_port, leg ? source_of(p) : destination_of(p),
			   leg ? source_port_of(p) : destination_port_of(p));
}

/* As its client knows a connection to a service, and who stands behind that. */
static __always_inline void served_entry(struct flow_key *key, struct translation *t, const struct packet *p,
					 const struct flow *flow, __u32 now)
{
	__u32 leg = leg_of(flow, p);

	__builtin_memset(t, 0, sizeof(*t));
	copy_address(t->address, leg ? source_of(p) : destination_of(p));
	t->port = leg ? source_port_of(p) : destination_port_of(p);
	t->zone = p->key.zone;
	t->backend = flow->backend;
	t->seen = now;
	t->stands_for_low = outside_key(key, p, flow->frontend, flow->frontend_port,
					leg ? destination_of(p) : source_of(p),
					leg ? destination_port_of(p) : source_port_of(p));
}

static __always_inline int is_same_party(const struct translation *t, const struct translation *other)
{
	return t->port == other->port && t->zone == other->zone && same_address(t->address, other->address);
}

/* Where another stands behind the packet's destination: makes `p` what the connection's own ends know it as. The
 * bytes stay as they are until the packet is let through. Whether it is so. */
static __noinline int look_behind(struct packet *p)
{
	const struct translation *t = find_translation(&p->key);
	__be16 port = source_port_of(p);
	__u64 source[2];

	if (!t || t->stands_for_low == p->from_low)
		return 0;
	if (is_icmp(p->key.protocol))
		port = t->port;
	copy_address(source, source_of(p));
	p->from_low = order(&p->key, source, port, t->address, t->port);
	p->key.zone = t->zone;
	if (is_icmp(p->key.protocol))
		p->key.asked_by_low = !p->from_low;
	p->flags |= t->backend ? PACKET_SERVED : PACKET_TRANSLATED;
	return 1;
}

/* What giving a port, or a place, works on: too large for the stack. Programs on one CPU do not nest. */
struct nat_workspace {
	struct flow_key key, other;
	struct translation own;
	struct bpf_sock_tuple tuple;
	struct flow flow;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_workspace);
} nat_workspaces SEC(".maps");

/* Takes the connection of `p` out of all tables, and says that it has ended. Verified on its own. */
__noinline int forget(const struct packet *p, const struct flow *flow)
{
	const struct translation *known;
	struct translation own;
	struct flow_key key;

	if (!p || !flow)
		return 0;
	if (flow->state != FLOW_CLOSED)
		report_flow(&p->key, flow, EVENT_END);
	if ((flow->flags & (FLOW_MASQUERADED | FLOW_RELEASED)) == FLOW_MASQUERADED) {
		masqueraded_key(&key, p, flow);
		bpf_map_delete_elem(&half_open_translations, &key);
		bpf_map_delete_elem(&translations, &key);
	}
	if (flow->flags & FLOW_SERVED) {
		served_entry(&key, &own, p, flow, 0);
		known = find_translation(&key);
		/* Its client may have been given another backend meanwhile. */
		if (known && is_same_party(known, &own)) {
			bpf_map_delete_elem(&half_open_translations, &key);
			bpf_map_delete_elem(&translations, &key);
		}
	}
	key = p->key; /* on our own stack: see `judge` */
	bpf_map_delete_elem(&half_open, &key);
	bpf_map_delete_elem(&flows, &key);
	return 0;
}

/* Gives the translations of an answered connection their places. 0, or a negative number where there is none. */
static __noinline int settle_translations(const struct packet *p, const struct flow *flow, struct nat_workspace *w)
{
	const struct translation *known;

	if (flow->flags & FLOW_MASQUERADED) {
		masqueraded_key(&w->key, p, flow);
		known = bpf_map_lookup_elem(&half_open_translations, &w->key);
		if (!known || bpf_map_update_elem(&translations, &w->key, known, BPF_ANY))
			return -1;
	}
	if (flow->flags & FLOW_SERVED) {
		served_entry(&w->other, &w->own, p, flow, ticks());
		if (!bpf_map_update_elem(&translations, &w->other, &w->own, BPF_NOEXIST))
			return 0;
		known = bpf_map_lookup_elem(&translations, &w->other);
		if (!known || !is_same_party(known, &w->own))
			return -1;
	}
	return 0;
}

/* Gives a connection that has been answered a place from which nothing displaces it. Where there is none,
 * or its endpoint has had its share, it stays among those that newer ones may displace.
 * Whether it has been given one: `flow` is gone then, and the other entry counts. Verified on its own. */
__noinline int settle(const struct packet *p, struct flow *flow)
{
	struct flow_key own;
	struct usage *share;
	__u32 endpoint, zero = 0;
	struct nat_workspace *w = bpf_map_lookup_elem(&nat_workspaces, &zero);
	long result;

	if (!p || !flow || !w)
		return 0;
	endpoint = flow->source_endpoint ? flow->source_endpoint : flow->destination_endpoint;
	share = bpf_map_lookup_elem(&usage, &endpoint);
	/* What has no pod at either end, a balancer's connections, has no quota. */
	if (!share || (endpoint && share->held - share->collected >= flow_quota) || sharing())
		return 0;
	if (settle_translations(p, flow, w))
		return 0;
	flow->flags |= FLOW_SETTLED;
	own = p->key; /* on our own stack: see `judge` */
	w->flow = *flow;
	result = bpf_map_update_elem(&flows, &own, &w->flow, BPF_NOEXIST);
	if (result == -EEXIST) /* another CPU has just done the same */
		return 1;
	if (result) {
		flow->flags &= ~FLOW_SETTLED;
		if (flow->flags & FLOW_MASQUERADED)
			bpf_map_delete_elem(&translations, &w->key);
		if (flow->flags & FLOW_SERVED)
			bpf_map_delete_elem(&translations, &w->other);
		return 0;
	}
	__sync_fetch_and_add(&share->held, 1);
	if (flow->flags & FLOW_MASQUERADED)
		bpf_map_delete_elem(&half_open_translations, &w->key);
	if (flow->flags & FLOW_SERVED)
		bpf_map_delete_elem(&half_open_translations, &w->other);
	bpf_map_delete_elem(&half_open, &own);
	return 1;
}

/* Counts a connection that got no port, for the destination that it was for. */
static __noinline int count_exhausted(const struct packet *p)
{
	struct destination to = { .port = destination_port_of(p), .protocol = p->key.protocol };
	struct counter one = { .packets = 1 }, *known;

	copy_address(to.address, destination_of(p));
	known = bpf_map_lookup_elem(&exhausted, &to);
	if (known)
		__sync_fetch_and_add(&known->packets, 1);
	else
		bpf_map_update_elem(&exhausted, &to, &one, BPF_ANY);
	return DROP_NAT_EXHAUSTED;
}

/* Whether the port that `other` has may become that of the connection which `p` begins, and is then not
 * that of its own any more. It may when that is over. But the server at the other end may remember that one
 * (TIME_WAIT), and refuse what looks older; from the same pod nothing does, for its clock goes on (RFC 6191).
 * Only when no other port is to be had, in `need`, one is given that may be refused. */
static __always_inline int may_take(const struct packet *p, const struct translation *other, __u32 now, int need,
				    struct flow_key *key)
{
	struct flow *owner;
	__u32 seen = other->seen;
	int free;

	outside_key(key, p, other->address, other->port, destination_of(p), destination_port_of(p));
	key->zone = other->zone;
	owner = find_flow(key);
	if (owner) {
		if (owner->state != FLOW_CLOSED && !expired(owner, now))
			return 0;
		seen = owner->seen;
	} else if ((__s32)(now - seen) <= 1) {
		return 0; /* its flow is about to be written */
	}
	free = need || p->key.protocol != IPPROTO_TCP || same_address(other->address, source_of(p)) ||
	       (__s32)(now - seen) > TIME_WAIT;
	if (owner && free)
		owner->flags |= FLOW_RELEASED;
	return free;
}

/* Of a masqueraded connection that has no place of its own yet: whether its port is its own still. What has
 * been displaced meanwhile is put back; what another has taken is lost. Verified on its own. */
__noinline int keeps_port(const struct packet *p, const struct flow *flow, __u32 now)
{
	struct translation t = { .seen = now }, *known;
	struct flow_key key;

	if (!p || !flow)
		return 0;
	copy_address(t.address, source_of(p));
	t.port = source_port_of(p);
	t.zone = p->key.zone;
	t.stands_for_low = masqueraded_key(&key, p, flow);
	known = find_translation(&key);
	if (!known)
		return !bpf_map_update_elem(&half_open_translations, &key, &t, BPF_NOEXIST);
	return is_same_party(known, &t);
}

/* Whether the node itself has a socket that the answers to this connection would be for. The overlay's are
 * tunnels' outsides, whoever sends them. */
static __always_inline int port_of_a_socket(struct __sk_buff *skb, const struct packet *p, const struct flow *flow,
					    struct bpf_sock_tuple *tuple)
{
	struct bpf_sock *socket;
	__u32 size;

	if (p->key.protocol != IPPROTO_TCP && p->key.protocol != IPPROTO_UDP)
		return 0;
	if (overlay_ifindex && p->key.protocol == IPPROTO_UDP && flow->nat_port == overlay_port)
		return 1;
	if (p->flags & PACKET_IPV6) {
		size = sizeof(tuple->ipv6);
		copy_address(tuple->ipv6.saddr, destination_of(p));
		copy_address(tuple->ipv6.daddr, flow->nat_address);
		tuple->ipv6.sport = destination_port_of(p);
		tuple->ipv6.dport = flow->nat_port;
	} else {
		size = sizeof(tuple->ipv4);
		tuple->ipv4.saddr = ipv4_of(destination_of(p));
		tuple->ipv4.daddr = ipv4_of(flow->nat_address);
		tuple->ipv4.sport = destination_port_of(p);
		tuple->ipv4.dport = flow->nat_port;
	}
	socket = p->key.protocol == IPPROTO_TCP ? bpf_skc_lookup_tcp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0) :
						  bpf_sk_lookup_udp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

/* Tries to give a port to the connection that `p` begins; `flow` has the address and the port. The entry is
 * made among the half-open ones, and moves with its flow. Whether it has been given. Verified on its own. */
__noinline int try_port(struct __sk_buff *skb, struct packet *p, struct flow *flow, __u32 now, int need)
{
	__u32 zero = 0;
	struct nat_workspace *w = bpf_map_lookup_elem(&nat_workspaces, &zero);
	struct translation *other;

	if (!p || !flow || !w || port_of_a_socket(skb, p, flow, &w->tuple))
		return 0;
	copy_address(w->own.address, source_of(p));
	w->own.port = source_port_of(p);
	w->own.zone = p->key.zone;
	w->own.seen = now;
	w->own.backend = 0;
	w->own.stands_for_low = outside_key(&w->key, p, flow->nat_address, flow->nat_port, destination_of(p),
					    destination_port_of(p));
	if (predecessors_translate(&w->key))
		return 0;
	/* In this order: what moves from one table to the other is in either at every moment. */
	if (!bpf_map_update_elem(&half_open_translations, &w->key, &w->own, BPF_NOEXIST)) {
		other = bpf_map_lookup_elem(&translations, &w->key);
		if (!other)
			return 1;
		bpf_map_delete_elem(&half_open_translations, &w->key);
	} else {
		other = find_translation(&w->key);
	}
	if (!other)
		return 0;
	if (!is_same_party(other, &w->own) && !may_take(p, other, now, need, &w->other))
		return 0;
	bpf_map_update_elem(&half_open_translations, &w->key, &w->own, BPF_ANY);
	bpf_map_delete_elem(&translations, &w->key);
	return 1;
}

/* Takes a port for the connection that `p` begins. 0, or DROP_NAT_EXHAUSTED when none of those tried was
 * free. */
static __always_inline int take_port(struct __sk_buff *skb, struct packet *p, struct flow *flow, __u32 now)
{
	__u32 range = nat_port_last - nat_port_first + 1;
	__u16 wanted = bpf_ntohs(source_port_of(p));

	if (!has_ports(p->key.protocol))
		return try_port(skb, p, flow, now, 1) ? 0 : count_exhausted(p);
	/* Pods choose their ports one after the other in ranges about as wide as ours: taking them
	 * modulo the range keeps the connections of one pod apart without a search. */
	for (int i = 0; i < NAT_ATTEMPTS; i++) {
		flow->nat_port = bpf_htons(nat_port_first + wanted % range);
		if (try_port(skb, p, flow, now, i >= NAT_ATTEMPTS / 2))
			return 0;
		wanted = wanted * 5 + 7919 + (bpf_get_prandom_u32() & 0x3ff);
	}
	return count_exhausted(p);
}
