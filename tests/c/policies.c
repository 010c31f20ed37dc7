// Who runs first and how long, on one CPU: FIFO over RR over OTHER, turns among equals, shares by nice, and what is refused to whom.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, r < 0 ? strerrorname_np(errno) : ""); } while (0)

static struct { volatile int length; volatile char text[100]; volatile double cpu[2]; } *shared;
// Racers wait for their start, each at a pipe of its own.
static int starts[4][2], racers;

static void note(char c) { shared->text[shared->length++] = c; }

static double cpu_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void spin(double seconds) {
    for (double end = cpu_time() + seconds; cpu_time() < end;)
        ;
}

static int set(pid_t pid, int policy, int priority) {
    struct sched_param param = { .sched_priority = priority };
    return sched_setscheduler(pid, policy, &param);
}

// A child that notes NAME when it first runs, then its small letter when it has spun for a while.
static void racer(char name, int policy, int priority, double seconds, int yields) {
    int own = racers++;

    if (fork() != 0)
        return;
    char byte;
    set(0, policy, priority);
    if (read(starts[own][0], &byte, 1) != 1)
        _exit(1);
    note(name);
    for (int i = 0; i < yields; i++) {
        sched_yield();
        note(name);
    }
    spin(seconds);
    note((char)(name | 0x20));
    _exit(0);
}

static void release(void) {
    while (racers > 0)
        if (write(starts[--racers][1], "x", 1) != 1)
            _exit(1);
}

// Lets all racers wait for the start, starts them at once, the last one first, and shows in which order they came.
static void race(const char *what) {
    shared->length = 0;
    set(0, SCHED_FIFO, 90);
    usleep(30000);
    release();
    while (wait(NULL) > 0)
        ;
    set(0, SCHED_OTHER, 0);
    printf("%s: %.*s\n", what, shared->length, (const char *)shared->text);
}

static void orders(void) {
    racer('O', SCHED_OTHER, 0, 0.02, 0);
    racer('R', SCHED_RR, 10, 0.02, 0);
    racer('F', SCHED_FIFO, 20, 0.02, 0);
    race("FIFO 20, RR 10, OTHER");
    racer('R', SCHED_RR, 20, 0.02, 0);
    racer('F', SCHED_FIFO, 10, 0.02, 0);
    race("RR 20, FIFO 10");
    racer('B', SCHED_BATCH, 0, 0.01, 0);
    racer('F', SCHED_FIFO, 1, 0.05, 0);
    race("FIFO 1, BATCH");
    racer('A', SCHED_FIFO, 5, 0.03, 3);
    usleep(10000);
    racer('B', SCHED_FIFO, 5, 0.03, 3);
    race("two FIFO that yield");
    racer('A', SCHED_FIFO, 5, 0.13, 0);
    usleep(10000);
    racer('B', SCHED_FIFO, 5, 0.13, 0);
    race("two FIFO");
    racer('A', SCHED_RR, 5, 0.13, 0);
    usleep(10000);
    racer('B', SCHED_RR, 5, 0.13, 0);
    race("two RR");
}

// Whom a write wakes runs before the writer's next instruction if it is more urgent, and only then.
static void preemption(int priority) {
    shared->length = 0;
    racer('W', SCHED_FIFO, priority, 0, 0);
    usleep(10000);
    set(0, SCHED_FIFO, 50);
    release();
    int came = shared->length;
    set(0, SCHED_OTHER, 0);
    while (wait(NULL) > 0)
        ;
    printf("woken by FIFO 50 with FIFO %d: %s\n", priority, came ? "at once" : "later");
}

static void shares(int a, int b, double least, double most) {
    volatile double *cpu = shared->cpu;
    pid_t child[2];
    for (int i = 0; i < 2; i++)
        if ((child[i] = fork()) == 0) {
            setpriority(PRIO_PROCESS, 0, i ? b : a);
            for (;;)
                cpu[i] = cpu_time();
        }
    usleep(600000);
    set(0, SCHED_FIFO, 90);
    for (int i = 0; i < 2; i++)
        kill(child[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    set(0, SCHED_OTHER, 0);
    double ratio = cpu[0] / cpu[1];
    if (ratio > least && ratio < most)
        printf("nice %d and %d: as their weights\n", a, b);
    else
        printf("nice %d and %d: %.2f\n", a, b, ratio);
}

struct attr { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long times[3]; };

static long set_attr(unsigned policy, unsigned long flags, int nice, unsigned priority) {
    struct attr attr = { sizeof attr, policy, flags, nice, priority, { 0 } };
    return syscall(SYS_sched_setattr, 0, &attr, 0);
}

static void refusals(void) {
    SHOW(set(0, 77, 0));
    SHOW(set(0, SCHED_FIFO, 0));
    SHOW(set(0, SCHED_FIFO, 100));
    SHOW(set(0, SCHED_OTHER, 1));
    SHOW(set(-1, SCHED_OTHER, 0));
    SHOW(set(32000, SCHED_OTHER, 0));
    SHOW(set_attr(SCHED_RR, 0, 0, 3));
    SHOW(sched_getscheduler(0));
    SHOW(set_attr(SCHED_RR, 0, 0, 0));
    SHOW(set_attr(SCHED_OTHER, 0x1000, 0, 0));
    SHOW(set_attr(99, 0, 0, 0));
    SHOW(set_attr(SCHED_OTHER, 0, 5, 0));
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(syscall(SYS_sched_setattr, 0, NULL, 0));
    SHOW(sched_get_priority_max(SCHED_RR));
    SHOW(sched_get_priority_min(SCHED_OTHER));
    SHOW(sched_get_priority_max(42));
    if (setresuid(1000, 1000, 1000))
        return;
    SHOW(set(0, SCHED_FIFO, 1));
    SHOW(set(0, SCHED_BATCH, 0));
    SHOW(set(0, SCHED_IDLE, 0));
    SHOW(set(0, SCHED_OTHER, 0));
    SHOW(setpriority(PRIO_PROCESS, 0, 10));
    SHOW(setpriority(PRIO_PROCESS, 0, 9));
    SHOW(setpriority(PRIO_PROCESS, 0, 40));
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(set(getppid(), SCHED_OTHER, 0));
}

int main(void) {
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof one, &one);
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 4; i++)
        if (pipe(starts[i]))
            return 1;
    if (set(0, SCHED_FIFO, 90)) {
        printf("no right to be urgent\n");
        return 0;
    }
    set(0, SCHED_OTHER, 0);
    orders();
    preemption(60);
    preemption(40);
    shares(0, 0, 0.7, 1.4);
    shares(0, 5, 2, 4.5);
    if (fork() == 0) {
        refusals();
        _exit(0);
    }
    wait(NULL);
    return 0;
}
