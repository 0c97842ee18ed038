// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One direction's verdict: the longest match under the peer's own identity, and the longest match
 * under "every peer". A deny in either wins. */
#pragma once
#include "packet.h"

static __always_inline const struct policy_value *match(struct policy_key *key, __u32 peer)
{
	key->peer = peer;
	return bpf_map_lookup_elem(&policies, key);
}

/* 0 when allowed, else the drop reason; `rule` gets the number of the rules that say so. */
static __noinline int evaluate(struct policy_key *key, __u32 peer, __u32 *rule)
{
	const struct policy_value *own = match(key, peer);
	const struct policy_value *every = match(key, IDENTITY_UNKNOWN);

	if (own && own->verdict == VERDICT_DENY) {
		*rule = own->rule;
		return DROP_POLICY_DENY;
	}
	if (every && every->verdict == VERDICT_DENY) {
		*rule = every->rule;
		return DROP_POLICY_DENY;
	}
	/* Both may allow. One number is kept: the peer's own, unless that is 0, which names no policy. */
	*rule = 0;
	if (own) {
		*rule = own->rule;
		if (*rule)
			return 0;
	}
	if (every) {
		*rule = every->rule;
		return 0;
	}
	return own ? 0 : DROP_POLICY_DEFAULT;
}
