#include "runtime/interpreter.h"

#include <stddef.h>
#include <string.h>

#include "runtime/board.h"
#include "runtime/check.h"
#include "runtime/estimate.h"
#include "runtime/paint.h"
#include "runtime/scratch.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"

/* The timed region of one entry: nothing but the kernel's call lies between the two readings. */
static __attribute__((noinline)) uint64_t timed_call(const program_entry_t *entry, void *const *buffers,
                                                     const step_constants_t *constants) {
    void (*const run)(const op_t *, void *const *, const step_constants_t *) = entry->kernel->run;
    uint64_t start, end;
    timer_measure(start, end, run(&entry->op, buffers, constants));
    return timer_elapsed(start, end);
}

/* The device time of the running program, in ticks: what lies between two borders of entries, added up, which is right
 * while that is less than one period of the timer. Static, like all that follows, not on the stack, whose use is
 * measured. */
static struct {
    uint64_t border, elapsed, limit;
    bool stopped;
    uint32_t stop_entry;
    uint32_t complete; /* entries of the repetition whose ticks are */
} progress;

static void progress_begin(uint32_t limit_ms) {
    progress.limit = limit_ms != 0 ? (uint64_t)limit_ms * board.timer_hz / 1000 : UINT64_MAX;
    progress.elapsed = 0;
    progress.stopped = false;
    progress.border = timer_now();
}

/* At the border before an entry: whether it may still begin. */
static bool may_begin(uint32_t entry) {
    const uint64_t now = timer_now();
    progress.elapsed += timer_elapsed(progress.border, now);
    progress.border = now;
    if (progress.elapsed > progress.limit && !progress.stopped) {
        progress.stopped = true;
        progress.stop_entry = entry;
    }
    if (!progress.stopped)
        board_running((uint16_t)(entry + 1));
    return !progress.stopped;
}

/* What lies between a rise of the trigger and its next fall, added up over all windows of a run. */
static struct {
    bool open;
    uint32_t count;
    uint64_t ticks, since;
} windows;

/* Sets the trigger where it changes, and keeps account of its windows. Ticks between borders are added up by
 * may_begin(), so that a window may be longer than the timer's period. */
static void set_trigger(bool high) {
    if (high == windows.open)
        return;
    windows.open = high;
    if (!high)
        trigger_set(false);
    const uint64_t now = progress.elapsed + timer_elapsed(progress.border, timer_now());
    if (high) {
        windows.count++;
        windows.since = now;
        trigger_set(true);
    } else {
        windows.ticks += now - windows.since;
    }
}

static void *buffer_address(uint32_t reference) {
    const memory_region_t *region = check_region(reference_region(reference));
    return region == NULL ? NULL : region->base + reference_offset(reference);
}

/* This and the next two: false where the limit stopped them. */
static bool run_fills(const program_t *program, uint32_t first, uint32_t end, uint32_t seed, uint32_t image) {
    for (uint32_t i = first; i < end && may_begin(i); i++) {
        const program_entry_t *entry = &program->entries[i];
        fill_run(&entry->fill.geometry, seed, image, buffer_address(entry->references[0]));
    }
    return !progress.stopped;
}

/* What the timed entries of the running program read and write, a span a region, and the stored program itself. Empty
 * in a warm run. */
static memory_span_t cold_spans[REGION_MAX_COUNT + 1];
static size_t cold_span_count;

static void widen(memory_span_t *span, const uint8_t *start, uint32_t bytes) {
    const uint8_t *const before = span->start;
    if (span->bytes == 0) {
        *span = (memory_span_t){start, bytes};
        return;
    }
    const uint8_t *const end = before + span->bytes > start + bytes ? before + span->bytes : start + bytes;
    span->start = before < start ? before : start;
    span->bytes = (uint32_t)(end - (const uint8_t *)span->start);
}

static void find_cold_spans(const program_t *program) {
    const memory_region_t *store = &board.regions[REGION_ARENA];
    for (unsigned r = 0; r < board.region_count; r++)
        cold_spans[r].bytes = 0;
    for (uint32_t i = program->header.image_end; i < program->entry_count; i++) {
        const program_entry_t *entry = &program->entries[i];
        buffer_spec_t specs[OP_MAX_BUFFERS + 1];
        size_t count = op_buffers(&entry->op, specs);
        specs[count++].bytes = entry->kernel->scratch_bytes(&entry->op);
        for (size_t b = 0; b < count && b < OP_MAX_BUFFERS; b++) {
            const memory_region_t *region = check_region(reference_region(entry->references[b]));
            if (region != NULL && specs[b].bytes != 0)
                widen(&cold_spans[region - board.regions], region->base + reference_offset(entry->references[b]),
                      specs[b].bytes);
        }
    }
    cold_spans[board.region_count] =
        (memory_span_t){store->base + program->used_from, (store->bytes & ~7u) - program->used_from};
    cold_span_count = board.region_count + 1u;
}

/* Copies that the compiler makes for warm-ups and repetitions would take stack of their own, and what a program is said
 * to need would depend on which of them ran. */
#if __has_attribute(noclone)
#define ONE_FRAME __attribute__((noinline, noclone))
#else
#define ONE_FRAME __attribute__((noinline))
#endif

/* For warm-ups: with what scratch is painted, and the most that was found touched. Without any it is not looked at,
 * since that takes stack, which counts as the program's. */
static enum paint_coat coat;
static uint32_t scratch_peak_bytes;
static bool scratch_watched;

/* Runs timed entries [first, end) and adds their ticks to `ticks`, a row of one repetition; NULL: a warm-up. `last`:
 * for the last time in this repetition. */
static ONE_FRAME bool run_timed(const program_t *program, uint32_t first, uint32_t end, stored_tick_t *ticks,
                                bool last) {
    for (uint32_t i = first; i < end && may_begin(i); i++) {
        const program_entry_t *entry = &program->entries[i];
        if (cold_span_count != 0) {
            set_trigger(false);
            board_make_cold(cold_spans, cold_span_count);
            set_trigger(ticks != NULL);
        }
        void *buffers[OP_MAX_BUFFERS];
        for (unsigned b = 0; b < OP_MAX_BUFFERS; b++)
            buffers[b] = buffer_address(entry->references[b]);
        const bool watched = ticks == NULL && scratch_watched;
        if (watched)
            scratch_watch(program, entry, coat);
        const uint64_t elapsed = timed_call(entry, buffers, &program->header.optimizer);
        if (watched) {
            const uint32_t touched = scratch_touched_bytes(coat);
            scratch_peak_bytes = touched > scratch_peak_bytes ? touched : scratch_peak_bytes;
        }
        if (ticks != NULL) {
            stored_tick_t *tick = &ticks[i - program->header.image_end];
            const uint64_t sum = ((uint64_t)tick->high << 32 | tick->low) + elapsed;
            *tick = (stored_tick_t){(uint32_t)sum, (uint32_t)(sum >> 32)};
            progress.complete += last;
        }
    }
    return !progress.stopped;
}

/* `loops`: how often what is timed runs before what comes next. */
static ONE_FRAME bool run_once(const program_t *program, uint32_t seed, stored_tick_t *ticks, uint32_t loops) {
    const program_header_t *header = &program->header;
    const bool triggers = ticks != NULL && cold_span_count == 0; /* cold: run_timed() opens a window an entry */
    progress.complete = 0;
    for (uint32_t image = 0; image < header->image_count; image++) {
        if (header->image_end > header->setup_end) {
            set_trigger(false);
            if (!run_fills(program, header->setup_end, header->image_end, seed, image))
                return false;
        }
        set_trigger(triggers);
        for (uint32_t i = 1; i <= loops; i++) {
            const bool last = i == loops && image + 1u == header->image_count;
            if (!run_timed(program, header->image_end, header->body_end, ticks, last))
                return false;
        }
    }
    for (uint32_t i = 1; i <= loops; i++)
        if (!run_timed(program, header->body_end, program->entry_count, ticks, i == loops))
            return false;
    return true;
}

static uint32_t largest_scratch(const program_t *program) {
    uint32_t largest = 0;
    for (uint32_t i = program->header.image_end; i < program->entry_count; i++) {
        const program_entry_t *entry = &program->entries[i];
        const uint32_t bytes = entry->kernel->scratch_bytes(&entry->op);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

status_t interpreter_prepare(program_t *program, const run_options_t *options) {
    const uint8_t caches = options->caches;
    if (!program->sealed)
        return status_refused(STATUS_NO_PROGRAM, 0, 0);
    status_t status = program_place_ticks(program, options->repetitions);
    if (status.reason)
        return status;
    if (caches > CACHES_COLD || (caches == CACHES_COLD && !board_make_cold(NULL, 0)))
        return status_refused(STATUS_NO_COLD_RUNS, 0, caches);
    if (options->limit_ms != 0) {
        const double least_ms = estimate_least_ms(program, options);
        if (least_ms > options->limit_ms)
            return status_refused(STATUS_TOO_LONG, 0, least_ms < UINT32_MAX ? (uint32_t)least_ms : UINT32_MAX);
    }
    timer_start();
    const bool advances = timer_advances();
    timer_stop();
    return advances ? status_ok() : status_refused(STATUS_TIMER_STOPPED, 0, 0);
}

void interpreter_run(const program_t *program, const run_options_t *options, run_result_t *result) {
    uint8_t *const arena = check_region(program->header.arena_region)->base;
    const uint32_t arena_bytes = program->header.arena_bytes, scratch_bytes = largest_scratch(program);
    const uint32_t timed = program_timed_count(program), seed = options->seed;
    cold_span_count = 0;
    if (options->caches == CACHES_COLD)
        find_cold_spans(program);
    void *const stack_limit = board_stack_limit();
    const void *const frame = __builtin_frame_address(0);
    coat = PAINT_FIRST;
    scratch_peak_bytes = 0;
    scratch_watched = options->warmups != 0;
    paint(arena, arena_bytes, coat);
    paint_stack(stack_limit);

    /* Here, not before `accepted` goes out: how long that takes is up to the host, and where a tick is not a whole
     * number of instructions the readings depend on how far into a tick the first op begins. */
    timer_start();
    progress_begin(options->limit_ms);
    memset(&windows, 0, sizeof(windows));
    bool going = run_fills(program, 0, program->header.setup_end, seed, 0);
    for (uint32_t i = 0; going && i < options->warmups; i++)
        going = run_once(program, seed, NULL, 1);
    uint32_t whole = 0;
    progress.complete = 0;
    while (going && whole < options->repetitions) {
        going = run_once(program, seed, program->ticks + whole * timed, options->loops);
        whole += going;
    }
    set_trigger(false);
    result->window_count = windows.count;
    result->window_ticks = windows.ticks;
    result->whole_repetitions = whole;
    result->tick_count = whole * timed + (going ? 0 : progress.complete);

    result->arena_peak_bytes = paint_peak_bytes(arena, arena_bytes, coat);
    if (going && (result->arena_peak_bytes < arena_bytes || (scratch_watched && scratch_peak_bytes < scratch_bytes))) {
        /* Not all was used, or what was written looks like the paint: once more from the start, with the other coat.
         * It ends in the same state. */
        coat = PAINT_SECOND;
        paint(arena, arena_bytes, coat);
        going = run_fills(program, 0, program->header.setup_end, seed, 0);
        for (uint32_t i = 0; going && i < options->warmups + options->repetitions; i++)
            going = run_once(program, seed, NULL, 1);
        const uint32_t peak_bytes = paint_peak_bytes(arena, arena_bytes, coat);
        result->arena_peak_bytes = peak_bytes > result->arena_peak_bytes ? peak_bytes : result->arena_peak_bytes;
    }
    board_running(0);
    timer_stop();
    const uint64_t elapsed_ms = progress.elapsed * 1000 / board.timer_hz;
    result->stopped = !going;
    result->stop_entry = progress.stop_entry;
    result->elapsed_ms = elapsed_ms < UINT32_MAX ? (uint32_t)elapsed_ms : UINT32_MAX;
    result->scratch_peak_bytes = scratch_watched ? scratch_peak_bytes : scratch_bytes;
    result->stack_peak_bytes = paint_stack_peak_bytes(stack_limit, frame);
}
