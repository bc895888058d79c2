// The 3×3 convolutions of stride 1 of a CIFAR ResNet, forward and backward, for Hopper's matrix units: the fast twins
// of conv_forward and conv_backward in triton_*.py, which define what they compute. bf16, NHWC, images of 32×32 with
// 16 channels, 16×16 with 32 or 8×8 with 64: C·S = 512.
#include "cuda_tiles.cuh"

namespace {

constexpr int WEIGHTS_ONLY = 0, INNER = 1, BLOCK_END = 2, BLOCK_END_TWO = 3;  // as in fused_passes.py

template <int C, bool NORMALISE>
__global__ void __launch_bounds__(128) forward(const uint16_t* x, const uint16_t* w, uint16_t* y, const float* x_sum,
                                               const float* x_square, const float* x_gamma, const float* x_beta,
                                               float x_count, float* y_sum, float* y_square, int sums, int tiles) {
  using T = Shape<C>;
  constexpr int WARPS = 4, JOBS = T::GROUPS * T::PAIRS / WARPS;
  __shared__ __align__(16) uint16_t tile[T::HALO * T::PITCH];
  __shared__ float scale[C], shift[C];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = warp % T::PAIRS;
  if (NORMALISE && threadIdx.x < C) {
    const int c = threadIdx.x;
    const Moments m = moments(x_sum, x_square, x_count, c);
    scale[c] = x_gamma[c] * m.rstd;
    shift[c] = x_beta[c] - m.mean * scale[c];
  }
  float total[2][2] = {}, square[2][2] = {};
  for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int image = t / T::TILES, row0 = t % T::TILES * T::ROWS;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < T::HALO * T::CHUNKS; i += 128) {
      const int c = i % T::CHUNKS * 8, p = i / T::CHUNKS;
      const int row = row0 + p / (T::S + 2) - 1, column = p % (T::S + 2) - 1;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row >= 0 && row < T::S && column >= 0 && column < T::S) {
        v = *reinterpret_cast<const uint4*>(x + ((image * T::S + row) * T::S + column) * C + c);
        if (NORMALISE) {
          uint32_t* words = &v.x;
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const int k = c + 2 * j;
            words[j] = pack(fmaxf(low(words[j]) * scale[k] + shift[k], 0.f),
                            fmaxf(high(words[j]) * scale[k + 1] + shift[k + 1], 0.f));
          }
        }
      }
      *reinterpret_cast<uint4*>(tile + p * T::PITCH + c) = v;
    }
    __syncthreads();
    float acc[JOBS][2][4];
    nine_taps<C, WARPS, false>(acc, shared_address(tile), w, warp, lane);
    uint16_t* out = y + (image * T::S + row0) * T::S * C;
#pragma unroll
    for (int j = 0; j < JOBS; j++) {
      const int p = (warp / T::PAIRS + j * (WARPS / T::PAIRS)) * 16 + lane / 4;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int c = pair * 16 + h * 8 + lane % 4 * 2;
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const uint32_t v = pack(acc[j][h][2 * r], acc[j][h][2 * r + 1]);
          *reinterpret_cast<uint32_t*>(out + (p + 8 * r) * C + c) = v;
          total[h][0] += low(v), total[h][1] += high(v);
          square[h][0] += low(v) * low(v), square[h][1] += high(v) * high(v);
        }
      }
    }
  }
  if (sums) {
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int c = pair * 16 + h * 8 + lane % 4 * 2 + e;
        add_over_rows(y_sum + c, total[h][e]);
        add_over_rows(y_square + c, square[h][e]);
      }
  }
}

struct Backward {
  const uint16_t *dz, *y;
  const float *y_sum, *y_square, *y_gamma, *g_gamma, *g_beta;
  const uint16_t *w, *x;
  uint16_t* dx;
  float* dw;
  const uint16_t* x_raw;
  const float *x_sum, *x_square, *x_gamma, *x_beta;
  float *gx_gamma, *gx_beta;
  const uint16_t *add, *s_raw;
  const float *s_sum, *s_square;
  float *gs_gamma, *gs_beta;
  float count;
  int tiles;
};

template <int C, int END>
__global__ void __launch_bounds__(32 * Shape<C>::BACK_WARPS, C == 64 ? 1 : 3) backward(const Backward g) {
  using T = Shape<C>;
  constexpr int WARPS = T::BACK_WARPS, THREADS = 32 * WARPS;
  constexpr int JOBS = T::GROUPS * T::PAIRS / WARPS;
  constexpr int UNITS = T::PAIRS * T::PAIRS, SPLIT = WARPS / UNITS;  // a warp has 16×16 weights of each tap
  __shared__ __align__(16) uint16_t grad[T::HALO * T::PITCH];        // gradient of the convolution's output
  __shared__ __align__(16) uint16_t value[T::PIXELS * T::PITCH];     // the convolution's input
  __shared__ float ca[C], cb[C], cd[C], scale[C], shift[C];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = warp % T::PAIRS;
  if (threadIdx.x < C) {
    const int c = threadIdx.x;
    const Moments m = moments(g.y_sum, g.y_square, g.count, c);
    ca[c] = g.y_gamma[c] * m.rstd;
    cb[c] = -ca[c] * m.rstd * g.g_gamma[c] / g.count;
    cd[c] = -ca[c] * g.g_beta[c] / g.count - cb[c] * m.mean;
    if (END == INNER) {
      const Moments n = moments(g.x_sum, g.x_square, g.count, c);
      scale[c] = g.x_gamma[c] * n.rstd;
      shift[c] = g.x_beta[c] - n.mean * scale[c];
    }
  }
  Moments mine[2][2], side[2][2];
#pragma unroll
  for (int h = 0; h < 2; h++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int c = pair * 16 + h * 8 + lane % 4 * 2 + e;
      if (END != WEIGHTS_ONLY) mine[h][e] = moments(g.x_sum, g.x_square, g.count, c);
      if (END == BLOCK_END_TWO) side[h][e] = moments(g.s_sum, g.s_square, g.count, c);
    }
  float s1[2][2] = {}, s2[2][2] = {}, s3[2][2] = {};
  float dw[9][2][4] = {};
  const int unit = warp % UNITS, from = unit / T::PAIRS * 16, to = unit % T::PAIRS * 16;
  const uint32_t grad_at = shared_address(grad), value_at = shared_address(value);

  for (int t = blockIdx.x; t < g.tiles; t += gridDim.x) {
    const int image = t / T::TILES, row0 = t % T::TILES * T::ROWS;
    const int first = (image * T::S + row0) * T::S * C;  // the tile's first element; its pixels follow one another
    __syncthreads();
#pragma unroll 2
    for (int i = threadIdx.x; i < T::HALO * T::CHUNKS; i += THREADS) {
      const int c = i % T::CHUNKS * 8, p = i / T::CHUNKS;
      const int row = row0 + p / (T::S + 2) - 1, column = p % (T::S + 2) - 1;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row >= 0 && row < T::S && column >= 0 && column < T::S) {
        const int at = ((image * T::S + row) * T::S + column) * C + c;
        v = *reinterpret_cast<const uint4*>(g.dz + at);
        const uint4 raw = *reinterpret_cast<const uint4*>(g.y + at);
        uint32_t* words = &v.x;
        const uint32_t* others = &raw.x;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int k = c + 2 * j;
          words[j] = pack(low(words[j]) * ca[k] + (low(others[j]) * cb[k] + cd[k]),
                          high(words[j]) * ca[k + 1] + (high(others[j]) * cb[k + 1] + cd[k + 1]));
        }
      }
      *reinterpret_cast<uint4*>(grad + p * T::PITCH + c) = v;
    }
#pragma unroll 2
    for (int i = threadIdx.x; i < T::PIXELS * T::CHUNKS; i += THREADS) {
      const int c = i % T::CHUNKS * 8, p = i / T::CHUNKS;
      uint4 v = *reinterpret_cast<const uint4*>(g.x + first + p * C + c);
      if (END == INNER) {
        uint32_t* words = &v.x;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int k = c + 2 * j;
          words[j] = pack(fmaxf(low(words[j]) * scale[k] + shift[k], 0.f),
                          fmaxf(high(words[j]) * scale[k + 1] + shift[k + 1], 0.f));
        }
      }
      *reinterpret_cast<uint4*>(value + p * T::PITCH + c) = v;
    }
    __syncthreads();

    if (END != WEIGHTS_ONLY) {
      float acc[JOBS][2][4];
      nine_taps<C, WARPS, true>(acc, grad_at, g.w, warp, lane);
#pragma unroll
      for (int j = 0; j < JOBS; j++) {
        const int p0 = (warp / T::PAIRS + j * (WARPS / T::PAIRS)) * 16 + lane / 4;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int c = pair * 16 + h * 8 + lane % 4 * 2;
#pragma unroll
          for (int r = 0; r < 2; r++) {
            const int p = p0 + 8 * r, at = first + p * C + c;
            float lo = acc[j][h][2 * r], hi = acc[j][h][2 * r + 1];
            if (END >= BLOCK_END) {
              const uint32_t more = *reinterpret_cast<const uint32_t*>(g.add + at);
              lo += low(more), hi += high(more);
            }
            const uint32_t before = *reinterpret_cast<const uint32_t*>(value + p * T::PITCH + c);
            lo = low(before) > 0.f ? lo : 0.f, hi = high(before) > 0.f ? hi : 0.f;
            const uint32_t v = pack(lo, hi);
            *reinterpret_cast<uint32_t*>(g.dx + at) = v;
            const uint32_t raw = *reinterpret_cast<const uint32_t*>(g.x_raw + at);
            s1[h][0] += low(v), s1[h][1] += high(v);
            s2[h][0] += low(v) * (low(raw) - mine[h][0].mean) * mine[h][0].rstd;
            s2[h][1] += high(v) * (high(raw) - mine[h][1].mean) * mine[h][1].rstd;
            if (END == BLOCK_END_TWO) {
              const uint32_t other = *reinterpret_cast<const uint32_t*>(g.s_raw + at);
              s3[h][0] += low(v) * (low(other) - side[h][0].mean) * side[h][0].rstd;
              s3[h][1] += high(v) * (high(other) - side[h][1].mean) * side[h][1].rstd;
            }
          }
        }
      }
    }

#pragma unroll 1
    for (int group = warp / UNITS; group < T::GROUPS; group += SPLIT) {
      uint32_t a[4];
      const int p = group * 16 + lane % 8 + lane / 16 * 8;
      load_transposed(a, value_at + (p * T::PITCH + from + lane / 8 % 2 * 8) * 2);
      const uint32_t at = grad_at + halo_offset<C>(group * 16 + lane % 16) + (to + lane / 16 * 8) * 2;
#pragma unroll
      for (int tap = 0; tap < 9; tap++) {
        uint32_t b[4];
        load_transposed(b, at + ((2 - tap / 3) * (T::S + 2) + 2 - tap % 3) * T::PITCH * 2);
        multiply(dw[tap][0], a, b[0], b[1]);
        multiply(dw[tap][1], a, b[2], b[3]);
      }
    }
  }

#pragma unroll
  for (int h = 0; h < 2 && END != WEIGHTS_ONLY; h++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int c = pair * 16 + h * 8 + lane % 4 * 2 + e;
      add_over_rows(g.gx_beta + c, s1[h][e]);
      add_over_rows(g.gx_gamma + c, s2[h][e]);
      if (END == BLOCK_END_TWO) {
        add_over_rows(g.gs_beta + c, s1[h][e]);
        add_over_rows(g.gs_gamma + c, s3[h][e]);
      }
    }

  // The warps that share weights add up in shared memory, then each weight goes to memory once a block.
  float* gathered = reinterpret_cast<float*>(grad);
  static_assert(SPLIT == 1 || sizeof(grad) >= 9 * C * C * sizeof(float), "the gathered weights must fit");
#pragma unroll 1
  for (int turn = 0; turn < SPLIT; turn++) {
    __syncthreads();
    if (warp / UNITS != turn) continue;
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          const int at = (tap * C + from + lane / 4 + i * 4) * C + to + h * 8 + lane % 4 * 2;
          const float2 both = make_float2(dw[tap][h][i], dw[tap][h][i + 1]);
          if (SPLIT == 1) {
            add_pair(g.dw + at, both);
          } else {
            gathered[at] = (turn ? gathered[at] : 0.f) + both.x;
            gathered[at + 1] = (turn ? gathered[at + 1] : 0.f) + both.y;
          }
        }
  }
  if (SPLIT > 1) {
    __syncthreads();
    for (int i = threadIdx.x; i < 9 * C * C; i += THREADS) atomicAdd(g.dw + i, gathered[i]);
  }
}

template <int C>
int launch_backward(int end, const Backward& g, int blocks, cudaStream_t stream) {
  constexpr int threads = 32 * Shape<C>::BACK_WARPS;
  if (end == WEIGHTS_ONLY) backward<C, WEIGHTS_ONLY><<<blocks, threads, 0, stream>>>(g);
  else if (end == INNER) backward<C, INNER><<<blocks, threads, 0, stream>>>(g);
  else if (end == BLOCK_END) backward<C, BLOCK_END><<<blocks, threads, 0, stream>>>(g);
  else backward<C, BLOCK_END_TWO><<<blocks, threads, 0, stream>>>(g);
  return cudaGetLastError();
}

}  // namespace

#define FORWARD(C, N) \
  forward<C, N><<<blocks, 128, 0, stream>>>(x, w, y, x_sum, x_square, x_gamma, x_beta, count, y_sum, y_square, sums, \
                                            images * Shape<C>::TILES)

// w: packed bf16 weights, k = C_in. Returns CUDA's error code.
extern "C" int conv_forward(int channels, int normalise, int sums, const uint16_t* x, const uint16_t* w, uint16_t* y,
                            const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                            float count, float* y_sum, float* y_square, int images, int blocks, cudaStream_t stream) {
  if (channels == 16) normalise ? FORWARD(16, true) : FORWARD(16, false);
  else if (channels == 32) normalise ? FORWARD(32, true) : FORWARD(32, false);
  else normalise ? FORWARD(64, true) : FORWARD(64, false);
  return cudaGetLastError();
}

// w: packed bf16 weights, k = C_out; dw: (9, C_in, C_out) fp32. Returns CUDA's error code.
extern "C" int conv_backward(int channels, int end, const uint16_t* dz, const uint16_t* y, const float* y_sum,
                             const float* y_square, const float* y_gamma, const float* g_gamma, const float* g_beta,
                             const uint16_t* w, const uint16_t* x, uint16_t* dx, float* dw, const uint16_t* x_raw,
                             const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                             float* gx_gamma, float* gx_beta, const uint16_t* add, const uint16_t* s_raw,
                             const float* s_sum, const float* s_square, float* gs_gamma, float* gs_beta, float count,
                             int images, int blocks, cudaStream_t stream) {
  Backward g{dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, w, x, dx, dw, x_raw, x_sum, x_square, x_gamma, x_beta,
             gx_gamma, gx_beta, add, s_raw, s_sum, s_square, gs_gamma, gs_beta, count, 0};
  if (channels == 16) return g.tiles = images * Shape<16>::TILES, launch_backward<16>(end, g, blocks, stream);
  if (channels == 32) return g.tiles = images * Shape<32>::TILES, launch_backward<32>(end, g, blocks, stream);
  return g.tiles = images * Shape<64>::TILES, launch_backward<64>(end, g, blocks, stream);
}
