// SPDX-License-Identifier: Apache-2.0
/* Traffic that notices what happens to it: many streams between many network namespaces, every packet of
 * which is accounted for. One thread does it all, because a socket belongs to the namespace in which it was
 * opened, whoever reads it.
 *
 * Orders come on stdin, a line each:
 *
 *   place NAME FILE                       a network namespace
 *   listen PLACE ADDRESS PORT             echoes UDP and TCP there, and sees what ICMP arrives
 *   watch PLACE PORT SOURCE_PORT          TCP packets to PORT, or from SOURCE_PORT, are wrong there
 *   stream KIND PLACE ADDRESS PORT SOURCE_PORT INTERVAL COUNT allowed|denied
 *   go
 *   stop
 *
 * KIND: udp, tcp and icmp are one connection that is always used; connect (TCP) and ask (UDP) are a new one
 * each time. INTERVAL is in microseconds, COUNT 0 for ever, SOURCE_PORT 0 for any. "ready" is said once every
 * allowed stream has had an answer; after "stop", when nothing is on its way any more or PATIENCE is over, a
 * line of JSON for each stream in the order of the orders, and one for the whole.
 *
 * lost: sent and never answered. resent: segments that TCP had to send again, without those that the other end
 * has had twice. wrong: arrivals of what is denied, counted where they arrive.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/if_packet.h>
#include <linux/sock_diag.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x61786f6eu
#define MOST 1024
#define BUFFER (4 << 20)
#define PATIENCE 5000000 /* microseconds */
#define GIVE_UP 300000	  /* what is denied is not waited for any longer */
#define ANSWERED UINT32_MAX

enum kind { UDP, TCP, ICMP, CONNECT, ASK, KINDS };
static const char *const kinds[KINDS] = { "udp", "tcp", "icmp", "connect", "ask" };

struct frame {
	uint32_t magic, stream, seq, unused;
};

struct place {
	char name[128];
	int fd;
	struct endpoint *icmp[2]; /* IPv4, IPv6 */
};

enum role { UDP_SERVER, TCP_SERVER, TCP_SERVING, ICMP_BOTH, CLIENT, ATTEMPT, SNIFFER };

struct endpoint {
	enum role role;
	int fd, gone;
	uint32_t seq;	/* ATTEMPT: which */
	uint64_t begun; /* ATTEMPT: when */
	struct stream *stream;
	struct place *place;
	struct endpoint *next;
	size_t have;
	char part[sizeof(struct frame)];
};

struct stream {
	enum kind kind;
	struct place *place;
	struct sockaddr_storage to;
	socklen_t length;
	int port, source_port, allowed, broken;
	uint64_t interval, due;
	uint32_t id, count, sent, answered, wrong, resent, worst, room;
	uint32_t *at; /* by number: when it was sent, in microseconds since the start; or ANSWERED */
	struct endpoint *client;
};

static struct place places[MOST];
static struct stream streams[MOST];
static struct endpoint *attempts, *opened, *dead;
static int place_count, stream_count, poller;
static uint64_t started, overflow, sniffed;

static void die(const char *format, ...)
{
	va_list more;
	int number = errno;

	va_start(more, format);
	fprintf(stderr, "checker: ");
	vfprintf(stderr, format, more);
	fprintf(stderr, ": %s\n", strerror(number));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

/* ---- sockets ------------------------------------------------------------------------------------ */

static int open_in(struct place *place, int family, int type, int protocol)
{
	int fd, buffer = BUFFER;

	if (setns(place->fd, CLONE_NEWNET))
		die("entering %s", place->name);
	fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		die("a socket in %s", place->name);
	if (type != SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)))
		die("the buffer of a socket in %s", place->name);
	return fd;
}

static struct endpoint *enter(enum role role, int fd, struct place *place, struct stream *stream)
{
	struct endpoint *made = calloc(1, sizeof(*made));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = made };

	*made = (struct endpoint){ .role = role, .fd = fd, .place = place, .stream = stream };
	if (role == ATTEMPT && stream->kind == CONNECT)
		event.events = EPOLLOUT;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
		die("epoll");
	if (role != ATTEMPT) {
		made->next = opened;
		opened = made;
	}
	return made;
}

static int option(int fd, int level, int name)
{
	int one = 1;

	return setsockopt(fd, level, name, &one, sizeof(one));
}

static void note_resent(struct endpoint *e)
{
	struct tcp_info info = {};
	socklen_t length = sizeof(info);

	if (!e->stream || !e->stream->allowed || getsockopt(e->fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		return;
	/* What the other end has had twice was only late: answers of a busy machine are. */
	if (info.tcpi_total_retrans > info.tcpi_dsack_dups)
		e->stream->resent += info.tcpi_total_retrans - info.tcpi_dsack_dups;
}

/* Events that were fetched together may still name it: the memory goes after all of them. */
static void drop(struct endpoint *e)
{
	struct endpoint **link = e->role == ATTEMPT ? &attempts : &opened;

	if (e->gone)
		return;
	while (*link != e)
		link = &(*link)->next;
	*link = e->next;
	if (e->role == TCP_SERVING || (e->stream && (e->stream->kind == TCP || e->stream->kind == CONNECT)))
		note_resent(e);
	close(e->fd);
	e->gone = 1;
	e->next = dead;
	dead = e;
}

static void bury(void)
{
	while (dead) {
		struct endpoint *next = dead->next;

		free(dead);
		dead = next;
	}
}

static socklen_t parse_address(const char *text, int port, struct sockaddr_storage *to)
{
	struct sockaddr_in *four = (void *)to;
	struct sockaddr_in6 *six = (void *)to;

	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		return sizeof(*four);
	}
	if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1)
		die("address %s", text);
	six->sin6_family = AF_INET6;
	six->sin6_port = htons(port);
	return sizeof(*six);
}

static void bind_port(int fd, int family, int port)
{
	struct sockaddr_storage any;
	socklen_t length = parse_address(family == AF_INET ? "0.0.0.0" : "::", port, &any);

	if (option(fd, SOL_SOCKET, SO_REUSEADDR) || bind(fd, (struct sockaddr *)&any, length))
		die("source port %d", port);
}

static void open_icmp(struct place *place, int family)
{
	struct icmp6_filter six;
	uint32_t four = ~(1u << ICMP_ECHO | 1u << ICMP_ECHOREPLY);
	int is6 = family == AF_INET6, fd;

	if (place->icmp[is6])
		return;
	fd = open_in(place, family, SOCK_RAW, is6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	ICMP6_FILTER_SETBLOCKALL(&six);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REQUEST, &six);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &six);
	if (is6 ? setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &six, sizeof(six)) :
		  setsockopt(fd, SOL_RAW, 1 /* ICMP_FILTER */, &four, sizeof(four)))
		die("ICMP filter");
	place->icmp[is6] = enter(ICMP_BOTH, fd, place, NULL);
}

static void listen_at(struct place *place, const char *address, int port)
{
	struct sockaddr_storage here;
	socklen_t length = parse_address(address, port, &here);
	int tcp = open_in(place, here.ss_family, SOCK_STREAM, 0);
	int udp = open_in(place, here.ss_family, SOCK_DGRAM, 0);

	if (option(tcp, SOL_SOCKET, SO_REUSEADDR) || bind(tcp, (struct sockaddr *)&here, length) ||
	    listen(tcp, 4096) || bind(udp, (struct sockaddr *)&here, length))
		die("listening at %s port %d in %s", address, port, place->name);
	enter(TCP_SERVER, tcp, place, NULL);
	enter(UDP_SERVER, udp, place, NULL);
	open_icmp(place, here.ss_family);
}

/* A connection of which only the first packet gets through is never accepted: so one looks at the wire. */
static void watch(struct place *place, int port, int source_port)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 16, 0),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 7, 0),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9), /* IPv4: the protocol */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 11),
		BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 9, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_IND, 0),
		BPF_STMT(BPF_JMP | BPF_JA, 5),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6), /* IPv6: the next header */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 4),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 42),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 3, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 40),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, source_port, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, 64),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(*code), .filter = code };
	struct sockaddr_ll all = { .sll_family = AF_PACKET, .sll_protocol = htons(0x0003) };
	int fd = open_in(place, AF_PACKET, SOCK_DGRAM, 0);

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) ||
	    bind(fd, (struct sockaddr *)&all, sizeof(all)))
		die("watching %s", place->name);
	enter(SNIFFER, fd, place, NULL);
}

/* ---- what is sent ------------------------------------------------------------------------------- */

static uint32_t number(struct stream *s)
{
	if (s->sent == s->room) {
		s->room = s->room ? 2 * s->room : 1024;
		s->at = realloc(s->at, s->room * sizeof(*s->at));
		if (!s->at)
			die("memory");
	}
	s->at[s->sent] = now() - started;
	return s->sent++;
}

static uint16_t checksum(const void *data, size_t length)
{
	const uint16_t *word = data;
	uint32_t sum = 0;

	for (; length > 1; length -= 2)
		sum += *word++;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static int send_icmp(struct stream *s, struct frame frame)
{
	int is6 = s->to.ss_family == AF_INET6;
	struct {
		struct icmphdr head;
		struct frame frame;
	} packet = { .head = { .type = is6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO }, .frame = frame };
	struct sockaddr_storage to = s->to;

	packet.head.un.echo.id = htons(s->id + 1);
	packet.head.un.echo.sequence = htons(frame.seq);
	if (!is6)
		packet.head.checksum = checksum(&packet, sizeof(packet));
	((struct sockaddr_in6 *)&to)->sin6_port = 0; /* at the same place in both families */
	return sendto(s->place->icmp[is6]->fd, &packet, sizeof(packet), 0, (struct sockaddr *)&to, s->length);
}

static int client_socket(struct stream *s)
{
	int tcp = s->kind == TCP || s->kind == CONNECT;
	int fd = open_in(s->place, s->to.ss_family, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);

	if (tcp)
		option(fd, IPPROTO_TCP, TCP_NODELAY);
	if (s->source_port)
		bind_port(fd, s->to.ss_family, s->source_port);
	if (connect(fd, (struct sockaddr *)&s->to, s->length) && errno != EINPROGRESS) {
		/* No way there just now: as good as a packet lost. */
		close(fd);
		return -1;
	}
	return fd;
}

static void attempt(struct stream *s)
{
	uint32_t seq = number(s);
	struct frame frame = { MAGIC, s->id, seq, 0 };
	int fd = client_socket(s);
	struct endpoint *e;

	if (fd < 0)
		return;
	if (s->kind == ASK && send(fd, &frame, sizeof(frame), MSG_NOSIGNAL) < 0) {
		close(fd);
		return;
	}
	e = enter(ATTEMPT, fd, s->place, s);
	e->seq = seq;
	e->begun = now();
	e->next = attempts;
	attempts = e;
}

static void transmit(struct stream *s)
{
	struct frame frame = { MAGIC, s->id, s->sent, 0 };
	int fd;

	if (s->broken)
		return;
	if (s->kind == CONNECT || s->kind == ASK) {
		attempt(s);
		return;
	}
	if (s->kind == ICMP) {
		send_icmp(s, frame);
	} else {
		if (!s->client && (fd = client_socket(s)) >= 0)
			s->client = enter(CLIENT, fd, s->place, s);
		if (!s->client)
			return; /* no way there yet: it will not become ready */
		if (send(s->client->fd, &frame, sizeof(frame), MSG_NOSIGNAL) < 0 && s->kind == TCP)
			return; /* still connecting, or its buffer is full: nothing was sent */
	}
	number(s); /* refused or not: what cannot be sent has not arrived */
}

/* ---- what arrives ------------------------------------------------------------------------------- */

static struct stream *stream_of(const struct frame *frame)
{
	return frame->magic == MAGIC && frame->stream < (uint32_t)stream_count ? &streams[frame->stream] : NULL;
}

/* A request at its destination; whether it gets an answer. */
static int arrived(const struct frame *frame)
{
	struct stream *s = stream_of(frame);

	if (s && !s->allowed)
		s->wrong++;
	return s && s->allowed;
}

static void answered(const struct frame *frame)
{
	struct stream *s = stream_of(frame);
	uint32_t took;

	if (!s || frame->seq >= s->sent || s->at[frame->seq] == ANSWERED)
		return;
	took = now() - started - s->at[frame->seq];
	if (took > s->worst)
		s->worst = took;
	s->at[frame->seq] = ANSWERED;
	s->answered++;
}

static void serve_datagrams(struct endpoint *e)
{
	struct sockaddr_storage from;
	socklen_t length = sizeof(from);
	struct frame frame;

	while (recvfrom(e->fd, &frame, sizeof(frame), 0, (struct sockaddr *)&from, &length) == sizeof(frame)) {
		if (arrived(&frame))
			sendto(e->fd, &frame, sizeof(frame), 0, (struct sockaddr *)&from, length);
		length = sizeof(from);
	}
}

static void take_icmp(struct endpoint *e)
{
	unsigned char buffer[256];
	ssize_t got;

	while ((got = recv(e->fd, buffer, sizeof(buffer), 0)) > 0) {
		size_t skip = e == e->place->icmp[0] ? (buffer[0] & 15) * 4 : 0;
		struct frame frame;

		if ((size_t)got < skip + sizeof(struct icmphdr) + sizeof(frame))
			continue;
		memcpy(&frame, buffer + skip + sizeof(struct icmphdr), sizeof(frame));
		if (buffer[skip] == ICMP_ECHO || buffer[skip] == ICMP6_ECHO_REQUEST)
			arrived(&frame); /* the kernel answers */
		else
			answered(&frame);
	}
}

/* The next whole frame of a stream of bytes: 1; none yet: 0; the connection is over: -1. */
static int next_frame(struct endpoint *e, struct frame *frame)
{
	ssize_t got = recv(e->fd, e->part + e->have, sizeof(*frame) - e->have, 0);

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
	e->have += got;
	if (e->have < sizeof(*frame))
		return 0;
	memcpy(frame, e->part, sizeof(*frame));
	e->have = 0;
	return 1;
}

static void serve_connection(struct endpoint *e)
{
	struct frame frame;
	int result;

	while ((result = next_frame(e, &frame)) > 0) {
		e->stream = stream_of(&frame);
		if (arrived(&frame))
			send(e->fd, &frame, sizeof(frame), MSG_NOSIGNAL);
	}
	if (result < 0)
		drop(e);
}

static void take_answers(struct endpoint *e)
{
	struct frame frame;
	int result;

	if (e->stream->kind == UDP) {
		while (recv(e->fd, &frame, sizeof(frame), 0) == sizeof(frame))
			answered(&frame);
		return;
	}
	while ((result = next_frame(e, &frame)) > 0)
		answered(&frame);
	if (result < 0) {
		e->stream->broken = 1;
		e->stream->client = NULL;
		drop(e);
	}
}

static void go_on(struct endpoint *e, uint32_t events)
{
	struct stream *s = e->stream;
	struct frame frame = { MAGIC, s->id, e->seq, 0 };
	struct epoll_event in = { .events = EPOLLIN, .data.ptr = e };

	if (s->kind == CONNECT && events == EPOLLOUT) { /* connected: two packets have passed */
		if (!s->allowed)
			s->wrong++;
		send(e->fd, &frame, sizeof(frame), MSG_NOSIGNAL);
		epoll_ctl(poller, EPOLL_CTL_MOD, e->fd, &in);
		return;
	}
	if (recv(e->fd, &frame, sizeof(frame), 0) == sizeof(frame))
		answered(&frame);
	drop(e);
}

static void take(struct endpoint *e, uint32_t events)
{
	char buffer[64];
	int fd;

	if (e->gone)
		return;
	switch (e->role) {
	case UDP_SERVER:
		serve_datagrams(e);
		break;
	case TCP_SERVER:
		while ((fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
			option(fd, IPPROTO_TCP, TCP_NODELAY);
			enter(TCP_SERVING, fd, e->place, NULL);
		}
		break;
	case TCP_SERVING:
		serve_connection(e);
		break;
	case ICMP_BOTH:
		take_icmp(e);
		break;
	case CLIENT:
		take_answers(e);
		break;
	case ATTEMPT:
		go_on(e, events);
		break;
	case SNIFFER:
		while (recv(e->fd, buffer, sizeof(buffer), MSG_TRUNC) > 0)
			sniffed++;
	}
}

/* ---- the loop ----------------------------------------------------------------------------------- */

static void give_up(uint64_t t)
{
	struct endpoint *next;

	for (struct endpoint *e = attempts; e; e = next) {
		next = e->next;
		if (t - e->begun > (uint64_t)(e->stream->allowed ? PATIENCE : GIVE_UP))
			drop(e);
	}
}

static void send_due(uint64_t t)
{
	for (int i = 0; i < stream_count; i++) {
		struct stream *s = &streams[i];

		if (s->due > t || (s->count && s->sent >= s->count))
			continue;
		transmit(s);
		/* What a pause of ours has missed is not made up for: that would be another load. */
		s->due = s->due + s->interval > t ? s->due + s->interval : t + s->interval;
	}
}

static int all_answered(int first_only)
{
	for (int i = 0; i < stream_count; i++)
		if (streams[i].allowed && !streams[i].broken &&
		    (first_only ? !streams[i].answered : streams[i].answered < streams[i].sent))
			return 0;
	return 1;
}

static int told_to_stop(void)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };

	return poll(&in, 1, 0) > 0;
}

static uint64_t run(void)
{
	struct epoll_event events[256];
	uint64_t last = now(), until = 0, look = 0, pause = 0;
	int ready = 0;

	for (;;) {
		uint64_t t = now();
		int n = epoll_wait(poller, events, 256, 1);

		for (int i = 0; i < n; i++)
			take(events[i].data.ptr, events[i].events);
		t = now();
		if (t - last > pause)
			pause = t - last;
		last = t;
		give_up(t);
		bury();
		if (!ready && all_answered(1)) {
			ready = 1;
			printf("ready\n");
			fflush(stdout);
		}
		if (until) {
			if (t > until || (all_answered(0) && t > until - PATIENCE + GIVE_UP))
				return pause;
			continue;
		}
		send_due(t);
		if (t - look > 10000) {
			look = t;
			if (told_to_stop())
				until = t + PATIENCE;
		}
	}
}

static void close_all(void)
{
	while (attempts)
		drop(attempts);
	while (opened) {
		uint32_t memory[SK_MEMINFO_VARS] = {};
		socklen_t length = sizeof(memory);

		if ((opened->role == UDP_SERVER || opened->role == ICMP_BOTH || opened->role == CLIENT) &&
		    (!opened->stream || opened->stream->kind == UDP) &&
		    !getsockopt(opened->fd, SOL_SOCKET, SO_MEMINFO, memory, &length))
			overflow += memory[SK_MEMINFO_DROPS];
		drop(opened);
	}
}

static void report(const struct stream *s)
{
	uint32_t lost = 0, first = 0, last = 0;

	for (uint32_t i = 0; i < s->sent; i++) {
		if (!s->allowed || s->at[i] == ANSWERED)
			continue;
		if (!lost++)
			first = s->at[i];
		last = s->at[i];
	}
	printf("{\"sent\": %u, \"lost\": %u, \"wrong\": %u, \"resent\": %u, \"broken\": %s, \"worst\": %.3f, "
	       "\"first_lost\": %.3f, \"last_lost\": %.3f}\n",
	       s->sent, lost, s->wrong, s->resent, s->broken ? "true" : "false", s->worst / 1e6, first / 1e6,
	       last / 1e6);
}

/* ---- orders ------------------------------------------------------------------------------------- */

static struct place *place_named(const char *name)
{
	for (int i = 0; i < place_count; i++)
		if (!strcmp(places[i].name, name))
			return &places[i];
	errno = ENOENT;
	die("place %s", name);
	return NULL;
}

static void add_place(const char *name, const char *file)
{
	struct place *place = &places[place_count++];

	snprintf(place->name, sizeof(place->name), "%s", name);
	place->fd = open(file, O_RDONLY | O_CLOEXEC);
	if (place->fd < 0 || place_count == MOST)
		die("place %s: %s", name, file);
}

static void add_stream(const char *kind, const char *place, const char *address, int port, int source_port,
		       unsigned interval, unsigned count, const char *verdict)
{
	struct stream *s = &streams[stream_count];

	*s = (struct stream){ .place = place_named(place), .id = stream_count, .port = port,
			      .source_port = source_port, .interval = interval, .count = count,
			      .allowed = !strcmp(verdict, "allowed"), .kind = KINDS };
	for (int i = 0; i < KINDS; i++)
		if (!strcmp(kinds[i], kind))
			s->kind = i;
	errno = EINVAL;
	if (s->kind == KINDS || ++stream_count == MOST)
		die("stream %s", kind);
	s->length = parse_address(address, port, &s->to);
	if (s->kind == ICMP)
		open_icmp(s->place, s->to.ss_family);
}

static void read_orders(void)
{
	char line[512], a[128], b[256], c[128], d[16];
	int port, source_port;
	unsigned interval, count;

	/* Read by the byte: what comes after "go" must not lie in a buffer. */
	setvbuf(stdin, NULL, _IONBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "place %127s %255s", a, b) == 2)
			add_place(a, b);
		else if (sscanf(line, "listen %127s %255s %d", a, b, &port) == 3)
			listen_at(place_named(a), b, port);
		else if (sscanf(line, "watch %127s %d %d", a, &port, &source_port) == 3)
			watch(place_named(a), port, source_port);
		else if (sscanf(line, "stream %127s %127s %255s %d %d %u %u %15s", a, c, b, &port, &source_port,
				&interval, &count, d) == 8)
			add_stream(a, c, b, port, source_port, interval, count, d);
		else if (!strcmp(line, "go\n"))
			return;
		else
			break;
	}
	errno = EINVAL;
	die("order: %s", line);
}

int main(void)
{
	struct rlimit files = { 65536, 65536 };
	uint64_t pause;

	prctl(PR_SET_PDEATHSIG, 9);
	setrlimit(RLIMIT_NOFILE, &files);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (poller < 0)
		die("start");
	read_orders();
	started = now();
	for (int i = 0; i < stream_count; i++) /* spread evenly, so that together they see the shortest hole */
		streams[i].due = started + streams[i].interval * i / stream_count;
	pause = run();
	close_all();
	for (int i = 0; i < stream_count; i++)
		report(&streams[i]);
	printf("{\"sniffed\": %lu, \"overflow\": %lu, \"pause\": %.3f}\n", sniffed, overflow, pause / 1e6);
	return 0;
}
