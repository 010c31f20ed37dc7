/* Takes all there is of one thing after the other, in children: each ends, and the parent and a bystander go on. For a small machine; what
   is printed is the same on any, as a limit that answers with an error is as good an end as the signal of the out-of-memory killer. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MB (1UL << 20)

static char *take(unsigned long size, int prot) {
    return mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void nap(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void memory(void) {
    char *at = take(512 * MB, PROT_READ | PROT_WRITE);
    for (unsigned long n = 0; n < 512 * MB; n += PAGE)
        at[n] = 1;
}

/* The kernel writes into memory that is not there. */
static void reading(void) {
    char *at = take(512 * MB, PROT_READ | PROT_WRITE);
    int zero = open("/dev/zero", O_RDONLY);
    for (unsigned long n = 0; n < 512 * MB; n += MB)
        if (read(zero, at + n, MB) < 0)
            break;
}

/* Only page tables: one page in each 2 MiB is read. */
static void tables(void) {
    unsigned long size = 1UL << 45;
    volatile char *at = take(size, PROT_READ);
    for (unsigned long n = 0; n < size; n += 2 * MB)
        (void)at[n];
}

/* Shared memory, which belongs to nobody's private memory. */
static void shared(void) {
    int fd = memfd_create("hog", 0);
    if (ftruncate(fd, 512 * MB))
        return;
    char *at = mmap(NULL, 512 * MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (unsigned long n = 0; n < 512 * MB; n += PAGE)
        at[n] = 1;
}

/* A segment that is removed already, and segments and attachments without end. */
static void segment(void) {
    int id = shmget(IPC_PRIVATE, 48 * MB, 0600);
    char *at = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL);
    for (unsigned long round = 0; round < 4; round++) {
        id = shmget(IPC_PRIVATE, 48 * MB, 0600);
        char *other = shmat(id, NULL, 0);
        shmctl(id, IPC_RMID, NULL);
        for (unsigned long n = 0; n < 48 * MB; n += PAGE)
            at[n] = other[n] = 1;
    }
}

static void attachments(void) {
    for (int n = 0; n < 100000; n++) {
        int id = shmget(IPC_PRIVATE, PAGE, 0600);
        char *at = shmat(id, NULL, 0);
        shmctl(id, IPC_RMID, NULL);
        if (at == (char *)-1 || shmat(id, NULL, SHM_RDONLY) == (char *)-1)
            break;
        *at = 1;
    }
}

static void messages(void) {
    static char much[1 << 20];
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MSGQUEUE, &none);
    for (int n = 0; n < 1000; n++) {
        struct mq_attr large = {.mq_maxmsg = n ? 100 : 60000, .mq_msgsize = n ? sizeof much : 1};
        mqd_t queue = mq_open("/hog", O_CREAT | O_RDWR | O_NONBLOCK, 0600, &large);
        mq_unlink("/hog");
        if (queue < 0)
            break;
        while (mq_send(queue, much, n ? sizeof much : 1, n) == 0)
            ;
    }
}

/* What would outlive the hog: it is limited, and taken back. */
static void objects(void) {
    static int sets[4000], queues[4000];
    static struct { long type; char text[8192]; } message = {1, ""};
    struct sembuf back = {0, 1, SEM_UNDO};
    int made = 0;
    for (; made < 4000 && (sets[made] = semget(IPC_PRIVATE, 32000, 0600)) >= 0; made++)
        semop(sets[made], &back, 1);
    while (made-- > 0)
        semctl(sets[made], 0, IPC_RMID);
    for (made = 0; made < 4000 && (queues[made] = msgget(IPC_PRIVATE, 0600)) >= 0; made++)
        while (msgsnd(queues[made], &message, made % 2 ? 8192 : 1, IPC_NOWAIT) == 0)
            ;
    while (made-- > 0)
        msgctl(queues[made], IPC_RMID, NULL);
}

static void files(void) {
    char path[] = "/tmp/hog-XXXXXX";
    static char much[1 << 16];
    int fd = mkstemp(path);
    unlink(path);
    while (write(fd, much, sizeof much) > 0)
        ;
}

static void pipes(void) {
    static char much[1 << 16];
    int ends[2];
    while (pipe2(ends, O_NONBLOCK) == 0)
        while (write(ends[1], much, sizeof much) > 0)
            ;
}

/* Areas that cannot be joined. */
static void areas(void) {
    char *at = take(200000 * PAGE, PROT_READ);
    for (unsigned long n = 0; n < 200000; n += 2)
        if (mprotect(at + n * PAGE, PAGE, PROT_READ | PROT_WRITE))
            break;
}

static void *idle(void *nothing) {
    for (;;)
        pause();
    return nothing;
}

static void threads(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    pthread_t thread;
    while (pthread_create(&thread, &small, idle, NULL) == 0)
        ;
}

static void signals(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int n = 0; n < 2000000; n++)
        if (sigqueue(getpid(), SIGRTMIN + n % 30, (union sigval){0}))
            break;
}

static void opened(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    /* Each child has its own descriptors. */
    for (int n = 0; n < 40 && fork() == 0; n++)
        while (open("/dev/null", O_RDONLY) >= 0)
            ;
    nap(200);
}

static void locked(void) {
    for (unsigned long n = 0; n < 512; n++) {
        char *at = take(MB, PROT_READ | PROT_WRITE);
        if (at == MAP_FAILED || mlock(at, MB))
            break;
    }
}

static void names(void) {
    char path[64];
    int made = 0;
    for (; made < 20000; made++) {
        snprintf(path, sizeof path, "/tmp/hog-dir-%d", made);
        if (mkdir(path, 0700))
            break;
    }
    while (made-- > 0) {
        snprintf(path, sizeof path, "/tmp/hog-dir-%d", made);
        rmdir(path);
    }
}

/* Forks until it may not, each child forking too. */
static void bomb(void) {
    for (;;)
        if (fork() < 0)
            nap(100);
}

/* Many processes have the same full page tables, and each changes something in each of them: a page, then whatever else takes a table of
   one's own. */
static void forked(void) {
    const unsigned long size = 24 * MB;
    char *at = take(size, PROT_READ | PROT_WRITE);
    for (unsigned long n = 0; n < size; n += PAGE)
        at[n] = 1;
    while (fork() >= 0)
        for (unsigned long n = 0; n < size; n += 2 * MB) {
            at[n]++;
            mprotect(at + n + PAGE, PAGE, PROT_READ);
            madvise(at + n + 2 * PAGE, PAGE, MADV_DONTNEED);
            munmap(at + n + 3 * PAGE, PAGE);
        }
}

/* Among many processes of one size the hog and its children are to go, not the bystander. */
static void pay_first(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    if (write(fd, "1000", 4) != 4)
        _exit(1);
    close(fd);
}

/* Runs a hog and whatever it started to the end. How it ended is not told: by itself or by SIGKILL. */
static int over(void (*hog)(void), long patience) {
    fflush(stdout);
    pid_t leader = fork();
    if (leader == 0) {
        setpgid(0, 0);
        pay_first();
        hog();
        _exit(0);
    }
    setpgid(leader, leader);
    int status = -1;
    if (patience)
        nap(patience);
    else if (waitpid(leader, &status, 0) != leader)
        return 0;
    for (int round = 0; round < 200; round++) {
        if (kill(-leader, SIGKILL) < 0 && errno == ESRCH)
            break;
        while (waitpid(-leader, NULL, WNOHANG) > 0)
            ;
        nap(20);
    }
    return patience || WIFEXITED(status) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return x;
}

#define ROUND 4096

/* Computes in memory of its own until it is told to end; a wrong word is fatal. */
static void bystander(int from) {
    static uint64_t words[16 * PAGE / 8];
    const int count = sizeof words / 8;
    uint64_t rounds = 0;
    for (int n = 0; n < count; n++)
        words[n] = (uint64_t)n + 1;
    for (char byte; read(from, &byte, 1) != 1; rounds++)
        for (int n = 0; n < count; n++)
            words[n] = mix(words[n]);
    for (int n = 0; n < count; n++) {
        uint64_t right = (uint64_t)n + 1;
        for (uint64_t round = 0; round < rounds; round++)
            right = mix(right);
        if (words[n] != right)
            _exit(2);
        if (rounds > ROUND)
            n += 997;
    }
    _exit(rounds > 10 ? 0 : 3);
}

static long free_kib(void) {
    char text[2048];
    int fd = open("/proc/meminfo", O_RDONLY);
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got < 0 ? 0 : got] = 0;
    char *at = strstr(text, "MemFree:");
    return at ? atol(at + 8) : 0;
}

static const struct {
    const char *name;
    void (*hog)(void);
    long patience;
} HOGS[] = {
    {"memory", memory, 0}, {"memory", memory, 0}, {"reading", reading, 0}, {"page tables", tables, 0},
    {"shared", shared, 0}, {"files", files, 0}, {"pipes", pipes, 0}, {"areas", areas, 0}, {"threads", threads, 0},
    {"signals", signals, 0}, {"opened", opened, 0}, {"locked", locked, 0}, {"names", names, 0},
    {"segment", segment, 0}, {"attachments", attachments, 0}, {"messages", messages, 0}, {"objects", objects, 0},
    {"forked", forked, 1500}, {"fork bomb", bomb, 1500}, {"memory", memory, 0},
};

static int wanted(const char *name, int count, char **given) {
    for (int n = 1; n < count; n++)
        if (strcmp(given[n], name) == 0)
            return 1;
    return 0;
}

/* All hogs, or those that are named. */
int main(int count, char **given) {
    int ends[2], status;
    if (pipe2(ends, O_NONBLOCK))
        return 1;
    pid_t other = fork();
    if (other == 0)
        bystander(ends[0]);
    for (size_t n = 0; n < sizeof HOGS / sizeof *HOGS; n++) {
        if (count > 1 && !wanted(HOGS[n].name, count, given))
            continue;
        long before = free_kib();
        int ended = over(HOGS[n].hog, HOGS[n].patience);
        nap(20);
        long lost = before - free_kib();
        printf("%s: ended %d, memory is back %d\n", HOGS[n].name, ended, lost < 2048);
        if (lost >= 2048)
            fprintf(stderr, "%s: %ld KiB are missing\n", HOGS[n].name, lost);
    }
    if (write(ends[1], "q", 1) != 1)
        return 1;
    waitpid(other, &status, 0);
    printf("the bystander ended with %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    return 0;
}
