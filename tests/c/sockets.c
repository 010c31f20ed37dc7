// Pairs of sockets: bytes and messages, ends, flags, buffers, poll and epoll, open files and credentials that travel, and who waits.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, r < 0 ? strerrorname_np(errno) : ""); } while (0)

static int pipes;
static void on_sigpipe(int n) { (void)n; pipes++; }
static void on_alarm(int n) { (void)n; }
static char buf[1 << 20];
static void *volatile nowhere = (void *)8;
static int s[2];

static void open_pair(int type) {
    if (socketpair(AF_UNIX, type, 0, s))
        perror("socketpair");
}
static void close_pair(void) { close(s[0]); close(s[1]); }

static void show_poll(const char *when, int fd) {
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI | POLLRDNORM | POLLWRNORM };
    int r = poll(&p, 1, 0);
    printf("  %s: poll %d %#x\n", when, r, p.revents);
}

static void arguments(void) {
    int none[2];
    SHOW(socketpair(AF_UNIX, SOCK_STREAM, 7, none));
    SHOW(socketpair(AF_UNIX, 9, 0, none));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM | 0x40000000, 0, none));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, nowhere));
    SHOW(socketpair(12345, SOCK_STREAM, 0, none));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM, PF_UNIX, s));
    close_pair();
    open_pair(SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK);
    SHOW(fcntl(s[0], F_GETFD));
    SHOW(fcntl(s[1], F_GETFL));
    struct stat st;
    fstat(s[0], &st);
    printf("mode %o size %ld nlink %ld\n", st.st_mode, (long)st.st_size, (long)st.st_nlink);
    SHOW(lseek(s[0], 0, SEEK_SET));
    SHOW(pread(s[0], buf, 1, 0));
    SHOW(mmap(NULL, 4096, PROT_READ, MAP_SHARED, s[0], 0) == MAP_FAILED ? -1 : 0);
    SHOW(ftruncate(s[0], 0));
    SHOW(fsync(s[0]));
    char path[64], target[64] = "";
    sprintf(path, "/proc/self/fd/%d", s[0]);
    SHOW(readlink(path, target, sizeof target) > 0);
    printf("%.8s\n", target);
    SHOW(open(path, O_RDWR));
    SHOW(read(s[0], buf, 1));
    SHOW(recv(s[0], buf, 0, 0));
    SHOW(send(0, "x", 1, 0));
    SHOW(shutdown(0, SHUT_RD));
    SHOW(shutdown(99, SHUT_RD));
    SHOW(shutdown(s[0], 3));
    SHOW(listen(s[0], 1));
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    socklen_t len = sizeof name;
    SHOW(getsockname(s[0], (struct sockaddr *)&name, &len));
    printf("%u bytes, family %d\n", len, name.sun_family);
    len = 1;
    SHOW(getpeername(s[0], (struct sockaddr *)&name, &len));
    printf("%u bytes\n", len);
    len = sizeof name;
    strcpy(name.sun_path, "/nowhere/at/all");
    SHOW(connect(s[0], (struct sockaddr *)&name, sizeof name));
    SHOW(sendto(s[0], "x", 1, 0, (struct sockaddr *)&name, sizeof name));
    close_pair();
}

static void options(int type) {
    int value, n;
    socklen_t len = sizeof value;
    struct ucred who;
    open_pair(type);
#define GET(name) do { value = -1, len = sizeof value; n = getsockopt(s[0], SOL_SOCKET, name, &value, &len); \
    printf("%s: %d %s %d %u\n", #name, n, n ? strerrorname_np(errno) : "", value, len); } while (0)
    GET(SO_TYPE); GET(SO_DOMAIN); GET(SO_PROTOCOL); GET(SO_ERROR); GET(SO_SNDBUF); GET(SO_RCVBUF); GET(SO_PASSCRED); GET(SO_ACCEPTCONN);
    value = 10000;
    SHOW(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &value, sizeof value));
    GET(SO_SNDBUF);
    value = 1;
    SHOW(setsockopt(s[0], SOL_SOCKET, SO_RCVBUF, &value, sizeof value));
    GET(SO_RCVBUF);
    SHOW(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &value, 2));
    SHOW(setsockopt(s[0], SOL_SOCKET, 9999, &value, sizeof value));
    SHOW(getsockopt(s[0], SOL_SOCKET, 9999, &value, &len));
    SHOW(setsockopt(s[0], 6, 1, &value, sizeof value));
    len = sizeof who;
    SHOW(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &who, &len));
    printf("peer is self %d, %u\n", who.pid == getpid() && who.uid == geteuid() && who.gid == getegid(), len);
    close_pair();
}

static void stream(void) {
    open_pair(SOCK_STREAM);
    show_poll("new", s[0]);
    SHOW(write(s[0], "abc", 3));
    SHOW(write(s[0], "def", 3));
    SHOW(write(s[0], "", 0));
    SHOW(ioctl(s[1], FIONREAD, &pipes) + pipes * 100);
    pipes = 0;
    show_poll("data", s[1]);
    SHOW(recv(s[1], buf, 4, MSG_PEEK));
    SHOW(recv(s[1], buf, 5, MSG_WAITALL));
    printf("%.5s\n", buf);
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(send(s[1], nowhere, 10, 0));
    SHOW(write(s[0], "xyz", 3));
    SHOW(recv(s[1], nowhere, 2, 0));
    SHOW(recv(s[1], buf, 100, MSG_TRUNC));
    struct iovec pieces[3] = { { "one", 3 }, { "", 0 }, { "two", 3 } };
    SHOW(writev(s[1], pieces, 3));
    SHOW(readv(s[0], (struct iovec[]){ { buf, 1 }, { buf + 10, 20 } }, 2));
    printf("%.1s %.5s\n", buf, buf + 10);
    SHOW(write(s[0], "left", 4));
    SHOW(shutdown(s[0], SHUT_WR));
    show_poll("own write end shut", s[0]);
    show_poll("other's write end shut", s[1]);
    SHOW(write(s[0], "x", 1));
    printf("SIGPIPE %d\n", pipes);
    SHOW(send(s[0], "x", 1, MSG_NOSIGNAL));
    printf("SIGPIPE %d\n", pipes);
    SHOW(read(s[1], buf, 100));
    SHOW(read(s[1], buf, 100));
    SHOW(write(s[1], "back", 4));
    SHOW(read(s[0], buf, 100));
    SHOW(shutdown(s[0], SHUT_RD));
    show_poll("both shut", s[0]);
    show_poll("other shut both", s[1]);
    SHOW(write(s[1], "x", 1));
    printf("SIGPIPE %d\n", pipes);
    close_pair();

    open_pair(SOCK_STREAM);
    SHOW(write(s[0], "unread", 6));
    SHOW(write(s[1], "read", 4));
    close(s[1]);
    show_poll("other closed with unread data", s[0]);
    SHOW(read(s[0], buf, 100));
    SHOW(read(s[0], buf, 100));
    SHOW(read(s[0], buf, 100));
    show_poll("afterwards", s[0]);
    SHOW(write(s[0], "x", 1));
    printf("SIGPIPE %d\n", pipes);
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    SHOW(getpeername(s[0], (struct sockaddr *)&name, &len));
    close(s[0]);
}

static void messages(int type) {
    open_pair(type);
    show_poll("new", s[0]);
    SHOW(send(s[0], "first", 5, 0));
    SHOW(send(s[0], "", 0, 0));
    SHOW(send(s[0], "third", 5, MSG_EOR));
    int left = 0;
    SHOW(ioctl(s[1], FIONREAD, &left));
    printf("FIONREAD %d\n", left);
    SHOW(recv(s[1], buf, 2, MSG_PEEK));
    SHOW(recv(s[1], buf, 2, MSG_PEEK | MSG_TRUNC));
    struct iovec piece = { buf, 3 };
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1, .msg_name = buf + 100, .msg_namelen = 50, .msg_flags = 77 };
    SHOW(recvmsg(s[1], &m, 0));
    printf("flags %#x namelen %u controllen %zu\n", m.msg_flags, m.msg_namelen, m.msg_controllen);
    SHOW(recv(s[1], buf, 10, 0));
    m.msg_iov->iov_len = 10;
    SHOW(recvmsg(s[1], &m, 0));
    printf("flags %#x\n", m.msg_flags);
    SHOW(recv(s[1], buf, 10, MSG_DONTWAIT));
    SHOW(send(s[0], "bad", 3, 0));
    SHOW(recv(s[1], nowhere, 3, 0));
    SHOW(recv(s[1], buf, 3, MSG_DONTWAIT));
    SHOW(send(s[0], buf, 1 << 20, 0));
    SHOW(send(s[0], nowhere, 10, 0));
    SHOW(send(s[0], buf, 100000, MSG_DONTWAIT));
    SHOW(send(s[0], buf, 100000, MSG_DONTWAIT));
    show_poll("nearly full", s[0]);
    SHOW(recv(s[1], buf, sizeof buf, 0));
    SHOW(recv(s[1], buf, sizeof buf, 0));
    show_poll("empty", s[0]);
    SHOW(shutdown(s[0], SHUT_WR));
    show_poll("own write end shut", s[0]);
    show_poll("other's write end shut", s[1]);
    SHOW(send(s[0], "x", 1, 0));
    printf("SIGPIPE %d\n", pipes);
    SHOW(recv(s[1], buf, 10, MSG_DONTWAIT));
    SHOW(shutdown(s[1], SHUT_RD));
    SHOW(recv(s[1], buf, 10, MSG_DONTWAIT));
    SHOW(recv(s[1], buf, 10, 0));
    close_pair();

    open_pair(type);
    SHOW(send(s[1], "unread", 6, 0));
    SHOW(send(s[0], "unread", 6, 0));
    close(s[1]);
    show_poll("other closed", s[0]);
    SHOW(send(s[0], "x", 1, 0));
    SHOW(send(s[0], "x", 1, 0));
    printf("SIGPIPE %d\n", pipes);
    show_poll("after a send", s[0]);
    SHOW(recv(s[0], buf, 10, MSG_DONTWAIT));
    SHOW(recv(s[0], buf, 10, MSG_DONTWAIT));
    SHOW(recv(s[0], buf, 10, MSG_DONTWAIT));
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    SHOW(getpeername(s[0], (struct sockaddr *)&name, &len));
    close(s[0]);

    open_pair(type);
    SHOW(shutdown(s[1], SHUT_RD));
    SHOW(send(s[0], "x", 1, 0));
    printf("SIGPIPE %d\n", pipes);
    close_pair();
}

// A full stream, read in pieces by another process; every byte in its place.
static void flow(void) {
    open_pair(SOCK_STREAM);
    pid_t child = fork();
    if (child == 0) {
        close(s[0]);
        unsigned sum = 0, total = 0;
        long n;
        while ((n = read(s[1], buf, 1 + total % 70000)) > 0)
            for (long i = 0; i < n; i++, total++)
                sum = sum * 31 + (unsigned char)buf[i];
        printf("child: %u bytes, sum %u, end %ld\n", total, sum, n);
        exit(0);
    }
    close(s[1]);
    for (unsigned i = 0; i < sizeof buf; i++)
        buf[i] = (char)(i * 7 + i / 251);
    SHOW(write(s[0], buf, sizeof buf));
    SHOW(send(s[0], buf, sizeof buf / 2, 0));
    close(s[0]);
    waitpid(child, NULL, 0);
    open_pair(SOCK_STREAM | SOCK_NONBLOCK);
    long n = write(s[0], buf, sizeof buf);
    printf("some but not all: %d\n", n > 60000 && n < (long)sizeof buf);
    SHOW(write(s[0], buf, 1));
    show_poll("full", s[0]);
    long got = 0, r;
    while ((r = read(s[1], buf, sizeof buf)) > 0)
        got += r;
    printf("all of it: %d\n", got == n);
    show_poll("empty again", s[0]);
    close_pair();
}

static long send_files(int sock, const char *text, int *fds, int count, int type, int room) {
    static char control[4096];
    struct iovec piece = { (void *)text, strlen(text) };
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(count * 4) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = type, c->cmsg_len = room ? (size_t)room : CMSG_LEN(count * 4);
    memcpy(CMSG_DATA(c), fds, count * 4);
    return sendmsg(sock, &m, 0);
}

static void receive_files(int sock, int size, int room, int flags) {
    static char control[4096];
    struct iovec piece = { buf, size };
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = room ? control : NULL, .msg_controllen = room };
    memset(control, 0, sizeof control);
    long n = recvmsg(sock, &m, flags | MSG_DONTWAIT);
    printf("  got %ld %s flags %#x controllen %zu", n, n < 0 ? strerrorname_np(errno) : "", n < 0 ? 0 : m.msg_flags, n < 0 ? 0 : m.msg_controllen);
    if (n >= 0)
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
            printf("; level %d type %d len %zu", c->cmsg_level, c->cmsg_type, c->cmsg_len);
            int fds[300], count = (int)(c->cmsg_len - CMSG_LEN(0)) / 4;
            memcpy(fds, CMSG_DATA(c), count * 4);
            if (c->cmsg_type == SCM_CREDENTIALS)
                printf(" self %d uid %d", fds[0] == getpid(), fds[1]);
            for (int i = 0; c->cmsg_type == SCM_RIGHTS && i < count; i++) {
                struct stat st;
                if (i < 3)
                    printf(" %o cloexec %d", fstat(fds[i], &st) ? 0 : st.st_mode & S_IFMT, fcntl(fds[i], F_GETFD));
                close(fds[i]);
            }
        }
    printf("\n");
}

static void files(int type) {
    int p[2], many[300], bad = 99;
    if (pipe(p))
        return;
    open_pair(type);
    for (int i = 0; i < 300; i++)
        many[i] = p[i & 1];
    SHOW(send_files(s[0], "abc", p, 2, SCM_RIGHTS, 0));
    SHOW(send(s[0], "plain", 5, 0));
    receive_files(s[1], 2, 200, MSG_PEEK);
    receive_files(s[1], 2, 200, MSG_CMSG_CLOEXEC);
    receive_files(s[1], 100, 200, 0);
    receive_files(s[1], 100, 200, 0);
    SHOW(send(s[0], "before", 6, 0));
    SHOW(send_files(s[0], "with", p, 1, SCM_RIGHTS, 0));
    SHOW(send_files(s[0], "more", p, 2, SCM_RIGHTS, 0));
    SHOW(send(s[0], "after", 5, 0));
    receive_files(s[1], 100, 200, 0);
    receive_files(s[1], 100, CMSG_LEN(4), 0);
    receive_files(s[1], 100, 200, 0);
    receive_files(s[1], 100, 200, 0);
    SHOW(send_files(s[0], "n", p, 2, SCM_RIGHTS, 0));
    receive_files(s[1], 100, 0, 0);
    SHOW(send_files(s[0], "n", p, 2, SCM_RIGHTS, 0));
    receive_files(s[1], 100, 10, 0);
    SHOW(send_files(s[0], "n", &bad, 1, SCM_RIGHTS, 0));
    SHOW(send_files(s[0], "n", many, 253, SCM_RIGHTS, 0));
    receive_files(s[1], 100, 4000, 0);
    SHOW(send_files(s[0], "n", many, 254, SCM_RIGHTS, 0));
    SHOW(send_files(s[0], "n", p, 1, 77, 0));
    SHOW(send_files(s[0], "n", p, 1, SCM_RIGHTS, 3));
    SHOW(send_files(s[0], "n", p, 1, SCM_RIGHTS, 400));
    // A file that nobody takes is closed with its message.
    SHOW(send_files(s[0], "n", p + 1, 1, SCM_RIGHTS, 0));
    close(p[1]);
    SHOW(fcntl(p[0], F_SETFL, O_NONBLOCK));
    SHOW(read(p[0], buf, 1));
    SHOW(recv(s[1], buf, 10, 0));
    SHOW(read(p[0], buf, 1));
    close(p[0]);
    int on = 1;
    SHOW(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    SHOW(send(s[0], "who", 3, 0));
    receive_files(s[1], 100, 200, 0);
    struct ucred who = { getpid(), getuid(), getgid() };
    SHOW(send_files(s[0], "who", (int *)&who, 3, SCM_CREDENTIALS, 0));
    receive_files(s[1], 100, 20, 0);
    SHOW(send_files(s[0], "who", (int *)&who, 2, SCM_CREDENTIALS, 0));
    close_pair();
}

static void waiting(void) {
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &action, NULL);
    open_pair(SOCK_STREAM);
    ualarm(20000, 0);
    SHOW(read(s[0], buf, 1));
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    pid_t child = fork();
    if (child == 0) {
        usleep(60000);
        _exit(write(s[1], "late", 4) != 4);
    }
    ualarm(20000, 0);
    SHOW(read(s[0], buf, 10));
    waitpid(child, NULL, 0);
    child = fork();
    if (child == 0) {
        usleep(30000);
        _exit(shutdown(s[1], SHUT_WR));
    }
    SHOW(recv(s[0], buf, 10, MSG_WAITALL));
    waitpid(child, NULL, 0);
    close_pair();

    open_pair(SOCK_SEQPACKET);
    int e = epoll_create1(0);
    struct epoll_event event = { .events = EPOLLIN | EPOLLET | EPOLLRDHUP, .data.u32 = 5 };
    SHOW(epoll_ctl(e, EPOLL_CTL_ADD, s[0], &event));
    SHOW(epoll_wait(e, &event, 1, 0));
    child = fork();
    if (child == 0) {
        usleep(20000);
        _exit(send(s[1], "hello", 5, 0) != 5);
    }
    SHOW(epoll_wait(e, &event, 1, 5000));
    printf("events %#x\n", event.events);
    waitpid(child, NULL, 0);
    SHOW(epoll_wait(e, &event, 1, 0));
    close(s[1]);
    SHOW(epoll_wait(e, &event, 1, 5000));
    printf("events %#x\n", event.events);
    close(e);
    close(s[0]);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, on_sigpipe);
    arguments();
    options(SOCK_STREAM);
    options(SOCK_SEQPACKET);
    stream();
    printf("datagrams\n");
    messages(SOCK_DGRAM);
    printf("packets\n");
    messages(SOCK_SEQPACKET);
    flow();
    printf("files by stream\n");
    files(SOCK_STREAM);
    printf("files by datagram\n");
    files(SOCK_DGRAM);
    waiting();
    return 0;
}
