/* Every memory call with good and bad arguments: prints errno, contents, and the areas inside its own arena as /proc/self/maps has
   them. The same on every correct kernel. */
#define _GNU_SOURCE
#include <errno.h>
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
#define ARENA 0x200000000000UL
#define ARENA_PAGES 256UL

static char *const arena = (char *)ARENA;

static void say(const char *what, long result) {
    if (result == -1)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

/* A call that returns an address. */
static void say_map(const char *what, void *result) {
    if (result == MAP_FAILED)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else if ((uintptr_t)result - ARENA < ARENA_PAGES * PAGE)
        printf("%s: page %lu\n", what, ((uintptr_t)result - ARENA) / PAGE);
    else
        printf("%s: elsewhere\n", what);
}

static void maps(const char *when) {
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    printf("maps %s:", when);
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end;
        char permissions[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3 && start >= ARENA &&
            end <= ARENA + ARENA_PAGES * PAGE)
            printf(" %lu-%lu:%s", (start - ARENA) / PAGE, (end - ARENA) / PAGE, permissions);
    }
    fclose(file);
    printf("\n");
}

static void *map_at(unsigned long page, unsigned long pages, int prot, int flags) {
    return mmap(arena + page * PAGE, pages * PAGE, prot, flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void clear(void) { munmap(arena, ARENA_PAGES * PAGE); }

#define RW (PROT_READ | PROT_WRITE)

static void mmap_errors(void) {
    int read_only = open("/proc/self/exe", O_RDONLY);
    int memfd = memfd_create("m", 0);
    int pipes[2];
    if (pipe(pipes) || ftruncate(memfd, 8 * PAGE))
        exit(1);
#define TRY(...) say_map(#__VA_ARGS__, mmap(__VA_ARGS__))
    TRY(NULL, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0);
    TRY(NULL, PAGE, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0);
    TRY(NULL, PAGE, RW, MAP_PRIVATE, -1, 0);
    TRY(NULL, 0, RW, MAP_PRIVATE, -1, 0);
    TRY(NULL, PAGE, RW, MAP_PRIVATE, memfd, 1);
    TRY(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1);
    TRY(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipes[0], 0);
    TRY(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipes[1], 0);
    TRY(NULL, PAGE, RW, MAP_SHARED, read_only, 0);
    TRY(NULL, PAGE, RW, 0, memfd, 0);
    TRY(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN, memfd, 0);
    TRY(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
    TRY(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | (1 << 26), memfd, 0);
    TRY(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, memfd, 0);
    TRY(NULL, PAGE, PROT_READ, MAP_PRIVATE, memfd, INT64_MAX & ~(off_t)(PAGE - 1));
    TRY(NULL, 1UL << 47, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(NULL, ~0UL, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(arena + 1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    TRY((void *)(1UL << 47), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    TRY(arena + 5 * PAGE + 77, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(arena + 5 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    TRY(arena + 6 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    TRY(NULL, 1UL << 45, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *huge = mmap(NULL, 1UL << 40, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    printf("a terabyte without reserve: %s\n", huge == MAP_FAILED ? "no" : "yes");
    munmap(huge, 1UL << 40);
    clear();
    close(read_only), close(memfd), close(pipes[0]), close(pipes[1]);
}

static void unmapping_and_protection(void) {
    say("munmap 0 bytes", munmap(arena, 0));
    say("munmap unaligned", munmap(arena + 1, PAGE));
    say("munmap beyond", munmap((void *)(1UL << 47), PAGE));
    say("munmap too long", munmap(arena, ~0UL));
    say("munmap nothing", munmap(arena, PAGE));
    map_at(0, 16, RW, MAP_PRIVATE);
    memset(arena, 1, 16 * PAGE);
    say("munmap a hole", munmap(arena + 4 * PAGE, 2 * PAGE));
    maps("with a hole");
    map_at(4, 2, RW, MAP_PRIVATE);
    maps("with the hole filled");
    say("mprotect unaligned", mprotect(arena + 1, PAGE, PROT_READ));
    say("mprotect nothing", mprotect(arena, 0, PROT_READ));
    say("mprotect bad bits", mprotect(arena, PAGE, 0x100));
    say("mprotect wraps", mprotect(arena, ~0UL - PAGE, PROT_READ));
    say("mprotect into a hole", mprotect(arena + 12 * PAGE, 8 * PAGE, PROT_READ));
    maps("after a half-done mprotect");
    say("mprotect the middle", mprotect(arena + 2 * PAGE, 2 * PAGE, PROT_NONE));
    maps("split");
    say("mprotect growsdown", mprotect(arena, PAGE, PROT_READ | PROT_GROWSDOWN));
    say("mprotect all", mprotect(arena, 16 * PAGE, RW));
    maps("joined");
    int fd = open("/proc/self/exe", O_RDONLY);
    char *file = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    say("mprotect a read-only file", mprotect(file, PAGE, RW));
    munmap(file, PAGE);
    close(fd);
    clear();
}

static void remapping(void) {
#define REMAP(...) say_map(#__VA_ARGS__, mremap(__VA_ARGS__))
    map_at(0, 4, RW, MAP_PRIVATE);
    for (int i = 0; i < 4; i++)
        arena[i * PAGE] = 'a' + i;
    REMAP(arena, 4 * PAGE, 8 * PAGE, 0);
    maps("grown in place");
    REMAP(arena, 8 * PAGE, 2 * PAGE, 0);
    maps("shrunk");
    map_at(2, 1, PROT_READ, MAP_PRIVATE);
    REMAP(arena, 2 * PAGE, 4 * PAGE, 0);
    REMAP(arena, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + 100 * PAGE);
    maps("moved");
    printf("contents %c %c\n", arena[100 * PAGE], arena[101 * PAGE]);
    REMAP(arena + 100 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + 102 * PAGE);
    REMAP(arena + 100 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + 1);
    REMAP(arena + 100 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_FIXED, arena + 200 * PAGE);
    REMAP(arena + 100 * PAGE, 4 * PAGE, 4 * PAGE, 8, arena + 200 * PAGE);
    REMAP(arena + 100 * PAGE, 4 * PAGE, 0, MREMAP_MAYMOVE);
    REMAP(arena + 100 * PAGE + 1, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    REMAP(arena + 50 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    REMAP(arena + 100 * PAGE, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    REMAP(arena + 100 * PAGE, 0, PAGE, MREMAP_MAYMOVE);
    REMAP(arena + 100 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
          arena + 120 * PAGE);
    maps("moved without unmapping");
    printf("contents %c %d\n", arena[120 * PAGE], arena[100 * PAGE]);
    map_at(140, 2, RW, MAP_SHARED);
    arena[140 * PAGE] = 's';
    REMAP(arena + 140 * PAGE, 0, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + 150 * PAGE);
    arena[150 * PAGE + 1] = 't';
    printf("contents %c %c\n", arena[150 * PAGE], arena[140 * PAGE + 1]);
    clear();
}

static void advice(void) {
#define ADVISE(...) say(#__VA_ARGS__, madvise(__VA_ARGS__))
    map_at(0, 8, RW, MAP_PRIVATE);
    memset(arena, 7, 8 * PAGE);
    ADVISE(arena + 1, PAGE, MADV_DONTNEED);
    ADVISE(arena, 0, MADV_DONTNEED);
    ADVISE(arena, PAGE, 12345);
    ADVISE(arena + 1, PAGE, 12345);
    ADVISE(arena, ~0UL, MADV_DONTNEED);
    ADVISE(arena + 6 * PAGE, 4 * PAGE, MADV_DONTNEED);
    printf("contents %d %d\n", arena[5 * PAGE], arena[6 * PAGE]);
    ADVISE(arena + 2 * PAGE, PAGE, MADV_SEQUENTIAL);
    maps("with advice");
    ADVISE(arena + 2 * PAGE, PAGE, MADV_NORMAL);
    maps("without advice");
    ADVISE(arena, 8 * PAGE, MADV_FREE);
    ADVISE(arena, PAGE, MADV_REMOVE);
    ADVISE(arena, PAGE, MADV_WILLNEED);
    ADVISE(arena, PAGE, MADV_COLD);
    ADVISE(arena, PAGE, MADV_PAGEOUT);
    ADVISE(arena, 8 * PAGE, MADV_POPULATE_WRITE);
    ADVISE(arena, 9 * PAGE, MADV_POPULATE_READ);
    mprotect(arena, PAGE, PROT_READ);
    ADVISE(arena, PAGE, MADV_POPULATE_WRITE);
    ADVISE(arena, PAGE, MADV_POPULATE_READ);
    mprotect(arena, PAGE, PROT_NONE);
    ADVISE(arena, PAGE, MADV_POPULATE_READ);
    map_at(20, 4, RW, MAP_SHARED);
    memset(arena + 20 * PAGE, 9, 4 * PAGE);
    ADVISE(arena + 20 * PAGE, PAGE, MADV_FREE);
    ADVISE(arena + 20 * PAGE, PAGE, MADV_WIPEONFORK);
    ADVISE(arena + 20 * PAGE, PAGE, MADV_DONTNEED);
    printf("shared contents stay: %d\n", arena[20 * PAGE]);
    ADVISE(arena + 21 * PAGE, PAGE, MADV_REMOVE);
    printf("removed: %d %d\n", arena[21 * PAGE], arena[22 * PAGE]);
    clear();
    map_at(0, 3, RW, MAP_PRIVATE);
    memset(arena, 5, 3 * PAGE);
    ADVISE(arena, PAGE, MADV_DONTFORK);
    ADVISE(arena + PAGE, PAGE, MADV_WIPEONFORK);
    maps("before fork");
    fflush(stdout);
    if (fork() == 0) {
        maps("in the child");
        printf("child sees %d %d\n", arena[PAGE], arena[2 * PAGE]);
        fflush(stdout);
        arena[0] = 1;
        _exit(0);
    }
    int status;
    wait(&status);
    printf("child ended by signal %d\n", WTERMSIG(status));
    ADVISE(arena, PAGE, MADV_DOFORK);
    ADVISE(arena + PAGE, PAGE, MADV_KEEPONFORK);
    maps("as before");
    clear();
}

static void residency(void) {
    unsigned char vec[16];
    map_at(0, 8, RW, MAP_PRIVATE);
    arena[PAGE] = arena[3 * PAGE] = 1;
    say("mincore", mincore(arena, 8 * PAGE, vec));
    for (int i = 0; i < 8; i++)
        printf("%d", vec[i] & 1);
    printf("\n");
    say("mincore unaligned", mincore(arena + 1, PAGE, vec));
    say("mincore hole", mincore(arena + 7 * PAGE, 2 * PAGE, vec));
    say("mincore bad vector", mincore(arena, PAGE, (unsigned char *)8));
    say("mincore beyond", mincore((void *)(1UL << 47), PAGE, vec));
    say("mincore nothing", mincore(arena, 0, vec));
    say("msync", msync(arena, 8 * PAGE, MS_SYNC));
    say("msync both", msync(arena, PAGE, MS_SYNC | MS_ASYNC));
    say("msync bits", msync(arena, PAGE, 64));
    say("msync unaligned", msync(arena + 1, PAGE, MS_SYNC));
    say("msync hole", msync(arena + 7 * PAGE, 2 * PAGE, MS_ASYNC));
    say("msync nothing", msync(arena, 0, MS_SYNC));
    say("mlock", mlock(arena + 1, PAGE));
    maps("locked");
    say("mincore locked", mincore(arena, 2 * PAGE, vec));
    printf("%d%d\n", vec[0] & 1, vec[1] & 1);
    say("msync locked", msync(arena, PAGE, MS_INVALIDATE));
    say("dontneed locked", madvise(arena, PAGE, MADV_DONTNEED));
    say("munlock", munlock(arena, 2 * PAGE));
    maps("unlocked");
    say("mlock hole", mlock(arena + 7 * PAGE, 2 * PAGE));
    say("mlock2 bits", mlock2(arena, PAGE, 4));
    say("mlock2 on fault", mlock2(arena + 4 * PAGE, 2 * PAGE, MLOCK_ONFAULT));
    say("mincore on fault", mincore(arena + 4 * PAGE, 2 * PAGE, vec));
    printf("%d%d\n", vec[0] & 1, vec[1] & 1);
    say("mlock none", mlock(arena + 10 * PAGE, 0));
    mprotect(arena + PAGE, PAGE, PROT_NONE);
    say("mlock inaccessible", mlock(arena + PAGE, PAGE));
    say("mlockall nothing", mlockall(0));
    say("mlockall on fault only", mlockall(MCL_ONFAULT));
    say("munlockall", munlockall());
    clear();
    map_at(0, 4, RW, MAP_PRIVATE | MAP_POPULATE);
    say("mincore populated", mincore(arena, 4 * PAGE, vec));
    printf("%d%d%d%d\n", vec[0] & 1, vec[1] & 1, vec[2] & 1, vec[3] & 1);
    clear();
}

static void limits(void) {
    struct rlimit limit = {256 << 20, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &limit);
    say_map("within RLIMIT_AS", map_at(0, 4, RW, MAP_PRIVATE));
    say_map("over RLIMIT_AS", mmap(NULL, 300 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REMAP(arena, 4 * PAGE, 300 << 20, MREMAP_MAYMOVE);
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = 16 << 20;
    setrlimit(RLIMIT_DATA, &limit);
    say_map("over RLIMIT_DATA", mmap(NULL, 20 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    say_map("shared is not data", mmap(arena + 8 * PAGE, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    char *big = mmap(NULL, 20 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    say("data by mprotect", mprotect(big, 20 << 20, RW));
    say("brk over RLIMIT_DATA", sbrk(20 << 20) == (void *)-1);
    clear();
}

static void places(void) {
    char *a = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *b = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("the second goes %ld pages below the first\n", (a - b) / (long)PAGE);
    munmap(b, 4 * PAGE);
    char *c = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("its place is used again: %d\n", b == c);
    munmap(a, 4 * PAGE), munmap(c, 4 * PAGE);
    map_at(0, 4, RW, MAP_PRIVATE);
    map_at(4, 4, RW, MAP_PRIVATE);
    map_at(8, 4, PROT_READ, MAP_PRIVATE);
    map_at(12, 4, RW, MAP_PRIVATE | MAP_NORESERVE);
    map_at(16, 4, RW, MAP_SHARED);
    map_at(20, 4, RW, MAP_SHARED);
    maps("of neighbours");
    clear();
}

/* As another user than root, for whom the limit does not hold. */
static void locked_memory_limit(void) {
    struct rlimit limit = {4 * PAGE, 4 * PAGE};
    setrlimit(RLIMIT_MEMLOCK, &limit);
    map_at(0, 16, RW, MAP_PRIVATE);
    say("root locks 8", mlock(arena, 8 * PAGE));
    say("munlock", munlock(arena, 8 * PAGE));
    fflush(stdout);
    if (fork() == 0) {
        if (setuid(1000))
            _exit(1);
        say("lock 3", mlock(arena, 3 * PAGE));
        say("lock 2 more", mlock(arena + 4 * PAGE, 2 * PAGE));
        say("lock the same and 1 more", mlock(arena, 4 * PAGE));
        say_map("map locked", map_at(20, 1, RW, MAP_PRIVATE | MAP_LOCKED));
        say("lock all", mlockall(MCL_CURRENT));
        say("unlock", munlock(arena, 4 * PAGE));
        say("lock 2", mlock(arena + 4 * PAGE, 2 * PAGE));
        limit.rlim_cur = 0;
        setrlimit(RLIMIT_MEMLOCK, &limit);
        say("lock with no limit left", mlock(arena, PAGE));
        say_map("map locked", map_at(20, 1, RW, MAP_PRIVATE | MAP_LOCKED));
        fflush(stdout);
        _exit(0);
    }
    int status;
    wait(&status);
    printf("status %d\n", status);
    clear();
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    mmap_errors();
    unmapping_and_protection();
    remapping();
    advice();
    residency();
    places();
    locked_memory_limit();
    limits();
    return 0;
}
