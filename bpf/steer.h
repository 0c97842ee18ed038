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

/* proxying: whether anything has ever been sent to a proxy of this node: till then nobody pays for it. Written by the
 * datapath, once and for all. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} proxying SEC(".maps");

static __always_inline void begin_proxying(void)
{
	__u32 zero = 0, *yes = bpf_map_lookup_elem(&proxying, &zero);

	if (yes && !*yes)
		*yes = 1;
}

static __always_inline int is_proxying(void)
{
	__u32 zero = 0, *yes = bpf_map_lookup_elem(&proxying, &zero);

	return yes && *yes;
}

static __always_inline int may_be_proxied(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

#define HANDSHAKE 8 /* packets of an initiator within which it is over */

/* Whether the stack may not find the proxy's socket by the packet's own tuple: it has none yet, or only a cookie. */
static __always_inline int asks_for_socket(const struct packet *p, const struct flow *flow)
{
	return (p->key.protocol == IPPROTO_TCP && (is_syn(p) || flow->leg[0].packets < HANDSHAKE)) ||
	       (p->key.protocol == IPPROTO_UDP && !(p->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)));
}

/* Whether it would be given to its listener, but comes in fragments: put together again, it has lost that, and would be
 * for whoever listens at its port for all addresses of the node. */
static __always_inline int cannot_be_given(const struct packet *p)
{
	return p->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT) &&
	       (p->key.protocol == IPPROTO_UDP || is_syn(p));
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

/* Describes the connection of the packet to the socket that it is for; the size of that. */
static __always_inline __u32 describe(struct bpf_sock_tuple *tuple, const struct packet *p)
{
	if (p->flags & PACKET_IPV6) {
		copy_address(tuple->ipv6.saddr, source_of(p));
		copy_address(tuple->ipv6.daddr, destination_of(p));
		tuple->ipv6.sport = source_port_of(p);
		tuple->ipv6.dport = destination_port_of(p);
		return sizeof(tuple->ipv6);
	}
	tuple->ipv4.saddr = ipv4_of(source_of(p));
	tuple->ipv4.daddr = ipv4_of(destination_of(p));
	tuple->ipv4.sport = source_port_of(p);
	tuple->ipv4.dport = destination_port_of(p);
	return sizeof(tuple->ipv4);
}

/* The same of who listens at `port` of the node's own loopback address. */
static __always_inline __u32 describe_listener(struct bpf_sock_tuple *tuple, const struct packet *p, __be16 port)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	if (p->flags & PACKET_IPV6) {
		tuple->ipv6.daddr[3] = bpf_htonl(1);
		tuple->ipv6.dport = port;
		return sizeof(tuple->ipv6);
	}
	tuple->ipv4.daddr = bpf_htonl(0x7f000001);
	tuple->ipv4.dport = port;
	return sizeof(tuple->ipv4);
}

static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb, const struct packet *p,
						    struct bpf_sock_tuple *tuple, __u32 size)
{
	if (p->key.protocol == IPPROTO_TCP)
		return bpf_sk_lookup_tcp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (p->key.protocol == IPPROTO_UDP)
		return bpf_sk_lookup_udp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);
	return NULL;
}

/* Gives a packet that begins something to who listens at `port` of this node; with `assign` 0, only looks whether
 * somebody does. 0, or a drop reason. Verified on its own. */
__noinline int find_proxy(struct __sk_buff *skb, const struct packet *p, __u32 port, __u32 assign)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *socket;
	int taken, state;

	if (!p)
		return DROP_INVALID_PACKET;
	/* The stack may have kept nothing but a cookie. What it has, it finds: also of an earlier connection with this
	 * tuple, which is not over there (TIME_WAIT) and would have a SYN that is assigned dropped. */
	if (p->key.protocol == IPPROTO_TCP) {
		socket = bpf_skc_lookup_tcp(skb, &tuple, describe(&tuple, p), BPF_F_CURRENT_NETNS, 0);
		if (socket) {
			state = socket->state;
			bpf_sk_release(socket);
			if (state != BPF_TCP_LISTEN) /* for all addresses: it is not meant */
				return 0;
		}
	}
	socket = find_socket(skb, p, &tuple, describe_listener(&tuple, p, port));
	if (!socket)
		return DROP_NO_PROXY;
	/* Others may have the port, for all addresses of the node. */
	taken = (socket->mark & MARK_PROXY_MASK) == MARK_PROXY_ANSWERS &&
		(p->key.protocol == IPPROTO_UDP || socket->state == BPF_TCP_LISTEN);
	if (taken && assign)
		taken = !bpf_sk_assign(skb, socket, 0);
	bpf_sk_release(socket);
	return taken ? 0 : DROP_NO_PROXY;
}

/* Whether a packet of which no flow is known is for a socket of a proxy that has called in another's name: what halves
 * of policy that has behind it (enum proxied); 0: it is not. Verified on its own. */
__noinline int find_caller(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *socket;
	__u32 mark;

	if (!p)
		return 0;
	socket = find_socket(skb, p, &tuple, describe(&tuple, p));
	if (!socket)
		return 0;
	mark = socket->mark & MARK_PROXY_MASK;
	bpf_sk_release(socket);
	return mark == MARK_EGRESS_PROXY ? PROXIED_EGRESS :
	       mark == MARK_INGRESS_PROXY ? PROXIED_EGRESS | PROXIED_INGRESS : 0;
}

/* Whether it is worth to ask for that: new connections hardly pay for it. */
static __always_inline int may_be_for_caller(const struct packet *p)
{
	if (p->flags & PACKET_LATER_FRAGMENT)
		return 0;
	if (p->key.protocol == IPPROTO_TCP)
		return !is_syn(p);
	return p->key.protocol == IPPROTO_UDP && p->seen == TO_POD; /* of the node itself, which was called by loopback */
}

#define TCP_OPTION_MSS 2

/* Has a proxy answer in segments that fit where the datapath sends them, which the stack does not know: it routes by
 * another way. The option stands first with every stack that we know of; elsewhere it is not looked for. */
static __noinline int limit_segments(struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	struct {
		__u8 header[sizeof(struct tcphdr)];
		__u8 kind;
		__u8 length;
		__be16 size;
	} tcp;
	__u32 most;
	__be16 size;

	if (mtu < 576)
		return 0;
	most = mtu - (p->flags & PACKET_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) - sizeof(struct tcphdr);
	size = bpf_htons(most);
	if (bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)) || tcp.header[12] >> 4 < sizeof(tcp) / 4 ||
	    tcp.kind != TCP_OPTION_MSS || tcp.length != 4 || bpf_ntohs(tcp.size) <= most)
		return 0;
	bpf_l4_csum_replace(skb, p->l4 + offsetof(struct tcphdr, check), tcp.size, size, sizeof(size));
	return bpf_skb_store_bytes(skb, p->l4 + sizeof(struct tcphdr) + 2, &size, sizeof(size), 0);
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

/* Sends a packet that is translated already to a proxy: a TC action, or a negative drop reason. Verified on its own. */
__noinline int steer(struct __sk_buff *skb, const struct packet *p, const struct flow *flow, __u32 leg)
{
	__be16 port;
	__u32 mtu;

	if (!p || !flow)
		return -DROP_INVALID_PACKET;
	if (!leg && cannot_be_given(p))
		return -DROP_NO_PROXY;
	port = !leg && asks_for_socket(p, flow) ? flow->proxy_port : 0;
	mtu = leg ? flow->leg[0].mtu : flow->leg[1].mtu;
	if (mtu && is_syn(p))
		limit_segments(skb, p, mtu);

	if (!is_from_own_stack(p))
		return take_in(skb, p, port);
	skb->mark = MARK_TO_PROXY | (__u32)bpf_ntohs(port) << 16;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}
