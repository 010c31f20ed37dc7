/* What /proc/PID/task tells of threads: which there are, what each is called and does, whose signals are blocked. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 5 };

static volatile pid_t tids[THREADS];
static pthread_t threads[THREADS];
static int wait_at[2];

static void *body(void *given) {
    int n = (int)(long)given;
    char name[16], byte;
    snprintf(name, sizeof name, "thread %d", n);
    prctl(PR_SET_NAME, name);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + n);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (n == 2)
        syscall(SYS_unshare, 0x400), open("/dev/null", O_RDONLY);
    tids[n] = gettid();
    while (read(wait_at[0], &byte, 1) == -1 && errno == EINTR)
        ;
    return NULL;
}

static char *contents(pid_t tid, const char *file) {
    static char text[4096];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", getpid(), tid, file);
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got < 0 ? 0 : got] = 0;
    return text;
}

static void until_asleep(pid_t tid) {
    for (int n = 0; n < 5000; n++) {
        char *state = strrchr(contents(tid, "stat"), ')');
        if (state && state[2] == 'S')
            return;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static void field(pid_t tid, const char *name) {
    char *at = strstr(contents(tid, "status"), name);
    printf("%.*s\n", at ? (int)strcspn(at, "\n") : 1, at ? at : "?");
}

static int which(pid_t tid) {
    for (int n = 0; n < THREADS; n++)
        if (tids[n] == tid)
            return n;
    return tid == getpid() ? -1 : -2;
}

static void listing(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", getpid());
    DIR *dir = opendir(path);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            printf(" %d", which(atoi(entry->d_name)));
    printf("\n");
    closedir(dir);
}

static void begin(long n) {
    tids[n] = 0;
    pthread_create(&threads[n], NULL, body, (void *)n);
    while (!tids[n])
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    until_asleep(tids[n]);
}

/* pthread_join is over before the thread has left the lists. */
static void until_gone(int n) {
    char path[64];
    pthread_join(threads[n], NULL);
    snprintf(path, sizeof path, "/proc/self/task/%d", tids[n]);
    for (int tries = 0; tries < 5000 && access(path, F_OK) == 0; tries++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
}

/* Ends a thread and begins it anew. */
static void begin_again(int n) {
    pthread_cancel(threads[n]);
    until_gone(n);
    begin(n);
}

/* The same in pieces of two or three entries; one of the threads begins anew when it was listed, and comes again at the end. */
static void pieces(int again) {
    char path[64], buf[80];
    snprintf(path, sizeof path, "/proc/%d/task", getpid());
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    for (long got; (got = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0;)
        for (long at = 0; at < got; at += *(unsigned short *)(buf + at + 16)) {
            int n = which(atoi(buf + at + 19));
            if (buf[at + 19] == '.')
                continue;
            printf(" %d", n);
            if (n == again) {
                again = THREADS;
                begin_again(n);
            }
        }
    printf("\n");
    close(fd);
}

static int descriptors(pid_t tid) {
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/fd", tid);
    DIR *dir = opendir(path);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (pipe(wait_at))
        return 1;
    for (long n = 0; n < THREADS; n++)
        begin(n);
    listing();
    pthread_setname_np(threads[1], "renamed");
    for (int n = 0; n < THREADS; n++) {
        char *stat = contents(tids[n], "stat"), *end = strrchr(stat, ')');
        printf("%d %.*s %c, ", which(atoi(stat)), (int)(end + 1 - strchr(stat, '(')), strchr(stat, '('), end[2]);
        printf("%s", contents(tids[n], "comm"));
        field(tids[n], "Name:"); field(tids[n], "State:"); field(tids[n], "SigBlk:"); field(tids[n], "SigCgt:"); field(tids[n], "Threads:");
    }
    char name[16];
    printf("%d", pthread_getname_np(threads[1], name, sizeof name)); printf(" %s\n", name);
    pthread_kill(threads[3], SIGRTMIN + 3); kill(getpid(), SIGCONT);
    field(tids[3], "SigPnd:"); field(tids[2], "SigPnd:"); field(getpid(), "SigPnd:");
    printf("descriptors: one more of its own %d, the others' %d\n", descriptors(tids[2]) - descriptors(getpid()), descriptors(tids[0]) - descriptors(getpid()));
    int fd = open("/proc/self/comm", O_WRONLY);
    printf("%zd ", write(fd, "a name that is too long", 23)); prctl(PR_GET_NAME, name); printf("%s\n", name);
    close(fd);
    struct stat stat;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", tids[0]);
    printf("mode %o\n", lstat(path, &stat) ? 0 : stat.st_mode);
    snprintf(path, sizeof path, "/proc/self/task/%d/task", tids[0]);
    printf("%d %s\n", lstat(path, &stat), strerrorname_np(errno));
    snprintf(path, sizeof path, "/proc/1/task/%d", tids[0]);
    printf("%d %s\n", lstat(path, &stat), strerrorname_np(errno));
    pieces(THREADS);
    pieces(1);
    pieces(4);
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tids[4]);
    fd = open(path, O_RDONLY);
    for (int n = 0; n < THREADS; n++)
        if (write(wait_at[1], "x", 1) != 1)
            return 1;
    for (int n = 0; n < THREADS; n++)
        until_gone(n);
    printf("gone: %zd", read(fd, name, 1)); printf(" %s", strerrorname_np(errno)); printf(", %d %s\n", open(path, O_RDONLY), strerrorname_np(errno));
    listing();
    return 0;
}
