/* What the programs about message queues and semaphores have in common: how a call's outcome is shown, and waiting until others wait. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BAD ((void *)-4096L)

/* Addresses and numbers of objects and processes are not shown. */
#define SHOW(call) do { errno = 0; long r_ = (long)(call); \
    if (r_ == -1) printf("%s: %s\n", #call, strerrorname_np(errno)); else printf("%s: %ld\n", #call, r_); } while (0)
#define GOES(call) do { errno = 0; long r_ = (long)(call); \
    printf("%s: %s\n", #call, r_ == -1 ? strerrorname_np(errno) : "goes"); } while (0)

static inline void nap(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&time, &time) && errno == EINTR)
        ;
}

/* Waits until a child, or a thread, is there and sleeps; five seconds at most. */
static inline void asleep(pid_t pid) {
    char path[64], line[256];
    for (int n = 0; n < 5000; n++, nap(1)) {
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", pid);
        FILE *file = fopen(path, "r");
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        if (!file && !(file = fopen(path, "r")))
            continue;
        char *state = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
        fclose(file);
        if (state && state[2] == 'S')
            return;
    }
    printf("it does not sleep\n");
}

/* Waits for a child, whatever signals come. */
static inline int end_of(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) != pid)
        ;
    return status;
}
