/* What gcc's -fsanitize-coverage=trace-pc calls at every basic block: counts edges, for the fuzzer to see what is new. */

#include <stdint.h>

#define SIZE 4096

const uint32_t paychan_coverage_size = SIZE;
uint8_t paychan_coverage[SIZE];
static uintptr_t previous;

__attribute__((no_sanitize_coverage, no_sanitize("address"), no_sanitize("undefined")))
void __sanitizer_cov_trace_pc(void) {
    /* Relative to this function, so that a run can be repeated wherever the library is loaded. */
    uintptr_t here = (uintptr_t) __builtin_return_address(0) - (uintptr_t) &__sanitizer_cov_trace_pc;
    here = (here * UINT64_C(0x9E3779B97F4A7C15)) >> 40;
    paychan_coverage[(here ^ previous) % SIZE]++;
    previous = here >> 1;
}
