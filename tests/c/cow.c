/* Memory that processes share until one writes, and writes that go around permissions. The argument names the part. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static long told(long n) { return n < 0 ? -errno : n; }

static char *map(int prot, int flags, int fd) {
    char *at = mmap(NULL, PAGE, prot, flags | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return at;
}

/* A file of one page of the letter o, open for reading only. */
static int file(void) {
    char path[] = "/tmp/cow-XXXXXX", page[PAGE];
    int fd = mkstemp(path);
    memset(page, 'o', PAGE);
    if (write(fd, page, PAGE) != PAGE)
        exit(1);
    close(fd);
    fd = open(path, O_RDONLY);
    unlink(path);
    return fd;
}

static int mem;

static long poke(void *at, const void *bytes, size_t len) { return told(pwrite(mem, bytes, len, (off_t)at)); }
static long peek(void *at, void *bytes, size_t len) { return told(pread(mem, bytes, len, (off_t)at)); }

static volatile int stop;

static void *dropper(void *at) {
    while (!stop)
        madvise(at, PAGE, MADV_DONTNEED);
    return NULL;
}

/* Forced writes to a page, while another thread drops the copy that they are made to. */
static void poke_against_dropper(char *at) {
    pthread_t thread;
    stop = 0;
    pthread_create(&thread, NULL, dropper, at);
    long done = 0;
    for (int i = 0; i < 3000; i++)
        done += poke(at, "x", 1);
    stop = 1;
    pthread_join(thread, NULL);
    printf("writes made: %ld\n", done);
}

/* A write through /proc/self/mem to a private mapping of a file, while another thread drops the copy it is made to. */
static void forced(void) {
    int fd = file();
    char *at = map(PROT_READ, MAP_PRIVATE, fd), byte;
    poke_against_dropper(at);
    long got = pread(fd, &byte, 1, 0);
    printf("the file has: %ld %c\n", got, byte);
    madvise(at, PAGE, MADV_DONTNEED);
    printf("the mapping has: %c\n", *at);
    printf("a write: %ld", poke(at, "y", 1));
    printf(", the mapping has: %c, the file: %ld", *at, (long)pread(fd, &byte, 1, 0));
    printf(" %c\n", byte);
}

/* The same against a page of shared memory that a handler filled, so that it is marked as written though nobody wrote to the copy. */
static void filled(void) {
    int fd = memfd_create("filled", 0);
    if (ftruncate(fd, PAGE))
        exit(1);
    char *shared = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd), page[PAGE], byte;
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register all = {.range = {(unsigned long)shared, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_copy copy = {.dst = (unsigned long)shared, .src = (unsigned long)page, .len = PAGE};
    memset(page, 'o', PAGE);
    printf("handshake %d", ioctl(uffd, UFFDIO_API, &api));
    printf(", registered %d", ioctl(uffd, UFFDIO_REGISTER, &all));
    printf(", filled %d\n", ioctl(uffd, UFFDIO_COPY, &copy));
    char *at = map(PROT_READ, MAP_PRIVATE, fd);
    poke_against_dropper(at);
    printf("the file has: %ld", (long)pread(fd, &byte, 1, 0));
    printf(" %c, the shared mapping: %c\n", byte, *shared);
    madvise(at, PAGE, MADV_DONTNEED);
    printf("the mapping has: %c\n", *at);
    close(uffd);
}

static int pipes[3][2], answers[2];

static void tell(int who, char what) {
    if (write(pipes[who][1], &what, 1) != 1)
        exit(9);
}

static char answer(void) {
    char byte;
    if (read(answers[0], &byte, 1) != 1)
        exit(9);
    return byte;
}

/* Does what it is told: r answers with the byte, a letter is written, q ends. */
static void obey(int who, volatile char *at) {
    for (;;) {
        char what;
        if (read(pipes[who][0], &what, 1) != 1 || what == 'q')
            _exit(0);
        if (what != 'r')
            *at = what;
        what = *at;
        if (write(answers[1], &what, 1) != 1)
            _exit(1);
    }
}

static char ask(int who, char what, volatile char *at) {
    if (who == 0) {
        if (what != 'r')
            *at = what;
        return *at;
    }
    tell(who, what);
    return answer();
}

/* Three processes, every order of three writes; after each write everybody says what it sees. */
static void matrix(void) {
    pipe(answers);
    for (int order = 0; order < 27; order++) {
        char *at = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
        *at = 'o';
        pid_t children[3];
        for (int who = 1; who < 3; who++)
            if (pipe(pipes[who]))
                exit(9);
        /* The second child is the first one's. */
        children[1] = fork();
        if (children[1] == 0) {
            if (fork() == 0)
                obey(2, at);
            obey(1, at);
        }
        int turns[3] = {order % 3, order / 3 % 3, order / 9};
        printf("%d%d%d:", turns[0], turns[1], turns[2]);
        for (int step = 0; step < 3; step++) {
            ask(turns[step], (char)('A' + step), at);
            printf(" ");
            for (int who = 0; who < 3; who++)
                printf("%c", ask(who, 'r', at));
        }
        printf("\n");
        tell(2, 'q');
        tell(1, 'q');
        waitpid(children[1], NULL, 0);
        *at = 'z';
        munmap(at, PAGE);
        for (int who = 1; who < 3; who++) {
            close(pipes[who][0]);
            close(pipes[who][1]);
        }
    }
}

/* What /proc/self/mem and process_vm_readv(2) answer. */
static void remote(void) {
    char buffer[3 * PAGE] = "hello", word[8] = "";
    char *rw = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
    char *none = map(PROT_NONE, MAP_PRIVATE, -1);
    char *ro = map(PROT_READ, MAP_PRIVATE, -1);
    char *hole = map(PROT_READ, MAP_PRIVATE, -1);
    munmap(hole, PAGE);
    int fd = file();
    char *shared = map(PROT_READ, MAP_SHARED, fd);
    strcpy(rw, "here");
    printf("read: %ld", peek(rw, word, 5));
    printf(" %s\n", word);
    printf("PROT_NONE: %ld", poke(none, "abc", 4));
    printf(" %ld", peek(none, word, 4));
    printf(" %s\n", word);
    printf("PROT_READ: %ld", poke(ro, "def", 4));
    printf(" %s\n", ro);
    printf("shared: %ld", poke(shared, "ghi", 4));
    printf(" %ld", peek(shared, word, 4));
    printf(" %.4s\n", word);
    printf("hole: %ld %ld\n", poke(hole, "x", 1), peek(hole, word, 1));
    printf("null: %ld, the kernel's: %ld\n", peek(NULL, word, 1), peek((void *)0xffffffff80000000, word, 1));
    printf("bad buffer: %ld %ld\n", told(pread(mem, hole, 8, (off_t)rw)), told(pwrite(mem, hole, 8, (off_t)rw)));
    printf("seek: %ld", told(lseek(mem, 0, SEEK_END)));
    printf(" %d", lseek(mem, (off_t)rw, SEEK_SET) == (off_t)rw);
    printf(" %ld", told(read(mem, word, 2)));
    printf(" %d\n", lseek(mem, 0, SEEK_CUR) == (off_t)rw + 2);

    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    strcpy(rw, "mine");
    struct iovec here[2] = {{buffer, 3}, {buffer + 3, 100}}, there[2] = {{rw, 5}, {ro, 4}};
    memset(buffer, '.', sizeof buffer);
    printf("readv: %ld", told(process_vm_readv(child, here, 2, there, 2, 0)));
    printf(" %.4s %.3s\n", buffer, buffer + 5);
    memcpy(buffer, "xy", 3);
    here[0].iov_len = 3;
    printf("writev: %ld", told(process_vm_writev(child, here, 1, there, 1, 0)));
    printf(" here %s,", rw);
    printf(" there %ld", told(process_vm_readv(child, here, 1, there, 1, 0)));
    printf(" %s\n", buffer);
    printf("read only: %ld\n", told(process_vm_writev(child, here, 1, there + 1, 1, 0)));
    struct iovec across[1] = {{rw + PAGE - 2, 8}}, bad[1] = {{hole, 8}}, big[1] = {{buffer, 8}};
    munmap(none, PAGE);
    printf("into a hole: %ld\n", told(process_vm_readv(child, big, 1, bad, 1, 0)));
    printf("from a hole: %ld\n", told(process_vm_readv(child, bad, 1, there, 1, 0)));
    printf("over an end: %d\n", process_vm_readv(child, big, 1, across, 1, 0) >= 2);
    printf("flags: %ld\n", told(process_vm_readv(child, here, 1, there, 1, 1)));
    printf("nothing: %ld %ld\n", told(process_vm_readv(child, here, 0, there, 1, 0)),
           told(process_vm_readv(0x7ffffff, here, 1, there, 0, 0)));
    printf("nobody: %ld\n", told(process_vm_readv(0x7ffffff, here, 1, there, 1, 0)));
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", child);
    int other = open(path, O_RDWR);
    printf("the child's: %ld", told(pwrite(other, "kid", 4, (off_t)rw)));
    printf(" %ld", told(pread(other, word, 4, (off_t)rw)));
    printf(" %s, here %s\n", word, rw);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("the dead child's: %ld\n", told(pread(other, word, 4, (off_t)rw)));
}

int main(int argc, char **argv) {
    const char *part = argc > 1 ? argv[1] : "";
    mem = open("/proc/self/mem", O_RDWR);
    setvbuf(stdout, NULL, _IONBF, 0);
    if (strcmp(part, "forced") == 0)
        forced();
    else if (strcmp(part, "filled") == 0)
        filled();
    else if (strcmp(part, "matrix") == 0)
        matrix();
    else
        remote();
    return 0;
}
