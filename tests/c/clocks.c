// Clocks, and the vDSO that reads them: every line is the same on each correct kernel.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int error(long result) { return result < 0 ? errno : 0; }

static int64_t ns(struct timespec time) { return time.tv_sec * 1000000000LL + time.tv_nsec; }

// A function of the vDSO by its name, found as C libraries do.
static void *find(const char *name) {
    uintptr_t base = getauxval(AT_SYSINFO_EHDR);
    if (base == 0) return NULL;
    const Elf64_Ehdr *header = (void *)base;
    const Elf64_Phdr *segments = (void *)(base + header->e_phoff);
    const Elf64_Dyn *dynamic = NULL;
    uintptr_t load = 0;
    for (int n = 0; n < header->e_phnum; n++) {
        if (segments[n].p_type == PT_LOAD) load = base + segments[n].p_offset - segments[n].p_vaddr;
        if (segments[n].p_type == PT_DYNAMIC) dynamic = (void *)(base + segments[n].p_offset);
    }
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const uint16_t *versions = NULL;
    const Elf64_Verdef *definitions = NULL;
    const char *soname = NULL;
    size_t end = 0;
    for (; dynamic && dynamic->d_tag; dynamic++) {
        uintptr_t address = load + dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_SYMTAB) symbols = (void *)address;
        if (dynamic->d_tag == DT_STRTAB) strings = (void *)address;
        if (dynamic->d_tag == DT_VERSYM) versions = (void *)address;
        if (dynamic->d_tag == DT_VERDEF) definitions = (void *)address;
        if (dynamic->d_tag == DT_STRSZ) end = dynamic->d_un.d_val;
        if (dynamic->d_tag == DT_SONAME) soname = (void *)dynamic->d_un.d_val;
    }
    if (!symbols || !strings || !versions || !definitions || !end || strcmp(strings + (size_t)soname, "linux-vdso.so.1")) return NULL;
    // The strings follow the symbols nowhere closely; a name outside them is the end.
    for (int n = 1; n < 20 && symbols[n].st_name < end; n++) {
        if (strcmp(strings + symbols[n].st_name, name) || symbols[n].st_shndx == SHN_UNDEF) continue;
        for (const Elf64_Verdef *it = definitions;; it = (void *)((char *)it + it->vd_next)) {
            const Elf64_Verdaux *aux = (void *)((char *)it + it->vd_aux);
            if (it->vd_ndx == (versions[n] & 0x7fff) && !(it->vd_flags & VER_FLG_BASE) && it->vd_hash == 0x3ae75f6 && !strcmp(strings + aux->vda_name, "LINUX_2.6"))
                return (void *)(load + symbols[n].st_value);
            if (it->vd_next == 0) break;
        }
    }
    return NULL;
}

typedef int clock_function(clockid_t, struct timespec *);

static void readings(void) {
    clock_function *gettime = (clock_function *)find("__vdso_clock_gettime"), *getres = (clock_function *)find("__vdso_clock_getres");
    int (*timeofday)(struct timeval *, void *) = (int (*)(struct timeval *, void *))find("__vdso_gettimeofday");
    time_t (*seconds)(time_t *) = (time_t (*)(time_t *))find("__vdso_time");
    int (*cpu)(unsigned *, unsigned *, void *) = (int (*)(unsigned *, unsigned *, void *))find("__vdso_getcpu");
    printf("found %d %d %d %d %d\n", !!gettime, !!getres, !!timeofday, !!seconds, !!cpu);
    printf("without prefix %d %d\n", find("clock_gettime") == (void *)gettime, find("nonsense") == NULL);
    if (!gettime || !getres || !timeofday || !seconds || !cpu) exit(1);
    int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
    for (int n = 0; n < 7; n++) {
        int bad = 0;
        struct timespec before, here, after, mine, asked;
        for (int round = 0; round < 2000; round++) {
            bad += !!syscall(SYS_clock_gettime, clocks[n], &before);
            bad += !!gettime(clocks[n], &here);
            bad += !!syscall(SYS_clock_gettime, clocks[n], &after);
            bad += ns(here) < ns(before) || ns(after) < ns(here) || here.tv_nsec >= 1000000000;
        }
        getres(clocks[n], &mine);
        syscall(SYS_clock_getres, clocks[n], &asked);
        printf("clock %d: %d out of order, resolution %ld %d\n", clocks[n], bad, mine.tv_nsec, ns(mine) == ns(asked));
    }
    struct timespec last = {0}, now;
    int backwards = 0;
    for (int round = 0; round < 200000; round++) {
        gettime(CLOCK_MONOTONIC, &now);
        backwards += ns(now) < ns(last);
        last = now;
    }
    printf("backwards %d\n", backwards);
    struct timeval day;
    time_t stored = 0, after;
    gettime(CLOCK_REALTIME, &now);
    timeofday(&day, NULL);
    after = seconds(&stored);
    printf("of day %d\n", day.tv_sec >= now.tv_sec && day.tv_sec - now.tv_sec < 2 && day.tv_usec < 1000000);
    printf("seconds %d %d\n", after >= day.tv_sec && after - day.tv_sec < 2, stored == after);
    printf("null %d %d\n", timeofday(NULL, NULL), seconds(NULL) >= after);
    unsigned number = 77, node = 77, asked_number = 78;
    int there = cpu(&number, &node, NULL);
    syscall(SYS_getcpu, &asked_number, NULL, NULL);
    printf("cpu %d %d %d\n", there, number < 1024, node < 1024);
    printf("cpu time %d %d bad %d\n", gettime(CLOCK_PROCESS_CPUTIME_ID, &now), gettime(CLOCK_THREAD_CPUTIME_ID, &now), gettime(99, &now));
}

static void areas(void) {
    unsigned long code = 0, data = 0, start, end;
    char permissions[8], line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s", &start, &end, permissions) != 3) continue;
        if (strstr(line, "[vdso]")) {
            code = start;
            printf("[vdso] %s %s", permissions, strstr(line, " 00000000 00:00 0 ") ? "no file\n" : line);
        }
        if (strstr(line, "[vvar]")) {
            data = start;
            printf("[vvar] %s %s", permissions, strstr(line, " 00000000 00:00 0 ") ? "no file\n" : line);
        }
    }
    fclose(maps);
    printf("header %d order %d\n", code == getauxval(AT_SYSINFO_EHDR), data < code);
    printf("write data %d\n", error(mprotect((void *)data, 4096, PROT_READ | PROT_WRITE)));
    fflush(stdout);
    if (fork() == 0) {
        struct timespec now;
        _exit(clock_gettime(CLOCK_MONOTONIC, &now) ? 1 : 7);
    }
    int status;
    wait(&status);
    printf("a child reads the clock %d\n", WEXITSTATUS(status));
}

static void setting(void) {
    struct timespec now, bad = {0, 1000000000}, early = {0, 0};
    struct timex timex = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    printf("asked %d %d\n", adjtimex(&timex) >= 0, timex.time.tv_sec - now.tv_sec < 2);
    printf("bad %d early %d", error(clock_settime(CLOCK_REALTIME, &bad)), error(clock_settime(CLOCK_REALTIME, &early)));
    printf(" monotonic %d cpu %d null %d\n", error(clock_settime(CLOCK_MONOTONIC, &now)), error(clock_settime(CLOCK_PROCESS_CPUTIME_ID, &now)), error(syscall(SYS_clock_settime, CLOCK_REALTIME, NULL)));
}

static void sleeping(void) {
    struct timespec brief = {0, 3000000}, before, after, rest = {5, 5};
    for (int clock = -2; clock < 13; clock++) {
        if (clock == CLOCK_PROCESS_CPUTIME_ID) continue;
        printf("sleep by clock %d: %d\n", clock, clock_nanosleep(clock, 0, &brief, &rest));
    }
    clock_gettime(CLOCK_MONOTONIC, &before);
    nanosleep(&brief, &rest);
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("slept enough %d rest %ld\n", ns(after) - ns(before) >= 3000000, (long)rest.tv_sec);
    printf("until the past %d\n", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &brief, NULL));
    struct timespec negative = {-1, 0}, large = {0, 1000000000};
    printf("bad %d %d %d\n", error(nanosleep(&negative, NULL)), error(nanosleep(&large, NULL)), error(syscall(SYS_nanosleep, 8L, NULL)));
}

int main(void) {
    readings();
    areas();
    setting();
    sleeping();
    return 0;
}
