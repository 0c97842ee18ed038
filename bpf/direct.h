// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Direct server return: a client's packets come by the node that balances them, the backend's answers go to the client
 * by themselves, as from the service. So the backend's side must know what was called. Either the packet says so,
 *
 *	client -> backend, with the service's address and port in an IPv4 option, or in an IPv6 destination option
 *	(RFC 791, 3.1; RFC 8200, 4.6): the first ones of TCP, all of what has no connections
 *
 * and the datapath of the backend's node (`hear`) has the connection's answers leave as from there; or the packet
 * travels as it is in another one,
 *
 *	node -> backend (client -> service), IP in IP (RFC 2003, RFC 2473)
 *
 * to a machine that has the service's address itself, and opens it. The node that balances never hears the
 * answers: a packet of the client's that begins nothing says that there have been some.
 *
 * The options are those of Cilium, so that nodes of both understand each other. */
#pragma once
#include "party.h"
#include "translate.h"

#define OPTION_IPV4 0x9a /* copied into fragments, no. 26 */
#define OPTION_IPV6 0x1b /* to be passed over by who does not know it */

struct option_ipv4 {
	__u8 type;
	__u8 length;
	__be16 port;
	__be32 address;
};

struct option_ipv6 {
	__u8 next; /* the extension header's, with its length in units of 8 bytes behind the first */
	__u8 length;
	__u8 type;
	__u8 option_length;
	__u8 address[16];
	__be16 port;
	__u8 unused[2];
};

static __noinline int tell_ipv4(struct __sk_buff *skb, const struct flow *flow)
{
	struct option_ipv4 option = {
		.type = OPTION_IPV4,
		.length = sizeof(option),
		.port = flow->frontend_port,
		.address = ipv4_of(flow->frontend),
	};
	__be16 was[2], is[2]; /* version, header length and service; total length */
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, was, sizeof(was)))
		return -1;
	is[0] = was[0] + bpf_htons(0x0200); /* eight bytes are two words */
	is[1] = bpf_htons(bpf_ntohs(was[1]) + sizeof(option));
	if (bpf_ntohs(was[0]) >> 8 > 0x4d || bpf_ntohs(is[1]) < sizeof(option))
		return -1;
	if (bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	sum = bpf_csum_diff((__be32 *)was, sizeof(was), (__be32 *)is, sizeof(is), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&option, sizeof(option), sum);
	return bpf_skb_store_bytes(skb, ETH_HLEN, is, sizeof(is), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &option, sizeof(option), 0) ||
	       bpf_l3_csum_replace(skb, IPV4_CHECK, 0, sum, 0);
}

static __noinline int tell_ipv6(struct __sk_buff *skb, const struct flow *flow)
{
	struct option_ipv6 option = {
		.length = sizeof(option) / 8 - 1,
		.type = OPTION_IPV6,
		.option_length = sizeof(option) - 4,
		.port = flow->frontend_port,
	};
	struct {
		__be16 length;
		__u8 next;
		__u8 hop_limit;
	} head;

	copy_address(option.address, flow->frontend);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + 4, &head, sizeof(head)))
		return -1;
	option.next = head.next;
	head.next = IPPROTO_DSTOPTS;
	head.length = bpf_htons(bpf_ntohs(head.length) + sizeof(option));
	if (bpf_ntohs(head.length) < sizeof(option))
		return -1;
	return bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + 4, &head, sizeof(head), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &option, sizeof(option), 0);
}

/* Puts the packet into one from the node (`nat_address`) to the backend. */
static __noinline int wrap_ipv4(struct __sk_buff *skb, const struct packet *p, const struct flow *flow)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(skb->len - ETH_HLEN + sizeof(ip)),
		.frag_off = IP_DONT_FRAGMENT,
		.ttl = 64,
		.protocol = IPPROTO_IPIP,
		.saddr = ipv4_of(flow->nat_address),
		.daddr = ipv4_of(destination_of(p)),
	};
	__u32 sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip.check = ~sum;
	return bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

static __noinline int wrap_ipv6(struct __sk_buff *skb, const struct packet *p, const struct flow *flow)
{
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(skb->len - ETH_HLEN),
		.nexthdr = IPPROTO_IPV6,
		.hop_limit = 64,
	};

	copy_address(&ip.saddr, flow->nat_address);
	copy_address(&ip.daddr, destination_of(p));
	return bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

/* Makes what arrived for the service what leaves for the backend. Verified on its own. */
__noinline int pass_on(struct __sk_buff *skb, const struct packet *p, const struct flow *flow)
{
	if (!p || !flow)
		return -1;
	if (flow->flags & FLOW_WRAPPED)
		return p->flags & PACKET_IPV6 ? wrap_ipv6(skb, p, flow) : wrap_ipv4(skb, p, flow);
	if (translate(skb, p, flow, 0))
		return -1;
	if (p->flags & PACKET_LATER_FRAGMENT)
		return 0;
	return p->flags & PACKET_IPV6 ? tell_ipv6(skb, flow) : tell_ipv4(skb, flow);
}

/* By how much the packets of such a flow grow at most that are not the first. */
static __always_inline __u16 growth(const struct packet *p, __u8 flags)
{
	if (flags & FLOW_WRAPPED)
		return p->flags & PACKET_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	if (p->key.protocol == IPPROTO_TCP)
		return 0;
	return p->flags & PACKET_IPV6 ? sizeof(struct option_ipv6) : sizeof(struct option_ipv4);
}

/* Whether the packet may tell something, at a glance. */
static __always_inline int has_options(const struct packet *p)
{
	return p->l4 > ETH_HLEN + (p->flags & PACKET_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
}

/* What the packet says was called, into `frontend`. Whether it says so. */
static __noinline int read_told(struct __sk_buff *skb, const struct packet *p, struct called *called)
{
	if (p->flags & PACKET_IPV6) {
		struct option_ipv6 option;
		__u8 next;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next, 1) || next != IPPROTO_DSTOPTS ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &option, sizeof(option)) ||
		    option.type != OPTION_IPV6 || option.option_length != sizeof(option) - 4)
			return 0;
		copy_address(called->frontend, option.address);
		called->frontend_port = option.port;
	} else {
		struct option_ipv4 option;

		if (p->l4 < ETH_HLEN + sizeof(struct iphdr) + sizeof(option) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &option, sizeof(option)) ||
		    option.type != OPTION_IPV4 || option.length != sizeof(option))
			return 0;
		map_ipv4(called->frontend, option.address);
		called->frontend_port = option.port;
	}
	return 1;
}

/* Whether a packet for a pod of this node tells that it has been balanced, and is for a service that is balanced so:
 * anybody can send an option. Fills in what was called. */
static __noinline int hear(struct __sk_buff *skb, const struct packet *p, struct called *called)
{
	struct frontend_key key = { .protocol = p->key.protocol };
	const struct frontend *found;

	copy_address(key.address, destination_of(p));
	if (!bpf_map_lookup_elem(&endpoints, key.address) || !read_told(skb, p, called))
		return 0;
	key.port = called->frontend_port;
	copy_address(key.address, called->frontend);
	found = bpf_map_lookup_elem(&frontends, &key);
	if (!found) { /* a port on every node's addresses? */
		if (!is_node(called->frontend))
			return 0;
		__builtin_memset(key.address, 0, sizeof(key.address));
		if (!(p->flags & PACKET_IPV6))
			map_ipv4(key.address, 0);
		found = bpf_map_lookup_elem(&frontends, &key);
	}
	if (!found || !(found->flags & FRONTEND_DIRECT))
		return 0;
	called->service = found->outside;
	return 1;
}
