// Winograd's F(4x4, 3x3): 36 products instead of 144 for a tile of 4 x 4 outputs (Lavin and Gray 2016, arXiv
// 1509.09308).
//
// The transforms evaluate polynomials at 0, +-a, +-b, infinity with a = 1/sqrt(2), b = 1/a. Compared with the usual
// points 0, +-1, +-2, infinity, this halves the rounding error (1.1e-6 instead of 2.4e-6 relative, 512 channels),
// and, because the set is its own inverse, a kernel rotated by 180 degrees has the same transformed values in another
// order: convolution and its gradient share one copy of the transformed weights.
#pragma once

#include "gemm.h"

constexpr int TILE = 4, PATCH = 6, POINTS = PATCH * PATCH;
constexpr float A = 0.70710678118654752f, B = 1.41421356237309505f;

// Index of the value of the kernel that is value `point` of the rotated kernel: zero <-> infinity, a <-> b.
static inline int64_t turned(int64_t point) {
  constexpr int64_t swap[PATCH] = {5, 3, 4, 1, 2, 0};
  return swap[point / PATCH] * PATCH + swap[point % PATCH];
}

// One row or column of the transform of the weights, w0 + w1 x + w2 x^2 at the points, scaled so that rotating w
// swaps them.
static inline void transform_weight(const double* w, int64_t step, double* result, int64_t result_step) {
  const double b = 1.4142135623730951, scale = -1.0 / 3.0;
  const double w0 = w[0], w1 = w[step], w2 = w[2 * step];
  result[0] = w0;
  result[result_step] = scale * (b * b * w0 + b * w1 + w2);
  result[2 * result_step] = scale * (b * b * w0 - b * w1 + w2);
  result[3 * result_step] = scale * (w0 + b * w1 + b * b * w2);
  result[4 * result_step] = scale * (w0 - b * w1 + b * b * w2);
  result[5 * result_step] = w2;
}

static inline void transform_input(const Vec d[PATCH], Vec r[PATCH]) {
  r[0] = d[0] - 2.5f * d[2] + d[4];
  const Vec even_a = d[4] - 2.f * d[2], odd_a = A * (d[3] - 2.f * d[1]);
  r[1] = even_a + odd_a;
  r[2] = even_a - odd_a;
  const Vec even_b = d[4] - 0.5f * d[2], odd_b = B * (d[3] - 0.5f * d[1]);
  r[3] = even_b + odd_b;
  r[4] = even_b - odd_b;
  r[5] = d[1] - 2.5f * d[3] + d[5];
}

static inline void transform_output(const Vec m[PATCH], Vec r[TILE]) {
  const Vec sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  r[0] = m[0] + sum_a - 0.5f * sum_b;
  r[1] = A * (difference_a - difference_b);
  r[2] = 0.5f * sum_a - sum_b;
  r[3] = A * (0.5f * difference_a - 2.f * difference_b) + m[5];
}

// A 6 x 6 patch of n channels (at most LANES) to its 36 values; pixels `pixel` floats and rows `row` floats apart.
static inline void tile_input(const float* patch, int64_t row, int64_t pixel, float* values, int64_t step, int n) {
  Vec half[PATCH][PATCH];
  for (int x = 0; x < PATCH; x++) {
    Vec column[PATCH], result[PATCH];
    for (int y = 0; y < PATCH; y++) column[y] = load_part(patch + y * row + x * pixel, n);
    transform_input(column, result);
    for (int y = 0; y < PATCH; y++) half[y][x] = result[y];
  }
  for (int y = 0; y < PATCH; y++) {
    Vec result[PATCH];
    transform_input(half[y], result);
    for (int x = 0; x < PATCH; x++) store_part(values + (y * PATCH + x) * step, result[x], n);
  }
}

// 36 values of LANES channels to a tile of 4 x 4 results.
static inline void tile_output(const float* values, int64_t step, Vec tile[TILE][TILE]) {
  Vec half[TILE][PATCH];
  for (int x = 0; x < PATCH; x++) {
    Vec column[PATCH], result[TILE];
    for (int y = 0; y < PATCH; y++) column[y] = load(values + (y * PATCH + x) * step);
    transform_output(column, result);
    for (int y = 0; y < TILE; y++) half[y][x] = result[y];
  }
  for (int y = 0; y < TILE; y++) transform_output(half[y], tile[y]);
}
