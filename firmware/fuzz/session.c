/* Target: a whole session, from the bytes of the link to the kernels. Requests travel in frames; programs run, in
 * buffers of which only the op's own may be touched; every reply must be a reply to a request that was made. The setup
 * does not matter. */
#include <string.h>

#include "host_board.h"
#include "input.h"
#include "invariants.h"
#include "link/dispatcher.h"
#include "link/wire.h"
#include "literal_frames.h"
#include "poison.h"
#include "reply_decode.h"
#include "request_encode.h"
#include "require.h"
#include "runtime/board.h"
#include "runtime/fill.h"
#include "runtime/prng.h"
#include "target.h"

enum {
    STORE_BYTES = 24 << 10,
    OTHER_BYTES = 6 << 10,
    BLOB_BYTES = 16 << 10,
    OTHER_REGION = 3,
    STREAM_BYTES = 1 << 16,
    REPLIES = 1 << 10,
    LARGEST_CONTENT = 2048,
    PREAMBLE_NONCE = 0x5EED,
};
/* Loop trips in one input: some tens of milliseconds under the sanitizers. */
#define BUDGET UINT64_C(100000)

board_t board = {
    .board = "fuzz",
    .core = "host",
    .caches = "",
    .fpu = "",
    .timer_name = "readings",
    .timer_hz = 1000, /* a reading a ms: limits of some ms stop runs */
    .timer_bits = 64,
    .watchdog_ms = 500,
    .reset = {RESET_FAULT, 2, 6, {11, 1, 2, 3, 4, 5}},
    .blob = {1, 4, {127, 126, 0, 8}},
};

/* Each in a block of its own, so that the sanitizer sees what reaches over its ends. */
static void set_board(void) {
    static uint8_t *blob;
    if (blob != NULL)
        return;
    blob = aligned_alloc(16, BLOB_BYTES);
    REQUIRE(blob != NULL);
    fill_blob(board.blob.seed, board.blob.segments, board.blob.segment_count, BLOB_BYTES / 4, blob);
    board.regions[0] =
        (memory_region_t){"store", aligned_alloc(16, STORE_BYTES), STORE_BYTES, REGION_ARENA, true, true};
    board.regions[1] = (memory_region_t){"blob", blob, BLOB_BYTES, REGION_BLOB, true, false};
    board.regions[2] =
        (memory_region_t){"other", aligned_alloc(16, OTHER_BYTES), OTHER_BYTES, OTHER_REGION, false, true};
    board.regions[3] = (memory_region_t){"stack", NULL, 4096, REGION_NONE, false, true};
    board.region_count = 4;
}

/* Every input begins with the same values: a word that is a float of about 1, and not small as an integer. */
static void clear_memory(void) {
    for (unsigned i = 0; i < board.region_count; i++)
        if (board.regions[i].writable && board.regions[i].base != NULL)
            memset(board.regions[i].base, 0x3F, board.regions[i].bytes);
}

/* ---- programs: what is sealed is right, and an op touches nothing but its buffers */

status_t __real_program_seal(program_t *program);
status_t __wrap_program_seal(program_t *program);
status_t __wrap_program_seal(program_t *program) {
    const status_t status = __real_program_seal(program);
    if (!status.reason)
        require_sealed(program);
    return status;
}

void __real_fill_run(const fill_geometry_t *fill, uint32_t seed, uint32_t image_index, void *destination);
void __wrap_fill_run(const fill_geometry_t *fill, uint32_t seed, uint32_t image_index, void *destination);
void __wrap_fill_run(const fill_geometry_t *fill, uint32_t seed, uint32_t image_index, void *destination) {
    host_board_spend(fill->elements);
    __real_fill_run(fill, seed, image_index, destination);
}

const kernel_t *__real_kernel_find(uint8_t kind, uint8_t pass, uint8_t dtype, uint8_t variant);
const kernel_t *__wrap_kernel_find(uint8_t kind, uint8_t pass, uint8_t dtype, uint8_t variant);

static void run_alone(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const kernel_t *kernel = __real_kernel_find(op->kind, op->pass, op->dtype, op->variant);
    buffer_spec_t specs[OP_MAX_BUFFERS + 1];
    size_t count = op_buffers(op, specs);
    host_board_spend(op_work(kernel, op));
    specs[count++].bytes = kernel->scratch_bytes(op);
    const op_t kept = *op; /* it is stored in what is poisoned now */
    poison_memory();
    for (size_t i = 0; i < count && i < OP_MAX_BUFFERS; i++)
        if (specs[i].bytes != 0)
            unpoison(buffers[i], specs[i].bytes);
    if (kept.trained.channels != NULL)
        unpoison(kept.trained.channels, kept.trained.channel_count * sizeof kept.trained.channels[0]);
    kernel->run(&kept, buffers, constants);
    unpoison_memory();
}

const kernel_t *__wrap_kernel_find(uint8_t kind, uint8_t pass, uint8_t dtype, uint8_t variant) {
    static kernel_t watched[256];
    const kernel_t *kernel = __real_kernel_find(kind, pass, dtype, variant);
    if (kernel == NULL)
        return NULL;
    const size_t index = (size_t)(kernel - kernel_at(0));
    REQUIRE(index < sizeof watched / sizeof watched[0]);
    watched[index] = *kernel;
    watched[index].run = run_alone;
    return &watched[index];
}

/* ---- the link */

static uint8_t stream[STREAM_BYTES], sent[REPLIES * LARGEST_CONTENT];

static void add_frame(size_t *stream_bytes, const uint8_t *payload, size_t payload_bytes) {
    if (literal_frame_bytes(payload_bytes) <= sizeof stream - *stream_bytes)
        *stream_bytes += literal_encode(payload, payload_bytes, stream + *stream_bytes);
}

/* Two sessions and a program that cannot be: whatever was stored before is gone. */
static void add_preamble(size_t *stream_bytes) {
    uint8_t payload[64];
    size_t used;
    struct request request = {.command_choice = request_command_identify_m_c};
    for (uint32_t i = 0; i < 2; i++) {
        request.identify_m.nonce = PREAMBLE_NONCE + 1 - i;
        REQUIRE(cbor_encode_request(payload, sizeof payload, &request, &used) == 0);
        add_frame(stream_bytes, payload, used);
    }
    request = (struct request){.command_choice = request_command_begin_m_c};
    REQUIRE(cbor_encode_request(payload, sizeof payload, &request, &used) == 0);
    add_frame(stream_bytes, payload, used);
}

static size_t make_stream(const input_t *input) {
    size_t bytes = 0;
    add_preamble(&bytes);
    for (size_t i = 0; i < input->record_count; i++) {
        const record_t *record = &input->records[i];
        if (record->kind == RECORD_FRAMED) {
            add_frame(&bytes, record->bytes, record->count);
        } else if (record->count <= sizeof stream - bytes) {
            memcpy(stream + bytes, record->bytes, record->count);
            bytes += record->count;
        }
    }
    return bytes;
}

typedef struct {
    uint32_t ids[STREAM_BYTES / 8];
    size_t id_count, reply_count;
} exchange_t;

static void note_request(const literal_frame_t *frame, void *context) {
    exchange_t *exchange = context;
    uint32_t id;
    if (frame->status == FRAME_OK && wire_request_id(frame->payload, frame->payload_bytes, &id) &&
        exchange->id_count < sizeof exchange->ids / sizeof exchange->ids[0])
        exchange->ids[exchange->id_count++] = id;
}

/* Replies come in the order of the requests, at most two to each. */
static void check_reply(const literal_frame_t *frame, void *context) {
    static struct reply reply;
    exchange_t *exchange = context;
    size_t used = 0;
    REQUIRE(frame->status == FRAME_OK);
    REQUIRE(cbor_decode_reply(frame->payload, frame->payload_bytes, &reply, &used) == 0);
    REQUIRE(used == frame->payload_bytes && reply.boot_id == PREAMBLE_NONCE + 1);
    size_t at = exchange->reply_count / 2;
    while (at < exchange->id_count && exchange->ids[at] != reply.reply_id)
        at++;
    REQUIRE(at < exchange->id_count);
    exchange->reply_count++;
}

static void serve(void) {
    dispatcher_init();
    dispatcher_loop();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static exchange_t exchange;
    input_t input;
    input_parse(&input, data, size);
    set_board();
    clear_memory();
    host_link_t link = {.stream = stream, .sent = sent, .sent_capacity = sizeof sent, .budget = BUDGET};
    link.stream_bytes = make_stream(&input);
    host_board_run(&link, serve);
    exchange.id_count = exchange.reply_count = 0;
    literal_decode(link.stream, link.stream_bytes, LINK_FRAME_BYTES, note_request, &exchange);
    literal_decode(link.sent, link.sent_bytes, LARGEST_CONTENT, check_reply, &exchange);
    REQUIRE(exchange.reply_count <= 2 * exchange.id_count && exchange.reply_count >= 3);
    return 0;
}
