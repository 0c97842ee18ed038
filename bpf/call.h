// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the sender of a packet has called: its socket knows, where a program at the socket has translated the call. */
#pragma once
#include "packet.h"

/* Names the service in a new flow. A packet keeps its socket on the way out of a pod, through the veth pair; what
 * another machine has sent has none. */
static __noinline int name_call(struct __sk_buff *skb, const struct packet *p, struct flow *flow)
{
	struct bpf_sock *socket = skb->sk;
	const struct call *call;

	socket = socket ? bpf_sk_fullsock(socket) : NULL;
	call = socket ? bpf_sk_storage_get(&calls, socket, NULL, 0) : NULL;
	/* Datagrams for others may follow one for a service. */
	if (!call || call->backend_port != destination_port_of(p) ||
	    !same_address(call->backend_address, destination_of(p)))
		return 0;
	copy_address(flow->frontend, call->frontend);
	flow->frontend_port = call->frontend_port;
	flow->service = call->service;
	flow->backend = call->backend;
	return 0;
}
