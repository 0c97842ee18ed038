// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* From bytes to a tuple: what a packet is, whichever its family. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

#define IP_MORE_FRAGMENTS bpf_htons(0x2000)
#define IP_DONT_FRAGMENT bpf_htons(0x4000)
#define IP_FRAGMENT_OFFSET bpf_htons(0x1fff)
#define IP6_MORE_FRAGMENTS bpf_htons(0x0001)
#define IP6_FRAGMENT_OFFSET bpf_htons(0xfff8)
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP6_PACKET_TOO_BIG 2
#define ICMP6_PARAMETER_PROBLEM 4
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129
#define FRAGMENT_LIFETIME 28 /* ticks: for as long as receivers wait for the rest */
#define IP6_EXTENSIONS 6 /* headers looked through before the packet counts as malformed */

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

enum packet_flag {
	PACKET_IPV6 = 1 << 0,
	PACKET_LATER_FRAGMENT = 1 << 1, /* no layer 4 header; its ports come from the first one */
	PACKET_ICMP_ERROR = 1 << 2,	/* carries the head of the packet that it is about */
	PACKET_TRANSLATED = 1 << 3,	/* came for the node; the key has the pod that it is meant for */
	PACKET_MAY_FRAGMENT = 1 << 4,	/* IPv4 without "don't fragment" */
	PACKET_FIRST_FRAGMENT = 1 << 5, /* the rest of it follows in others */
	PACKET_SERVED = 1 << 6,		/* came for a service; the key has the backend that it got */
	PACKET_TOLD = 1 << 7,		/* of a connection that another node has balanced, which says so */
};

struct packet {
	struct flow_key key;
	__u8 from_low; /* sent by the lower end of the key */
	__u8 flags;    /* enum packet_flag */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 l4;   /* offset of the layer 4 header from the start of the frame */
	__u8 seen; /* enum hook_kind */
	__u8 proxied; /* for a proxy's socket, says the socket and no flow: enum proxied */
	__u32 end; /* offset behind the packet by its own account: a frame may be padded */
	__u32 fragment_id;
	__u32 tunnel_identity;	/* overlay: who the sending node says this is from */
	__u8 tunnel_source[16]; /* overlay: that node */
};

enum parse_result { PARSED = 0, NOT_IP = 1 }; /* else a negative drop reason */

/* Whether it is on its way to somebody here, as far as is known before anything is decided. */
static __always_inline int is_arriving(const struct packet *p)
{
	return p->seen == FROM_UPLINK || p->seen == FROM_OVERLAY || p->seen == TO_POD;
}

static __always_inline __u32 ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

static __always_inline void copy_address(void *to, const void *from)
{
	__u32 *t = to;
	const __u32 *f = from;

	t[0] = f[0];
	t[1] = f[1];
	t[2] = f[2];
	t[3] = f[3];
}

static __always_inline int same_address(const void *a, const void *b)
{
	const __u32 *x = a, *y = b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline void map_ipv4(void *to, __be32 address)
{
	__u32 *t = to;

	t[0] = 0;
	t[1] = 0;
	t[2] = bpf_htonl(0xffff);
	t[3] = address;
}

static __always_inline int is_mapped_ipv4(const void *address)
{
	const __u32 *w = address;

	return !w[0] && !w[1] && w[2] == bpf_htonl(0xffff);
}

static __always_inline __be32 ipv4_of(const void *address)
{
	return ((const __u32 *)address)[3];
}

static __always_inline const __u8 *source_of(const struct packet *p)
{
	return p->from_low ? p->key.low : p->key.high;
}

static __always_inline const __u8 *destination_of(const struct packet *p)
{
	return p->from_low ? p->key.high : p->key.low;
}

static __always_inline __be16 source_port_of(const struct packet *p)
{
	return p->from_low ? p->key.low_port : p->key.high_port;
}

static __always_inline __be16 destination_port_of(const struct packet *p)
{
	return p->from_low ? p->key.high_port : p->key.low_port;
}

/* Puts the two ends into a key in their order, which any two packets of a connection agree on.
 * Whether the source is the lower end. */
static __always_inline int order(struct flow_key *key, const void *source, __be16 source_port,
				 const void *destination, __be16 destination_port)
{
	const __u64 *s = source, *d = destination;
	int low = s[0] != d[0] ? s[0] < d[0] : s[1] != d[1] ? s[1] < d[1] : source_port < destination_port;

	copy_address(key->low, low ? source : destination);
	copy_address(key->high, low ? destination : source);
	key->low_port = low ? source_port : destination_port;
	key->high_port = low ? destination_port : source_port;
	return low;
}

static __always_inline int is_multicast(const struct packet *p)
{
	const __u8 *to = destination_of(p);

	if (p->flags & PACKET_IPV6)
		return to[0] == 0xff;
	return to[12] >= 224; /* and the broadcast address */
}

struct ends {
	__u64 source[2];
	__u64 destination[2];
	__be16 source_port;
	__be16 destination_port;
	__u32 fragment_id;
	__u32 end; /* offset behind the packet by its own account: a frame may be padded */
	__u8 protocol;
	__u8 first_fragment;
	__u8 later_fragment;
};

static __always_inline int is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

static __always_inline int icmp_is_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAMETER_PROBLEM;
	return type >= 1 && type <= ICMP6_PARAMETER_PROBLEM;
}

/* Timestamp and address mask queries are paired by type as echo is (RFC 792, RFC 950). */
static __always_inline int icmp_is_query(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_ECHO_REQUEST || type == ICMP_ECHO_REPLY || (type >= 13 && type <= 18);
	return type == ICMP6_ECHO_REQUEST || type == ICMP6_ECHO_REPLY;
}

static __always_inline int icmp_is_answer(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_ECHO_REPLY || (type >= 14 && type <= 18 && !(type & 1));
	return type == ICMP6_ECHO_REPLY;
}

static __always_inline int is_echo_request(const struct packet *p)
{
	return (p->key.protocol == IPPROTO_ICMP && p->icmp_type == ICMP_ECHO_REQUEST) ||
	       (p->key.protocol == IPPROTO_ICMPV6 && p->icmp_type == ICMP6_ECHO_REQUEST);
}

/* The type of the question that a message asks or answers; its own where it is no query. */
static __always_inline __u8 icmp_question(__u8 protocol, __u8 type)
{
	if (!icmp_is_answer(protocol, type))
		return type;
	return type == ICMP_ECHO_REPLY ? ICMP_ECHO_REQUEST : type == ICMP6_ECHO_REPLY ? ICMP6_ECHO_REQUEST : type - 1;
}

static __always_inline void fragment_key(struct __sk_buff *skb, struct fragment_key *key, const void *source,
					 const void *destination, __u32 id)
{
	__builtin_memset(key, 0, sizeof(*key));
	copy_address(key->source, source);
	copy_address(key->destination, destination);
	key->id = id;
	key->ifindex = skb->ifindex;
}

/* What the first fragment said, for a later one that came by the same device: nobody speaks for another's.
 * 0, or a negative drop reason. */
static __noinline int recall_fragment(struct __sk_buff *skb, struct packet *p, struct ends *e)
{
	const struct fragment *known;
	struct fragment_key key;

	fragment_key(skb, &key, e->source, e->destination, e->fragment_id);
	known = bpf_map_lookup_elem(&fragments, &key);
	if (!known || (__s32)(ticks() - known->seen) > FRAGMENT_LIFETIME)
		return -DROP_FRAGMENT_NOT_FOUND;
	/* IPv4 says which protocol the fragment is of, and pairs by it (RFC 791); IPv6 does not (RFC 8200). */
	if (!(p->flags & PACKET_IPV6) && e->protocol != known->protocol)
		return -DROP_FRAGMENT_NOT_FOUND;
	e->protocol = known->protocol;
	e->source_port = known->source_port;
	e->destination_port = known->destination_port;
	p->icmp_type = known->icmp_type;
	return 0;
}

/* Reads layer 4 at offset `l4` into `e` and `p`. */
static __always_inline int parse_l4(struct __sk_buff *skb, struct packet *p, struct ends *e, __u32 l4)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 *h = data + l4;

	switch (e->protocol) {
	case IPPROTO_TCP:
		if ((void *)(h + sizeof(struct tcphdr)) > end || l4 + sizeof(struct tcphdr) > e->end)
			return -DROP_INVALID_PACKET;
		if ((h[12] >> 4) < 5)
			return -DROP_INVALID_PACKET;
		p->tcp_flags = h[13];
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if ((void *)(h + 8) > end || l4 + 8 > e->end)
			return -DROP_INVALID_PACKET;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((void *)(h + 8) > end || l4 + 8 > e->end)
			return -DROP_INVALID_PACKET;
		p->icmp_type = h[0];
		p->icmp_code = h[1];
		if (icmp_is_query(e->protocol, h[0])) {
			e->source_port = *(__be16 *)(h + 4);
			e->destination_port = e->source_port;
		} else if (icmp_is_error(e->protocol, h[0])) {
			p->flags |= PACKET_ICMP_ERROR;
		}
		return 0;
	default:
		return 0;
	}
	e->source_port = *(__be16 *)h;
	e->destination_port = *(__be16 *)(h + 2);
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *p, struct ends *e, __u32 *l4)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	__u32 length;

	if ((void *)(ip + 1) > end)
		return -DROP_INVALID_PACKET;
	length = bpf_ntohs(ip->tot_len);
	if (!length && skb->gso_size) /* more than 16 bits can say: BIG TCP */
		length = skb->len - ETH_HLEN;
	e->end = ETH_HLEN + length;
	if (ip->version != 4 || ip->ihl < 5 || length < ip->ihl * 4 || e->end > skb->len)
		return -DROP_INVALID_PACKET;
	map_ipv4(e->source, ip->saddr);
	map_ipv4(e->destination, ip->daddr);
	e->protocol = ip->protocol;
	e->fragment_id = ip->id;
	e->later_fragment = (ip->frag_off & IP_FRAGMENT_OFFSET) != 0;
	e->first_fragment = !e->later_fragment && (ip->frag_off & IP_MORE_FRAGMENTS) != 0;
	if (!(ip->frag_off & IP_DONT_FRAGMENT))
		p->flags |= PACKET_MAY_FRAGMENT;
	/* One that would overwrite the flags of a TCP header that was let through (RFC 3128). */
	if ((ip->frag_off & IP_FRAGMENT_OFFSET) == bpf_htons(1) && e->protocol == IPPROTO_TCP)
		return -DROP_INVALID_PACKET;
	*l4 = ETH_HLEN + ip->ihl * 4;
	return 0;
}

static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS || next == IPPROTO_FRAGMENT;
}

/* Steps over extension headers (RFC 8200, section 4); what follows them is layer 4. */
static __noinline int skip_extensions(struct __sk_buff *skb, struct ends *e, __u32 l4)
{
	__u8 next = e->protocol;

	for (int i = 0; i < IP6_EXTENSIONS; i++) {
		__u8 h[8];

		if (!is_extension(next))
			break;
		if (bpf_skb_load_bytes(skb, l4, h, sizeof(h)))
			return -DROP_INVALID_PACKET;
		if (next == IPPROTO_FRAGMENT) {
			__be16 offset = *(__be16 *)(h + 2);

			__builtin_memcpy(&e->fragment_id, h + 4, 4);
			e->later_fragment = (offset & IP6_FRAGMENT_OFFSET) != 0;
			e->first_fragment = !e->later_fragment && (offset & IP6_MORE_FRAGMENTS) != 0;
			l4 += 8;
		} else {
			l4 += (h[1] + 1) * 8;
		}
		next = h[0];
		if (e->later_fragment)
			break;
	}
	/* What stands behind more of them would pass as a protocol of its own. */
	if (!e->later_fragment && is_extension(next))
		return -DROP_INVALID_PACKET;
	e->protocol = next;
	/* Offsets are kept in 8 bits: nobody sends that many options to be forwarded. */
	return l4 < 250 ? (int)l4 : -DROP_INVALID_PACKET;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *p, struct ends *e, __u32 *l4)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	__u32 length;
	int after;

	if ((void *)(ip + 1) > end)
		return -DROP_INVALID_PACKET;
	length = bpf_ntohs(ip->payload_len);
	if (!length && skb->gso_size)
		length = skb->len - ETH_HLEN - sizeof(*ip);
	e->end = ETH_HLEN + sizeof(*ip) + length;
	if (ip->version != 6 || e->end > skb->len)
		return -DROP_INVALID_PACKET;
	p->flags |= PACKET_IPV6;
	copy_address(e->source, &ip->saddr);
	copy_address(e->destination, &ip->daddr);
	e->protocol = ip->nexthdr;
	*l4 = ETH_HLEN + sizeof(*ip);
	/* An IPv4-mapped address on the wire would pass for an IPv4 one in our tables. */
	if (is_mapped_ipv4(e->source) || is_mapped_ipv4(e->destination))
		return -DROP_INVALID_PACKET;
	if (e->protocol == IPPROTO_TCP || e->protocol == IPPROTO_UDP || e->protocol == IPPROTO_ICMPV6)
		return 0;
	after = skip_extensions(skb, e, *l4);
	if (after < 0)
		return after;
	*l4 = after;
	return 0;
}

/* Fills the key in, and who of its two ends has sent the packet. */
static __always_inline void name_connection(struct packet *p, const struct ends *e)
{
	p->key.protocol = e->protocol;
	p->from_low = order(&p->key, e->source, e->source_port, e->destination, e->destination_port);
	if (is_icmp(e->protocol)) {
		p->key.icmp_type = icmp_question(e->protocol, p->icmp_type);
		p->key.asked_by_low = p->from_low ^ icmp_is_answer(e->protocol, p->icmp_type);
	}
}

/* PARSED with `p` filled, NOT_IP, or a negative drop reason. Verified on its own. */
__noinline int parse(struct __sk_buff *skb, struct packet *p)
{
	struct ends e = {};
	__u32 l4 = 0;
	int result;

	if (!p)
		return -DROP_INVALID_PACKET;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		result = parse_ipv4(skb, p, &e, &l4);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		result = parse_ipv6(skb, p, &e, &l4);
	else
		return NOT_IP;
	if (result)
		return result;
	if (e.later_fragment) {
		p->flags |= PACKET_LATER_FRAGMENT;
		result = recall_fragment(skb, p, &e);
	} else {
		result = parse_l4(skb, p, &e, l4 & 0xff);
		if (e.first_fragment)
			p->flags |= PACKET_FIRST_FRAGMENT;
	}
	p->l4 = l4;
	p->end = e.end;
	p->fragment_id = e.fragment_id;
	name_connection(p, &e);
	return result;
}

/* Makes `p` again what its sender knows it as, whoever was found to stand behind its destination. */
static __always_inline int read_again(struct __sk_buff *skb, struct packet *p)
{
	p->flags = 0;
	p->key.zone = ZONE_CLIENT;
	return parse(skb, p);
}
