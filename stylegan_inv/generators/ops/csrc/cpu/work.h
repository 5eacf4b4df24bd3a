// Divides the work on a layer among threads and into passes, and provides their memory.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "layer.h"
#include "memory.h"
#include "threads.h"
#include "winograd.h"
#include "winograd_up.h"

static_assert(POINTS == UP_MATRICES, "both ways of Winograd's");
constexpr int64_t MATRICES = POINTS;  // of transformed weights

struct Scratch {
  Buffer strip, values, products, lines, rows, panel;
};
static thread_local Scratch scratches[2];  // the second for recomputing an activation in the backward pass
static thread_local Buffer turned_buffer;

// Sums over an image: in single precision over a few pixels, and in double precision over these sums of a thread.
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

// Rows first..last of image n, processed by one thread or by a team.
struct Range {
  int64_t n, first, last;
  int team;  // number of threads of each step
  int slot;  // index of the sums, for a single thread
  int current() const { return team > 1 ? omp_get_thread_num() : slot; }
};

static bool by_winograd(const Layer& l) { return l.kind == WINOGRAD || l.kind == UP_WINOGRAD; }
static bool small_weight(const Layer& l) { return MATRICES * l.in * l.own.channels * 4 <= int64_t(10) << 20; }

// Rows of a range. Large images are divided among the threads, which work independently. Small images, and
// layers whose weights should be read into the cache only once, are processed by all threads together.
static int64_t range_rows(const Layer& l) {
  const int64_t parts = l.batch >= 4 * l.threads ? 1 : l.threads;
  const int64_t rows = ((l.height + parts - 1) / parts + TILE - 1) / TILE * TILE;
  const bool divide = l.kind == UP || (by_winograd(l) && small_weight(l));
  return divide && rows >= 4 * TILE ? std::min(rows, l.height) : l.height;
}

template <class F>
static void for_ranges(const Layer& l, F f) {
  const int64_t step = range_rows(l), parts = (l.height + step - 1) / step, ranges = l.batch * parts;
  const int team = ranges < l.threads ? static_cast<int>(l.threads) : 1;
  const auto work = [&](int64_t i) {
    const int64_t first = i % parts * step;
    f(Range{i / parts, first, std::min(first + step, l.height), team, team > 1 ? 0 : omp_get_thread_num()});
  };
  // No parallel region surrounds those of a team, not even a serial one: libgomp would treat them as nested, create
  // new threads each time, and leave the threads of its pool spinning.
  if (team > 1 || l.threads == 1) {
    for (int64_t i = 0; i < ranges; i++) work(i);
  } else {
#pragma omp parallel for num_threads(l.threads) schedule(static)
    for (int64_t i = 0; i < ranges; i++) work(i);
  }
}

// Panel j of a matrix of transformed weights, for the backward pass.
static void transpose_matrix(const Layer& l, int64_t matrix, int64_t j, float* result) {
  const int64_t from = l.kind == WINOGRAD ? turned(matrix) : matrix, in = l.in, out = l.own.channels;
  transpose_panel(l.weight + from * panels(out) * in * PANEL, in * PANEL, in, out, j, result);
}

// The packed weight of the backward pass.
static const float* transposed(const Layer& l) {
  const int64_t matrices = by_winograd(l) ? MATRICES : 9, in = l.in, out = l.own.channels;
  float* result = turned_buffer.get(matrices * panels(in) * out * PANEL);
  parallel(l.threads, false, panels(in), [&](int64_t j) {
    for (int64_t t = 0; t < matrices; t++) {
      if (by_winograd(l)) transpose_matrix(l, t, j, result + (t * panels(in) + j) * out * PANEL);
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
  const float* weight;  // packed for this direction; null for Winograd's backward pass if it is too large to store
  Scratch& scratch;
  int64_t inner() const { return back ? l.own.channels : l.in; }
  int64_t outer() const { return back ? l.in : l.own.channels; }
  int64_t pitch() const { return (l.width + 1) * inner(); }  // of the strip

  // Panel j of a matrix of transformed weights.
  const float* panel(int64_t matrix, int64_t j) const {
    if (weight) return weight + (matrix * panels(outer()) + j) * inner() * PANEL;
    float* turn = scratches[0].panel.get(inner() * PANEL);  // of this thread
    transpose_matrix(l, matrix, j, turn);
    return turn;
  }
};

// Passes a row of results to `apply`.
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
