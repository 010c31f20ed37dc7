/* POSIX threads on glibc or musl: what they share, how they wait for each other, and how they end. Prints the same on every correct
 * kernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			printf("line %d: not so: %s (errno %d)\n", __LINE__, #what, errno); \
			fflush(stdout); \
			_exit(1); \
		} \
	} while (0)

static void say(const char *text)
{
	puts(text);
	fflush(stdout);
}

static pthread_t start(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, body, argument) == 0);
	return thread;
}

static void *end_of(pthread_t thread)
{
	void *value;

	CHECK(pthread_join(thread, &value) == 0);
	return value;
}

/* Two threads hand a ball on, by a mutex and a condition variable. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int ball;

static void *play(void *argument)
{
	int own = (int)(long)argument;

	for (int i = 0; i < 2000; i++) {
		pthread_mutex_lock(&mutex);
		while (ball % 2 != own)
			pthread_cond_wait(&cond, &mutex);
		ball++;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static void ping_pong(void)
{
	pthread_t a = start(play, (void *)0), b = start(play, (void *)1);

	end_of(a);
	end_of(b);
	CHECK(ball == 4000);
	say("ping-pong");
}

static pthread_barrier_t barrier;
static atomic_int arrived, serial;

static void *meet(void *nothing)
{
	(void)nothing;
	for (int round = 1; round <= 20; round++) {
		arrived++;
		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			serial++;
		CHECK(arrived >= round * 8);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void barriers(void)
{
	pthread_t threads[8];

	pthread_barrier_init(&barrier, NULL, 8);
	for (int i = 0; i < 8; i++)
		threads[i] = start(meet, NULL);
	for (int i = 0; i < 8; i++)
		end_of(threads[i]);
	CHECK(arrived == 160 && serial == 20);
	say("barriers");
}

static int cleaned;

static void clean(void *nothing)
{
	(void)nothing;
	cleaned++;
}

static void unlock(void *locked)
{
	pthread_mutex_unlock(locked);
}

static sem_t ready;

static void *sleeper(void *how)
{
	pthread_cleanup_push(clean, NULL);
	sem_post(&ready);
	if (how)
		for (;;)
			pause();
	pthread_mutex_lock(&mutex);
	pthread_cleanup_push(unlock, &mutex);
	for (;;)
		pthread_cond_wait(&cond, &mutex);
	pthread_cleanup_pop(1);
	pthread_cleanup_pop(1);
	return NULL;
}

static void *spinner(void *nothing)
{
	(void)nothing;
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	sem_post(&ready);
	for (;;)
		;
	return NULL;
}

static void cancellation(void)
{
	void *(*bodies[])(void *) = { sleeper, sleeper, spinner };

	sem_init(&ready, 0, 0);
	for (int i = 0; i < 3; i++) {
		pthread_t thread = start(bodies[i], (void *)(long)i);

		while (sem_wait(&ready) != 0)
			;
		CHECK(pthread_cancel(thread) == 0);
		CHECK(end_of(thread) == PTHREAD_CANCELED);
	}
	CHECK(cleaned == 2);
	say("cancellation");
}

static atomic_int done;

static void *work(void *nothing)
{
	(void)nothing;
	done++;
	return NULL;
}

static void many(void)
{
	pthread_t threads[50];
	pthread_attr_t detached;

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 50; i++)
			threads[i] = start(work, NULL);
		for (int i = 0; i < 50; i++)
			end_of(threads[i]);
	}
	CHECK(done == 1000);
	say("1000 threads");
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	for (int i = 0; i < 100; i++)
		CHECK(pthread_create(&threads[0], &detached, work, NULL) == 0);
	while (done < 1100)
		sched_yield();
	say("100 detached threads");
}

static __thread int own = 7;
static pthread_key_t key;
static int destroyed;

static void destroy(void *value)
{
	destroyed += *(int *)value;
	free(value);
}

static void *use_own(void *argument)
{
	int *value = malloc(sizeof *value);

	*value = (int)(long)argument;
	pthread_setspecific(key, value);
	CHECK(own == 7);
	own = *value;
	sched_yield();
	CHECK(own == (int)(long)argument);
	return NULL;
}

static void thread_local_storage(void)
{
	pthread_t threads[10];

	pthread_key_create(&key, destroy);
	for (long i = 0; i < 10; i++)
		threads[i] = start(use_own, (void *)i);
	for (int i = 0; i < 10; i++)
		end_of(threads[i]);
	CHECK(own == 7 && destroyed == 45);
	say("thread-local storage");
}

static pid_t tid_of[4];
static atomic_int caught[4], foreign;

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	for (int i = 0; i < 4; i++)
		if (tid_of[i] == (pid_t)syscall(SYS_gettid)) {
			CHECK(number == SIGUSR1 && info->si_code == SI_TKILL && info->si_pid == getpid());
			caught[i]++;
			return;
		}
	foreign++;
}

static atomic_int stop;

static void *catch(void *argument)
{
	tid_of[(long)argument] = syscall(SYS_gettid);
	sem_post(&ready);
	while (!stop)
		usleep(1000);
	return NULL;
}

static void thread_signals(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	pthread_t threads[4];

	sigaction(SIGUSR1, &action, NULL);
	for (long i = 0; i < 4; i++) {
		threads[i] = start(catch, (void *)i);
		while (sem_wait(&ready) != 0)
			;
	}
	for (int i = 0; i < 4; i++)
		for (int n = 0; n <= i; n++) {
			CHECK(pthread_kill(threads[i], SIGUSR1) == 0);
			while (caught[i] <= n)
				sched_yield();
		}
	stop = 1;
	for (int i = 0; i < 4; i++) {
		end_of(threads[i]);
		CHECK(caught[i] == i + 1);
	}
	CHECK(foreign == 0);
	CHECK(syscall(SYS_tgkill, getpid(), tid_of[0], 0) == -1 && errno == ESRCH);
	CHECK(syscall(SYS_tgkill, getpid() + 1, getpid(), 0) == -1 && errno == ESRCH);
	say("signals to threads");
}

/* SIGTERM is blocked everywhere and taken by sigwait: it must not kill. */
static void *wait_for_signal(void *set)
{
	int number = 0;

	CHECK(sigwait(set, &number) == 0);
	return (void *)(long)number;
}

static void signal_thread(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_t thread = start(wait_for_signal, &set);
	usleep(20000);
	kill(getpid(), SIGTERM);
	CHECK(end_of(thread) == (void *)SIGTERM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	say("a signal thread");
}

static atomic_int taken_by_other;

static void on_usr2(int number)
{
	(void)number;
	taken_by_other = syscall(SYS_gettid) != getpid();
	stop = 1;
}

static void *idle(void *nothing)
{
	(void)nothing;
	sem_post(&ready);
	while (!stop)
		pause();
	return NULL;
}

/* The first thread blocks the signal, so another one takes it. */
static void choice(void)
{
	sigset_t set;

	stop = 0;
	signal(SIGUSR2, on_usr2);
	pthread_t thread = start(idle, NULL);
	while (sem_wait(&ready) != 0)
		;
	usleep(20000);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGUSR2);
	end_of(thread);
	CHECK(taken_by_other);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	say("another thread takes it");
}

static void *timed(void *nothing)
{
	struct timespec until;

	(void)nothing;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 20000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	CHECK(pthread_mutex_timedlock(&mutex, &until) == ETIMEDOUT);
	CHECK(sem_timedwait(&ready, &until) == -1 && errno == ETIMEDOUT);
	return NULL;
}

static void timeouts(void)
{
	pthread_mutex_lock(&mutex);
	end_of(start(timed, NULL));
	pthread_mutex_unlock(&mutex);
	say("time-outs");
}

/* A robust mutex in shared memory, whose owner dies: a thread, then a process. */
static pthread_mutex_t *robust;

static void *lock_and_end(void *nothing)
{
	(void)nothing;
	pthread_mutex_lock(robust);
	return NULL;
}

static void owner_dies(void)
{
	pthread_mutexattr_t attr;
	pid_t child;
	int status;

	robust = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(robust, &attr);
	end_of(start(lock_and_end, NULL));
	CHECK(pthread_mutex_lock(robust) == EOWNERDEAD);
	CHECK(pthread_mutex_consistent(robust) == 0);
	pthread_mutex_unlock(robust);
	child = fork();
	if (child == 0) {
		pthread_mutex_lock(robust);
		usleep(30000);
		kill(getpid(), SIGKILL);
	}
	usleep(10000);
	int locked = pthread_mutex_lock(robust);
	CHECK(locked == EOWNERDEAD);
	waitpid(child, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	say("robust mutexes");
}

/* Two processes wait for each other by semaphores in shared memory. */
static void between_processes(void)
{
	sem_t *pair = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	sem_init(&pair[0], 1, 0);
	sem_init(&pair[1], 1, 0);
	pid_t child = fork();
	for (int i = 0; i < 200; i++)
		if (child == 0) {
			sem_wait(&pair[0]);
			sem_post(&pair[1]);
		} else {
			sem_post(&pair[0]);
			sem_wait(&pair[1]);
		}
	if (child == 0)
		_exit(9);
	CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 9);
	say("semaphores between processes");
}

static void *name_itself(void *nothing)
{
	char name[16] = "";

	(void)nothing;
	prctl(PR_SET_NAME, "a-thread");
	prctl(PR_GET_NAME, name);
	CHECK(strcmp(name, "a-thread") == 0);
	return NULL;
}

static void identity(void)
{
	char before[16], after[16];
	struct rusage usage;
	struct timespec cpu;

	prctl(PR_GET_NAME, before);
	end_of(start(name_itself, NULL));
	prctl(PR_GET_NAME, after);
	CHECK(strcmp(before, after) == 0);
	CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
	CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu) == 0);
	CHECK(syscall(SYS_gettid) == getpid());
	say("names and times");
}

int main(void)
{
	ping_pong();
	barriers();
	cancellation();
	many();
	thread_local_storage();
	thread_signals();
	signal_thread();
	choice();
	timeouts();
	owner_dies();
	between_processes();
	identity();
	return 0;
}
