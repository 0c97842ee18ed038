// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What `addresses` knows of one address. */
#pragma once
#include "packet.h"

static __always_inline const struct address *known_address(const void *address)
{
	struct prefix_key key = { .prefix_length = 128 };

	copy_address(key.address, address);
	return bpf_map_lookup_elem(&addresses, &key);
}

/* Whether it is one of a node itself. */
static __always_inline int is_node(const void *address)
{
	const struct address *known = known_address(address);

	return known && known->flags & ADDRESS_NODE;
}

/* Whether it is one of this node itself. */
static __always_inline int is_own(const void *address)
{
	const struct address *known = known_address(address);

	return known && known->identity == IDENTITY_HOST && known->flags & ADDRESS_NODE;
}
