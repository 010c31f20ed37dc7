/* System V semaphores and message queues with good and bad arguments, and who waits for what. The same on every correct kernel; numbers of
   objects and processes are not shown. */
#include "ipc.h"
#include <limits.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

static int key;
union semun { int val; struct semid_ds *buf; unsigned short *array; struct seminfo *info; void *any; };
static long control(int id, int number, int command, void *arg) { return syscall(SYS_semctl, id, number, command, arg); }
static long operate(int id, void *ops, long count, void *time) { return syscall(SYS_semtimedop, id, ops, count, time); }
static int op1(int id, int number, int change, int flags) {
    struct sembuf op = {number, change, flags};
    return semop(id, &op, 1);
}
static int value(int id, int number) { return semctl(id, number, GETVAL); }
static void values(const char *when, int id) {
    unsigned short all[8];
    union semun arg = {.array = all};
    int count = semctl(id, 0, GETALL, arg) ? 0 : 4;
    printf("%s:", when);
    for (int n = 0; n < count; n++)
        printf(" %d", all[n]);
    printf("\n");
}

/* Runs a part in a child that is still running when this returns. */
static pid_t start(void (*part)(int), int id) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        part(id);
        fflush(stdout);
        _exit(0);
    }
    return pid;
}
/* Waits until so many wait at the semaphore. */
static void until(int id, int number, int what, int count) {
    for (int n = 0; n < 2000 && semctl(id, number, what) != count; n++)
        nap(1);
}

static volatile int handled;
static void note(int signal) { (void)signal; handled++; }
static void alarm_in(long ms, int flags) {
    struct sigaction action = {.sa_handler = note, .sa_flags = flags};
    struct itimerval timer = {{0, 0}, {0, ms * 1000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void sets(void) {
    GOES(semget(key, 3, 0)); GOES(semget(key, 0, IPC_CREAT | 0600)); GOES(semget(key, -1, IPC_CREAT | 0600));
    GOES(semget(key, 32001, IPC_CREAT | 0600));
    int id = semget(key, 4, IPC_CREAT | IPC_EXCL | 0640);
    GOES(id); GOES(semget(key, 4, IPC_CREAT | IPC_EXCL)); GOES(semget(key, 5, 0)); printf("the same %d\n", semget(key, 0, 0) == id);
    struct semid_ds ds;
    SHOW(control(id, 0, IPC_STAT, &ds));
    printf("semaphores %lu mode %o otime %ld ctime %d key %d\n", ds.sem_nsems, ds.sem_perm.mode, ds.sem_otime, time(NULL) - ds.sem_ctime < 5,
           ds.sem_perm.__key == key);
    SHOW(control(id, 0, IPC_STAT, BAD)); SHOW(control(-1, 0, IPC_STAT, &ds)); SHOW(control(id, 0, 99, &ds)); SHOW(control(id, 0, -1, &ds));
    SHOW(control(id + (1 << 15), 0, IPC_STAT, &ds)); SHOW(control(id, 4, GETVAL, 0)); SHOW(control(id, -1, GETVAL, 0));
    SHOW(control(id, 4, SETVAL, (void *)1)); SHOW(control(id, 0, SETVAL, (void *)-1L)); SHOW(control(id, 0, SETVAL, (void *)32768));
    SHOW(control(id, 9, SETVAL, (void *)32768)); SHOW(control(id, 1, SETVAL, (void *)32767)); values("set", id);
    unsigned short all[4] = {1, 2, 32768, 4};
    SHOW(control(id, 9, SETALL, all)); all[2] = 3; SHOW(control(id, 9, SETALL, all)); values("all set", id);
    SHOW(control(id, 0, SETALL, BAD)); SHOW(control(id, 0, GETALL, BAD)); SHOW(semctl(id, 0, GETPID) == getpid()); SHOW(semctl(id, 0, GETNCNT));
    struct seminfo info;
    SHOW(control(0, 0, IPC_INFO, &info) < 0); SHOW(control(0, 0, IPC_INFO, BAD)); SHOW(control(-1, 0, IPC_INFO, &info));
    printf("%d %d %d %d %d %d %d %d %d %d\n", info.semmap, info.semmni, info.semmns, info.semmnu, info.semmsl, info.semopm, info.semume,
           info.semusz, info.semvmx, info.semaem);
    int highest = control(0, 0, SEM_INFO, &info), found = 0;
    printf("sums %d %d\n", info.semusz > 0, info.semaem >= 4);
    for (int n = 0; n <= highest; n++)
        found += control(n, 0, SEM_STAT, &ds) == id;
    printf("found %d\n", found);
    control(id, 0, IPC_STAT, &ds);
    ds.sem_perm.uid = 7; ds.sem_perm.gid = 8; ds.sem_perm.mode = 0444;
    SHOW(control(id, 0, IPC_SET, BAD)); SHOW(control(id, 0, IPC_SET, &ds)); SHOW(control(id, 0, IPC_STAT, &ds));
    printf("uid %d gid %d cuid %d mode %o\n", ds.sem_perm.uid, ds.sem_perm.gid, ds.sem_perm.cuid, ds.sem_perm.mode);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) || setresgid(9, 9, 9) || setresuid(9, 9, 9))
            printf("still root\n");
        SHOW(value(id, 0)); SHOW(op1(id, 0, 1, 0)); SHOW(op1(id, 0, 0, IPC_NOWAIT)); SHOW(control(id, 0, SETVAL, 0)); SHOW(control(id, 0, SETALL, BAD));
        SHOW(control(id, 0, IPC_RMID, 0)); SHOW(control(id, 0, IPC_SET, &ds)); GOES(semget(key, 1, 0600)); GOES(semget(key, 1, 0400)); SHOW(op1(id, 9, 1, 0));
        fflush(stdout);
        _exit(0);
    }
    end_of(pid);
    char line[256];
    FILE *file = fopen("/proc/sysvipc/sem", "r");
    printf("%s", fgets(line, sizeof line, file));
    while (fgets(line, sizeof line, file)) {
        int its_key, number, mode, count, uid, gid;
        if (sscanf(line, "%d %d %o %d %d %d", &its_key, &number, &mode, &count, &uid, &gid) == 6 && number == id)
            printf("%zu: %d %o %d %d %d\n", strlen(line), its_key == key, mode, count, uid, gid);
    }
    fclose(file);
    SHOW(control(id, 0, IPC_RMID, 0)); SHOW(control(id, 0, IPC_RMID, 0)); SHOW(value(id, 0)); SHOW(op1(id, 0, 1, 0));
}

static void operations(int id) {
    struct sembuf ops[501] = {{0, 0, 0}};
    struct timespec wrong = {0, -1}, soon = {0, 30000000}, none = {0, 0};
    SHOW(operate(id, ops, 0, NULL)); SHOW(operate(id, ops, 501, NULL)); SHOW(operate(id, ops, 500, NULL)); SHOW(operate(id, BAD, 1, NULL));
    SHOW(operate(id, BAD, 501, NULL)); SHOW(operate(-1, ops, 1, NULL)); SHOW(operate(-1, BAD, 1, NULL)); SHOW(operate(-1, ops, 501, NULL));
    SHOW(operate(id, ops, 1, BAD)); SHOW(operate(id, ops, 1, &wrong)); SHOW(operate(id, BAD, 1, &wrong)); SHOW(operate(id, ops, 1, &none));
    SHOW(op1(id, 4, 1, 0)); SHOW(op1(id, 65535, 1, 0)); SHOW(op1(id, 0, 5, 0)); SHOW(op1(id, 0, 32763, 0)); SHOW(op1(id, 0, 32762, IPC_NOWAIT));
    values("full", id);
    SHOW(op1(id, 0, -32768, IPC_NOWAIT)); SHOW(op1(id, 0, -32760, 0)); SHOW(op1(id, 0, 0, IPC_NOWAIT)); SHOW(op1(id, 0, -8, IPC_NOWAIT));
    /* All or nothing, in order. */
    struct sembuf some[3] = {{1, 3, 0}, {1, -2, 0}, {2, -1, IPC_NOWAIT}};
    SHOW(semop(id, some, 3)); values("nothing", id);
    some[2].sem_op = 7; SHOW(semop(id, some, 3)); values("all", id);
    struct sembuf order[2] = {{3, 0, IPC_NOWAIT}, {3, 1, 0}};
    SHOW(semop(id, order, 2)); SHOW(semop(id, order, 2)); values("once", id);
    struct sembuf range[2] = {{1, 1, 0}, {0, 32767, 0}};
    SHOW(semop(id, range, 2)); values("out of range", id);
    some[0] = (struct sembuf){3, -9, 0};
    SHOW(operate(id, some, 1, &soon)); SHOW(operate(id, some, 1, &none));
    alarm_in(30, 0); SHOW(op1(id, 3, -9, 0)); alarm_in(30, SA_RESTART); SHOW(op1(id, 3, -9, 0));
    struct timespec later = {5, 0};
    alarm_in(30, SA_RESTART); SHOW(operate(id, some, 1, &later));
    printf("handled %d waiting %d\n", handled, semctl(id, 3, GETNCNT));
    struct semid_ds ds;
    control(id, 0, IPC_STAT, &ds);
    printf("operated %d\n", time(NULL) - ds.sem_otime < 5);
    unsigned short zeros[4] = {0};
    control(id, 0, SETALL, zeros);
}

static void takes_two(int id) { SHOW(op1(id, 0, -2, 0)); }
static void takes_one(int id) { SHOW(op1(id, 0, -1, 0)); }
static void wants_zero(int id) { SHOW(op1(id, 1, 0, 0)); }
static void hands_on(int id) { struct sembuf both[2] = {{2, -1, 0}, {3, 1, 0}}; SHOW(semop(id, both, 2)); }
static void takes_last(int id) { int got = op1(id, 3, -1, 0); nap(60); SHOW(got); }
static void gives_up(int id) { struct sembuf ops[2] = {{2, -1, 0}, {3, -5, IPC_NOWAIT}}; SHOW(semop(id, ops, 2)); }
static void overflows(int id) { struct sembuf ops[2] = {{2, -1, 0}, {0, 32767, 0}}; SHOW(semop(id, ops, 2)); }
static void moves(int id) { struct sembuf ops[2] = {{2, -1, 0}, {3, -1, 0}}; SHOW(semop(id, ops, 2)); }

static void waiting(int id) {
    pid_t first = start(takes_two, id);
    until(id, 0, GETNCNT, 1);
    pid_t second = start(takes_one, id);
    until(id, 0, GETNCNT, 2);
    SHOW(op1(id, 0, 1, 0));
    printf("the second %x", end_of(second)); printf(", by it %d, left %d, waiting %d\n", semctl(id, 0, GETPID) == second, value(id, 0), semctl(id, 0, GETNCNT));
    SHOW(op1(id, 0, 1, 0)); SHOW(op1(id, 0, 1, 0));
    printf("the first %x", end_of(first)); printf(", by it %d, left %d\n", semctl(id, 0, GETPID) == first, value(id, 0));
    control(id, 1, SETVAL, (void *)2);
    first = start(wants_zero, id);
    until(id, 1, GETZCNT, 1);
    printf("waiting %d %d\n", semctl(id, 1, GETZCNT), semctl(id, 1, GETNCNT));
    SHOW(op1(id, 1, -1, 0)); printf("waiting %d\n", semctl(id, 1, GETZCNT)); SHOW(op1(id, 1, -1, 0)); end_of(first);
    /* One wakes the next. */
    first = start(takes_last, id); until(id, 3, GETNCNT, 1);
    second = start(hands_on, id); until(id, 2, GETNCNT, 1);
    SHOW(op1(id, 2, 1, 0)); end_of(second); end_of(first); values("all passed on", id);
    first = start(gives_up, id); until(id, 2, GETNCNT, 1); SHOW(op1(id, 2, 1, 0)); end_of(first); values("given up", id);
    control(id, 2, SETVAL, 0); control(id, 0, SETVAL, (void *)1);
    first = start(overflows, id); until(id, 2, GETNCNT, 1); SHOW(op1(id, 2, 1, 0)); end_of(first); values("overflow", id);
    control(id, 2, SETVAL, 0);
    first = start(moves, id); until(id, 2, GETNCNT, 1); SHOW(op1(id, 2, 1, 0)); until(id, 3, GETNCNT, 1);
    printf("waiting %d %d\n", semctl(id, 2, GETNCNT), semctl(id, 3, GETNCNT));
    unsigned short ones[4] = {1, 1, 1, 1};
    control(id, 0, SETALL, ones); end_of(first); values("moved", id);
    first = start(takes_two, id); until(id, 0, GETNCNT, 1);
    kill(first, SIGSTOP); kill(first, SIGCONT); nap(20); printf("waiting %d\n", semctl(id, 0, GETNCNT));
    kill(first, SIGKILL); printf("killed %x", end_of(first)); printf(", waiting %d\n", semctl(id, 0, GETNCNT));
    first = start(takes_two, id); until(id, 0, GETNCNT, 1);
    control(id, 0, IPC_RMID, NULL);
    printf("removed %x\n", end_of(first));
}

static void *thread(void *id) { SHOW(op1((int)(long)id, 0, -1, SEM_UNDO)); return NULL; }
static void undoes(int id) {
    SHOW(op1(id, 0, -3, SEM_UNDO)); SHOW(op1(id, 0, 1, SEM_UNDO)); SHOW(op1(id, 1, 2, SEM_UNDO)); SHOW(op1(id, 2, 5, 0)); values("in the child", id);
    pthread_t other;
    pthread_create(&other, NULL, thread, (void *)(long)id);
    pthread_join(other, NULL);
    values("after its thread", id);
    if (fork() == 0)
        _exit(0);
    wait(NULL);
    values("after its child", id);
}
static void cleared(int id) { SHOW(op1(id, 0, 4, SEM_UNDO)); SHOW(control(id, 0, SETVAL, (void *)20)); SHOW(op1(id, 3, 1, SEM_UNDO)); }
static void execs(int id) {
    op1(id, 1, 6, SEM_UNDO);
    char number[16], *args[] = {"semaphores", number, NULL};
    snprintf(number, sizeof number, "%d", id);
    execv("/proc/self/exe", args);
}
static void limits(int id) { SHOW(op1(id, 3, 32767, SEM_UNDO)); SHOW(op1(id, 3, -32767, 0)); SHOW(op1(id, 3, 2, SEM_UNDO)); SHOW(op1(id, 3, 1, SEM_UNDO)); }
static void below(int id) { SHOW(op1(id, 2, 9, SEM_UNDO)); SHOW(op1(id, 2, -12, 0)); }
static void fails(int id) { struct sembuf ops[2] = {{0, -1, SEM_UNDO}, {3, -99, IPC_NOWAIT}}; SHOW(semop(id, ops, 2)); }
static void removes(int id) { SHOW(op1(id, 0, -1, SEM_UNDO)); SHOW(control(id, 0, IPC_RMID, NULL)); SHOW(op1(id, 0, -1, SEM_UNDO)); }
static void is_killed(int id) { SHOW(op1(id, 0, -2, SEM_UNDO)); fflush(stdout); raise(SIGKILL); }

static void undoing(void) {
    int id = semget(IPC_PRIVATE, 4, 0600);
    unsigned short all[4] = {10, 0, 0, 0};
    control(id, 0, SETALL, all);
    pid_t pid = start(undoes, id);
    printf("ended %x", end_of(pid)); printf(", by it %d\n", semctl(id, 0, GETPID) == pid); values("undone", id);
    end_of(start(cleared, id)); values("cleared", id);
    printf("ended %x\n", end_of(start(execs, id))); values("after exec", id);
    end_of(start(limits, id)); values("limits", id);
    control(id, 3, SETVAL, 0);
    end_of(start(below, id)); values("not below", id);
    end_of(start(fails, id)); values("nothing to undo", id);
    printf("ended %x\n", end_of(start(is_killed, id))); values("killed", id);
    /* What is undone wakes. */
    control(id, 0, SETVAL, (void *)1);
    SHOW(op1(id, 0, -1, 0));
    pid_t waiter = start(takes_one, id);
    until(id, 0, GETNCNT, 1);
    control(id, 0, SETVAL, (void *)0);
    pid = fork();
    if (pid == 0) {
        struct sembuf ops[2] = {{0, 1, 0}, {0, -1, SEM_UNDO}};
        semop(id, ops, 2);
        _exit(0);
    }
    end_of(pid);
    printf("woken %x\n", end_of(waiter)); values("at last", id);
    control(id, 0, SETVAL, (void *)5);
    printf("ended %x\n", end_of(start(removes, id)));
}

struct message { long type; char text[8192]; };
static struct message message;
static int put(int id, long type, const char *text) {
    message.type = type;
    strcpy(message.text, text);
    return msgsnd(id, &message, strlen(text), IPC_NOWAIT);
}
static void take(int id, size_t size, long type, int flags) {
    memset(&message, 0, sizeof message);
    ssize_t got = msgrcv(id, &message, size, type, flags);
    if (got < 0)
        printf("take %ld: %s\n", type, strerrorname_np(errno));
    else
        printf("take %ld: %zd %ld %s\n", type, got, message.type, message.text);
}
static struct msqid_ds stat_of(int id) {
    struct msqid_ds ds;
    memset(&ds, 0, sizeof ds);
    msgctl(id, IPC_STAT, &ds);
    return ds;
}
static void takes_any(int id) { take(id, 100, 0, 0); }
static void takes_seven(int id) { take(id, 100, 7, 0); }
static void takes_others(int id) { take(id, 100, 7, MSG_EXCEPT); }
static void takes_low(int id) { take(id, 100, -3, 0); }
static void takes_short(int id) { take(id, 2, 0, 0); }
static void sends(int id) { message.type = 5; SHOW(msgsnd(id, &message, 6000, 0)); }

static void messages(void) {
    GOES(msgget(key, 0));
    int id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
    GOES(id); GOES(msgget(key, IPC_CREAT | IPC_EXCL)); printf("the same %d\n", msgget(key, 0) == id);
    struct msqid_ds ds = stat_of(id);
    printf("mode %o qbytes %lu qnum %lu times %ld %ld %d\n", ds.msg_perm.mode, ds.msg_qbytes, ds.msg_qnum, ds.msg_stime, ds.msg_rtime,
           time(NULL) - ds.msg_ctime < 5);
    SHOW(msgsnd(id, BAD, 1, 0)); message.type = 0; SHOW(msgsnd(id, &message, 1, 0)); message.type = -1; SHOW(msgsnd(id, &message, 1, 0));
    message.type = 1; SHOW(msgsnd(id, &message, 8193, 0)); SHOW(syscall(SYS_msgsnd, id, &message, -1L, 0)); SHOW(msgsnd(-1, &message, 1, 0));
    SHOW(msgsnd(id + (1 << 15), &message, 1, 0)); SHOW(msgsnd(id, &message, 0, 0));
    SHOW(msgrcv(-1, &message, 1, 0, 0)); SHOW(syscall(SYS_msgrcv, id, &message, -1L, 0, 0)); SHOW(msgrcv(id, &message, 1, 0, 0));
    take(id, 10, 0, IPC_NOWAIT);
    for (int n = 0; n < 7; n++)
        SHOW(put(id, "5327517"[n] - '0', (const char *[]){"a", "b", "cc", "d", "eee", "f", "g"}[n]));
    take(id, 10, 7, IPC_NOWAIT); take(id, 10, -4, IPC_NOWAIT); take(id, 10, 5, MSG_EXCEPT | IPC_NOWAIT); take(id, 1, 0, MSG_NOERROR);
    take(id, 1, 2, 0); take(id, 1, 2, MSG_NOERROR); take(id, 2, 5, IPC_NOWAIT); take(id, 3, LONG_MIN, IPC_NOWAIT); take(id, 3, 99, IPC_NOWAIT);
    SHOW(msgrcv(id, BAD, 10, 0, 0)); take(id, 10, 0, IPC_NOWAIT);
    put(id, 9, "copied"); put(id, 8, "copied too");
    SHOW(msgrcv(id, &message, 100, 0, MSG_COPY)); SHOW(msgrcv(id, &message, 100, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT));
    take(id, 100, 1, MSG_COPY | IPC_NOWAIT); take(id, 100, 2, MSG_COPY | IPC_NOWAIT); take(id, 100, 0, IPC_NOWAIT); take(id, 100, 0, IPC_NOWAIT);
    ds = stat_of(id);
    printf("bytes %lu qnum %lu by %d %d\n", ds.__msg_cbytes, ds.msg_qnum, ds.msg_lspid == getpid(), ds.msg_lrpid == getpid());
    /* A full queue. */
    message.type = 1;
    SHOW(msgsnd(id, &message, 8192, 0)); SHOW(msgsnd(id, &message, 8192, 0)); SHOW(msgsnd(id, &message, 1, IPC_NOWAIT)); SHOW(msgsnd(id, &message, 0, IPC_NOWAIT));
    alarm_in(30, SA_RESTART); SHOW(msgsnd(id, &message, 1, 0));
    pid_t pid = start(sends, id);
    asleep(pid); take(id, 8192, 1, 0); printf("sent %x", end_of(pid)); printf(", bytes %lu\n", stat_of(id).__msg_cbytes);
    ds = stat_of(id); ds.msg_qbytes = 100;
    SHOW(msgctl(id, IPC_SET, &ds)); take(id, 8192, 1, 0); take(id, 8192, 1, 0); take(id, 8192, 5, 0);
    int count = 0;
    while (put(id, 3, "") == 0)
        count++;
    printf("empty ones %d\n", count);
    while (msgrcv(id, &message, 1, 0, IPC_NOWAIT) == 0)
        ;
    alarm_in(30, SA_RESTART); take(id, 10, 0, 0); SHOW(msgctl(id, IPC_SET, BAD)); SHOW(msgctl(id, IPC_STAT, BAD)); SHOW(msgctl(-1, IPC_STAT, &ds));
    SHOW(msgctl(id, 99, &ds));
    /* Each gets what it waits for. */
    pid_t seven = start(takes_seven, id); asleep(seven);
    pid_t low = start(takes_low, id); asleep(low);
    pid_t any = start(takes_any, id); asleep(any);
    pid_t others = start(takes_others, id); asleep(others);
    SHOW(put(id, 9, "nine")); SHOW(msgrcv(id, &message, 9, 0, IPC_NOWAIT)); end_of(any);
    SHOW(put(id, 3, "three")); end_of(low); SHOW(put(id, 7, "seven")); end_of(seven); SHOW(put(id, 8, "eight")); end_of(others);
    printf("the last %d, left %lu\n", stat_of(id).msg_lrpid == others, stat_of(id).msg_qnum);
    pid = start(takes_short, id); asleep(pid); SHOW(put(id, 1, "too long")); end_of(pid); printf("left %lu\n", stat_of(id).msg_qnum); take(id, 100, 0, 0);
    struct msginfo info;
    SHOW(msgctl(0, IPC_INFO, (void *)&info) < 0);
    printf("%d %d %d %d %d %d %d %d\n", info.msgpool, info.msgmap, info.msgmax, info.msgmnb, info.msgmni, info.msgssz, info.msgtql, info.msgseg);
    int highest = msgctl(0, MSG_INFO, (void *)&info), found = 0;
    for (int n = 0; n <= highest; n++)
        found += msgctl(n, MSG_STAT, &ds) == id;
    printf("found %d\n", found);
    pid = start(takes_any, id); asleep(pid); ds = stat_of(id); ds.msg_perm.mode = 0; SHOW(msgctl(id, IPC_SET, &ds)); asleep(pid); put(id, 1, "still"); end_of(pid);
    char line[256];
    FILE *file = fopen("/proc/sysvipc/msg", "r");
    printf("%s", fgets(line, sizeof line, file));
    while (fgets(line, sizeof line, file)) {
        int its_key, number, mode, bytes, messages;
        if (sscanf(line, "%d %d %o %d %d", &its_key, &number, &mode, &bytes, &messages) == 5 && number == id)
            printf("%zu: %d %o %d %d\n", strlen(line), its_key == key, mode, bytes, messages);
    }
    fclose(file);
    fflush(stdout);
    if ((pid = fork()) == 0) {
        if (setgroups(0, NULL) || setresgid(9, 9, 9) || setresuid(9, 9, 9))
            printf("still root\n");
        SHOW(put(id, 1, "x")); take(id, 10, 0, IPC_NOWAIT); SHOW(msgctl(id, IPC_STAT, &ds)); SHOW(msgctl(id, IPC_RMID, NULL)); GOES(msgget(key, 0400));
        GOES(msgget(key, 0)); fflush(stdout);
        _exit(0);
    }
    end_of(pid);
    pid = start(takes_any, id); asleep(pid);
    pid_t full = fork();
    if (full == 0) {
        message.type = 1;
        _exit(msgsnd(id, &message, 101, 0) == -1 && errno == EIDRM ? 9 : 1);
    }
    asleep(full);
    SHOW(msgctl(id, IPC_RMID, NULL)); printf("removed %x", end_of(pid)); printf(" %x\n", end_of(full)); SHOW(msgctl(id, IPC_RMID, NULL)); SHOW(put(id, 1, "x"));
}

int main(int count, char **args) {
    if (count > 1) {
        int id = atoi(args[1]);
        values("after exec", id);
        return 4;
    }
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    key = (getpid() * 2654435761u & 0x3fffffff) | 1;
    sets();
    int id = semget(IPC_PRIVATE, 4, 0600);
    operations(id);
    waiting(id);
    undoing();
    messages();
    return 0;
}
