// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* From what a client calls to the connection's own tuple: a packet for a service is given a backend, and goes on as
 * that one's. Which backend it is, `translations` tells the packets that follow.
 *
 * Nothing is translated twice: a backend that is a frontend again, of whatever service, is called as it stands. */
#pragma once
#include "choose.h"
#include "config.h"
#include "direct.h"
#include "flow.h"
#include "known.h"
#include "nat.h"
#include "party.h"

enum decision { DECIDED = 0, NOT_OURS = 1, BROKEN_OFF = 2 }; /* else a negative drop reason, reported already */

/* How many times one is chosen to find a backend with which this client has no other connection from the same port. */
#define SERVICE_ATTEMPTS 3

/* Too large for the stack. Programs on one CPU do not nest. */
struct service_workspace {
	struct called called; /* what a new connection called, and what it got */
	__u32 served;	      /* whether there is one */
	__u32 told;	      /* whether another node has said so */
	__u32 flags;	      /* enum frontend_flag, of what was called */
	struct packet packet;
	struct party client, other;
	struct flow_key outside; /* as the client knows the connection */
	struct translation own;
	struct circumstances c;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct service_workspace);
} service_workspaces SEC(".maps");

/* hosted: whether this node itself is a backend to anybody outside. Written by the datapath, once and for all. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} hosted SEC(".maps");

static __always_inline void expect_answers(void)
{
	__u32 zero = 0, *yes = bpf_map_lookup_elem(&hosted, &zero);

	if (yes)
		*yes = 1;
}

static __always_inline int expects_answers(void)
{
	__u32 zero = 0, *yes = bpf_map_lookup_elem(&hosted, &zero);

	return yes && *yes;
}

/* ---- which service ------------------------------------------------------------------------------ */

static __always_inline int is_balanced(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* What a packet is addressed to: exactly that, or the port on every address of the node. NULL: no service. */
static __noinline const struct frontend *find_frontend(const struct packet *p)
{
	struct frontend_key key = { .port = destination_port_of(p), .protocol = p->key.protocol };
	const struct frontend *found;

	if (!is_balanced(p->key.protocol))
		return NULL;
	copy_address(key.address, destination_of(p));
	found = bpf_map_lookup_elem(&frontends, &key);
	if (found)
		return found;
	__builtin_memset(key.address, 0, sizeof(key.address));
	if (!(p->flags & PACKET_IPV6))
		map_ipv4(key.address, 0);
	found = bpf_map_lookup_elem(&frontends, &key);
	return found && is_own(destination_of(p)) ? found : NULL;
}

/* What stands for all that nothing else is said of, if the address is a service's, and nobody's else; else NULL. It
 * has no number of a service. */
static __noinline const struct frontend *find_marker(const struct packet *p)
{
	struct frontend_key key = {};

	copy_address(key.address, destination_of(p));
	return bpf_map_lookup_elem(&frontends, &key);
}

/* Whether a packet from outside is for a service: for one of its ports, or for its address, which is nobody else's. A
 * router that sends us such an address would get from our stack what nothing takes here, and send it back. */
static __always_inline int is_for_a_service(const struct packet *p)
{
	return find_frontend(p) || find_marker(p);
}

static __noinline int is_in_range(const struct packet *p, __u32 service)
{
	struct source_range_key key = { .prefix_length = 32 + 128, .service = service };

	copy_address(key.address, source_of(p));
	return bpf_map_lookup_elem(&source_ranges, &key) != NULL;
}

/* ---- which backend ------------------------------------------------------------------------------ */

#define MIX(hash, word)                          \
	word *= 0xcc9e2d51;                      \
	word = (word << 15 | word >> 17) * 0x1b873593; \
	hash ^= word;                            \
	hash = (hash << 13 | hash >> 19) * 5 + 0xe6546b64;

/* MurmurHash3 (x86, 32 bits, seed 0) over 40 bytes: source, destination, source port, destination port, protocol,
 * and three zeros, as they stand in tables. All machines that share an address choose by it. */
static __always_inline __u32 tuple_hash(const struct packet *p)
{
	const __u32 *source = (const __u32 *)source_of(p), *destination = (const __u32 *)destination_of(p);
	__u32 hash = 0, word;

	for (int i = 0; i < 4; i++) {
		word = source[i];
		MIX(hash, word)
	}
	for (int i = 0; i < 4; i++) {
		word = destination[i];
		MIX(hash, word)
	}
	word = source_port_of(p) | (__u32)destination_port_of(p) << 16;
	MIX(hash, word)
	word = p->key.protocol;
	MIX(hash, word)
	hash ^= 40;
	hash = (hash ^ hash >> 16) * 0x85ebca6b;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* Whether backend `number` is where the connection has it. */
static __noinline int still_stands(__u32 number, const __u8 *address, __be16 port)
{
	const struct backend *backend = bpf_map_lookup_elem(&backends, &number);

	return backend && backend->port == port && same_address(backend->address, address);
}

/* Writes down whom the client has got. What is written already, for a packet of the same connection on another CPU,
 * or one whose flow has been displaced, stays while it stands. 0, or a drop reason. */
static __noinline int enter(struct service_workspace *w)
{
	const struct translation *other;
	int fresh;

	/* In this order: what moves from one table to the other is in either at every moment. */
	if (!bpf_map_update_elem(&half_open_translations, &w->outside, &w->own, BPF_NOEXIST)) {
		other = bpf_map_lookup_elem(&translations, &w->outside);
		if (!other)
			return 0;
		bpf_map_delete_elem(&half_open_translations, &w->outside);
	} else {
		other = find_translation(&w->outside);
		if (!other)
			return DROP_FLOW_TABLE_FULL;
	}
	if (!other->backend || other->stands_for_low != w->own.stands_for_low)
		return DROP_NAT_EXHAUSTED; /* the port is a masqueraded connection's */
	fresh = (__s32)(w->own.seen - other->seen) <= 1;
	if ((fresh || !is_syn(&w->packet)) && still_stands(other->backend, other->address, other->port)) {
		w->own = *other;
		return 0;
	}
	bpf_map_update_elem(&half_open_translations, &w->outside, &w->own, BPF_ANY);
	bpf_map_delete_elem(&translations, &w->outside);
	return 0;
}

/* Makes the packet one to the backend in `w->own`. */
static __noinline void address_backend(struct service_workspace *w)
{
	struct packet *p = &w->packet;
	__be16 port = source_port_of(p);
	__u64 source[2];

	copy_address(source, source_of(p));
	p->from_low = order(&p->key, source, port, w->own.address, w->own.port);
	p->flags |= PACKET_SERVED;
	w->called.backend = w->own.backend;
}

/* Also that is over which a backend has begun towards its client, as an answer whose connection had been displaced:
 * the client calls the service, and has not answered that. */
static __always_inline int is_over(const struct flow *flow, const struct packet *p)
{
	return expired(flow, ticks()) || begins_anew(flow, p) ||
	       (p->flags & (PACKET_SERVED | PACKET_TOLD) && leg_of(flow, p) && is_unanswered(flow));
}

/* Whether the sender may call services as who he says he is: who may not ends no connection by it. */
static __noinline int may_call(struct __sk_buff *skb, struct service_workspace *w, __u32 hook)
{
	const struct packet *p = &w->packet;

	if (p->seen != FROM_POD && p->seen != FROM_UPLINK)
		return 0;
	resolve(source_of(p), &w->client);
	return !validate(skb, p, hook, &w->client, &w->other);
}

/* Whether the client has another connection to this backend from the same port, by another way: two would have one
 * tuple. One that is over is forgotten, and, in `need`, one of which nobody knows whether it is: all but TCP. */
static __noinline int is_taken(const struct service_workspace *w, int need)
{
	const struct called *called = &w->called;
	const struct packet *p = &w->packet;
	const struct flow *flow = find_flow(&p->key);

	if (!flow)
		return 0;
	if (is_over(flow, p)) {
		forget(p, flow);
		return 0;
	}
	if (flow->flags & FLOW_SERVED && flow->frontend_port == called->frontend_port &&
	    same_address(flow->frontend, called->frontend))
		return 0;
	if (!need || p->key.protocol == IPPROTO_TCP)
		return 1;
	forget(p, flow);
	return 0;
}

/* Chooses a backend for the client in `w->packet`. Whether there is one. */
static __noinline int pick(struct service_workspace *w, __u32 hash)
{
	const struct backend *backend;
	__u64 client[2];
	__u32 number;

	copy_address(client, source_of(&w->packet));
	backend = choose(w->called.service, client, hash, &number);
	if (!backend)
		return 0;
	copy_address(w->own.address, backend->address);
	w->own.port = backend->port;
	w->own.backend = number;
	return 1;
}

/* Writes down as whose the client knows the connection. The hash of its tuple. */
static __noinline __u32 begin_call(struct service_workspace *w)
{
	const struct packet *p = &w->packet;

	w->own.seen = ticks();
	w->own.stands_for_low = outside_key(&w->outside, p, w->called.frontend, w->called.frontend_port,
					    source_of(p), source_port_of(p));
	return tuple_hash(p);
}

/* Gives the connection of `w->packet` a backend of `w->called.service`. 0 or a drop reason. */
static __noinline int balance(struct service_workspace *w)
{
	__u32 hash = begin_call(w);
	int reason;

	for (int i = 0; i < SERVICE_ATTEMPTS; i++) {
		if (!pick(w, hash + i))
			return DROP_NO_BACKEND;
		address_backend(w);
		if (!is_taken(w, i == SERVICE_ATTEMPTS - 1)) {
			reason = enter(w);
			address_backend(w);
			return reason;
		}
	}
	return DROP_NAT_EXHAUSTED;
}

/* ---- the slow path ------------------------------------------------------------------------------ */

/* Says why the packet goes no further. A negative drop reason. */
static __noinline int refuse_call(struct __sk_buff *skb, struct service_workspace *w, __u32 hook, int reason)
{
	w->c.called = w->called;
	report_drop(skb, &w->packet, hook, reason, &w->c);
	return -reason;
}

/* What becomes of a packet of a connection that stands. 0: it goes on. 1: it has to get another backend. Else a
 * negative drop reason: it is no packet of it, or its backend is gone. */
static __noinline int go_on(struct __sk_buff *skb, struct service_workspace *w, __u32 hook, const struct flow *flow)
{
	struct packet *p = &w->packet;
	__u32 leg = leg_of(flow, p);

	/* Two connections that differ only in whether they are translated would have one tuple. */
	if (!is_called_so(flow, p, leg)) {
		if ((leg && !(p->flags & PACKET_SERVED)) || !may_call(skb, w, hook))
			return refuse_call(skb, w, hook, DROP_INVALID_SOURCE);
		if (p->key.protocol == IPPROTO_TCP)
			return refuse_call(skb, w, hook, DROP_NAT_EXHAUSTED);
		forget(p, flow);
		return 1;
	}
	if (!(flow->flags & FLOW_SERVED))
		return 0;
	remember_call(&w->called, flow);
	w->served = !leg;
	if (still_stands(flow->backend, leg ? source_of(p) : destination_of(p),
			 leg ? source_port_of(p) : destination_port_of(p)))
		return 0;
	w->served = 0;
	if (!leg) {
		forget(p, flow);
		if (p->key.protocol != IPPROTO_TCP || is_syn(p))
			return 1;
	}
	return refuse_call(skb, w, hook, DROP_NO_BACKEND);
}

/* Which service it is for, and may this client call it? 0, NOT_OURS, or a negative drop reason. */
static __noinline int admit(struct __sk_buff *skb, struct service_workspace *w, __u32 hook,
			    const struct frontend *frontend)
{
	struct packet *p = &w->packet;
	int outside, reason;

	copy_address(w->called.frontend, destination_of(p));
	w->called.frontend_port = destination_port_of(p);
	resolve(source_of(p), &w->client);
	reason = validate(skb, p, hook, &w->client, &w->other);
	if (reason)
		return refuse_call(skb, w, hook, reason);
	outside = w->client.place == PLACE_OUTSIDE;
	if (outside && !(frontend->flags & FRONTEND_EXTERNAL))
		return NOT_OURS;
	if (!frontend->service && is_echo_request(p))
		return -DROP_NO_BACKEND; /* which is answered as it deserves */
	if (!frontend->service)
		return refuse_call(skb, w, hook, DROP_NO_BACKEND);
	w->called.service = outside ? frontend->outside : frontend->service;
	w->flags = frontend->flags;
	if (outside && frontend->flags & FRONTEND_SOURCE_RANGES && !is_in_range(p, w->called.service))
		return refuse_call(skb, w, hook, DROP_NOT_IN_SOURCE_RANGE);
	return 0;
}

/* Finds the backend of a packet that is for a service, and makes `p` one for that. 0: so it is, or it is for none.
 * NOT_OURS, or a negative drop reason. Verified on its own. */
__noinline int serve(struct __sk_buff *skb, struct packet *p, __u32 hook)
{
	__u32 zero = 0;
	struct service_workspace *w = bpf_map_lookup_elem(&service_workspaces, &zero);
	const struct frontend *frontend;
	const struct flow *flow;
	int result, served;

	if (!p || !w)
		return -DROP_INVALID_PACKET;
	__builtin_memset(w, 0, sizeof(*w));
	w->told = (p->seen == FROM_UPLINK || p->seen == FROM_OVERLAY) && hear(skb, p, &w->called);
	if (w->told)
		p->flags |= PACKET_TOLD;
	w->packet = *p; /* see `judge` */
	flow = find_flow(&w->packet.key);
	if (flow && !is_over(flow, &w->packet)) {
		result = go_on(skb, w, hook, flow);
		if (result <= 0)
			return result;
		flow = NULL;
	}
	if (p->flags & (PACKET_TRANSLATED | PACKET_ICMP_ERROR))
		return 0;
	if (w->told)
		return 0;
	if ((p->seen != FROM_POD && p->seen != FROM_UPLINK) || (flow && !may_call(skb, w, hook)))
		return 0;
	served = p->flags & PACKET_SERVED;
	if (served) {
		if (flow)
			forget(&w->packet, flow);
		if (read_again(skb, &w->packet))
			return -DROP_INVALID_PACKET;
		*p = w->packet;
	}
	frontend = find_frontend(&w->packet);
	if (!frontend)
		frontend = find_marker(&w->packet);
	if (!frontend)
		return 0;
	if (flow && !served)
		forget(&w->packet, flow);
	result = admit(skb, w, hook, frontend);
	if (result)
		return result;
	result = balance(w);
	if (result)
		return refuse_call(skb, w, hook, result);
	w->served = 1;
	*p = w->packet;
	return 0;
}
