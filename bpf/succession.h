// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Taking over from programs that work on other tables, without a packet that finds neither.
 *
 * Successors stand at every place before those whose place they will have (predecessors), and pass packets
 * on to them until `turn` says otherwise, for all places at once:
 *
 *   TURN_WAIT    predecessors do everything
 *   TURN_SHARE   a connection that stands in the successors' tables is theirs, one that stands only in the
 *                predecessors' is the predecessors', and a new one is the successors'. So both directions
 *                of a connection are always in the same hands, and it changes hands at the moment in which
 *                its entry is copied. (New ones are not settled meanwhile: the places are for those that
 *                are being copied.)
 *   TURN_ALL     all is copied: successors do everything
 *
 * Programs that succeed nobody have `successor` 0, and nothing of this is left in them. */
#pragma once
#include <linux/pkt_cls.h>
#include "config.h"
#include "maps.h"

enum turn { TURN_WAIT = 0, TURN_SHARE = 1, TURN_ALL = 2 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, enum turn);
} turn SEC(".maps");

/* The predecessors' tables, of which only the keys are looked at. */
#define PREDECESSOR(table)                                                                                  \
	struct {                                                                                            \
		__uint(type, BPF_MAP_TYPE_HASH);                                                            \
		__uint(max_entries, 1);                                                                     \
		__type(key, struct flow_key);                                                               \
		__type(value, __u64);                                                                       \
	} old_##table SEC(".maps")

PREDECESSOR(flows);
PREDECESSOR(half_open);
PREDECESSOR(nat);
PREDECESSOR(half_open_nat);

static __always_inline enum turn whose_turn(void)
{
	__u32 zero = 0;
	const volatile enum turn *now = bpf_map_lookup_elem(&turn, &zero);

	return now ? *now : TURN_WAIT;
}

static __always_inline int must_wait(void)
{
	return successor && whose_turn() == TURN_WAIT;
}

static __always_inline int sharing(void)
{
	return successor && whose_turn() == TURN_SHARE;
}

/* An entry moves from the half-open ones to the others, so these are looked at last. */
static __always_inline int predecessors_have(const struct flow_key *key)
{
	return sharing() && (bpf_map_lookup_elem(&old_half_open, key) || bpf_map_lookup_elem(&old_flows, key));
}

static __always_inline int predecessors_translate(const struct flow_key *outside)
{
	return sharing() &&
	       (bpf_map_lookup_elem(&old_half_open_nat, outside) || bpf_map_lookup_elem(&old_nat, outside));
}
