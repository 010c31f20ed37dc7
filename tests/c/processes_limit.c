/* RLIMIT_NPROC: who counts for a user, and who is told that there are too many. Root only, as nobody else can become many users. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_at[2], ready[2];
static volatile pid_t tid;

static void *body(void *given) {
    char byte;
    tid = gettid();
    return read(wait_at[0], &byte, 1) < 0 ? given : NULL;
}

/* A child that sleeps, or ends at once, as another user if there is one. */
static pid_t child(int lives, uid_t user) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (user && setresuid(user, user, user))
            _exit(1);
        if (user && write(ready[1], "x", 1) != 1)
            _exit(1);
        if (lives)
            body(NULL);
        _exit(0);
    }
    printf("fork: %s\n", pid < 0 ? strerrorname_np(errno) : "goes");
    char byte;
    if (user && read(ready[0], &byte, 1) != 1)
        exit(1);
    return pid;
}

static void new_thread(void) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, body, NULL);
    printf("thread: %s\n", error ? strerrorname_np(error) : "goes");
}

static void until_gone(pid_t tid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d", tid);
    for (int n = 0; n < 5000 && access(path, F_OK) == 0; n++)
        usleep(1000);
}

static void end(pid_t pid) {
    int status;
    printf("ended: %d\n", waitpid(pid, &status, 0) == pid);
}

/* Users whom nobody else on the machine is likely to be. */
static uid_t user(int n) { return 1700000000 + getppid() % 100000 * 10 + n; }

int main(void) {
    struct rlimit limit = {4, 4};
    pid_t pids[4];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (pipe(wait_at) || pipe(ready) || setrlimit(RLIMIT_NPROC, &limit))
        return 1;
    uid_t own = user(1), other = user(2);
    /* Nothing limits root, and a child that becomes somebody counts for that user. */
    for (int n = 0; n < 2; n++)
        pids[n] = child(1, own);
    pids[2] = child(1, other);
    if (setresuid(own, own, own))
        return 1;
    puts("one, and two children");
    pids[3] = child(0, 0);
    child(0, 0);
    puts("one has ended, and counts");
    siginfo_t info;
    waitid(P_PID, pids[3], &info, WEXITED | WNOWAIT);
    child(0, 0);
    end(pids[3]);
    puts("it does not count any more");
    new_thread();
    while (!tid)
        usleep(1000);
    new_thread();
    child(0, 0);
    puts("a thread counts until it ends");
    if (write(wait_at[1], "xxxx", 4) != 4)
        return 1;
    for (int n = 0; n < 3; n++)
        end(pids[n]);
    until_gone(tid);
    for (int n = 0; n < 4; n++)
        pids[n] = child(0, 0);
    for (int n = 0; n < 3; n++)
        end(pids[n]);
    return 0;
}
