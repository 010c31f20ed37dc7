/* Random changes of memory that fills page tables, among processes that fork; prints what each of them saw. */
#include "fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
/* Two page tables and a part of one at each end. */
#define ARENA (0x200000000000UL + 100 * PAGE)
#define PAGES 1400U
/* Where ranges are moved to for a while. */
#define ASIDE (ARENA + 8192 * PAGE)
#define DEPTH 3
#define CHILDREN 4

static int mem;

/* What this process may do with a page, and what a child will have of it. */
enum { GONE, READABLE, WRITABLE };
static unsigned char may[PAGES], hidden[PAGES];

static char *page(unsigned n) { return (char *)(ARENA + n * PAGE); }
static volatile uint64_t *word(unsigned n) { return (volatile uint64_t *)page(n); }

static struct child {
    pid_t pid;
    int from;
} children[CHILDREN];

/* A range and whether all of it may be used that way. */
static unsigned start, count;

static void range(unsigned longest) {
    start = pick(PAGES);
    count = 1 + pick(longest);
    if (count > PAGES - start)
        count = PAGES - start;
}

static int all(int least) {
    for (unsigned n = start; n < start + count; n++)
        if (may[n] < least)
            return 0;
    return 1;
}

static void map_range(void) {
    void *at = mmap(page(start), count * PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        exit(3);
    madvise(at, count * PAGE, MADV_NOHUGEPAGE);
    memset(may + start, WRITABLE, count);
    memset(hidden + start, 0, count);
}

static void write_pages(void) {
    for (unsigned n = start; n < start + count; n++)
        if (may[n] == WRITABLE)
            *word(n) = state + n;
}

/* A write that the permissions refuse, and one that goes around them. */
static void forced(void) {
    uint64_t value = state;
    struct iovec own = {&value, sizeof value}, there = {page(start), sizeof value};
    note("poke", pwrite(mem, &value, sizeof value, (off_t)page(start)));
    note("writev", process_vm_writev(getpid(), &own, 1, &there, 1, 0));
}

static void look(void) {
    static unsigned char present[PAGES];
    uint64_t seen = 0;
    for (unsigned n = start; n < start + count; n++)
        if (may[n])
            seen = seen * 31 + *word(n);
    note("contents", (long)(seen >> 1));
    if (all(READABLE) && mincore(page(start), count * PAGE, present) == 0)
        for (unsigned n = 0; n < count; n++)
            add(present[n] & 1);
}

static void move(void) {
    void *aside = mremap(page(start), count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)ASIDE);
    note("aside", aside == MAP_FAILED ? -1 : 0);
    if (aside == MAP_FAILED)
        return;
    for (unsigned n = 0; n < count; n += 3)
        if (may[start + n] == WRITABLE)
            *(volatile uint64_t *)(ASIDE + n * PAGE) += 1;
    void *back = mremap(aside, count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page(start));
    note("back", back == MAP_FAILED ? -1 : 0);
}

/* Whether all pages of the range are alike, as mremap wants one area. */
static int alike(void) {
    for (unsigned n = start; n < start + count; n++)
        if (may[n] != may[start] || hidden[n] != hidden[start])
            return 0;
    return may[start] != GONE;
}

static void advise(void) {
    static const int ADVICE[] = {MADV_DOFORK, MADV_DONTFORK, MADV_KEEPONFORK, MADV_WIPEONFORK};
    unsigned which = pick(4);
    if (!all(READABLE) || madvise(page(start), count * PAGE, ADVICE[which]) != 0)
        return;
    for (unsigned n = start; n < start + count; n++)
        switch (which) {
        case 0: hidden[n] &= ~1; break;
        case 1: hidden[n] |= 1; break;
        case 2: hidden[n] &= ~2; break;
        default: hidden[n] |= 2;
        }
}

static void join(unsigned which) {
    uint64_t seen = 0;
    int status = 0;
    note("child", read(children[which].from, &seen, sizeof seen));
    note("saw", (long)(seen >> 1));
    waitpid(children[which].pid, &status, 0);
    note("ended", status);
    close(children[which].from);
    children[which].pid = 0;
}

static void live(unsigned steps, unsigned depth);

static void make_child(unsigned which, unsigned steps, unsigned depth) {
    int ends[2];
    uint64_t seed = state ^ 0x9e3779b97f4a7c15u;
    if (pipe(ends) != 0)
        exit(3);
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0) {
        close(ends[1]);
        children[which] = (struct child){pid, ends[0]};
        return;
    }
    close(ends[0]);
    memset(children, 0, sizeof children);
    for (unsigned n = 0; n < PAGES; n++)
        if (hidden[n] & 1)
            may[n] = GONE;
    verbose = 0;
    state = seed;
    sum = 0;
    close(mem);
    mem = open("/proc/self/mem", O_RDWR);
    live(steps, depth + 1);
    _exit(write(ends[1], &sum, sizeof sum) != sizeof sum);
}

static void step(unsigned steps, unsigned depth) {
    unsigned which = pick(CHILDREN);
    range(pick(4) ? 60 : PAGES);
    switch (pick(12)) {
    case 0:
    case 1:
        if (children[which].pid)
            join(which);
        else if (depth < DEPTH)
            make_child(which, steps / 2, depth);
        break;
    case 2:
        if (all(READABLE))
            note("dontneed", madvise(page(start), count * PAGE, MADV_DONTNEED));
        break;
    case 3: {
        int to = READABLE + pick(2);
        if (!all(READABLE))
            break;
        note("protect", mprotect(page(start), count * PAGE, to == WRITABLE ? PROT_READ | PROT_WRITE : PROT_READ));
        memset(may + start, to, count);
        break;
    }
    case 4:
        note("unmap", munmap(page(start), count * PAGE));
        memset(may + start, GONE, count);
        break;
    case 5:
    case 6: map_range(); break;
    case 7:
        if (alike())
            move();
        break;
    case 8:
        if (may[start] != GONE)
            forced();
        break;
    case 9: advise(); break;
    case 10: look(); break;
    default: write_pages();
    }
}

static void live(unsigned steps, unsigned depth) {
    for (unsigned n = 0; n < steps; n++)
        step(steps, depth);
    for (unsigned which = 0; which < CHILDREN; which++)
        if (children[which].pid)
            join(which);
    start = 0;
    count = PAGES;
    look();
}

static void run(unsigned steps) {
    start = 0;
    count = PAGES;
    map_range();
    write_pages();
    live(steps, 0);
    munmap((void *)ARENA, PAGES * PAGE);
}

int main(int argc, char **argv) {
    mem = open("/proc/self/mem", O_RDWR);
    return mem < 0 ? 1 : run_seeds(argc, argv, run);
}
