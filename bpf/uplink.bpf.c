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

	return port >= nat_port_first && port <= nat_port_last;
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
		if (!(p.flags & PACKET_ICMP_ERROR) && !(maybe_masqueraded(&p) && look_behind(&p)) &&
		    (skb->pkt_type == TO_ANOTHER_HOST || !is_for_a_service(&p)))
			return predecessors_translate(&p.key) ? TC_ACT_UNSPEC : TC_ACT_OK;
	}
	return handle(skb, &p, skb->ifindex);
}

/* What the node's own stack sends out. Where the node itself is a service's backend, its answers are made the
 * service's. All else passes untouched, and what has come in by some device unseen: the program that saw it there has
 * done what there is to do. */
SEC("tc")
int to_uplink(struct __sk_buff *skb)
{
	struct packet p = { .seen = TO_UPLINK };
	__u32 hook = skb->ifindex | HOOK_EGRESS, mark;
	struct flow *flow;
	int result;

	if (must_wait())
		return TC_ACT_UNSPEC;
	mark = mark_of(skb, &p);
	if (!is_for_proxy(skb) && (skb->ingress_ifindex > LOOPBACK || (!mark && !expects_answers())))
		return TC_ACT_OK;
	linearise(skb);
	if (parse(skb, &p))
		return TC_ACT_OK;
	if (is_for_proxy(skb)) /* others have marks as well */
		return is_of_a_pod(&p) ? drop(skb, &p, hook, DROP_NO_PROXY) : TC_ACT_OK;
	/* The outside of a tunnel keeps the mark of what is in it, which has been looked at. */
	if (mark && overlay_ifindex && p.key.protocol == IPPROTO_UDP && destination_port_of(&p) == overlay_port &&
	    !is_of_a_pod(&p))
		return TC_ACT_OK;
	if (is_of_proxy(mark) || mark == MARK_PROXY_ANSWERS)
		return handle(skb, &p, hook);
	if (p.flags & PACKET_ICMP_ERROR) {
		result = related(skb, &p, hook);
		return result == UNRELATED ? TC_ACT_OK : result;
	}
	flow = find_flow(&p.key);
	if (!flow)
		return predecessors_have(&p.key) ? TC_ACT_UNSPEC : TC_ACT_OK;
	if (!leg_of(flow, &p) || !(flow->flags & FLOW_SERVED) || begins_anew(flow, &p))
		return TC_ACT_OK;
	/* Of another connection with the same tuple, that calls the node by its own port. */
	if (expired(flow, ticks()) || (flow->state == FLOW_CLOSED && p.tcp_flags & TCP_SYN)) {
		forget(&p, flow);
		return TC_ACT_OK;
	}
	if (unsettled(flow, &p, 1) && settle(&p, flow)) {
		flow = bpf_map_lookup_elem(&flows, &p.key);
		if (!flow)
			return drop(skb, &p, hook, DROP_FLOW_TABLE_FULL);
	}
	account(skb, &p, flow, 1, ticks());
	if (p.flags & PACKET_FIRST_FRAGMENT)
		remember_fragment(skb, &p, flow);
	if (translate(skb, &p, flow, 1))
		return drop(skb, &p, hook, DROP_INVALID_PACKET);
	report_forward(skb, p.seen, ACTION_PASS);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
