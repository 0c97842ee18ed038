// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Policy for the node itself. Runs before the other programs of a device, and only on nodes that a host policy
 * selects: nobody else pays for it. It drops, or leaves the packet to what comes behind.
 *
 * What it is about: packets to an address of the node that nothing else stands behind (no service, no masqueraded
 * pod), and packets that the node's own sockets send from one. By which device they come makes no difference.
 *
 * TCP has no table: who may begin a connection is asked of its SYN, and what belongs to one has a socket. So what was
 * established before a policy goes on. For the rest there is `host_flows`: what was allowed once is answered. */
#include "party.h"
#include "policy.h"
#include "report.h"
#include "service.h"

#define CONTINUE TC_ACT_UNSPEC
#define MARK_ANSWER 0x61786f01 /* of answer.h */
#define HOST_FLOW_LIFETIME 112 /* ticks: two minutes */
#define ND_FIRST 133 /* router solicitation; to redirect */
#define ND_LAST 137
#define TO_ANOTHER_HOST 3 /* PACKET_OTHERHOST of linux/if_packet.h */

/* host_settings: which of the two sets of host policies is in force. Written by the agent. */
struct host_settings {
	__u64 until; /* CLOCK_BOOTTIME, ns: to then `tried` is; it needs nobody for what comes after */
	__u64 learn; /* to then nothing is dropped, and what goes on is remembered */
	__u32 tried; /* a subject; 0: no policy */
	__u32 confirmed; /* the same */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct host_settings);
} host_settings SEC(".maps");

/* Connections other than TCP's, by both ends -> ticks. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, __u32);
} host_flows SEC(".maps");

/* By whose policy a packet is judged; 0: by nobody's. */
static __always_inline __u32 subject_now(int *learning)
{
	__u32 zero = 0;
	const struct host_settings *s = bpf_map_lookup_elem(&host_settings, &zero);
	__u64 now = bpf_ktime_get_boot_ns();

	if (!s)
		return 0;
	*learning = now < s->learn;
	return now < s->until ? s->tried : s->confirmed;
}

static __always_inline int is_discovery(const struct packet *p)
{
	return p->key.protocol == IPPROTO_ICMPV6 && p->icmp_type >= ND_FIRST && p->icmp_type <= ND_LAST;
}

/* Whether it is the outside of a tunnel between nodes. */
static __always_inline int is_tunnel(const struct packet *p, const __u8 *other)
{
	return overlay_ifindex && p->key.protocol == IPPROTO_UDP && destination_port_of(p) == overlay_port &&
	       is_node(other);
}

/* Whether a socket of the node has this connection; one that only listens has none. */
static __noinline int has_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;
	int found;

	if (p->flags & PACKET_IPV6) {
		size = sizeof(tuple.ipv6);
		copy_address(tuple.ipv6.saddr, source_of(p));
		copy_address(tuple.ipv6.daddr, destination_of(p));
		tuple.ipv6.sport = source_port_of(p);
		tuple.ipv6.dport = destination_port_of(p);
	} else {
		size = sizeof(tuple.ipv4);
		tuple.ipv4.saddr = ipv4_of(source_of(p));
		tuple.ipv4.daddr = ipv4_of(destination_of(p));
		tuple.ipv4.sport = source_port_of(p);
		tuple.ipv4.dport = destination_port_of(p);
	}
	socket = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	found = socket->state != BPF_TCP_LISTEN;
	bpf_sk_release(socket);
	return found;
}

/* Whether the packet goes on what was allowed before. */
static __always_inline int is_known(const struct packet *p)
{
	__u32 now = ticks(), *seen = bpf_map_lookup_elem(&host_flows, &p->key);

	if (!seen || (__s32)(now - *seen) > HOST_FLOW_LIFETIME)
		return 0;
	if (*seen != now)
		*seen = now;
	return 1;
}

static __always_inline __be16 policy_port(const struct packet *p)
{
	return is_icmp(p->key.protocol) ? bpf_htons(p->icmp_type) : destination_port_of(p);
}

/* What policy says of a packet that begins something; drops are reported. A TC action. */
static __noinline int ask(struct __sk_buff *skb, const struct packet *p, __u32 hook, __u32 subject, __u32 flags)
{
	struct policy_key key = {
		.prefix_length = POLICY_PREFIX_PORT,
		.subject = subject,
		.direction = flags & 1,
		.protocol = p->key.protocol,
		.port = policy_port(p),
	};
	struct circumstances c = { .source_identity = IDENTITY_HOST, .destination_identity = IDENTITY_HOST };
	struct outcome outcome = {};
	struct party peer = {};
	struct flow_key flow = p->key;
	__u32 now = ticks();
	int reason, learning = flags & 2;

	resolve(key.direction == EGRESS ? destination_of(p) : source_of(p), &peer);
	/* As whom it comes by an uplink, nobody of this node can. */
	if (key.direction == INGRESS && bpf_map_lookup_elem(&uplinks, &hook) &&
	    (peer.place == PLACE_POD || peer.place == PLACE_HOST ||
	     (overlay_ifindex && peer.place == PLACE_REMOTE)))
		reason = DROP_INVALID_SOURCE;
	else
		reason = evaluate(&key, peer.identity, &outcome);
	if (!reason && outcome.flags & POLICY_AUTHENTICATE)
		reason = DROP_UNAUTHENTICATED;
	if (reason && !learning) {
		if (key.direction == EGRESS) {
			c.destination_identity = peer.identity;
			c.destination_endpoint = peer.endpoint;
			c.egress_rule = outcome.rule;
		} else {
			c.source_identity = peer.identity;
			c.source_endpoint = peer.endpoint;
			c.ingress_rule = outcome.rule;
			c.flags = EVENT_INGRESS;
		}
		report_drop(skb, p, hook, reason, &c);
		return TC_ACT_SHOT;
	}
	if (p->key.protocol != IPPROTO_TCP)
		bpf_map_update_elem(&host_flows, &flow, &now, BPF_ANY);
	return CONTINUE;
}

/* Headers may lie outside of the linear part. */
static __always_inline int read(struct __sk_buff *skb, struct packet *p)
{
	if ((void *)(long)skb->data + 94 > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < 128 ? skb->len : 128);
	return parse(skb, p);
}

/* A malformed packet could hide from us what the node's stack finds in it. A later fragment is nothing without the
 * first one. */
static __always_inline int unreadable(struct __sk_buff *skb, const struct packet *p, __u32 hook, int result)
{
	struct circumstances c = { .flags = is_arriving(p) ? EVENT_INGRESS : 0 };

	if (result == NOT_IP || result == -DROP_FRAGMENT_NOT_FOUND || p->flags & PACKET_LATER_FRAGMENT)
		return CONTINUE;
	report_drop(skb, p, hook, -result, &c);
	return TC_ACT_SHOT;
}

/* What comes in by a device. */
SEC("tc")
int host_in(struct __sk_buff *skb)
{
	struct packet p = { .seen = FROM_UPLINK }, behind;
	int learning = 0, result;
	__u32 subject = subject_now(&learning);

	if (!subject || skb->pkt_type == TO_ANOTHER_HOST || skb->mark == MARK_ANSWER || is_for_proxy(skb))
		return CONTINUE;
	result = read(skb, &p);
	if (result)
		return learning ? CONTINUE : unreadable(skb, &p, skb->ifindex, result);
	if (p.flags & PACKET_LATER_FRAGMENT || is_multicast(&p) || is_discovery(&p) || !is_own(destination_of(&p)))
		return CONTINUE;
	if (p.flags & PACKET_ICMP_ERROR || is_tunnel(&p, source_of(&p)))
		return CONTINUE;
	if (p.key.protocol == IPPROTO_TCP ? !is_syn(&p) && has_socket(skb, &p) : is_known(&p))
		return CONTINUE;
	behind = p;
	if (find_frontend(&p) || look_behind(&behind))
		return CONTINUE;
	return ask(skb, &p, skb->ifindex, subject, INGRESS | learning << 1);
}

/* What goes out by a device, from the node's own stack. */
SEC("tc")
int host_out(struct __sk_buff *skb)
{
	struct packet p = { .seen = TO_UPLINK };
	__u32 hook = skb->ifindex | HOOK_EGRESS, subject;
	int learning = 0, result;

	subject = subject_now(&learning);
	if (!subject || skb->ingress_ifindex > LOOPBACK || skb->mark == MARK_ANSWER || is_for_proxy(skb) ||
	    mark_of(skb, &p))
		return CONTINUE;
	result = read(skb, &p);
	if (result)
		return learning ? CONTINUE : unreadable(skb, &p, hook, result);
	if (p.flags & PACKET_LATER_FRAGMENT || is_multicast(&p) || is_discovery(&p) || !is_own(source_of(&p)))
		return CONTINUE;
	if (p.flags & PACKET_ICMP_ERROR || is_tunnel(&p, destination_of(&p)))
		return CONTINUE;
	if (p.key.protocol == IPPROTO_TCP ? !is_syn(&p) : is_known(&p))
		return CONTINUE;
	return ask(skb, &p, hook, subject, EGRESS | learning << 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
