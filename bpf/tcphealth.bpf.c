// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* How TCP connections fare, by what their sockets know anyway: how long the handshake took, the round trip time, and
 * what had to be sent again. It is written into the connection's entry of the flow table, and goes out with the
 * event of its end.
 *
 * That is in time: a socket changes its state before it sends the FIN or RST that the state is about, and the end of
 * a connection is reported when the second FIN passes the node, or a RST. What the other machine resets has what was
 * measured up to then.
 *
 * The kernel calls this program on more occasions than those below, and takes what it leaves in `reply` for an
 * answer; nothing is written there, for it may be another program's. */
#include "config.h"
#include "flow.h"
#include "packet.h"

#define AF_INET 2
#define UNKNOWN_RTT 0xffffffff /* of struct bpf_sock_ops, rtt_min */

/* A connection as its socket knows it. */
struct known_as {
	__u8 remote[16];
	__u8 local[16];
	__be16 remote_port;
	__be16 local_port;
};

static __always_inline void read_ends(const struct bpf_sock_ops *ctx, struct known_as *ends)
{
	__u32 *remote = (__u32 *)ends->remote, *local = (__u32 *)ends->local;
	__be32 ipv4;

	if (ctx->family == AF_INET) {
		map_ipv4(remote, ctx->remote_ip4);
		ipv4 = ctx->local_ip4;
		/* Else the two branches share a load, by a pointer that the verifier refuses. */
		barrier_var(ipv4);
		map_ipv4(local, ipv4);
	} else {
		remote[0] = ctx->remote_ip6[0];
		remote[1] = ctx->remote_ip6[1];
		remote[2] = ctx->remote_ip6[2];
		remote[3] = ctx->remote_ip6[3];
		local[0] = ctx->local_ip6[0];
		local[1] = ctx->local_ip6[1];
		local[2] = ctx->local_ip6[2];
		local[3] = ctx->local_ip6[3];
	}
	ends->remote_port = bpf_htons((__u16)bpf_ntohl(ctx->remote_port)); /* 32 bits in network order */
	ends->local_port = bpf_htons((__u16)ctx->local_port);
}

/* ---- which connection is it? ---------------------------------------------------------------- */

/* Whether the socket has begun the connection, by whether its own end is the lower one. */
static __always_inline int begins(const struct flow *flow, int local_is_low)
{
	return !!(flow->flags & FLOW_FROM_LOW) == !!local_is_low;
}

/* The socket's own view may be one from before, or after, translation of packets: then another stands behind the
 * remote end. */
static __always_inline struct flow *find_behind(struct flow_key *key, struct known_as *ends, int *local_is_low)
{
	const struct translation *t = bpf_map_lookup_elem(&translations, key);

	if (!t)
		t = bpf_map_lookup_elem(&half_open_translations, key);
	if (!t || !t->stands_for_low == !*local_is_low)
		return NULL;
	*local_is_low = order(key, ends->local, ends->local_port, t->address, t->port);
	key->zone = t->zone;
	return find_flow(key);
}

/* The entry of the connection; none for what stays within a pod, or passes no program of ours. */
static __noinline struct flow *find_connection(const struct bpf_sock_ops *ctx, int *begun_here)
{
	struct flow_key key = { .protocol = IPPROTO_TCP };
	struct bpf_sock *socket = ctx->sk;
	struct known_as ends = {};
	struct flow *flow, *onward;
	int local_is_low;
	__u32 mark;

	if (!socket)
		return NULL;
	mark = socket->mark & MARK_PROXY_MASK;
	read_ends(ctx, &ends);
	local_is_low = order(&key, ends.local, ends.local_port, ends.remote, ends.remote_port);
	if (mark == MARK_EGRESS_PROXY || mark == MARK_INGRESS_PROXY)
		key.zone = ZONE_PROXY;
	flow = find_flow(&key);
	if (!flow)
		flow = find_behind(&key, &ends, &local_is_low);
	if (!flow)
		return NULL;
	*begun_here = begins(flow, local_is_low);
	/* Behind a proxy, whom it has called has a connection of the same name. */
	if (flow->proxy_port && !*begun_here && mark != MARK_PROXY_ANSWERS) {
		key.zone = ZONE_PROXY;
		onward = find_flow(&key);
		if (onward)
			flow = onward;
	}
	return flow;
}

/* ---- what is measured ----------------------------------------------------------------------- */

static __always_inline void note(const struct bpf_sock_ops *ctx, struct flow *flow, int begun_here)
{
	__u32 again = ctx->total_retrans, least = ctx->rtt_min;

	if (again > 0xffff)
		again = 0xffff;
	if (begun_here)
		flow->leg[0].retransmissions = again;
	else
		flow->leg[1].retransmissions = again;
	if (!begun_here && flow->rtt_of_initiator)
		return;
	flow->rtt_of_initiator = begun_here;
	flow->rtt = ctx->srtt_us >> 3; /* the kernel keeps eighths */
	flow->min_rtt = least == UNKNOWN_RTT ? 0 : least;
}

/* From the first SYN that passed this node to the packet that lets the socket say it is connected: the SYN-ACK
 * where the one who calls is here, else the last ACK. */
static __always_inline void note_handshake(struct flow *flow)
{
	__u64 took = (bpf_ktime_get_ns() - flow->created) / 1000;

	if (!flow->handshake)
		flow->handshake = !took ? 1 : took > 0xffffffff ? 0xffffffff : took;
}

/* Whether the socket is about to send its FIN or RST, or has got a RST. */
static __always_inline int leaves(__u32 before, __u32 now)
{
	return now == BPF_TCP_FIN_WAIT1 || now == BPF_TCP_LAST_ACK ||
	       (now == BPF_TCP_CLOSE && (before == BPF_TCP_ESTABLISHED || before == BPF_TCP_CLOSE_WAIT));
}

#define CALLS (BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG)

/* For what of this socket the kernel calls again. Of an end that answers to one of this node only what it sends again
 * matters: the round trip time is the other's. Where there is no flow, nobody pays for the rest of its life. */
static __always_inline void established(struct bpf_sock_ops *ctx)
{
	int begun_here;
	struct flow *flow = find_connection(ctx, &begun_here);

	if (!flow)
		return;
	note_handshake(flow);
	note(ctx, flow, begun_here);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | (!begun_here && flow->rtt_of_initiator ?
								      BPF_SOCK_OPS_RETRANS_CB_FLAG : CALLS));
}

static __always_inline void look_again(struct bpf_sock_ops *ctx)
{
	int begun_here;
	struct flow *flow = find_connection(ctx, &begun_here);

	if (flow)
		note(ctx, flow, begun_here);
}

SEC("sockops")
int tcp_health(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(ctx);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		look_again(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (leaves(ctx->args[0], ctx->args[1]))
			look_again(ctx);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
