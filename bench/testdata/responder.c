/* The least that a monitor can be: one thread that allows every open and exec on one file system.
 *
 *     responder DIR SECONDS
 *
 * It refuses a DIR on the file system of "/" or of DIR's parent, and ends after SECONDS. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail(const char *what) {
	perror(what);
	exit(1);
}

static void own_filesystem(const char *dir) {
	struct stat own, root, above;
	char parent[4096];
	snprintf(parent, sizeof parent, "%s/..", dir);
	if (stat(dir, &own) || stat("/", &root) || stat(parent, &above))
		fail(dir);
	if (own.st_dev == root.st_dev || own.st_dev == above.st_dev) {
		fprintf(stderr, "%s is not a file system of its own\n", dir);
		exit(1);
	}
}

int main(int argc, char **argv) {
	static char buf[4096] __attribute__((aligned(8)));
	if (argc != 3)
		return 2;
	own_filesystem(argv[1]);
	alarm(atoi(argv[2]));
	int group = fanotify_init(FAN_CLASS_CONTENT | FAN_UNLIMITED_QUEUE | FAN_CLOEXEC,
		O_RDONLY | O_LARGEFILE | O_CLOEXEC | O_NOATIME);
	if (group < 0)
		fail("fanotify_init");
	if (fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN_PERM | FAN_OPEN_EXEC_PERM, AT_FDCWD, argv[1]))
		fail("fanotify_mark");
	puts("ready");
	fflush(stdout);
	for (;;) {
		ssize_t n = read(group, buf, sizeof buf);
		if (n < 0)
			fail("read");
		struct fanotify_event_metadata *ev = (void *)buf;
		for (; FAN_EVENT_OK(ev, n); ev = FAN_EVENT_NEXT(ev, n)) {
			struct fanotify_response answer = {.fd = ev->fd, .response = FAN_ALLOW};
			if (ev->fd < 0)
				continue;
			if (write(group, &answer, sizeof answer) < 0)
				fail("write");
			close(ev->fd);
		}
	}
}
