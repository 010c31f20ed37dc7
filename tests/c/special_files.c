/* Device files and sockets made by mknod(2), and programs started without arguments. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/special-XXXXXX";
static int number;

static void make(const char *what, mode_t mode, dev_t device) {
    char path[64], buffer[8] = "abcdefg";
    struct stat stat;
    snprintf(path, sizeof path, "%s/%d", dir, number++);
    int made = mknod(path, mode, device) ? errno : 0;
    printf("%s: made %d", what, made);
    if (lstat(path, &stat) == 0)
        printf(", type %o, device %u:%u, size %ld", stat.st_mode & S_IFMT, major(stat.st_rdev), minor(stat.st_rdev),
               (long)stat.st_size);
    int fd = open(path, O_RDWR | O_NONBLOCK);
    printf(", opened %d", fd < 0 ? errno : 0);
    if (fd >= 0) {
        printf(", read %zd", read(fd, buffer, 4));
        printf(" %d", buffer[0]);
        close(fd);
    }
    char *args[] = {path, NULL};
    execv(path, args);
    printf(", executed %d", errno);
    printf(", again %d\n", mknod(path, mode, device) ? errno : 0);
}

static void make_all(void) {
    make("null", S_IFCHR | 0600, makedev(1, 3));
    make("zero", S_IFCHR | 0600, makedev(1, 5));
    make("nothing", S_IFCHR | 0600, makedev(243, 70000));
    make("block device", S_IFBLK | 0755, makedev(251, 77));
    make("socket", S_IFSOCK | 0755, makedev(1, 3));
    make("directory", S_IFDIR | 0755, 0);
    make("odd", 0170000, 0);
}

/* Prints how a program sees arguments that were not there. */
static void started(char *self, char **args) {
    pid_t child = fork();
    if (child == 0) {
        char *env[] = {"SEEN=1", NULL};
        execve(self, args, env);
        _exit(99);
    }
    int status;
    waitpid(child, &status, 0);
    printf("ended with %d\n", WEXITSTATUS(status));
}

int main(int count, char **args) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (getenv("SEEN")) {
        printf("%d arguments, the first is \"%s\", then %s\n", count, args[0], args[1] ? args[1] : "nothing");
        return count;
    }
    char self[256] = "";
    char *none[] = {NULL}, *empty[] = {"", NULL};
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0 || !mkdtemp(dir))
        return 1;
    started(self, NULL);
    started(self, none);
    started(self, empty);
    make_all();
    chmod(dir, 0777);
    pid_t child = fork();
    if (child == 0) {
        if (setuid(1000))
            _exit(1);
        make_all();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    for (int n = 0; n < 2 * number; n++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%d", dir, n);
        unlink(path);
    }
    printf("empty again: %d\n", rmdir(dir));
    return 0;
}
