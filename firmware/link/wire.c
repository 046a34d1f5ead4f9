#include "link/wire.h"

#include <string.h>
#include <zcbor_decode.h>

#include "kernels/kernel.h"
#include "link/build_info.h"
#include "runtime/board.h"

/* The limits of messages.cddl on texts of the identity. */
enum { NAME_BYTES = 32, CACHES_BYTES = 64, COMPILER_BYTES = 48, FLAGS_BYTES = 160, SHORT_BYTES = 16 };

/* Limits that the runtime's headers state once more. */
#define LENGTH_OF(type, member) (sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]))
_Static_assert(LENGTH_OF(struct entry, value) == OP_MAX_GEOMETRY, "messages.cddl, geometry");
_Static_assert(LENGTH_OF(struct entry, buffer) == OP_MAX_BUFFERS, "messages.cddl, buffers");
_Static_assert(LENGTH_OF(struct identity, region_m) == REGION_MAX_COUNT, "messages.cddl, memory");
_Static_assert(LENGTH_OF(struct identity, blob_segment) == BLOB_MAX_SEGMENTS, "messages.cddl, blob_segments");
_Static_assert(LENGTH_OF(struct entry_quantization, quantum) == QUANTIZATION_VALUES, "messages.cddl, quantization");
_Static_assert(LENGTH_OF(struct reset, reset_register) == RESET_MAX_REGISTERS, "messages.cddl, reset");
_Static_assert(PASS_COUNT <= 4 && DTYPE_COUNT <= 16, "messages.cddl, capability");

entry_description_t wire_entry(const struct entry *entry) {
    const struct trained_value *trained = &entry->trained_value_m;
    entry_description_t description = {
        .kind = (uint8_t)entry->kind,
        .pass = (uint8_t)entry->pass,
        .dtype = (uint8_t)entry->dtype,
        .variant = (uint8_t)entry->variant,
        .geometry = entry->value,
        .geometry_count = entry->value_count,
        .references = entry->buffer,
        .reference_count = entry->buffer_count,
    };
    if (entry->trained_value_m_present) {
        description.channel_count = (uint16_t)trained->channel_count;
        description.axis = (uint8_t)trained->axis;
        description.bias = (uint8_t)trained->bias;
        description.optimizer = (uint8_t)trained->optimizer_kind;
    }
    if (entry->channels_present) {
        description.bitmap = entry->channels.value;
        description.bitmap_bytes = entry->channels.len;
    }
    if (entry->quantization_present) {
        const int32_t *q = entry->quantization.quantum;
        description.quantization = (quantization_t){(int8_t)q[0], (int8_t)q[1], (int8_t)q[2], (int8_t)q[3],
                                                    (int8_t)q[4], (int8_t)q[5], (int8_t)q[6]};
    }
    return description;
}

program_header_t wire_header(const struct program_header *header) {
    const struct optimizer_constants *optimizer = &header->optimizer;
    program_header_t converted = {
        .arena_bytes = header->arena_bytes,
        .arena_region = header->arena_region_present ? (uint8_t)header->arena_region : REGION_ARENA,
        .image_count = (uint16_t)header->image_count,
        .setup_end = (uint16_t)header->setup_end,
        .image_end = (uint16_t)header->image_end,
        .body_end = (uint16_t)header->body_end,
        .has_optimizer = header->optimizer_present,
    };
    if (header->optimizer_present)
        converted.optimizer =
            (step_constants_t){(float)optimizer->learning_rate, (float)optimizer->gradient_scale,
                               (float)optimizer->bias_correction1, (float)optimizer->bias_correction2};
    return converted;
}

static struct zcbor_string text(const char *characters, size_t limit) {
    const size_t length = strlen(characters);
    return (struct zcbor_string){(const uint8_t *)characters, length < limit ? length : limit};
}

/* One number a (kind, dtype), with a bit a pass. Kernels beyond the limit of messages.cddl are not told of. */
static void capabilities(struct identity *identity) {
    const size_t limit = LENGTH_OF(struct identity, capability);
    size_t count = 0;
    for (size_t i = 0; i < kernel_count(); i++) {
        const kernel_t *kernel = kernel_at(i);
        const uint32_t what = (uint32_t)kernel->kind << 8 | (uint32_t)kernel->dtype << 4;
        size_t j = 0;
        while (j < count && (identity->capability[j] & ~0xfu) != what)
            j++;
        if (j == limit)
            continue;
        if (j == count)
            identity->capability[count++] = what;
        identity->capability[j] |= 1u << kernel->pass;
    }
    identity->capability_count = count;
}

void wire_identity(struct identity *identity) {
    memset(identity, 0, sizeof(*identity));
    identity->protocol = PROTOCOL_VERSION;
    identity->board = text(board.board, NAME_BYTES);
    identity->core = text(board.core, NAME_BYTES);
    identity->unique_id = (struct zcbor_string){board.unique_id, board.unique_id_bytes};
    identity->clock_hz = board.clock_hz;
    identity->timer_name = text(board.timer_name, NAME_BYTES);
    identity->timer_hz = board.timer_hz;
    identity->timer_bits = board.timer_bits;
    identity->ticks_per_instruction_num = board.ticks_per_instruction_num;
    identity->ticks_per_instruction_den = board.ticks_per_instruction_den;
    identity->caches = text(board.caches, CACHES_BYTES);
    identity->flash_wait_states = board.flash_wait_states;
    identity->fpu = text(board.fpu, NAME_BYTES);
    uint32_t blob_bytes = 0;
    for (unsigned i = 0; i < board.region_count; i++) {
        const memory_region_t *region = &board.regions[i];
        identity->region_m[i] =
            (struct region){text(region->name, SHORT_BYTES), region->bytes, region->number, region->cached};
        if (region->number == REGION_BLOB)
            blob_bytes = region->bytes;
    }
    identity->region_m_count = board.region_count;
    identity->blob_bytes = blob_bytes;
    identity->blob_seed = board.blob.seed;
    for (unsigned j = 0; j < board.blob.segment_count; j++)
        identity->blob_segment[j] = board.blob.segments[j];
    identity->blob_segment_count = board.blob.segment_count;
    identity->largest_frame_bytes = LINK_FRAME_BYTES;
    identity->largest_program = PROGRAM_MAX_ENTRIES;
    identity->entry_bytes = PROGRAM_ENTRY_BYTES;
    capabilities(identity);
    identity->firmware_version = text(build_firmware_version, SHORT_BYTES);
    identity->build_hash = text(build_hash, SHORT_BYTES);
    identity->compiler = text(build_compiler, COMPILER_BYTES);
    identity->flags = text(build_flags, FLAGS_BYTES);
    identity->cold_runs = board_make_cold(NULL, 0);
    identity->watchdog_ms = board.watchdog_ms;
    struct reset *reset = &identity->last_reset;
    reset->cause = board.reset.cause;
    reset->running = board.reset.running;
    reset->reset_register_count = board.reset.register_count;
    memcpy(reset->reset_register, board.reset.registers, sizeof(board.reset.registers));
}

void wire_state(struct state_reply *reply, const machine_state_t *state) {
    *reply = (struct state_reply){
        .cpu = state->cpu,
        .scheduling = text(state->scheduling, sizeof(state->scheduling) - 1),
        .governor = text(state->governor, sizeof(state->governor) - 1),
        .frequency_khz = state->frequency_khz,
        .temperature_millikelvin = state->temperature_millikelvin,
        .throttled_flags = state->throttled,
        .throttled_flags_present = state->throttled_known,
        .trigger = text(state->trigger, sizeof(state->trigger) - 1),
    };
}

bool wire_append_range(const uint8_t *payload, size_t payload_bytes, const uint8_t **entries, size_t *entries_bytes) {
    zcbor_state_t states[5]; /* three lists deep, the state itself, and its constant part */
    uint32_t ignored;
    zcbor_new_state(states, sizeof(states) / sizeof(states[0]), payload, payload_bytes, 1, NULL, 0);
    /* [id, [2, index, [entry, ...]]]: lists have definite lengths, so the entries end where the payload does. */
    const bool found = zcbor_list_start_decode(states) && zcbor_uint32_decode(states, &ignored) &&
                       zcbor_list_start_decode(states) && zcbor_uint32_decode(states, &ignored) &&
                       zcbor_uint32_decode(states, &ignored) && zcbor_list_start_decode(states);
    *entries = states[0].payload;
    *entries_bytes = (size_t)(payload + payload_bytes - states[0].payload);
    return found;
}

bool wire_request_id(const uint8_t *payload, size_t payload_bytes, uint32_t *id) {
    zcbor_state_t states[3];
    zcbor_new_state(states, sizeof(states) / sizeof(states[0]), payload, payload_bytes, 1, NULL, 0);
    return zcbor_list_start_decode(states) && zcbor_uint32_decode(states, id);
}
