#include "host_board.h"

#include <setjmp.h>
#include <string.h>

#include "require.h"
#include "runtime/board.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"

static host_link_t *open_link;
static size_t received;
static jmp_buf budget_spent;

void host_board_run(host_link_t *link, void (*session)(void)) {
    open_link = link;
    received = 0;
    if (setjmp(budget_spent) == 0)
        session();
    open_link = NULL;
}

void host_board_spend(uint64_t work) {
    if (open_link == NULL)
        return;
    if (work >= open_link->budget)
        longjmp(budget_spent, 1);
    open_link->budget -= work;
}

int board_receive(void) {
    return received < open_link->stream_bytes ? open_link->stream[received++] : -1;
}

void board_send(const uint8_t *bytes, size_t count) {
    REQUIRE(count <= open_link->sent_capacity - open_link->sent_bytes);
    memcpy(open_link->sent + open_link->sent_bytes, bytes, count);
    open_link->sent_bytes += count;
}

/* As if some had been lost: the counters tell it. */
uint32_t board_overruns(void) {
    return (uint32_t)received;
}

static uint64_t ticks;

void timer_start(void) {
}

void timer_stop(void) {
}

uint64_t timer_now(void) {
    return ticks++;
}

void board_running(uint16_t number) {
    (void)number;
}

/* Called at least once an image, also where it has no ops. */
void trigger_set(bool high) {
    (void)high;
    host_board_spend(1);
}

bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    return true;
}

/* None of the stack is painted: the sanitizer keeps its own books there. */
void *board_stack_limit(void) {
    return __builtin_frame_address(0);
}
