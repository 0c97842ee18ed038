// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Addresses of services that stand on no device of this node, and for which it answers on a link: whoever
 * asks by ARP or neighbour discovery gets the device's own address. Only such packets look for one. */
#pragma once
#include <linux/pkt_cls.h>
#include "resolution.h"

#define TO_ANOTHER_HOST 3 /* PACKET_OTHERHOST of linux/if_packet.h */
#define ND_SOURCE_LINK_ADDRESS 1
#define ND_TARGET_LINK_ADDRESS 2
#define ND_SOLICITED bpf_htonl(0x40000000)
#define ND_OVERRIDE bpf_htonl(0x20000000)

/* What is announced holds only as long as its holder's lease: an agent that is gone leaves the entry here, and
 * another node has the address by then. */
static __always_inline const struct announced *announced_here(struct __sk_buff *skb, const void *address)
{
	struct announced_key key = { .ifindex = skb->ifindex };
	const struct announced *found;

	copy_address(key.address, address);
	found = bpf_map_lookup_elem(&announced, &key);
	return found && found->until > bpf_ktime_get_boot_ns() ? found : NULL;
}

/* Whether it was meant for this host, on this device and not on a VLAN of it. */
static __always_inline int heard_by_us(const struct __sk_buff *skb)
{
	return skb->pkt_type != TO_ANOTHER_HOST && !skb->vlan_present;
}

/* Answers an ARP request (RFC 826), also the probe of a host that would like to have the address (RFC 5227).
 * Another's announcement of it is left alone: it tells of a holder that came after us. */
static __noinline int answer_announced_arp(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct arp_ipv4 *arp = (void *)(eth + 1);
	const struct announced *ours;
	__u32 asked[4];
	__be32 target;

	if (skb->protocol != bpf_htons(ETH_P_ARP) || !heard_by_us(skb) || (void *)(arp + 1) > end)
		return TC_ACT_OK;
	if (arp->operation != bpf_htons(ARP_REQUEST) || arp->hardware_type != bpf_htons(1) ||
	    arp->protocol_type != bpf_htons(ETH_P_IP) || arp->protocol_length != 4 ||
	    arp->hardware_length != ETH_ALEN || !__builtin_memcmp(arp->sender_ip, arp->target_ip, 4))
		return TC_ACT_OK;
	__builtin_memcpy(&target, arp->target_ip, 4);
	map_ipv4(asked, target);
	ours = announced_here(skb, asked);
	if (!ours)
		return TC_ACT_OK;
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	__builtin_memcpy(arp->sender_ip, &target, 4);
	for (int i = 0; i < ETH_ALEN; i++) {
		arp->target_mac[i] = arp->sender_mac[i];
		arp->sender_mac[i] = ours->mac[i];
		eth->h_dest[i] = eth->h_source[i];
		eth->h_source[i] = ours->mac[i];
	}
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int is_solicitation(const struct packet *p)
{
	return p->key.protocol == IPPROTO_ICMPV6 && p->icmp_type == ND_NEIGHBOUR_SOLICITATION;
}

/* A solicitation with the options behind it, as far as anybody sends them; nothing follows them. */
#define ND_OPTIONS 6
struct solicitation {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 reserved;
	__u8 target[16];
	__u8 options[8 * ND_OPTIONS];
};

static __always_inline __sum16 icmp6_sum(const struct in6_addr *source, const struct in6_addr *destination,
					 __u32 length, const void *message, __u32 size)
{
	struct {
		struct in6_addr source, destination;
		__be32 length, next;
	} pseudo = { *source, *destination, bpf_htonl(length), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);

	sum = bpf_csum_diff(NULL, 0, (__be32 *)message, size, sum);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Whether a solicitation of `length` bytes is one that must be heeded (RFC 4861, section 7.1.1). */
static __always_inline int is_valid(const struct solicitation *asked, __u32 length, const struct ipv6hdr *ip)
{
	const __u32 *from = (const __u32 *)&ip->saddr;
	int nobody = !(from[0] | from[1] | from[2] | from[3]);
	__u32 next = 0;

	if (asked->type != ND_NEIGHBOUR_SOLICITATION || asked->code || asked->target[0] == 0xff)
		return 0;
	if (icmp6_sum(&ip->saddr, &ip->daddr, length, asked, sizeof(*asked)))
		return 0;
	for (__u32 i = 0; i < ND_OPTIONS; i++) {
		if (i != next || sizeof(*asked) - sizeof(asked->options) + 8 * i >= length)
			continue;
		if (!asked->options[8 * i + 1] || (nobody && asked->options[8 * i] == ND_SOURCE_LINK_ADDRESS))
			return 0;
		next += asked->options[8 * i + 1];
	}
	return sizeof(*asked) - sizeof(asked->options) + 8 * next == length;
}

/* Answers a neighbour solicitation, and with it the one who looks whether the address is free (section 7.2.4,
 * RFC 4862). */
static __noinline int answer_announced_solicitation(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip = (void *)(eth + 1);
	struct solicitation asked = {};
	struct neighbour_message answer = {
		.type = ND_NEIGHBOUR_ADVERTISEMENT,
		.flags = ND_SOLICITED | ND_OVERRIDE,
		.option_type = ND_TARGET_LINK_ADDRESS,
		.option_length = 1,
	};
	const struct announced *ours;
	struct ipv6hdr was;
	__u32 length, *to;
	int nobody;

	if (!heard_by_us(skb) || (void *)(ip + 1) > end || ip->nexthdr != IPPROTO_ICMPV6 || ip->hop_limit != 255)
		return TC_ACT_OK;
	was = *ip;
	length = bpf_ntohs(was.payload_len);
	if (length < sizeof(asked) - sizeof(asked.options) || length > sizeof(asked) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(*ip), &asked, length) || !is_valid(&asked, length, &was))
		return TC_ACT_OK;
	ours = announced_here(skb, asked.target);
	if (!ours || bpf_skb_change_tail(skb, ETH_HLEN + sizeof(*ip) + sizeof(answer), 0))
		return TC_ACT_OK;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	eth = data;
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) + sizeof(answer) > end)
		return TC_ACT_SHOT;
	to = (__u32 *)&was.saddr;
	nobody = !(to[0] | to[1] | to[2] | to[3]);
	if (nobody) { /* to all nodes: it has no address yet */
		to[0] = bpf_htonl(0xff020000);
		to[3] = bpf_htonl(1);
		answer.flags = ND_OVERRIDE;
	}
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_dest[i] = !nobody ? eth->h_source[i] : i < 2 ? 0x33 : i == ETH_ALEN - 1;
		eth->h_source[i] = ours->mac[i];
		answer.option_mac[i] = ours->mac[i];
	}
	__builtin_memcpy(answer.target, asked.target, 16);
	__builtin_memcpy(&ip->saddr, asked.target, 16);
	ip->daddr = was.saddr;
	ip->payload_len = bpf_htons(sizeof(answer));
	answer.check = icmp6_sum(&ip->saddr, &was.saddr, sizeof(answer), &answer, sizeof(answer));
	__builtin_memcpy(ip + 1, &answer, sizeof(answer));
	return bpf_redirect(skb->ifindex, 0);
}
