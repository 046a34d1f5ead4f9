/* Runs a board's register code on the host, plain memory standing where its registers are: a register keeps what is
 * written, and a flag that hardware would set has the value it was given before.
 *
 *     register_runner WHAT ADDRESS=VALUE ...
 *
 * maps the 4 KiB around every address, sets the words, does WHAT ("clocks", or "usart" or "lpuart" with base, clock and
 * baud appended by commas, or "supervisor" with the timer's frequency) and prints what comes of it and every word that
 * is not 0. SUPERVISOR is the board's family. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "flight_recorder.h"
#include "stm32/clocks.h"
#include "stm32/supervisor.h"
#include "stm32/usart.h"

enum { PAGE_BYTES = 4096, MAX_PAGES = 32, ANY_IRQ = 1 };

static uint32_t pages[MAX_PAGES];
static unsigned page_count;

static volatile uint32_t *word_at(uint32_t address) {
    return (volatile uint32_t *)(uintptr_t)address;
}

static void map_page_of(uint32_t address) {
    const uint32_t page = address / PAGE_BYTES * PAGE_BYTES;
    for (unsigned i = 0; i < page_count; i++)
        if (pages[i] == page)
            return;
    if (page_count == MAX_PAGES || mmap((void *)(uintptr_t)page, PAGE_BYTES, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED) {
        fprintf(stderr, "cannot map 0x%08" PRIx32 "\n", page);
        exit(3);
    }
    pages[page_count++] = page;
}

board_t board;
const supervisor_t supervisor = SUPERVISOR;

/* Boards whose UART is not of that kind link none. */
#pragma weak lpuart_init

int main(int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        uint32_t address, value;
        if (sscanf(argv[i], "%" SCNx32 "=%" SCNx32, &address, &value) != 2)
            return 2;
        map_page_of(address);
        *word_at(address) = value;
    }
    uint32_t base, hz, baud;
    flight_recorder_running(17); /* as a life before has left it */
    if (!strcmp(argv[1], "clocks")) {
        const clocks_t clocks = clocks_start();
        printf("core_hz %" PRIu32 "\nlink_hz %" PRIu32 "\n", clocks.core_hz, clocks.link_hz);
    } else if (sscanf(argv[1], "usart,%" SCNx32 ",%" SCNu32 ",%" SCNu32, &base, &hz, &baud) == 3) {
        usart_init(base, ANY_IRQ, hz, baud);
    } else if (sscanf(argv[1], "lpuart,%" SCNx32 ",%" SCNu32 ",%" SCNu32, &base, &hz, &baud) == 3) {
        lpuart_init(base, ANY_IRQ, hz, baud);
    } else if (sscanf(argv[1], "supervisor,%" SCNu32, &board.timer_hz) == 1) {
        supervisor_start();
        printf("watchdog_ms %" PRIu32 "\ncause %u\nrunning %u\n", board.watchdog_ms, board.reset.cause,
               board.reset.running);
    } else {
        return 2;
    }
    for (unsigned i = 0; i < page_count; i++)
        for (uint32_t offset = 0; offset < PAGE_BYTES; offset += 4)
            if (*word_at(pages[i] + offset))
                printf("0x%08" PRIx32 " 0x%08" PRIx32 "\n", pages[i] + offset, *word_at(pages[i] + offset));
    return 0;
}
