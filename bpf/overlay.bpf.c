// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The VXLAN device in metadata mode (RFC 7348): the network identifier is the sender's identity. */
#include "connection.h"

/* Reads which node the frame came from, and whom it says that the packet is from. */
static __noinline int read_tunnel(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_tunnel_key key = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), underlay_ipv6 ? BPF_F_TUNINFO_IPV6 : 0))
		return -DROP_NO_TUNNEL_ENDPOINT;
	p->tunnel_identity = key.tunnel_id;
	if (underlay_ipv6)
		copy_address(p->tunnel_source, key.remote_ipv6);
	else
		map_ipv4(p->tunnel_source, bpf_htonl(key.remote_ipv4));
	return 0;
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet p = { .seen = FROM_OVERLAY };
	int result;

	if (must_wait())
		return TC_ACT_UNSPEC;
	result = read_tunnel(skb, &p);
	if (result)
		return drop(skb, &p, skb->ifindex, -result);
	if (skb->vlan_present)
		return drop(skb, &p, skb->ifindex, DROP_UNSUPPORTED_L3);
	linearise(skb);
	result = parse(skb, &p);
	if (result == NOT_IP)
		return TC_ACT_SHOT;
	if (result < 0)
		return drop(skb, &p, skb->ifindex, -result);
	return handle(skb, &p, skb->ifindex);
}

/* Sends what this node itself has for a pod of another node on its way. 0, or a negative drop reason. */
static __noinline int send_as_node(struct __sk_buff *skb, const struct packet *p)
{
	const struct address *known = known_address(destination_of(p));
	struct flow_leg leg = { .tunnel_identity = IDENTITY_REMOTE_NODE };
	__u8 sender[ETH_ALEN];

	if (!known || !(known->node[0] | known->node[10] | known->node[15]))
		return -DROP_NO_TUNNEL_ENDPOINT;
	copy_address(leg.tunnel, known->node);
	/* All overlay devices have one address, and the other end takes a frame with its own for a loop. */
	for (int i = 0; i < ETH_ALEN; i++)
		sender[i] = gateway_mac[i];
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), sender, ETH_ALEN, 0);
	return tunnel_to(skb, &leg);
}

/* What this node's own stack sends to pods of other nodes. */
SEC("tc")
int to_overlay(struct __sk_buff *skb)
{
	struct packet p = { .seen = TO_OVERLAY };
	int result;

	if (must_wait())
		return TC_ACT_UNSPEC;
	/* Packets of pods have been given their key by the program that sent them here. */
	if (!read_tunnel(skb, &p))
		return TC_ACT_OK;
	linearise(skb);
	result = parse(skb, &p);
	if (result)
		return TC_ACT_SHOT;
	if (is_multicast(&p))
		return drop(skb, &p, skb->ifindex | HOOK_EGRESS, DROP_LINK_LOCAL);
	if (is_for_proxy(skb))
		return drop(skb, &p, skb->ifindex | HOOK_EGRESS, DROP_NO_PROXY);
	if (is_of_a_pod(&p))
		return handle(skb, &p, skb->ifindex | HOOK_EGRESS);
	result = send_as_node(skb, &p);
	return result < 0 ? drop(skb, &p, skb->ifindex | HOOK_EGRESS, -result) : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
