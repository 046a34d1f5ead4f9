#include "runtime/check.h"

#include "kernels/kernel.h"

status_t check_header(const program_header_t *header, uint32_t entry_count) {
    if (header->image_count == 0 || header->setup_end > header->image_end || header->image_end > header->body_end ||
        header->body_end > entry_count)
        return status_refused(STATUS_BAD_SECTIONS, 0, entry_count);
    const memory_region_t *arena = check_region(header->arena_region);
    if (arena == NULL || !arena->writable)
        return status_refused(STATUS_NO_ARENA, 0, header->arena_region);
    if (header->arena_bytes > arena->bytes)
        return status_refused(STATUS_NO_MEMORY, 0, header->arena_bytes);
    const uint64_t wanted = (header->arena_region == REGION_ARENA ? (uint64_t)header->arena_bytes : 0) +
                            (uint64_t)entry_count * PROGRAM_ENTRY_BYTES;
    if (wanted > (board.regions[REGION_ARENA].bytes & ~7u))
        return status_refused(STATUS_NO_MEMORY, 0, wanted > UINT32_MAX ? UINT32_MAX : (uint32_t)wanted);
    return status_ok();
}

const memory_region_t *check_region(uint32_t number) {
    for (unsigned i = 0; i < board.region_count; i++)
        if (board.regions[i].number == number && board.regions[i].base != NULL)
            return &board.regions[i];
    return NULL;
}

const void *check_resolve(uint32_t reference, uint64_t bytes, uint32_t *available) {
    const memory_region_t *region = check_region(reference_region(reference));
    const uint32_t offset = reference_offset(reference);
    const bool begins_inside = region != NULL && offset <= region->bytes;
    *available = begins_inside ? region->bytes - offset : 0;
    return begins_inside && bytes <= *available ? region->base + offset : NULL;
}

/* Up to where buffers of the program may reach in a region. */
static uint32_t region_limit(const program_t *program, const memory_region_t *region) {
    if (region->number == program->header.arena_region)
        return program->header.arena_bytes;
    return region->number == REGION_ARENA ? program->used_from : region->bytes;
}

/* One buffer by itself. */
static status_t check_buffer(program_t *program, uint32_t index, uint32_t buffer, uint32_t reference, uint64_t bytes,
                             uint8_t access) {
    const memory_region_t *region = check_region(reference_region(reference));
    if (region == NULL)
        return status_refused(STATUS_BAD_REGION, index, buffer);
    const uint64_t end = reference_offset(reference) + bytes;
    if (end > region_limit(program, region))
        return status_refused(STATUS_OUT_OF_BOUNDS, index, buffer);
    if (region->number == REGION_ARENA && end > program->used_below)
        program->used_below = (uint32_t)end;
    if (access != BUFFER_READ && !region->writable)
        return status_refused(STATUS_READ_ONLY, index, buffer);
    return status_ok();
}

static bool overlap(uint32_t reference_a, uint32_t bytes_a, uint32_t reference_b, uint32_t bytes_b) {
    if (reference_region(reference_a) != reference_region(reference_b))
        return false;
    const uint64_t a = reference_offset(reference_a), b = reference_offset(reference_b);
    return a < b + bytes_b && b < a + bytes_a;
}

/* Two buffers may share memory where neither is written, or where the written one may replace the other in place: then
 * both start at the same byte, or the written one so far before it that it trails what has been read. */
static bool may_share(const buffer_spec_t *written, size_t read, uint32_t written_at, uint32_t read_at) {
    if (written->in_place != (int)read || reference_region(written_at) != reference_region(read_at))
        return false;
    if (written->ahead_bytes == 0)
        return written_at == read_at;
    return (uint64_t)reference_offset(written_at) + written->ahead_bytes <= reference_offset(read_at);
}

static status_t check_overlaps(const program_entry_t *entry, uint32_t index, const buffer_spec_t *specs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (specs[i].access == BUFFER_READ)
            continue;
        for (size_t j = 0; j < count; j++) {
            if (i != j && !may_share(&specs[i], j, entry->references[i], entry->references[j]) &&
                overlap(entry->references[i], specs[i].bytes, entry->references[j], specs[j].bytes))
                return status_refused(STATUS_OVERLAP, index, (uint32_t)(i << 8 | j));
        }
    }
    return status_ok();
}

static status_t check_fill(program_t *program, uint32_t index) {
    const program_entry_t *entry = &program->entries[index];
    if (index >= program->header.image_end)
        return status_refused(STATUS_MISPLACED, index, entry->kind);
    if (!fill_valid(&entry->fill.geometry))
        return status_refused(STATUS_BAD_FILL, index, entry->fill.geometry.mode);
    for (size_t i = 0; i < OP_MAX_BUFFERS; i++)
        if ((i < 1) == (entry->references[i] == REGION_NONE))
            return status_refused(STATUS_BUFFER_COUNT, index, 1);
    return check_buffer(program, index, 0, entry->references[0], fill_bytes(&entry->fill.geometry), BUFFER_WRITE);
}

static status_t check_op(program_t *program, uint32_t index) {
    const program_entry_t *entry = &program->entries[index];
    const op_t *op = &entry->op;
    if (index < program->header.image_end)
        return status_refused(STATUS_MISPLACED, index, entry->kind);
    if (!op_valid(op))
        return status_refused(STATUS_BAD_GEOMETRY, index, 0);
    if (op->pass == PASS_UPDATE && !program->header.has_optimizer)
        return status_refused(STATUS_NO_OPTIMIZER, index, 0);

    buffer_spec_t specs[OP_MAX_BUFFERS + 1];
    size_t count = op_buffers(op, specs);
    const uint32_t scratch_bytes = entry->kernel->scratch_bytes(op);
    if (scratch_bytes != 0)
        specs[count++] = (buffer_spec_t){scratch_bytes, BUFFER_WRITE, -1, 0};
    for (size_t i = 0; i < OP_MAX_BUFFERS; i++)
        if ((i < count) == (entry->references[i] == REGION_NONE))
            return status_refused(STATUS_BUFFER_COUNT, index, (uint32_t)count);
    for (uint32_t i = 0; i < count; i++) {
        status_t status = check_buffer(program, index, i, entry->references[i], specs[i].bytes, specs[i].access);
        if (status.reason)
            return status;
    }
    return check_overlaps(entry, index, specs, count);
}

status_t check_entry(program_t *program, uint32_t index) {
    return program->entries[index].kind == OP_FILL ? check_fill(program, index) : check_op(program, index);
}
