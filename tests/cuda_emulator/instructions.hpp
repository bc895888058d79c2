// The functions of cuda_tiles.cuh that are written in PTX, on the CPU, by NVIDIA's description of its instructions.
inline float of_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }

// To the nearest bf16, ties to even.
inline uint32_t to_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (value != value) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline uint32_t pack(float lo, float hi) { return to_bf16(lo) | to_bf16(hi) << 16; }

// Addresses of shared memory have 32 bits: they count from here.
inline char origin;
inline uint32_t shared_address(const void* p) { return static_cast<const char*>(p) - &origin; }
inline char* shared(uint32_t at) { return &origin + int32_t(at); }
inline const uint16_t* shared_row(uint32_t at) { return reinterpret_cast<const uint16_t*>(shared(at)); }

// Copies happen at once or as late as they may, so that what still needed the place, or a forgotten wait, shows.
inline void copy_16_bytes(uint32_t to, const void* from) {
  static std::minstd_rand random(1);
  const auto copy = [=] { std::memcpy(shared(to), from, 16); };
  if (random() % 2) return copy();
  emulator::threads[threadIdx.x].copies.push_back(copy);
}
inline void finish_copies() {
  for (const auto& copy : std::exchange(emulator::threads[threadIdx.x].copies, {})) copy();
}
inline void prefetch(const void*) {}
template <int, int>
void prefetch_weights(const uint16_t*) {}
inline void wait_for_grid() {}  // kernels follow one another
inline void let_next_start() {}

// ldmatrix: lane l gives the address of row l % 8 of matrix l / 8, and gets of each matrix row l / 4, columns 2 (l % 4)
// and one more; transposed, column l / 4 of these rows.
inline void load(uint32_t (&r)[4], uint32_t at, bool transposed) {
  const auto* rows = emulator::exchange({at});
  const int lane = threadIdx.x % emulator::LANES, one = lane / 4, pair = lane % 4 * 2;
  for (int i = 0; i < 4; i++) {
    const auto element = [&](int row, int column) { return uint32_t(shared_row(rows[8 * i + row][0])[column]); };
    r[i] = transposed ? element(pair, one) | element(pair + 1, one) << 16
                      : element(one, pair) | element(one, pair + 1) << 16;
  }
}
inline void load_matrices(uint32_t (&r)[4], uint32_t at) { load(r, at, false); }
inline void load_transposed(uint32_t (&r)[4], uint32_t at) { load(r, at, true); }

// mma.m16n8k16: c (16×8) += a (16×16) · b (16×8).
inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto* given = emulator::exchange({a[0], a[1], a[2], a[3], b0, b1});
  const int lane = threadIdx.x % emulator::LANES;
  const auto half = [](uint32_t word, int k) { return of_bf16(k % 2 ? word >> 16 : word & 0xffff); };
  for (int i = 0; i < 4; i++) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) {
      const int in_half = k % 8 / 2;
      const uint32_t left = given[row % 8 * 4 + in_half][row / 8 + k / 8 * 2];
      const uint32_t right = given[column * 4 + in_half][4 + k / 8];
      c[i] += half(left, k) * half(right, k);
    }
  }
}
