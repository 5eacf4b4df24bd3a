// The common part of the kernels: how threads divide an image, filter it and sum over it.
//
// A thread processes V adjacent channels of one column of one sample, row by row down a strip. A separable filter can
// therefore keep its horizontal sums in registers: an output pixel costs TAPS loads from the first-level cache
// instead of TAPS * TAPS, one read and one write of memory, and no shared memory. The lanes of a warp are contiguous
// in memory: along the channels (NHWC, V = 4) or along the row (otherwise, V = 1).
//
// A Body defines what is read, computed and written:
//     static constexpr int sums;                  number of sums over the pixels of each channel
//     void start(int n, int c);                   the thread's sample and first channel
//     void load(int y, int x, float (&v)[V], bool own, float (&sum)[..][V]);     own: this thread counts the pixel
//     void store(int y, int x, const float (&v)[V]);
//
// Arithmetic is float32 for every storage type, and offsets have 64 bits. No result depends on the order of the
// blocks: each block writes its sums to its own slot, and the caller adds them up.
#pragma once

struct Half {
    unsigned short bits;
};
struct BFloat16 {
    unsigned short bits;
};

#ifdef __CUDACC__
// Conversions by instructions, because cuda_fp16.h needs headers that the compiler's package does not contain.
#include <cuda_runtime.h>
#define LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)

__device__ inline float half_to_float(Half v) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v.bits));
    return f;
}
__device__ inline Half float_to_half(float f) {
    Half v;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v.bits) : "f"(f));
    return v;
}
__device__ inline unsigned float_bits(float f) { return __float_as_uint(f); }
__device__ inline float bits_float(unsigned bits) { return __uint_as_float(bits); }
#else
#include "cuda_on_cpu.h"  // tests/generators: runs the kernels on a CPU, thread by thread
#endif

constexpr int THREADS = 256;

// A four-dimensional tensor: strides in elements. `data` is null for a missing argument.
struct View {
    void* data;
    long long n, c, y, x;
};

// The division of a launch, chosen by the caller (stylegan_inv/generators/ops/cuda.py).
struct Division {
    int dtype;                    // 0 float32, 1 float16, 2 bfloat16
    int channels_last;            // V = 4 and lanes along the channels: every view has c == 1 and aligned strides
    int batch, channels;
    int in_h, in_w, out_h, out_w;
    int lanes_c, lanes_x;         // powers of two, their product is THREADS
    int rows;                     // rows of a strip
};

struct Taps {
    const float* f;               // four taps, the same for both axes; null for no filter
    int flip;                     // 0: convolution, 1: correlation
    float gain;
    int pad_x, pad_y;
};

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(Half v) { return half_to_float(v); }
__device__ inline float widen(BFloat16 v) { return bits_float(static_cast<unsigned>(v.bits) << 16); }
template <typename T> __device__ T narrow(float v);
template <> __device__ inline float narrow<float>(float v) { return v; }
template <> __device__ inline Half narrow<Half>(float v) { return float_to_half(v); }
template <> __device__ inline BFloat16 narrow<BFloat16>(float v) {
    const unsigned bits = float_bits(v);
    if (v != v) return {static_cast<unsigned short>(bits >> 16 | 0x40)};  // rounding could turn a NaN into infinity
    return {static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};  // rounds to nearest, ties to even
}

template <typename T, int V> struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

// One sample's V channels of a tensor.
template <typename T, int V> struct Plane {
    T* base;
    long long y, x;

    __device__ Plane() {}
    __device__ Plane(const View& view, int n, int c)
        : base(static_cast<T*>(view.data) + n * view.n + c * view.c), y(view.y), x(view.x) {}

    __device__ void load(int row, int column, float (&v)[V]) const {
        Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(base + row * y + column * x);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = widen(pack.v[i]);
    }

    __device__ void store(int row, int column, const float (&v)[V]) const {
        Pack<T, V> pack;
#pragma unroll
        for (int i = 0; i < V; i++) pack.v[i] = narrow<T>(v[i]);
        *reinterpret_cast<Pack<T, V>*>(base + row * y + column * x) = pack;
    }
};

// Zero insertion by UP, filter, downsampling by DOWN; TAPS = 0 does not change the image. With F the taps, mirrored
// unless flipped: y[oy, ox] = gain * sum_k,l F[k] F[l] X[oy * DOWN + k - pad_y, ox * DOWN + l - pad_x], X[a, b] =
// x[a/UP, b/UP] where both divide and 0 elsewhere. Only every UP-th tap is at a sample; which ones depends on the
// phase of the pixel.
template <int V, bool CHANNELS_LAST, int UP, int DOWN, int TAPS, class Body>
__global__ void __launch_bounds__(THREADS) strip_kernel(Body body, Division d, Taps taps, float* partial) {
    constexpr int SUMS = Body::sums;
    const int fast = threadIdx.x % (CHANNELS_LAST ? d.lanes_c : d.lanes_x);
    const int slow = threadIdx.x / (CHANNELS_LAST ? d.lanes_c : d.lanes_x);
    const int lane_c = CHANNELS_LAST ? fast : slow, lane_x = CHANNELS_LAST ? slow : fast;
    const int tiles = (d.channels + d.lanes_c * V - 1) / (d.lanes_c * V);
    const int n = blockIdx.x / tiles, c = (blockIdx.x % tiles * d.lanes_c + lane_c) * V;
    const int ox = blockIdx.y * d.lanes_x + lane_x;
    const int top = blockIdx.z * d.rows, bottom = min(top + d.rows, d.out_h);
    float sum[SUMS > 0 ? SUMS : 1][V] = {};

    if (c < d.channels && ox < d.out_w) {
        body.start(n, c);
        if constexpr (TAPS == 0) {
            for (int y = top; y < bottom; y++) {
                float v[V];
                body.load(y, ox, v, true, sum);
                body.store(y, ox, v);
            }
        } else {
            constexpr int N = TAPS / UP;  // taps at samples
            static_assert(TAPS % UP == 0, "every phase has the same number of taps");
            static_assert(SUMS == 0 || (UP == 1 && DOWN == 1), "a pixel of the sums belongs to the output above it");
            float kx[N], ky[TAPS], window[N][V];
            // UP is 1 or 2, so the phase of a position is its lowest bit or 0, also of a negative one
            const int phase_x = (taps.pad_x - ox * DOWN) & (UP - 1);
            const int left = (ox * DOWN + phase_x - taps.pad_x) / UP;  // divides without remainder
#pragma unroll
            for (int j = 0; j < N; j++) {
                const int k = phase_x + j * UP;
                kx[j] = taps.f[taps.flip ? k : TAPS - 1 - k];
            }
#pragma unroll
            for (int k = 0; k < TAPS; k++) ky[k] = taps.gain * taps.f[taps.flip ? k : TAPS - 1 - k];

            auto filter_row = [&](int y, float (&h)[V]) {
#pragma unroll
                for (int i = 0; i < V; i++) h[i] = 0;
                if (y < 0 || y >= d.in_h) return;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const int x = left + j;
                    if (x < 0 || x >= d.in_w) continue;
                    float v[V];
                    body.load(y, x, v, SUMS > 0 && x == ox && y >= top && y < bottom, sum);
#pragma unroll
                    for (int i = 0; i < V; i++) h[i] += kx[j] * v[i];
                }
            };

            int row = 0;  // the input row of window[0]
            for (int y = top; y < bottom; y++) {
                const int phase_y = (taps.pad_y - y * DOWN) & (UP - 1);
                const int first = (y * DOWN + phase_y - taps.pad_y) / UP;
                if (y == top) {
                    row = first;
#pragma unroll
                    for (int j = 0; j < N; j++) filter_row(first + j, window[j]);
                }
                for (; row < first; row++) {
#pragma unroll
                    for (int j = 0; j + 1 < N; j++)
#pragma unroll
                        for (int i = 0; i < V; i++) window[j][i] = window[j + 1][i];
                    filter_row(row + N, window[N - 1]);
                }
                float v[V] = {};
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const float k = UP == 1 || phase_y == 0 ? ky[j * UP] : ky[j * UP + UP - 1];
#pragma unroll
                    for (int i = 0; i < V; i++) v[i] += k * window[j][i];
                }
                body.store(y, ox, v);
            }
        }
    }

    if constexpr (SUMS > 0) {  // sums over the columns of the block, one slot for each block and channel
        __shared__ float shared[V][THREADS];
        const int slot = lane_c * d.lanes_x + lane_x;
        const long long block = blockIdx.z * static_cast<long long>(gridDim.y) + blockIdx.y;
#pragma unroll
        for (int s = 0; s < SUMS; s++) {
            __syncthreads();
#pragma unroll
            for (int i = 0; i < V; i++) shared[i][slot] = sum[s][i];
            for (int step = d.lanes_x / 2; step > 0; step /= 2) {
                __syncthreads();
                if (lane_x < step)
#pragma unroll
                    for (int i = 0; i < V; i++) shared[i][slot] += shared[i][slot + step];
            }
            if (lane_x == 0 && c < d.channels)
#pragma unroll
                for (int i = 0; i < V; i++)
                    partial[((block * SUMS + s) * d.batch + n) * d.channels + c + i] = shared[i][slot];
        }
    }
}

template <int V, bool CHANNELS_LAST, int UP, int DOWN, int TAPS, class Body>
int launch_strips(const Body& body, const Division& d, const Taps& taps, float* partial, cudaStream_t stream) {
    const int tile = d.lanes_c * V;
    const dim3 grid((d.channels + tile - 1) / tile * d.batch, (d.out_w + d.lanes_x - 1) / d.lanes_x,
                    (d.out_h + d.rows - 1) / d.rows);
    auto kernel = strip_kernel<V, CHANNELS_LAST, UP, DOWN, TAPS, Body>;
    LAUNCH(kernel, grid, dim3(THREADS), stream, body, d, taps, partial);
    return cudaGetLastError();
}

// Body<T, V> for the storage type and layout of the launch.
template <template <typename, int> class Body, int UP, int DOWN, int TAPS, typename... Arguments>
int launch(const Division& d, const Taps& taps, float* partial, cudaStream_t stream, const Arguments&... a) {
#define RUN(T)                                                                                                       \
    return d.channels_last ? launch_strips<4, true, UP, DOWN, TAPS>(Body<T, 4>{a...}, d, taps, partial, stream)      \
                           : launch_strips<1, false, UP, DOWN, TAPS>(Body<T, 1>{a...}, d, taps, partial, stream)
    switch (d.dtype) {
        case 0: RUN(float);
        case 1: RUN(Half);
        case 2: RUN(BFloat16);
    }
#undef RUN
    return cudaErrorInvalidValue;
}

#define EXPORT extern "C" __attribute__((visibility("default"))) int
