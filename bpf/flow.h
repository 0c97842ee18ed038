// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The flow table: is what was decided for this connection still true, and where is the connection
 * in its life? */
#pragma once
#include "config.h"
#include "packet.h"
#include "report.h"

/* 0: `p` goes the initiator's way, 1: it is a reply. */
static __always_inline __u32 leg_of(const struct flow *flow, const struct packet *p)
{
	return (flow->flags & FLOW_FROM_LOW) != p->from_low;
}

static __always_inline int expired(const struct flow *flow, __u32 now)
{
	/* Signed: another CPU may have written a tick that is later than ours. */
	return (__s32)(now - flow->seen) > (__s32)lifetime[flow->state % FLOW_STATES];
}

static __always_inline struct flow *find_flow(const struct flow_key *key)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	return flow ? flow : bpf_map_lookup_elem(&half_open, key);
}

static __always_inline __u16 subject_slot(__u32 identity)
{
	return identity % EPOCH_SUBJECTS;
}

static __always_inline __u16 address_slot(const __u8 *address)
{
	const __u32 *w = (const __u32 *)address;
	__u32 h = (w[0] ^ w[1] ^ w[2] ^ w[3]) * 0x9e3779b1u;

	return EPOCH_SUBJECTS + (h >> 16) % EPOCH_ADDRESSES;
}

/* The sum moves when any of the four moves, for none of them ever goes back. */
static __always_inline __u32 epoch_of(const __u16 slots[4])
{
	__u32 zero = 0, mask = EPOCH_SUBJECTS + EPOCH_ADDRESSES - 1;
	struct epochs *e = bpf_map_lookup_elem(&epochs, &zero);

	if (!e)
		return 0;
	return e->slot[slots[0] & mask] + e->slot[slots[1] & mask] + e->slot[slots[2] & mask] +
	       e->slot[slots[3] & mask];
}

static __always_inline int is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A SYN after the end of a connection begins another one with the same ports, and so does one that comes
 * from its other end (unless both call at once): it must not pass for an answer. */
static __always_inline int begins_anew(const struct flow *flow, const struct packet *p)
{
	return is_syn(p) &&
	       (flow->state == FLOW_CLOSING || flow->state == FLOW_CLOSED ||
		(leg_of(flow, p) && (flow->state != FLOW_SYN_SENT || flow->leg[1].packets)));
}

static __always_inline int is_unanswered(const struct flow *flow)
{
	return flow->state == FLOW_SYN_SENT || flow->state == FLOW_ONE_WAY;
}

static __always_inline __u8 first_state(const struct packet *p)
{
	/* TCP also without SYN: a connection older than our table, taken up in the middle. */
	return p->key.protocol == IPPROTO_TCP ? FLOW_SYN_SENT : FLOW_ONE_WAY;
}

/* Whether the answers of a connection do not come by here. */
static __always_inline int answers_elsewhere(const struct flow *flow)
{
	/* The node itself is answered by its proxy by its own loopback. */
	return flow->flags & (FLOW_TELLS | FLOW_WRAPPED) || (flow->proxy_port && !flow->leg[1].hook);
}

/* Whether the packet shows that both ends keep the connection up. Over TCP the initiator has to go on after he was
 * answered: who begins in another's name never hears the answer, and his flood must not look like connections.
 * Where answers do not come by here, what begins nothing shows that there were some. */
static __always_inline int shows_both(const struct flow *flow, const struct packet *p, __u32 leg)
{
	if (!flow->leg[0].hook) /* the node itself hears its proxy by its own loopback */
		return leg;
	if (answers_elsewhere(flow))
		return leg || (flow->leg[0].packets > 1 && !is_syn(p));
	return flow->state == FLOW_SYN_SENT ? !leg && flow->leg[1].packets && !is_syn(p) : leg;
}

/* Follows the connection by the packet's flags. Sequence numbers are not checked: a forged RST
 * shortens an idle entry's life, and no more, because packets that come keep it alive. */
static __always_inline void track(const struct packet *p, struct flow *flow, __u32 leg)
{
	__u8 state = flow->state;

	if (p->tcp_flags & (TCP_FIN | TCP_RST | TCP_SYN))
		flow->leg[leg].tcp_flags |= p->tcp_flags;
	if (state == FLOW_CLOSED)
		return;
	if (p->tcp_flags & TCP_RST)
		state = FLOW_CLOSED;
	else if (p->tcp_flags & TCP_FIN)
		state = (flow->leg[!leg].tcp_flags & TCP_FIN) ? FLOW_CLOSED : FLOW_CLOSING;
	else if (state == FLOW_SYN_SENT && shows_both(flow, p, leg))
		state = FLOW_ESTABLISHED;
	else if (state == FLOW_ONE_WAY && shows_both(flow, p, leg))
		state = FLOW_TWO_WAY;
	else
		return;
	flow->state = state;
	if (state == FLOW_CLOSED)
		report_flow(&p->key, flow, EVENT_END);
}

/* Whether the connection is one that both ends keep up, and has no place of its own yet. */
static __always_inline int unsettled(const struct flow *flow, const struct packet *p, __u32 leg)
{
	return !(flow->flags & FLOW_SETTLED) && (leg || !answers_elsewhere(flow)) && is_unanswered(flow) &&
	       !(p->tcp_flags & TCP_RST) && shows_both(flow, p, leg);
}

static __always_inline void account(struct __sk_buff *skb, const struct packet *p, struct flow *flow,
				    __u32 leg, __u32 now)
{
	flow->leg[leg].packets += skb->gso_segs > 1 ? skb->gso_segs : 1;
	flow->leg[leg].bytes += skb->len - ETH_HLEN;
	/* Written once a tick, so that the two directions do not fight over the cache line. */
	if (flow->seen != now)
		flow->seen = now;
	if ((p->tcp_flags & (TCP_FIN | TCP_RST | TCP_SYN)) || is_unanswered(flow))
		track(p, flow, leg);
}
