/* Between the generated messages and the runtime's own types. */
#ifndef LINK_WIRE_H
#define LINK_WIRE_H

#include <stdbool.h>

#include "reply_types.h"
#include "request_types.h"
#include "runtime/board.h"
#include "runtime/program.h"

#define PROTOCOL_VERSION 3

/* The largest frame on the wire, with its code bytes and delimiter, that the device takes. */
#define LINK_FRAME_BYTES 1280

/* The decoder has checked every number against the size that messages.cddl gives it, so each fits its field here. */
entry_description_t wire_entry(const struct entry *entry);
program_header_t wire_header(const struct program_header *header);

/* Everything the device says about itself. */
void wire_identity(struct identity *identity);

/* The texts of `reply` lie in `state`. */
void wire_state(struct state_reply *reply, const machine_state_t *state);

/* Finds the CBOR of the entries in an append request's payload, from the first entry to the payload's end. */
bool wire_append_range(const uint8_t *payload, size_t payload_bytes, const uint8_t **entries, size_t *entries_bytes);

/* The request id of a payload that does not decode as a whole. */
bool wire_request_id(const uint8_t *payload, size_t payload_bytes, uint32_t *id);

#endif
