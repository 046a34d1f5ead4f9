/* Calls settle() on a made-up clock, on which a burst of its instructions takes as long as the test says:
 *
 *   runner IDLE_NS:SLOW:BURST_NS...
 *
 * For every argument: how long nothing ran before the call, how many bursts of it take twice BURST_NS, and how long
 * each of the others takes. Prints how long each call took on that clock. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "linux/settle.h"

static uint64_t clock_ns = UINT64_C(1000000000), burst_ns, slow;
static bool began;

int __wrap_clock_gettime(clockid_t which, struct timespec *now) {
    (void)which;
    if (began)
        clock_ns += slow > 0 ? 2 * burst_ns : burst_ns;
    if (began && slow > 0)
        slow--;
    began = true;
    *now = (struct timespec){(time_t)(clock_ns / 1000000000), (long)(clock_ns % 1000000000)};
    return 0;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        uint64_t idle_ns;
        if (sscanf(argv[i], "%" SCNu64 ":%" SCNu64 ":%" SCNu64, &idle_ns, &slow, &burst_ns) != 3)
            return 2;
        clock_ns += idle_ns;
        const uint64_t begin = clock_ns;
        began = false;
        settle();
        printf("%" PRIu64 "\n", clock_ns - begin);
    }
    return 0;
}
