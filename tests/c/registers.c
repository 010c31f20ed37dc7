// The registers around system calls: what a call leaves alone, what a signal's frame shows of them and brings back, and what a child has.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { RBX, RBP, R12, R13, R14, R15, R8, R9, R10, RDI, RSI, RDX, RCX, R11, RAX, WORDS };

// Makes the system call in RAX with all registers from `in`, and puts what they are afterwards into `out`.
void call_with(const uint64_t in[WORDS], uint64_t out[WORDS]);
__asm__(".globl call_with\n"
        "call_with:\n"
        "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n push %rsi\n"
        "mov %rdi, %rax\n"
        "mov 0(%rax), %rbx\n mov 8(%rax), %rbp\n mov 16(%rax), %r12\n mov 24(%rax), %r13\n"
        "mov 32(%rax), %r14\n mov 40(%rax), %r15\n mov 48(%rax), %r8\n mov 56(%rax), %r9\n"
        "mov 64(%rax), %r10\n mov 72(%rax), %rdi\n mov 80(%rax), %rsi\n mov 88(%rax), %rdx\n"
        "mov 112(%rax), %rax\n"
        "syscall\n"
        ".globl the_call\n"
        "the_call:\n"
        "push %rax\n"
        "mov 8(%rsp), %rax\n"
        "mov %rbx, 0(%rax)\n mov %rbp, 8(%rax)\n mov %r12, 16(%rax)\n mov %r13, 24(%rax)\n"
        "mov %r14, 32(%rax)\n mov %r15, 40(%rax)\n mov %r8, 48(%rax)\n mov %r9, 56(%rax)\n"
        "mov %r10, 64(%rax)\n mov %rdi, 72(%rax)\n mov %rsi, 80(%rax)\n mov %rdx, 88(%rax)\n"
        "mov %rcx, 96(%rax)\n mov %r11, 104(%rax)\n"
        "pop %rcx\n"
        "mov %rcx, 112(%rax)\n"
        "pop %rsi\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "ret\n");
extern char the_call[];

static int wrong;

static void check(int right, const char *what) {
    if (!right) {
        wrong = 1;
        printf("wrong: %s\n", what);
    }
}

static void fill(uint64_t in[WORDS], long number, long a, long b, long c) {
    for (int i = 0; i < WORDS; i++)
        in[i] = 0x1111111111111111u * (i + 1);
    in[RDI] = a, in[RSI] = b, in[RDX] = c, in[RAX] = number;
}

// All that a call leaves alone; RCX and R11 are what SYSCALL makes them.
static void same(const uint64_t in[WORDS], const uint64_t out[WORDS], const char *what) {
    check(memcmp(in, out, RCX * sizeof *in) == 0, what);
    check(out[RCX] == (uintptr_t)the_call, "RCX is where the call returns to");
    check((out[R11] & 0x202) == 0x202, "R11 has the flags");
}

static uint64_t seen[WORDS];
static int handled;

static void handler(int signal, siginfo_t *info, void *context) {
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const int from[] = {REG_RBX, REG_RBP, REG_R12, REG_R13, REG_R14, REG_R15, REG_R8, REG_R9,
                        REG_R10, REG_RDI, REG_RSI, REG_RDX, REG_RCX, REG_R11, REG_RAX};
    for (int i = 0; i < WORDS; i++)
        seen[i] = g[from[i]];
    check(g[REG_R11] == g[REG_EFL], "R11 and the flags are one in the frame");
    check(g[REG_RCX] == g[REG_RIP], "RCX and RIP are one in the frame");
    handled++;
    (void)signal, (void)info;
}

static void handler_that_changes(int signal, siginfo_t *info, void *context) {
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    g[REG_RBX] = 1, g[REG_RBP] = 2, g[REG_R12] = 3, g[REG_R13] = 4, g[REG_R14] = 5, g[REG_R15] = 6;
    g[REG_R11] = 7, g[REG_RCX] = 8;
    (void)signal, (void)info;
}

static void set_handler(void (*to)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_sigaction = to, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
}

static void signals(void) {
    uint64_t in[WORDS], out[WORDS];
    set_handler(handler);
    fill(in, SYS_kill, getpid(), SIGUSR1, 0);
    call_with(in, out);
    same(in, out, "registers after a signal");
    check(handled == 1 && memcmp(in, seen, RCX * sizeof *in) == 0, "registers in the frame");
    check(seen[RAX] == 0 && out[RAX] == 0, "the answer is in the frame and comes back");

    set_handler(handler_that_changes);
    call_with(in, out);
    const uint64_t changed[] = {1, 2, 3, 4, 5, 6};
    check(memcmp(out, changed, sizeof changed) == 0 && out[R11] == 7 && out[RCX] == 8,
          "what a handler changes in the frame is what comes back");
}

static void children(void) {
    uint64_t in[WORDS], out[WORDS];
    fill(in, SYS_fork, 0x77, 0x88, 0x99);
    call_with(in, out);
    if (out[RAX] == 0) {
        same(in, out, "registers of a child");
        _exit(wrong);
    }
    same(in, out, "registers of the parent of a child");
    int status;
    waitpid(out[RAX], &status, 0);
    check(status == 0, "the child has the registers");
}

// A call that waits lets others run, who have their own registers.
static void switches(void) {
    uint64_t in[WORDS], out[WORDS];
    int pipes[2][2];
    char byte = 'x';
    if (pipe(pipes[0]) || pipe(pipes[1]))
        return;
    int child = fork();
    for (int round = 0; round < 100; round++) {
        fill(in, SYS_read, pipes[child == 0][0], (long)&byte, 1);
        for (int i = 0; i <= R15; i++)
            in[i] += child + round;
        if (child != 0)
            check(write(pipes[1][1], "a", 1) == 1, "write");
        call_with(in, out);
        same(in, out, "registers after a wait");
        check(out[RAX] == 1, "read");
        if (child == 0)
            check(write(pipes[0][1], "b", 1) == 1, "write");
    }
    if (child == 0)
        _exit(wrong);
    int status;
    waitpid(child, &status, 0);
    check(status == 0, "the child's registers after waits");
}

int main(void) {
    uint64_t in[WORDS], out[WORDS];
    fill(in, SYS_getppid, 1, 2, 3);
    call_with(in, out);
    same(in, out, "registers after a call");
    fill(in, 9999, 1, 2, 3);
    call_with(in, out);
    same(in, out, "registers after a call that there is not");
    check((int64_t)out[RAX] == -ENOSYS, "ENOSYS");
    stack_t stack;
    fill(in, SYS_sigaltstack, 0, (long)&stack, 3);
    call_with(in, out);
    same(in, out, "registers after a call that looks at them");
    signals();
    children();
    switches();
    printf("registers: %s\n", wrong ? "wrong" : "right");
    return wrong;
}
