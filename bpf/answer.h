// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the node itself says to the sender of a packet that goes no further: that it is too big (RFC 1191,
 * RFC 8201), that its time is up, or, where so configured, that policy prohibits it. The answer is built
 * in place of the packet, and goes back where that came from. */
#pragma once
#include <linux/pkt_cls.h>
#include "forward.h"

#define ANSWER_TTL 64
/* Type and code of an ICMP message in one number. */
#define ICMP_KIND(type, code) ((type) << 8 | (code))
#define TOO_BIG ICMP_KIND(ICMP_UNREACHABLE, 4)
#define TIME_EXCEEDED ICMP_KIND(ICMP_TIME_EXCEEDED, 0)
#define PROHIBITED ICMP_KIND(ICMP_UNREACHABLE, 13)
#define TOO_BIG_6 ICMP_KIND(ICMP6_PACKET_TOO_BIG, 0)
#define TIME_EXCEEDED_6 ICMP_KIND(3, 0)
#define PROHIBITED_6 ICMP_KIND(1, 1)
#define QUOTED 128 /* bytes of the packet that an ICMP error carries at most: a multiple of 4 */
/* On packets that the node itself puts into its stack as if from a pod. A pod cannot set marks: they do
 * not leave its network namespace. */
#define MARK_ANSWER 0x61786f01

struct icmp_error {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be16 unused;
	__be16 mtu; /* IPv6: the lower half of 32 bits, at the same place */
};

struct answer {
	__u8 ip[sizeof(struct ipv6hdr)]; /* IPv4: its first 20 bytes */
	__u8 l4[sizeof(struct tcphdr)];
	__u8 quote[QUOTED]; /* follows the ICMP header on the wire */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answers SEC(".maps");

static __always_inline __sum16 folded(__s64 sum)
{
	__u32 s = (__u32)sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

/* Who answers: the node's address of the family, or the one that was called, where it has none. */
static __always_inline void answerer(const struct packet *p, __u8 *address)
{
	__u32 zero = 0;
	const struct uplink *node = bpf_map_lookup_elem(&uplinks, &zero);
	const __u8 *own = node ? p->flags & PACKET_IPV6 ? node->ipv6 : node->ipv4 : NULL;

	copy_address(address, own && (own[0] | own[10] | own[15]) ? own : destination_of(p));
}

/* Fills in the IP header for `length` bytes of layer 4; the sum of its pseudo header. */
static __noinline __s64 answer_ip(const struct packet *p, struct answer *a, const __u8 *from, __u32 length,
				  __u32 protocol)
{
	__be32 ends[8], rest[2] = { bpf_htonl(length), bpf_htonl(protocol) };

	copy_address(ends, from);
	copy_address(ends + 4, source_of(p));
	__builtin_memset(a->ip, 0, sizeof(a->ip));
	__builtin_memset(a->l4, 0, sizeof(a->l4));
	if (p->flags & PACKET_IPV6) {
		struct ipv6hdr *ip = (struct ipv6hdr *)a->ip;

		ip->version = 6;
		ip->payload_len = bpf_htons(length);
		ip->nexthdr = protocol;
		ip->hop_limit = ANSWER_TTL;
		copy_address(&ip->saddr, ends);
		copy_address(&ip->daddr, ends + 4);
	} else {
		struct iphdr *ip = (struct iphdr *)a->ip;

		ip->version = 4;
		ip->ihl = 5;
		ip->tot_len = bpf_htons(sizeof(*ip) + length);
		ip->frag_off = bpf_htons(0x4000);
		ip->ttl = ANSWER_TTL;
		ip->protocol = protocol;
		ip->saddr = ends[3];
		ip->daddr = ends[7];
		ip->check = folded(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
		ends[0] = ends[1] = ends[2] = ends[4] = ends[5] = ends[6] = 0;
	}
	return bpf_csum_diff(NULL, 0, rest, sizeof(rest), bpf_csum_diff(NULL, 0, ends, sizeof(ends), 0));
}

/* Sends what the packet has become back to where it was seen. A TC action. */
static __noinline int send_back(struct __sk_buff *skb, const struct packet *p)
{
	struct flow_leg back = { .tunnel_identity = IDENTITY_REMOTE_NODE };
	__u8 ends[2 * ETH_ALEN], swapped[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, ends, sizeof(ends)))
		return TC_ACT_SHOT;
	__builtin_memcpy(swapped, ends + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(swapped + ETH_ALEN, ends, ETH_ALEN);
	if (p->seen == FROM_OVERLAY)
		for (int i = 0; i < ETH_ALEN; i++) {
			swapped[i] = overlay_mac[i];
			swapped[ETH_ALEN + i] = gateway_mac[i];
		}
	if (bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0))
		return TC_ACT_SHOT;
	switch (p->seen) {
	case FROM_OVERLAY:
		copy_address(back.tunnel, p->tunnel_source);
		return tunnel_to(skb, &back) ? TC_ACT_SHOT : bpf_redirect(skb->ifindex, 0);
	case TO_POD:
		skb->mark = MARK_ANSWER;
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	default:
		return bpf_redirect(skb->ifindex, 0);
	}
}

static __noinline int answer_icmp(struct __sk_buff *skb, const struct packet *p, struct answer *a, __u32 kind,
				  __u32 mtu)
{
	int ipv6 = p->flags & PACKET_IPV6;
	__u32 header = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr), quoted = skb->len - ETH_HLEN;
	__u32 at = ETH_HLEN + header;
	struct icmp_error *icmp = (struct icmp_error *)a->l4;
	__u8 from[16];
	__s64 sum;

	/* Errors about errors, or about what many get, may not be (RFC 1122, 3.2.2; RFC 4443, 2.4). */
	if (p->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT) || is_multicast(p))
		return TC_ACT_SHOT;
	if (quoted > QUOTED)
		quoted = QUOTED;
	if (quoted < sizeof(struct iphdr))
		return TC_ACT_SHOT;
	__builtin_memset(a->quote, 0, sizeof(a->quote));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, a->quote, quoted))
		return TC_ACT_SHOT;
	answerer(p, from);
	sum = answer_ip(p, a, from, sizeof(*icmp) + quoted, ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	icmp->type = kind >> 8;
	icmp->code = kind & 0xff;
	icmp->mtu = bpf_htons(mtu);
	if (!ipv6)
		sum = 0; /* no pseudo header */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)icmp, sizeof(*icmp), sum);
	icmp->check = folded(bpf_csum_diff(NULL, 0, (__be32 *)a->quote, sizeof(a->quote), sum));
	if (bpf_skb_change_tail(skb, at + sizeof(*icmp) + quoted, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, a->ip, header, BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, at, icmp, sizeof(*icmp), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, at + sizeof(*icmp), a->quote, quoted, BPF_F_RECOMPUTE_CSUM))
		return TC_ACT_SHOT;
	return send_back(skb, p);
}

/* A reset as RFC 9293, section 3.10.7.1 has it for a segment to nobody. */
static __noinline int answer_reset(struct __sk_buff *skb, const struct packet *p, struct answer *a)
{
	__u32 header = p->flags & PACKET_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct tcphdr was, *tcp = (struct tcphdr *)a->l4;
	__u32 length;
	__s64 sum;

	if (bpf_skb_load_bytes(skb, p->l4, &was, sizeof(was)) || was.rst)
		return TC_ACT_SHOT;
	length = skb->len - p->l4 - was.doff * 4 + was.syn + was.fin;
	sum = answer_ip(p, a, destination_of(p), sizeof(*tcp), IPPROTO_TCP);
	tcp->source = was.dest;
	tcp->dest = was.source;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	if (was.ack) {
		tcp->seq = was.ack_seq;
	} else {
		tcp->ack = 1;
		tcp->ack_seq = bpf_htonl(bpf_ntohl(was.seq) + length);
	}
	tcp->check = folded(bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), sum));
	if (bpf_skb_change_tail(skb, ETH_HLEN + header + sizeof(*tcp), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, a->ip, header, BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + header, tcp, sizeof(*tcp), BPF_F_RECOMPUTE_CSUM))
		return TC_ACT_SHOT;
	return send_back(skb, p);
}

/* What becomes of a packet that was dropped for `reason`, and reported: nothing, or the answer to it.
 * Verified on its own. */
__noinline int answer(struct __sk_buff *skb, struct packet *p, __u32 reason, __u32 mtu)
{
	__u32 zero = 0;
	struct answer *a = bpf_map_lookup_elem(&answers, &zero);
	int ipv6;

	if (!p || !a)
		return TC_ACT_SHOT;
	ipv6 = p->flags & PACKET_IPV6;
	switch (reason) {
	case DROP_TOO_BIG:
		return answer_icmp(skb, p, a, ipv6 ? TOO_BIG_6 : TOO_BIG, mtu);
	case DROP_TTL_EXCEEDED:
		return answer_icmp(skb, p, a, ipv6 ? TIME_EXCEEDED_6 : TIME_EXCEEDED, 0);
	case DROP_POLICY_DEFAULT:
	case DROP_POLICY_DENY:
		if (!answer_denied)
			return TC_ACT_SHOT;
		if (p->key.protocol == IPPROTO_TCP && !(p->flags & PACKET_LATER_FRAGMENT))
			return answer_reset(skb, p, a);
		return answer_icmp(skb, p, a, ipv6 ? PROHIBITED_6 : PROHIBITED, 0);
	default:
		return TC_ACT_SHOT;
	}
}
