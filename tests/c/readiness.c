// Readiness of files as epoll(7), poll(2) and timerfd_create(2) report it: every line is the same on each correct kernel.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int error(int result) { return result < 0 ? errno : 0; }

static void sleep_ms(int ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&time, &time)) {}
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int control(int epoll, int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    return error(epoll_ctl(epoll, operation, fd, &event));
}

static int add(int epoll, int fd, uint32_t events) { return control(epoll, EPOLL_CTL_ADD, fd, events); }

// epoll_wait(2) as it is, for arguments that the compiler would not let through.
static int raw_wait(int epoll, long events, int max) { return error(syscall(SYS_epoll_wait, epoll, events, max, 0)); }

static int names[1024];

static int name(int fd, int as) {
    names[fd] = as;
    return fd;
}

// What is ready now, by the files' names, in the order in which it is told.
static void ready(const char *when, int epoll, int max, int timeout) {
    struct epoll_event events[16];
    int count = epoll_wait(epoll, events, max, timeout);
    printf("%s: %d", when, count < 0 ? -errno : count);
    for (int n = 0; n < count; n++) printf(" %c:%x", names[events[n].data.fd], events[n].events);
    printf("\n");
}

static void put(int fd) {
    uint64_t one = 1;
    if (write(fd, &one, 8) != 8) printf("write failed\n");
}

static long take(int fd) {
    uint64_t count;
    return read(fd, &count, 8) == 8 ? (long)count : -errno;
}

static void triggers(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int a = name(eventfd(0, EFD_NONBLOCK), 'a'), b = name(eventfd(0, EFD_NONBLOCK), 'b'), c = name(eventfd(0, EFD_NONBLOCK), 'c');
    printf("add %d %d %d\n", add(epoll, a, EPOLLIN), add(epoll, b, EPOLLIN | EPOLLET), add(epoll, c, EPOLLIN | EPOLLONESHOT));
    ready("nothing", epoll, 16, 0);
    put(c), put(b), put(a);
    ready("all three", epoll, 16, 0);
    ready("level only", epoll, 16, 0);
    put(b), put(c);
    ready("edge again", epoll, 16, 0);
    printf("rearm %d\n", control(epoll, EPOLL_CTL_MOD, c, EPOLLIN | EPOLLONESHOT));
    ready("oneshot again", epoll, 16, 0);
    printf("took %ld %ld %ld\n", take(a), take(b), take(c));
    ready("taken", epoll, 16, 0);
    put(a), put(b), control(epoll, EPOLL_CTL_MOD, c, EPOLLIN), put(c);
    ready("one", epoll, 1, 0);
    ready("the next", epoll, 1, 0);
    ready("in turn", epoll, 1, 0);
    ready("and again", epoll, 1, 0);
    printf("delete %d %d\n", control(epoll, EPOLL_CTL_DEL, a, 0), control(epoll, EPOLL_CTL_DEL, a, 0));
    ready("without a", epoll, 16, 0);
    int copy = dup(c);
    close(c);
    ready("a copy is open", epoll, 16, 0);
    close(copy);
    ready("all closed", epoll, 16, 0);
    int out = name(eventfd(0, 0), 'o');
    add(epoll, out, EPOLLIN | EPOLLOUT | EPOLLET);
    ready("writable", epoll, 16, 0);
    ready("once", epoll, 16, 0);
    put(out);
    ready("readable too", epoll, 16, 0);
    printf("took %ld\n", take(out));
    ready("reading makes it writable", epoll, 16, 0);
    close(out), close(b), close(epoll);
}

static void ends_of_pipes(void) {
    int epoll = epoll_create1(0), ends[2];
    if (pipe2(ends, O_NONBLOCK)) return;
    name(ends[0], 'r'), name(ends[1], 'w');
    add(epoll, ends[0], EPOLLIN | EPOLLRDHUP | EPOLLET), add(epoll, ends[1], EPOLLOUT | EPOLLET);
    ready("empty pipe", epoll, 16, 0);
    char page[4096] = {0};
    if (write(ends[1], page, 10) != 10) return;
    ready("10 bytes", epoll, 16, 0);
    if (read(ends[0], page, 3) != 3) return;
    ready("3 read", epoll, 16, 0);
    while (write(ends[1], page, sizeof page) > 0) {}
    ready("full", epoll, 16, 0);
    if (read(ends[0], page, 4096) != 4096) return;
    if (read(ends[0], page, 4096) != 4096) return;
    ready("room", epoll, 16, 0);
    close(ends[0]);
    ready("no reader", epoll, 16, 0);
    close(ends[1]);
    if (pipe(ends)) return;
    name(ends[0], 'r');
    add(epoll, ends[0], EPOLLIN);
    close(ends[1]);
    ready("no writer", epoll, 16, 0);
    ready("still", epoll, 16, 0);
    close(ends[0]), close(epoll);
}

static void one_in_another(void) {
    int inner = name(epoll_create1(0), 'i'), outer = name(epoll_create1(0), 'o'), top = epoll_create1(0);
    int a = name(eventfd(0, EFD_NONBLOCK), 'a');
    printf("nest %d %d %d\n", add(inner, a, EPOLLIN), add(outer, inner, EPOLLIN), add(top, outer, EPOLLIN | EPOLLET));
    printf("circle %d self %d\n", add(inner, top, EPOLLIN), add(inner, inner, EPOLLIN));
    struct pollfd polled = {top, POLLIN, 0};
    printf("poll %d\n", poll(&polled, 1, 0));
    put(a);
    printf("poll %d %x\n", poll(&polled, 1, 0), polled.revents);
    ready("top", top, 16, 0);
    ready("top again", top, 16, 0);
    ready("outer", outer, 16, 0);
    ready("inner", inner, 16, 0);
    put(a);
    ready("top after more", top, 16, 0);
    printf("took %ld\n", take(a));
    ready("inner is empty", inner, 16, 0);
    ready("outer is empty", outer, 16, 0);
    close(inner);
    ready("inner is gone", outer, 16, 0);
    int chain[8];
    for (int n = 0; n < 8; n++) chain[n] = epoll_create1(0);
    for (int n = 0; n < 7; n++) printf("level %d: %d\n", n, add(chain[n], chain[n + 1], EPOLLIN));
    for (int n = 0; n < 8; n++) close(chain[n]);
    close(a), close(outer), close(top);
}

static void refusals(void) {
    int epoll = epoll_create1(0), event = eventfd(0, 0), file = open("/proc/self/exe", O_RDONLY), null = open("/dev/null", O_RDWR);
    struct epoll_event events[1];
    printf("create %d %d %d\n", error(epoll_create(0)), error(epoll_create1(1)), error(epoll_create(1)));
    printf("regular %d null %d directory %d\n", add(epoll, file, EPOLLIN), add(epoll, null, EPOLLIN), add(epoll, open("/", O_RDONLY), EPOLLIN));
    printf("twice %d %d\n", add(epoll, event, EPOLLIN), add(epoll, event, EPOLLIN));
    printf("not there %d %d\n", control(epoll, EPOLL_CTL_MOD, 0, EPOLLIN), control(epoll, EPOLL_CTL_DEL, 0, EPOLLIN));
    printf("bad %d %d %d %d\n", add(epoll, 999, EPOLLIN), add(999, event, EPOLLIN), add(event, epoll, EPOLLIN), control(epoll, 9, event, EPOLLIN));
    printf("no event %d %d\n", error(epoll_ctl(epoll, EPOLL_CTL_ADD, event, NULL)), error(epoll_ctl(epoll, EPOLL_CTL_DEL, event, NULL)));
    printf("wait %d %d %d %d\n", raw_wait(epoll, (long)events, 0), raw_wait(event, (long)events, 1), raw_wait(999, (long)events, 1), raw_wait(epoll, (long)events, -1));
    add(epoll, event, EPOLLIN);
    put(event);
    printf("bad memory %d %d", raw_wait(epoll, 8, 1), raw_wait(epoll, -4096, 1));
    printf(" %d\n", epoll_wait(epoll, events, 1, 0));
    control(epoll, EPOLL_CTL_DEL, event, 0);
    printf("exclusive %d %d %d\n", add(epoll, event, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT), add(epoll, event, EPOLLIN | EPOLLEXCLUSIVE), control(epoll, EPOLL_CTL_MOD, event, EPOLLIN));
    close(epoll), close(event), close(file), close(null);
}

static int shared_epoll, woken_by;

static void *waiter(void *count) {
    struct epoll_event event;
    for (int n = 0; n < *(int *)count; n++) {
        if (epoll_wait(shared_epoll, &event, 1, 5000) == 1) {
            take(event.data.fd);
            __atomic_add_fetch(&woken_by, 1, __ATOMIC_SEQ_CST);
        }
    }
    return NULL;
}

static void threads(void) {
    shared_epoll = epoll_create1(0);
    int event = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE), each = 25;
    add(shared_epoll, event, EPOLLIN | EPOLLET);
    pthread_t ids[4];
    for (int n = 0; n < 4; n++) pthread_create(&ids[n], NULL, waiter, &each);
    for (int n = 0; n < 100; n++) {
        put(event);
        while (__atomic_load_n(&woken_by, __ATOMIC_SEQ_CST) <= n) sched_yield();
    }
    for (int n = 0; n < 4; n++) pthread_join(ids[n], NULL);
    printf("each edge woke one waiter: %d\n", woken_by);
    close(shared_epoll), close(event);
}

static void nothing(int signal) { (void)signal; }

static void waits(void) {
    int epoll = epoll_create1(0), event = name(eventfd(0, EFD_NONBLOCK), 'e');
    add(epoll, event, EPOLLIN);
    long start = now_ms();
    ready("timeout", epoll, 1, 30);
    printf("took its time %d\n", now_ms() - start >= 29);
    if (fork() == 0) {
        sleep_ms(20);
        put(event);
        _exit(0);
    }
    ready("a child writes", epoll, 1, 5000);
    wait(NULL);
    take(event);
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    ualarm(20000, 0);
    ready("a handler ends it", epoll, 1, 5000);
    sigset_t none, alarm;
    sigemptyset(&none), sigemptyset(&alarm), sigaddset(&alarm, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm, NULL);
    raise(SIGALRM);
    struct epoll_event events[1];
    printf("pwait %d", error(epoll_pwait(epoll, events, 1, 5000, &none)));
    sigset_t mask;
    sigprocmask(SIG_UNBLOCK, &alarm, &mask);
    printf(" mask is back %d\n", sigismember(&mask, SIGALRM));
    struct timespec brief = {0, 10000000}, bad = {0, 1000000000};
    printf("pwait2 %ld %d\n", syscall(SYS_epoll_pwait2, epoll, events, 1, &brief, NULL, 8), error(syscall(SYS_epoll_pwait2, epoll, events, 1, &bad, NULL, 8)));
    close(epoll), close(event);
}

static void timers(void) {
    int timer = name(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), 't'), epoll = epoll_create1(0);
    printf("create %d %d\n", error(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0)), error(timerfd_create(CLOCK_REALTIME, 1)));
    add(epoll, timer, EPOLLIN);
    struct itimerspec set = {{0, 0}, {0, 20000000}}, got;
    printf("read early %ld\n", take(timer));
    printf("set %d", error(timerfd_settime(timer, 0, &set, &got)));
    printf(" was %ld %ld\n", (long)got.it_value.tv_nsec, (long)got.it_interval.tv_nsec);
    ready("not yet", epoll, 1, 0);
    ready("rings", epoll, 1, 5000);
    timerfd_gettime(timer, &got);
    printf("left %ld\n", (long)got.it_value.tv_nsec);
    printf("rang %ld then %ld\n", take(timer), take(timer));
    set = (struct itimerspec){{0, 10000000}, {0, 10000000}};
    timerfd_settime(timer, 0, &set, NULL);
    sleep_ms(105);
    ready("many rings are one event", epoll, 1, 0);
    long rings = take(timer);
    printf("about ten %d\n", rings >= 10 && rings < 20);
    timerfd_gettime(timer, &got);
    printf("goes on %d every %ld\n", got.it_value.tv_nsec > 0 && got.it_value.tv_nsec <= 10000000, (long)got.it_interval.tv_nsec);
    sleep_ms(25);
    set = (struct itimerspec){{0, 0}, {0, 0}};
    timerfd_settime(timer, 0, &set, &got);
    printf("stopped %ld\n", take(timer));
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    set.it_value = now;
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &set, NULL);
    ready("in the past", epoll, 1, 1000);
    uint64_t seven = 7;
    printf("ticks %d %ld\n", error(ioctl(timer, _IOW('T', 0, uint64_t), &seven)), take(timer));
    set.it_value.tv_nsec = 1000000000;
    printf("bad %d %d %d %d\n", error(timerfd_settime(timer, 0, &set, NULL)), error(timerfd_settime(timer, 8, &got, NULL)), error(timerfd_settime(epoll, 0, &got, NULL)), error(timerfd_gettime(999, &got)));
    printf("write %d short %d\n", error(write(timer, &seven, 8)), error(read(timer, &seven, 7)));
    int blocking = timerfd_create(CLOCK_REALTIME, 0);
    set = (struct itimerspec){{0, 0}, {0, 20000000}};
    timerfd_settime(blocking, 0, &set, NULL);
    printf("blocking %ld\n", take(blocking));
    clock_gettime(CLOCK_REALTIME, &now);
    set.it_value = now;
    set.it_value.tv_sec += 1000;
    printf("cancel on set %d\n", error(timerfd_settime(blocking, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &set, NULL)));
    timerfd_gettime(blocking, &got);
    printf("far away %d\n", got.it_value.tv_sec >= 998);
    close(timer), close(epoll), close(blocking);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    triggers();
    ends_of_pipes();
    one_in_another();
    refusals();
    threads();
    waits();
    timers();
    return 0;
}
