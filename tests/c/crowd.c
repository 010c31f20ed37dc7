// Many threads: one after the other, and as many at once as there may be. ARG: how many.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_here = PTHREAD_COND_INITIALIZER, go = PTHREAD_COND_INITIALIZER;
static int here, may_go, gone;

static void *returns(void *arg) { return arg; }
static void *waits(void *arg) {
    pthread_mutex_lock(&lock);
    here++;
    pthread_cond_signal(&all_here);
    while (!may_go) pthread_cond_wait(&go, &lock);
    gone++;
    pthread_mutex_unlock(&lock);
    return arg;
}

static unsigned long free_kib(void) {
    struct sysinfo info;
    // The last thread may still be leaving.
    usleep(50000);
    sysinfo(&info);
    return info.freeram * info.mem_unit / 1024;
}

int main(int argc, char **argv) {
    long wanted = argc > 1 ? atol(argv[1]) : 10000, sum = 0, at_once = 0;
    int error = 0;
    pthread_t *threads = calloc(wanted, sizeof *threads);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 32768);
    pthread_attr_setguardsize(&attr, 0);
    // Once, so that what the C library keeps is there.
    pthread_create(threads, &attr, returns, 0); pthread_join(threads[0], 0);
    memset(threads, 1, wanted * sizeof *threads);
    unsigned long before = free_kib();
    for (long i = 0; i < wanted; i++) {
        void *result;
        if (pthread_create(threads, &attr, returns, (void *)i) || pthread_join(threads[0], &result)) break;
        sum += (long)result == i;
    }
    printf("one after the other: %ld\n", sum);
    while (at_once < wanted && !(error = pthread_create(&threads[at_once], &attr, waits, (void *)at_once))) at_once++;
    pthread_mutex_lock(&lock);
    while (here < at_once) pthread_cond_wait(&all_here, &lock);
    may_go = 1;
    pthread_cond_broadcast(&go);
    pthread_mutex_unlock(&lock);
    sum = 0;
    for (long i = 0; i < at_once; i++) {
        void *result;
        if (!pthread_join(threads[i], &result)) sum += (long)result == i;
    }
    printf("all at once: %s %s\n", at_once == wanted ? "all" : "fewer", error ? strerrorname_np(error) : "");
    printf("woken and joined: %d\n", sum == at_once && gone == at_once);
    unsigned long after = free_kib();
    // glibc keeps up to 40 MiB of stacks for threads to come; Linux keeps some of its own.
    printf("memory back: %d\n", before < after + 48 * 1024);
    return 0;
}
