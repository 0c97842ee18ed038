// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the packets look like by which neighbours find each other: ARP (RFC 826), neighbour discovery (RFC 4861). */
#pragma once
#include "packet.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ND_ROUTER_SOLICITATION 133
#define ND_NEIGHBOUR_SOLICITATION 135
#define ND_NEIGHBOUR_ADVERTISEMENT 136
#define ND_REDIRECT 137

struct arp_ipv4 {
	__be16 hardware_type;
	__be16 protocol_type;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_ip[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_ip[4];
} __attribute__((packed));

struct neighbour_message {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 flags;
	__u8 target[16];
	__u8 option_type;
	__u8 option_length; /* in units of 8 bytes */
	__u8 option_mac[ETH_ALEN];
} __attribute__((packed));
