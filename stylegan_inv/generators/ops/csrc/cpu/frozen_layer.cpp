// Forward and backward of one layer of StyleGAN2's synthesis network whose weights do not change: modulated 3x3
// convolution, demodulation, noise, bias, leaky ReLU, ToRGB's products; float32, channels last.
//
// Written from Karras et al. 2020 (arXiv 1912.04958, section 2) and the project's own derivations. An image is
// processed in bands of rows that fit into the cache: a band is scaled (or its gradient is read) into a padded strip,
// convolved into scratch memory, and passed through the epilogue. Nothing between x and y is stored. The backward
// pass hands the gradient of the convolution's result from layer to layer, so that it can overwrite each activation
// with its gradient and needs no further memory.
//
// flags: -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -ffp-contract=fast

#include <algorithm>
#include <vector>

#include "layer.h"
#include "up_by_phases.h"
#include "up_by_winograd.h"
#include "winograd.h"
#include "work.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Convolves a band: `rows` rows of the strip, whose pixel (1, 1) is the first of the band. The strip has rows + 2
// rows of width + 1 pixels (the zero before a row is also the zero after the previous row) and one more pixel. The
// results are passed to finish(slot, row, body), which calls body(apply).
template <class Finish>
static void direct_band(
    const Pass& pass, const Range& range, int64_t first, int64_t rows, const float* strip, Finish finish) {
  const int64_t inner = pass.inner(), outer = pass.outer(), width = pass.l.width, pitch = width + 1;
  ptrdiff_t offset[9];
  for (int t = 0; t < 9; t++)
    offset[t] = ((t / 3 - 1) * pitch + t % 3 - 1) * inner * (pass.back ? -1 : 1);
  const int64_t stride = padded(outer);
  const Left left = {strip + (pitch + 1) * inner, inner, width, pitch * inner, inner, 9, offset};
  float* result = pass.scratch.products.get(rows * width * stride);
  parallel(range.team, false, panels(outer), [&](int64_t j) {
    multiply_panel(left, pass.weight + j * 9 * inner * PANEL, result + j * PANEL, stride, rows * width);
  });
  parallel(range.team, true, rows, [&](int64_t r) {
    finish(range.current(), first + r,
           [&](auto apply) { apply_row(first + r, width, outer, result + r * width * stride, stride, apply); });
  });
}

// Convolves a band by Winograd's algorithm, `chunk` tiles at a time.
template <class Finish>
static void winograd_band(const Pass& pass, const Range& range, int64_t first, int64_t rows, const float* strip,
                          int64_t chunk, Finish finish) {
  const int64_t inner = pass.inner(), outer = pass.outer(), pitch = pass.pitch();
  // Strides that are no powers of two; otherwise the 36 values of a tile would map to the same cache lines.
  const int64_t values_stride = inner + 16, products_stride = padded(outer) + 16;
  const int64_t across = pass.l.width / TILE, tiles = rows / TILE * across;
  float* values = pass.scratch.values.get(std::min(chunk, tiles) * POINTS * values_stride);
  float* products = pass.scratch.products.get(std::min(chunk, tiles) * POINTS * products_stride);
  for (int64_t start = 0; start < tiles; start += chunk) {
    const int64_t count = std::min(chunk, tiles - start);
    parallel(range.team, true, count, [&](int64_t i) {
      const int64_t tile = start + i;
      const float* patch = strip + tile / across * TILE * pitch + tile % across * TILE * inner;
      float* to = values + i * POINTS * values_stride;
      int64_t c = 0;
      for (; c + LANES <= inner; c += LANES) tile_input(patch + c, pitch, inner, to + c, values_stride, LANES);
      if (c < inner) tile_input(patch + c, pitch, inner, to + c, values_stride, inner - c);
    });
    parallel(range.team, false, POINTS * panels(outer), [&](int64_t i) {
      const int64_t point = i / panels(outer), j = i % panels(outer);
      const Left left = {values + point * values_stride, POINTS * values_stride, count, 0, inner};
      multiply_panel(left, pass.panel(point, j), products + point * products_stride + j * PANEL, POINTS * products_stride, count);
    });
    parallel(range.team, true, (count + RUN - 1) / RUN, [&](int64_t group) {
      finish(range.current(), first + (start + group * RUN) / across * TILE, [&](auto apply) {
        for (int64_t i = group * RUN; i < std::min(count, (group + 1) * RUN); i++) {
          const int64_t y = first + (start + i) / across * TILE, x = (start + i) % across * TILE;
          for (int64_t c = 0; c < outer; c += LANES) {
            Vec result[TILE][TILE];
            tile_output(products + i * POINTS * products_stride + c, products_stride, result);
            apply(y, x, c, result, TILE, std::min<int64_t>(LANES, outer - c));
          }
        }
      });
    });
  }
}

// Rows of a band, and its tiles for Winograd's algorithm.
struct Band {
  int64_t rows, chunk;
};

static Band band_of(const Layer& l) {
  if (l.kind == CONV) return {std::max<int64_t>(TILE, 256 / l.width), 0};
  const int64_t across = l.width / TILE, channels = std::max(l.in, l.own.channels);
  // Each chunk of tiles reads all transformed weights, so chunks are larger where the weights are large.
  const int64_t chunk = small_weight(l) ? std::max<int64_t>(4 * ROWS, 2048 / channels / ROWS * ROWS) : 128;
  return {std::max<int64_t>(1, chunk / across) * TILE, chunk};
}

// Convolves a range band by band. load_rows(first, last, to) writes rows of the input, a pitch apart, up to `ahead`
// rows beyond a band. done(first, rows) is called after each band.
template <class LoadRows, class Finish, class Done>
static void convolve(const Pass& pass, const Range& range, int64_t ahead, LoadRows load_rows, Finish finish, Done done) {
  const Layer& l = pass.l;
  const int64_t pitch = pass.pitch(), inner = pass.inner();
  const Band band = band_of(l);
  const int64_t step = std::min(band.rows, range.last - range.first);
  float* strip = pass.scratch.strip.get((step + 1 + ahead) * pitch + inner);
  for (int64_t first = range.first; first < range.last; first += step) {
    const int64_t rows = std::min(step, range.last - first);
    const int64_t kept = first > range.first ? 1 + ahead : 0;  // rows of the previous strip
    std::memmove(strip, strip + step * pitch, kept * pitch * sizeof(float));
    const int64_t begin = first - 1 + kept, end = first + rows + ahead;
    for (int64_t y = begin; y < end; y++) {
      float* row = strip + (y - first + 1) * pitch;
      zero(row, y < 0 || y >= l.height ? pitch : inner);
    }
    zero(strip + (rows + 1 + ahead) * pitch, inner);
    const int64_t from = std::max<int64_t>(begin, 0), to = std::min(end, l.height);
    if (from < to) load_rows(from, to, strip + (from - first + 1) * pitch + inner);
    if (l.kind == WINOGRAD) winograd_band(pass, range, first, rows, strip, band.chunk, finish);
    else direct_band(pass, range, first, rows, strip, finish);
    done(first, rows);
  }
}

// Computes rows range.first..range.last of y and writes them to y_rows(first row).
template <class Rows, class Done>
static void convolve_forward(const Layer& l, const Range& range, Scratch& scratch, Rows y_rows, Done done) {
  const Pass pass{l, false, l.weight, scratch};
  const int64_t n = range.n;
  convolve(
      pass, range, 1,
      [&](int64_t first, int64_t last, float* to) {
        parallel(range.team, true, last - first, [&](int64_t i) {
          scale_row(l.x + n * l.x_stride + (first + i) * l.width * l.in, l.style + n * l.in, l.width, l.in,
                    to + i * pass.pitch());
        });
      },
      [&](int, int64_t y, auto body) { body(Activation{l.own, n, l.height, l.width, y_rows(y), y}); }, done);
}

static void forward(const Layer& l, const Range& range) {
  const int64_t n = range.n, row = l.width * l.own.channels;
  float* band = l.y ? nullptr : scratches[0].rows.get(std::min(band_of(l).rows, range.last - range.first) * row);
  int64_t base = range.first;  // first row of `band` in the image
  auto y_rows = [&](int64_t y) { return l.y ? l.y + (n * l.height + y) * row : band + (y - base) * row; };
  convolve_forward(l, range, scratches[0], y_rows, [&](int64_t first, int64_t rows) {
    if (l.own.colours)
      parallel(range.team, true, rows,
               [&](int64_t i) { colour_row(l.own, n, first + i, l.height, l.width, y_rows(first + i)); });
    base = first + rows;
  });
}

// Tiles of the last layer's y at the borders between ranges, for recomputation. A thread cannot compute them later,
// because the neighbouring thread may already have overwritten the x that they need with gradients.
class Borders {
 public:
  explicit Borders(const Layer& l) : row_(l.width * l.own.channels), step_(range_rows(l)), height_(l.height) {
    if (l.grad || l.y) return;
    rows_.resize(l.batch * ((height_ - 1) / step_) * 2 * TILE * row_);
    for (int64_t n = 0; n < l.batch; n++)
      for (int64_t border = step_; border < height_; border += step_) {
        const int64_t last = std::min(border + TILE, height_);
        convolve_forward(
            l, Range{n, border - TILE, last, static_cast<int>(l.threads), 0}, scratches[1],
            [&](int64_t r) { return rows_.data() + index(n, border, r); }, [](int64_t, int64_t) {});
      }
  }
  // Rows of other ranges.
  int64_t first(const Range& range) const { return range.first ? range.first + TILE : 0; }
  int64_t last(const Range& range) const { return range.last < height_ ? range.last - TILE : height_; }
  // A row of this range.
  const float* row(const Range& range, int64_t r) const {
    return rows_.data() + index(range.n, r < first(range) ? range.first : range.last, r);
  }

 private:
  int64_t index(int64_t n, int64_t border, int64_t r) const {
    return ((n * ((height_ - 1) / step_) + border / step_ - 1) * 2 * TILE + r - border + TILE) * row_;
  }
  int64_t row_, step_, height_;
  std::vector<float> rows_;
};

static void backward(
    const Layer& l, const Range& range, const float* weight, const Borders& borders, Sums& own_sums, Sums& sums) {
  const Pass pass{l, true, weight, scratches[0]};
  const int64_t n = range.n, row = l.width * l.own.channels;
  const int64_t ahead = l.grad || l.y ? 1 : TILE;  // whole tiles are recomputed
  const auto load_rows = [&](int64_t first, int64_t last, float* to) {
    const float* y = l.y ? l.y + n * l.height * row : nullptr;
    const bool again = !l.grad && !l.y;
    if (again) {
      const int64_t top = std::max(first, borders.first(range)), bottom = std::min(last, borders.last(range));
      if (top < bottom) {
        float* rows = scratches[0].rows.get((bottom - top) * row);
        convolve_forward(
            l, Range{n, top, bottom, range.team, range.slot}, scratches[1],
            [&](int64_t r) { return rows + (r - top) * row; }, [](int64_t, int64_t) {});
        y = rows - top * row;
      }
    }
    parallel(range.team, true, last - first, [&](int64_t i) {
      const int64_t r = first + i;
      if (l.grad) {
        std::memcpy(to + i * pass.pitch(), l.grad + (n * l.height + r) * row, row * sizeof(float));
        return;
      }
      if (r > range.last) return;  // not used
      const bool here = !again || (r >= borders.first(range) && r < borders.last(range));
      const float* y_row = here ? y + r * row : borders.row(range, r);
      const int slot = range.current();
      const bool mine = r >= range.first && r < range.last;  // other ranges sum the other rows
      last_gradient_row(l.own, n, r, l.height, l.width, y_row, to + i * pass.pitch(),
                        mine ? own_sums.start(slot) : nullptr);
      if (mine) own_sums.finish(slot, n);
    });
  };
  with_colours(l.before.colours, [&](auto colours) {
    convolve(
        pass, range, ahead, load_rows,
        [&](int slot, int64_t, auto body) {
          body(InputGradient<colours>{l, n, sums.start(slot)});
          sums.finish(slot, n);
        },
        [](int64_t, int64_t) {});
  });
}

// Number of floats of a packed weight.
EXPORT int64_t frozen_packed_size(int64_t kind, int64_t out, int64_t in) {
  return (kind == WINOGRAD || kind == UP_WINOGRAD ? MATRICES : 9) * panels(out) * in * PANEL;
}

// Matrices of a 3 x 3 kernel for Winograd's algorithm; `transform` is the transform in one dimension.
template <class Transform>
static void transform_kernel(const double kernel[9], Transform transform, double result[MATRICES]) {
  double half[PATCH * 3];
  for (int x = 0; x < 3; x++) transform(kernel + x, 3, half + x, 3);
  for (int y = 0; y < PATCH; y++) transform(half + 3 * y, 1, result + PATCH * y, 1);
}

// Packs a weight (out, in, 3, 3) into the layout of the kernels.
EXPORT void frozen_pack(int64_t kind, int64_t out, int64_t in, int64_t threads, const float* weight, float* packed) {
  parallel(threads, false, panels(out), [&](int64_t j) {
    for (int64_t i = 0; i < in; i++)
      for (int64_t c = 0; c < PANEL; c++) {
        const int64_t o = j * PANEL + c;
        double kernel[9] = {}, full[MATRICES];
        if (o < out) std::copy_n(weight + (o * in + i) * 9, 9, kernel);
        if (kind == WINOGRAD || kind == UP_WINOGRAD) {
          transform_kernel(kernel, kind == WINOGRAD ? transform_weight : transform_up_weight, full);
          for (int64_t p = 0; p < MATRICES; p++)
            packed[((p * panels(out) + j) * in + i) * PANEL + c] = static_cast<float>(full[p]);
        } else {
          for (int t = 0; t < 9; t++) {
            const int tap = kind == UP ? up_tap(t) : t;
            packed[((j * 9 + t) * in + i) * PANEL + c] = static_cast<float>(kernel[tap]);
          }
        }
      }
  });
}

EXPORT void frozen_forward(const Layer* layer) {
  const Layer& l = *layer;
  for_ranges(l, [&](const Range& range) {
    if (l.kind == UP) up_forward(l, range);
    else if (l.kind == UP_WINOGRAD) up_winograd_forward(l, range);
    else forward(l, range);
  });
}

EXPORT void frozen_backward(const Layer* layer) {
  const Layer& l = *layer;
  const int64_t own = l.grad ? 0 : (3 + l.own.colours) * l.own.channels;
  const int64_t before = l.grad_before ? (3 + l.before.colours) * l.in : 0;
  Sums own_sums(l.threads, l.batch, own), sums(l.threads, l.batch, l.in + before);
  const float* weight = by_winograd(l) && !small_weight(l) ? nullptr : transposed(l);
  const Borders borders(l);
  for_ranges(l, [&](const Range& range) {
    if (l.kind == UP) up_backward(l, range, weight, sums);
    else if (l.kind == UP_WINOGRAD) up_winograd_backward(l, range, weight, sums);
    else backward(l, range, weight, borders, own_sums, sums);
  });
  sums.write(0, l.in, l.grad_style);
  if (own) own_sums.write(0, own, l.own.sums);
  if (before) sums.write(l.in, before, l.before.sums);
}

// Adds an image to that of the next resolution: rgb += image upsampled with (1, 3, 3, 1) / 4; `planes` x height x
// width.
EXPORT void frozen_upsample_add(
    int64_t threads, int64_t planes, int64_t height, int64_t width, const float* image, float* rgb) {
  parallel(threads, true, planes * 2 * height, [&](int64_t i) {
    const int64_t plane = i / (2 * height), r = i % (2 * height), y = r / 2, next = r % 2 ? y + 1 : y - 1;
    const bool inside = next >= 0 && next < height;
    const float* near = image + (plane * height + y) * width;
    const float* far = image + (plane * height + (inside ? next : y)) * width;
    const float weight = inside ? 0.25f : 0.f;
    float* to = rgb + i * 2 * width;
    const auto at = [&](int64_t x) { return x < 0 || x >= width ? 0.f : 0.75f * near[x] + weight * far[x]; };
    float left = 0.f, here = at(0);
    for (int64_t x = 0; x < width; x++) {
      const float right = at(x + 1);
      to[2 * x] += 0.25f * left + 0.75f * here;
      to[2 * x + 1] += 0.75f * here + 0.25f * right;
      left = here;
      here = right;
    }
  });
}

// The adjoint: the gradient of the smaller image from that of the larger one (2 height x 2 width).
EXPORT void frozen_downsample(
    int64_t threads, int64_t planes, int64_t height, int64_t width, const float* grad, float* result) {
  parallel(threads, true, planes * height, [&](int64_t i) {
    const int64_t plane = i / height, y = i % height;
    const auto row = [&](int64_t r) { return grad + (plane * 2 * height + r) * 2 * width; };
    const float above = y ? 0.25f : 0.f, below = y + 1 < height ? 0.25f : 0.f;
    const float *a = row(y ? 2 * y - 1 : 0), *b = row(2 * y), *c = b + 2 * width, *d = row(y + 1 < height ? 2 * y + 2 : 0);
    const auto at = [&](int64_t x) {
      return x < 0 || x >= 2 * width ? 0.f : above * a[x] + 0.75f * (b[x] + c[x]) + below * d[x];
    };
    for (int64_t x = 0; x < width; x++)
      result[i * width + x] = 0.25f * (at(2 * x - 1) + at(2 * x + 2)) + 0.75f * (at(2 * x) + at(2 * x + 1));
  });
}

EXPORT void frozen_advise(void* data, int64_t bytes) { advise_large_pages(data, bytes); }
