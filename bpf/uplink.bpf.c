// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The node's physical devices: packets for its pods, and answers to what its pods masqueraded. All else
 * belongs to the node itself and passes untouched. */
#include "announce.h"
#include "connection.h"

static __always_inline int for_a_pod(const struct packet *p)
{
	return bpf_map_lookup_elem(&endpoints, destination_of(p)) != NULL;
}

static __always_inline int maybe_masqueraded(const struct packet *p)
{
	__u16 port = bpf_ntohs(destination_port_of(p));

	return masquerade && port >= nat_port_first && port <= nat_port_last;
}

/* A packet that comes in for a masqueraded connection: makes `p` what the pod's side knows it as.
 * 1 when it is one. The bytes stay as they are until the packet is let through. */
static __noinline int look_behind(struct packet *p)
{
	struct translation *t = find_translation(&p->key);
	__be16 outside_port = source_port_of(p);
	struct flow_key key;
	__u64 outside[2];

	if (!t)
		return 0;
	copy_address(outside, source_of(p));
	outside_key(&key, p, t->address, t->port, (__u8 *)outside, outside_port);
	p->key = key;
	p->from_low = same_address(key.low, outside) &&
		      (!same_address(key.high, outside) || key.low_port == outside_port);
	p->flags |= PACKET_TRANSLATED;
	return 1;
}

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	struct packet p = { .seen = FROM_UPLINK };
	int result;

	if (must_wait())
		return TC_ACT_UNSPEC;
	linearise(skb);
	result = parse(skb, &p);
	/* What we cannot read is for the node's own stack to judge, and so is a tunnel's outside. */
	if (result)
		return answer_announced_arp(skb);
	/* To a pod it is no tunnel, and who sends it must be who he says. */
	if (!for_a_pod(&p)) {
		if (is_solicitation(&p))
			return answer_announced_solicitation(skb);
		if (overlay_ifindex && p.key.protocol == IPPROTO_UDP && destination_port_of(&p) == overlay_port)
			return TC_ACT_OK;
		if (!(p.flags & PACKET_ICMP_ERROR) && !(maybe_masqueraded(&p) && look_behind(&p)))
			return predecessors_translate(&p.key) ? TC_ACT_UNSPEC : TC_ACT_OK;
	}
	return handle(skb, &p, skb->ifindex);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
