// Divides loops among threads.
#pragma once

#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
#endif

// Calls f(i) for i = 0..n-1 on a team of threads; `even` always gives each thread the same part.
template <class F>
static void parallel(int threads, bool even, int64_t n, F f) {
  if (threads <= 1 || n <= 1) {
    for (int64_t i = 0; i < n; i++) f(i);
  } else if (even) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) f(i);
  } else {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t i = 0; i < n; i++) f(i);
  }
}
