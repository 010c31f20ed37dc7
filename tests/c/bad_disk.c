// A file whose pages cannot be read at first: counts the failures of each page before its contents come. argv[1]: the file, whose page n is
// filled with 'a' + n; more arguments: with a signal every millisecond.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define PAGE 4096L

static sigjmp_buf escape;
static siginfo_t seen;
static volatile sig_atomic_t ticks;

static void caught(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen = *info;
    siglongjmp(escape, signal);
}

static void tick(int signal) {
    (void)signal;
    ticks++;
}

// How many accesses fail with SIGBUS before one succeeds.
static int failures(volatile char *at, char expected) {
    volatile int count = 0;
    while (sigsetjmp(escape, 1) != 0) {
        count++;
        if (seen.si_code != BUS_ADRERR || seen.si_addr != (void *)at || count > 100)
            return -1;
    }
    return *at == expected ? count : -2;
}

int main(int argc, char **argv) {
    struct sigaction bus = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO}, alarm = {.sa_handler = tick};
    sigaction(SIGBUS, &bus, NULL);
    sigaction(SIGALRM, &alarm, NULL);
    int fd = open(argv[1], O_RDONLY);
    volatile char *mapped = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (argc > 2) {
        struct itimerval every = {{0, 1000}, {0, 1000}};
        setitimer(ITIMER_REAL, &every, NULL);
    }
    int first = failures(mapped, 'a'), second = failures(mapped + PAGE + 7, 'b'), again = failures(mapped, 'a');
    printf("mapped: %d %d %d\n", first, second, again);
    int count = 0;
    char byte = 0;
    ssize_t got;
    while ((got = pread(fd, &byte, 1, 2 * PAGE)) != 1 && count < 100) {
        if (got != -1 || errno != EIO)
            printf("%zd %s\n", got, strerror(errno));
        count++;
    }
    printf("read: %d %c\n", count, byte);
    // A system call's buffer.
    int ends[2];
    if (pipe(ends) != 0)
        return 1;
    for (count = 0; (got = write(ends[1], (char *)mapped + 3 * PAGE, 1)) != 1 && count < 100; count++)
        if (got != -1 || errno != EFAULT)
            printf("%zd %s\n", got, strerror(errno));
    printf("buffer: %d\n", count);
    // What was read in part is not lost: the second page fails.
    char two[2 * PAGE];
    for (count = 0; pread(fd, two, sizeof two, 4 * PAGE) == -1; count++)
        ;
    got = pread(fd, two, sizeof two, 4 * PAGE);
    printf("first part: %d %d %c\n", count, got >= PAGE, two[0]);
    return 0;
}
