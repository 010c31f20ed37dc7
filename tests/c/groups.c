// Process groups with many others about: who gets a signal, who counts as a member, and numbers of groups whose leader is gone.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); \
    printf("%s = %ld %s\n", #call, r, r < 0 ? strerrorname_np(errno) : ""); } while (0)

static pid_t member(pid_t group, int live) {
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, group);
        if (live)
            for (;;)
                pause();
        _exit(3);
    }
    setpgid(child, group ? group : child);
    return child;
}

// A process that has left the group of its own number cannot lead a session while others are in that group.
static void own_number_taken(void) {
    int status;
    pid_t before = member(0, 1);
    pid_t leader = fork();
    if (leader == 0) {
        setpgid(0, 0);
        pid_t other = member(getpid(), 1);
        SHOW(setpgid(0, before));
        SHOW(setsid());
        SHOW(kill(-getpid(), SIGKILL));
        SHOW(waitpid(other, &status, 0) == other);
        SHOW(setsid() == getpid());
        SHOW(setpgid(0, before));
        _exit(0);
    }
    SHOW(waitpid(leader, &status, 0) == leader);
    SHOW(kill(-leader, 0));
    kill(before, SIGKILL);
    SHOW(waitpid(before, &status, 0) == before);
}

int main(void) {
    int status;
    pid_t crowd[200], a = member(0, 1), b = member(a, 1), c = member(0, 1);

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < 200; i++)
        crowd[i] = member(0, 1);
    SHOW(kill(-a, 0));
    SHOW(kill(-b, 0));
    printf("%d %d %d\n", getpgid(a) == a, getpgid(b) == a, getpgid(c) == c);
    SHOW(setpgid(b, c));
    SHOW(setpgid(b, 30000));
    printf("%d\n", getpgid(b) == c);
    SHOW(kill(-a, SIGTERM));
    SHOW(waitpid(a, &status, 0) == a);
    SHOW(WTERMSIG(status));
    SHOW(kill(-a, 0));
    SHOW(waitpid(-c, &status, WNOHANG));
    SHOW(kill(-c, SIGSTOP));
    SHOW(waitpid(c, &status, WUNTRACED) == c && WIFSTOPPED(status));
    SHOW(waitpid(-c, &status, WUNTRACED) == b && WIFSTOPPED(status));
    // The group lives on without its leader, and ends with its last member, a zombie still counts.
    SHOW(kill(c, SIGKILL));
    SHOW(waitpid(c, &status, 0) == c);
    SHOW(kill(-c, 0));
    SHOW(setpgid(crowd[0], c));
    SHOW(kill(-c, SIGKILL));
    usleep(50000);
    SHOW(kill(-c, 0));
    SHOW(waitpid(-c, &status, 0) > 0);
    SHOW(waitpid(-c, &status, 0) > 0);
    SHOW(waitpid(-c, &status, 0));
    SHOW(kill(-c, 0));
    for (int i = 1; i < 200; i++)
        kill(-crowd[i], SIGKILL);
    int ended = 0;
    while (wait(&status) > 0)
        ended++;
    SHOW(ended);
    own_number_taken();
    return 0;
}
