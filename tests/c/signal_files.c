// Signals that are read: every field of each origin, readiness, waits, who reads what, other sets. Prints facts that are the same on
// every Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, errno ? strerrorname_np(errno) : ""); } while (0)

static pid_t me, child_pid;
static const char *who(uint32_t pid) {
    return pid == 0 ? "0" : pid == (uint32_t)me ? "me" : pid == (uint32_t)getppid() ? "parent" : pid == (uint32_t)child_pid ? "child" : "?";
}
static sigset_t set_of(int n, ...) {
    sigset_t set;
    sigemptyset(&set);
    __builtin_va_list list;
    __builtin_va_start(list, n);
    while (n--) sigaddset(&set, __builtin_va_arg(list, int));
    __builtin_va_end(list);
    return set;
}
static void block(int how, sigset_t set) { pthread_sigmask(how, &set, 0); }

static int all_zero(const void *at, size_t len) {
    const char *bytes = at;
    while (len--) if (*bytes++) return 0;
    return 1;
}
static void show(const char *what, const struct signalfd_siginfo *i) {
    printf("%s: signal %u errno %d code %d pid %s uid %u fd %d tid %d band %u overrun %u trap %u status %d int %d ptr %llx times %d addr %llx lsb %u "
           "syscall %d call %llx arch %u rest %d\n", what, i->ssi_signo, i->ssi_errno, i->ssi_code, who(i->ssi_pid), i->ssi_uid, i->ssi_fd,
           i->ssi_tid != 0, i->ssi_band, i->ssi_overrun, i->ssi_trapno, i->ssi_status, i->ssi_int, (long long)i->ssi_ptr,
           i->ssi_utime < 1000 && i->ssi_stime < 1000, (long long)i->ssi_addr, i->ssi_addr_lsb, i->ssi_syscall, (long long)i->ssi_call_addr,
           i->ssi_arch, all_zero((char *)i + offsetof(struct signalfd_siginfo, ssi_arch) + 4, 128 - offsetof(struct signalfd_siginfo, ssi_arch) - 4));
}
static void take(const char *what, int fd) {
    struct signalfd_siginfo info;
    memset(&info, 0xa5, sizeof info);
    ssize_t got = read(fd, &info, sizeof info);
    if (got == sizeof info) show(what, &info);
    else printf("%s: %zd %s\n", what, got, got < 0 ? strerrorname_np(errno) : "");
}
static int ready(int fd) {
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLPRI };
    int n = poll(&p, 1, 0);
    return n < 0 ? -1 : p.revents;
}

static void files(void) {
    sigset_t set = set_of(2, SIGUSR1, SIGKILL);
    int fd, other;
    SHOW(fd = signalfd(-1, &set, 0));
    SHOW(fcntl(fd, F_GETFD)); SHOW(fcntl(fd, F_GETFL));
    SHOW(other = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    SHOW(fcntl(other, F_GETFD)); SHOW(fcntl(other, F_GETFL));
    SHOW(signalfd(-1, &set, 1)); SHOW(signalfd(fd, &set, SFD_NONBLOCK) == fd); SHOW(fcntl(fd, F_GETFL));
    SHOW(signalfd(0, &set, 0)); SHOW(signalfd(77, &set, 0)); SHOW(signalfd(-2, &set, 0));
    SHOW(syscall(SYS_signalfd4, -1, &set, 7, 0)); SHOW(syscall(SYS_signalfd4, -1, 8, 8, 0)); SHOW(close(syscall(SYS_signalfd, -1, &set, 8)));
    char buffer[300];
    SHOW(read(other, buffer, 127)); SHOW(read(other, buffer, 0)); SHOW(read(other, buffer, 128)); SHOW(write(other, buffer, 128));
    SHOW(lseek(other, 0, SEEK_SET)); SHOW(pread(other, buffer, 128, 0));
    struct stat st;
    SHOW(fstat(other, &st)); printf("mode %o size %ld\n", st.st_mode, (long)st.st_size);
    char name[64] = "";
    sprintf(buffer, "/proc/self/fd/%d", other);
    SHOW(readlink(buffer, name, 63)); printf("%s\n", name);
    raise(SIGUSR1);
    SHOW(syscall(SYS_read, other, 8, 128));
    // The signal was taken out before the copy failed, as Linux does it, or stays: the file says.
    printf("ready: %x\n", ready(other));
    while (read(other, buffer, 128) > 0);
    close(fd); close(other);
}

static void *sends(void *arg) { usleep(30000); kill(me, (int)(long)arg); return 0; }
static int handled;
static void on_signal(int s) { (void)s; handled++; }
static void *sends_after_the_handler(void *arg) {
    while (!__atomic_load_n(&handled, __ATOMIC_SEQ_CST)) usleep(1000);
    return sends(arg);
}

static void origins(int fd) {
    kill(me, SIGUSR1); take("kill", fd);
    syscall(SYS_tgkill, me, gettid(), SIGUSR1); take("tgkill", fd);
    sigqueue(me, SIGRTMIN, (union sigval){ .sival_ptr = (void *)0x1122334455667788 }); take("sigqueue", fd);
    sigqueue(me, SIGUSR2, (union sigval){ .sival_int = -5 }); take("sigqueue of a standard signal", fd);
    siginfo_t info = { .si_code = -60, .si_errno = 7 };
    info.si_pid = 0; info.si_uid = 9; info.si_value.sival_int = 3;
    syscall(SYS_rt_sigqueueinfo, me, SIGRTMIN + 1, &info); take("a code of one's own", fd);
    kill(me, SIGSEGV); take("SIGSEGV by kill", fd);
    child_pid = fork();
    if (child_pid == 0) _exit(7);
    waitid(P_PID, child_pid, &info, WEXITED | WNOWAIT); take("exit", fd); waitpid(child_pid, 0, 0);
    child_pid = fork();
    if (child_pid == 0) { pause(); _exit(0); }
    kill(child_pid, SIGKILL);
    waitid(P_PID, child_pid, &info, WEXITED | WNOWAIT); take("killed", fd); waitpid(child_pid, 0, 0);
    child_pid = fork();
    if (child_pid == 0) { kill(getppid(), SIGUSR1); pause(); _exit(0); }
    take("kill by a child", fd);
    kill(child_pid, SIGKILL); waitpid(child_pid, 0, 0); take("its end", fd);
    setitimer(ITIMER_REAL, &(struct itimerval){ .it_value.tv_usec = 1000 }, 0); take("interval timer", fd);
    timer_t timer;
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42 };
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &(struct itimerspec){ .it_value.tv_nsec = 1000000 }, 0);
    struct signalfd_siginfo t;
    // Which number the timer has is Linux's own affair.
    if (read(fd, &t, sizeof t) == sizeof t) { t.ssi_tid = 1; show("timer", &t); }
    timer_delete(timer);
}

static void many(int fd) {
    struct signalfd_siginfo three[3];
    for (int i = 0; i < 5; i++) sigqueue(me, SIGRTMIN + i % 2, (union sigval){ .sival_int = i });
    raise(SIGUSR2); raise(SIGUSR1); raise(SIGSEGV); raise(SIGUSR1);
    for (;;) {
        ssize_t got = read(fd, three, sizeof three - 1 + (rand() & 1));
        if (got <= 0) { printf("then %zd\n", got); break; }
        printf("%zd bytes:", got);
        for (int i = 0; i < got / 128; i++) printf(" %u/%d", three[i].ssi_signo, three[i].ssi_int);
        printf("\n");
    }
}

static void readiness(int fd) {
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT, .data.u32 = 1 }, got;
    int level = epoll_create1(0), edge = epoll_create1(0);
    SHOW(epoll_ctl(level, EPOLL_CTL_ADD, fd, &event));
    event.events |= EPOLLET;
    SHOW(epoll_ctl(edge, EPOLL_CTL_ADD, fd, &event));
    printf("nothing: %x, level %d, edge %d\n", ready(fd), epoll_wait(level, &got, 1, 0), epoll_wait(edge, &got, 1, 0));
    kill(me, SIGHUP);
    printf("another signal: %x, level %d\n", ready(fd), epoll_wait(level, &got, 1, 0));
    sigset_t hup = set_of(1, SIGHUP);
    sigtimedwait(&hup, 0, &(struct timespec){ 0, 0 });
    kill(me, SIGUSR1);
    printf("pending: %x, level %d", ready(fd), epoll_wait(level, &got, 1, 0));
    printf(" %d, edge %d", epoll_wait(level, &got, 1, 0), epoll_wait(edge, &got, 1, 0));
    printf(" %d\n", epoll_wait(edge, &got, 1, 0));
    sigqueue(me, SIGRTMIN, (union sigval){ 0 });
    printf("one more: edge %d\n", epoll_wait(edge, &got, 1, 0));
    fd_set reads, writes;
    FD_ZERO(&reads); FD_ZERO(&writes); FD_SET(fd, &reads); FD_SET(fd, &writes);
    int count = select(fd + 1, &reads, &writes, 0, &(struct timeval){ 0, 0 });
    printf("select: %d, read %d, write %d\n", count, FD_ISSET(fd, &reads) != 0, FD_ISSET(fd, &writes) != 0);
    take("first", fd); take("second", fd);
    printf("taken: %x, level %d, edge %d\n", ready(fd), epoll_wait(level, &got, 1, 0), epoll_wait(edge, &got, 1, 0));
    // Waits that begin before the signal is sent.
    pthread_t thread;
    struct pollfd p = { .fd = fd, .events = POLLIN };
    pthread_create(&thread, 0, sends, (void *)SIGUSR1);
    count = poll(&p, 1, 5000);
    printf("poll that waits: %d %x\n", count, p.revents);
    pthread_join(thread, 0); take("then", fd);
    pthread_create(&thread, 0, sends, (void *)SIGUSR2);
    printf("epoll that waits: %d", epoll_wait(edge, &got, 1, 5000)); printf(" %x\n", got.events);
    pthread_join(thread, 0); take("then", fd);
    close(level); close(edge);
}

static void waits(int fd) {
    pthread_t thread;
    SHOW(fcntl(fd, F_SETFL, 0));
    pthread_create(&thread, 0, sends, (void *)SIGUSR1);
    take("read that waits", fd);
    pthread_join(thread, 0);
    // A read would take SIGALRM itself, if it were of the set.
    sigset_t others = set_of(2, SIGUSR1, SIGUSR2), all;
    signalfd(fd, &others, 0);
    struct sigaction action = { .sa_handler = on_signal };
    for (int restart = 0; restart < 2; restart++) {
        action.sa_flags = restart ? SA_RESTART : 0;
        sigaction(SIGALRM, &action, 0);
        block(SIG_UNBLOCK, set_of(1, SIGALRM));
        // Again and again, as the first may come before the read begins.
        handled = 0;
        setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 20000 }, { 0, 20000 } }, 0);
        if (restart) pthread_create(&thread, 0, sends_after_the_handler, (void *)SIGUSR2);
        take(restart ? "interrupted, with SA_RESTART" : "interrupted", fd);
        setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, 0);
        if (restart) pthread_join(thread, 0);
        block(SIG_BLOCK, set_of(1, SIGALRM));
    }
    signal(SIGALRM, SIG_DFL);
    sigfillset(&all);
    signalfd(fd, &all, 0);
    SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
}

static void sets(int fd) {
    sigset_t narrow = set_of(1, SIGUSR2), wide = set_of(2, SIGUSR1, SIGUSR2), all;
    sigfillset(&all);
    raise(SIGUSR1);
    printf("ready: %x\n", ready(fd));
    SHOW(signalfd(fd, &narrow, 0) == fd);
    printf("with another set: %x\n", ready(fd));
    take("none", fd);
    raise(SIGUSR2); take("of the new set", fd);
    // Whoever waits hears of a wider set.
    SHOW(signalfd(fd, &wide, 0) == fd);
    printf("with the wider set: %x\n", ready(fd));
    int copy = dup(fd);
    SHOW(signalfd(copy, &narrow, 0) == copy);
    printf("a copy is the same file: %x\n", ready(fd));
    SHOW(signalfd(copy, &wide, 0) == copy);
    close(copy);
    take("that was left", fd);
    // Not blocked, a signal goes to its handler.
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGUSR1, &action, 0);
    block(SIG_UNBLOCK, wide);
    raise(SIGUSR1);
    printf("not blocked: %x\n", ready(fd));
    block(SIG_BLOCK, wide);
    // Ignored and blocked, it is pending nevertheless.
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    printf("ignored: %x\n", ready(fd));
    signal(SIGUSR1, SIG_DFL);
    while (read(fd, (char[128]){ 0 }, 128) > 0);
    SHOW(signalfd(fd, &all, 0) == fd);
}

static int shared_fd;
static void *looks(void *arg) {
    int *tid = arg;
    __atomic_store_n(tid, gettid(), __ATOMIC_SEQ_CST);
    while (__atomic_load_n(tid, __ATOMIC_SEQ_CST) != 0) usleep(1000);
    printf("its own thread sees: %x\n", ready(shared_fd));
    take("its thread", shared_fd);
    return 0;
}
static void *reads_one(void *arg) { (void)arg; take("any thread", shared_fd); return 0; }

static void whose(int fd) {
    int tid = 0;
    pthread_t thread;
    shared_fd = fd;
    pthread_create(&thread, 0, looks, &tid);
    while (!__atomic_load_n(&tid, __ATOMIC_SEQ_CST)) usleep(1000);
    syscall(SYS_tgkill, me, tid, SIGUSR1);
    printf("another thread's signal: %x\n", ready(fd));
    take("from here", fd);
    __atomic_store_n(&tid, 0, __ATOMIC_SEQ_CST);
    pthread_join(thread, 0);
    kill(me, SIGUSR1);
    pthread_create(&thread, 0, reads_one, 0);
    pthread_join(thread, 0);
    // A child reads its own signals through the file that it inherits, and none of its parent's.
    raise(SIGUSR1);
    fflush(stdout);
    child_pid = fork();
    if (child_pid == 0) {
        printf("in a child: %x\n", ready(fd));
        take("in a child", fd);
        me = getpid();
        raise(SIGUSR2);
        take("the child's own", fd);
        // Another set is one for both.
        sigset_t narrow = set_of(2, SIGUSR1, SIGCHLD);
        signalfd(fd, &narrow, 0);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child_pid, 0, 0);
    take("the parent's is still there", fd); take("and the child's end", fd);
    raise(SIGUSR2);
    printf("the child's set counts: %x\n", ready(fd));
    sigset_t all;
    sigfillset(&all);
    signalfd(fd, &all, 0);
    take("with all", fd);
    // The file lives on in a child that outlives its maker's descriptor.
    fflush(stdout);
    int go[2];
    if (pipe(go)) abort();
    child_pid = fork();
    if (child_pid == 0) {
        char byte;
        close(go[1]);
        if (read(go[0], &byte, 1) < 0) _exit(1);
        raise(SIGUSR1);
        me = getpid();
        take("after the parent closed it", fd);
        fflush(stdout);
        _exit(0);
    }
    close(fd);
    close(go[1]);
    waitpid(child_pid, 0, 0);
}

int main(void) {
    me = getpid();
    sigset_t all;
    sigfillset(&all);
    block(SIG_SETMASK, all);
    files();
    int fd = signalfd(-1, &all, SFD_CLOEXEC);
    origins(fd);
    SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
    many(fd);
    readiness(fd);
    waits(fd);
    sets(fd);
    whose(fd);
    return 0;
}
