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
#define NOBODY_THERE ICMP_KIND(ICMP_UNREACHABLE, 3)
#define NOBODY_THERE_6 ICMP_KIND(1, 4)
#define HEADERS_AT_MOST 256 /* `struct packet` has offsets in 8 bits */
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
	__u64 next; /* CLOCK_MONOTONIC, ns: `may_answer` */
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

/* Who answers: the node's address of the family, or the one that was called, where it has none, and where
 * the node itself has called, which takes nothing from itself for a message. */
static __always_inline void answerer(const struct packet *p, __u8 *address)
{
	__u32 zero = 0;
	const struct uplink *node = bpf_map_lookup_elem(&uplinks, &zero);
	const __u8 *own = node ? p->flags & PACKET_IPV6 ? node->ipv6 : node->ipv4 : NULL;

	if (is_from_own_stack(p) || !own || !(own[0] | own[10] | own[15]))
		own = destination_of(p);
	copy_address(address, own);
}

/* Answers are as many as a node can have use for, and no more (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f): by each
 * CPU ANSWERS_A_SECOND on average, a tenth of them at once. */
#define ANSWERS_A_SECOND 2000
#define ANSWER_INTERVAL (1000000000 / ANSWERS_A_SECOND)

static __always_inline int may_answer(struct answer *a)
{
	__u64 now = bpf_ktime_get_ns(), next = a->next;

	if (next > now + (__u64)ANSWER_INTERVAL * (ANSWERS_A_SECOND / 10))
		return 0;
	a->next = (next > now ? next : now) + ANSWER_INTERVAL;
	return 1;
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

/* Makes room for an answer of `length` bytes, and takes from the packet what it has been promised: that a device
 * will complete its checksum (CHECKSUM_PARTIAL) ends with the bytes where that would begin. The Ethernet header
 * stays; all else is to be written. 0 when done. */
static __always_inline int begin_answer(struct __sk_buff *skb, const struct packet *p, __u32 length)
{
	return bpf_skb_change_tail(skb, 2 * HEADERS_AT_MOST, 0) ||
	       bpf_skb_adjust_room(skb, -(__s32)(p->l4 + 2), BPF_ADJ_ROOM_MAC, 0) ||
	       bpf_skb_change_tail(skb, length, 0);
}

/* Lets what the packet has become out (or, with BPF_F_INGRESS, in) by a device, or a copy of it. A TC action. */
static __always_inline int let_go(struct __sk_buff *skb, __u32 ifindex, __u64 flags, __u32 copy)
{
	return copy ? bpf_clone_redirect(skb, ifindex, flags) : bpf_redirect(ifindex, flags);
}

/* Sends what the packet has become, or a copy of that, back to where it was seen; `from`: as whom. A TC action. */
static __noinline int send_back(struct __sk_buff *skb, const struct packet *p, const __u8 *from, __u32 copy)
{
	struct flow_leg back = { .tunnel_identity = IDENTITY_REMOTE_NODE };
	const struct endpoint *pod;
	int to_proxy = mark_of(skb, p) != 0;
	__u64 sender[2];
	__u8 swapped[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, swapped, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, 0, swapped + ETH_ALEN, ETH_ALEN))
		return TC_ACT_SHOT;
	if (p->seen == FROM_OVERLAY)
		for (int i = 0; i < ETH_ALEN; i++) {
			swapped[i] = overlay_mac[i];
			swapped[ETH_ALEN + i] = gateway_mac[i];
		}
	/* To a socket in another's name: by loopback, which has no link layer address, and where our programs are not. */
	if (to_proxy)
		__builtin_memset(swapped, 0, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0))
		return TC_ACT_SHOT;
	skb->mark = to_proxy ? MARK_TO_PROXY : MARK_ANSWER;
	if (to_proxy)
		return let_go(skb, LOOPBACK, BPF_F_INGRESS, copy);
	switch (p->seen) {
	case FROM_OVERLAY:
		copy_address(sender, from); /* on our own stack: see `judge` */
		pod = bpf_map_lookup_elem(&endpoints, sender);
		if (pod)
			back.tunnel_identity = pod->identity;
		copy_address(back.tunnel, p->tunnel_source);
		return tunnel_to(skb, &back) ? TC_ACT_SHOT : let_go(skb, skb->ifindex, 0, copy);
	case TO_POD:
		return let_go(skb, skb->ifindex, BPF_F_INGRESS, copy);
	case TO_UPLINK:
	case TO_OVERLAY:
		return TC_ACT_SHOT;
	default:
		return let_go(skb, skb->ifindex, 0, copy);
	}
}

static __always_inline int store_ip(struct __sk_buff *skb, const struct packet *p, struct answer *a)
{
	return p->flags & PACKET_IPV6 ?
		       bpf_skb_store_bytes(skb, ETH_HLEN, a->ip, sizeof(struct ipv6hdr), BPF_F_RECOMPUTE_CSUM) :
		       bpf_skb_store_bytes(skb, ETH_HLEN, a->ip, sizeof(struct iphdr), BPF_F_RECOMPUTE_CSUM);
}

/* Whether there is somebody to answer: one address, and not of the sender's own choice (RFC 1122, 3.2.2). */
static __always_inline int has_one_sender(const struct packet *p)
{
	const __u8 *from = source_of(p);

	if (p->flags & PACKET_IPV6)
		return from[0] != 0xff && (from[0] | from[15]);
	return from[12] && from[12] != 127 && from[12] < 224;
}

/* How long a quote is has been settled before these are called. But of a copy of it, or of what lay on the stack
 * by then, older verifiers (6.1) do not know, so it is settled again: where the compiler cannot tell that it is
 * known, and in two comparisons, of which it may not make one. */
#define SETTLE(length)       \
	barrier_var(length); \
	if (length > QUOTED) \
		return -1;   \
	barrier_var(length); \
	if (length < sizeof(struct iphdr)) \
		return -1;

static __noinline int take_quote(struct __sk_buff *skb, struct answer *a, __u32 length)
{
	SETTLE(length);
	return bpf_skb_load_bytes(skb, ETH_HLEN, a->quote, length);
}

static __noinline int put_quote(struct __sk_buff *skb, __u32 at, const struct answer *a, __u32 length)
{
	SETTLE(length);
	return bpf_skb_store_bytes(skb, at, a->quote, length, BPF_F_RECOMPUTE_CSUM);
}

static __noinline int answer_icmp(struct __sk_buff *skb, const struct packet *p, struct answer *a, __u32 kind,
				  __u32 mtu)
{
	int ipv6 = p->flags & PACKET_IPV6;
	__u32 quoted = p->end - ETH_HLEN;
	__u32 at = ETH_HLEN + (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
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
	if (take_quote(skb, a, quoted))
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
	if (begin_answer(skb, p, at + sizeof(*icmp) + quoted) || store_ip(skb, p, a) ||
	    bpf_skb_store_bytes(skb, at, icmp, sizeof(*icmp), BPF_F_RECOMPUTE_CSUM) ||
	    put_quote(skb, at + sizeof(*icmp), a, quoted))
		return TC_ACT_SHOT;
	return send_back(skb, p, from, 0);
}

/* What a reset says, in the sender's own words. */
struct reset {
	__be32 seq;
	__be32 ack_seq;
	__be16 source;
	__be16 dest;
	__u8 ack;
	__u8 has_room; /* the packet has been made one already */
};

/* Makes the packet a reset to its own sender, as from `from`. 0 when done. */
static __noinline int write_reset(struct __sk_buff *skb, const struct packet *p, struct answer *a, const __u8 *from,
				  const struct reset *r)
{
	__u32 header = p->flags & PACKET_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct tcphdr *tcp = (struct tcphdr *)a->l4;
	__s64 sum = answer_ip(p, a, from, sizeof(*tcp), IPPROTO_TCP);

	tcp->source = r->source;
	tcp->dest = r->dest;
	tcp->seq = r->seq;
	tcp->ack_seq = r->ack_seq;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	tcp->ack = r->ack & 1;
	tcp->check = folded(bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), sum));
	if (!r->has_room && begin_answer(skb, p, ETH_HLEN + header + sizeof(*tcp)))
		return -1;
	return store_ip(skb, p, a) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + header, tcp, sizeof(*tcp), BPF_F_RECOMPUTE_CSUM);
}

/* The answer to a segment for nobody (RFC 9293, section 3.10.7.1). 0, or a negative number where there is none. */
static __noinline int reset_for(struct __sk_buff *skb, const struct packet *p, struct reset *r)
{
	struct tcphdr was;

	if (bpf_skb_load_bytes(skb, p->l4, &was, sizeof(was)) || was.rst || p->l4 + was.doff * 4 > p->end)
		return -1;
	r->source = was.dest;
	r->dest = was.source;
	r->ack = !was.ack;
	r->has_room = 0;
	r->seq = was.ack ? was.ack_seq : 0;
	r->ack_seq = was.ack ? 0 : bpf_htonl(bpf_ntohl(was.seq) + p->end - p->l4 - was.doff * 4 + was.syn + was.fin);
	return 0;
}

static __noinline int answer_reset(struct __sk_buff *skb, const struct packet *p, struct answer *a)
{
	struct reset r;

	if (reset_for(skb, p, &r) || write_reset(skb, p, a, destination_of(p), &r))
		return TC_ACT_SHOT;
	return send_back(skb, p, destination_of(p), 0);
}

/* Ends a connection that policy has cut off in the middle, at both ends: `flow` is no entry any more. The sender of
 * the packet gets a reset as from the other end, and that gets one in place of the packet. A TC action, or a negative
 * drop reason. */
static __noinline int break_off(struct __sk_buff *skb, struct packet *p, const struct flow *flow)
{
	__u32 zero = 0, leg = leg_of(flow, p) & 1, mark = skb->mark;
	struct answer *a = bpf_map_lookup_elem(&answers, &zero);
	__u8 ends[2 * ETH_ALEN];
	__be32 seq, ack_seq;
	struct reset r;

	if (!a || p->flags & PACKET_LATER_FRAGMENT || !may_answer(a) || reset_for(skb, p, &r) ||
	    bpf_skb_load_bytes(skb, 0, ends, sizeof(ends)) ||
	    bpf_skb_load_bytes(skb, p->l4 + offsetof(struct tcphdr, seq), &seq, sizeof(seq)) ||
	    bpf_skb_load_bytes(skb, p->l4 + offsetof(struct tcphdr, ack_seq), &ack_seq, sizeof(ack_seq)) ||
	    write_reset(skb, p, a, called_address(flow, p, leg), &r))
		return TC_ACT_SHOT;
	send_back(skb, p, called_address(flow, p, leg), 1);
	skb->mark = mark;
	r.ack = !r.ack;
	r.seq = seq;
	r.ack_seq = ack_seq;
	r.source = shown_port(flow, p, leg);
	r.dest = destination_port_of(p);
	r.has_room = 1;
	p->l4 = ETH_HLEN + (p->flags & PACKET_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	p->end = p->l4 + sizeof(struct tcphdr);
	p->tcp_flags = TCP_RST | TCP_ACK;
	p->from_low = !p->from_low;
	if (bpf_skb_store_bytes(skb, 0, ends, sizeof(ends), 0) ||
	    write_reset(skb, p, a, is_shown_otherwise(flow, leg) ? shown_address(flow, p, leg) : destination_of(p), &r))
		return TC_ACT_SHOT;
	p->from_low = !p->from_low;
	return depart(skb, p, flow, leg);
}

/* An echo of the packet, as from the address that it is for. */
static __noinline int answer_echo(struct __sk_buff *skb, const struct packet *p)
{
	__u8 ttl[2] = { ANSWER_TTL }, was[2];
	__u64 from[2], to[2];
	__be16 kind, echo;
	int ipv6 = p->flags & PACKET_IPV6;
	__u32 at = ETH_HLEN + (ipv6 ? offsetof(struct ipv6hdr, hop_limit) : offsetof(struct iphdr, ttl));

	/* Whoever wants it in fragments would have to be known as long as they come. */
	if (p->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))
		return TC_ACT_SHOT;
	copy_address(from, destination_of(p));
	copy_address(to, source_of(p));
	kind = bpf_htons(p->icmp_type << 8 | p->icmp_code);
	echo = bpf_htons((ipv6 ? ICMP6_ECHO_REPLY : ICMP_ECHO_REPLY) << 8 | p->icmp_code);
	if (bpf_l4_csum_replace(skb, p->l4 + 2, kind, echo, sizeof(echo)) ||
	    bpf_skb_store_bytes(skb, p->l4, &echo, sizeof(echo), 0))
		return TC_ACT_SHOT;
	/* That source and destination change places makes no difference to any sum. */
	if (ipv6) {
		if (bpf_skb_store_bytes(skb, IPV6_SOURCE, from, 16, 0) ||
		    bpf_skb_store_bytes(skb, IPV6_DESTINATION, to, 16, 0) ||
		    bpf_skb_store_bytes(skb, at, ttl, 1, BPF_F_RECOMPUTE_CSUM))
			return TC_ACT_SHOT;
	} else {
		if (bpf_skb_load_bytes(skb, at, was, 2))
			return TC_ACT_SHOT;
		ttl[1] = was[1]; /* the protocol */
		if (bpf_skb_store_bytes(skb, IPV4_SOURCE, (__u8 *)from + 12, 4, 0) ||
		    bpf_skb_store_bytes(skb, IPV4_DESTINATION, (__u8 *)to + 12, 4, 0) ||
		    bpf_l3_csum_replace(skb, IPV4_CHECK, *(__be16 *)was, *(__be16 *)ttl, 2) ||
		    bpf_skb_store_bytes(skb, at, ttl, 2, 0))
			return TC_ACT_SHOT;
	}
	return send_back(skb, p, (__u8 *)from, 0);
}

/* What becomes of a packet that was dropped for `reason`, and reported: nothing, or the answer to it.
 * Verified on its own. */
__noinline int answer(struct __sk_buff *skb, struct packet *p, __u32 reason, __u32 mtu)
{
	__u32 zero = 0;
	struct answer *a = bpf_map_lookup_elem(&answers, &zero);
	int ipv6, kind, reset = 0;

	if (!p || !a)
		return TC_ACT_SHOT;
	ipv6 = p->flags & PACKET_IPV6;
	switch (reason) {
	case DROP_TOO_BIG:
		kind = ipv6 ? TOO_BIG_6 : TOO_BIG;
		break;
	case DROP_TTL_EXCEEDED:
		kind = ipv6 ? TIME_EXCEEDED_6 : TIME_EXCEEDED;
		break;
	case DROP_NO_BACKEND:
		reset = p->key.protocol == IPPROTO_TCP && !(p->flags & PACKET_LATER_FRAGMENT);
		kind = ipv6 ? NOBODY_THERE_6 : NOBODY_THERE;
		break;
	case DROP_NOT_BY_PROXY:
		if (p->key.protocol != IPPROTO_TCP || p->flags & PACKET_LATER_FRAGMENT)
			return TC_ACT_SHOT;
		reset = 1;
		kind = 0;
		break;
	case DROP_POLICY_DEFAULT:
	case DROP_POLICY_DENY:
		if (!answer_denied)
			return TC_ACT_SHOT;
		reset = p->key.protocol == IPPROTO_TCP && !(p->flags & PACKET_LATER_FRAGMENT);
		kind = ipv6 ? PROHIBITED_6 : PROHIBITED;
		break;
	default:
		return TC_ACT_SHOT;
	}
	if (!has_one_sender(p) || !may_answer(a))
		return TC_ACT_SHOT;
	if (p->flags & (PACKET_SERVED | PACKET_TRANSLATED) && read_again(skb, p))
		return TC_ACT_SHOT;
	if (reason == DROP_NO_BACKEND && is_echo_request(p))
		return answer_echo(skb, p);
	return reset ? answer_reset(skb, p, a) : answer_icmp(skb, p, a, kind, mtu);
}
