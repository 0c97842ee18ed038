// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which backend the caller of a service gets. At sockets and for packets: nothing here asks what kind of
 * program it is in. */
#pragma once
#include "config.h"
#include "packet.h"

static __always_inline void count_served(__u32 service, __u32 backend)
{
	struct served_key key = { .service = service, .backend = backend };
	struct served one = { .connections = 1 }, *counter = bpf_map_lookup_elem(&served, &key);

	if (!counter && bpf_map_update_elem(&served, &key, &one, BPF_NOEXIST))
		counter = bpf_map_lookup_elem(&served, &key); /* another CPU was first */
	if (counter)
		__sync_fetch_and_add(&counter->connections, 1);
}

/* A slot at random. 0: there is none. */
static __always_inline __u32 draw_slot(__u32 service, __u32 count)
{
	struct slot_key key = {
		.service = service,
		.slot = ((__u64)bpf_get_prandom_u32() * count) >> 32,
	};
	const __u32 *backend = bpf_map_lookup_elem(&slots, &key);

	return backend ? *backend : 0;
}

/* What stands in the service's table at `at`. 0: it has no table. */
static __always_inline __u32 look_up_place(__u32 service, __u32 at)
{
	const struct maglev_places *places;
	__u32 zero = 0;
	void *table = bpf_map_lookup_elem(&maglev, &service);

	if (!table)
		return 0;
	places = bpf_map_lookup_elem(table, &zero);
	at %= MAGLEV_PLACES;
	/* Not every verifier knows what a remainder is at most, and the compiler knows it too well. */
	barrier_var(at);
	return places && at < MAGLEV_PLACES ? places->backend[at] : 0;
}

/* A number of a backend that takes new connections; 0: there is none. */
static __always_inline __u32 draw(__u32 number, const struct service *service, __u32 hash)
{
	__u32 found = 0;

	if (service->algorithm != ALGORITHM_RANDOM)
		found = look_up_place(number, service->algorithm == ALGORITHM_MAGLEV ? hash : bpf_get_prandom_u32());
	return found ? found : draw_slot(number, service->backends);
}

/* The backend that the client keeps, if it has one and may. Its number into `found`. */
static __always_inline const struct backend *kept(const struct affinity_key *key, const struct service *service,
						  __u32 now, __u32 *found)
{
	const struct affinity *before = bpf_map_lookup_elem(&affinities, key);
	const struct backend *backend;

	/* Signed: another CPU may have written a tick that is later than ours. */
	if (!before || (__s32)(now - before->seen) > (__s32)service->affinity)
		return NULL;
	*found = before->backend;
	backend = bpf_map_lookup_elem(&backends, found);
	return backend && !(backend->flags & BACKEND_LEAVING) ? backend : NULL;
}

/* The backend that a caller of a service gets, its number into `chosen`. NULL: there is none, the caller is to be
 * refused. Counts what it chose.
 *
 * `client`, 16 bytes in the program's own memory, is who has an affinity. `hash` is of the connection's tuple,
 * which decides where the algorithm is Maglev's. */
static __always_inline const struct backend *choose(__u32 number, const void *client, __u32 hash, __u32 *chosen)
{
	struct affinity_key key = { .service = number };
	struct affinity now = { .seen = ticks() };
	const struct service *service = NULL;
	const struct backend *backend = NULL;

	copy_address(key.client, client);
	/* Twice: what was drawn may have been taken away just then. */
	for (int tries = 0; tries < 2 && !backend; tries++) {
		service = bpf_map_lookup_elem(&services, &number);
		if (!service || !service->backends)
			break;
		if (service->affinity)
			backend = kept(&key, service, now.seen, &now.backend);
		if (!backend) {
			now.backend = draw(number, service, hash);
			backend = bpf_map_lookup_elem(&backends, &now.backend);
		}
	}
	*chosen = backend ? now.backend : 0;
	if (backend && service && service->affinity)
		bpf_map_update_elem(&affinities, &key, &now, BPF_ANY);
	count_served(number, *chosen);
	return backend;
}
