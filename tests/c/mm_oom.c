/* Takes all memory there is, in children: each ends, and the parent goes on. For a small machine. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIZE (512UL << 20)
#define PAGE 4096UL

static void hog(void) {
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (unsigned long at = 0; at < SIZE; at += PAGE)
        memory[at] = 1;
    _exit(1);
}

/* Only page tables: reads one page in each 2 MiB. */
static void table_hog(void) {
    unsigned long size = 1UL << 45;
    char *memory = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    volatile char seen;
    for (unsigned long at = 0; at < size; at += 2UL << 20)
        seen = memory[at];
    (void)seen;
    _exit(1);
}

/* The kernel writes into memory that is not there. */
static void reading_hog(void) {
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    FILE *zero = fopen("/dev/zero", "r");
    for (unsigned long at = 0; at < SIZE; at += 1 << 20)
        if (read(fileno(zero), memory + at, 1 << 20) < 0)
            _exit(2);
    _exit(1);
}

/* Forks until it may not, each child forking too; all wait to be killed. */
static void bomb(void) {
    setpgid(0, 0);
    for (;;)
        if (fork() < 0) {
            struct timespec rest = {0, 100000000};
            nanosleep(&rest, NULL);
        }
}

static int ended(void (*body)(void)) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        body();
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(void) {
    static char mine[64 * PAGE];
    memset(mine, 3, sizeof mine);
    for (int round = 0; round < 3; round++)
        printf("hog ended with %d\n", ended(hog));
    printf("table hog ended with %d\n", ended(table_hog));
    printf("reading hog ended with %d\n", ended(reading_hog));
    fflush(stdout);
    pid_t leader = fork();
    if (leader == 0)
        bomb();
    struct timespec time = {3, 0};
    nanosleep(&time, NULL);
    /* New ones may come while the signals are on their way. */
    for (int round = 0; round < 100; round++) {
        if (kill(-leader, SIGKILL) < 0 && errno == ESRCH)
            break;
        struct timespec rest = {0, 50000000};
        nanosleep(&rest, NULL);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    printf("the bomb is over\n");
    unsigned long sum = 0;
    for (unsigned long at = 0; at < sizeof mine; at++)
        sum += mine[at];
    printf("my memory is whole: %d\n", sum == 3 * sizeof mine);
    char *again = malloc(16 << 20);
    memset(again, 1, 16 << 20);
    printf("and there is memory again: %d\n", again[(16 << 20) - 1]);
    return 0;
}
