// Winograd's algorithm for the transposed 3x3 convolution of stride 2, followed by the blur: 81 products instead of
// 144 for a tile of 4 x 4 inputs.
//
// In one dimension, four inputs d, as a polynomial, give the even outputs d(x) (w0 + w2 x) and the odd outputs d w1.
// The former, of degree 4, follows from its values at 0, -1, 2, 1/2 and infinity: 5 products instead of 8; the latter
// takes 4. The last coefficient of a tile is added to the first one of the next tile. In two dimensions the transform
// is nested. These points have exact constants and a small rounding error (1.3e-6 relative with 256 channels; 1.8e-6
// with 0, 1, -1, 2).
//
// The backward pass is the transpose, with the same transformed weights.
#pragma once

#include "gemm.h"

constexpr int UP_TILE = 4, UP_POINTS = 5;  // in one dimension
constexpr int UP_KINDS = UP_POINTS + 1;    // kinds of a weight: its values at the points, and the odd tap
constexpr int UP_MATRICES = UP_KINDS * UP_KINDS;
constexpr int UP_VALUES = UP_POINTS + UP_TILE;  // values of a tile: those at the points, and the inputs

// Number of products of one kind in a tile.
static inline int64_t up_span(int64_t kind) { return kind < UP_POINTS ? 1 : UP_TILE; }

// Values of the kinds, scaled so that interpolation is simple.
static inline void transform_up_weight(const double* w, int64_t step, double* result, int64_t result_step) {
  const double w0 = w[0], w1 = w[step], w2 = w[2 * step];
  result[0] = w0;
  result[result_step] = (w2 - w0) / 4.5;
  result[2 * result_step] = (w0 + 2 * w2) * 8 / 9;
  result[3 * result_step] = -(w0 + 0.5 * w2) / 1.125;
  result[4 * result_step] = w2;
  result[5 * result_step] = w1;
}

// Values of d0 + d1 x + d2 x^2 + d3 x^3 at -1, 2 (divided by 8) and 1/2; those at 0 and infinity are d0 and d3.
static inline void evaluate(const Vec d[UP_TILE], Vec r[3]) {
  r[0] = (d[0] - d[1]) + (d[2] - d[3]);
  r[1] = 0.125f * d[0] + 0.25f * d[1] + 0.5f * d[2] + d[3];
  r[2] = d[0] + 0.5f * d[1] + 0.25f * d[2] + 0.125f * d[3];
}

// The transpose, of all five values, together with that of the odd outputs.
static inline void evaluate_transposed(const Vec m[UP_VALUES], Vec r[UP_TILE]) {
  const Vec *odd = m + UP_POINTS;
  r[0] = (m[0] + odd[0]) + m[1] + 0.125f * m[2] + m[3];
  r[1] = (odd[1] - m[1]) + 0.25f * m[2] + 0.5f * m[3];
  r[2] = (odd[2] + m[1]) + 0.5f * m[2] + 0.25f * m[3];
  r[3] = (m[4] + odd[3]) - m[1] + m[2] + 0.125f * m[3];
}

// The coefficients 1, 2 and 3 of a polynomial of degree 4 from its values.
static inline void interpolate(const Vec m[UP_POINTS], Vec r[3]) {
  r[0] = m[1] - 0.5f * m[2] - 2.f * m[3] - 1.5f * m[0] + m[4];
  r[1] = 0.5f * m[2] - 2.5f * m[1] - m[3] - 1.5f * (m[0] + m[4]);
  r[2] = m[1] + m[2] + m[3] + m[0] - 1.5f * m[4];
}

static inline void interpolate_transposed(const Vec c[UP_POINTS], Vec r[UP_POINTS]) {
  r[0] = c[0] - 1.5f * (c[1] + c[2]) + c[3];
  r[1] = c[1] - 2.5f * c[2] + c[3];
  r[2] = 0.5f * (c[2] - c[1]) + c[3];
  r[3] = c[3] - c[2] - 2.f * c[1];
  r[4] = c[1] - 1.5f * (c[2] + c[3]) + c[4];
}

// Applies (1, 3, 3, 1) / 4 at n positions.
static inline void blur_run(const Vec* q, int n, Vec* r) {
  for (int i = 0; i < n; i++) r[i] = 0.25f * (q[i] + q[i + 3]) + 0.75f * (q[i + 1] + q[i + 2]);
}
