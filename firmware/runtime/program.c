#include "runtime/program.h"

#include <string.h>

#include "runtime/board.h"
#include "runtime/check.h"

static uint32_t entries_top(void) {
    return board.regions[REGION_ARENA].bytes & ~7u;
}

status_t program_begin(program_t *program, const program_header_t *header, uint32_t entry_count) {
    *program = (program_t){.header = *header};
    if (entry_count == 0 || entry_count > PROGRAM_MAX_ENTRIES)
        return status_refused(STATUS_PROGRAM_TOO_LONG, 0, PROGRAM_MAX_ENTRIES);
    status_t status = check_header(header, entry_count);
    if (status.reason)
        return status;
    program->used_from = entries_top() - entry_count * PROGRAM_ENTRY_BYTES;
    program->entries = (program_entry_t *)(void *)(board.regions[REGION_ARENA].base + program->used_from);
    program->used_below = header->arena_region == REGION_ARENA ? header->arena_bytes : 0;
    program->entry_count = (uint16_t)entry_count;
    return status_ok();
}

/* Turns the bitmap into a list below what is stored already. False: the list would reach into the arena. */
static bool store_channels(program_t *program, const entry_description_t *entry, const uint16_t **channels) {
    const uint32_t bytes = ((uint32_t)entry->channel_count * 2 + 3) & ~3u;
    if (program->used_from < program->used_below + bytes)
        return false;
    program->used_from -= bytes;
    uint16_t *list = (uint16_t *)(void *)(board.regions[REGION_ARENA].base + program->used_from);
    uint32_t n = 0;
    for (uint32_t channel = 0; channel < entry->bitmap_bytes * 8; channel++)
        if (entry->bitmap[channel / 8] >> (channel % 8) & 1)
            list[n++] = (uint16_t)channel;
    *channels = list;
    return true;
}

static uint32_t bits_set(const uint8_t *bitmap, size_t bytes) {
    uint32_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        count += (uint32_t)__builtin_popcount(bitmap[i]);
    return count;
}

static status_t store_fill(program_entry_t *stored, const entry_description_t *entry, uint32_t index) {
    if (entry->geometry_count != 4)
        return status_refused(STATUS_BAD_GEOMETRY, index, (uint32_t)entry->geometry_count);
    stored->fill.geometry =
        (fill_geometry_t){entry->geometry[0], entry->geometry[1], entry->geometry[2], entry->geometry[3]};
    return status_ok();
}

static status_t store_op(program_t *program, program_entry_t *stored, const entry_description_t *entry,
                         uint32_t index) {
    op_t *op = &stored->op;
    op->pass = entry->pass;
    op->dtype = entry->dtype;
    op->variant = entry->variant;
    stored->kernel = kernel_find(entry->kind, entry->pass, entry->dtype, entry->variant);
    if (stored->kernel == NULL)
        return status_refused(STATUS_UNKNOWN_KERNEL, index,
                              (uint32_t)entry->kind << 24 | (uint32_t)entry->pass << 16 | (uint32_t)entry->dtype << 8 |
                                  entry->variant);
    if (!op_set_geometry(op, entry->geometry, entry->geometry_count))
        return status_refused(STATUS_BAD_GEOMETRY, index, (uint32_t)entry->geometry_count);
    op->quantization = entry->quantization;
    op->trained = (trained_t){entry->channel_count, entry->axis, entry->bias, entry->optimizer, NULL};
    if (entry->bitmap != NULL) {
        const uint32_t set = bits_set(entry->bitmap, entry->bitmap_bytes);
        if (set != entry->channel_count)
            return status_refused(STATUS_BAD_CHANNELS, index, set);
        if (!store_channels(program, entry, &op->trained.channels))
            return status_refused(STATUS_NO_MEMORY, index,
                                  program->used_below + entries_top() - program->used_from + ((set * 2 + 3) & ~3u));
    }
    return status_ok();
}

status_t program_append(program_t *program, const entry_description_t *entry) {
    const uint32_t index = program->stored_count;
    program_entry_t *stored = &program->entries[index];
    memset(stored, 0, sizeof(*stored));
    stored->kind = entry->kind;
    if (entry->reference_count > OP_MAX_BUFFERS)
        return status_refused(STATUS_BUFFER_COUNT, index, OP_MAX_BUFFERS);
    for (size_t i = 0; i < OP_MAX_BUFFERS; i++)
        stored->references[i] = i < entry->reference_count ? entry->references[i] : REGION_NONE;
    status_t status =
        entry->kind == OP_FILL ? store_fill(stored, entry, index) : store_op(program, stored, entry, index);
    if (!status.reason)
        program->stored_count++;
    return status;
}

status_t program_seal(program_t *program) {
    if (program->entry_count == 0)
        return status_refused(STATUS_NO_PROGRAM, 0, 0);
    if (program->stored_count != program->entry_count)
        return status_refused(STATUS_INCOMPLETE, program->stored_count, program->stored_count);
    for (uint32_t index = 0; index < program->entry_count; index++) {
        status_t status = check_entry(program, index);
        if (status.reason)
            return status;
    }
    program->sealed = true;
    return status_ok();
}

status_t program_place_ticks(program_t *program, uint32_t repetitions) {
    const uint64_t count = (uint64_t)repetitions * program_timed_count(program);
    const uint64_t bytes = count * sizeof(stored_tick_t);
    if (program->used_below + bytes > program->used_from) {
        const uint64_t wanted = program->used_below + bytes + entries_top() - program->used_from;
        return status_refused(STATUS_NO_MEMORY, 0, wanted > UINT32_MAX ? UINT32_MAX : (uint32_t)wanted);
    }
    program->ticks = (stored_tick_t *)(void *)(board.regions[REGION_ARENA].base + program->used_from - bytes);
    memset(program->ticks, 0, (size_t)bytes);
    program->tick_count = (uint32_t)count;
    return status_ok();
}
