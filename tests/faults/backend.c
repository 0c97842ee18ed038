// SPDX-License-Identifier: Apache-2.0
/* A backend that finishes: answers each line or datagram with its host's name, over TCP and UDP.
 *
 *   backend PORT LINGER FILE
 *
 * Told to end (SIGTERM) it serves on for LINGER milliseconds, new connections too, as a pod does until all have
 * heard that it goes. Then it writes "NAME NANOSECONDS" (CLOCK_MONOTONIC) to FILE, and only then closes everything.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t told;

static void tell(int number)
{
	(void)number;
	told = 1;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int bound(int type, int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), off = 0, one = 1;

	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&any, sizeof(any)))
		err(1, "port %d", port);
	return fd;
}

static void watch(int poller, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll");
}

int main(int count, char **words)
{
	struct sigaction action = { .sa_handler = tell };
	char name[65] = "", line[512], heard[512];
	int poller, talks, datagrams, file, length, one = 1;
	uint64_t until = 0, linger;

	if (count != 4)
		errx(2, "usage: backend PORT LINGER FILE");
	linger = strtoull(words[2], NULL, 10) * 1000000ull;
	gethostname(name, sizeof(name) - 1);
	length = snprintf(line, sizeof(line), "%s\n", name);
	file = open(words[3], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	poller = epoll_create1(EPOLL_CLOEXEC);
	talks = bound(SOCK_STREAM, atoi(words[1]));
	datagrams = bound(SOCK_DGRAM, atoi(words[1]));
	if (file < 0 || poller < 0 || listen(talks, 1024))
		err(1, "start");
	watch(poller, talks);
	watch(poller, datagrams);
	sigaction(SIGTERM, &action, NULL);
	while (!until || now() < until) {
		struct epoll_event events[64];
		int ready = epoll_wait(poller, events, 64, until ? 10 : 100);

		if (told && !until)
			until = now() + linger;
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			struct sockaddr_storage from;
			socklen_t size = sizeof(from);

			if (fd == talks) {
				int talk = accept4(talks, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

				if (talk < 0)
					continue;
				setsockopt(talk, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				watch(poller, talk);
			} else if (fd == datagrams) {
				ssize_t got = recvfrom(fd, heard, sizeof(heard), 0, (void *)&from, &size);

				if (got > 0) { /* "NAME REQUEST": datagrams may come in any order */
					memcpy(line, name, length - 1);
					line[length - 1] = ' ';
					memcpy(line + length, heard, got > 64 ? 64 : got);
					sendto(fd, line, length + (got > 64 ? 64 : got), 0, (void *)&from, size);
				}
			} else {
				ssize_t got = recv(fd, heard, sizeof(heard), 0);

				snprintf(line, sizeof(line), "%s\n", name);
				if (got > 0)
					send(fd, line, length, MSG_NOSIGNAL);
				else if (!got || (errno != EAGAIN && errno != EINTR))
					close(fd);
			}
		}
	}
	length = snprintf(line, sizeof(line), "%s %lu\n", name, now());
	if (write(file, line, length) != length)
		err(1, "%s", words[3]);
	return 0;
}
