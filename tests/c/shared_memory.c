/* System V shared memory with good and bad arguments: prints results, attach counts, and the areas inside its own arena. The same on every
   correct kernel. Segments of others may exist, and numbers differ: they are not printed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define ARENA 0x200000000000UL
#define ARENA_PAGES 256UL
#define RW (PROT_READ | PROT_WRITE)
#define BAD ((void *)-4096L)

static char *const arena = (char *)ARENA;
static int key;
/* Whether areas are joined as the newest Linux does it. */
static int newest = 1;

#define SHOW(call) do { errno = 0; long r_ = (long)(call); \
    printf("%s: %s\n", #call, r_ == -1 ? strerrorname_np(errno) : r_ ? "a value" : "0"); } while (0)

static void show_at(const char *what, void *at) {
    if (at == (void *)-1)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else if ((uintptr_t)at - ARENA < ARENA_PAGES * PAGE)
        printf("%s: page %lu\n", what, ((uintptr_t)at - ARENA) / PAGE);
    else
        printf("%s: elsewhere\n", what);
}
#define AT(call) show_at(#call, call)

static void *page(unsigned long n) { return arena + n * PAGE; }

static struct shmid_ds stat_of(int id) {
    struct shmid_ds ds;
    memset(&ds, 0, sizeof ds);
    if (shmctl(id, IPC_STAT, &ds))
        printf("IPC_STAT: %s\n", strerrorname_np(errno));
    return ds;
}

static void maps(const char *when, int id) {
    char line[512], name[256];
    FILE *file = fopen("/proc/self/maps", "r");
    printf("%s: attached %lu, maps", when, (unsigned long)stat_of(id).shm_nattch);
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end, offset, inode;
        char permissions[5], device[16];
        name[0] = 0;
        if (sscanf(line, "%lx-%lx %4s %lx %15s %lu %255[^\n]", &start, &end, permissions, &offset, device, &inode, name) >= 3 &&
            start >= ARENA && end <= ARENA + ARENA_PAGES * PAGE)
            printf(" %lu-%lu:%s@%lu%s%s", (start - ARENA) / PAGE, (end - ARENA) / PAGE, permissions, offset / PAGE,
                   inode == (unsigned long)id ? "" : "!", strcmp(name, "/SYSV00000000 (deleted)") ? name : "");
    }
    fclose(file);
    printf("\n");
}

/* Runs a part in a child and prints how it ended. */
static void in_child(const char *what, void (*part)(int), int id) {
    fflush(stdout);
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        part(id);
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    printf("%s: %x, last pid is its %d\n", what, status, stat_of(id).shm_lpid == pid);
}

static void getting(void) {
    int made = shmget(key, 3 * PAGE - 5, IPC_CREAT | IPC_EXCL | 0640);
    SHOW(made < 0 ? -1 : 0);
    printf("again the same %d %d %d\n", shmget(key, 0, 0) == made, shmget(key, 3 * PAGE - 5, IPC_CREAT) == made,
           shmget(key, PAGE, 0600) == made);
    SHOW(shmget(key, 3 * PAGE - 4, 0)); SHOW(shmget(key, 1, IPC_CREAT | IPC_EXCL)); SHOW(shmget(key + 1, 1, 0));
    SHOW(shmget(IPC_PRIVATE, 0, 0600)); SHOW(shmget(IPC_PRIVATE, ~0UL, 0600)); SHOW(shmget(IPC_PRIVATE, 1UL << 63, 0600));
    SHOW(shmget(IPC_PRIVATE, 1UL << 60, 0600));
    int huge = shmget(IPC_PRIVATE, 1UL << 62, SHM_NORESERVE | 0600);
    AT(shmat(huge, NULL, 0)); SHOW(shmctl(huge, IPC_RMID, NULL));
    SHOW(shmget(IPC_PRIVATE, PAGE, SHM_HUGETLB | (5 << 26) | 0600));
    struct shmid_ds ds = stat_of(made);
    long now = time(NULL);
    printf("size %lu mode %o key %d uid %d gid %d cuid %d cgid %d maker %d last %d attached %lu times %ld %ld %d\n",
           (unsigned long)ds.shm_segsz, ds.shm_perm.mode, ds.shm_perm.__key == key, ds.shm_perm.uid, ds.shm_perm.gid,
           ds.shm_perm.cuid, ds.shm_perm.cgid, ds.shm_cpid == getpid(), ds.shm_lpid, (unsigned long)ds.shm_nattch, ds.shm_atime,
           ds.shm_dtime, now - ds.shm_ctime < 5);
    printf("sequence %d\n", ds.shm_perm.__seq == made >> 15);
    SHOW(shmctl(made, IPC_RMID, NULL)); SHOW(shmctl(made, IPC_RMID, NULL)); SHOW(shmctl(made, IPC_STAT, &ds));
    SHOW(shmat(made, NULL, 0)); SHOW(shmget(key, 0, 0));
    int next = shmget(IPC_PRIVATE, 1, 0600);
    printf("another number %d, size %lu\n", next != made, (unsigned long)stat_of(next).shm_segsz);
    SHOW(shmctl(next, IPC_RMID, BAD));
}

static void places(int id) {
    AT(shmat(id, page(0), 0)); AT(shmat(id, page(3), 0)); AT(shmat(id, page(4), SHM_RDONLY)); maps("two", id);
    AT(shmat(id, page(10) + 1, 0)); AT(shmat(id, page(10) + 1, SHM_RND)); AT(shmat(id, page(12), SHM_REMAP));
    AT(shmat(id, NULL, SHM_REMAP)); AT(shmat(id, (void *)5, SHM_RND | SHM_REMAP)); AT(shmat(id, (void *)5, 0));
    AT(shmat(id, page(20), SHM_EXEC)); maps("many", id);
    AT(shmat(-1, NULL, 0)); AT(shmat(id + (1 << 15), NULL, 0)); AT(shmat(id, (void *)-4096L, 0));
    AT(shmat(id, (void *)0x7ffffffff000, 0)); AT(shmat(id, (void *)0x7ffffffff000, SHM_REMAP));
    AT(shmat(id, (void *)0xffff800000000000, 0));
    SHOW(shmdt(page(1))); SHOW(shmdt(page(0) + 1)); SHOW(shmdt(page(0))); SHOW(shmdt(page(0))); SHOW(shmdt(page(12)));
    SHOW(shmdt(NULL)); SHOW(shmdt((void *)-4096L)); SHOW(shmdt((void *)-1L));
    maps("fewer", id);
    SHOW(mprotect(page(4), PAGE, RW)); SHOW(mprotect(page(4), PAGE, PROT_READ | PROT_EXEC)); maps("read-only", id);
    SHOW(shmdt(page(4))); SHOW(shmdt(page(20)));
    void *anywhere = shmat(id, NULL, 0);
    AT(anywhere); SHOW(shmdt(anywhere)); maps("none", id);
}

static void changes(int id) {
    AT(shmat(id, page(0), 0));
    long now = time(NULL);
    for (struct timespec nap = {0, 20000000}; time(NULL) == now;)
        nanosleep(&nap, NULL);
    strcpy(page(2), "third");
    SHOW(mprotect(page(1), PAGE, PROT_READ)); maps("split", id);
    /* Splitting is no detaching, although the times are only seconds. */
    printf("detached since %d\n", stat_of(id).shm_dtime > now);
    SHOW(mprotect(page(1), PAGE, RW)); maps("not joined", id);
    SHOW(mprotect(page(0), 4 * PAGE, PROT_READ)); maps("read", id);
    SHOW(mprotect(page(0), 4 * PAGE, RW)); maps("written", id);
    SHOW(shmdt(page(0))); maps("all went", id);
    AT(shmat(id, page(0), 0));
    SHOW(mprotect(page(0), PAGE, PROT_READ));
    if (newest) {
        SHOW(mprotect(page(1), PAGE, PROT_READ));
        maps("moved end", id);
    }
    SHOW(munmap(page(0), PAGE)); maps("first went", id);
    SHOW(shmdt(page(1))); SHOW(shmdt(page(0))); maps("rest went", id);
    AT(shmat(id, page(0), 0));
    SHOW(munmap(page(1), PAGE)); maps("hole", id);
    AT(mremap(page(2), 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page(30))); maps("moved", id);
    SHOW(strcmp(page(30), "third"));
    SHOW(shmdt(page(28))); SHOW(shmdt(page(0))); maps("both went", id);
    AT(shmat(id, page(40), 0));
    AT(mremap(page(40), 4 * PAGE, 6 * PAGE, 0)); maps("longer", id);
    AT(mremap(page(40), 0, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page(50))); maps("twice", id);
    AT(mremap(page(50), 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, page(60))); maps("kept", id);
    SHOW(mlock(page(60), PAGE)); SHOW(munlock(page(60), PAGE)); maps("locked", id);
    SHOW(madvise(page(60), PAGE, MADV_DONTNEED)); SHOW(madvise(page(42), PAGE, MADV_REMOVE));
    printf("hole %d\n", *(char *)page(62));
    SHOW(madvise(page(60), PAGE, MADV_WIPEONFORK)); SHOW(madvise(page(60), PAGE, MADV_DONTFORK));
    SHOW(shmdt(page(60))); SHOW(shmdt(page(50))); SHOW(shmdt(page(40))); maps("end", id);
    SHOW(munmap(arena, ARENA_PAGES * PAGE)); maps("end of all", id);
    /* Two attachments that would go on in each other's place. */
    AT(shmat(id, page(0), 0)); AT(shmat(id, page(4), 0));
    AT(mremap(page(6), 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page(2))); maps("mixed", id);
    SHOW(shmdt(page(0))); maps("one's own", id);
    SHOW(munmap(arena, ARENA_PAGES * PAGE)); maps("end of all", id);
}

static void detaches(int id) { SHOW(shmdt(page(0))); maps("child", id); }
static void exits(int id) { printf("child attached %lu\n", (unsigned long)stat_of(id).shm_nattch); ((char *)page(0))[1] = 'c'; }
static void killed(int id) { (void)id; raise(SIGKILL); }
static void execs(int id) { (void)id; char *none[] = {"shared_memory", "nothing", NULL}; execv("/proc/self/exe", none); }
static void attaches(int id) { AT(shmat(id, page(90), 0)); printf("%c\n", *(char *)page(90)); }

static void forking(int id) {
    AT(shmat(id, page(0), 0)); AT(shmat(id, page(8), SHM_RDONLY));
    *(char *)page(0) = 'p';
    in_child("detaches", detaches, id); maps("after it", id);
    in_child("exits", exits, id); maps("after it", id); printf("%.2s\n", (char *)page(8));
    in_child("is killed", killed, id); maps("after it", id);
    in_child("execs", execs, id); maps("after it", id);
    SHOW(shmctl(id, IPC_RMID, NULL));
    printf("mode %o key %d\n", stat_of(id).shm_perm.mode, stat_of(id).shm_perm.__key);
    SHOW(shmctl(id, IPC_RMID, NULL));
    in_child("attaches what was removed", attaches, id); maps("after it", id);
    SHOW(shmdt(page(0))); maps("one left", id);
    SHOW(shmdt(page(8)));
    struct shmid_ds ds;
    SHOW(shmctl(id, IPC_STAT, &ds)); SHOW(shmat(id, NULL, 0));
}

static void controls(int id) {
    struct shmid_ds ds = stat_of(id);
    struct shminfo limits;
    struct shm_info sums;
    SHOW(shmctl(id, IPC_STAT, BAD)); SHOW(shmctl(id, IPC_SET, BAD)); SHOW(shmctl(-1, IPC_STAT, &ds)); SHOW(shmctl(id, 99, &ds));
    SHOW(shmctl(id, -1, &ds)); SHOW(shmctl(0, IPC_INFO, BAD)); SHOW(shmctl(0, SHM_INFO, BAD)); SHOW(shmctl(id, SHM_STAT + 256, &ds));
    SHOW(shmctl(0, IPC_INFO, (void *)&limits) < 0); SHOW(shmctl(-1, IPC_INFO, (void *)&limits));
    printf("%lx %lu %lu %lu %lx\n", limits.shmmax, limits.shmmin, limits.shmmni, limits.shmseg, limits.shmall);
    int highest = shmctl(0, SHM_INFO, (void *)&sums), found = 0;
    printf("sums %d %d\n", sums.used_ids > 0, sums.shm_tot >= 4);
    for (int n = 0; n <= highest; n++)
        if (shmctl(n, SHM_STAT, &ds) == id || shmctl(n, SHM_STAT_ANY, &ds) == id)
            found++;
    printf("found %d\n", found);
    SHOW(shmctl(0x7fff, SHM_STAT, &ds));
    ds = stat_of(id);
    ds.shm_perm.uid = 7; ds.shm_perm.gid = 8; ds.shm_perm.mode = 07123; ds.shm_segsz = 1;
    SHOW(shmctl(id, IPC_SET, &ds));
    ds = stat_of(id);
    printf("uid %d gid %d cuid %d mode %o size %lu\n", ds.shm_perm.uid, ds.shm_perm.gid, ds.shm_perm.cuid, ds.shm_perm.mode,
           (unsigned long)ds.shm_segsz);
    ds.shm_perm.uid = -1;
    SHOW(shmctl(id, IPC_SET, &ds));
    SHOW(shmctl(id, SHM_LOCK, NULL)); printf("mode %o\n", stat_of(id).shm_perm.mode);
    SHOW(shmctl(id, SHM_LOCK, NULL)); SHOW(shmctl(id, SHM_UNLOCK, NULL)); SHOW(shmctl(id, SHM_UNLOCK, NULL));
    printf("mode %o\n", stat_of(id).shm_perm.mode);
    char line[512];
    FILE *file = fopen("/proc/sysvipc/shm", "r");
    printf("%s", fgets(line, sizeof line, file));
    while (fgets(line, sizeof line, file)) {
        int number = -1, its_key, used = 0;
        if (sscanf(line, "%d %d%n", &its_key, &number, &used) == 2 && number == id) {
            unsigned long size, cpid, lpid, attached, uid, gid, cuid, cgid;
            unsigned mode;
            sscanf(line + used, "%o %lu %lu %lu %lu %lu %lu %lu %lu", &mode, &size, &cpid, &lpid, &attached, &uid, &gid, &cuid, &cgid);
            printf("%zu: %d %o %lu %d %lu %lu %lu %lu %lu\n", strlen(line), its_key, mode, size, cpid == (unsigned long)getpid(),
                   attached, uid, gid, cuid, cgid);
        }
    }
    fclose(file);
}

static void become(int uid, int gid) {
    if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        printf("cannot become %d\n", uid);
}

static void tries(int id) {
    struct shmid_ds ds;
    SHOW(shmget(key, 1, 0)); SHOW(shmget(key, 1, 0400) < 0 ? -1 : 0); SHOW(shmget(key, 1, 0600) < 0 ? -1 : 0);
    SHOW(shmget(key, 1, 0060) < 0 ? -1 : 0); SHOW(shmget(key, 1, 0007) < 0 ? -1 : 0); SHOW(shmget(key, 1, IPC_CREAT | IPC_EXCL | 0600));
    AT(shmat(id, NULL, 0)); AT(shmat(id, NULL, SHM_RDONLY)); AT(shmat(id, NULL, SHM_RDONLY | SHM_EXEC));
    SHOW(shmctl(id, IPC_STAT, &ds)); SHOW(shmctl(id, SHM_STAT_ANY, &ds) == -1 && errno == EACCES);
    SHOW(shmctl(id, SHM_LOCK, NULL)); SHOW(shmctl(id, SHM_UNLOCK, NULL));
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_MEMLOCK, &none);
    SHOW(shmctl(id, SHM_LOCK, NULL));
    SHOW(shmctl(id, IPC_SET, &ds)); SHOW(shmctl(id, IPC_RMID, NULL));
}
static void as_owner(int id) { become(7, 99); tries(id); }
static void as_group(int id) { become(9, 8); tries(id); }
static void as_other(int id) { become(9, 9); tries(id); }

static void permissions(unsigned mode) {
    printf("mode %o\n", mode);
    int id = shmget(key, 4 * PAGE, IPC_CREAT | IPC_EXCL | 0600);
    struct shmid_ds ds = stat_of(id);
    ds.shm_perm.uid = 7; ds.shm_perm.gid = 8; ds.shm_perm.mode = mode;
    SHOW(shmctl(id, IPC_SET, &ds));
    in_child("other", as_other, id); in_child("group", as_group, id); in_child("owner", as_owner, id);
    shmctl(id, IPC_RMID, NULL);
}

/* Far more attachments than there may be areas, and all of them gone again. */
static void crowd(void) {
    int id = shmget(IPC_PRIVATE, PAGE, 0600), made = 0;
    void *first = NULL, *at;
    while ((at = shmat(id, NULL, made & 1 ? SHM_RDONLY : 0)) != (void *)-1) {
        first = made++ ? first : at;
        if (made == 3)
            *(volatile char *)first = 'x';
    }
    printf("%s, all but a few %d, counted %d\n", strerrorname_np(errno), made > 65000 && made < 65535,
           stat_of(id).shm_nattch == (unsigned long)made);
    SHOW(shmdt(first));
    printf("one less %d\n", stat_of(id).shm_nattch == (unsigned long)made - 1);
    SHOW(shmctl(id, IPC_RMID, NULL));
    fflush(stdout);
    _exit(*(volatile char *)shmat(id, NULL, SHM_RDONLY) != 'x');
}

int main(int count, char **args) {
    if (count > 1 && strcmp(args[1], "nothing") == 0)
        return 5;
    newest = count == 1;
    key = (int)(getpid() * 2654435761u) | 1;
    getting();
    int id = shmget(IPC_PRIVATE, 4 * PAGE, 0600);
    places(id);
    changes(id);
    controls(id);
    SHOW(shmctl(id, IPC_RMID, NULL));
    forking(shmget(IPC_PRIVATE, 4 * PAGE, 0600));
    permissions(0640);
    permissions(0704);
    int status;
    fflush(stdout);
    if (fork() == 0)
        crowd();
    wait(&status);
    printf("crowd %x\n", status);
    return 0;
}
