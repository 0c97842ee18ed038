// SPDX-License-Identifier: Apache-2.0
/* The CNI plugin: carries a runtime's question to the agent's socket, and the answer back.
 *
 * A runtime starts it for every container that comes or goes, so it is small and starts in a millisecond.
 * All that the specification asks for is the agent's work (src/axoneme/agent/cniserver.py); here is only
 * what must be said when there is no agent: the versions, and that it did not come.
 *
 * To the agent: each CNI_ variable of the environment ended by a zero byte, one more zero byte, then the
 * network configuration as it came, until the end of input. From the agent: one byte, the exit code, then
 * what to print.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/axoneme/cni.sock"
#define DEFAULT_SECONDS 15
#define LONGEST_INPUT (1 << 20)
#define ANSWER_SECONDS 60

enum { IO_FAILURE = 5, TRY_AGAIN_LATER = 11 };

extern char **environ;

static char input[LONGEST_INPUT + 1];

/* The value of a field by its name, wherever it stands: a string without escapes, or a number. The agent
 * reads the configuration properly; two fields are needed to find it. */
static const char *field(const char *name, char *value, size_t size)
{
	size_t length = strlen(name), end = 0;
	const char *at = input;

	while ((at = strstr(at, name))) {
		const char *begin = at;

		at += length;
		if (begin == input || begin[-1] != '"' || *at != '"')
			continue;
		for (at++; isspace((unsigned char)*at); at++)
			;
		if (*at != ':')
			continue;
		for (at++; isspace((unsigned char)*at); at++)
			;
		if (*at == '"')
			for (at++; *at && *at != '"' && *at != '\\' && end + 1 < size; at++)
				value[end++] = *at;
		else
			for (; (isdigit((unsigned char)*at) || *at == '.') && end + 1 < size; at++)
				value[end++] = *at;
		value[end] = 0;
		return end ? value : NULL;
	}
	return NULL;
}

static int fail(int code, const char *message, const char *details)
{
	char version[16];
	const char *wanted = field("cniVersion", version, sizeof(version));

	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n",
	       wanted ? wanted : "1.1.0", code, message, details);
	return 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A connection to the agent, or -1 when it has not come in time; errno says why. */
static int reach(const char *path, double seconds)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timespec pause = { 0, 20 * 1000 * 1000 };
	double until = now() + seconds;
	int connection = -1, reason;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	for (;;) {
		connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connection < 0)
			return -1;
		if (!connect(connection, (struct sockaddr *)&address, sizeof(address)))
			return connection;
		reason = errno;
		close(connection);
		errno = reason;
		if ((reason != ENOENT && reason != ECONNREFUSED && reason != EAGAIN) || now() >= until)
			return -1;
		nanosleep(&pause, NULL);
	}
}

static int send_all(int connection, const char *data, size_t size)
{
	while (size) {
		ssize_t sent = send(connection, data, size, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -1;
		data += sent;
		size -= (size_t)sent;
	}
	return 0;
}

static int ask(int connection, size_t size)
{
	struct timeval patience = { .tv_sec = ANSWER_SECONDS };

	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	for (char **each = environ; *each; each++)
		if (!strncmp(*each, "CNI_", 4) && send_all(connection, *each, strlen(*each) + 1))
			return -1;
	if (send_all(connection, "", 1) || send_all(connection, input, size))
		return -1;
	return shutdown(connection, SHUT_WR);
}

/* Prints the answer; the exit code, or -1 when none came. */
static int tell(int connection)
{
	static char answer[1 << 16];
	int code = -1;

	for (;;) {
		ssize_t got = recv(connection, answer, sizeof(answer), 0);
		const char *text = answer;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -1 : code;
		if (code < 0) {
			code = (unsigned char)*text++;
			got--;
		}
		fwrite(text, 1, (size_t)got, stdout);
	}
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND"), *path, *wait;
	char own_path[sizeof(((struct sockaddr_un *)0)->sun_path)], own_wait[16], details[256];
	size_t size = fread(input, 1, LONGEST_INPUT, stdin);
	int connection, code;

	input[size] = 0;
	if (command && !strcmp(command, "VERSION")) {
		puts("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}");
		return 0;
	}
	path = field("socket", own_path, sizeof(own_path));
	wait = field("timeout", own_wait, sizeof(own_wait));
	connection = reach(path ? path : DEFAULT_SOCKET, wait ? atof(wait) : DEFAULT_SECONDS);
	if (connection < 0) {
		snprintf(details, sizeof(details), "waited for %s: %s; is axoneme-agent running?",
			 path ? path : DEFAULT_SOCKET, strerror(errno));
		return fail(TRY_AGAIN_LATER, "the agent does not answer", details);
	}
	if (ask(connection, size) || (code = tell(connection)) < 0)
		return fail(IO_FAILURE, "the agent went away without an answer", "it may be restarting: try again");
	return code;
}
