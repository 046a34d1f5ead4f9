/* Target: from the payload of a request to a sealed program, on boards with more memory than there is. Nothing runs:
 * all but the top of each region faults when it is touched. After each seal that succeeds the program must be as
 * invariants.h says. Setup: the size of the region that stores programs. */
#include <string.h>
#include <sys/mman.h>

#include "input.h"
#include "invariants.h"
#include "link/wire.h"
#include "request_decode.h"
#include "require.h"
#include "runtime/board.h"
#include "runtime/check.h"
#include "target.h"

/* Largest as the Linux agent's --arena has it. STORED_BYTES: for entries, lists of channels, and some ticks. */
#define LARGEST_REGION (UINT32_C(2047) << 20)
enum { STORED_BYTES = 1 << 20, OTHER_REGION = 3, TICKS_ROOM = 1 << 16 };

board_t board = {.timer_bits = 64, .timer_hz = 1};

static const uint32_t store_sizes[] = {96 << 10, (1 << 20) + 5, 64 << 20, LARGEST_REGION};

static uint8_t *reserved(size_t bytes) {
    void *address = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(address != MAP_FAILED);
    return address;
}

static void set_board(uint8_t setup) {
    static uint8_t *store, *other;
    if (store == NULL) {
        store = reserved(LARGEST_REGION);
        other = reserved(LARGEST_REGION);
        REQUIRE(mprotect(store + LARGEST_REGION - STORED_BYTES, STORED_BYTES, PROT_READ | PROT_WRITE) == 0);
    }
    const uint32_t bytes = store_sizes[setup % 4];
    const uint32_t other_bytes = store_sizes[setup / 4 % 4];
    uint8_t *const base = store + ((LARGEST_REGION - bytes) & ~15u);
    board.regions[0] = (memory_region_t){"store", base, bytes, REGION_ARENA, true, true};
    board.regions[1] = (memory_region_t){"blob", other, other_bytes, REGION_BLOB, true, false};
    board.regions[2] = (memory_region_t){"other", other, other_bytes, OTHER_REGION, true, true};
    board.regions[3] = (memory_region_t){"stack", NULL, 4096, REGION_NONE, true, true};
    board.region_count = 4;
}

static program_t program;

static status_t append(const struct entry *entries, size_t count) {
    status_t status = status_ok();
    const program_t before = program;
    for (size_t i = 0; i < count && !status.reason; i++) {
        const entry_description_t description = wire_entry(&entries[i]);
        status = program_append(&program, &description);
    }
    if (status.reason)
        program = before;
    REQUIRE(program.used_below <= program.used_from);
    return status;
}

static void seal(void) {
    const status_t status = program_seal(&program);
    REQUIRE(program.sealed || status.reason != 0);
    if (!status.reason)
        require_sealed(&program);
}

static status_t begin(const struct program_header *sent, uint32_t entry_count) {
    const program_header_t header = wire_header(sent);
    const status_t status = program_begin(&program, &header, entry_count);
    REQUIRE((status.reason != 0) == (program.entry_count == 0) && program.stored_count == 0 && !program.sealed);
    return status;
}

static void run(const struct run *run) {
    if (run->run_header_choice == run_header_program_header_m_c) {
        if (run->entry_m_count == 0 || begin(&run->program_header_m, (uint32_t)run->entry_m_count).reason ||
            append(run->entry_m, run->entry_m_count).reason)
            return;
        seal();
    }
    /* Ticks that end above what can be touched are left to the target that runs programs. */
    if (!program.sealed || (uint64_t)run->repetitions * program_timed_count(&program) > TICKS_ROOM / 8 ||
        board.regions[0].bytes - program.used_from + TICKS_ROOM > STORED_BYTES)
        return;
    if (program_place_ticks(&program, run->repetitions).reason == 0)
        require_ticks(&program, run->repetitions);
}

/* Addresses are only given out where all of the bytes lie in one region. */
static void resolve(uint32_t reference, uint64_t bytes) {
    uint32_t available;
    const uint8_t *address = check_resolve(reference, bytes, &available);
    if (address == NULL)
        return;
    const memory_region_t *region = check_region(reference_region(reference));
    REQUIRE(region != NULL && address >= region->base && bytes <= available);
    REQUIRE((uint64_t)(address - region->base) + bytes <= region->bytes);
}

/* As the dispatcher does it. */
static void take(const struct request *request, const uint8_t *payload, size_t payload_bytes) {
    const uint8_t *entries;
    size_t entries_bytes;
    switch (request->command_choice) {
    case request_command_begin_m_c:
        begin(&request->begin_m.header, request->begin_m.entry_count);
        break;
    case request_command_append_m_c:
        REQUIRE(wire_append_range(payload, payload_bytes, &entries, &entries_bytes));
        REQUIRE(entries > payload && entries + entries_bytes == payload + payload_bytes);
        if (program.entry_count != 0 && !program.sealed && request->append_m.index == program.stored_count &&
            program.stored_count + request->append_m.entry_m_count <= program.entry_count)
            append(request->append_m.entry_m, request->append_m.entry_m_count);
        break;
    case request_command_seal_m_c:
        seal();
        break;
    case request_command_run_m_c:
        run(&request->run_m);
        break;
    case request_command_digest_m_c:
        resolve(request->digest_m.digest_reference, UINT64_C(4) * request->digest_m.digest_elements);
        break;
    case request_command_peek_m_c:
        resolve(request->peek_m.peek_reference, request->peek_m.peek_bytes);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct request request;
    input_t input;
    input_parse(&input, data, size);
    set_board(input.setup);
    program = (program_t){0};
    for (size_t i = 0; i < input.record_count; i++) {
        /* In a buffer of exact size, so that reading beyond it shows. */
        const record_t *record = &input.records[i];
        uint8_t *payload = malloc(record->count ? record->count : 1);
        size_t used = 0;
        uint32_t id;
        REQUIRE(payload != NULL);
        if (record->count)
            memcpy(payload, record->bytes, record->count);
        memset(&request, 0, sizeof request);
        if (cbor_decode_request(payload, record->count, &request, &used) == 0 && used == record->count)
            take(&request, payload, record->count);
        else
            wire_request_id(payload, record->count, &id);
        free(payload);
    }
    return 0;
}
