#include "mutate_entry.h"

#include <string.h>

#include "kernels/kernel.h"
#include "link/wire.h"
#include "mutate.h"
#include "runtime/check.h"

enum { MOST_EXTENT = 9, BITMAP_BYTES = 256, PLACES = 16, FILL_VALUES = 4 };

uint32_t random_value(random_t *random) {
    static const uint32_t edges[] = {0,       1,       2,          127,        128,        254,
                                     255,     256,     1023,       1024,       4096,       32767,
                                     32768,   65534,   65535,      65536,      1 << 20,    16 << 20,
                                     1 << 26, 1 << 28, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF};
    switch (random_below(random, 4)) {
    case 0:
        return edges[random_below(random, sizeof edges / sizeof edges[0])];
    case 1:
        return random_below(random, 1u << random_below(random, 24));
    default:
        return random_below(random, 1 + MOST_EXTENT);
    }
}

/* The op as program_append() makes it, and its buffers with scratch last. False: not valid. A list of channels does not
 * matter for sizes. */
static bool op_of(const struct entry *entry, op_t *op, buffer_spec_t specs[OP_MAX_BUFFERS + 1], size_t *count) {
    const entry_description_t d = wire_entry(entry);
    const kernel_t *kernel = kernel_find(d.kind, d.pass, d.dtype, d.variant);
    *op = (op_t){.kind = d.kind, .pass = d.pass, .dtype = d.dtype, .variant = d.variant};
    if (kernel == NULL || !op_set_geometry(op, d.geometry, d.geometry_count))
        return false;
    op->trained = (trained_t){d.channel_count, d.axis, d.bias, d.optimizer, NULL};
    if (!op_valid(op))
        return false;
    *count = op_buffers(op, specs);
    const uint32_t scratch_bytes = kernel->scratch_bytes(op);
    if (scratch_bytes != 0)
        specs[(*count)++] = (buffer_spec_t){scratch_bytes, BUFFER_WRITE, -1, 0};
    return *count <= OP_MAX_BUFFERS;
}

bool entry_place(struct entry *entry, random_t *random) {
    op_t op;
    buffer_spec_t specs[OP_MAX_BUFFERS + 1];
    size_t count;
    if (entry->kind == OP_FILL) {
        entry->buffer_count = 1;
        entry->buffer[0] = random_below(random, PLACES) * 16;
        return true;
    }
    if (!op_of(entry, &op, specs, &count))
        return false;
    uint64_t at[PLACES] = {0};
    const uint32_t other_region = random_below(random, 4);
    entry->buffer_count = count;
    for (size_t i = 0; i < count; i++) {
        const bool blob = specs[i].access == BUFFER_READ && one_in(random, 4);
        const uint32_t region = blob ? REGION_BLOB : one_in(random, 4) ? other_region : REGION_ARENA;
        entry->buffer[i] = (uint32_t)at[region] | region;
        at[region] = (at[region] + specs[i].bytes + 15) & ~UINT64_C(15);
        if (one_in(random, 8) && specs[i].in_place >= 0 && specs[i].ahead_bytes == 0)
            entry->buffer[i] = entry->buffer[specs[i].in_place];
    }
    return true;
}

uint64_t entry_end(const struct entry *entry, uint32_t region) {
    op_t op;
    buffer_spec_t specs[OP_MAX_BUFFERS + 1] = {{0}};
    size_t count = 1;
    uint64_t end = 0;
    if (entry->kind == OP_FILL)
        specs[0].bytes = entry->value_count > 0 ? entry->value[0] * 4 : 0;
    else if (!op_of(entry, &op, specs, &count))
        return 0;
    for (size_t i = 0; i < count && i < entry->buffer_count; i++) {
        const uint64_t buffer_end = (uint64_t)reference_offset(entry->buffer[i]) + specs[i].bytes;
        if (reference_region(entry->buffer[i]) == region && buffer_end > end)
            end = buffer_end;
    }
    return end;
}

static void create_fill(struct entry *entry, random_t *random) {
    entry->value_count = FILL_VALUES;
    entry->value[0] = 2 * random_below(random, 64);
    entry->value[1] = random_below(random, 9);
    entry->value[2] = one_in(random, 2) ? 120 + random_below(random, 40) : random_below(random, 40);
    entry->value[3] = random_word(random);
}

/* Small numbers, as many as the kind has, until they make a valid op. */
static void create_geometry(struct entry *entry, random_t *random) {
    for (int tries = 0; tries < 24; tries++) {
        op_t op = {.kind = (uint8_t)entry->kind};
        entry->value_count = 0;
        for (size_t i = 0; i < OP_MAX_GEOMETRY; i++)
            entry->value[i] = random_below(random, i < 4 ? 1 + MOST_EXTENT : 4);
        while (entry->value_count < OP_MAX_GEOMETRY && !op_set_geometry(&op, entry->value, entry->value_count))
            entry->value_count++;
        if (entry_place(entry, random))
            return;
    }
}

static void mutate_trained(struct entry *entry, random_t *random) {
    struct trained_value *trained = &entry->trained_value_m;
    entry->trained_value_m_present = !one_in(random, 6);
    const bool wild = one_in(random, 16);
    trained->channel_count = random_below(random, wild ? 65536 : 1 + MOST_EXTENT);
    trained->axis = random_below(random, wild ? 4 : 2);
    trained->bias = random_below(random, wild ? 4 : 2);
    trained->optimizer_kind = random_below(random, wild ? 4 : 2);
}

static void mutate_channels(struct entry *entry, random_t *random) {
    uint8_t *bitmap = mutate_room(BITMAP_BYTES);
    entry->channels_present = bitmap != NULL && !one_in(random, 6);
    if (!entry->channels_present)
        return;
    const size_t bytes = 1 + random_below(random, one_in(random, 8) ? BITMAP_BYTES : 2);
    uint32_t set = 0;
    for (size_t i = 0; i < bytes; i++) {
        bitmap[i] = (uint8_t)(random_word(random) & random_word(random));
        set += (uint32_t)__builtin_popcount(bitmap[i]);
    }
    entry->channels = (struct zcbor_string){bitmap, bytes};
    if (!one_in(random, 8)) {
        entry->trained_value_m_present = true;
        entry->trained_value_m.channel_count = set;
    }
}

static void mutate_quantization(struct entry *entry, random_t *random) {
    entry->quantization_present = !one_in(random, 6);
    entry->quantization.quantum_count = QUANTIZATION_VALUES;
    for (size_t i = 0; i < QUANTIZATION_VALUES; i++)
        entry->quantization.quantum[i] = (int32_t)random_below(random, 256) - 128;
}

static void mutate_reference(struct entry *entry, random_t *random) {
    if (entry->buffer_count == 0)
        return;
    uint32_t *reference = &entry->buffer[random_below(random, (uint32_t)entry->buffer_count)];
    const uint32_t other = entry->buffer[random_below(random, (uint32_t)entry->buffer_count)];
    switch (random_below(random, 6)) {
    case 0:
        *reference = (*reference & ~15u) | random_below(random, 16);
        break;
    case 1:
        *reference = other;
        break;
    case 2:
        *reference = other - 16 * random_below(random, 64);
        break;
    case 3:
        *reference = (random_value(random) & ~15u) | (*reference & 15u);
        break;
    default:
        *reference += one_in(random, 2) ? 16u : -16u;
        break;
    }
}

void entry_create(struct entry *entry, random_t *random) {
    *entry = (struct entry){0};
    if (one_in(random, 4)) {
        create_fill(entry, random);
        entry_place(entry, random);
        return;
    }
    const kernel_t *kernel = kernel_at(random_below(random, (uint32_t)kernel_count()));
    entry->kind = kernel->kind;
    entry->pass = kernel->pass;
    entry->dtype = kernel->dtype;
    entry->variant = kernel->variant;
    if (kernel->pass >= PASS_GRAD_WEIGHT || (kernel->dtype == DTYPE_S8 && one_in(random, 2))) {
        entry->trained_value_m_present = true;
        entry->trained_value_m.channel_count = 1 + random_below(random, 2);
        entry->trained_value_m.axis = random_below(random, 2);
        entry->trained_value_m.optimizer_kind = random_below(random, 2);
    }
    if (kernel->dtype == DTYPE_S8)
        mutate_quantization(entry, random);
    create_geometry(entry, random);
}

void entry_mutate(struct entry *entry, random_t *random) {
    bool place = !one_in(random, 8);
    switch (random_below(random, 12)) {
    case 0:
        entry_create(entry, random);
        break;
    case 1:
    case 2:
    case 3:
        if (entry->value_count)
            entry->value[random_below(random, (uint32_t)entry->value_count)] = random_value(random);
        for (size_t i = 0, huge = one_in(random, 16); huge && i < entry->value_count; i++)
            entry->value[i] = one_in(random, 2) ? UINT16_MAX : entry->value[i];
        break;
    case 4:
    case 5:
        mutate_reference(entry, random);
        place = false;
        break;
    case 6:
        mutate_trained(entry, random);
        break;
    case 7:
        mutate_channels(entry, random);
        break;
    case 8:
        mutate_quantization(entry, random);
        place = false;
        break;
    case 9:
        *(one_in(random, 2)   ? &entry->variant
          : one_in(random, 2) ? &entry->dtype
                              : &entry->pass) = random_below(random, 4);
        break;
    case 10:
        entry->buffer_count = random_below(random, OP_MAX_BUFFERS + 1);
        place = false;
        break;
    default:
        break;
    }
    if (place)
        entry_place(entry, random);
}

void header_mutate(struct program_header *header, random_t *random) {
    switch (random_below(random, 8)) {
    case 0:
        header->image_count = random_below(random, one_in(random, 8) ? 65536 : 4);
        break;
    case 1:
        header->optimizer_present = one_in(random, 2);
        header->optimizer = (struct optimizer_constants){0.01, 1.0, 0.1, 0.001};
        break;
    case 2:
        header->arena_region_present = one_in(random, 2);
        header->arena_region = random_below(random, one_in(random, 8) ? 256 : 5);
        break;
    case 3:
        header->setup_end = random_below(random, 5);
        header->image_end = random_below(random, 5);
        header->body_end = random_below(random, 9);
        break;
    case 4: {
        /* About what the targets' boards leave below some entries and lists of channels. */
        static const uint32_t sizes[] = {24 << 10, 96 << 10, 1 << 20, 64 << 20, UINT32_C(2047) << 20};
        header->arena_bytes = sizes[random_below(random, sizeof sizes / sizeof sizes[0])] -
                              (1 + random_below(random, 4)) * PROGRAM_ENTRY_BYTES - 4 * random_below(random, 64);
        header->arena_region_present = false;
        break;
    }
    default:
        header->arena_bytes = one_in(random, 2) ? 16 * random_below(random, 1024) : random_value(random);
        break;
    }
}
