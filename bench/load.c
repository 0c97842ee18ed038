// SPDX-License-Identifier: Apache-2.0
/* A load of round trips or of connections over TCP, small enough to be no part of what it measures.
 *
 *   load server PORT [COUNT]       echoes, one thread a core's worth of connections by poll; on so many ports
 *   load rr ADDRESS PORT SECONDS   round trips of one byte on one connection
 *   load fin|rst ADDRESS PORT SECONDS [RATE]   connect, one round trip, close (in order, or by reset); at
 *                                  most RATE a second, evenly
 *
 * Prints how many a second, the median and the 99th percentile of how long one took, in microseconds, and how
 * many there were.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "timing.h"

#define MOST 1024
#define SAMPLES (1 << 22)

static void set(int fd, int level, int option)
{
	int one = 1;

	setsockopt(fd, level, option, &one, sizeof(one));
}

static int listen_at(int port)
{
	struct sockaddr_in6 here = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int zero = 0, listener = socket(AF_INET6, SOCK_STREAM, 0);

	set(listener, SOL_SOCKET, SO_REUSEADDR);
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 1024))
		die("server");
	return listener;
}

static int serve(int port, int count)
{
	struct pollfd fds[MOST];
	int n = count;
	char buffer[4096];

	for (int i = 0; i < count; i++)
		fds[i] = (struct pollfd){ .fd = listen_at(port + i), .events = POLLIN };
	for (;;) {
		if (poll(fds, n, -1) < 0)
			die("poll");
		for (int i = n - 1; i >= count; i--) {
			ssize_t got;

			if (!fds[i].revents)
				continue;
			got = read(fds[i].fd, buffer, sizeof(buffer));
			if (got <= 0 || write(fds[i].fd, buffer, got) != got) {
				close(fds[i].fd);
				fds[i] = fds[--n];
			}
		}
		for (int i = 0; i < count; i++) {
			int fd = fds[i].revents && n < MOST ? accept(fds[i].fd, NULL, NULL) : -1;

			if (fd >= 0) {
				set(fd, IPPROTO_TCP, TCP_NODELAY);
				fds[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
			}
		}
	}
}

static int dial(const struct sockaddr_storage *to, socklen_t length)
{
	int fd = socket(to->ss_family, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, length))
		die("connect");
	set(fd, IPPROTO_TCP, TCP_NODELAY);
	return fd;
}

static void exchange(int fd)
{
	char byte = 'x';

	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
		die("exchange");
}

static void wait_until(double moment)
{
	double left = moment - now();
	struct timespec pause = { .tv_sec = left, .tv_nsec = (left - (long)left) * 1e9 };

	if (left > 0)
		nanosleep(&pause, NULL);
}

int main(int argc, char **argv)
{
	static float took[SAMPLES];
	struct sockaddr_storage to = {};
	struct sockaddr_in *four = (void *)&to;
	struct sockaddr_in6 *six = (void *)&to;
	struct linger at_once = { .l_onoff = 1 };
	socklen_t length = sizeof(*four);
	double start, end, begun, done, apart;
	long count = 0, samples;
	int fd = -1;

	if (argc >= 3 && argc <= 4 && !strcmp(argv[1], "server"))
		return serve(atoi(argv[2]), argc == 4 ? atoi(argv[3]) : 1);
	if (argc != 5 && argc != 6)
		return 2;
	apart = argc == 6 ? 1 / atof(argv[5]) : 0;
	four->sin_family = AF_INET;
	four->sin_port = htons(atoi(argv[3]));
	if (inet_pton(AF_INET, argv[2], &four->sin_addr) != 1) {
		six->sin6_family = AF_INET6;
		length = sizeof(*six);
		if (inet_pton(AF_INET6, argv[2], &six->sin6_addr) != 1)
			return 2;
	}
	start = now();
	end = start + atof(argv[4]);
	if (!strcmp(argv[1], "rr"))
		fd = dial(&to, length);
	for (done = start; done < end; count++) {
		int one;

		wait_until(start + count * apart);
		begun = now();
		one = fd >= 0 ? fd : dial(&to, length);
		exchange(one);
		if (fd < 0) {
			if (!strcmp(argv[1], "rst"))
				setsockopt(one, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
			close(one);
		}
		done = now();
		if (count < SAMPLES)
			took[count] = (done - begun) * 1e6;
	}
	printf("%.0f", count / (done - start));
	samples = count < SAMPLES ? count : SAMPLES;
	qsort(took, samples, sizeof(took[0]), by_size);
	printf(" %.1f %.1f %ld\n", took[samples / 2], took[samples * 99 / 100], count);
	return 0;
}
