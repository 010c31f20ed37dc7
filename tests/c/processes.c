/* fork, pipe, wait statuses, execve of itself, copy-on-write by glibc, and membarrier. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int value = 1;
static const char *program;

static int status_of(pid_t pid)
{
	int status = 0;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static pid_t start(int (*body)(void))
{
	fflush(stdout);
	pid_t pid = fork();

	if (pid == 0)
		_exit(body());
	return pid;
}

static int changes(void)
{
	value = 42;
	return value;
}

static int dies(void)
{
	raise(SIGTERM);
	return 0;
}

static int waits(void)
{
	while (pause() != 0)
		;
	return 0;
}

static void pipes(void)
{
	int ends[2];
	char text[64] = "";

	if (pipe(ends) != 0)
		return;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(ends[1], 1);
		close(ends[0]);
		close(ends[1]);
		execl(program, program, "child", (char *)NULL);
		_exit(99);
	}
	close(ends[1]);
	ssize_t total = 0, n;
	while ((n = read(ends[0], text + total, sizeof text - 1 - total)) > 0)
		total += n;
	printf("through the pipe: \"%s\", then end of file: %d\n", text, (int)n);
	close(ends[0]);
	printf("status of the program: %d\n", status_of(pid));
	signal(SIGPIPE, SIG_IGN);
	if (pipe(ends) == 0) {
		close(ends[0]);
		n = write(ends[1], "x", 1);
		printf("write without a reader: %d %s\n", (int)n, strerror(errno));
		close(ends[1]);
	}
}

/* Commands of membarrier(2) before and after registration. */
static void barriers(void)
{
	printf("membarrier offers: %ld\n", syscall(SYS_membarrier, 0, 0, 0) & 0x1ff);
	for (int round = 0; round < 2; round++)
		for (int command = 1; command <= 256; command <<= 1)
			for (int flags = 0; flags < 3; flags++) {
				long done = syscall(SYS_membarrier, command, flags, 0);

				printf("%ld ", done < 0 ? (long)-errno : done);
			}
	printf("%ld\n", syscall(SYS_membarrier, 3, 0, 0));
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "child") == 0) {
		printf("from the new program");
		return 5;
	}
	program = argv[0];
	printf("child's exit: %d\n", status_of(start(changes)));
	printf("parent's value: %d\n", value);
	printf("child's signal: %d\n", status_of(start(dies)));
	pid_t pid = start(waits);
	printf("nothing to reap yet: %d\n", (int)waitpid(pid, NULL, WNOHANG));
	kill(pid, SIGKILL);
	printf("killed: %d\n", status_of(pid));
	int status = status_of(pid);
	printf("reaped twice: %d %s\n", status, strerror(errno));
	pipes();
	barriers();
	return 0;
}
