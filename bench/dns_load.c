// SPDX-License-Identifier: Apache-2.0
/* A name server and its clients over UDP, small enough to be no part of what they measure.
 *
 *   dns server ADDRESS PORT                     every name has an address of its own
 *   dns ask ADDRESS PORT SECONDS WINDOW NAMES   asks for NAMES names in turn, WINDOW of them at a time
 *
 * Prints how many answers came a second, the median and the 99th percentile of how long one took, in
 * microseconds, and how many did not come within a second.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include "timing.h"

#define MOST 512
#define SAMPLES (1 << 22)
#define HEADER 12
#define WAIT 1.0

/* A record of the name asked for: A, IN, a minute, in 198.18.0.0/15 (RFC 2544) by the number in the name. */
static unsigned char record[] = { 0xc0, HEADER, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 0, 0 };

static void serve(int fd)
{
	unsigned char wire[1500];
	struct sockaddr_storage from;
	socklen_t size;
	ssize_t got;
	int number;

	for (;;) {
		size = sizeof(from);
		got = recvfrom(fd, wire, sizeof(wire) - sizeof(record), 0, (struct sockaddr *)&from, &size);
		if (got < HEADER)
			continue;
		number = got > HEADER + 9 ? atoi((char *)wire + HEADER + 2) : 0; /* up to the next label's length */
		record[13] = 18 + (number >> 16 & 1);
		record[14] = number >> 8;
		record[15] = number;
		wire[2] |= 0x80;
		wire[3] = 0x80;
		wire[7] = 1;
		memcpy(wire + got, record, sizeof(record));
		sendto(fd, wire, got + sizeof(record), 0, (struct sockaddr *)&from, size);
	}
}

static size_t query(unsigned char *wire, unsigned id, unsigned name)
{
	static const unsigned char rest[] = "\5bench\4test\0\0\1\0\1"; /* and the end of the string */

	memset(wire, 0, HEADER);
	wire[0] = id >> 8;
	wire[1] = id;
	wire[2] = 1;
	wire[5] = 1;
	wire[HEADER] = 8;
	sprintf((char *)wire + HEADER + 1, "n%07u", name);
	memcpy(wire + HEADER + 9, rest, sizeof(rest) - 1);
	return HEADER + 9 + sizeof(rest) - 1;
}

static int ask(int fd, double seconds, int window, unsigned names)
{
	static float took[SAMPLES];
	static double asked[MOST];
	unsigned char wire[1500];
	long count = 0, lost = 0;
	unsigned name = 0;
	double start = now(), end = start + seconds, time = start;

	for (int i = 0; i < window; i++)
		asked[i] = -1;
	for (; time < end; time = now()) {
		struct pollfd one = { .fd = fd, .events = POLLIN };

		for (int i = 0; i < window; i++) {
			if (asked[i] >= 0 && time - asked[i] < WAIT)
				continue;
			lost += asked[i] >= 0;
			asked[i] = now();
			if (send(fd, wire, query(wire, i, name++ % names), 0) < 0)
				die("send");
		}
		poll(&one, 1, 100);
		while (recv(fd, wire, sizeof(wire), MSG_DONTWAIT) >= HEADER) {
			unsigned id = wire[0] << 8 | wire[1];

			if (id >= (unsigned)window || asked[id] < 0)
				continue;
			if (count < SAMPLES)
				took[count] = (now() - asked[id]) * 1e6;
			count++;
			asked[id] = -1;
		}
	}
	printf("%.0f", count / (time - start));
	if (count > SAMPLES)
		count = SAMPLES;
	qsort(took, count, sizeof(took[0]), by_size);
	printf(" %.1f %.1f %ld\n", count ? took[count / 2] : 0, count ? took[count * 99 / 100] : 0, lost);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_storage place = {};
	struct sockaddr_in *four = (void *)&place;
	struct sockaddr_in6 *six = (void *)&place;
	socklen_t length = sizeof(*four);
	int fd;

	if (argc < 4)
		return 2;
	four->sin_family = AF_INET;
	four->sin_port = htons(atoi(argv[3]));
	if (inet_pton(AF_INET, argv[2], &four->sin_addr) != 1) {
		six->sin6_family = AF_INET6;
		length = sizeof(*six);
		if (inet_pton(AF_INET6, argv[2], &six->sin6_addr) != 1)
			return 2;
	}
	fd = socket(place.ss_family, SOCK_DGRAM, 0);
	if (!strcmp(argv[1], "server") && argc == 4) {
		if (bind(fd, (struct sockaddr *)&place, length))
			die("bind");
		serve(fd);
	}
	if (strcmp(argv[1], "ask") || argc != 7 || atoi(argv[5]) > MOST)
		return 2;
	if (connect(fd, (struct sockaddr *)&place, length))
		die("connect");
	return ask(fd, atof(argv[4]), atoi(argv[5]), atoi(argv[6]));
}
