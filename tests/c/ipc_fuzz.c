/* Random calls on shared memory, semaphores and message queues; prints what came of them. */
#include "fuzz.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define ARENA 0x200000000000UL
#define PAGES 24UL
#define SETS 3
#define IDS 3

static int segments[IDS], sets[SETS], queues[2], posix[2];
static char name[2][64];

static void *page(unsigned n) { return (void *)(ARENA + n * PAGE); }

static void maps(void) {
    static char text[1 << 16];
    int fd = open("/proc/self/maps", O_RDONLY);
    size_t len = 0;
    ssize_t got;
    while ((got = read(fd, text + len, sizeof text - 1 - len)) > 0)
        len += got;
    close(fd);
    text[len] = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long start, end, offset;
        char permissions[5];
        if (sscanf(line, "%lx-%lx %4s %lx", &start, &end, permissions, &offset) == 4 && start >= ARENA && end <= ARENA + PAGES * PAGE) {
            note("area", (start - ARENA) / PAGE * 1000 + (end - ARENA) / PAGE);
            note(permissions, offset / PAGE);
        }
    }
}

static void memory(void) {
    unsigned at = pick(PAGES), id = pick(IDS), len = 1 + pick(5), to = pick(PAGES);
    static const int protections[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC};
    static const int flags[] = {0, 0, SHM_RDONLY, SHM_REMAP, SHM_REMAP | SHM_RDONLY, SHM_EXEC, SHM_RND};
    struct shmid_ds ds;
    if (at + len > PAGES)
        len = PAGES - at;
    if (to + len > PAGES)
        to = PAGES - len;
    switch (pick(9)) {
    case 0:
    case 1: {
        int its = flags[pick(7)];
        if (at + 4 > PAGES)
            at = PAGES - 4;
        char *got = shmat(segments[id], (char *)page(at) + (pick(8) ? 0 : 16), its);
        note("shmat", got == (char *)-1 ? -1 : (long)((uintptr_t)got - ARENA) / (long)PAGE);
        break;
    }
    case 2:
        note("shmdt", shmdt((char *)page(at) + (pick(10) ? 0 : 1)));
        break;
    case 3:
        note("mprotect", mprotect(page(at), len * PAGE, protections[pick(4)]));
        break;
    case 4:
        note("munmap", munmap(page(at), len * PAGE));
        break;
    case 5: {
        char *got = mremap(page(at), len * PAGE, len * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | (pick(4) ? 0 : MREMAP_DONTUNMAP), page(to));
        note("mremap", got == MAP_FAILED ? -1 : (long)((uintptr_t)got - ARENA) / (long)PAGE);
        break;
    }
    case 6: {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            if (pick(2))
                shmdt(page(at));
            shmctl(segments[id], IPC_STAT, &ds);
            _exit(ds.shm_nattch);
        }
        waitpid(pid, &status, 0);
        note("fork", status);
        break;
    }
    case 7:
        note("madvise", madvise(page(at), len * PAGE, pick(2) ? MADV_DONTNEED : MADV_DONTFORK));
        break;
    default:
        if (pick(6) == 0) {
            note("remove", shmctl(segments[id], IPC_RMID, NULL));
            segments[id] = shmget(IPC_PRIVATE, (1 + pick(4)) * PAGE, 0600);
        } else {
            note("lock", shmctl(segments[id], pick(2) ? SHM_LOCK : SHM_UNLOCK, NULL));
        }
    }
    for (int n = 0; n < IDS; n++) {
        memset(&ds, 0, sizeof ds);
        note("status", shmctl(segments[n], IPC_STAT, &ds));
        note("attached", ds.shm_nattch * 10000 + ds.shm_perm.mode);
    }
    maps();
}

static void operations(int set, int undo) {
    struct sembuf ops[4];
    int count = 1 + pick(4);
    for (int n = 0; n < count; n++) {
        int kind = pick(12);
        ops[n] = (struct sembuf){pick(4) + (pick(30) == 0), kind == 0 ? 32767 : kind == 1 ? -32768 : (int)pick(7) - 3,
                                 IPC_NOWAIT | (undo && pick(2) ? SEM_UNDO : 0)};
    }
    note("semop", semop(sets[set], ops, count));
}

static void semaphores(void) {
    int set = pick(SETS), number = pick(5);
    switch (pick(8)) {
    case 0:
        note("SETVAL", semctl(sets[set], number, SETVAL, (int)pick(10) - 1));
        break;
    case 1: {
        unsigned short all[4] = {pick(5), pick(5), pick(5), pick(9) ? 2 : 40000};
        note("SETALL", semctl(sets[set], 0, SETALL, all));
        break;
    }
    case 2: {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            for (int n = 0; n < 3; n++)
                operations(pick(SETS), 1);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        note("GETPID", semctl(sets[set], 0, GETPID) == pid);
        break;
    }
    case 3:
        if (pick(4) == 0) {
            note("remove", semctl(sets[set], 0, IPC_RMID));
            sets[set] = semget(IPC_PRIVATE, 4, 0600);
        }
        break;
    default:
        operations(set, 1);
    }
    for (int n = 0; n < 4; n++)
        note("GETVAL", semctl(sets[set], n, GETVAL));
}

static struct { long type; char text[9000]; } message;

static void messages(void) {
    int queue = pick(2), size = pick(8) ? (int)pick(20) : (int)pick(9000);
    struct msqid_ds ds;
    if (pick(2)) {
        message.type = pick(12) ? 1 + pick(5) : (long)pick(3) - 2;
        memset(message.text, 'a' + pick(26), sizeof message.text);
        note("msgsnd", msgsnd(queues[queue], &message, size, IPC_NOWAIT));
    } else {
        int flags = IPC_NOWAIT | (pick(3) ? 0 : MSG_NOERROR) | (pick(3) ? 0 : MSG_EXCEPT) | (pick(6) ? 0 : MSG_COPY);
        message.type = 0;
        message.text[0] = 0;
        note("msgrcv", msgrcv(queues[queue], &message, size, (long)pick(11) - 5, flags));
        note("it was", message.type * 256 + message.text[0]);
    }
    if (pick(30) == 0) {
        msgctl(queues[queue], IPC_STAT, &ds);
        ds.msg_qbytes = pick(16384);
        note("limit", msgctl(queues[queue], IPC_SET, &ds));
    }
    memset(&ds, 0, sizeof ds);
    note("status", msgctl(queues[queue], IPC_STAT, &ds));
    note("bytes", ds.__msg_cbytes * 1000 + ds.msg_qnum);
}

static void posix_messages(void) {
    int queue = pick(2);
    unsigned priority = 0;
    char text[40], shown[128] = "";
    struct mq_attr attr;
    if (pick(2)) {
        memset(text, 'a' + pick(26), sizeof text);
        note("mq_send", mq_send(posix[queue], text, pick(34), pick(20) ? pick(4) : 32768));
    } else {
        text[0] = 0;
        note("mq_receive", mq_receive(posix[queue], text, pick(10) ? 32 : 31, &priority));
        note("it was", text[0] * 1000 + priority);
    }
    if (pick(6) == 0) {
        struct sigevent event = {.sigev_notify = pick(2) ? SIGEV_NONE : SIGEV_SIGNAL, .sigev_signo = 0};
        note("mq_notify", mq_notify(posix[queue], pick(3) ? &event : NULL));
    }
    if (pick(20) == 0) {
        note("unlink", mq_unlink(name[queue]));
        close(posix[queue]);
        attr = (struct mq_attr){.mq_maxmsg = 1 + pick(5), .mq_msgsize = 32};
        posix[queue] = mq_open(name[queue], O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
    }
    memset(&attr, 0, sizeof attr);
    note("attr", mq_getattr(posix[queue], &attr));
    note("messages", attr.mq_curmsgs * 100 + attr.mq_maxmsg);
    note("text", pread(posix[queue], shown, 37, 0));
    note(shown, 0);
}

static void run(unsigned steps) {
    for (int n = 0; n < IDS; n++)
        segments[n] = shmget(IPC_PRIVATE, (n + 2) * PAGE, 0600);
    for (int n = 0; n < SETS; n++)
        sets[n] = semget(IPC_PRIVATE, 4, 0600);
    for (int n = 0; n < 2; n++) {
        queues[n] = msgget(IPC_PRIVATE, 0600);
        struct mq_attr attr = {.mq_maxmsg = 3 + n, .mq_msgsize = 32};
        snprintf(name[n], sizeof name[n], "/fuzz-%d-%d", getpid(), n);
        posix[n] = mq_open(name[n], O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
    }
    for (unsigned n = 0; n < steps; n++)
        switch (pick(4)) {
        case 0: memory(); break;
        case 1: semaphores(); break;
        case 2: messages(); break;
        default: posix_messages();
        }
    munmap((void *)ARENA, PAGES * PAGE);
    for (int n = 0; n < IDS; n++)
        shmctl(segments[n], IPC_RMID, NULL);
    for (int n = 0; n < SETS; n++)
        semctl(sets[n], 0, IPC_RMID);
    for (int n = 0; n < 2; n++) {
        msgctl(queues[n], IPC_RMID, NULL);
        mq_unlink(name[n]);
        close(posix[n]);
    }
}

int main(int count, char **args) { return run_seeds(count, args, run); }
