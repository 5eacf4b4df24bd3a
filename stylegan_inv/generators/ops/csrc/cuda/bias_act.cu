// The epilogue of a synthesis layer, forward and backward:
//     v = blur(x) * scale + noise + bias,    y = clamp(gain * lrelu(v))
// with blur (four taps, one pixel of padding), scale, noise and bias each optional.
//
// The backward pass needs only y, which is the next layer's input anyway. The sign of y tells the slope at v:
//     dv = dy * gain * (y > 0 ? 1 : slope), 0 where y is clamped;    dx = blur'(dv * scale).
// Since the leaky ReLU is positively homogeneous, dv * v = dy * y where y is not clamped. With sums over the pixels
// of a channel: d scale = sum dv blur(x) = (sum dy y - sum dv noise - bias sum dv) / scale.
#include "strip.cuh"

struct Constants {
    const float* scale;  // (batch, channels) or null
    const float* bias;   // (channels) or null
    const float* noise;  // (1 or batch, out_h, out_w) or null
    long long noise_n;   // its stride over samples
    int channels, width;
    float slope, gain, clamp;  // an infinite clamp has no effect
};

template <int V> struct Channels {
    float scale[V], bias[V];
    const float* noise;

    __device__ void start(const Constants& k, int n, int c) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            scale[i] = k.scale ? k.scale[static_cast<long long>(n) * k.channels + c + i] : 1.0f;
            bias[i] = k.bias ? k.bias[c + i] : 0.0f;
        }
        noise = k.noise ? k.noise + n * k.noise_n : nullptr;
    }
    __device__ float noise_at(const Constants& k, int row, int column) const {
        return noise ? noise[static_cast<long long>(row) * k.width + column] : 0.0f;
    }
};

template <typename T, int V> struct BiasAct {
    static constexpr int sums = 0;
    View x, y;
    Constants k;
    Plane<T, V> from, to;
    Channels<V> channels;

    BiasAct(const View& x, const View& y, const Constants& k) : x(x), y(y), k(k) {}

    __device__ void start(int n, int c) {
        from = {x, n, c};
        to = {y, n, c};
        channels.start(k, n, c);
    }
    __device__ void load(int row, int column, float (&v)[V], bool, float (&)[1][V]) { from.load(row, column, v); }
    __device__ void store(int row, int column, float (&v)[V]) {
        const float noise = channels.noise_at(k, row, column);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float u = v[i] * channels.scale[i] + noise + channels.bias[i];
            u = k.gain * (u > 0 ? u : u * k.slope);
            v[i] = u > k.clamp ? k.clamp : u < -k.clamp ? -k.clamp : u;  // a NaN passes, as in PyTorch
        }
        to.store(row, column, v);
    }
};

template <typename T, int V> struct BiasActGrad {
    static constexpr int sums = 3;  // of dv, dy * y and dv * noise
    View dy, y, dx;
    Constants k;
    Plane<T, V> from, seen, to;
    Channels<V> channels;
    float clamp;

    BiasActGrad(const View& dy, const View& y, const View& dx, const Constants& k) : dy(dy), y(y), dx(dx), k(k) {}

    __device__ void start(int n, int c) {
        from = {dy, n, c};
        seen = {y, n, c};
        to = {dx, n, c};
        channels.start(k, n, c);
        clamp = widen(narrow<T>(k.clamp));  // in the precision of y
    }
    __device__ void load(int row, int column, float (&v)[V], bool own, float (&sum)[3][V]) {
        float g[V], a[V];
        from.load(row, column, g);
        seen.load(row, column, a);
        const float noise = own ? channels.noise_at(k, row, column) : 0.0f;
#pragma unroll
        for (int i = 0; i < V; i++) {
            const bool inside = fabsf(a[i]) < clamp;
            const float dv = inside ? g[i] * k.gain * (a[i] > 0 ? 1.0f : k.slope) : 0.0f;
            v[i] = dv * channels.scale[i];
            if (own) {
                sum[0][i] += dv;
                sum[1][i] += inside ? g[i] * a[i] : 0.0f;
                sum[2][i] += dv * noise;
            }
        }
    }
    __device__ void store(int row, int column, const float (&v)[V]) { to.store(row, column, v); }
};

EXPORT bias_act(Division d, Taps taps, View x, View y, Constants constants, cudaStream_t stream) {
    return taps.f ? launch<BiasAct, 1, 1, 4>(d, taps, nullptr, stream, x, y, constants)
                  : launch<BiasAct, 1, 1, 0>(d, taps, nullptr, stream, x, y, constants);
}

// `partial`: float32 (blocks of pixels, 3, batch, channels).
EXPORT bias_act_backward(Division d, Taps taps, View dy, View y, View dx, Constants constants, float* partial,
                         cudaStream_t stream) {
    return taps.f ? launch<BiasActGrad, 1, 1, 4>(d, taps, partial, stream, dy, y, dx, constants)
                  : launch<BiasActGrad, 1, 1, 0>(d, taps, partial, stream, dy, y, dx, constants);
}
