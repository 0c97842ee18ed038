// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Pods see one neighbour, their gateway. Whatever address they ask for by ARP or neighbour discovery,
 * the answer is the gateway's: they have no other way out. */
#pragma once
#include <linux/pkt_cls.h>
#include "config.h"
#include "resolution.h"

static __always_inline void from_gateway(struct ethhdr *eth)
{
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	for (int i = 0; i < ETH_ALEN; i++)
		eth->h_source[i] = gateway_mac[i];
}

/* Answers an ARP request back into the pod. Probes for an address of its own stay unanswered, as they
 * must (RFC 5227); everything else on this link that is not IP ends here. */
static __noinline int answer_arp(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct arp_ipv4 *arp = (void *)(eth + 1);
	__u8 asked[4];

	if ((void *)(arp + 1) > end)
		return TC_ACT_SHOT;
	if (eth->h_proto != bpf_htons(ETH_P_ARP) || arp->operation != bpf_htons(ARP_REQUEST) ||
	    arp->protocol_type != bpf_htons(ETH_P_IP) || arp->protocol_length != 4 ||
	    arp->hardware_length != ETH_ALEN)
		return TC_ACT_SHOT;
	if (!(arp->sender_ip[0] | arp->sender_ip[1] | arp->sender_ip[2] | arp->sender_ip[3]) ||
	    !__builtin_memcmp(arp->sender_ip, arp->target_ip, 4))
		return TC_ACT_SHOT;
	from_gateway(eth);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(asked, arp->target_ip, 4);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->sender_ip, asked, 4);
	for (int i = 0; i < ETH_ALEN; i++)
		arp->sender_mac[i] = gateway_mac[i];
	return bpf_redirect(skb->ifindex, 0);
}

#define ND_ADVERTISEMENT_FLAGS bpf_htonl(0x60000000) /* solicited, override */

/* Answers a neighbour solicitation (RFC 4861) by turning it into the advertisement. */
static __noinline int answer_solicitation(struct __sk_buff *skb, const struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip = (void *)(eth + 1);
	struct neighbour_message *nd = (void *)(ip + 1);
	const __u64 *source = (const __u64 *)source_of(p);
	struct neighbour_message was, is;
	struct in6_addr asked;
	__s64 sum;

	/* Without the option or with others beside it: nobody's resolver sends that. */
	if ((void *)(nd + 1) > end || ip->nexthdr != IPPROTO_ICMPV6 || ip->hop_limit != 255 ||
	    ip->payload_len != bpf_htons(sizeof(*nd)) || nd->option_type != 1 || nd->option_length != 1)
		return TC_ACT_SHOT;
	if (!source[0] && !source[1]) /* duplicate address detection */
		return TC_ACT_SHOT;
	was = *nd;
	is = was;
	is.type = ND_NEIGHBOUR_ADVERTISEMENT;
	is.check = 0;
	is.flags = ND_ADVERTISEMENT_FLAGS;
	is.option_type = 2;
	for (int i = 0; i < ETH_ALEN; i++)
		is.option_mac[i] = gateway_mac[i];
	__builtin_memcpy(&asked, was.target, 16);
	from_gateway(eth);
	ip->daddr = ip->saddr;
	ip->saddr = asked;

	/* A new sum over pseudo header and message; nothing is incremental, the packet is small. */
	struct {
		struct in6_addr source, destination;
		__be32 length, next;
	} pseudo = { ip->saddr, ip->daddr, bpf_htonl(sizeof(is)), bpf_htonl(IPPROTO_ICMPV6) };
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&is, sizeof(is), sum);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	is.check = ~sum;
	*nd = is;
	return bpf_redirect(skb->ifindex, 0);
}
