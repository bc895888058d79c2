// The backward convolution of cuda_kernels.cu: from one tile, the gradients of its input and of its weights.
#pragma once
#include "cuda_tiles.cuh"

namespace {

constexpr int WEIGHTS_ONLY = 0, INNER = 1, BLOCK_END = 2, BLOCK_END_TWO = 3;  // as in activations.py

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
  float inverse;
  int tiles;
};

// Four warps make the gradient of the input while the others make that of the weights. Both pass the same barriers,
// each in a loop of its own, so that none holds the other's registers.
template <int C, int END>
struct BackwardShape {
  static constexpr int FOR_INPUT = END == WEIGHTS_ONLY ? 0 : 4, FOR_WEIGHTS = C == 64 ? 16 : 4;  // warps
  static constexpr int THREADS = 32 * (FOR_INPUT + FOR_WEIGHTS);
  static constexpr int PER_PROCESSOR = C == 64 ? 1 : END == WEIGHTS_ONLY ? 3 : 2, CARVEOUT = C == 64 ? 57 : 100;  // %
  static constexpr int PADDED = Shape<C>::PIXELS * Shape<C>::PITCH;  // bf16 of a tile without halo
  static constexpr int SHARED =
      (Shape<C>::HALO * Shape<C>::PITCH + 2 * Shape<C>::ARRIVING + (END == INNER ? 3 : 2) * PADDED) * 2;
};

template <int C, int END>
__global__ void __launch_bounds__((BackwardShape<C, END>::THREADS), (BackwardShape<C, END>::PER_PROCESSOR))
    backward(const Backward g) {
  using T = Shape<C>;
  using K = BackwardShape<C, END>;
  constexpr int THREADS = K::THREADS, PADDED = K::PADDED, FETCHERS = 32 * K::FOR_WEIGHTS;
  constexpr int UNITS = T::PAIRS * T::PAIRS, SPLIT = K::FOR_WEIGHTS / UNITS;  // a warp has 16×16 weights of each tap
  extern __shared__ __align__(16) uint16_t memory[];
  uint16_t* grad = memory;  // gradient of the convolution's output
  uint16_t *arrived_dz = grad + T::HALO * T::PITCH, *arrived_y = arrived_dz + T::ARRIVING;
  uint16_t *arrived_x = arrived_y + T::ARRIVING, *normalised = arrived_x + 2 * PADDED;
  __shared__ float ca[C], cb[C], cd[C], scale[C], shift[C], x_mean[C], x_rstd[C], s_mean[C], s_rstd[C];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t grad_at = shared_address(grad), arrived_at = grad_at + T::HALO * T::PITCH * 2;
  const uint16_t *__restrict__ add = g.add, *__restrict__ x_raw = g.x_raw, *__restrict__ s_raw = g.s_raw;
  const auto first_of = [&](int t) { return t / T::TILES * T::IMAGE + t % T::TILES * T::ROWS * T::S * C; };
  const auto fetch = [&](int t, int turn) {  // by the warps of the weights
    const int thread = threadIdx.x - 32 * K::FOR_INPUT;
    const int image = t / T::TILES * T::IMAGE, row0 = t % T::TILES * T::ROWS, first = first_of(t);
    copy_rows<C, FETCHERS>(thread, arrived_at, g.dz + image, row0);
    copy_rows<C, FETCHERS>(thread, arrived_at + T::ARRIVING * 2, g.y + image, row0);
    copy_pixels<C, FETCHERS>(thread, arrived_at + (2 * T::ARRIVING + turn * PADDED) * 2, g.x + first);
    if (END >= BLOCK_END && thread < T::LINES) {  // what is read past shared memory, ahead of its loads
      prefetch(add + first + thread * 64), prefetch(x_raw + first + thread * 64);
      if (END == BLOCK_END_TWO) prefetch(s_raw + first + thread * 64);
    }
  };
  // The tile's gradient of the output, and its input, for the taps.
  const auto prepare = [&](int t, int turn) {
    const int row0 = t % T::TILES * T::ROWS, c = threadIdx.x * 8 % C;
    finish_copies();
    __syncthreads();  // the tile and the coefficients are there, and the last tile is no longer needed
    float of_dz[8], of_y[8], plus[8];
#pragma unroll
    for (int j = 0; j < 8; j++) of_dz[j] = ca[c + j], of_y[j] = cb[c + j], plus[j] = cd[c + j];
    each_piece<T::ARRIVING, THREADS>(threadIdx.x, [&](int i) {
      uint4 v = make_uint4(0, 0, 0, 0);
      if (inside<C>(row0, i)) {
        v = *reinterpret_cast<const uint4*>(arrived_dz + i);
        const uint4 y = *reinterpret_cast<const uint4*>(arrived_y + i);
        uint32_t* words = &v.x;
        const uint32_t* others = &y.x;
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          const uint32_t word = words[j / 2], other = others[j / 2];
          words[j / 2] = pack(low(word) * of_dz[j] + (low(other) * of_y[j] + plus[j]),
                              high(word) * of_dz[j + 1] + (high(other) * of_y[j + 1] + plus[j + 1]));
        }
      }
      *reinterpret_cast<uint4*>(grad + in_tile<C>(i)) = v;
    });
    if (END == INNER) {
      float by[8];
#pragma unroll
      for (int j = 0; j < 8; j++) by[j] = scale[c + j], plus[j] = shift[c + j];
      each_piece<T::PIXELS * C, THREADS>(threadIdx.x, [&](int i) {
        const int at = i / C * T::PITCH + c;
        uint4 v = *reinterpret_cast<const uint4*>(arrived_x + turn * PADDED + at);
        uint32_t* words = &v.x;
#pragma unroll
        for (int j = 0; j < 8; j += 2)
          words[j / 2] = pack(fmaxf(low(words[j / 2]) * by[j] + plus[j], 0.f),
                              fmaxf(high(words[j / 2]) * by[j + 1] + plus[j + 1], 0.f));
        *reinterpret_cast<uint4*>(normalised + at) = v;
      });
    }
    __syncthreads();
  };

  if (END != WEIGHTS_ONLY) prefetch_weights<C, THREADS>(g.w);
  clear_columns<C, THREADS>(grad);
  wait_for_grid();
  if (warp >= K::FOR_INPUT) fetch(blockIdx.x, 0);
  if (threadIdx.x < C) {
    const int c = threadIdx.x;
    const float y_sum = g.y_sum[c], y_square = g.y_square[c], y_gamma = g.y_gamma[c];
    const float g_gamma = g.g_gamma[c] * g.inverse, g_beta = g.g_beta[c] * g.inverse;
    if (END != WEIGHTS_ONLY) {
      const float gamma = g.x_gamma[c], beta = g.x_beta[c];
      const Moments n = moments(g.x_sum[c], g.x_square[c], g.inverse);
      x_mean[c] = n.mean, x_rstd[c] = n.rstd;
      scale[c] = gamma * n.rstd;
      shift[c] = beta - n.mean * gamma * n.rstd;
    }
    if (END == BLOCK_END_TWO) {
      const Moments n = moments(g.s_sum[c], g.s_square[c], g.inverse);
      s_mean[c] = n.mean, s_rstd[c] = n.rstd;
    }
    const Moments m = moments(y_sum, y_square, g.inverse);
    const float a = y_gamma * m.rstd, b = -a * m.rstd * g_gamma;
    ca[c] = a, cb[c] = b, cd[c] = -a * g_beta - b * m.mean;
  }

  // Warps that share weights or channels add up in shared memory, then a block adds to memory.
  constexpr int WEIGHTS = 9 * C * C, PARTIAL = 4 / T::COLUMNS * C;
  float* gathered = reinterpret_cast<float*>(memory);
  float* partial = gathered + (SPLIT > 1 ? SPLIT * WEIGHTS : 0);
  static_assert(K::SHARED >= ((SPLIT > 1 ? SPLIT * WEIGHTS : 0) + 3 * PARTIAL) * 4, "they must fit");
  int turn = 0;
  if (warp < K::FOR_INPUT) {
    float s1[T::ACROSS][2][2] = {}, s2[T::ACROSS][2][2] = {}, s3[T::ACROSS][2][2] = {};
    for (int t = blockIdx.x; t < g.tiles; t += gridDim.x, turn ^= 1) {
      prepare(t, turn);
      const int first = first_of(t);
      const uint16_t *raw = arrived_x + turn * PADDED, *value = END == INNER ? normalised : raw;
      uint32_t more[T::DOWN][T::ACROSS][2][2], raws[T::DOWN][T::ACROSS][2][2], sides[T::DOWN][T::ACROSS][2][2];
      if (END >= BLOCK_END) {  // in flight during the taps
        each_result<C>(warp, lane, [&](int j, int p, int h, int r, int pixel, int c) {
          const int at = first + pixel * C + c;
          more[j][p][h][r] = *reinterpret_cast<const uint32_t*>(add + at);
          raws[j][p][h][r] = *reinterpret_cast<const uint32_t*>(x_raw + at);
          if (END == BLOCK_END_TWO) sides[j][p][h][r] = *reinterpret_cast<const uint32_t*>(s_raw + at);
        });
      }
      float acc[T::DOWN][T::ACROSS][2][4];
      nine_taps<C, true>(acc, grad_at, g.w, warp, lane);
      each_result<C>(warp, lane, [&](int j, int p, int h, int r, int pixel, int c) {
        const int at = pixel * T::PITCH + c;
        float lo = acc[j][p][h][2 * r], hi = acc[j][p][h][2 * r + 1];
        if (END >= BLOCK_END) lo += low(more[j][p][h][r]), hi += high(more[j][p][h][r]);
        const uint32_t before = *reinterpret_cast<const uint32_t*>(value + at);
        const uint32_t v = pack(low(before) > 0.f ? lo : 0.f, high(before) > 0.f ? hi : 0.f);
        *reinterpret_cast<uint32_t*>(g.dx + first + pixel * C + c) = v;
        const uint32_t x = END == INNER ? *reinterpret_cast<const uint32_t*>(raw + at) : raws[j][p][h][r];
        s1[p][h][0] += low(v), s1[p][h][1] += high(v);
        s2[p][h][0] += low(v) * (low(x) - x_mean[c]) * x_rstd[c];
        s2[p][h][1] += high(v) * (high(x) - x_mean[c + 1]) * x_rstd[c + 1];
        if (END == BLOCK_END_TWO) {
          s3[p][h][0] += low(v) * (low(sides[j][p][h][r]) - s_mean[c]) * s_rstd[c];
          s3[p][h][1] += high(v) * (high(sides[j][p][h][r]) - s_mean[c + 1]) * s_rstd[c + 1];
        }
      });
    }
    let_next_start();
    __syncthreads();  // the last tile is no longer needed
    sum_rows<C>(partial, s1, warp, lane);
    sum_rows<C>(partial + PARTIAL, s2, warp, lane);
    if (END == BLOCK_END_TWO) sum_rows<C>(partial + 2 * PARTIAL, s3, warp, lane);
  } else {
    float dw[9][2][4] = {};
    const int mine = warp - K::FOR_INPUT, unit = mine % UNITS, from = unit / T::PAIRS * 16, to = unit % T::PAIRS * 16;
    for (int t = blockIdx.x; t < g.tiles; t += gridDim.x, turn ^= 1) {
      prepare(t, turn);
      if (t + gridDim.x < g.tiles) fetch(t + gridDim.x, turn ^ 1);
      const uint32_t value_at = shared_address(END == INNER ? normalised : arrived_x + turn * PADDED);
#pragma unroll 1
      for (int group = mine / UNITS; group < T::GROUPS; group += SPLIT) {
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
    let_next_start();
    __syncthreads();  // the last tile is no longer needed
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
            *reinterpret_cast<float2*>(gathered + mine / UNITS * WEIGHTS + at) = both;
          }
        }
  }
  __syncthreads();
  if (SPLIT > 1) {
    for (int i = threadIdx.x * 2; i < WEIGHTS; i += THREADS * 2) {
      float2 sum = make_float2(0.f, 0.f);
#pragma unroll
      for (int k = 0; k < SPLIT; k++) {
        const float2 one = *reinterpret_cast<const float2*>(gathered + k * WEIGHTS + i);
        sum.x += one.x, sum.y += one.y;
      }
      add_pair(g.dw + i, sum);
    }
  }
  if (END == WEIGHTS_ONLY || threadIdx.x >= C) return;
  const int c = threadIdx.x;
  const float beta = over_warps<C>(partial, c);
  atomicAdd(g.gx_beta + c, beta);
  atomicAdd(g.gx_gamma + c, over_warps<C>(partial + PARTIAL, c));
  if (END == BLOCK_END_TWO) {
    atomicAdd(g.gs_beta + c, beta);
    atomicAdd(g.gs_gamma + c, over_warps<C>(partial + 2 * PARTIAL, c));
  }
}

}  // namespace
