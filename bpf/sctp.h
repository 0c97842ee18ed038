// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Mending SCTP's checksum, a CRC32c over the whole packet (RFC 9260, appendix A), when its ports change.
 *
 * The kernel's helpers know only sums. But a CRC is linear: what changes in it is the change of the data,
 * a polynomial over two elements, times x^(8 n), where n bytes follow, modulo the CRC's polynomial. So
 * nothing of the packet needs to be read but its length. Polynomials are bit-reversed here, as in the CRC:
 * the highest bit stands for x^0. */
#pragma once
#include <linux/types.h>

#define CRC32C 0x82f63b78

/* x^(8 * 2^k) modulo the polynomial. */
static const __u32 crc32c_powers[16] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
	0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/* Verified on its own, as is the next: a loop in a loop is long to follow. */
__noinline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= b & -(a >> 31);
		a <<= 1;
		b = (b >> 1) ^ (CRC32C & -(b & 1));
	}
	return product;
}

/* How the CRC of `length` bytes changes when their first four change by `difference` (exclusive or, bytes in
 * the order of memory). */
__noinline __u32 crc32c_change(__u32 difference, __u32 length)
{
	for (int k = 0; k < 16; k++)
		if (length >> k & 1)
			difference = crc32c_multiply(difference, crc32c_powers[k]);
	return difference;
}
