/* For programs that take random steps and print what came of them: `PROGRAM FIRST COUNT STEPS` prints a line for each of COUNT seeds from
   FIRST on, and each step's answer too if there is one seed. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The generator's state, and a number made of all that was noted. */
static uint64_t state, sum;
static int verbose;

static unsigned pick(unsigned below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 20) % below;
}

static void add(uint64_t value) { sum = (sum ^ value) * 1099511628211u; }

/* A call's answer: -1 is shown as its errno. */
static void note(const char *what, long result) {
    long shown = result == -1 ? -errno : result;
    for (const char *at = what; *at; at++)
        add((uint64_t)*at);
    add((uint64_t)shown);
    if (verbose)
        printf("%s: %ld%s%s\n", what, shown, result == -1 ? " " : "", result == -1 ? strerrorname_np(errno) : "");
}

static int run_seeds(int count, char **args, void (*run)(unsigned steps)) {
    if (count < 4)
        return 2;
    long first = atol(args[1]), seeds = atol(args[2]), steps = atol(args[3]);
    verbose = seeds == 1;
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    for (long seed = first; seed < first + seeds; seed++) {
        state = (uint64_t)seed * 0x9e3779b97f4a7c15u;
        sum = 14695981039346656037u;
        run((unsigned)steps);
        printf("%ld: %016lx\n", seed, sum);
    }
    return 0;
}
