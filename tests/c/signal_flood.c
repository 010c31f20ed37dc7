// A million signals among 50 threads: queued ones to a thread and to the process, each taken once and those of one sender in order, and
// standard ones, of which many may become one, but the last is never lost. Half of the threads take them in handlers, half wait for
// them. ARG: how many. Prints facts that are the same on every Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 50 };
#define DIRECTED (SIGRTMIN + 1)
#define SHARED (SIGRTMIN + 2)

static pid_t process, tids[THREADS];
static long each;                                 // signals that each thread sends
static int next_from[THREADS][THREADS];           // by taker and sender: the number that comes next
static int sent_to[THREADS][THREADS];             // by sender and taker: how many were queued
static atomic_uchar *taken;                       // of each signal to the process: how often it was taken
static atomic_long sent_standard[THREADS];
static long seen_standard[THREADS], took_standard[THREADS], took_queued[THREADS], strange[THREADS];
static long sent_queued[THREADS], sent_shared[THREADS], sent_plain[THREADS];
static atomic_int sent_all;                       // threads that have sent all
static pthread_barrier_t barrier;
static __thread int me;

static int waits(int thread) { return thread & 1; }

static void take(const siginfo_t *info) {
    unsigned value = info->si_value.sival_int;
    if (info->si_signo == SIGUSR1) {
        took_standard[me]++;
        seen_standard[me] = sent_standard[me];
        // While the queue is full a standard signal comes without its siginfo.
        strange[me] += !(info->si_code == SI_TKILL && info->si_pid == process) && !(info->si_code == SI_USER && info->si_pid == 0);
        return;
    }
    strange[me] += info->si_code != SI_QUEUE || info->si_pid != process || info->si_uid != getuid();
    if (info->si_signo == SHARED) {
        taken[value]++;
        return;
    }
    unsigned sender = value >> 24, number = value & 0xffffff;
    if (sender >= THREADS || next_from[me][sender] != (int)number) strange[me]++;
    else next_from[me][sender]++;
    took_queued[me]++;
}

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    int kept = errno;
    take(info);
    errno = kept;
}

static void drain(const sigset_t *set) {
    const struct timespec now = { 0, 0 };
    siginfo_t info;
    // By hand: glibc's function makes an SI_USER of SI_TKILL.
    while (syscall(SYS_rt_sigtimedwait, set, &info, &now, 8) > 0) take(&info);
}

// Sends with a value; while the queue is full, makes room in its own.
static void queue(int thread, int signal, unsigned value, const sigset_t *set) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_QUEUE;
    info.si_pid = process;
    info.si_uid = getuid();
    info.si_value.sival_int = value;
    while (thread < 0 ? syscall(SYS_rt_sigqueueinfo, process, signal, &info)
                      : syscall(SYS_rt_tgsigqueueinfo, process, tids[thread], signal, &info)) {
        if (errno != EAGAIN) { strange[me]++; return; }
        if (waits(me)) drain(set);
        // Rather than ask again and again: others take theirs meanwhile.
        nanosleep(&(struct timespec){ 0, 1000000 }, 0);
    }
}

static void *life(void *arg) {
    me = (long)arg;
    tids[me] = gettid();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, DIRECTED); sigaddset(&set, SHARED); sigaddset(&set, SIGUSR1);
    pthread_sigmask(waits(me) ? SIG_BLOCK : SIG_UNBLOCK, &set, 0);
    pthread_barrier_wait(&barrier);
    unsigned dice = me * 2654435761u + 1;
    for (long i = 0; i < each; i++) {
        dice = dice * 1664525 + 1013904223;
        int to = (dice >> 16) % THREADS;
        switch ((dice >> 8) % 10) {
        case 0: case 1:
            queue(-1, SHARED, me * each + sent_shared[me]++, &set);
            break;
        case 2:
            sent_standard[to]++;
            sent_plain[me]++;
            if (syscall(SYS_tgkill, process, tids[to], SIGUSR1)) strange[me]++;
            break;
        default:
            queue(to, DIRECTED, (unsigned)me << 24 | sent_to[me][to]++, &set);
            sent_queued[me]++;
        }
        if (waits(me) && i % 16 == 0) drain(&set);
    }
    // Others may still have to send, and need room.
    const struct timespec short_time = { 0, 1000000 };
    for (sent_all++; sent_all < THREADS;) {
        if (waits(me)) drain(&set);
        nanosleep(&short_time, 0);
    }
    // All that was sent is pending now, and taken on the way out of a call or here.
    if (waits(me)) drain(&set);
    pthread_barrier_wait(&barrier);
    sigset_t left;
    sigpending(&left);
    for (int signal = 1; signal <= SIGRTMAX; signal++) strange[me] += sigismember(&left, signal) == 1;
    return 0;
}

int main(int argc, char **argv) {
    each = (argc > 1 ? atol(argv[1]) : 1000000) / THREADS;
    process = getpid();
    // The queue is often full, and others of the same user have room all the same.
    struct rlimit limit = { 10000, 10000 };
    setrlimit(RLIMIT_SIGPENDING, &limit);
    taken = calloc(each, THREADS);
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART };
    sigfillset(&action.sa_mask);
    sigset_t set;
    sigemptyset(&set);
    int signals[] = { DIRECTED, SHARED, SIGUSR1 };
    for (int i = 0; i < 3; i++) { sigaction(signals[i], &action, 0); sigaddset(&set, signals[i]); }
    // This thread takes none.
    pthread_sigmask(SIG_BLOCK, &set, 0);
    pthread_barrier_init(&barrier, 0, THREADS);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) if (pthread_create(&threads[i], 0, life, (void *)i)) abort();
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);

    long queued = 0, took = 0, shared = 0, once = 0, others = 0, plain = 0, seen_last = 0, odd = 0, pairs = 0;
    for (int i = 0; i < THREADS; i++) {
        queued += sent_queued[i]; took += took_queued[i]; shared += sent_shared[i]; plain += sent_plain[i]; odd += strange[i];
        seen_last += seen_standard[i] == sent_standard[i] && took_standard[i] > 0 && took_standard[i] <= sent_standard[i];
        for (int from = 0; from < THREADS; from++) pairs += next_from[i][from] == sent_to[from][i];
        for (long n = 0; n < each; n++) {
            int times = taken[i * each + n];
            if (n < sent_shared[i]) once += times == 1; else others += times;
        }
    }
    printf("queued to threads: %ld, taken: %ld, pairs with all and in order: %ld\n", queued, took, pairs);
    printf("queued to the process: %ld, taken once: %ld, others: %ld\n", shared, once, others);
    printf("standard: %ld, threads that saw the last: %ld\n", plain, seen_last);
    printf("all: %ld, strange: %ld\n", queued + shared + plain, odd);
    return odd || took != queued || once != shared || others || seen_last != THREADS || pairs != THREADS * THREADS;
}
