// Forward and backward of one layer of StyleGAN2's synthesis network whose weights do not change: modulated 3x3
// convolution, demodulation, noise, bias, leaky ReLU, ToRGB's products; float32, channels last.
//
// Written from Karras et al. 2020 (arXiv 1912.04958, section 2) and the project's own derivations. An image is taken
// through in bands of rows that stay in the cache: a band is scaled (or its gradient fetched) into a padded strip,
// convolved into scratch memory, and finished on its way out. Nothing between x and y is ever stored. Backward carries
// the gradient of the convolutions' results from layer to layer, so that it may overwrite each activation with the
// gradient that belongs there and needs no further memory.
//
// flags: -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -ffp-contract=fast

#include <algorithm>
#include <type_traits>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
#endif

#include "layer.h"
#include "memory.h"
#include "winograd.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Rows and columns of the weight in the order in which it is packed. The result of a transposed convolution of stride 2
// has four phases by the parity of its row and column, which take 4, 2, 2 and 1 of the taps.
static const int UP_TAPS[9][2] = {{0, 0}, {0, 2}, {2, 0}, {2, 2}, {0, 1}, {2, 1}, {1, 0}, {1, 2}, {1, 1}};
static const int PHASE_FIRST[4] = {0, 4, 6, 8}, PHASE_TAPS[4] = {4, 2, 2, 1};
static int tap_row(int64_t kind, int t) { return kind == UP ? UP_TAPS[t][0] : t / 3; }
static int tap_column(int64_t kind, int t) { return kind == UP ? UP_TAPS[t][1] : t % 3; }

struct Scratch {
  Buffer strip, values, products, lines, rows, panel;
};
static thread_local Scratch scratches[2];  // the second for computing an activation again in the middle of backward
static thread_local Buffer turned_buffer;

// f(i) for i = 0..n-1 on a team of threads; `even` gives each thread always the same share.
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

// Sums over an image: some pixels at a time in single precision, these in double precision to the part of a thread.
class Sums {
 public:
  Sums(int64_t threads, int64_t batch, int64_t length)
      : batch_(batch), length_(length), parts_(threads * batch * length), pixels_(threads * length) {}
  float* start(int slot) {
    zero(pixels_.data() + slot * length_, length_);
    return pixels_.data() + slot * length_;
  }
  void finish(int slot, int64_t n) {
    double* part = parts_.data() + (slot * batch_ + n) * length_;
    const float* pixels = pixels_.data() + slot * length_;
    for (int64_t i = 0; i < length_; i++) part[i] += pixels[i];
  }
  // `count` sums of each sample, from `first` on.
  void write(int64_t first, int64_t count, float* result) const {
    for (int64_t n = 0; n < batch_; n++)
      for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (size_t j = n * length_ + first + i; j < parts_.size(); j += batch_ * length_) sum += parts_[j];
        result[n * count + i] = static_cast<float>(sum);
      }
  }

 private:
  int64_t batch_, length_;
  std::vector<double> parts_;
  std::vector<float> pixels_;
};

// Rows first..last of image n, the work of one thread or of a whole team.
struct Range {
  int64_t n, first, last;
  int team;  // threads that share each step
  int slot;  // of the sums, where there is one thread
  int current() const { return team > 1 ? omp_get_thread_num() : slot; }
};

static bool small_weight(const Layer& l) { return POINTS * l.in * l.own.channels * 4 <= int64_t(10) << 20; }

// Rows of a range. Large images are divided among the threads, which then work alone; small ones, and those whose
// weights should pass through the cache only once, are worked on by all threads together.
static int64_t range_rows(const Layer& l) {
  const int64_t parts = l.batch >= 4 * l.threads ? 1 : l.threads;
  const int64_t rows = ((l.height + parts - 1) / parts + TILE - 1) / TILE * TILE;
  const bool divide = l.kind == UP || (l.kind == WINOGRAD && small_weight(l));
  return divide && rows >= 4 * TILE ? std::min(rows, l.height) : l.height;
}

template <class F>
static void for_ranges(const Layer& l, F f) {
  const int64_t step = range_rows(l), parts = (l.height + step - 1) / step, ranges = l.batch * parts;
  const bool team = l.threads > 1 && ranges < l.threads;
#pragma omp parallel for num_threads(l.threads) schedule(static) if (!team && l.threads > 1)
  for (int64_t i = 0; i < ranges; i++) {
    const int64_t first = i % parts * step;
    f(Range{i / parts, first, std::min(first + step, l.height), team ? static_cast<int>(l.threads) : 1,
            team ? 0 : omp_get_thread_num()});
  }
}

// The packed weight of the backward pass.
static const float* transposed(const Layer& l) {
  const int64_t matrices = l.kind == WINOGRAD ? POINTS : 9, in = l.in, out = l.own.channels;
  float* result = turned_buffer.get(matrices * panels(in) * out * PANEL);
  parallel(l.threads, false, panels(in), [&](int64_t j) {
    for (int64_t t = 0; t < matrices; t++) {
      if (l.kind == WINOGRAD)
        transpose_panel(l.weight + turned(t) * panels(out) * in * PANEL, in * PANEL, in, out, j,
                        result + (t * panels(in) + j) * out * PANEL);
      else
        transpose_panel(l.weight + t * in * PANEL, 9 * in * PANEL, in, out, j,
                        result + (j * matrices + t) * out * PANEL);
    }
  });
  return result;
}

// One direction of a 3x3 convolution.
struct Pass {
  const Layer& l;
  bool back;
  const float* weight;  // packed for this direction; null for Winograd's backward where that is too large to keep
  Scratch& scratch;
  int64_t inner() const { return back ? l.own.channels : l.in; }
  int64_t outer() const { return back ? l.in : l.own.channels; }
  int64_t pitch() const { return (l.width + 1) * inner(); }  // of the strip
};

// Hands a row of results to `apply`.
template <class Apply>
static void apply_row(int64_t r, int64_t width, int64_t channels, const float* row, int64_t stride, Apply apply) {
  for (int64_t x = 0; x < width; x += RUN)
    for (int64_t c = 0; c < channels; c += LANES) {
      const int pixels = std::min<int64_t>(RUN, width - x);
      Vec run[1][RUN];
      for (int i = 0; i < pixels; i++) run[0][i] = load(row + (x + i) * stride + c);
      apply(r, x, c, run, pixels, std::min<int64_t>(LANES, channels - c));
    }
}

// Convolves a band: `rows` rows from the strip, whose pixel (1, 1) is the band's first. The strip has rows + 2 rows of
// width + 1 pixels (the zero before a row is also the one behind the row above), and a pixel more. The results go to
// finish(slot, row, body), which calls body(apply).
template <class Finish>
static void direct_band(
    const Pass& pass, const Range& range, int64_t first, int64_t rows, const float* strip, Finish finish) {
  const int64_t inner = pass.inner(), outer = pass.outer(), width = pass.l.width, pitch = width + 1;
  ptrdiff_t offset[9];
  for (int t = 0; t < 9; t++)
    offset[t] = ((tap_row(CONV, t) - 1) * pitch + tap_column(CONV, t) - 1) * inner * (pass.back ? -1 : 1);
  const int64_t pixels = rows * pitch - 1, stride = padded(outer);
  const Left left = {strip + (pitch + 1) * inner, inner, inner, 9, offset};
  float* result = pass.scratch.products.get(pixels * stride);
  parallel(range.team, false, panels(outer), [&](int64_t j) {
    multiply_panel(left, pass.weight + j * 9 * inner * PANEL, result + j * PANEL, stride, 0, pixels);
  });
  parallel(range.team, true, rows, [&](int64_t r) {
    finish(range.current(), first + r,
           [&](auto apply) { apply_row(first + r, width, outer, result + r * pitch * stride, stride, apply); });
  });
}

// The same by Winograd's algorithm, `chunk` tiles at a time.
template <class Finish>
static void winograd_band(const Pass& pass, const Range& range, int64_t first, int64_t rows, const float* strip,
                          int64_t chunk, Finish finish) {
  const int64_t inner = pass.inner(), outer = pass.outer(), pitch = pass.pitch();
  // Strides beside powers of two: the 36 values of a tile would otherwise fall on the same lines of the cache.
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
      const ptrdiff_t none = 0;
      const Left left = {values + point * values_stride, POINTS * values_stride, inner, 1, &none};
      const float* panel = pass.weight + i * inner * PANEL;
      if (!pass.weight) {
        float* turn = scratches[0].panel.get(inner * PANEL);  // this thread's own
        transpose_panel(pass.l.weight + turned(point) * panels(inner) * outer * PANEL, outer * PANEL, outer, inner, j,
                        turn);
        panel = turn;
      }
      multiply_panel(left, panel, products + point * products_stride + j * PANEL, POINTS * products_stride, 0, count);
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

// Rows that are taken through together, and Winograd's tiles within.
struct Band {
  int64_t rows, chunk;
};

static Band band_of(const Layer& l) {
  if (l.kind == CONV) return {std::max<int64_t>(TILE, 256 / l.width), 0};
  const int64_t across = l.width / TILE, channels = std::max(l.in, l.own.channels);
  // While a chunk of tiles is worked on, all transformed weights pass through: many tiles where these are large.
  const int64_t chunk = small_weight(l) ? std::max<int64_t>(4 * ROWS, 2048 / channels / ROWS * ROWS) : 128;
  return {std::max<int64_t>(1, chunk / across) * TILE, chunk};
}

// Takes a range through a convolution band by band. load_rows(first, last, to) writes those rows of what is convolved,
// a pitch apart; some come before they are needed, `ahead` rows behind a band. done(first, rows) follows each band.
template <class LoadRows, class Finish, class Done>
static void convolve(const Pass& pass, const Range& range, int64_t ahead, LoadRows load_rows, Finish finish, Done done) {
  const Layer& l = pass.l;
  const int64_t pitch = pass.pitch(), inner = pass.inner();
  const Band band = band_of(l);
  const int64_t step = std::min(band.rows, range.last - range.first);
  float* strip = pass.scratch.strip.get((step + 1 + ahead) * pitch + inner);
  for (int64_t first = range.first; first < range.last; first += step) {
    const int64_t rows = std::min(step, range.last - first);
    const int64_t kept = first > range.first ? 1 + ahead : 0;  // rows of the strip before
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

// Rows range.first..range.last of y, to y_rows(first row).
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
  int64_t base = range.first;  // row of the image that `band` begins with
  auto y_rows = [&](int64_t y) { return l.y ? l.y + (n * l.height + y) * row : band + (y - base) * row; };
  convolve_forward(l, range, scratches[0], y_rows, [&](int64_t first, int64_t rows) {
    if (l.own.colours)
      parallel(range.team, true, rows,
               [&](int64_t i) { colour_row(l.own, n, first + i, l.height, l.width, y_rows(first + i)); });
    base = first + rows;
  });
}

// Where the last layer's y is computed again: its tiles along the borders between ranges. A thread cannot compute those
// by itself, because its neighbour may already have written gradients over the x that they need.
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
  // Rows of a range that are not here.
  int64_t first(const Range& range) const { return range.first ? range.first + TILE : 0; }
  int64_t last(const Range& range) const { return range.last < height_ ? range.last - TILE : height_; }
  // One that is.
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
  const int64_t ahead = l.grad || l.y ? 1 : TILE;  // whole tiles are computed again
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
      if (r > range.last) return;  // nothing takes it
      const bool here = !again || (r >= borders.first(range) && r < borders.last(range));
      const float* y_row = here ? y + r * row : borders.row(range, r);
      const int slot = range.current();
      const bool mine = r >= range.first && r < range.last;  // the other ranges sum the others
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

// (1, 3, 3, 1) / 4 over four lines of n values.
static void blur(
    const float* a, const float* b, const float* c, const float* d, int64_t n, float* __restrict result) {
  for (int64_t i = 0; i < n; i++) result[i] = 0.25f * (a[i] + d[i]) + 0.75f * (b[i] + c[i]);
}

static int64_t up_rows(const Layer& l) {
  // Enough pixels for the product to run at speed, little enough for the four phases to stay in the cache.
  const int64_t row = 4 * (l.width + 1) * std::max(l.in, l.own.channels) * sizeof(float);
  return std::max<int64_t>({1, 256 / l.width, (int64_t(1) << 20) / row});
}

// Transposed convolution of stride 2, blurred. Row y of the input makes rows 2y and 2y + 1 of the transposed
// convolution (phases 0, 1 and 2, 3 by the column's parity); rows 2y and 2y + 1 of the blurred image take its rows
// 2y - 1 .. 2y + 3. The phases of two input rows are kept from one band to the next.
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
  for (int t = 0; t < 9; t++) offset[t] = -((tap_row(UP, t) == 2) * pitch + (tap_column(UP, t) == 2)) * l.in;
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
      const int64_t p = i / panels(out), j = i % panels(out);  // the phase with the most work first
      const Left left = {strip + (pitch + 1) * l.in, l.in, l.in, PHASE_TAPS[p], offset + PHASE_FIRST[p]};
      const float* panel = l.weight + (j * 9 + PHASE_FIRST[p]) * l.in * PANEL;
      multiply_panel(left, panel, phase_row(p, 2) + j * PANEL, stride, 0, rows * pitch);
    });
    // The phases of input row y lie at y - first + 2.
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

// Its adjoint: blur the gradient and split it into phases, convolve with stride 2.
static void up_backward(const Layer& l, const Range& range, const float* weight, Sums& sums) {
  Scratch& scratch = scratches[0];
  const int64_t n = range.n, width = l.width, pitch = width + 1, out = l.own.channels;
  const int64_t line = pitch * out, stride = padded(l.in);
  const int64_t band = std::min(up_rows(l), range.last - range.first);
  float* lines = scratch.lines.get(2 * (2 * band + 4) * line);  // rows of the gradient, blurred and split along x
  float* ends = scratch.rows.get(range.team * 8 * out);
  float* phases = scratch.strip.get(4 * (band + 1) * line + out);
  float* result = scratch.products.get(band * pitch * stride);
  auto line_of = [&](int64_t r, int odd) { return lines + (2 * r + odd) * line; };
  ptrdiff_t offset[9];
  for (int p = 0; p < 4; p++)
    for (int t = PHASE_FIRST[p]; t < PHASE_FIRST[p] + PHASE_TAPS[p]; t++)
      offset[t] = p * (band + 1) * line + ((tap_row(UP, t) == 2) * pitch + (tap_column(UP, t) == 2)) * out;

  for (int64_t first = range.first; first < range.last; first += band) {
    const int64_t rows = std::min(band, range.last - first);
    const int64_t kept = first > range.first ? 4 : 0;
    std::memmove(lines, line_of(2 * band, 0), kept * 2 * line * sizeof(float));
    parallel(range.team, true, 2 * rows + 4 - kept, [&](int64_t i) {
      const int64_t r = 2 * first - 2 + kept + i;  // of the gradient
      float *even = line_of(kept + i, 0), *odd = line_of(kept + i, 1);
      if (r < 0 || r >= 2 * l.height) return zero(even, 2 * line);
      const float* row = l.grad + (n * 2 * l.height + r) * 2 * width * out;
      // Four pixels from 2x - 2 on make value x of the even line, and from 2x - 1 on that of the odd one.
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
    const Left left = {phases, out, out, 9, offset};
    parallel(range.team, false, panels(l.in), [&](int64_t j) {
      multiply_panel(left, weight + j * 9 * out * PANEL, result + j * PANEL, stride, 0, rows * pitch - 1);
    });
    with_colours(l.before.colours, [&](auto colours) {
      parallel(range.team, true, rows, [&](int64_t i) {
        const int slot = range.current();
        const InputGradient<colours> apply{l, n, sums.start(slot)};
        apply_row(first + i, width, l.in, result + i * pitch * stride, stride, apply);
        sums.finish(slot, n);
      });
    });
  }
}

// Floats that a packed weight takes.
EXPORT int64_t frozen_packed_size(int64_t kind, int64_t out, int64_t in) {
  return (kind == WINOGRAD ? POINTS : 9) * panels(out) * in * PANEL;
}

// Packs a weight (out, in, 3, 3) as the kernels read it.
EXPORT void frozen_pack(int64_t kind, int64_t out, int64_t in, int64_t threads, const float* weight, float* packed) {
  parallel(threads, false, panels(out), [&](int64_t j) {
    for (int64_t i = 0; i < in; i++)
      for (int64_t c = 0; c < PANEL; c++) {
        const int64_t o = j * PANEL + c;
        double kernel[9] = {};
        if (o < out) std::copy_n(weight + (o * in + i) * 9, 9, kernel);
        if (kind == WINOGRAD) {
          double half[PATCH * 3], full[POINTS];
          for (int x = 0; x < 3; x++) transform_weight(kernel + x, 3, half + x, 3);
          for (int y = 0; y < PATCH; y++) transform_weight(half + 3 * y, 1, full + PATCH * y, 1);
          for (int p = 0; p < POINTS; p++)
            packed[((p * panels(out) + j) * in + i) * PANEL + c] = static_cast<float>(full[p]);
        } else {
          for (int t = 0; t < 9; t++)
            packed[((j * 9 + t) * in + i) * PANEL + c] =
                static_cast<float>(kernel[tap_row(kind, t) * 3 + tap_column(kind, t)]);
        }
      }
  });
}

EXPORT void frozen_forward(const Layer* layer) {
  const Layer& l = *layer;
  for_ranges(l, [&](const Range& range) { l.kind == UP ? up_forward(l, range) : forward(l, range); });
}

EXPORT void frozen_backward(const Layer* layer) {
  const Layer& l = *layer;
  const int64_t own = l.grad ? 0 : (3 + l.own.colours) * l.own.channels;
  const int64_t before = l.grad_before ? (3 + l.before.colours) * l.in : 0;
  Sums own_sums(l.threads, l.batch, own), sums(l.threads, l.batch, l.in + before);
  const float* weight = l.kind == WINOGRAD && !small_weight(l) ? nullptr : transposed(l);
  const Borders borders(l);
  for_ranges(l, [&](const Range& range) {
    if (l.kind == UP) up_backward(l, range, weight, sums);
    else backward(l, range, weight, borders, own_sums, sums);
  });
  sums.write(0, l.in, l.grad_style);
  if (own) own_sums.write(0, own, l.own.sums);
  if (before) sums.write(l.in, before, l.before.sums);
}

// The image of the next resolution: rgb += image, enlarged by (1, 3, 3, 1) / 4. `planes` images of height x width.
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

// Its adjoint: from the gradient (2 height x 2 width) to that of the image before.
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
