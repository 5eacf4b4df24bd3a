// The part of CUDA that the kernels use, on a CPU: the same sources compile with a C++ compiler, so that their indexing
// is tested without a GPU. The threads of a block are coroutines; __syncthreads() lets each of the others come as far.
#pragma once
#include <immintrin.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(n)
#define __shared__ static
using std::min;

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaErrorInvalidValue = 1;
inline int cudaGetLastError() { return 0; }
inline const char* cudaGetErrorString(int code) { return code == 1 ? "invalid argument" : "no error"; }

inline float half_to_float(Half v) { return _cvtsh_ss(v.bits); }
inline Half float_to_half(float f) { return {_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT)}; }
inline unsigned float_bits(float f) {
    unsigned bits;
    std::memcpy(&bits, &f, sizeof bits);
    return bits;
}
inline float bits_float(unsigned bits) {
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

inline dim3 threadIdx, blockIdx, gridDim;

class Block {
  public:
    explicit Block(unsigned threads) : contexts_(threads), stacks_(threads), done_(threads) {
        for (auto& stack : stacks_) stack.reset(new char[STACK]);
    }

    void run(const std::function<void()>& body) {
        body_ = &body;
        current_block = this;
        for (unsigned i = 0; i < contexts_.size(); i++) {
            getcontext(&contexts_[i]);
            contexts_[i].uc_stack.ss_sp = stacks_[i].get();
            contexts_[i].uc_stack.ss_size = STACK;
            contexts_[i].uc_link = &scheduler_;
            done_[i] = false;
            makecontext(&contexts_[i], &Block::enter, 0);
        }
        for (bool waiting = true; waiting;) {  // every round goes from one barrier to the next
            waiting = false;
            unsigned ended = 0;
            for (unsigned i = 0; i < contexts_.size(); i++) {
                if (done_[i]) std::abort();  // a thread left before a barrier that another one waits at
                thread_ = i;
                threadIdx = dim3(i);
                swapcontext(&scheduler_, &contexts_[i]);
                ended += done_[i];
            }
            if (ended == 0) waiting = true;
            else if (ended != contexts_.size()) std::abort();
        }
    }

    void barrier() { swapcontext(&contexts_[thread_], &scheduler_); }

    static inline Block* current_block;

  private:
    static constexpr std::size_t STACK = 64 << 10;

    static void enter() {
        (*current_block->body_)();
        current_block->done_[current_block->thread_] = true;
    }

    std::vector<ucontext_t> contexts_;
    std::vector<std::unique_ptr<char[]>> stacks_;
    std::vector<char> done_;
    ucontext_t scheduler_;
    const std::function<void()>* body_ = nullptr;
    unsigned thread_ = 0;
};

inline void __syncthreads() { Block::current_block->barrier(); }

template <typename Kernel, typename... Arguments>
void launch_on_cpu(Kernel kernel, dim3 grid, dim3 threads, Arguments... arguments) {
    static Block block(threads.x);
    gridDim = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3(x, y, z);
                block.run([&] { kernel(arguments...); });
            }
}
#define LAUNCH(kernel, grid, block, stream, ...) launch_on_cpu(kernel, grid, block, __VA_ARGS__)
