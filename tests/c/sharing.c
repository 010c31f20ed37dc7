// What children and threads share with their maker, for every way to make them, and how one ends that: clone, clone3, unshare,
// close_range, execve. Prints facts that are the same on every Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, errno ? strerrorname_np(errno) : ""); } while (0)

// System calls of a child in its maker's memory: errno there is the maker's.
static long raw(long nr, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static char stack[1 << 16] __attribute__((aligned(16)));
// Where a new task tells its end: cleared by the kernel.
static volatile int running;
static volatile int *shared;

// clone3 with a stack; the child runs `body` and ends with 0.
static long start(uint64_t flags, int exit_signal, void (*body)(void)) {
    struct clone_args args = {.flags = flags, .exit_signal = exit_signal, .child_tid = (uintptr_t)&running,
        .stack = (uintptr_t)stack, .stack_size = sizeof stack};
    if (!(flags & CLONE_VM)) args.stack = args.stack_size = 0;
    running = 1;
    long result;
    __asm__ volatile(
        "syscall\n test %%rax, %%rax\n jnz 1f\n xor %%ebp, %%ebp\n and $-16, %%rsp\n call *%[body]\n mov $60, %%eax\n xor %%edi, %%edi\n"
        "syscall\n 1:"
        : "=a"(result) : "a"(SYS_clone3), "D"(&args), "S"(sizeof args), [body] "r"(body) : "rcx", "r11", "memory");
    return result;
}
static void wait_for(long id, uint64_t flags) {
    if (flags & CLONE_THREAD) {
        while (running) syscall(SYS_futex, &running, FUTEX_WAIT, 1, 0, 0, 0);
    } else {
        int status = -1;
        if (waitpid(id, &status, __WALL) != id || status != 0) printf("wait: %x\n", status);
    }
}

static void handler(int signal) { (void)signal; shared[3]++; }
struct kernel_action { void *handler; unsigned long flags; void *restorer; unsigned long mask; };
void restore(void);
__asm__("restore: mov $15, %eax\n syscall");
static long set_handler(int signal, void *function, unsigned long flags) {
    struct kernel_action action = {function, flags | 0x04000000, (void *)restore, 0};
    return raw(SYS_rt_sigaction, signal, (long)&action, 0, 8);
}
static void *handler_of(int signal) {
    struct kernel_action action;
    raw(SYS_rt_sigaction, signal, 0, (long)&action, 8);
    return action.handler;
}

static volatile int in_memory;
static int spare;
static void changes_all(void) {
    raw(SYS_close, spare, 0, 0, 0);
    raw(SYS_chdir, (long)"/proc", 0, 0, 0);
    raw(SYS_umask, 055, 0, 0, 0);
    set_handler(SIGUSR1, handler, 0);
    in_memory = 1;
    shared[0] = raw(SYS_getpid, 0, 0, 0, 0);
    shared[1] = raw(SYS_getppid, 0, 0, 0, 0);
}
static int is_at_proc(void) { char at[64]; return !strcmp(getcwd(at, sizeof at), "/proc"); }
static void every_combination(void) {
    static const uint64_t bits[] = {CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_THREAD, CLONE_VFORK, CLONE_CLEAR_SIGHAND};
    for (int set = 0; set < 128; set++) {
        uint64_t flags = CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID;
        for (int bit = 0; bit < 7; bit++) if (set & 1 << bit) flags |= bits[bit];
        spare = open("/dev/null", O_RDONLY);
        chdir("/tmp"); umask(022); signal(SIGUSR1, SIG_DFL); in_memory = 0;
        long id = start(flags, flags & CLONE_THREAD ? 0 : SIGCHLD, changes_all);
        printf("%02x:", set);
        if (id < 0) {
            printf(" %s\n", strerrorname_np(-id));
        } else {
            wait_for(id, flags);
            printf(" files %d fs %d%d handlers %d memory %d process %d child %d\n", fcntl(spare, F_GETFD) < 0, is_at_proc(), umask(022) == 055,
                handler_of(SIGUSR1) == (void *)handler, in_memory, shared[0] == getpid(), shared[1] == getpid());
        }
        close(spare);
    }
    chdir("/tmp"); signal(SIGUSR1, SIG_DFL);
}

// Calls that are refused, and some that are not.
static void asked(const char *what, uint64_t flags, int exit_signal) {
    int pidfd = -1, number = 0;
    struct clone_args args = {.flags = flags, .exit_signal = exit_signal, .pidfd = (uintptr_t)&pidfd, .parent_tid = (uintptr_t)&number, .cgroup = 999};
    fflush(stdout);
    long id = syscall(SYS_clone3, &args, sizeof args);
    if (id == 0) _exit(0);
    printf("%s, signal %d: %s", what, exit_signal, id < 0 ? strerrorname_np(errno) : "made");
    if (id > 0) { int status; waitpid(id, &status, __WALL); printf(" %x", status); if (pidfd >= 0) close(pidfd); }
    printf("\n");
}
#define ASKED(flags, signal) asked(#flags, flags, signal)
static void refused(void) {
    // Ends are told by signals that would end this, too.
    set_handler(64, SIG_IGN, 0); signal(SIGUSR2, SIG_IGN);
    ASKED(CLONE_SIGHAND, SIGCHLD); ASKED(CLONE_THREAD, 0); ASKED(CLONE_THREAD | CLONE_VM, 0);
    ASKED(CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, SIGCHLD);
    ASKED(CLONE_SIGHAND | CLONE_VM | CLONE_CLEAR_SIGHAND, SIGCHLD); ASKED(CLONE_PARENT, SIGCHLD);
    ASKED(CLONE_DETACHED, SIGCHLD); ASKED(CLONE_DETACHED | CLONE_PIDFD, SIGCHLD); ASKED(CLONE_PIDFD, SIGCHLD);
    ASKED(CLONE_PIDFD | CLONE_PARENT_SETTID, SIGCHLD); ASKED(CLONE_UNTRACED | CLONE_PTRACE | CLONE_IO | CLONE_SYSVSEM, SIGCHLD);
    ASKED(CLONE_INTO_CGROUP, SIGCHLD); ASKED(1ull << 34, SIGCHLD); ASKED(1ull << 63, SIGCHLD); ASKED(17, 0); ASKED(0, 0); ASKED(0, 64);
    ASKED(0, 65); ASKED(0, SIGUSR2); ASKED(CLONE_FS | CLONE_NEWNS, SIGCHLD); ASKED(CLONE_FS | CLONE_NEWUSER, SIGCHLD);
    ASKED(CLONE_CLEAR_SIGHAND, SIGCHLD);
    static const unsigned long old[] = {CLONE_DETACHED, CLONE_DETACHED | CLONE_PIDFD, CLONE_PIDFD | CLONE_PARENT_SETTID, CLONE_SIGHAND,
        CLONE_THREAD, CLONE_FS | CLONE_NEWNS, CLONE_UNTRACED, CLONE_IO, CLONE_PTRACE, CLONE_FILES | CLONE_FS};
    for (unsigned n = 0; n < sizeof old / sizeof *old; n++) {
        int place = 0;
        fflush(stdout);
        long id = syscall(SYS_clone, old[n] | SIGCHLD, 0, &place, 0, 0);
        if (id == 0) _exit(0);
        printf("clone %lx: %s\n", old[n], id < 0 ? strerrorname_np(errno) : "made");
        if (id > 0) waitpid(id, 0, 0);
    }
    SHOW(syscall(SYS_setns, -1, 0)); SHOW(syscall(SYS_setns, 0, 0)); SHOW(syscall(SYS_unshare, 1)); SHOW(syscall(SYS_unshare, CLONE_VFORK));
    SHOW(syscall(SYS_unshare, CLONE_PIDFD)); SHOW(syscall(SYS_unshare, 0)); SHOW(syscall(SYS_unshare, CLONE_FILES | CLONE_FS | CLONE_SYSVSEM));
    SHOW(syscall(SYS_unshare, CLONE_THREAD)); SHOW(syscall(SYS_unshare, CLONE_SIGHAND)); SHOW(syscall(SYS_unshare, CLONE_VM));
}

// A child with the same descriptors, in memory of its own: the last one closes them.
static int ends[2], record;
static void makes_and_unmakes(void) {
    shared[0] = raw(SYS_dup, 0, 0, 0, 0);
    shared[1] = raw(SYS_close, ends[1], 0, 0, 0);
}
static void unshares_and_closes(void) {
    shared[0] = raw(SYS_unshare, CLONE_FILES, 0, 0, 0);
    raw(SYS_close, spare, 0, 0, 0);
    shared[1] = raw(SYS_fcntl, spare, F_GETFD, 0, 0);
}
static void closes_a_range(void) {
    shared[0] = raw(SYS_close_range, spare, ~0u, CLOSE_RANGE_UNSHARE, 0);
    shared[1] = raw(SYS_fcntl, spare, F_GETFD, 0, 0);
    shared[2] = raw(SYS_fcntl, 1, F_GETFD, 0, 0);
}
static void marks_a_range(void) {
    shared[0] = raw(SYS_close_range, spare, ~0u, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC, 0);
    shared[1] = raw(SYS_fcntl, spare, F_GETFD, 0, 0);
}
static void becomes_another(void) {
    static const char *const argv[] = {"self", "other", 0}, *const envp[] = {0};
    raw(SYS_fcntl, spare, F_SETFD, FD_CLOEXEC, 0);
    raw(SYS_chdir, (long)"/", 0, 0, 0);
    raw(SYS_execve, (long)"/proc/self/exe", (long)argv, (long)envp, 0);
}
// The program after execve: its descriptors are its own, its directory is still its maker's, its handlers are the default.
static int other(void) {
    close(ends[0] = open("/dev/null", O_RDONLY));
    chdir("/proc");
    printf("other: lowest %d, handler %d\n", ends[0], handler_of(SIGUSR1) != SIG_DFL);
    for (int fd = 3; fd < 20; fd++) close(fd);
    signal(SIGUSR1, SIG_IGN);
    return 0;
}
static void with_files(const char *what, uint64_t flags, void (*body)(void)) {
    fflush(stdout);
    spare = open("/dev/null", O_RDONLY);
    flags |= CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID;
    long id = start(flags, flags & CLONE_THREAD ? 0 : SIGCHLD, body);
    wait_for(id, flags);
    printf("%s: %d %d %d, here %d\n", what, shared[0], shared[1], shared[2], fcntl(spare, F_GETFD));
    close(spare);
}
static void descriptors(void) {
    const uint64_t thread = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FILES | CLONE_FS;
    shared[2] = 0;
    pipe(ends);
    with_files("child makes and unmakes", CLONE_FILES, makes_and_unmakes);
    char byte;
    printf("end of pipe: %zd, made: %d\n", read(ends[0], &byte, 1), close(shared[0]));
    close(ends[0]);
    with_files("process unshares", CLONE_FILES, unshares_and_closes);
    with_files("thread unshares", thread, unshares_and_closes);
    with_files("process closes a range", CLONE_FILES, closes_a_range);
    with_files("thread closes a range", thread, closes_a_range);
    shared[2] = 0;
    with_files("process marks a range", CLONE_FILES, marks_a_range);
    set_handler(SIGUSR1, handler, 0);
    with_files("process becomes another", CLONE_FILES | CLONE_FS | CLONE_VM | CLONE_SIGHAND, becomes_another);
    printf("at /proc %d, handler %d\n", is_at_proc(), handler_of(SIGUSR1) == (void *)handler);
    chdir("/tmp"); signal(SIGUSR1, SIG_DFL);
}

// Record locks belong to the table of descriptors.
static int lock(short type, short *found) {
    struct flock wanted = {.l_type = type, .l_whence = SEEK_SET, .l_len = 10};
    long result = raw(SYS_fcntl, record, found ? F_GETLK : F_SETLK, (long)&wanted, 0);
    if (found) *found = wanted.l_type;
    return result;
}
static void asks_and_locks(void) {
    short found = -1;
    lock(F_WRLCK, &found);
    shared[0] = found; shared[1] = lock(F_WRLCK, 0);
}
static void dups_and_closes(void) { raw(SYS_close, raw(SYS_dup, record, 0, 0, 0), 0, 0, 0); }
static void own_copy_dups_and_closes(void) { raw(SYS_unshare, CLONE_FILES, 0, 0, 0); dups_and_closes(); }
static void locks(void) {
    record = open("/tmp/sharing-record", O_RDWR | O_CREAT | O_TRUNC, 0600);
    unlink("/tmp/sharing-record");
    shared[2] = 0;
    lock(F_WRLCK, 0);
    with_files("lock of a copy", 0, asks_and_locks);
    with_files("lock of the same", CLONE_FILES, asks_and_locks);
    with_files("closed in its own", CLONE_FILES, own_copy_dups_and_closes);
    with_files("still locked", 0, asks_and_locks);
    with_files("closed in the same", CLONE_FILES, dups_and_closes);
    with_files("not locked", 0, asks_and_locks);
    close(record);
}

// Handlers of two processes that have them in common.
static void sends_itself(void) { raw(SYS_kill, raw(SYS_getpid, 0, 0, 0, 0), SIGUSR1, 0, 0); }
static void asks_to_unshare(void) {
    shared[0] = raw(SYS_unshare, CLONE_THREAD, 0, 0, 0);
    shared[1] = raw(SYS_unshare, CLONE_SIGHAND, 0, 0, 0);
    shared[2] = raw(SYS_unshare, CLONE_VM, 0, 0, 0);
}
static void handlers(void) {
    const uint64_t both = CLONE_VM | CLONE_SIGHAND;
    set_handler(SIGUSR1, handler, SA_RESETHAND);
    shared[3] = 0;
    with_files("handled once by the child", both, sends_itself);
    printf("handled %d, handler here %d\n", shared[3], handler_of(SIGUSR1) != SIG_DFL);
    set_handler(SIGUSR1, handler, 0);
    with_files("handled by the child", both, sends_itself);
    raise(SIGUSR1);
    printf("handled %d\n", shared[3]);
    set_handler(SIGUSR1, SIG_IGN, 0);
    with_files("ignored by the child", both, sends_itself);
    with_files("unshare with the same handlers", both, asks_to_unshare);
    with_files("unshare with the same memory", CLONE_VM, asks_to_unshare);
    with_files("unshare with neither", 0, asks_to_unshare);
    with_files("unshare in a thread", both | CLONE_THREAD, asks_to_unshare);
    signal(SIGUSR1, SIG_DFL);
}

// What /proc shows is the first thread's.
static void *looks_at_proc(void *first) {
    char at[64] = "";
    for (int n = 0; first && n < 5000 && readlink("/proc/self/cwd", at, sizeof at) >= 0; n++) usleep(1000);
    unshare(CLONE_FS | CLONE_FILES);
    chdir("/"); umask(0);
    memset(at, 0, sizeof at);
    printf("proc: cwd %zd %s\n", readlink("/proc/self/cwd", at, sizeof at - 1), at);
    close(spare);
    char name[64];
    sprintf(name, "/proc/self/fd/%d", spare);
    printf("proc: fd %zd\n", readlink(name, at, sizeof at));
    if (first) {
        SHOW(readlink("/proc/self/fd/0", at, sizeof at));
        SHOW(readlink("/proc/self/exe", at, sizeof at));
        fflush(stdout);
        _exit(0);
    }
    return 0;
}
static void proc(void) {
    pthread_t thread;
    spare = open("/dev/null", O_RDONLY);
    chdir("/tmp");
    pthread_create(&thread, 0, looks_at_proc, 0);
    pthread_join(thread, 0);
    printf("here: fd %d, umask %o\n", fcntl(spare, F_GETFD), umask(022));
    fflush(stdout);
    if (fork() == 0) {
        pthread_create(&thread, 0, looks_at_proc, "first");
        pthread_exit(0);
    }
    wait(0);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "other")) return other();
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    every_combination(); refused(); descriptors(); locks(); handlers(); proc();
    return 0;
}
