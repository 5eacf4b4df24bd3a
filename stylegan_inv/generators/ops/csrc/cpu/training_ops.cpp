// The operations around the convolutions of a network in training: resampling by a separable filter of four taps, and
// bias, activation and demodulation with their gradients. Images are (B, H, W, C) in memory.
// flags: -fassociative-math -fno-signed-zeros -fno-trapping-math

#include <algorithm>
#include <cmath>
#include <vector>

#include "memory.h"
#include "threads.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

constexpr int TAPS = 4;

// An image, and the filter that makes another one of it: y[o] = sum_k f[k] x[(o down + k - pad) / up], in both axes;
// samples between pixels (by `up`) and outside of the image are zero. Declared again, like BiasAct, in
// stylegan_inv/generators/ops/cpu.py.
struct Resampling {
  int64_t batch, channels, in_h, in_w, out_h, out_w, up, down, pad_x, pad_y, threads;
  float vertical[TAPS], horizontal[TAPS];
};

// y = clamp(lrelu(u scale + noise + bias) gain)
struct BiasAct {
  const float *scale;  // (B, C) or null
  const float *bias;   // (C) or null
  const float *noise;  // (B or 1, H, W) or null
  int64_t noise_stride;
  float slope, gain, clamp;  // an infinite clamp has no effect
};

// The inputs of one output, in one axis.
struct Terms {
  int count = 0;
  int64_t index[TAPS];
  float weight[TAPS];
  Terms(int64_t o, int64_t size, int64_t up, int64_t down, int64_t pad, const float* taps) {
    for (int k = 0; k < TAPS; k++) {
      const int64_t p = o * down + k - pad;
      if (p < 0 || p % up || p / up >= size) continue;
      index[count] = p / up;
      weight[count++] = taps[k];
    }
  }
};

// to[i] = sum of the terms at from + index * stride; n floats.
static inline void combine(const Terms& t, const float* from, int64_t stride, int64_t n, float* __restrict to) {
  const float* p[TAPS];
  for (int k = 0; k < t.count; k++) p[k] = from + t.index[k] * stride;
  const float a = t.weight[0], b = t.weight[1], c = t.weight[2], d = t.weight[3];
  switch (t.count) {
    case 0: std::fill(to, to + n, 0.f); break;
    case 1: for (int64_t i = 0; i < n; i++) to[i] = a * p[0][i]; break;
    case 2: for (int64_t i = 0; i < n; i++) to[i] = a * p[0][i] + b * p[1][i]; break;
    case 3: for (int64_t i = 0; i < n; i++) to[i] = a * p[0][i] + b * p[1][i] + c * p[2][i]; break;
    default: for (int64_t i = 0; i < n; i++) to[i] = a * p[0][i] + b * p[1][i] + c * p[2][i] + d * p[3][i];
  }
}

// Divides a batch among threads by samples, or the rows of each sample where there are fewer samples.
struct Teams {
  int outer, inner;
  Teams(int64_t threads, int64_t batch)
      : outer(batch >= threads ? int(threads) : 1), inner(batch >= threads ? 1 : int(threads)) {}
};

static std::vector<Terms> columns(const Resampling& r) {
  std::vector<Terms> terms;
  terms.reserve(r.out_w);
  for (int64_t x = 0; x < r.out_w; x++) terms.emplace_back(x, r.in_w, r.up, r.down, r.pad_x, r.horizontal);
  return terms;
}

// One output row of a sample x; `then(column, pixel)` may change each pixel.
template <class F>
static void resample_row(
    const Resampling& r, const std::vector<Terms>& columns, const float* x, int64_t row, float* y, F then) {
  static thread_local Buffer buffer;
  const int64_t length = r.in_w * r.channels;
  float* line = buffer.get(length);
  combine(Terms(row, r.in_h, r.up, r.down, r.pad_y, r.vertical), x, length, length, line);
  for (int64_t o = 0; o < r.out_w;) {
    // Without a change of resolution, the terms of neighbouring pixels are neighbours in memory.
    int64_t end = o + 1;
    if (r.up == 1 && r.down == 1 && columns[o].count == TAPS)
      while (end < r.out_w && columns[end].count == TAPS) end++;
    combine(columns[o], line, r.channels, (end - o) * r.channels, y);
    for (; o < end; o++, y += r.channels) then(o, y);
  }
}

// y = the resampled x, plus `add` if it is not null.
EXPORT void training_resample(const Resampling* resampling, const float* x, const float* add, float* y) {
  const Resampling& r = *resampling;
  const Teams teams(r.threads, r.batch);
  const auto terms = columns(r);
  const int64_t in = r.in_h * r.in_w * r.channels, row = r.out_w * r.channels;
  parallel(teams.outer, true, r.batch, [&](int64_t n) {
    parallel(teams.inner, true, r.out_h, [&](int64_t o) {
      const int64_t at = (n * r.out_h + o) * row;
      resample_row(r, terms, x + n * in, o, y + at, [&](int64_t column, float* __restrict pixel) {
        if (!add) return;
        const float* more = add + at + column * r.channels;
        for (int64_t c = 0; c < r.channels; c++) pixel[c] += more[c];
      });
    });
  });
}

static inline void activate(
    const BiasAct& a, const float* scale, float noise, int64_t channels, const float* x, float* y) {
  const float positive = a.gain, negative = a.gain * a.slope, limit = a.clamp;
  for (int64_t c = 0; c < channels; c++) {
    float v = scale ? x[c] * scale[c] : x[c];
    v += noise;
    if (a.bias) v += a.bias[c];
    v *= v > 0.f ? positive : negative;
    y[c] = std::min(std::max(v, -limit), limit);
  }
}

// The sizes of x are those of the output where `blur` is zero; otherwise x is resampled first.
EXPORT void training_bias_act(
    const Resampling* resampling, int64_t blur, const BiasAct* activation, const float* x, float* y) {
  const Resampling& r = *resampling;
  const BiasAct& a = *activation;
  const Teams teams(r.threads, r.batch);
  const auto terms = blur ? columns(r) : std::vector<Terms>();
  const int64_t in = r.in_h * r.in_w * r.channels, row = r.out_w * r.channels;
  parallel(teams.outer, true, r.batch, [&](int64_t n) {
    const float* scale = a.scale ? a.scale + n * r.channels : nullptr;
    parallel(teams.inner, true, r.out_h, [&](int64_t o) {
      float* to = y + (n * r.out_h + o) * row;
      const float* noise = a.noise ? a.noise + n * a.noise_stride + o * r.out_w : nullptr;
      const auto noise_at = [&](int64_t column) { return noise ? noise[column] : 0.f; };
      if (blur) {
        resample_row(r, terms, x + n * in, o, to, [&](int64_t column, float* pixel) {
          activate(a, scale, noise_at(column), r.channels, pixel, pixel);
        });
        return;
      }
      const float* from = x + n * in + o * row;
      for (int64_t column = 0; column < r.out_w; column++)
        activate(a, scale, noise_at(column), r.channels, from + column * r.channels, to + column * r.channels);
    });
  });
}

// One row of the gradient at the activation's input, times the scale; adds to the sums (3, channels) over its pixels.
static void activation_gradient_row(
    const BiasAct& a, const float* scale, const float* noise, int64_t pixels, int64_t channels, const float* dy,
    const float* y, float* __restrict dx, float* __restrict sums, float* of_pixels) {
  const float positive = a.gain, negative = a.gain * a.slope;
  const bool limited = std::isfinite(a.clamp);
  float* __restrict of_dv = sums;
  float* __restrict of_product = sums + channels;
  float* __restrict of_noise = sums + 2 * channels;
  for (int64_t p = 0; p < pixels; p++, dy += channels, y += channels, dx += channels) {
    const float strength = noise ? noise[p] : 0.f;
    float of_pixel = 0.f;
    for (int64_t c = 0; c < channels; c++) {
      const float inside = !limited || std::fabs(y[c]) < a.clamp ? 1.f : 0.f;
      const float dv = dy[c] * (y[c] > 0.f ? positive : negative) * inside;
      of_pixel += dv;
      of_dv[c] += dv;
      of_product[c] += dy[c] * y[c] * inside;
      of_noise[c] += dv * strength;
      dx[c] = scale ? dv * scale[c] : dv;
    }
    if (of_pixels) of_pixels[p] = of_pixel;
  }
}

// `resampling` is the adjoint of the blur, from the sizes of y to those of dx; `middle` (B, in_h, in_w, C) is room for
// its input, null without a blur. sums: (3, B, C), of dv, dy y and dv noise over the pixels. of_noise: (B, in_h, in_w),
// sums of dv over the channels, or null.
EXPORT void training_bias_act_backward(
    const Resampling* resampling, int64_t blur, const BiasAct* activation, const float* dy, const float* y,
    float* middle, float* dx, float* sums, float* of_noise) {
  const Resampling& r = *resampling;
  const BiasAct& a = *activation;
  const Teams teams(r.threads, r.batch);
  const auto terms = blur ? columns(r) : std::vector<Terms>();
  const int64_t c = r.channels, row = r.in_w * c, sample = r.in_h * row, parts = std::min<int64_t>(teams.inner, r.in_h);
  parallel(teams.outer, true, r.batch, [&](int64_t n) {
    const float* scale = a.scale ? a.scale + n * c : nullptr;
    float* gradient = (blur ? middle : dx) + n * sample;
    std::vector<double> totals(parts * 3 * c);
    parallel(teams.inner, true, parts, [&](int64_t part) {
      std::vector<float> of_row(3 * c);
      double* total = totals.data() + part * 3 * c;
      for (int64_t o = r.in_h * part / parts; o < r.in_h * (part + 1) / parts; o++) {
        std::fill(of_row.begin(), of_row.end(), 0.f);
        const float* noise = a.noise ? a.noise + n * a.noise_stride + o * r.in_w : nullptr;
        const int64_t at = n * sample + o * row;
        float* of_pixels = of_noise ? of_noise + (n * r.in_h + o) * r.in_w : nullptr;
        activation_gradient_row(
            a, scale, noise, r.in_w, c, dy + at, y + at, gradient + o * row, of_row.data(), of_pixels);
        for (int64_t i = 0; i < 3 * c; i++) total[i] += of_row[i];
      }
    });
    for (int64_t kind = 0; kind < 3; kind++)
      for (int64_t i = 0; i < c; i++) {
        double sum = 0;
        for (int64_t part = 0; part < parts; part++) sum += totals[(part * 3 + kind) * c + i];
        sums[(kind * r.batch + n) * c + i] = static_cast<float>(sum);
      }
    if (!blur) return;
    const int64_t out_row = r.out_w * c;
    parallel(teams.inner, true, r.out_h, [&](int64_t o) {
      resample_row(r, terms, gradient, o, dx + (n * r.out_h + o) * out_row, [](int64_t, float*) {});
    });
  });
}

// dx = dy style, and the sums (B, channels) of dy x over the pixels.
EXPORT void training_modulate_backward(
    int64_t threads, int64_t batch, int64_t pixels, int64_t channels, const float* dy, const float* x,
    const float* style, float* dx, float* sums) {
  const Teams teams(threads, batch);
  constexpr int64_t LINE = 64;  // pixels that are summed in single precision
  const int64_t lines = (pixels + LINE - 1) / LINE, parts = std::min<int64_t>(teams.inner, lines);
  parallel(teams.outer, true, batch, [&](int64_t n) {
    const float* s = style + n * channels;
    std::vector<double> totals(parts * channels);
    parallel(teams.inner, true, parts, [&](int64_t part) {
      std::vector<float> of_line(channels);
      float* __restrict line_sums = of_line.data();
      double* total = totals.data() + part * channels;
      for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; line++) {
        std::fill(of_line.begin(), of_line.end(), 0.f);
        const int64_t last = std::min(pixels, (line + 1) * LINE);
        for (int64_t p = line * LINE; p < last; p++) {
          const int64_t at = (n * pixels + p) * channels;
          const float *g = dy + at, *value = x + at;
          float* __restrict to = dx + at;
          for (int64_t c = 0; c < channels; c++) {
            line_sums[c] += g[c] * value[c];
            to[c] = g[c] * s[c];
          }
        }
        for (int64_t c = 0; c < channels; c++) total[c] += of_line[c];
      }
    });
    for (int64_t c = 0; c < channels; c++) {
      double sum = 0;
      for (int64_t part = 0; part < parts; part++) sum += totals[part * channels + c];
      sums[n * channels + c] = static_cast<float>(sum);
    }
  });
}
