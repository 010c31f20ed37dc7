/* Signal basics by glibc: raise, masks, pending, siglongjmp out of a SIGSEGV handler, alarm and pause, reset, ignore, abort. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile sig_atomic_t count;
static sigjmp_buf back;

static void counting(int signo)
{
	(void)signo;
	count++;
}

static void jumping(int signo, siginfo_t *info, void *context)
{
	(void)context;
	siglongjmp(back, signo == info->si_signo ? info->si_code : -1);
}

static void install(int signo, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	sigaction(signo, &action, NULL);
}

static void masks(void)
{
	sigset_t set, pending, old;

	install(SIGUSR1, counting, 0);
	raise(SIGUSR1);
	printf("raise: %d\n", (int)count);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	raise(SIGUSR1);
	printf("blocked: %d\n", (int)count);
	if (sigpending(&pending) == 0)
		printf("pending: %d\n", sigismember(&pending, SIGUSR1));
	sigprocmask(SIG_SETMASK, &old, NULL);
	printf("unblocked: %d\n", (int)count);
	install(SIGUSR1, SIG_IGN, 0);
	raise(SIGUSR1);
	printf("ignored: %d\n", (int)count);
	install(SIGUSR1, counting, (int)SA_RESETHAND);
	raise(SIGUSR1);
	struct sigaction now;
	sigaction(SIGUSR1, NULL, &now);
	printf("reset: %d, default again: %d\n", (int)count, now.sa_handler == SIG_DFL);
}

static void jumps(void)
{
	struct sigaction action = { .sa_sigaction = jumping, .sa_flags = SA_SIGINFO };
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *nowhere = (char *)16;
	sigset_t now;

	sigaction(SIGSEGV, &action, NULL);
	for (volatile int round = 0; round < 3; round++) {
		int code = sigsetjmp(back, 1);

		if (code) {
			printf("caught code %d\n", code);
			continue;
		}
		volatile char *volatile target = round == 1 ? page : nowhere;
		*target = 1;
	}
	sigprocmask(SIG_BLOCK, NULL, &now);
	printf("SIGSEGV is blocked: %d\n", sigismember(&now, SIGSEGV));
}

/* Unknown flags are dropped, and SIGKILL and SIGSTOP cannot be in a mask. */
static void flags(void)
{
	struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } all = { SIG_IGN, ~0UL, NULL, ~0UL }, now;

	printf("all flags: %ld\n", syscall(SYS_rt_sigaction, SIGUSR2, &all, NULL, 8));
	if (syscall(SYS_rt_sigaction, SIGUSR2, NULL, &now, 8) == 0)
		printf("kept: %lx mask %lx\n", now.flags, now.mask);
}

static void waits(void)
{
	install(SIGALRM, counting, 0);
	count = 0;
	alarm(1);
	int result = pause();
	printf("pause: %d %s, handlers: %d\n", result, strerror(errno), (int)count);
	printf("kill 0: %d, bad signal: %d, bad handler: %d\n", kill(getpid(), 0), raise(65) != 0,
	       sigaction(SIGKILL, &(struct sigaction){ .sa_handler = counting }, NULL));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	masks();
	jumps();
	flags();
	waits();
	abort();
}
