// What files and their mappings have in common: contents, truncation, holes, times, names, seals. Works in a new folder in each of the
// arguments and prints the same on every kernel and file system.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#define MFD_EXEC 16U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 32
#endif

#define PAGE 4096L
#define SHOW(call)                                                                                                     \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        long result = (long)(call);                                                                                    \
        printf("%s: %ld %s\n", #call, result, result == -1 ? strerrorname_np(errno) : "");                             \
    } while (0)
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((long)(call) == -1) {                                                                                      \
            printf("%s failed: %s\n", #call, strerror(errno));                                                         \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static char *volatile nowhere = (char *)8;
static sigjmp_buf escape;
static siginfo_t seen;

static void caught(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen = *info;
    siglongjmp(escape, signal);
}

// Reads or writes one byte; says which signal came, if one did.
static void touch(const char *what, volatile char *at, int write) {
    int signal = sigsetjmp(escape, 1);
    if (signal == 0) {
        if (write)
            *at = 'w';
        printf("%s: %d\n", what, *at);
    } else {
        printf("%s: signal %d code %d %s\n", what, signal, seen.si_code,
               seen.si_addr == (void *)at ? "there" : "elsewhere");
    }
}

static char *map(int fd, long pages, int flags, long at) {
    char *mapped = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, at);
    MUST(mapped == MAP_FAILED ? -1 : 0);
    return mapped;
}

// A new file of `pages` pages, whose bytes are 'a' and so on.
static int make(const char *name, long pages) {
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    MUST(fd);
    char page[PAGE];
    for (long n = 0; n < pages; n++) {
        memset(page, 'a' + (int)n, PAGE);
        MUST(write(fd, page, PAGE) == PAGE ? 0 : -1);
    }
    return fd;
}

static int byte_at(int fd, long at) {
    char byte = -1;
    return pread(fd, &byte, 1, at) == 1 ? byte : -1;
}

static void one_cache(void) {
    puts("-- one cache");
    int fd = make("cache", 4);
    char *first = map(fd, 4, MAP_SHARED, 0), *second = map(fd, 3, MAP_SHARED, PAGE), *private = map(fd, 4, MAP_PRIVATE, 0);
    first[PAGE + 5] = 'X';
    printf("%c %c %c\n", second[5], private[PAGE + 5], byte_at(fd, PAGE + 5));
    MUST(pwrite(fd, "YYYY", 4, 2 * PAGE - 2));
    printf("%.4s %.2s %.4s\n", first + 2 * PAGE - 2, second + PAGE, private + 2 * PAGE - 2);
    private[2 * PAGE + 1] = 'P';
    MUST(pwrite(fd, "ZZZZ", 4, 2 * PAGE));
    printf("%.4s %.2s%c %c\n", first + 2 * PAGE, private + 2 * PAGE, private[2 * PAGE + 2], byte_at(fd, 2 * PAGE + 1));
    if (fork() == 0) {
        second[2 * PAGE] = 'C';
        private[3 * PAGE] = 'C';
        _exit(0);
    }
    wait(NULL);
    printf("%c %c\n", first[3 * PAGE], private[3 * PAGE]);
    int again = open("cache", O_RDONLY);
    SHOW(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, again, 0));
    char *readable = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, again, 0);
    SHOW(mprotect(readable, PAGE, PROT_READ | PROT_WRITE));
    char *over = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, again, 0);
    over[0] = 'O';
    printf("%c %c\n", readable[0], byte_at(fd, 0));
    // A write from a mapping of the file to the file itself.
    SHOW(pwrite(fd, first + PAGE, 2 * PAGE, 0));
    printf("%c %c\n", first[5], byte_at(fd, PAGE));
    close(fd);
    close(again);
    MUST(unlink("cache"));
    printf("%c %c\n", first[5], private[2 * PAGE + 1]);
}

static void truncation(void) {
    puts("-- truncation");
    int fd = make("short", 8);
    char *shared = map(fd, 10, MAP_SHARED, 0), *private = map(fd, 10, MAP_PRIVATE, 0);
    touch("behind the end", shared + 8 * PAGE, 0);
    touch("write behind the end", private + 9 * PAGE, 1);
    for (int n = 0; n < 8; n++)
        private[n * PAGE + 7] = (char)(shared[n * PAGE + 7] + 1);
    int to_child[2], from_child[2];
    MUST(pipe(to_child));
    MUST(pipe(from_child));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char word = (char)(shared[6 * PAGE] + private[6 * PAGE]);
        MUST(write(from_child[1], &word, 1));
        MUST(read(to_child[0], &word, 1));
        touch("child, shared", shared + 6 * PAGE, 0);
        touch("child, private", private + 6 * PAGE + 7, 0);
        touch("child, kept", private + 2 * PAGE + 7, 0);
        fflush(stdout);
        _exit(0);
    }
    char word;
    MUST(read(from_child[0], &word, 1));
    MUST(ftruncate(fd, 3 * PAGE + 100));
    MUST(write(to_child[1], &word, 1));
    waitpid(child, NULL, 0);
    touch("shared", shared + 4 * PAGE, 0);
    touch("write", shared + 7 * PAGE, 1);
    touch("private copy", private + 5 * PAGE + 7, 0);
    touch("last page", shared + 3 * PAGE + 99, 0);
    touch("its rest", shared + 3 * PAGE + 100, 0);
    touch("its rest in the copy", private + 3 * PAGE + 200, 0);
    touch("before", private + 7, 0);
    SHOW(pread(fd, shared, PAGE, 3 * PAGE));
    SHOW(read(fd, shared + 5 * PAGE, 10));
    SHOW(pread(fd, shared + 5 * PAGE, 10, 0));
    SHOW(pwrite(fd, shared + 5 * PAGE, 10, 0));
    MUST(ftruncate(fd, 8 * PAGE));
    touch("grown", shared + 4 * PAGE, 0);
    touch("grown, private", private + 5 * PAGE + 7, 0);
    touch("rest of the old last page", shared + 3 * PAGE + 100, 0);
    MUST(truncate("short", 2 * PAGE));
    touch("by name", shared + 2 * PAGE, 0);
    SHOW(lseek(fd, 0, SEEK_END));
    char *moved = mremap(shared, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS, 0));
    touch("moved", moved + PAGE, 0);
    close(open("short", O_WRONLY | O_TRUNC));
    touch("moved, then nothing", moved + PAGE, 0);
    touch("private, then nothing", private + 7, 0);
    MUST(pwrite(fd, "!", 1, PAGE + 10));
    touch("grown by writing", moved + PAGE + 10, 0);
    touch("the hole before", moved, 0);
    SHOW(ftruncate(fd, -1));
    SHOW(truncate("none", 0));
    SHOW(truncate(".", 0));
    close(fd);
    MUST(unlink("short"));
}

static void holes(void) {
    puts("-- holes");
    int fd = make("holes", 6);
    char *shared = map(fd, 6, MAP_SHARED, 0), *private = map(fd, 6, MAP_PRIVATE, 0);
    for (int n = 0; n < 6; n++)
        printf("%c", shared[n * PAGE] == private[n * PAGE] ? 'e' : 'd');
    private[2 * PAGE] = 'P';
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE - 10, 3 * PAGE + 20));
    for (int n = 0; n < 6; n++)
        printf("%d %d,", shared[n * PAGE + 5], private[n * PAGE]);
    printf(" %d %d %d %d\n", shared[PAGE - 11], shared[PAGE - 10], shared[4 * PAGE + 9], shared[4 * PAGE + 10]);
    SHOW(lseek(fd, 0, SEEK_END));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, PAGE));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 0));
    SHOW(fallocate(fd, 0, 5 * PAGE, 2 * PAGE));
    SHOW(fallocate(fd, FALLOC_FL_KEEP_SIZE, 5 * PAGE, 5 * PAGE));
    SHOW(lseek(fd, 0, SEEK_END));
    SHOW(madvise(shared + 5 * PAGE, PAGE, MADV_REMOVE));
    SHOW(madvise(private + 5 * PAGE, PAGE, MADV_REMOVE));
    printf("%d %d\n", shared[5 * PAGE], byte_at(fd, 5 * PAGE));
    close(fd);
    MUST(unlink("holes"));
}

/* What fallocate(2) set aside is not in memory before it is used. */
static void set_aside(void) {
    puts("-- set aside");
    unsigned char in_memory[4];
    int fd = memfd_create("set aside", 0);
    SHOW(fallocate(fd, 0, 0, 4 * PAGE));
    char *at = map(fd, 4, MAP_SHARED, 0);
    for (int n = 0; n < 3; n++) {
        MUST(mincore(at, 4 * PAGE, in_memory));
        for (int page = 0; page < 4; page++)
            printf("%d", in_memory[page] & 1);
        puts("");
        at[(n + 1) * PAGE] = 1;
    }
    close(fd);
}

static struct stat before;

static void note(int fd) {
    MUST(fstat(fd, &before));
    usleep(20000);
}

static int later(struct timespec a, struct timespec b) {
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static void changed(int fd, const char *what) {
    struct stat now;
    MUST(fstat(fd, &now));
    printf("%s:%s%s%s\n", what, later(now.st_atim, before.st_atim) ? " atime" : "",
           later(now.st_mtim, before.st_mtim) ? " mtime" : "", later(now.st_ctim, before.st_ctim) ? " ctime" : "");
    note(fd);
}

static void times(void) {
    puts("-- times");
    int fd = make("times", 4);
    char buf[10];
    note(fd);
    MUST(pwrite(fd, "x", 1, 0));
    changed(fd, "write");
    SHOW(pwrite(fd, "x", 0, 0));
    changed(fd, "write of nothing");
    MUST(pread(fd, buf, 1, 0));
    changed(fd, "read");
    MUST(pread(fd, buf, 1, 0));
    changed(fd, "second read");
    MUST(pwrite(fd, "x", 1, 0));
    note(fd);
    char *shared = map(fd, 4, MAP_SHARED, 0);
    changed(fd, "mmap");
    shared[0] = 'y';
    changed(fd, "store");
    shared[PAGE] = 'y';
    changed(fd, "store to another page");
    char *private = map(fd, 4, MAP_PRIVATE, 0);
    private[0] = 'z';
    changed(fd, "private store");
    MUST(mprotect(private, PAGE, PROT_READ));
    MUST(mprotect(private, PAGE, PROT_READ | PROT_WRITE));
    private[0] = 'w';
    changed(fd, "store to a private page made writable again");
    MUST(ftruncate(fd, 3 * PAGE));
    changed(fd, "ftruncate");
    MUST(fchmod(fd, 0600));
    changed(fd, "chmod");
    MUST(link("times", "times2"));
    changed(fd, "link");
    MUST(rename("times2", "times3"));
    changed(fd, "rename");
    MUST(unlink("times3"));
    changed(fd, "unlink");
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
    changed(fd, "punch");
    struct timespec set[2] = {{1000, 1}, {2000, 2}};
    MUST(futimens(fd, set));
    struct stat now;
    MUST(fstat(fd, &now));
    printf("%ld.%ld %ld.%ld\n", (long)now.st_atim.tv_sec, now.st_atim.tv_nsec, (long)now.st_mtim.tv_sec, now.st_mtim.tv_nsec);
    changed(fd, "utimens");
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    note(dir);
    close(open("times4", O_CREAT | O_WRONLY, 0600));
    changed(dir, "directory, create");
    MUST(rename("times4", "times5"));
    changed(dir, "directory, rename");
    MUST(unlink("times5"));
    changed(dir, "directory, unlink");
    close(dir);
    close(fd);
    MUST(unlink("times"));
}

static int links(const char *name) {
    struct stat now;
    return lstat(name, &now) == 0 ? (int)now.st_nlink : -1;
}

static ino_t number(const char *name) {
    struct stat now;
    return lstat(name, &now) == 0 ? now.st_ino : 0;
}

static void names(void) {
    puts("-- names");
    int fd = make("one", 1);
    ino_t inode = number("one");
    MUST(link("one", "two"));
    printf("%d %d %d\n", links("one"), links("two"), inode == number("two"));
    SHOW(mkdir("dir", 0751));
    SHOW(rename("one", "dir/three"));
    printf("%d %d\n", inode == number("dir/three"), access("one", F_OK));
    SHOW(rmdir("dir"));
    SHOW(unlink("dir"));
    SHOW(rmdir("two"));
    SHOW(rename("two", "dir"));
    SHOW(rename("dir", "two"));
    SHOW(rename("dir", "dir/below"));
    SHOW(symlink("dir/three", "link"));
    SHOW(chmod("link", 0640));
    struct stat now;
    MUST(stat("two", &now));
    printf("%o %d %c\n", now.st_mode, (int)now.st_nlink, byte_at(fd, 0));
    SHOW(open("link", O_RDWR | O_CREAT | O_EXCL, 0600));
    SHOW(open("two", O_RDWR | O_CREAT | O_EXCL, 0600));
    SHOW(open("none/x", O_RDWR | O_CREAT, 0600));
    SHOW(open("two/x", O_RDWR | O_CREAT, 0600));
    SHOW(mkdir("two", 0700));
    SHOW(link("none", "x"));
    SHOW(link("dir", "x"));
    SHOW(chown("two", 12, 34));
    MUST(stat("dir/three", &now));
    printf("%d %d\n", (int)now.st_uid, (int)now.st_gid);
    SHOW(unlink("two"));
    SHOW(unlink("dir/three"));
    SHOW(unlink("link"));
    SHOW(rmdir("dir"));
    MUST(fstat(fd, &now));
    printf("%d %c\n", (int)now.st_nlink, byte_at(fd, 0));
    SHOW(pwrite(fd, "still", 5, 0));
    char *private = map(fd, 1, MAP_PRIVATE, 0);
    printf("%.5s\n", private);
    close(fd);
    fd = open(".", O_TMPFILE | O_RDWR, 0640);
    printf("nameless: %s\n", fd >= 0 ? "there" : strerror(errno));
    MUST(write(fd, "content", 7));
    MUST(fstat(fd, &now));
    printf("%o %d %ld\n", now.st_mode, (int)now.st_nlink, (long)now.st_size);
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    SHOW(linkat(AT_FDCWD, self, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    printf("%d\n", links("named"));
    SHOW(unlink("named"));
    SHOW(linkat(AT_FDCWD, self, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    close(fd);
    fd = open(".", O_TMPFILE | O_EXCL | O_RDWR, 0640);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    SHOW(linkat(AT_FDCWD, self, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    close(fd);
    SHOW(open(".", O_TMPFILE | O_RDONLY, 0640));
    SHOW(open("none", O_TMPFILE | O_RDWR, 0640));
}

static void seals_of(int fd) {
    printf("seals %d\n", fcntl(fd, F_GET_SEALS));
}

static void seals(void) {
    puts("-- seals");
    SHOW(memfd_create("x", MFD_EXEC | MFD_NOEXEC_SEAL));
    SHOW(memfd_create("x", 0x8000));
    SHOW(memfd_create(nowhere, 0));
    unsigned flags[] = {MFD_ALLOW_SEALING, 0, MFD_NOEXEC_SEAL, MFD_EXEC | MFD_ALLOW_SEALING};
    struct stat now;
    for (int n = 0; n < 4; n++) {
        int fd = memfd_create("x", flags[n]);
        seals_of(fd);
        MUST(fstat(fd, &now));
        printf("%o %d\n", now.st_mode, (int)now.st_nlink);
        SHOW(fchmod(fd, 0755));
        SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC));
        seals_of(fd);
        SHOW(fchmod(fd, 0644));
        SHOW(fchmod(fd, 0711));
        SHOW(fcntl(fd, F_ADD_SEALS, 0x100));
        close(fd);
    }
    int ends[2];
    MUST(pipe(ends));
    SHOW(fcntl(ends[0], F_GET_SEALS));
    SHOW(fcntl(ends[1], F_ADD_SEALS, F_SEAL_GROW));
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int reader = open(self, O_RDONLY), appender = open(self, O_RDWR | O_APPEND);
    SHOW(fcntl(reader, F_ADD_SEALS, F_SEAL_GROW));
    seals_of(reader);
    MUST(ftruncate(fd, 4 * PAGE));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(ftruncate(fd, 5 * PAGE));
    SHOW(ftruncate(fd, 2 * PAGE));
    SHOW(pwrite(fd, "xxxx", 4, 2 * PAGE - 2));
    SHOW(pwrite(fd, "xxxx", 4, 2 * PAGE));
    SHOW(write(appender, "ab", 2));
    SHOW(fallocate(fd, 0, 0, 5 * PAGE));
    SHOW(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 5 * PAGE));
    SHOW(fallocate(fd, 0, 0, 100));
    char *shared = map(fd, 2, MAP_SHARED, 0);
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    if (fork() == 0) {
        munmap(shared, 2 * PAGE);
        SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    SHOW(mprotect(shared + PAGE, PAGE, PROT_READ));
    SHOW(munmap(shared, PAGE));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    SHOW(mprotect(shared + PAGE, PAGE, PROT_READ | PROT_WRITE));
    shared[PAGE] = 'f';
    SHOW(pwrite(fd, "x", 1, 0));
    SHOW(pwrite(fd, "x", 0, 0));
    SHOW(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *readable = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    printf("%c\n", readable[0]);
    SHOW(mprotect(readable, PAGE, PROT_READ | PROT_WRITE));
    char *private = map(fd, 1, MAP_PRIVATE, PAGE);
    private[0] = 'p';
    printf("%c\n", readable[0]);
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
    SHOW(madvise(shared + PAGE, PAGE, MADV_REMOVE));
    munmap(shared + PAGE, PAGE);
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(ftruncate(fd, PAGE));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    SHOW(ftruncate(fd, 100));
    SHOW(ftruncate(fd, PAGE));
    SHOW(pwrite(fd, nowhere, 1, 0));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    seals_of(fd);
}

static void blocks_of(int fd) {
    struct stat now;
    MUST(fstat(fd, &now));
    printf("size %ld blocks %ld\n", (long)now.st_size, (long)now.st_blocks);
}

static void room(void) {
    puts("-- room");
    int fd = memfd_create("room", 0);
    MUST(ftruncate(fd, 16 * PAGE));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 0, SEEK_HOLE));
    MUST(pwrite(fd, "x", 1, 5 * PAGE + 5));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 5 * PAGE + 100, SEEK_DATA));
    SHOW(lseek(fd, 5 * PAGE + 100, SEEK_HOLE));
    SHOW(lseek(fd, 6 * PAGE, SEEK_DATA));
    SHOW(lseek(fd, 16 * PAGE, SEEK_DATA));
    SHOW(lseek(fd, 16 * PAGE - 1, SEEK_HOLE));
    SHOW(lseek(fd, -1, SEEK_DATA));
    blocks_of(fd);
    SHOW(fallocate(fd, 0, 8 * PAGE, 2 * PAGE));
    blocks_of(fd);
    SHOW(lseek(fd, 6 * PAGE, SEEK_DATA));
    char bytes[10];
    MUST(pread(fd, bytes, 10, 8 * PAGE));
    MUST(pread(fd, bytes, 10, 11 * PAGE));
    blocks_of(fd);
    SHOW(lseek(fd, 6 * PAGE, SEEK_DATA));
    volatile char *shared = map(fd, 16, MAP_SHARED, 0);
    printf("%d %d\n", shared[8 * PAGE], shared[11 * PAGE]);
    SHOW(lseek(fd, 6 * PAGE, SEEK_DATA));
    SHOW(lseek(fd, 10 * PAGE, SEEK_DATA));
    SHOW(lseek(fd, 8 * PAGE, SEEK_HOLE));
    blocks_of(fd);
    SHOW(fallocate(fd, FALLOC_FL_KEEP_SIZE, 16 * PAGE, PAGE));
    blocks_of(fd);
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 17 * PAGE));
    blocks_of(fd);
    int modes[] = {FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_INSERT_RANGE,
                   FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0x1000, 4};
    for (unsigned n = 0; n < sizeof modes / sizeof *modes; n++)
        SHOW(fallocate(fd, modes[n], 0, PAGE));
    SHOW(fallocate(fd, 0, -1, 1));
    SHOW(fallocate(fd, 0, 0, 0));
    SHOW(fallocate(fd, 0, 0x7fffffffffffffff, 1));
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int reader = open(self, O_RDONLY), ends[2], null = open("/dev/null", O_RDWR), dir = open(".", O_RDONLY);
    MUST(pipe(ends));
    SHOW(fallocate(reader, 0, 0, 10));
    SHOW(fallocate(reader, 0x1000, 0, 10));
    SHOW(ftruncate(reader, 0));
    SHOW(fallocate(ends[1], 0, 0, 10));
    SHOW(fallocate(null, 0, 0, 10));
    SHOW(fallocate(dir, 0, 0, 10));
    // Shared memory without a file has holes as well.
    char *anonymous = map(-1, 4, MAP_SHARED | MAP_ANONYMOUS, 0);
    memset(anonymous, 1, 4 * PAGE);
    SHOW(madvise(anonymous + PAGE, PAGE, MADV_REMOVE));
    printf("%d %d %d\n", anonymous[0], anonymous[PAGE], anonymous[2 * PAGE]);
    char *longer = mremap(anonymous, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    touch("behind the end of shared memory", longer + 5 * PAGE, 0);
}

static void all_in(const char *parent) {
    char dir[200];
    snprintf(dir, sizeof dir, "%s/faultline-XXXXXX", parent);
    MUST(mkdtemp(dir) ? 0 : -1);
    MUST(chdir(dir));
    void (*parts[])(void) = {one_cache, truncation, holes, set_aside, times, names, seals, room};
    for (unsigned n = 0; n < sizeof parts / sizeof *parts; n++) {
        parts[n]();
        fflush(stdout);
    }
    MUST(chdir("/"));
    SHOW(rmdir(dir));
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    umask(022);
    for (int n = 1; n < argc; n++)
        all_in(argv[n]);
    return 0;
}
