// The 3×3 convolutions of stride 1 of a CIFAR ResNet, forward and backward, for Hopper's matrix units: the fast twins
// of conv_forward and conv_backward in triton_*.py, which define what they compute. bf16, NHWC, images of 32×32 with
// 16 channels, 16×16 with 32 or 8×8 with 64: C·S = 512.
#include "cuda_backward.cuh"
#include "cuda_forward.cuh"

namespace {

// Starts a kernel before the one that it waits for has ended, so that its blocks are in place by then. Kernels of one
// width divide a multiprocessor's memory alike, since a change of that would make them wait: all of it is shared
// memory, except that with 64 channels the weights stay in the cache.
template <class K, class P>
int launch(void (*kernel)(P), const P& parameters, int processors, bool early, cudaStream_t stream) {
  if (const int error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, K::SHARED))
    return error;
  if (const int error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, K::CARVEOUT))
    return error;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  const int room = processors * K::PER_PROCESSOR;
  config.gridDim = parameters.tiles < room ? parameters.tiles : room, config.blockDim = K::THREADS;
  config.dynamicSmemBytes = K::SHARED, config.stream = stream, config.attrs = &attribute, config.numAttrs = early;
  return cudaLaunchKernelEx(&config, kernel, parameters);
}

template <int C>
int launch_forward(int input, const Forward& g, int n, bool early, cudaStream_t s) {
  switch (input) {
    case RAW: return launch<ForwardShape<C, RAW>>(forward<C, RAW>, g, n, early, s);
    case NORMALISED: return launch<ForwardShape<C, NORMALISED>>(forward<C, NORMALISED>, g, n, early, s);
    case JOINED_ALONE: return launch<ForwardShape<C, JOINED_ALONE>>(forward<C, JOINED_ALONE>, g, n, early, s);
    case JOINED: return launch<ForwardShape<C, JOINED>>(forward<C, JOINED>, g, n, early, s);
    default: return launch<ForwardShape<C, JOINED_TWO>>(forward<C, JOINED_TWO>, g, n, early, s);
  }
}

template <int C>
int launch_backward(int end, const Backward& g, int n, bool early, cudaStream_t s) {
  switch (end) {
    case WEIGHTS_ONLY: return launch<BackwardShape<C, WEIGHTS_ONLY>>(backward<C, WEIGHTS_ONLY>, g, n, early, s);
    case INNER: return launch<BackwardShape<C, INNER>>(backward<C, INNER>, g, n, early, s);
    case BLOCK_END: return launch<BackwardShape<C, BLOCK_END>>(backward<C, BLOCK_END>, g, n, early, s);
    default: return launch<BackwardShape<C, BLOCK_END_TWO>>(backward<C, BLOCK_END_TWO>, g, n, early, s);
  }
}

}  // namespace

// w: packed bf16 weights, k = C_in; early: the kernel before lets its successor start. Returns CUDA's error code.
extern "C" int conv_forward(int channels, int input, int sums, const uint16_t* x, const uint16_t* w, uint16_t* y,
                            const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                            const uint16_t* s, const float* s_sum, const float* s_square, const float* s_gamma,
                            const float* s_beta, uint16_t* joined, float count, float* y_sum, float* y_square,
                            int images, int processors, int early, cudaStream_t stream) {
  Forward g{x, w, y, x_sum, x_square, x_gamma, x_beta, s, s_sum, s_square, s_gamma, s_beta, joined, 1 / count, y_sum,
            y_square, sums, 0};
  g.tiles = images * 64 / channels;  // an image has 512 / channels rows, a tile eight
  if (channels == 16) return launch_forward<16>(input, g, processors, early, stream);
  if (channels == 32) return launch_forward<32>(input, g, processors, early, stream);
  return launch_forward<64>(input, g, processors, early, stream);
}

// w: packed bf16 weights, k = C_out; dw: (9, C_in, C_out) fp32. Returns CUDA's error code.
extern "C" int conv_backward(int channels, int end, const uint16_t* dz, const uint16_t* y, const float* y_sum,
                             const float* y_square, const float* y_gamma, const float* g_gamma, const float* g_beta,
                             const uint16_t* w, const uint16_t* x, uint16_t* dx, float* dw, const uint16_t* x_raw,
                             const float* x_sum, const float* x_square, const float* x_gamma, const float* x_beta,
                             float* gx_gamma, float* gx_beta, const uint16_t* add, const uint16_t* s_raw,
                             const float* s_sum, const float* s_square, float* gs_gamma, float* gs_beta, float count,
                             int images, int processors, int early, cudaStream_t stream) {
  Backward g{dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, w, x, dx, dw, x_raw, x_sum, x_square, x_gamma, x_beta,
             gx_gamma, gx_beta, add, s_raw, s_sum, s_square, gs_gamma, gs_beta, 1 / count, 0};
  g.tiles = images * 64 / channels;
  if (channels == 16) return launch_backward<16>(end, g, processors, early, stream);
  if (channels == 32) return launch_backward<32>(end, g, processors, early, stream);
  return launch_backward<64>(end, g, processors, early, stream);
}
