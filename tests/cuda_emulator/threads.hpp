// As much of CUDA on the CPU as the kernels need. The threads of a block are fibers of one thread, which take turns
// at barriers and at a warp's common instructions. Each round takes the warps in another order and lets the first get
// ahead, up to its next barrier, so that a forgotten one changes the result.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

using cudaStream_t = void*;

struct uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct Index {
  int x;
};
inline Index threadIdx, blockIdx, gridDim, blockDim;
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float rsqrtf(float value) { return 1 / std::sqrt(value); }
inline void atomicAdd(float* to, float value) { *to += value; }
template <class T>
T __ldg(const T* from) { return *from; }

namespace emulator {

constexpr int LANES = 32, WORDS = 8;
constexpr int SHARED = 227 * 1024;  // bytes that a block may have
constexpr int STUCK = 702;  // CUDA's error of a kernel that doesn't end

struct Barrier {
  int arrived = 0, passed = 0;
};

struct Warp {
  Barrier barrier;
  uint32_t given[2][LANES][WORDS];  // in turn, since a lane may be one instruction ahead of another
};

struct Thread {
  ucontext_t start;
  jmp_buf stopped;
  std::vector<std::function<void()>> copies;  // begun, and maybe not done
  std::unique_ptr<char[]> stack{new char[64 * 1024]};
  int turn = 0;
  bool started = false, ended = false;
};

inline std::vector<Thread> threads;
inline std::vector<Warp> warps;
inline Barrier all;
inline jmp_buf scheduler;
inline std::function<void()> kernel;
inline int error = 0;
inline long steps = 0;  // arrivals at barriers, and ends

// Fibers start by ucontext and take turns by jumps, which make no system call.
inline void pause() {
  if (!_setjmp(threads[threadIdx.x].stopped)) _longjmp(scheduler, 1);
}

inline void resume(Thread& one) {
  if (_setjmp(scheduler)) return;
  if (one.started) _longjmp(one.stopped, 1);
  one.started = true;
  setcontext(&one.start);
}

inline void meet(Barrier& barrier, int expected) {
  const int passed = barrier.passed;
  steps++;
  if (++barrier.arrived == expected) barrier.arrived = 0, barrier.passed++;
  while (barrier.passed == passed) pause();
}

// Gives a lane's words to its warp; returns those of all lanes once all have come.
template <int N>
const uint32_t (*exchange(const uint32_t (&mine)[N]))[WORDS] {
  static_assert(N <= WORDS, "an instruction has more words");
  Warp& warp = warps[threadIdx.x / LANES];
  auto* given = warp.given[threads[threadIdx.x].turn++ % 2];
  std::memcpy(given[threadIdx.x % LANES], mine, sizeof mine);
  meet(warp.barrier, LANES);
  return given;
}

inline void begin() {
  kernel();
  threads[threadIdx.x].ended = true;
  steps++;
  pause();
}

// Lets each thread run to its next barrier, until all have ended; a round in which none got on is the last.
inline void run_block() {
  static std::minstd_rand random(1);
  if (threads.size() != size_t(blockDim.x)) threads = std::vector<Thread>(blockDim.x);
  warps = std::vector<Warp>(blockDim.x / LANES);
  all = {};
  for (Thread& one : threads) {
    one.turn = 0, one.started = one.ended = false;
    getcontext(&one.start);
    one.start.uc_stack.ss_sp = one.stack.get(), one.start.uc_stack.ss_size = 64 * 1024;
    makecontext(&one.start, begin, 0);
  }
  std::vector<int> order(warps.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  const auto take = [](int warp) {  // returns how many of its threads go on
    int waiting = 0;
    for (int lane = 0; lane < LANES; lane++) {
      threadIdx.x = warp * LANES + lane;
      if (!threads[threadIdx.x].ended) resume(threads[threadIdx.x]);
      waiting += !threads[threadIdx.x].ended;
    }
    return waiting;
  };
  for (int waiting = blockDim.x; waiting && !error;) {
    std::shuffle(order.begin(), order.end(), random);
    const long before = steps;
    waiting = 0;
    for (int turns = 1 << random() % 10; turns > 1; turns--) {
      const long last = steps;
      take(order[0]);
      if (steps == last) break;
    }
    for (int warp : order) waiting += take(warp);
    if (waiting && steps == before) error = STUCK;
  }
}

}  // namespace emulator

enum { cudaLaunchAttributeProgrammaticStreamSerialization };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
template <class K>
int cudaFuncSetAttribute(K*, int, int) {
  return 0;
}
struct cudaLaunchAttribute {
  int id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  int gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  int numAttrs;
};
template <class P>
int cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P), const P& parameters) {
  gridDim.x = config->gridDim, blockDim.x = config->blockDim;
  emulator::kernel = [=] { kernel(parameters); };
  for (blockIdx.x = 0; blockIdx.x < config->gridDim; blockIdx.x++) emulator::run_block();
  return std::exchange(emulator::error, 0);
}

inline void __syncthreads() { emulator::meet(emulator::all, blockDim.x); }

inline float __shfl_xor_sync(unsigned, float value, int mask) {
  const auto* of_lanes = emulator::exchange({__float_as_uint(value)});
  return __uint_as_float(of_lanes[(threadIdx.x % emulator::LANES) ^ mask][0]);
}
