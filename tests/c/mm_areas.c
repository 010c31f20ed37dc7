// As many areas as a process may have: they are mapped, written, looked at, changed, copied and unmapped. Prints what is the same on every
// correct kernel.

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define ARENA ((char *)0x300000000000ul)
#define AREAS 60000l

static long areas_in(char *start, char *end) {
    long found = 0;
    unsigned long from, to;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        found += sscanf(line, "%lx-%lx", &from, &to) == 2 && from >= (unsigned long)start && to <= (unsigned long)end;
    fclose(maps);
    return found;
}

int main(void) {
    char *end = ARENA + 2 * AREAS * PAGE;
    long failed = 0, wrong = 0;
    // Every second page, so that none touches another.
    for (long i = 0; i < AREAS; i++)
        failed += mmap(ARENA + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
    printf("mapped, %ld failed, %ld areas\n", failed, areas_in(ARENA, end));
    for (long i = 0; i < AREAS; i++)
        if (i % 8 == 0)
            *(volatile long *)(ARENA + 2 * i * PAGE) = i;
        else
            wrong += *(volatile long *)(ARENA + 2 * i * PAGE) != 0;
    for (long i = 0; i < AREAS; i += 8)
        wrong += *(volatile long *)(ARENA + 2 * i * PAGE) != i;
    printf("touched, %ld wrong\n", wrong);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        for (long i = 0; i < AREAS; i += 8)
            wrong += *(volatile long *)(ARENA + 2 * i * PAGE) != i;
        printf("a child sees %ld wrong, %ld areas\n", wrong, areas_in(ARENA, end));
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("it ended with %d\n", status);
    printf("locked: %d\n", mlockall(MCL_CURRENT | MCL_ONFAULT));
    printf("unlocked: %d\n", munlockall());
    // Up to the limit.
    long more = 0;
    char *above = end + PAGE;
    while (more < 10000 && mmap(above + 2 * more * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
        more++;
    printf("limit: %s, after about %ld\n", strerrorname_np(errno), (more + 50) / 100 * 100);
    printf("one that joins: %s\n", mmap(above + PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    printf("one page fewer: %d\n", munmap(ARENA, PAGE));
    printf("and one more: %s\n", mmap(above + PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    munmap(above, 20002 * PAGE);
    for (long i = 0; i < AREAS; i++)
        failed += munmap(ARENA + 2 * i * PAGE, PAGE) != 0;
    printf("unmapped, %ld failed, %ld areas\n", failed, areas_in(ARENA, end));
    return 0;
}
