// Who waits for a userfaultfd's handler, and what ends the wait: `userfault_waits CASE`. Prints the same in the guest and on Linux, but
// for lines that start with `~ `.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 8UL

static int uffd;
static char *area;
static char contents[PAGE] __attribute__((aligned(4096)));

// A userfaultfd of this process, and memory that it serves.
static void open_area(unsigned long mode) {
    struct uffdio_api api = {.api = UFFD_API};
    uffd = syscall(SYS_userfaultfd, O_NONBLOCK);
    area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register argument = {.range = {(unsigned long)area, PAGES * PAGE}, .mode = mode};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &argument)) {
        printf("no userfaultfd: %d\n", errno);
        exit(1);
    }
    memset(contents, 'c', PAGE);
}

// The page of the next message, -1 if none comes in time.
static long next_message(int timeout_ms) {
    struct pollfd polled = {.fd = uffd, .events = POLLIN};
    struct uffd_msg message;
    if (poll(&polled, 1, timeout_ms) != 1 || read(uffd, &message, sizeof message) != sizeof message)
        return -1;
    return (message.arg.pagefault.address - (unsigned long)area) / PAGE;
}

static int answer(unsigned long page) {
    struct uffdio_copy copy = {.dst = (unsigned long)area + page * PAGE, .src = (unsigned long)contents, .len = PAGE};
    return ioctl(uffd, UFFDIO_COPY, &copy) ? errno : 0;
}

static void wake(unsigned long page) {
    struct uffdio_range range = {(unsigned long)area + page * PAGE, PAGE};
    ioctl(uffd, UFFDIO_WAKE, &range);
}

static long now_ms(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static volatile int handled, handler_before_page, touched, result_errno, tid;
static volatile long result;
static volatile char value;
static volatile unsigned long page_to_touch;

static void on_usr1(int signal) {
    (void)signal;
    handled++;
    handler_before_page = !touched;
}

static void *toucher(void *unused) {
    (void)unused;
    tid = syscall(SYS_gettid);
    value = area[page_to_touch * PAGE];
    touched = 1;
    return NULL;
}

static int pipe_ends[2];

static void *reader(void *unused) {
    (void)unused;
    tid = syscall(SYS_gettid);
    result = read(pipe_ends[0], area + page_to_touch * PAGE, 100);
    result_errno = result < 0 ? errno : 0;
    touched = 1;
    return NULL;
}

static pthread_t begin(void *(*what)(void *), unsigned long page) {
    pthread_t thread;
    touched = handled = tid = 0;
    page_to_touch = page;
    pthread_create(&thread, NULL, what, NULL);
    return thread;
}

static void catch(int signal, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(signal, &action, NULL);
}

// A wait of user code ends for a signal, whose handler runs; then the access is made again.
static void case_signal(void) {
    open_area(UFFDIO_REGISTER_MODE_MISSING);
    catch(SIGUSR1, on_usr1);
    pthread_t thread = begin(toucher, 1);
    printf("fault on page %ld\n", next_message(10000));
    for (int i = 1; i <= 3; i++) {
        pthread_kill(thread, SIGUSR1);
        printf("signal %d: fault on page %ld again\n", i, next_message(10000));
        printf("handler ran %d times, before the page: %d\n", handled, handler_before_page);
    }
    printf("answer: %d\n", answer(1));
    pthread_join(thread, NULL);
    printf("value %c, messages left: %ld\n", value, next_message(0));
    // A blocked signal does not end it.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    thread = begin(toucher, 2);
    printf("fault on page %ld\n", next_message(10000));
    pthread_kill(thread, SIGUSR1);
    printf("blocked: fault again: %ld, handled %d\n", next_message(100), handled);
    answer(2);
    pthread_join(thread, NULL);
    printf("value %c\n", value);
}

// A wait of a system call goes on with a caught signal pending, asleep.
static void case_kernel(void) {
    open_area(UFFDIO_REGISTER_MODE_MISSING);
    catch(SIGUSR1, on_usr1);
    pipe(pipe_ends);
    write(pipe_ends[1], contents, 50);
    pthread_t thread = begin(reader, 1);
    clockid_t clock;
    pthread_getcpuclockid(thread, &clock);
    printf("fault on page %ld\n", next_message(10000));
    pthread_kill(thread, SIGUSR1);
    long before = now_ms(clock);
    struct timespec second = {.tv_sec = 1};
    nanosleep(&second, NULL);
    long spent = now_ms(clock) - before;
    printf("after a second: handled %d, returned %d\n", handled, touched);
    printf("~ CPU time of the waiting thread: %ld ms\n", spent);
    printf("answer: %d\n", answer(1));
    pthread_join(thread, NULL);
    printf("read gave %ld bytes, error %d; handled %d\n", result, result_errno, handled);
    printf("value %c\n", area[PAGE]);
}

static const char *ending(int status) {
    static char text[32];
    if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
    else if (WIFSTOPPED(status))
        snprintf(text, sizeof text, "stopped by %d", WSTOPSIG(status));
    else
        snprintf(text, sizeof text, "status %d", WEXITSTATUS(status));
    return text;
}

// Runs `what` in a child, kills it with `signal` when its fault has been read (or queued, with `unread`), and says how soon it ended.
static void kill_in(const char *name, void (*what)(void), int signal, int unread) {
    int told[2];
    pipe(told);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        open_area(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
        pipe(pipe_ends);
        write(pipe_ends[1], contents, 50);
        pid_t manager = fork();
        if (manager == 0) {
            struct pollfd polled = {.fd = uffd, .events = POLLIN};
            if (unread)
                poll(&polled, 1, 10000);
            else
                next_message(10000);
            write(told[1], "x", 1);
            _exit(0);
        }
        close(told[1]);
        what();
        _exit(77);
    }
    close(told[1]);
    char byte;
    read(told[0], &byte, 1);
    close(told[0]);
    usleep(20000);
    long start = now_ms(CLOCK_MONOTONIC);
    kill(child, signal);
    int status;
    waitpid(child, &status, 0);
    long took = now_ms(CLOCK_MONOTONIC) - start;
    printf("%s: %s, soon: %d\n", name, ending(status), took < 2000);
}

static void in_access(void) { value = area[0]; }
static void in_write(void) { area[0] = 1; }
static void in_read(void) { read(pipe_ends[0], area, 100); }
static void in_statfs(void) { fstatfs(pipe_ends[0], (struct statfs *)area); }
static void in_protected(void) {
    struct uffdio_zeropage zero = {.range = {(unsigned long)area, PAGE}};
    ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
    struct uffdio_writeprotect protect = {.range = {(unsigned long)area, PAGE}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    ioctl(uffd, UFFDIO_WRITEPROTECT, &protect);
    area[0] = 1;
}
static void in_copy(void) {
    // The source of a copy is a page that nobody fills.
    struct uffdio_copy copy = {.dst = (unsigned long)area, .src = (unsigned long)area + PAGE, .len = PAGE};
    ioctl(uffd, UFFDIO_COPY, &copy);
}
static void in_thread(void) {
    begin(toucher, 1);
    begin(reader, 2);
    for (;;)
        pause();
}

static void case_kill(void) {
    kill_in("an access", in_access, SIGKILL, 0);
    kill_in("a message that nobody read", in_write, SIGKILL, 1);
    kill_in("read(2)", in_read, SIGKILL, 0);
    kill_in("fstatfs(2)", in_statfs, SIGKILL, 0);
    kill_in("fstatfs(2), unread", in_statfs, SIGKILL, 1);
    kill_in("a protected page", in_protected, SIGKILL, 0);
    kill_in("UFFDIO_COPY", in_copy, SIGKILL, 0);
    kill_in("other threads", in_thread, SIGKILL, 0);
    kill_in("SIGTERM, read(2)", in_read, SIGTERM, 0);
    kill_in("SIGTERM, an access", in_access, SIGTERM, 0);
    kill_in("SIGQUIT, an access", in_access, SIGQUIT, 0);
}

// A thread that ends does not wait for the page of the word that its end clears.
static void *end_badly(void *unused) {
    (void)unused;
    syscall(SYS_set_tid_address, area + PAGE);
    tid = syscall(SYS_gettid);
    syscall(SYS_exit, 0);
    return NULL;
}

static void case_exit(void) {
    open_area(UFFDIO_REGISTER_MODE_MISSING);
    pthread_t thread;
    pthread_create(&thread, NULL, end_badly, NULL);
    int gone = 0;
    for (int i = 0; i < 2000 && !gone; i++) {
        usleep(1000);
        gone = tid && syscall(SYS_tgkill, getpid(), tid, 0) < 0 && errno == ESRCH;
    }
    printf("the thread is gone: %d, messages: %ld\n", gone, next_message(0));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        open_area(UFFDIO_REGISTER_MODE_MISSING);
        begin(toucher, 1);
        next_message(10000);
        // The first thread's own word, with another thread that waits.
        syscall(SYS_set_tid_address, area + 2 * PAGE);
        _exit(5);
    }
    int status;
    waitpid(child, &status, 0);
    printf("a process ends with a thread waiting: %s\n", ending(status));
}

static void on_alarm(int signal) {
    (void)signal;
    handled++;
}

static void case_timer(void) {
    open_area(UFFDIO_REGISTER_MODE_MISSING);
    catch(SIGALRM, on_alarm);
    fflush(stdout);
    // The faulting thread is the first one, which gets the signals; the other one blocks them.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t thread;
    void *manager(void *unused) {
        (void)unused;
        long until = now_ms(CLOCK_MONOTONIC) + 200, messages = 0, last = 0;
        while (now_ms(CLOCK_MONOTONIC) < until)
            messages += next_message(1) >= 0;
        for (unsigned long page = 1; page < PAGES; page++)
            last |= answer(page);
        printf("~ %ld messages before the answer\n", messages);
        printf("answers: %ld, many messages: %d\n", last, messages > 10);
        return NULL;
    }
    pthread_create(&thread, NULL, manager, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    struct itimerval timer = {{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    char sum = 0;
    for (unsigned long page = 1; page < PAGES; page++)
        sum |= ((volatile char *)area)[page * PAGE];
    int ran = handled;
    memset(&timer, 0, sizeof timer);
    setitimer(ITIMER_REAL, &timer, NULL);
    pthread_join(thread, NULL);
    printf("value %c, the handler ran many times meanwhile: %d\n", sum, ran > 10);
}

// A stop signal stops a process whose access waits, and it goes on afterwards.
static void case_stop(void) {
    int told[2], go[2];
    pipe(told), pipe(go);
    pid_t child = fork();
    if (child == 0) {
        // A process group whose parents are outside the session would not be stopped by SIGTSTP.
        setpgid(0, 0);
        open_area(UFFDIO_REGISTER_MODE_MISSING);
        if (fork() == 0) {
            char byte;
            next_message(10000);
            write(told[1], "x", 1);
            read(go[0], &byte, 1);
            int error = answer(0);
            _exit(error);
        }
        in_access();
        _exit(value);
    }
    char byte;
    read(told[0], &byte, 1);
    int status;
    for (int i = 0; i < 2; i++) {
        kill(child, i == 0 ? SIGSTOP : SIGTSTP);
        waitpid(child, &status, WUNTRACED);
        printf("%s\n", ending(status));
        kill(child, SIGCONT);
        waitpid(child, &status, WCONTINUED);
        printf("continued: %d\n", WIFCONTINUED(status));
    }
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    write(go[1], "x", 1);
    usleep(50000);
    printf("stopped with its page there: %d\n", waitpid(child, &status, WNOHANG));
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    printf("%s\n", ending(status));
}

static sigjmp_buf after_fault;
static volatile int fault_signal, fault_code;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    fault_signal = signal;
    fault_code = info->si_code;
    siglongjmp(after_fault, 1);
}

static void *careful_toucher(void *unused) {
    (void)unused;
    tid = syscall(SYS_gettid);
    fault_signal = fault_code = 0;
    value = '-';
    if (sigsetjmp(after_fault, 1) == 0)
        value = area[page_to_touch * PAGE];
    touched = 1;
    return NULL;
}

static void show_access(pthread_t thread, const char *what) {
    pthread_join(thread, NULL);
    printf("%s: value %c signal %d code %d\n", what, value ? value : '0', fault_signal, fault_code);
}

static void replace_page(int signal) {
    (void)signal;
    handled++;
    char *page = area + page_to_touch * PAGE;
    mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *page = 'n';
}

static void unmap_page(int signal) {
    (void)signal;
    handled++;
    munmap(area + page_to_touch * PAGE, PAGE);
}

// What comes of a wait whose memory another thread, or a handler, changes.
static void case_mapping(void) {
    open_area(UFFDIO_REGISTER_MODE_MISSING);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    pthread_t thread = begin(careful_toucher, 0);
    next_message(10000);
    munmap(area, PAGE);
    wake(0);
    show_access(thread, "unmapped");
    thread = begin(careful_toucher, 1);
    next_message(10000);
    mprotect(area + PAGE, PAGE, PROT_NONE);
    wake(1);
    show_access(thread, "protected");
    thread = begin(careful_toucher, 2);
    next_message(10000);
    madvise(area + 2 * PAGE, PAGE, MADV_DONTNEED);
    wake(2);
    printf("dropped: asks again for page %ld\n", next_message(10000));
    answer(2);
    show_access(thread, "dropped");
    thread = begin(careful_toucher, 3);
    next_message(10000);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(area[3 * PAGE] == 0 ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    printf("forked: the child finds ordinary memory: %s, this one waits: %d\n", ending(status), !touched);
    answer(3);
    show_access(thread, "forked");
    // Signal handlers that change the memory their thread waits for.
    catch(SIGUSR1, replace_page);
    thread = begin(careful_toucher, 4);
    next_message(10000);
    pthread_kill(thread, SIGUSR1);
    show_access(thread, "replaced by a handler");
    catch(SIGUSR1, unmap_page);
    thread = begin(careful_toucher, 5);
    next_message(10000);
    pthread_kill(thread, SIGUSR1);
    show_access(thread, "unmapped by a handler");
    printf("messages left: %ld\n", next_message(0));
}

static void *mapper(void *unused) {
    (void)unused;
    for (;;) {
        char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        at[0] = 1;
        munmap(at, 4 * PAGE);
    }
    return NULL;
}

static void *waker(void *unused) {
    (void)unused;
    for (;;)
        wake(1), wake(2);
    return NULL;
}

// Faults are killed at any point of waiting, being woken and looking the area up again, while others change the address space.
static void case_relock(void) {
    int killed = 0;
    fflush(stdout);
    for (int round = 0; round < 40; round++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            open_area(UFFDIO_REGISTER_MODE_MISSING);
            pipe(pipe_ends);
            write(pipe_ends[1], contents, 50);
            pthread_create(&thread, NULL, mapper, NULL);
            pthread_create(&thread, NULL, waker, NULL);
            begin(toucher, 1);
            begin(reader, 2);
            for (;;)
                pause();
        }
        usleep(1000 + round * 700);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    printf("killed %d\n", killed);
}

// Filling obeys what the file was opened for.
static void case_unwritable(void) {
    char path[64] = "/tmp/userfault.XXXXXX";
    int made = mkstemp(path);
    ftruncate(made, PAGE);
    int fd = open(path, O_RDONLY);
    unlink(path);
    char *shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    int memory = memfd_create("m", 0);
    ftruncate(memory, PAGE);
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    char *sealed = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, open(path, O_RDONLY), 0);
    open_area(UFFDIO_REGISTER_MODE_MISSING);
    struct uffdio_register argument = {.range = {(unsigned long)sealed, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int error = ioctl(uffd, UFFDIO_REGISTER, &argument) ? errno : 0;
    printf("a memfd opened again for reading: EPERM %d\n", error == EPERM);
    struct uffdio_copy copy = {.dst = (unsigned long)sealed, .src = (unsigned long)contents, .len = PAGE};
    error = ioctl(uffd, UFFDIO_COPY, &copy) ? errno : 0;
    printf("nor can it be filled: ENOENT %d, byte %d\n", error == ENOENT, sealed[0]);
    argument.range.start = (unsigned long)shared;
    printf("a file: refused %d\n", ioctl(uffd, UFFDIO_REGISTER, &argument) != 0);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"signal", case_signal}, {"kernel", case_kernel}, {"kill", case_kill},       {"exit", case_exit},
                 {"timer", case_timer},   {"stop", case_stop},     {"mapping", case_mapping}, {"relock", case_relock},
                 {"unwritable", case_unwritable}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            printf("PASS\n");
            return 0;
        }
    return 2;
}
