// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The ends of a connection: who has an address, and may he send from where a packet was seen? */
#pragma once
#include "config.h"
#include "known.h"
#include "packet.h"
#include "steer.h"

enum place {
	PLACE_OUTSIDE = 0, /* not of this cluster */
	PLACE_POD = 1,	   /* here */
	PLACE_HOST = 2,	   /* this node itself */
	PLACE_NODE = 3,	   /* another node itself */
	PLACE_REMOTE = 4,  /* a pod of another node */
};

/* One end of a connection. */
struct party {
	__u32 identity;
	__u32 ifindex;
	__u16 endpoint;
	__u8 place; /* enum place */
	__u8 flags; /* enum address_flag */
	__u8 mac[6];
	__u8 unused[2];
	__u8 node[16];
};

static __noinline int resolve(const __u8 *address, struct party *who)
{
	struct prefix_key key = { .prefix_length = 128 };
	const struct endpoint *pod;
	const struct address *known;

	copy_address(key.address, address);
	pod = bpf_map_lookup_elem(&endpoints, key.address);
	if (pod) {
		who->place = PLACE_POD;
		who->identity = pod->identity;
		who->ifindex = pod->ifindex;
		who->endpoint = pod->id;
		__builtin_memcpy(who->mac, pod->mac, sizeof(who->mac));
		return 0;
	}
	known = bpf_map_lookup_elem(&addresses, &key);
	if (!known) {
		who->identity = is_mapped_ipv4(key.address) ? world_ipv4 : world_ipv6;
		return 0;
	}
	who->identity = known->identity;
	who->flags = known->flags;
	copy_address(who->node, known->node);
	if (known->flags & ADDRESS_NODE)
		who->place = known->identity == IDENTITY_HOST ? PLACE_HOST : PLACE_NODE;
	else if (who->node[0] | who->node[10] | who->node[15])
		who->place = PLACE_REMOTE;
	return 0;
}

/* Whether what the node's stack sends to a pod has come to the node by a way on which senders are looked at:
 * from the node itself, or by a device that has a program of ours. */
static __always_inline int came_by_a_guarded_way(struct __sk_buff *skb, const struct party *sender,
						 const struct party *receiver)
{
	__u32 ifindex = skb->ingress_ifindex;

	if (sender->place == PLACE_POD)
		return ifindex == sender->ifindex;
	if (overlay_ifindex && sender->place == PLACE_REMOTE)
		return ifindex == overlay_ifindex;
	return ifindex <= LOOPBACK || ifindex == receiver->ifindex || ifindex == overlay_ifindex ||
	       bpf_map_lookup_elem(&uplinks, &ifindex);
}

/* Whether the sender may send this from where the packet was seen. 0 or a drop reason. */
static __always_inline int validate(struct __sk_buff *skb, const struct packet *p, __u32 hook, struct party *sender,
				    const struct party *receiver)
{
	__u32 mark = mark_of(skb, p);

	switch (p->seen) {
	case FROM_POD:
		if (sender->place != PLACE_POD || sender->ifindex != hook)
			return DROP_INVALID_SOURCE;
		/* Else a pod could send a frame to another node that says it is from anybody. */
		if (overlay_ifindex && p->key.protocol == IPPROTO_UDP &&
		    destination_port_of(p) == overlay_port &&
		    (receiver->place == PLACE_HOST || receiver->place == PLACE_NODE))
			return DROP_ENCAPSULATION_PROHIBITED;
		return 0;
	case TO_UPLINK:
	case TO_OVERLAY: /* of proxies of this node: they speak for its pods, and to them for others */
		return mark ? 0 : DROP_INVALID_SOURCE;
	case TO_POD:
		if (receiver->place != PLACE_POD || receiver->ifindex != (hook & ~HOOK_EGRESS))
			return DROP_UNKNOWN_ENDPOINT;
		if (!mark && sender->place != PLACE_OUTSIDE && !came_by_a_guarded_way(skb, sender, receiver))
			return DROP_INVALID_SOURCE;
		return 0;
	case FROM_UPLINK:
		if (sender->place == PLACE_POD || sender->place == PLACE_HOST)
			return DROP_INVALID_SOURCE;
		/* Pods of other nodes come through the overlay, or not at all. */
		if (overlay_ifindex && sender->place == PLACE_REMOTE)
			return DROP_INVALID_SOURCE;
		return 0;
	default: /* FROM_OVERLAY: a node vouches for its own pods and for itself, and passes on what it has balanced */
		if (p->flags & PACKET_TOLD && sender->place == PLACE_OUTSIDE)
			return p->tunnel_identity == IDENTITY_WORLD && is_node(p->tunnel_source) ?
				       0 : DROP_INVALID_SOURCE;
		if ((sender->place != PLACE_REMOTE && sender->place != PLACE_NODE) ||
		    !same_address(sender->node, p->tunnel_source))
			return DROP_INVALID_SOURCE;
		if (sender->place == PLACE_NODE) {
			/* The receiver's identity for it may be one of its own, by the node's labels. */
			return p->tunnel_identity == IDENTITY_REMOTE_NODE ? 0 : DROP_INVALID_IDENTITY;
		}
		if (p->tunnel_identity < IDENTITY_FIRST_CLUSTER && p->tunnel_identity != IDENTITY_INIT &&
		    p->tunnel_identity != IDENTITY_HEALTH)
			return DROP_INVALID_IDENTITY;
		sender->identity = p->tunnel_identity;
		return 0;
	}
}
