// POSIX timers, interval timers and the limit of CPU time: every line is the same on each correct kernel.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int handled;
static volatile pid_t handled_by;
static siginfo_t last;

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    handled++;
    handled_by = gettid();
    last = *info;
}

static int error(long result) { return result < 0 ? errno : 0; }
// The calls as they are: the C library has its own ideas of timers.
static int create(clockid_t clock, struct sigevent *event, int *id) { return error(syscall(SYS_timer_create, clock, event, id)); }
static int delete(int id) { return error(syscall(SYS_timer_delete, id)); }
static int overrun(int id) { return syscall(SYS_timer_getoverrun, id); }
static int get(int id, struct itimerspec *to) { return error(syscall(SYS_timer_gettime, id, to)); }

static int set(int id, long value_ms, long interval_ms) {
    struct itimerspec spec = {{interval_ms / 1000, interval_ms % 1000 * 1000000}, {value_ms / 1000, value_ms % 1000 * 1000000}};
    return error(syscall(SYS_timer_settime, id, 0, &spec, NULL));
}

static void sleep_ms(int ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&time, &time)) {}
}

static void block(int how, int signal) {
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, signal);
    sigprocmask(how, &set, NULL);
}

static int pending(int signal) {
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, signal);
}

// What the handler saw since the last call; the timer's number does not matter.
static void told(const char *when) {
    printf("%s: %d signal %d code %d overrun %d value %llx\n", when, handled, last.si_signo, last.si_code, last.si_overrun, (unsigned long long)(uintptr_t)last.si_value.sival_ptr);
    handled = 0;
    memset(&last, 0, sizeof last);
}

static struct sigevent by(int signal, uintptr_t value) {
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = (void *)value;
    return event;
}

static void creating(void) {
    int id, first = -1;
    for (int clock = 0; clock < 13; clock++) {
        // The alarm clocks depend on the machine's hardware.
        if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM) continue;
        int made = create(clock, NULL, &id);
        printf("clock %d: %d\n", clock, made);
        if (made == 0) {
            if (first < 0) first = id;
            delete(id);
        }
    }
    clockid_t cpu;
    pthread_getcpuclockid(pthread_self(), &cpu);
    printf("own thread's clock: %d", create(cpu, NULL, &id));
    printf(" delete %d again %d\n", delete(id), delete(id));
    for (int notify = 0; notify < 8; notify++) {
        struct sigevent event = by(SIGUSR1, 0);
        event.sigev_notify = notify;
        event._sigev_un._tid = gettid();
        int made = create(CLOCK_MONOTONIC, &event, &id);
        printf("notify %d: %d\n", notify, made);
        if (made == 0) delete(id);
    }
    int signals[] = {-1, 0, 1, 31, 32, 64, 65};
    for (int n = 0; n < 7; n++) {
        struct sigevent event = by(signals[n], 0);
        int made = create(CLOCK_MONOTONIC, &event, &id);
        printf("signal %d: %d\n", signals[n], made);
        if (made == 0) delete(id);
    }
    struct sigevent event = by(SIGUSR1, 0);
    event.sigev_notify = SIGEV_THREAD_ID;
    event._sigev_un._tid = 1;
    printf("another's thread: %d\n", create(CLOCK_MONOTONIC, &event, &id));
    printf("bad memory: %d %d\n", create(CLOCK_MONOTONIC, (void *)8, &id), create(CLOCK_MONOTONIC, NULL, (void *)8));
    create(CLOCK_MONOTONIC, NULL, &id);
    int next;
    create(CLOCK_MONOTONIC, NULL, &next);
    printf("numbers go up: %d %d\n", first >= 0, next == id + 1);
    delete(id), delete(next);
}

static void ringing(void) {
    int id;
    struct itimerspec spec;
    create(CLOCK_MONOTONIC, NULL, &id);
    printf("set %d\n", set(id, 20, 0));
    get(id, &spec);
    printf("runs %d\n", spec.it_value.tv_nsec > 0 && spec.it_value.tv_nsec <= 20000000);
    sleep_ms(40);
    printf("value is its number: %d %d\n", last.si_value.sival_int == id, last.si_timerid == id);
    last.si_value.sival_ptr = NULL;
    told("by default");
    get(id, &spec);
    printf("then shows %ld %ld\n", (long)spec.it_value.tv_nsec, (long)spec.it_interval.tv_nsec);
    set(id, 10, 10);
    while (handled < 5) sleep_ms(1);
    set(id, 0, 0);
    int stopped_at = handled;
    sleep_ms(30);
    printf("periodic, then quiet: %d\n", handled == stopped_at);
    handled = 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct itimerspec past = {{0, 0}, now}, bad[] = {{{0, 0}, {-1, 0}}, {{0, 0}, {0, 1000000000}}, {{0, 1000000000}, {0, 0}}, {{0, -1}, {0, 0}}};
    syscall(SYS_timer_settime, id, TIMER_ABSTIME, &past, NULL);
    sleep_ms(5);
    printf("a point in the past rings: %d\n", handled);
    handled = 0;
    for (int n = 0; n < 4; n++) printf("bad %d: %d\n", n, error(syscall(SYS_timer_settime, id, 0, &bad[n], NULL)));
    struct itimerspec only_interval = {{0, 5}, {0, 0}};
    printf("only an interval: %d", error(syscall(SYS_timer_settime, id, 0, &only_interval, NULL)));
    get(id, &spec);
    printf(" shows %ld\n", (long)spec.it_interval.tv_nsec);
    printf("no such: %d %d %d %d\n", set(9999, 1, 0), get(-1, &spec), error(overrun(9999)), delete(9999));
    printf("no value: %d %d\n", error(syscall(SYS_timer_settime, id, 0, NULL, NULL)), get(id, NULL));
    set(id, 100000, 7);
    struct itimerspec old;
    syscall(SYS_timer_settime, id, 0, &only_interval, &old);
    printf("old: %d %ld\n", old.it_value.tv_sec >= 98 && old.it_value.tv_sec < 100, (long)old.it_interval.tv_nsec);
    delete(id);
    struct sigevent nobody = by(-5, 0);
    nobody.sigev_notify = SIGEV_NONE;
    printf("for nobody: %d\n", create(CLOCK_REALTIME, &nobody, &id));
    set(id, 10, 10);
    sleep_ms(35);
    get(id, &spec);
    printf("runs on: %d overrun %d\n", spec.it_value.tv_nsec > 0 && spec.it_value.tv_nsec <= 10000000, overrun(id));
    set(id, 10, 0);
    sleep_ms(20);
    get(id, &spec);
    printf("is over: %ld\n", (long)spec.it_value.tv_nsec);
    delete(id);
}

static void overruns(void) {
    int id, other;
    struct itimerspec spec;
    struct sigevent event = by(SIGUSR1, 0x1234567890);
    create(CLOCK_MONOTONIC, &event, &id);
    block(SIG_BLOCK, SIGUSR1);
    set(id, 10, 10);
    sleep_ms(105);
    printf("pending %d overrun so far %d\n", pending(SIGUSR1), overrun(id));
    get(id, &spec);
    printf("shows the next ring: %d\n", spec.it_value.tv_nsec > 0 && spec.it_value.tv_nsec <= 10000000);
    block(SIG_UNBLOCK, SIGUSR1);
    block(SIG_BLOCK, SIGUSR1);
    printf("about nine: %d the same: %d\n", last.si_overrun >= 9 && last.si_overrun < 20, last.si_overrun == overrun(id));
    last.si_overrun = 0;
    told("with overruns");
    sleep_ms(25);
    set(id, 0, 0);
    printf("stopped: pending %d overrun %d\n", pending(SIGUSR1), overrun(id));
    block(SIG_UNBLOCK, SIGUSR1);
    told("stopped while pending");
    block(SIG_BLOCK, SIGUSR1);
    set(id, 5, 0);
    sleep_ms(15);
    printf("delete %d pending %d\n", delete(id), pending(SIGUSR1));
    block(SIG_UNBLOCK, SIGUSR1);
    told("deleted while pending");
    create(CLOCK_MONOTONIC, &event, &id);
    event = by(SIGUSR1, 7);
    create(CLOCK_MONOTONIC, &event, &other);
    block(SIG_BLOCK, SIGUSR1);
    set(id, 1, 0);
    sleep_ms(5);
    set(other, 1, 0);
    sleep_ms(5);
    kill(getpid(), SIGUSR1);
    block(SIG_UNBLOCK, SIGUSR1);
    told("two timers, and a kill that adds nothing");
    block(SIG_BLOCK, SIGUSR1);
    kill(getpid(), SIGUSR1);
    set(id, 1, 0);
    sleep_ms(5);
    block(SIG_UNBLOCK, SIGUSR1);
    told("a kill, and a timer that adds one");
    signal(SIGUSR1, SIG_IGN);
    set(id, 10, 10);
    sleep_ms(55);
    printf("ignored: pending %d overrun %d\n", pending(SIGUSR1), overrun(id));
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    printf("not ignored any more: %d with overruns: %d\n", handled, last.si_overrun >= 3);
    while (handled < 3) sleep_ms(1);
    printf("and goes on\n");
    set(id, 0, 0);
    delete(id), delete(other);
    handled = 0;
    sigset_t wanted;
    sigemptyset(&wanted), sigaddset(&wanted, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &wanted, NULL);
    event = by(SIGRTMIN + 3, 42);
    create(CLOCK_REALTIME, &event, &id);
    set(id, 5, 0);
    siginfo_t info;
    printf("sigwaitinfo %d", sigwaitinfo(&wanted, &info) == SIGRTMIN + 3);
    printf(" code %d value %d overrun %d\n", info.si_code, info.si_value.sival_int, info.si_overrun);
    delete(id);
}

static void *thread(void *ready) {
    *(volatile pid_t *)ready = gettid();
    while (handled < 3) sleep_ms(1);
    return NULL;
}

static void threads_and_processes(void) {
    volatile pid_t tid = 0;
    pthread_t other;
    pthread_create(&other, NULL, thread, (void *)&tid);
    while (tid == 0) sleep_ms(1);
    struct sigevent event = by(SIGUSR2, 5);
    event.sigev_notify = SIGEV_THREAD_ID;
    event._sigev_un._tid = tid;
    int id;
    printf("for a thread: %d", create(CLOCK_MONOTONIC, &event, &id));
    set(id, 5, 5);
    pthread_join(other, NULL);
    printf(" by that one: %d\n", handled_by == tid);
    set(id, 0, 0);
    handled = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct itimerspec spec;
        struct itimerval interval;
        getitimer(ITIMER_REAL, &interval);
        int number;
        int made = create(CLOCK_MONOTONIC, NULL, &number);
        printf("a child has none: %d first is %d\n", get(id, &spec), made == 0 && number == 0);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    delete(id);
    struct rlimit before, limit;
    getrlimit(RLIMIT_SIGPENDING, &before);
    limit = before;
    limit.rlim_cur = 2;
    setrlimit(RLIMIT_SIGPENDING, &limit);
    int made[4], ids[4];
    for (int n = 0; n < 4; n++) made[n] = create(CLOCK_MONOTONIC, NULL, &ids[n]);
    printf("limited by RLIMIT_SIGPENDING: %d\n", made[3]);
    for (int n = 0; n < 4; n++) if (made[n] == 0) delete(ids[n]);
    setrlimit(RLIMIT_SIGPENDING, &before);
}

static void spin(int (*until)(void)) {
    while (!until()) for (volatile int n = 0; n < 1000; n++) {}
}

static int twice(void) { return handled >= 2; }

static void cpu_time(void) {
    int kinds[] = {ITIMER_VIRTUAL, ITIMER_PROF};
    struct itimerval value = {{0, 20000}, {0, 20000}}, none = {{0, 0}, {0, 0}}, old;
    for (int n = 0; n < 2; n++) {
        printf("set %d", error(setitimer(kinds[n], &value, NULL)));
        sleep_ms(50);
        printf(" asleep it does not ring: %d", handled);
        spin(twice);
        setitimer(kinds[n], &none, &old);
        printf(" signal %d code %d every %ld\n", last.si_signo, last.si_code, (long)old.it_interval.tv_usec);
        handled = 0;
    }
    getitimer(ITIMER_PROF, &old);
    printf("stopped %ld %ld\n", (long)old.it_value.tv_usec, (long)old.it_interval.tv_usec);
    struct itimerval bad = {{0, 0}, {0, 1000000}};
    printf("bad %d %d %d\n", error(setitimer(ITIMER_REAL, &bad, NULL)), error(setitimer(3, &value, NULL)), error(getitimer(3, &old)));
    printf("alarm %d", alarm(100));
    printf(" %d", alarm(0));
    printf(" %d\n", alarm(0));
    clockid_t clocks[] = {CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    for (int n = 0; n < 2; n++) {
        int id;
        struct sigevent event = by(SIGUSR1, 9);
        printf("create %d", create(clocks[n], &event, &id));
        printf(" set %d", set(id, 20, 20));
        sleep_ms(50);
        printf(" asleep it does not ring: %d", handled);
        spin(twice);
        struct itimerspec spec;
        get(id, &spec);
        printf(" every %ld\n", (long)spec.it_interval.tv_nsec);
        delete(id);
        last.si_overrun = 0;
        handled = 2;
        told("by CPU time");
    }
}

static int never(void) { return 0; }

static void limit_of_cpu_time(void) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {1, 2};
        setrlimit(RLIMIT_CPU, &limit);
        handled = 0;
        while (handled == 0) spin(twice);
        spin(never);
    }
    int status;
    waitpid(child, &status, 0);
    printf("killed by %d\n", WTERMSIG(status));
}

static void exceeded(int signal) {
    (void)signal;
    struct rlimit limit;
    getrlimit(RLIMIT_CPU, &limit);
    printf("SIGXCPU, the soft limit moved on: %d\n", limit.rlim_cur == 2);
    fflush(stdout);
    handled = 2;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    int signals[] = {SIGALRM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF};
    for (int n = 0; n < 5; n++) sigaction(signals[n], &action, NULL);
    creating();
    ringing();
    overruns();
    threads_and_processes();
    cpu_time();
    signal(SIGXCPU, exceeded);
    limit_of_cpu_time();
    return 0;
}
