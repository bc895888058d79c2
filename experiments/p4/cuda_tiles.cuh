// A tile of an image in shared memory, and its products with weights on the matrix units: what both kernels of
// cuda_kernels.cu share.
//
// Triton loads a tile once for each of the nine taps and normalises it nine times. Here a block stages eight rows of
// an image with their halo in shared memory, normalised once, and the taps are shifted reads of it by ldmatrix. Pixels
// are padded by 16 bytes there, so that eight of them never meet in a bank.
#pragma once
#include <cstdint>
#include <cuda_runtime.h>

namespace {

template <int C>
struct Shape {
  static constexpr int S = 512 / C;              // side of the image
  static constexpr int ROWS = 8;                 // rows of a tile
  static constexpr int PIXELS = ROWS * S;        // pixels of a tile
  static constexpr int HALO = (ROWS + 2) * (S + 2);
  static constexpr int PITCH = C + 8;            // bf16 a pixel in shared memory
  static constexpr int CHUNKS = C / 8;           // 16-byte pieces of a pixel
  static constexpr int GROUPS = PIXELS / 16;     // 16 pixels: the rows of a matrix product
  static constexpr int PAIRS = C / 16;           // 16 channels: its columns, two instructions wide
  static constexpr int LINES = PIXELS * C / 64;  // of 128 bytes in a tile
  static constexpr int TILES = S / ROWS;         // tiles of an image
  static constexpr int BACK_WARPS = C == 64 ? 16 : 4;
};

__device__ __forceinline__ float low(uint32_t v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float high(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }

__device__ __forceinline__ uint32_t pack(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Copies 16 bytes from global to shared memory while the thread goes on.
__device__ __forceinline__ void copy_16_bytes(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
}

// Waits for the thread's own copies.
__device__ __forceinline__ void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Asks for a line of 128 bytes in the L2 cache.
__device__ __forceinline__ void prefetch(const void* at) { asm volatile("prefetch.global.L2 [%0];" :: "l"(at)); }

// Asks for the weights in this multiprocessor's own cache: they are there before the kernel before has ended.
template <int C, int THREADS>
__device__ __forceinline__ void prefetch_weights(const uint16_t* w) {
  for (int i = threadIdx.x; i < 9 * C * C / 64; i += THREADS) asm volatile("prefetch.global.L1 [%0];" :: "l"(w + i * 64));
}

// Waits until the kernel before has ended and what it wrote is visible, then lets the kernel behind start early.
__device__ __forceinline__ void wait_for_grid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait; griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct Moments {
  float mean, rstd;
};

__device__ __forceinline__ Moments moments(const float* sum, const float* square, float count, int c) {
  const float mean = sum[c] / count;
  return {mean, rsqrtf(fmaxf(square[c] / count - mean * mean, 0.f) + 1e-5f)};
}

// The sum of v over the eight lanes that hold the same channel, added to *to by one of them.
__device__ __forceinline__ void add_over_rows(float* to, float v) {
  v += __shfl_xor_sync(~0u, v, 4);
  v += __shfl_xor_sync(~0u, v, 8);
  v += __shfl_xor_sync(~0u, v, 16);
  if ((threadIdx.x & 31) < 4) atomicAdd(to, v);
}

__device__ __forceinline__ void add_pair(float* to, float2 v) {
#if __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float2*>(to), v);
#else
  atomicAdd(to, v.x), atomicAdd(to + 1, v.y);
#endif
}

// Shared-memory byte offset of the tile's pixel p (in the halo's coordinates, shifted up-left by one).
template <int C>
__device__ __forceinline__ int halo_offset(int p) {
  using T = Shape<C>;
  return ((p / T::S) * (T::S + 2) + p % T::S) * T::PITCH * 2;
}

// Weights of 16 rows k and 16 columns n, the second operand of two instructions, packed as the lanes hold them: see
// FusedEngine._pack_order.
template <int C>
__device__ __forceinline__ uint4 load_weights(const uint16_t* w, int tap, int k, int pair, int lane) {
  constexpr int PAIRS = Shape<C>::PAIRS;
  return __ldg(reinterpret_cast<const uint4*>(w) + ((tap * PAIRS + k) * PAIRS + pair) * 32 + lane);
}

// acc[j] += (the tile's 16 pixels of group j, shifted by each tap) · weights; BACK reverses the shifts.
template <int C, int WARPS, bool BACK, int JOBS>
__device__ __forceinline__ void nine_taps(float (&acc)[JOBS][2][4], uint32_t tile, const uint16_t* w, int warp,
                                          int lane) {
  using T = Shape<C>;
  const int pair = warp % T::PAIRS;
  int offset[JOBS];
#pragma unroll
  for (int j = 0; j < JOBS; j++) {
    const int group = warp / T::PAIRS + j * (WARPS / T::PAIRS);
    offset[j] = halo_offset<C>(group * 16 + lane % 16) + (lane / 16) * 16;
#pragma unroll
    for (int i = 0; i < 4; i++) acc[j][0][i] = acc[j][1][i] = 0.f;
  }
#pragma unroll
  for (int tap = 0; tap < 9; tap++) {
    const int row = BACK ? 2 - tap / 3 : tap / 3, column = BACK ? 2 - tap % 3 : tap % 3;
    const int shift = (row * (T::S + 2) + column) * T::PITCH * 2;
#pragma unroll
    for (int k = 0; k < T::PAIRS; k++) {
      const uint4 b = load_weights<C>(w, tap, k, pair, lane);
#pragma unroll
      for (int j = 0; j < JOBS; j++) {
        uint32_t a[4];
        load_matrices(a, tile + offset[j] + shift + k * 32);
        multiply(acc[j][0], a, b.x, b.y);
        multiply(acc[j][1], a, b.z, b.w);
      }
    }
  }
}

}  // namespace
