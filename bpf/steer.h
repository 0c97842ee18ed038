// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Giving packets to proxies of this node. A connection that a proxy looks at is two, each with a flow of its own
 * (enum zone):
 *
 *	client -> proxy     leg 0 goes to a proxy's socket, which has the called address as its own;
 *	                    leg 1 comes from there, out of the node's own stack
 *	proxy -> server     leg 0 comes out of the node's own stack, in the client's name;
 *	                    leg 1 goes to the proxy's socket, which has the client's address as its own
 *
 * What goes to a proxy is marked, and the node's rule for that mark makes every address its own; so its stack finds
 * the sockets of connections by itself. Only what begins one is given its socket here: the one that listens at the
 * port which policy names. That works on the way in; what is seen on its way out, from the node's stack, is sent
 * back in by the same device first. */
#pragma once
#include <linux/pkt_cls.h>
#include "flow.h"
#include "packet.h"

#define PACKET_FOR_US 0 /* PACKET_HOST of linux/if_packet.h */

static __always_inline int is_from_own_stack(const struct packet *p)
{
	return p->seen == TO_POD || p->seen == TO_UPLINK || p->seen == TO_OVERLAY;
}

/* What a packet out of the node's own stack is to proxies: enum mark, or 0. A pod cannot set marks: they do not leave
 * its network namespace. */
static __always_inline __u32 mark_of(struct __sk_buff *skb, const struct packet *p)
{
	return is_from_own_stack(p) && !skb->ingress_ifindex ? skb->mark & MARK_PROXY_MASK : 0;
}

static __always_inline int is_of_proxy(__u32 mark)
{
	return mark == MARK_EGRESS_PROXY || mark == MARK_INGRESS_PROXY;
}

/* Whether it is sent in the name of a pod of this node. */
static __always_inline int is_of_a_pod(const struct packet *p)
{
	return bpf_map_lookup_elem(&endpoints, source_of(p)) != NULL;
}

/* Whether it is on its way to a proxy of this node. Where it is about to leave, the rule that would have kept it
 * here is gone. */
static __always_inline int is_for_proxy(struct __sk_buff *skb)
{
	return (skb->mark & MARK_PROXY_MASK) == MARK_TO_PROXY;
}

static __always_inline int may_be_proxied(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

/* Whether the stack would not find the proxy's socket by the packet's own tuple. */
static __always_inline int asks_for_socket(const struct packet *p)
{
	return (p->key.protocol == IPPROTO_TCP && is_syn(p)) ||
	       (p->key.protocol == IPPROTO_UDP && !(p->flags & PACKET_LATER_FRAGMENT));
}

/* Which way of a connection goes to a proxy's socket, and which comes from one. */
static __always_inline int goes_to_proxy(const struct flow_key *key, const struct flow *flow, __u32 leg)
{
	return leg ? key->zone == ZONE_PROXY : flow->proxy_port != 0;
}

static __always_inline int comes_from_proxy(const struct flow_key *key, const struct flow *flow, __u32 leg)
{
	return goes_to_proxy(key, flow, !leg);
}

/* Gives a packet that begins something to who listens at `port` of this node; with `assign` 0, only looks whether
 * somebody does. 0, or a drop reason. Verified on its own. */
__noinline int find_proxy(struct __sk_buff *skb, const struct packet *p, __u32 port, __u32 assign)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;
	int taken;

	if (!p)
		return DROP_INVALID_PACKET;
	if (p->flags & PACKET_IPV6) {
		size = sizeof(tuple.ipv6);
		tuple.ipv6.daddr[3] = bpf_htonl(1);
		tuple.ipv6.dport = port;
	} else {
		size = sizeof(tuple.ipv4);
		tuple.ipv4.daddr = bpf_htonl(0x7f000001);
		tuple.ipv4.dport = port;
	}
	if (p->key.protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else if (p->key.protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		return DROP_NO_PROXY;
	if (!socket)
		return DROP_NO_PROXY;
	taken = p->key.protocol == IPPROTO_UDP || socket->state == BPF_TCP_LISTEN;
	if (taken && assign)
		taken = !bpf_sk_assign(skb, socket, 0);
	bpf_sk_release(socket);
	return taken ? 0 : DROP_NO_PROXY;
}

/* Puts a packet that has come in before the node's own stack, as one for a socket of this node; where `port` is not 0,
 * for who listens there. A TC action, or a negative drop reason. */
static __always_inline int take_in(struct __sk_buff *skb, const struct packet *p, __be16 port)
{
	int reason;

	bpf_skb_change_type(skb, PACKET_FOR_US);
	skb->mark = MARK_TO_PROXY;
	reason = port ? find_proxy(skb, p, port, 1) : 0;
	return reason ? -reason : TC_ACT_OK;
}

/* Sends a packet that is translated already to a proxy: a TC action, or a negative drop reason. */
static __always_inline int steer(struct __sk_buff *skb, const struct packet *p, const struct flow *flow, __u32 leg)
{
	__be16 port = !leg && asks_for_socket(p) ? flow->proxy_port : 0;

	if (!is_from_own_stack(p))
		return take_in(skb, p, port);
	skb->mark = MARK_TO_PROXY | (__u32)bpf_ntohs(port) << 16;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}
