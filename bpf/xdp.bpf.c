// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The shortest way for what only passes through the node: packets of flows that are decided, which came by an
 * uplink and leave by one. All others go on to `from_uplink`, which alone decides: what begins and ends
 * connections, what is fragmented, has options, is too large, or has no neighbour yet. Nothing is lost but time
 * when this program is not there. */
#include <linux/udp.h>
#include "nat.h"
#include "translate.h"

/* A packet's addresses and ports in one piece, IPv4 as everywhere mapped: what its checksums depend on. */
struct tuple {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
};

/* What this program reads of a packet besides its tuple. */
struct plain {
	__u32 l4;     /* offset */
	__u32 length; /* of the packet by its own account, without the link layer's header */
};

static __always_inline int read_ipv4(const struct iphdr *ip, void *end, struct tuple *t, struct packet *p,
				     struct plain *plain)
{
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->ttl <= 1 ||
	    ip->frag_off & (IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
		return 0;
	map_ipv4(t->source, ip->saddr);
	map_ipv4(t->destination, ip->daddr);
	p->key.protocol = ip->protocol;
	plain->l4 = ETH_HLEN + sizeof(*ip);
	plain->length = bpf_ntohs(ip->tot_len);
	return 1;
}

static __always_inline int read_ipv6(const struct ipv6hdr *ip, void *end, struct tuple *t, struct packet *p,
				     struct plain *plain)
{
	if ((void *)(ip + 1) > end || ip->version != 6 || ip->hop_limit <= 1)
		return 0;
	copy_address(t->source, &ip->saddr);
	copy_address(t->destination, &ip->daddr);
	if (is_mapped_ipv4(t->source) || is_mapped_ipv4(t->destination))
		return 0;
	p->flags = PACKET_IPV6;
	p->key.protocol = ip->nexthdr;
	plain->l4 = ETH_HLEN + sizeof(*ip);
	plain->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	return 1;
}

/* Whether it is a packet that changes nothing about its connection. */
static __always_inline int read_plain(struct xdp_md *ctx, struct packet *p, struct tuple *t, struct plain *plain)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct tcphdr *l4;

	if ((void *)(eth + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4(data + ETH_HLEN, end, t, p, plain))
			return 0;
	} else if (eth->h_proto != bpf_htons(ETH_P_IPV6) || !read_ipv6(data + ETH_HLEN, end, t, p, plain)) {
		return 0;
	}
	l4 = data + plain->l4;
	if (plain->length > end - data - ETH_HLEN || (void *)l4 + 8 > end)
		return 0;
	if (p->key.protocol == IPPROTO_TCP) {
		if ((void *)(l4 + 1) > end || l4->fin | l4->syn | l4->rst)
			return 0;
	} else if (p->key.protocol != IPPROTO_UDP) {
		return 0;
	}
	t->source_port = l4->source;
	t->destination_port = l4->dest;
	p->from_low = order(&p->key, t->source, t->source_port, t->destination, t->destination_port);
	return 1;
}

/* The packet's flow, when nothing about it is in doubt; `leg` is which way the packet goes. */
static __always_inline struct flow *decided(struct packet *p, __u32 hook, __u32 now, __u32 *leg)
{
	struct flow *flow;

	look_behind(p);
	flow = find_flow(&p->key);
	if (!flow || flow->epoch != epoch_of(flow->epoch_slots) || expired(flow, now))
		return NULL;
	*leg = leg_of(flow, p) & 1;
	if (!is_called_so(flow, p, *leg) || flow->leg[*leg].hook != hook || flow->leg[*leg].action != ACTION_ROUTE)
		return NULL;
	/* A first answer, a port that is lent, and what a packet has to tell are matters for the other way. */
	if (is_unanswered(flow))
		return NULL;
	if (!*leg && is_told_or_wrapped(flow, p))
		return NULL;
	if ((flow->flags & (FLOW_MASQUERADED | FLOW_SETTLED)) == FLOW_MASQUERADED)
		return NULL;
	return flow;
}

/* What the packet must have on its way out. */
static __always_inline void outward(const struct packet *p, const struct flow *flow, __u32 leg, struct tuple *t)
{
	copy_address(t->source, shown_address(flow, p, leg));
	copy_address(t->destination, destination_of(p));
	t->source_port = shown_port(flow, p, leg);
	t->destination_port = destination_port_of(p);
}

/* The next hop's place in `fib`. Whether there is one, and the packet is not too large for the way. */
static __always_inline int find_next_hop(struct xdp_md *ctx, const struct packet *p, const struct tuple *t,
				       const struct plain *plain, struct bpf_fib_lookup *fib)
{
	fib->ifindex = ctx->ingress_ifindex;
	fib->l4_protocol = p->key.protocol;
	fib->tot_len = plain->length;
	if (p->flags & PACKET_IPV6) {
		fib->family = 10; /* AF_INET6 */
		copy_address(fib->ipv6_src, t->source);
		copy_address(fib->ipv6_dst, t->destination);
	} else {
		fib->family = 2; /* AF_INET */
		fib->ipv4_src = t->source[3];
		fib->ipv4_dst = t->destination[3];
	}
	if (bpf_fib_lookup(ctx, fib, sizeof(*fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return 0;
	/* To devices of ours only: another may have no way to take a frame from here. */
	return fib->ifindex == ctx->ingress_ifindex || bpf_map_lookup_elem(&uplinks, &fib->ifindex);
}

static __always_inline __sum16 mended(__sum16 check, __s64 difference)
{
	__u64 sum = (__u16)~check + (__u64)(__u32)difference;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Writes the new tuple over the old one, with the sums that cover them, and one hop off the packet's life. */
static __always_inline int write_tuple(struct xdp_md *ctx, const struct packet *p, const struct tuple *was,
				   const struct tuple *is, const struct bpf_fib_lookup *fib)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__s64 difference = bpf_csum_diff((__be32 *)was, sizeof(*was), (__be32 *)is, sizeof(*is), 0);
	struct ethhdr *eth = data;
	struct tcphdr *l4;
	struct udphdr *udp;

	if (p->flags & PACKET_IPV6) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		l4 = (void *)(ip + 1);
		if ((void *)l4 + 8 > end)
			return 0;
		copy_address(&ip->saddr, is->source);
		copy_address(&ip->daddr, is->destination);
		ip->hop_limit--;
	} else {
		struct iphdr *ip = data + ETH_HLEN;
		__u32 sum;

		l4 = (void *)(ip + 1);
		if ((void *)l4 + 8 > end)
			return 0;
		ip->check = mended(ip->check, bpf_csum_diff((__be32 *)was, offsetof(struct tuple, source_port),
							    (__be32 *)is, offsetof(struct tuple, source_port), 0));
		ip->saddr = is->source[3];
		ip->daddr = is->destination[3];
		ip->ttl--;
		/* RFC 1141: the TTL is the upper byte of its 16-bit word. */
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xffff);
	}
	if (p->key.protocol == IPPROTO_TCP) {
		if ((void *)(l4 + 1) > end)
			return 0;
		l4->check = mended(l4->check, difference);
	} else {
		udp = (void *)l4;
		if (udp->check) /* zero: there is none (RFC 768) */
			udp->check = mended(udp->check, difference) ?: 0xffff;
	}
	l4->source = is->source_port;
	l4->dest = is->destination_port;
	__builtin_memcpy(eth->h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, fib->smac, ETH_ALEN);
	return 1;
}

SEC("xdp")
int from_wire(struct xdp_md *ctx)
{
	struct packet p = { .seen = FROM_UPLINK };
	struct bpf_fib_lookup fib = {};
	struct plain plain = {};
	struct tuple was = {}, is = {};
	__u32 now = ticks(), leg = 0;
	struct flow *flow;

	if (!read_plain(ctx, &p, &was, &plain))
		return XDP_PASS;
	flow = decided(&p, ctx->ingress_ifindex, now, &leg);
	if (!flow)
		return XDP_PASS;
	outward(&p, flow, leg, &is);
	if (!find_next_hop(ctx, &p, &is, &plain, &fib) || !write_tuple(ctx, &p, &was, &is, &fib))
		return XDP_PASS;
	flow->leg[leg].packets++;
	flow->leg[leg].bytes += plain.length;
	if (flow->seen != now)
		flow->seen = now;
	count(&forwards, FROM_UPLINK | ACTION_ROUTE << FORWARD_ACTION, 1, plain.length);
	return fib.ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(fib.ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
