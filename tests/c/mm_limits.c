// Limits and edges of memory calls: prints what each answers, the same on every correct kernel.

#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define ARENA 0x300000000000ul

static char *const arena = (char *)ARENA;

static const char *name(void) { return strerrorname_np(errno); }

static void say(const char *what, long result) {
    if (result == -1)
        printf("%s: %s\n", what, name());
    else
        printf("%s: %ld\n", what, result);
}

static void *fixed(uintptr_t at, size_t pages, int prot, int flags) {
    return mmap((void *)at, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0);
}

static void say_map(const char *what, void *result) {
    printf("%s: %s\n", what, result == MAP_FAILED ? name() : "mapped");
}

static sigjmp_buf back;
static volatile int seen_signal, seen_code;
static volatile uintptr_t seen_address;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen_signal = signal;
    seen_code = info->si_code;
    seen_address = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

// Writes a byte; 0, or the signal.
static int touch(volatile char *at) {
    seen_signal = 0;
    if (sigsetjmp(back, 1) == 0)
        *at = 1;
    return seen_signal;
}

static void say_touch(const char *what, char *at) {
    int signal = touch(at);
    printf("%s: signal %d code %d there %d\n", what, signal, signal ? seen_code : 0,
           signal ? seen_address == (uintptr_t)at : 0);
}

// Runs `body` in a child, whose limits are its own.
static void in_child(void (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (status)
        printf("status %#x\n", status);
}

static void limit(int which, rlim_t soft) {
    struct rlimit now;
    getrlimit(which, &now);
    now.rlim_cur = soft;
    if (setrlimit(which, &now))
        printf("setrlimit: %s\n", name());
}

static unsigned long total_bytes(void) {
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm || fscanf(statm, "%lu", &pages) != 1)
        printf("statm: %s\n", name());
    fclose(statm);
    return pages * PAGE;
}

static void address_space(void) {
    say_map("before the limit", fixed(ARENA, 64, PROT_READ, 0));
    limit(RLIMIT_AS, total_bytes() + 16 * PAGE);
    say_map("16 pages more", fixed(ARENA + 64 * PAGE, 16, PROT_READ, 0));
    say_map("one page more", fixed(ARENA + 80 * PAGE, 1, PROT_READ, 0));
    say_map("in place of others", fixed(ARENA, 64, PROT_READ, 0));
    say_map("shared", mmap(0, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    void *moved = mremap(arena, 64 * PAGE, 65 * PAGE, MREMAP_MAYMOVE);
    say_map("longer", moved);
    moved = mremap(arena, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + 200 * PAGE);
    say_map("elsewhere", moved);
    moved = mremap(arena + 200 * PAGE, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    say_map("both", moved);
    say("brk", (long)sbrk(1 << 20) == -1 ? -1 : 0);
    munmap(arena + 64 * PAGE, 16 * PAGE);
    // The program's own stack counts as well as this one.
    limit(RLIMIT_AS, total_bytes() + 4 * PAGE);
    fixed(ARENA, 2, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
    say_touch("a stack within the limit", arena - 2 * PAGE);
    say_touch("and over it", arena - 9 * PAGE);
}

static void data(void) {
    limit(RLIMIT_DATA, 1 << 30);
    say_map("half of it", fixed(ARENA, 1 << 17, PROT_READ | PROT_WRITE, MAP_NORESERVE));
    say_map("too much", fixed(ARENA + (1ul << 40), (1 << 17) + 1, PROT_READ | PROT_WRITE, MAP_NORESERVE));
    say_map("read-only", fixed(ARENA + (2ul << 40), 1 << 20, PROT_READ, 0));
    say("made writable", mprotect(arena + (2ul << 40), (1ul << 32), PROT_READ | PROT_WRITE));
    say_map("shared", mmap(0, 1ul << 32, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    say_map("longer", mremap(arena, 1ul << 29, (1ul << 30) + PAGE, MREMAP_MAYMOVE));
    say("brk", (long)sbrk(1 << 30) == -1 ? -1 : 0);
    limit(RLIMIT_DATA, 0);
    say_map("a limit of 0 is none", fixed(ARENA + (1ul << 40), 1, PROT_READ | PROT_WRITE, 0));
    say("but for brk", (long)sbrk(1 << 20) == -1 ? -1 : 0);
}

static void stack(void) {
    limit(RLIMIT_STACK, 64 * PAGE);
    fixed(ARENA, 4, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
    say_touch("as large as it may be", arena + 4 * PAGE - 64 * PAGE);
    say_touch("a page more", arena + 4 * PAGE - 65 * PAGE);
    limit(RLIMIT_STACK, 65 * PAGE);
    say_touch("with a larger limit", arena + 4 * PAGE - 65 * PAGE);
}

// fault-path.md, row 13.
static void guard_gap(void) {
    fixed(ARENA - 300 * PAGE, 1, PROT_READ, 0);
    fixed(ARENA, 1, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
    // 255 pages would be left, and 256.
    say_touch("one page too near", arena - (299 - 255) * PAGE);
    say_touch("near enough", arena - (299 - 256) * PAGE);
    mprotect(arena - 300 * PAGE, PAGE, PROT_NONE);
    say_touch("nobody can reach what is below", arena - 100 * PAGE);
    say_touch("down to it", arena - 299 * PAGE);
    say_touch("in it", arena - 300 * PAGE);
    munmap(arena - 300 * PAGE, 302 * PAGE);
    fixed(ARENA, 1, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
    void *hint = arena - 100 * PAGE;
    printf("a wish in the gap is not followed: %d\n",
           mmap(hint, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != hint);
    hint = arena - 257 * PAGE;
    printf("one below it is: %d\n", mmap(hint, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == hint);
}

// fault-path.md, row 14: neither user code nor the kernel's own accesses grow a stack below vm.mmap_min_addr.
static void lowest_page(void) {
    say_map("at 64 KiB", fixed(65536, 2, PROT_READ | PROT_WRITE, MAP_GROWSDOWN));
    say_touch("below", (char *)65536 - 8);
    int fds[2];
    if (pipe(fds) || write(fds[1], "12345678", 8) != 8)
        printf("pipe: %s\n", name());
    say("read into the page below", read(fds[0], (char *)65536 - 8, 8));
    say("read into page 0", syscall(SYS_read, fds[0], (void *)8, 8));
}

static void heap(void) {
    uintptr_t start = (uintptr_t)sbrk(0);
    uintptr_t end = (start + PAGE - 1) & -PAGE;
    say("up to a page", brk((void *)end));
    say_map("a page above", mmap((void *)(end + 17 * PAGE), PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    say("up to it", brk((void *)(end + 17 * PAGE)));
    say("a page below it", brk((void *)(end + 16 * PAGE)));
    say("a byte more", brk((void *)(end + 16 * PAGE + 1)));
    munmap((void *)end, 16 * PAGE);
    say("back, with nothing there", brk((void *)end));
    printf("it stays: %d\n", (uintptr_t)sbrk(0) == end + 16 * PAGE);
    say_map("a part", fixed(end, 1, PROT_READ, 0));
    say("back, with something there", brk((void *)end));
    printf("it is gone: %d\n", msync((void *)end, PAGE, 0) == -1 && errno == ENOMEM);
    printf("below its start: %d\n", syscall(SYS_brk, 4096ul) == (long)end);
    printf("half of everything: %d\n", syscall(SYS_brk, 1ul << 46) == (long)end);
}

static void places(void) {
    uintptr_t low = (uintptr_t)mmap(0, 8 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    printf("MAP_32BIT is below 2 GiB: %d\n", low >= 0x40000000 && low < 0x80000000);
    uintptr_t wish = 0x60000000;
    printf("its wish is followed: %d\n",
           (uintptr_t)mmap((void *)wish, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0) == wish);
    low = (uintptr_t)mmap(arena, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    printf("a high one is not: %d\n", low < 0x80000000);
    void *all = mmap(0, 3ul << 29, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    say_map("more than there is", all);
}

// More than the machine has is refused where it counts.
static void overcommit(void) {
    size_t huge = 1ul << 44;
    int anonymous = MAP_PRIVATE | MAP_ANONYMOUS, shared = MAP_SHARED | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
    say_map("private", mmap(0, huge, rw, anonymous, -1, 0));
    say_map("read-only", mmap(arena, huge, PROT_READ, anonymous, -1, 0));
    say("made writable", mprotect(arena, huge, rw));
    say_map("unreserved", mmap(0, huge, rw, anonymous | MAP_NORESERVE, -1, 0));
    say_map("shared", mmap(0, huge, rw, shared, -1, 0));
    say_map("shared, unreserved", mmap(0, huge, rw, shared | MAP_NORESERVE, -1, 0));
    void *small = mmap(0, PAGE, rw, anonymous, -1, 0);
    say_map("longer", mremap(small, PAGE, huge, MREMAP_MAYMOVE));
}

// Lengths that wrap when they are rounded up.
static void lengths(void) {
    fixed(ARENA, 4, PROT_READ, 0);
    size_t wraps = -1ul;
    say("msync", msync(arena, wraps, MS_SYNC));
    say("mlock", mlock(arena, wraps));
    say("mlock, nearly", mlock(arena, wraps - 8192));
    say("munlock", munlock(arena, wraps));
    say("munmap", munmap(arena, wraps));
    say("mprotect", mprotect(arena, wraps, PROT_READ));
    say("madvise", madvise(arena, wraps, MADV_NORMAL));
    say_map("mmap", mmap(0, wraps, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    say_map("mremap", mremap(arena, PAGE, wraps, MREMAP_MAYMOVE));
    unsigned char vec;
    say("mincore", mincore(arena, wraps, &vec));
}

static long minor_faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static void fault_counts(void) {
    char *memory = fixed(ARENA, 64, PROT_READ | PROT_WRITE, 0);
    minor_faults();
    long before = minor_faults();
    for (int page = 0; page < 64; page++)
        *(volatile char *)(memory + page * PAGE) = 1;
    long after = minor_faults();
    printf("64 pages written: %ld faults\n", after - before);
    before = minor_faults();
    for (int page = 0; page < 64; page++)
        *(volatile char *)(memory + page * PAGE) = 2;
    after = minor_faults();
    printf("and again: %ld\n", after - before);
    madvise(memory, 64 * PAGE, MADV_DONTNEED);
    before = minor_faults();
    for (int page = 0; page < 64; page++)
        (void)*(volatile char *)(memory + page * PAGE);
    for (int page = 0; page < 64; page++)
        *(volatile char *)(memory + page * PAGE) = 1;
    after = minor_faults();
    printf("read and then written: %ld\n", after - before);
    madvise(memory, 64 * PAGE, MADV_DONTNEED);
    before = minor_faults();
    madvise(memory, 64 * PAGE, MADV_POPULATE_WRITE);
    long populated = minor_faults();
    for (int page = 0; page < 64; page++)
        *(volatile char *)(memory + page * PAGE) = 1;
    after = minor_faults();
    printf("populated: %ld, and then: %ld\n", populated - before, after - populated);
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    struct {
        const char *title;
        void (*body)(void);
    } parts[] = {
        {"RLIMIT_AS", address_space}, {"RLIMIT_DATA", data},   {"RLIMIT_STACK", stack},
        {"guard gap", guard_gap},     {"lowest page", lowest_page}, {"heap", heap},
        {"places", places},           {"overcommit", overcommit},   {"lengths", lengths},
        {"faults", fault_counts},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        printf("-- %s\n", parts[i].title);
        in_child(parts[i].body);
    }
    return 0;
}
