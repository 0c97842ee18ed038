// SPDX-License-Identifier: Apache-2.0
/* The CNI plugin: carries a runtime's question to the agent's socket, and the answer back.
 *
 * A runtime starts it for every container that comes or goes, so it is small and starts in a millisecond.
 * All that the specification asks for is the agent's work (src/axoneme/agent/cniserver.py); here is only
 * what must be said when there is no agent: the versions, and that it did not come. Every command may be
 * repeated, so a question that an agent took with it when it died is asked again of the next one.
 *
 * To the agent: one byte, PROTOCOL, and with it a descriptor of the container's network namespace, if
 * there is one (the agent need not see the runtime's files); each CNI_ variable of the environment ended
 * by a zero byte; one more zero byte; the network configuration as it came, until the end of input. From
 * the agent: one byte, the exit code, then what to print.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL '1'
#define VERSIONS "\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""
#define LATEST "1.1.0"
#define DEFAULT_SOCKET "/run/axoneme/cni.sock"
#define DEFAULT_SECONDS 15
#define MOST_SECONDS 600
#define LONGEST (1 << 20)
#define ANSWER_SECONDS 60

enum {
	INVALID_ENVIRONMENT = 4,
	IO_FAILURE = 5,
	INVALID_CONFIG = 7,
	TRY_AGAIN_LATER = 11,
	NOT_AVAILABLE = 50,
};

extern char **environ;

static char input[LONGEST + 2], answer[LONGEST];

static const char *skip_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* The value of a field of the configuration itself: labels and results deeper in it may have fields of
 * the same name. The agent reads the configuration properly; three fields are needed to find it. */
static const char *field(const char *name)
{
	size_t length = strlen(name);
	int depth = 0;

	for (const char *at = input; *at; at++) {
		const char *begin = at + 1;

		depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
		if (*at != '"')
			continue;
		for (at++; *at && *at != '"'; at++)
			if (*at == '\\' && at[1])
				at++;
		if (!*at)
			return NULL;
		if (depth == 1 && (size_t)(at - begin) == length && !memcmp(begin, name, length) &&
		    *skip_space(at + 1) == ':')
			return skip_space(skip_space(at + 1) + 1);
	}
	return NULL;
}

/* Copies the JSON string at `from`; whether it is one, without escapes, of less than `size` letters. */
static int text(const char *from, char *to, size_t size)
{
	size_t length;

	if (*from++ != '"')
		return 0;
	length = strcspn(from, "\"\\\n");
	if (from[length] != '"' || !length || length >= size)
		return 0;
	memcpy(to, from, length);
	to[length] = 0;
	return 1;
}

static void print_text(const char *name, const char *value)
{
	printf(",\"%s\":\"", name);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			putchar('\\');
		putchar((unsigned char)*value < ' ' ? ' ' : *value);
	}
	putchar('"');
}

/* `"cniVersion":"…"`, as the configuration has it. */
static void print_version(void)
{
	const char *found = field("cniVersion");
	char version[16];
	int usable = found && text(found, version, sizeof(version)) &&
		     strspn(version, "0123456789.") == strlen(version);

	printf("{\"cniVersion\":\"%s\"", usable ? version : LATEST);
}

static int fail(int code, const char *message, const char *details)
{
	print_version();
	printf(",\"code\":%d", code);
	print_text("msg", message);
	print_text("details", details);
	puts("}");
	return 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Whether there is time for another try, after a moment. */
static int again(double until)
{
	struct timespec pause = { 0, 20 * 1000 * 1000 };

	return now() < until && !nanosleep(&pause, NULL);
}

/* A connection to the agent, or -1 when it has not come in time; errno says why. */
static int reach(const char *path, double until)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int connection, reason;

	strcpy(address.sun_path, path);
	do {
		connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connection < 0)
			return -1;
		if (!connect(connection, (struct sockaddr *)&address, sizeof(address)))
			return connection;
		reason = errno;
		close(connection);
		errno = reason;
	} while ((reason == ENOENT || reason == ECONNREFUSED || reason == EAGAIN) && again(until));
	errno = reason;
	return -1;
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

static int send_namespace(int connection, int namespace)
{
	char protocol = PROTOCOL;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec data = { &protocol, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };

	if (namespace >= 0) {
		memcpy(CMSG_DATA(&control.header), &namespace, sizeof(int));
		message.msg_control = control.space;
		message.msg_controllen = sizeof(control.space);
	}
	return sendmsg(connection, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int ask(int connection, int namespace, size_t size)
{
	if (send_namespace(connection, namespace))
		return -1;
	for (char **each = environ; *each; each++)
		if (!strncmp(*each, "CNI_", 4) && send_all(connection, *each, strlen(*each) + 1))
			return -1;
	if (send_all(connection, "", 1) || send_all(connection, input, size))
		return -1;
	return shutdown(connection, SHUT_WR);
}

/* How much the agent has answered, up to its end; -1 when it has died, or takes too long (EAGAIN). */
static ssize_t hear(int connection)
{
	struct timeval patience = { .tv_sec = ANSWER_SECONDS };
	size_t size = 0;
	ssize_t got;

	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	do {
		got = recv(connection, answer + size, sizeof(answer) - size, 0);
		size += got > 0 ? (size_t)got : 0;
	} while (got > 0 || (got < 0 && errno == EINTR));
	return got < 0 ? -1 : (ssize_t)size;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND"), *netns = getenv("CNI_NETNS"), *found;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)] = DEFAULT_SOCKET, details[4096 + 128];
	double until = now(), seconds = DEFAULT_SECONDS;
	int connection, namespace = -1, is_status;
	size_t size = fread(input, 1, LONGEST + 1, stdin);
	ssize_t length;

	if (size > LONGEST)
		return fail(INVALID_CONFIG, "the network configuration is longer than 1 MiB",
			    "axo-cni reads it from its standard input: is this one?");
	if (!command || !*command)
		return fail(INVALID_ENVIRONMENT, "CNI_COMMAND is missing",
			    "container runtimes start this program, and tell it by variables what to do");
	if (!strcmp(command, "VERSION")) {
		print_version();
		puts(",\"supportedVersions\":[" VERSIONS "]}");
		return 0;
	}
	if ((found = field("socket")) && !text(found, path, sizeof(path)))
		return fail(INVALID_CONFIG, "socket is no path of at most 107 letters without escapes",
			    "name the agent's cni_socket, or leave it out: " DEFAULT_SOCKET);
	if ((found = field("timeout")) &&
	    (strspn(found, "0123456789.") == 0 || (seconds = atof(found)) > MOST_SECONDS))
		return fail(INVALID_CONFIG, "timeout is no number of seconds from 0 to 600",
			    "it says how long to wait for the agent; left out: 15");
	is_status = !strcmp(command, "STATUS");
	until += is_status ? 0 : seconds;
	if (netns && *netns && (!strcmp(command, "ADD") || !strcmp(command, "CHECK"))) {
		namespace = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (namespace < 0 && !strcmp(command, "ADD")) {
			snprintf(details, sizeof(details), "%s: %s", netns, strerror(errno));
			return fail(INVALID_ENVIRONMENT, "CNI_NETNS cannot be opened", details);
		}
	}
	do {
		connection = reach(path, until);
		if (connection < 0) {
			snprintf(details, sizeof(details), "waited for %s: %s; is axoneme-agent running?", path,
				 strerror(errno));
			return fail(is_status ? NOT_AVAILABLE : TRY_AGAIN_LATER, "the agent does not answer",
				    details);
		}
		length = ask(connection, namespace, size) ? 0 : hear(connection);
		close(connection);
		if (length > 0) {
			fwrite(answer + 1, 1, (size_t)length - 1, stdout);
			return fflush(stdout) ? IO_FAILURE : (unsigned char)*answer;
		}
		if (length < 0 && errno == EAGAIN)
			return fail(TRY_AGAIN_LATER, "the agent has not answered within 60 s",
				    "its log says more");
	} while (again(until));
	return fail(TRY_AGAIN_LATER, "the agent went away without an answer", "it may be restarting");
}
