/* What /proc says of memory that was made and touched in known ways. Only changes are printed, and what they do not leave open. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL

extern char __executable_start, end;

static char text[1 << 20];

static const char *contents(const char *path) {
    int fd = open(path, O_RDONLY);
    size_t len = 0;
    ssize_t got;
    while ((got = read(fd, text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)got;
    text[len] = 0;
    close(fd);
    return text;
}

/* A figure in kB of a text, from `at` on; -1 if it is not there. */
static long figure(const char *at, const char *name) {
    char key[64];
    snprintf(key, sizeof key, "\n%s:", name);
    at = strstr(at, key);
    return at ? atol(at + strlen(key)) : -1;
}

static const char *const AREA[] = {"Size",         "Rss",           "Pss",           "Pss_Dirty",  "Shared_Clean",
                                   "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous",
                                   "Swap",         "Locked"};

static void area(const char *what, void *start) {
    char key[32];
    snprintf(key, sizeof key, "%08lx-", (unsigned long)start);
    const char *at = strstr(contents("/proc/self/smaps"), key);
    if (!at) {
        printf("%s: no area\n", what);
        return;
    }
    char *last = strstr(at, "VmFlags");
    char flags[128] = "";
    snprintf(flags, sizeof flags, "%.*s", (int)strcspn(last, "\n"), last);
    *last = 0;
    printf("%s:", what);
    for (size_t n = 0; n < sizeof AREA / sizeof *AREA; n++)
        printf(" %s %ld", AREA[n], figure(at, AREA[n]));
    /* Soft-dirty tracking is a matter of configuration. */
    char *sd = strstr(flags, "sd ");
    if (sd)
        memmove(sd, sd + 3, strlen(sd + 3) + 1);
    printf(" %s\n", flags);
}

/* Without VmHWM, which Linux knows roughly only. */
static const char *const STATUS[] = {"VmPeak",  "VmSize",   "VmLck",  "VmPin", "VmRSS", "RssAnon",
                                     "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmLib", "VmSwap"};
#define FIGURES (sizeof STATUS / sizeof *STATUS)
static long before[FIGURES];

static void remember(void) {
    contents("/proc/self/status");
    for (size_t n = 0; n < FIGURES; n++)
        before[n] = figure(text, STATUS[n]);
}

/* What has changed since remember. */
static void changes(const char *what) {
    contents("/proc/self/status");
    printf("%s:", what);
    for (size_t n = 0; n < FIGURES; n++) {
        long change = figure(text, STATUS[n]) - before[n];
        if (change)
            printf(" %s %+ld", STATUS[n], change);
    }
    printf("\n");
}

static int pagemap;

/* The bits of some pages that do not depend on where they are: present, file, exclusive. */
static void bits(const char *what, char *start, int count) {
    uint64_t entries[16];
    ssize_t got = pread(pagemap, entries, (size_t)count * 8, (off_t)((unsigned long)start / PAGE * 8));
    printf("%s: %zd", what, got);
    for (int n = 0; n < count; n++)
        printf(" %d%d%d%d", (int)(entries[n] >> 63), (int)(entries[n] >> 61 & 1), (int)(entries[n] >> 56 & 1),
               (entries[n] & ((1UL << 55) - 1)) != 0);
    printf("\n");
}

static long faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

/* One more may be the machine's, which took a page of the program away meanwhile. */
static void counted(const char *what, long exactly, long seen) {
    printf("faults for %s: %d\n", what, seen >= exactly && seen <= exactly + 1);
}

static char *map(size_t pages, int prot, int flags, int fd) {
    char *at = mmap(NULL, pages * PAGE, prot, flags, fd, 0);
    if (at == MAP_FAILED)
        exit(1);
    return at;
}

static void touch(char *at, size_t pages, int write) {
    for (size_t n = 0; n < pages; n++)
        if (write)
            ((volatile char *)at)[n * PAGE] = 1;
        else
            (void)((volatile char *)at)[n * PAGE];
}

/* A sum of what was printed, for figures that have to add up. */
static void totals(void) {
    long rss = 0, size = 0;
    contents("/proc/self/smaps");
    for (const char *at = text; (at = strstr(at, "\nSize:")); at++)
        size += figure(at, "Size");
    for (const char *at = text; (at = strstr(at, "\nRss:")); at++)
        rss += figure(at, "Rss");
    contents("/proc/self/status");
    long gap = figure(text, "VmSize") - size;
    /* Linux's own pages: [vvar], [vdso] and [vsyscall]. */
    printf("sizes add up: %d, resident pages: %d\n", gap >= -64 && gap <= 64,
           labs(figure(text, "VmRSS") - rss) <= 64);
    long parts = figure(text, "RssAnon") + figure(text, "RssFile") + figure(text, "RssShmem");
    printf("parts add up: %d\n", parts == figure(text, "VmRSS"));
    long all, resident, shared, code, library, data, dirty;
    sscanf(contents("/proc/self/statm"), "%ld %ld %ld %ld %ld %ld %ld", &all, &resident, &shared, &code, &library, &data,
           &dirty);
    contents("/proc/self/status");
    printf("statm agrees: %d %d %d %d %ld %d %ld\n", all * 4 == figure(text, "VmSize"),
           labs(resident * 4 - figure(text, "VmRSS")) < 256,
           labs(shared * 4 - figure(text, "RssFile") - figure(text, "RssShmem")) < 256,
           code * 4 == figure(text, "VmExe"), library, data * 4 == figure(text, "VmData") + figure(text, "VmStk"), dirty);
    int fields = 0;
    contents("/proc/self/stat");
    for (char *word = strtok(strrchr(text, ')') + 2, " \n"); word; word = strtok(NULL, " \n"))
        fields++;
    printf("fields of stat: %d\n", fields + 2);
}

static void signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGHUP, exit);
    raise(SIGUSR1);
    kill(getpid(), SIGRTMIN + 1);
    contents("/proc/self/status");
    for (const char *name = "SigPnd\0ShdPnd\0SigBlk\0SigIgn\0SigCgt\0Threads\0"; *name; name += strlen(name) + 1) {
        char key[32];
        snprintf(key, sizeof key, "\n%s:", name);
        const char *at = strstr(text, key) + 1;
        printf("%.*s\n", (int)strcspn(at, "\n"), at);
    }
}

static void adjustment(void) {
    int fd = open("/proc/self/oom_score_adj", O_RDWR);
    static const char *const TRIES[] = {"500", "1001", "-1001", "x", "7\n", "0"};
    for (size_t n = 0; n < sizeof TRIES / sizeof *TRIES; n++) {
        ssize_t put = write(fd, TRIES[n], strlen(TRIES[n]));
        printf("oom_score_adj %.1s...: %zd, is %d\n", TRIES[n], put, atoi(contents("/proc/self/oom_score_adj")));
    }
    close(fd);
}

int main(void) {
    setvbuf(stdout, malloc(1 << 16), _IOFBF, 1 << 16);
    pagemap = open("/proc/self/pagemap", O_RDONLY);
    /* Everything that the program itself needs is touched once. */
    contents("/proc/self/smaps");
    memset(text, 1, sizeof text);
    touch(&__executable_start, (size_t)(&end - &__executable_start) / PAGE, 0);
    remember();
    changes("nothing");

    remember();
    char *anon = map(16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    changes("mmap of 16 pages");
    remember();
    long count = faults();
    touch(anon, 5, 0);
    counted("reading 5", 5, faults() - count);
    count = faults();
    touch(anon + 4 * PAGE, 6, 1);
    counted("writing 6", 6, faults() - count);
    changes("after that");
    area("anonymous", anon);
    bits("anonymous", anon, 12);
    mlock(anon + 4 * PAGE, 2 * PAGE);
    changes("mlock of 2");
    area("locked", anon + 4 * PAGE);
    munlock(anon + 4 * PAGE, 2 * PAGE);

    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    area("shared by fork", anon);
    bits("shared by fork", anon, 12);
    count = faults();
    touch(anon + 5 * PAGE, 2, 1);
    counted("2 copies", 2, faults() - count);
    area("2 of them copied", anon);
    bits("2 of them copied", anon, 12);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    area("the child is gone", anon);

    char *full = map(1200, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    madvise(full, 1200 * PAGE, MADV_NOHUGEPAGE);
    touch(full, 100, 0);
    touch(full + 100 * PAGE, 1100, 1);
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    area("whole page tables after fork", full);
    bits("whole page tables after fork", full + 95 * PAGE, 12);
    remember();
    touch(full + 600 * PAGE, 2, 1);
    changes("2 copies");
    area("2 of so many copied", full);
    madvise(full + 590 * PAGE, 20 * PAGE, MADV_DONTNEED);
    area("20 of so many dropped", full);
    mprotect(full + 300 * PAGE, 400 * PAGE, PROT_READ);
    area("400 protected", full + 300 * PAGE);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    area("that child is gone", full + 300 * PAGE);
    bits("that child is gone", full + 586 * PAGE, 8);
    munmap(full, 1200 * PAGE);
    changes("so many unmapped");

    remember();
    int fd = memfd_create("figures", 0);
    if (ftruncate(fd, 16 * PAGE))
        return 1;
    char *shared = map(16, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    char *private = map(16, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    changes("two mappings of shared memory");
    for (int n = 0; n < 8; n++)
        if (pwrite(fd, "x", 1, n * (off_t)PAGE) != 1)
            return 1;
    remember();
    madvise(shared, 16 * PAGE, MADV_RANDOM);
    madvise(private, 16 * PAGE, MADV_RANDOM);
    touch(shared + 8 * PAGE, 4, 1);
    changes("4 pages of it written");
    touch(private + 8 * PAGE, 4, 1);
    changes("4 copies made");
    area("shared", shared);
    area("private", private);
    bits("shared", shared + 6 * PAGE, 8);
    bits("private", private + 6 * PAGE, 8);
    munmap(private, 16 * PAGE);
    munmap(shared, 16 * PAGE);
    changes("unmapped");

    remember();
    munmap(anon, 16 * PAGE);
    changes("all unmapped");
    remember();
    char *stretch = map(64, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    changes("64 pages to read");
    mprotect(stretch, 32 * PAGE, PROT_READ | PROT_WRITE);
    changes("half of them to write");
    munmap(stretch, 64 * PAGE);
    changes("and away");
    uint64_t odd;
    printf("odd reads of pagemap: %zd %zd\n", pread(pagemap, &odd, 4, 0), pread(pagemap, &odd, 8, 4));
    printf("its end: %zd %zd\n", pread(pagemap, &odd, 8, (off_t)(0x7ffffffff000 / PAGE * 8)),
           pread(pagemap, &odd, 8, (off_t)(0x7fffffffe000 / PAGE * 8)));

    totals();
    struct rusage usage;
    char *much = map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    madvise(much, 4096 * PAGE, MADV_NOHUGEPAGE);
    remember();
    touch(much, 4096, 1);
    munmap(much, 4096 * PAGE);
    getrusage(RUSAGE_SELF, &usage);
    contents("/proc/self/status");
    printf("the peak is known: %d", figure(text, "VmHWM") - before[4] >= 15 << 10);
    /* What was there before execve counts too, and may have been more. */
    printf(" %d", usage.ru_maxrss >= figure(text, "VmHWM") && figure(text, "VmHWM") >= 15 << 10);
    getrusage(RUSAGE_CHILDREN, &usage);
    printf(", the child's: %d\n", usage.ru_maxrss > 0 && usage.ru_maxrss < 16 << 10);
    struct rusage here, there;
    getrusage(RUSAGE_SELF, &here);
    /* Long enough to be slept on a machine with more to do. */
    for (int n = 0; n < 10; n++)
        usleep(20000);
    getrusage(RUSAGE_SELF, &there);
    printf("sleeps are counted: %d\n", there.ru_nvcsw - here.ru_nvcsw >= 8);
    signals();
    adjustment();
    return 0;
}
