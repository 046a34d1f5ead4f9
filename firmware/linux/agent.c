/* The agent: a Linux machine as a device. The same kernels, interpreter and protocol as on a microcontroller; here are
 * its board functions and its command line. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "host_info.h"
#include "link/dispatcher.h"
#include "runtime/board.h"
#include "runtime/fill.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"
#include "tty.h"

#define MEBIBYTE (UINT32_C(1) << 20)
#define DEFAULT_ARENA_MEBIBYTES 256
#define BLOB_BYTES (8 * MEBIBYTE)
#define BLOB_SEED 0x5EEDB10Bu

/* Stack below the interpreter that is painted: more than any kernel takes, less than the 8 MiB that Linux gives. */
#define PAINTED_STACK_BYTES (256 * 1024)

static char core_text[33], caches_text[65];

board_t board = {
    .board = BOARD_NAME,
    .core = core_text,
    .caches = caches_text,
    .timer_name = "clock_monotonic_raw",
    .timer_hz = 1000000000,
    .timer_bits = 64,
    .ticks_per_instruction_den = 1,
    /* He-uniform bounds sqrt(6 / fan-in) for fan-ins about 16, 64, 256 and 1024, rounded to powers of two. */
    .blob = {.seed = BLOB_SEED, .exponent_count = 4, .exponents = {127, 126, 125, 124}},
};

/* The system's clock always runs. */
void timer_start(void) {
}

void timer_stop(void) {
}

uint64_t timer_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* No pin yet: on a Raspberry Pi it would be a line of the GPIO character device. */
void trigger_set(bool high) {
    (void)high;
}

/* A process cannot mask interrupts; it is pinned to a core instead. */
uint32_t board_interrupts_mask(void) {
    return 0;
}

void board_interrupts_restore(uint32_t state) {
    (void)state;
}

void *board_stack_limit(void) {
    return (uint8_t *)__builtin_frame_address(0) - PAINTED_STACK_BYTES;
}

static void *map(size_t bytes, const char *what) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "agent: no %zu bytes for the %s: %s\n", bytes, what, strerror(errno));
        exit(1);
    }
    madvise(memory, bytes, MADV_HUGEPAGE); /* fewer TLB misses, less scatter; where refused, small pages do */
    return memory;
}

static void make_memory(uint32_t arena_mebibytes) {
    const uint32_t arena_bytes = arena_mebibytes * MEBIBYTE;
    uint8_t *blob = map(BLOB_BYTES, "blob");
    fill_blob(BLOB_SEED, board.blob.exponents, board.blob.exponent_count, BLOB_BYTES / 4, blob);
    mprotect(blob, BLOB_BYTES, PROT_READ);
    board.regions[0] = (memory_region_t){"ram", map(arena_bytes, "arena"), arena_bytes, REGION_ARENA, true, true};
    board.regions[1] = (memory_region_t){"blob", blob, BLOB_BYTES, REGION_BLOB, true, false};
    board.region_count = 2;
}

/* Pins the process to `core`, or, if that is negative, to the last one it may use. Returns the core, 0 if unknown. */
static int pin(int core) {
    cpu_set_t allowed, wanted;
    if (core < 0 && sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
        for (int i = 0; i < CPU_SETSIZE; i++)
            core = CPU_ISSET(i, &allowed) ? i : core;
    if (core < 0)
        return 0;
    CPU_ZERO(&wanted);
    CPU_SET(core, &wanted);
    if (sched_setaffinity(0, sizeof(wanted), &wanted) != 0)
        fprintf(stderr, "agent: cannot pin to core %d: %s; timing will scatter more\n", core, strerror(errno));
    return core;
}

static void usage(FILE *stream) {
    fprintf(stream, "usage: agent [--core N] [--arena MEBIBYTES] [--stay] PATH | --stdio\n"
                    "Makes this machine a device that answers on PATH, a serial or pseudo terminal.\n"
                    "  --core N           core to run on (default: the last one allowed)\n"
                    "  --arena MEBIBYTES  size of the arena region, 1 to 2047 (default: 256)\n"
                    "  --stay             when the other side hangs up, open PATH again and wait\n"
                    "  --stdio            answer on standard input and output instead of a PATH\n"
                    "example: agent --stay /dev/ttyGS0\n");
}

/* The number that a whole option value is; anything else ends the process with the usage. */
static int number(const char *text, long smallest, long largest) {
    char *end;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || value < smallest || value > largest) {
        fprintf(stderr, "agent: \"%s\" is no number from %ld to %ld\n", text, smallest, largest);
        usage(stderr);
        exit(2);
    }
    return (int)value;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"core", required_argument, NULL, 'c'}, {"arena", required_argument, NULL, 'a'},
        {"stay", no_argument, NULL, 's'},       {"stdio", no_argument, NULL, 'i'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    int arena_mebibytes = DEFAULT_ARENA_MEBIBYTES, core = -1, option;
    bool stay = false, standard = false;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            core = number(optarg, 0, CPU_SETSIZE - 1);
            break;
        case 'a':
            arena_mebibytes = number(optarg, 1, 2047);
            break;
        case 's':
            stay = true;
            break;
        case 'i':
            standard = true;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if ((optind == argc) != standard || optind + 1 < argc) {
        usage(stderr);
        return 2;
    }
    tty_open(standard ? NULL : argv[optind], stay);
    core = pin(core);
    host_core(core_text, sizeof(core_text));
    host_caches(core, caches_text, sizeof(caches_text));
    board.clock_hz = host_clock_hz(core);
    board.unique_id_bytes = host_unique_id(board.unique_id);
#if defined(__aarch64__)
    board.fpu = "NEON";
#elif defined(__AVX512F__)
    board.fpu = "AVX-512";
#elif defined(__AVX2__)
    board.fpu = "AVX2";
#else
    board.fpu = "host";
#endif
    make_memory((uint32_t)arena_mebibytes);
    dispatcher_init();
    dispatcher_loop();
    return 0;
}
