// Pseudo terminals: names, line editing, echo, settings, hang-up, and whose controlling terminal they are.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, errno ? strerrorname_np(errno) : ""); } while (0)

static int master, slave;

static void bytes(const char *what, const char *data, long n) {
    printf("%s: %ld \"", what, n);
    for (long i = 0; i < n; i++)
        if (data[i] >= 32 && data[i] < 127) putchar(data[i]); else printf("\\x%02x", (unsigned char)data[i]);
    printf("\" %s\n", n < 0 ? strerrorname_np(errno) : "");
}
static void from(const char *what, int fd) {
    char buf[8192];
    struct pollfd p = { fd, POLLIN, 0 };
    if (poll(&p, 1, 300) == 0) { printf("%s: nothing\n", what); return; }
    long n = read(fd, buf, sizeof buf);
    bytes(what, buf, n);
}
static void type(const char *text) { if (write(master, text, strlen(text)) < 0) perror("type"); }
static void both(const char *text) { type(text); from(" echo", master); from(" read", slave); }

static void pair(void) {
    master = posix_openpt(O_RDWR | O_NOCTTY);
    char path[64];
    ptsname_r(master, path, sizeof path);
    errno = 0;
    int fd = open(path, O_RDWR | O_NOCTTY);
    printf("locked: %d %s\n", fd, strerrorname_np(errno));
    grantpt(master); unlockpt(master);
    slave = open(path, O_RDWR | O_NOCTTY);
    if (slave < 0) { perror(path); exit(1); }
}

static void names(void) {
    struct stat a, b;
    char path[64], tty[64];
    ptsname_r(master, path, sizeof path);
    printf("%d %d\n", isatty(master), isatty(slave));
    printf("ttyname: %d\n", ttyname_r(slave, tty, sizeof tty) == 0 && !strcmp(tty, path));
    stat(path, &a); fstat(slave, &b);
    printf("%o %d %d %d\n", a.st_mode & S_IFMT, major(a.st_rdev), a.st_rdev == b.st_rdev, a.st_ino == b.st_ino);
    unsigned n; int fd;
    SHOW(ioctl(master, TIOCGPTN, &n)); SHOW(ioctl(slave, TIOCGPTN, &n)); SHOW(lseek(master, 0, SEEK_SET));
    fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY); printf("peer %d\n", isatty(fd)); close(fd);
}

static void settings(void) {
    struct termios t; struct winsize w;
    tcgetattr(slave, &t);
    printf("%x %x %x %x\n", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
    for (int i = 0; i < 17; i++) printf("%d ", t.c_cc[i]);
    printf("\n");
    SHOW(ioctl(slave, TIOCGWINSZ, &w)); printf("%d %d\n", w.ws_row, w.ws_col);
    w.ws_row = 30; w.ws_col = 90; SHOW(ioctl(master, TIOCSWINSZ, &w)); memset(&w, 0, sizeof w);
    SHOW(ioctl(slave, TIOCGWINSZ, &w)); printf("%d %d\n", w.ws_row, w.ws_col);
    pid_t p; int n;
    SHOW(tcgetpgrp(slave)); SHOW(ioctl(slave, TIOCGSID, &p)); SHOW(ioctl(slave, TIOCSPGRP, &p)); SHOW(ioctl(slave, TIOCNOTTY));
    SHOW(ioctl(slave, TIOCOUTQ, &n)); SHOW(tcdrain(slave)); SHOW(tcflush(slave, 7)); SHOW(ioctl(slave, 0x9999, &n));
}

static void editing(void) {
    both("hello\r");
    both("one two\x17three\x7f\x7f\n");
    both("gone\x15kept\n");
    both("tab\there\x01ctl\n");
    both("\x16\x03literal\n");
    type("end"); from(" echo", master); from(" nothing", slave); type("\x04"); from(" eof ends a line", slave);
    type("\x04"); from(" eof alone", slave);
    type("a\nb\nc"); from(" echo", master); from(" first line", slave); from(" second line", slave); from(" no third", slave);
    int n; type("xyz\n"); from(" echo", master);
    ioctl(slave, FIONREAD, &n); printf("FIONREAD %d\n", n);
    char two[3]; long got = read(slave, two, 3); bytes(" in parts", two, got); got = read(slave, two, 3);
    fcntl(slave, F_SETFL, O_NONBLOCK); got = read(slave, two, 3); bytes(" then", two, got); fcntl(slave, F_SETFL, 0);
    if (write(slave, "out\nput\n", 8) != 8) perror("write");
    from(" out", master);
    struct termios t; tcgetattr(slave, &t);
    t.c_lflag &= ~ECHO; tcsetattr(slave, TCSANOW, &t); both("silent\n");
    t.c_lflag |= ECHO; t.c_lflag &= ~ECHOCTL; tcsetattr(slave, TCSANOW, &t); both("x\x01\x7fy\n");
    t.c_lflag &= ~ECHOKE; tcsetattr(slave, TCSANOW, &t); both("killed\x15z\n");
    t.c_lflag &= ~ECHOE; tcsetattr(slave, TCSANOW, &t); both("ab\x7f""c\n");
}

static void raw(void) {
    struct termios t; tcgetattr(slave, &t); cfmakeraw(&t); tcsetattr(slave, TCSAFLUSH, &t);
    both("\x03\x1a\r\n\x7f");
    if (write(slave, "a\nb", 3) != 3) perror("write");
    from(" out", master);
    t.c_cc[VMIN] = 0; t.c_cc[VTIME] = 0; tcsetattr(slave, TCSANOW, &t);
    char c[8]; long n = read(slave, c, 8); bytes(" min 0 time 0", c, n);
    t.c_cc[VTIME] = 1; tcsetattr(slave, TCSANOW, &t); n = read(slave, c, 8); bytes(" min 0 time 1", c, n);
    t.c_cc[VMIN] = 3; t.c_cc[VTIME] = 0; tcsetattr(slave, TCSANOW, &t);
    pid_t pid = fork();
    if (!pid) { usleep(50000); type("12"); usleep(50000); type("3"); _exit(0); }
    n = read(slave, c, 8); bytes(" min 3", c, n); waitpid(pid, 0, 0);
}

static void ends(void) {
    struct pollfd m = { master, POLLIN | POLLOUT, 0 };
    poll(&m, 1, 0); printf("master %x\n", m.revents);
    if (write(slave, "last", 4) != 4) perror("write");
    close(slave);
    poll(&m, 1, 0); printf("deserted master %x\n", m.revents);
    from(" what is left", master); from(" then", master);
    char path[64]; ptsname_r(master, path, sizeof path);
    slave = open(path, O_RDWR | O_NOCTTY);
    poll(&m, 1, 0); printf("a new slave %x\n", m.revents);
    close(master);
    struct pollfd s = { slave, POLLIN | POLLOUT, 0 };
    poll(&s, 1, 0); printf("hung up slave %x\n", s.revents);
    from(" read", slave); SHOW(write(slave, "x", 1)); struct termios t; SHOW(tcgetattr(slave, &t));
    SHOW(open(path, O_RDWR)); close(slave);
}

static void controlling(void) {
    pair();
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        char path[64]; ptsname_r(master, path, sizeof path);
        SHOW(ioctl(slave, TIOCSCTTY, 0));
        setsid();
        errno = 0; int none = open("/dev/tty", O_RDWR); printf("no terminal: %d %s\n", none, strerrorname_np(errno));
        int own = open(path, O_RDWR);
        printf("opened: %d\n", own >= 0);
        printf("%d %d\n", tcgetpgrp(own) == getpid(), tcgetsid(own) == getpid());
        int tty = open("/dev/tty", O_RDWR); printf("/dev/tty: %d %d\n", tty >= 0, isatty(tty));
        SHOW(ioctl(own, TIOCSCTTY, 0)); SHOW(tcsetpgrp(own, 999999)); SHOW(tcsetpgrp(own, -1));
        SHOW(ioctl(own, TIOCNOTTY)); SHOW(tcgetpgrp(own));
        fflush(stdout);
        _exit(0);
    }
    int s; waitpid(pid, &s, 0); printf("%x\n", s);
    SHOW(ioctl(master, TIOCGPGRP, &s)); printf("%d\n", s);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    pair(); names(); settings(); editing(); raw(); ends(); controlling();
    return 0;
}
