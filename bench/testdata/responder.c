/* The least that a monitor can be: one thread that allows every open and exec on one file system.
 *
 *     responder DIR SECONDS [PROVIDERS]
 *
 * With PROVIDERS it is the least that a platform can be: so many other processes get the descriptor over a socket of
 * their own, each answers with a vote that says nothing, and the kernel is answered when all have.
 *
 * It refuses a DIR on the file system of "/" or of DIR's parent, and ends after SECONDS. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 8, QUESTION = 128, VOTE = 24 }; /* bytes, about those of Keepout's packets */

/* packet is one message with room for one descriptor. */
struct packet {
	char data[QUESTION];
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec vector;
	struct msghdr header;
};

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

static void prepare(struct packet *p) {
	memset(p, 0, sizeof *p);
	p->vector = (struct iovec){p->data, sizeof p->data};
	p->header = (struct msghdr){
		.msg_iov = &p->vector, .msg_iovlen = 1,
		.msg_control = &p->control, .msg_controllen = sizeof p->control,
	};
}

static void ask(int sock, int file) {
	struct packet p;
	prepare(&p);
	struct cmsghdr *c = CMSG_FIRSTHDR(&p.header);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof file);
	memcpy(CMSG_DATA(c), &file, sizeof file);
	if (sendmsg(sock, &p.header, 0) < 0)
		fail("sendmsg");
}

/* vote is a provider: it looks at nothing. */
static void vote(int sock) {
	static const char yes[VOTE];
	for (;;) {
		struct packet p;
		int file = -1;
		prepare(&p);
		if (recvmsg(sock, &p.header, MSG_CMSG_CLOEXEC) <= 0)
			exit(0);
		struct cmsghdr *c = CMSG_FIRSTHDR(&p.header);
		if (c)
			memcpy(&file, CMSG_DATA(c), sizeof file);
		if (send(sock, yes, sizeof yes, 0) < 0)
			exit(0);
		close(file);
	}
}

static int start_provider(void) {
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		fail("socketpair");
	switch (fork()) {
	case -1:
		fail("fork");
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		vote(pair[1]);
	}
	close(pair[1]);
	return pair[0];
}

int main(int argc, char **argv) {
	static char buf[4096] __attribute__((aligned(8)));
	int providers = argc == 4 ? atoi(argv[3]) : 0, socks[MOST];
	if (argc < 3 || argc > 4 || providers < 0 || providers > MOST)
		return 2;
	own_filesystem(argv[1]);
	for (int i = 0; i < providers; i++)
		socks[i] = start_provider();
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
			char ballot[VOTE];
			if (ev->fd < 0)
				continue;
			for (int i = 0; i < providers; i++)
				ask(socks[i], ev->fd);
			for (int i = 0; i < providers; i++)
				if (recv(socks[i], ballot, sizeof ballot, 0) <= 0)
					fail("recv");
			if (write(group, &answer, sizeof answer) < 0)
				fail("write");
			close(ev->fd);
		}
	}
}
