// The 3×3 convolutions of stride 1 of a CIFAR ResNet, forward and backward, for Hopper's matrix units: the fast twins
// of conv_forward and conv_backward in triton_*.py, which define what they compute. bf16, NHWC, images of 32×32 with
// 16 channels, 16×16 with 32 or 8×8 with 64: C·S = 512.
#include "cuda_tiles.cuh"

namespace {

constexpr int WEIGHTS_ONLY = 0, INNER = 1, BLOCK_END = 2, BLOCK_END_TWO = 3;  // as in fused_passes.py

// What the convolution reads, as in fused_passes.py: x; relu(bn(x)); the join of a block that ends before it, whose
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
  static constexpr int PER_PROCESSOR = C == 64 ? 3 : 5, THREADS = 128, CARVEOUT = C == 64 ? 57 : 100;  // %
  static constexpr int SHARED = (Shape<C>::HALO * Shape<C>::PITCH + (INPUT >= JOINED ? 2 : 1) * Shape<C>::ARRIVING) * 2;
};

template <int C, int INPUT>
__global__ void __launch_bounds__(128, (ForwardShape<C, INPUT>::PER_PROCESSOR)) forward(const Forward g) {
  using T = Shape<C>;
  constexpr int WARPS = 4, THREADS = 32 * WARPS, JOBS = T::GROUPS * T::PAIRS / WARPS;
  extern __shared__ __align__(16) uint16_t memory[];
  uint16_t *tile = memory, *arrived = tile + T::HALO * T::PITCH, *arrived_s = arrived + T::ARRIVING;
  __shared__ float scale[C], shift[C], s_mean[C], s_scale[C], s_shift[C];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = warp % T::PAIRS;
  const uint32_t tile_at = shared_address(tile), arrived_at = tile_at + T::HALO * T::PITCH * 2;
  const auto fetch = [&](int t) {
    const int image = t / T::TILES * T::IMAGE, row0 = t % T::TILES * T::ROWS;
    copy_rows<C, THREADS>(arrived_at, g.x + image, row0);
    if (INPUT >= JOINED) copy_rows<C, THREADS>(arrived_at + T::ARRIVING * 2, g.s + image, row0);
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
  float total[2][2] = {}, square[2][2] = {};
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
    each_piece<T::ARRIVING, THREADS>([&](int i) {  // the thread's own copies
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
    float acc[JOBS][2][4];
    nine_taps<C, WARPS, false>(acc, tile_at, g.w, warp, lane);
    uint16_t* out = g.y + image + row0 * T::S * C;
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
  if (!g.sums) return;
  constexpr int PARTIAL = WARPS / T::PAIRS * C;
  float* partial = reinterpret_cast<float*>(memory);
  __syncthreads();  // the last tile is no longer needed
  sum_rows<C>(partial, total, warp, lane);
  sum_rows<C>(partial + PARTIAL, square, warp, lane);
  __syncthreads();
  if (threadIdx.x >= C) return;
  const int c = threadIdx.x;
  atomicAdd(g.y_sum + c, over_warps<C, WARPS>(partial, c));
  atomicAdd(g.y_square + c, over_warps<C, WARPS>(partial + PARTIAL, c));
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
  float inverse;
  int tiles;
};

template <int C, int END>
struct BackwardShape {
  static constexpr int PER_PROCESSOR = C == 64 ? 1 : 3, THREADS = C == 64 ? 512 : 128;
  static constexpr int CARVEOUT = C == 64 ? 57 : 100;  // %
  static constexpr int PADDED = Shape<C>::PIXELS * Shape<C>::PITCH;  // bf16 of a tile without halo
  static constexpr int SHARED =
      (Shape<C>::HALO * Shape<C>::PITCH + 2 * Shape<C>::ARRIVING + (END == INNER ? 3 : 2) * PADDED) * 2;
};

template <int C, int END>
__global__ void __launch_bounds__((BackwardShape<C, END>::THREADS), (BackwardShape<C, END>::PER_PROCESSOR))
    backward(const Backward g) {
  using T = Shape<C>;
  constexpr int THREADS = BackwardShape<C, END>::THREADS, WARPS = THREADS / 32, PADDED = BackwardShape<C, END>::PADDED;
  constexpr int JOBS = T::GROUPS * T::PAIRS / WARPS;
  constexpr int UNITS = T::PAIRS * T::PAIRS, SPLIT = WARPS / UNITS;  // a warp has 16×16 weights of each tap
  extern __shared__ __align__(16) uint16_t memory[];
  uint16_t* grad = memory;  // gradient of the convolution's output
  uint16_t *arrived_dz = grad + T::HALO * T::PITCH, *arrived_y = arrived_dz + T::ARRIVING;
  uint16_t *arrived_x = arrived_y + T::ARRIVING, *normalised = arrived_x + 2 * PADDED;
  __shared__ float ca[C], cb[C], cd[C], scale[C], shift[C], x_mean[C], x_rstd[C], s_mean[C], s_rstd[C];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = warp % T::PAIRS;
  const uint32_t grad_at = shared_address(grad), arrived_at = grad_at + T::HALO * T::PITCH * 2;
  const uint16_t *__restrict__ add = g.add, *__restrict__ x_raw = g.x_raw, *__restrict__ s_raw = g.s_raw;
  uint16_t* __restrict__ dx = g.dx;
  const auto fetch = [&](int t, int turn) {
    const int image = t / T::TILES * T::IMAGE, row0 = t % T::TILES * T::ROWS, first = image + row0 * T::S * C;
    copy_rows<C, THREADS>(arrived_at, g.dz + image, row0);
    copy_rows<C, THREADS>(arrived_at + T::ARRIVING * 2, g.y + image, row0);
    copy_pixels<C, THREADS>(arrived_at + (2 * T::ARRIVING + turn * PADDED) * 2, g.x + first);
    if (END >= BLOCK_END && threadIdx.x < T::LINES) {  // what is read last, ahead of its loads
      prefetch(add + first + threadIdx.x * 64), prefetch(x_raw + first + threadIdx.x * 64);
      if (END == BLOCK_END_TWO) prefetch(s_raw + first + threadIdx.x * 64);
    }
  };
  if (END != WEIGHTS_ONLY) prefetch_weights<C, THREADS>(g.w);
  clear_columns<C, THREADS>(grad);
  wait_for_grid();
  fetch(blockIdx.x, 0);
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
  float s1[2][2] = {}, s2[2][2] = {}, s3[2][2] = {};
  float dw[9][2][4] = {};
  const int unit = warp % UNITS, from = unit / T::PAIRS * 16, to = unit % T::PAIRS * 16;

  int turn = 0;
  for (int t = blockIdx.x; t < g.tiles; t += gridDim.x, turn ^= 1) {
    const int row0 = t % T::TILES * T::ROWS;
    const int first = t / T::TILES * T::IMAGE + row0 * T::S * C;  // the tile's first element; its pixels follow
    const uint16_t* raw = arrived_x + turn * PADDED;
    uint16_t* value = END == INNER ? normalised : arrived_x + turn * PADDED;  // the convolution's input
    finish_copies();
    __syncthreads();  // the coefficients are there, and the last tile is no longer needed
    {
      const int c = threadIdx.x * 8 % C;
      float of_dz[8], of_y[8], plus[8];
#pragma unroll
      for (int j = 0; j < 8; j++) of_dz[j] = ca[c + j], of_y[j] = cb[c + j], plus[j] = cd[c + j];
      each_piece<T::ARRIVING, THREADS>([&](int i) {  // the thread's own copies
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
    }
    if (END == INNER) {
      const int c = threadIdx.x * 8 % C;
      float by[8], plus[8];
#pragma unroll
      for (int j = 0; j < 8; j++) by[j] = scale[c + j], plus[j] = shift[c + j];
      each_piece<T::PIXELS * C, THREADS>([&](int i) {  // the thread's own copies
        const int at = i / C * T::PITCH + c;
        uint4 v = *reinterpret_cast<const uint4*>(raw + at);
        uint32_t* words = &v.x;
#pragma unroll
        for (int j = 0; j < 8; j += 2)
          words[j / 2] = pack(fmaxf(low(words[j / 2]) * by[j] + plus[j], 0.f),
                              fmaxf(high(words[j / 2]) * by[j + 1] + plus[j + 1], 0.f));
        *reinterpret_cast<uint4*>(value + at) = v;
      });
    }
    __syncthreads();
    if (t + gridDim.x < g.tiles) fetch(t + gridDim.x, turn ^ 1);

    if (END != WEIGHTS_ONLY) {
      float acc[JOBS][2][4];
      nine_taps<C, WARPS, true>(acc, grad_at, g.w, warp, lane);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int c = pair * 16 + h * 8 + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < JOBS; j++) {
          const int p0 = (warp / T::PAIRS + j * (WARPS / T::PAIRS)) * 16 + lane / 4;
#pragma unroll
          for (int r = 0; r < 2; r++) {
            const int at = (p0 + 8 * r) * T::PITCH + c, out = first + (p0 + 8 * r) * C + c;
            float lo = acc[j][h][2 * r], hi = acc[j][h][2 * r + 1];
            if (END >= BLOCK_END) {
              const uint32_t more = *reinterpret_cast<const uint32_t*>(add + out);
              lo += low(more), hi += high(more);
            }
            const uint32_t before = *reinterpret_cast<const uint32_t*>(value + at);
            lo = low(before) > 0.f ? lo : 0.f, hi = high(before) > 0.f ? hi : 0.f;
            const uint32_t v = pack(lo, hi);
            *reinterpret_cast<uint32_t*>(dx + out) = v;
            const uint32_t x = *reinterpret_cast<const uint32_t*>(END == INNER ? raw + at : x_raw + out);
            s1[h][0] += low(v), s1[h][1] += high(v);
            s2[h][0] += low(v) * (low(x) - x_mean[c]) * x_rstd[c];
            s2[h][1] += high(v) * (high(x) - x_mean[c + 1]) * x_rstd[c + 1];
            if (END == BLOCK_END_TWO) {
              const uint32_t other = *reinterpret_cast<const uint32_t*>(s_raw + out);
              s3[h][0] += low(v) * (low(other) - s_mean[c]) * s_rstd[c];
              s3[h][1] += high(v) * (high(other) - s_mean[c + 1]) * s_rstd[c + 1];
            }
          }
        }
      }
    }

    const uint32_t value_at = shared_address(value);
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

  // The block's warps add up in shared memory, as far as they share weights or channels, then a block adds to memory.
  constexpr int WEIGHTS = 9 * C * C, PARTIAL = WARPS / T::PAIRS * C;
  float* gathered = reinterpret_cast<float*>(memory);
  float* partial = gathered + (SPLIT > 1 ? SPLIT * WEIGHTS : 0);
  static_assert((BackwardShape<C, END>::SHARED) >= ((SPLIT > 1 ? SPLIT * WEIGHTS : 0) + 3 * PARTIAL) * 4);
  __syncthreads();  // the last tile is no longer needed
  if (END != WEIGHTS_ONLY) {
    sum_rows<C>(partial, s1, warp, lane);
    sum_rows<C>(partial + PARTIAL, s2, warp, lane);
    if (END == BLOCK_END_TWO) sum_rows<C>(partial + 2 * PARTIAL, s3, warp, lane);
  }
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
          *reinterpret_cast<float2*>(gathered + warp / UNITS * WEIGHTS + at) = both;
        }
      }
  __syncthreads();
  if (SPLIT > 1) {
#pragma unroll
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
  const float beta = over_warps<C, WARPS>(partial, c);
  atomicAdd(g.gx_beta + c, beta);
  atomicAdd(g.gx_gamma + c, over_warps<C, WARPS>(partial + PARTIAL, c));
  if (END == BLOCK_END_TWO) {
    atomicAdd(g.gs_beta + c, beta);
    atomicAdd(g.gs_gamma + c, over_warps<C, WARPS>(partial + 2 * PARTIAL, c));
  }
}

// Starts a kernel before the one that it waits for has ended, so that its blocks are in place by then. Kernels of one
// width divide a multiprocessor's memory alike, since a change of that would make them wait: all of it is shared memory,
// except that with 64 channels the weights stay in the cache.
template <class K, class P>
int launch(void (*kernel)(P), const P& parameters, int blocks, bool early, cudaStream_t stream) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, K::SHARED);
  cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, K::CARVEOUT);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks, config.blockDim = K::THREADS, config.dynamicSmemBytes = K::SHARED, config.stream = stream;
  config.attrs = &attribute, config.numAttrs = early;
  return cudaLaunchKernelEx(&config, kernel, parameters);
}

template <int C>
int launch_forward(int input, const Forward& g, int blocks, bool early, cudaStream_t s) {
  switch (input) {
    case RAW: return launch<ForwardShape<C, RAW>>(forward<C, RAW>, g, blocks, early, s);
    case NORMALISED: return launch<ForwardShape<C, NORMALISED>>(forward<C, NORMALISED>, g, blocks, early, s);
    case JOINED_ALONE: return launch<ForwardShape<C, JOINED_ALONE>>(forward<C, JOINED_ALONE>, g, blocks, early, s);
    case JOINED: return launch<ForwardShape<C, JOINED>>(forward<C, JOINED>, g, blocks, early, s);
    default: return launch<ForwardShape<C, JOINED_TWO>>(forward<C, JOINED_TWO>, g, blocks, early, s);
  }
}

template <int C>
int launch_backward(int end, const Backward& g, int blocks, bool early, cudaStream_t s) {
  switch (end) {
    case WEIGHTS_ONLY: return launch<BackwardShape<C, WEIGHTS_ONLY>>(backward<C, WEIGHTS_ONLY>, g, blocks, early, s);
    case INNER: return launch<BackwardShape<C, INNER>>(backward<C, INNER>, g, blocks, early, s);
    case BLOCK_END: return launch<BackwardShape<C, BLOCK_END>>(backward<C, BLOCK_END>, g, blocks, early, s);
    default: return launch<BackwardShape<C, BLOCK_END_TWO>>(backward<C, BLOCK_END_TWO>, g, blocks, early, s);
  }
}

}  // namespace

// w: packed bf16 weights, k = C_in; early: the kernel before lets its successor start. Returns CUDA's error code.
extern "C" int conv_forward(int channels, int input, int sums, const uint16_t* x, const uint16_t* w, uint16_t* y,
                            const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                            const uint16_t* s, const float* s_sum, const float* s_square, const float* s_gamma,
                            const float* s_beta, uint16_t* joined, float count, float* y_sum, float* y_square,
                            int images, int blocks, int early, cudaStream_t stream) {
  Forward g{x, w, y, x_sum, x_square, x_gamma, x_beta, s, s_sum, s_square, s_gamma, s_beta, joined, 1 / count, y_sum,
            y_square, sums, 0};
  if (channels == 16) return g.tiles = images * Shape<16>::TILES, launch_forward<16>(input, g, blocks, early, stream);
  if (channels == 32) return g.tiles = images * Shape<32>::TILES, launch_forward<32>(input, g, blocks, early, stream);
  return g.tiles = images * Shape<64>::TILES, launch_forward<64>(input, g, blocks, early, stream);
}

// w: packed bf16 weights, k = C_out; dw: (9, C_in, C_out) fp32. Returns CUDA's error code.
extern "C" int conv_backward(int channels, int end, const uint16_t* dz, const uint16_t* y, const float* y_sum,
                             const float* y_square, const float* y_gamma, const float* g_gamma, const float* g_beta,
                             const uint16_t* w, const uint16_t* x, uint16_t* dx, float* dw, const uint16_t* x_raw,
                             const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                             float* gx_gamma, float* gx_beta, const uint16_t* add, const uint16_t* s_raw,
                             const float* s_sum, const float* s_square, float* gs_gamma, float* gs_beta, float count,
                             int images, int blocks, int early, cudaStream_t stream) {
  Backward g{dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, w, x, dx, dw, x_raw, x_sum, x_square, x_gamma, x_beta,
             gx_gamma, gx_beta, add, s_raw, s_sum, s_square, gs_gamma, gs_beta, 1 / count, 0};
  if (channels == 16) return g.tiles = images * Shape<16>::TILES, launch_backward<16>(end, g, blocks, early, stream);
  if (channels == 32) return g.tiles = images * Shape<32>::TILES, launch_backward<32>(end, g, blocks, early, stream);
  return g.tiles = images * Shape<64>::TILES, launch_backward<64>(end, g, blocks, early, stream);
}
