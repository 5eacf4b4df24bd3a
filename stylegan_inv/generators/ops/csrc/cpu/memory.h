// Scratch memory of a thread, and large pages for large buffers.
#pragma once

#include <cstdint>
#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

// New memory costs a page fault for every 4 KiB, several times the cost of writing it, so 2 MiB pages are requested.
static inline void advise_large_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(page - 1);
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

// Never shrinks. Its contents are lost when it grows.
class Buffer {
 public:
  ~Buffer() { std::free(data_); }
  float* get(size_t floats) {
    if (floats > size_) {
      std::free(data_);
      data_ = static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64));
      if (!data_) std::abort();
      size_ = floats;
      advise_large_pages(data_, floats * sizeof(float));
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
};
