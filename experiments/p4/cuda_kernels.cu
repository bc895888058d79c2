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
  float count;
  float *y_sum, *y_square;
  int sums, tiles;
};

template <int C, int INPUT>
__global__ void __launch_bounds__(128, 6) forward(const Forward g) {
  using T = Shape<C>;
  constexpr int WARPS = 4, JOBS = T::GROUPS * T::PAIRS / WARPS;
  __shared__ __align__(16) uint16_t tile[T::HALO * T::PITCH];
  __shared__ float scale[C], shift[C], s_mean[C], s_scale[C], s_shift[C];
  const uint16_t *__restrict__ x = g.x, *__restrict__ s = g.s;
  uint16_t* __restrict__ joined = g.joined;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = warp % T::PAIRS;
  prefetch_weights<C, 32 * WARPS>(g.w);
  wait_for_grid();
  if (INPUT != RAW && threadIdx.x < C) {
    const int c = threadIdx.x;
    const Moments m = moments(g.x_sum, g.x_square, g.count, c);
    scale[c] = g.x_gamma[c] * m.rstd;
    shift[c] = g.x_beta[c] - m.mean * scale[c];
    if (INPUT == JOINED_TWO) {
      const Moments n = moments(g.s_sum, g.s_square, g.count, c);
      s_mean[c] = n.mean;
      s_scale[c] = g.s_gamma[c] * n.rstd;
      s_shift[c] = g.s_beta[c];
    }
  }
  float total[2][2] = {}, square[2][2] = {};
  for (int t = blockIdx.x; t < g.tiles; t += gridDim.x) {
    const int image = t / T::TILES, row0 = t % T::TILES * T::ROWS;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < T::HALO * T::CHUNKS; i += 128) {
      const int c = i % T::CHUNKS * 8, p = i / T::CHUNKS;
      const int row = row0 + p / (T::S + 2) - 1, column = p % (T::S + 2) - 1;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row >= 0 && row < T::S && column >= 0 && column < T::S) {
        const int at = ((image * T::S + row) * T::S + column) * C + c;
        v = *reinterpret_cast<const uint4*>(x + at);
        uint4 more = make_uint4(0, 0, 0, 0);
        if (INPUT >= JOINED) more = *reinterpret_cast<const uint4*>(s + at);
        if (INPUT != RAW) {
          uint32_t* words = &v.x;
          const uint32_t* others = &more.x;
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const int k = c + 2 * j;
            float lo = low(words[j]) * scale[k] + shift[k], hi = high(words[j]) * scale[k + 1] + shift[k + 1];
            if (INPUT == JOINED) lo += low(others[j]), hi += high(others[j]);
            if (INPUT == JOINED_TWO) {
              lo += (low(others[j]) - s_mean[k]) * s_scale[k] + s_shift[k];
              hi += (high(others[j]) - s_mean[k + 1]) * s_scale[k + 1] + s_shift[k + 1];
            }
            words[j] = pack(fmaxf(lo, 0.f), fmaxf(hi, 0.f));
          }
        }
        if (INPUT >= JOINED_ALONE && row >= row0 && row < row0 + T::ROWS) *reinterpret_cast<uint4*>(joined + at) = v;
      }
      *reinterpret_cast<uint4*>(tile + p * T::PITCH + c) = v;
    }
    __syncthreads();
    float acc[JOBS][2][4];
    nine_taps<C, WARPS, false>(acc, shared_address(tile), g.w, warp, lane);
    uint16_t* out = g.y + (image * T::S + row0) * T::S * C;
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
  if (g.sums) {
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int c = pair * 16 + h * 8 + lane % 4 * 2 + e;
        add_over_rows(g.y_sum + c, total[h][e]);
        add_over_rows(g.y_square + c, square[h][e]);
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
  if (END != WEIGHTS_ONLY) prefetch_weights<C, THREADS>(g.w);
  wait_for_grid();
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
#pragma unroll
    for (int i = threadIdx.x; i < T::PIXELS * T::CHUNKS; i += THREADS) {
      const int c = i % T::CHUNKS * 8, p = i / T::CHUNKS;
      copy_16_bytes(shared_address(value + p * T::PITCH + c), g.x + first + p * C + c);
    }
    // Ahead of their loads: what this tile reads last, and the next tile.
    if (threadIdx.x < T::LINES) {
      const int at = first + threadIdx.x * 64;
      if (END >= BLOCK_END) prefetch(g.add + at), prefetch(g.x_raw + at);
      if (END == BLOCK_END_TWO) prefetch(g.s_raw + at);
      if (t + gridDim.x < g.tiles) {
        const int next = at + gridDim.x * T::PIXELS * C;
        prefetch(g.dz + next), prefetch(g.y + next), prefetch(g.x + next);
      }
    }
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
    finish_copies();
    if (END == INNER) {
#pragma unroll
      for (int i = threadIdx.x; i < T::PIXELS * T::CHUNKS; i += THREADS) {  // the thread's own copies
        const int c = i % T::CHUNKS * 8, p = i / T::CHUNKS;
        uint4* at = reinterpret_cast<uint4*>(value + p * T::PITCH + c);
        uint4 v = *at;
        uint32_t* words = &v.x;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int k = c + 2 * j;
          words[j] = pack(fmaxf(low(words[j]) * scale[k] + shift[k], 0.f),
                          fmaxf(high(words[j]) * scale[k + 1] + shift[k + 1], 0.f));
        }
        *at = v;
      }
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

// Starts a kernel before the one that it waits for has ended, so that its blocks are in place by then.
template <class P>
int launch(void (*kernel)(P), const P& parameters, int blocks, int threads, bool early, cudaStream_t stream) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks, config.blockDim = threads, config.stream = stream;
  config.attrs = &attribute, config.numAttrs = early;
  return cudaLaunchKernelEx(&config, kernel, parameters);
}

template <int C>
int launch_forward(int input, const Forward& g, int blocks, bool early, cudaStream_t stream) {
  constexpr void (*kernels[])(Forward) = {forward<C, RAW>, forward<C, NORMALISED>, forward<C, JOINED_ALONE>,
                                          forward<C, JOINED>, forward<C, JOINED_TWO>};
  return launch(kernels[input], g, blocks, 128, early, stream);
}

template <int C>
int launch_backward(int end, const Backward& g, int blocks, bool early, cudaStream_t stream) {
  constexpr void (*kernels[])(Backward) = {backward<C, WEIGHTS_ONLY>, backward<C, INNER>, backward<C, BLOCK_END>,
                                           backward<C, BLOCK_END_TWO>};
  return launch(kernels[end], g, blocks, 32 * Shape<C>::BACK_WARPS, early, stream);
}

}  // namespace

// w: packed bf16 weights, k = C_in; early: the kernel before lets its successor start. Returns CUDA's error code.
extern "C" int conv_forward(int channels, int input, int sums, const uint16_t* x, const uint16_t* w, uint16_t* y,
                            const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                            const uint16_t* s, const float* s_sum, const float* s_square, const float* s_gamma,
                            const float* s_beta, uint16_t* joined, float count, float* y_sum, float* y_square,
                            int images, int blocks, int early, cudaStream_t stream) {
  Forward g{x, w, y, x_sum, x_square, x_gamma, x_beta, s, s_sum, s_square, s_gamma, s_beta, joined, count, y_sum,
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
             gx_gamma, gx_beta, add, s_raw, s_sum, s_square, gs_gamma, gs_beta, count, 0};
  if (channels == 16) return g.tiles = images * Shape<16>::TILES, launch_backward<16>(end, g, blocks, early, stream);
  if (channels == 32) return g.tiles = images * Shape<32>::TILES, launch_backward<32>(end, g, blocks, early, stream);
  return g.tiles = images * Shape<64>::TILES, launch_backward<64>(end, g, blocks, early, stream);
}
