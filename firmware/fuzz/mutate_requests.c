/* Of streams of requests: decoded, changed as what they are, and encoded again. */
#include <string.h>

#include "kernels/op.h"
#include "link/crc32.h"
#include "link/wire.h"
#include "mutate.h"
#include "mutate_entry.h"
#include "request_decode.h"
#include "request_encode.h"

/* A frame with its CRC-32 and code bytes is not longer than LINK_FRAME_BYTES. */
enum { PAYLOAD_BYTES = LINK_FRAME_BYTES - 10, ENTRIES = 8 };

static bool decode(const record_t *record, struct request *request) {
    size_t used = 0;
    memset(request, 0, sizeof *request);
    return record->kind == RECORD_FRAMED && record->count != 0 &&
           cbor_decode_request(record->bytes, record->count, request, &used) == 0 && used == record->count;
}

/* Entries that a frame has no room for are left out. */
static void encode(record_t *record, struct request *request) {
    uint8_t *bytes = mutate_room(PAYLOAD_BYTES);
    size_t used = 0;
    if (bytes == NULL)
        return;
    int error = cbor_encode_request(bytes, PAYLOAD_BYTES, request, &used);
    while (error != 0 && request->command_choice == request_command_append_m_c && request->append_m.entry_m_count > 1) {
        request->append_m.entry_m_count--;
        error = cbor_encode_request(bytes, PAYLOAD_BYTES, request, &used);
    }
    while (error != 0 && request->command_choice == request_command_run_m_c && request->run_m.entry_m_count > 1) {
        request->run_m.entry_m_count--;
        error = cbor_encode_request(bytes, PAYLOAD_BYTES, request, &used);
    }
    if (error == 0)
        *record = (record_t){RECORD_FRAMED, bytes, used};
}

static void mutate_entries(struct entry *entries, size_t *count, random_t *random) {
    const uint32_t index = random_below(random, (uint32_t)*count);
    if ((*count < ENTRIES && one_in(random, 6)) || *count == 0)
        entry_create(&entries[(*count)++], random);
    else if (*count > 1 && one_in(random, 12))
        entries[index] = entries[--*count];
    else if (*count > 1 && one_in(random, 12))
        entries[index] = entries[random_below(random, (uint32_t)*count)];
    else
        entry_mutate(&entries[index], random);
}

/* Fills first, as the sections want it. */
static size_t sort_fills(struct entry *entries, size_t count) {
    size_t fills = 0;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].kind != OP_FILL)
            continue;
        const struct entry kept = entries[fills];
        entries[fills++] = entries[i];
        entries[i] = kept;
    }
    return fills;
}

static void set_sections(struct program_header *header, size_t fills, size_t count, random_t *random) {
    if (one_in(random, 32))
        return;
    header->image_end = (uint32_t)fills;
    if (header->setup_end > fills)
        header->setup_end = random_below(random, (uint32_t)fills + 1);
    if (header->body_end < fills || header->body_end > count)
        header->body_end = (uint32_t)fills + random_below(random, (uint32_t)(count - fills) + 1);
    if (header->image_count == 0)
        header->image_count = 1;
}

/* The header of a program that travels inside of its run follows from its entries. */
static void repair_run(struct run *run, random_t *random) {
    struct program_header *header = &run->program_header_m;
    if (run->run_header_choice != run_header_program_header_m_c) {
        run->entry_m_count = 0;
        return;
    }
    if (run->entry_m_count == 0)
        entry_create(&run->entry_m[run->entry_m_count++], random);
    set_sections(header, sort_fills(run->entry_m, run->entry_m_count), run->entry_m_count, random);
    uint64_t end = 0;
    for (size_t i = 0; i < run->entry_m_count; i++) {
        const uint64_t reached =
            entry_end(&run->entry_m[i], header->arena_region_present ? header->arena_region : REGION_ARENA);
        end = reached > end ? reached : end;
    }
    if (header->arena_bytes < end && end <= UINT32_MAX)
        header->arena_bytes = (uint32_t)end;
}

static void create_run(struct run *run, random_t *random) {
    run->repetitions = random_below(random, 4);
    run->warmups = random_below(random, 3);
    run->seed = random_word(random);
    run->run_header_choice = one_in(random, 4) ? run_header_null_m_c : run_header_program_header_m_c;
    run->program_header_m = (struct program_header){.image_count = 1, .optimizer_present = true};
    run->entry_m_count = 1 + random_below(random, 3);
    for (size_t i = 0; i < run->entry_m_count; i++)
        entry_create(&run->entry_m[i], random);
    run->run_caches_present = one_in(random, 4);
    run->run_caches = random_below(random, 3);
    repair_run(run, random);
}

void target_create(record_t *record, random_t *random) {
    struct request request = {.request_id = random_below(random, 64)};
    switch (random_below(random, 11)) {
    case 0:
        request.command_choice = request_command_identify_m_c;
        request.identify_m.nonce = random_below(random, 4);
        request.identify_m.run_limit_ms = random_below(random, one_in(random, 2) ? 40 : 4000);
        break;
    case 1:
        request.command_choice = request_command_begin_m_c;
        request.begin_m.header =
            (struct program_header){.arena_bytes = 4096, .image_count = 1, .optimizer_present = true};
        request.begin_m.entry_count = 1 + random_below(random, 8);
        break;
    case 2:
    case 3:
        request.command_choice = request_command_append_m_c;
        request.append_m.entry_m_count = 1 + random_below(random, 3);
        for (size_t i = 0; i < request.append_m.entry_m_count; i++)
            entry_create(&request.append_m.entry_m[i], random);
        sort_fills(request.append_m.entry_m, request.append_m.entry_m_count);
        break;
    case 4:
        request.command_choice = request_command_seal_m_c;
        break;
    case 5:
    case 6:
        request.command_choice = request_command_run_m_c;
        create_run(&request.run_m, random);
        break;
    case 7:
        request.command_choice = request_command_read_m_c;
        request.read_m.first = random_below(random, 64);
        break;
    case 8:
        request.command_choice = request_command_digest_m_c;
        request.digest_m = (struct digest){16 * random_below(random, 256), random_value(random),
                                           random_below(random, 5), one_in(random, 2)};
        break;
    case 9:
        request.command_choice = one_in(random, 2) ? request_command_state_m_c : request_command_counters_m_c;
        break;
    default:
        request.command_choice = request_command_peek_m_c;
        request.peek_m = (struct peek){random_value(random), random_below(random, 1024)};
        break;
    }
    encode(record, &request);
}

void target_mutate(record_t *record, random_t *random) {
    struct request request;
    if (!decode(record, &request)) {
        mutate_bytes(record);
        return;
    }
    if (one_in(random, 16))
        request.request_id = random_value(random);
    switch (request.command_choice) {
    case request_command_begin_m_c:
        header_mutate(&request.begin_m.header, random);
        if (one_in(random, 8))
            request.begin_m.entry_count = random_value(random) & 0xFFFF;
        break;
    case request_command_append_m_c:
        mutate_entries(request.append_m.entry_m, &request.append_m.entry_m_count, random);
        break;
    case request_command_run_m_c:
        if (one_in(random, 8)) {
            request.run_m.repetitions = random_below(random, one_in(random, 4) ? 65536 : 5);
            request.run_m.warmups = random_below(random, one_in(random, 4) ? 65536 : 3);
            request.run_m.run_caches_present = one_in(random, 2);
            request.run_m.run_caches = random_below(random, 3);
        }
        if (one_in(random, 4))
            header_mutate(&request.run_m.program_header_m, random);
        else
            mutate_entries(request.run_m.entry_m, &request.run_m.entry_m_count, random);
        if (!one_in(random, 8))
            repair_run(&request.run_m, random);
        break;
    default:
        if (one_in(random, 2))
            mutate_bytes(record);
        else
            target_create(record, random);
        return;
    }
    encode(record, &request);
}

/* A begin and what follows it up to its seal. */
typedef struct {
    record_t *begin; /* NULL: none is open */
    uint32_t entries, fills, crc32;
    bool ops; /* no more leading fills */
} open_t;

static void close_program(open_t *open, random_t *random) {
    struct request request;
    if (open->begin != NULL && open->entries != 0 && decode(open->begin, &request)) {
        request.begin_m.entry_count = open->entries;
        set_sections(&request.begin_m.header, open->fills, open->entries, random);
        encode(open->begin, &request);
    }
    open->begin = NULL;
}

static void add_entries(open_t *open, record_t *record, struct request *request) {
    const uint8_t *bytes;
    size_t count;
    request->append_m.index = open->entries;
    encode(record, request);
    for (size_t i = 0; i < request->append_m.entry_m_count; i++) {
        open->ops = open->ops || request->append_m.entry_m[i].kind != OP_FILL;
        open->fills += !open->ops;
    }
    open->entries += (uint32_t)request->append_m.entry_m_count;
    if (wire_append_range(record->bytes, record->count, &bytes, &count))
        open->crc32 = crc32_update(open->crc32, bytes, count);
}

void target_repair(input_t *input, random_t *random) {
    open_t open = {0};
    if (one_in(random, 8))
        return;
    for (size_t i = 0; i < input->record_count; i++) {
        record_t *record = &input->records[i];
        struct request request;
        if (!decode(record, &request))
            continue;
        if (request.command_choice == request_command_begin_m_c) {
            close_program(&open, random);
            open = (open_t){.begin = record};
        } else if (request.command_choice == request_command_append_m_c && open.begin != NULL) {
            add_entries(&open, record, &request);
        } else if (request.command_choice == request_command_seal_m_c && open.begin != NULL) {
            request.seal_m.crc32 = open.crc32;
            encode(record, &request);
            close_program(&open, random);
        }
    }
    close_program(&open, random);
}
