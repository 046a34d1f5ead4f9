/* What a board provides. A port is a folder under boards/ (or linux/) that defines these few things. */
#ifndef RUNTIME_BOARD_H
#define RUNTIME_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Regions of memory that references name. Region 0 holds the stored program, and the arena where the program names no
 * other region; region 1 is the blob of frozen weights. */
enum { REGION_ARENA = 0, REGION_BLOB = 1, REGION_NONE = 15, REGION_MAX_COUNT = 6 };

typedef struct {
    const char *name;
    uint8_t *base; /* 16-byte aligned; NULL: listed for information, no reference may name it */
    uint32_t bytes;
    uint8_t number;
    bool cached, writable;
} memory_region_t;

#define BLOB_MAX_SEGMENTS 32

/* Why the device started. Numbers are part of the protocol. */
enum reset_cause {
    RESET_UNKNOWN = 0,
    RESET_POWER = 1,
    RESET_PIN = 2,
    RESET_SOFTWARE = 3,
    RESET_WATCHDOG = 4,
    RESET_FAULT = 5,
};

#define RESET_MAX_REGISTERS 8

/* How the last life of the device ended. */
typedef struct {
    uint8_t cause;    /* enum reset_cause */
    uint16_t running; /* the entry of a program that ran then, its index + 1; 0: none */
    uint8_t register_count;
    uint32_t registers[RESET_MAX_REGISTERS]; /* of a fault, see messages.cddl */
} reset_record_t;

/* What moves the speed of a machine with an operating system, at one moment. 0 and "": it does not tell. */
typedef struct {
    uint16_t cpu;
    char scheduling[33], governor[17];
    uint32_t frequency_khz, temperature_millikelvin;
    bool throttled_known;
    uint32_t throttled; /* flags, see messages.cddl */
    char trigger[49];
} machine_state_t;

typedef struct {
    uint32_t seed;
    uint8_t segment_count;
    uint8_t segments[BLOB_MAX_SEGMENTS]; /* what each of the equal segments holds, see fill_blob() */
} blob_t;

/* Alike on all boards: CMakeLists.txt says what and why. */
#define BOARD_BLOB                                                                                                     \
    {                                                                                                                  \
        BLOB_SEED, sizeof((uint8_t[]){BLOB_SEGMENTS}), {                                                               \
            BLOB_SEGMENTS                                                                                              \
        }                                                                                                              \
    }

typedef struct {
    const char *board, *core, *caches, *fpu;
    uint8_t unique_id[16];
    uint8_t unique_id_bytes;
    uint8_t flash_wait_states;
    uint32_t clock_hz;
    const char *timer_name;
    uint32_t timer_hz;
    uint8_t timer_bits;
    /* How many ticks an instruction takes, as a fraction; num 0: unknown, as on everything but an emulator. */
    uint16_t ticks_per_instruction_num, ticks_per_instruction_den;
    memory_region_t regions[REGION_MAX_COUNT];
    uint8_t region_count;
    blob_t blob;
    void (*read_state)(machine_state_t *state); /* `state` comes zeroed; NULL: a board without such a thing */
    uint32_t watchdog_ms;                       /* the longest that one op may take; 0: there is no watchdog */
    reset_record_t reset;
} board_t;

/* Filled by the port before the dispatcher starts, constant after. */
extern board_t board;

/* The link. board_receive waits for a byte; -1: the other side is gone for good. */
int board_receive(void);
void board_send(const uint8_t *bytes, size_t count);

/* Bytes that were lost because the one before had not been received yet, as far as the hardware tells. */
uint32_t board_overruns(void);

/* Called at the border before each entry of a run with its index + 1, and after the run with 0. From one call to the
 * next no interrupt is taken but the watchdog's, which resets the device after board.watchdog_ms; the device must then
 * still know the number (reset_record_t). After a call with 0 it may wait for ever. */
void board_running(uint16_t number);

/* A stretch of memory. */
typedef struct {
    const void *start;
    uint32_t bytes;
} memory_span_t;

/* Makes what runs next find every cache empty: data caches cleaned and invalidated, instruction caches and the flash's
 * accelerator invalidated. Called before each timed entry of a cold run, outside of what is timed and with the trigger
 * low. `spans` hold everything that the program's ops read and write, for a port that can empty caches only address by
 * address; where they are emptied whole, it ignores them. Takes little stack: what it takes counts as the program's.
 *
 * False: there are no caches here (as on an emulator), or no way to empty them; cold runs are then refused. Called
 * without spans to ask just that. */
bool board_make_cold(const memory_span_t *spans, size_t count);

/* The lowest address that painting the stack may touch, for a caller running now. */
void *board_stack_limit(void);

#endif
