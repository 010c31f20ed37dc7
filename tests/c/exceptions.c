// Every exception that a program can raise: which signal it is, and what siginfo and the frame say; single-steps; segment bases.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define TF 0x100
#define DF 0x400
#define NT 0x4000
#define AC 0x40000
#define KEPT (DF | NT | AC | TF)

// Code that raises something. Each lies between two labels; rax holds the page below, and a `ret` ends what does not trap.
#define CASES(X) \
    X(divide_by_zero, "xor %edx, %edx; mov $1, %eax; xor %ecx, %ecx; div %ecx") \
    X(quotient_too_large, "mov $0x80000000, %eax; cltd; mov $-1, %ecx; idiv %ecx") \
    X(ud2, "ud2") \
    X(push_es, ".byte 0x06") \
    X(into, ".byte 0xce") \
    X(bound, ".byte 0x62, 0x00") \
    X(lock_of_a_register, ".byte 0xf0, 0x01, 0xc0") \
    X(monitor, "xor %ecx, %ecx; xor %edx, %edx; monitor") \
    X(stac, "stac") \
    X(int3, "int3") \
    X(int_3, ".byte 0xcd, 3") \
    X(int_0, "int $0") \
    X(int_1, "int $1") \
    X(int_2, "int $2") \
    X(int_4, "int $4") \
    X(int_5, "int $5") \
    X(int_8, "int $8") \
    X(int_14, "int $14") \
    X(int_32, "int $32") \
    X(int_129, "int $129") \
    X(int_255, "int $255") \
    X(hlt, "hlt") \
    X(cli, "cli") \
    X(sti, "sti") \
    X(in_al_dx, "mov $0x80, %edx; in %dx, %al") \
    X(out_80, "out %al, $0x80") \
    X(insb, "mov $0x80, %edx; mov %rax, %rdi; insb") \
    X(outsb, "mov $0x80, %edx; mov %rax, %rsi; outsb") \
    X(clts, "clts") \
    X(invd, "invd") \
    X(wbinvd, "wbinvd") \
    X(invlpg, "invlpg (%rax)") \
    X(rdmsr, "mov $0xc0000080, %ecx; rdmsr") \
    X(wrmsr, "mov $0xc0000080, %ecx; wrmsr") \
    X(rdpmc, "xor %ecx, %ecx; rdpmc") \
    X(xsetbv, "xor %ecx, %ecx; xsetbv") \
    X(swapgs, "swapgs") \
    X(sysretq, "sysretq") \
    X(lgdt, "lgdt (%rax)") \
    X(lidt, "lidt (%rax)") \
    X(lldt, "lldt %ax") \
    X(ltr, "ltr %ax") \
    X(lmsw, "lmsw %ax") \
    X(mov_from_cr0, "mov %cr0, %rax") \
    X(mov_to_cr3, "mov %rax, %cr3") \
    X(mov_from_cr8, "mov %cr8, %rax") \
    X(mov_from_dr0, "mov %dr0, %rax") \
    X(mov_from_dr6, "mov %dr6, %rax") \
    X(mov_to_dr7, "mov %rax, %dr7") \
    X(load_not_canonical, "movabs $0x800000000000, %rcx; mov (%rcx), %eax") \
    X(store_not_canonical, "movabs $0x123456789abcdef0, %rcx; mov %eax, (%rcx)") \
    X(load_from_kernel, "mov $0xffffffff81000000, %rcx; mov (%rcx), %eax") \
    X(store_to_kernel, "mov $0xffffffffff000000, %rcx; mov %eax, (%rcx)") \
    X(load_from_last_page, "mov $0x7fffffffffff, %rcx; mov (%rcx), %al") \
    X(jump_to_last_page, "movabs $0x7ffffffff000, %rcx; jmp *%rcx") \
    X(jump_to_kernel, "mov $0xffffffff81000000, %rcx; jmp *%rcx") \
    X(load_null, "xor %ecx, %ecx; mov 16(%rcx), %eax") \
    X(store_to_code, "lea 0(%rip), %rcx; mov %eax, (%rcx)") \
    X(jump_to_data, "jmp *%rax") \
    X(movaps_unaligned, "movaps 1(%rax), %xmm0") \
    X(cmpxchg16b_unaligned, "cmpxchg16b 8(%rax)") \
    X(mov_ss_null, "xor %ecx, %ecx; mov %ecx, %ss") \
    X(mov_ss_of_code, "mov $0x33, %ecx; mov %ecx, %ss") \
    X(mov_ss_of_kernel, "mov $0x18, %ecx; mov %ecx, %ss") \
    X(mov_ds_of_kernel, "mov $0x18, %ecx; mov %ecx, %ds") \
    X(mov_es_beyond_the_table, "mov $0xfff8, %ecx; mov %ecx, %es") \
    X(mov_fs_of_ldt, "mov $0x7, %ecx; mov %ecx, %fs") \
    X(fifteen_prefixes, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90") \
    X(x87_divide, "fninit; movw $0x37b, (%rax); fldcw (%rax); fld1; fldz; fdivrp; fwait") \
    X(x87_invalid, "fninit; movw $0x37e, (%rax); fldcw (%rax); fldz; fldz; fdivrp; fwait") \
    X(x87_inexact, "fninit; movw $0x35f, (%rax); fldcw (%rax); fld1; fldpi; fdivrp; fwait") \
    X(ud2_with_nt, "pushf; orl $0x4000, (%rsp); popf; ud2") \
    X(page_fault_with_nt, "pushf; orl $0x4000, (%rsp); popf; xor %ecx, %ecx; mov (%rcx), %ecx") \
    X(call_with_nt, "pushf; orl $0x4000, (%rsp); popf; mov $39, %eax; syscall; pushf; pop %rcx; test $0x4000, %ecx; jz 9f; ud2; 9:") \
    X(ud2_with_df, "std; ud2") \
    X(int3_after_mov_ss, "mov %ss, %ecx; mov %ecx, %ss; int3") \
    X(call_after_mov_ss, "mov $39, %eax; mov %ss, %ecx; mov %ecx, %ss; syscall; ud2") \
    X(ud2_after_mov_ss, "mov %ss, %ecx; mov %ecx, %ss; ud2") \
    X(nothing, "nop")

// What QEMU's emulated CPU does in another way than any real one: asked for by an argument, for a machine with --kvm.
#define REAL_CPU_CASES(X) \
    X(wrgsbase_not_canonical, "movabs $0x800000000000, %rcx; wrgsbase %rcx") \
    X(int1, ".byte 0xf1") \
    X(load_by_rbp_not_canonical, "push %rbp; movabs $0x800000000000, %rbp; mov (%rbp), %eax") \
    X(load_by_rsp_not_canonical, "movabs $0x800000000000, %rsp; mov (%rsp), %eax") \
    X(push_not_canonical, "movabs $0x900000000000, %rsp; push %rax") \
    X(mxcsr_reserved, "movl $0x80000000, (%rax); ldmxcsr (%rax)") \
    X(lret_to_kernel, "push $0x10; push %rax; lretq") \
    X(lret_to_data, "push $0x2b; push %rax; lretq") \
    X(lret_to_null, "push $0; push %rax; lretq") \
    X(iret_to_kernel, "push $0x18; push %rax; push $0x202; push $0x10; push %rax; iretq") \
    X(x87_stack, "fninit; movw $0x37e, (%rax); fldcw (%rax); fstp %st(0); fwait") \
    X(sse_invalid, "movl $0x1f00, (%rax); ldmxcsr (%rax); xorps %xmm0, %xmm0; divss %xmm0, %xmm0") \
    X(sse_divide, "movl $0x1d80, (%rax); ldmxcsr (%rax); mov $0x3f800000, %ecx; movd %ecx, %xmm0; xorps %xmm1, %xmm1; divss %xmm1, %xmm0") \
    X(sse_overflow, "movl $0x1b80, (%rax); ldmxcsr (%rax); mov $0x7f7fffff, %ecx; movd %ecx, %xmm0; mulss %xmm0, %xmm0") \
    X(sse_underflow, "movl $0x1780, (%rax); ldmxcsr (%rax); mov $0x00800001, %ecx; movd %ecx, %xmm0; mulss %xmm0, %xmm0") \
    X(sse_inexact, "movl $0x0f80, (%rax); ldmxcsr (%rax); mov $0x3f800000, %ecx; movd %ecx, %xmm0; mov $0x40400000, %ecx; movd %ecx, %xmm1; divss %xmm1, %xmm0") \
    X(sse_denormal, "movl $0x1e80, (%rax); ldmxcsr (%rax); mov $1, %ecx; movd %ecx, %xmm0; addss %xmm0, %xmm0") \
    X(unaligned_load_with_ac, "pushf; orl $0x40000, (%rsp); popf; mov 1(%rax), %ecx") \
    X(unaligned_push_with_ac, "pushf; orl $0x40000, (%rsp); popf; sub $4, %rsp; push %rax") \
    X(lret_to_user, "lea 1f(%rip), %rcx; push $0x33; push %rcx; lretq; 1: ud2") \
    X(iret_to_user, "mov %rsp, %rdx; lea 1f(%rip), %rcx; push $0x2b; push %rdx; pushf; push $0x33; push %rcx; iretq; 1: ud2")

#define DECLARE(name, code) \
    __asm__(".text; begin_" #name ": " code "; ret; end_" #name ":"); \
    extern char begin_##name[], end_##name[];
CASES(DECLARE)
REAL_CPU_CASES(DECLARE)

static const struct code { const char *name; char *begin, *end; } cases[] = {
#define ROW(name, code) { #name, begin_##name, end_##name },
    CASES(ROW)
}, real_cpu_cases[] = {
    REAL_CPU_CASES(ROW)
};

static char *page;
static sigjmp_buf back;
static char *begin, *end;
static int real_cpu;

static const char *place(uintptr_t at, char *text) {
    if (at >= (uintptr_t)begin && at <= (uintptr_t)end)
        sprintf(text, "code+%d", (int)(at - (uintptr_t)begin));
    else if (at >= (uintptr_t)page && at < (uintptr_t)page + 4096)
        sprintf(text, "page+%d", (int)(at - (uintptr_t)page));
    else
        sprintf(text, "%#lx", at);
    return text;
}

__attribute__((used)) static void report(int signo, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    char at[32], ip[32];

    // QEMU's emulated CPU doubles the number in the error code of INT N.
    if (!real_cpu && regs[REG_TRAPNO] == 13 && (unsigned char)*begin == 0xcd)
        regs[REG_ERR] = 0;
    printf(" %s code %d addr %s trapno %lld err %#llx ip %s flags %#llx", sigabbrev_np(signo), info->si_code,
           place((uintptr_t)info->si_addr, at), regs[REG_TRAPNO], regs[REG_ERR], place((uintptr_t)regs[REG_RIP], ip), regs[REG_EFL] & KEPT);
    if (regs[REG_TRAPNO] == 14)
        printf(" cr2 %s", place((uintptr_t)regs[REG_CR2], at));
    siglongjmp(back, 1);
}

// What C code may not meet: AC or DF left set, or what a case left in MXCSR and the x87.
void reporting(int, siginfo_t *, void *);
__asm__(".text; reporting: pushf; andl $0xfffbbbff, (%rsp); popf; jmp report");

static void catch(int signo, void *handler, int flags) {
    struct sigaction action = { .sa_flags = SA_SIGINFO | flags };

    action.sa_sigaction = (void (*)(int, siginfo_t *, void *))handler;
    sigfillset(&action.sa_mask);
    sigaction(signo, &action, NULL);
}

static const int traps[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };

static void catch_all(void *handler) {
    for (unsigned i = 0; i < sizeof traps / sizeof *traps; i++)
        catch(traps[i], handler, SA_ONSTACK);
}

static void run(const char *name, char *from, char *to) {
    unsigned mxcsr;

    begin = from, end = to;
    printf("%s:", name);
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("sub $128, %%rsp; call *%1; add $128, %%rsp; fninit; pushf; andl $0xfffbbbff, (%%rsp); popf"
                         : : "a"(page), "b"(from) : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
        printf(" no trap");
    }
    mxcsr = 0x1f80;
    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
    printf("\n");
}

// Single-steps: where each one was, from the first byte of the code.
static int steps[64], nr_steps, codes;
static uintptr_t step_begin;

static void stepping(int signo, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)signo;
    if (info->si_code != TRAP_TRACE || (uintptr_t)info->si_addr != (uintptr_t)regs[REG_RIP] || regs[REG_TRAPNO] != 1 || regs[REG_ERR] != 0
        || !(regs[REG_EFL] & TF))
        codes++;
    if (nr_steps < 64)
        steps[nr_steps++] = (int)(regs[REG_RIP] - (greg_t)step_begin);
}

static void asks_for_steps(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= TF;
}

static void skips_ud2(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info;
    printf("[ud2, flags %#llx] ", ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] & KEPT);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

#define ON "pushf; orl $0x100, (%rsp); popf; "
#define OFF "; pushf; andl $0xfffffeff, (%rsp); popf; ret"
#define STEPS(X) \
    X(instructions, ON "nop; mov $1, %ecx; jmp 1f; nop; 1: call 2f; jmp 3f; 2: ret; 3: nop" OFF) \
    X(loop, ON "mov $3, %ecx; 1: dec %ecx; jnz 1b" OFF) \
    X(system_call, ON "mov $39, %eax; syscall; nop; nop" OFF) \
    X(failing_call, ON "mov $-1, %eax; syscall; nop; nop" OFF) \
    X(pushed_flags, ON "pushf; pop %rcx; and $0x100, %ecx; mov %ecx, (%rdi)" OFF) \
    X(flags_of_a_call, ON "mov $39, %eax; syscall; and $0x100, %r11d; mov %r11d, (%rdi)" OFF) \
    X(illegal, ON "nop; ud2; nop" OFF) \
    X(page_faults, ON "mov (%rsi), %cl; movb $1, 4096(%rsi); nop" OFF) \
    X(by_sigreturn, "nop; mov $62, %eax; mov %edx, %edi; mov $10, %esi; syscall; nop; nop" OFF) \
    X(handler_between, ON "mov $62, %eax; mov %edx, %edi; mov $12, %esi; syscall; nop; nop" OFF) \
    X(popf_without, ON "pushf; andl $0xfffffeff, (%rsp); popf; nop; nop; ret")

#define STEP_DECLARE(name, code) __asm__(".text; step_" #name ": " code); extern char step_##name[];
STEPS(STEP_DECLARE)

static int noted;
static void note(int signo) { (void)signo; noted++; }

static void step(const char *name, char *code) {
    long value = -1;
    char *lazy = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    nr_steps = codes = 0;
    step_begin = (uintptr_t)code;
    printf("step %s: ", name);
    fflush(stdout);
    __asm__ volatile("sub $128, %%rsp; call *%0; add $128, %%rsp"
                     : : "b"(code), "D"(&value), "S"(lazy), "d"(getpid()) : "rax", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
    for (int i = 0; i < nr_steps; i++)
        printf("%d ", steps[i]);
    printf("wrong %d value %ld\n", codes, value);
    munmap(lazy, 8192);
}

static void single_steps(void) {
    catch(SIGTRAP, (void *)stepping, 0);
    catch(SIGILL, (void *)skips_ud2, 0);
    catch(SIGUSR1, (void *)asks_for_steps, 0);
    signal(SIGUSR2, note);
#define STEP_ROW(name, code) step(#name, step_##name);
    STEPS(STEP_ROW)
    printf("noted %d\n", noted);
}

// A trap whose signal is blocked or ignored ends the program all the same.
static void fatal(const char *name, char *code, int signo, int blocked, int ignored) {
    int status;
    pid_t child = fork();

    if (child == 0) {
        sigset_t set;
        signal(signo, ignored ? SIG_IGN : note);
        sigemptyset(&set);
        if (blocked)
            sigaddset(&set, signo);
        sigprocmask(SIG_SETMASK, &set, NULL);
        __asm__ volatile("sub $128, %%rsp; call *%1; add $128, %%rsp" : : "a"(page), "b"(code)
                         : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
        _exit(noted ? 3 : 4);
    }
    waitpid(child, &status, 0);
    printf("%s blocked %d ignored %d: status %#x\n", name, blocked, ignored, status & ~0x80);
}

static void fatal_traps(void) {
    for (int i = 1; i < 4; i++) {
        fatal("ud2", begin_ud2, SIGILL, i & 1, i >> 1);
        fatal("int3", begin_int3, SIGTRAP, i & 1, i >> 1);
        fatal("divide", begin_divide_by_zero, SIGFPE, i & 1, i >> 1);
        fatal("hlt", begin_hlt, SIGSEGV, i & 1, i >> 1);
        fatal("step", step_loop, SIGTRAP, i & 1, i >> 1);
    }
    fatal("int3 caught", begin_int3, SIGTRAP, 0, 0);
}

// What a trap left in a thread's frames stays there: an ordinary signal's frame shows the last trap's number and error.
static void shows(int signo, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)info;
    printf("%s after a trap: trapno %lld err %#llx\n", sigabbrev_np(signo), regs[REG_TRAPNO], regs[REG_ERR]);
}

static void sticky(void) {
    catch(SIGUSR1, (void *)shows, 0);
    run("mov_ss_of_kernel", begin_mov_ss_of_kernel, end_mov_ss_of_kernel);
    raise(SIGUSR1);
    run("load_null", begin_load_null, end_load_null);
    raise(SIGUSR1);
}

// Segment registers and bases: what a program sets without a call stays its own, through switches, faults, traps and signals.
#define GET(what) ({ uint64_t v; __asm__ volatile("rd" #what "base %0" : "=r"(v)); v; })
#define SET(what, v) __asm__ volatile("wr" #what "base %0" : : "r"((uint64_t)(v)))
#define SELECTOR(r) ({ unsigned v; __asm__ volatile("mov %%" #r ", %0" : "=r"(v)); v; })
#define LOAD(r, v) __asm__ volatile("mov %0, %%" #r : : "r"(v))

static void show_segments(const char *when) {
    unsigned long called = 1;

    syscall(SYS_arch_prctl, 0x1004, &called); // ARCH_GET_GS
    printf("%s: gs base %#lx, by a call %#lx; ds %#x es %#x fs %#x gs %#x\n", when, GET(gs), called, SELECTOR(ds), SELECTOR(es),
           SELECTOR(fs), SELECTOR(gs));
}

static void in_handler(int signo) { (void)signo; show_segments("in a handler"); }

// A child with values of its own, and one turn for each.
static void take_turns(void) {
    int there[2], back_again[2];
    char byte = 0;

    if (pipe(there) || pipe(back_again))
        return;
    pid_t child = fork();
    if (child == 0) {
        show_segments("in a child");
        LOAD(es, 0);
        LOAD(gs, 0x2b);
        SET(gs, 0x5678);
        byte = read(there[0], &byte, 1) != 1;
        show_segments("in a child that was away");
        _exit(write(back_again[1], &byte, 1) != 1);
    }
    usleep(20000);
    show_segments("after a child's turn");
    if (write(there[1], &byte, 1) == 1 && read(back_again[0], &byte, 1) == 1)
        waitpid(child, NULL, 0);
    show_segments("after a child's end");
}

static void goes_on(int signo, siginfo_t *info, void *context) {
    (void)info;
    if (signo == SIGILL)
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void with_base(uint64_t base) {
    SET(gs, base);
    show_segments("set");
    getppid();
    raise(SIGUSR1);
    __asm__ volatile("call begin_ud2" : : : "memory", "cc");
    __asm__ volatile("call begin_int3" : : : "memory", "cc");
    __asm__ volatile("call step_loop" : : : "rcx", "memory", "cc");
    *(volatile char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
    usleep(1000);
    show_segments("after traps and sleep");
    take_turns();
}

static void segments(void) {
    uint64_t of_libc = GET(fs);
    unsigned long called;

    printf("AT_HWCAP2 %#lx\n", getauxval(AT_HWCAP2) & 2);
    if (!(getauxval(AT_HWCAP2) & 2))
        return;
    syscall(SYS_arch_prctl, 0x1003, &called); // ARCH_GET_FS
    printf("fs base the same by a call: %d\n", called == of_libc);
    show_segments("at first");
    signal(SIGUSR1, in_handler);
    catch(SIGILL, (void *)goes_on, 0);
    catch(SIGTRAP, (void *)goes_on, 0);
    with_base(0x123456789000);
    with_base(0x7ffffffffff0);
    with_base(0xffff800000000000);
    with_base(0xfffffffffffffff8);
    LOAD(ds, 0x2b);
    LOAD(es, 0x2b);
    with_base(0x4000);
    LOAD(gs, 0x2b);
    show_segments("loaded");
    printf("ARCH_SET_GS %ld", syscall(SYS_arch_prctl, 0x1001, 0x9000UL));
    show_segments("");
    called = (unsigned long)syscall(SYS_arch_prctl, 0x1001, 0xffff800000000000UL);
    printf("ARCH_SET_GS of the kernel %ld %s\n", (long)called, strerrorname_np(errno));
    LOAD(ds, 0);
    LOAD(es, 0);
    LOAD(gs, 0);
    // QEMU's emulated CPU lets it pass; the kernel has to live with what is there then.
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        SET(gs, 0x123456789abcdef0);
        raise(SIGUSR2);
        usleep(1000);
        if (fork() == 0)
            _exit(0);
        wait(NULL);
        _exit(raise(SIGKILL));
    }
    printf("a child with a base that is not canonical: %d\n", waitpid(child, NULL, 0) == child);
}

int main(int argc, char **argv) {
    static char stack[1 << 16];
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };

    real_cpu = argc > 1 && argv[1] != NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&alternate, NULL);
    catch_all((void *)reporting);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        run(cases[i].name, cases[i].begin, cases[i].end);
    for (unsigned i = 0; real_cpu && i < sizeof real_cpu_cases / sizeof *real_cpu_cases; i++)
        run(real_cpu_cases[i].name, real_cpu_cases[i].begin, real_cpu_cases[i].end);
    sticky();
    single_steps();
    fatal_traps();
    segments();
    return 0;
}
