// 3x3 convolutions with one pixel of padding for a network in training, and their gradients, by Winograd's algorithm
// (winograd.h). Images are (B, H, W, C) in memory; H and W are multiples of TILE.

#include <algorithm>
#include <cstdint>

#include "gemm.h"
#include "memory.h"
#include "threads.h"
#include "winograd.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Declared again in stylegan_inv/generators/ops/cpu.py.
struct Convolution {
  int64_t batch, height, width, in, out, threads;
};

static thread_local Buffer values_buffer, products_buffer, packed_buffer;

// The values of some tiles: (POINTS, tiles, channels), where a row of channels is padded to whole vectors.
struct Values {
  int64_t row, point;
  float* data;
  // An odd number of cache lines between points; otherwise the values of a tile map to the same lines of the cache.
  Values(Buffer& buffer, int64_t tiles, int64_t channels)
      : row(whole_vectors(channels)), point(tiles * row + LANES), data(buffer.get(POINTS * point)) {}
};

// The tiles of a batch of images.
struct Tiles {
  const Convolution& s;
  int64_t across, in_image, count;
  explicit Tiles(const Convolution& s)
      : s(s), across(s.width / TILE), in_image(s.height / TILE * across), count(s.batch * in_image) {}
  int64_t sample(int64_t t) const { return t / in_image; }
  int64_t top(int64_t t) const { return t % in_image / across * TILE; }
  int64_t left(int64_t t) const { return t % in_image % across * TILE; }
  // Tiles that are processed together: their values and the products stay in the cache.
  int64_t chunk() const {
    const int64_t channels = std::max(s.in, s.out), few = 4 * ROWS;
    return std::min(count, std::max(few, 2048 / channels / ROWS * ROWS));
  }
};

// The second half of a transform: each of the rows, of N vectors, to PATCH values that are `step` floats apart.
template <int N, void transform(const Vec*, Vec*)>
static inline void store_rows(const Vec half[PATCH][N], float* to, int64_t step) {
  for (int j = 0; j < PATCH; j++) {
    Vec result[PATCH];
    transform(half[j], result);
    for (int i = 0; i < PATCH; i++) store(to + (j * PATCH + i) * step, result[i]);
  }
}

// The patch of a tile, with zeros outside of the image, to its values; x is scaled for each channel if SCALED.
template <bool SCALED>
static void input_values(const Tiles& tiles, int64_t t, const float* x, const float* scale, const Values& values, int64_t at) {
  const int64_t h = tiles.s.height, w = tiles.s.width, channels = tiles.s.in, n = tiles.sample(t);
  const int64_t top = tiles.top(t) - 1, left = tiles.left(t) - 1;
  const float* patch = x + ((n * h + top) * w + left) * channels;
  bool inside_y[PATCH], inside_x[PATCH];
  for (int i = 0; i < PATCH; i++) {
    inside_y[i] = top + i >= 0 && top + i < h;
    inside_x[i] = left + i >= 0 && left + i < w;
  }
  for (int64_t c = 0; c < values.row; c += LANES) {
    const int lanes = static_cast<int>(std::min<int64_t>(LANES, channels - c));
    float* to = values.data + at * values.row + c;
    Vec factor = {};
    if (SCALED) factor = load_part(scale + n * channels + c, lanes);
    Vec half[PATCH][PATCH];
    for (int i = 0; i < PATCH; i++) {
      Vec column[PATCH], result[PATCH];
      for (int j = 0; j < PATCH; j++) {
        column[j] = inside_x[i] && inside_y[j] ? load_part(patch + (j * w + i) * channels + c, lanes) : Vec{};
        if (SCALED) column[j] *= factor;
      }
      transform_input(column, result);
      for (int j = 0; j < PATCH; j++) half[j][i] = result[j];
    }
    store_rows<PATCH, transform_input>(half, to, values.point);
  }
}

static void input_values_of_chunk(
    const Tiles& tiles, int64_t first, int64_t count, const float* x, const float* scale, const Values& values) {
  parallel(tiles.s.threads, true, count, [&](int64_t i) {
    if (scale) input_values<true>(tiles, first + i, x, scale, values, i);
    else input_values<false>(tiles, first + i, x, scale, values, i);
  });
}

// The adjoint of transform_output.
static inline void transform_gradient(const Vec r[TILE], Vec m[PATCH]) {
  m[0] = r[0];
  const Vec even_a = r[0] + 0.5f * r[2], odd_a = A * (r[1] + 0.5f * r[3]);
  m[1] = even_a + odd_a;
  m[2] = even_a - odd_a;
  const Vec even_b = -0.5f * r[0] - r[2], odd_b = A * (r[1] + 2.f * r[3]);
  m[3] = even_b - odd_b;
  m[4] = even_b + odd_b;
  m[5] = r[3];
}

static void gradient_values(const Tiles& tiles, int64_t t, const float* dy, const Values& values, int64_t at) {
  const int64_t h = tiles.s.height, w = tiles.s.width, channels = tiles.s.out;
  const float* tile = dy + ((tiles.sample(t) * h + tiles.top(t)) * w + tiles.left(t)) * channels;
  for (int64_t c = 0; c < values.row; c += LANES) {
    const int lanes = static_cast<int>(std::min<int64_t>(LANES, channels - c));
    float* to = values.data + at * values.row + c;
    Vec half[PATCH][TILE];
    for (int i = 0; i < TILE; i++) {
      Vec column[TILE], result[PATCH];
      for (int j = 0; j < TILE; j++) column[j] = load_part(tile + (j * w + i) * channels + c, lanes);
      transform_gradient(column, result);
      for (int j = 0; j < PATCH; j++) half[j][i] = result[j];
    }
    store_rows<TILE, transform_gradient>(half, to, values.point);
  }
}

// One row or column of the transform of the weights, see transform_weight.
static inline void transform_weights(const Vec w[3], Vec u[PATCH]) {
  constexpr float scale = -1.f / 3.f;
  const Vec even_a = scale * (2.f * w[0] + w[2]), even_b = scale * (w[0] + 2.f * w[2]), odd = scale * B * w[1];
  u[0] = w[0];
  u[1] = even_a + odd;
  u[2] = even_a - odd;
  u[3] = even_b + odd;
  u[4] = even_b - odd;
  u[5] = w[2];
}

// Its adjoint.
static inline void transform_weight_gradient(const Vec u[PATCH], Vec w[3]) {
  constexpr float scale = -1.f / 3.f;
  const Vec sum_a = u[1] + u[2], sum_b = u[3] + u[4];
  w[0] = u[0] + scale * (2.f * sum_a + sum_b);
  w[1] = scale * B * (u[1] - u[2] + u[3] - u[4]);
  w[2] = scale * (sum_a + 2.f * sum_b) + u[5];
}

// Transforms and packs a weight (out, in, 3, 3), or the weight of the adjoint, rotated, from (in, out, 3, 3), to
// (POINTS, panels(out), in, PANEL).
static const float* packed_weight(const Convolution& s, bool adjoint, const float* weight) {
  const int64_t in = s.in, out = s.out;
  float* packed = packed_buffer.get(POINTS * panels(out) * in * PANEL);
  parallel(s.threads, true, panels(out) * in, [&](int64_t index) {
    const int64_t j = index / in, i = index % in;
    float taps[9][PANEL] = {};
    for (int64_t c = 0; c < std::min<int64_t>(PANEL, out - j * PANEL); c++) {
      const int64_t o = j * PANEL + c;
      const float* kernel = weight + (adjoint ? i * out + o : o * in + i) * 9;
      for (int t = 0; t < 9; t++) taps[t][c] = kernel[adjoint ? 8 - t : t];
    }
    for (int v = 0; v < VECTORS; v++) {
      Vec half[PATCH][3];
      for (int x = 0; x < 3; x++) {
        Vec column[3], result[PATCH];
        for (int y = 0; y < 3; y++) column[y] = load(taps[3 * y + x] + v * LANES);
        transform_weights(column, result);
        for (int y = 0; y < PATCH; y++) half[y][x] = result[y];
      }
      for (int y = 0; y < PATCH; y++) {
        Vec result[PATCH];
        transform_weights(half[y], result);
        for (int x = 0; x < PATCH; x++)
          store(packed + (((y * PATCH + x) * panels(out) + j) * in + i) * PANEL + v * LANES, result[x]);
      }
    }
  });
  return packed;
}

// y = the convolution of x scale with the weight, plus bias; scale (B, in) and bias (out) may be null.
EXPORT void training_conv(
    const Convolution* convolution, int64_t adjoint, const float* x, const float* scale, const float* weight,
    const float* bias, float* y) {
  const Convolution& s = *convolution;
  const Tiles tiles(s);
  const int64_t chunk = tiles.chunk();
  const float* packed = packed_weight(s, adjoint, weight);
  const Values values(values_buffer, chunk, s.in), products(products_buffer, chunk, s.out);
  for (int64_t first = 0; first < tiles.count; first += chunk) {
    const int64_t count = std::min(chunk, tiles.count - first);
    input_values_of_chunk(tiles, first, count, x, scale, values);
    parallel(s.threads, false, POINTS * panels(s.out), [&](int64_t index) {
      const int64_t point = index / panels(s.out), j = index % panels(s.out);
      const Left left = {values.data + point * values.point, values.row, count, 0, s.in};
      multiply_columns(left, packed + index * s.in * PANEL, products.data + point * products.point + j * PANEL,
                       products.row, count, s.out - j * PANEL);
    });
    parallel(s.threads, true, count, [&](int64_t i) {
      const int64_t t = first + i;
      float* to = y + ((tiles.sample(t) * s.height + tiles.top(t)) * s.width + tiles.left(t)) * s.out;
      for (int64_t c = 0; c < s.out; c += LANES) {
        const int lanes = static_cast<int>(std::min<int64_t>(LANES, s.out - c));
        Vec result[TILE][TILE];
        tile_output(products.data + i * products.row + c, products.point, result);
        const Vec shift = bias ? load_part(bias + c, lanes) : Vec{};
        for (int j = 0; j < TILE; j++)
          for (int k = 0; k < TILE; k++) store_part(to + (j * s.width + k) * s.out + c, result[j][k] + shift, lanes);
      }
    });
  }
}

// The rows of a sum of V vectors that the registers hold.
template <int V>
constexpr int ROWS_OF = ROWS * VECTORS / V;

// c[m, 0..V * LANES) += sum over tiles of left[tile, m] right[tile, 0..V * LANES), for M rows.
template <int M, int V>
static void update_kernel(
    int64_t tiles, const float* left, int64_t left_row, const float* right, int64_t right_row, float* c, int64_t c_row) {
  Vec sum[M][V] = {};
  for (int64_t k = 0; k < tiles; k++, left += left_row, right += right_row) {
    Vec row[V];
    for (int v = 0; v < V; v++) row[v] = load(right + v * LANES);
    for (int m = 0; m < M; m++)
      for (int v = 0; v < V; v++) sum[m][v] += left[m] * row[v];
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) {
      float* to = c + m * c_row + v * LANES;
      store(to, load(to) + sum[m][v]);
    }
}

template <int M, int V>
static void update_few(
    int64_t rows, int64_t tiles, const float* left, int64_t left_row, const float* right, int64_t right_row, float* c,
    int64_t c_row) {
  if constexpr (M > 0) {
    if (rows == M) update_kernel<M, V>(tiles, left, left_row, right, right_row, c, c_row);
    else update_few<M - 1, V>(rows, tiles, left, left_row, right, right_row, c, c_row);
  }
}

// The same for any number of rows, and the first `columns` columns of a panel.
template <int V = 1>
static void update_columns(
    int64_t rows, int64_t tiles, const float* left, int64_t left_row, const float* right, int64_t right_row, float* c,
    int64_t c_row, int64_t columns) {
  if constexpr (V < VECTORS)
    if (columns > V * LANES)
      return update_columns<V + 1>(rows, tiles, left, left_row, right, right_row, c, c_row, columns);
  int64_t m = 0;
  for (; m + ROWS_OF<V> <= rows; m += ROWS_OF<V>)
    update_kernel<ROWS_OF<V>, V>(tiles, left + m, left_row, right, right_row, c + m * c_row, c_row);
  update_few<ROWS_OF<V> - 1, V>(rows - m, tiles, left + m, left_row, right, right_row, c + m * c_row, c_row);
}

// The gradient (out, in, 3, 3) of the weight, from the gradient dy of the result; scale (B, in) may be null.
EXPORT void training_conv_weight_gradient(
    const Convolution* convolution, const float* x, const float* scale, const float* dy, float* result) {
  const Convolution& s = *convolution;
  const Tiles tiles(s);
  const int64_t chunk = tiles.chunk(), row = whole_vectors(s.out), matrix = s.in * row;
  float* sums = packed_buffer.get(POINTS * matrix);
  parallel(s.threads, true, POINTS, [&](int64_t p) { std::fill_n(sums + p * matrix, matrix, 0.f); });
  const Values values(values_buffer, chunk, s.in), gradients(products_buffer, chunk, s.out);
  for (int64_t first = 0; first < tiles.count; first += chunk) {
    const int64_t count = std::min(chunk, tiles.count - first);
    input_values_of_chunk(tiles, first, count, x, scale, values);
    parallel(s.threads, true, count, [&](int64_t i) { gradient_values(tiles, first + i, dy, gradients, i); });
    parallel(s.threads, false, POINTS * panels(s.out), [&](int64_t index) {
      const int64_t point = index / panels(s.out), j = index % panels(s.out);
      const float* left = values.data + point * values.point;
      const float* right = gradients.data + point * gradients.point + j * PANEL;
      float* to = sums + point * matrix + j * PANEL;
      update_columns(s.in, count, left, values.row, right, gradients.row, to, row, s.out - j * PANEL);
    });
  }
  parallel(s.threads, true, s.in, [&](int64_t i) {
    for (int64_t o = 0; o < s.out; o += LANES) {
      const float* from = sums + i * row + o;
      Vec half[3][PATCH];
      for (int x = 0; x < PATCH; x++) {
        Vec column[PATCH], taps[3];
        for (int y = 0; y < PATCH; y++) column[y] = load(from + (y * PATCH + x) * matrix);
        transform_weight_gradient(column, taps);
        for (int y = 0; y < 3; y++) half[y][x] = taps[y];
      }
      float kernels[9][LANES];
      for (int y = 0; y < 3; y++) {
        Vec taps[3];
        transform_weight_gradient(half[y], taps);
        for (int x = 0; x < 3; x++) store(kernels[3 * y + x], taps[x]);
      }
      for (int64_t c = 0; c < std::min<int64_t>(LANES, s.out - o); c++)
        for (int t = 0; t < 9; t++) result[((o + c) * s.in + i) * 9 + t] = kernels[t][c];
    }
  });
}
