// Transposed convolution of stride 2, followed by the blur, by Winograd's algorithm (winograd_up.h).
//
// A band consists of rows of tiles. Four rows of pixels give a row of values at each of five points, and the pixels
// themselves are kind 5. Each of these rows is transformed in the same way. Every pair of a kind for the rows and one
// for the columns has a weight matrix, which multiplies the values of these kinds.
#pragma once

#include "work.h"

// Pixels by kinds: for each pair, consecutive rows of pixels, as a matrix product reads or writes them.
struct UpGrid {
  float* data;
  int64_t pixel;      // floats from one to the next
  int64_t across;     // tiles in a row
  int64_t rows, odd;  // largest number of rows of a kind: of a point, of the odd one

  UpGrid(Buffer& buffer, int64_t channels, int64_t across_, int64_t tile_rows)
      // not a power of two; otherwise values of a tile would map to the same cache lines
      : pixel(channels + 16), across(across_), rows(tile_rows + 1), odd(UP_TILE * tile_rows + 2) {
    data = buffer.get((UP_POINTS * rows + odd) * UP_VALUES * across * pixel);
  }
  float* at(int64_t down_kind, int64_t across_kind, int64_t row) const {
    const int64_t of_kind = down_kind < UP_POINTS ? rows : odd;
    const int64_t before = down_kind * rows * UP_VALUES + across_kind * of_kind;
    return data + (before + row * up_span(across_kind)) * across * pixel;
  }
};

// Positions of the values of a tile: for each of its rows (five points, four pixels) by the kind along the row.
struct UpTile {
  float* at[UP_VALUES][UP_KINDS];

  // row[k] is the row of the tile's value k among the rows of its kind; negative if there is none.
  UpTile(const UpGrid& grid, const int64_t row[UP_VALUES], int64_t t) {
    for (int k = 0; k < UP_VALUES; k++)
      for (int kind = 0; kind < UP_KINDS; kind++)
        at[k][kind] = row[k] < 0 ? nullptr
                                 : grid.at(std::min<int64_t>(k, UP_POINTS), kind, row[k]) + t * up_span(kind) * grid.pixel;
  }
};

// Rows of tiles in a band.
static int64_t up_tile_rows(const Layer& l, const Range& range) {
  const int64_t across = l.width / UP_TILE, tiles = small_weight(l) ? 128 : 64;
  return std::min((range.last - range.first) / UP_TILE, std::max<int64_t>(1, tiles / across));
}

// result(kinds) = left(kinds) @ weight(kinds), for all kinds, where of(kinds) gives the two and the number of rows.
struct UpProduct {
  Left left;
  float* result;
  int64_t rows;
};

template <class Of>
static void multiply_up(const Pass& pass, int team, int64_t stride, Of of) {
  const int64_t count = panels(pass.outer());
  parallel(team, false, UP_MATRICES * count, [&](int64_t i) {
    const int64_t matrix = UP_MATRICES - 1 - i / count, j = i % count;  // the matrix with the most work comes first
    const UpProduct product = of(matrix / UP_KINDS, matrix % UP_KINDS);
    multiply_panel(product.left, pass.panel(matrix, j), product.result + j * PANEL, stride, product.rows);
  });
}

// A row of a tile's results, upsampled and blurred: 8 pixels from 4 of the input.
static inline void up_row(const float* const at[UP_KINDS], bool first, bool last, int64_t pixel, int64_t c, Vec r[8]) {
  if (!at[0]) {
    for (int i = 0; i < 8; i++) r[i] = Vec{};
    return;
  }
  Vec m[UP_POINTS], middle[3], q[11];  // odd -1, even 0, odd 0, ..., even 4, odd 4
  for (int k = 0; k < UP_POINTS; k++) m[k] = load(at[k] + c);
  interpolate(m, middle);
  q[1] = first ? m[0] : m[0] + load(at[4] + c - pixel);
  for (int k = 0; k < 3; k++) q[3 + 2 * k] = middle[k];
  q[9] = last ? m[4] : m[4] + load(at[0] + c + pixel);
  const float* odd = at[UP_POINTS] + c;
  q[0] = first ? Vec{} : load(odd - pixel);
  for (int k = 0; k < UP_TILE; k++) q[2 + 2 * k] = load(odd + k * pixel);
  q[10] = last ? Vec{} : load(odd + UP_TILE * pixel);
  blur_run(q, 8, r);
}

// Output rows 2y - 2 .. 2y + 5 of tile t, whose first row is y: the last two are completed by the next tile. `kept`
// has, for each pixel, the values that the next tile needs: rows odd 2, even 3, odd 3, and the coefficient 4.
template <class Apply>
static void up_tile_output(const UpTile& tile, const UpGrid& products, int64_t t, int64_t channels, float* kept,
                           Apply apply) {
  const int64_t pixel = products.pixel, step = padded(channels);
  const auto compute = [&](int64_t c, Vec result[8][1][8]) {
    Vec wide[UP_VALUES][8];
    for (int k = 0; k < UP_VALUES; k++) up_row(tile.at[k], t == 0, t == products.across - 1, pixel, c, wide[k]);
    for (int x = 0; x < 8; x++) {
      float* keep = kept + (8 * t + x) * 4 * step + c;
      Vec m[UP_POINTS], middle[3], q[11], column[8];
      for (int k = 0; k < UP_POINTS; k++) m[k] = wide[k][x];
      interpolate(m, middle);
      for (int k = 0; k < 3; k++) q[k] = load(keep + k * step), q[5 + 2 * k] = middle[k];
      q[3] = m[0] + load(keep + 3 * step);
      for (int k = 0; k < UP_TILE; k++) q[4 + 2 * k] = wide[UP_POINTS + k][x];
      blur_run(q, 8, column);
      for (int y = 0; y < 8; y++) result[y][0][x] = column[y];
      for (int k = 0; k < 3; k++) store(keep + k * step, q[8 + k]);
      store(keep + 3 * step, m[4]);
    }
  };
  // Whole cache lines at a time, because the pixels of 8 rows compete for the same cache sets.
  constexpr int PARTS = 2;
  for (int64_t c = 0; c < channels; c += PARTS * LANES) {
    Vec result[PARTS][8][1][8];
    for (int i = 0; i < PARTS; i++) compute(c + i * LANES, result[i]);
    for (int y = 0; y < 8; y++)
      for (int i = 0; i < PARTS && c + i * LANES < channels; i++) apply(y, c + i * LANES, result[i][y]);
  }
}

static void up_winograd_forward(const Layer& l, const Range& range) {
  Scratch& scratch = scratches[0];
  const Pass pass{l, false, l.weight, scratch};
  const int64_t n = range.n, in = l.in, out = l.own.channels, across = l.width / UP_TILE;
  const int64_t most = up_tile_rows(l, range);
  // Rows of the scaled image from the one before to the one after the band, then those of values at the points -1,
  // 2 and 1/2. In each, pixels, then values at these points. (The other two points' values are pixels.)
  const int64_t pixel = in + 16, pitch = (UP_TILE + 3) * across * pixel, above = UP_TILE * most + 2;
  float* values = scratch.values.get((above + 3 * most) * pitch);
  const UpGrid products(scratch.products, padded(out), across, most);
  float* kept = scratch.lines.get(2 * l.width * 4 * padded(out));
  zero(kept, 2 * l.width * 4 * padded(out));
  const float *x = l.x + n * l.x_stride, *style = l.style + n * in;
  const Activation activation{l.own, n, 2 * l.height, 2 * l.width, l.y + n * 4 * l.height * l.width * out, 0};

  for (int64_t first = range.first; first < range.last; first += UP_TILE * most) {
    const int64_t down = std::min(most, (range.last - first) / UP_TILE), behind = first + UP_TILE * down;
    // At borders between ranges, rows of the neighbouring range contribute to the results of this one.
    const bool before = first == range.first && first > 0, after = behind == range.last && behind < l.height;
    const auto row = [&](int64_t y) { return values + (y - first + 1) * pitch; };
    const auto pixels = [&](int64_t y, int64_t t, int64_t c, Vec d[UP_TILE]) {
      const int lanes = std::min<int64_t>(LANES, in - c);
      const Vec scale = load_part(style + c, lanes);
      for (int j = 0; j < UP_TILE; j++) d[j] = load_part(x + (y * l.width + UP_TILE * t + j) * in + c, lanes) * scale;
    };
    const auto spread = [&](const Vec d[UP_TILE], float* to, int64_t t, int64_t c) {
      Vec points[3];
      evaluate(d, points);
      for (int j = 0; j < UP_TILE; j++) store(to + (UP_TILE * t + j) * pixel + c, d[j]);
      for (int k = 0; k < 3; k++) store(to + ((UP_TILE + k) * across + t) * pixel + c, points[k]);
    };
    parallel(range.team, true, down * across, [&](int64_t i) {
      const int64_t s = i / across, t = i % across, y = first + UP_TILE * s;
      for (int64_t c = 0; c < in; c += LANES) {
        Vec d[UP_TILE][UP_TILE], point[3][UP_TILE];
        for (int j = 0; j < UP_TILE; j++) pixels(y + j, t, c, d[j]), spread(d[j], row(y + j), t, c);
        for (int j = 0; j < UP_TILE; j++) {
          const Vec column[UP_TILE] = {d[0][j], d[1][j], d[2][j], d[3][j]};
          Vec points[3];
          evaluate(column, points);
          for (int k = 0; k < 3; k++) point[k][j] = points[k];
        }
        for (int k = 0; k < 3; k++) spread(point[k], values + (above + k * most + s) * pitch, t, c);
      }
    });
    for (const int64_t y : {first - 1, behind})
      if (y < first ? before : after)
        parallel(range.team, true, across, [&](int64_t t) {
          for (int64_t c = 0; c < in; c += LANES) {
            Vec d[UP_TILE];
            pixels(y, t, c, d);
            spread(d, row(y), t, c);
          }
        });

    multiply_up(pass, range.team, products.pixel, [&](int64_t down_kind, int64_t across_kind) {
      const float* data = nullptr;
      int64_t jump = pitch, rows = down, stride = pixel, run = across;
      if (down_kind == 0) data = row(first), jump *= UP_TILE, rows += after;
      else if (down_kind < 4) data = values + (above + (down_kind - 1) * most) * pitch;
      else if (down_kind == 4) data = row(before ? first - 1 : first + 3), jump *= UP_TILE, rows += before;
      else data = row(first - before), rows = UP_TILE * down + before + after;
      if (across_kind == 0) stride *= UP_TILE;
      else if (across_kind < 4) data += (UP_TILE + across_kind - 1) * across * pixel;
      else if (across_kind == 4) data += 3 * pixel, stride *= UP_TILE;
      else run = l.width;
      return UpProduct{{data, stride, run, jump, in}, products.at(down_kind, across_kind, 0), rows * run};
    });

    parallel(range.team, true, across, [&](int64_t t) {
      const auto output = [&](const int64_t (&rows)[UP_VALUES], int64_t y) {
        up_tile_output(UpTile(products, rows, t), products, t, out, kept, [&](int i, int64_t c, const Vec (&u)[1][8]) {
          const int64_t r = 2 * y - 2 + i;
          if (r < 2 * range.first || r >= 2 * range.last) return;
          activation(r, 8 * t, c, u, 8, std::min<int64_t>(LANES, out - c));
        });
      };
      if (before) output({-1, -1, -1, -1, 0, -1, -1, -1, 0}, first - UP_TILE);
      for (int64_t s = 0; s < down; s++) {
        const int64_t odd = UP_TILE * s + before;
        output({s, s, s, s, s + before, odd, odd + 1, odd + 2, odd + 3}, first + UP_TILE * s);
      }
      if (behind < range.last) return;
      if (after) output({down, -1, -1, -1, -1, UP_TILE * down + before, -1, -1, -1}, behind);
      else output({-1, -1, -1, -1, -1, -1, -1, -1, -1}, behind);
    });
  }
  if (l.own.colours)
    parallel(range.team, true, 2 * (range.last - range.first), [&](int64_t i) {
      const int64_t r = 2 * range.first + i;
      colour_row(l.own, n, r, 2 * l.height, 2 * l.width, activation.y + r * 2 * l.width * out);
    });
}

// Twelve pixels of the gradient, blurred and split by parity: the values for four pixels of the input.
static inline void gather_up(const Vec q[12], Vec r[UP_VALUES]) {
  Vec blurred[9], even[UP_POINTS];  // even 0, odd 0, ..., even 4
  blur_run(q, 9, blurred);
  for (int k = 0; k < UP_POINTS; k++) even[k] = blurred[2 * k];
  interpolate_transposed(even, r);
  for (int k = 0; k < UP_TILE; k++) r[UP_POINTS + k] = blurred[2 * k + 1];
}

// The same for one column of the gradient from row `top` on, for all channels; values are `step` apart.
static void gradient_column(const Layer& l, int64_t n, int64_t top, int64_t x, float* values, int64_t step) {
  const int64_t height = 2 * l.height, width = 2 * l.width, out = l.own.channels;
  const bool within = x >= 0 && x < width;
  for (int64_t c = 0; c < out; c += LANES) {
    Vec q[12], r[UP_VALUES];
    for (int64_t y = 0; y < 12; y++) {
      const bool inside = within && top + y >= 0 && top + y < height;
      q[y] = inside ? load_part(l.grad + ((n * height + top + y) * width + x) * out + c, std::min<int64_t>(LANES, out - c))
                    : Vec{};
    }
    gather_up(q, r);
    for (int k = 0; k < UP_VALUES; k++) store(values + k * step + c, r[k]);
  }
}

// Values along a tile's row, by their kinds.
static inline void load_up(const float* const at[UP_KINDS], int64_t pixel, int64_t c, Vec m[UP_VALUES]) {
  for (int k = 0; k < UP_POINTS; k++) m[k] = load(at[k] + c);
  for (int k = 0; k < UP_TILE; k++) m[UP_POINTS + k] = load(at[UP_POINTS] + k * pixel + c);
}

static inline void store_up(float* const at[UP_KINDS], int64_t pixel, int64_t c, const Vec m[UP_VALUES]) {
  for (int k = 0; k < UP_POINTS; k++) store(at[k] + c, m[k]);
  for (int k = 0; k < UP_TILE; k++) store(at[UP_POINTS] + k * pixel + c, m[UP_POINTS + k]);
}

static void up_winograd_backward(const Layer& l, const Range& range, const float* weight, Sums& sums) {
  Scratch& scratch = scratches[0];
  const Pass pass{l, true, weight, scratch};
  const int64_t n = range.n, in = l.in, out = l.own.channels, across = l.width / UP_TILE;
  const int64_t most = up_tile_rows(l, range);
  const UpGrid values(scratch.values, out, across, most), products(scratch.products, padded(in), across, most);
  const auto rows_of = [](int64_t s, int64_t k) { return k < UP_POINTS ? s : UP_TILE * s + k - UP_POINTS; };
  const auto tile_of = [&](const UpGrid& grid, int64_t s, int64_t t) {
    int64_t rows[UP_VALUES];
    for (int k = 0; k < UP_VALUES; k++) rows[k] = rows_of(s, k);
    return UpTile(grid, rows, t);
  };

  for (int64_t first = range.first; first < range.last; first += UP_TILE * most) {
    const int64_t down = std::min(most, (range.last - first) / UP_TILE), tiles = down * across;
    const int64_t step = padded(out) + 16, parts = (across + RUN - 1) / RUN;
    parallel(range.team, true, down * parts, [&](int64_t i) {
      const int64_t s = i / parts, top = 2 * (first + UP_TILE * s) - 2, begin = i % parts * RUN;
      float* columns = scratches[0].lines.get(UP_VALUES * 12 * step);  // of this thread; a tile needs 12
      for (int64_t t = begin; t < std::min(across, begin + RUN); t++) {
        const int kept = t > begin ? 4 : 0;
        for (int k = 0; k < UP_VALUES; k++) {
          float* row = columns + 12 * k * step;
          std::memcpy(row, row + 8 * step, kept * step * sizeof(float));
        }
        for (int x = kept; x < 12; x++)
          gradient_column(l, n, top, 8 * t - 2 + x, columns + x * step, 12 * step);
        const UpTile tile = tile_of(values, s, t);
        for (int64_t c = 0; c < out; c += LANES)
          for (int k = 0; k < UP_VALUES; k++) {
            Vec q[12], r[UP_VALUES];
            for (int x = 0; x < 12; x++) q[x] = load(columns + (12 * k + x) * step + c);
            gather_up(q, r);
            store_up(tile.at[k], values.pixel, c, r);
          }
      }
    });
    multiply_up(pass, range.team, products.pixel, [&](int64_t down_kind, int64_t across_kind) {
      const int64_t rows = down * up_span(down_kind) * across * up_span(across_kind);
      return UpProduct{{values.at(down_kind, across_kind, 0), values.pixel, rows, 0, out},
                       products.at(down_kind, across_kind, 0),
                       rows};
    });
    with_colours(l.before.colours, [&](auto colours) {
      parallel(range.team, true, (tiles + RUN - 1) / RUN, [&](int64_t group) {
        const int slot = range.current();
        const InputGradient<colours> apply{l, n, sums.start(slot)};
        for (int64_t i = group * RUN; i < std::min(tiles, (group + 1) * RUN); i++) {
          const UpTile tile = tile_of(products, i / across, i % across);
          for (int64_t c = 0; c < in; c += LANES) {
            Vec half[UP_TILE][UP_VALUES], result[UP_TILE][UP_TILE];
            for (int k = 0; k < UP_VALUES; k++) {
              Vec m[UP_VALUES], r[UP_TILE];
              load_up(tile.at[k], products.pixel, c, m);
              evaluate_transposed(m, r);
              for (int x = 0; x < UP_TILE; x++) half[x][k] = r[x];
            }
            for (int x = 0; x < UP_TILE; x++) {
              Vec r[UP_TILE];
              evaluate_transposed(half[x], r);
              for (int y = 0; y < UP_TILE; y++) result[y][x] = r[y];
            }
            apply(first + i / across * UP_TILE, i % across * UP_TILE, c, result, UP_TILE,
                  std::min<int64_t>(LANES, in - c));
          }
        }
        sums.finish(slot, n);
      });
    });
  }
}
