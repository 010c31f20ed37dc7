// Who descends from whom, and how one hears of the other's end: process descriptors, waitid, prctl, adoption, groups, clone3, execveat.
// Prints facts that are the same on every Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, errno ? strerrorname_np(errno) : ""); } while (0)

static pid_t child_of(void (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { body(); _exit(0); }
    return pid;
}
static void pauses(void) { for (;;) pause(); }
static void exits_7(void) { _exit(7); }
static void status(const char *what, pid_t pid) {
    int s; pid_t got = waitpid(pid, &s, 0);
    printf("%s: %d %x\n", what, got == pid, s);
}

static void options(void) {
    int v; long l;
    SHOW(prctl(PR_GET_KEEPCAPS)); SHOW(prctl(PR_SET_KEEPCAPS, 1)); SHOW(prctl(PR_GET_KEEPCAPS)); SHOW(prctl(PR_SET_KEEPCAPS, 2));
    SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); SHOW(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SHOW(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0)); SHOW(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); SHOW(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SHOW(prctl(PR_GET_TIMERSLACK)); SHOW(prctl(PR_SET_TIMERSLACK, 7)); SHOW(prctl(PR_GET_TIMERSLACK));
    SHOW(prctl(PR_SET_TIMERSLACK, 0)); SHOW(prctl(PR_GET_TIMERSLACK));
    SHOW(prctl(PR_SET_PDEATHSIG, 65)); SHOW(prctl(PR_SET_PDEATHSIG, 9)); SHOW(prctl(PR_GET_PDEATHSIG, &v)); printf("%d\n", v);
    SHOW(prctl(PR_SET_PDEATHSIG, 0));
    SHOW(prctl(PR_SET_CHILD_SUBREAPER, 5)); SHOW(prctl(PR_GET_CHILD_SUBREAPER, &v)); printf("%d\n", v);
    SHOW(prctl(PR_GET_TSC, &v)); printf("%d\n", v); SHOW(prctl(PR_SET_TSC, 3));
    SHOW(prctl(PR_CAPBSET_READ, 0)); SHOW(prctl(PR_CAPBSET_READ, 41)); SHOW(prctl(PR_GET_SECCOMP));
    SHOW(prctl(PR_GET_TIMING)); SHOW(prctl(PR_SET_TIMING, 0)); SHOW(prctl(PR_SET_TIMING, 1));
    SHOW(prctl(PR_GET_DUMPABLE)); SHOW(prctl(PR_SET_DUMPABLE, 2)); SHOW(prctl(PR_SET_DUMPABLE, 0)); SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_SET_DUMPABLE, 1)); SHOW(prctl(PR_GET_TID_ADDRESS, &l)); SHOW(prctl(12345)); SHOW(prctl(PR_GET_UNALIGN, &v));
}

static void descriptors(void) {
    SHOW(syscall(SYS_pidfd_open, 0, 0)); SHOW(syscall(SYS_pidfd_open, getpid(), 1)); SHOW(syscall(SYS_pidfd_open, 999999, 0));
    int own = syscall(SYS_pidfd_open, getpid(), 0);
    SHOW(fcntl(own, F_GETFD));
    SHOW(syscall(SYS_pidfd_send_signal, own, 0, 0, 0)); SHOW(syscall(SYS_pidfd_send_signal, 1, 0, 0, 0));
    SHOW(syscall(SYS_pidfd_send_signal, own, 65, 0, 0));
    siginfo_t of_another = { .si_signo = SIGUSR1, .si_code = SI_QUEUE };
    SHOW(syscall(SYS_pidfd_send_signal, own, SIGUSR2, &of_another, 0)); SHOW(syscall(SYS_pidfd_send_signal, own, 0, 0, 3));
    pid_t child = child_of(pauses);
    int fd = syscall(SYS_pidfd_open, child, 0);
    struct pollfd p = { fd, POLLIN, 0 };
    siginfo_t info;
    SHOW(poll(&p, 1, 0));
    memset(&info, 0x55, sizeof info);
    SHOW(waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG));
    printf("%d %d %d %d\n", info.si_signo, info.si_errno, info.si_code, info.si_pid);
    SHOW(waitid(P_PIDFD, 1, &info, WEXITED | WNOHANG)); SHOW(waitid(P_PID, 0, &info, WEXITED)); SHOW(waitid(P_PID, -1, &info, WEXITED));
    SHOW(waitid(P_PGID, -1, &info, WEXITED)); SHOW(waitid(9, 1, &info, WEXITED)); SHOW(waitid(P_ALL, 1, &info, 0));
    SHOW(waitid(P_ALL, 1, &info, 64 | WEXITED)); SHOW(wait4(-1, 0, WNOWAIT, 0)); SHOW(wait4(0x80000000, 0, 0, 0));
    int v;
    SHOW(read(fd, &v, 4)); SHOW(write(fd, &v, 4));
    SHOW(syscall(SYS_pidfd_getfd, fd, 0, 1)); SHOW(syscall(SYS_pidfd_getfd, fd, 99, 0)); SHOW(syscall(SYS_pidfd_getfd, 0, 0, 0));
    int copy = syscall(SYS_pidfd_getfd, fd, 1, 0);
    printf("a copy: %d, closed on exec: %d\n", copy >= 0, fcntl(copy, F_GETFD));
    int lazy = syscall(SYS_pidfd_open, child, O_NONBLOCK);
    SHOW(waitid(P_PIDFD, lazy, &info, WEXITED) + 0 * lazy);
    SHOW(syscall(SYS_pidfd_send_signal, fd, SIGKILL, 0, 0));
    SHOW(poll(&p, 1, -1)); printf("revents %x\n", p.revents);
    SHOW(waitid(P_PIDFD, fd, &info, WEXITED | WNOWAIT));
    printf("%d %d %d %d %d\n", info.si_signo, info.si_errno, info.si_code, info.si_pid == child, info.si_status);
    SHOW(waitid(P_PIDFD, fd, &info, WEXITED)); SHOW(waitid(P_PIDFD, fd, &info, WEXITED));
    SHOW(poll(&p, 1, 0)); printf("revents %x\n", p.revents);
    SHOW(syscall(SYS_pidfd_send_signal, fd, SIGKILL, 0, 0));
}

static void *own_child(void *out) { *(pid_t *)out = child_of(exits_7); return 0; }
static char stack[65536] __attribute__((aligned(16)));
static int thread_body(void *out) { own_child(out); return 0; }

static void options_of_wait(void) {
    // A child made by another thread is not this one's own.
    pid_t child = 0;
    pid_t tid_word = 1;
    pid_t tid = clone(thread_body, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
          | CLONE_CHILD_CLEARTID, &child, 0, 0, &tid_word);
    while (__atomic_load_n(&tid_word, __ATOMIC_SEQ_CST)) sched_yield();
    // The word says that it leaves the memory; when its number is gone, its child is another thread's.
    while (!syscall(SYS_tgkill, getpid(), tid, 0)) sched_yield();
    int s;
    printf("own after the thread's end: %d", waitpid(child, &s, __WNOTHREAD) == child);
    printf(" %x\n", s);
    // Children without SIGCHLD are clones.
    signal(SIGUSR2, SIG_IGN);
    pid_t clone_child = syscall(SYS_clone, SIGUSR2, 0, 0, 0, 0);
    if (!clone_child) _exit(3);
    SHOW(waitpid(-1, &s, 0));
    printf("__WCLONE: %d", waitpid(-1, &s, __WCLONE) == clone_child); printf(" %x\n", s);
    // Stop, continue and end are three events, told once each.
    child = child_of(pauses);
    siginfo_t info;
    kill(child, SIGSTOP);
    for (int keep = 1; keep >= 0; keep--) {
        memset(&info, 0, sizeof info);
        waitid(P_PID, child, &info, WSTOPPED | (keep ? WNOWAIT : 0));
        printf("stopped: %d %d %d\n", info.si_signo, info.si_code, info.si_status);
    }
    kill(child, SIGCONT);
    memset(&info, 0, sizeof info);
    waitid(P_PID, child, &info, WCONTINUED);
    printf("continued: %d %d %d\n", info.si_signo, info.si_code, info.si_status);
    SHOW(waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG)); printf("%d\n", info.si_pid);
    kill(child, SIGTERM);
    struct rusage usage;
    memset(&usage, 0xff, sizeof usage);
    printf("wait4: %d", wait4(child, &s, 0, &usage) == child); printf(" %x %d\n", s, usage.ru_nvcsw >= 0 && usage.ru_nvcsw < 1000);
}

static int orphan_pipe[2];
static void grandchild(void) {
    int before = getppid();
    char c; close(orphan_pipe[1]);
    (void)before;
    if (read(orphan_pipe[0], &c, 1) < 0) _exit(9);
    _exit(42);
}
static void dies_before_its_child(void) { if (child_of(grandchild) < 0) _exit(1); }
static volatile sig_atomic_t got;
static void note(int n) { got = n; }
static void wants_a_signal(void) {
    struct sigaction a = { .sa_handler = note }; sigaction(SIGUSR1, &a, 0);
    sigset_t m, old; sigemptyset(&m); sigaddset(&m, SIGUSR1); sigprocmask(SIG_BLOCK, &m, &old);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    char c = 1; if (write(orphan_pipe[1], &c, 1) != 1) _exit(8);
    siginfo_t info;
    sigwaitinfo(&m, &info);
    _exit(info.si_code == SI_USER ? 11 : 12);
}
static void dies_when_told(void) {
    if (child_of(wants_a_signal) < 0) _exit(1);
    char c; if (read(orphan_pipe[0], &c, 1) != 1) _exit(1);
}

static void adoption(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (pipe(orphan_pipe)) exit(1);
    status("the middle one", child_of(dies_before_its_child));
    close(orphan_pipe[1]);
    int s; pid_t pid = wait(&s);
    printf("the orphan is ours: %d %x\n", pid > 0, s);
    close(orphan_pipe[0]);
    if (pipe(orphan_pipe)) exit(1);
    status("the middle one", child_of(dies_when_told));
    pid = wait(&s);
    printf("it was told of its parent's death: %d %x\n", pid > 0, s);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static void stopped_orphan(void) { for (;;) pause(); }
static void leader(void) {
    // A group of its own, whose member is stopped when its parent, in another group of the session, ends.
    pid_t child = child_of(stopped_orphan);
    setpgid(child, child);
    kill(child, SIGSTOP);
    int s; waitpid(child, &s, WUNTRACED);
    printf("stopped: %x\n", s); fflush(stdout);
}
static void new_session(void) { setsid(); status("the leader", child_of(leader)); }

static void groups(void) {
    SHOW(setpgid(0, -1)); SHOW(setpgid(999999, 0)); SHOW(getpgid(-1)); SHOW(getsid(999999));
    pid_t child = child_of(pauses);
    printf("a child's group: %d", setpgid(child, child)); printf(" %d\n", getpgid(child) == child);
    SHOW(setpgid(child, 999999) + 0 * child);
    kill(child, SIGKILL); status("killed", child);
    // A stopped orphaned group gets SIGHUP and SIGCONT.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    status("the session", child_of(new_session));
    int s; pid_t pid = wait(&s);
    printf("hung up: %d %x\n", pid > 0, s);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static long clone3(struct clone_args *args, size_t size) { return syscall(SYS_clone3, args, size); }

static void clones(void) {
    struct clone_args args;
    memset(&args, 0, sizeof args);
    int pidfd = -1;
    args.flags = CLONE_PIDFD; args.pidfd = (uintptr_t)&pidfd; args.exit_signal = SIGCHLD;
    fflush(stdout);
    long pid = clone3(&args, sizeof args);
    if (!pid) _exit(5);
    siginfo_t info;
    printf("pidfd: %d", waitid(P_PIDFD, pidfd, &info, WEXITED)); printf(" %d %d\n", info.si_pid == pid, info.si_status);
    close(pidfd);
    memset(&args, 0, sizeof args);
    pid_t wanted = 30000;
    args.set_tid = (uintptr_t)&wanted; args.set_tid_size = 1; args.exit_signal = SIGCHLD;
    pid = clone3(&args, sizeof args);
    if (!pid) _exit(getpid() == 30000 ? 0 : 1);
    printf("set_tid: %ld", pid); fflush(stdout); status("", pid);
    wanted = getpid(); SHOW(clone3(&args, sizeof args)); wanted = 0; SHOW(clone3(&args, sizeof args)); args.set_tid_size = 33;
    SHOW(clone3(&args, sizeof args)); args.set_tid_size = 0; SHOW(clone3(&args, sizeof args)); args.set_tid = 0;
    SHOW(clone3(&args, 63)); SHOW(clone3(&args, 5000)); args.exit_signal = 65; SHOW(clone3(&args, sizeof args)); args.exit_signal = 0;
    args.flags = CLONE_THREAD; SHOW(clone3(&args, sizeof args)); args.flags = CLONE_SIGHAND; SHOW(clone3(&args, sizeof args));
    args.flags = CLONE_PARENT; args.exit_signal = SIGCHLD; SHOW(clone3(&args, sizeof args)); args.exit_signal = 0;
    args.flags = CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM; SHOW(clone3(&args, sizeof args));
    args.flags = 0; args.stack = 4096; SHOW(clone3(&args, sizeof args)); args.stack = 0;
    // A sibling in place of a child.
    pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (!pid) {
        pid_t sibling = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (!sibling) _exit(6);
        _exit(wait(0) == -1 && errno == ECHILD ? 4 : 1);
    }
    int codes = 0, s;
    while (wait(&s) > 0) codes += WEXITSTATUS(s);
    printf("CLONE_PARENT: both are ours: %d\n", codes);
}

static volatile pid_t heard_by;
static void hear(int n) { (void)n; heard_by = gettid(); }
static const char *who(void) {
    pid_t by = heard_by; heard_by = 0;
    return by == gettid() ? "the one that forked" : by == getpid() ? "the first" : by ? "another" : "none";
}
static void stops_and_goes_on(void) { raise(SIGSTOP); }
static int is_pending(void) { sigset_t set; sigpending(&set); return sigismember(&set, SIGCHLD); }
static void *forks(void *leaves) {
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGCHLD);
    if (leaves) { *(pid_t *)leaves = child_of(pauses); return 0; }
    struct sigaction action = { .sa_handler = hear };
    sigaction(SIGCHLD, &action, 0);
    pthread_sigmask(SIG_UNBLOCK, &set, 0);
    siginfo_t info; pid_t pid = child_of(stops_and_goes_on);
    while (waitid(P_PID, pid, &info, WSTOPPED)) {}
    sched_yield(); printf("a stop is heard by %s\n", who());
    kill(pid, SIGCONT);
    while (waitid(P_PID, pid, &info, WEXITED)) {}
    sched_yield(); printf("an end is heard by %s\n", who());
    // The first blocks it, which counts for nothing.
    signal(SIGCHLD, SIG_DFL);
    pid = child_of(exits_7); waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    printf("ignored by the one that forked: pending %d\n", is_pending()); status("then", pid);
    return 0;
}

/// SIGCHLD is first for the thread whose child it is, and whether it is kept depends on that thread's mask.
static void threads_that_fork(void) {
    pthread_t thread; pid_t pid; sigset_t set; sigemptyset(&set); sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    pthread_create(&thread, 0, forks, &pid); pthread_join(thread, 0);
    kill(pid, SIGKILL); siginfo_t info; waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    printf("left behind: pending %d\n", is_pending()); status("then", pid);
    struct timespec none = { 0, 0 }; printf("taken: %d\n", sigtimedwait(&set, 0, &none) == SIGCHLD);
    pthread_create(&thread, 0, forks, 0); pthread_join(thread, 0);
    pthread_sigmask(SIG_UNBLOCK, &set, 0);
}

static void programs(char *self) {
    char *argv[] = { "x", "--leaf", 0 };
    SHOW(execve("/tmp", argv, 0)); SHOW(execve("/nonexistent", argv, 0)); SHOW(execve("", argv, 0));
    SHOW(syscall(SYS_execveat, AT_FDCWD, "x", argv, 0, 0x800)); SHOW(syscall(SYS_execveat, 99, "", argv, 0, AT_EMPTY_PATH));
    SHOW(syscall(SYS_execveat, 99, "x", argv, 0, 0)); SHOW(syscall(SYS_execveat, AT_FDCWD, "", argv, 0, 0));
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) { syscall(SYS_execveat, fd, "", argv, 0, AT_EMPTY_PATH); _exit(127); }
    status("execveat of a descriptor", pid);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--leaf")) return 17;
    options(); descriptors(); options_of_wait(); adoption(); groups(); clones(); threads_that_fork(); programs("/proc/self/exe");
    return 0;
}
