#include "invariants.h"

#include "require.h"
#include "runtime/board.h"

/* Work is counted on the host alone, in a time that may grow with an op's positions. */
enum { COUNTED_BYTES = 1 << 18 };

typedef struct {
    const memory_region_t *region;
    uint64_t start, end; /* offsets in the region */
    bool written;
} extent_t;

static const memory_region_t *region_of(uint32_t reference) {
    for (unsigned i = 0; i < board.region_count; i++)
        if (board.regions[i].number == reference % 16)
            return &board.regions[i];
    return NULL;
}

/* A buffer lies in memory that it may use: below the arena's end, below the stored program, or in another region. */
static extent_t require_inside(const program_t *program, uint32_t reference, uint64_t bytes, uint8_t access) {
    const memory_region_t *region = region_of(reference);
    REQUIRE(region != NULL && region->base != NULL);
    const extent_t extent = {region, reference / 16 * 16, reference / 16 * 16 + bytes, access != BUFFER_READ};
    REQUIRE(extent.end <= region->bytes);
    REQUIRE(region->writable || !extent.written);
    if (region->number == program->header.arena_region)
        REQUIRE(extent.end <= program->header.arena_bytes);
    if (region->number == REGION_ARENA)
        REQUIRE(extent.end <= program->used_from && extent.end <= program->used_below);
    return extent;
}

static bool meet(const extent_t *a, const extent_t *b) {
    return a->region == b->region && a->start < b->end && b->start < a->end;
}

/* A written buffer meets no other, but for the one that its op lets it replace from the same byte on, or from so far
 * before it that it trails what was read. */
static void require_apart(const extent_t *extents, const buffer_spec_t *specs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; extents[i].written && j < count; j++) {
            if (i == j || !meet(&extents[i], &extents[j]))
                continue;
            REQUIRE(specs[i].in_place == (int)j);
            if (specs[i].ahead_bytes == 0)
                REQUIRE(extents[i].start == extents[j].start);
            else
                REQUIRE(extents[i].start + specs[i].ahead_bytes <= extents[j].start);
        }
    }
}

/* The list of trained channels lies among what is stored, and ascends. */
static void require_channels(const program_t *program, const op_t *op) {
    if (op->trained.channels == NULL)
        return;
    const uint8_t *const base = board.regions[0].base;
    const uint8_t *const first = (const uint8_t *)op->trained.channels;
    REQUIRE(first >= base + program->used_from);
    REQUIRE(first + 2 * (size_t)op->trained.channel_count <= (const uint8_t *)program->entries);
    for (uint32_t i = 1; i < op->trained.channel_count; i++)
        REQUIRE(op->trained.channels[i - 1] < op->trained.channels[i]);
}

uint64_t op_work(const kernel_t *kernel, const op_t *op) {
    uint64_t counts[WORK_MAX_TERMS] = {0}, sum = 0;
    kernel->work(op, counts);
    REQUIRE(counts[0] == 1);
    for (size_t i = 0; kernel->work_terms[i] != NULL; i++) {
        REQUIRE(i < WORK_MAX_TERMS && counts[i] < UINT64_C(1) << 56);
        sum += counts[i];
    }
    return sum;
}

static void require_op(const program_t *program, const program_entry_t *entry) {
    const op_t *op = &entry->op;
    buffer_spec_t specs[OP_MAX_BUFFERS + 1];
    extent_t extents[OP_MAX_BUFFERS];
    REQUIRE(op_valid(op));
    REQUIRE(op->pass != PASS_UPDATE || program->header.has_optimizer);
    REQUIRE(entry->kernel == kernel_find(op->kind, op->pass, op->dtype, op->variant));
    size_t count = op_buffers(op, specs);
    const uint32_t scratch_bytes = entry->kernel->scratch_bytes(op);
    REQUIRE(scratch_bytes % 4 == 0);
    if (scratch_bytes != 0)
        specs[count++] = (buffer_spec_t){scratch_bytes, BUFFER_WRITE, -1, 0};
    REQUIRE(count <= OP_MAX_BUFFERS);
    for (size_t i = 0; i < OP_MAX_BUFFERS; i++)
        REQUIRE((entry->references[i] == REGION_NONE) == (i >= count));
    for (size_t i = 0; i < count; i++)
        extents[i] = require_inside(program, entry->references[i], specs[i].bytes, specs[i].access);
    require_apart(extents, specs, count);
    require_channels(program, op);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += specs[i].bytes;
    if (bytes <= COUNTED_BYTES)
        op_work(entry->kernel, op);
}

static void require_fill(const program_t *program, const program_entry_t *entry) {
    const fill_geometry_t *fill = &entry->fill.geometry;
    const uint64_t element_bytes = fill->mode == FILL_BYTES ? 1 : 4;
    REQUIRE(fill->elements != 0);
    for (size_t i = 1; i < OP_MAX_BUFFERS; i++)
        REQUIRE(entry->references[i] == REGION_NONE);
    require_inside(program, entry->references[0], fill->elements * element_bytes, BUFFER_WRITE);
}

void require_sealed(const program_t *program) {
    const program_header_t *header = &program->header;
    const memory_region_t *const store = &board.regions[0];
    REQUIRE(program->sealed && program->entry_count != 0 && program->stored_count == program->entry_count);
    REQUIRE(header->image_count != 0);
    REQUIRE(header->setup_end <= header->image_end && header->image_end <= header->body_end &&
            header->body_end <= program->entry_count);
    REQUIRE(program->used_below <= program->used_from && program->used_from <= store->bytes);
    REQUIRE((const uint8_t *)program->entries >= store->base + program->used_from);
    REQUIRE((const uint8_t *)(program->entries + program->entry_count) <= store->base + store->bytes);
    for (uint32_t i = 0; i < program->entry_count; i++) {
        const program_entry_t *entry = &program->entries[i];
        REQUIRE((entry->kind == OP_FILL) == (i < header->image_end));
        if (entry->kind == OP_FILL)
            require_fill(program, entry);
        else
            require_op(program, entry);
    }
}

void require_ticks(const program_t *program, uint32_t repetitions) {
    const uint8_t *const base = board.regions[0].base, *const ticks = (const uint8_t *)program->ticks;
    const uint64_t count = (uint64_t)repetitions * (program->entry_count - program->header.image_end);
    REQUIRE(program->tick_count == count);
    REQUIRE(ticks >= base + program->used_below && ticks + 8 * count == base + program->used_from);
    for (uint64_t i = 0; i < count; i++)
        REQUIRE(program->ticks[i].low == 0 && program->ticks[i].high == 0);
}
