/* A board and one kernel for what a run measures of memory. Arguments: bytes of scratch that the kernel touches (it
 * asks for 48), where its output lies, warm-ups, repetitions, region of the arena. It always writes, as the last byte
 * of its output and of its scratch, what it found there at first: the value that was painted. Prints both peaks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/board.h"
#include "runtime/interpreter.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"

enum { SCRATCH_BYTES = 48, SCRATCH_AT = 512, ELEMENTS = 37, OTHER_REGION = 3 };

static _Alignas(16) uint8_t store[1 << 15], other[1 << 13];
static uint64_t ticks;
static uint32_t touched_bytes;

board_t board = {
    .timer_bits = 64,
    .timer_hz = 1,
    .regions = {{"store", store, sizeof store, REGION_ARENA, true, true},
                {"other", other, sizeof other, OTHER_REGION, false, true}},
    .region_count = 2,
};

void board_running(uint16_t number) {
    (void)number;
}

void *board_stack_limit(void) {
    return (uint8_t *)__builtin_frame_address(0) - 8192;
}

bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    return false;
}

void timer_start(void) {
}

void timer_stop(void) {
}

uint64_t timer_now(void) {
    return ticks++;
}

void trigger_set(bool high) {
    (void)high;
}

/* Writes bytes, the last one as it was found in the first call. */
static void write_bytes(uint8_t *bytes, uint32_t count, uint8_t *last, bool first) {
    if (count == 0)
        return;
    if (first)
        *last = bytes[count - 1];
    memset(bytes, 0x5A, count);
    bytes[count - 1] = *last;
}

static void run(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    static uint8_t last_of_output, last_of_scratch;
    static bool called;
    (void)op;
    (void)constants;
    write_bytes(buffers[1], ELEMENTS * 4, &last_of_output, !called);
    write_bytes(buffers[2], touched_bytes, &last_of_scratch, !called);
    called = true;
}

static uint32_t wanted_bytes(const op_t *op) {
    (void)op;
    return SCRATCH_BYTES;
}

static const kernel_t kernel = {.kind = OP_RELU, .run = run, .scratch_bytes = wanted_bytes};

const kernel_t *kernel_find(uint8_t kind, uint8_t pass, uint8_t dtype, uint8_t variant) {
    (void)pass;
    (void)dtype;
    (void)variant;
    return kind == OP_RELU ? &kernel : NULL;
}

int main(int argc, char **argv) {
    static program_t program;
    if (argc != 6)
        return 2;
    touched_bytes = (uint32_t)atoi(argv[1]);
    const uint32_t output_at = (uint32_t)atoi(argv[2]), region = (uint32_t)atoi(argv[5]);
    const uint32_t warmups = (uint32_t)atoi(argv[3]), repetitions = (uint32_t)atoi(argv[4]);
    const program_header_t header = {.arena_bytes = 4096,
                                     .arena_region = (uint8_t)region,
                                     .image_count = 1,
                                     .setup_end = 1,
                                     .image_end = 1,
                                     .body_end = 2};
    const uint32_t fill[] = {ELEMENTS, FILL_ZEROS, 0, 0}, relu[] = {ELEMENTS, 0};
    const uint32_t places[] = {0 | region, output_at | region, SCRATCH_AT | region};
    const entry_description_t entries[] = {
        {.kind = OP_FILL, .geometry = fill, .geometry_count = 4, .references = places, .reference_count = 1},
        {.kind = OP_RELU, .geometry = relu, .geometry_count = 2, .references = places, .reference_count = 3},
    };
    status_t status = program_begin(&program, &header, 2);
    for (int i = 0; i < 2 && !status.reason; i++)
        status = program_append(&program, &entries[i]);
    if (!status.reason)
        status = program_seal(&program);
    const run_options_t options = {.repetitions = repetitions, .warmups = warmups, .seed = 1, .loops = 1};
    if (!status.reason)
        status = interpreter_prepare(&program, &options);
    if (status.reason) {
        printf("refused %u\n", status.reason);
        return 0;
    }
    run_result_t result;
    interpreter_run(&program, &options, &result);
    printf("%u %u\n", (unsigned)result.arena_peak_bytes, (unsigned)result.scratch_peak_bytes);
    return 0;
}
