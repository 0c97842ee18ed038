// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One direction's verdict: the longest match under the peer's own identity, and the longest match
 * under "every peer". A deny in either wins. An entry of the peer's own that is complete stands alone. */
#pragma once
#include "packet.h"

/* What policy says of one direction. */
struct outcome {
	__u32 rule; /* the number of the rules that say so */
	__be16 proxy_port; /* to whom they send it; 0: to nobody */
	__u8 flags; /* enum policy_flag */
	__u8 unused;
};

static __always_inline const struct policy_value *match(struct policy_key *key, __u32 peer)
{
	key->peer = peer;
	return bpf_map_lookup_elem(&policies, key);
}

/* Whether an entry that allows does so on a condition. One without any wins. */
static __always_inline int has_conditions(const struct policy_value *value)
{
	return value->proxy_port || value->flags & (POLICY_AUTHENTICATE | POLICY_AUDIT);
}

/* An entry without verdict is there to hide wider ones. */
static __always_inline const struct policy_value *known_verdict(const struct policy_value *value)
{
	return value && value->verdict != VERDICT_NONE ? value : NULL;
}

/* 0 when allowed, else the drop reason. */
static __noinline int evaluate(struct policy_key *key, __u32 peer, struct outcome *outcome)
{
	const struct policy_value *own = match(key, peer), *every = NULL, *says;

	if (!own || !(own->flags & POLICY_COMPLETE))
		every = known_verdict(match(key, IDENTITY_UNKNOWN));
	own = known_verdict(own);
	says = own ? own : every;
	if (own && every && own->verdict != VERDICT_DENY &&
	    (every->verdict == VERDICT_DENY || (has_conditions(own) && !has_conditions(every))))
		says = every;
	if (!says)
		return DROP_POLICY_DEFAULT;
	outcome->rule = says->rule;
	if (says->verdict == VERDICT_DENY)
		return DROP_POLICY_DENY;
	/* Both may allow. One number is kept: the peer's own, unless that is 0, which names no policy. */
	if (!says->rule && every)
		outcome->rule = every->rule;
	outcome->proxy_port = says->proxy_port;
	outcome->flags = says->flags;
	return 0;
}
