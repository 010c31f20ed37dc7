// Bugs that kernels have had in signals, on entry and on return: for each a program that would show it. The numbers are those of the
// tests in tests/past_bugs.rs. Prints facts that are the same on every Linux without those bugs.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef void handler_t(int, siginfo_t *, void *);
#define FP(uc) ((unsigned char *)(uc)->uc_mcontext.fpregs)
#define REG(uc, r) ((uc)->uc_mcontext.gregs[r])

static void on(int signal, handler_t *handler, int flags) {
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };
    sigaction(signal, &action, 0);
}
static void show(const char *what, int status) {
    if (WIFEXITED(status)) printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else printf("%s: signal %d\n", what, WTERMSIG(status));
}
// What becomes of a child that does this; its output comes first.
static int fate(void (*body)(void)) {
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { alarm(30); body(); fflush(stdout); _exit(0); }
    waitpid(pid, &status, 0);
    return status;
}
static void *pages(int count, int protection) {
    return mmap(0, count * 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void altstack(void *base, size_t size) {
    stack_t stack = { .ss_sp = base, .ss_size = size };
    if (sigaltstack(&stack, 0)) printf("sigaltstack: %s\n", strerrorname_np(errno));
}

// What a handler makes of its own frame before it returns.
static int selector_at, selector;
static greg_t reg, reg_value;
static void bad_selector(int s, siginfo_t *i, void *c) {
    (void)s, (void)i;
    uint16_t *words = (uint16_t *)&REG((ucontext_t *)c, REG_CSGSFS);
    words[selector_at] = selector;
}
static void bad_register(int s, siginfo_t *i, void *c) { (void)s, (void)i; REG((ucontext_t *)c, reg) = reg_value; }
static void take_selector(void) { on(SIGUSR1, bad_selector, 0); raise(SIGUSR1); }
static void take_register(void) { on(SIGUSR1, bad_register, 0); raise(SIGUSR1); }
// Per-CPU data of a kernel that returned with the wrong GS would not last for this.
static int lives_on(void) {
    char *memory = pages(64, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 64; i++) memory[i * 4096] = 1;
    munmap(memory, 64 * 4096);
    return fate((void (*)(void))getpid) == 0;
}

static void row1(void) {
    static const int selectors[] = { 0, 3, 0x10, 0x18, 0x40, 0x88, 0xfff8, 0x37, 0x2f };
    char what[64];
    for (int at = 0; at < 4; at += 3)
        for (unsigned i = 0; i < sizeof selectors / sizeof *selectors; i++) {
            selector_at = at; selector = selectors[i];
            sprintf(what, "%s %#x", at ? "ss" : "cs", selector);
            show(what, fate(take_selector));
        }
    static const greg_t addresses[] = { 0, 1L << 47, 1L << 62, INT64_MIN, -4096, 0x7ffffffff000 };
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        reg = REG_RIP; reg_value = addresses[i];
        sprintf(what, "rip %llx", reg_value);
        show(what, fate(take_register));
        reg = REG_RSP;
        int status = fate(take_register);
        // A push to an address that is not canonical is a stack fault, which Intel's and AMD's manuals give another error.
        printf("rsp %llx: ends %d\n", reg_value, WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS));
    }
    printf("lives on: %d\n", lives_on());
}

static void row2(void) {
    static const int selectors[] = { 0, 1, 2, 3, 4, 7, 0xc, 0xf, 0x14, 0x17 };
    char what[64];
    selector_at = 3;
    for (unsigned i = 0; i < sizeof selectors / sizeof *selectors; i++) {
        selector = selectors[i];
        sprintf(what, "ss %#x", selector);
        show(what, fate(take_selector));
    }
    printf("lives on: %d\n", lives_on());
}

static char *last;
static void call_at_the_end(void) { ((void (*)(void))(last + 4094 - 5))(); }
static void says_where(int s, siginfo_t *info, void *c) {
    (void)c;
    printf("signal %d code %d at %lx\n", s, info->si_code, (long)info->si_addr);
    fflush(stdout);
    _exit(1);
}
static void at_the_end_with_handler(void) {
    altstack(pages(16, PROT_READ | PROT_WRITE), 65536);
    on(SIGSEGV, says_where, SA_ONSTACK);
    call_at_the_end();
}
static void row3(void) {
    last = mmap((void *)0x7fffffffe000, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("the last page is there: %d\n", last != MAP_FAILED);
    void *beyond = mmap((void *)0x7ffffffff000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("the one behind it is not: %d %s\n", beyond == MAP_FAILED, strerrorname_np(errno));
    if (last == MAP_FAILED) return;
    // mov eax, SYS_getpid; syscall: it would return to the first address that is not the user's.
    memcpy(last + 4094 - 5, "\xb8\x27\0\0\0\x0f\x05", 7);
    show("a call at its end", fate(call_at_the_end));
    show("with a handler", fate(at_the_end_with_handler));
    reg = REG_RIP;
    for (reg_value = 1L << 47; reg_value <= (1L << 47) + 1; reg_value++) show("back to 1 << 47", fate(take_register));
    printf("lives on: %d\n", lives_on());
}

static void row7(void) {
    int survived = 0, segv = 0, which = 0;
    selector_at = 3;
    // Every descriptor of both tables: the only stack segment of 64-bit code is the flat one.
    for (selector = 0; selector < 0x100; selector += 4) {
        int status = fate(take_selector);
        if (status == 0) { survived++; which = selector; }
        segv += WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
    }
    printf("taken: %d (%#x), refused: %d\n", survived, which, segv);
}

// A frame's floating-point state that ends where nothing is mapped, and says that it is small.
static void small_state(int s, siginfo_t *i, void *c) {
    (void)s, (void)i;
    ucontext_t *uc = c;
    char *at = pages(2, PROT_READ | PROT_WRITE);
    munmap(at + 4096, 4096);
    char *copy = at + 4096 - 640;
    memcpy(copy, FP(uc), 576);
    *(uint32_t *)(copy + 464 + 16) = 576;
    *(uint32_t *)(copy + 576) = 0x46505845;
    uc->uc_mcontext.fpregs = (void *)copy;
}
static void take_small_state(void) { on(SIGUSR1, small_state, 0); raise(SIGUSR1); }
static void row28(void) { show("a small state at the end of a mapping", fate(take_small_state)); }

static volatile int *stop;
static int all_are(const unsigned char *bytes, int count, int value) {
    for (int i = 0; i < count; i++) if (bytes[i] != value) return 0;
    return 1;
}
static void bad_header(int s, siginfo_t *i, void *c) {
    (void)s, (void)i;
    memset(FP((ucontext_t *)c) + 512 + 16, 0xff, 8);
}
static void sees_state(int s, siginfo_t *info, void *c) {
    ucontext_t *uc = c;
    printf("signal %d code %d, xmm are zero: %d, mxcsr %x\n", s, info->si_code, all_are(FP(uc) + 160, 256, 0), *(uint32_t *)(FP(uc) + 24));
    fflush(stdout);
    _exit(0);
}
#define FILL_XMM(value) \
    uint64_t fill = (value); \
    asm volatile("movq %0, %%xmm0; punpcklqdq %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm1; movdqa %%xmm0, %%xmm7; movdqa %%xmm0, %%xmm15" \
                 :: "r"(fill) : "xmm0", "xmm1", "xmm7", "xmm15")
static void takes_bad_header(void) {
    on(SIGUSR1, bad_header, 0);
    on(SIGSEGV, sees_state, 0);
    usleep(2000);
    raise(SIGUSR1);
}
static void row29(void) {
    stop = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t other = fork();
    if (other == 0) { while (!*stop) { FILL_XMM(0xaaaaaaaaaaaaaaaa); } _exit(0); }
    for (int i = 0; i < 5; i++) show("a state that cannot be", fate(takes_bad_header));
    *stop = 1;
    waitpid(other, 0, 0);
}

static void *recovery_rsp, *bad_rsp;
static int failed, kept, handled_all_the_same;
static void after_a_failed_frame(int s, siginfo_t *info, void *c) {
    (void)s, (void)info;
    ucontext_t *uc = c;
    unsigned char *xmm = FP(uc) + 160;
    failed++;
    kept += REG(uc, REG_RSP) == (greg_t)bad_rsp && REG(uc, REG_RBX) == 0x1234567 && all_are(xmm, 16, 0x5a) && all_are(xmm + 7 * 16, 16, 0x5a) &&
            all_are(xmm + 15 * 16, 16, 0x5a);
}
static void handles(int s, siginfo_t *i, void *c) { (void)s, (void)i, (void)c; handled_all_the_same++; }
// kill(2) with a stack pointer where a frame may have no room.
static void takes_with_stack(void *rsp) {
    uint64_t pattern = 0x5a5a5a5a5a5a5a5a;
    bad_rsp = rsp;
    asm volatile("movq %[p], %%xmm0; punpcklqdq %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm7; movdqa %%xmm0, %%xmm15\n"
                 "push %%rbx; push %%rbp; mov %%rsp, %[back]; mov $0x1234567, %%ebx; mov %[bad], %%rsp; syscall\n"
                 "mov %[back], %%rsp; pop %%rbp; pop %%rbx"
                 : [back] "=m"(recovery_rsp)
                 : [bad] "d"(rsp), [p] "r"(pattern), "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1)
                 : "rcx", "r11", "memory", "cc", "xmm0", "xmm7", "xmm15");
}
static void row30(void) {
    altstack(pages(16, PROT_READ | PROT_WRITE), 65536);
    on(SIGSEGV, after_a_failed_frame, SA_ONSTACK);
    on(SIGUSR1, handles, 0);
    takes_with_stack((void *)0x1000);
    printf("no stack at all: failed %d, kept %d\n", failed, kept);
    // Nearer and nearer to the beginning of a mapping: at some place the state has room, and the rest of the frame has none.
    char *two = pages(8, PROT_NONE);
    mprotect(two + 4 * 4096, 4 * 4096, PROT_READ | PROT_WRITE);
    for (int room = 4 * 4096; room > 0; room -= 32) takes_with_stack(two + 4 * 4096 + room);
    printf("failed: %d, handled: %d, kept all: %d\n", failed > 1, handled_all_the_same > 0, kept == failed);
}

static volatile uintptr_t frame_at;
static char *base;
static size_t room;
static void where(int s, siginfo_t *i, void *c) { (void)s, (void)i; frame_at = (uintptr_t)c - 8; }
// The handler runs in the frame's own page, whose memory below is there in any case: what ends the child is the check alone.
static void leaves(int s, siginfo_t *i, void *c) { where(s, i, c); _exit(frame_at > (uintptr_t)base ? 0 : 2); }
// On the alternate stack already, so far from its end.
static void near_the_end(void) {
    altstack(base, 65536);
    on(SIGUSR1, leaves, SA_ONSTACK);
    asm volatile("mov %0, %%rsp; syscall; ud2" :: "r"(base + room), "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1) : "rcx", "r11", "memory");
}
static void on_the_smallest(void) {
    altstack(base, room);
    on(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    printf("ran with its frame on it: %d\n", frame_at > (uintptr_t)base && frame_at < (uintptr_t)base + room);
}
static void row31(void) {
    base = (char *)pages(64, PROT_READ | PROT_WRITE) + 16 * 4096;
    altstack(base, 2047);
    room = getauxval(AT_MINSIGSTKSZ) > 2048 ? getauxval(AT_MINSIGSTKSZ) : 2048;
    show("as small as the auxiliary vector says", fate(on_the_smallest));
    // Within 128 bytes of the end, the red zone, a frame does not belong to this stack any more, and goes to the top again.
    for (room = 64; room <= 128; room += 64) show("in the red zone of the end", fate(near_the_end));
    int refused = 0, below = 0, handled = 0, other = 0, after = 0;
    for (room = 192; room <= 12288; room += 64) {
        int status = fate(near_the_end);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) { refused++; after += handled > 0; }
        else if (status == 0) handled++;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 2) below++;
        else other++;
    }
    printf("too near: refused %d, handled below the end %d; far enough: handled %d, refused %d; other ends: %d\n", refused > 0, below,
           handled > 0, after, other);
}

static unsigned char seen_info[128], seen_frame[440], seen_fp[576];
static void keeps(int s, siginfo_t *info, void *c) {
    (void)s;
    memcpy(seen_info, info, 128);
    memcpy(seen_frame, (char *)c - 8, 440);
    memcpy(seen_fp, FP((ucontext_t *)c), 576);
}
static void padding(const char *what, int used_until) {
    printf("%s: errno %d, padding %x, rest is zero: %d\n", what, *(int *)(seen_info + 4), *(int *)(seen_info + 12),
           all_are(seen_info + used_until, 128 - used_until, 0));
}
static void row32(void) {
    unsigned char *stack = pages(16, PROT_READ | PROT_WRITE);
    altstack(stack, 65536);
    int signals[] = { SIGUSR1, SIGRTMIN, SIGSEGV, SIGCHLD, SIGALRM, SIGBUS };
    for (int i = 0; i < 6; i++) on(signals[i], keeps, SA_ONSTACK | SA_NODEFER);
#define FRESH memset(stack, 0xa5, 65536)
    FRESH; kill(getpid(), SIGUSR1); padding("kill", 24);
    FRESH; syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1); padding("tgkill", 24);
    FRESH; sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_ptr = (void *)0x1122334455667788 }); padding("sigqueue", 32);
    FRESH; setitimer(ITIMER_REAL, &(struct itimerval){ .it_value.tv_usec = 10000 }, 0);
    while (seen_info[0] != SIGALRM) usleep(1000);
    padding("alarm", 16);
    alarm(30);
    FRESH; fate((void (*)(void))getpid);
    printf("child: errno %d, padding %x and %x, rest is zero: %d\n", *(int *)(seen_info + 4), *(int *)(seen_info + 12), *(int *)(seen_info + 28),
           all_are(seen_info + 48, 80, 0));
    timer_t timer;
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 7 };
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    FRESH; timer_settime(timer, 0, &(struct itimerspec){ .it_value.tv_nsec = 1000 }, 0);
    while (seen_info[8] != 0xfe) usleep(1000);
    printf("timer: private word %d, rest is zero: %d\n", *(int *)(seen_info + 32), all_are(seen_info + 32, 96, 0));
    FRESH;
    kill(getpid(), SIGUSR1);
    printf("frame: link %ld, gs and fs %d\n", *(long *)(seen_frame + 16), *(int *)(seen_frame + 8 + 40 + 146));
    printf("state: software's words are zero: %d, header's rest is zero: %d\n", all_are(seen_fp + 464 + 24, 24, 0), all_are(seen_fp + 520, 56, 0));
    // Words that mean nothing are the stack's own, or zero: nothing of the kernel's.
    const unsigned char *reserved = seen_frame + 8 + 40 + 192, *behind_flags = seen_frame + 8 + 28;
    printf("reserved words are ours: %d\n", all_are(reserved, 64, 0xa5) || all_are(reserved, 64, 0));
    printf("the word behind the stack's flags is: %d\n", all_are(behind_flags, 4, 0xa5) || all_are(behind_flags, 4, 0));
}

static void row33(void) {
    static const int codes[] = { SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO, SI_SIGIO, SI_TKILL, 1, 2, -7, -100, INT32_MIN };
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, 0);
    fflush(stdout);
    int life[2];
    if (pipe(life)) abort();
    pid_t child = fork();
    if (child == 0) { char byte; close(life[1]); _exit(read(life[0], &byte, 1) != 0); }
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
        siginfo_t info = { .si_code = codes[i] }, got = { 0 };
        info.si_pid = 1; info.si_uid = 5; info.si_value.sival_int = 42;
        int own = syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN, &info) ? errno : 0;
        int thread = syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGRTMIN, &info) ? errno : 0;
        int other = syscall(SYS_rt_sigqueueinfo, child, SIGRTMIN, &info) ? errno : 0;
        int others = syscall(SYS_rt_tgsigqueueinfo, child, child, SIGRTMIN, &info) ? errno : 0;
        printf("code %d: own %d, thread %d, other %d, its thread %d, taken", codes[i], own, thread, other, others);
        while (syscall(SYS_rt_sigtimedwait, &set, &got, &(struct timespec){ 0, 0 }, 8) > 0)
            printf(" %d %d %d %d", got.si_code, got.si_pid, got.si_uid, got.si_value.sival_int);
        printf("\n");
    }
    close(life[1]);
    waitpid(child, 0, 0);
}

extern char past_bugs_fault[], past_bugs_behind[];
static volatile long rings, faults, elsewhere;
static void counts_rings(int s, siginfo_t *i, void *c) { (void)s, (void)i, (void)c; rings++; }
static void counts_faults(int s, siginfo_t *info, void *c) {
    (void)s;
    faults++;
    elsewhere += REG((ucontext_t *)c, REG_RIP) != (greg_t)past_bugs_fault || info->si_addr != (void *)0x10;
    REG((ucontext_t *)c, REG_RIP) = (greg_t)past_bugs_behind;
}
static void row34(void) {
    on(SIGUSR1, counts_rings, 0);
    on(SIGSEGV, counts_faults, 0);
    timer_t timer;
    // For this thread, whose own faults it then meets in one queue.
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1, ._sigev_un._tid = gettid() };
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &(struct itimerspec){ { 0, 500000 }, { 0, 500000 } }, 0);
    long made = 0;
    while (rings < 400) {
        asm volatile(".globl past_bugs_fault, past_bugs_behind\npast_bugs_fault: movb $1, (%0)\npast_bugs_behind:" :: "r"(0x10) : "memory");
        made++;
    }
    printf("rings came: %d, every fault was handled: %d, frames of another place: %ld\n", rings >= 400, faults == made, elsewhere);
}

static volatile long *handled;
static void counts_handled(int s, siginfo_t *i, void *c) { (void)s, (void)i, (void)c; (*handled)++; }
static void *spins(void *arg) { for (;;) getppid(); return arg; }
static void row35(void) {
    handled = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    on(SIGHUP, counts_handled, 0);
    int killed = 0;
    long after_death = 0, before = 0;
    for (int round = 0; round < 40; round++) {
        int status;
        *handled = 0;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            if (round & 1) pthread_create(&thread, 0, spins, 0);
            spins(0);
        }
        while (*handled == 0) { kill(child, SIGHUP); usleep(100); }
        // Stopped, it has both pending when it goes on.
        kill(child, SIGSTOP);
        waitpid(child, &status, WUNTRACED);
        before = *handled;
        for (int i = 0; i < 20; i++) { kill(child, SIGHUP); kill(child, SIGRTMIN); }
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        after_death += *handled - before;
        killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    printf("killed: %d, handlers after that: %ld\n", killed, after_death);
}

static volatile int inner;
static void faults_itself(int s, siginfo_t *info, void *c) {
    (void)s;
    ucontext_t *uc = c;
    if (inner++ < 3) {
        // A fault of its own, below in the same handler, must not change what this frame shows.
        unsigned long before = REG(uc, REG_CR2);
        *(volatile char *)(0x10000UL * (inner + 1)) = 1;
        printf("depth %d: address %lx, cr2 %lx, after the inner one %llx\n", inner, (long)info->si_addr, before, REG(uc, REG_CR2));
    } else printf("depth %d: address %lx, cr2 %llx\n", inner, (long)info->si_addr, REG(uc, REG_CR2));
    inner--;
    REG(uc, REG_RIP) += 3;
}
static void row36(void) {
    // Pages of the stack come while frames are written: faults inside the delivery of a fault.
    altstack(pages(64, PROT_READ | PROT_WRITE), 64 * 4096);
    on(SIGSEGV, faults_itself, SA_ONSTACK | SA_NODEFER);
    // movb $1, (%rax) has three bytes, as the compiler's store has.
    asm volatile("movb $1, (%0)" :: "a"(0x10000UL) : "memory");
    for (int i = 0; i < 8; i++) {
        altstack(pages(64, PROT_READ | PROT_WRITE), 64 * 4096);
        inner = 3;
        asm volatile("movb $1, (%0)" :: "a"(0x1000UL * (i + 1)) : "memory");
        inner = 0;
    }
}

static void row39(void) {
    printf("kill: %d", kill(INT32_MIN, SIGUSR1)); printf(" %s\n", strerrorname_np(errno));
    printf("with signal 0: %d", kill(INT32_MIN, 0)); printf(" %s\n", strerrorname_np(errno));
    printf("with a bad signal: %d", kill(INT32_MIN, 65)); printf(" %s\n", strerrorname_np(errno));
    printf("one more: %d", kill(INT32_MIN + 1, SIGUSR1)); printf(" %s\n", strerrorname_np(errno));
}

int main(void) {
    static const struct { int number; void (*show)(void); } rows[] = {
        { 1, row1 }, { 2, row2 }, { 3, row3 }, { 7, row7 }, { 28, row28 }, { 29, row29 }, { 30, row30 }, { 31, row31 },
        { 32, row32 }, { 33, row33 }, { 34, row34 }, { 35, row35 }, { 36, row36 }, { 39, row39 },
    };
    prctl(PR_SET_DUMPABLE, 0);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        printf("row %d\n", rows[i].number);
        show("end", fate(rows[i].show));
    }
    return 0;
}
