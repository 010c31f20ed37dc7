// userfaultfd(2): handshake, the error table of every ioctl, and what filling, protecting and mapping calls do to registered memory.
// Prints the same in the guest and on Linux. Features and ioctls are shown as far as both sides have them.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#define KNOWN_FEATURES                                                                                                       \
    (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_SIGBUS | UFFD_FEATURE_THREAD_ID |           \
     UFFD_FEATURE_EXACT_ADDRESS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED)
#define KNOWN_IOCTLS                                                                                                         \
    (1UL << _UFFDIO_API | 1UL << _UFFDIO_REGISTER | 1UL << _UFFDIO_UNREGISTER | 1UL << _UFFDIO_WAKE | 1UL << _UFFDIO_COPY | \
     1UL << _UFFDIO_ZEROPAGE | 1UL << _UFFDIO_WRITEPROTECT)
#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define WP UFFDIO_REGISTER_MODE_WP
#define BOTH (MISSING | WP)

static unsigned char pages[8 * PAGE] __attribute__((aligned(4096)));

static const char *name_of(int error) {
    static char number[16];
    switch (error) {
    case 0: return "ok";
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case ESRCH: return "ESRCH";
    case EINTR: return "EINTR";
    case EBADF: return "EBADF";
    case EAGAIN: return "EAGAIN";
    case ENOMEM: return "ENOMEM";
    case EFAULT: return "EFAULT";
    case EBUSY: return "EBUSY";
    case EEXIST: return "EEXIST";
    case EINVAL: return "EINVAL";
    case ENOTTY: return "ENOTTY";
    case ESPIPE: return "ESPIPE";
    }
    snprintf(number, sizeof number, "%d", error);
    return number;
}

static int call(long result) { return result < 0 ? errno : 0; }

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static int new_uffd(int flags) { return syscall(SYS_userfaultfd, flags); }

static int open_uffd(int flags, unsigned long features) {
    int fd = new_uffd(flags);
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
        say("no userfaultfd with features %lx: %s", features, name_of(errno));
        exit(1);
    }
    return fd;
}

static void *map(unsigned long len, int prot, int flags, int fd) {
    void *at = mmap(NULL, len, prot, flags, fd, 0);
    if (at == MAP_FAILED)
        say("mmap: %s", name_of(errno));
    return at;
}

static void *anonymous(unsigned long count) { return map(count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1); }

static int reg(int fd, void *at, unsigned long len, unsigned long mode) {
    struct uffdio_register argument = {.range = {(unsigned long)at, len}, .mode = mode};
    return call(ioctl(fd, UFFDIO_REGISTER, &argument));
}

static int unreg(int fd, void *at, unsigned long len) {
    struct uffdio_range range = {(unsigned long)at, len};
    return call(ioctl(fd, UFFDIO_UNREGISTER, &range));
}

static int wake(int fd, void *at, unsigned long len) {
    struct uffdio_range range = {(unsigned long)at, len};
    return call(ioctl(fd, UFFDIO_WAKE, &range));
}

static long last_count;

static int copy(int fd, void *dst, const void *src, unsigned long len, unsigned long mode) {
    struct uffdio_copy argument = {.dst = (unsigned long)dst, .src = (unsigned long)src, .len = len, .mode = mode, .copy = 77};
    int error = call(ioctl(fd, UFFDIO_COPY, &argument));
    last_count = argument.copy;
    return error;
}

static int zero(int fd, void *dst, unsigned long len, unsigned long mode) {
    struct uffdio_zeropage argument = {.range = {(unsigned long)dst, len}, .mode = mode, .zeropage = 77};
    int error = call(ioctl(fd, UFFDIO_ZEROPAGE, &argument));
    last_count = argument.zeropage;
    return error;
}

static int protect(int fd, void *at, unsigned long len, unsigned long mode) {
    struct uffdio_writeprotect argument = {.range = {(unsigned long)at, len}, .mode = mode};
    return call(ioctl(fd, UFFDIO_WRITEPROTECT, &argument));
}

static void show_fill(const char *what, int error) { say("%s: %s, count %ld", what, name_of(error), last_count); }

// Accesses by another thread, so that this one can answer.
struct access {
    volatile unsigned char *at;
    int write;
    unsigned char value;
    pthread_t thread;
    volatile int done;
    volatile int tid;
};

static void *do_access(void *argument) {
    struct access *access = argument;
    access->tid = syscall(SYS_gettid);
    if (access->write)
        *access->at = access->value;
    else
        access->value = *access->at;
    access->done = 1;
    return NULL;
}

static void begin(struct access *access, void *at, int write, unsigned char value) {
    *access = (struct access){.at = at, .write = write, .value = value};
    pthread_create(&access->thread, NULL, do_access, access);
}

static unsigned char finish(struct access *access) {
    pthread_join(access->thread, NULL);
    return access->value;
}

static struct uffd_msg message;

// Waits for a message and prints it relative to `base`.
static void read_message(int fd, const char *what, void *base, struct access *access) {
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    if (fcntl(fd, F_GETFL) & O_NONBLOCK)
        poll(&polled, 1, 10000);
    memset(&message, 0xa5, sizeof message);
    long got = read(fd, &message, sizeof message);
    if (got != sizeof message) {
        say("%s: no message: %s", what, name_of(call(got)));
        return;
    }
    unsigned ptid = message.arg.pagefault.feat.ptid;
    say("%s: event %x flags %llx at +%llx thread %s", what, message.event, message.arg.pagefault.flags,
        message.arg.pagefault.address - (unsigned long)base, ptid == 0 ? "none" : access && ptid == (unsigned)access->tid ? "its own" : "wrong");
    unsigned char *bytes = (unsigned char *)&message;
    int padding = 0;
    for (int i = 1; i < 8; i++)
        padding |= bytes[i];
    for (int i = 28; i < 32; i++)
        padding |= bytes[i];
    if (padding)
        say("padding is not zero");
}

static int messages_left(int fd) {
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    return poll(&polled, 1, 0);
}

static sigjmp_buf *jump;
static volatile int signal_seen, code_seen;
static void *volatile address_seen;

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)context;
    signal_seen = signal;
    code_seen = info->si_code;
    address_seen = info->si_addr;
    siglongjmp(*jump, 1);
}

static void try_access(const char *what, volatile unsigned char *at, int write) {
    sigjmp_buf here;
    jump = &here;
    if (sigsetjmp(here, 1) == 0) {
        if (write)
            *at = 9;
        unsigned char value = *at;
        say("%s: %d", what, value);
    } else {
        say("%s: signal %d code %d %s", what, signal_seen, code_seen, (void *)at == address_seen ? "at the address" : "elsewhere");
    }
}

static void creation(void) {
    say("== creation and handshake");
    say("flags 2: %s", name_of(call(new_uffd(2))));
    say("flags O_APPEND: %s", name_of(call(new_uffd(O_APPEND))));
    int fd = new_uffd(O_CLOEXEC | O_NONBLOCK);
    say("cloexec %d nonblock %d", fcntl(fd, F_GETFD), !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    struct pollfd polled = {.fd = fd, .events = POLLIN | POLLOUT};
    int ready = poll(&polled, 1, 0);
    say("poll before: %d %x", ready, polled.revents);
    say("read before: %s", name_of(call(read(fd, &message, sizeof message))));
    say("write: %s", name_of(call(write(fd, &message, sizeof message))));
    void *area = anonymous(1);
    say("register before: %s", name_of(reg(fd, area, PAGE, MISSING)));
    say("bad argument before: %s", name_of(call(ioctl(fd, UFFDIO_COPY, NULL))));
    say("api at NULL: %s", name_of(call(ioctl(fd, UFFDIO_API, NULL))));
    struct uffdio_api api = {.api = 0xab, .features = 0, .ioctls = 5};
    int error = call(ioctl(fd, UFFDIO_API, &api));
    say("wrong api: %s %llx %llx %llx", name_of(error), api.api, api.features, api.ioctls);
    api = (struct uffdio_api){.api = UFFD_API, .features = 1ULL << 40};
    error = call(ioctl(fd, UFFDIO_API, &api));
    say("unknown feature: %s %llx %llx %llx", name_of(error), api.api, api.features, api.ioctls);
    api = (struct uffdio_api){.api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID};
    error = call(ioctl(fd, UFFDIO_API, &api));
    say("handshake: %s %llx %llx %llx", name_of(error), api.api, api.features & KNOWN_FEATURES, api.ioctls & KNOWN_IOCTLS);
    api = (struct uffdio_api){.api = UFFD_API, .features = 0};
    error = call(ioctl(fd, UFFDIO_API, &api));
    say("again: %s %llx %llx %llx", name_of(error), api.api, api.features, api.ioctls);
    say("poll after: %d", poll(&polled, 1, 0));
    say("read after: %s", name_of(call(read(fd, &message, sizeof message))));
    say("short read: %s", name_of(call(read(fd, &message, sizeof message - 1))));
    say("unknown ioctl: %s", name_of(call(ioctl(fd, 0xaa33, 0))));
    say("tty ioctl: %s", name_of(call(ioctl(fd, 0x5401, &message))));
    int blocking = open_uffd(0, 0);
    polled.fd = blocking;
    ready = poll(&polled, 1, 0);
    say("poll of a blocking one: %d %x", ready, polled.revents);
    fcntl(blocking, F_SETFL, O_NONBLOCK);
    say("made nonblocking: %d", poll(&polled, 1, 0));
    close(blocking);
    char path[64], target[64] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    readlink(path, target, sizeof target - 1);
    say("its name is %s", target);
    close(fd);
    int device = open("/dev/userfaultfd", O_RDWR);
    say("the device: wrong ioctl %s, wrong flags %s", name_of(call(ioctl(device, 0xaa01, 0))), name_of(call(ioctl(device, 0xaa00, 2))));
    fd = ioctl(device, 0xaa00, O_NONBLOCK | O_CLOEXEC);
    say("makes one: %d, cloexec %d, before the handshake %s", fd >= 0, fcntl(fd, F_GETFD), name_of(reg(fd, area, PAGE, MISSING)));
    close(fd);
    close(device);
    munmap(area, PAGE);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setuid(1000);
        say("unprivileged: %s, user mode only: %s", name_of(call(new_uffd(0))), name_of(call(new_uffd(UFFD_USER_MODE_ONLY))));
        say("wrong flags first: %s", name_of(call(new_uffd(2))));
        int mine = new_uffd(UFFD_USER_MODE_ONLY);
        api = (struct uffdio_api){.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
        error = call(ioctl(mine, UFFDIO_API, &api));
        say("events of fork: %s %llx", name_of(error), api.api);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void registration(void) {
    say("== register, unregister, wake");
    int fd = open_uffd(O_NONBLOCK, 0), other = open_uffd(O_NONBLOCK, 0);
    char *area = anonymous(16);
    munmap(area + 12 * PAGE, 4 * PAGE);
    say("NULL: %s", name_of(call(ioctl(fd, UFFDIO_REGISTER, NULL))));
    say("mode 0: %s", name_of(reg(fd, area, PAGE, 0)));
    say("mode 8: %s", name_of(reg(fd, area, PAGE, 8)));
    say("minor: %s", name_of(reg(fd, area, PAGE, 4)));
    say("unaligned start: %s", name_of(reg(fd, area + 1, PAGE, MISSING)));
    say("unaligned length: %s", name_of(reg(fd, area, PAGE + 1, MISSING)));
    say("no length: %s", name_of(reg(fd, area, 0, MISSING)));
    say("low address: %s", name_of(reg(fd, (void *)PAGE, PAGE, MISSING)));
    say("end of memory: %s", name_of(reg(fd, (void *)0x7ffffffff000, PAGE, MISSING)));
    say("across the end: %s", name_of(reg(fd, area, 0x7ffffffff000, MISSING)));
    say("wrapping: %s", name_of(reg(fd, area, -PAGE, MISSING)));
    say("kernel address: %s", name_of(reg(fd, (void *)0xffff800000000000, PAGE, MISSING)));
    say("a hole: %s", name_of(reg(fd, area + 12 * PAGE, PAGE, MISSING)));
    say("across a hole: %s", name_of(reg(fd, area + 10 * PAGE, 4 * PAGE, MISSING)));
    struct uffdio_register argument = {.range = {(unsigned long)area, PAGE}, .mode = MISSING};
    int error = call(ioctl(fd, UFFDIO_REGISTER, &argument));
    say("missing: %s ioctls %llx", name_of(error), argument.ioctls & KNOWN_IOCTLS);
    argument.mode = BOTH;
    error = call(ioctl(fd, UFFDIO_REGISTER, &argument));
    say("both: %s ioctls %llx", name_of(error), argument.ioctls & KNOWN_IOCTLS);
    argument.mode = WP;
    error = call(ioctl(fd, UFFDIO_REGISTER, &argument));
    say("protect: %s ioctls %llx", name_of(error), argument.ioctls & KNOWN_IOCTLS);
    say("of another: %s", name_of(reg(other, area, PAGE, MISSING)));
    say("reaching another's: %s", name_of(reg(other, area, 3 * PAGE, MISSING)));
    say("beside it: %s", name_of(reg(other, area + 4 * PAGE, PAGE, MISSING)));
    say("unregister another's: %s", name_of(unreg(fd, area + 4 * PAGE, PAGE)));
    say("unregister across both: %s", name_of(unreg(fd, area, 8 * PAGE)));
    say("unregister what is not: %s", name_of(unreg(fd, area + 6 * PAGE, PAGE)));
    say("unregister a hole: %s", name_of(unreg(fd, area + 13 * PAGE, PAGE)));
    say("unregister unaligned: %s", name_of(unreg(fd, area + 1, PAGE)));
    say("unregister nothing: %s", name_of(unreg(fd, area, 0)));
    say("unregister NULL: %s", name_of(call(ioctl(fd, UFFDIO_UNREGISTER, NULL))));
    close(other);
    say("after its close: %s", name_of(reg(fd, area, 8 * PAGE, MISSING)));
    say("wake: %s", name_of(wake(fd, area, PAGE)));
    say("wake anywhere: %s", name_of(wake(fd, area + 13 * PAGE, PAGE)));
    say("wake unaligned: %s", name_of(wake(fd, area + 1, PAGE)));
    say("wake nothing: %s", name_of(wake(fd, area, 0)));
    say("wake NULL: %s", name_of(call(ioctl(fd, UFFDIO_WAKE, NULL))));
    // Kinds of memory.
    int file = open("/proc/self/exe", O_RDONLY);
    char *mapped = map(PAGE, PROT_READ, MAP_PRIVATE, file);
    say("a file: %s", name_of(reg(fd, mapped, PAGE, MISSING)));
    say("unregister a file: %s", name_of(unreg(fd, mapped, PAGE)));
    say("before a file: %s", name_of(reg(fd, mapped, PAGE, WP)));
    int memory = memfd_create("m", 0);
    ftruncate(memory, 4 * PAGE);
    char *shared = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory), *private = map(PAGE, PROT_READ, MAP_PRIVATE, memory);
    say("a memfd: shared %s private %s", name_of(reg(fd, shared, PAGE, BOTH)), name_of(reg(fd, private, PAGE, BOTH)));
    char path[64];
    snprintf(path, sizeof path, "/tmp/userfault.%d", (int)getpid());
    int made = open(path, O_RDWR | O_CREAT, 0600);
    ftruncate(made, PAGE);
    int read_only = open(path, O_RDONLY);
    char *unwritable = map(PAGE, PROT_READ, MAP_SHARED, memory);
    say("read only, of a writable file: %s", name_of(reg(fd, unwritable, PAGE, MISSING)));
    char memory_path[64];
    snprintf(memory_path, sizeof memory_path, "/proc/self/fd/%d", memory);
    int memory_read_only = open(memory_path, O_RDONLY);
    char *never = map(PAGE, PROT_READ, MAP_SHARED, memory_read_only);
    say("of a file opened read only: %s", name_of(reg(fd, never, PAGE, MISSING)));
    say("the same private: %s", name_of(reg(fd, map(PAGE, PROT_READ, MAP_PRIVATE, memory_read_only), PAGE, MISSING)));
    char *anywhere = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    say("shared memory: %s", name_of(reg(fd, anywhere, PAGE, BOTH)));
    say("nobody's memory: %s", name_of(reg(fd, map(PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1), PAGE, MISSING)));
    int local;
    say("the stack: %s", name_of(reg(fd, (void *)((unsigned long)&local & -PAGE), PAGE, WP)));
    say("and back: %s", name_of(unreg(fd, (void *)((unsigned long)&local & -PAGE), PAGE)));
    unlink(path);
    close(made), close(read_only), close(file), close(memory), close(memory_read_only);
    close(fd);
}

static void filling(void) {
    say("== copy and zeropage");
    int fd = open_uffd(O_NONBLOCK, 0);
    char *area = anonymous(16);
    for (unsigned long i = 0; i < sizeof pages; i++)
        pages[i] = i / PAGE + 1;
    say("NULL: %s %s", name_of(call(ioctl(fd, UFFDIO_COPY, NULL))), name_of(call(ioctl(fd, UFFDIO_ZEROPAGE, NULL))));
    show_fill("not registered", copy(fd, area, pages, PAGE, 0));
    reg(fd, area, 8 * PAGE, MISSING);
    show_fill("no length", copy(fd, area, pages, 0, 0));
    show_fill("odd length", copy(fd, area, pages, 100, 0));
    show_fill("unaligned target", copy(fd, area + 8, pages, PAGE, 0));
    show_fill("low source", copy(fd, area, (void *)0, PAGE, 0));
    show_fill("kernel source", copy(fd, area, (void *)0xffff800000000000, PAGE, 0));
    show_fill("low target", copy(fd, (void *)0, pages, PAGE, 0));
    show_fill("mode 4", copy(fd, area, pages, PAGE, 4));
    show_fill("protected where it is not registered for that", copy(fd, area, pages, PAGE, UFFDIO_COPY_MODE_WP));
    show_fill("bad source", copy(fd, area, (void *)0x200000000000, PAGE, 0));
    show_fill("beyond the area", copy(fd, area + 7 * PAGE, pages, 2 * PAGE, 0));
    show_fill("unaligned source", copy(fd, area, pages + 8, PAGE, 0));
    say("which gave %d %d", area[0], area[PAGE - 1]);
    show_fill("again", copy(fd, area, pages, PAGE, 0));
    show_fill("again from a bad source", copy(fd, area, (void *)0x200000000000, PAGE, 0));
    show_fill("two pages", copy(fd, area + 3 * PAGE, pages + 2 * PAGE, 2 * PAGE, 0));
    show_fill("one before those", copy(fd, area + 2 * PAGE, pages, 2 * PAGE, 0));
    say("which gave %d %d %d", area[2 * PAGE], area[3 * PAGE], area[4 * PAGE]);
    char *edge = anonymous(2);
    edge[0] = 42;
    munmap(edge + PAGE, PAGE);
    show_fill("a source that ends", copy(fd, area + 5 * PAGE, edge, 2 * PAGE, 0));
    say("which gave %d", area[5 * PAGE]);
    show_fill("a source that nobody has touched", copy(fd, area + 6 * PAGE, anonymous(1), PAGE, 0));
    show_fill("zeros there", zero(fd, area + 6 * PAGE, PAGE, 0));
    show_fill("zeros", zero(fd, area + 7 * PAGE, PAGE, 0));
    show_fill("zeros beyond", zero(fd, area + 8 * PAGE, PAGE, 0));
    show_fill("zeros, odd", zero(fd, area + 7 * PAGE, 5, 0));
    show_fill("zeros, mode 2", zero(fd, area + 7 * PAGE, PAGE, 2));
    show_fill("zeros, none", zero(fd, area + 7 * PAGE, 0, 0));
    area[7 * PAGE] = 5;
    say("writable: %d", area[7 * PAGE]);
    // Areas that nobody may write to, or touch.
    char *quiet = map(4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    reg(fd, quiet, 4 * PAGE, MISSING);
    show_fill("into memory that can be read", copy(fd, quiet, pages, PAGE, 0));
    try_access("reading it", (void *)quiet, 0);
    try_access("writing it", (void *)quiet, 1);
    mprotect(quiet, 4 * PAGE, PROT_NONE);
    show_fill("into nobody's", copy(fd, quiet + PAGE, pages, PAGE, 0));
    show_fill("zeros into nobody's", zero(fd, quiet + 2 * PAGE, PAGE, 0));
    try_access("touching that", (void *)(quiet + PAGE), 0);
    mprotect(quiet, 4 * PAGE, PROT_READ | PROT_WRITE);
    try_access("made accessible", (void *)(quiet + PAGE), 1);
    try_access("the zeros", (void *)(quiet + 2 * PAGE), 1);
    // Another context of the same process.
    int other = open_uffd(O_NONBLOCK, 0);
    show_fill("through another userfaultfd", copy(other, quiet + 3 * PAGE, pages, PAGE, 0));
    close(other);
    // Files in memory.
    int memory = memfd_create("m", 0);
    ftruncate(memory, 4 * PAGE);
    char *shared = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory), *view = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory);
    char *private = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory);
    say("register: %s %s", name_of(reg(fd, shared, 8 * PAGE, MISSING)), name_of(reg(fd, private, 8 * PAGE, MISSING)));
    show_fill("shared", copy(fd, shared, pages + 3 * PAGE, PAGE, 0));
    say("seen through another mapping: %d", view[0]);
    view[PAGE] = 33;
    show_fill("a page that is in the file", copy(fd, shared + PAGE, pages, PAGE, 0));
    say("which is read without asking: %d", shared[PAGE]);
    show_fill("zeros", zero(fd, shared + 2 * PAGE, PAGE, 0));
    view[2 * PAGE] = 44;
    say("are shared too: %d", shared[2 * PAGE]);
    show_fill("past the end", copy(fd, shared + 4 * PAGE, pages, PAGE, 0));
    show_fill("zeros past the end", zero(fd, shared + 4 * PAGE, PAGE, 0));
    show_fill("up to the end", copy(fd, shared + 3 * PAGE, pages, 2 * PAGE, 0));
    try_access("touching past the end", (void *)(shared + 5 * PAGE), 0);
    show_fill("private, in the file", copy(fd, private + PAGE, pages + 5 * PAGE, PAGE, 0));
    say("which does not reach it: %d %d", private[PAGE], view[PAGE]);
    show_fill("private zeros", zero(fd, private + 2 * PAGE, PAGE, 0));
    say("%d, and the file has %d", private[2 * PAGE], view[2 * PAGE]);
    show_fill("private past the end", copy(fd, private + 5 * PAGE, pages, PAGE, 0));
    show_fill("private zeros past the end", zero(fd, private + 5 * PAGE, PAGE, 0));
    unsigned char byte = 0;
    pread(memory, &byte, 1, 3 * PAGE);
    say("read(2) gives %d", byte);
    close(memory);
    close(fd);
    say("after the close: %d %d", area[6 * PAGE], shared[0]);
}

static void faults(void) {
    say("== faults");
    int fd = open_uffd(O_NONBLOCK, UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EXACT_ADDRESS);
    char *area = anonymous(16);
    reg(fd, area, 16 * PAGE, MISSING);
    struct access first, second;
    begin(&first, area + 5, 0, 0);
    read_message(fd, "a read", area, &first);
    copy(fd, area, pages + PAGE, PAGE, 0);
    say("gives %d", finish(&first));
    begin(&first, area + PAGE + 7, 1, 8);
    read_message(fd, "a write", area, &first);
    zero(fd, area + PAGE, PAGE, 0);
    finish(&first);
    say("gives %d %d", area[PAGE + 7], area[PAGE + 8]);
    begin(&first, area + 2 * PAGE, 0, 0);
    read_message(fd, "unanswered", area, &first);
    say("nothing is left to be read: %d", messages_left(fd));
    wake(fd, area + 2 * PAGE, PAGE);
    read_message(fd, "woken without a page it asks again", area, &first);
    copy(fd, area + 2 * PAGE, pages, PAGE, UFFDIO_COPY_MODE_DONTWAKE);
    usleep(20000);
    say("not woken: %d", first.done);
    wake(fd, area + 2 * PAGE, PAGE);
    say("woken: %d", finish(&first));
    begin(&first, area + 3 * PAGE, 0, 0);
    read_message(fd, "one of two", area, &first);
    begin(&second, area + 3 * PAGE + 9, 1, 9);
    read_message(fd, "the other", area, &second);
    copy(fd, area + 3 * PAGE, pages + 2 * PAGE, PAGE, 0);
    finish(&first), finish(&second);
    say("both go on: %d %d, %d", first.value, second.value, area[3 * PAGE + 9]);
    begin(&first, area + 4 * PAGE, 0, 0);
    while (!messages_left(fd))
        usleep(1000);
    say("unregister: %s", name_of(unreg(fd, area + 4 * PAGE, PAGE)));
    finish(&first);
    say("its waiter finds %d, its message is gone: %d", first.value, messages_left(fd));
    begin(&first, area + 5 * PAGE, 1, 3);
    read_message(fd, "a wait that ends with the mapping", area, &first);
    mmap(area + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    usleep(20000);
    say("a new mapping wakes nobody: %d", first.done);
    wake(fd, area + 5 * PAGE, PAGE);
    finish(&first);
    say("woken it writes there: %d", area[5 * PAGE]);
    // Two messages with one read.
    begin(&first, area + 6 * PAGE, 0, 0);
    while (!messages_left(fd))
        usleep(1000);
    begin(&second, area + 7 * PAGE, 0, 0);
    while (!second.tid)
        usleep(1000);
    usleep(20000);
    struct uffd_msg two[3];
    say("one read gets both: %zd", read(fd, two, sizeof two - 1) / (ssize_t)sizeof two[0]);
    say("in order: %llx %llx", two[0].arg.pagefault.address - (unsigned long)area, two[1].arg.pagefault.address - (unsigned long)area);
    show_fill("one copy for both", copy(fd, area + 6 * PAGE, pages + 3 * PAGE, 2 * PAGE, 0));
    say("%d %d", finish(&first), finish(&second));
    begin(&first, area + 8 * PAGE, 0, 0);
    while (!messages_left(fd))
        usleep(1000);
    say("read to a bad address: %s, and the message is gone: %d", name_of(call(syscall(SYS_read, fd, 8, 64))), messages_left(fd));
    close(fd);
    say("close lets it go on: %d", finish(&first));
    // Without EXACT_ADDRESS and THREAD_ID.
    fd = open_uffd(0, 0);
    area = anonymous(4);
    reg(fd, area, 4 * PAGE, MISSING);
    begin(&first, area + 77, 1, 1);
    read_message(fd, "plain", area, &first);
    zero(fd, area, PAGE, 0);
    finish(&first);
    // System calls.
    int ends[2];
    pipe(ends);
    write(ends[1], "x", 1);
    struct pollfd polled = {.fd = ends[0], .events = POLLIN};
    (void)polled;
    close(fd);
    fd = open_uffd(UFFD_USER_MODE_ONLY, 0);
    area = anonymous(4);
    reg(fd, area, 4 * PAGE, MISSING);
    say("user mode only: a read(2) into it: %s", name_of(call(read(ends[0], area, 1))));
    say("the byte is still there: %d", poll(&polled, 1, 0));
    close(fd);
    fd = open_uffd(O_NONBLOCK, UFFD_FEATURE_SIGBUS);
    area = anonymous(4);
    reg(fd, area, 4 * PAGE, MISSING);
    try_access("feature SIGBUS", (void *)(area + 3), 0);
    try_access("writing", (void *)(area + 3), 1);
    say("no message: %d", messages_left(fd));
    say("a read(2) into it: %s", name_of(call(read(ends[0], area, 1))));
    copy(fd, area, pages, PAGE, 0);
    try_access("filled", (void *)(area + 3), 0);
    close(fd);
}

static void protection(unsigned long features, const char *what) {
    say("== write protection, %s", what);
    int fd = open_uffd(O_NONBLOCK, features);
    char *area = anonymous(16);
    area[0] = 1, area[PAGE] = 2;
    struct access access;
    say("not registered: %s", name_of(protect(fd, area, PAGE, 1)));
    reg(fd, area + 12 * PAGE, PAGE, MISSING);
    say("registered for missing pages: %s", name_of(protect(fd, area + 12 * PAGE, PAGE, 1)));
    reg(fd, area, 8 * PAGE, WP);
    say("unaligned: %s", name_of(protect(fd, area + 1, PAGE, 1)));
    say("nothing: %s", name_of(protect(fd, area, 0, 1)));
    say("mode 4: %s", name_of(protect(fd, area, PAGE, 4)));
    say("protect and do not wake: %s", name_of(protect(fd, area, PAGE, 3)));
    say("partly: %s", name_of(protect(fd, area, 10 * PAGE, 1)));
    say("NULL: %s", name_of(call(ioctl(fd, UFFDIO_WRITEPROTECT, NULL))));
    say("the first page reads %d", area[0]);
    begin(&access, area + 3, 1, 4);
    read_message(fd, "a write", area, &access);
    say("not done: %d", access.done);
    say("unprotect: %s", name_of(protect(fd, area, PAGE, 0)));
    finish(&access);
    say("done: %d %d", area[0], area[3]);
    area[3] = 5;
    say("and again without asking: %d", area[3]);
    begin(&access, area + PAGE, 1, 6);
    read_message(fd, "the second page", area, &access);
    protect(fd, area + PAGE, PAGE, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
    usleep(20000);
    say("not woken: %d", access.done);
    wake(fd, area + PAGE, PAGE);
    finish(&access);
    say("woken: %d", area[PAGE]);
    // A page that nobody had touched.
    begin(&access, area + 2 * PAGE, 1, 7);
    if (features & UFFD_FEATURE_WP_UNPOPULATED) {
        read_message(fd, "an untouched page", area, &access);
        protect(fd, area + 2 * PAGE, PAGE, 0);
    }
    finish(&access);
    say("untouched: %d, messages %d", area[2 * PAGE], messages_left(fd));
    say("reading one: %d", area[4 * PAGE]);
    begin(&access, area + 4 * PAGE, 1, 8);
    if (features & UFFD_FEATURE_WP_UNPOPULATED) {
        read_message(fd, "a page that was only read", area, &access);
        protect(fd, area + 4 * PAGE, PAGE, 0);
    }
    finish(&access);
    // A page read first and protected then: the zero page.
    say("zero page: %d", area[5 * PAGE]);
    protect(fd, area + 5 * PAGE, PAGE, 1);
    begin(&access, area + 5 * PAGE + 1, 1, 9);
    read_message(fd, "the zero page", area, &access);
    protect(fd, area + 5 * PAGE, PAGE, 0);
    finish(&access);
    say("written: %d %d", area[5 * PAGE], area[5 * PAGE + 1]);
    // mprotect(2) does not lift it; MADV_DONTNEED does.
    protect(fd, area, 8 * PAGE, 1);
    mprotect(area, 8 * PAGE, PROT_READ);
    try_access("read only", (void *)area, 1);
    mprotect(area, 8 * PAGE, PROT_READ | PROT_WRITE);
    begin(&access, area, 1, 11);
    read_message(fd, "after mprotect", area, &access);
    protect(fd, area, PAGE, 0);
    finish(&access);
    madvise(area, 8 * PAGE, MADV_DONTNEED);
    area[PAGE] = 12;
    say("after MADV_DONTNEED: %d, messages %d", area[PAGE], messages_left(fd));
    // Fork: the child's pages are its own and not protected.
    protect(fd, area, 8 * PAGE, 1);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        area[PAGE] = 13;
        area[6 * PAGE] = 14;
        say("the child writes %d %d, messages %d", area[PAGE], area[6 * PAGE], messages_left(fd));
        say("and cannot protect its own: the parent's is meant: %s", name_of(protect(fd, area, PAGE, 1)));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    begin(&access, area + PAGE, 1, 15);
    read_message(fd, "the parent asks", area, &access);
    protect(fd, area + PAGE, PAGE, 0);
    finish(&access);
    say("parent: %d", area[PAGE]);
    // Registered for both: a copy that is protected.
    char *both = anonymous(8);
    reg(fd, both, 8 * PAGE, BOTH);
    begin(&access, both + 1, 1, 3);
    read_message(fd, "missing first", both, &access);
    copy(fd, both, pages, PAGE, UFFDIO_COPY_MODE_WP);
    read_message(fd, "then protected", both, &access);
    protect(fd, both, PAGE, 0);
    finish(&access);
    say("%d %d", both[0], both[1]);
    protect(fd, both + PAGE, PAGE, 1);
    show_fill("zeros on a marked page", zero(fd, both + PAGE, PAGE, 0));
    protect(fd, both + 2 * PAGE, PAGE, 1);
    begin(&access, both + 2 * PAGE, 1, 3);
    read_message(fd, "a marked page is missing", both, &access);
    show_fill("copy on a marked page", copy(fd, both + 2 * PAGE, pages, PAGE, 0));
    finish(&access);
    say("which is not protected then: %d", both[2 * PAGE]);
    // Unregister and register again.
    protect(fd, both, PAGE, 1);
    say("unregister: %s", name_of(unreg(fd, both, 8 * PAGE)));
    both[0] = 21;
    say("ordinary memory: %d", both[0]);
    reg(fd, both, 8 * PAGE, WP);
    both[0] = 22;
    say("registered again, not protected: %d, messages %d", both[0], messages_left(fd));
    protect(fd, both, PAGE, 1);
    close(fd);
    both[0] = 23;
    say("closed: %d", both[0]);
}

static void shared_protection(void) {
    say("== write protection of a file in memory");
    int fd = open_uffd(O_NONBLOCK, 0);
    int memory = memfd_create("m", 0);
    ftruncate(memory, 8 * PAGE);
    char *shared = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory), *view = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory);
    struct access access;
    shared[0] = 1;
    reg(fd, shared, 8 * PAGE, WP);
    say("protect: %s", name_of(protect(fd, shared, 8 * PAGE, 1)));
    view[0] = 2;
    say("another mapping is free: %d", shared[0]);
    begin(&access, shared, 1, 3);
    read_message(fd, "a page that is mapped", shared, &access);
    protect(fd, shared, PAGE, 0);
    finish(&access);
    shared[1] = 4;
    say("%d %d", view[0], view[1]);
    begin(&access, shared + PAGE, 1, 5);
    read_message(fd, "a page that is not there", shared, &access);
    protect(fd, shared + PAGE, PAGE, 0);
    finish(&access);
    view[2 * PAGE] = 6;
    say("a page that came by another way: %d", shared[2 * PAGE]);
    begin(&access, shared + 2 * PAGE, 1, 7);
    read_message(fd, "is protected", shared, &access);
    protect(fd, shared + 2 * PAGE, PAGE, 0);
    finish(&access);
    protect(fd, shared, 8 * PAGE, 1);
    madvise(shared, 8 * PAGE, MADV_DONTNEED);
    say("after MADV_DONTNEED: %d", shared[2 * PAGE]);
    begin(&access, shared + 2 * PAGE, 1, 8);
    read_message(fd, "still protected", shared, &access);
    protect(fd, shared + 2 * PAGE, PAGE, 0);
    finish(&access);
    say("%d", view[2 * PAGE]);
    char *private = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory);
    reg(fd, private, 8 * PAGE, WP);
    protect(fd, private, 8 * PAGE, 1);
    begin(&access, private + 2 * PAGE, 1, 9);
    read_message(fd, "a private mapping", private, &access);
    protect(fd, private + 2 * PAGE, PAGE, 0);
    finish(&access);
    say("%d %d", private[2 * PAGE], view[2 * PAGE]);
    close(fd), close(memory);
}

static int same_area(void *a, void *b) {
    // Whether one line of maps covers both.
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int same = -1;
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= (unsigned long)a && (unsigned long)a < end)
            same = (unsigned long)b < end;
    }
    fclose(maps);
    return same;
}

static void areas(void) {
    say("== areas");
    int fd = open_uffd(O_NONBLOCK, 0), other = open_uffd(O_NONBLOCK, 0);
    char *area = anonymous(16);
    // A neighbour that is not touched keeps others from joining.
    say("one area: %d", same_area(area, area + 8 * PAGE));
    reg(fd, area + 4 * PAGE, 4 * PAGE, MISSING);
    say("split: %d %d %d", same_area(area, area + 4 * PAGE), same_area(area + 4 * PAGE, area + 7 * PAGE), same_area(area + 7 * PAGE, area + 8 * PAGE));
    reg(fd, area + 8 * PAGE, 2 * PAGE, MISSING);
    say("joined: %d", same_area(area + 4 * PAGE, area + 9 * PAGE));
    reg(fd, area + 8 * PAGE, 2 * PAGE, BOTH);
    say("another mode: %d", same_area(area + 4 * PAGE, area + 9 * PAGE));
    reg(fd, area + 8 * PAGE, 2 * PAGE, MISSING);
    say("a part of the mode changes nothing: %d %s", same_area(area + 4 * PAGE, area + 9 * PAGE), name_of(protect(fd, area + 8 * PAGE, PAGE, 0)));
    reg(other, area + 10 * PAGE, 2 * PAGE, BOTH);
    say("another's: %d", same_area(area + 9 * PAGE, area + 10 * PAGE));
    unreg(fd, area, 10 * PAGE);
    unreg(other, area + 10 * PAGE, 6 * PAGE);
    say("whole again: %d", same_area(area, area + 15 * PAGE));
    // mremap(2) leaves the registration behind.
    reg(fd, area, 4 * PAGE, BOTH);
    copy(fd, area, pages, PAGE, UFFDIO_COPY_MODE_WP);
    char *to = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *moved = mremap(area, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    moved[0] = 30, moved[PAGE] = 31;
    say("moved: %d %d, messages %d", moved[0], moved[PAGE], messages_left(fd));
    show_fill("not registered any more", copy(fd, moved + 2 * PAGE, pages, PAGE, 0));
    show_fill("nor the old place", copy(fd, area + 2 * PAGE, pages, PAGE, 0));
    // The process that the descriptor belongs to.
    reg(fd, area + 8 * PAGE, 4 * PAGE, MISSING);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        say("in the child: %d", area[8 * PAGE]);
        show_fill("copy goes to the parent", copy(fd, area + 9 * PAGE, pages + PAGE, PAGE, 0));
        say("and not here: %d", area[9 * PAGE]);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    say("the parent has it: %d", area[9 * PAGE]);
    int ends[2];
    pipe(ends);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        // The grandchild keeps the descriptor of a process that is gone.
        int mine = open_uffd(O_NONBLOCK, 0);
        char *lost = anonymous(1);
        reg(mine, lost, PAGE, MISSING);
        if (fork() == 0) {
            char byte;
            read(ends[0], &byte, 1);
            show_fill("its process is gone", copy(mine, lost, pages, PAGE, 0));
            show_fill("zeros", zero(mine, lost, PAGE, 0));
            say("register %s, unregister %s, protect %s, wake %s", name_of(reg(mine, lost, PAGE, MISSING)), name_of(unreg(mine, lost, PAGE)),
                name_of(protect(mine, lost, PAGE, 0)), name_of(wake(mine, lost, PAGE)));
            fflush(stdout);
        }
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(ends[0]);
    write(ends[1], "x", 1);
    close(ends[1]);
    usleep(100000);
    close(fd), close(other);
}

// Several areas at once do not move if one is registered: EFAULT, on older kernels because there are several.
static void moves(void) {
    int fd = open_uffd(O_NONBLOCK, 0);
    char *at = anonymous(8), *to = anonymous(8);
    mprotect(at + 2 * PAGE, 2 * PAGE, PROT_READ);
    reg(fd, at, 4 * PAGE, MISSING);
    static const struct { int first, pages; } parts[] = {{0, 4}, {3, 5}, {0, 2}, {3, 1}};
    for (int n = 0; n < 4; n++) {
        size_t len = parts[n].pages * PAGE;
        void *got = mremap(at + parts[n].first * PAGE, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        say("move %d pages from %d: %s", parts[n].pages, parts[n].first, got == MAP_FAILED ? name_of(errno) : "ok");
    }
    munmap(at, 8 * PAGE), munmap(to, 8 * PAGE);
    close(fd);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    creation();
    registration();
    filling();
    faults();
    protection(0, "anonymous");
    protection(UFFD_FEATURE_WP_UNPOPULATED, "anonymous and unpopulated");
    shared_protection();
    areas();
    moves();
    say("end");
    return 0;
}
