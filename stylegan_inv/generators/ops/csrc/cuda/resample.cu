// Pads, upsamples, filters and downsamples, and can add an image to the result.
#include "strip.cuh"

template <typename T, int V> struct Resample {
    static constexpr int sums = 0;
    View x, add, y;
    Plane<T, V> from, to, other;

    Resample(const View& x, const View& add, const View& y) : x(x), add(add), y(y) {}

    __device__ void start(int n, int c) {
        from = {x, n, c};
        to = {y, n, c};
        if (add.data) other = {add, n, c};
    }
    __device__ void load(int row, int column, float (&v)[V], bool, float (&)[1][V]) { from.load(row, column, v); }
    __device__ void store(int row, int column, float (&v)[V]) {
        if (add.data) {
            float more[V];
            other.load(row, column, more);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += more[i];
        }
        to.store(row, column, v);
    }
};

// Four taps for both axes; up and down are 1 or 2, but not both 2.
EXPORT resample(Division d, Taps taps, View x, View add, View y, int up, int down, cudaStream_t stream) {
    if (up == 1 && down == 1) return launch<Resample, 1, 1, 4>(d, taps, nullptr, stream, x, add, y);
    if (up == 2 && down == 1) return launch<Resample, 2, 1, 4>(d, taps, nullptr, stream, x, add, y);
    if (up == 1 && down == 2) return launch<Resample, 1, 2, 4>(d, taps, nullptr, stream, x, add, y);
    return cudaErrorInvalidValue;
}

// Any filter, factors and padding: one thread for each output pixel.
struct Filter {
    const float* f;
    int fh, fw, flip;
    float gain;
    int up_x, up_y, down_x, down_y, pad_x, pad_y;
};

template <typename T>
__global__ void __launch_bounds__(THREADS) resample_any_kernel(Division d, Filter k, View x, View add, View y) {
    const long long count = static_cast<long long>(d.batch) * d.channels * d.out_h * d.out_w;
    const long long stride = static_cast<long long>(gridDim.x) * THREADS;
    for (long long i = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride) {
        long long rest = i;
        auto digit = [&rest](int base) {
            const int value = rest % base;
            rest /= base;
            return value;
        };
        int n, c, oy, ox;  // the fastest index is that of contiguous elements of the output
        if (d.channels_last) {
            c = digit(d.channels), ox = digit(d.out_w), oy = digit(d.out_h), n = digit(d.batch);
        } else {
            ox = digit(d.out_w), oy = digit(d.out_h), c = digit(d.channels), n = digit(d.batch);
        }
        const Plane<T, 1> from(x, n, c);
        const int top = oy * k.down_y - k.pad_y, left = ox * k.down_x - k.pad_x;  // position of the first tap
        // the first tap at a sample: the smallest k >= 0 for which up divides top + k
        const int ky = top >= 0 ? (k.up_y - top % k.up_y) % k.up_y : -top % k.up_y;
        const int kx = left >= 0 ? (k.up_x - left % k.up_x) % k.up_x : -left % k.up_x;
        float acc = 0;
        for (int a = ky; a < k.fh; a += k.up_y) {
            const int row = (top + a) / k.up_y;
            if (top + a < 0 || row >= d.in_h) continue;
            for (int b = kx; b < k.fw; b += k.up_x) {
                const int column = (left + b) / k.up_x;
                if (left + b < 0 || column >= d.in_w) continue;
                float v[1];
                from.load(row, column, v);
                acc += v[0] * (k.flip ? k.f[a * k.fw + b] : k.f[(k.fh - 1 - a) * k.fw + k.fw - 1 - b]);
            }
        }
        float v[1] = {acc * k.gain};
        if (add.data) {
            float more[1];
            Plane<T, 1>(add, n, c).load(oy, ox, more);
            v[0] += more[0];
        }
        Plane<T, 1>(y, n, c).store(oy, ox, v);
    }
}

EXPORT resample_any(Division d, Filter filter, View x, View add, View y, cudaStream_t stream) {
    const long long count = static_cast<long long>(d.batch) * d.channels * d.out_h * d.out_w;
    const long long blocks = (count + THREADS - 1) / THREADS;
    const dim3 grid(static_cast<unsigned>(blocks < (1 << 20) ? blocks : 1 << 20));
#define RUN(T)                                                                                      \
    {                                                                                               \
        auto kernel = resample_any_kernel<T>;                                                       \
        LAUNCH(kernel, grid, dim3(THREADS), stream, d, filter, x, add, y);                          \
        return cudaGetLastError();                                                                  \
    }
    switch (d.dtype) {
        case 0: RUN(float)
        case 1: RUN(Half)
        case 2: RUN(BFloat16)
    }
#undef RUN
    return cudaErrorInvalidValue;
}

EXPORT error_text(int code, char* text, int size) {
    const char* message = cudaGetErrorString(static_cast<cudaError_t>(code));
    int i = 0;
    for (; i + 1 < size && message[i]; i++) text[i] = message[i];
    text[i] = 0;
    return 0;
}
