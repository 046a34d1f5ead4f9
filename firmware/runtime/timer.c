#include "runtime/timer.h"

bool timer_advances(void) {
    const uint64_t start = timer_now();
    for (uint32_t spins = 0; spins < 1000; spins++) {
        timer_barrier();
        if (timer_now() != start)
            return true;
    }
    return false;
}
