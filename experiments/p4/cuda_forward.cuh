// The forward convolution of cuda_kernels.cu: normalisation and joins while a tile goes to the matrix units' layout.
#pragma once
#include "cuda_tiles.cuh"

namespace {

// What the convolution reads, as in activations.py: x; relu(bn(x)); the join of a block that ends before it, whose
// shortcut is absent, s or bn(s), and which it stores.
constexpr int RAW = 0, NORMALISED = 1, JOINED_ALONE = 2, JOINED = 3, JOINED_TWO = 4;

struct Forward {
  const uint16_t *x, *w;
  uint16_t* y;
  const float *x_sum, *x_square, *x_gamma, *x_beta;
  const uint16_t* s;
  const float *s_sum, *s_square, *s_gamma, *s_beta;
  uint16_t* joined;
  float inverse;
  float *y_sum, *y_square;
  int sums, tiles;
};

template <int C, int INPUT>
struct ForwardShape {
  static constexpr int THREADS = 128, PER_PROCESSOR = C == 64 ? 3 : 5, CARVEOUT = C == 64 ? 57 : 100;  // %
  static constexpr int SHARED = (Shape<C>::HALO * Shape<C>::PITCH + (INPUT >= JOINED ? 2 : 1) * Shape<C>::ARRIVING) * 2;
};

template <int C, int INPUT>
__global__ void __launch_bounds__(128, (ForwardShape<C, INPUT>::PER_PROCESSOR)) forward(const Forward g) {
  using T = Shape<C>;
  constexpr int THREADS = ForwardShape<C, INPUT>::THREADS;
  extern __shared__ __align__(16) uint16_t memory[];
  uint16_t *tile = memory, *arrived = tile + T::HALO * T::PITCH, *arrived_s = arrived + T::ARRIVING;
  __shared__ float scale[C], shift[C], s_mean[C], s_scale[C], s_shift[C];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t tile_at = shared_address(tile), arrived_at = tile_at + T::HALO * T::PITCH * 2;
  const auto fetch = [&](int t) {
    const int image = t / T::TILES * T::IMAGE, row0 = t % T::TILES * T::ROWS;
    copy_rows<C, THREADS>(threadIdx.x, arrived_at, g.x + image, row0);
    if (INPUT >= JOINED) copy_rows<C, THREADS>(threadIdx.x, arrived_at + T::ARRIVING * 2, g.s + image, row0);
  };
  prefetch_weights<C, THREADS>(g.w);
  clear_columns<C, THREADS>(tile);
  wait_for_grid();
  fetch(blockIdx.x);
  if (INPUT != RAW && threadIdx.x < C) {
    const int c = threadIdx.x;
    const float x_sum = g.x_sum[c], x_square = g.x_square[c], gamma = g.x_gamma[c], beta = g.x_beta[c];
    if (INPUT == JOINED_TWO) {
      const Moments n = moments(g.s_sum[c], g.s_square[c], g.inverse);
      s_mean[c] = n.mean;
      s_scale[c] = g.s_gamma[c] * n.rstd;
      s_shift[c] = g.s_beta[c];
    }
    const Moments m = moments(x_sum, x_square, g.inverse);
    scale[c] = gamma * m.rstd;
    shift[c] = beta - m.mean * gamma * m.rstd;
  }
  float total[T::ACROSS][2][2] = {}, square[T::ACROSS][2][2] = {};
  for (int t = blockIdx.x; t < g.tiles; t += gridDim.x) {
    const int image = t / T::TILES * T::IMAGE, row0 = t % T::TILES * T::ROWS;
    finish_copies();
    __syncthreads();  // the coefficients are there, and the last tile is no longer needed
    const int c = threadIdx.x * 8 % C;
    float by[8], plus[8], less[8], s_by[8], s_plus[8];
#pragma unroll
    for (int j = 0; j < 8 && INPUT != RAW; j++) {
      by[j] = scale[c + j], plus[j] = shift[c + j];
      if (INPUT == JOINED_TWO) less[j] = s_mean[c + j], s_by[j] = s_scale[c + j], s_plus[j] = s_shift[c + j];
    }
    each_piece<T::ARRIVING, THREADS>(threadIdx.x, [&](int i) {
      const int row = row0 - 1 + i / (T::S * C);
      uint4 v = make_uint4(0, 0, 0, 0);
      if (inside<C>(row0, i)) {
        v = *reinterpret_cast<const uint4*>(arrived + i);
        uint4 more = make_uint4(0, 0, 0, 0);
        if (INPUT >= JOINED) more = *reinterpret_cast<const uint4*>(arrived_s + i);
        if (INPUT != RAW) {
          uint32_t* words = &v.x;
          const uint32_t* others = &more.x;
#pragma unroll
          for (int j = 0; j < 8; j += 2) {
            const uint32_t word = words[j / 2], other = others[j / 2];
            float lo = low(word) * by[j] + plus[j], hi = high(word) * by[j + 1] + plus[j + 1];
            if (INPUT == JOINED) lo += low(other), hi += high(other);
            if (INPUT == JOINED_TWO) {
              lo += (low(other) - less[j]) * s_by[j] + s_plus[j];
              hi += (high(other) - less[j + 1]) * s_by[j + 1] + s_plus[j + 1];
            }
            words[j / 2] = pack(fmaxf(lo, 0.f), fmaxf(hi, 0.f));
          }
        }
        if (INPUT >= JOINED_ALONE && row >= row0 && row < row0 + T::ROWS)
          *reinterpret_cast<uint4*>(g.joined + image + (row0 - 1) * T::S * C + i) = v;
      }
      *reinterpret_cast<uint4*>(tile + in_tile<C>(i)) = v;
    });
    __syncthreads();
    if (t + gridDim.x < g.tiles) fetch(t + gridDim.x);
    float acc[T::DOWN][T::ACROSS][2][4];
    nine_taps<C, false>(acc, tile_at, g.w, warp, lane);
    uint16_t* out = g.y + image + row0 * T::S * C;
    each_result<C>(warp, lane, [&](int j, int p, int h, int r, int pixel, int c) {
      const uint32_t v = pack(acc[j][p][h][2 * r], acc[j][p][h][2 * r + 1]);
      const int at = pixel * C + c;
      *reinterpret_cast<uint32_t*>(out + at) = v;
      total[p][h][0] += low(v), total[p][h][1] += high(v);
      square[p][h][0] += low(v) * low(v), square[p][h][1] += high(v) * high(v);
    });
  }
  let_next_start();
  if (!g.sums) return;
  constexpr int PARTIAL = 4 / T::COLUMNS * C;
  float* partial = reinterpret_cast<float*>(memory);
  __syncthreads();  // the last tile is no longer needed
  sum_rows<C>(partial, total, warp, lane);
  sum_rows<C>(partial + PARTIAL, square, warp, lane);
  __syncthreads();
  if (threadIdx.x >= C) return;
  const int c = threadIdx.x;
  atomicAdd(g.y_sum + c, over_warps<C>(partial, c));
  atomicAdd(g.y_square + c, over_warps<C>(partial + PARTIAL, c));
}

}  // namespace
