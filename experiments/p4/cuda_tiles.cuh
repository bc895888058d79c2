// A tile of an image in shared memory, and its products with weights on the matrix units: what both kernels of
// cuda_kernels.cu share.
//
// Triton loads a tile once for each of the nine taps and normalises it nine times. Here a block stages eight rows of
// an image with their halo in shared memory, normalised once, and the taps are shifted reads of it by ldmatrix. Pixels
// are padded by 16 bytes there, so that eight of them never meet in a bank. While the block works on a tile, its next
// one arrives as it is in memory.
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
  static constexpr int ARRIVING = (ROWS + 2) * S * C;  // bf16 of the tile's rows, and of one above and below
  static constexpr int IMAGE = S * S * C;
  static constexpr int GROUPS = PIXELS / 16;     // 16 pixels: the rows of a matrix product
  static constexpr int PAIRS = C / 16;           // 16 channels: its columns, two instructions wide
  // A tile's product with the weights is shared out among four warps: pairs across, and groups down, of a warp.
  static constexpr int ACROSS = C == 16 ? 1 : 2, DOWN = 4 / ACROSS;
  static constexpr int COLUMNS = PAIRS / ACROSS;  // warps side by side
  static constexpr int LINES = PIXELS * C / 64;  // of 128 bytes in a tile
  static constexpr int TILES = S / ROWS;         // tiles of an image
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
  for (int i = threadIdx.x; i < 9 * C * C / 64; i += THREADS)
    asm volatile("prefetch.global.L1 [%0];" :: "l"(w + i * 64));
}

// Waits until the kernel before has ended and what it wrote is visible.
__device__ __forceinline__ void wait_for_grid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the kernel behind start, which then waits for this one's end.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

struct Moments {
  float mean, rstd;
};

// From the sums of a channel's values and of their squares; inverse: 1 / their number.
__device__ __forceinline__ Moments moments(float sum, float square, float inverse) {
  const float mean = sum * inverse;
  return {mean, rsqrtf(fmaxf(square * inverse - mean * mean, 0.f) + 1e-5f)};
}

// Calls f with the first index of each piece of eight, of `count`, that is the thread's. Its pieces have the same
// channels.
template <int COUNT, int THREADS, class F>
__device__ __forceinline__ void each_piece(int thread, const F& f) {
#pragma unroll
  for (int k = 0; k < (COUNT / 8 + THREADS - 1) / THREADS; k++) {
    const int i = (k * THREADS + thread) * 8;
    if (COUNT / 8 % THREADS == 0 || i < COUNT) f(i);
  }
}

// Begins to copy a tile's rows, and one above and below, as far as the image has them.
template <int C, int THREADS>
__device__ __forceinline__ void copy_rows(int thread, uint32_t to, const uint16_t* image, int row0) {
  using T = Shape<C>;
  each_piece<T::ARRIVING, THREADS>(thread, [&](int i) {
    const int at = (row0 - 1) * T::S * C + i;
    if (at >= 0 && at < T::IMAGE) copy_16_bytes(to + i * 2, image + at);
  });
}

// Begins to copy a tile's pixels alone, padded.
template <int C, int THREADS>
__device__ __forceinline__ void copy_pixels(int thread, uint32_t to, const uint16_t* from) {
  using T = Shape<C>;
  each_piece<T::PIXELS * C, THREADS>(
      thread, [&](int i) { copy_16_bytes(to + (i / C * T::PITCH + i % C) * 2, from + i); });
}

// Whether the image has element i of the rows that arrive; the place of such an element in the tile.
template <int C>
__device__ __forceinline__ bool inside(int row0, int i) {
  const int row = row0 - 1 + i / (Shape<C>::S * C);
  return row >= 0 && row < Shape<C>::S;
}

template <int C>
__device__ __forceinline__ int in_tile(int i) {
  using T = Shape<C>;
  const int p = i / C;
  return (p / T::S * (T::S + 2) + p % T::S + 1) * T::PITCH + i % C;
}

// Clears the tile's first and last column, which lie outside the image and never change.
template <int C, int THREADS>
__device__ __forceinline__ void clear_columns(uint16_t* tile) {
  using T = Shape<C>;
  for (int i = threadIdx.x; i < (T::ROWS + 2) * 2 * T::CHUNKS; i += THREADS) {
    const int p = i / T::CHUNKS, column = p % 2 * (T::S + 1);
    *reinterpret_cast<uint4*>(tile + (p / 2 * (T::S + 2) + column) * T::PITCH + i % T::CHUNKS * 8) =
        make_uint4(0, 0, 0, 0);
  }
}

// A warp's sums of its channels, two a lane in each half of 16, over the lanes' rows, into partial: (warps down, C).
template <int C>
__device__ __forceinline__ void sum_rows(float* partial, const float (&mine)[Shape<C>::ACROSS][2][2], int warp,
                                         int lane) {
  using T = Shape<C>;
  float v[T::ACROSS][2][2];
#pragma unroll
  for (int i = 0; i < T::ACROSS * 4; i++) {
    float& sum = v[i / 4][i / 2 % 2][i % 2];
    sum = mine[i / 4][i / 2 % 2][i % 2];
    sum += __shfl_xor_sync(~0u, sum, 4);
    sum += __shfl_xor_sync(~0u, sum, 8);
    sum += __shfl_xor_sync(~0u, sum, 16);
  }
  if (lane >= 4) return;
  const int c = warp / T::COLUMNS * C + warp % T::COLUMNS * T::ACROSS * 16 + lane * 2;
#pragma unroll
  for (int i = 0; i < T::ACROSS * 4; i++) partial[c + i / 4 * 16 + i / 2 % 2 * 8 + i % 2] = v[i / 4][i / 2 % 2][i % 2];
}

// A channel's sum over the warps that have it.
template <int C>
__device__ __forceinline__ float over_warps(const float* partial, int c) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 4 / Shape<C>::COLUMNS; i++) sum += partial[i * C + c];
  return sum;
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
// Packed._pack_order.
template <int C>
__device__ __forceinline__ uint4 load_weights(const uint16_t* w, int tap, int k, int pair, int lane) {
  constexpr int PAIRS = Shape<C>::PAIRS;
  return __ldg(reinterpret_cast<const uint4*>(w) + ((tap * PAIRS + k) * PAIRS + pair) * 32 + lane);
}

// Calls f for each two results of a lane, acc[j][p][h][2r] and the next: f(j, p, h, r, their pixel of the tile, the first
// one's channel).
template <int C, class F>
__device__ __forceinline__ void each_result(int warp, int lane, const F& f) {
  using T = Shape<C>;
#pragma unroll
  for (int j = 0; j < T::DOWN; j++)
#pragma unroll
    for (int p = 0; p < T::ACROSS; p++)
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int r = 0; r < 2; r++)
          f(j, p, h, r, (warp / T::COLUMNS * T::DOWN + j) * 16 + lane / 4 + 8 * r,
            (warp % T::COLUMNS * T::ACROSS + p) * 16 + h * 8 + lane % 4 * 2);
}

// acc[j][p] = (the tile's 16 pixels of a warp's group j, shifted by each tap) · weights of its pair p; BACK reverses
// the shifts.
template <int C, bool BACK>
__device__ __forceinline__ void nine_taps(float (&acc)[Shape<C>::DOWN][Shape<C>::ACROSS][2][4], uint32_t tile,
                                          const uint16_t* w, int warp, int lane) {
  using T = Shape<C>;
  int offset[T::DOWN];
#pragma unroll
  for (int j = 0; j < T::DOWN; j++) {
    offset[j] = halo_offset<C>((warp / T::COLUMNS * T::DOWN + j) * 16 + lane % 16) + (lane / 16) * 16;
#pragma unroll
    for (int p = 0; p < T::ACROSS; p++)
#pragma unroll
      for (int i = 0; i < 4; i++) acc[j][p][0][i] = acc[j][p][1][i] = 0.f;
  }
#pragma unroll
  for (int tap = 0; tap < 9; tap++) {
    const int row = BACK ? 2 - tap / 3 : tap / 3, column = BACK ? 2 - tap % 3 : tap % 3;
    const int shift = (row * (T::S + 2) + column) * T::PITCH * 2;
#pragma unroll
    for (int k = 0; k < T::PAIRS; k++) {
      uint4 b[T::ACROSS];
#pragma unroll
      for (int p = 0; p < T::ACROSS; p++)
        b[p] = load_weights<C>(w, tap, k, warp % T::COLUMNS * T::ACROSS + p, lane);
#pragma unroll
      for (int j = 0; j < T::DOWN; j++) {
        uint32_t a[4];
        load_matrices(a, tile + offset[j] + shift + k * 32);
#pragma unroll
        for (int p = 0; p < T::ACROSS; p++) {
          multiply(acc[j][p][0], a, b[p].x, b[p].y);
          multiply(acc[j][p][1], a, b[p].z, b[p].w);
        }
      }
    }
  }
}

}  // namespace
