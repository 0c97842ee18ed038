// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The memory of the slow path. */
#pragma once
#include "flow.h"
#include "party.h"
#include "policy.h"
#include "report.h"

/* What the slow path works on: too large for the stack. Programs on one CPU do not nest. */
struct workspace {
	struct flow flow;
	struct packet packet;
	struct party a, b; /* the initiator, and whom it calls */
	struct party spare;
	struct circumstances c;
	struct outcome egress, ingress;
	struct authentication_key pair; /* whose proof is looked for */
	struct authentication missing; /* always zero: there is none */
	__be16 proxy_port; /* where policy wants leg 0 to go */
	__u8 reply;  /* the packet at hand goes from b to a */
	__u8 known;  /* the connection stands in a table */
	__u8 broken_off; /* policy now wants another proxy for a connection that lives */
	__u8 parting; /* the packet at hand ends one of these, says its sender: it passes, and settles nothing */
	__u8 routed; /* the way onward has been looked up */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct workspace);
} workspaces SEC(".maps");
