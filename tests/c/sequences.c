// Restartable sequences: registration, and what aborts one: a signal, and another process that gets the CPU.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/rseq.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, errno ? strerrorname_np(errno) : ""); } while (0)
#define SIGNATURE 0x53053053

static struct { char bytes[64]; } area __attribute__((aligned(32)));
static volatile uint32_t *words = (uint32_t *)&area;
static uint64_t description[4] __attribute__((aligned(32)));
static volatile int handled;
static void note(int n) { (void)n; handled++; }
static long reg(void *at, int len, int flags, unsigned signature) { return syscall(SYS_rseq, at, len, flags, signature); }

// Spins in a marked stretch until it is aborted; 1: by way of the abort handler.
static int spin(void) {
    int aborted = 0;
    __asm__ volatile(
        "lea 1f(%%rip), %%rax\n mov %%rax, 8(%2)\n"
        "lea 2f(%%rip), %%rcx\n sub %%rax, %%rcx\n mov %%rcx, 16(%2)\n"
        "lea 4f(%%rip), %%rax\n mov %%rax, 24(%2)\n"
        "mov %2, 8(%1)\n"
        "1: jmp 1b\n"
        "2: jmp 5f\n"
        ".byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n"
        "4: mov $1, %0\n"
        "5:\n"
        : "+r"(aborted) : "r"(&area), "r"(description) : "rax", "rcx", "memory");
    return aborted;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("offered: %lu bytes at multiples of %lu\n", getauxval(27), getauxval(28));
    char *libc_area = (char *)__builtin_thread_pointer() + __rseq_offset;
    printf("the C library's: %d %d\n", __rseq_size > 0, ((struct rseq *)libc_area)->cpu_id < 1000);
    SHOW(reg(libc_area, 32, 0, SIGNATURE)); SHOW(reg(libc_area, 32, 0, 1)); SHOW(reg(&area, 32, 0, SIGNATURE));
    SHOW(reg(libc_area, 32, 1, 1)); SHOW(reg(&area, 32, 1, SIGNATURE)); SHOW(reg(libc_area, 32, 1, SIGNATURE));
    printf("%d\n", (int)((struct rseq *)libc_area)->cpu_id);
    SHOW(reg(&area, 16, 0, SIGNATURE)); SHOW(reg((char *)&area + 8, 32, 0, SIGNATURE)); SHOW(reg(&area, 32, 2, SIGNATURE));
    SHOW(reg((void *)-4096L, 32, 0, SIGNATURE)); SHOW(reg(&area, 32, 1, SIGNATURE));
    words[1] = 77;
    SHOW(reg(&area, 32, 0, SIGNATURE)); printf("%d %d\n", words[0] < 1000, words[1] < 1000);
    signal(SIGALRM, note);
    struct itimerval soon = { { 0, 0 }, { 0, 20000 } };
    setitimer(ITIMER_REAL, &soon, 0);
    // On a busy machine the other reason for an abort comes first: what counts is that it comes.
    printf("aborted by a signal: %d", spin()); printf(" %d\n", words[2] == 0 && words[3] == 0);
    while (!handled) pause();
    pid_t pid = fork();
    if (!pid) { // The child has the registration too.
        setitimer(ITIMER_REAL, &soon, 0);
        _exit(spin());
    }
    int status;
    waitpid(pid, &status, 0); printf("in the child: %x\n", status);
    // Two that spin on one CPU take it from each other: no signal is needed.
    pid_t other = fork();
    if (!other) for (;;) ;
    unsigned long one = 1;
    syscall(SYS_sched_setaffinity, other, sizeof one, &one); syscall(SYS_sched_setaffinity, 0, sizeof one, &one);
    printf("aborted by another's turn: %d\n", spin());
    kill(other, SIGKILL); waitpid(other, 0, 0);
    pid = fork();
    if (!pid) { description[0] = 5; setitimer(ITIMER_REAL, &soon, 0); spin(); _exit(1); }
    waitpid(pid, &status, 0); printf("a bad description: %x\n", status & 0x7f);
    SHOW(reg(&area, 32, 1, SIGNATURE)); printf("%d\n", (int)words[1]);
    return 0;
}
