/* A board for the interpreter alone: its timer advances one tick a reading, and what it is asked to do is printed, a
 * letter each. Argument 1: "cold" (caches can be emptied) or "none"; 2: caches of the run, 0 or 1. Runs a program of a
 * fill an image, two ops an image and one behind them: 2 images, 1 warm-up, 2 repetitions. */
#include <stdio.h>
#include <string.h>

#include "runtime/board.h"
#include "runtime/interpreter.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"

static _Alignas(16) uint8_t arena[1 << 16];
static uint64_t ticks;
static char letters[256];
static bool has_caches, triggered;

board_t board = {.timer_bits = 64,
                 .timer_hz = 1,
                 .regions = {{"ram", arena, sizeof arena, REGION_ARENA, true, true}},
                 .region_count = 1};

/* Kept, not printed: printing takes stack, and that is measured. */
static void say(char letter) {
    static size_t said;
    if (said < sizeof letters - 1)
        letters[said++] = letter;
}

void board_running(uint16_t number) {
    (void)number;
}

void *board_stack_limit(void) {
    return (uint8_t *)__builtin_frame_address(0) - 8192;
}

void timer_start(void) {
}

void timer_stop(void) {
}

/* T: a reading inside of a window of the trigger, t: outside. */
uint64_t timer_now(void) {
    say(triggered ? 'T' : 't');
    return ticks++;
}

void trigger_set(bool high) {
    if (high != triggered)
        say(high ? '/' : '\\');
    triggered = high;
}

/* c: emptied as it should be; !: in a window, or of something else than the program's memory. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    if (count != 0) {
        bool right = !triggered;
        for (size_t i = 0; i < count; i++)
            right = right &&
                    (spans[i].bytes == 0 || ((const uint8_t *)spans[i].start >= arena &&
                                             (const uint8_t *)spans[i].start + spans[i].bytes <= arena + sizeof arena));
        say(right ? 'c' : '!');
    }
    return has_caches;
}

static status_t append(program_t *program, uint8_t kind, const uint32_t *geometry, size_t values,
                       const uint32_t *places, size_t count) {
    const entry_description_t entry = {
        .kind = kind, .geometry = geometry, .geometry_count = values, .references = places, .reference_count = count};
    return program_append(program, &entry);
}

int main(int argc, char **argv) {
    static program_t program;
    const uint8_t caches = argc == 3 ? (uint8_t)(argv[2][0] - '0') : 0;
    has_caches = argc == 3 && strcmp(argv[1], "cold") == 0;
    const program_header_t header = {.arena_bytes = 1280, .image_count = 2, .image_end = 1, .body_end = 3};
    const uint32_t fill[] = {16, FILL_ZEROS, 0, 0}, relu[] = {64, 0}, fill_place[] = {0}, relu_places[] = {0, 1024};
    status_t status = program_begin(&program, &header, 4);
    status.reason |= append(&program, OP_FILL, fill, 4, fill_place, 1).reason;
    for (int i = 0; i < 3; i++)
        status.reason |= append(&program, OP_RELU, relu, 2, relu_places, 2).reason;
    status.reason |= program_seal(&program).reason;
    if (status.reason)
        return 1;
    const run_options_t options = {.repetitions = 2, .warmups = 1, .seed = 1, .caches = caches, .loops = 1};
    status = interpreter_prepare(&program, &options);
    if (status.reason) {
        printf("refused %u\n", status.reason);
        return 0;
    }
    /* Aligned, so that the frames of kernels with wide vectors, which are, take as much stack wherever it begins. */
    _Alignas(64) run_result_t result;
    interpreter_run(&program, &options, &result);
    printf("%s arena %u stack %u\n", letters, (unsigned)result.arena_peak_bytes, (unsigned)result.stack_peak_bytes);
    return 0;
}
