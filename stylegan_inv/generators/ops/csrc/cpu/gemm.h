// Matrix product with a packed right-hand side, in the vector extension of GCC and Clang. Without intrinsics it
// compiles for any machine, to the widest vectors that the flags allow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// The micro-kernel keeps ROWS x VECTORS vectors of the result and one row of the right-hand side in registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12, VECTORS = 2;  // 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6, VECTORS = 2;  // 16 registers
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS = 6, VECTORS = 4;  // 32 registers
#else
constexpr int LANES = 4, ROWS = 6, VECTORS = 2;  // 16 registers
#endif
constexpr int PANEL = LANES * VECTORS;  // columns that are packed together

typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float Unaligned __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

static inline Vec load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<Unaligned*>(p) = v; }

// Reads n values into a vector and sets the others to zero.
static inline Vec load_part(const float* p, int n) {
  if (n >= LANES) return load(p);
  float v[LANES] = {};
  std::memcpy(v, p, n * sizeof(float));
  return load(v);
}

static inline void store_part(float* p, Vec v, int n) {
  if (n >= LANES) return store(p, v);
  std::memcpy(p, &v, n * sizeof(float));
}

static inline int64_t panels(int64_t columns) { return (columns + PANEL - 1) / PANEL; }
static inline int64_t padded(int64_t columns) { return panels(columns) * PANEL; }
static inline int64_t whole_vectors(int64_t columns) { return (columns + LANES - 1) / LANES * LANES; }

constexpr ptrdiff_t NO_OFFSET[1] = {0};

// The left-hand side of one product: several matrices of `inner` columns, each at an offset from the first,
// with rows x (taps * inner) elements, as a convolution reads its image. The rows form runs (pixels of one row of the
// image): they are `stride` apart within a run, and `jump` leads from one run to the next.
struct Left {
  const float* data;
  int64_t stride, run, jump;
  int64_t inner;
  int taps = 1;
  const ptrdiff_t* offset = NO_OFFSET;
};

// Position of the next row of a left-hand side.
struct Cursor {
  const float* at;
  int64_t left;  // rows left in its run
};

// V vectors of the panel's columns are computed.
template <int M, int V>
static void micro_kernel(const Left& a, Cursor& cursor, const float* b, float* c, int64_t c_stride) {
  const float* rows[M];
  for (int m = 0; m < M; m++) {
    rows[m] = cursor.at;
    cursor.at += a.stride;
    if (--cursor.left == 0) cursor = {cursor.at + a.jump - a.run * a.stride, a.run};
  }
  Vec sum[M][V] = {};
  for (int t = 0; t < a.taps; t++) {
    const float* at[M];
    for (int m = 0; m < M; m++) at[m] = rows[m] + a.offset[t];
    for (int64_t k = 0; k < a.inner; k++, b += PANEL) {
      Vec right[V];
      for (int v = 0; v < V; v++) right[v] = load(b + v * LANES);
      for (int m = 0; m < M; m++) {
        const float left = at[m][k];
        for (int v = 0; v < V; v++) sum[m][v] += left * right[v];
      }
    }
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(c + m * c_stride + v * LANES, sum[m][v]);
}

template <int M, int V>
static void few_rows(int64_t rows, const Left& a, Cursor& cursor, const float* b, float* c, int64_t c_stride) {
  if constexpr (M > 0) {
    if (rows == M) micro_kernel<M, V>(a, cursor, b, c, c_stride);
    else few_rows<M - 1, V>(rows, a, cursor, b, c, c_stride);
  }
}

// c[row, 0..V * LANES) = a[row, :] @ b for rows 0..rows; b is one packed panel, (taps * inner, PANEL).
template <int V = VECTORS>
static inline void multiply_panel(const Left& a, const float* b, float* c, int64_t c_stride, int64_t rows) {
  Cursor cursor{a.data, a.run};
  int64_t row = 0;
  for (; row + ROWS <= rows; row += ROWS) micro_kernel<ROWS, V>(a, cursor, b, c + row * c_stride, c_stride);
  few_rows<ROWS - 1, V>(rows - row, a, cursor, b, c + row * c_stride, c_stride);
}

// The same for the first `columns` columns of the panel, at least one: whole vectors of them are computed.
template <int V = 1>
static inline void multiply_columns(
    const Left& a, const float* b, float* c, int64_t c_stride, int64_t rows, int64_t columns) {
  if constexpr (V < VECTORS)
    if (columns > V * LANES) return multiply_columns<V + 1>(a, b, c, c_stride, rows, columns);
  multiply_panel<V>(a, b, c, c_stride, rows);
}

// The packed matrix of one tap is (panels(out), in, PANEL) with `panel_stride` floats between panels. Returns
// panel `index` of its transpose: (out, PANEL), whose columns are the inputs from index * PANEL on.
static inline void transpose_panel(
    const float* packed, int64_t panel_stride, int64_t in, int64_t out, int64_t index, float* result) {
  const int64_t first = index * PANEL, columns = in - first < PANEL ? in - first : PANEL;
  for (int64_t o = 0; o < out; o += PANEL) {
    const float* block = packed + o / PANEL * panel_stride + first * PANEL;
    const int64_t rows = out - o < PANEL ? out - o : PANEL;
    float* to = result + o * PANEL;
    if (columns == PANEL && rows == PANEL) {
      for (int r = 0; r < PANEL; r++)
        for (int c = 0; c < PANEL; c++) to[r * PANEL + c] = block[c * PANEL + r];
    } else {
      for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < PANEL; c++) to[r * PANEL + c] = c < columns ? block[c * PANEL + r] : 0.f;
    }
  }
}
