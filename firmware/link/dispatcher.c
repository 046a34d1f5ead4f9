#include "link/dispatcher.h"

#include <stdbool.h>
#include <string.h>

#include "link/crc32.h"
#include "link/frame.h"
#include "link/wire.h"
#include "reply_encode.h"
#include "request_decode.h"
#include "runtime/board.h"
#include "runtime/check.h"
#include "runtime/digest.h"
#include "runtime/interpreter.h"

enum { REPLY_BYTES = 1024 };

/* What a run answered, kept so that the same request again gets the same answer and does not run. */
typedef struct {
    bool valid;
    uint32_t request_id;
    status_t status;
    struct done done;
} stored_run_t;

static uint8_t received[LINK_FRAME_BYTES]; /* holds the content, a little less than the frame */
static frame_decoder_t decoder;
static struct request request; /* static, not on the stack: about 1.3 kB */
static struct reply reply;
static uint8_t reply_bytes[REPLY_BYTES + FRAME_CRC_BYTES];
static program_t program;
static stored_run_t stored_run;
static uint32_t boot_id, last_nonce;
static uint32_t run_limit_ms; /* of this session */
static uint32_t last_append_id;
static bool last_append_valid;

/* Sends `reply`, whose answer is set. */
static void send_reply(uint32_t id) {
    size_t length = 0;
    reply.reply_id = id;
    reply.boot_id = boot_id;
    if (cbor_encode_reply(reply_bytes, REPLY_BYTES, &reply, &length) != 0)
        return; /* only a reply larger than its bounds in messages.cddl would end here; the host times out */
    frame_send(reply_bytes, length, board_send);
}

static void send_plain(uint32_t id, int choice) {
    reply.answer_choice = choice;
    send_reply(id);
}

static void send_status(uint32_t id, status_t status) {
    if (status.reason) {
        reply.refused_m = (struct refused){status.reason, status.entry_index, status.detail};
        send_plain(id, reply_answer_refused_m_c);
    } else {
        send_plain(id, reply_answer_ok_m_c);
    }
}

static void handle_identify(void) {
    const uint32_t nonce = request.identify_m.nonce;
    if (boot_id == 0)
        boot_id = nonce;
    if (nonce != last_nonce) {
        stored_run.valid = false;
        last_append_valid = false;
    }
    last_nonce = nonce;
    run_limit_ms = request.identify_m.run_limit_ms;
    wire_identity(&reply.identity_m);
    send_plain(request.request_id, reply_answer_identity_m_c);
}

static status_t append_entries(const struct entry *entries, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const entry_description_t description = wire_entry(&entries[i]);
        status_t status = program_append(&program, &description);
        if (status.reason)
            return status;
    }
    return status_ok();
}

static status_t handle_append(const uint8_t *payload, size_t payload_bytes) {
    const struct append *append = &request.append_m;
    const uint8_t *bytes;
    size_t byte_count;
    if (program.entry_count == 0)
        return status_refused(STATUS_NO_PROGRAM, 0, 0);
    if (last_append_valid && request.request_id == last_append_id &&
        append->index + append->entry_m_count == program.stored_count)
        return status_ok(); /* sent again because our answer was lost */
    if (append->index != program.stored_count || program.sealed)
        return status_refused(STATUS_WRONG_INDEX, program.stored_count, program.stored_count);
    if (append->index + append->entry_m_count > program.entry_count)
        return status_refused(STATUS_PROGRAM_TOO_LONG, append->index, program.entry_count);
    if (!wire_append_range(payload, payload_bytes, &bytes, &byte_count))
        return status_refused(STATUS_BAD_REQUEST, append->index, 0);
    const program_t before = program;
    status_t status = append_entries(append->entry_m, append->entry_m_count);
    if (status.reason) {
        program = before; /* all or none: the host may correct the frame and send it again */
        return status;
    }
    program.crc32 = crc32_update(program.crc32, bytes, byte_count);
    last_append_id = request.request_id;
    last_append_valid = true;
    return status;
}

static status_t handle_seal(void) {
    if (program.entry_count != 0 && program.stored_count == program.entry_count &&
        request.seal_m.crc32 != program.crc32)
        return status_refused(STATUS_WRONG_CRC, 0, program.crc32);
    return program_seal(&program);
}

static run_options_t run_options(const struct run *run) {
    return (run_options_t){
        .repetitions = run->repetitions,
        .warmups = run->warmups,
        .seed = run->seed,
        .caches = run->run_caches_present ? (uint8_t)run->run_caches : CACHES_WARM,
        .limit_ms = run_limit_ms,
        .loops = run->run_loops_present && run->run_loops != 0 ? run->run_loops : 1,
    };
}

/* Makes the request's own entries the program, where it has any. */
static status_t prepare_run(const struct run *run, const run_options_t *options) {
    const bool has_header = run->run_header_choice == run_header_program_header_m_c;
    status_t status = status_ok();
    if (has_header != (run->entry_m_count != 0))
        return status_refused(STATUS_BAD_REQUEST, 0, 0);
    if (has_header) {
        const program_header_t header = wire_header(&run->program_header_m);
        last_append_valid = false;
        status = program_begin(&program, &header, (uint32_t)run->entry_m_count);
        if (!status.reason)
            status = append_entries(run->entry_m, run->entry_m_count);
        if (!status.reason)
            status = program_seal(&program);
    }
    return status.reason ? status : interpreter_prepare(&program, options);
}

static uint64_t tick_at(uint32_t index) {
    return (uint64_t)program.ticks[index].high << 32 | program.ticks[index].low;
}

static void send_stored_run(void) {
    if (stored_run.status.reason) {
        send_status(stored_run.request_id, stored_run.status);
        return;
    }
    send_plain(stored_run.request_id, reply_answer_accepted_m_c);
    reply.done_m = stored_run.done;
    send_plain(stored_run.request_id, reply_answer_done_m_c);
}

static void handle_run(void) {
    const struct run *run = &request.run_m;
    const uint32_t id = request.request_id;
    if (stored_run.valid && stored_run.request_id == id) {
        send_stored_run();
        return;
    }
    const run_options_t options = run_options(run);
    stored_run = (stored_run_t){.valid = true, .request_id = id, .status = prepare_run(run, &options)};
    if (stored_run.status.reason) {
        send_status(id, stored_run.status);
        return;
    }
    send_plain(id, reply_answer_accepted_m_c);
    run_result_t result;
    interpreter_run(&program, &options, &result);
    program.tick_count = result.tick_count;
    struct done *done = &stored_run.done;
    const size_t limit = sizeof(done->done_tick) / sizeof(done->done_tick[0]);
    done->arena_peak_bytes = result.arena_peak_bytes;
    done->scratch_peak_bytes = result.scratch_peak_bytes;
    done->stack_peak_bytes = result.stack_peak_bytes;
    done->tick_count = program.tick_count;
    done->done_tick_count = program.tick_count < limit ? program.tick_count : limit;
    for (uint32_t i = 0; i < done->done_tick_count; i++)
        done->done_tick[i] = tick_at(i);
    done->done_stop_present = result.stopped;
    done->done_stop = (struct stop){result.whole_repetitions, result.stop_entry, result.elapsed_ms};
    done->done_windows_present = run->run_loops_present && run->run_loops != 0;
    done->done_windows = (struct windows){result.window_count, result.window_ticks};
    reply.done_m = *done;
    send_plain(id, reply_answer_done_m_c);
}

static void handle_read(void) {
    const uint32_t first = request.read_m.first;
    if (first > program.tick_count) {
        send_status(request.request_id, status_refused(STATUS_BAD_RANGE, 0, program.tick_count));
        return;
    }
    struct ticks_page *page = &reply.ticks_page_m;
    const size_t limit = sizeof(page->tick) / sizeof(page->tick[0]);
    const uint32_t left = program.tick_count - first;
    page->page_first = first;
    page->tick_count = left < limit ? left : limit;
    for (uint32_t i = 0; i < page->tick_count; i++)
        page->tick[i] = tick_at(first + i);
    send_plain(request.request_id, reply_answer_ticks_page_m_c);
}

static void handle_digest(void) {
    const struct digest *digest = &request.digest_m;
    struct digest_reply *answer = &reply.digest_reply_m;
    const uint32_t type = digest->digest_type_present ? digest->digest_type : DIGEST_F32;
    const uint64_t bytes = (uint64_t)digest->digest_elements * digest_element_bytes(type);
    uint32_t available;
    const void *values = check_resolve(digest->digest_reference, bytes, &available);
    if (values == NULL || type >= DIGEST_TYPE_COUNT) {
        send_status(request.request_id, status_refused(STATUS_BAD_RANGE, 0, available));
        return;
    }
    if (type == DIGEST_F32)
        digest_floats(values, digest->digest_elements, answer->projection);
    else
        digest_integers(values, type, digest->digest_elements, answer->projection);
    answer->projection_count = DIGEST_PROJECTIONS;
    answer->digest_crc32_present = type != DIGEST_F32;
    if (answer->digest_crc32_present) /* the sums alone might miss two errors that cancel */
        answer->digest_crc32 = crc32_update(0, values, (size_t)bytes);
    send_plain(request.request_id, reply_answer_digest_reply_m_c);
}

static void handle_peek(void) {
    enum { PEEK_BYTES = 768 };
    const struct peek *peek = &request.peek_m;
    uint32_t available;
    const uint8_t *content = check_resolve(peek->peek_reference, peek->peek_bytes, &available);
    if (content == NULL || peek->peek_bytes > PEEK_BYTES) {
        const uint32_t limit = available < PEEK_BYTES ? available : PEEK_BYTES;
        send_status(request.request_id, status_refused(STATUS_BAD_RANGE, 0, limit));
        return;
    }
    reply.peek_reply_m.content = (struct zcbor_string){content, peek->peek_bytes};
    send_plain(request.request_id, reply_answer_peek_reply_m_c);
}

static void handle_state(void) {
    machine_state_t state = {0};
    if (board.read_state == NULL) {
        send_status(request.request_id, status_refused(STATUS_NO_STATE, 0, 0));
        return;
    }
    board.read_state(&state);
    wire_state(&reply.state_reply_m, &state);
    send_plain(request.request_id, reply_answer_state_reply_m_c);
}

static void handle_counters(void) {
    const uint32_t *counts = decoder.counts;
    reply.counters_reply_m =
        (struct counters_reply){counts[FRAME_OK],       counts[FRAME_TRUNCATED], counts[FRAME_TOO_SHORT],
                                counts[FRAME_TOO_LONG], counts[FRAME_BAD_CRC],   board_overruns()};
    send_plain(request.request_id, reply_answer_counters_reply_m_c);
}

static void handle(const uint8_t *payload, size_t payload_bytes) {
    size_t used = 0;
    memset(&request, 0, sizeof(request));
    const int error = cbor_decode_request(payload, payload_bytes, &request, &used);
    if (error != 0 || used != payload_bytes) {
        uint32_t id;
        if (wire_request_id(payload, payload_bytes, &id))
            send_status(id, status_refused(STATUS_BAD_REQUEST, 0, (uint32_t)error));
        return;
    }
    const uint32_t id = request.request_id;
    switch (request.command_choice) {
    case request_command_identify_m_c:
        handle_identify();
        break;
    case request_command_begin_m_c: {
        const program_header_t header = wire_header(&request.begin_m.header);
        last_append_valid = false;
        send_status(id, program_begin(&program, &header, request.begin_m.entry_count));
        break;
    }
    case request_command_append_m_c:
        send_status(id, handle_append(payload, payload_bytes));
        break;
    case request_command_seal_m_c:
        send_status(id, handle_seal());
        break;
    case request_command_run_m_c:
        handle_run();
        break;
    case request_command_read_m_c:
        handle_read();
        break;
    case request_command_digest_m_c:
        handle_digest();
        break;
    case request_command_peek_m_c:
        handle_peek();
        break;
    case request_command_state_m_c:
        handle_state();
        break;
    case request_command_counters_m_c:
        handle_counters();
        break;
    }
}

void dispatcher_init(void) {
    frame_decoder_init(&decoder, received, sizeof(received));
}

void dispatcher_loop(void) {
    int byte;
    while ((byte = board_receive()) >= 0) {
        size_t payload_bytes = 0;
        /* Damaged frames are dropped: the host sends again. */
        if (frame_decode_byte(&decoder, (uint8_t)byte, &payload_bytes) == FRAME_OK)
            handle(received, payload_bytes);
    }
}
