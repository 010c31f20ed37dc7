// Locks on files: record locks of processes and of open files, flock, who waits for whom, and what ends a lock. Prints each outcome.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *error_or(long result)
{
	return result < 0 ? strerrorname_np(errno) : "ok";
}

static int record(int fd, int command, short type, short whence, long start, long len)
{
	struct flock lock = {.l_type = type, .l_whence = whence, .l_start = start, .l_len = len};
	return fcntl(fd, command, &lock);
}

#define TRY(call) printf("%s: %s\n", #call, error_or(call))

// What is in the way, as a child sees it. The process number is compared, not printed.
static void seen(const char *when, int fd, int command, short type, long start, long len)
{
	fflush(stdout);
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len, .l_pid = 0};
		int result = fcntl(fd, command, &lock);
		printf("%s: %s type %d whence %d start %ld len %ld pid %s\n", when, error_or(result), lock.l_type,
		       lock.l_whence, (long)lock.l_start, (long)lock.l_len,
		       lock.l_pid == parent ? "the parent's" : lock.l_pid == -1 ? "-1" : lock.l_pid == 0 ? "0" : "other");
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static volatile sig_atomic_t handled;

static void on_signal(int signal)
{
	(void)signal;
	handled++;
}

static void nap(int ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
	nanosleep(&time, NULL);
}

static void records(const char *path)
{
	int fd = open(path, O_RDWR);
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 10, 10));
	seen("inside", fd, F_GETLK, F_RDLCK, 12, 1);
	seen("before", fd, F_GETLK, F_RDLCK, 0, 10);
	seen("to the end", fd, F_GETLK, F_RDLCK, 0, 0);
	TRY(record(fd, F_SETLK, F_RDLCK, SEEK_SET, 15, 2));
	seen("cut, left", fd, F_GETLK, F_RDLCK, 0, 0);
	seen("cut, middle", fd, F_GETLK, F_WRLCK, 15, 1);
	seen("cut, readers", fd, F_GETLK, F_RDLCK, 15, 2);
	seen("cut, right", fd, F_GETLK, F_RDLCK, 17, 0);
	TRY(record(fd, F_SETLK, F_UNLCK, SEEK_SET, 0, 16));
	seen("half gone", fd, F_GETLK, F_WRLCK, 0, 0);
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 16, 1));
	seen("joined", fd, F_GETLK, F_RDLCK, 0, 0);
	TRY(lseek(fd, 5, SEEK_SET));
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_CUR, -5, 3));
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_END, -1, 0));
	seen("from the start", fd, F_GETLK, F_RDLCK, 0, 1);
	seen("at the end", fd, F_GETLK, F_RDLCK, 50, 0);
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 10, -10));
	seen("backwards", fd, F_GETLK, F_RDLCK, 9, 1);
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, -1, 1));
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 5, -6));
	TRY(record(fd, F_SETLK, F_WRLCK, 7, 0, 1));
	TRY(record(fd, F_SETLK, 9, SEEK_SET, 0, 1));
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 0x7fffffffffffffff, 2));
	TRY(record(fd, F_GETLK, F_UNLCK, SEEK_SET, 0, 1));
	TRY(fcntl(fd, F_SETLK, (void *)8));
	TRY(fcntl(999, F_SETLK, (void *)8));
	int reader = open(path, O_RDONLY), writer = open(path, O_WRONLY), place = open(path, O_PATH);
	TRY(record(reader, F_SETLK, F_WRLCK, SEEK_SET, 0, 1));
	TRY(record(writer, F_SETLK, F_RDLCK, SEEK_SET, 0, 1));
	TRY(record(place, F_SETLK, F_RDLCK, SEEK_SET, 0, 1));
	seen("still there", fd, F_GETLK, F_RDLCK, 0, 1);
	close(reader);
	seen("another descriptor was closed", fd, F_GETLK, F_RDLCK, 0, 0);
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 0, 0));
	dup2(fd, writer);
	seen("dup2 closed one", fd, F_GETLK, F_RDLCK, 0, 0);
	close(place);
	close(writer);
	close(fd);
}

static void open_files(const char *path)
{
	int a = open(path, O_RDWR), b = open(path, O_RDWR);
	TRY(record(a, F_OFD_SETLK, F_WRLCK, SEEK_SET, 0, 10));
	TRY(record(b, F_OFD_SETLK, F_WRLCK, SEEK_SET, 5, 10));
	TRY(record(b, F_SETLK, F_WRLCK, SEEK_SET, 5, 10));
	TRY(record(b, F_OFD_SETLK, F_WRLCK, SEEK_SET, 10, 10));
	seen("an open file's", b, F_OFD_GETLK, F_RDLCK, 0, 0);
	seen("seen by a process", b, F_GETLK, F_RDLCK, 0, 0);
	int other = dup(a);
	close(a);
	TRY(record(b, F_OFD_SETLK, F_RDLCK, SEEK_SET, 0, 1));
	close(other);
	TRY(record(b, F_OFD_SETLK, F_RDLCK, SEEK_SET, 0, 1));
	struct flock lock = {.l_type = F_RDLCK, .l_pid = 3};
	TRY(fcntl(b, F_OFD_SETLK, &lock));
	close(b);
}

static void whole_files(const char *path)
{
	int a = open(path, O_RDWR), b = open(path, O_RDONLY);
	TRY(flock(a, LOCK_EX));
	TRY(flock(b, LOCK_SH | LOCK_NB));
	TRY(record(b, F_SETLK, F_RDLCK, SEEK_SET, 0, 1));
	TRY(flock(a, LOCK_SH));
	TRY(flock(b, LOCK_SH | LOCK_NB));
	TRY(flock(b, LOCK_EX | LOCK_NB));
	// The failed change has lost the old lock.
	TRY(flock(a, LOCK_EX | LOCK_NB));
	int again = dup(a);
	close(a);
	TRY(flock(b, LOCK_EX | LOCK_NB));
	TRY(flock(again, LOCK_UN));
	TRY(flock(b, LOCK_EX | LOCK_NB));
	close(again);
	close(b);
	TRY(flock(a, LOCK_EX));
	int place = open(path, O_PATH), folder = open("/tmp", O_RDONLY);
	TRY(flock(place, LOCK_EX));
	TRY(flock(folder, LOCK_EX));
	TRY(flock(folder, 99));
	close(place);
	close(folder);
}

// A child takes the lock, and the parent has to wait until it goes: by unlocking, by closing, by ending.
static void waiting(const char *path)
{
	const char *how[] = {"unlock", "close", "exit", "kill"};
	for (int way = 0; way < 4; way++) {
		int ready[2];
		if (pipe(ready))
			exit(1);
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			int fd = open(path, O_RDWR);
			record(fd, F_SETLK, F_WRLCK, SEEK_SET, 0, 0);
			flock(fd, LOCK_EX);
			if (write(ready[1], "x", 1) != 1)
				_exit(1);
			nap(50);
			if (way == 0)
				record(fd, F_SETLK, F_UNLCK, SEEK_SET, 0, 0), flock(fd, LOCK_UN);
			if (way == 1)
				close(fd);
			if (way == 2)
				_exit(0);
			for (;;)
				pause();
		}
		char byte;
		if (read(ready[0], &byte, 1) != 1)
			exit(1);
		int fd = open(path, O_RDWR);
		printf("%s: now %s, ", how[way], error_or(record(fd, F_SETLK, F_RDLCK, SEEK_SET, 3, 1)));
		printf("flock now %s, ", error_or(flock(fd, LOCK_SH | LOCK_NB)));
		fflush(stdout);
		if (way == 3)
			kill(child, SIGKILL);
		printf("then %s, ", error_or(record(fd, F_SETLKW, F_RDLCK, SEEK_SET, 3, 1)));
		printf("flock then %s\n", error_or(flock(fd, LOCK_SH)));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(fd);
		close(ready[0]);
		close(ready[1]);
	}
}

// A signal ends the wait, or the call goes on after the handler.
static void interrupted(const char *path)
{
	int fd = open(path, O_RDWR), ready[2];
	if (pipe(ready))
		exit(1);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		int own = open(path, O_RDWR);
		record(own, F_SETLK, F_WRLCK, SEEK_SET, 0, 0);
		flock(own, LOCK_EX);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		nap(400);
		_exit(0);
	}
	char byte;
	if (read(ready[0], &byte, 1) != 1)
		exit(1);
	for (int restart = 0; restart < 2; restart++) {
		struct sigaction action = {.sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0};
		sigaction(SIGALRM, &action, NULL);
		struct itimerval soon = {.it_value = {0, 30000}};
		handled = 0;
		setitimer(ITIMER_REAL, &soon, NULL);
		if (restart == 0) {
			printf("no restart: %s", error_or(record(fd, F_SETLKW, F_WRLCK, SEEK_SET, 0, 1)));
			printf(", handled %d\n", handled);
			handled = 0;
			setitimer(ITIMER_REAL, &soon, NULL);
			printf("no restart: flock %s", error_or(flock(fd, LOCK_EX)));
			printf(", handled %d\n", handled);
		} else {
			printf("restart: %s", error_or(record(fd, F_SETLKW, F_WRLCK, SEEK_SET, 0, 1)));
			printf(", handled %d\n", handled);
		}
	}
	waitpid(child, NULL, 0);
	close(fd);
}

static void deadlock(const char *path)
{
	int fd = open(path, O_RDWR), ready[2];
	if (pipe(ready))
		exit(1);
	TRY(record(fd, F_SETLK, F_WRLCK, SEEK_SET, 0, 1));
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		record(fd, F_SETLK, F_WRLCK, SEEK_SET, 1, 1);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(record(fd, F_SETLKW, F_WRLCK, SEEK_SET, 0, 1) == 0 ? 0 : 1);
	}
	char byte;
	if (read(ready[0], &byte, 1) != 1)
		exit(1);
	nap(100);
	printf("a circle: %s\n", error_or(record(fd, F_SETLKW, F_WRLCK, SEEK_SET, 1, 1)));
	TRY(record(fd, F_SETLK, F_UNLCK, SEEK_SET, 0, 1));
	int status;
	waitpid(child, &status, 0);
	printf("the other one: %d\n", status);
	close(fd);
}

// Four processes count in a file, one record lock around each step.
static void counting(const char *path)
{
	int fd = open(path, O_RDWR);
	long zero = 0;
	if (pwrite(fd, &zero, sizeof zero, 0) != sizeof zero)
		exit(1);
	fflush(stdout);
	for (int n = 0; n < 4; n++) {
		if (fork() == 0) {
			for (int step = 0; step < 200; step++) {
				long value;
				record(fd, F_SETLKW, F_WRLCK, SEEK_SET, 0, 8);
				if (pread(fd, &value, sizeof value, 0) != sizeof value)
					_exit(1);
				value++;
				if (step % 16 == 0)
					sched_yield();
				if (pwrite(fd, &value, sizeof value, 0) != sizeof value)
					_exit(1);
				record(fd, F_SETLK, F_UNLCK, SEEK_SET, 0, 8);
			}
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	long value = 0;
	if (pread(fd, &value, sizeof value, 0) != sizeof value)
		exit(1);
	printf("counted to %ld\n", value);
	close(fd);
}

int main(void)
{
	char path[] = "/tmp/locks.XXXXXX";
	int fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 100))
		return 1;
	close(fd);
	records(path);
	open_files(path);
	whole_files(path);
	waiting(path);
	interrupted(path);
	deadlock(path);
	counting(path);
	unlink(path);
	return 0;
}
