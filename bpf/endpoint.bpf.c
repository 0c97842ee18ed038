// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The host side of a pod's veth pair: what the pod sends, and what the node's own stack sends to it.
 * (What comes to it from other pods and nodes is put into the pod where it was decided.) */
#include "connection.h"
#include "neighbour.h"

static __always_inline int is_link_local(const struct packet *p)
{
	const __u8 *to = destination_of(p);

	return p->flags & PACKET_IPV6 && to[0] == 0xfe && (to[1] & 0xc0) == 0x80;
}

static __always_inline int is_neighbour_discovery(const struct packet *p)
{
	return p->key.protocol == IPPROTO_ICMPV6 && p->icmp_type >= ND_ROUTER_SOLICITATION &&
	       p->icmp_type <= ND_REDIRECT;
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	struct packet p = { .seen = FROM_POD };
	int result;

	if (must_wait())
		return TC_ACT_UNSPEC;
	if (skb->mark == MARK_ANSWER)
		return TC_ACT_OK;
	/* Its tag would leave the node with it: no pod chooses a VLAN. */
	if (skb->vlan_present)
		return drop(skb, &p, skb->ifindex, DROP_UNSUPPORTED_L3);
	linearise(skb);
	result = parse(skb, &p);
	if (result == NOT_IP)
		return answer_arp(skb);
	if (result < 0)
		return drop(skb, &p, skb->ifindex, -result);
	if (is_for_proxy(skb)) { /* says `to_pod` */
		result = take_in(skb, &p, bpf_htons(skb->mark >> 16));
		return result < 0 ? drop(skb, &p, skb->ifindex, -result) : result;
	}
	if (p.key.protocol == IPPROTO_ICMPV6 && is_neighbour_discovery(&p))
		return p.icmp_type == ND_NEIGHBOUR_SOLICITATION ? answer_solicitation(skb, &p) : TC_ACT_SHOT;
	if (is_multicast(&p) || is_link_local(&p))
		return drop(skb, &p, skb->ifindex, DROP_LINK_LOCAL);
	return handle(skb, &p, skb->ifindex);
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	struct packet p = { .seen = TO_POD };
	int result;

	if (must_wait())
		return TC_ACT_UNSPEC;
	if (skb->mark == MARK_ANSWER)
		return TC_ACT_OK;
	linearise(skb);
	result = parse(skb, &p);
	if (result == NOT_IP)
		return TC_ACT_OK;
	if (result < 0)
		return drop(skb, &p, skb->ifindex | HOOK_EGRESS, -result);
	if (is_neighbour_discovery(&p) || is_multicast(&p))
		return TC_ACT_OK;
	if (is_for_proxy(skb))
		return drop(skb, &p, skb->ifindex | HOOK_EGRESS, DROP_NO_PROXY);
	return handle(skb, &p, skb->ifindex | HOOK_EGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
