// A layer of the frozen synthesis network, and the operations on its pixels before and after the convolution.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "gemm.h"

// The epilogue of a convolution: y = clamp(lrelu(u demod + noise + bias)), with the gain of the activation folded
// into demod, noise and bias, and ToRGB's products with y. Declared again, like Layer, in
// stylegan_inv/generators/frozen/native_layer.py.
struct Epilogue {
  int64_t channels, colours;  // colours is 0 if no ToRGB reads y, otherwise at most MOST_COLOURS
  int64_t noise_stride;       // floats from one sample to the next; 0 if all samples share it
  float slope, clamp;         // an infinite clamp has no effect
  const float *demod, *bias;  // (B, channels), (channels)
  const float *noise;         // (B or 1, H, W) or null
  const float *colour;        // (B, colours, channels): modulated weights
  float *rgb;                 // forward: (B, colours, H, W), written
  const float *grad_rgb;      // backward: the same
  float *sums;                // backward: (B, 3 + colours, channels), written: sums over the image of dz, of y g, of
                              // dz noise and, for each colour, of grad_rgb y
  float *grad_noise;          // backward: (B, H, W) or null, added to: sums of dz over the channels
};

// Images are (B, H, W, C) in memory.
struct Layer {
  int64_t kind;
  int64_t batch, height, width, in;  // of the input
  int64_t x_stride;                  // floats from one sample to the next; 0 if all samples share it
  int64_t threads;
  const float *weight;  // packed
  const float *x;       // (B or 1, height, width, in)
  const float *style;   // (B, in)
  float *y;             // (B, H, W, channels); null: not stored, recomputed in the backward pass
  const float *grad;    // gradient of the convolution's result; null for the last layer: computed from y
  float *grad_before;   // gradient of the previous convolution's result; may be x; null: not required
  float *grad_style;    // (B, in), written
  Epilogue own, before;
};

enum Kind { CONV = 0, WINOGRAD = 1, UP = 2, UP_WINOGRAD = 3 };
constexpr int MOST_COLOURS = 4;
constexpr int RUN = 8;  // pixels that are processed together, so that sums over them stay in registers

static inline void zero(float* p, int64_t n) { std::memset(p, 0, n * sizeof(float)); }

static inline void scale_row(
    const float* x, const float* style, int64_t pixels, int64_t channels, float* __restrict result) {
  for (int64_t p = 0; p < pixels; p++, x += channels, result += channels)
    for (int64_t c = 0; c < channels; c++) result[c] = x[c] * style[c];
}

static inline float total(Vec v) {
  float lanes[LANES], sum = 0.f;
  store(lanes, v);
  for (int i = 0; i < LANES; i++) sum += lanes[i];
  return sum;
}

// ToRGB's products with a row of y.
static inline void colour_row(const Epilogue& e, int64_t n, int64_t r, int64_t height, int64_t width, const float* y) {
  const float* colour = e.colour + n * e.colours * e.channels;
  float* rgb = e.rgb + (n * e.colours * height + r) * width;
  for (int64_t p = 0; p < width; p++, y += e.channels) {
    Vec sum[MOST_COLOURS] = {};
    for (int64_t c = 0; c < e.channels; c += LANES) {
      const int lanes = std::min<int64_t>(LANES, e.channels - c);
      const Vec v = load_part(y + c, lanes);
      for (int64_t k = 0; k < e.colours; k++) sum[k] += v * load_part(colour + k * e.channels + c, lanes);
    }
    for (int64_t k = 0; k < e.colours; k++) rgb[k * height * width + p] = total(sum[k]);
  }
}

// y at pixels (r.., p..), channels c.. (n of them) from the convolution's result there.
struct Activation {
  const Epilogue& e;
  int64_t n, height, width;
  float* y;       // of row `first`
  int64_t first;
  template <int H, int W>
  void operator()(int64_t r, int64_t p, int64_t c, const Vec (&u)[H][W], int pixels, int lanes) const {
    const Vec scale = load_part(e.demod + n * e.channels + c, lanes), bias = load_part(e.bias + c, lanes);
    const Vec limit = Vec{} + e.clamp;
    for (int i = 0; i < H; i++) {
      const float* noise = e.noise ? e.noise + n * e.noise_stride + (r + i) * width + p : nullptr;
      float* to = y + ((r + i - first) * width + p) * e.channels + c;
      for (int j = 0; j < pixels; j++, to += e.channels) {
        Vec v = u[i][j] * scale + bias;
        if (noise) v += noise[j];
        v = v > 0.f ? v : e.slope * v;
        v = v > limit ? limit : v;
        v = v < -limit ? -limit : v;
        store_part(to, v, lanes);
      }
    }
  }
};

// The backward pass: the gradient of the convolution's result from that of y (without ToRGB's part), and the sums.
// With z the value before the activation and g the gradient of y: dz = g or slope g by the sign of y, zero where y
// was clamped; z dz = y g, so y is sufficient.
template <int COLOURS>
struct ActivationGradient {
  const Epilogue& e;
  int64_t n, height, width;
  float* sums;  // as e.sums, of these pixels, added to; or null
  // Pixels of one row: y and the result lie e.channels apart. gradient(j) gives g at pixel j.
  template <class Gradient>
  void operator()(int64_t r, int64_t p, int64_t c, const float* y, Gradient gradient, float* result, int pixels,
                  int lanes) const {
    const int64_t pixel = r * width + p, plane = height * width;
    const Vec scale = load_part(e.demod + n * e.channels + c, lanes), limit = Vec{} + e.clamp;
    const float* noise = e.noise ? e.noise + n * e.noise_stride + pixel : nullptr;
    const float* grad_rgb = e.grad_rgb + n * COLOURS * plane + pixel;
    float* grad_noise = e.grad_noise && sums ? e.grad_noise + n * plane + pixel : nullptr;
    Vec sum_dz{}, sum_yg{}, sum_noise{}, products[COLOURS + 1] = {}, colour[COLOURS + 1];
    for (int k = 0; k < COLOURS; k++) colour[k] = load_part(e.colour + (n * COLOURS + k) * e.channels + c, lanes);
    for (int j = 0; j < pixels; j++, y += e.channels, result += e.channels) {
      const Vec value = load_part(y, lanes);
      Vec g = gradient(j, value);
      for (int k = 0; k < COLOURS; k++) {
        const float q = grad_rgb[k * plane + j];
        g += q * colour[k];
        products[k] += q * value;
      }
      g = value < limit ? g : 0.f;
      g = value > -limit ? g : 0.f;
      const Vec dz = value > 0.f ? g : e.slope * g;
      sum_dz += dz;
      sum_yg += value * g;
      if (noise) sum_noise += noise[j] * dz;
      if (grad_noise) grad_noise[j] += total(dz);
      store_part(result, dz * scale, lanes);
    }
    if (!sums) return;
    const auto add = [&](int k, Vec sum) {
      float* to = sums + k * e.channels + c;
      store_part(to, load_part(to, lanes) + sum, lanes);
    };
    add(0, sum_dz);
    add(1, sum_yg);
    add(2, sum_noise);
    for (int k = 0; k < COLOURS; k++) add(3 + k, products[k]);
  }
};

// Calls f with the number of colours as an integral constant.
template <class F>
static void with_colours(int64_t colours, F f) {
  switch (colours) {
    case 0: return f(std::integral_constant<int, 0>());
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    default: return f(std::integral_constant<int, 4>());
  }
}

// A row of the last layer's gradient, which consists of ToRGB's part only.
static inline void last_gradient_row(
    const Epilogue& e, int64_t n, int64_t r, int64_t height, int64_t width, const float* y, float* result, float* sums) {
  with_colours(e.colours, [&](auto colours) {
    const ActivationGradient<colours> apply{e, n, height, width, sums};
    for (int64_t p = 0; p < width; p += RUN)
      for (int64_t c = 0; c < e.channels; c += LANES) {
        const int64_t at = p * e.channels + c;
        apply(r, p, c, y + at, [](int, Vec) { return Vec{}; }, result + at, std::min<int64_t>(RUN, width - p),
              std::min<int64_t>(LANES, e.channels - c));
      }
  });
}

// Backward: v is the gradient of x * style. Sums v x for the style and continues with the previous layer.
template <int COLOURS>
struct InputGradient {
  const Layer& l;
  int64_t n;
  float* sums;  // (in) for the style, then as l.before.sums
  template <int H, int W>
  void operator()(int64_t r, int64_t p, int64_t c, const Vec (&v)[H][W], int pixels, int lanes) const {
    const Vec scale = load_part(l.style + n * l.in + c, lanes);
    const ActivationGradient<COLOURS> apply{l.before, n, l.height, l.width, sums + l.in};
    Vec sum = load_part(sums + c, lanes);
    for (int i = 0; i < H; i++) {
      const int64_t at = ((r + i) * l.width + p) * l.in + c;
      const float* x = l.x + n * l.x_stride + at;
      if (l.grad_before) {
        const auto gradient = [&](int j, Vec value) {
          sum += v[i][j] * value;
          return v[i][j] * scale;
        };
        apply(r + i, p, c, x, gradient, l.grad_before + n * l.height * l.width * l.in + at, pixels, lanes);
      } else {
        for (int j = 0; j < pixels; j++) sum += v[i][j] * load_part(x + j * l.in, lanes);
      }
    }
    store_part(sums + c, sum, lanes);
  }
};
