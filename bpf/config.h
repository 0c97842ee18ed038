// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a node is: constants that the loader fills in before the verifier sees the programs, so that
 * branches which this node does not need are gone from them. */
#pragma once
#include "tables.h"

const union shared_types *const volatile shared_types = 0;
/* The version of the tables that these programs were built for. */
const volatile __u32 schema_version = SCHEMA_VERSION;

/* The overlay device; 0 means native routing. */
const volatile __u32 overlay_ifindex = 0;
/* The UDP port of VXLAN, network order: pods may not speak it to nodes. */
const volatile __be16 overlay_port = 0;
/* 1: the nodes reach each other over IPv6. */
const volatile __u8 underlay_ipv6 = 0;
/* The address that all host sides of veth pairs have, and that of every overlay device. */
const volatile __u8 gateway_mac[6] = { 0x02, 0x61, 0x78, 0x6f, 0x00, 0x01 };
const volatile __u8 overlay_mac[6] = { 0x02, 0x61, 0x78, 0x6f, 0x00, 0x02 };
/* The loopback device of every network namespace. */
enum { LOOPBACK = 1 };
/* Identities of addresses that no table names. */
const volatile __u32 world_ipv4 = IDENTITY_WORLD;
const volatile __u32 world_ipv6 = IDENTITY_WORLD;
/* 1: connections from pods to the outside leave with the node's address. */
const volatile __u8 masquerade = 1;
/* The ports for that: outside the range from which the node's own sockets get theirs. */
const volatile __u16 nat_port_first = 1024;
const volatile __u16 nat_port_last = 32767;
/* 1: what policy denies is answered, by TCP reset or "administratively prohibited"; 0: it is silent. */
const volatile __u8 answer_denied = 0;
/* The most entries of `flows` that one endpoint has. */
const volatile __u32 flow_quota = 32768;
/* The cookie of the node's own network namespace: only there loopback is an address of the node. */
const volatile __u64 node_namespace = 0;
/* 1: the kernel lets programs at sockets say why they refuse (bpf_set_retval, Linux 5.18). */
const volatile __u8 refusals_have_reasons = 0;
/* 1: takes over from programs with other tables (succession.h). */
const volatile __u8 successor = 0;
/* How long a flow lives without packets, in ticks, by enum flow_state. */
const volatile __u32 lifetime[FLOW_STATES] = { 56, 7451, 112, 10, 28, 168 };
