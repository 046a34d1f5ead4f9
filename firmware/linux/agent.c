/* The agent: a Linux machine as a device. The same kernels, interpreter and protocol as on a microcontroller; here are
 * its board functions and its command line. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "core.h"
#include "gpio_trigger.h"
#include "host_info.h"
#include "host_state.h"
#include "link/dispatcher.h"
#include "options.h"
#include "restart.h"
#include "runtime/board.h"
#include "runtime/fill.h"
#include "runtime/trigger.h"
#include "tty.h"

#define MEBIBYTE (UINT32_C(1) << 20)
#define BLOB_BYTES (8 * MEBIBYTE)

/* Stack below the interpreter that is painted: more than any kernel takes, less than the 8 MiB that Linux gives. */
#define PAINTED_STACK_BYTES (256 * 1024)

static char core_text[33], caches_text[65];
static int core;

static void read_state(machine_state_t *state) {
    state->cpu = (uint16_t)core;
    core_sharing(core, state->scheduling, sizeof(state->scheduling));
    gpio_trigger_name(state->trigger, sizeof(state->trigger));
    host_state(core, state);
}

board_t board = {
    .board = BOARD_NAME,
    .core = core_text,
    .caches = caches_text,
    .timer_name = "clock_monotonic_raw",
    .timer_hz = 1000000000,
    .timer_bits = 64,
    .ticks_per_instruction_den = 1,
    /* He-uniform bounds sqrt(6 / fan-in) for fan-ins about 16, 64, 256 and 1024, rounded to powers of two. */
    .blob = BOARD_BLOB,
    .read_state = read_state,
};

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
    fill_blob(BLOB_SEED, board.blob.segments, board.blob.segment_count, BLOB_BYTES / 4, blob);
    mprotect(blob, BLOB_BYTES, PROT_READ);
    board.regions[0] = (memory_region_t){"ram", map(arena_bytes, "arena"), arena_bytes, REGION_ARENA, true, true};
    board.regions[1] = (memory_region_t){"blob", blob, BLOB_BYTES, REGION_BLOB, true, false};
    board.region_count = 2;
}

/* Ends the process from wherever it is, also in the middle of a run: a stopped unit must not keep the pin high. */
static void end(int signal_number) {
    (void)signal_number;
    trigger_set(false);
    tty_restore();
    _exit(0);
}

static void end_on_signals(void) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = end};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaddset(&action.sa_mask, signals[i]);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

static void open_trigger(const options_t *options) {
    char why[256];
    if (options->trigger_line < 0 ||
        gpio_trigger_open(options->trigger_chip, (uint32_t)options->trigger_line, why, sizeof(why)))
        return;
    fprintf(stderr, "agent: no trigger: %s\n", why);
    if (options->trigger_asked)
        exit(1);
}

static void open_trigger_log(const char *path) {
    if (path == NULL || trigger_log_open(path))
        return;
    fprintf(stderr, "agent: cannot write %s: %s\n", path, strerror(errno));
    exit(1);
}

static void choose_timer(const options_t *options) {
    char why[128];
    if (options->cycles && !clock_use_cycles(core, why, sizeof(why)))
        fprintf(stderr, "agent: no timing by cycles: %s; timing by %s\n", why, board.timer_name);
}

int main(int argc, char **argv) {
    restart_recall();
    /* Aligned, so that the frames of kernels with wide vectors, which are, take as much stack wherever it begins. */
    _Alignas(64) const options_t options = options_read(argc, argv);
    end_on_signals();
    core = core_pin(options.core);
    if (options.realtime)
        core_take();
    choose_timer(&options);
    open_trigger(&options);
    open_trigger_log(options.trigger_log);
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
    if (options.port != NULL)
        tty_open(options.port, options.baud, options.stay);
    else
        tty_use_standard_streams();
    make_memory(options.arena_mebibytes); /* takes a while: whether the port is there is said before */
    dispatcher_init();
    restart_arm(argv, options.watchdog_s);
    dispatcher_loop();
    return 0;
}
