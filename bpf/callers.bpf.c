// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Who has called which backend: goes through `calls`, whose entries only their sockets know, and writes a record of
 * each. Runs when somebody reads (https://docs.kernel.org/bpf/bpf_iterators.html). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "config.h"

/* As much of the kernel's own structs as is looked at; where it is in them, the loader finds out. */
#define KERNEL __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} KERNEL;

struct net {
	struct ns_common ns;
} KERNEL;

typedef struct {
	struct net *net;
} KERNEL possible_net_t;

struct sock_common {
	possible_net_t skc_net;
} KERNEL;

struct sock {
	struct sock_common __sk_common;
} KERNEL;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
} KERNEL;

SEC("iter/bpf_sk_storage_map")
int list_callers(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct caller caller = {};
	const struct call *call = ctx->value;
	struct sock *sk = ctx->sk;

	if (!sk || !call)
		return 0;
	caller.socket = bpf_get_socket_cookie(sk);
	caller.network = sk->__sk_common.skc_net.net->ns.inum;
	caller.backend = call->backend;
	bpf_seq_write(ctx->meta->seq, &caller, sizeof(caller));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
