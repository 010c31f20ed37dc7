/* POSIX message queues with good and bad arguments, through the system calls themselves where the C library would refuse. The same on every
   correct kernel. */
#include "ipc.h"
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char name[64], *kernel_name;
static char much[8192];

static long k_open(const void *path, int flags, int mode, const void *attr) { return syscall(SYS_mq_open, path, flags, mode, attr); }
static long k_unlink(const void *path) { return syscall(SYS_mq_unlink, path); }
static long k_send(int fd, const void *at, size_t len, unsigned prio, const void *time) {
    return syscall(SYS_mq_timedsend, fd, at, len, prio, time);
}
static long k_receive(int fd, void *at, size_t len, void *prio, const void *time) {
    return syscall(SYS_mq_timedreceive, fd, at, len, prio, time);
}
static long k_notify(int fd, const void *event) { return syscall(SYS_mq_notify, fd, event); }
static long k_attr(int fd, const void *new, void *old) { return syscall(SYS_mq_getsetattr, fd, new, old); }

static int queue(long messages, long bytes, int flags) {
    struct mq_attr attr = {.mq_maxmsg = messages, .mq_msgsize = bytes};
    int fd = mq_open(name, O_CREAT | O_EXCL | O_RDWR | flags, 0600, &attr);
    if (fd < 0)
        printf("no queue: %s\n", strerrorname_np(errno));
    return fd;
}

static struct timespec in_ms(long ms) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    long ns = time.tv_nsec + ms % 1000 * 1000000;
    time.tv_sec += ms / 1000 + ns / 1000000000;
    time.tv_nsec = ns % 1000000000;
    return time;
}

static void receive(int fd) {
    static char bytes[8192];
    unsigned priority = 99999;
    ssize_t got = mq_receive(fd, bytes, sizeof bytes, &priority);
    if (got < 0)
        printf("receive: %s\n", strerrorname_np(errno));
    else
        printf("receive: %.*s (%zd) priority %u\n", (int)got, bytes, got, priority);
}

static void opening(void) {
    struct mq_attr attr;
    GOES(mq_open(name, O_RDONLY)); GOES(mq_open(name, 0)); GOES(k_unlink(kernel_name)); GOES(k_unlink("")); GOES(k_unlink(BAD));
    GOES(k_open("", O_RDWR | O_CREAT, 0600, NULL)); GOES(k_open(BAD, O_RDWR | O_CREAT, 0600, NULL));
    GOES(k_open(".", O_RDWR | O_CREAT, 0600, NULL)); GOES(k_open("..", O_RDWR, 0600, NULL)); GOES(k_unlink(".."));
    GOES(k_open("a/b", O_RDWR | O_CREAT, 0600, NULL)); GOES(k_open("/a", O_RDWR | O_CREAT, 0600, NULL)); GOES(k_unlink("a/"));
    GOES(k_open(kernel_name, O_RDWR | O_CREAT, 0600, BAD)); GOES(k_open(kernel_name, O_RDWR, 0600, BAD));
    memset(much, 'x', 5000);
    much[255] = 0; GOES(k_open(much, O_RDWR, 0, NULL)); much[255] = 'x';
    much[256] = 0; GOES(k_open(much, O_RDWR, 0, NULL)); GOES(k_unlink(much)); much[256] = 'x';
    GOES(k_open(much, O_RDWR, 0, NULL));
    static const long bad[][2] = {{0, 1}, {1, 0}, {-1, 1}, {1, -1}};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        attr = (struct mq_attr){.mq_maxmsg = bad[n][0], .mq_msgsize = bad[n][1]};
        GOES(mq_open(name, O_RDWR | O_CREAT, 0600, &attr));
    }
    umask(027);
    int fd = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0666, NULL);
    struct stat stat;
    fstat(fd, &stat);
    printf("mode %o size %ld links %ld uid %d\n", stat.st_mode, (long)stat.st_size, (long)stat.st_nlink, stat.st_uid);
    printf("flags %x close-on-exec %d\n", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
    mq_getattr(fd, &attr);
    printf("attr %lx %ld %ld %ld\n", attr.mq_flags, attr.mq_maxmsg, attr.mq_msgsize, attr.mq_curmsgs);
    GOES(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL)); GOES(k_open(kernel_name, 3, 0, NULL));
    int again = mq_open(name, O_WRONLY | O_CREAT, 0, BAD == NULL ? NULL : &attr);
    GOES(again);
    char text[256];
    snprintf(much, 100, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(much, text, sizeof text);
    printf("link %d\n", len == (ssize_t)strlen(name) && memcmp(text, name, len) == 0);
    SHOW(mq_unlink(name)); SHOW(mq_unlink(name));
    len = readlink(much, text, sizeof text);
    printf("link %.*s\n", (int)(len - strlen(name)), text + strlen(name));
    fstat(fd, &stat);
    printf("links %ld\n", (long)stat.st_nlink);
    SHOW(mq_send(again, "still", 5, 1)); receive(fd); SHOW(mq_receive(again, much, 8192, NULL) == -1 ? -1 : 0);
    SHOW(fchmod(fd, 0123)); fstat(fd, &stat); printf("mode %o\n", stat.st_mode);
    SHOW(write(fd, "x", 1)); SHOW(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    close(fd); close(again);
}

static void transfer(void) {
    int fd = queue(5, 8, O_NONBLOCK);
    int reader = mq_open(name, O_RDONLY), writer = mq_open(name, O_WRONLY);
    unsigned priority;
    char at[16];
    struct timespec wrong[] = {{-1, 0}, {0, -1}, {0, 1000000000}, {1, 5}};
    receive(fd);
    SHOW(k_send(fd, "a", 1, 32768, NULL)); SHOW(k_send(fd, "123456789", 9, 0, NULL)); SHOW(k_send(fd, BAD, 3, 0, NULL));
    SHOW(k_send(fd, BAD, 0, 0, NULL)); SHOW(k_send(99, "a", 1, 0, NULL)); SHOW(k_send(0, "a", 1, 0, NULL)); SHOW(k_send(reader, "a", 1, 0, NULL));
    SHOW(k_send(fd, "a", 1, 0, BAD)); SHOW(k_send(fd, "a", -1UL, 0, NULL)); SHOW(k_send(99, "a", 1, 32768, NULL));
    for (int n = 0; n < 4; n++)
        SHOW(k_send(fd, "ab", 2, n & 1 ? 32767 : 7, &wrong[n]));
    SHOW(mq_send(fd, "12345678", 8, 7)); SHOW(mq_send(writer, "low", 3, 0)); SHOW(mq_send(fd, "7", 1, 7)); SHOW(mq_send(fd, "8", 1, 8));
    SHOW(k_receive(fd, at, 7, NULL, NULL)); SHOW(k_receive(writer, at, 8, NULL, NULL)); SHOW(k_receive(99, at, 8, NULL, NULL));
    SHOW(k_receive(fd, at, 8, NULL, &wrong[0])); SHOW(k_receive(fd, at, 8, NULL, BAD));
    SHOW(k_receive(fd, BAD, 8, &priority, NULL)); SHOW(k_receive(fd, at, 8, BAD, NULL));
    for (int n = 0; n < 5; n++)
        receive(fd);
    struct mq_attr attr = {.mq_flags = 0, .mq_maxmsg = 77, .mq_msgsize = 77, .mq_curmsgs = 77}, old;
    memset(&old, 1, sizeof old);
    SHOW(k_attr(fd, &attr, &old));
    printf("attr %lx %ld %ld %ld\n", old.mq_flags, old.mq_maxmsg, old.mq_msgsize, old.mq_curmsgs);
    SHOW(mq_getattr(fd, &old)); printf("attr %lx %ld %ld flags %x\n", old.mq_flags, old.mq_maxmsg, old.mq_msgsize, fcntl(fd, F_GETFL));
    attr.mq_flags = O_APPEND; SHOW(k_attr(fd, &attr, NULL)); SHOW(k_attr(fd, BAD, NULL)); SHOW(k_attr(fd, NULL, BAD)); SHOW(k_attr(0, NULL, NULL));
    SHOW(k_attr(99, NULL, &old)); SHOW(k_attr(fd, NULL, NULL));
    /* Waiting with an end. */
    struct timespec past = {1, 0}, soon = in_ms(30);
    SHOW(k_receive(fd, at, 8, NULL, &past)); SHOW(k_receive(fd, at, 8, NULL, &soon));
    for (int n = 0; n < 5; n++)
        mq_send(fd, "full", 4, n);
    soon = in_ms(30);
    SHOW(k_send(fd, "x", 1, 0, &past)); SHOW(k_send(fd, "x", 1, 0, &soon));
    attr.mq_flags = O_NONBLOCK; SHOW(k_attr(fd, &attr, NULL)); SHOW(k_send(fd, "x", 1, 0, &soon)); SHOW(k_send(fd, BAD, 1, 0, NULL));
    char text[200] = "";
    SHOW(read(fd, text, sizeof text)); printf("%s", text); SHOW(read(fd, text, 5)); SHOW(lseek(fd, 6, SEEK_SET)); SHOW(pread(fd, text, 3, 0));
    SHOW(read(fd, text, 4)); printf("%.4s\n", text); SHOW(read(writer, text, 4)); SHOW(pread(fd, BAD, 4, 0));
    mq_unlink(name);
    close(fd); close(reader); close(writer);
}

static void watching(void) {
    int fd = queue(2, 8, O_NONBLOCK), many = epoll_create1(0);
    struct pollfd one = {fd, POLLIN | POLLOUT | POLLERR | POLLRDNORM | POLLWRNORM, 0};
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {0}};
    SHOW(epoll_ctl(many, EPOLL_CTL_ADD, fd, &event));
    for (int n = 0; n < 4; n++) {
        poll(&one, 1, 0);
        event.events = 0;
        int got = epoll_wait(many, &event, 1, 0);
        printf("poll %x epoll %d %x\n", one.revents, got, event.events);
        if (n < 2) mq_send(fd, "x", 1, 0); else receive(fd);
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        nap(50);
        mq_send(fd, "late", 4, 0);
        _exit(0);
    }
    receive(fd);
    one.events = POLLIN;
    SHOW(poll(&one, 1, 5000));
    printf("poll %x\n", one.revents);
    receive(fd);
    end_of(pid);
    mq_unlink(name);
    close(fd); close(many);
}

static volatile int handled, last_code, last_value;
static volatile pid_t last_pid;
static volatile uid_t last_uid;
static void note(int signal, siginfo_t *info, void *context) {
    (void)signal; (void)context;
    handled++;
    last_code = info->si_code; last_value = info->si_value.sival_int; last_pid = info->si_pid; last_uid = info->si_uid;
}
static void handle(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    sigaction(signal, &action, NULL);
}
static void alarm_in(long ms) {
    struct itimerval timer = {{0, 0}, {0, ms * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void interrupted(void) {
    int fd = queue(1, 8, 0);
    char at[8];
    struct timespec later = in_ms(5000), soon;
    handle(SIGALRM, 0);
    alarm_in(30); SHOW(k_receive(fd, at, 8, NULL, NULL)); alarm_in(30); SHOW(k_receive(fd, at, 8, NULL, &later));
    mq_send(fd, "x", 1, 0);
    alarm_in(30); SHOW(k_send(fd, "y", 1, 0, NULL)); alarm_in(30); SHOW(k_send(fd, "y", 1, 0, &later));
    handle(SIGALRM, SA_RESTART);
    soon = in_ms(80); alarm_in(30); SHOW(k_send(fd, "y", 1, 0, &soon));
    receive(fd);
    soon = in_ms(80); alarm_in(30); SHOW(k_receive(fd, at, 8, NULL, &soon));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        nap(80);
        mq_send(fd, "restart", 7, 3);
        _exit(0);
    }
    alarm_in(30); receive(fd);
    printf("handled %d\n", handled);
    end_of(pid);
    /* Stopped and continued, and killed. */
    pid = fork();
    if (pid == 0) {
        receive(fd);
        fflush(stdout);
        receive(fd);
        _exit(1);
    }
    int status;
    asleep(pid); kill(pid, SIGSTOP); waitpid(pid, &status, WUNTRACED); kill(pid, SIGCONT); asleep(pid);
    mq_send(fd, "go on", 5, 0); asleep(pid); kill(pid, SIGKILL);
    printf("ended %x\n", end_of(pid));
    mq_send(fd, "nobody", 6, 0); receive(fd);
    mq_unlink(name);
    close(fd);
}

static void notifying(void) {
    int fd = queue(4, 8, O_NONBLOCK), twin = dup(fd);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    char text[200] = "";
    handle(SIGUSR1, 0);
    handled = 0;
    SHOW(k_notify(fd, BAD)); SHOW(k_notify(99, &event)); SHOW(k_notify(0, &event)); SHOW(k_notify(fd, NULL));
    event.sigev_signo = 65; SHOW(k_notify(fd, &event)); event.sigev_signo = -1; SHOW(k_notify(fd, &event));
    event.sigev_notify = 77; SHOW(k_notify(fd, &event)); event.sigev_notify = SIGEV_SIGNAL; event.sigev_signo = SIGUSR1;
    SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, &event));
    pread(fd, text, sizeof text, 0);
    printf("%.39s %d\n", text, atoi(text + 49) == getpid());
    SHOW(mq_send(fd, "1", 1, 0));
    printf("handled %d code %d value %d pid %d uid %d\n", handled, last_code, last_value, last_pid == getpid(), last_uid);
    SHOW(mq_send(fd, "2", 1, 0)); printf("handled %d\n", handled);
    SHOW(k_notify(fd, &event)); SHOW(mq_send(fd, "3", 1, 0)); printf("not empty: handled %d\n", handled);
    receive(fd); receive(fd); receive(fd);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, NULL)); SHOW(close(fd));
        SHOW(setresuid(7, 7, 7)); SHOW(mq_send(twin, "child", 5, 0));
        fflush(stdout);
        _exit(0);
    }
    end_of(pid);
    printf("handled %d code %d value %d pid %d uid %d\n", handled, last_code, last_value, last_pid == pid, last_uid);
    receive(fd);
    event.sigev_notify = SIGEV_NONE; SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, &event));
    pread(fd, text, sizeof text, 0); printf("%.39s\n", text);
    SHOW(mq_send(fd, "4", 1, 0)); SHOW(k_notify(fd, &event)); receive(fd);
    SHOW(close(twin)); SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, NULL)); SHOW(k_notify(fd, NULL));
    event.sigev_notify = SIGEV_SIGNAL; event.sigev_signo = 0; SHOW(k_notify(fd, &event)); SHOW(mq_send(fd, "5", 1, 0)); receive(fd);
    event.sigev_signo = SIGRTMIN + 1; handle(SIGRTMIN + 1, 0); SHOW(k_notify(fd, &event));
    /* Who waits gets the message, and nobody is told. */
    struct mq_attr attr = {.mq_flags = 0};
    mq_setattr(fd, &attr, NULL);
    handled = 0;
    fflush(stdout);
    if ((pid = fork()) == 0) {
        receive(fd);
        fflush(stdout);
        _exit(0);
    }
    asleep(pid); SHOW(mq_send(fd, "waited", 6, 1)); end_of(pid); printf("handled %d\n", handled);
    SHOW(mq_send(fd, "now", 3, 1)); printf("handled %d value %d\n", handled, last_value); receive(fd);
    /* A registration goes with the process, and with the program. */
    if ((pid = fork()) == 0)
        _exit(k_notify(fd, &event));
    end_of(pid);
    SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, NULL));
    fcntl(fd, F_SETFD, 0);
    if ((pid = fork()) == 0) {
        event.sigev_signo = SIGTERM;
        k_notify(fd, &event);
        char number[16], *args[] = {"message_queues", number, NULL};
        snprintf(number, sizeof number, "%d", fd);
        execv("/proc/self/exe", args);
    }
    printf("ended %x\n", end_of(pid));
    mq_unlink(name);
    close(fd);
}

/* After exec: it is still registered, and not told. */
static int another_program(int fd) {
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    SHOW(k_notify(fd, &event)); SHOW(mq_send(fd, "?", 1, 0)); receive(fd); SHOW(k_notify(fd, &event));
    return 3;
}

static volatile int told;
static void on_message(union sigval value) { told = value.sival_int; }

/* By a thread of the C library's, and by the socket that it uses for that. */
static void telling_threads(void) {
    int fd = queue(4, 8, O_NONBLOCK), pair[2];
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_message, .sigev_value.sival_int = 77};
    SHOW(mq_notify(fd, &event)); SHOW(mq_notify(fd, &event)); SHOW(mq_send(fd, "1", 1, 0));
    for (int n = 0; n < 2000 && !told; n++)
        nap(1);
    printf("told %d\n", told);
    receive(fd);
    SHOW(mq_notify(fd, &event)); SHOW(mq_notify(fd, NULL)); SHOW(mq_notify(fd, &event)); SHOW(mq_notify(fd, NULL));
    char cookie[32] = "the cookie, of which the last ", got[64] = "";
    int link = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
    GOES(link); GOES(socket(AF_NETLINK, SOCK_STREAM, 0)); GOES(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    event = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_signo = link, .sigev_value.sival_ptr = BAD};
    SHOW(k_notify(fd, &event)); event.sigev_value.sival_ptr = cookie; event.sigev_signo = 99; SHOW(k_notify(fd, &event));
    event.sigev_signo = fd; SHOW(k_notify(fd, &event)); event.sigev_signo = pair[0]; SHOW(k_notify(fd, &event));
    event.sigev_signo = link; SHOW(k_notify(99, &event)); SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, &event));
    struct pollfd one = {link, POLLIN, 0};
    SHOW(poll(&one, 1, 0)); SHOW(recv(link, got, sizeof got, MSG_DONTWAIT));
    pread(fd, got, sizeof got - 1, 0); printf("%.39s\n", got);
    SHOW(mq_send(fd, "2", 1, 0)); SHOW(poll(&one, 1, 0)); SHOW(recv(link, got, sizeof got, MSG_WAITALL)); printf("%.30s %d\n", got, got[31]);
    receive(fd);
    SHOW(k_notify(fd, &event)); SHOW(k_notify(fd, NULL)); SHOW(recv(link, got, sizeof got, MSG_DONTWAIT)); printf("%.30s %d\n", got, got[31]);
    SHOW(k_notify(fd, &event)); close(link); SHOW(mq_send(fd, "3", 1, 0)); receive(fd);
    SHOW(k_notify(fd, NULL));
    mq_unlink(name);
    close(fd); close(pair[0]); close(pair[1]);
}

struct part { int fd, number; volatile pid_t thread; };

static void *taker(void *given) {
    struct part *part = given;
    setpriority(PRIO_PROCESS, gettid(), part->number == 2 ? -5 : part->number == 3 ? 5 : 0);
    char at[8];
    part->thread = gettid();
    ssize_t got = mq_receive(part->fd, at, 8, NULL);
    return (void *)(long)(got == 1 ? at[0] : 0);
}
static void *giver(void *given) {
    struct part *part = given;
    char letter = 'A' + part->number;
    part->thread = gettid();
    return (void *)(long)mq_send(part->fd, &letter, 1, part->number == 2);
}

static void *(*const PARTS[])(void *) = {taker, giver};

/* Threads that wait one after the other. */
static void line_up(int kind, int fd, pthread_t *threads, struct part *parts) {
    for (int n = 0; n < 4; n++) {
        parts[n] = (struct part){fd, n, 0};
        pthread_create(&threads[n], NULL, PARTS[kind], &parts[n]);
        while (!parts[n].thread)
            nap(1);
        asleep(parts[n].thread);
    }
}

static void turns(void) {
    int fd = queue(1, 8, 0);
    pthread_t threads[4];
    struct part parts[4];
    line_up(0, fd, threads, parts);
    for (int n = 0; n < 4; n++)
        mq_send(fd, &"abcd"[n], 1, 0);
    printf("takers got");
    for (int n = 0; n < 4; n++) {
        void *got;
        pthread_join(threads[n], &got);
        printf(" %c", (char)(long)got);
    }
    printf("\n");
    mq_send(fd, "0", 1, 0);
    line_up(1, fd, threads, parts);
    for (int n = 0; n < 5; n++)
        receive(fd);
    for (int n = 0; n < 4; n++)
        pthread_join(threads[n], NULL);
    mq_unlink(name);
    close(fd);
}

static void become(int uid, int gid) {
    if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        printf("cannot become %d\n", uid);
}

/* As a user who may not do more than the settings say. */
static void user_limits(void) {
    static const long bad[][2] = {{11, 1}, {1, 8193}, {65537, 1}, {1, (16 << 20) + 1}, {1L << 62, 1L << 62}};
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 1000};
    struct rlimit limit = {3 * (3 * (1000 + 48) + 3 * 48) + 100, 800000};
    int fds[32], made = 0;
    become(4711, 4711);
    SHOW(setrlimit(RLIMIT_MSGQUEUE, &limit));
    for (; made < 32; made++) {
        sprintf(much, "%s-%d", name, made);
        if ((fds[made] = mq_open(much, O_RDWR | O_CREAT, 0600, &attr)) < 0)
            break;
    }
    printf("made %d: %s\n", made, strerrorname_np(errno));
    sprintf(much, "%s-%d", name, 0); SHOW(mq_unlink(much)); GOES(mq_open(name, O_RDWR | O_CREAT, 0600, &attr));
    close(fds[0]); GOES(mq_open(name, O_RDWR | O_CREAT, 0600, &attr)); SHOW(mq_unlink(name));
    for (int n = 1; n < made; n++) {
        sprintf(much, "%s-%d", name, n);
        mq_unlink(much);
    }
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        attr = (struct mq_attr){.mq_maxmsg = bad[n][0], .mq_msgsize = bad[n][1]};
        GOES(mq_open(name, O_RDWR | O_CREAT, 0600, &attr));
    }
}

static void foreign(int fd) {
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 1000};
    become(4711, 4711);
    GOES(mq_open(name, O_RDONLY)); GOES(mq_open(name, O_WRONLY)); GOES(mq_open(name, O_RDWR)); GOES(mq_open(name, O_CREAT | O_RDWR, 0600, &attr));
    SHOW(k_unlink(kernel_name)); SHOW(mq_send(fd, "open", 4, 0));
}

static void limits(void) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        user_limits();
        fflush(stdout);
        _exit(0);
    }
    end_of(pid);
    umask(0);
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 8192};
    int fd = mq_open(name, O_RDWR | O_CREAT, 0624, &attr);
    fflush(stdout);
    if ((pid = fork()) == 0) {
        foreign(fd);
        fflush(stdout);
        _exit(0);
    }
    end_of(pid);
    receive(fd);
    mq_unlink(name);
    close(fd);
    /* Long messages, and many. */
    attr.mq_maxmsg = 10;
    fd = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr);
    unsigned number = 1, wrong = 0, before, priority;
    for (int round = 0; round < 300; round++) {
        for (int n = 0; n < 10; n++) {
            number = number * 1103515245 + 12345;
            memset(much, number, 8192);
            memcpy(much, &number, 4);
            wrong += mq_send(fd, much, 8192, number >> 17) != 0;
        }
        wrong += mq_send(fd, "full", 4, 0) == 0;
        before = 32768;
        for (int n = 0; n < 10; n++) {
            unsigned got;
            wrong += mq_receive(fd, much, 8192, &priority) != 8192;
            memcpy(&got, much, 4);
            wrong += priority > before || priority != got >> 17 || much[8191] != (char)got;
            before = priority;
        }
    }
    printf("wrong %u\n", wrong);
    mq_unlink(name);
    close(fd);
}

static void settings(void) {
    static const char *files[] = {"msg_max", "msgsize_max", "queues_max", "msg_default", "msgsize_default"};
    for (int n = 0; n < 5; n++) {
        char path[64], text[32] = "";
        sprintf(path, "/proc/sys/fs/mqueue/%s", files[n]);
        int fd = open(path, O_RDONLY);
        if (read(fd, text, 31) < 0)
            printf("cannot be read\n");
        printf("%s %s", files[n], text);
        close(fd);
        struct stat stat;
        lstat(path, &stat);
        printf("mode %o\n", stat.st_mode);
    }
}

int main(int count, char **args) {
    if (count > 1)
        return another_program(atoi(args[1]));
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    snprintf(name, sizeof name, "/faultline-%d-%ld", getpid(), time(NULL));
    kernel_name = name + 1;
    settings();
    opening();
    transfer();
    watching();
    interrupted();
    notifying();
    telling_threads();
    turns();
    limits();
    return 0;
}
