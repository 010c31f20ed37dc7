/* How processes with several threads, and processes that share memory, end, stop and become other programs. Each case is a child whose
 * wait status is printed. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *self;

static void say(const char *text, int value)
{
	printf("%s: %d\n", text, value);
	fflush(stdout);
}

static void *pausing(void *nothing)
{
	for (;;)
		pause();
	return nothing;
}

static void *spinning(void *nothing)
{
	for (;;)
		;
	return nothing;
}

static void others(void)
{
	pthread_t thread;

	for (int i = 0; i < 3; i++)
		pthread_create(&thread, NULL, i ? pausing : spinning, NULL);
	usleep(20000);
}

static void *exits(void *status)
{
	exit((int)(long)status);
}

static void *execs(void *nothing)
{
	char *arguments[] = { (char *)self, "child", NULL };

	(void)nothing;
	execv(self, arguments);
	_exit(99);
}

static void *ends_thread_soon(void *status)
{
	usleep(20000);
	syscall(SYS_exit, (int)(long)status);
	return NULL;
}

static void *aborts(void *nothing)
{
	*(volatile int *)nothing = 1;
	return NULL;
}

static void run_in_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	pthread_create(&thread, NULL, body, argument);
	pthread_join(thread, NULL);
	_exit(98);
}

static void exit_of_main(void)
{
	others();
	exit(3);
}

static void exit_of_other(void)
{
	others();
	run_in_thread(exits, (void *)4);
}

static void exec_of_main(void)
{
	others();
	execs(NULL);
}

static void exec_of_other(void)
{
	others();
	run_in_thread(execs, NULL);
}

static void main_ends_first(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, ends_thread_soon, (void *)6);
	syscall(SYS_exit, 5);
}

static void main_ends_then_exit_group(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, exits, (void *)7);
	syscall(SYS_exit, 5);
}

static void main_ends_then_exec(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, execs, NULL);
	syscall(SYS_exit, 5);
}

static void fault_of_other(void)
{
	others();
	run_in_thread(aborts, NULL);
}

static void killed(void)
{
	others();
	kill(getpid(), SIGTERM);
	pause();
}

static void killed_by_thread_signal(void)
{
	others();
	pthread_kill(pthread_self(), SIGHUP);
	pause();
}

static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void run(const char *name, void (*body)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		body();
		_exit(97);
	}
	say(name, wait_for(pid));
}

static void stops(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		others();
		pause();
		_exit(1);
	}
	usleep(60000);
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	say("stopped", status);
	kill(pid, SIGCONT);
	waitpid(pid, &status, WCONTINUED);
	say("continued", status);
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	say("stopped again", status);
	kill(pid, SIGKILL);
	say("killed while stopped", wait_for(pid));
}

static void spawns(void)
{
	char *arguments[] = { (char *)self, "child", NULL };
	volatile int shared = 1;
	pid_t pid;

	/* The child prints too: it has to be done before this process does. */
	int spawned = posix_spawn(&pid, self, NULL, NULL, arguments, environ);
	int status = wait_for(pid);
	say("posix_spawn", spawned);
	say("its status", status);
	say("posix_spawn of nothing", posix_spawn(&pid, "/nowhere", NULL, NULL, arguments, environ));
	pid = vfork();
	if (pid == 0) {
		shared = 2;
		_exit(8);
	}
	say("written by the vfork child", shared);
	say("its status", wait_for(pid));
}

static char stack[65536] __attribute__((aligned(16)));
static atomic_int word;

static int in_shared_memory(void *argument)
{
	word = *(int *)argument;
	return 10;
}

static void shares(void)
{
	int value = 11;
	pid_t pid = clone(in_shared_memory, stack + sizeof stack, CLONE_VM | SIGCHLD, &value);

	say("status of a process with shared memory", wait_for(pid));
	say("what it wrote", word);
	pid = clone(in_shared_memory, stack + sizeof stack, CLONE_VM, &value);
	say("without exit signal, waitpid", waitpid(pid, NULL, 0) == -1 ? errno : 0);
	say("with __WCLONE", waitpid(pid, NULL, __WCLONE) == pid);
}

static void refusals(void)
{
	static const unsigned long flags[] = {
		CLONE_THREAD, CLONE_THREAD | CLONE_VM, CLONE_SIGHAND, CLONE_THREAD | CLONE_SIGHAND,
	};
	struct clone_args { unsigned long words[11]; } args = { { 0 } };

	for (unsigned i = 0; i < 4; i++)
		say("clone", syscall(SYS_clone, flags[i], 0, 0, 0, 0) == -1 ? errno : 0);
	say("clone3, short", syscall(SYS_clone3, &args, 63) == -1 ? errno : 0);
	say("clone3, long", syscall(SYS_clone3, &args, 8192) == -1 ? errno : 0);
	args.words[4] = 65;
	say("clone3, signal", syscall(SYS_clone3, &args, 88) == -1 ? errno : 0);
	args.words[4] = 0;
	args.words[5] = 4096;
	say("clone3, stack without size", syscall(SYS_clone3, &args, 88) == -1 ? errno : 0);
	args.words[5] = 0;
	args.words[0] = CLONE_SIGHAND;
	say("clone3, flags", syscall(SYS_clone3, &args, 88) == -1 ? errno : 0);
}

static int futex(void *address, int operation, int value, const void *timeout, void *second, int last)
{
	long result = syscall(SYS_futex, address, operation, value, timeout, second, last);

	return result == -1 ? -errno : (int)result;
}

static void futexes(void)
{
	static int words[2] = { 1, 2 };
	struct timespec short_time = { 0, 5000000 }, bad_time = { 0, 1000000000 }, zero = { 0, 0 };
	char *unreadable = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int private = 0; private <= FUTEX_PRIVATE_FLAG; private += FUTEX_PRIVATE_FLAG) {
		say("changed", futex(words, FUTEX_WAIT | private, 0, NULL, NULL, 0));
		say("time-out", futex(words, FUTEX_WAIT | private, 1, &short_time, NULL, 0));
		say("past", futex(words, FUTEX_WAIT_BITSET | private, 1, &zero, NULL, -1));
		say("bad time-out", futex(words, FUTEX_WAIT | private, 1, &bad_time, NULL, 0));
		say("empty set", futex(words, FUTEX_WAIT_BITSET | private, 1, &zero, NULL, 0));
		say("empty set, wake", futex(words, FUTEX_WAKE_BITSET | private, 1, NULL, NULL, 0));
		say("unaligned", futex((char *)words + 1, FUTEX_WAIT | private, 1, NULL, NULL, 0));
		say("unreadable", futex(unreadable, FUTEX_WAIT | private, 1, NULL, NULL, 0));
		say("unreadable, wake", futex(unreadable, FUTEX_WAKE | private, 1, NULL, NULL, 0));
		say("kernel, wake", futex((void *)(-4096L), FUTEX_WAKE | private, 1, NULL, NULL, 0));
		say("nobody", futex(words, FUTEX_WAKE | private, 1, NULL, NULL, 0));
		say("requeue, changed", futex(words, FUTEX_CMP_REQUEUE | private, 1, (void *)1, words + 1, 9));
		say("requeue", futex(words, FUTEX_CMP_REQUEUE | private, 1, (void *)1, words + 1, 1));
		say("requeue, negative", futex(words, FUTEX_REQUEUE | private, -1, (void *)1, words + 1, 0));
		say("operation", futex(words, FUTEX_WAKE_OP | private, 1, (void *)1, words + 1,
				       FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 2)));
		say("its word", words[1]);
		say("unknown operation", futex(words, FUTEX_WAKE_OP | private, 1, (void *)1, words + 1,
					       FUTEX_OP(6, 5, FUTEX_OP_CMP_EQ, 2)));
		say("clock", futex(words, FUTEX_WAKE | FUTEX_CLOCK_REALTIME | private, 1, NULL, NULL, 0));
		say("unknown", futex(words, 99 | private, 1, NULL, NULL, 0));
	}
}

static void *requeued(void *words)
{
	return (void *)(long)futex(words, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
}

/* Four threads wait for the first word: one is woken, three are sent on to the second and woken there. */
static void requeue(void)
{
	static int words[2] = { 1, 1 };
	pthread_t threads[4];
	long sum = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, requeued, words);
	usleep(50000);
	say("requeued", futex(words, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)100, words + 1, 1));
	say("left at the first", futex(words, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
	say("woken at the second", futex(words + 1, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
	for (int i = 0; i < 4; i++) {
		void *result;

		pthread_join(threads[i], &result);
		sum += (long)result;
	}
	say("results", sum);
}

static void on_alarm(int number)
{
	(void)number;
}

/* A handler ends a wait with a time-out, and a wait without one unless SA_RESTART is set; then the wait goes on. */
static void interrupted(void)
{
	static int one = 1;
	struct timespec second = { 1, 0 };
	struct sigaction action = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &action, NULL);
	ualarm(20000, 0);
	say("interrupted", futex(&one, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
	ualarm(20000, 0);
	say("interrupted with time-out", futex(&one, FUTEX_WAIT_PRIVATE, 1, &second, NULL, 0));
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	ualarm(20000, 0);
	say("with time-out, SA_RESTART", futex(&one, FUTEX_WAIT_PRIVATE, 1, &second, NULL, 0));
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		say("child is its first thread", syscall(SYS_gettid) == getpid());
		return 12;
	}
	self = argv[0];
	run("exit of the first thread", exit_of_main);
	run("exit of another thread", exit_of_other);
	run("exec of the first thread", exec_of_main);
	run("exec of another thread", exec_of_other);
	run("the first thread ends first", main_ends_first);
	run("the first thread ends, then exit", main_ends_then_exit_group);
	run("the first thread ends, then exec", main_ends_then_exec);
	run("fault of another thread", fault_of_other);
	run("killed", killed);
	run("killed by a signal to a thread", killed_by_thread_signal);
	stops();
	spawns();
	shares();
	refusals();
	futexes();
	requeue();
	interrupted();
	return 0;
}
