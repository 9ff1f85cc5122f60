/* The smallest permission responder: allow everything. responder DIR marks the mount of DIR, prints one line when it
 * is ready, and ends with its standard input. It is the yardstick of BenchmarkHop. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <unistd.h>

static void *until_told(void *unused)
{
	char c;
	(void)unused;
	while (read(0, &c, 1) > 0)
		;
	_exit(0);
}

int main(int argc, char **argv)
{
	char buf[8192];
	pthread_t t;
	int g = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_LARGEFILE | O_CLOEXEC);

	if (argc != 2 || g < 0 || pthread_create(&t, NULL, until_told, NULL) != 0)
		return 1;
	if (fanotify_mark(g, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN_PERM, AT_FDCWD, argv[1]) < 0)
		return 2;
	puts("ready");
	fflush(stdout);
	for (;;) {
		ssize_t n = read(g, buf, sizeof buf);
		struct fanotify_event_metadata *m = (void *)buf;

		if (n < 0)
			return 3;
		for (; FAN_EVENT_OK(m, n); m = FAN_EVENT_NEXT(m, n)) {
			struct fanotify_response r = {.fd = m->fd, .response = FAN_ALLOW};

			if (m->fd < 0)
				continue;
			if (write(g, &r, sizeof r) < 0)
				return 4;
			close(m->fd);
		}
	}
}
