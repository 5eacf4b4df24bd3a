// Scales channels by styles: y = x * s. The backward pass computes dx = dy * s and ds = sum over pixels of dy * x at
// once.
#include "strip.cuh"

template <int V> struct Styles {
    float s[V];

    __device__ void start(const float* styles, int count, int n, int c) {
#pragma unroll
        for (int i = 0; i < V; i++) s[i] = styles[static_cast<long long>(n) * count + c + i];
    }
};

template <typename T, int V> struct Modulate {
    static constexpr int sums = 0;
    View x, y;
    const float* styles;  // (batch, channels)
    int count;
    Plane<T, V> from, to;
    Styles<V> own;

    Modulate(const View& x, const View& y, const float* styles, int count)
        : x(x), y(y), styles(styles), count(count) {}

    __device__ void start(int n, int c) {
        from = {x, n, c};
        to = {y, n, c};
        own.start(styles, count, n, c);
    }
    __device__ void load(int row, int column, float (&v)[V], bool, float (&)[1][V]) {
        from.load(row, column, v);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] *= own.s[i];
    }
    __device__ void store(int row, int column, const float (&v)[V]) { to.store(row, column, v); }
};

template <typename T, int V> struct ModulateGrad {
    static constexpr int sums = 1;  // dy * x
    View dy, x, dx;
    const float* styles;
    int count;
    Plane<T, V> from, seen, to;
    Styles<V> style;

    ModulateGrad(const View& dy, const View& x, const View& dx, const float* styles, int count)
        : dy(dy), x(x), dx(dx), styles(styles), count(count) {}

    __device__ void start(int n, int c) {
        from = {dy, n, c};
        seen = {x, n, c};
        to = {dx, n, c};
        style.start(styles, count, n, c);
    }
    __device__ void load(int row, int column, float (&v)[V], bool, float (&sum)[1][V]) {
        float g[V], a[V];
        from.load(row, column, g);
        seen.load(row, column, a);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[0][i] += g[i] * a[i];
            v[i] = g[i] * style.s[i];
        }
    }
    __device__ void store(int row, int column, const float (&v)[V]) { to.store(row, column, v); }
};

EXPORT modulate(Division d, View x, View y, const float* styles, cudaStream_t stream) {
    return launch<Modulate, 1, 1, 0>(d, Taps{}, nullptr, stream, x, y, styles, d.channels);
}

// `partial`: float32 (blocks of pixels, 1, batch, channels).
EXPORT modulate_backward(Division d, View dy, View x, View dx, const float* styles, float* partial,
                         cudaStream_t stream) {
    return launch<ModulateGrad, 1, 1, 0>(d, Taps{}, partial, stream, dy, x, dx, styles, d.channels);
}
