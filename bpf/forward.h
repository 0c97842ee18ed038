// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Doing what a leg of a flow says. Only this file sends packets anywhere. */
#pragma once
#include <linux/pkt_cls.h>
#include "config.h"
#include "direct.h"
#include "flow.h"
#include "nat.h"
#include "steer.h"

/* Whether it is too large for a way. Of a large send, which is cut into segments behind us, these count. */
static __always_inline int too_big(struct __sk_buff *skb, const struct packet *p, const struct flow_leg *leg)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 mtu = leg->mtu, head = p->l4 - ETH_HLEN;
	__u8 *l4 = data + p->l4;

	if (!mtu || skb->len <= mtu + ETH_HLEN)
		return 0;
	if (!skb->gso_size)
		return 1;
	if (p->key.protocol == IPPROTO_SCTP) /* a list of packets that each fit */
		return 0;
	if (p->key.protocol != IPPROTO_TCP)
		return head + 8 + skb->gso_size > mtu;
	if ((void *)(l4 + sizeof(struct tcphdr)) > end)
		return 1;
	return head + (l4[12] >> 4) * 4 + skb->gso_size > mtu;
}

/* Whether somebody behind us makes fragments of it: the node's stack, or the tunnel of its own frame. */
static __always_inline int may_be_cut(const struct packet *p, const struct flow *flow)
{
	return p->flags & PACKET_MAY_FRAGMENT && !(flow->flags & FLOW_TRANSLATED);
}

/* Why the packet cannot go this way as it is, before anything in it is changed: a drop reason, or 0. */
static __always_inline int obstacle(struct __sk_buff *skb, const struct packet *p, const struct flow_leg *leg)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 *ip = data + ETH_HLEN;

	if (leg->action == ACTION_PASS || leg->action == ACTION_PROXY)
		return 0;
	if ((void *)(ip + sizeof(struct iphdr)) > end)
		return DROP_INVALID_PACKET;
	if ((p->flags & PACKET_IPV6 ? ip[7] : ip[8]) <= 1)
		return DROP_TTL_EXCEEDED;
	return too_big(skb, p, leg) ? DROP_TOO_BIG : 0;
}

/* Decrements the TTL and writes the link layer addresses. A positive drop reason, or 0. */
static __always_inline int next_hop(struct __sk_buff *skb, const struct packet *p, const __u8 *destination,
				    const volatile __u8 *source)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (p->flags & PACKET_IPV6) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end)
			return DROP_INVALID_PACKET;
		if (ip->hop_limit <= 1)
			return DROP_TTL_EXCEEDED;
		ip->hop_limit--;
	} else {
		struct iphdr *ip = data + ETH_HLEN;
		__u32 sum;

		if ((void *)(ip + 1) > end)
			return DROP_INVALID_PACKET;
		if (ip->ttl <= 1)
			return DROP_TTL_EXCEEDED;
		ip->ttl--;
		/* RFC 1141: the TTL is the upper byte of its 16-bit word. */
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xffff);
	}
	if (destination) {
		__builtin_memcpy(eth->h_dest, destination, ETH_ALEN);
		for (int i = 0; i < ETH_ALEN; i++)
			eth->h_source[i] = source[i];
	}
	return 0;
}

/* Tells the overlay device where to and from whom. 0 or a negative drop reason. */
static __noinline int tunnel_to(struct __sk_buff *skb, const struct flow_leg *leg)
{
	struct bpf_tunnel_key key = { .tunnel_id = leg->tunnel_identity, .tunnel_ttl = 64 };
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (underlay_ipv6) {
		copy_address(key.remote_ipv6, leg->tunnel);
		flags = BPF_F_TUNINFO_IPV6;
	} else {
		key.remote_ipv4 = bpf_ntohl(ipv4_of(leg->tunnel));
	}
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags))
		return -DROP_NO_TUNNEL_ENDPOINT;
	return 0;
}

/* Sends a packet that is translated already along a leg: a TC action, or a negative drop reason. */
static __always_inline int send(struct __sk_buff *skb, const struct packet *p, const struct flow_leg *leg)
{
	__u8 overlay_to[6];
	int reason;

	switch (leg->action) {
	case ACTION_LOCAL:
		reason = next_hop(skb, p, leg->mac, gateway_mac);
		return reason ? -reason : bpf_redirect_peer(leg->ifindex, 0);
	case ACTION_TUNNEL:
		for (int i = 0; i < ETH_ALEN; i++)
			overlay_to[i] = overlay_mac[i];
		reason = next_hop(skb, p, overlay_to, gateway_mac);
		if (reason)
			return -reason;
		reason = tunnel_to(skb, leg);
		if (reason || p->seen == TO_OVERLAY)
			return reason;
		return bpf_redirect(overlay_ifindex, 0);
	case ACTION_ROUTE:
		reason = next_hop(skb, p, NULL, NULL);
		return reason ? -reason : bpf_redirect_neigh(leg->ifindex, NULL, 0, 0);
	default:
		return TC_ACT_OK;
	}
}

/* Sends a packet that is translated already the way its direction of the flow goes: a TC action, or a negative drop
 * reason. */
static __always_inline int depart(struct __sk_buff *skb, const struct packet *p, const struct flow *flow,
				  __u32 direction)
{
	if (flow->leg[direction].action == ACTION_PROXY)
		return steer(skb, p, flow, direction);
	return send(skb, p, &flow->leg[direction]);
}

/* Sends the packet the way its direction of the flow goes: a TC action, or a negative drop reason. */
static __always_inline int forward(struct __sk_buff *skb, const struct packet *p, const struct flow *flow,
				   __u32 direction)
{
	if (!direction && is_told_or_wrapped(flow, p)) {
		if (pass_on(skb, p, flow))
			return -DROP_INVALID_PACKET;
	} else if (flow->flags & FLOW_TRANSLATED && translate(skb, p, flow, direction)) {
		return -DROP_INVALID_PACKET;
	}
	return depart(skb, p, flow, direction);
}
