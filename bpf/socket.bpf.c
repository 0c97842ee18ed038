// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Services at the socket: whoever calls one gets a backend's address before there is a packet, so that no packet
 * of the connection is translated. The program that calls sees the service's address all the time.
 *
 * A call is translated once: what it leads to is a backend, also where that address is a service's as well. */
#include "choose.h"
#include "known.h"

#define ECONNREFUSED 111

/* Of struct bpf_sock; also of UDP sockets that are connected. */
#define ESTABLISHED 1

enum outcome { UNTOUCHED, TRANSLATED, REFUSED };

/* Whom a program calls, or hears. */
struct peer {
	__u8 address[16];
	__be16 port;
};

static __always_inline void read_peer4(const struct bpf_sock_addr *ctx, struct peer *peer)
{
	map_ipv4(peer->address, ctx->user_ip4);
	peer->port = ctx->user_port;
}

static __always_inline void read_peer6(const struct bpf_sock_addr *ctx, struct peer *peer)
{
	__u32 *w = (__u32 *)peer->address;

	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
	peer->port = ctx->user_port;
}

static __always_inline void write_peer4(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip4 = ipv4_of(peer->address);
	ctx->user_port = peer->port;
}

static __always_inline void write_peer6(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	const __u32 *w = (const __u32 *)peer->address;

	ctx->user_ip6[0] = w[0];
	ctx->user_ip6[1] = w[1];
	ctx->user_ip6[2] = w[2];
	ctx->user_ip6[3] = w[3];
	ctx->user_port = peer->port;
}

static __always_inline int is_peer(const struct peer *peer, const __u8 *address, __be16 port)
{
	return peer->port == port && same_address(peer->address, address);
}

static __always_inline void become(struct peer *peer, const __u8 *address, __be16 port)
{
	copy_address(peer->address, address);
	peer->port = port;
}

/* ---- which service is it? ------------------------------------------------------------------ */

/* The unspecified address counts as loopback: there the kernel takes it. */
static __always_inline int is_loopback(const __u8 *address)
{
	const __u32 *w = (const __u32 *)address;

	if (is_mapped_ipv4(w))
		return !w[3] || address[12] == 127;
	return !w[0] && !w[1] && !w[2] && (w[3] & ~bpf_htonl(1)) == 0;
}

/* What is called costs two look-ups where it is no service: of the address, and of the port at the node. */
static __always_inline const struct frontend *called(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	struct frontend_key key = { .port = peer->port, .protocol = ctx->protocol };
	int loopback = is_loopback(peer->address);
	const struct frontend *found;

	/* A pod's loopback is the pod. */
	if (loopback && bpf_get_netns_cookie(ctx) != node_namespace)
		return NULL;
	copy_address(key.address, peer->address);
	found = bpf_map_lookup_elem(&frontends, &key);
	if (found)
		return found;
	if (is_mapped_ipv4(key.address))
		map_ipv4(key.address, 0);
	else
		__builtin_memset(key.address, 0, sizeof(key.address));
	found = bpf_map_lookup_elem(&frontends, &key);
	return found && (loopback || is_own(peer->address)) ? found : NULL;
}

/* ---- calls --------------------------------------------------------------------------------- */

static __always_inline struct call *call_of(struct bpf_sock_addr *ctx)
{
	return bpf_sk_storage_get(&calls, ctx->sk, NULL, 0);
}

static __always_inline int is_connected(const struct bpf_sock_addr *ctx)
{
	return ctx->sk->state == ESTABLISHED;
}

/* Without memory for it the socket is told the backend's address, and its flow does not name the service. */
static __always_inline void remember(struct bpf_sock_addr *ctx, struct call *call)
{
	struct call *place = bpf_sk_storage_get(&calls, ctx->sk, call, BPF_SK_STORAGE_GET_F_CREATE);

	if (place)
		*place = *call;
}

static __always_inline int get_backend(struct bpf_sock_addr *ctx, const struct peer *peer, __u32 service,
				       struct call *call)
{
	__u64 client[2] = { bpf_get_netns_cookie(ctx), 0 };
	const struct backend *backend = choose(service, client, bpf_get_prandom_u32(), &call->backend);

	if (!backend)
		return 0;
	copy_address(call->frontend, peer->address);
	call->frontend_port = peer->port;
	call->service = service;
	copy_address(call->backend_address, backend->address);
	call->backend_port = backend->port;
	return 1;
}

static __always_inline enum outcome connect(struct bpf_sock_addr *ctx, struct peer *peer)
{
	const struct frontend *frontend = called(ctx, peer);
	struct call call = {};

	if (!frontend) {
		if (call_of(ctx)) /* of an earlier connect() */
			bpf_sk_storage_delete(&calls, ctx->sk);
		return UNTOUCHED;
	}
	if (!get_backend(ctx, peer, frontend->service, &call))
		return REFUSED;
	remember(ctx, &call);
	become(peer, call.backend_address, call.backend_port);
	return TRANSLATED;
}

/* ---- datagrams ----------------------------------------------------------------------------- */

/* Whether what was called before is this, and its backend still serves. */
static __always_inline int goes_on(const struct call *call, const struct peer *peer, __u32 service)
{
	const struct backend *backend;
	__u32 number = call->backend;

	if (call->service != service || !is_peer(peer, call->frontend, call->frontend_port))
		return 0;
	backend = bpf_map_lookup_elem(&backends, &number);
	return backend && backend->port == call->backend_port &&
	       same_address(backend->address, call->backend_address);
}

static __always_inline void datagram_key(struct bpf_sock_addr *ctx, const __u8 *address, __be16 port,
					 enum datagram_way way, struct datagram_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->socket = bpf_get_socket_cookie(ctx);
	copy_address(key->address, address);
	key->port = port;
	key->way = way;
}

static __always_inline void note(const struct datagram_key *key, const struct call *call)
{
	const struct call *before = bpf_map_lookup_elem(&datagrams, key);

	if (!before || before->backend != call->backend || before->service != call->service)
		bpf_map_update_elem(&datagrams, key, call, BPF_ANY);
}

/* Keeps what `calls` will not have any longer. */
static __always_inline void set_aside(struct bpf_sock_addr *ctx, const struct call *from)
{
	struct call call = *from;
	struct datagram_key key;

	datagram_key(ctx, call.frontend, call.frontend_port, DATAGRAM_TO, &key);
	note(&key, &call);
	datagram_key(ctx, call.backend_address, call.backend_port, DATAGRAM_FROM, &key);
	note(&key, &call);
}

/* A socket keeps the backend of a service for all that it sends there, as long as it serves: there are protocols
 * whose connections are many datagrams. */
static __always_inline enum outcome send_datagram(struct bpf_sock_addr *ctx, struct peer *peer)
{
	const struct frontend *frontend = called(ctx, peer);
	struct call call = {}, *last, *aside;
	struct datagram_key key;

	if (!frontend)
		return UNTOUCHED;
	last = call_of(ctx);
	if (last && goes_on(last, peer, frontend->service)) {
		become(peer, last->backend_address, last->backend_port);
		return TRANSLATED;
	}
	datagram_key(ctx, peer->address, peer->port, DATAGRAM_TO, &key);
	aside = last ? bpf_map_lookup_elem(&datagrams, &key) : NULL;
	if (aside && goes_on(aside, peer, frontend->service))
		call = *aside;
	else if (!get_backend(ctx, peer, frontend->service, &call))
		return REFUSED;
	become(peer, call.backend_address, call.backend_port);
	if (last && is_connected(ctx)) {
		set_aside(ctx, &call);
		return TRANSLATED;
	}
	if (last)
		set_aside(ctx, last);
	remember(ctx, &call);
	return TRANSLATED;
}

static __always_inline enum outcome receive_datagram(struct bpf_sock_addr *ctx, struct peer *peer)
{
	const struct call *call = call_of(ctx);
	struct datagram_key key;

	if (!call) /* it has never called a service */
		return UNTOUCHED;
	if (!is_peer(peer, call->backend_address, call->backend_port)) {
		datagram_key(ctx, peer->address, peer->port, DATAGRAM_FROM, &key);
		call = bpf_map_lookup_elem(&datagrams, &key);
	}
	if (!call)
		return UNTOUCHED;
	become(peer, call->frontend, call->frontend_port);
	return TRANSLATED;
}

/* ---- programs ------------------------------------------------------------------------------ */

/* What the program's system call comes to: it goes on, or is refused. */
static __always_inline int answer(enum outcome outcome)
{
	if (outcome != REFUSED)
		return 1;
	if (refusals_have_reasons)
		bpf_set_retval(-ECONNREFUSED);
	return 0;
}

static __always_inline enum outcome name_peer(struct bpf_sock_addr *ctx, struct peer *peer)
{
	const struct call *call = call_of(ctx);

	if (!call || !is_peer(peer, call->backend_address, call->backend_port))
		return UNTOUCHED;
	become(peer, call->frontend, call->frontend_port);
	return TRANSLATED;
}

#define PROGRAM(name, section, family, work)                                                                \
	SEC(section) int name(struct bpf_sock_addr *ctx)                                                    \
	{                                                                                                   \
		struct peer peer;                                                                           \
		enum outcome outcome;                                                                       \
													    \
		read_peer##family(ctx, &peer);                                                              \
		outcome = work(ctx, &peer);                                                                 \
		if (outcome == TRANSLATED)                                                                  \
			write_peer##family(ctx, &peer);                                                     \
		return answer(outcome);                                                                     \
	}

PROGRAM(connect4, "cgroup/connect4", 4, connect)
PROGRAM(connect6, "cgroup/connect6", 6, connect)
PROGRAM(sendmsg4, "cgroup/sendmsg4", 4, send_datagram)
PROGRAM(sendmsg6, "cgroup/sendmsg6", 6, send_datagram)
PROGRAM(recvmsg4, "cgroup/recvmsg4", 4, receive_datagram)
PROGRAM(recvmsg6, "cgroup/recvmsg6", 6, receive_datagram)
PROGRAM(getpeername4, "cgroup/getpeername4", 4, name_peer)
PROGRAM(getpeername6, "cgroup/getpeername6", 6, name_peer)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
