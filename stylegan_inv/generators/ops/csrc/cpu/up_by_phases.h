// Direct transposed convolution of stride 2, followed by the blur. Its result has four phases by the parity of row
// and column, which use 4, 2, 2 and 1 of the taps.
#pragma once

#include "work.h"

// Rows and columns of the weight in the order of packing.
static const int UP_TAPS[9][2] = {{0, 0}, {0, 2}, {2, 0}, {2, 2}, {0, 1}, {2, 1}, {1, 0}, {1, 2}, {1, 1}};
static const int PHASE_FIRST[4] = {0, 4, 6, 8}, PHASE_TAPS[4] = {4, 2, 2, 1};
static int up_tap(int t) { return UP_TAPS[t][0] * 3 + UP_TAPS[t][1]; }

// (1, 3, 3, 1) / 4 over four lines of n values.
static void blur(
    const float* a, const float* b, const float* c, const float* d, int64_t n, float* __restrict result) {
  for (int64_t i = 0; i < n; i++) result[i] = 0.25f * (a[i] + d[i]) + 0.75f * (b[i] + c[i]);
}

static int64_t up_rows(const Layer& l) {
  // Enough pixels for a fast product, few enough for the four phases to fit into the cache.
  const int64_t row = 4 * (l.width + 1) * std::max(l.in, l.own.channels) * sizeof(float);
  return std::max<int64_t>({1, 256 / l.width, (int64_t(1) << 20) / row});
}

// Transposed convolution of stride 2, blurred. Row y of the input makes rows 2y and 2y + 1 of the transposed
// convolution (phases 0, 1 and 2, 3 by the column's parity); rows 2y and 2y + 1 of the blurred image take its rows
// 2y - 1 .. 2y + 3. The phases of two input rows are kept for the next band.
static void up_forward(const Layer& l, const Range& range) {
  Scratch& scratch = scratches[0];
  const int64_t n = range.n, width = l.width, pitch = width + 1, out = l.own.channels;
  const int64_t stride = padded(out), line = pitch * stride, out_row = 2 * width * out;
  const int64_t begin = std::max<int64_t>(range.first - 1, 0), end = range.last + 1;  // rows of phases
  const int64_t band = std::min(up_rows(l), end - begin);
  float* strip = scratch.strip.get(((band + 1) * pitch + 1) * l.in);
  float* phases = scratch.products.get(4 * (band + 2) * line);
  float* lines = scratch.lines.get(3 * range.team * line);
  float* rows_of_y = l.y ? nullptr : scratch.rows.get(range.team * out_row);
  auto phase_row = [&](int phase, int64_t r) { return phases + (phase * (band + 2) + r) * line; };
  ptrdiff_t offset[9];
  for (int t = 0; t < 9; t++) offset[t] = -((UP_TAPS[t][0] == 2) * pitch + (UP_TAPS[t][1] == 2)) * l.in;
  for (int p = 0; p < 4; p++) zero(phase_row(p, 0), 2 * line);

  for (int64_t first = begin; first < end; first += band) {
    const int64_t rows = std::min(band, end - first);
    parallel(range.team, true, rows + 1, [&](int64_t i) {
      const int64_t y = first - 1 + i;
      float* to = strip + i * pitch * l.in;
      zero(to, l.in);
      if (y < 0 || y >= l.height) zero(to, pitch * l.in);
      else scale_row(l.x + n * l.x_stride + y * width * l.in, l.style + n * l.in, width, l.in, to + l.in);
    });
    zero(strip + (rows + 1) * pitch * l.in, l.in);
    parallel(range.team, false, 4 * panels(out), [&](int64_t i) {
      const int64_t p = i / panels(out), j = i % panels(out);  // the phase with the most work comes first
      const Left left = {strip + (pitch + 1) * l.in, l.in, rows * pitch, 0, l.in, PHASE_TAPS[p], offset + PHASE_FIRST[p]};
      const float* panel = l.weight + (j * 9 + PHASE_FIRST[p]) * l.in * PANEL;
      multiply_panel(left, panel, phase_row(p, 2) + j * PANEL, stride, rows * pitch);
    });
    // The phases of input row y are at y - first + 2.
    const int64_t from = std::max(range.first, first - 1), to = std::min(range.last, first + rows - 1);
    parallel(range.team, true, 2 * std::max<int64_t>(to - from, 0), [&](int64_t i) {
      const int64_t r = 2 * from + i, at = r / 2 - first + 2, half = r % 2;
      const int thread = range.team > 1 ? range.current() : 0;
      float *even = lines + thread * 3 * line, *odd = even + line + stride;  // a zero pixel on each side of odd
      for (int p = 0; p < 2; p++) {
        const float *e0 = phase_row(p, at), *o0 = phase_row(2 + p, at), *e1 = phase_row(p, at + 1);
        float* result = p ? odd : even;
        if (half) blur(e0, o0, e1, phase_row(2 + p, at + 1), line, result);
        else blur(phase_row(2 + p, at - 1), e0, o0, e1, line, result);
      }
      zero(odd - stride, stride);
      zero(odd + width * stride, stride);
      float* y = l.y ? l.y + (n * 2 * l.height + r) * out_row : rows_of_y + thread * out_row;
      const Activation apply{l.own, n, 2 * l.height, 2 * width, y, r};
      for (int64_t x = 0; x < width; x += RUN / 2)
        for (int64_t c = 0; c < out; c += LANES) {
          const int pairs = std::min<int64_t>(RUN / 2, width - x);
          Vec run[1][RUN];
          for (int k = 0; k < pairs; k++) {
            const float *e = even + (x + k) * stride + c, *o = odd + (x + k) * stride + c;
            const Vec here = load(o), next = load(e + stride);
            run[0][2 * k] = 0.25f * (load(o - stride) + next) + 0.75f * (load(e) + here);
            run[0][2 * k + 1] = 0.25f * (load(e) + load(o + stride)) + 0.75f * (here + next);
          }
          apply(r, 2 * x, c, run, 2 * pairs, std::min<int64_t>(LANES, out - c));
        }
      if (l.own.colours) colour_row(l.own, n, r, 2 * l.height, 2 * width, y);
    });
    for (int p = 0; p < 4; p++) std::memmove(phase_row(p, 0), phase_row(p, rows), 2 * line * sizeof(float));
  }
}

// The adjoint: blurs the gradient, splits it into phases and convolves them with stride 2.
static void up_backward(const Layer& l, const Range& range, const float* weight, Sums& sums) {
  Scratch& scratch = scratches[0];
  const int64_t n = range.n, width = l.width, pitch = width + 1, out = l.own.channels;
  const int64_t line = pitch * out, stride = padded(l.in);
  const int64_t band = std::min(up_rows(l), range.last - range.first);
  float* lines = scratch.lines.get(2 * (2 * band + 4) * line);  // rows of the gradient, blurred and split along x
  float* ends = scratch.rows.get(range.team * 8 * out);
  float* phases = scratch.strip.get(4 * (band + 1) * line + out);
  float* result = scratch.products.get(band * width * stride);
  auto line_of = [&](int64_t r, int odd) { return lines + (2 * r + odd) * line; };
  ptrdiff_t offset[9];
  for (int p = 0; p < 4; p++)
    for (int t = PHASE_FIRST[p]; t < PHASE_FIRST[p] + PHASE_TAPS[p]; t++)
      offset[t] = p * (band + 1) * line + ((UP_TAPS[t][0] == 2) * pitch + (UP_TAPS[t][1] == 2)) * out;

  for (int64_t first = range.first; first < range.last; first += band) {
    const int64_t rows = std::min(band, range.last - first);
    const int64_t kept = first > range.first ? 4 : 0;
    std::memmove(lines, line_of(2 * band, 0), kept * 2 * line * sizeof(float));
    parallel(range.team, true, 2 * rows + 4 - kept, [&](int64_t i) {
      const int64_t r = 2 * first - 2 + kept + i;  // of the gradient
      float *even = line_of(kept + i, 0), *odd = line_of(kept + i, 1);
      if (r < 0 || r >= 2 * l.height) return zero(even, 2 * line);
      const float* row = l.grad + (n * 2 * l.height + r) * 2 * width * out;
      // Value x of the even line is computed from four pixels from 2x - 2 on, that of the odd line from 2x - 1 on.
      float* end = ends + (range.team > 1 ? range.current() : 0) * 8 * out;  // 0 0 first.. and ..last 0 0
      zero(end, 8 * out);
      std::memcpy(end + 2 * out, row, 2 * out * sizeof(float));
      std::memcpy(end + 4 * out, row + (2 * width - 2) * out, 2 * out * sizeof(float));
      for (int64_t x = 0; x <= width; x++) {
        const float* g = x == 0 ? end : x == width ? end + 4 * out : row + (2 * x - 2) * out;
        blur(g, g + out, g + 2 * out, g + 3 * out, out, even + x * out);
        if (x == width) break;
        const float* last = x == width - 1 ? end + 6 * out : row + (2 * x + 2) * out;
        blur(g + out, row + 2 * x * out, row + (2 * x + 1) * out, last, out, odd + x * out);
      }
    });
    parallel(range.team, true, rows + 1, [&](int64_t i) {
      for (int p = 0; p < 4; p++) {
        const int half = p / 2, odd = p % 2;
        if (half && i == rows) continue;
        blur(line_of(2 * i + half, odd), line_of(2 * i + half + 1, odd), line_of(2 * i + half + 2, odd),
             line_of(2 * i + half + 3, odd), line, phases + (p * (band + 1) + i) * line);
      }
    });
    const Left left = {phases, out, width, line, out, 9, offset};
    parallel(range.team, false, panels(l.in), [&](int64_t j) {
      multiply_panel(left, weight + j * 9 * out * PANEL, result + j * PANEL, stride, rows * width);
    });
    with_colours(l.before.colours, [&](auto colours) {
      parallel(range.team, true, rows, [&](int64_t i) {
        const int slot = range.current();
        const InputGradient<colours> apply{l, n, sums.start(slot)};
        apply_row(first + i, width, l.in, result + i * width * stride, stride, apply);
        sums.finish(slot, n);
      });
    });
  }
}
