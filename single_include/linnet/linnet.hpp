// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/linnet.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// All of linnet that needs nothing but the standard library and Eigen. Opt-in headers beside it:
/// linnet/json.hpp (safetensors, Hugging Face, JSON lines, logs), linnet/checkpoint.hpp,
/// linnet/recorded_teacher.hpp, linnet/sentencepiece.hpp and linnet/xtensor.hpp.

/// @file
/// Pre-training examples of T5: windows of a text, denoised.

#include <string>
#include <utility>

/// @file
/// The arrays behind a t5_batch.

#include <algorithm>
#include <span>
#include <vector>

/// @file
/// The T5 encoder-decoder (Raffel et al. 2020), versions 1.0 and 1.1, and its re-parameterised
/// variants (zoo A1 to A8, B1).

/// @file
/// Turns a list of policies in any order into one choice per slot, with worded refusals.

#include <type_traits>

/// @file
/// Softmax attention to near tokens only: sliding windows, and windows with attention sinks.

/// @file
/// Softmax attention as a layer: self or cross, causal or bidirectional, multi-head, grouped-query
/// or multi-query, with rotary or relative positions and a key-value cache.

/// @file
/// What kinds of attention share: the linear maps around the mixing of tokens, and for those that
/// read whole sequences their buffers and rotary positions.

/// @file
/// What every kind of attention is built from: its numbers, and what it says of itself.

/// @file
/// The key-value cache: how a session keeps the keys and values of the tokens it was fed.

/// @file
/// The key-value cache in 4 bits: keys per channel, values per token (zoo D15).

#include <cmath>

/// @file
/// The contract of a layer.
///
/// A layer is a stateless type with
///  - `params<Form>`: its parameters as a struct, in one of the forms of nn/parameters.hpp;
///  - `visit(f, at, p...)`: calls `f(path, tensor_info, p.member...)` for each parameter, for any
///    number of parameter structs in lockstep (also none, to count);
///  - `cache<T>` and `plan<T>(planner&, extents)`: the buffers one instance needs;
///  - `forward(p, x, y, cache, ctx)`: y[rows, out] = f(x[rows, in]). With `ctx.past` set it
///  continues
///    cached sequences: the same code serves training, prefill and one-token steps;
///  - `adds_residual`, true only where forward takes a further argument `const T* residual`, which
///    may be null: y = residual[rows, out] + f(x), without a pass of its own over memory;
///  - `backward(p, dp, x, dy, dx, cache, ctx)`: ADDS to the gradients dp and dx;
///  - `copy_state(cache, from, to, state_part)`, only where the layer plans state: one sequence
///  continues where another is;
///  - `flops(extents)`: floating-point operations of the products in a forward call, one
///    multiply-add counted as 2; elementwise work is not counted (zoo A8).
///
/// Every thread of a team makes the same calls (SPMD); an operation returns when all threads have
/// finished it.

/// @file
/// Fixed memory: every buffer of a session or trainer is planned once, then never allocated again.

#include <cassert>
#include <cstdlib>
#include <memory>

/// @file
/// Indices and tokens, and a test for finite values that survives -ffast-math.

/// @file
/// The scalar vocabulary of the library: indices and tokens.

#include <cstddef>
#include <cstdint>

/// @file
/// Version, the keyed inline namespace and the few compiler differences, all in one place.

#define LINNET_VERSION_MAJOR 0
#define LINNET_VERSION_MINOR 1
#define LINNET_VERSION_PATCH 0
#define LINNET_VERSION "0.1.0"

#if !defined(__GNUC__)
#error "linnet needs g++ 12 or clang 14 or newer: its kernels use their vector extensions."
#elif defined(__clang__) && __clang_major__ < 14
#error "linnet needs clang 14 or newer."
#elif !defined(__clang__) && __GNUC__ < 12
#error "linnet needs g++ 12 or newer."
#elif __cplusplus < 202002L
#error "linnet needs C++20: compile with -std=c++20."
#endif

// Translation units of one program may be compiled with different flags. Everything that such a
// flag changes lives in an inline namespace named after the flags, so the linker never merges,
// say, an AVX-512 instance of a function with the one a portable translation unit relies on.
#if defined(__AVX512BF16__)
#define LINNET_ABI_ARCH avx512bf16
#elif defined(__AVX512VNNI__)
#define LINNET_ABI_ARCH avx512vnni
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define LINNET_ABI_ARCH avx512
#elif defined(__AVX512F__)
#define LINNET_ABI_ARCH avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define LINNET_ABI_ARCH avx2fma
#elif defined(__AVX2__)
#define LINNET_ABI_ARCH avx2
#elif defined(__AVX__)
#define LINNET_ABI_ARCH avx
#elif defined(__SSE4_2__)
#define LINNET_ABI_ARCH sse42
#else
#define LINNET_ABI_ARCH base
#endif
#if defined(NDEBUG)
#define LINNET_ABI_DEBUG _release
#else
#define LINNET_ABI_DEBUG _debug
#endif
#if defined(_OPENMP)
#define LINNET_ABI_OPENMP _omp
#else
#define LINNET_ABI_OPENMP
#endif
#if defined(__FAST_MATH__)
#define LINNET_ABI_MATH _fast
#else
#define LINNET_ABI_MATH
#endif
#if defined(LINNET_ONLY_LEVEL)  // see simd/levels.hpp
#define LINNET_ABI_ONLY _only_
#define LINNET_ABI_LEVEL LINNET_ONLY_LEVEL
#else
#define LINNET_ABI_ONLY
#define LINNET_ABI_LEVEL
#endif
#define LINNET_ABI_PASTE(a, b, c, d, e, f) v0_1_##a##b##c##d##e##f
#define LINNET_ABI_NAME(a, b, c, d, e, f) LINNET_ABI_PASTE(a, b, c, d, e, f)

/// Opens namespace linnet and its keyed inline namespace.
#define LINNET_NAMESPACE_BEGIN                                                           \
  namespace linnet {                                                                     \
  inline namespace LINNET_ABI_NAME(LINNET_ABI_ARCH, LINNET_ABI_DEBUG, LINNET_ABI_OPENMP, \
                                   LINNET_ABI_MATH, LINNET_ABI_ONLY, LINNET_ABI_LEVEL) {
/// Closes what LINNET_NAMESPACE_BEGIN opened.
#define LINNET_NAMESPACE_END \
  }                          \
  }

// Kernels have a namespace of their own: with linnet::kernels they come from a compiled library,
// whatever the flags of the program that links it; without it they share the key above.
#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)
#define LINNET_SIMD_NAMESPACE_BEGIN \
  namespace linnet {                \
  inline namespace v0_1_compiled {
#else
#define LINNET_SIMD_NAMESPACE_BEGIN LINNET_NAMESPACE_BEGIN
#endif
/// Closes what LINNET_SIMD_NAMESPACE_BEGIN opened.
#define LINNET_SIMD_NAMESPACE_END LINNET_NAMESPACE_END

#if defined(__clang__)
#define LINNET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LINNET_UNROLL _Pragma("GCC unroll 16")
#endif

LINNET_NAMESPACE_BEGIN

/// Signed size and index type used for every extent, row, column and count.
using index = std::ptrdiff_t;

/// A token id. Negative ids never reach a model; `ignored` marks label positions without loss.
using token = std::int32_t;

/// The label that contributes neither loss nor gradient (the value -100 of common data loaders).
inline constexpr token ignored = -100;

/// The smallest multiple of `step` that is not below `n`; both positive.
constexpr index round_up(index n, index step) { return (n + step - 1) / step * step; }

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Whether a floating-point value is neither infinite nor NaN; looks at the bits, so it stays
/// right under -ffast-math.
inline bool is_finite(float x) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7f800000u) != 0x7f800000u;
}
/// @copydoc is_finite(float)
inline bool is_finite(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Alignment of every planned buffer, in bytes: one cache line and one AVX-512 register.
inline constexpr index alignment = 64;

/// Hands out consecutive buffers from one block. Without a block it only counts, also at compile
/// time, so one `plan` function serves as layout, as footprint and as allocation.
///
/// Buffers taken after a mark() and given back by release() may share memory with later ones: a
/// layer's temporary buffers, or all activations of an earlier layer when nothing is kept for a
/// backward pass. peak() is what the block has to hold.
class arena {
 public:
  /// An arena that only counts.
  constexpr arena() = default;
  /// An arena over `size` bytes at `block`, which must be aligned to `alignment`.
  arena(void* block, index size) : block_(static_cast<std::byte*>(block)), size_(size) {}

  /// The next `count` objects of type `T`; null from an arena that only counts.
  template <class T>
  constexpr T* take(index count) {
    const index at = used_;
    used_ += round_up(count * static_cast<index>(sizeof(T)), alignment);
    if (used_ > peak_) peak_ = used_;
    if (block_ == nullptr) return nullptr;
    assert(used_ <= size_ && "linnet::arena: the plan exceeds its footprint");
    return reinterpret_cast<T*>(block_ + at);
  }
  /// The current position, for release().
  constexpr index mark() const { return used_; }
  /// Gives back everything taken since `mark`; the memory stays valid and will be shared.
  constexpr void release(index mark) { used_ = mark; }
  /// Bytes needed so far.
  constexpr index peak() const { return peak_; }

 private:
  std::byte* block_ = nullptr;
  index size_ = 0, used_ = 0, peak_ = 0;
};

/// Owns one aligned, zeroed block of memory. Movable; an empty block means allocation failed.
class memory_block {
 public:
  memory_block() = default;
  /// Allocates `bytes` (at least one alignment unit); data() is null on failure.
  explicit memory_block(index bytes) : size_(round_up(bytes > 0 ? bytes : 1, alignment)) {
    data_.reset(
        std::aligned_alloc(static_cast<std::size_t>(alignment), static_cast<std::size_t>(size_)));
    if (data_)
      __builtin_memset(data_.get(), 0, static_cast<std::size_t>(size_));
    else
      size_ = 0;
  }
  /// First byte, or null.
  void* data() const { return data_.get(); }
  /// Size in bytes, a multiple of `alignment`.
  index size() const { return size_; }

 private:
  struct free_memory {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, free_memory> data_;
  index size_ = 0;
};

LINNET_NAMESPACE_END
/// @file
/// Matrix views whose width is part of the type.

LINNET_NAMESPACE_BEGIN

/// A row-major matrix of `Columns` columns that somebody else owns: [rows, Columns].
template <class T, index Columns>
class view {
 public:
  constexpr view() = default;
  /// Views `rows` rows at `data`.
  constexpr view(T* data, index rows) : data_(data), rows_(rows) {}
  /// A view of mutable values reads as a view of constant ones.
  constexpr operator view<const T, Columns>() const requires(!std::is_const_v<T>) {
    return {data_, rows_};
  }

  /// First value.
  constexpr T* data() const { return data_; }
  /// Number of rows.
  constexpr index rows() const { return rows_; }
  /// Width of a row.
  static constexpr index columns() { return Columns; }
  /// Number of values.
  constexpr index size() const { return rows_ * Columns; }
  /// Start of row `i`.
  constexpr T* row(index i) const { return data_ + i * Columns; }
  /// Row `i` as a span.
  constexpr std::span<T> operator[](index i) const {
    return {row(i), static_cast<std::size_t>(Columns)};
  }
  /// The value at row `i`, column `j`.
  constexpr T& operator()(index i, index j) const { return data_[i * Columns + j]; }

 private:
  T* data_ = nullptr;
  index rows_ = 0;
};

LINNET_NAMESPACE_END
/// @file
/// How layers name their parameters, and the forms a parameter takes: canonical weights,
/// gradients, and the packed form that kernels read.

#include <charconv>
#include <string_view>

/// @file
/// Counter-based random numbers: the same key and counter give the same bits on every compiler,
/// in every thread and in any order, so a dropout mask can be recomputed instead of stored.

#include <array>

LINNET_NAMESPACE_BEGIN

/// Names the stream of random numbers a call starts from.
struct seed {
  std::uint64_t value = 0;
};

/// Philox4x32-10 (Salmon et al., SC 2011): ten rounds of multiply-and-xor over a 128-bit counter.
/// @return four independent 32-bit words for this key and counter.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                              std::uint64_t counter_low) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> x{
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ k0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

/// A sequence of random numbers that starts at a key; copying it forks the sequence.
class random_stream {
 public:
  /// The stream number `stream` of a seed; streams of one seed are independent.
  constexpr explicit random_stream(seed s, std::uint64_t stream = 0)
      : key_(s.value), stream_(stream) {}

  /// The next 32 random bits.
  constexpr std::uint32_t bits() {
    if (left_ == 0) {
      words_ = philox(key_, stream_, counter_++);
      left_ = 4;
    }
    return words_[static_cast<std::size_t>(4 - left_--)];
  }
  /// Uniform in [0, 1), 24 random bits, so every value is exact in float too.
  constexpr double uniform() { return bits() / 256u * 0x1p-24; }
  /// Uniform integer in [0, n), without bias; n > 0.
  constexpr std::uint32_t below(std::uint32_t n) {
    const std::uint32_t reject = (0u - n) % n;
    std::uint32_t x = bits();
    while (x < reject) x = bits();
    return x % n;
  }
  /// Standard normal (Box and Muller), two words per value.
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  std::uint64_t key_, stream_, counter_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int left_ = 0;
};

/// A stream number from a name (64-bit FNV-1a), so a tensor's initial values depend on its name
/// and not on the order in which tensors are visited.
constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

LINNET_NAMESPACE_END
/// @file
/// The one boundary between layers and matrix kernels. Shapes stop here: M, N and K are run-time
/// numbers, only the scalar and the storage type are part of the code.

/// @file
/// A weight matrix in the form that products read: panels of 32 output features.

/// @file
/// The only place that knows about threads. One parallel region runs a whole forward call,
/// training step or decode step; inside it every thread executes the same code (SPMD), takes its
/// share of each operation's outputs and meets the others at a barrier.

#include <atomic>

#if defined(_OPENMP)
#include <omp.h>
#endif

LINNET_NAMESPACE_BEGIN

/// A user's own way to run threads instead of OpenMP. `run(object, n, body, argument)` must call
/// `body(argument, rank, size)` once for each rank in [0, size), all at the same time (they wait
/// for each other), for one size <= n, and return when all have returned.
struct executor {
  void* object = nullptr;
  void (*run)(void* object, int threads, void (*body)(void*, int, int), void* argument) = nullptr;
};

namespace detail {

/// A reusable barrier: a short spin, then sleep, so a descheduled thread costs no processor time.
class barrier {
 public:
  void wait(int size) {
    const int phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.fetch_add(1, std::memory_order_acq_rel);
      phase_.notify_all();
      return;
    }
    for (int spin = 0; spin < 4096; ++spin) {
      if (phase_.load(std::memory_order_acquire) != phase) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    while (phase_.load(std::memory_order_acquire) == phase) phase_.wait(phase);
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
};

}  // namespace detail

/// A thread's place in the running parallel region. Outputs are split by position, never by
/// timing, so results do not depend on the number of threads.
class team {
 public:
  /// The team of one thread.
  constexpr team() = default;
  /// Rank `rank` of `size` threads that meet at `shared`.
  constexpr team(int rank, int size, detail::barrier* shared)
      : rank_(rank), size_(size), barrier_(shared) {}

  /// This thread's number in [0, size()).
  constexpr int rank() const { return rank_; }
  /// How many threads share the work.
  constexpr int size() const { return size_; }
  /// Waits until every thread of the team is here; makes their writes visible.
  void wait() const {
    if (size_ > 1) barrier_->wait(size_);
  }
  /// This thread's contiguous share [first, last) of `n` items.
  constexpr std::pair<index, index> share(index n) const {
    return {n * rank_ / size_, n * (rank_ + 1) / size_};
  }
  /// Calls `f(i)` for this thread's share of [0, n), then waits for the team.
  template <class F>
  void each(index n, F&& f) const {
    const auto [first, last] = share(n);
    for (index i = first; i < last; ++i) f(i);
    wait();
  }
  /// Calls `f()` on one thread while the others wait.
  template <class F>
  void once(F&& f) const {
    if (rank_ == 0) f();
    wait();
  }

 private:
  int rank_ = 0, size_ = 1;
  detail::barrier* barrier_ = nullptr;
};

/// Runs `f(team)` on `threads` threads: through `custom` if it is given, else through OpenMP where
/// the program is compiled with it, else on the calling thread alone. The caller's OpenMP settings
/// are not touched. `f` must not throw.
template <class F>
void parallel(int threads, const executor& custom, F&& f) {
  if (threads > 1 && custom.run != nullptr) {
    struct work {
      F& f;
      detail::barrier meeting;
    } shared{f, {}};
    custom.run(
        custom.object, threads,
        [](void* argument, int rank, int size) {
          auto& w = *static_cast<work*>(argument);
          w.f(team(rank, size, &w.meeting));
        },
        &shared);
    return;
  }
#if defined(_OPENMP)
  if (threads > 1) {
    detail::barrier meeting;
#pragma omp parallel num_threads(threads)
    f(team(omp_get_thread_num(), omp_get_num_threads(), &meeting));
    return;
  }
#endif
  f(team());
}

LINNET_NAMESPACE_END
/// @file
/// The kernels, as the rest of the library includes them. With linnet::kernels they are only
/// declared here (LINNET_COMPILED_KERNELS); its one source defines them (LINNET_KERNELS_SOURCE).

/// @file
/// The only place that knows about instruction sets: four levels of the same kernels, chosen at
/// run time, so a program built without -march still uses the best of the machine it runs on.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/// @file
/// What the kernels of every instruction-set level are called with.

LINNET_SIMD_NAMESPACE_BEGIN

/// Elementwise nonlinearities (zoo A4, C1): the argument of the activation kernels.
enum class activation_kind {
  relu,       ///< max(x, 0)
  gelu,       ///< x Phi(x), exact, with the error function
  gelu_tanh,  ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), "gelu_new"
  silu        ///< x sigmoid(x)
};

namespace simd {

/// The code of a bfloat16 value.
enum class bf16_code : std::uint16_t {};

/// Columns of a packed panel. One layout serves every instruction-set level.
inline constexpr index panel_width = 32;

/// A 32-bit word of a packed panel: codes of one column for 2 (16-bit), 4 (8-bit) or 8 (4-bit)
/// successive k, the first in the lowest bits.
using word = std::uint32_t;

/// How the codes of a word become numbers.
enum class code {
  bf16,     ///< the upper half of a float
  f16,      ///< IEEE half precision
  f8_e4m3,  ///< 8 bits: 4 of exponent, bias 7, no infinities (zoo E2)
  f8_e5m2,  ///< 8 bits: the upper half of an f16
  u8,       ///< 0 to 255
  u4,       ///< 0 to 15
  nf4       ///< 16 normal quantiles (zoo E2)
};
/// Bits of one code.
constexpr int bits_of(code c) {
  return c == code::bf16 || c == code::f16 ? 16 : c == code::u4 || c == code::nf4 ? 4 : 8;
}
/// The values of the NF4 codes (Dettmers et al. 2023; zoo E2).
inline constexpr float nf4_values[16] = {-1.0f,        -0.6961928f,  -0.52507305f, -0.39491749f,
                                         -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
                                         0.0795803f,   0.1609302f,   0.2461123f,   0.33791524f,
                                         0.44070983f,  0.562617f,    0.72295684f,  1.0f};

/// The left factor A of a product, addressed as a(i, k) = data[i*row + k*column], so transposed and
/// sliced matrices need no copy.
template <class T>
struct rows_operand {
  const T* data;
  index row, column;
};

/// The right factor B, K rows of N columns. Column j of row k is
/// data[(j / 32) * panel + k*ld + j % 32]: packed panels (ld = 32, panel = 32 K) as well as any
/// row-major matrix (panel = 32).
template <class Value>
struct columns_operand {
  const Value* data;
  index ld, panel;
};

/// Tokens in a block of cached keys or values: blocks may lie anywhere.
inline constexpr index token_block = 32;

/// The keys or values of one head and sequence, a row for each token. Token j is row j of `data`,
/// or behind `fixed` rows in a ring, or in the block that `table` names; `fixed` and `ring` are
/// multiples of a block.
template <class Code>
struct token_rows {
  const Code* data;
  index stride;  ///< from row to row
  index fixed = 0, ring = 0;
  const std::int32_t* table = nullptr;

  /// The row that holds token j.
  constexpr index place(index j) const {
    if (table) return table[j / token_block] * token_block + j % token_block;
    return ring && j >= fixed ? fixed + (j - fixed) % ring : j;
  }
  /// Where row place(j) begins.
  constexpr const Code* row(index j) const { return data + place(j) * stride; }
  /// Tokens [j, run(j, end)) follow each other in memory.
  constexpr index run(index j, index end) const {
    const index next = (j / token_block + 1) * token_block;
    return (ring || table) && next < end ? next : end;
  }
};

/// What happens to a finished product before it is stored: y = [y +] alpha * x + bias_j.
template <class T>
struct epilogue {
  const T* bias = nullptr;  ///< one per column, or null
  T alpha = T(1);
  bool accumulate = false;  ///< add to what is there instead of overwriting it

  /// The same for the part of the product that begins there.
  constexpr epilogue from(index, index column) const {
    return {bias ? bias + column : nullptr, alpha, accumulate};
  }
};

/// The same for an integer product of signed activations and unsigned weight codes:
/// y = [y +] alpha row_scale_i scale_j (x - zero_j row_sum_i) + bias_j.
struct integer_epilogue {
  const float* bias = nullptr;  ///< one per column, or null
  float alpha = 1;
  bool accumulate = false;                ///< add to what is there instead of overwriting it
  const float* scale = nullptr;           ///< one per column
  const float* zero = nullptr;            ///< the code of 0 in each column; null for 128
  const float* row_scale = nullptr;       ///< one per row
  const std::int32_t* row_sum = nullptr;  ///< sum of each row's codes

  /// The same for the part of the product that begins there.
  constexpr integer_epilogue from(index row, index column) const {
    return {bias ? bias + column : nullptr, alpha,           accumulate,   scale + column,
            zero ? zero + column : nullptr, row_scale + row, row_sum + row};
  }
};

}  // namespace simd

LINNET_SIMD_NAMESPACE_END

LINNET_SIMD_NAMESPACE_BEGIN

namespace simd {

/// An instruction-set level. Results are bitwise reproducible within a level.
enum class level {
  automatic,  ///< the best of this machine, see best()
  portable,   ///< 16-byte vectors of the compilation target: SSE2, NEON or plain scalar code
  avx2,       ///< 32-byte vectors with fused multiply-add
  avx512,     ///< 64-byte vectors (F, BW, DQ, VL)
  avx512dot   ///< the same with dot products of int8 and bf16 (VNNI, BF16)
};
/// All levels, from the plainest.
inline constexpr level levels[] = {level::portable, level::avx2, level::avx512, level::avx512dot};

/// Name of a level, as LINNET_SIMD spells it.
constexpr const char* name(level l) {
  return l == level::avx512dot ? "avx512dot"
         : l == level::avx512  ? "avx512"
         : l == level::avx2    ? "avx2"
                               : "portable";
}

namespace detail {

/// Hides from the optimizer how a register's value came about.
#if defined(__x86_64__)
#define LINNET_KEEP(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define LINNET_KEEP(x) __asm__("" : "+w"(x))
#else
#define LINNET_KEEP(x) __asm__("" : "+m"(x))
#endif

#define LINNET_TARGET
#define LINNET_WIDTH 16
#if defined(__aarch64__)
#define LINNET_ROWS 8  // it has 32 registers
#else
#define LINNET_ROWS 6
#endif
/// Kernels for any machine.
struct portable {
// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// The same with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves, v[r] holding in its halves what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, int Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (int i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (int i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Lanes [first, last) of v, zeros around them.
template <class T, int... Lane>
LINNET_TARGET static inline vec<T> some_lanes(const vec<T>& v, index first, index last,
                                              std::integer_sequence<int, Lane...>) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  return ((lane >= from) & (lane < to)) ? v : vec<T>{};
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, sizeof...(Lane) / 2>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  return __builtin_shufflevector(low, high, Lane...);
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> root(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  if constexpr (A == activation_kind::relu) return x > T(0) ? x : vec<T>{};
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> slope(const vec<T>& x) {
  if constexpr (A == activation_kind::relu) return x > T(0) ? vec<T>{} + T(1) : vec<T>{};
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    const vec<T> t = tanh<T>(u);
    // 1 - t^2 without the difference, so that it vanishes exactly where x is large.
    const vec<T> e = exp<T>(T(-2) * (u < T(0) ? -u : u));
    const vec<T> rest = T(4) * e / ((T(1) + e) * (T(1) + e));
    return T(0.5) * (T(1) + t) +
           T(0.5) * x * rest * (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
}

// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// What an epilogue needs for the columns of one vector, and the value it makes of a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there: rows of B up to `safe` may be read in full
/// vectors; the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[R][W] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[W];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = left[i * a.row + k * a.column] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read (rows of packed panels are padded to 32 columns).
template <class Steps, class Finish, class T, class Value, class E>
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

// Stored codes and low-precision activations of one instruction-set level: included inside a
// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null.
template <code C>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (C == code::u8 || C == code::u4) x = x - origin;
        if (scales) x = x * scale;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// sums[32] += scale_j (sum of a_k (code_kj - zero_j)) of one row of `k` inputs with one panel
/// whose scales they share: the product without a detour through memory.
template <code C>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = C == code::u8 || C == code::u4;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[per_word] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127 (1 for
/// zeros). Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec<float> most = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec<float> a = v < 0.0f ? -v : v;
    most = a > most ? a : most;
  }
  const float top = largest<float>(most);
  const float scale = top > 0 ? top / 127.0f : 1.0f, inverse = top > 0 ? 127.0f / top : 0.0f;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
// Kernels over one row of values of one instruction-set level: included inside a struct by
// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// Calls f(position, count) for full vectors and, once, for the rest.
#define LINNET_FOR_VECTORS(T, i, count, n) \
  for (index i = 0, count = lanes<T>;      \
       i < (n) && ((count = (n)-i < lanes<T> ? (n)-i : lanes<T>), true); i += lanes<T>)

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}
/// Lanes stored numbers as T: T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// The first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// The products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// The same for rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that blocks
/// make no difference.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (zoo D1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (zoo A1); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * slope<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * slope<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (zoo H): m, v are moving averages, `rate` the learning rate with both bias
/// corrections folded in, `eps` likewise, `decay` = learning rate times weight decay.
template <class T>
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (root<T>(vi) + eps) + decay * wi), c);
  }
}

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (zoo D11): decay = exp(delta_i
/// a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij c_j. next may be h.
template <class T>
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Its derivative: g_ij = carried_ij + dy_i c_j is that of next_ij; carried becomes decay g, da, db
/// and dc are added to, d_input = g . b (of delta_i x_i) and d_decay (of delta_i through the decay)
/// are overwritten.
template <class T>
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
#undef LINNET_FOR_VECTORS
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS

#if defined(__x86_64__)
// Where the vector extensions have no word for it, or g++ 12 no good code: intrinsics.
#define LINNET_FIRST(n)                                      \
  _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), \
                     _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define LINNET_LOAD_FIRST(p, n) \
  (vec<T>)_mm256_maskload_ps(reinterpret_cast<const float*>(p), LINNET_FIRST(n))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm256_maskstore_ps(reinterpret_cast<float*>(p), LINNET_FIRST(n), (__m256)(v))
#define LINNET_ROOT_FLOAT(x) _mm256_sqrt_ps((__m256)(x))
#define LINNET_ROOT_DOUBLE(x) _mm256_sqrt_pd((__m256d)(x))
#define LINNET_LOOK_UP(table, i)                                      \
  (vec<float>)_mm256_blendv_ps(                                       \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)(i)), \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps((table) + 8), (__m256i)(i)), (__m256)((i) << 28))
#define LINNET_DOT_PAIRS(a, b) (vec_int<float>)_mm256_madd_epi16((__m256i)(a), (__m256i)(b))
#define LINNET_BYTES(p) \
  (vec_int<float>)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))
#define LINNET_TARGET __attribute__((target("avx2,fma")))
#define LINNET_WIDTH 32
#define LINNET_ROWS 6
/// Kernels for AVX2 with FMA.
struct avx2 {
// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// The same with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves, v[r] holding in its halves what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, int Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (int i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (int i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Lanes [first, last) of v, zeros around them.
template <class T, int... Lane>
LINNET_TARGET static inline vec<T> some_lanes(const vec<T>& v, index first, index last,
                                              std::integer_sequence<int, Lane...>) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  return ((lane >= from) & (lane < to)) ? v : vec<T>{};
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, sizeof...(Lane) / 2>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  return __builtin_shufflevector(low, high, Lane...);
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> root(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  if constexpr (A == activation_kind::relu) return x > T(0) ? x : vec<T>{};
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> slope(const vec<T>& x) {
  if constexpr (A == activation_kind::relu) return x > T(0) ? vec<T>{} + T(1) : vec<T>{};
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    const vec<T> t = tanh<T>(u);
    // 1 - t^2 without the difference, so that it vanishes exactly where x is large.
    const vec<T> e = exp<T>(T(-2) * (u < T(0) ? -u : u));
    const vec<T> rest = T(4) * e / ((T(1) + e) * (T(1) + e));
    return T(0.5) * (T(1) + t) +
           T(0.5) * x * rest * (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
}

// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// What an epilogue needs for the columns of one vector, and the value it makes of a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there: rows of B up to `safe` may be read in full
/// vectors; the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[R][W] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[W];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = left[i * a.row + k * a.column] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read (rows of packed panels are padded to 32 columns).
template <class Steps, class Finish, class T, class Value, class E>
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

// Stored codes and low-precision activations of one instruction-set level: included inside a
// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null.
template <code C>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (C == code::u8 || C == code::u4) x = x - origin;
        if (scales) x = x * scale;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// sums[32] += scale_j (sum of a_k (code_kj - zero_j)) of one row of `k` inputs with one panel
/// whose scales they share: the product without a detour through memory.
template <code C>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = C == code::u8 || C == code::u4;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[per_word] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127 (1 for
/// zeros). Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec<float> most = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec<float> a = v < 0.0f ? -v : v;
    most = a > most ? a : most;
  }
  const float top = largest<float>(most);
  const float scale = top > 0 ? top / 127.0f : 1.0f, inverse = top > 0 ? 127.0f / top : 0.0f;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
// Kernels over one row of values of one instruction-set level: included inside a struct by
// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// Calls f(position, count) for full vectors and, once, for the rest.
#define LINNET_FOR_VECTORS(T, i, count, n) \
  for (index i = 0, count = lanes<T>;      \
       i < (n) && ((count = (n)-i < lanes<T> ? (n)-i : lanes<T>), true); i += lanes<T>)

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}
/// Lanes stored numbers as T: T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// The first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// The products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// The same for rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that blocks
/// make no difference.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (zoo D1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (zoo A1); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * slope<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * slope<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (zoo H): m, v are moving averages, `rate` the learning rate with both bias
/// corrections folded in, `eps` likewise, `decay` = learning rate times weight decay.
template <class T>
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (root<T>(vi) + eps) + decay * wi), c);
  }
}

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (zoo D11): decay = exp(delta_i
/// a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij c_j. next may be h.
template <class T>
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Its derivative: g_ij = carried_ij + dy_i c_j is that of next_ij; carried becomes decay g, da, db
/// and dc are added to, d_input = g . b (of delta_i x_i) and d_decay (of delta_i through the decay)
/// are overwritten.
template <class T>
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
#undef LINNET_FOR_VECTORS
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_FIRST
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT_FLOAT
#undef LINNET_ROOT_DOUBLE
#undef LINNET_LOOK_UP
#undef LINNET_DOT_PAIRS
#undef LINNET_BYTES

#define LINNET_FIRST(n) static_cast<__mmask16>((1u << (n)) - 1u)
#define LINNET_LOAD_FIRST(p, n) (vec<T>)_mm512_maskz_loadu_ps(LINNET_FIRST(n), p)
#define LINNET_STORE_FIRST(p, v, n) _mm512_mask_storeu_ps(p, LINNET_FIRST(n), (__m512)(v))
#define LINNET_ROOT_FLOAT(x) _mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), (__m512)(x))
#define LINNET_ROOT_DOUBLE(x) _mm512_maskz_sqrt_pd(static_cast<__mmask8>(-1), (__m512d)(x))
#define LINNET_LOOK_UP(table, i)                                                    \
  (vec<float>)_mm512_maskz_permutexvar_ps(static_cast<__mmask16>(-1), (__m512i)(i), \
                                          _mm512_loadu_ps(table))
#define LINNET_DOT_PAIRS(a, b) (vec_int<float>)_mm512_madd_epi16((__m512i)(a), (__m512i)(b))
#define LINNET_BYTES(p)                                                  \
  (vec_int<float>)_mm512_maskz_cvtepi8_epi32(static_cast<__mmask16>(-1), \
                                             _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))
#define LINNET_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define LINNET_WIDTH 64
#define LINNET_ROWS 12
/// Kernels for AVX-512.
struct avx512 {
// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// The same with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves, v[r] holding in its halves what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, int Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (int i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (int i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Lanes [first, last) of v, zeros around them.
template <class T, int... Lane>
LINNET_TARGET static inline vec<T> some_lanes(const vec<T>& v, index first, index last,
                                              std::integer_sequence<int, Lane...>) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  return ((lane >= from) & (lane < to)) ? v : vec<T>{};
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, sizeof...(Lane) / 2>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  return __builtin_shufflevector(low, high, Lane...);
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> root(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  if constexpr (A == activation_kind::relu) return x > T(0) ? x : vec<T>{};
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> slope(const vec<T>& x) {
  if constexpr (A == activation_kind::relu) return x > T(0) ? vec<T>{} + T(1) : vec<T>{};
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    const vec<T> t = tanh<T>(u);
    // 1 - t^2 without the difference, so that it vanishes exactly where x is large.
    const vec<T> e = exp<T>(T(-2) * (u < T(0) ? -u : u));
    const vec<T> rest = T(4) * e / ((T(1) + e) * (T(1) + e));
    return T(0.5) * (T(1) + t) +
           T(0.5) * x * rest * (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
}

// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// What an epilogue needs for the columns of one vector, and the value it makes of a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there: rows of B up to `safe` may be read in full
/// vectors; the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[R][W] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[W];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = left[i * a.row + k * a.column] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read (rows of packed panels are padded to 32 columns).
template <class Steps, class Finish, class T, class Value, class E>
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

// Stored codes and low-precision activations of one instruction-set level: included inside a
// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null.
template <code C>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (C == code::u8 || C == code::u4) x = x - origin;
        if (scales) x = x * scale;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// sums[32] += scale_j (sum of a_k (code_kj - zero_j)) of one row of `k` inputs with one panel
/// whose scales they share: the product without a detour through memory.
template <code C>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = C == code::u8 || C == code::u4;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[per_word] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127 (1 for
/// zeros). Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec<float> most = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec<float> a = v < 0.0f ? -v : v;
    most = a > most ? a : most;
  }
  const float top = largest<float>(most);
  const float scale = top > 0 ? top / 127.0f : 1.0f, inverse = top > 0 ? 127.0f / top : 0.0f;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
// Kernels over one row of values of one instruction-set level: included inside a struct by
// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// Calls f(position, count) for full vectors and, once, for the rest.
#define LINNET_FOR_VECTORS(T, i, count, n) \
  for (index i = 0, count = lanes<T>;      \
       i < (n) && ((count = (n)-i < lanes<T> ? (n)-i : lanes<T>), true); i += lanes<T>)

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}
/// Lanes stored numbers as T: T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// The first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// The products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// The same for rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that blocks
/// make no difference.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (zoo D1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (zoo A1); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * slope<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * slope<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (zoo H): m, v are moving averages, `rate` the learning rate with both bias
/// corrections folded in, `eps` likewise, `decay` = learning rate times weight decay.
template <class T>
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (root<T>(vi) + eps) + decay * wi), c);
  }
}

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (zoo D11): decay = exp(delta_i
/// a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij c_j. next may be h.
template <class T>
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Its derivative: g_ij = carried_ij + dy_i c_j is that of next_ij; carried becomes decay g, da, db
/// and dc are added to, d_input = g . b (of delta_i x_i) and d_decay (of delta_i through the decay)
/// are overwritten.
template <class T>
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
#undef LINNET_FOR_VECTORS
};
#undef LINNET_TARGET
#undef LINNET_DOT_PAIRS

#define LINNET_DOT_BF16(acc, a, b) \
  acc = (sum)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b))
#define LINNET_DOT_INT8(acc, a, b) \
  acc = (sum)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(b), (__m512i)(a))
#define LINNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")))
/// Kernels for AVX-512 with dot products: those that multiply codes differ.
struct avx512dot : avx512 {
// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// What an epilogue needs for the columns of one vector, and the value it makes of a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there: rows of B up to `safe` may be read in full
/// vectors; the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[R][W] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[W];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = left[i * a.row + k * a.column] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read (rows of packed panels are padded to 32 columns).
template <class Steps, class Finish, class T, class Value, class E>
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

// Stored codes and low-precision activations of one instruction-set level: included inside a
// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null.
template <code C>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (C == code::u8 || C == code::u4) x = x - origin;
        if (scales) x = x * scale;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// sums[32] += scale_j (sum of a_k (code_kj - zero_j)) of one row of `k` inputs with one panel
/// whose scales they share: the product without a detour through memory.
template <code C>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = C == code::u8 || C == code::u4;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[per_word] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127 (1 for
/// zeros). Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec<float> most = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec<float> a = v < 0.0f ? -v : v;
    most = a > most ? a : most;
  }
  const float top = largest<float>(most);
  const float scale = top > 0 ? top / 127.0f : 1.0f, inverse = top > 0 ? 127.0f / top : 0.0f;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_FIRST
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT_FLOAT
#undef LINNET_ROOT_DOUBLE
#undef LINNET_LOOK_UP
#undef LINNET_BYTES
#undef LINNET_DOT_BF16
#undef LINNET_DOT_INT8
#endif
#undef LINNET_KEEP

/// The best level of this machine, looked up once; with LINNET_ONLY_LEVEL, that.
inline level detect() {
#if defined(LINNET_ONLY_LEVEL)
  return level::LINNET_ONLY_LEVEL;
#elif defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16")
               ? level::avx512dot
               : level::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return level::avx2;
#endif
  return level::portable;
}

}  // namespace detail

/// The level that sessions and trainers use unless told otherwise: the best of this machine, or
/// the one the environment variable LINNET_SIMD (portable, avx2, avx512, avx512dot) names, if the
/// machine has it. Looked up once per program.
inline level best() {
  static const level chosen = [] {
    const level machine = detail::detect();
    const char* const wish = std::getenv("LINNET_SIMD");
    if (wish == nullptr) return machine;
    for (const level l : levels)
      if (std::string_view(wish) == name(l) && l <= machine) return l;
    return machine;
  }();
  return chosen;
}

/// The level a wish comes down to on this machine.
inline level resolve(level wish) {
  return wish == level::automatic ? best() : wish <= detail::detect() ? wish : detail::detect();
}

/// Calls `f(kernels)` with the kernels of level `l`, a type whose static functions they are. A
/// program compiled with -DLINNET_ONLY_LEVEL=portable, avx2, avx512 or avx512dot has the kernels of
/// that level alone and needs a machine that has it: smaller, compiled faster, no faster to run.
/// Those that multiply low-precision activations are best reached through dispatch_dot().
template <class F>
inline auto dispatch([[maybe_unused]] level l, F&& f) {
#if defined(LINNET_ONLY_LEVEL)
  return f(detail::LINNET_ONLY_LEVEL{});
#else
#if defined(__x86_64__)
  if (l >= level::avx512) return f(detail::avx512{});
  if (l == level::avx2) return f(detail::avx2{});
#endif
  return f(detail::portable{});
#endif
}
/// The same for products of low-precision activations.
template <class F>
inline auto dispatch_dot(level l, F&& f) {
#if defined(__x86_64__) && !defined(LINNET_ONLY_LEVEL)
  if (l == level::avx512dot) return f(detail::avx512dot{});
#endif
  return dispatch(l, f);
}

}  // namespace simd

LINNET_SIMD_NAMESPACE_END

#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)

#if defined(LINNET_KERNELS_SOURCE)
#define LINNET_EXTERN template
#else
#define LINNET_EXTERN extern template
#endif

#define LINNET_PRODUCT(L, T)                                                             \
  LINNET_EXTERN void detail::L::multiply<T>(index, index, index, const rows_operand<T>&, \
                                            const columns_operand<T>&, T*, index,        \
                                            const epilogue<T>&, index);
#define LINNET_DECODE(L, C)                                                             \
  LINNET_EXTERN void detail::L::decode_panel<code::C>(index, const word*, const float*, \
                                                      const float*, float, float*);     \
  LINNET_EXTERN void detail::L::row_by_panel<code::C>(index, const float*, const word*, \
                                                      const float*, const float*, float, float*);
#define LINNET_DOT(L)                                                                              \
  LINNET_EXTERN void detail::L::multiply_bf16<float>(                                              \
      index, index, index, const rows_operand<word>&, const columns_operand<word>&, float*, index, \
      const epilogue<float>&, index);                                                              \
  LINNET_EXTERN void detail::L::multiply_int8<float>(                                              \
      index, index, index, const rows_operand<word>&, const columns_operand<word>&, float*, index, \
      const integer_epilogue&, index);
#define LINNET_CODES(L)                                                                            \
  LINNET_DECODE(L, bf16)                                                                           \
  LINNET_DECODE(L, f16)                                                                            \
  LINNET_DECODE(L, f8_e4m3)                                                                        \
  LINNET_DECODE(L, f8_e5m2)                                                                        \
  LINNET_DECODE(L, u8)                                                                             \
  LINNET_DECODE(L, u4)                                                                             \
  LINNET_DECODE(L, nf4)                                                                            \
  LINNET_EXTERN void detail::L::to_bf16<float>(index, const float*, bf16_code*);                   \
  LINNET_EXTERN void detail::L::to_bf16_pairs<float>(index, const float*, const float*, word*);    \
  LINNET_EXTERN float detail::L::to_int8<float>(index, const float*, std::int8_t*, std::int32_t&); \
  LINNET_DOT(L)
#define LINNET_ACTIVATION(L, A, T)                                                               \
  LINNET_EXTERN void detail::L::activation<activation_kind::A, T>(index, const T*, T*);          \
  LINNET_EXTERN void detail::L::activation_backward<activation_kind::A, T>(index, const T*,      \
                                                                           const T*, T*);        \
  LINNET_EXTERN void detail::L::gated<activation_kind::A, T>(index, const T*, const T*, T*);     \
  LINNET_EXTERN void detail::L::gated_backward<activation_kind::A, T>(index, const T*, const T*, \
                                                                      const T*, T*, T*);
#define LINNET_ATTENTION(L, T, C)                                                               \
  LINNET_EXTERN void detail::L::dots<T>(index, index, index, T, const T*, const token_rows<C>&, \
                                        T*);                                                    \
  LINNET_EXTERN void detail::L::mix<T>(index, index, index, const T*, const token_rows<C>&, T*, \
                                       bool);
#define LINNET_ROWS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::add<T>(index, const T*, const T*, T*);                            \
  LINNET_EXTERN void detail::L::scale<T>(index, T, T*);                                           \
  LINNET_EXTERN T detail::L::dot<T>(index, const T*, const T*);                                   \
  LINNET_ATTENTION(L, T, T)                                                                       \
  LINNET_EXTERN T detail::L::maximum<T>(index, const T*);                                         \
  LINNET_EXTERN T detail::L::exp_sum<T>(index, T, T*);                                            \
  LINNET_EXTERN void detail::L::softmax<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softmax_backward<T>(index, const T*, const T*, T*);               \
  LINNET_EXTERN T detail::L::rms_norm<T>(index, T, const T*, const T*, T*);                       \
  LINNET_EXTERN void detail::L::rms_norm_backward<T>(index, T, const T*, const T*, const T*, T*); \
  LINNET_EXTERN void detail::L::layer_norm<T>(index, T, const T*, const T*, const T*, T*, T*);    \
  LINNET_EXTERN void detail::L::layer_norm_backward<T>(index, const T*, const T*, const T*,       \
                                                       const T*, T*);                             \
  LINNET_EXTERN void detail::L::adamw<T>(index, T, T, T, T, T, T, const T*, T*, T*, T*);          \
  LINNET_ACTIVATION(L, relu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu_tanh, T)                                                              \
  LINNET_ACTIVATION(L, silu, T)
#define LINNET_SCANS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::softplus<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softplus_backward<T>(index, const T*, T*);                         \
  LINNET_EXTERN void detail::L::scan_step<T>(index, index, const T*, const T*, const T*, const T*, \
                                             const T*, const T*, T*, T*, T*);                      \
  LINNET_EXTERN void detail::L::scan_step_backward<T>(index, index, const T*, const T*, const T*,  \
                                                      const T*, const T*, const T*, const T*,      \
                                                      const T*, const T*, T*, T*, T*, T*, T*, T*);
#define LINNET_LEVEL(L)                   \
  LINNET_PRODUCT(L, float)                \
  LINNET_PRODUCT(L, double)               \
  LINNET_CODES(L)                         \
  LINNET_ATTENTION(L, float, bf16_code)   \
  LINNET_ATTENTION(L, float, std::int8_t) \
  LINNET_ROWS_OF(L, float)                \
  LINNET_ROWS_OF(L, double)               \
  LINNET_SCANS_OF(L, float)               \
  LINNET_SCANS_OF(L, double)

LINNET_SIMD_NAMESPACE_BEGIN
namespace simd {
LINNET_LEVEL(portable)
#if defined(__x86_64__)
LINNET_LEVEL(avx2)
LINNET_LEVEL(avx512)
LINNET_DOT(avx512dot)
#endif
}  // namespace simd
LINNET_SIMD_NAMESPACE_END

#undef LINNET_EXTERN
#undef LINNET_PRODUCT
#undef LINNET_DECODE
#undef LINNET_DOT
#undef LINNET_CODES
#undef LINNET_ACTIVATION
#undef LINNET_ATTENTION
#undef LINNET_ROWS_OF
#undef LINNET_SCANS_OF
#undef LINNET_LEVEL

#endif
/// @file
/// Storage types: how a weight is kept in memory. A storage type is a template argument of a
/// model; kernels read weights as they are stored.

#include <limits>

LINNET_NAMESPACE_BEGIN

/// What the inputs of a matrix product are rounded to before it: the compute type of a model.
namespace activation {
/// Base of the compute types.
struct policy {};
/// Not at all: products in the model's scalar type.
struct f32 : policy {};
/// bfloat16 to nearest even; sums in f32. Weights must be stored as bf16.
struct bf16 : policy {};
/// int8 with one scale per token, found at run time (W8A8, zoo E13); sums in int32, exact. Weights
/// must be stored as 8-bit integers with one scale per row or tensor.
struct int8 : policy {};
}  // namespace activation

/// The ways a weight matrix [out, in] can be stored.
namespace storage {

/// What a scale is shared by.
enum class granularity {
  tensor,  ///< a whole matrix
  row,     ///< the weights of one output feature
  group    ///< consecutive inputs of one output feature
};
/// Where the codes of an integer storage lie.
enum class symmetry {
  symmetric,  ///< x = scale * code, codes from -max to max
  asymmetric  ///< x = scale * (code - zero), codes from 0, the range extended to hold 0
};

/// What all storage types have in common; a type overrides what differs.
struct policy {
  using activation = linnet::activation::f32;  ///< see with_activation
  static constexpr bool scaled = false;        ///< whether codes come with scales
  static constexpr bool centred = false;       ///< whether they also come with zero points
  static constexpr bool per_tensor = false;    ///< whether all scales of a matrix are the same
  static constexpr index group = 0;            ///< inputs that share a scale; 0 for a whole row
  static constexpr index per_value = 1;        ///< codes in one `value` of a canonical row
};
/// Storage of whole numbers: what is in a row is what kernels read.
template <class Real>
struct real : policy {
  using value = Real;  ///< one stored number
  using word = Real;   ///< what packed panels are made of
  static constexpr index per_word = 1;
};
/// Storage of codes that kernels decode: packed panels are words of several codes.
template <class Value, simd::code Code>
struct coded : policy {
  using value = Value;
  using word = simd::word;
  static constexpr simd::code code = Code;
  static constexpr int origin = 0;  ///< packed code of the canonical code 0
  static constexpr index per_word = 32 / simd::bits_of(Code);
};

/// IEEE single precision: exact master weights.
struct f32 : real<float> {
  static constexpr const char* name = "f32";
  static value encode(double x) { return static_cast<float>(x); }
  static double decode(value x) { return x; }
};
/// IEEE double precision, for checks.
struct f64 : real<double> {
  static constexpr const char* name = "f64";
  static value encode(double x) { return x; }
  static double decode(value x) { return x; }
};

/// Small binary floating-point numbers; `Exponent` and `Fraction` count bits. Round to nearest,
/// ties to even; what is too large saturates if `Finite` (no infinities: the OCP e4m3), else
/// becomes infinite.
template <simd::code Code, class Value, int Exponent, int Fraction, bool Finite>
struct small_float : coded<Value, Code> {
  using value = Value;
  static value encode(double x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    constexpr unsigned sign_bit = 1u << (Exponent + Fraction);
    constexpr unsigned all_ones = sign_bit - 1, infinity = ((1u << Exponent) - 1) << Fraction;
    constexpr unsigned largest = Finite ? all_ones - 1 : infinity - 1;
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const unsigned sign = bits >> 63 ? sign_bit : 0u;
    const std::uint64_t magnitude = bits & ~(std::uint64_t{1} << 63);
    constexpr std::uint64_t not_finite = std::uint64_t{0x7ff} << 52;
    if (magnitude > not_finite) {  // a NaN, made quiet
      const auto payload =
          static_cast<unsigned>(magnitude >> (52 - Fraction)) & ((1u << Fraction) - 1);
      return static_cast<value>(sign |
                                (Finite ? all_ones : infinity | 1u << (Fraction - 1) | payload));
    }
    if (magnitude == not_finite) return static_cast<value>(sign | (Finite ? largest : infinity));
    // The exponent of the last place that the code has, no lower than a subnormal's.
    const int exponent = (std::max)(static_cast<int>(magnitude >> 52) - 1023, 1 - bias);
    const double steps = std::nearbyint(std::ldexp(std::abs(x), Fraction - exponent));
    // Steps beyond the fraction carry into the exponent by themselves.
    const double code = steps + static_cast<double>(exponent + bias - 1) * (1 << Fraction);
    const bool fits = code <= static_cast<double>(largest);
    return static_cast<value>(sign | (fits     ? static_cast<unsigned>(code)
                                      : Finite ? largest
                                               : infinity));
  }
  static double decode(value x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    const auto bits = static_cast<unsigned>(x);
    const unsigned fraction = bits & ((1u << Fraction) - 1);
    const auto exponent = static_cast<int>(bits >> Fraction & ((1u << Exponent) - 1));
    const double sign = bits >> (Exponent + Fraction) & 1u ? -1 : 1;
    constexpr int top = (1 << Exponent) - 1, all_ones = (1 << Fraction) - 1;
    if (exponent == top && (!Finite || fraction == all_ones)) {
      // Assembled from bits, so that it survives -ffast-math.
      const std::uint64_t wide = std::uint64_t{0x7ff} << 52 | std::uint64_t{sign < 0} << 63 |
                                 std::uint64_t{fraction} << (52 - Fraction);
      double special = 0;
      __builtin_memcpy(&special, &wide, sizeof special);
      return special;
    }
    return sign * (exponent ? std::ldexp((1 << Fraction) + fraction, exponent - bias - Fraction)
                            : std::ldexp(fraction, 1 - bias - Fraction));
  }
};
/// bfloat16: the upper half of a float; range of float, 8 bits of precision.
struct bf16 : small_float<simd::code::bf16, simd::bf16_code, 8, 7, false> {
  static constexpr const char* name = "bf16";
};
/// IEEE half precision: 11 bits of precision up to 65504.
struct f16 : small_float<simd::code::f16, std::uint16_t, 5, 10, false> {
  static constexpr const char* name = "f16";
};
/// 8-bit floats of 4 bits precision, up to 448, with one scale per row that maps its largest
/// magnitude to 448 (zoo E2).
struct fp8_e4m3 : small_float<simd::code::f8_e4m3, std::uint8_t, 4, 3, true> {
  static constexpr const char* name = "fp8_e4m3";
  static constexpr bool scaled = true;
  static constexpr double largest = 448;
};
/// 8-bit floats of 3 bits precision, up to 57344, with one scale per row likewise.
struct fp8_e5m2 : small_float<simd::code::f8_e5m2, std::uint8_t, 5, 2, false> {
  static constexpr const char* name = "fp8_e5m2";
  static constexpr bool scaled = true;
  static constexpr double largest = 57344;
};

/// 8-bit integers (zoo E1), round half to even. Symmetric: |code| <= 127, scale = max|x| / 127.
/// Asymmetric: codes 0 to 255 and a zero point. `Group` counts the inputs that share a scale.
template <granularity G, symmetry Y = symmetry::symmetric, index Group = 64>
struct int8_per : coded<std::conditional_t<Y == symmetry::symmetric, std::int8_t, std::uint8_t>,
                        simd::code::u8> {
  static_assert(Group > 0 && Group % 8 == 0,
                "linnet::storage::int8_per: groups are a multiple of 8 inputs");
  static constexpr bool scaled = true, centred = Y == symmetry::asymmetric,
                        per_tensor = G == granularity::tensor;
  static constexpr index group = G == granularity::group ? Group : 0;
  static constexpr double largest = centred ? 255 : 127;
  static constexpr int origin = centred ? 0 : 128;
  using value = typename int8_per::coded::value;
  static constexpr const char* name = centred ? (per_tensor ? "int8_tensor_asymmetric"
                                                 : group    ? "int8_group_asymmetric"
                                                            : "int8_asymmetric")
                                              : (per_tensor ? "int8_tensor"
                                                 : group    ? "int8_group"
                                                            : "int8");
  static value encode(double x) {
    return static_cast<value>((std::clamp)(std::nearbyint(x), centred ? 0.0 : -127.0, largest));
  }
  static double decode(value x) { return x; }
};
/// 8-bit integers, symmetric, one scale per output row.
struct int8 : int8_per<granularity::row> {};

/// 4-bit integers, symmetric, |code| <= 7, one scale for each `Group` inputs of a row; two codes in
/// a byte, the first in the low half (zoo E1).
template <index Group = 32>
struct int4 : coded<std::uint8_t, simd::code::u4> {
  static_assert(Group > 0 && Group % 8 == 0,
                "linnet::storage::int4: groups are a multiple of 8 inputs");
  static constexpr const char* name = "int4";
  static constexpr bool scaled = true;
  static constexpr index group = Group, per_value = 2;
  static constexpr double largest = 7;
  static constexpr int origin = 8;
  /// One code, in the low half of the byte.
  static value encode(double x) {
    return static_cast<value>(static_cast<int>((std::clamp)(std::nearbyint(x), -7.0, 7.0)) & 15);
  }
  static double decode(value x) { return x < 8 ? x : x - 16; }
};

/// 4-bit codes of normal quantiles with one scale for each 64 inputs of a row (Dettmers et al.
/// 2023, zoo E2); two codes in a byte, the first in the low half.
struct nf4 : coded<std::uint8_t, simd::code::nf4> {
  static constexpr const char* name = "nf4";
  static constexpr bool scaled = true;
  static constexpr index group = 64, per_value = 2;
  static constexpr double largest = 1;
  /// The nearest of the 16 values.
  static value encode(double x) {
    int best = 0;
    for (int i = 1; i < 16; ++i)
      if (std::abs(x - decode(static_cast<value>(i))) <
          std::abs(x - decode(static_cast<value>(best))))
        best = i;
    return static_cast<value>(best);
  }
  static double decode(value x) { return static_cast<double>(simd::nf4_values[x & 15]); }
};

/// Whether storage `S` keeps codes of this kind.
template <class S>
constexpr bool keeps(simd::code kind) {
  if constexpr (S::per_word > 1)
    return S::code == kind;
  else
    return false;
}

/// Storage `S` whose products round their inputs to `A` first.
template <class S, class A>
struct with_activation : S {
  static_assert(!std::is_same_v<A, linnet::activation::bf16> || keeps<S>(simd::code::bf16),
                "linnet: activation::bf16 multiplies weights stored as storage::bf16");
  static_assert(
      !std::is_same_v<A, linnet::activation::int8> || (keeps<S>(simd::code::u8) && S::group == 0),
      "linnet: activation::int8 multiplies 8-bit integer weights with one scale per row or tensor");
  using activation = A;
};

}  // namespace storage

/// Values that hold one canonical row of `columns` codes.
template <class S>
constexpr index row_values(index columns) {
  return (columns + S::per_value - 1) / S::per_value;
}
/// Scales (and zero points) of one row of `columns` inputs.
template <class S>
constexpr index row_scales(index columns) {
  return !S::scaled ? 0 : S::group == 0 ? 1 : (columns + S::group - 1) / S::group;
}
/// Which of a row's scales belongs to column `j`.
template <class S>
constexpr index group_of(index j) {
  return S::group == 0 ? 0 : j / S::group;
}
/// Bytes of an [rows, columns] matrix in storage `S`, scales and zero points included.
template <class S>
constexpr index matrix_bytes(index rows, index columns) {
  return rows * (row_values<S>(columns) * static_cast<index>(sizeof(typename S::value)) +
                 row_scales<S>(columns) * static_cast<index>(sizeof(float)) * (S::centred ? 2 : 1));
}

/// A canonical matrix [rows, columns] in storage `S`: what files, optimizers and transformations
/// see.
template <class S>
struct matrix_ref {
  typename S::value* data = nullptr;  ///< [rows, row_values]
  float* scales = nullptr;            ///< [rows, row_scales] where the storage is scaled
  float* zeros = nullptr;             ///< likewise where it is centred

  /// The code at row `r`, column `j`, in the low bits.
  typename S::value code(index r, index j, index columns) const {
    const typename S::value x = data[r * row_values<S>(columns) + j / S::per_value];
    if constexpr (S::per_value == 2)
      return j % 2 ? x >> 4 : x & 15;
    else
      return x;
  }
  /// Stores it; the codes of a row come in ascending order.
  void set_code(index r, index j, index columns, typename S::value code) const {
    typename S::value& x = data[r * row_values<S>(columns) + j / S::per_value];
    if constexpr (S::per_value == 2)
      x = j % 2 ? static_cast<typename S::value>(x | code << 4) : code;
    else
      x = code;
  }
  /// The number at row `r`, column `j`.
  double at(index r, index j, index columns) const {
    double x = S::decode(code(r, j, columns));
    if constexpr (S::scaled) {
      const index g = r * row_scales<S>(columns) + group_of<S>(j);
      if constexpr (S::centred) x -= static_cast<double>(zeros[g]);
      x *= static_cast<double>(scales[g]);
    }
    return x;
  }
};

namespace detail {

/// The scale (and zero point) that fits numbers between `low` and `high`; 1 where all are zero.
template <class S>
void fit_range(double low, double high, float& scale, float* zero) {
  const double range = S::centred ? (std::max)(high, 0.0) - (std::min)(low, 0.0)
                                  : (std::max)(std::abs(low), std::abs(high));
  scale = static_cast<float>(range / S::largest);
  if (!(scale > 0)) scale = 1;
  if constexpr (S::centred)
    *zero = static_cast<float>((std::clamp)(
        std::nearbyint(-(std::min)(low, 0.0) / static_cast<double>(scale)), 0.0, S::largest));
}

/// Rounds `x`[rows, columns] to storage `S`.
template <class S, class T>
void encode_matrix(index rows, index columns, const T* x, const matrix_ref<S>& to) {
  const index per_row = row_scales<S>(columns);
  [[maybe_unused]] const auto range = [&](const T* from, index n, index at) {
    if constexpr (S::scaled) {
      double low = 0, high = 0;
      for (index j = 0; j < n; ++j) {
        low = (std::min)(low, static_cast<double>(from[j]));
        high = (std::max)(high, static_cast<double>(from[j]));
      }
      fit_range<S>(low, high, to.scales[at], S::centred ? to.zeros + at : nullptr);
    }
  };
  if constexpr (S::per_tensor) range(x, rows * columns, 0);
  for (index r = 0; r < rows; ++r) {
    const T* const row = x + r * columns;
    if constexpr (S::per_tensor) {
      to.scales[r] = to.scales[0];
      if constexpr (S::centred) to.zeros[r] = to.zeros[0];
    } else if constexpr (S::scaled) {
      for (index g = 0; g < per_row; ++g) {
        const index first = g * S::group;
        range(row + first, S::group ? (std::min)(S::group, columns - first) : columns,
              r * per_row + g);
      }
    }
    for (index j = 0; j < columns; ++j) {
      double v = static_cast<double>(row[j]);
      if constexpr (S::scaled) {
        const index g = r * per_row + group_of<S>(j);
        v /= static_cast<double>(to.scales[g]);
        if constexpr (S::centred) v = std::nearbyint(v) + static_cast<double>(to.zeros[g]);
      }
      to.set_code(r, j, columns, S::encode(v));
    }
  }
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Operations on plain arrays, value and derivative side by side. Called by every thread of a team
/// with the same arguments; each computes its share of the outputs and all meet at the end.
namespace ops {

using simd::panel_width;

/// Where an operation runs: the team of threads, the instruction-set level, and scratch memory of
/// converted_bytes() for models whose products round their inputs.
struct machine {
  team threads{};
  simd::level level = simd::level::portable;
  void* converted = nullptr;
};

/// A weight matrix W[N, K] in the form that products read: panels of 32 output features, each K
/// rows of numbers or of words of codes (see simd::word); the last panel is padded. The layout is
/// the same at every instruction-set level and can be inverted exactly.
template <class T, class S>
struct packed_matrix {
  using word = typename S::word;
  const word* panels = nullptr;
  const float* scales = nullptr;  ///< [panels, row_scales, 32] when the storage is scaled
  const float* zeros = nullptr;   ///< likewise when it is centred
  const word* rows = nullptr;     ///< what backward reads, only while training: see matmul_dx()

  /// Rows of words in a panel of `k` inputs.
  static constexpr index depth(index k) { return (k + S::per_word - 1) / S::per_word; }
  /// Words that the panels of an [n, k] matrix occupy.
  static constexpr index size(index n, index k) { return round_up(n, panel_width) * depth(k); }
  /// Scales of an [n, k] matrix, padded like the panels.
  static constexpr index scales_size(index n, index k) {
    return round_up(n, panel_width) * row_scales<S>(k);
  }
  /// Where the scale of W(n, j) is.
  static constexpr index scale_at(index n, index j, index k) {
    return (n / panel_width * row_scales<S>(k) + group_of<S>(j)) * panel_width + n % panel_width;
  }
  /// The canonical code of W(n, j), in the low bits.
  typename S::value code(index n, index j, index k) const {
    const word w =
        panels[(n / panel_width * depth(k) + j / S::per_word) * panel_width + n % panel_width];
    if constexpr (S::per_word == 1) {
      return w;
    } else {
      constexpr auto bits = static_cast<unsigned>(simd::bits_of(S::code));
      const auto shift = static_cast<unsigned>(j % S::per_word) * bits;
      return static_cast<typename S::value>(((w >> shift) - S::origin) & ((1u << bits) - 1));
    }
  }
  /// W(n, j).
  T at(index n, index j, index k) const {
    auto x = static_cast<T>(S::decode(code(n, j, k)));
    if constexpr (S::scaled) {
      const index g = scale_at(n, j, k);
      if constexpr (S::centred) x -= static_cast<T>(zeros[g]);
      x *= static_cast<T>(scales[g]);
    }
    return x;
  }
};

/// Fills the panels (and scales) of `to` from W[n, k]; `share` of the team.
template <class T, class S>
void pack(const machine& on, index n, index k, const matrix_ref<S>& from,
          const packed_matrix<T, S>& to) {
  using matrix = packed_matrix<T, S>;
  using word = typename S::word;
  const index depth = matrix::depth(k), groups = row_scales<S>(k);
  on.threads.each(round_up(n, panel_width) / panel_width, [&](index panel) {
    const index first = panel * panel_width, count = (std::min)(panel_width, n - first);
    word* const out = const_cast<word*>(to.panels) + first * depth;
    for (index i = 0; i < panel_width; ++i)
      for (index d = 0; d < depth; ++d) {
        word w{};
        if constexpr (S::per_word == 1) {
          if (i < count) w = from.data[(first + i) * k + d];
        } else {
          constexpr auto bits = static_cast<unsigned>(simd::bits_of(S::code));
          for (index j = 0; j < S::per_word && i < count; ++j) {
            const index column = d * S::per_word + j;
            const auto code =
                column < k ? static_cast<unsigned>(from.code(first + i, column, k)) : 0u;
            w |= ((code + S::origin) & ((1u << bits) - 1)) << (static_cast<unsigned>(j) * bits);
          }
        }
        out[d * panel_width + i] = w;
      }
    for (index i = 0; S::scaled && i < panel_width; ++i)
      for (index g = 0; g < groups; ++g) {
        const index at = (panel * groups + g) * panel_width + i;
        const bool real = i < count;
        const_cast<float*>(to.scales)[at] = real ? from.scales[(first + i) * groups + g] : 0.0f;
        if constexpr (S::centred)
          const_cast<float*>(to.zeros)[at] = real ? from.zeros[(first + i) * groups + g] : 0.0f;
      }
  });
}

/// The same from f32 masters for training in bf16. Also fills `rows`: pairs of output features,
/// [ceil(n / 2), k], for the derivative by the inputs.
template <class S>
void pack(const machine& on, index n, index k, const matrix_ref<storage::f32>& from,
          const packed_matrix<float, S>&
              to) requires(std::is_same_v<typename S::activation, activation::bf16>) {
  using matrix = packed_matrix<float, S>;
  on.threads.each((n + panel_width - 1) / panel_width, [&](index panel) {
    const index first = panel * panel_width, count = (std::min)(panel_width, n - first);
    auto* const out = const_cast<simd::word*>(to.panels) + first * matrix::depth(k);
    constexpr index stretch = 128;
    simd::word codes[stretch / 2];
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index i = 0; i < count; ++i) {
        const float* const row = from.data + (first + i) * k;
        for (index j = 0; j < k; j += stretch) {
          const index some = (std::min)(stretch, k - j);
          K::template to_bf16<float>(some, row + j, reinterpret_cast<simd::bf16_code*>(codes));
          for (index d = 0; d < matrix::depth(some); ++d)
            out[(j / 2 + d) * panel_width + i] = codes[d];
        }
        if (i % 2 == 0)
          K::template to_bf16_pairs<float>(k, row, i + 1 < count ? row + k : nullptr,
                                           const_cast<simd::word*>(to.rows) + (first + i) / 2 * k);
      }
    });
  });
}

/// The canonical matrix that `from` was packed from.
template <class T, class S>
void unpack(index n, index k, const packed_matrix<T, S>& from, const matrix_ref<S>& to) {
  const index groups = row_scales<S>(k);
  for (index i = 0; i < n; ++i) {
    for (index j = 0; j < k; ++j) to.set_code(i, j, k, from.code(i, j, k));
    for (index g = 0; g < groups; ++g) {
      const index at = from.scale_at(i, g * S::group, k);
      to.scales[i * groups + g] = from.scales[at];
      if constexpr (S::centred) to.zeros[i * groups + g] = from.zeros[at];
    }
  }
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Whether products of storage `S` round their inputs first.
template <class S>
inline constexpr bool converts = !std::is_same_v<typename S::activation, activation::f32>;
/// Whether gradients flow through products of storage `S`: whole numbers, or bf16 throughout.
template <class S>
inline constexpr bool trainable =
    S::per_word == 1 || std::is_same_v<typename S::activation, activation::bf16>;

/// Rows up to which every thread converts for itself instead of waiting for the others.
inline constexpr index own_rows = 4;

/// Scratch bytes for products of `rows` inputs of width `in`, and for their derivatives, on up to
/// `threads` threads.
template <class S>
constexpr index converted_bytes(index rows, index in, index out, index threads, bool training) {
  if (!converts<S>) return 0;
  constexpr bool int8 = std::is_same_v<typename S::activation, activation::int8>;
  using matrix = packed_matrix<float, S>;
  const index row = 4 * matrix::depth(in) + (int8 ? 8 : 0);
  const index forward = (std::max)(rows * row, threads * (std::min)(rows, own_rows) * row);
  const index backward = 4 * (matrix::depth(rows) * (in + out) + rows * matrix::depth(out));
  return training ? (std::max)(forward, backward) : forward;
}

namespace detail {

/// Calls f(i0, i1, p0, p1) for this thread's share of the outputs of an [M, N] product: rows
/// [i0, i1) of panels [p0, p1). Each output is one sum, whatever block it falls into.
template <class F>
void each_block(const machine& on, index m, index n, F&& f) {
  const index panels = round_up(n, panel_width) / panel_width;
  const index blocks = (m + 95) / 96, height = round_up((m + blocks - 1) / blocks, 12);
  const auto rows = [&](index block, index p0, index p1) {
    const index i0 = block * height, i1 = (std::min)(m, i0 + height);
    if (i0 < i1 && p0 < p1) f(i0, i1, p0, p1);
  };
  const auto [first, last] = on.threads.share(panels * blocks);
  if (blocks >= 4 * on.threads.size()) {
    // Many rows: every thread has its own, which it has in its caches from the last operation.
    for (index unit = first; unit < last;) {
      const index p0 = unit % panels, p1 = (std::min)(panels, p0 + (last - unit));
      rows(unit / panels, p0, p1);
      unit += p1 - p0;
    }
  } else {
    // Few rows: every thread has its own panels, so each reads only its part of the weights.
    const index p0 = first / blocks, p1 = last / blocks;
    for (index block = 0; block < blocks; ++block)
      rows(block, p0 + (block < first % blocks), p1 + (block < last % blocks));
  }
}

/// Nothing is left to do for a block of a product.
struct as_it_is {
  void operator()(index, index, index, index) const {}
};

/// Splits C = epilogue(A B) over the team: of numbers, of words of bf16 pairs, or, with an integer
/// epilogue, of words of four int8. `k` counts what A and B hold. Each block is handed to `finish`.
template <class Value, class T, class Epilogue, class Finish = as_it_is>
void split_product(const machine& on, index m, index n, index k, const simd::rows_operand<Value>& a,
                   const simd::columns_operand<Value>& b, T* c, const Epilogue& e, index slack,
                   const Finish& finish = {}) {
  each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
    const index j0 = p0 * panel_width, j1 = (std::min)(n, p1 * panel_width);
    const index rows = i1 - i0, columns = j1 - j0, readable = slack + n - j1;
    const simd::rows_operand<Value> left{a.data + i0 * a.row, a.row, a.column};
    const simd::columns_operand<Value> right{b.data + p0 * b.panel, b.ld, b.panel};
    const Epilogue part = e.from(i0, j0);
    T* const out = c + i0 * n + j0;
    const auto multiply = [&](auto kernels) {
      using K = decltype(kernels);
      if constexpr (std::is_same_v<Value, T>)
        K::template multiply<T>(rows, columns, k, left, right, out, n, part, readable);
      else if constexpr (std::is_same_v<Epilogue, simd::integer_epilogue>)
        K::template multiply_int8<T>(rows, columns, k, left, right, out, n, part, readable);
      else
        K::template multiply_bf16<T>(rows, columns, k, left, right, out, n, part, readable);
    };
    if constexpr (std::is_same_v<Value, T>)
      simd::dispatch(on.level, multiply);
    else
      simd::dispatch_dot(on.level, multiply);
    finish(i0, i1, j0, j1);
  });
}

/// The inputs of a product as words of low precision.
struct converted_rows {
  simd::rows_operand<simd::word> codes{};
  float* scales = nullptr;       ///< int8: one per row
  std::int32_t* sums = nullptr;  ///< int8: of each row's codes
};
/// Rounds x[m, k] to the compute type of `S`.
template <class S>
converted_rows convert(const machine& on, index m, index k, const float* x) {
  assert(on.converted && "linnet::ops: this storage type needs machine::converted");
  const index depth = packed_matrix<float, S>::depth(k);
  auto* words = static_cast<simd::word*>(on.converted);
  constexpr bool int8 = std::is_same_v<typename S::activation, activation::int8>;
  if (m <= own_rows) words += on.threads.rank() * m * (depth + (int8 ? 2 : 0));
  converted_rows to{{words, depth, 1}, nullptr, nullptr};
  to.scales = reinterpret_cast<float*>(words + m * depth);
  to.sums = reinterpret_cast<std::int32_t*>(to.scales + m);
  const auto row = [&](index i) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      if constexpr (int8)
        to.scales[i] = K::template to_int8<float>(
            k, x + i * k, reinterpret_cast<std::int8_t*>(words + i * depth), to.sums[i]);
      else
        K::template to_bf16<float>(k, x + i * k,
                                   reinterpret_cast<simd::bf16_code*>(words + i * depth));
    });
  };
  if (m <= own_rows)
    for (index i = 0; i < m; ++i) row(i);
  else
    on.threads.each(m, row);
  return to;
}

/// Inputs whose products with decoded weights are summed at a time.
inline constexpr index decoded_rows = 128;

/// Calls f(first, last, words, scales, zeros) for stretches of the inputs [k0, k1) that share their
/// scales in panel `p`.
template <class S, class F>
void each_group(index p, index k, index k0, index k1, const packed_matrix<float, S>& w, F&& f) {
  using matrix = packed_matrix<float, S>;
  for (index at = k0; at < k1;) {
    const index end = S::group ? (std::min)(k1, (group_of<S>(at) + 1) * S::group) : k1;
    const index scale = matrix::scale_at(p * panel_width, at, k);
    f(at, end, w.panels + (p * matrix::depth(k) + at / S::per_word) * panel_width,
      S::scaled ? w.scales + scale : nullptr, S::centred ? w.zeros + scale : nullptr);
    at = end;
  }
}

/// Rows [i0, i1) of panel `p` of y = x W^T: one row straight from the codes, more of them with
/// weights decoded to f32, some inputs at a time.
template <class S, class Kernels>
void decoded_product(Kernels, index i0, index i1, index p, index n, index k, const float* x,
                     const packed_matrix<float, S>& w, float* y, const simd::epilogue<float>& e) {
  using matrix = packed_matrix<float, S>;
  constexpr auto origin = static_cast<float>(S::origin);
  const index j0 = p * panel_width, columns = (std::min)(panel_width, n - j0);
  simd::epilogue<float> part = e.from(i0, j0);
  if (i1 - i0 == 1) {
    alignas(64) float sums[panel_width] = {};
    each_group(p, k, 0, k, w,
               [&](index first, index last, const simd::word* words, const float* scales,
                   const float* zeros) {
                 Kernels::template row_by_panel<S::code>(last - first, x + i0 * k + first, words,
                                                         scales, zeros, origin, sums);
               });
    float* const out = y + i0 * n + j0;
    for (index j = 0; j < columns; ++j)
      out[j] = (part.accumulate ? out[j] : 0.0f) + part.alpha * sums[j] +
               (part.bias ? part.bias[j] : 0.0f);
    return;
  }
  alignas(64) float numbers[decoded_rows * panel_width];
  for (index k0 = 0; k0 < k; k0 += decoded_rows) {
    const index k1 = (std::min)(k, k0 + decoded_rows);
    each_group(p, k, k0, k1, w,
               [&](index first, index last, const simd::word* words, const float* scales,
                   const float* zeros) {
                 Kernels::template decode_panel<S::code>(matrix::depth(last - first), words, scales,
                                                         zeros, origin,
                                                         numbers + (first - k0) * panel_width);
               });
    Kernels::template multiply<float>(i1 - i0, columns, k1 - k0, {x + i0 * k + k0, k, 1},
                                      {numbers, panel_width, 0}, y + i0 * n + j0, n, part,
                                      panel_width - columns);
    part.bias = nullptr;
    part.accumulate = true;
  }
}

}  // namespace detail

/// What turns `n` finished values of a product into others, in place; `gate` are those of another
/// product. See activates() and gates().
template <class T>
using finisher = void (*)(simd::level level, index n, const T* gate, T* y);

/// y = f(y)
template <activation_kind A, class T>
void activates(simd::level level, index n, const T*, T* y) {
  simd::dispatch(level, [&](auto k) { decltype(k)::template activation<A, T>(n, y, y); });
}
/// y = f(gate) y (zoo A4, C1)
template <activation_kind A, class T>
void gates(simd::level level, index n, const T* gate, T* y) {
  simd::dispatch(level, [&](auto k) { decltype(k)::template gated<A, T>(n, gate, y, y); });
}

/// One of several products that read the same inputs: y[M, N] = alpha x W^T (+ bias), or y += ...,
/// then y = finish(y), then y = residual + y. The last two are done by the thread that computed a
/// block while it has it in its cache, so they need no pass over memory and no barrier. They are
/// the row kernels of the separate operations and give the same bits; as part of the register tiles
/// they would multiply the code and the compile time of every tile by the kinds of activations.
template <class T, class S>
struct product {
  const packed_matrix<T, S>& w;
  index n;
  T* y;
  const T* bias = nullptr;
  bool accumulate = false;
  T alpha = T(1);
  finisher<T> finish = nullptr;
  /// [M, N], or null: finished before this call, or by a product of the same width earlier in it,
  /// whose blocks fall to the same threads.
  const T* gate = nullptr;
  const T* residual = nullptr;  ///< [M, N] finished before this call, or null; not y

  /// What remains to be done for rows [i0, i1) of columns [j0, j1).
  void complete(simd::level level, index i0, index i1, index j0, index j1) const {
    if (finish == nullptr && residual == nullptr) return;
    assert(residual != y && "linnet::ops: a residual is not where its sum goes");
    for (index i = i0; i < i1; ++i) {
      const index first = i * n + j0, count = j1 - j0;
      if (finish) finish(level, count, gate ? gate + first : nullptr, y + first);
      if (residual)
        simd::dispatch(level, [&](auto k) {
          decltype(k)::template add<T>(count, residual + first, y + first, y + first);
        });
    }
  }
};

/// All products of x[M, K], which is converted once.
template <class T, class S, std::size_t Count>
void products(const machine& on, index m, index k, const T* x, const product<T, S> (&all)[Count]) {
  using matrix = packed_matrix<T, S>;
  detail::converted_rows inputs;
  if constexpr (converts<S>) inputs = detail::convert<S>(on, m, k, x);
  for (const product<T, S>& one : all) {
    const simd::epilogue<T> e{one.bias, one.alpha, one.accumulate};
    const auto& w = one.w;
    const index n = one.n, depth = matrix::depth(k), padding = round_up(n, panel_width) - n;
    const simd::columns_operand<typename S::word> panels{w.panels, panel_width,
                                                         panel_width * depth};
    const auto finish = [&](index i0, index i1, index j0, index j1) {
      one.complete(on.level, i0, i1, j0, j1);
    };
    if constexpr (S::per_word == 1) {
      detail::split_product<T>(on, m, n, k, {x, k, 1}, panels, one.y, e, padding, finish);
    } else if constexpr (!converts<S>) {
      detail::each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
        simd::dispatch(on.level, [&](auto kernels) {
          for (index p = p0; p < p1; ++p) {
            detail::decoded_product(kernels, i0, i1, p, n, k, x, w, one.y, e);
            finish(i0, i1, p * panel_width, (std::min)(n, (p + 1) * panel_width));
          }
        });
      });
    } else if constexpr (std::is_same_v<typename S::activation, activation::bf16>) {
      detail::split_product(on, m, n, depth, inputs.codes, panels, one.y, e, padding, finish);
    } else {
      const simd::integer_epilogue scaled{
          one.bias,      one.alpha,  one.accumulate, w.scales, S::centred ? w.zeros : nullptr,
          inputs.scales, inputs.sums};
      detail::split_product(on, m, n, depth, inputs.codes, panels, one.y, scaled, padding, finish);
    }
  }
  on.threads.wait();
}

/// y[M, N] = alpha x[M, K] W^T (+ bias), or y += ... when `accumulate`.
template <class T, class S>
void matmul(const machine& on, index m, index n, index k, const T* x, const packed_matrix<T, S>& w,
            T* y, const T* bias = nullptr, bool accumulate = false, T alpha = T(1)) {
  products<T, S, 1>(on, m, k, x, {{w, n, y, bias, accumulate, alpha}});
}

/// dx[M, K] += alpha dy[M, N] W: the derivative of matmul() by its input. Reads `w.rows`, W itself.
template <class T, class S>
void matmul_dx(const machine& on, index m, index n, index k, const T* dy,
               const packed_matrix<T, S>& w, T* dx, T alpha = T(1)) {
  static_assert(
      S::per_word == 1,
      "linnet: gradients flow through f32 or f64 weights; train first, quantize afterwards");
  detail::split_product<T>(on, m, k, n, {dy, n, 1}, {w.rows, k, panel_width}, dx,
                           simd::epilogue<T>{nullptr, alpha, true}, 0);
  on.threads.wait();
}

/// dw[N, K] += alpha dy[M, N]^T x[M, K]: the derivative of matmul() by its weights.
template <class T>
void matmul_dw(const machine& on, index m, index n, index k, const T* dy, const T* x, T* dw,
               T alpha = T(1)) {
  detail::split_product<T>(on, n, k, m, {dy, 1, n}, {x, k, panel_width}, dw,
                           simd::epilogue<T>{nullptr, alpha, true}, 0);
  on.threads.wait();
}

/// Both derivatives of matmul() at once; see matmul_dx() and matmul_dw(). In bf16, dy and x are
/// rounded once for both, and sums stay in f32; `w.rows` holds pairs of rows of W.
template <class T, class S>
void matmul_backward(const machine& on, index m, index n, index k, const T* dy, const T* x,
                     const packed_matrix<T, S>& w, T* dw, T* dx, T alpha = T(1)) {
  if constexpr (S::per_word == 1) {
    matmul_dw(on, m, n, k, dy, x, dw, alpha);
    matmul_dx(on, m, n, k, dy, w, dx, alpha);
  } else {
    static_assert(trainable<S>,
                  "linnet: gradients flow through f32, f64 or bf16 with "
                  "activation::bf16; train first, quantize afterwards");
    const index pairs = (m + 1) / 2, depth = (n + 1) / 2;
    auto* const x_pairs = static_cast<simd::word*>(on.converted);  // [pairs, k]
    auto* const dy_pairs = x_pairs + pairs * k;                    // [pairs, n]
    auto* const dy_rows = dy_pairs + pairs * n;                    // [m, depth]
    on.threads.each(pairs, [&](index i) {
      simd::dispatch(on.level, [&](auto kernels) {
        using K = decltype(kernels);
        const bool both = 2 * i + 1 < m;
        const auto* const one = dy + 2 * i * n;
        K::template to_bf16_pairs<T>(k, x + 2 * i * k, both ? x + (2 * i + 1) * k : nullptr,
                                     x_pairs + i * k);
        K::template to_bf16_pairs<T>(n, one, both ? one + n : nullptr, dy_pairs + i * n);
        for (index r = 2 * i; r <= 2 * i + both; ++r)
          K::template to_bf16<T>(n, dy + r * n,
                                 reinterpret_cast<simd::bf16_code*>(dy_rows + r * depth));
      });
    });
    const simd::epilogue<T> add{nullptr, alpha, true};
    detail::split_product<simd::word>(on, n, k, pairs, {dy_pairs, 1, n}, {x_pairs, k, panel_width},
                                      dw, add, 0);
    detail::split_product<simd::word>(on, m, k, depth, {dy_rows, depth, 1},
                                      {w.rows, k, panel_width}, dx, add, 0);
    on.threads.wait();
  }
}

/// db[N] += column sums of dy[M, N], each sum in ascending row order.
template <class T>
void bias_gradient(const machine& on, index m, index n, const T* dy, T* db) {
  const auto [first, last] = on.threads.share(n);
  for (index i = 0; i < m; ++i)
    for (index j = first; j < last; ++j) db[j] += dy[i * n + j];
  on.threads.wait();
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A place in the tree of parameters: a chain of names from the leaf to the root, on the stack.
struct path {
  const path* parent = nullptr;
  std::string_view name{};
  index number = -1;  ///< the index of an array element instead of a name
  index count = 0;    ///< elements of that array

  /// A named child.
  constexpr path operator/(std::string_view child) const { return {this, child, -1, 0}; }
  /// A numbered child.
  constexpr path operator/(index child) const { return {this, {}, child, 0}; }
  /// A numbered child, one of `of`.
  constexpr path element(index child, index of) const { return {this, {}, child, of}; }
  /// The element that this place is in: a layer, for parameters of a repeat; else the root.
  constexpr const path& enclosing_element() const {
    return number >= 0 || !parent ? *this : parent->enclosing_element();
  }
  /// The dotted name, such as `encoder.0.attention.q.weight`.
  std::string str() const {
    std::string text = parent && (parent->parent || !parent->name.empty() || parent->number >= 0)
                           ? parent->str()
                           : "";
    if (!text.empty()) text += '.';
    if (number < 0) return text + std::string(name);
    char digits[24];
    return text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  }
};

/// What a parameter is for; decides initial values and weight decay.
enum class role {
  matrix,    ///< a linear map [out, in]; may be stored quantized
  table,     ///< rows looked up by index [rows, width]; may be stored quantized when `lookup` is a
             ///< token
  position,  ///< a table of positions or relative-position buckets; always stored in full
  scale,     ///< a norm's gamma, starts at one
  bias,      ///< an additive vector, starts at zero
  average    ///< rows of unit length that follow running averages and have no derivative: backward
             ///< adds to their gradient what they are to follow, see follow_averages()
};

/// The facts about one parameter tensor.
struct tensor_info {
  index rows = 0;     ///< output features, or 1 for a vector
  index columns = 0;  ///< input features
  role kind = role::matrix;
  double deviation = 0;  ///< standard deviation of the initial normal values (zoo A6)
  /// Initial value number `i` instead, if given.
  double (*start)(const path& at, index i, random_stream& random) = nullptr;

  /// Number of values.
  constexpr index size() const { return rows * columns; }
  /// Whether it takes the model's storage type; the rest stays in the scalar type.
  constexpr bool stored() const { return kind == role::matrix || kind == role::table; }
  /// Whether weight decay applies: every trained tensor with two dimensions.
  constexpr bool decays() const {
    return kind != role::scale && kind != role::bias && kind != role::average;
  }
};

/// Where the layer of a parameter stands in its stack, for initial values that depend on it.
struct depth {
  double layer = 0, layers = 1;

  /// Of the parameter at this place; the only layer if it is in no stack.
  constexpr explicit depth(const path& at) {
    const path& element = at.enclosing_element();
    if (element.number < 0) return;
    layer = static_cast<double>(element.number);
    layers =
        static_cast<double>(element.count > element.number ? element.count : element.number + 1);
  }
  /// 0 in the first layer, 1 in the last.
  constexpr double fraction() const { return layers > 1 ? layer / (layers - 1) : 0; }
  /// 1 in the first layer, 1 / layers in the last.
  constexpr double rest() const { return 1 - layer / layers; }
};

/// The initial value 0, for tensor_info::start.
inline double start_zero(const path&, index, random_stream&) { return 0; }

/// The forms in which a layer's `params` can appear.
namespace form {
/// Canonical weights: matrices in storage `S`, vectors and position tables in `T`.
template <class T, class S>
struct canonical {
  using matrix = matrix_ref<S>;
  using vector = T*;
};
/// Gradients, in full.
template <class T>
struct gradient {
  using matrix = T*;
  using vector = T*;
};
/// What kernels read: packed panels, and while training also the canonical rows.
template <class T, class S>
struct kernel {
  using matrix = ops::packed_matrix<T, S>;
  using vector = const T*;
};
}  // namespace form

LINNET_NAMESPACE_END
/// @file
/// Dropout with masks that are computed, never stored: a value's fate depends only on the seed,
/// the step, the sample's index in the whole batch, the site and the value's position.

LINNET_NAMESPACE_BEGIN

/// The key of all dropout masks of one training step, and the rate.
struct dropout_key {
  std::uint64_t seed = 0;  ///< of the run
  std::uint64_t step = 0;  ///< optimizer steps taken so far
  index sample = 0;        ///< index in the whole batch of this call's first row
  double rate = 0;         ///< probability of dropping; 0 turns dropout off
};

namespace ops {

/// The multiplier, 0 or 1 / (1 - rate), of each of `n` values from position `first` on, of one
/// sample at one site; calls f(i, multiplier).
template <class T, class F>
void dropout_multipliers(const dropout_key& key, index sample, int site, index first, index n,
                         F&& f) {
  const auto limit = static_cast<std::uint32_t>(key.rate * 4294967296.0);
  const T keep = static_cast<T>(1.0 / (1.0 - key.rate));
  const std::uint64_t stream = key.seed ^ (key.step * 0x9E3779B97F4A7C15ull);
  const std::uint64_t where =
      static_cast<std::uint64_t>(key.sample + sample) << 24 ^ static_cast<std::uint64_t>(site);
  for (index i = 0; i < n;) {
    const index at = first + i;
    const auto words = philox(stream, where, static_cast<std::uint64_t>(at / 4));
    for (auto lane = static_cast<std::size_t>(at % 4); lane < 4 && i < n; ++lane, ++i)
      f(i, words[lane] < limit ? T(0) : keep);
  }
}

/// x *= mask for [batch, length, width] values, in place; also its own derivative. `T` float or
/// double.
template <class T>
void dropout(const team& threads, const dropout_key& key, int site, index batch, index length,
             index width, T* x) {
  if (key.rate <= 0) return;
  threads.each(batch * length, [&](index row) {
    T* const values = x + row * width;
    dropout_multipliers<T>(key, row / length, site, row % length * width, width,
                           [&](index i, T multiplier) { values[i] *= multiplier; });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The largest call that buffers are planned for.
struct extents {
  index batch = 1;        ///< sequences at a time
  index length = 0;       ///< new tokens per sequence in one call
  index memory = 0;       ///< tokens of the encoder's output (cross-attention), else 0
  index capacity = 0;     ///< tokens that the key-value cache holds; 0 while training
  index blocks = 0;       ///< blocks of tokens of a cache that sequences share, or 0
  index threads = 1;      ///< threads that may take part
  bool training = false;  ///< keep what a backward pass needs

  /// Token positions in one call.
  constexpr index rows() const { return batch * length; }
};

/// Plans three kinds of memory. A layer that holds a scratch buffer while it calls another layer
/// takes it before planning that layer and releases it afterwards.
struct planner {
  arena state{};    ///< lasts from call to call: key-value caches
  arena keep{};     ///< lasts from forward to backward; without training, layers share it by turns
  arena scratch{};  ///< lasts for one call of the layer that takes it
  int sites = 0;    ///< dropout sites numbered so far
  /// ops::converted_bytes() of the storage type, or null where products do not round their inputs.
  index (*converted_bytes)(index rows, index in, index out, index threads, bool training) = nullptr;
  index converted = 0;  ///< the most that a product needs

  /// Makes room for a product of `rows` inputs.
  constexpr void product(index rows, index in, index out, const extents& e) {
    if (converted_bytes == nullptr) return;
    const index bytes = converted_bytes(rows, in, out, e.threads, e.training);
    converted = bytes > converted ? bytes : converted;
  }
};

/// What all layers of a call share.
template <class T>
struct context {
  ops::machine on{};               ///< threads and instruction-set level
  index batch = 1;                 ///< sequences
  index layer = 0;                 ///< number of the running layer of a repeat
  index length = 0;                ///< new tokens per sequence; inputs are [batch * length, width]
  const index* lengths = nullptr;  ///< valid new tokens of each sequence, or null when all are
  const index* past = nullptr;     ///< tokens of each sequence that are already cached, or null
  const std::int32_t* tables = nullptr;  ///< [batch, table_size] blocks of paged caches, or null
  index table_size = 0;
  const index* prefix = nullptr;  ///< first tokens of each sequence that see each other, or null
  const T* memory = nullptr;      ///< encoder output [batch * memory_length, d_model]
  T* d_memory = nullptr;          ///< its gradient
  index memory_length = 0;        ///< padded length of the encoder output
  const index* memory_lengths = nullptr;  ///< valid encoder tokens of each sequence
  bool memory_cached = false;  ///< keys and values of the memory are in the cache already
  const T* bias = nullptr;     ///< relative-position bias lines [heads, 2 * bias_origin + 1]
  T* d_bias = nullptr;         ///< their gradient, one copy per sequence
  index bias_origin = 0;       ///< position of distance 0 in a bias line
  const T* rope = nullptr;     ///< cosines and sines [rope_positions, d_kv]
  index rope_positions = index{1} << 48;
  const T* rope_beyond = nullptr;   ///< [rows, d_kv] of the rows whose positions lie behind those
  const T* first_values = nullptr;  ///< values [rows, d_model] that the first layer shares
  T* d_first_values = nullptr;      ///< their gradient, from all later layers
  dropout_key dropout{};            ///< masks of this step; rate 0 outside training

  /// Rows of the inputs.
  index rows() const { return batch * length; }
  /// Tokens of sequence `b` before this call.
  index past_of(index b) const { return past ? past[b] : 0; }
  /// Cosines and sines of the position of a row.
  const T* rope_of(index row, index d_kv) const {
    const index position = past_of(row / length) + row % length;
    return position < rope_positions ? rope + position * d_kv : rope_beyond + row * d_kv;
  }
  /// Valid new tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

/// A layer without parameters derives its empty `params` and `visit` from here.
struct without_parameters {
  template <class Form>
  struct params {};
  template <class F, class... P>
  static constexpr void visit(F&&, const path&, P&...) {}
};

/// A layer without buffers derives its empty `cache` and `plan` from here.
struct without_cache {
  template <class T>
  struct cache {};
  template <class T>
  static constexpr cache<T> plan(planner&, const extents&) {
    return {};
  }
};

namespace detail {
/// Whether a layer adds a residual to what it computes.
template <class L>
constexpr bool adds_residual() {
  if constexpr (requires { L::adds_residual; }) return L::adds_residual;
  return false;
}
}  // namespace detail

/// What has to be copied for one sequence to continue where another is. Tokens that were the same
/// ones anyway may be left out.
struct state_part {
  index first = 0;   ///< both sequences have read the same tokens before this one
  index tokens = 0;  ///< tokens that the copied sequence has read
  index memory =
      0;  ///< padded tokens of the encoder's output, or 0 where both read the same source
  bool block = false;  ///< not sequences: block `from` of paged caches becomes block `to`
};

namespace detail {
/// Whether a layer's plan for decoding takes memory that lasts from call to call.
template <class L, class T>
constexpr bool keeps_state() {
  planner m;
  (void)L::template plan<T>(m, {.length = 1, .memory = 1, .capacity = 1});
  return m.state.peak() > 0;
}
}  // namespace detail

/// Copies `size` values of sequence `from` to sequence `to` of state[batch, size].
template <class T>
void copy_sequence(T* state, index size, index from, index to, const state_part& part) {
  if (!part.block) std::copy_n(state + from * size, size, state + to * size);
}

/// Copies the decoding state of sequence `from` of a layer to sequence `to`; layers that keep none
/// need not say so.
template <class L, class T>
void copy_state(typename L::template cache<T>& c, index from, index to, const state_part& part) {
  if constexpr (requires { L::copy_state(c, from, to, part); })
    L::copy_state(c, from, to, part);
  else
    static_assert(!detail::keeps_state<L, T>(),
                  "linnet::session::fork: a layer that keeps state while decoding needs a "
                  "copy_state (see nn/layer.hpp)");
}

/// Number of parameters of a layer or model; shared ones count once.
template <class L>
constexpr index count_parameters() {
  index n = 0;
  L::visit([&](const path&, const tensor_info& info) { n += info.size(); }, path{});
  return n;
}

LINNET_NAMESPACE_END
/// @file
/// Softmax attention, forward and backward, in blocks of query rows (zoo D1). No matrix of all
/// queries by all keys is ever held. Keys and values are read as they are stored.

/// @file
/// How keys and values lie in memory: what attention reads.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Keys or values of all sequences of a call: [batch, tokens, kv_heads, slot]; the cache of a
/// session or the output of a linear map.
template <class Code>
struct kv_rows {
  const Code* data = nullptr;
  index tokens = 0;                      ///< from sequence to sequence
  index stride = 0;                      ///< from token to token
  index slot = 0;                        ///< from head to head
  const float* scales = nullptr;         ///< of codes, [batch, tokens, kv_heads], or null
  index fixed = 0;                       ///< rows in front of a ring
  index ring = 0;                        ///< tokens after which rows are used again; 0 for never
  const std::int32_t* tables = nullptr;  ///< [batch, table_size] blocks in a pool that all share
  index table_size = 0;

  /// One head of one sequence.
  constexpr simd::token_rows<Code> of(index b, index head) const {
    return {data + (tables ? 0 : b * tokens * stride) + head * slot, stride, fixed, ring,
            tables ? tables + b * table_size : nullptr};
  }
  /// The scale of row `place` of head `head` of sequence `b`.
  constexpr const float& scale(index b, index place, index head) const {
    return scales[((tables ? 0 : b * tokens) + place) * (stride / slot) + head];
  }
  /// out[c * step] = number c of the head's h in row `place`, which holds token `j`.
  template <class T>
  void load(index b, index head, index, index place, index h, T* out, index step) const {
    const Code* const row = data + ((tables ? 0 : b * tokens) + place) * stride + head * slot;
    const T factor = scales ? static_cast<T>(scale(b, place, head)) : T(1);
    for (index c = 0; c < h; ++c) out[c * step] = factor * number<T>(row[c]);
  }
  /// A stored number, without its scale.
  template <class T>
  static T number(Code x) {
    if constexpr (std::is_same_v<Code, simd::bf16_code>) {
      const auto bits = static_cast<std::uint32_t>(x) << 16;
      float y = 0;
      __builtin_memcpy(&y, &bits, sizeof y);
      return y;
    } else {
      return static_cast<T>(x);
    }
  }
  /// Whether tokens are numbers that follow each other in memory.
  constexpr bool plain() const { return !scales && !ring && !tables; }
};

/// Two 4-bit codes, x = scale * (code - 8), the first in the low half.
enum class int4_code : std::uint8_t {};

/// Keys or values in 4 bits. Values have one scale for each head of each token. Keys have one for
/// each channel of a block of tokens (zoo D15); of each sequence and head the newest block is open:
/// its numbers are as they were given.
template <>
struct kv_rows<int4_code> {
  const int4_code* data = nullptr;  ///< values [batch, tokens, heads, (h + 1) / 2],
                                    ///< keys [batch, blocks, heads, h, token_block / 2]
  index tokens = 0;                 ///< of each sequence, whole blocks
  index heads = 0, width = 0;       ///< heads of `width` numbers
  bool keys = false;
  const float* scales = nullptr;  ///< values [batch, tokens, heads], keys [batch, blocks, heads, h]
  index fixed = 0, ring = 0;
  const float* open = nullptr;        ///< keys: [batch, heads, token_block, h]
  const index* open_block = nullptr;  ///< keys: [batch, heads] 1 + number of the open block, or 0

  /// Where tokens are.
  constexpr simd::token_rows<int4_code> of(index, index) const { return {data, 0, fixed, ring}; }
  constexpr bool plain() const { return false; }
  /// Code `i` of those that begin at `at`, from -7 to 7.
  constexpr int code(index at, index i) const {
    const auto both = static_cast<unsigned>(data[at + i / 2]);
    return static_cast<int>(i % 2 ? both >> 4 : both & 15u) - 8;
  }
  /// Where the first channel's codes of a block of keys begin, and its scale.
  constexpr index block_at(index b, index head, index place) const {
    return ((b * tokens + place) / simd::token_block * heads + head) * width;
  }
  /// out[c * step] = number c of the head's in row `place`, which holds token `j`.
  template <class T>
  void load(index b, index head, index j, index place, index h, T* out, index step) const {
    constexpr index half = simd::token_block / 2;
    const index t = j % simd::token_block, unit = b * heads + head;
    const index at = keys ? block_at(b, head, place) : (b * tokens + place) * heads + head;
    if (keys && open_block[unit] == j / simd::token_block + 1) {
      const float* const row = open + (unit * simd::token_block + t) * h;
      for (index c = 0; c < h; ++c) out[c * step] = static_cast<T>(row[c]);
      return;
    }
    for (index c = 0; c < h; ++c)
      out[c * step] =
          keys ? static_cast<T>(scales[at + c]) * static_cast<T>(code((at + c) * half, t))
               : static_cast<T>(scales[at]) * static_cast<T>(code(at * ((h + 1) / 2), c));
  }
};

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Query rows that are worked on at a time.
inline constexpr index attention_rows = 48;
/// A distance that bounds nothing.
inline constexpr index any_distance = index{1} << 48;

/// Which keys a query at position p sees: those at [p - before, p + after], and in any case the
/// `first` ones, unless they come after p + after.
struct attention_window {
  index before = any_distance;
  index after = any_distance;
  index first = 0;

  /// Whether some query may not see a key that is earlier than another one it sees.
  constexpr bool bounded() const { return before < any_distance; }
  /// The most keys of `keys` that a block of `rows` queries looks at, with padding.
  constexpr index width(index keys, index rows) const {
    const index near = bounded() ? (std::min)(keys, before + (std::min)(after, keys) + rows) : keys;
    return round_up(near, panel_width) + round_up(first, panel_width);
  }
};

/// One attention call: q[batch, queries, heads*h] against `keys` keys and values.
template <class T, class Code = T>
struct attention_call {
  index batch, queries, keys;  ///< padded lengths
  index heads, kv_heads, h;
  attention_window window;
  T scale;  ///< of the scores
  const T* q;
  const T* q_first = nullptr;  ///< other queries for the `first` keys, or null for the same
  kv_rows<Code> k, v;
  T* out;                                ///< [batch, queries, heads*h]
  const index* past = nullptr;           ///< position of each sequence's first query, or null for 0
  const index* query_lengths = nullptr;  ///< valid queries of each causal sequence, or null for all
  const index* key_lengths = nullptr;    ///< valid keys of each sequence, or null for all
  const index* prefix = nullptr;         ///< first keys of each sequence that all its queries see
  const T* bias = nullptr;  ///< lines [heads, 2*bias_origin + 1], by key position - query position
  index bias_origin = 0;
  index slots = any_distance;  ///< queries stand no further than slots - 1 from the `first` keys
  T* scratch = nullptr;        ///< per thread, attention_scratch() values
  index scratch_size = 0;
  dropout_key dropout{};
  int site = 0;
};

/// Gradients of an attention call over plain keys and values; everything is added to.
template <class T>
struct attention_gradient {
  const T* d_out;
  T *dq, *dk, *dv;
  T* dq_first = nullptr;  ///< of q_first, where that is given
  T* d_bias = nullptr;    ///< lines per sequence [batch, heads, 2*bias_origin + 1], or null
};

/// Scratch values that one thread needs for calls of up to `queries` queries a sequence; `gathers`
/// unless keys and values are kv_rows::plain().
constexpr index attention_scratch(index queries, index keys, index h, const attention_window& seen,
                                  bool training, bool gathers = false) {
  const index wide = seen.width(keys, (std::min)(queries, attention_rows));
  return (training ? 3 : 1) * attention_rows * wide + (training || gathers ? 2 : 1) * h * wide;
}

namespace detail {

/// Everything about one (sequence, key-value head) that both directions share.
template <class T, class Code>
struct attention_unit {
  /// Keys [first, last) whose scores begin at a column.
  struct stretch {
    index first = 0, last = 0, column = 0;
  };
  /// Some query rows of a head and what they see.
  struct block {
    index row, rows;  ///< queries [row, row + rows)
    stretch part[2];  ///< the first keys and the near ones; without `first` only the latter
    index used;       ///< columns of scores

    const stretch* begin() const { return part; }
    const stretch* end() const { return part + 2; }
  };

  const attention_call<T, Code>& call;
  index b, g, n, valid, past, prefix, wide;
  simd::token_rows<Code> key, value;
  T *scores, *key_columns, *values;

  attention_unit(const attention_call<T, Code>& c, index unit, int rank)
      : call(c),
        b(unit / c.kv_heads),
        g(unit % c.kv_heads),
        n(c.heads * c.h),
        valid(c.key_lengths ? c.key_lengths[b] : c.keys),
        past(c.past ? c.past[b] : 0),
        prefix(c.prefix ? c.prefix[b] : 0),
        wide(c.window.width(c.keys, (std::min)(c.queries, attention_rows))),
        key(c.k.of(b, g)),
        value(c.v.of(b, g)),
        scores(c.scratch + rank * c.scratch_size),
        key_columns(scores + attention_rows * wide),
        values(key_columns + c.h * wide) {
    // What follows the last valid query of a causal sequence was never there.
    const index queries = c.query_lengths ? c.query_lengths[b] : c.queries;
    valid = (std::min)(valid, (std::max)(prefix, past + queries + call.window.after));
  }

  /// The end of the keys that query i sees.
  index end_of(index i) const {
    return (std::min)(valid, (std::max)(prefix, past + i + call.window.after + 1));
  }
  /// Their beginning, the `first` ones apart.
  index begin_of(index i) const {
    return (std::max)(call.window.first, past + i - call.window.before);
  }
  /// Whether kernels read keys and values where they are: one query, codes that they know.
  static constexpr bool direct(const block& some) {
    return some.rows == 1 && !std::is_same_v<Code, int4_code>;
  }
  block at(index row) const {
    const index first = call.window.first;
    block some{row, (std::min)(attention_rows, call.queries - row), {}, 0};
    const index step = direct(some) ? 1 : panel_width, last = end_of(row + some.rows - 1);
    some.part[0].last = (std::min)(first, last);
    some.part[1] = {begin_of(row), last, round_up(some.part[0].last, step)};
    some.part[1].first = (std::min)(some.part[1].first, last);
    some.used = some.part[1].column + last - some.part[1].first;
    return some;
  }

  /// columns[h, wide] = rows of one stretch, transposed, zero behind them.
  void transpose(const stretch& s, const simd::token_rows<Code>& rows, const kv_rows<Code>& all,
                 T* columns) const {
    const index end = s.column + round_up(s.last - s.first, panel_width);
    for (index j = s.first; j < s.last; ++j)
      all.load(b, g, j, rows.place(j), call.h, columns + s.column + j - s.first, wide);
    for (index c = 0; c < call.h; ++c)
      std::fill(columns + c * wide + s.column + s.last - s.first, columns + c * wide + end, T(0));
  }
  /// Prepares the keys of a block: all of them with the first block, unless windows are bounded.
  void prepare(const block& some, T* value_columns) const {
    if (direct(some) && !value_columns) return;
    if (!call.window.bounded() && some.row > 0) return;
    for (stretch s : some) {
      if (!call.window.bounded() && s.last > s.first) s.last = valid;
      transpose(s, key, call.k, key_columns);
      if (value_columns) transpose(s, value, call.v, value_columns);
      if (call.v.plain() && std::is_same_v<T, Code>) continue;
      for (index j = s.first; j < s.last; ++j)
        call.v.load(b, g, j, value.place(j), call.h, values + (s.column + j - s.first) * call.h, 1);
    }
  }
  /// x[i] *= the scales of a stretch of codes.
  void rescale(const stretch& s, const simd::token_rows<Code>& rows, const kv_rows<Code>& all,
               T* x) const {
    for (index j = s.first; j < s.last && all.scales; ++j)
      x[j - s.first] *= static_cast<T>(all.scale(b, rows.place(j), g));
  }

  /// The queries that a stretch of keys is compared with.
  const T* queries(const block& some, const stretch& s) const {
    return &s == some.part && call.q_first ? call.q_first : call.q;
  }
  /// scores[rows, wide] = softmax of some query rows of a head; zero where a row sees nothing.
  /// Those of a single row are not divided by their sum, which is returned, if `Whole` is false.
  template <bool Whole = true, class Kernels>
  T probabilities(Kernels, index head, const block& some) const {
    T sum = 1;
    const index q_at = (b * call.queries + some.row) * n + head * call.h;
    for (const stretch& s : some) {
      if (s.first == s.last) continue;
      const T* const q = queries(some, s) + q_at;
      if (direct(some)) {
        if constexpr (!std::is_same_v<Code, int4_code>) {
          Kernels::template dots<T>(s.first, s.last, call.h, call.scale, q, key, scores + s.column);
          rescale(s, key, call.k, scores + s.column);
        }
      } else {
        Kernels::template multiply<T>(some.rows, round_up(s.last - s.first, panel_width), call.h,
                                      {q, n, 1}, {key_columns + s.column, wide, panel_width},
                                      scores + s.column, wide, {nullptr, call.scale, false});
      }
    }
    for (index i = 0; i < some.rows; ++i) {
      T* const row = scores + i * wide;
      index count = 0, seen = 0;  // columns in use, keys seen
      for (const stretch& s : some) {
        const index open = &s == some.part ? s.first : begin_of(some.row + i);
        const index from = (std::clamp)(open, s.first, s.last);
        const index to = (std::clamp)(end_of(some.row + i), from, s.last);
        const index at = s.column + from - s.first;
        if (to == from) continue;
        if (call.bias)
          Kernels::template add<T>(to - from, row + at,
                                   bias_line(call.bias, head, some, s, i) + from, row + at);
        std::fill(row + count, row + (std::max)(count, at), T(-1e30));
        count = at + to - from;
        seen += to - from;
      }
      if (seen > 0 && (Whole || some.rows > 1))
        Kernels::template softmax<T>(count, row);
      else if (seen > 0)
        sum = Kernels::template exp_sum<T>(count, Kernels::template maximum<T>(count, row), row);
      std::fill(row + count, row + some.used, T(0));
    }
    return sum;
  }
  /// Where key 0 is in the line of position biases of row `i` of a block.
  template <class Line>
  Line* bias_line(Line* lines, index head, const block& some, const stretch& s, index i) const {
    const index position = past + some.row + i;
    return lines + head * (2 * call.bias_origin + 1) + call.bias_origin -
           (&s == some.part ? (std::min)(position, call.slots - 1) : position);
  }
  /// Multiplies rows of probabilities, or of their gradient, with the dropout mask.
  void drop(index head, const block& some, T* x) const {
    if (call.dropout.rate <= 0) return;
    for (index i = 0; i < some.rows; ++i)
      for (const stretch& s : some)
        dropout_multipliers<T>(
            call.dropout, b, call.site, (head * call.queries + some.row + i) * call.keys + s.first,
            s.last - s.first,
            [&](index j, T multiplier) { x[i * wide + s.column + j] *= multiplier; });
  }
};

}  // namespace detail

/// out = softmax(scale q k^T + bias) v over the keys in each query's window. Every query must see a
/// key.
template <class T, class Code>
void attention(const machine& on, const attention_call<T, Code>& call) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      const detail::attention_unit<T, Code> u(call, item, on.threads.rank());
      const index group = call.heads / call.kv_heads, h = call.h;
      for (index row = 0; row < call.queries; row += attention_rows) {
        const auto some = u.at(row);
        u.prepare(some, nullptr);
        for (index head = u.g * group; head < (u.g + 1) * group; ++head) {
          const T sum = u.template probabilities<false>(kernels, head, some);
          u.drop(head, some, u.scores);
          T* const out = call.out + (u.b * call.queries + row) * u.n + head * h;
          bool more = false;
          for (const auto& s : some) {
            if (s.first == s.last) continue;
            T* const p = u.scores + s.column;
            if (u.direct(some)) {
              if constexpr (!std::is_same_v<Code, int4_code>) {
                u.rescale(s, u.value, call.v, p);
                K::template mix<T>(s.first, s.last, h, p, u.value, out, more);
              }
            } else {
              simd::columns_operand<T> v{u.values + s.column * h, h, panel_width};
              if constexpr (std::is_same_v<T, Code>)
                if (call.v.plain()) v = {u.value.row(s.first), u.value.stride, panel_width};
              K::template multiply<T>(some.rows, h, s.last - s.first, {p, u.wide, 1}, v, out, u.n,
                                      {nullptr, T(1), more});
            }
            more = true;
          }
          if (!more)
            for (index i = 0; i < some.rows; ++i) std::fill_n(out + i * u.n, h, T(0));
          else if (some.rows == 1)
            K::template scale<T>(h, T(1) / sum, out);
        }
      }
    });
  });
}

/// The derivative of attention(): adds to dq, dk, dv and d_bias. Probabilities are recomputed.
template <class T>
void attention_backward(const machine& on, const attention_call<T>& call,
                        const attention_gradient<T>& grad) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      const detail::attention_unit<T, T> u(call, item, on.threads.rank());
      const index group = call.heads / call.kv_heads, h = call.h, wide = u.wide;
      T* const value_columns = u.values;
      T* const d_scores = value_columns + h * wide;
      T* const dropped = d_scores + attention_rows * wide;
      T* const dk = grad.dk + (u.key.data - call.k.data);
      T* const dv = grad.dv + (u.value.data - call.v.data);
      for (index row = 0; row < call.queries; row += attention_rows) {
        const auto some = u.at(row);
        u.prepare(some, value_columns);
        for (index head = u.g * group; head < (u.g + 1) * group; ++head) {
          u.probabilities(kernels, head, some);
          const index rows = some.rows, at = (u.b * call.queries + row) * u.n + head * h;
          const T* const d_out = grad.d_out + at;
          std::copy_n(u.scores, rows * wide, dropped);
          u.drop(head, some, dropped);
          // dv += P^T d_out, dP = d_out v^T
          std::fill_n(d_scores, rows * wide, T(0));
          for (const auto& s : some) {
            const index keys = s.last - s.first;
            K::template multiply<T>(keys, h, rows, {dropped + s.column, 1, wide},
                                    {d_out, u.n, panel_width}, dv + s.first * u.value.stride,
                                    u.value.stride, {nullptr, T(1), true});
            K::template multiply<T>(rows, round_up(keys, panel_width), h, {d_out, u.n, 1},
                                    {value_columns + s.column, wide, panel_width},
                                    d_scores + s.column, wide, {});
          }
          u.drop(head, some, d_scores);
          for (index i = 0; i < rows; ++i) {
            T* const d_row = d_scores + i * wide;
            // Where the row sees nothing its probabilities are zero, and so is this.
            K::template softmax_backward<T>(some.used, u.scores + i * wide, d_row, d_row);
            for (const auto& s : some)
              if (grad.d_bias) {
                T* const line = u.bias_line(
                    grad.d_bias + u.b * call.heads * (2 * call.bias_origin + 1), head, some, s, i);
                const index count = (std::min)(s.last, u.end_of(row + i)) - s.first;
                if (count > 0)
                  K::template add<T>(count, line + s.first, d_row + s.column, line + s.first);
              }
          }
          // dq += scale dS k, dk += scale dS^T q
          for (const auto& s : some) {
            const index keys = s.last - s.first;
            T* const dq = &s == some.part && call.q_first ? grad.dq_first : grad.dq;
            K::template multiply<T>(rows, h, keys, {d_scores + s.column, wide, 1},
                                    {u.key.row(s.first), u.key.stride, panel_width}, dq + at, u.n,
                                    {nullptr, call.scale, true});
            K::template multiply<T>(keys, h, rows, {d_scores + s.column, 1, wide},
                                    {u.queries(some, s) + at, u.n, panel_width},
                                    dk + s.first * u.key.stride, u.key.stride,
                                    {nullptr, call.scale, true});
          }
        }
      }
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The rows of a cache: `fixed` first ones and a ring behind them, or one for each token.
struct kv_places {
  index tokens = 0;  ///< of each sequence
  index fixed = 0, ring = 0;

  constexpr kv_places() = default;
  /// For texts of `count` tokens of which the `first` and the last `near` ones are looked at: a
  /// ring where that is smaller.
  constexpr kv_places(index count, index first, index near) : tokens(count) {
    const index block = simd::token_block;
    if (near >= count || round_up(first, block) + round_up(near, block) >= count) return;
    fixed = round_up(first, block);
    ring = round_up(near, block);
    tokens = fixed + ring;
  }
};

/// The keys, or the values, of one layer in 4 bits; see ops::kv_rows<int4_code>.
template <index Heads, index H, bool Keys>
struct kv_buffer4 {
  using code = ops::int4_code;
  static constexpr bool exact = false;
  static constexpr index heads = Heads, width = H;
  static constexpr index block = simd::token_block, pairs = (H + 1) / 2;

  code* data = nullptr;
  float* scales = nullptr;
  float* open = nullptr;        ///< [batch, Heads, block, H] the newest keys as they are
  index* open_block = nullptr;  ///< [batch, Heads] 1 + its number
  kv_places places{};

  /// Like kv_buffer's; never paged.
  constexpr void plan(arena& state, index batch, index count, index first, index near, index) {
    places = {count, first, near};
    places.tokens = round_up(places.tokens, block);
    data = state.take<code>(batch * codes());
    scales = state.take<float>(batch * factors());
    if (!Keys) return;
    open = state.take<float>(batch * Heads * block * H);
    open_block = state.take<index>(batch * Heads);
  }
  constexpr bool gathered() const { return true; }
  constexpr ops::kv_rows<code> rows(const std::int32_t*, index) const {
    return {data,   places.tokens, Heads,       H,    Keys,
            scales, places.fixed,  places.ring, open, open_block};
  }
  /// Keeps x[H] for token `j` of a head of sequence `b` of `all`, which are rows(). Tokens come in
  /// order.
  template <class T>
  void put(const ops::kv_rows<code>& all, index b, index head, index j, const T* x) const {
    const index place = all.of(b, head).place(j);
    if constexpr (!Keys) {
      const index at = (b * places.tokens + place) * Heads + head;
      scales[at] = encode(H, x, 1, data + at * pairs);
    } else {
      const index unit = b * Heads + head, t = j % block;
      float* const rows = open + unit * block * H;
      if (open_block[unit] != j / block + 1) {
        // Tokens of this block were kept before, and some of them taken back.
        for (index u = 0; u < t; ++u)
          all.load(b, head, j - t + u, place - t + u, H, rows + u * H, 1);
        open_block[unit] = j / block + 1;
      }
      for (index c = 0; c < H; ++c) rows[t * H + c] = static_cast<float>(x[c]);
      if (t + 1 < block) return;
      const index at = all.block_at(b, head, place);
      for (index c = 0; c < H; ++c)
        scales[at + c] = encode(block, rows + c, H, data + (at + c) * block / 2);
    }
  }
  /// Sequence `to` becomes what `from` is.
  void copy(index from, index to, index, index) const {
    const auto whole = [&](auto* x, index count) {
      std::copy_n(x + from * count, count, x + to * count);
    };
    whole(data, codes());
    whole(scales, factors());
    if (!Keys) return;
    whole(open, Heads * block * H);
    whole(open_block, Heads);
  }
  void copy_block(index, index) const {}

 private:
  /// Bytes of codes, and scales, of one sequence.
  constexpr index codes() const { return places.tokens * Heads * (Keys ? H : 2 * pairs) / 2; }
  constexpr index factors() const { return places.tokens * Heads * (Keys ? H : block) / block; }
  /// Codes of n numbers, `step` apart; returns their scale, max|x| / 7, 1 for zeros.
  template <class T>
  static float encode(index n, const T* x, index step, code* to) {
    float most = 0;
    for (index i = 0; i < n; ++i)
      most = (std::max)(most, std::abs(static_cast<float>(x[i * step])));
    const float scale = most > 0 ? most / 7 : 1;
    for (index i = 0; i < n; i += 2) {
      unsigned both = 0;
      for (index k = 0; k < 2; ++k) {
        const float v = i + k < n ? static_cast<float>(x[(i + k) * step]) / scale : 0.0f;
        both |= static_cast<unsigned>(static_cast<int>(std::nearbyint(v)) + 8) << (4 * k);
      }
      to[i / 2] = static_cast<code>(both);
    }
    return scale;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// How the numbers of a key-value cache are stored.
enum class kv_code {
  exact,  ///< in the model's scalar type
  bf16,   ///< bfloat16, half the bytes
  int8,   ///< 8-bit integers with one scale for each head of each token, about a quarter
  int4    ///< 4-bit integers, keys with a scale for each channel of 32 tokens, about a sixth
};

/// Policies for the key-value cache of a model: decoder<shape, kv::int8>. Weights do not depend on
/// it. Models in double keep doubles.
namespace kv {
/// Base of the cache policies.
struct policy {};
/// Keys and values as they are.
struct exact : policy {
  static constexpr kv_code code = kv_code::exact;
};
/// Rounded to bfloat16, nearest even.
struct bf16 : policy {
  static constexpr kv_code code = kv_code::bf16;
};
/// Rounded to int8, symmetric, one scale for each head of each token (zoo D15): an error of half a
/// scale, that is max|x| / 254, at most.
struct int8 : policy {
  static constexpr kv_code code = kv_code::int8;
};
/// Rounded to 4-bit integers (zoo D15): values with one scale for each head of each token, keys
/// with one for each channel of 32 tokens, the newest of which stay exact. An error of half a
/// scale, that is max|x| / 14, at most. Attention decodes what it reads; not for paged caches.
struct int4 : policy {
  static constexpr kv_code code = kv_code::int4;
};
}  // namespace kv

namespace detail {

/// The keys, or the values, of one layer: [batch, tokens, Heads, slot].
template <class T, kv_code Code, index Heads, index H>
struct kv_buffer {
  static constexpr bool exact = Code == kv_code::exact || sizeof(T) != sizeof(float);
  static_assert(exact || Code != kv_code::int4);
  using code =
      std::conditional_t<exact, T,
                         std::conditional_t<Code == kv_code::bf16, simd::bf16_code, std::int8_t>>;
  static constexpr index heads = Heads, width = H;
  static constexpr bool scaled = !exact && Code == kv_code::int8;
  // Kernels write whole words of codes.
  static constexpr index slot = round_up(H, exact ? 1 : 4 / static_cast<index>(sizeof(code)));

  code* data = nullptr;
  float* scales = nullptr;  ///< [batch, tokens, Heads]
  kv_places places{};
  bool paged = false;  ///< [blocks, token_block, Heads, slot], shared by all sequences

  /// Plans room for `count` tokens of each sequence; for the `first` and the last `near` ones alone
  /// if those are fewer; else for `blocks` blocks of tokens altogether, if that is not 0.
  constexpr void plan(arena& state, index batch, index count, index first, index near,
                      index blocks) {
    places = {count, first, near};
    if (places.ring == 0 && blocks > 0) {
      paged = true;
      places.tokens = blocks * simd::token_block;
      batch = 1;
    }
    data = state.take<code>(batch * places.tokens * Heads * slot);
    if (scaled) scales = state.take<float>(batch * places.tokens * Heads);
  }
  /// Whether several queries need a copy of what they look at.
  constexpr bool gathered() const { return !exact || places.ring > 0 || paged; }
  /// What attention reads; `tables` [batch, table_size] where it is paged.
  constexpr ops::kv_rows<code> rows(const std::int32_t* tables, index table_size) const {
    return {data,      places.tokens, Heads * slot, slot,
            scales,    places.fixed,  places.ring,  paged ? tables : nullptr,
            table_size};
  }
  /// Keeps x[Heads, H] for token `j` of sequence `b` of `all`, which are rows(). In any order.
  void put(const ops::machine& on, const ops::kv_rows<code>& all, index b, index j,
           const T* x) const {
    const index row = (paged ? 0 : b * places.tokens) + all.of(b, 0).place(j);
    code* const to = data + row * Heads * slot;
    if constexpr (exact) {
      std::copy_n(x, Heads * H, to);
    } else {
      simd::dispatch(on.level, [&](auto kernels) {
        using K = decltype(kernels);
        for (index head = 0; head < Heads; ++head) {
          [[maybe_unused]] std::int32_t sum = 0;
          if constexpr (scaled)
            scales[row * Heads + head] =
                K::template to_int8<T>(H, x + head * H, to + head * slot, sum);
          else
            K::template to_bf16<T>(H, x + head * H, to + head * slot);
        }
      });
    }
  }
  /// Tokens [first, last) of sequence `from` become those of sequence `to`; paged ones are shared.
  void copy(index from, index to, index first, index last) const {
    if (paged) return;
    if (places.ring > 0) first = 0, last = places.tokens;  // wherever they are
    copy_rows(from * places.tokens + first, to * places.tokens + first, last - first);
  }
  /// Block `from` becomes block `to`.
  void copy_block(index from, index to) const {
    if (paged) copy_rows(from * simd::token_block, to * simd::token_block, simd::token_block);
  }

 private:
  void copy_rows(index from, index to, index count) const {
    if (count <= 0) return;
    const index row = Heads * slot;
    std::copy_n(data + from * row, count * row, data + to * row);
    if (scaled) std::copy_n(scales + from * Heads, count * Heads, scales + to * Heads);
  }
};

template <class T, kv_code Code, index Heads, index H, bool Keys>
struct pick_kv_buffer {
  using type = kv_buffer<T, Code, Heads, H>;
};
template <index Heads, index H, bool Keys>
struct pick_kv_buffer<float, kv_code::int4, Heads, H, Keys> {
  using type = kv_buffer4<Heads, H, Keys>;
};

/// Moves k[batch, length, heads of keys, h] and v[batch, length, heads of values, h] into a cache:
/// the new tokens of this call, or with `all` those of another text, from its start. Several heads
/// of keys may share one of values.
template <class Keys, class Values, class T>
void keep_tokens(const Keys& keys, const Values& values, const context<T>& ctx, index length,
                 bool all, const T* k, const T* v) {
  constexpr index heads = Keys::heads, group = heads / Values::heads, h = Keys::width;
  const auto key_rows = keys.rows(ctx.tables, ctx.table_size);
  const auto value_rows = values.rows(ctx.tables, ctx.table_size);
  const auto kept = [&](index b, index t) { return all || t < ctx.length_of(b); };
  const auto at = [&](index b, index t) { return all ? t : ctx.past[b] + t; };
  if constexpr (requires { keys.open_block; }) {  // tokens have to come in order
    ctx.on.threads.each(ctx.batch * heads, [&](index unit) {
      const index b = unit / heads, head = unit % heads;
      for (index t = 0; t < length && kept(b, t); ++t) {
        const index row = b * length + t;
        keys.put(key_rows, b, head, at(b, t), k + (row * heads + head) * h);
        if (head % group == 0)
          values.put(value_rows, b, head / group, at(b, t),
                     v + (row * Values::heads + head / group) * h);
      }
    });
  } else {
    ctx.on.threads.each(ctx.batch * length, [&](index row) {
      const index b = row / length, t = row % length;
      if (!kept(b, t)) return;
      keys.put(ctx.on, key_rows, b, at(b, t), k + row * heads * h);
      values.put(ctx.on, value_rows, b, at(b, t), v + row * Values::heads * h);
    });
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Positions: rotary embeddings in both pairings, T5's relative-position buckets, sinusoids.

LINNET_NAMESPACE_BEGIN

/// Which two values of a head a rotary embedding rotates together.
enum class rope_pairing {
  none,
  interleaved,  ///< (2i, 2i+1): Meta's Llama, llama2.c
  half          ///< (i, i + h/2): Hugging Face's Llama
};

namespace ops {

/// angles[h]: cosines of position * theta^(-2i/h), i < h/2, then sines.
template <class T>
void rope_angles(index position, index h, double theta, T* angles) {
  for (index i = 0; i < h / 2; ++i) {
    const double angle = static_cast<double>(position) *
                         std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(h));
    angles[i] = static_cast<T>(std::cos(angle));
    angles[h / 2 + i] = static_cast<T>(std::sin(angle));
  }
}
/// table[positions, h]: the angles of positions 0, 1, ....
template <class T>
void rope_table(index positions, index h, double theta, T* table) {
  for (index t = 0; t < positions; ++t) rope_angles(t, h, theta, table + t * h);
}

/// Rotates one row of `heads` heads of width h in place, for the position whose table row is given.
/// The derivative is the rotation the other way (`inverse`).
template <class T>
void rope_row(rope_pairing pairing, index heads, index h, const T* table, T* x, bool inverse) {
  const index half = h / 2;
  const index stride = pairing == rope_pairing::half ? 1 : 2,
              partner = pairing == rope_pairing::half ? half : 1;
  for (index head = 0; head < heads; ++head, x += h)
    for (index i = 0; i < half; ++i) {
      const T c = table[i], s = inverse ? -table[half + i] : table[half + i];
      const T a = x[i * stride], b = x[i * stride + partner];
      x[i * stride] = a * c - b * s;
      x[i * stride + partner] = a * s + b * c;
    }
}

/// T5's bucket of a relative position key - query (zoo A3): exact up to a quarter (bidirectional)
/// or half (causal) of the buckets, then logarithmic up to `max_distance`.
constexpr index relative_bucket(index relative, bool bidirectional, index buckets,
                                index max_distance) {
  index base = 0, distance = relative > 0 ? 0 : -relative;
  if (bidirectional) {
    buckets /= 2;
    if (relative > 0) {
      base = buckets;
      distance = relative;
    }
  }
  const index exact = buckets / 2;
  if (distance < exact) return base + distance;
  // bucket = exact + trunc(log(distance/exact) / log(max/exact) * (buckets - exact)), found without
  // logarithms: the largest k with distance/exact >= (max/exact)^(k / (buckets - exact)), that is
  // (distance/exact)^(buckets - exact) >= (max/exact)^k.
  const index logarithmic = buckets - exact;
  double power = 1;
  for (index i = 0; i < logarithmic; ++i)
    power *= static_cast<double>(distance) / static_cast<double>(exact);
  const double step = static_cast<double>(max_distance) / static_cast<double>(exact);
  index k = 0;
  for (double threshold = step; k < logarithmic - 1 && power >= threshold * (1 - 1e-12);
       threshold *= step)
    ++k;
  return base + exact + k;
}

/// The value at column `i` of the sinusoidal embedding of position `t` (Vaswani et al. 2017):
/// sine in even columns, cosine in odd ones, wavelengths up to 10000 * 2 pi.
inline double sinusoid(index t, index i, index d) {
  const double angle = static_cast<double>(t) *
                       std::pow(10000.0, -static_cast<double>(i / 2 * 2) / static_cast<double>(d));
  return i % 2 == 0 ? std::sin(angle) : std::cos(angle);
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The numbers of one attention layer, filled in by the model.
struct attention_shape {
  index d_model = 0;
  index heads = 0;
  index kv_heads = 0;  ///< heads % kv_heads == 0
  index d_kv = 0;      ///< width of one head
  bool causal = false;
  bool cross = false;     ///< keys and values come from the encoder's output
  bool scaled = true;     ///< scores are divided by sqrt(d_kv); T5 does not
  bool bias = false;      ///< linear maps have biases
  bool relative = false;  ///< add the stack's relative-position bias
  bool first = false;     ///< the first layer of its stack, for policies that are `first_differs`
  rope_pairing rope = rope_pairing::none;
  kv_code cache = kv_code::exact;

  /// Width of all query heads.
  constexpr index n() const { return heads * d_kv; }
  /// Width of all key or value heads.
  constexpr index kv() const { return kv_heads * d_kv; }
};

/// Attention policies: `layer<shape>` is a layer (see nn/layer.hpp) from width d_model to d_model
/// that also has `state_values(tokens)`: the numbers that it keeps for each sequence of up to
/// `tokens` tokens while decoding.
namespace attention {

/// Base of every policy that mixes the tokens of a sequence; a kind overrides what differs. Models
/// refuse it where it cannot work.
struct policy {
  static constexpr bool causal = true;           ///< can be kept from seeing later tokens
  static constexpr bool bidirectional = true;    ///< can see later tokens
  static constexpr bool continues = true;        ///< can continue cached sequences
  static constexpr bool rewinds = false;         ///< cached tokens can be taken back again
  static constexpr bool forgets = false;         ///< a cache keeps only what later tokens will see
  static constexpr bool foresees = false;        ///< later tokens decide which earlier ones meet,
                                                 ///< but in sessions, where they are unknown
  static constexpr bool takes_prefix = false;    ///< sees a prefix of the sequence both ways
  static constexpr index slots = 0;              ///< positions that it needs whatever the length
  static constexpr index longest = 0;            ///< most tokens an encoder may read; 0 for any
  static constexpr bool first_differs = false;   ///< the first layer of a stack is of another type
  static constexpr bool embedding_norm = false;  ///< wants the embedding normalised first
  /// What files call it; a kind that changes what weights compute has a name of its own.
  static std::string name() { return "custom"; }
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// The linear map and its building blocks: y = x W^T + b.

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Square root for constant expressions (Newton), x >= 0.
constexpr double root(double x) {
  if (x <= 0) return 0;
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 64; ++i) r = 0.5 * (r + x / r);
  return r;
}
}  // namespace detail

/// y[rows, Out] = x[rows, In] W^T (+ b), W[Out, In]. Initial weights: normal with deviation
/// In^-1/2.
template <index In, index Out, bool Bias = false>
struct linear : without_cache {
  static_assert(In > 0 && Out > 0, "linnet::linear: both widths must be positive");
  static constexpr index in = In, out = Out;
  static constexpr bool adds_residual = true;

  template <class Form>
  struct params {
    typename Form::matrix weight{};
    [[no_unique_address]] std::conditional_t<Bias, typename Form::vector, std::nullptr_t> bias{};
  };

  static constexpr tensor_info weight_info{Out, In, role::matrix, 1 / detail::root(In)};

  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    f(at / "weight", weight_info, p.weight...);
    if constexpr (Bias) f(at / "bias", tensor_info{1, Out, role::bias, 0}, p.bias...);
  }

  template <class T>
  static constexpr without_cache::cache<T> plan(planner& m, const extents& e) {
    m.product(e.rows(), In, Out, e);
    return {};
  }
  /// The product into `y`, to be computed alone or together with others of the same inputs.
  template <class T, class S>
  static ops::product<T, S> product(const params<form::kernel<T, S>>& p, T* y) {
    if constexpr (Bias)
      return {p.weight, Out, y, p.bias};
    else
      return {p.weight, Out, y};
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      without_cache::cache<T>&, context<T>& ctx, const T* residual = nullptr) {
    auto one = product<T, S>(p, y.data());
    one.residual = residual;
    ops::products<T, S, 1>(ctx.on, x.rows(), In, x.data(), {one});
  }

  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    if constexpr (Bias) ops::bias_gradient(ctx.on, x.rows(), Out, dy.data(), dp.bias);
    ops::matmul_backward(ctx.on, x.rows(), Out, In, dy.data(), x.data(), p.weight, dp.weight,
                         dx.data());
  }

  static constexpr index flops(const extents& e) { return 2 * e.rows() * In * Out; }
};

LINNET_NAMESPACE_END
/// @file
/// Copies, sums and activations of whole arrays, split over the team.

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {
/// Calls f(first, count) for this thread's share of n values, in whole cache lines, then waits.
template <class T, class F>
void in_slices(const machine& on, index n, F&& f) {
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  const auto [first, last] = on.threads.share((n + line - 1) / line);
  const index begin = first * line, end = (std::min)(n, last * line);
  if (begin < end) f(begin, end - begin);
  on.threads.wait();
}
}  // namespace detail

/// x[n] = value
template <class T>
void fill(const machine& on, index n, T value, T* x) {
  detail::in_slices<T>(on, n, [&](index at, index count) { std::fill_n(x + at, count, value); });
}
/// y[n] = x[n]
template <class T>
void copy(const machine& on, index n, const T* x, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) { std::copy_n(x + at, count, y + at); });
}
/// y[n] = a[n] + b[n]; y may be a or b
template <class T>
void add(const machine& on, index n, const T* a, const T* b, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level,
                   [&](auto k) { decltype(k)::template add<T>(count, a + at, b + at, y + at); });
  });
}
/// y[n] = f(x[n])
template <activation_kind A, class T>
void activation(const machine& on, index n, const T* x, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level,
                   [&](auto k) { decltype(k)::template activation<A, T>(count, x + at, y + at); });
  });
}
/// dx[n] += dy[n] f'(x[n])
template <activation_kind A, class T>
void activation_backward(const machine& on, index n, const T* x, const T* dy, T* dx) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template activation_backward<A, T>(count, x + at, dy + at, dx + at);
    });
  });
}
/// x[n] = log(1 + e^x[n])
template <class T>
void softplus(const machine& on, index n, T* x) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) { decltype(k)::template softplus<T>(count, x + at); });
  });
}
/// dx[n] *= the derivative of softplus at x[n]
template <class T>
void softplus_backward(const machine& on, index n, const T* x, T* dx) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template softplus_backward<T>(count, x + at, dx + at);
    });
  });
}
/// y[n] = f(gate[n]) up[n] (zoo A4, C1)
template <activation_kind A, class T>
void gated(const machine& on, index n, const T* gate, const T* up, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template gated<A, T>(count, gate + at, up + at, y + at);
    });
  });
}
/// dgate[n], dup[n] = the derivatives of gated() (overwritten)
template <activation_kind A, class T>
void gated_backward(const machine& on, index n, const T* gate, const T* up, const T* dy, T* dgate,
                    T* dup) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template gated_backward<A, T>(count, gate + at, up + at, dy + at, dgate + at,
                                                 dup + at);
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The maps x -> q, k, v and mixed -> y, and what self-attention over whole sequences does around
/// its mixing. With `SharedKey` there are no keys here: the kind makes them from the queries.
template <attention_shape A, bool SharedKey = false>
struct attention_maps {
  static_assert(A.heads % A.kv_heads == 0,
                "linnet::attention: heads must be a multiple of kv_heads");
  static_assert(A.rope == rope_pairing::none || A.d_kv % 2 == 0,
                "linnet::attention: rotary positions need an even head width d_kv");
  static constexpr index in = A.d_model, out = A.d_model, n = A.n(), kv = A.kv(), h = A.d_kv;
  using to_query = linear<in, n, A.bias>;
  using to_key = linear<in, kv, A.bias>;
  using to_output = linear<n, out, A.bias>;

  /// The factor of the scores.
  template <class T>
  static constexpr T scale = T(A.scaled ? 1 / root(h) : 1);

  template <class Form>
  struct params {
    typename to_query::template params<Form> q{};
    [[no_unique_address]] std::conditional_t<SharedKey, std::nullptr_t,
                                             typename to_key::template params<Form>>
        k{};
    typename to_key::template params<Form> v{};
    typename to_output::template params<Form> o{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    visit_query(f, at / "q", p.q...);
    if constexpr (!SharedKey) to_key::visit(f, at / "k", p.k...);
    to_key::visit(f, at / "v", p.v...);
    to_output::visit(f, at / "o", p.o...);
  }
  /// A map of queries: T5's small initial values replace the missing 1/sqrt(d_kv) (zoo A6).
  template <class F, class... P>
  static constexpr void visit_query(F&& f, const path& at, P&... p) {
    const auto small = [&](const path& where, const tensor_info& info, auto&... leaf) {
      tensor_info changed = info;
      if (!A.scaled) changed.deviation /= root(h);
      f(where, changed, leaf...);
    };
    to_query::visit(small, at, p...);
  }

  /// Buffers around the mixing.
  template <class T>
  struct buffers {
    T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [rows, kv]
    T* mixed = nullptr;                          ///< [rows, n] before the output map
    T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
  };
  /// The gradients lie in scratch, which the caller releases.
  template <class T>
  static constexpr buffers<T> plan(planner& m, const extents& e) {
    buffers<T> b;
    m.product(e.rows(), in, n, e);
    m.product(e.rows(), in, kv, e);
    m.product(e.rows(), n, out, e);
    b.q = m.keep.take<T>(e.rows() * n);
    if (!SharedKey) b.k = m.keep.take<T>(e.rows() * kv);
    b.v = m.keep.take<T>(e.rows() * kv);
    b.mixed = m.keep.take<T>(e.rows() * n);
    if (e.training) {
      b.dq = m.scratch.take<T>(e.rows() * n);
      if (!SharedKey) b.dk = m.scratch.take<T>(e.rows() * kv);
      b.dv = m.scratch.take<T>(e.rows() * kv);
      b.d_mixed = m.scratch.take<T>(e.rows() * n);
    }
    return b;
  }

  /// x -> q, k (unless shared) and v; queries and keys rotated where the model has such positions.
  template <class T, class S, class P>
  static void project(const P& p, view<const T, in> x, const buffers<T>& b, const context<T>& ctx) {
    if constexpr (SharedKey)
      ops::products<T, S, 2>(
          ctx.on, x.rows(), in, x.data(),
          {to_query::template product<T, S>(p.q, b.q), to_key::template product<T, S>(p.v, b.v)});
    else
      ops::products<T, S, 3>(
          ctx.on, x.rows(), in, x.data(),
          {to_query::template product<T, S>(p.q, b.q), to_key::template product<T, S>(p.k, b.k),
           to_key::template product<T, S>(p.v, b.v)});
    rotate(b.q, b.k, ctx, false);
  }
  /// mixed -> y
  template <class T, class S, class P>
  static void finish(const P& p, view<T, out> y, const buffers<T>& b, context<T>& ctx) {
    without_cache::cache<T> none;
    to_output::template forward<T, S>(p.o, {b.mixed, y.rows()}, y, none, ctx);
  }
  /// dy -> d_mixed, and zeros in dq, dk (unless shared) and dv.
  template <class T, class S, class P, class D>
  static void finish_backward(const P& p, D& dp, view<const T, out> dy, const buffers<T>& b,
                              context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = dy.rows();
    ops::fill(ctx.on, rows * n, T(0), b.d_mixed);
    to_output::template backward<T, S>(p.o, dp.o, {b.mixed, rows}, dy, {b.d_mixed, rows}, none,
                                       ctx);
    ops::fill(ctx.on, rows * n, T(0), b.dq);
    if constexpr (!SharedKey) ops::fill(ctx.on, rows * kv, T(0), b.dk);
    ops::fill(ctx.on, rows * kv, T(0), b.dv);
  }
  /// dq, dk (unless shared) and dv -> dx
  template <class T, class S, class P, class D>
  static void project_backward(const P& p, D& dp, view<const T, in> x, view<T, in> dx,
                               const buffers<T>& b, context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    rotate(b.dq, b.dk, ctx, true);
    to_query::template backward<T, S>(p.q, dp.q, x, {b.dq, rows}, dx, none, ctx);
    if constexpr (!SharedKey)
      to_key::template backward<T, S>(p.k, dp.k, x, {b.dk, rows}, dx, none, ctx);
    to_key::template backward<T, S>(p.v, dp.v, x, {b.dv, rows}, dx, none, ctx);
  }

  /// Floating-point operations of the maps.
  static constexpr index flops(const extents& e) {
    return 2 * e.rows() * in * (2 * n + (SharedKey ? 1 : 2) * kv);
  }

  /// Softmax attention of these queries over some keys, [batch, keys], of the same heads.
  template <class T>
  static ops::attention_call<T> call(index batch, index queries, const T* q, index keys_,
                                     const T* k, const T* v, T* to) {
    ops::attention_call<T> a{};
    a.batch = batch;
    a.queries = queries;
    a.keys = keys_;
    a.heads = A.heads;
    a.kv_heads = A.kv_heads;
    a.h = h;
    a.scale = scale<T>;
    a.q = q;
    a.k = {k, keys_, kv, h};
    a.v = {v, keys_, kv, h};
    a.out = to;
    return a;
  }

  /// Rotary positions on queries and on keys that have a map of their own, or their derivative.
  template <class T>
  static void rotate(T* q, T* k, const context<T>& ctx, bool inverse) {
    if constexpr (A.rope != rope_pairing::none)
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        const T* const table = ctx.rope_of(row, h);
        ops::rope_row(A.rope, A.heads, h, table, q + row * n, inverse);
        if constexpr (!SharedKey)
          ops::rope_row(A.rope, A.kv_heads, h, table, k + row * kv, inverse);
      });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The layer of softmax attention in which a query sees the keys of its window. With `Slots`, a
/// query's distance to the window's `first` keys is counted in kept tokens (zoo D4).
template <attention_shape A, ops::attention_window Window, bool Slots = false>
struct softmax_attention {
  using maps = attention_maps<A>;
  static constexpr index in = maps::in, out = maps::out, n = maps::n, kv = maps::kv;
  static constexpr bool adds_residual = true;
  static constexpr ops::attention_window window = Window;
  /// Tokens that are kept at most, and so the largest distance to the first ones.
  static constexpr index slots = Slots ? Window.first + Window.before + 1 : ops::any_distance;
  static constexpr bool two_queries = Slots && A.rope != rope_pairing::none;
  template <class T, bool Keys>
  using buffer =
      typename linnet::detail::pick_kv_buffer<T, A.cache, A.kv_heads, A.d_kv, Keys>::type;
  using to_query = typename maps::to_query;
  using to_key = typename maps::to_key;
  using to_output = typename maps::to_output;

  template <class Form>
  using params = typename maps::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    maps::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [key rows, kv]
    T *q_first = nullptr, *dq_first = nullptr;   ///< [rows, n], rotated to their slots
    buffer<T, false> values{};
    buffer<T, true> keys{};  ///< what decoding keeps
    T* mixed = nullptr;      ///< [rows, n] before the output map
    T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
    T* scratch = nullptr;  ///< per thread
    index scratch_size = 0;
    index capacity = 0;  ///< tokens that a sequence may have in decoding
    int site = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const bool cached = e.capacity > 0;
    const index keys = A.cross ? e.memory : e.length;
    m.product(e.rows(), in, n, e);
    m.product(e.batch * keys, in, kv, e);
    m.product(e.rows(), n, out, e);
    c.site = m.sites++;
    const index stored = A.cross ? e.memory : e.capacity;
    c.capacity = stored;
    if (cached) {
      const index blocks = A.cross ? 0 : e.blocks;
      const index near = window.before + e.length;  // that a call may look at
      c.keys.plan(m.state, e.batch, stored, window.first, near, blocks);
      c.values.plan(m.state, e.batch, stored, window.first, near, blocks);
    }
    c.q = m.keep.take<T>(e.rows() * n);
    if (two_queries) c.q_first = m.keep.take<T>(e.rows() * n);
    c.mixed = m.keep.take<T>(e.rows() * n);
    const index key_values = e.batch * keys * kv;
    arena& passing = cached ? m.scratch : m.keep;
    const index mark = m.scratch.mark();
    c.k = passing.take<T>(key_values);
    c.v = passing.take<T>(key_values);
    if (e.training) {
      c.dq = m.scratch.take<T>(e.rows() * n);
      if (two_queries) c.dq_first = m.scratch.take<T>(e.rows() * n);
      c.dk = m.scratch.take<T>(key_values);
      c.dv = m.scratch.take<T>(key_values);
      c.d_mixed = m.scratch.take<T>(e.rows() * n);
    }
    c.scratch_size = ops::attention_scratch(e.length, cached ? stored : keys, A.d_kv, window,
                                            e.training, cached && c.keys.gathered());
    c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    const bool cached = ctx.past != nullptr;
    if constexpr (A.cross) {
      to_query::template forward<T, S>(p.q, x, {c.q, rows}, none, ctx);
      if (!ctx.memory_cached) {
        ops::products<T, S, 2>(
            ctx.on, ctx.batch * ctx.memory_length, in, ctx.memory,
            {to_key::template product<T, S>(p.k, c.k), to_key::template product<T, S>(p.v, c.v)});
        if (cached)
          linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.memory_length, true, c.k, c.v);
      }
    } else {
      ops::products<T, S, 3>(
          ctx.on, rows, in, x.data(),
          {to_query::template product<T, S>(p.q, c.q), to_key::template product<T, S>(p.k, c.k),
           to_key::template product<T, S>(p.v, c.v)});
      if constexpr (A.rope != rope_pairing::none)
        ctx.on.threads.each(rows, [&](index row) {
          if (two_queries) {
            std::copy_n(c.q + row * n, n, c.q_first + row * n);
            rotate_row(c.q_first, A.heads, row, ctx, false, slots);
          }
          rotate_row(c.q, A.heads, row, ctx, false);
          rotate_row(c.k, A.kv_heads, row, ctx, false);
        });
      if (cached) linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.length, false, c.k, c.v);
    }
    if (cached) {
      ops::attention(ctx.on, call(c, ctx, c.keys.rows(ctx.tables, ctx.table_size),
                                  c.values.rows(ctx.tables, ctx.table_size)));
    } else {
      ops::attention(ctx.on, call(c, ctx, plain(c.k, ctx), plain(c.v, ctx)));
    }
    to_output::template forward<T, S>(p.o, {c.mixed, rows}, y, none, ctx, residual);
  }

  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows(), key_rows = ctx.batch * (A.cross ? ctx.memory_length : ctx.length);
    const view<T, n> dq(c.dq, rows), d_mixed(c.d_mixed, rows);
    const view<T, kv> dk(c.dk, key_rows), dv(c.dv, key_rows);
    ops::fill(ctx.on, d_mixed.size(), T(0), d_mixed.data());
    to_output::template backward<T, S>(p.o, dp.o, {c.mixed, rows}, dy, d_mixed, none, ctx);
    ops::fill(ctx.on, dq.size(), T(0), dq.data());
    if (two_queries) ops::fill(ctx.on, dq.size(), T(0), c.dq_first);
    ops::fill(ctx.on, dk.size(), T(0), dk.data());
    ops::fill(ctx.on, dv.size(), T(0), dv.data());
    ops::attention_backward(ctx.on, call(c, ctx, plain(c.k, ctx), plain(c.v, ctx)),
                            {d_mixed.data(), dq.data(), dk.data(), dv.data(), c.dq_first,
                             A.relative ? ctx.d_bias : nullptr});
    if constexpr (!A.cross && A.rope != rope_pairing::none)
      ctx.on.threads.each(rows, [&](index row) {
        rotate_row(c.dq, A.heads, row, ctx, true);
        rotate_row(c.dk, A.kv_heads, row, ctx, true);
        if (two_queries) {
          rotate_row(c.dq_first, A.heads, row, ctx, true, slots);
          for (index j = row * n; j < (row + 1) * n; ++j) c.dq[j] += c.dq_first[j];
        }
      });
    to_query::template backward<T, S>(p.q, dp.q, x, dq, dx, none, ctx);
    const view<const T, in> source(A.cross ? ctx.memory : x.data(), key_rows);
    const view<T, in> d_source(A.cross ? ctx.d_memory : dx.data(), key_rows);
    to_key::template backward<T, S>(p.k, dp.k, source, dk, d_source, none, ctx);
    to_key::template backward<T, S>(p.v, dp.v, source, dv, d_source, none, ctx);
  }

  /// Keys and values of one sequence become another's.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    if (part.block) {
      c.keys.copy_block(from, to);
      c.values.copy_block(from, to);
      return;
    }
    const index first = A.cross ? 0 : part.first, last = A.cross ? part.memory : part.tokens;
    c.keys.copy(from, to, first, last);
    c.values.copy(from, to, first, last);
  }

  /// Numbers that the key-value cache holds for each sequence of up to `tokens` tokens.
  static constexpr index state_values(index tokens) {
    return 2 * kv * (std::min)(tokens, window.first + (std::min)(window.before, tokens) + 1);
  }

  static constexpr index flops(const extents& e) {
    const index queries = e.length, keys = A.cross ? e.memory : e.length;
    const index near = (std::min)(window.before, keys) + (std::min)(window.after, keys) + 1;
    const index seen = window.bounded() ? (std::min)(keys, window.first + near) : keys;
    return e.batch * (2 * queries * 2 * in * n + 2 * keys * 2 * in * kv + 4 * queries * seen * n);
  }

 private:
  /// Keys or values of this call alone.
  template <class T>
  static ops::kv_rows<T> plain(const T* x, const context<T>& ctx) {
    return {x, A.cross ? ctx.memory_length : ctx.length, kv, A.d_kv};
  }
  /// The call that both directions describe.
  template <class T, class Code>
  static ops::attention_call<T, Code> call(const cache<T>& c, const context<T>& ctx,
                                           const ops::kv_rows<Code>& keys,
                                           const ops::kv_rows<Code>& values) {
    ops::attention_call<T, Code> a{};
    a.batch = ctx.batch;
    a.queries = ctx.length;
    a.keys = A.cross ? ctx.memory_length : ctx.past ? c.capacity : ctx.length;
    a.heads = A.heads;
    a.kv_heads = A.kv_heads;
    a.h = A.d_kv;
    a.window = window;
    a.scale = maps::template scale<T>;
    a.q = c.q;
    a.q_first = c.q_first;
    a.slots = slots;
    a.k = keys;
    a.v = values;
    a.out = c.mixed;
    a.past = A.cross ? nullptr : ctx.past;
    if (A.causal) a.prefix = ctx.prefix, a.query_lengths = ctx.lengths;
    // A causal query sees only earlier keys, which are valid as long as the query is.
    a.key_lengths = A.cross ? ctx.memory_lengths : A.causal ? nullptr : ctx.lengths;
    if constexpr (A.relative) {
      a.bias = ctx.bias;
      a.bias_origin = ctx.bias_origin;
    }
    a.scratch = c.scratch;
    a.scratch_size = c.scratch_size;
    a.dropout = ctx.dropout;
    a.site = c.site;
    return a;
  }
  /// Rotary positions on one row of x[rows, heads * d_kv], in place; `limit` keeps them below it.
  template <class T>
  static void rotate_row(T* x, index heads, index row, const context<T>& ctx, bool inverse,
                         index limit = ops::any_distance) {
    if constexpr (A.rope != rope_pairing::none) {
      const index position = ctx.past_of(row / ctx.length) + row % ctx.length;
      const T* const angles =
          position < limit ? ctx.rope_of(row, A.d_kv) : ctx.rope + (limit - 1) * A.d_kv;
      ops::rope_row(A.rope, heads, A.d_kv, angles, x + row * heads * A.d_kv, inverse);
    }
  }
};

}  // namespace detail

namespace attention {

/// Full softmax attention (Vaswani et al. 2017; grouped-query: Ainslie et al. 2023).
struct full : policy {
  static constexpr bool rewinds = true;
  static std::string name() { return "full"; }
  template <attention_shape A>
  using layer =
      linnet::detail::softmax_attention<A, ops::attention_window{
                                               .after = A.causal ? 0 : ops::any_distance}>;
};

/// Full attention in which a prefix, such as a question, is seen by all tokens and so by its own
/// earlier ones too; behind it tokens see what came before (Raffel et al. 2020, "prefix LM").
/// decoder_batch::prefixes tells its length; a session takes the tokens of the first feed() for it.
struct prefix : full {
  static constexpr bool takes_prefix = true;
  static std::string name() { return "prefix"; }
};

}  // namespace attention

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Each token sees the last `Width` tokens, itself included; in an encoder `Width` to either side
/// (zoo D3). Time and cache grow with Width instead of the length: the cache is a ring.
template <index Width>
struct sliding_window : policy {
  static_assert(Width > 0, "linnet::attention::sliding_window: the width must be positive");
  static constexpr bool rewinds = true, forgets = true;
  static std::string name() { return "sliding_window<" + std::to_string(Width) + ">"; }
  template <attention_shape A>
  struct layer : linnet::detail::softmax_attention<
                     A, A.causal ? ops::attention_window{.before = Width - 1, .after = 0}
                                 : ops::attention_window{.before = Width, .after = Width}> {
    static_assert(!A.cross,
                  "linnet::attention::sliding_window: cross-attention has no near tokens");
  };
};

/// Each token sees the first `First` tokens, the sinks, and the last `Recent` ones, itself included
/// (Xiao et al. 2023, zoo D4). Positions count kept tokens: however long the text, a sink is no
/// further away than First + Recent - 1. Time and memory per token stay constant.
///
/// Keys are cached rotated to their places in the text. Rotary scores depend on distances alone, so
/// comparing them with a query at its place, and the sinks with one at its slot, gives what the
/// paper gets by rotating all cached keys to their slots in each step.
template <index First, index Recent>
struct sinks : policy {
  static_assert(First > 0 && Recent > 0, "linnet::attention::sinks: both counts must be positive");
  static constexpr bool bidirectional = false;
  static constexpr bool rewinds = true, forgets = true;
  static constexpr index slots = First + Recent;
  static std::string name() {
    return "sinks<" + std::to_string(First) + ", " + std::to_string(Recent) + ">";
  }
  template <attention_shape A>
  struct layer
      : linnet::detail::softmax_attention<
            A, ops::attention_window{.before = Recent - 1, .after = 0, .first = First}, true> {
    static_assert(A.causal && !A.cross,
                  "linnet::attention::sinks: for causal self-attention: decoders");
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Layers made of layers: a named chain, and the pre-norm residual branch.

#include <tuple>

LINNET_NAMESPACE_BEGIN

/// A string usable as a template value: the name of a member of a chain.
template <std::size_t N>
struct fixed_string {
  char text[N]{};
  /// From a literal.
  constexpr fixed_string(const char (&literal)[N]) {
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
  /// As text, without the final zero.
  constexpr operator std::string_view() const { return {text, N - 1}; }
};

/// A layer with the name that its parameters carry inside a chain.
template <fixed_string Name, class Layer>
struct named {
  using layer = Layer;
  static constexpr std::string_view name = Name;
};

/// Layers applied one after the other: chain<named<"wi", linear<D, F>>, named<"act", relu<F>>,
/// ...>. Every intermediate result has a buffer of its own while training. An empty name adds
/// nothing to the path.
template <class First, class... Rest>
struct chain {
 private:
  static constexpr std::size_t count = 1 + sizeof...(Rest);
  template <std::size_t K>
  using item = std::tuple_element_t<K, std::tuple<First, Rest...>>;
  template <std::size_t K>
  using at_layer = typename item<K>::layer;

 public:
  static constexpr index in = First::layer::in, out = at_layer<count - 1>::out;
  static constexpr bool adds_residual = linnet::detail::adds_residual<at_layer<count - 1>>();

  template <class Form>
  struct params {
    std::tuple<typename First::layer::template params<Form>,
               typename Rest::layer::template params<Form>...>
        items{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    visit_from<0>(f, at, p...);
  }

  template <class T>
  struct cache {
    std::tuple<typename First::layer::template cache<T>, typename Rest::layer::template cache<T>...>
        items{};
    std::array<T*, count> between{};   ///< output of each member but the last
    std::array<T*, count> gradient{};  ///< its gradient, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    if (e.training) gradients_from<0>(m, e, c);
    plan_from<0>(m, e, c);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    forward_from<0, S>(p, x, y, c, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    backward_from<0, S>(p, dp, x, dy, dx, c, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_from<0>(c, from, to, part);
  }

  static constexpr index flops(const extents& e) {
    return First::layer::flops(e) + (index{0} + ... + Rest::layer::flops(e));
  }

 private:
  template <std::size_t K, class F, class... P>
  static constexpr void visit_from(F&& f, const path& at, P&... p) {
    if constexpr (item<K>::name.empty())
      at_layer<K>::visit(f, at, std::get<K>(p.items)...);
    else
      at_layer<K>::visit(f, at / item<K>::name, std::get<K>(p.items)...);
    if constexpr (K + 1 < count) visit_from<K + 1>(f, at, p...);
  }
  template <std::size_t K, class T>
  static constexpr void plan_from(planner& m, const extents& e, cache<T>& c) {
    std::get<K>(c.items) = at_layer<K>::template plan<T>(m, e);
    if constexpr (K + 1 < count) {
      c.between[K] = m.keep.take<T>(e.rows() * at_layer<K>::out);
      plan_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  static constexpr void gradients_from(planner& m, const extents& e, cache<T>& c) {
    if constexpr (K + 1 < count) {
      c.gradient[K] = m.scratch.take<T>(e.rows() * at_layer<K>::out);
      gradients_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  static void copy_from(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<at_layer<K>, T>(std::get<K>(c.items), from, to, part);
    if constexpr (K + 1 < count) copy_from<K + 1>(c, from, to, part);
  }
  template <std::size_t K, class S, class T, class P>
  static void forward_from(const P& p, view<const T, at_layer<K>::in> x, view<T, out> y,
                           cache<T>& c, context<T>& ctx, [[maybe_unused]] const T* residual) {
    if constexpr (K + 1 == count && adds_residual) {
      at_layer<K>::template forward<T, S>(std::get<K>(p.items), x, y, std::get<K>(c.items), ctx,
                                          residual);
    } else if constexpr (K + 1 == count) {
      at_layer<K>::template forward<T, S>(std::get<K>(p.items), x, y, std::get<K>(c.items), ctx);
    } else {
      static_assert(at_layer<K>::out == at_layer<K + 1>::in,
                    "linnet::chain: neighbouring members differ in width");
      const view<T, at_layer<K>::out> z(c.between[K], x.rows());
      at_layer<K>::template forward<T, S>(std::get<K>(p.items), x, z, std::get<K>(c.items), ctx);
      forward_from<K + 1, S, T>(p, z, y, c, ctx, residual);
    }
  }
  template <std::size_t K, class S, class T, class P, class G>
  static void backward_from(const P& p, G& dp, view<const T, at_layer<K>::in> x,
                            view<const T, out> dy, view<T, at_layer<K>::in> dx, cache<T>& c,
                            context<T>& ctx) {
    if constexpr (K + 1 == count) {
      at_layer<K>::template backward<T, S>(std::get<K>(p.items), std::get<K>(dp.items), x, dy, dx,
                                           std::get<K>(c.items), ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows()), dz(c.gradient[K], x.rows());
      ops::fill(ctx.on, dz.size(), T(0), dz.data());
      backward_from<K + 1, S, T>(p, dp, z, dy, dz, c, ctx);
      at_layer<K>::template backward<T, S>(std::get<K>(p.items), std::get<K>(dp.items), x, dz, dx,
                                           std::get<K>(c.items), ctx);
    }
  }
};

/// The pre-norm residual branch: y = x + Drop(Sub(Norm(x))). y is not x. Outside training, a
/// branch that `adds_residual` does so itself.
template <class Norm, class Sub>
struct residual {
  static constexpr index in = Norm::in, out = Norm::in;
  static_assert(Sub::in == in && Sub::out == in,
                "linnet::residual: the branch must keep the width of the stream");
  static constexpr bool fused = linnet::detail::adds_residual<Sub>();

  template <class Form>
  struct params {
    typename Norm::template params<Form> norm{};
    typename Sub::template params<Form> sub{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    Norm::visit(f, at / "norm", p.norm...);
    Sub::visit(f, at, p.sub...);
  }

  template <class T>
  struct cache {
    typename Norm::template cache<T> norm{};
    typename Sub::template cache<T> sub{};
    T* normed = nullptr;    ///< [rows, D] input of the branch
    T* branch = nullptr;    ///< [rows, D] output of the branch, then its gradient; null where the
                            ///< branch adds x itself
    T* d_normed = nullptr;  ///< [rows, D] while training
    int site = 0;           ///< of its dropout
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    c.site = m.sites++;
    c.norm = Norm::template plan<T>(m, e);
    c.normed = m.keep.take<T>(e.rows() * in);
    const index mark = m.scratch.mark();
    if (e.training || !fused) c.branch = m.scratch.take<T>(e.rows() * in);
    if (e.training) c.d_normed = m.scratch.take<T>(e.rows() * in);
    c.sub = Sub::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, in> y,
                      cache<T>& c, context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), branch(c.branch, x.rows());
    Norm::template forward<T, S>(p.norm, x, normed, c.norm, ctx);
    if constexpr (fused)
      if (c.branch == nullptr) {
        Sub::template forward<T, S>(p.sub, normed, y, c.sub, ctx, x.data());
        return;
      }
    Sub::template forward<T, S>(p.sub, normed, branch, c.sub, ctx);
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, in, branch.data());
    ops::add(ctx.on, x.size(), x.data(), branch.data(), y.data());
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), d_branch(c.branch, x.rows()),
        d_normed(c.d_normed, x.rows());
    ops::copy(ctx.on, dy.size(), dy.data(), d_branch.data());
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, in, d_branch.data());
    ops::fill(ctx.on, d_normed.size(), T(0), d_normed.data());
    Sub::template backward<T, S>(p.sub, dp.sub, normed, d_branch, d_normed, c.sub, ctx);
    ops::add(ctx.on, dx.size(), dx.data(), dy.data(), dx.data());
    Norm::template backward<T, S>(p.norm, dp.norm, x, d_normed, dx, c.norm, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<Sub, T>(c.sub, from, to, part);
  }

  static constexpr index flops(const extents& e) { return Norm::flops(e) + Sub::flops(e); }
};

/// `N` layers of one type after each other, each with its own parameters: one instantiation, one
/// loop. They are numbered from `First`, as part of a stack of `All`.
template <class Layer, index N, index First = 0, index All = First + N>
struct repeat {
  static_assert(Layer::in == Layer::out,
                "linnet::repeat: the layer must keep the width of the stream");
  static constexpr index in = Layer::in, out = Layer::out;
  static constexpr auto count = static_cast<std::size_t>(N);

  template <class Form>
  struct params {
    std::array<typename Layer::template params<Form>, count> items{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    for (std::size_t l = 0; l < count; ++l)
      Layer::visit(f, at.element(First + static_cast<index>(l), All), p.items[l]...);
  }

  template <class T>
  struct cache {
    std::array<typename Layer::template cache<T>, count> items{};
    std::array<T*, count> stream{};  ///< output of each layer but the last
    std::array<T*, 2> gradient{};    ///< of two neighbouring layers
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index size = e.rows() * in, mark = m.scratch.mark();
    if (e.training) c.gradient = {m.scratch.take<T>(size), m.scratch.take<T>(size)};
    for (std::size_t l = 0; l + 1 < count; ++l)
      c.stream[l] = e.training || l < 2 ? m.keep.take<T>(size) : c.stream[l - 2];
    for (auto& item : c.items) {
      const index kept = m.keep.mark();
      item = Layer::template plan<T>(m, e);
      // A layer alone shares with nobody: what it leaves in ctx outlasts it.
      if (!e.training && count > 1) m.keep.release(kept);
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    for (std::size_t l = 0; l < count; ++l) {
      const view<T, in> next = l + 1 < count ? view<T, in>(c.stream[l], x.rows()) : y;
      ctx.layer = First + static_cast<index>(l);
      Layer::template forward<T, S>(p.items[l], x, next, c.items[l], ctx);
      x = next;
    }
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    for (std::size_t l = count; l-- > 0;) {
      const view<const T, in> input = l > 0 ? view<const T, in>(c.stream[l - 1], x.rows()) : x;
      const view<T, in> d_input = l > 0 ? view<T, in>(c.gradient[l % 2], x.rows()) : dx;
      if (l > 0) ops::fill(ctx.on, d_input.size(), T(0), d_input.data());
      ctx.layer = First + static_cast<index>(l);
      Layer::template backward<T, S>(p.items[l], dp.items[l], input, dy, d_input, c.items[l], ctx);
      dy = d_input;
    }
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    for (auto& item : c.items) linnet::copy_state<Layer, T>(item, from, to, part);
  }

  static constexpr index flops(const extents& e) { return N * Layer::flops(e); }
};

LINNET_NAMESPACE_END
/// @file
/// Feed-forward policies: the usual ones, and the re-parameterised variants of the report
/// "Exploring the Limits of Small Language Models" (zoo B1). A policy has a template `layer<D, F,
/// Bias>`: a layer from width D to D, F the shape's d_ff, Bias whether linear maps have biases. A
/// policy of your own derives from ffn::policy; nothing in the library needs editing.

/// @file
/// Shapes: the numbers of a model, as aggregates that serve as template values.

LINNET_NAMESPACE_BEGIN

/// Numbers of a T5 encoder-decoder (Raffel et al. 2020). `heads * d_kv` need not equal `d_model`.
struct t5_shape {
  index d_model = 0;         ///< width of the residual stream
  index d_ff = 0;            ///< hidden width of the feed-forward
  index d_kv = 0;            ///< width of one attention head
  index heads = 0;           ///< attention heads
  index encoder_layers = 0;  ///< encoder blocks
  index decoder_layers = 0;  ///< decoder blocks
  index vocabulary = 0;      ///< rows of the embedding
  index buckets = 32;        ///< relative position buckets
  index max_distance = 128;  ///< distance from which all positions share the last bucket
  double eps = 1e-6;         ///< added under the root of the norm

  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && d_kv > 0 && heads > 0 && encoder_layers > 0 &&
           decoder_layers > 0 && vocabulary > 0 && buckets >= 4 && buckets % 4 == 0 &&
           max_distance > buckets / 2 && eps > 0;
  }
};

/// Numbers of a decoder-only model: Llama, GPT-2, STLM.
struct decoder_shape {
  index d_model = 0;          ///< width of the residual stream
  index d_ff = 0;             ///< hidden width of the feed-forward
  index heads = 0;            ///< query heads
  index kv_heads = 0;         ///< key and value heads; heads % kv_heads == 0; 1 is multi-query
  index layers = 0;           ///< blocks
  index vocabulary = 0;       ///< rows of the embedding
  index context = 0;          ///< longest sequence in tokens (the size of a learned position table)
  index d_kv = 0;             ///< width of one head; 0 means d_model / heads
  double eps = 1e-5;          ///< added under the root of the norm
  double rope_theta = 10000;  ///< base of the rotary frequencies

  /// Width of one head.
  constexpr index head_width() const { return d_kv > 0 ? d_kv : heads > 0 ? d_model / heads : 0; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 &&
           layers > 0 && vocabulary > 0 && context > 0 && head_width() > 0 &&
           (d_kv > 0 || d_model % heads == 0) && eps > 0 && rope_theta > 0;
  }
};

/// A real number usable as a template value (clang 14 does not take a plain double).
struct real {
  double value;
  /// From a plain number.
  constexpr real(double x) : value(x) {}
};

/// A positive factor usable as a template value, such as `expansion{1.5}`; kept to 1/1000.
struct expansion {
  index thousandths;
  /// From a plain number.
  constexpr expansion(double factor) : thousandths(static_cast<index>(factor * 1000 + 0.5)) {}
  /// `width` times the factor, rounded to the nearest whole number.
  constexpr index of(index width) const { return (width * thousandths + 500) / 1000; }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// y = f(x), elementwise, on rows of width D.
template <index D, activation_kind A>
struct activation_layer : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, without_cache::cache<T>&,
                      context<T>& ctx) {
    ops::activation<A>(ctx.on, x.size(), x.data(), y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    ops::activation_backward<A>(ctx.on, x.size(), x.data(), dy.data(), dx.data());
  }
  static constexpr index flops(const extents&) { return 0; }
};

/// y = x with dropped values, on rows of width D; the identity outside training.
template <index D>
struct dropout_layer : without_parameters {
  static constexpr index in = D, out = D;
  template <class T>
  struct cache {
    int site = 0;
    T* scratch = nullptr;  ///< [rows, D] gradient on its way back
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    const index mark = m.scratch.mark();
    const cache<T> c{m.sites++, e.training ? m.scratch.take<T>(e.rows() * D) : nullptr};
    m.scratch.release(mark);
    return c;
  }
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, cache<T>& c, context<T>& ctx) {
    ops::copy(ctx.on, x.size(), x.data(), y.data());
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, D, y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D>, view<const T, D> dy, view<T, D> dx,
                       cache<T>& c, context<T>& ctx) {
    ops::copy(ctx.on, dy.size(), dy.data(), c.scratch);
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, D, c.scratch);
    ops::add(ctx.on, dx.size(), dx.data(), c.scratch, dx.data());
  }
  static constexpr index flops(const extents&) { return 0; }
};

/// y = Drop(f(W x (+ b))), without dropout unless `Drops`: a linear map and what follows it, which
/// outside training is part of the product.
template <index In, index Out, activation_kind A, bool Bias, bool Drops>
struct activated_linear {
  static constexpr index in = In, out = Out;
  using map = linear<In, Out, Bias>;

  template <class Form>
  using params = typename map::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    map::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    T* inner = nullptr;  ///< [rows, Out] W x + b, kept while training
    T *d_inner = nullptr, *d_active = nullptr;
    int site = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index n = e.rows() * Out;
    m.product(e.rows(), In, Out, e);
    if (Drops) c.site = m.sites++;
    const index mark = m.scratch.mark();
    if (e.training) {
      c.inner = m.keep.take<T>(n);
      c.d_inner = m.scratch.take<T>(n);
      if (Drops) c.d_active = m.scratch.take<T>(n);
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      cache<T>& c, context<T>& ctx) {
    auto one = map::template product<T, S>(p, c.inner ? c.inner : y.data());
    if (c.inner == nullptr) one.finish = ops::activates<A, T>;
    ops::products<T, S, 1>(ctx.on, x.rows(), In, x.data(), {one});
    if (c.inner) ops::activation<A>(ctx.on, y.size(), c.inner, y.data());
    if constexpr (Drops)
      ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, Out, y.data());
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const view<T, Out> d_inner(c.d_inner, x.rows());
    const T* d_active = dy.data();
    if constexpr (Drops) {
      ops::copy(ctx.on, dy.size(), dy.data(), c.d_active);
      ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, Out, c.d_active);
      d_active = c.d_active;
    }
    ops::fill(ctx.on, d_inner.size(), T(0), c.d_inner);
    ops::activation_backward<A>(ctx.on, d_inner.size(), c.inner, d_active, c.d_inner);
    map::template backward<T, S>(p, dp, x, d_inner, dx, none, ctx);
  }
  static constexpr index flops(const extents& e) { return map::flops(e); }
};

/// y = down(f(gate(x)) * up(x)): the gated feed-forward, with hidden width F.
template <index D, index F, activation_kind A, bool Bias>
struct gated_layer {
  static constexpr index in = D, out = D;
  static constexpr bool adds_residual = true;
  using wide = linear<D, F, Bias>;
  using narrow = linear<F, D, Bias>;

  template <class Form>
  struct params {
    typename wide::template params<Form> gate{}, up{};
    typename narrow::template params<Form> down{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const path& at, P&... p) {
    wide::visit(f, at / "gate", p.gate...);
    wide::visit(f, at / "up", p.up...);
    narrow::visit(f, at / "down", p.down...);
  }

  template <class T>
  struct cache {
    T *gate = nullptr, *hidden = nullptr;  ///< [rows, F]
    T* up = nullptr;                       ///< [rows, F] kept while training
    T *d_gate = nullptr, *d_up = nullptr, *d_hidden = nullptr;
    int site = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index n = e.rows() * F;
    c.site = m.sites++;
    m.product(e.rows(), D, F, e);
    m.product(e.rows(), F, D, e);
    c.gate = m.keep.take<T>(n);
    if (e.training) c.up = m.keep.take<T>(n);
    c.hidden = m.keep.take<T>(n);
    const index mark = m.scratch.mark();
    if (e.training) {
      c.d_gate = m.scratch.take<T>(n);
      c.d_up = m.scratch.take<T>(n);
      c.d_hidden = m.scratch.take<T>(n);
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    const index rows = x.rows();
    without_cache::cache<T> none;
    const view<T, F> hidden(c.hidden, rows);
    auto up = wide::template product<T, S>(p.up, c.up ? c.up : c.hidden);
    if (c.up == nullptr) {
      up.finish = ops::gates<A, T>;
      up.gate = c.gate;
    }
    ops::products<T, S, 2>(ctx.on, rows, D, x.data(),
                           {wide::template product<T, S>(p.gate, c.gate), up});
    if (c.up) ops::gated<A>(ctx.on, hidden.size(), c.gate, c.up, c.hidden);
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, F, c.hidden);
    narrow::template forward<T, S>(p.down, hidden, y, none, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = x.rows();
    without_cache::cache<T> none;
    const view<T, F> hidden(c.hidden, rows), d_hidden(c.d_hidden, rows), d_gate(c.d_gate, rows),
        d_up(c.d_up, rows);
    ops::fill(ctx.on, d_hidden.size(), T(0), c.d_hidden);
    narrow::template backward<T, S>(p.down, dp.down, hidden, dy, d_hidden, none, ctx);
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, F, c.d_hidden);
    ops::gated_backward<A>(ctx.on, d_hidden.size(), c.gate, c.up, c.d_hidden, c.d_gate, c.d_up);
    wide::template backward<T, S>(p.gate, dp.gate, x, d_gate, dx, none, ctx);
    wide::template backward<T, S>(p.up, dp.up, x, d_up, dx, none, ctx);
  }
  static constexpr index flops(const extents& e) { return 3 * 2 * e.rows() * D * F; }
};

/// Feed-forward policies.
namespace ffn {

/// Base of every feed-forward policy.
struct policy {
  static constexpr bool skipped = false;
  static constexpr bool rewinds = true;  ///< keeps no summary of past tokens while decoding
};

/// wo(Drop(f(wi x))): the usual feed-forward of T5 v1.0 (ReLU) and GPT-2 (GELU).
template <activation_kind A>
struct standard : policy {
  template <index D, index F, bool Bias>
  using layer =
      chain<named<"wi", activated_linear<D, F, A, Bias, true>>, named<"wo", linear<F, D, Bias>>>;
};
using relu = standard<activation_kind::relu>;            ///< T5 v1.0
using gelu = standard<activation_kind::gelu>;            ///< exact GELU
using gelu_tanh = standard<activation_kind::gelu_tanh>;  ///< GPT-2

/// down(Drop(f(gate x) * up x)).
template <activation_kind A>
struct gated : policy {
  template <index D, index F, bool Bias>
  using layer = gated_layer<D, F, A, Bias>;
};
using gated_gelu = gated<activation_kind::gelu_tanh>;  ///< T5 v1.1
using swiglu = gated<activation_kind::silu>;           ///< Llama, STLM

/// No feed-forward at all: the sub-layer, its norm and its residual are absent.
struct skip : policy {
  static constexpr bool skipped = true;
};

/// 1W: one linear map W[D, D], no nonlinearity.
struct linear : policy {
  template <index D, index, bool Bias>
  using layer = chain<named<"w", linnet::linear<D, D, Bias>>>;
};

/// 1W + ReLU: ReLU(W x), W[D, D].
struct linear_relu : policy {
  template <index D, index, bool Bias>
  using layer = chain<named<"w", activated_linear<D, D, activation_kind::relu, Bias, false>>>;
};

/// 2W and 3W: a product of `N` matrices without a nonlinearity, of inner width e D, which
/// collapse() multiplies into one [D, D] matrix after training (zoo B1). No biases.
template <int N, expansion E = expansion{4}>
struct reparam : policy {
  static_assert(N == 2 || N == 3, "linnet::ffn::reparam<N, e>: N is 2 or 3 matrices");
  static_assert(E.thousandths > 0, "linnet::ffn::reparam<N, e>: the expansion e must be positive");

  template <index D>
  static constexpr index inner = E.of(D);
  template <index D, bool Three>
  struct make {
    using type =
        chain<named<"w1", linnet::linear<D, inner<D>>>, named<"w2", linnet::linear<inner<D>, D>>>;
  };
  template <index D>
  struct make<D, true> {
    using type = chain<named<"w1", linnet::linear<D, inner<D>>>,
                       named<"w2", linnet::linear<inner<D>, inner<D>>>,
                       named<"w3", linnet::linear<inner<D>, D>>>;
  };
  template <index D, index, bool>
  using layer = typename make<D, N == 3>::type;
};

}  // namespace ffn

LINNET_NAMESPACE_END
/// @file
/// RMSNorm and LayerNorm: the policies that choose them and their layers.

LINNET_NAMESPACE_BEGIN

/// Normalisation policies: `layer<D, Eps>` normalises rows of width D.
namespace norm {

/// Base of every normalisation policy.
struct policy {};

/// RMSNorm (Zhang and Sennrich 2019; zoo A1): y = gamma x / sqrt(mean(x^2) + eps).
struct rms : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
    }

    template <class T>
    struct cache {
      T* root = nullptr;  ///< [rows] 1 / sqrt(mean(x^2) + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      return {m.keep.take<T>(e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          c.root[i] =
              decltype(k)::template rms_norm<T>(D, T(Eps.value), x.row(i), p.weight, y.row(i));
        });
      });
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      const auto [first, last] = ctx.on.threads.share(D);
      for (index i = 0; i < x.rows(); ++i)
        for (index j = first; j < last; ++j) dp.weight[j] += dy(i, j) * x(i, j) * c.root[i];
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template rms_norm_backward<T>(D, c.root[i], x.row(i), p.weight, dy.row(i),
                                                     dx.row(i));
        });
      });
    }

    static constexpr index flops(const extents&) { return 0; }
  };
};

/// LayerNorm (Ba et al. 2016): y = gamma (x - mean) / sqrt(variance + eps) + beta.
struct layer_norm : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
      typename Form::vector bias{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
      f(at / "bias", tensor_info{1, D, role::bias, 0}, p.bias...);
    }

    template <class T>
    struct cache {
      T* statistics = nullptr;  ///< [rows, 2] mean and 1 / sqrt(variance + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      return {m.keep.take<T>(2 * e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template layer_norm<T>(D, T(Eps.value), x.row(i), p.weight, p.bias, y.row(i),
                                              c.statistics + 2 * i);
        });
      });
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      const auto [first, last] = ctx.on.threads.share(D);
      for (index i = 0; i < x.rows(); ++i) {
        const T mean = c.statistics[2 * i], r = c.statistics[2 * i + 1];
        for (index j = first; j < last; ++j) {
          dp.weight[j] += dy(i, j) * (x(i, j) - mean) * r;
          dp.bias[j] += dy(i, j);
        }
      }
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template layer_norm_backward<T>(D, c.statistics + 2 * i, x.row(i), p.weight,
                                                       dy.row(i), dx.row(i));
        });
      });
    }

    static constexpr index flops(const extents&) { return 0; }
  };
};

}  // namespace norm

LINNET_NAMESPACE_END
/// @file
/// Policies without a layer of their own: positions, weight tying, biases, and the wrappers that
/// address one stack of an encoder-decoder.

LINNET_NAMESPACE_BEGIN

/// Position policies of decoder-only models.
namespace position {
/// Base of every position policy.
struct policy {
  static constexpr rope_pairing pairing = rope_pairing::none;
};
/// Rotary, interleaved pairs (2i, 2i+1): Meta's Llama, llama2.c, STLM.
struct rope : policy {
  static constexpr rope_pairing pairing = rope_pairing::interleaved;
};
/// Rotary, pairs (i, i + h/2): Hugging Face's Llama.
struct rope_half : policy {
  static constexpr rope_pairing pairing = rope_pairing::half;
};
struct learned : policy {};  ///< a trained table [context, d_model], added to the embedding (GPT-2)
struct sinusoidal : policy {};  ///< fixed sines and cosines, added to the embedding
struct none : policy {};        ///< no positions: causal attention alone orders the tokens
}  // namespace position

/// Whether the output head shares the embedding's matrix.
namespace tie {
/// Base of the tying policies.
struct policy {};
struct tied : policy {};    ///< one matrix [vocabulary, d_model] at both ends
struct untied : policy {};  ///< a head of its own
}  // namespace tie

/// Whether linear maps have biases.
namespace bias {
/// Base of the bias policies.
struct policy {};
struct none : policy {};  ///< T5, Llama, STLM
struct all : policy {};   ///< GPT-2
}  // namespace bias

/// A policy for the encoder alone: t5<shape, encoder<ffn::skip>>.
template <class Policy>
struct encoder {};
/// A policy for the decoder stack alone: t5<shape, decoder_stack<ffn::skip>>.
template <class Policy>
struct decoder_stack {};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The policy derived from `Slot` in the list, or `Default`.
template <class Slot, class Default, class... Ps>
struct pick_policy {
  using type = Default;
};
template <class Slot, class Default, class P, class... Ps>
struct pick_policy<Slot, Default, P, Ps...> {
  using type = typename std::conditional_t<std::is_base_of_v<Slot, P>, std::type_identity<P>,
                                           pick_policy<Slot, Default, Ps...>>::type;
};
template <class Slot, class Default, class... Ps>
using pick = typename pick_policy<Slot, Default, Ps...>::type;

/// One policy for each slot, in a fixed order, so that a model has one type however it is spelled.
template <class... Ps>
struct choices {
  /// The policy of a slot.
  template <class Slot>
  using of = pick<Slot, void, Ps...>;
  /// The same choices but for `Other`, which takes the place of what derives from `Slot`.
  template <class Slot, class Other>
  using with = choices<std::conditional_t<std::is_base_of_v<Slot, Ps>, Other, Ps>...>;
};

/// The storage type in the list, or f32, with the list's compute type.
template <class... Ps>
struct pick_storage {
  using stored = pick<storage::policy, storage::f32, Ps...>;
  using computed = pick<activation::policy, typename stored::activation, Ps...>;
  using type = typename std::conditional_t<
      std::is_same_v<computed, typename stored::activation>, std::type_identity<stored>,
      std::type_identity<storage::with_activation<stored, computed>>>::type;
};

/// What a wrapper such as encoder<P> holds, or void.
template <template <class> class Wrapper, class P>
struct unwrap {
  using type = void;
};
template <template <class> class Wrapper, class P>
struct unwrap<Wrapper, Wrapper<P>> {
  using type = P;
};
/// The policy of a slot for one stack: the wrapped one, else the one for all, else the default.
template <template <class> class Wrapper, class Slot, class Default, class... Ps>
using pick_for = pick<Slot, pick<Slot, Default, Ps...>, typename unwrap<Wrapper, Ps>::type...>;

/// How many policies of the list fill a slot.
template <class Slot, class... Ps>
inline constexpr int times = (0 + ... + static_cast<int>(std::is_base_of_v<Slot, Ps>));

template <class P>
inline constexpr bool known_policy =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<norm::policy, P> ||
    std::is_base_of_v<attention::policy, P> || std::is_base_of_v<position::policy, P> ||
    std::is_base_of_v<tie::policy, P> || std::is_base_of_v<bias::policy, P> ||
    std::is_base_of_v<storage::policy, P> || std::is_base_of_v<activation::policy, P> ||
    std::is_base_of_v<kv::policy, P>;

/// Words for a wrong list; true when it is right.
template <class... Ps>
constexpr bool policies_fit() {
  static_assert(times<ffn::policy, Ps...> <= 1,
                "linnet: two ffn:: policies for the same stack; give one, or wrap one "
                "in encoder<> or decoder_stack<>");
  static_assert(times<norm::policy, Ps...> <= 1, "linnet: two norm:: policies; give one");
  static_assert(times<attention::policy, Ps...> <= 1, "linnet: two attention:: policies; give one");
  static_assert(times<position::policy, Ps...> <= 1, "linnet: two position:: policies; give one");
  static_assert(times<tie::policy, Ps...> <= 1, "linnet: two tie:: policies; give one");
  static_assert(times<bias::policy, Ps...> <= 1, "linnet: two bias:: policies; give one");
  static_assert(times<storage::policy, Ps...> <= 1, "linnet: two storage types; give one");
  static_assert(times<kv::policy, Ps...> <= 1, "linnet: two kv:: policies; give one");
  static_assert(times<activation::policy, Ps...> <= 1,
                "linnet: two activation:: policies; give one");
  return true;
}

/// The residual block of a stack: the attention branches, then the feed-forward unless skipped.
template <class Norm, class Ffn, class... Branches>
struct block_of {
  template <index D, index F, bool Bias, real Eps>
  struct make {
    using feed_forward =
        residual<typename Norm::template layer<D, Eps>, typename Ffn::template layer<D, F, Bias>>;
    using type = chain<Branches..., named<"ffn", feed_forward>>;
  };
};
template <class Norm, class Ffn, class... Branches>
requires(Ffn::skipped) struct block_of<Norm, Ffn, Branches...> {
  template <index D, index F, bool Bias, real Eps>
  struct make {
    using type = chain<Branches...>;
  };
};

/// `N` blocks, of which the first is a `First` if it differs; `Rest` holds the type of the others.
/// The buffers of a first one that differs last as long as those of the others, which may read
/// them.
template <class First, class Rest, index N, bool Differs>
struct stack_of {
  using type = repeat<typename Rest::type, N>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, true> {
  using type =
      chain<named<"", repeat<First, 1, 0, N>>, named<"", repeat<typename Rest::type, N - 1, 1, N>>>;
};
template <class First, class Rest>
struct stack_of<First, Rest, 1, true> {
  using type = repeat<First, 1>;
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Run-time limits: what a session, evaluator or trainer plans its memory for, and how it runs.

LINNET_NAMESPACE_BEGIN

/// The families of models, for code that treats them differently.
enum class model_family {
  t5,      ///< encoder-decoder
  decoder  ///< decoder only
};

/// The largest call, the threads and the instruction-set level. Memory is planned for these numbers
/// once and never grows.
struct limits {
  index batch = 1;   ///< sequences at a time
  index source = 0;  ///< longest source in tokens (encoder-decoders); decoders leave it 0
  index target = 0;  ///< longest target in tokens; for decoders the whole sequence, prompt included
  index chunk = 0;   ///< most tokens of a sequence in one decoding call, longer prompts come in
                     ///< parts; 0 for `target`. Smaller chunks need less memory
  index blocks = 0;  ///< key-value memory of a session in blocks of 32 tokens that its sequences
                     ///< share as they need them; 0 gives each sequence its whole `target`
  int threads = 1;   ///< threads that share the work of one call
  index grain = 4'000'000;  ///< floating-point operations that are worth one more thread in an
                            ///< inference call; 0 always takes all threads
  simd::level level =
      simd::level::automatic;  ///< pin it for results that are equal across machines
  executor run_on{};           ///< your own threads instead of OpenMP's
  index logits = 1;            ///< tokens per sequence whose logits session::feed_all returns; for
                               ///< speculative decoding one more than are drafted
};

/// Calls `f(machine)` on the threads of `l`; `converted` is ops::machine's.
template <class F>
void run(const limits& l, void* converted, F&& f) {
  parallel(l.threads, l.run_on, [&](const team& threads) {
    f(ops::machine{threads, simd::resolve(l.level), converted});
  });
}
/// The same with only as many threads as `flops` floating-point operations are worth.
template <class F>
void run(const limits& l, void* converted, index flops, F&& f) {
  limits fitting = l;
  if (l.grain > 0)
    fitting.threads = static_cast<int>((std::clamp)(flops / l.grain, index{1}, index{l.threads}));
  run(fitting, converted, f);
}

/// What buffers are planned for.
enum class purpose {
  training,  ///< loss and gradients
  scoring,   ///< loss alone
  decoding   ///< token by token, with a key-value cache
};

namespace detail {
/// Whether n tokens are all in the vocabulary, or `ignored` where that is allowed.
inline bool tokens_fit(const token* tokens, index n, index vocabulary, bool labels) {
  if (tokens == nullptr) return false;
  for (index i = 0; i < n; ++i)
    if ((tokens[i] < 0 || tokens[i] >= vocabulary) && !(labels && tokens[i] == ignored))
      return false;
  return true;
}

/// Layer extents of one stack.
constexpr extents stack_extents(const limits& l, purpose use, index length, index memory) {
  extents e;
  e.batch = l.batch;
  e.length = use == purpose::decoding && l.chunk > 0 ? (std::min)(l.chunk, length) : length;
  e.memory = memory;
  e.capacity = use == purpose::decoding ? length : 0;
  e.blocks = use == purpose::decoding ? l.blocks : 0;
  e.threads = l.threads;
  e.training = use == purpose::training;
  return e;
}
}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The values of a model: canonical weights, gradients and the packed form that kernels read. Each
/// owns one block of memory of a size known at compile time.

LINNET_NAMESPACE_BEGIN

/// The storage type of model `M` when it computes in `T`: a double model stores doubles.
template <class M, class T>
using storage_of = std::conditional_t<std::is_same_v<T, double>, storage::f64, typename M::storage>;

namespace detail {

template <class S>
constexpr void place(arena& memory, const tensor_info& info, matrix_ref<S>& leaf) {
  leaf.data = memory.take<typename S::value>(info.rows * row_values<S>(info.columns));
  const index scales = info.rows * row_scales<S>(info.columns);
  if constexpr (S::scaled) leaf.scales = memory.take<float>(scales);
  if constexpr (S::centred) leaf.zeros = memory.take<float>(scales);
}
template <class T, class S>
constexpr void place(arena& memory, const tensor_info& info, ops::packed_matrix<T, S>& leaf) {
  leaf.panels = memory.take<typename S::word>(leaf.size(info.rows, info.columns));
  const index scales = leaf.scales_size(info.rows, info.columns);
  if constexpr (S::scaled) leaf.scales = memory.take<float>(scales);
  if constexpr (S::centred) leaf.zeros = memory.take<float>(scales);
}
template <class T>
constexpr void place(arena& memory, const tensor_info& info, T*& leaf) {
  leaf = memory.take<std::remove_const_t<T>>(info.size());
}

/// One block that holds a params tree of model M in one form.
template <class M, class Form>
class tensor_block {
 public:
  using tree_type = typename M::template params<Form>;

  /// Bytes of the block.
  static constexpr index bytes() {
    arena counter;
    tree_type tree{};
    M::visit([&](const path&, const tensor_info& info, auto& leaf) { place(counter, info, leaf); },
             path{}, tree);
    return counter.peak();
  }

  /// Allocates the block, all zero; valid() tells whether memory was there.
  tensor_block() : memory_(bytes()) {
    if (!memory_.data()) return;
    arena all(memory_.data(), memory_.size());
    M::visit([&](const path&, const tensor_info& info, auto& leaf) { place(all, info, leaf); },
             path{}, tree_);
  }
  /// Whether the allocation succeeded.
  bool valid() const { return memory_.data() != nullptr; }
  /// The parameters as a struct of pointers.
  tree_type& tree() { return tree_; }
  /// @copydoc tree()
  const tree_type& tree() const { return tree_; }
  /// Calls f(path, tensor_info, leaf) for each tensor in canonical order.
  template <class F>
  void visit(F&& f) {
    M::visit(f, path{}, tree_);
  }
  /// @copydoc visit()
  template <class F>
  void visit(F&& f) const {
    M::visit(f, path{}, tree_);
  }
  /// The whole block as bytes.
  void* data() const { return memory_.data(); }
  /// @copydoc data()
  std::span<std::byte> block() const {
    return {static_cast<std::byte*>(memory_.data()), static_cast<std::size_t>(bytes())};
  }

 private:
  memory_block memory_;
  tree_type tree_{};
};

}  // namespace detail

/// Canonical weights of model `M` with scalar `T`, in one block: what files, optimizers and
/// transformations see. Matrices are row-major [out, in] in the model's storage type.
template <class M, class T = float>
class weights : public detail::tensor_block<M, form::canonical<T, storage_of<M, T>>> {
  static_assert(!std::is_same_v<T, double> || std::is_same_v<typename M::storage, storage::f32>,
                "linnet::weights<M, double>: only models stored in f32 can run in double");

 public:
  using model = M;
  using scalar = T;
  using storage = storage_of<M, T>;

  /// An exact copy in a block of its own.
  weights clone() const {
    weights copy;
    if (copy.valid() && this->valid())
      __builtin_memcpy(copy.data(), this->data(), static_cast<std::size_t>(weights::bytes()));
    return copy;
  }
};

/// Gradients of the trainable tensors of `M`, in full precision.
template <class M, class T = float>
class gradients : public detail::tensor_block<M, form::gradient<T>> {};

/// The form that kernels read: constant, shareable by any number of sessions in any threads.
template <class M, class T = float, class S = storage_of<M, T>>
class packed : public detail::tensor_block<M, form::kernel<T, S>> {
 public:
  using model = M;
  using scalar = T;
  using storage = S;
};

namespace detail {

/// Rewrites the kernel form `p` of a layer or model `L` from its canonical weights. Called by every
/// thread of a team.
template <class L, class W, class P>
void pack_tree(const ops::machine& on, const W& w, P& p) {
  L::visit(
      [&](const path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          using scalar = std::remove_cvref_t<decltype(*from)>;
          ops::copy(on, info.size(), static_cast<const scalar*>(from), const_cast<scalar*>(to));
        } else {
          ops::pack(on, info.rows, info.columns, from, to);
        }
      },
      path{}, p.tree(), w.tree());
}
/// The same for a model.
template <class M, class T, class S>
void pack_into(const ops::machine& on, const weights<M, T>& w, packed<M, T, S>& p) {
  pack_tree<M>(on, w, p);
}
/// Shows `p` the canonical rows of its matrices of numbers, which backward() reads.
template <class L, class W, class P>
void attach_rows(const W& w, P& p) {
  L::visit(
      [](const path&, const tensor_info&, auto& to, const auto& from) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) to.rows = from.data;
      },
      path{}, p.tree(), w.tree());
}

}  // namespace detail

/// The packed form of `w`: one copy, exactly invertible by unpack().
template <class M, class T>
packed<M, T> pack(const weights<M, T>& w) {
  packed<M, T> p;
  if (p.valid() && w.valid()) detail::pack_into(ops::machine{}, w, p);
  return p;
}

/// The canonical weights that `p` was packed from.
template <class M, class T>
weights<M, T> unpack(const packed<M, T>& p) {
  weights<M, T> w;
  if (!w.valid() || !p.valid()) return w;
  M::visit(
      [&](const path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(to)>>) {
          std::copy_n(from, info.size(), to);
        } else {
          ops::unpack(info.rows, info.columns, from, to);
        }
      },
      path{}, w.tree(), p.tree());
  return w;
}

LINNET_NAMESPACE_END
/// @file
/// The two ends of a language model: token embedding, and the output head fused with the
/// cross-entropy, in chunks, so that logits of all tokens never exist at once.

LINNET_NAMESPACE_BEGIN

/// Summed loss of a call, in nats, and the number of tokens it is summed over. A call with a batch
/// that does not fit the limits or the vocabulary computes nothing and gives NaN nats.
struct loss_sum {
  double nats = 0;
  index tokens = 0;

  /// Loss per token; `nats` itself without tokens.
  constexpr double mean() const { return tokens > 0 ? nats / static_cast<double>(tokens) : nats; }
  /// The answer to a batch that cannot be used.
  static constexpr loss_sum refused() { return {std::numeric_limits<double>::quiet_NaN(), 0}; }
};

namespace ops {

/// x[rows, d] = table[token], one row per token. Ids must be in the vocabulary.
template <class T, class S>
void embed(const machine& on, index rows, index d, const token* tokens,
           const packed_matrix<T, S>& table, T* x) {
  on.threads.each(rows, [&](index i) {
    for (index j = 0; j < d; ++j) x[i * d + j] = table.at(tokens[i], j, d);
  });
}
/// d_table[token] += dx: split by columns, so repeated tokens meet in one thread, in row order.
template <class T>
void embed_backward(const machine& on, index rows, index d, const token* tokens, const T* dx,
                    T* d_table) {
  const auto [first, last] = on.threads.share(d);
  for (index i = 0; i < rows; ++i)
    for (index j = first; j < last; ++j) d_table[tokens[i] * d + j] += dx[i * d + j];
  on.threads.wait();
}

/// d_table[position] += sum over the batch of dx[batch, length, d] at that position.
template <class T>
void position_backward(const machine& on, index batch, index length, index d, const T* dx,
                       T* d_table) {
  on.threads.each(length, [&](index t) {
    for (index b = 0; b < batch; ++b)
      for (index j = 0; j < d; ++j) d_table[t * d + j] += dx[(b * length + t) * d + j];
  });
}

/// Rows of logits that are worked on at a time: about four million values.
constexpr index head_rows(index vocabulary) {
  const index rows = (index{1} << 22) / vocabulary;
  return rows < 8 ? 8 : rows > 128 ? 128 : rows;
}

namespace detail {
/// One row of cross_entropy() by the kernels K.
template <class K, class T>
double cross_entropy_row(index vocabulary, token label, T* row, bool gradient, double z_loss) {
  const T target = row[label];
  const T largest = K::template maximum<T>(vocabulary, row);
  const T sum = K::template exp_sum<T>(vocabulary, largest, row);
  const double lse = std::log(static_cast<double>(sum)) + static_cast<double>(largest);
  if (gradient) {
    K::template scale<T>(vocabulary, T(1 + 2 * z_loss * lse) / sum, row);
    row[label] -= T(1);
  }
  return lse - static_cast<double>(target) + z_loss * lse * lse;
}
/// losses[i] = f(kernels, i, row) for each row of logits that has a label; the others have no loss
/// and no gradient.
template <class T, class F>
void each_labelled_row(const machine& on, index rows, index vocabulary, const token* labels,
                       T* logits, double* losses, bool gradient, F&& f) {
  on.threads.each(rows, [&](index i) {
    T* const row = logits + i * vocabulary;
    if (labels[i] == ignored) {
      losses[i] = 0;
      if (gradient) std::fill_n(row, vocabulary, T(0));
      return;
    }
    simd::dispatch(on.level, [&](auto k) { losses[i] = f(k, i, row); });
  });
}

}  // namespace detail

/// Cross-entropy of rows of logits: losses[i] = lse - l[label] + z lse^2 with lse = logsumexp(l),
/// and, in place of the logits, its gradient (1 + 2 z lse) softmax(l) - onehot(label). z is t5x's
/// z-loss (zoo A5), usually 0 or 1e-4. Rows labelled `ignored` give 0.
template <class T>
void cross_entropy(const machine& on, index rows, index vocabulary, const token* labels, T* logits,
                   double* losses, bool gradient, double z_loss = 0) {
  detail::each_labelled_row(
      on, rows, vocabulary, labels, logits, losses, gradient, [&](auto k, index i, T* row) {
        return detail::cross_entropy_row<decltype(k)>(vocabulary, labels[i], row, gradient, z_loss);
      });
}

/// What the head works with: y[rows, d] against the table W[vocabulary, d], logits = alpha y W^T.
template <class T, class S>
struct head_call {
  index rows, d, vocabulary;
  const T* y;
  const packed_matrix<T, S>& table;
  T alpha;               ///< d^-1/2 for T5's tied head (zoo A5), else 1
  const token* labels;   ///< [rows], or `ignored`
  T* chunk;              ///< scratch [head_rows, vocabulary]
  double* losses;        ///< scratch [rows]
  T* dy = nullptr;       ///< gradient of y, added to; null for the loss alone
  T* d_table = nullptr;  ///< gradient of the table, added to
  T* logits = nullptr;   ///< if given, also receives all logits [rows, vocabulary]
  double z_loss = 0;     ///< weight of the squared logsumexp
};

/// logits[rows, vocabulary] of rows [first, first + rows) of a call.
template <class T, class S>
void head_logits(const machine& on, const head_call<T, S>& h, index first, index rows, T* logits) {
  matmul(on, rows, h.vocabulary, h.d, h.y + first * h.d, h.table, logits,
         static_cast<const T*>(nullptr), false, h.alpha);
}

/// The criterion of plain training and scoring: cross_entropy() with the labels. A criterion is
/// called by every thread for each chunk, rows [first, first + rows) of the call whose logits are
/// in h.chunk; it sets h.losses of these rows and, where h.dy is given, puts the gradient of their
/// sum in place of the logits.
struct label_loss {
  template <class T, class S>
  void operator()(const machine& on, const head_call<T, S>& h, index first, index rows) const {
    cross_entropy(on, rows, h.vocabulary, h.labels + first, h.chunk, h.losses + first,
                  h.dy != nullptr, h.z_loss);
  }
};

/// Summed loss of all rows by a criterion and, where asked for, the gradients of that sum.
template <class T, class S, class Criterion = label_loss>
loss_sum head_loss(const machine& on, const head_call<T, S>& h, const Criterion& criterion = {}) {
  const index step = head_rows(h.vocabulary);
  for (index first = 0; first < h.rows; first += step) {
    const index rows = (std::min)(step, h.rows - first);
    head_logits(on, h, first, rows, h.chunk);
    if (h.logits) copy(on, rows * h.vocabulary, h.chunk, h.logits + first * h.vocabulary);
    criterion(on, h, first, rows);
    if constexpr (trainable<S>)
      if (h.dy)
        matmul_backward(on, rows, h.vocabulary, h.d, h.chunk, h.y + first * h.d, h.table, h.d_table,
                        h.dy + first * h.d, h.alpha);
  }
  loss_sum sum;
  for (index i = 0; i < h.rows; ++i) {
    sum.nats += h.losses[i];
    sum.tokens += h.labels[i] != ignored;
  }
  return sum;
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Sources and targets of a T5 training or scoring call, row-major.
struct t5_batch {
  const token* source = nullptr;  ///< [batch, source_length], padded on the right
  const index* source_lengths =
      nullptr;                    ///< [batch] valid source tokens, at least 1; null when all are
  const token* labels = nullptr;  ///< [batch, target_length], `ignored` behind the end
  index batch = 0;                ///< sequences
  index source_length = 0;        ///< padded source tokens
  index target_length = 0;        ///< padded target tokens
};

/// One stack of a T5 model: relative-position bias, blocks, final norm.
template <t5_shape Shape, index Layers, bool IsDecoder, class Ffn, class Attention, class Norm,
          class Cache>
struct t5_stack {
  static constexpr index d = Shape.d_model, heads = Shape.heads;
  static constexpr index in = d, out = d;
  static constexpr real eps{Shape.eps};
  static_assert(
      IsDecoder ? Attention::causal && Attention::continues : Attention::bidirectional,
      "linnet::t5: this kind of attention does not fit this stack: an encoder needs a "
      "bidirectional kind, a decoder a causal one that continues cached sequences; wrap it "
      "in encoder<> or decoder_stack<>");
  static constexpr attention_shape self{.d_model = d,
                                        .heads = heads,
                                        .kv_heads = heads,
                                        .d_kv = Shape.d_kv,
                                        .causal = IsDecoder,
                                        .scaled = false,
                                        .relative = true,
                                        .cache = Cache::code};
  static constexpr attention_shape across{.d_model = d,
                                          .heads = heads,
                                          .kv_heads = heads,
                                          .d_kv = Shape.d_kv,
                                          .cross = true,
                                          .scaled = false,
                                          .cache = Cache::code};
  using norm_layer = typename Norm::template layer<d, eps>;
  using self_attention =
      named<"attention", residual<norm_layer, typename Attention::template layer<self>>>;
  using cross_attention = named<"cross", residual<norm_layer, attention::full::layer<across>>>;
  template <class... Branches>
  using block_with =
      typename detail::block_of<Norm, Ffn, Branches...>::template make<d, Shape.d_ff, false,
                                                                       eps>::type;
  using block =
      typename std::conditional_t<IsDecoder,
                                  std::type_identity<block_with<self_attention, cross_attention>>,
                                  std::type_identity<block_with<self_attention>>>::type;
  using blocks = repeat<block, Layers>;

  template <class Form>
  struct params {
    typename Form::vector relative_bias{};
    typename blocks::template params<Form> stack{};
    typename norm_layer::template params<Form> norm{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    f(at / "relative_bias" / "weight",
      tensor_info{Shape.buckets, heads, role::position, 1 / detail::root(d)}, p.relative_bias...);
    blocks::visit(f, at / "blocks", p.stack...);
    norm_layer::visit(f, at / "norm", p.norm...);
  }

  template <class T>
  struct cache {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{};
    T *x = nullptr, *y = nullptr;    ///< [rows, d] embedded input, output of the blocks
    T *dx = nullptr, *dy = nullptr;  ///< their gradients
    T* bias = nullptr;               ///< [heads, 2 origin + 1] bias lines
    T* d_bias = nullptr;             ///< [batch, heads, 2 origin + 1]
    index origin = 0;
    int input_site = 0, output_site = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    c.input_site = m.sites++;
    c.output_site = m.sites++;
    c.origin = (std::max)(e.length, e.capacity) - 1;
    const index lines = heads * (2 * c.origin + 1), size = e.rows() * d;
    c.x = m.keep.take<T>(size);
    c.y = m.keep.take<T>(size);
    c.bias = m.keep.take<T>(lines);
    if (e.training) {
      c.dx = m.keep.take<T>(size);
      c.dy = m.keep.take<T>(size);
      c.d_bias = m.keep.take<T>(e.batch * lines);
    }
    c.norm = norm_layer::template plan<T>(m, e);
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// c.x (embedded tokens) -> y, the normed output; dropout at both ends (zoo A4).
  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<T, d> y, cache<T>& c,
                      context<T>& ctx) {
    const index rows = ctx.rows(), line = 2 * c.origin + 1;
    ctx.on.threads.each(heads, [&](index head) {
      for (index r = 0; r < line; ++r)
        c.bias[head * line + r] = p.relative_bias[bucket(r - c.origin) * heads + head];
    });
    ctx.bias = c.bias;
    ctx.bias_origin = c.origin;
    ops::dropout(ctx.on.threads, ctx.dropout, c.input_site, ctx.batch, ctx.length, d, c.x);
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
    norm_layer::template forward<T, S>(p.norm, {c.y, rows}, y, c.norm, ctx);
    ops::dropout(ctx.on.threads, ctx.dropout, c.output_site, ctx.batch, ctx.length, d, y.data());
  }
  /// Gradient of y (overwritten) -> gradient of the embedded tokens in c.dx.
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<T, d> dy, cache<T>& c, context<T>& ctx) {
    const index rows = ctx.rows(), line = 2 * c.origin + 1;
    ctx.bias = c.bias;
    ctx.bias_origin = c.origin;
    ctx.d_bias = c.d_bias;
    ops::fill(ctx.on, ctx.batch * heads * line, T(0), c.d_bias);
    ops::dropout(ctx.on.threads, ctx.dropout, c.output_site, ctx.batch, ctx.length, d, dy.data());
    ops::fill(ctx.on, rows * d, T(0), c.dy);
    norm_layer::template backward<T, S>(p.norm, dp.norm, {c.y, rows}, dy, {c.dy, rows}, c.norm,
                                        ctx);
    ops::fill(ctx.on, rows * d, T(0), c.dx);
    blocks::template backward<T, S>(p.stack, dp.stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                    c.stack, ctx);
    ops::dropout(ctx.on.threads, ctx.dropout, c.input_site, ctx.batch, ctx.length, d, c.dx);
    ctx.on.threads.each(heads, [&](index head) {
      for (index b = 0; b < ctx.batch; ++b)
        for (index r = 0; r < line; ++r)
          dp.relative_bias[bucket(r - c.origin) * heads + head] +=
              c.d_bias[(b * heads + head) * line + r];
    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(c.stack, from, to, part);
  }

  static constexpr index flops(const extents& e) { return blocks::flops(e) + norm_layer::flops(e); }

 private:
  /// The bucket of a key position minus query position.
  static constexpr index bucket(index relative) {
    return ops::relative_bucket(relative, !IsDecoder, Shape.buckets, Shape.max_distance);
  }
};

/// A T5 model as a type; spelled t5<shape, policies...>.
template <t5_shape Shape, class EncoderFfn, class DecoderFfn, class EncoderAttention,
          class DecoderAttention, class Norm, class Tie, class Storage, class Cache>
struct t5_model {
  static_assert(Shape.valid(),
                "linnet::t5: the shape is incomplete: d_model, d_ff, d_kv, heads, both layer "
                "counts and the vocabulary "
                "must be positive, buckets a multiple of 4");

  static constexpr model_family family = model_family::t5;
  static constexpr t5_shape shape = Shape;
  static constexpr bool tied = std::is_same_v<Tie, tie::tied>;
  static constexpr bool biased = false;
  /// Whether decoding can take tokens back, and whether it forgets old ones.
  static constexpr bool rewinds = DecoderAttention::rewinds && DecoderFfn::rewinds,
                        forgets = DecoderAttention::forgets;
  using encoder_ffn = EncoderFfn;
  using decoder_ffn = DecoderFfn;
  using encoder_attention = EncoderAttention;
  using decoder_attention = DecoderAttention;
  using norm = Norm;
  using storage = Storage;
  using cache = Cache;
  using batch = t5_batch;
  /// The same model with other feed-forwards.
  template <class E, class D = E>
  using with_ffn =
      t5_model<Shape, E, D, EncoderAttention, DecoderAttention, Norm, Tie, Storage, Cache>;
  /// The same model with other kinds of attention.
  template <class E, class D = E>
  using with_attention = t5_model<Shape, EncoderFfn, DecoderFfn, E, D, Norm, Tie, Storage, Cache>;
  /// The same model with another key-value cache.
  template <class Other>
  using with_cache = t5_model<Shape, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention,
                              Norm, Tie, Storage, Other>;
  /// The same model with another storage type.
  template <class Other>
  using with_storage = t5_model<Shape, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention,
                                Norm, Tie, Other, Cache>;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary;
  /// The token that starts every target, and pads (zoo A5).
  static constexpr token start = 0;
  using encoder =
      t5_stack<Shape, Shape.encoder_layers, false, EncoderFfn, EncoderAttention, Norm, Cache>;
  using decoder =
      t5_stack<Shape, Shape.decoder_layers, true, DecoderFfn, DecoderAttention, Norm, Cache>;

  template <class Form>
  struct params {
    typename Form::matrix embedding{};
    typename encoder::template params<Form> encoder_stack{};
    typename decoder::template params<Form> decoder_stack{};
    [[no_unique_address]] std::conditional_t<tied, std::nullptr_t, typename Form::matrix> head{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    f(at / "embedding" / "weight", tensor_info{vocabulary, d, role::table, 1}, p.embedding...);
    encoder::visit(f, at / "encoder", p.encoder_stack...);
    decoder::visit(f, at / "decoder", p.decoder_stack...);
    if constexpr (!tied)
      f(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, 1}, p.head...);
  }

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<t5_model>(); }
  /// Parameters outside the embedding and an untied head.
  static constexpr index non_embedding() { return parameters() - vocabulary * d * (tied ? 1 : 2); }
  /// Floating-point operations of one forward call, head included (zoo A8).
  static constexpr index flops(index batch_size, index source, index target) {
    const limits l{.batch = batch_size};
    return encoder::flops(detail::stack_extents(l, purpose::scoring, source, 0)) +
           decoder::flops(detail::stack_extents(l, purpose::scoring, target, source)) +
           2 * batch_size * target * d * vocabulary;
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename encoder::template cache<T> encoder_stack{};
    typename decoder::template cache<T> decoder_stack{};
    T *memory = nullptr, *out = nullptr;      ///< [source rows, d], [target rows, d] normed outputs
    T *d_memory = nullptr, *d_out = nullptr;  ///< their gradients
    token* inputs = nullptr;                  ///< [target rows] labels shifted right
    T* chunk = nullptr;                       ///< logits of some rows
    T* last = nullptr;                        ///< [batch, d] last valid rows
    T* logits = nullptr;                      ///< [batch * limits.logits, vocabulary]
    const std::int32_t* tables = nullptr;     ///< [batch, table_size] of a session's paged cache
    index table_size = 0;
    double* losses = nullptr;  ///< [target rows]
    index memory_length = 0;
  };
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const extents target = detail::stack_extents(l, use, l.target, l.source);
    extents source = detail::stack_extents(l, purpose::scoring, l.source, 0);
    source.training = use == purpose::training;  // the encoder reads its whole input at once
    workspace<T> w;
    arena& lasting = use == purpose::decoding ? m.state : m.keep;
    w.memory = lasting.take<T>(source.rows() * d);
    w.out = m.keep.take<T>(target.rows() * d);
    if (use == purpose::decoding) {
      w.last = m.keep.take<T>(l.batch * d);
      m.product(l.batch * l.logits, d, vocabulary, target);
      w.logits = m.state.take<T>(l.batch * l.logits * vocabulary);
    } else {
      w.inputs = m.keep.take<token>(target.rows());
      w.losses = m.keep.take<double>(target.rows());
      w.chunk = m.keep.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), d, vocabulary, target);
    }
    if (use == purpose::training) {
      w.d_memory = m.keep.take<T>(source.rows() * d);
      w.d_out = m.keep.take<T>(target.rows() * d);
    }
    const index mark = m.keep.mark();
    w.encoder_stack = encoder::template plan<T>(m, source);
    if (use != purpose::training) m.keep.release(mark);
    w.decoder_stack = decoder::template plan<T>(m, target);
    return w;
  }
  /// Nothing to fill in.
  template <class T>
  static void prepare(workspace<T>&, const limits&) {}

  /// Whether a batch fits the limits and holds only tokens of the vocabulary.
  static bool accepts(const batch& b, const limits& l) {
    if (b.batch < 1 || b.batch > l.batch || b.source_length < 1 || b.source_length > l.source ||
        b.target_length < 1 || b.target_length > l.target)
      return false;
    for (index i = 0; b.source_lengths && i < b.batch; ++i)
      if (b.source_lengths[i] < 1 || b.source_lengths[i] > b.source_length) return false;
    return detail::tokens_fit(b.source, b.batch * b.source_length, vocabulary, false) &&
           detail::tokens_fit(b.labels, b.batch * b.target_length, vocabulary, true);
  }

  /// The final hidden states of a batch and the head that is to read them, which ops::head_loss()
  /// and ops::head_logits() take. Called by every thread.
  template <class T, class S>
  static ops::head_call<T, S> read(const params<form::kernel<T, S>>& p, const batch& b,
                                   workspace<T>& w, const ops::machine& on) {
    context<T> ctx = source_context<T>(b.batch, b.source_length, b.source_lengths, on);
    context<T> target = target_context<T>(b, w, ctx);
    return read<T, S>(p, b, w, ctx, target);
  }
  /// Summed loss of a batch by a criterion (see ops::label_loss), the cross-entropy. With `dp`,
  /// also adds the gradient of that sum. `logits`, if given, receives all [batch * target_length,
  /// vocabulary] of them. `z_loss` is the weight of the squared logsumexp. Called by every thread.
  template <class T, class S, class Criterion = ops::label_loss>
  static loss_sum loss(const params<form::kernel<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::machine& on,
                       const dropout_key& dropout, T* logits = nullptr, double z_loss = 0,
                       const Criterion& criterion = {}) {
    context<T> ctx = source_context<T>(b.batch, b.source_length, b.source_lengths, on);
    ctx.dropout = dropout;
    context<T> target = target_context<T>(b, w, ctx);
    const index rows = target.rows();
    ops::head_call<T, S> head = read<T, S>(p, b, w, ctx, target);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    head.logits = logits;
    head.z_loss = z_loss;
    if constexpr (ops::trainable<S>)
      if (dp) {
        head.dy = w.d_out;
        if constexpr (tied)
          head.d_table = dp->embedding;
        else
          head.d_table = dp->head;
      }
    const loss_sum sum = ops::head_loss(on, head, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        ops::fill(on, ctx.rows() * d, T(0), w.d_memory);
        decoder::template backward<T, S>(p.decoder_stack, dp->decoder_stack, {w.d_out, rows},
                                         w.decoder_stack, target);
        ops::embed_backward(on, rows, d, w.inputs, w.decoder_stack.dx, dp->embedding);
        encoder::template backward<T, S>(p.encoder_stack, dp->encoder_stack,
                                         {w.d_memory, ctx.rows()}, w.encoder_stack, ctx);
        ops::embed_backward(on, ctx.rows(), d, b.source, w.encoder_stack.dx, dp->embedding);
      }
    return sum;
  }

  /// Encodes [batch, length] source tokens into w.memory. Called by every thread.
  template <class T, class S>
  static void encode(const params<form::kernel<T, S>>& p, const token* source, index batch_size,
                     index length, const index* lengths, workspace<T>& w, const ops::machine& on) {
    context<T> ctx = source_context<T>(batch_size, length, lengths, on);
    encode<T, S>(p, source, w, ctx);
  }
  /// Feeds [batch, length] target tokens after `past` cached ones; w.logits[batch, vocabulary] then
  /// predicts what follows each sequence's last valid token, or with `every`
  /// w.logits[batch * length, vocabulary] what follows each token. The encoded source has
  /// `memory_length` padded tokens; its keys and values are computed unless `memory_cached`. Called
  /// by every thread.
  template <class T, class S>
  static void step(const params<form::kernel<T, S>>& p, const token* tokens, index batch_size,
                   index length, const index* lengths, const index* past, index memory_length,
                   const index* memory_lengths, bool memory_cached, workspace<T>& w,
                   const ops::machine& on, bool every = false) {
    context<T> ctx = source_context<T>(batch_size, length, lengths, on);
    ctx.past = past;
    ctx.tables = w.tables;
    ctx.table_size = w.table_size;
    ctx.memory = w.memory;
    ctx.memory_length = memory_length;
    ctx.memory_lengths = memory_lengths;
    ctx.memory_cached = memory_cached;
    const index rows = ctx.rows();
    ops::embed(on, rows, d, tokens, p.embedding, w.decoder_stack.x);
    decoder::template forward<T, S>(p.decoder_stack, {w.out, rows}, w.decoder_stack, ctx);
    if (!every)
      on.threads.each(batch_size, [&](index i) {
        std::copy_n(w.out + (i * length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    ops::matmul(on, every ? rows : batch_size, vocabulary, d, every ? w.out : w.last,
                head_matrix<T, S>(p), w.logits, static_cast<const T*>(nullptr), false,
                head_scale<T>());
  }

  /// Lets cached target `to` continue where `from` is, with `from`'s source.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    if (!part.block)
      std::copy_n(w.memory + from * part.memory * d, part.memory * d,
                  w.memory + to * part.memory * d);
    linnet::copy_state<decoder, T>(w.decoder_stack, from, to, part);
  }

 private:
  /// T5's tied head reads y / sqrt(d) (zoo A5).
  template <class T>
  static constexpr T head_scale() {
    return tied ? T(1 / detail::root(d)) : T(1);
  }
  template <class T, class S>
  static const ops::packed_matrix<T, S>& head_matrix(const params<form::kernel<T, S>>& p) {
    if constexpr (tied)
      return p.embedding;
    else
      return p.head;
  }
  template <class T>
  static context<T> source_context(index batch_size, index length, const index* lengths,
                                   const ops::machine& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = batch_size;
    ctx.length = length;
    ctx.lengths = lengths;
    return ctx;
  }
  template <class T>
  static context<T> target_context(const batch& b, const workspace<T>& w,
                                   const context<T>& source) {
    context<T> target = source;
    target.length = b.target_length;
    target.lengths = nullptr;
    target.memory = w.memory;
    target.d_memory = w.d_memory;
    target.memory_length = b.source_length;
    target.memory_lengths = b.source_lengths;
    return target;
  }
  template <class T, class S>
  static ops::head_call<T, S> read(const params<form::kernel<T, S>>& p, const batch& b,
                                   workspace<T>& w, context<T>& ctx, context<T>& target) {
    encode<T, S>(p, b.source, w, ctx);
    const index rows = target.rows();
    target.on.threads.each(rows, [&](index i) {
      const token before = i % b.target_length == 0 ? start : b.labels[i - 1];
      w.inputs[i] = before == ignored ? start : before;
    });
    ops::embed(target.on, rows, d, w.inputs, p.embedding, w.decoder_stack.x);
    decoder::template forward<T, S>(p.decoder_stack, {w.out, rows}, w.decoder_stack, target);
    return {rows,     d,       vocabulary, w.out, head_matrix<T, S>(p), head_scale<T>(),
            b.labels, w.chunk, w.losses};
  }
  template <class T, class S>
  static void encode(const params<form::kernel<T, S>>& p, const token* source, workspace<T>& w,
                     context<T>& ctx) {
    ops::embed(ctx.on, ctx.rows(), d, source, p.embedding, w.encoder_stack.x);
    encoder::template forward<T, S>(p.encoder_stack, {w.memory, ctx.rows()}, w.encoder_stack, ctx);
  }
};

namespace detail {
template <class P>
inline constexpr bool known_t5_policy = known_policy<P>;
template <class P>
inline constexpr bool known_t5_policy<encoder<P>> =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<attention::policy, P>;
template <class P>
inline constexpr bool known_t5_policy<decoder_stack<P>> = known_t5_policy<encoder<P>>;

template <t5_shape Shape, class... Ps>
struct make_t5 {
  static_assert(
      (known_t5_policy<Ps> && ...),
      "linnet::t5<shape, policies...>: an argument is not a policy; derive your own from "
      "ffn::policy, "
      "attention::policy or norm::policy, and wrap only ffn:: and attention:: policies in "
      "encoder<> or decoder_stack<>");
  static_assert(
      (!std::is_base_of_v<position::policy, Ps> && ...),
      "linnet::t5: T5 has its own relative positions; position:: policies are for decoder<>");
  static_assert((!std::is_base_of_v<bias::all, Ps> && ...),
                "linnet::t5: T5 has no biases; bias::all is for decoder<>");
  static_assert(policies_fit<Ps...>());
  using type = t5_model<Shape, pick_for<linnet::encoder, ffn::policy, ffn::relu, Ps...>,
                        pick_for<decoder_stack, ffn::policy, ffn::relu, Ps...>,
                        pick_for<linnet::encoder, attention::policy, attention::full, Ps...>,
                        pick_for<decoder_stack, attention::policy, attention::full, Ps...>,
                        pick<norm::policy, norm::rms, Ps...>, pick<tie::policy, tie::tied, Ps...>,
                        typename pick_storage<Ps...>::type, pick<kv::policy, kv::exact, Ps...>>;
};
}  // namespace detail

/// A T5 encoder-decoder: numbers from `Shape`, choices from policies in any order. Defaults are
/// version 1.0: ReLU feed-forward, full attention, RMSNorm, tied head, f32. Version 1.1 is
/// t5<shape, ffn::gated_gelu, tie::untied>.
template <t5_shape Shape, class... Policies>
using t5 = typename detail::make_t5<Shape, Policies...>::type;

LINNET_NAMESPACE_END
/// @file
/// The special token ids of T5's vocabularies.

LINNET_NAMESPACE_BEGIN

/// A vocabulary in T5's order: 0 pads, 1 ends a text, 2 is unknown, the last ids are the sentinels
/// that stand for masked text, counting down (zoo A9): `<extra_id_0>` is 32099 of T5's 32100.
struct t5_ids {
  static constexpr token padding = 0, end = 1, unknown = 2;

  index vocabulary = 32100;  ///< ids, sentinels included
  index sentinels = 100;     ///< of these, the last ones

  /// The `k`-th sentinel, k in [0, sentinels).
  constexpr token sentinel(index k) const { return static_cast<token>(vocabulary - 1 - k); }
  /// Whether `id` is a sentinel.
  constexpr bool is_sentinel(token id) const {
    return id >= vocabulary - sentinels && id < vocabulary;
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// What a stream of T5 examples makes room for.
struct example_limits {
  index batch = 1;   ///< examples at a time
  index source = 0;  ///< longest source in tokens, end included
  index target = 0;  ///< longest target in tokens, end included
};

namespace detail {

/// Sources and labels of a batch, allocated once for the largest.
class batch_arrays {
 public:
  explicit batch_arrays(const example_limits& l)
      : source_(static_cast<std::size_t>(l.batch * l.source)),
        labels_(static_cast<std::size_t>(l.batch * l.target)),
        lengths_(static_cast<std::size_t>(l.batch)) {}

  /// Begins a batch of `batch` rows of these lengths, within the limits.
  void begin(index batch, index source, index target) {
    batch_ = batch;
    source_length_ = source;
    target_length_ = target;
  }
  /// Row `b` of the sources, to be written from its start.
  std::span<token> source(index b) { return row(source_, b, source_length_); }
  /// Row `b` of the labels, to be written from its start.
  std::span<token> labels(index b) { return row(labels_, b, target_length_); }
  /// Pads row `b` behind the tokens that were written.
  void pad(index b, index source_tokens, index target_tokens) {
    const auto s = source(b), l = labels(b);
    std::fill(s.begin() + source_tokens, s.end(), t5_ids::padding);
    std::fill(l.begin() + target_tokens, l.end(), ignored);
    lengths_[static_cast<std::size_t>(b)] = source_tokens;
  }
  /// The batch, valid until the next begin().
  t5_batch view() const {
    return {source_.data(), lengths_.data(), labels_.data(),
            batch_,         source_length_,  target_length_};
  }

 private:
  static std::span<token> row(std::vector<token>& of, index b, index length) {
    return std::span(of).subspan(static_cast<std::size_t>(b * length),
                                 static_cast<std::size_t>(length));
  }
  std::vector<token> source_, labels_;  ///< [batch, length]
  std::vector<index> lengths_;          ///< [batch]
  index batch_ = 0, source_length_ = 0, target_length_ = 0;
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// T5's unsupervised objectives (Raffel et al. 2020; zoo A9) on token ids: masked runs of a text
/// become sentinels in the source, and the target says what stood there.

/// @file
/// Errors as values: what went wrong, where, what was expected and what was found.

#include <optional>
#include <variant>

LINNET_NAMESPACE_BEGIN

/// The kind of a failure, for programs that branch on it.
enum class errc {
  io,             ///< a file could not be opened, read or written
  malformed,      ///< bytes that do not follow the format
  unsupported,    ///< well-formed, but a version or type linnet does not read
  mismatch,       ///< valid, but it does not fit the compile-time model
  missing,        ///< a tensor or field that the model needs is absent
  out_of_memory,  ///< an allocation failed
  invalid         ///< an argument outside its range
};

/// One failure: where it happened, what it concerns, what was expected and what was found.
struct error {
  errc code = errc::invalid;
  std::string where;     ///< file or function
  std::string what;      ///< tensor, field or argument
  std::string expected;  ///< the value or rule that would have been right
  std::string got;       ///< the value that was found

  /// One line for people: `where: what: expected …, got …`.
  std::string message() const {
    std::string line = where;
    if (!what.empty()) line += (line.empty() ? "" : ": ") + what;
    if (!expected.empty()) line += ": expected " + expected;
    if (!got.empty()) line += (expected.empty() ? ": got " : ", got ") + got;
    return line;
  }
};

namespace detail {
/// Foreign text for a message: cut to 60 bytes, nothing but printable ASCII.
inline std::string printable(std::string_view text) {
  std::string shown(text.substr(0, 60));
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return text.size() > 60 ? shown + "..." : shown;
}
}  // namespace detail

/// A value of type `T`, or the error that prevented it. No exceptions are involved; reading the
/// value of a failed result is a programming error (an assertion).
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  result(linnet::error failure) : state_(std::in_place_index<1>, std::move(failure)) {}

  /// Whether a value is there.
  explicit operator bool() const { return state_.index() == 0; }
  /// The value; asserts that there is one.
  T& value() & { return *operator->(); }
  /// @copydoc value()
  const T& value() const& { return *operator->(); }
  /// Moves the value out.
  T value() && { return std::move(*operator->()); }
  /// The value; asserts that there is one.
  T& operator*() & { return *operator->(); }
  /// @copydoc operator*()
  const T& operator*() const& { return *operator->(); }
  /// Moves the value out.
  T operator*() && { return std::move(*operator->()); }
  /// Access to the value's members.
  T* operator->() {
    T* const held = std::get_if<0>(&state_);
    assert(held && "linnet::result: value() of a failed result; test it first");
    return held;
  }
  /// @copydoc operator->()
  const T* operator->() const { return const_cast<result*>(this)->operator->(); }
  /// The failure; only when there is no value.
  const linnet::error& error() const {
    const linnet::error* const failure = std::get_if<1>(&state_);
    assert(failure && "linnet::result: error() of a successful result");
    return *failure;
  }

 private:
  std::variant<T, linnet::error> state_;
};

/// Success without a value, or an error: the result of functions that only do something.
template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(linnet::error failure) : failure_(std::move(failure)) {}
  /// Whether it succeeded.
  explicit operator bool() const { return !failure_; }
  /// The failure; only when there is one.
  const linnet::error& error() const {
    assert(failure_ && "linnet::result: error() of a successful result");
    return *failure_;
  }

 private:
  std::optional<linnet::error> failure_;
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// How tokens are chosen to be masked.
enum class masking {
  spans,       ///< span corruption: a fixed share of the tokens, in a fixed number of runs
  independent  ///< i.i.d. denoising: each token by itself
};

/// Tokens of a source and its target, end included.
struct denoised_lengths {
  index source = 0;
  index target = 0;
};

/// A denoising objective.
struct denoising {
  masking mask = masking::spans;
  double density = 0.15;  ///< share of tokens to mask, above 0 and at most 0.95
  double mean_span = 3;   ///< mean length of a masked run, 1 to 1e6; masking::spans alone

  /// Masked tokens and runs of span corruption.
  struct noise {
    index tokens, runs;
  };
  /// Those of a text of `length` >= 2 tokens. Rounds to even in float, as the reference does.
  constexpr noise noise_of(index length) const {
    const double share = static_cast<float>(density), span = static_cast<float>(mean_span);
    const index tokens =
        (std::clamp)(round(static_cast<double>(length) * share), index{1}, length - 1);
    const index runs = round(static_cast<double>(tokens) / span);
    return {tokens, (std::clamp)(runs, index{1}, (std::min)(tokens, length - tokens))};
  }
  /// Lengths for a text of `length` >= 2 tokens: exact for span corruption. Of i.i.d. denoising
  /// the longest possible source, and a target that is too short once in a thousand million texts:
  /// its mean and six standard deviations, or rather more.
  constexpr denoised_lengths lengths(index length) const {
    if (mask == masking::spans) {
      const noise n = noise_of(length);
      return {length - n.tokens + n.runs + 1, n.tokens + n.runs + 1};
    }
    const double tokens = static_cast<double>(length) * density;
    const double deviation = std::sqrt(tokens * (1 - density));  // each may bring a sentinel
    const auto target = static_cast<index>(tokens * (2 - density) + 12 * deviation) + 3;
    return {length + 1, (std::min)(target, 2 * length + 1)};
  }
  /// The longest text whose source has at most `source` >= 4 tokens: 568 for 512.
  constexpr index raw_length(index source) const {
    index length = source - 1;
    while (lengths(length + 1).source <= source) ++length;
    return length;
  }
  /// Whether the numbers are in their ranges.
  bool valid() const {
    return is_finite(density) && is_finite(mean_span) && density > 0 && density <= 0.95 &&
           mean_span >= 1 && mean_span <= 1e6;
  }

 private:
  /// Products and quotients of floats, computed in double and made floats here: the same whether or
  /// not a compiler contracts them with what follows.
  static constexpr index round(double exact) {
    const auto x = static_cast<float>(exact);
    const auto whole = static_cast<index>(x);
    const float rest = x - static_cast<float>(whole);
    return whole + (rest > 0.5f || (rest == 0.5f && whole % 2 != 0));
  }
};

namespace detail {

/// `total` cut into `parts` positive numbers, each way to do so equally likely; one after another,
/// without memory.
class random_parts {
 public:
  random_parts(index total, index parts, random_stream random)
      : gaps_(total - 1), cuts_(parts - 1), random_(random) {}
  index next() {
    for (index length = 1;; ++length) {
      if (gaps_ == 0) return length;
      const bool cut = random_.below(static_cast<std::uint32_t>(gaps_--)) < cuts_;
      if (!cut) continue;
      --cuts_;
      return length;
    }
  }

 private:
  index gaps_, cuts_;  ///< left: places between tokens, and those of them to be cut
  random_stream random_;
};

}  // namespace detail

/// Writes the source and the target of `text`: pieces kept and masked alternate; masked run k
/// becomes sentinel k in the source, the target has sentinel k and the run; both end with `end`.
/// The masks depend on `key` and the text's length only.
///
/// i.i.d. denoising masks no more where the target has no room or the sentinels are used up.
/// @return the tokens written; zeros, and nothing written, for a text below two tokens or spans
/// without room for the lengths that `how` says or enough sentinels.
inline denoised_lengths denoise(const denoising& how, const t5_ids& ids,
                                std::span<const token> text, seed key, std::span<token> source,
                                std::span<token> target) {
  const index length = std::ssize(text);
  const bool spans = how.mask == masking::spans;
  if (length < 2) return {};
  const denoising::noise noise = how.noise_of(length);
  const denoised_lengths room = spans ? how.lengths(length) : denoised_lengths{length + 1, 1};
  if (std::ssize(source) < room.source || std::ssize(target) < room.target ||
      (spans && noise.runs > ids.sentinels))
    return {};

  denoised_lengths done;
  const auto put = [](std::span<token> to, index& n, token id) {
    to[static_cast<std::size_t>(n++)] = id;
  };
  random_stream random(key, 2);
  detail::random_parts kept(length - noise.tokens, noise.runs, random_stream(key, 0)),
      masked(noise.tokens, noise.runs, random_stream(key, 1));
  index left = spans ? kept.next() : 0, runs = 0;
  bool inside = false;  // a masked run
  for (const token id : text) {
    bool mask = inside;
    if (spans) {
      if (left == 0) {
        mask = !inside;
        left = (mask ? masked : kept).next();
      }
      --left;
    } else {
      const index needs = inside ? 2 : 3;  // the token, the end and, of a new run, the sentinel
      mask = random.uniform() < how.density && done.target + needs <= std::ssize(target) &&
             (inside || runs < ids.sentinels);
    }
    if (mask && !inside) {
      put(source, done.source, ids.sentinel(runs));
      put(target, done.target, ids.sentinel(runs++));
    }
    inside = mask;
    if (mask)
      put(target, done.target, id);
    else
      put(source, done.source, id);
  }
  put(source, done.source, t5_ids::end);
  put(target, done.target, t5_ids::end);
  return done;
}

/// The inverse: the text whose masked runs `target` gives. Reads both up to their first `end`, the
/// target also up to the first `ignored`. Errors: errc::mismatch for sentinels that do not stand in
/// order in both, as in a model's own wrong prediction.
inline result<std::vector<token>> splice(const t5_ids& ids, std::span<const token> source,
                                         std::span<const token> target) {
  const auto wrong = [](const char* what, token expected, std::string got) {
    return error{errc::mismatch, "splice", what, std::to_string(expected), std::move(got)};
  };
  const auto ends = [&](std::span<const token> of, std::size_t i) {
    return i >= of.size() || of[i] == t5_ids::end || of[i] == ignored;
  };
  std::vector<token> text;
  std::size_t from = 0;  // place in the target
  index runs = 0;
  for (std::size_t i = 0; !ends(source, i); ++i) {
    if (!ids.is_sentinel(source[i])) {
      text.push_back(source[i]);
      continue;
    }
    const token next = ids.sentinel(runs++);
    if (source[i] != next) return wrong("sentinel of the source", next, std::to_string(source[i]));
    if (ends(target, from) || target[from] != next)
      return wrong("sentinel of the target", next,
                   ends(target, from) ? "its end" : std::to_string(target[from]));
    for (++from; !ends(target, from) && !ids.is_sentinel(target[from]); ++from)
      text.push_back(target[from]);
  }
  if (!ends(target, from))
    return wrong("the target behind the last run", t5_ids::end, std::to_string(target[from]));
  return text;
}

LINNET_NAMESPACE_END
/// @file
/// The order in which training sees its examples, as arithmetic: nothing is shuffled or kept, so
/// one number says where a run stands, and a run resumes or splits exactly.

LINNET_NAMESPACE_BEGIN

/// A pseudo-random permutation of [0, size) without memory: a Feistel network of eight rounds with
/// philox as its round function (Luby and Rackoff 1988), on the smallest power of four that holds
/// the numbers; results outside are permuted again until they fall inside (cycle walking, fewer
/// than four times on average).
class permutation {
 public:
  /// The permutation number `stream` of a seed.
  constexpr permutation(std::uint64_t size, seed key, std::uint64_t stream)
      : size_(size), key_(key.value), stream_(stream) {
    while (half_ < 32 && (std::uint64_t{1} << 2 * half_) < size) ++half_;
  }
  /// Where `i` < size goes.
  constexpr std::uint64_t operator()(std::uint64_t i) const {
    assert(i < size_ && "linnet::permutation: a number outside of [0, size)");
    do i = once(i);
    while (i >= size_);
    return i;
  }

 private:
  constexpr std::uint64_t once(std::uint64_t x) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_) - 1;
    std::uint64_t left = x >> half_, right = x & mask;
    for (std::uint64_t round = 0; round < 8; ++round) {
      const std::uint64_t mixed = left ^ (philox(key_, stream_, round << 32 | right)[0] & mask);
      left = right;
      right = mixed;
    }
    return left << half_ | right;
  }

  std::uint64_t size_, key_, stream_;
  int half_ = 1;  ///< bits of each half
};

/// The endless sequence of examples of a training run: epochs, each of which visits all of `size`
/// items once, in an order of its own.
class epochs {
 public:
  constexpr epochs(index size, seed key)
      : size_(static_cast<std::uint64_t>(size)), key_{key.value ^ stream_of("linnet::epochs")} {}
  /// The item of example number `i`.
  constexpr index operator()(std::uint64_t i) const {
    return static_cast<index>(permutation(size_, key_, i / size_)(i % size_));
  }

 private:
  std::uint64_t size_;
  seed key_;
};

LINNET_NAMESPACE_END
/// @file
/// Texts as one long row of tokens that can be read from any place: bytes directly, without a copy,
/// or what a tokenizer made of them.

/// @file
/// Bytes as tokens: no vocabulary file, no unknown words.

LINNET_NAMESPACE_BEGIN

/// One token per byte: id = byte + `offset`. Ids below the offset are special, and so are those
/// from offset + 256 on; they decode to nothing.
struct byte_tokenizer {
  token offset = 0;    ///< special ids before the bytes
  token specials = 0;  ///< special ids behind them

  /// ByT5's numbering: 0 padding, 1 end, 2 unknown, then the bytes.
  static constexpr byte_tokenizer byt5() { return {3, 0}; }
  /// ByT5's numbering with sentinels behind the bytes: `vocabulary` ids in all, at least 259.
  static constexpr byte_tokenizer t5(index vocabulary = 384) {
    return {3, static_cast<token>(vocabulary - 259)};
  }
  /// What stands where in a vocabulary from t5().
  constexpr t5_ids ids() const { return {vocabulary(), specials}; }
  /// ByT5's special ids.
  static constexpr token padding = 0, end = 1, unknown = 2;

  /// Number of ids.
  constexpr index vocabulary() const { return offset + 256 + specials; }
  /// The id of the `i`-th special token behind the bytes.
  constexpr token special(token i) const { return offset + 256 + i; }
  /// The ids of a text's bytes.
  std::vector<token> encode(std::string_view text) const {
    std::vector<token> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + offset);
    return ids;
  }
  /// The byte of an id, or "" for a special one. `previous`, which other tokenizers need, is
  /// unused.
  std::string decode([[maybe_unused]] token previous, token id) const {
    return id >= offset && id < offset + 256 ? std::string(1, static_cast<char>(id - offset))
                                             : std::string();
  }
  /// The bytes of several ids, special ones left out.
  template <class Tokens>
  std::string decode(const Tokens& ids) const {
    std::string text;
    for (const token id : ids) text += decode(0, id);
    return text;
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Calls f(document) for the documents of each text, those between `separator` that are not empty;
/// the whole text where the separator is empty. A text's end is also the end of a document.
template <class F>
void each_document(std::span<const std::string_view> texts, std::string_view separator, F&& f) {
  for (std::string_view text : texts)
    while (!text.empty()) {
      const std::size_t n = separator.empty() ? text.npos : text.find(separator);
      const std::string_view document = text.substr(0, n);
      if (!document.empty()) f(document);
      text.remove_prefix(n == text.npos ? text.size() : n + separator.size());
    }
}
}  // namespace detail

/// Texts that somebody else keeps (a `corpus`), read as bytes: token = byte + 3 in ByT5's way. Two
/// numbers per document are all that is held, so texts may be larger than memory.
class byte_source {
 public:
  /// The texts one behind the other. With a separator, such as an empty line "\n\n", each document
  /// is followed by `end` in its place, runs of separators counting once; this reads all texts
  /// through, once.
  explicit byte_source(std::span<const std::string_view> texts, std::string_view separator = {},
                       byte_tokenizer tokens = byte_tokenizer::t5())
      : tokens_(tokens), marked_(separator.empty() ? 0 : 1) {
    detail::each_document(texts, separator, [&](std::string_view document) {
      documents_.push_back({document, size_});
      size_ += std::ssize(document) + marked_;
    });
  }
  /// The special ids.
  t5_ids ids() const { return tokens_.ids(); }
  /// Number of tokens.
  index size() const { return size_; }
  /// Number of documents; of texts that are not empty where there is no separator.
  index documents() const { return std::ssize(documents_); }
  /// Writes tokens [first, first + out.size()), which must exist.
  void read(index first, std::span<token> out) const {
    auto from = std::upper_bound(documents_.begin(), documents_.end(), first,
                                 [](index i, const place& p) { return i < p.first; });
    if (!out.empty()) --from;
    for (std::size_t i = 0; i < out.size(); ++from) {
      const auto skip = static_cast<std::size_t>(first + static_cast<index>(i) - from->first);
      for (std::size_t j = skip; j < from->text.size() && i < out.size(); ++j)
        out[i++] = static_cast<unsigned char>(from->text[j]) + tokens_.offset;
      if (marked_ == 1 && i < out.size()) out[i++] = t5_ids::end;
    }
  }

 private:
  struct place {
    std::string_view text;
    index first;  ///< its first token
  };
  std::vector<place> documents_;
  byte_tokenizer tokens_;
  index marked_, size_ = 0;
};

/// Tokens that somebody else keeps: what tokenize() made, or such an array in a mapped file.
class token_source {
 public:
  token_source(std::span<const token> tokens, t5_ids ids) : tokens_(tokens), ids_(ids) {}
  /// The special ids.
  t5_ids ids() const { return ids_; }
  /// Number of tokens.
  index size() const { return std::ssize(tokens_); }
  /// Writes tokens [first, first + out.size()), which must exist.
  void read(index first, std::span<token> out) const {
    std::copy_n(tokens_.begin() + first, out.size(), out.begin());
  }

 private:
  std::span<const token> tokens_;
  t5_ids ids_;
};

/// All texts as tokens, by a callable encode(std::string_view) that returns a range of them; with a
/// separator, `end` behind each document as in byte_source. For any tokenizer.
template <class Encode>
std::vector<token> tokenize(std::span<const std::string_view> texts, std::string_view separator,
                            Encode&& encode) {
  std::vector<token> all;
  detail::each_document(texts, separator, [&](std::string_view document) {
    for (const token id : encode(document)) all.push_back(id);
    if (!separator.empty()) all.push_back(t5_ids::end);
  });
  return all;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Example i of a text, for every i: a pure function of (seed, i). Nothing depends on what was
/// asked for before, so a cursor is one integer, a run resumes exactly, and worker r of n trains on
/// examples n B t + r B + [0, B) in step t.
///
/// A text is cut into windows of raw_length() tokens, packed: they run over the ends of documents.
/// Each epoch visits every window once, in an order of its own and with masks of its own; the last
/// window may be shorter.
///
/// `Source` has `size()`, `ids()` and `read(first, span<token>)`: byte_source, token_source or your
/// own. What it views must outlive the stream.
template <class Source = byte_source>
class denoising_stream {
 public:
  /// A stream with memory for its batches. `l.target` may be 0 for as much as the objective needs.
  /// Errors: errc::invalid, for an objective, lengths or sentinels that do not fit each other, or
  /// fewer than two tokens of text.
  static result<denoising_stream> open(Source text, const denoising& how, example_limits l,
                                       seed key) {
    const auto wrong = [](std::string what, std::string expected, auto got) {
      return error{errc::invalid, "denoising_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (!how.valid())
      return wrong("noise density", "above 0, at most 0.95, and mean spans from 1 to 1e6",
                   how.density);
    if (l.batch < 1) return wrong("batch", "at least 1", l.batch);
    if (l.source < 4) return wrong("source", "at least 4 tokens", l.source);
    if (text.size() < 2) return wrong("tokens of text", "at least 2", text.size());
    const index raw = how.raw_length(l.source);
    const index needs = how.lengths(raw).target;
    if (l.target == 0) l.target = needs;
    const index least = how.mask == masking::spans ? needs : 3;
    if (l.target < least)
      return wrong("target", "at least " + std::to_string(least) + " tokens", l.target);
    const index runs = how.mask == masking::spans ? how.noise_of(raw).runs : 1;
    if (text.ids().sentinels < runs)
      return wrong("sentinels of the vocabulary", "at least " + std::to_string(runs),
                   text.ids().sentinels);
    return denoising_stream(std::move(text), how, l, key, raw);
  }

  /// Tokens of a window: 568 for sources of 512.
  index raw_length() const { return std::ssize(raw_); }
  /// Longest target, and the batch and sources as asked for.
  const example_limits& planned() const { return limits_; }
  /// Examples per epoch.
  index epoch() const { return windows_; }
  /// First token of the window of example `i`.
  index window(std::uint64_t i) const { return order_(i) * raw_length(); }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  t5_batch batch(std::uint64_t first) {
    arrays_.begin(limits_.batch, limits_.source, limits_.target);
    for (index b = 0; b < limits_.batch; ++b) {
      const std::uint64_t i = first + static_cast<std::uint64_t>(b);
      const index at = window(i);
      const auto raw = std::span(raw_).first(
          static_cast<std::size_t>((std::min)(raw_length(), text_.size() - at)));
      text_.read(at, raw);
      const auto words = philox(key_.value, stream_of("linnet::denoising_stream"), i);
      const seed key{std::uint64_t{words[1]} << 32 | words[0]};
      const denoised_lengths n =
          denoise(how_, text_.ids(), raw, key, arrays_.source(b), arrays_.labels(b));
      arrays_.pad(b, n.source, n.target);
    }
    return arrays_.view();
  }

 private:
  denoising_stream(Source text, const denoising& how, const example_limits& l, seed key, index raw)
      : text_(std::move(text)),
        how_(how),
        limits_(l),
        key_(key),
        windows_((text_.size() - 2) / raw + 1),  // one token alone at the end is no window
        order_(windows_, key),
        raw_(static_cast<std::size_t>(raw)),
        arrays_(l) {}

  Source text_;
  denoising how_;
  example_limits limits_;
  seed key_;
  index windows_;
  epochs order_;
  std::vector<token> raw_;  ///< one window
  detail::batch_arrays arrays_;
};

LINNET_NAMESPACE_END
/// @file
/// Classification tasks of GLUE (Wang et al. 2019) as text, in T5's words (zoo A12).

/// @file
/// Text-to-text examples, such as those of a fine-tuning task, as T5 batches.

LINNET_NAMESPACE_BEGIN

/// One example as text.
struct text_pair {
  std::string input, target;
};

/// Example i of a list of pairs, for every i, as a pure function of (seed, i): each epoch visits
/// every pair once in an order of its own, and a cursor is one integer. All tokens are made once,
/// by open().
class pair_stream {
 public:
  /// Encodes all pairs with a callable encode(std::string_view) that returns a range of tokens, and
  /// puts `end` behind each text. An input that is too long loses its end. Errors: errc::invalid
  /// for limits below one batch or one token and the end, no pairs, or a target that is too long:
  /// it is never cut.
  template <class Encode>
  static result<pair_stream> open(std::span<const text_pair> pairs, Encode&& encode,
                                  const example_limits& l, seed key) {
    const auto wrong = [](std::string what, std::string expected, index got) {
      return error{errc::invalid, "pair_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (l.batch < 1) return wrong("batch", "at least 1", l.batch);
    if (l.source < 2) return wrong("source", "at least 2 tokens", l.source);
    if (pairs.empty()) return wrong("pairs", "at least 1", 0);
    pair_stream made(std::ssize(pairs), l, key);
    for (const text_pair& pair : pairs) {
      made.append(encode(std::string_view(pair.input)), l.source - 1);
      const index target = made.append(encode(std::string_view(pair.target)), -1);
      if (target > l.target)
        return wrong("target of pair " + std::to_string(made.places_.size() / 2 - 1),
                     "at most " + std::to_string(l.target) + " tokens, the end included", target);
    }
    return made;
  }

  /// Pairs per epoch.
  index epoch() const { return static_cast<index>(places_.size() / 2); }
  /// The pair that is example `i`.
  index pair(std::uint64_t i) const { return order_(i); }

  /// Examples first, first + 1, … of the endless sequence. The rows are as long as the longest of
  /// the batch. Valid until the next call; allocates nothing.
  t5_batch batch(std::uint64_t first) {
    return fill(limits_.batch,
                [&](index b) { return pair(first + static_cast<std::uint64_t>(b)); });
  }
  /// Pairs first, first + 1, … as they were given, fewer at the end; for evaluation.
  t5_batch in_order(index first) {
    return fill((std::min)(limits_.batch, epoch() - first), [&](index b) { return first + b; });
  }

 private:
  struct place {
    index first, size;
  };
  pair_stream(index pairs, const example_limits& l, seed key)
      : limits_(l), order_(pairs, key), arrays_(l) {}

  /// Adds a text and its end, cut to `longest` tokens and the end if that is not negative.
  template <class Tokens>
  index append(const Tokens& text, index longest) {
    const index first = std::ssize(tokens_);
    for (const token id : text) {
      if (std::ssize(tokens_) - first == longest) break;
      tokens_.push_back(id);
    }
    tokens_.push_back(t5_ids::end);
    places_.push_back({first, std::ssize(tokens_) - first});
    return places_.back().size;
  }
  std::span<const token> text(index i) const {
    const place& p = places_[static_cast<std::size_t>(i)];
    return std::span(tokens_).subspan(static_cast<std::size_t>(p.first),
                                      static_cast<std::size_t>(p.size));
  }
  template <class Pair>
  t5_batch fill(index count, Pair&& pair) {
    index source = 1, target = 1;
    for (index b = 0; b < count; ++b) {
      source = (std::max)(source, std::ssize(text(2 * pair(b))));
      target = (std::max)(target, std::ssize(text(2 * pair(b) + 1)));
    }
    arrays_.begin(count, source, target);
    for (index b = 0; b < count; ++b) {
      const auto s = text(2 * pair(b)), t = text(2 * pair(b) + 1);
      std::copy(s.begin(), s.end(), arrays_.source(b).begin());
      std::copy(t.begin(), t.end(), arrays_.labels(b).begin());
      arrays_.pad(b, std::ssize(s), std::ssize(t));
    }
    return arrays_.view();
  }

  std::vector<token> tokens_;
  std::vector<place> places_;  ///< input and target of each pair
  example_limits limits_;
  epochs order_;
  detail::batch_arrays arrays_;
};

LINNET_NAMESPACE_END
/// @file
/// Tables in text files: tab-separated values, and comma-separated ones with quotes (RFC 4180).

LINNET_NAMESPACE_BEGIN

/// How a table is written. Lines end with LF or CR LF, the last one with nothing too.
struct table_format {
  char delimiter = '\t';
  bool quoted = false;  ///< fields may stand in double quotes and then hold anything
  bool header = true;   ///< the first row names the columns

  /// Tab-separated values as GLUE has them: quotes mean nothing.
  static constexpr table_format tsv(bool header = true) { return {'\t', false, header}; }
  /// Comma-separated values.
  static constexpr table_format csv(bool header = true) { return {',', true, header}; }
};

/// Rows of equally many text fields, each row with the line of the file where it begins.
class table {
 public:
  /// A table without rows. `where` names the file in errors.
  explicit table(std::string where, std::vector<std::string> names = {})
      : where_(std::move(where)), names_(std::move(names)), columns_(std::ssize(names_)) {}

  /// Parses a file held in memory; a UTF-8 byte order mark is left out. Errors: errc::malformed,
  /// naming file and line, for rows of different lengths and misplaced quotes.
  static result<table> parse(std::string_view text, const table_format& format,
                             const std::string& where = "table");

  /// Number of rows, without a header.
  index rows() const { return std::ssize(lines_); }
  /// Number of columns.
  index columns() const { return columns_; }
  /// The field of a row and a column.
  std::string_view at(index row, index column) const {
    const auto i = static_cast<std::size_t>(row * columns_ + column);
    const std::size_t first = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(first, ends_[i] - first);
  }
  /// The line of the file where a row begins, from 1.
  index line(index row) const { return lines_[static_cast<std::size_t>(row)]; }
  /// The number of the column of that name. Errors: errc::missing.
  result<index> column(std::string_view name) const {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found != names_.end()) return static_cast<index>(found - names_.begin());
    std::string all;
    for (const std::string& n : names_) all += (all.empty() ? "" : ", ") + n;
    return error{errc::missing, where_, "column " + std::string(name), "one of that name",
                 all.empty() ? "no header" : detail::printable(all)};
  }
  /// What is wrong with a field.
  error wrong(index row, std::string what, std::string expected, std::string_view got) const {
    return wrong_at(lines_[static_cast<std::size_t>(row)], std::move(what), std::move(expected),
                    detail::printable(got));
  }

  /// Adds a field to the last, unfinished row.
  void append(std::string_view field) {
    text_ += field;
    ends_.push_back(text_.size());
  }
  /// Finishes a row that began at this line. Errors: errc::malformed, for a row that is not as long
  /// as the others.
  result<void> end_row(index line) {
    const auto fields = static_cast<index>(ends_.size()) - rows() * columns_;
    if (columns_ == 0) columns_ = fields;
    if (fields != columns_)
      return wrong_at(line, "fields", std::to_string(columns_), std::to_string(fields));
    lines_.push_back(line);
    return {};
  }

 private:
  error wrong_at(index line, std::string what, std::string expected, std::string got) const {
    return {errc::malformed, where_ + ":" + std::to_string(line), std::move(what),
            std::move(expected), std::move(got)};
  }
  /// Makes the first row the header.
  void take_names() {
    for (index i = 0; i < columns_; ++i) names_.emplace_back(at(0, i));
    text_.clear();
    ends_.clear();
    lines_.clear();
  }

  std::string where_;
  std::vector<std::string> names_;
  std::string text_;               ///< all fields, one behind the other
  std::vector<std::size_t> ends_;  ///< of each field in the text
  std::vector<index> lines_;       ///< of each row
  index columns_;                  ///< 0 before the first row
};

inline result<table> table::parse(std::string_view text, const table_format& format,
                                  const std::string& where) {
  table made(where);
  index line = 1;
  const char stops[] = {format.delimiter, '\n'};
  const auto drop = [&](std::size_t n) { text.remove_prefix((std::min)(n, text.size())); };
  if (text.starts_with("\xef\xbb\xbf")) drop(3);
  for (bool first = true; !text.empty(); first = false) {
    const index row_line = line;
    for (bool more = true; more;) {
      const auto field = [&] {
        return "field " + std::to_string(std::ssize(made.ends_) - made.rows() * made.columns_ + 1);
      };
      if (format.quoted && text.starts_with('"')) {
        const index opened = line;
        drop(1);
        for (;;) {
          const std::size_t end = text.find('"');
          if (end == text.npos)
            return made.wrong_at(opened, field(), "a closing quote", "the end of the file");
          line += std::count(text.begin(), text.begin() + static_cast<index>(end), '\n');
          made.text_ += text.substr(0, end);
          drop(end + 1);
          if (!text.starts_with('"')) break;
          made.text_ += '"';  // a doubled one
          drop(1);
        }
        if (!text.empty() && text[0] != format.delimiter && text[0] != '\n' &&
            !text.starts_with("\r\n"))
          return made.wrong_at(line, field(), "a delimiter or a line's end behind the quote",
                               detail::printable(text.substr(0, 1)));
        made.append("");
      } else {
        const std::size_t end = (std::min)(text.find_first_of({stops, 2}), text.size());
        std::string_view plain = text.substr(0, end);
        if (text.substr(end).starts_with('\n') && plain.ends_with('\r')) plain.remove_suffix(1);
        if (format.quoted && plain.find('"') != plain.npos)
          return made.wrong_at(line, field(), "no quote inside a field without quotes",
                               detail::printable(plain));
        made.append(plain);
        drop(plain.size());
      }
      more = text.starts_with(format.delimiter);
      if (more) drop(1);
    }
    drop(text.starts_with('\r') ? 2 : 1);
    ++line;
    if (auto row = made.end_row(row_line); !row) return row.error();
    if (first && format.header) made.take_names();
  }
  return made;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A classification task: what stands before its inputs, and the text of each class.
struct text_task {
  std::string_view name;
  std::span<const std::string_view> labels;

  /// The class of a label's text, or -1.
  index class_of(std::string_view label) const {
    const auto found = std::find(labels.begin(), labels.end(), label);
    return found == labels.end() ? -1 : found - labels.begin();
  }
};

namespace glue {

namespace detail {
inline constexpr std::array<std::string_view, 2> sst2{"negative", "positive"},
    cola{"unacceptable", "acceptable"};
inline constexpr std::array<std::string_view, 3> mnli{"entailment", "neutral", "contradiction"};
}  // namespace detail

/// Sentiment of a sentence: class 1 is "positive".
inline constexpr text_task sst2{"sst2", detail::sst2};
/// Whether a sentence is acceptable English: class 1 is "acceptable".
inline constexpr text_task cola{"cola", detail::cola};
/// Whether a premise entails a hypothesis.
inline constexpr text_task mnli{"mnli", detail::mnli};

/// How files hold MNLI.
enum class mnli_layout {
  named,        ///< TSV with columns premise, hypothesis and gold_label among others
  label_first,  ///< TSV without header: label, premise, hypothesis
  question      ///< CSV with columns Question, both texts in a sentence around them, and Answer
};

namespace detail {

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t first = (std::min)(text.find_first_not_of(blanks), text.size());
  return text.substr(first, text.find_last_not_of(blanks) + 1 - first);
}

/// Pairs of the task `t` from all rows; input(row) gives a result<std::string>.
template <class Input>
result<std::vector<text_pair>> pairs_of(const table& rows, const text_task& t, index label,
                                        bool numbered, Input&& input) {
  std::vector<text_pair> all;
  for (index i = 0; i < rows.rows(); ++i) {
    std::string_view text = rows.at(i, label);
    if (numbered) text = text == "0" ? t.labels[0] : text == "1" ? t.labels[1] : "";
    if (t.class_of(text) < 0) {
      std::string expected = numbered ? "0, 1" : "";
      for (std::size_t c = 0; c < t.labels.size() && !numbered; ++c)
        (expected += c == 0 ? "" : ", ") += t.labels[c];
      return rows.wrong(i, "label", "one of " + expected, rows.at(i, label));
    }
    auto words = input(i);
    if (!words) return words.error();
    all.push_back({std::string(t.name) + *std::move(words), std::string(text)});
  }
  return all;
}

inline result<std::vector<text_pair>> sentences(const table& rows, const text_task& t,
                                                index sentence, index label) {
  return pairs_of(rows, t, label, true, [&](index i) {
    return result<std::string>(" sentence: " + std::string(trimmed(rows.at(i, sentence))));
  });
}

}  // namespace detail

/// SST-2: TSV with columns sentence and label (0 or 1). "sst2 sentence: …" -> "positive". White
/// space around texts is left out, here and below. Errors: errc::malformed, errc::missing.
inline result<std::vector<text_pair>> read_sst2(std::string_view text, const std::string& where) {
  const auto rows = table::parse(text, table_format::tsv(), where);
  if (!rows) return rows.error();
  const auto sentence = rows->column("sentence"), label = rows->column("label");
  if (!sentence) return sentence.error();
  if (!label) return label.error();
  return detail::sentences(*rows, sst2, *sentence, *label);
}

/// CoLA: TSV without header: source, label (0 or 1), the author's mark, sentence.
/// "cola sentence: …" -> "acceptable". Errors: errc::malformed.
inline result<std::vector<text_pair>> read_cola(std::string_view text, const std::string& where) {
  const auto rows = table::parse(text, table_format::tsv(false), where);
  if (!rows) return rows.error();
  if (rows->rows() > 0 && rows->columns() != 4)
    return rows->wrong(0, "fields", "4", std::to_string(rows->columns()));
  return detail::sentences(*rows, cola, 3, 1);
}

/// MNLI: "mnli hypothesis: … premise: …" -> "entailment". Errors: errc::malformed, errc::missing.
inline result<std::vector<text_pair>> read_mnli(std::string_view text, mnli_layout layout,
                                                const std::string& where) {
  const bool question = layout == mnli_layout::question, plain = layout == mnli_layout::label_first;
  const auto rows =
      table::parse(text, question ? table_format::csv() : table_format::tsv(!plain), where);
  if (!rows) return rows.error();
  if (plain && rows->rows() > 0 && rows->columns() != 3)
    return rows->wrong(0, "fields", "3", std::to_string(rows->columns()));
  const auto column = [&](const char* name, index otherwise) {
    return plain ? result<index>(otherwise) : rows->column(name);
  };
  const auto label = column(question ? "Answer" : "gold_label", 0),
             premise = column(question ? "Question" : "premise", 1),
             hypothesis = column(question ? "Question" : "hypothesis", 2);
  for (const auto* found : {&label, &premise, &hypothesis})
    if (!*found) return found->error();
  return detail::pairs_of(*rows, mnli, *label, false, [&](index i) -> result<std::string> {
    std::string_view p = rows->at(i, *premise), h = rows->at(i, *hypothesis);
    if (question) {
      constexpr std::string_view before = "For the statement, \"",
                                 between = "\", does the hypothesis \"",
                                 behind = "\" represent entailment, contradiction, or neutrality?";
      const std::size_t middle = p.find(between);
      if (!p.starts_with(before) || !p.ends_with(behind) || middle == p.npos ||
          middle < before.size() || middle + between.size() + behind.size() > p.size() ||
          p.find(between, middle + 1) != p.npos)
        return rows->wrong(
            i, "Question",
            std::string(before) + "…" + std::string(between) + "…" + std::string(behind), p);
      h = p.substr(middle + between.size(), p.size() - behind.size() - middle - between.size());
      p = p.substr(before.size(), middle - before.size());
    }
    return " hypothesis: " + std::string(detail::trimmed(h)) +
           " premise: " + std::string(detail::trimmed(p));
  });
}

}  // namespace glue

LINNET_NAMESPACE_END
/// @file
/// Classification with an encoder-decoder that answers in words (zoo A12), and how good it is.

/// @file
/// Inference: a session owns all mutable state of one running model and shares the constant packed
/// weights with any number of others.

/// @file
/// Who owns which block of a pool of key-value memory (Kwon et al. 2023, zoo D14).

LINNET_NAMESPACE_BEGIN

/// The blocks of simd::token_block tokens that sequences read and write: each has a table of them.
/// Sequences that continue one another share blocks until one of them writes into a block: then it
/// gets a copy. Memory is given once; nothing allocates.
class block_tables {
 public:
  block_tables() = default;
  /// Tables of `batch` sequences of up to `capacity` tokens over `blocks` blocks, all free.
  constexpr block_tables(arena& memory, index batch, index capacity, index blocks)
      : batch_(batch),
        size_(blocks_of(capacity)),
        blocks_(blocks),
        table_(memory.take<std::int32_t>(batch * size_)),
        used_(memory.take<index>(batch)),
        references_(memory.take<std::int32_t>(blocks)),
        free_(memory.take<std::int32_t>(blocks)) {}

  /// Blocks in each table.
  index size() const { return size_; }
  /// [batch, size()] blocks; those behind a sequence's tokens mean nothing.
  const std::int32_t* data() const { return table_; }
  /// Blocks that nobody uses.
  index available() const { return available_; }

  /// Frees all blocks.
  void reset() {
    std::fill_n(references_, blocks_, 0);
    std::fill_n(used_, batch_, index{0});
    for (index i = 0; i < blocks_; ++i) free_[i] = static_cast<std::int32_t>(blocks_ - 1 - i);
    available_ = blocks_;
  }
  /// Keeps the blocks of the first `tokens` tokens of a sequence, and frees the others.
  void truncate(index sequence, index tokens) {
    const index keep = blocks_of(tokens);
    while (used_[sequence] > keep) release(at(sequence, --used_[sequence]));
  }
  /// Sequence `to` shares all blocks of `from`.
  void share(index from, index to) {
    truncate(to, 0);
    for (index i = 0; i < used_[from]; ++i) {
      at(to, i) = at(from, i);
      ++references_[at(to, i)];
    }
    used_[to] = used_[from];
  }
  /// Makes room for tokens [past(b), past(b) + more(b)) of sequences b in [0, batch); calls
  /// copy(from, to) for each block that is no longer shared. False, and nothing done, where too few
  /// blocks are free.
  template <class Past, class More, class Copy>
  bool reserve(index batch, Past&& past, More&& more, Copy&& copy) {
    index needed = 0;
    for (index b = 0; b < batch; ++b)
      needed += (std::max)(blocks_of(past(b) + more(b)) - used_[b], index{0}) + shares(b, past(b));
    if (needed > available_) return false;
    for (index b = 0; b < batch; ++b) {
      // Others may have taken their copy meanwhile: then the block is this sequence's own.
      if (shares(b, past(b))) {
        std::int32_t& block = at(b, past(b) / simd::token_block);
        const std::int32_t shared = block;
        block = take();
        copy(index{shared}, index{block});
        release(shared);
      }
      while (used_[b] < blocks_of(past(b) + more(b))) at(b, used_[b]++) = take();
    }
    return true;
  }

 private:
  /// Blocks that hold so many tokens.
  static constexpr index blocks_of(index tokens) {
    return (tokens + simd::token_block - 1) / simd::token_block;
  }
  std::int32_t& at(index sequence, index i) const { return table_[sequence * size_ + i]; }
  /// Whether the block that the next token of a sequence goes into is somebody else's too.
  bool shares(index sequence, index past) const {
    const index i = past / simd::token_block;
    return i < used_[sequence] && references_[at(sequence, i)] > 1;
  }
  std::int32_t take() {
    const std::int32_t block = free_[--available_];
    references_[block] = 1;
    return block;
  }
  void release(std::int32_t block) {
    if (--references_[block] == 0) free_[available_++] = block;
  }

  index batch_ = 0, size_ = 0, blocks_ = 0, available_ = 0;
  std::int32_t* table_ = nullptr;
  index* used_ = nullptr;               ///< [batch] blocks of each table
  std::int32_t* references_ = nullptr;  ///< [blocks]
  std::int32_t* free_ = nullptr;        ///< [available]
};

LINNET_NAMESPACE_END
/// @file
/// Choosing the next token from logits: greedy; temperature with top-k, top-p, min-p and a
/// repetition penalty; and a caller's own changes of the logits before either.

#include <numeric>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Calls a sampler with as much as it wants to know.
template <class Sampler, class T>
token choose_token(Sampler& choose, std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Sampler&, std::span<T>, std::span<token>,
                                    std::span<const token>>)
    return choose(logits, scratch, so_far);
  else
    return choose(logits, scratch);
}

/// Calls a hook with as much as it wants to know.
template <class Hook, class T>
void apply_hook(Hook& hook, std::span<T> logits, std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Hook&, std::span<T>, std::span<const token>>)
    hook(logits, so_far);
  else
    hook(logits);
}

/// Index of a token in logits.
inline std::size_t slot(token t) { return static_cast<std::size_t>(t); }

/// The token that the number `u` of [0, 1) draws from weights of any sum.
inline token draw(std::span<const double> weights, double u) {
  const double mass = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    last = i;
    sum += weights[i];
    if (u * mass < sum) break;
  }
  return static_cast<token>(last);
}

}  // namespace detail

/// A sampler is called with the logits [vocabulary], which it may overwrite, a scratch list of
/// token ids of the same size and, if it takes a third argument, the tokens so far, prompt
/// included; it returns the chosen token. Write your own with the same call.
///
/// Speculative decoding (generate/speculative.hpp) asks more of it: `probabilities(logits, scratch,
/// so_far, out)`, the law that it draws from, and its random choices as `accept(probability)` and
/// `pick(weights)`.
///
/// Greedy: the most likely token; ties go to the lowest id (zoo I1).
struct greedy {
  template <class T>
  token operator()(std::span<T> logits, std::span<token>) const {
    // The first stretch that holds the maximum, then the place in it.
    constexpr std::size_t stretch = 1024;
    std::span<T> best = logits.first(1);
    simd::dispatch(simd::best(), [&](auto kernels) {
      using K = decltype(kernels);
      T most = logits[0];
      for (std::size_t i = 0; i < logits.size(); i += stretch) {
        const auto some = logits.subspan(i, (std::min)(stretch, logits.size() - i));
        const T m = K::template maximum<T>(std::ssize(some), some.data());
        if (i == 0 || m > most) most = m, best = some;
      }
    });
    return static_cast<token>(std::max_element(best.begin(), best.end()) - logits.begin());
  }

  /// All on the most likely token.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token>,
                     std::span<double> out) const {
    std::fill(out.begin(), out.end(), 0.0);
    out[detail::slot((*this)(logits, scratch))] = 1;
  }
  /// Nothing is left to chance: only what is certain is accepted.
  bool accept(double probability) const { return probability >= 1; }
  /// The heaviest weight; ties go to the lowest id.
  token pick(std::span<const double> weights) const {
    return static_cast<token>(std::max_element(weights.begin(), weights.end()) - weights.begin());
  }
};

/// What a `sampler` does, in this order: repetition penalty, temperature, top-k, top-p (zoo I2),
/// min-p.
struct sampling {
  double temperature = 1;  ///< logits are divided by it; 0 is greedy
  index top_k = 0;         ///< keep the k most likely tokens; 0 keeps all
  double top_p = 1;        ///< keep the smallest most likely set with at least this probability
  double min_p = 0;        ///< keep tokens at least this times as likely as the most likely one
                           ///< (Nguyen et al. 2024); 0 keeps all
  double repetition_penalty = 1;  ///< positive logits of tokens so far are divided by it, others
                                  ///< multiplied (Keskar et al. 2019); 1 changes none
  std::uint64_t seed = 0;         ///< of the random numbers
};

/// Draws a token from the (warped) distribution. One sampler is one sequence of random numbers.
class sampler {
 public:
  explicit sampler(const sampling& settings)
      : settings_(settings), random_(seed{settings.seed}, stream_of("sampler")) {}

  /// A token after the tokens `so_far`, which only the repetition penalty asks for.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> order,
                   std::span<const token> so_far = {}) {
    penalize(logits, order, so_far);
    if (settings_.temperature <= 0) return greedy{}(logits, order);
    const law l = warp(logits, order);
    double u = random_.uniform() * l.mass, sum = 0;
    for (index i = 0; i < l.kept; ++i) {
      sum += weight(logits, order, i);
      if (u < sum) return order[static_cast<std::size_t>(i)];
    }
    return order[static_cast<std::size_t>(l.kept - 1)];
  }

  /// The law that a token is drawn from: out[vocabulary], of sum 1, zero for what is not kept.
  /// Overwrites the logits; draws nothing.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> order, std::span<const token> so_far,
                     std::span<double> out) const {
    penalize(logits, order, so_far);
    if (settings_.temperature <= 0) return greedy{}.probabilities(logits, order, so_far, out);
    const law l = warp(logits, order);
    std::fill(out.begin(), out.end(), 0.0);
    for (index i = 0; i < l.kept; ++i)
      out[detail::slot(order[static_cast<std::size_t>(i)])] = weight(logits, order, i) / l.mass;
  }
  /// True with this probability.
  bool accept(double probability) { return fine_uniform() < probability; }
  /// A token with a probability in proportion to its weight.
  token pick(std::span<const double> weights) { return detail::draw(weights, fine_uniform()); }

 private:
  /// The first `kept` tokens of the order have weights of this sum; the others are out.
  struct law {
    index kept;
    double mass;
  };

  /// Uniform in [0, 1), 53 random bits: rare tokens keep their probability.
  double fine_uniform() {
    const double high = random_.bits() >> 5, low = random_.bits() >> 6;
    return (high * 0x1p26 + low) * 0x1p-53;
  }
  /// Each token so far once; `mark` is overwritten.
  template <class T>
  void penalize(std::span<T> logits, std::span<token> mark, std::span<const token> so_far) const {
    const double by = settings_.repetition_penalty;
    if (by == 1 || so_far.empty()) return;
    std::fill(mark.begin(), mark.end(), token{0});
    for (const token t : so_far) {
      if (mark[detail::slot(t)]++ != 0) continue;
      T& l = logits[detail::slot(t)];
      l = static_cast<T>(static_cast<double>(l) * (l > T(0) ? 1 / by : by));
    }
  }

  /// Turns logits into weights, the largest 1, and `order` into a list that starts with the tokens
  /// kept.
  template <class T>
  law warp(std::span<T> logits, std::span<token> order) const {
    const auto all = static_cast<index>(logits.size());
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double total = 0;
    for (T& l : logits) {
      l = static_cast<T>(std::exp((static_cast<double>(l) - largest) / settings_.temperature));
      total += static_cast<double>(l);
    }
    std::iota(order.begin(), order.end(), token{0});
    law kept{all, total};
    const bool cut_k = settings_.top_k > 0 && settings_.top_k < all, cut_p = settings_.top_p < 1;
    if (cut_k || cut_p) {
      const auto likelier = [&](token a, token b) {
        const T x = logits[detail::slot(a)], y = logits[detail::slot(b)];
        return x > y || (x == y && a < b);
      };
      if (cut_k) kept.kept = settings_.top_k;
      std::partial_sort(order.begin(), order.begin() + kept.kept, order.begin() + all, likelier);
      if (cut_k) kept.mass = sum_of(logits, order, kept.kept);
    }
    if (cut_p) {
      double sum = 0;
      index i = 0;
      while (i < kept.kept && (i == 0 || sum < settings_.top_p * kept.mass))
        sum += weight(logits, order, i++);
      kept = {i, sum};
    }
    if (settings_.min_p > 0) {
      const auto end = std::remove_if(order.begin(), order.begin() + kept.kept, [&](token t) {
        const auto w = static_cast<double>(logits[detail::slot(t)]);
        return w < 1 && w < settings_.min_p;
      });
      kept.kept = end - order.begin();
      kept.mass = sum_of(logits, order, kept.kept);
    }
    return kept;
  }
  template <class T>
  static double weight(std::span<T> weights, std::span<token> order, index i) {
    return static_cast<double>(weights[detail::slot(order[static_cast<std::size_t>(i)])]);
  }
  template <class T>
  static double sum_of(std::span<T> weights, std::span<token> order, index count) {
    double sum = 0;
    for (index i = 0; i < count; ++i) sum += weight(weights, order, i);
    return sum;
  }

  sampling settings_;
  random_stream random_;
};

/// A sampler with hooks before it: each is called with the logits, which it may change, and, if it
/// takes a second argument, the tokens so far; then the sampler chooses. A token whose logit a hook
/// makes very negative (-1e30) is never chosen while others are left. Sampler and hooks given by
/// name are referred to, temporaries are kept.
///
///     ln::processed choose(ln::greedy{}, [](std::span<float> logits) { logits[7] = -1e30f; });
template <class Sampler, class... Hooks>
class processed {
  static_assert(sizeof...(Hooks) > 0,
                "linnet::processed: give it a hook, or use the sampler alone");

 public:
  /// The sampler and the hooks, called in this order.
  template <class A, class... Rest>
  requires(sizeof...(Rest) == sizeof...(Hooks)) explicit processed(A&& sampler, Rest&&... hooks)
      : sampler_(std::forward<A>(sampler)), hooks_(std::forward<Rest>(hooks)...) {}

  /// The sampler's choice from the changed logits.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far = {}) {
    apply(logits, so_far);
    return detail::choose_token(sampler_, logits, scratch, so_far);
  }
  /// The sampler's law for the changed logits.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token> so_far,
                     std::span<double> out) {
    apply(logits, so_far);
    sampler_.probabilities(logits, scratch, so_far, out);
  }
  /// The sampler's.
  bool accept(double probability) { return sampler_.accept(probability); }
  /// The sampler's.
  token pick(std::span<const double> weights) { return sampler_.pick(weights); }

 private:
  template <class T>
  void apply(std::span<T> logits, std::span<const token> so_far) {
    std::apply([&](auto&... hook) { (detail::apply_hook(hook, logits, so_far), ...); }, hooks_);
  }

  Sampler sampler_;
  std::tuple<Hooks...> hooks_;
};
template <class Sampler, class... Hooks>
processed(Sampler&&, Hooks&&...) -> processed<Sampler, Hooks...>;

LINNET_NAMESPACE_END
/// @file
/// The planned memory of a session, evaluator or trainer: one block, sized at compile time if the
/// limits are constants.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Bytes of each kind of memory that model M plans for a purpose.
struct plan_sizes {
  index state = 0, keep = 0, scratch = 0, converted = 0;
  constexpr index total() const { return state + keep + scratch + converted; }
};
template <class S>
constexpr planner planner_for() {
  planner m;
  if constexpr (ops::converts<S>) m.converted_bytes = &ops::converted_bytes<S>;
  return m;
}
template <class M, class T, class S = storage_of<M, T>>
constexpr plan_sizes plan_for(const limits& l, purpose use) {
  planner m = planner_for<S>();
  (void)M::template plan<T>(m, l, use);
  return {m.state.peak(), m.keep.peak(), m.scratch.peak(), round_up(m.converted, alignment)};
}

/// The buffers of one layer, in memory of its own: for checks and benchmarks of layers alone.
/// Zeros.
template <class Layer, class T>
struct lone_buffers {
  memory_block state, keep, scratch;
  typename Layer::template cache<T> cache{};

  explicit lone_buffers(const extents& e) : lone_buffers(e, sizes_for(e)) {}
  /// Whether memory was there for what the layer needs.
  bool valid() const { return enough; }
  /// Bytes that a layer needs.
  static constexpr index bytes(const extents& e) {
    const planner sizes = sizes_for(e);
    return sizes.state.peak() + sizes.keep.peak() + sizes.scratch.peak();
  }

 private:
  static constexpr planner sizes_for(const extents& e) {
    planner sizes;
    (void)Layer::template plan<T>(sizes, e);
    return sizes;
  }
  lone_buffers(const extents& e, const planner& sizes)
      : state(sizes.state.peak()), keep(sizes.keep.peak()), scratch(sizes.scratch.peak()) {
    const auto short_of = [](const arena& a, const memory_block& b) {
      return a.peak() > 0 && b.data() == nullptr;
    };
    enough = !short_of(sizes.state, state) && !short_of(sizes.keep, keep) &&
             !short_of(sizes.scratch, scratch);
    if (!enough) return;
    planner m;
    m.state = arena(state.data(), state.size());
    m.keep = arena(keep.data(), keep.size());
    m.scratch = arena(scratch.data(), scratch.size());
    cache = Layer::template plan<T>(m, e);
  }
  bool enough = false;
};

/// The workspace of model M inside memory, and where its products round their inputs.
template <class M, class T>
struct placed_workspace {
  typename M::template workspace<T> work{};
  void* converted = nullptr;
};
/// Places the workspace in `memory`, which is zeroed and large enough.
template <class M, class T, class S = storage_of<M, T>>
placed_workspace<M, T> place_workspace(const limits& l, purpose use, void* memory) {
  const plan_sizes sizes = plan_for<M, T, S>(l, use);
  auto* const at = static_cast<std::byte*>(memory);
  planner m = planner_for<S>();
  m.state = arena(at, sizes.state);
  m.keep = arena(at + sizes.state, sizes.keep);
  m.scratch = arena(at + sizes.state + sizes.keep, sizes.scratch);
  placed_workspace<M, T> placed{M::template plan<T>(m, l, use),
                                at + sizes.state + sizes.keep + sizes.scratch};
  M::prepare(placed.work, l);
  return placed;
}

/// An error for limits that make no sense for model M, or nothing.
template <class M>
result<void> acceptable(const char* where, const limits& l) {
  const auto refuse = [&](const char* field, const char* rule, index got) {
    return linnet::error{errc::invalid, where, field, rule, std::to_string(got)};
  };
  if (l.batch < 1) return refuse("limits.batch", "at least 1", l.batch);
  if (l.threads < 1) return refuse("limits.threads", "at least 1", l.threads);
  if (l.blocks < 0) return refuse("limits.blocks", "0 (none shared) or more", l.blocks);
  if (l.blocks > 0 && M::cache::code == kv_code::int4)
    return refuse("limits.blocks", "0, as kv::int4 is not paged", l.blocks);
  if (l.chunk > 0 && l.logits > l.chunk)
    return refuse("limits.logits", "no more than limits.chunk", l.logits);
  if (l.chunk < 0) return refuse("limits.chunk", "0 (no parts) or a positive length", l.chunk);
  if (l.logits < 1) return refuse("limits.logits", "at least 1", l.logits);
  if constexpr (M::family == model_family::t5) {
    if (l.source < 1) return refuse("limits.source", "at least 1 source token", l.source);
    if (l.target < 1) return refuse("limits.target", "at least 1 target token", l.target);
    constexpr index longest = M::encoder_attention::longest;
    if (longest > 0 && l.source > longest)
      return refuse("limits.source", "no more tokens than the encoder's attention reads", l.source);
  } else {
    if (l.target < 0)
      return refuse("limits.target", "0 (the whole context) or a positive length", l.target);
    if (M::longest(l) > M::context_length && M::learned)
      return refuse("limits.target", "no more than the model's context", l.target);
  }
  return {};
}

inline linnet::error out_of_memory(const char* where, index bytes) {
  return {errc::out_of_memory, where, "memory", std::to_string(bytes) + " bytes",
          "a failed allocation"};
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// When generation ends.
struct generation {
  index tokens = 0;                  ///< most tokens to generate; 0 means as many as fit
  std::span<const token> stop = {};  ///< tokens that end it; they are not passed on

  /// Whether `t` is a stop token.
  bool stops(token t) const { return std::find(stop.begin(), stop.end(), t) != stop.end(); }
};

namespace detail {
/// Calls emit(t); false if it asks to end.
template <class Emit>
bool goes_on(Emit& emit, token t) {
  if constexpr (std::is_void_v<decltype(emit(t))>) {
    emit(t);
    return true;
  } else {
    return static_cast<bool>(emit(t));
  }
}
}  // namespace detail

/// Runs model `M` token by token with a key-value cache. A session is planned once for its limits;
/// afterwards nothing allocates. Not for use by two threads at once; open a second session instead.
template <class M, class T = float>
class session {
  using S = storage_of<M, T>;
  static constexpr bool encodes = M::family == model_family::t5;
  static constexpr bool continues() {
    if constexpr (encodes)
      return M::decoder_attention::continues;
    else
      return M::attention::continues;
  }
  static_assert(continues(),
                "linnet::session: this kind of attention cannot continue cached sequences, so the "
                "model cannot be run token by token; an evaluator scores whole sequences");

 public:
  using model = M;

  /// Exact bytes that a session with these limits allocates, or that a caller's memory must have.
  static constexpr index footprint(const limits& l) {
    return detail::plan_for<M, T>(l, purpose::decoding).total() + extra_bytes(l);
  }

  /// A session with memory of its own. `p` must outlive it.
  static result<session> open(const packed<M, T>& p, const limits& l) {
    if (auto fit = detail::acceptable<M>("session::open", l); !fit) return fit.error();
    if (!p.valid())
      return linnet::error{errc::invalid, "session::open", "packed weights", "valid weights",
                           "none"};
    memory_block memory(footprint(l));
    if (!memory.data()) return detail::out_of_memory("session::open", footprint(l));
    session s(p, l, memory.data(), private_tag{});
    s.own_ = std::move(memory);
    return s;
  }
  /// A session in the caller's zeroed memory of at least footprint(l) bytes, aligned to
  /// `alignment`. Cannot fail.
  session(const packed<M, T>& p, const limits& l, std::span<std::byte> memory)
      : session(p, l, memory.data(), private_tag{}) {
    assert(static_cast<index>(memory.size()) >= footprint(l) &&
           "linnet::session: the span is smaller than footprint()");
  }

  /// The limits that it was planned for.
  const limits& planned() const { return limits_; }
  /// Forgets everything fed so far.
  void reset() {
    std::fill_n(past_, limits_.batch, index{0});
    tables_.reset();
    cached_sources_ = 0;
  }
  /// Number of tokens fed so far to sequence `b`.
  index position(index b = 0) const { return past_[b]; }
  /// The tokens fed so far to sequence `b`.
  std::span<const token> fed(index b = 0) const {
    return {fed_ + b * capacity(), static_cast<std::size_t>(past_[b])};
  }
  /// Most tokens that a sequence can be fed.
  index capacity() const { return capacity_for(limits_); }
  /// The same of a session with these limits.
  static constexpr index capacity_for(const limits& l) {
    if constexpr (encodes)
      return l.target;
    else
      return M::longest(l);
  }

  /// Blocks of 32 tokens that are left, where limits.blocks gave some; feed() needs them.
  index free_blocks() const { return tables_.available(); }
  /// Most tokens of a sequence in one call of feed().
  index chunk() const {
    return limits_.chunk > 0 ? (std::min)(limits_.chunk, capacity()) : capacity();
  }

  /// Takes back the last tokens of sequence `b`, so that `length` remain. False, and nothing done,
  /// where a model that forgets old tokens would have to take back more than chunk() of them.
  bool truncate(index length, index b = 0) {
    static_assert(M::rewinds,
                  "linnet::session::truncate: this kind of attention cannot take tokens back");
    if (length < 0 || length > past_[b] || (M::forgets && past_[b] - length > chunk()))
      return false;
    past_[b] = length;
    if (limits_.blocks > 0) tables_.truncate(b, length);
    return true;
  }

  /// Lets sequence `to` continue where sequence `from` is, source included; `from` goes on as
  /// before. Copies only what differs: not the tokens that both begin with, nor a shared source.
  /// False, and nothing done, for sequences outside the limits.
  bool fork(index from, index to) {
    if (from < 0 || to < 0 || from >= limits_.batch || to >= limits_.batch) return false;
    if (from == to) return true;
    const bool same_source = source_of_[from] == source_of_[to];
    const auto a = fed(from), b = fed(to);
    state_part part{.tokens = past_[from], .memory = same_source ? 0 : memory_length_};
    if (same_source)
      part.first = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
    M::copy_state(work_.work, from, to, part);
    if (limits_.blocks > 0) tables_.share(from, to);
    std::copy(a.begin(), a.end(), fed_ + to * capacity());
    past_[to] = past_[from];
    source_of_[to] = source_of_[from];
    memory_lengths_[to] = memory_lengths_[from];
    if (!same_source && from >= cached_sources_)
      cached_sources_ = (std::min)(cached_sources_, to);  // what was there is gone
    else if (!same_source && to == cached_sources_)
      ++cached_sources_;
    return true;
  }

  /// Encodes one source (encoder-decoders) and starts a new target. False, and nothing done, for a
  /// source that is empty, too long or holds tokens outside the vocabulary.
  bool encode(std::span<const token> source) requires(encodes) {
    const auto length = static_cast<index>(source.size());
    return encode(source, 1, {&length, 1});
  }
  /// Encodes [batch, length] sources, padded on the right to one length, and starts new targets.
  bool encode(std::span<const token> source, index batch,
              std::span<const index> lengths) requires(encodes) {
    const index length = batch > 0 ? static_cast<index>(source.size()) / batch : 0;
    if (batch > limits_.batch || length < 1 || length > limits_.source || !in_vocabulary(source) ||
        static_cast<index>(lengths.size()) < batch)
      return false;
    for (index b = 0; b < batch; ++b)
      if (lengths[static_cast<std::size_t>(b)] < 1 || lengths[static_cast<std::size_t>(b)] > length)
        return false;
    reset();
    memory_length_ = length;
    for (index b = 0; b < limits_.batch; ++b) source_of_[b] = b < batch ? b : none;
    std::copy_n(lengths.data(), batch, memory_lengths_);
    run(limits_, work_.converted, flops(batch, length, 0), [&](const ops::machine& on) {
      M::template encode<T, S>(packed_->tree(), source.data(), batch, memory_length_,
                               memory_lengths_, work_.work, on);
    });
    return true;
  }

  /// Feeds tokens to the one sequence; returns the logits [vocabulary] of what follows them, valid
  /// (and yours to overwrite) until the next call. Empty, and nothing done, for tokens that do not
  /// fit the capacity, the free blocks or the vocabulary, or before a source is encoded.
  std::span<T> feed(std::span<const token> tokens) { return feed(tokens, 1, {}); }
  /// Feeds [batch, length] tokens, padded on the right; `lengths` (valid tokens of each sequence,
  /// at least 1) may be empty when all are valid. Returns logits [batch, vocabulary].
  std::span<T> feed(std::span<const token> tokens, index batch, std::span<const index> lengths) {
    return advance(tokens, batch, lengths, false);
  }
  /// Feeds any number of tokens to the one sequence, in parts of at most chunk(); returns the
  /// logits of what follows them, empty from the first part on that feed() refuses.
  std::span<T> read(std::span<const token> tokens) {
    std::span<T> logits;
    while (!tokens.empty()) {
      const auto part = tokens.first((std::min)(tokens.size(), static_cast<std::size_t>(chunk())));
      logits = feed(part);
      if (logits.empty()) break;
      tokens = tokens.subspan(part.size());
    }
    return logits;
  }
  /// Feeds tokens to the one sequence, at most limits.logits of them; returns the logits
  /// [length, vocabulary] of what follows each.
  std::span<T> feed_all(std::span<const token> tokens) { return feed_all(tokens, 1, {}); }
  /// Feeds [batch, length] tokens like feed(), with length <= limits.logits; returns logits
  /// [batch * length, vocabulary]. Those behind a sequence's valid tokens mean nothing.
  std::span<T> feed_all(std::span<const token> tokens, index batch,
                        std::span<const index> lengths) {
    return advance(tokens, batch, lengths, true);
  }

  /// Starts anew with the prompt of a decoder, or with the source of an encoder-decoder and the
  /// start token; returns the logits [vocabulary] of the first new token, empty if `tokens` do not
  /// fit.
  std::span<T> start(std::span<const token> tokens) {
    if constexpr (encodes) {
      const token first = M::start;
      return encode(tokens) ? feed({&first, 1}) : std::span<T>();
    } else {
      reset();
      return read(tokens);
    }
  }

  /// Generates after `tokens`: the prompt of a decoder (at least one token), the source of an
  /// encoder-decoder. Calls `choose(logits, scratch, fed)` (or without `fed`, the tokens so far)
  /// and `emit(token)` for each new token as it is chosen; `emit` may return false to end. Returns
  /// the number of tokens passed to `emit`; 0 if `tokens` do not fit.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& emit,
                 const generation& g = {}) {
    std::span<T> logits = start(tokens);
    if (logits.empty()) return 0;
    const std::span<token> scratch(order_, static_cast<std::size_t>(M::vocabulary));
    for (index n = 0;; ++n) {
      if (g.tokens > 0 && n == g.tokens) return n;
      const token next = detail::choose_token(choose, logits, scratch, fed());
      if (g.stops(next)) return n;
      if (!detail::goes_on(emit, next)) return n + 1;
      if (position() >= capacity() || n + 1 == g.tokens) return n + 1;
      logits = feed({&next, 1});
    }
  }

 private:
  static constexpr index extra_bytes(const limits& l) {
    arena counter;
    (void)counter.take<index>(l.batch);
    (void)counter.take<index>(l.batch);
    (void)counter.take<index>(l.batch);
    (void)counter.take<token>(l.batch * capacity_for(l));
    (void)counter.take<token>(M::vocabulary);
    if (l.blocks > 0) (void)block_tables(counter, l.batch, capacity_for(l), l.blocks);
    return counter.peak();
  }
  static constexpr index none = -1;  ///< no source
  struct private_tag {};
  session(const packed<M, T>& p, const limits& l, void* memory, private_tag)
      : packed_(&p), limits_(l) {
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    arena extra(static_cast<std::byte*>(memory) + planned, extra_bytes(l));
    work_ = detail::place_workspace<M, T>(l, purpose::decoding, memory);
    past_ = extra.take<index>(l.batch);
    memory_lengths_ = extra.take<index>(l.batch);
    source_of_ = extra.take<index>(l.batch);
    fed_ = extra.take<token>(l.batch * capacity_for(l));
    order_ = extra.take<token>(M::vocabulary);
    if (l.blocks > 0) {
      tables_ = block_tables(extra, l.batch, capacity_for(l), l.blocks);
      work_.work.tables = tables_.data();
      work_.work.table_size = tables_.size();
    }
    reset();
  }
  std::span<T> advance(std::span<const token> tokens, index batch, std::span<const index> lengths,
                       bool every) {
    const index length = batch > 0 ? static_cast<index>(tokens.size()) / batch : 0;
    if (batch > limits_.batch || length < 1 || length > chunk() ||
        (every && length > limits_.logits) || !in_vocabulary(tokens) ||
        (encodes && memory_length_ == 0) ||
        (!lengths.empty() && static_cast<index>(lengths.size()) < batch))
      return {};
    for (index b = 0; b < batch; ++b) {
      if (past_[b] + length > capacity()) return {};
      if (!lengths.empty() && (lengths[static_cast<std::size_t>(b)] < 1 ||
                               lengths[static_cast<std::size_t>(b)] > length))
        return {};
    }
    const index* const valid = lengths.empty() ? nullptr : lengths.data();
    if (limits_.blocks > 0 &&
        !tables_.reserve(
            batch, [&](index b) { return past_[b]; },
            [&](index b) { return valid ? valid[b] : length; },
            [&](index from, index to) { M::copy_state(work_.work, from, to, {.block = true}); }))
      return {};
    run(limits_, work_.converted, flops(batch, 0, length), [&](const ops::machine& on) {
      if constexpr (encodes)
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               memory_length_, memory_lengths_, batch <= cached_sources_,
                               work_.work, on, every);
      else
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               work_.work, on, every);
    });
    cached_sources_ = (std::max)(cached_sources_, batch);
    for (index b = 0; b < batch; ++b) {
      const index count = valid ? valid[b] : length;
      std::copy_n(tokens.data() + b * length, count, fed_ + b * capacity() + past_[b]);
      past_[b] += count;
    }
    return {work_.work.logits,
            static_cast<std::size_t>(batch * (every ? length : 1) * M::vocabulary)};
  }
  /// Work of a call that reads `source` tokens or continues targets by `target` ones.
  static constexpr index flops(index batch, index source, index target) {
    if constexpr (encodes)
      return M::flops(batch, source, target);
    else
      return M::flops(batch, target);
  }
  static bool in_vocabulary(std::span<const token> tokens) {
    return std::all_of(tokens.begin(), tokens.end(),
                       [](token t) { return t >= 0 && t < M::vocabulary; });
  }

  const packed<M, T>* packed_;
  limits limits_;
  memory_block own_;
  detail::placed_workspace<M, T> work_{};
  block_tables tables_{};
  index* past_ = nullptr;            ///< [batch]
  index* memory_lengths_ = nullptr;  ///< [batch]
  index* source_of_ = nullptr;       ///< [batch] number of the encoded source that it reads
  token* fed_ = nullptr;             ///< [batch, capacity]
  token* order_ = nullptr;           ///< [vocabulary] scratch of samplers
  index memory_length_ = 0;
  index cached_sources_ = 0;  ///< the first so many sequences have cached keys of their source
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A share of right answers.
struct accuracy {
  index right = 0;
  index total = 0;

  /// Counts one answer.
  void add(bool is_right) {
    right += is_right;
    ++total;
  }
  /// The share; 0 without answers.
  double value() const {
    return total > 0 ? static_cast<double>(right) / static_cast<double>(total) : 0;
  }
  /// Its standard error over samples of this size: sqrt(p (1 - p) / n).
  double standard_error() const {
    return total > 0 ? std::sqrt(value() * (1 - value()) / static_cast<double>(total)) : 0;
  }
};

/// The baseline without a model: always the class that is the most frequent of `known` (the lowest
/// of several), on `asked`.
inline accuracy majority_baseline(std::span<const index> known, std::span<const index> asked) {
  index best = -1, most = 0;
  for (const index c : known)
    if (const index n = std::count(known.begin(), known.end(), c);
        n > most || (n == most && c < best))
      best = c, most = n;
  return {std::count(asked.begin(), asked.end(), best), std::ssize(asked)};
}

/// Chooses among label texts with a T5 model, in either of T5's two ways. Planned once; choosing
/// allocates nothing.
template <class M, class T = float>
class classifier {
  static_assert(M::family == model_family::t5,
                "linnet::classifier: the model must be an encoder-decoder");

 public:
  /// A classifier among `labels`: the tokens of each label's text, its end included. `l` says
  /// batch, source and threads; its target and logits become what the labels need. `p` must outlive
  /// it. Errors: errc::invalid for no labels, an empty one, or tokens outside the vocabulary; those
  /// of session::open.
  static result<classifier> open(const packed<M, T>& p, std::vector<std::vector<token>> labels,
                                 limits l) {
    const auto wrong = [](std::string what, std::string expected, std::string got) {
      return error{errc::invalid, "classifier::open", std::move(what), std::move(expected),
                   std::move(got)};
    };
    if (labels.empty()) return wrong("labels", "at least one", "none");
    for (std::size_t c = 0; c < labels.size(); ++c) {
      const std::string name = "label " + std::to_string(c);
      if (labels[c].empty()) return wrong(name, "at least one token", "none");
      if (!linnet::detail::tokens_fit(labels[c].data(), std::ssize(labels[c]), M::vocabulary,
                                      false))
        return wrong(name, "tokens below " + std::to_string(M::vocabulary), "others");
      l.logits = (std::max)(l.logits, std::ssize(labels[c]));
    }
    l.target = (std::max)(l.target, l.logits);
    l.chunk = 0;
    auto session = linnet::session<M, T>::open(p, l);
    if (!session) return session.error();
    return classifier(*std::move(session), std::move(labels), l);
  }

  /// Number of labels.
  index classes() const { return std::ssize(labels_); }

  /// Log-probabilities of all labels, given sources [batch, length] that are padded on the right;
  /// `lengths` [batch] are their valid tokens. Each is the sum over the label's tokens, the end
  /// included, under teacher forcing. The answer is [batch, classes()], valid until the next call;
  /// empty, and nothing done, for sources that session::encode refuses.
  std::span<const double> scores(std::span<const token> sources, index batch,
                                 std::span<const index> lengths) {
    if (!session_.encode(sources, batch, lengths)) return {};
    for (std::size_t c = 0; c < labels_.size(); ++c) {
      const std::vector<token>& label = labels_[c];
      const index n = std::ssize(label);
      for (index b = 0; b < batch; ++b) {
        token* const row = inputs_.data() + b * n;
        row[0] = M::start;
        std::copy(label.begin(), label.end() - 1, row + 1);
        session_.truncate(0, b);
      }
      const auto logits = session_.feed_all(
          std::span(inputs_).first(static_cast<std::size_t>(batch * n)), batch, {});
      if (logits.empty()) return {};
      for (index b = 0; b < batch; ++b) {
        double sum = 0;
        for (index i = 0; i < n; ++i)
          sum +=
              log_probability(logits.subspan(static_cast<std::size_t>((b * n + i) * M::vocabulary),
                                             static_cast<std::size_t>(M::vocabulary)),
                              label[static_cast<std::size_t>(i)]);
        scores_[static_cast<std::size_t>(b * classes()) + c] = sum;
      }
    }
    return std::span<const double>(scores_).first(static_cast<std::size_t>(batch * classes()));
  }

  /// The likeliest label of each source, the first of several; -1 where no score is finite. False,
  /// and nothing done, where scores() refuses. `chosen` [batch].
  bool classify(std::span<const token> sources, index batch, std::span<const index> lengths,
                std::span<index> chosen) {
    const auto all = scores(sources, batch, lengths);
    if (all.empty() || std::ssize(chosen) < batch) return false;
    for (index b = 0; b < batch; ++b) {
      index best = -1;
      const double* const row = all.data() + b * classes();
      for (index c = 0; c < classes(); ++c)
        if (is_finite(row[c]) && (best < 0 || row[c] > row[best])) best = c;
      chosen[static_cast<std::size_t>(b)] = best;
    }
    return true;
  }

  /// The tokens that greedy decoding gives for one source, up to `end`, which is left out; for
  /// comparing texts: task.class_of(tokenizer.decode(answer)). At most as many as the target of the
  /// limits; valid until the next call. Empty also for a source that session::encode refuses.
  std::span<const token> answer(std::span<const token> source, token end = 1) {
    std::size_t n = 0;
    session_.generate(source, greedy{}, [&](token t) { inputs_[n++] = t; }, {.stop = {&end, 1}});
    return std::span<const token>(inputs_).first(n);
  }

 private:
  classifier(session<M, T> s, std::vector<std::vector<token>> labels, const limits& l)
      : session_(std::move(s)),
        labels_(std::move(labels)),
        limits_(l),
        inputs_(static_cast<std::size_t>(l.batch * l.target)),
        scores_(static_cast<std::size_t>(l.batch) * labels_.size()) {}

  static double log_probability(std::span<const T> logits, token t) {
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (const T x : logits) sum += std::exp(static_cast<double>(x) - largest);
    return static_cast<double>(logits[static_cast<std::size_t>(t)]) - largest - std::log(sum);
  }

  session<M, T> session_;
  std::vector<std::vector<token>> labels_;
  limits limits_;
  std::vector<token> inputs_;   ///< [batch, target]
  std::vector<double> scores_;  ///< [batch, classes]
};

LINNET_NAMESPACE_END
/// @file
/// Scoring: the loss of a packed model on given text, without gradients.

/// @file
/// What a model learns from besides the labels of its batches.

LINNET_NAMESPACE_BEGIN

/// Something that trainers and evaluators of model `M` can be given with a batch: `teachers`,
/// `recorded_teacher`, `teacher_recorder` or your own.
/// - `accepts<M>(batch, limits)` says before anything is computed whether it serves this batch
///   within the caller's limits; if not, the call computes nothing and gives NaN nats.
/// - `teach(machine, batch)` is then called by every thread and returns the criterion of the loss,
///   see ops::label_loss.
template <class L, class M>
concept lesson = requires(L& l, const typename M::batch& b, const limits& m,
                          const ops::machine& on) {
  { l.template accepts<M>(b, m) } -> std::same_as<bool>;
  l.teach(on, b);
};

/// The lesson of labels alone.
struct labels_alone {
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  template <class Batch>
  static ops::label_loss teach(const ops::machine&, const Batch&) {
    return {};
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Computes losses of model `M` from packed weights in any storage type.
template <class M, class T = float>
class evaluator {
  using S = storage_of<M, T>;

 public:
  using model = M;
  using batch = typename M::batch;

  /// Exact bytes that an evaluator with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::plan_for<M, T>(l, purpose::scoring).total();
  }

  /// An evaluator for batches up to these limits. `p` must outlive it.
  static result<evaluator> open(const packed<M, T>& p, const limits& l) {
    if (auto fit = detail::acceptable<M>("evaluator::open", l); !fit) return fit.error();
    if (!p.valid())
      return linnet::error{errc::invalid, "evaluator::open", "packed weights", "valid weights",
                           "none"};
    evaluator e(p, l);
    if (!e.memory_.data()) return detail::out_of_memory("evaluator::open", footprint(l));
    e.work_ = detail::place_workspace<M, T>(l, purpose::scoring, e.memory_.data());
    return e;
  }

  /// Summed loss of a batch in nats. `logits`, if not empty, receives all [rows, vocabulary] of
  /// them.
  loss_sum loss(const batch& b, std::span<T> logits = {}) {
    return loss(b, labels_alone{}, logits);
  }
  /// The same with a lesson's loss, such as that of distillation from `teachers`.
  template <class Lesson>
  requires lesson<Lesson, M> loss_sum loss(const batch& b, Lesson&& from,
                                           std::span<T> logits = {}) {
    if (!M::accepts(b, limits_) || !from.template accepts<M>(b, limits_))
      return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::machine& on) {
      const loss_sum sum = M::template loss<T, S>(packed_->tree(), nullptr, b, work_.work, on, {},
                                                  logits.data(), 0, from.teach(on, b));
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }

 private:
  evaluator(const packed<M, T>& p, const limits& l)
      : packed_(&p), limits_(l), memory_(footprint(l)) {}

  const packed<M, T>* packed_;
  limits limits_;
  memory_block memory_;
  detail::placed_workspace<M, T> work_{};
};

/// Nats as bits per byte of text (zoo C11).
inline double bits_per_byte(double nats, index bytes) {
  return nats / (0.69314718055994531 * static_cast<double>(bytes));
}

LINNET_NAMESPACE_END
/// @file
/// Declarations for headers that only name linnet's types.

LINNET_NAMESPACE_BEGIN

template <class T>
class result;
struct error;
struct limits;
template <class M, class T>
class weights;
template <class M, class T, class S>
class packed;
template <class M, class T>
class session;
template <class M, class T>
class evaluator;
template <class M, class Optimizer, class T, class Compute>
class trainer;

LINNET_NAMESPACE_END
/// @file
/// Beam search: the likeliest texts instead of one likely token after the other (zoo I3).

LINNET_NAMESPACE_BEGIN

/// How beam_search looks for texts.
struct beams {
  index width = 4;     ///< hypotheses that are continued side by side, and results at most
  double alpha = 0.6;  ///< a hypothesis y scores log P(y) / ((5 + |y|) / 6)^alpha (Wu et al. 2016);
                       ///< 0 favours short texts, larger values longer ones
  bool early = true;   ///< end as soon as `width` hypotheses have ended by themselves; false: go on
                       ///< while an open one could still score better than those
};

/// One result of a beam search, valid until the next one.
struct hypothesis {
  std::span<const token> tokens{};  ///< without the prompt and without the stop token
  double log_probability = 0;       ///< of all its tokens, the stop token included
  double score = 0;                 ///< the same, normalised by length
  bool stopped = false;             ///< it ended with a stop token, not for lack of room
};

/// Searches with a session of model `M`. In each step the `width` best continuations by log P of
/// all open hypotheses are found. Those that end with a stop token leave the beam for the pool of
/// results, and the best others keep the beam full. What is open at the last token joins the pool.
/// Ties go to the earlier hypothesis, then to the lowest id. With width 1 and `early` this is
/// greedy generation. All memory is taken by open(); a search allocates nothing.
template <class M, class T = float>
class beam_search {
 public:
  /// Exact bytes that a search with a session of these limits allocates.
  static constexpr index footprint(const limits& l, const beams& b) {
    arena counter;
    (void)place(counter, l, b);
    return counter.peak();
  }

  /// A search in the sequences 0 to width - 1 of a session, which must outlive it. Errors:
  /// errc::invalid (a width below 1 or above limits.batch), errc::out_of_memory.
  static result<beam_search> open(session<M, T>& s, const beams& how = {}) {
    const limits& l = s.planned();
    if (how.width < 1 || how.width > l.batch)
      return linnet::error{errc::invalid, "beam_search::open", "beams.width",
                           "1 to limits.batch, " + std::to_string(l.batch),
                           std::to_string(how.width)};
    beam_search made(s, how);
    made.own_ = memory_block(footprint(l, how));
    if (!made.own_.data()) return detail::out_of_memory("beam_search::open", footprint(l, how));
    arena a(made.own_.data(), footprint(l, how));
    made.at_ = place(a, l, how);
    return made;
  }

  /// The best continuations of a prompt (of a decoder) or answers to a source (of an
  /// encoder-decoder), best first. `hooks` change the logits of each hypothesis before they are
  /// read, as those of `processed` do. Empty if `tokens` do not fit.
  template <class... Hooks>
  std::span<const hypothesis> operator()(std::span<const token> tokens, const generation& g = {},
                                         Hooks&&... hooks) {
    session<M, T>& s = *session_;
    std::span<T> logits = s.start(tokens);
    finished_ = 0;
    if (logits.empty()) return {};
    const index room = s.capacity() - s.position() + 1;
    const index most = g.tokens > 0 ? (std::min)(g.tokens, room) : room;
    index open = 1;  // hypotheses in the sequences 0 to open - 1
    at_.sums[0] = 0;
    for (index n = 1;; ++n) {
      any_ = stay_ = 0;
      for (index b = 0; b < open; ++b) {
        const auto row = logits.subspan(at(b * M::vocabulary), at(M::vocabulary));
        (detail::apply_hook(hooks, row, s.fed(b)), ...);
        consider(b, row, g);
      }
      std::sort(at_.any, at_.any + any_, better);
      std::sort(at_.stay, at_.stay + stay_, better);
      for (index i = 0; i < any_; ++i)
        if (g.stops(at_.any[i].id)) finish(at_.any[i], n, true);
      if (stay_ == 0 || (finished_ == how_.width && ends(n, most))) break;
      if (n == most) {
        for (index i = 0; i < stay_; ++i) finish(at_.stay[i], n, false);
        break;
      }
      open = stay_;
      move(n - 1);
      logits = s.feed({at_.next, at(open)}, open, {});
    }
    return {at_.results, at(finished_)};
  }

 private:
  /// A hypothesis and the token that may continue it.
  struct candidate {
    double sum;  ///< log P of both
    T logit;     ///< orders continuations of one hypothesis even where the sums round alike
    index parent;
    token id;
  };
  struct buffers {
    double* sums = nullptr;         ///< [width] log P of the open hypotheses
    token* texts = nullptr;         ///< [width, capacity] their tokens
    token* next = nullptr;          ///< [width] their last tokens
    candidate* any = nullptr;       ///< [width] best continuations
    candidate* stay = nullptr;      ///< [width] best continuations that are no stop tokens
    candidate* placed = nullptr;    ///< [width] those by sequence
    hypothesis* results = nullptr;  ///< [width] best first
    token* result_texts = nullptr;  ///< [width, capacity]
  };
  static constexpr buffers place(arena& a, const limits& l, const beams& b) {
    const index size = b.width * session<M, T>::capacity_for(l);
    buffers made;
    made.sums = a.take<double>(b.width);
    made.texts = a.take<token>(size);
    made.next = a.take<token>(b.width);
    made.any = a.take<candidate>(b.width);
    made.stay = a.take<candidate>(b.width);
    made.placed = a.take<candidate>(b.width);
    made.results = a.take<hypothesis>(b.width);
    made.result_texts = a.take<token>(size);
    return made;
  }
  static constexpr std::size_t at(index i) { return static_cast<std::size_t>(i); }

  beam_search(session<M, T>& s, const beams& how)
      : session_(&s), how_(how), capacity_(s.capacity()) {}

  static bool better(const candidate& a, const candidate& b) {
    if (a.sum != b.sum) return a.sum > b.sum;
    if (a.parent != b.parent) return a.parent < b.parent;
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
  /// Keeps `c` if it is among the best: a heap with the worst on top.
  void offer(candidate* heap, index& size, const candidate& c) const {
    if (size == how_.width) {
      if (!better(c, heap[0])) return;
      std::pop_heap(heap, heap + size--, better);
    }
    heap[size++] = c;
    std::push_heap(heap, heap + size, better);
  }
  /// Offers every continuation of open hypothesis `b`; not those of probability 0.
  void consider(index b, std::span<const T> logits, const generation& g) {
    const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double total = 0;
    for (const T l : logits) total += std::exp(static_cast<double>(l) - largest);
    const double log_total = largest + std::log(total);
    for (index t = 0; t < M::vocabulary; ++t) {
      const T l = logits[at(t)];
      const double log_p = static_cast<double>(l) - log_total;
      if (log_p < -745) continue;  // exp gives 0
      const candidate c{at_.sums[b] + log_p, l, b, static_cast<token>(t)};
      offer(at_.any, any_, c);
      if (!g.stops(c.id)) offer(at_.stay, stay_, c);
    }
  }

  double normalised(double sum, index length) const {
    return sum / std::pow((5 + static_cast<double>(length)) / 6, how_.alpha);
  }
  /// Puts an ended hypothesis of `n` tokens into the pool, or not if `width` better ones are there.
  void finish(const candidate& c, index n, bool stopped) {
    const double score = normalised(c.sum, n);
    index place = finished_;
    while (place > 0 && score > at_.results[place - 1].score) --place;
    if (place == how_.width) return;
    if (finished_ < how_.width)
      at_.results[finished_].tokens = {at_.result_texts + finished_ * capacity_, std::size_t{0}};
    finished_ = (std::min)(finished_ + 1, how_.width);
    std::rotate(at_.results + place, at_.results + finished_ - 1, at_.results + finished_);
    hypothesis& h = at_.results[place];
    token* const text = const_cast<token*>(h.tokens.data());
    std::copy_n(at_.texts + c.parent * capacity_, n - 1, text);
    if (!stopped) text[n - 1] = c.id;
    h = {{text, at(stopped ? n - 1 : n)}, c.sum, score, stopped};
  }
  /// Whether the full pool is final after token `n` of `most`.
  bool ends(index n, index most) const {
    if (how_.early) return true;
    // Sums only fall, so this is the most that an open hypothesis can reach.
    const index length = how_.alpha > 0 ? most : n + 1;
    return normalised(at_.stay[0].sum, length) <= at_.results[finished_ - 1].score;
  }

  /// Makes the best continuations the open hypotheses. The first of each parent stays in its
  /// parent's sequence; the others fork into sequences that nobody needs any more, so nothing that
  /// is still to be read is overwritten. `length`: tokens before the new one.
  void move(index length) {
    constexpr index nobody = -1;
    for (index b = 0; b < stay_; ++b) at_.placed[b].parent = nobody;
    for (index i = 0; i < stay_; ++i) {
      candidate& c = at_.stay[i];
      if (c.parent >= stay_ || at_.placed[c.parent].parent != nobody) continue;
      at_.placed[c.parent] = c;
      c.parent = nobody;
    }
    index free = 0;
    for (index i = 0; i < stay_; ++i) {
      const candidate& c = at_.stay[i];
      if (c.parent == nobody) continue;
      while (at_.placed[free].parent != nobody) ++free;
      session_->fork(c.parent, free);
      std::copy_n(at_.texts + c.parent * capacity_, length, at_.texts + free * capacity_);
      at_.placed[free] = c;
    }
    for (index b = 0; b < stay_; ++b) {
      at_.sums[b] = at_.placed[b].sum;
      at_.next[b] = at_.texts[b * capacity_ + length] = at_.placed[b].id;
    }
  }

  session<M, T>* session_;
  beams how_;
  index capacity_;  ///< tokens of a text at most
  memory_block own_;
  buffers at_{};
  index any_ = 0, stay_ = 0, finished_ = 0;
};

LINNET_NAMESPACE_END
/// @file
/// Contrastive decoding: prefer what one reading of a text makes likelier than another (zoo I4).

LINNET_NAMESPACE_BEGIN

/// How strongly the readings are contrasted.
struct contrasting {
  double weight = 1;        ///< of log P_expert - log P_amateur, added to log P_expert
  double plausibility = 0;  ///< only tokens at least this times as likely as the expert's most
                            ///< likely one (Li et al. 2023: 0.1); 0 leaves all
};

/// A hook (see `processed`) that turns the logits of an expert into
/// log P_expert + weight (log P_expert - log P_amateur), up to a constant. The amateur is another
/// session that reads the same new tokens: the same model without the context that matters or with
/// another one (Wang et al. 2023, SCOTT), or a weaker model (Li et al. 2023). Two equal readings
/// change nothing. It allocates nothing. For one sequence; not for speculative decoding.
///
///     ln::contrast against(plain, {.plausibility = 0.1});
///     against.start(question);
///     expert.generate(context_and_question, ln::processed(ln::greedy{}, against), emit);
template <class M, class T = float>
class contrast {
 public:
  /// Contrasts with an amateur's session, which must outlive it.
  explicit contrast(session<M, T>& amateur, const contrasting& how = {})
      : amateur_(&amateur), how_(how) {}

  /// To be called before each text: what the amateur reads in place of the expert's prompt or
  /// source. False for tokens that do not fit; the expert's logits then stay as they are.
  bool start(std::span<const token> tokens) {
    logits_ = amateur_->start(tokens);
    read_ = unknown;
    return !logits_.empty();
  }

  /// Changes the expert's logits after the tokens `so_far`. They stay as they are once the amateur
  /// has no more room.
  template <class X>
  void operator()(std::span<X> expert, std::span<const token> so_far) {
    const index count = std::ssize(so_far);
    if (read_ != unknown && count < read_) logits_ = {};  // another text: start() was forgotten
    if (read_ != unknown && count > read_ && !logits_.empty())
      logits_ = amateur_->read(so_far.subspan(static_cast<std::size_t>(read_)));
    read_ = count;
    if (logits_.size() != expert.size()) return;
    const auto most = static_cast<double>(*std::max_element(expert.begin(), expert.end()));
    const double least = how_.plausibility > 0 ? most + std::log(how_.plausibility) : -1e300;
    for (std::size_t i = 0; i < expert.size(); ++i) {
      const auto e = static_cast<double>(expert[i]), a = static_cast<double>(logits_[i]);
      // Logits are log P up to a constant, which does not change the law. A difference of exactly
      // 0 keeps every tie and order.
      expert[i] = static_cast<X>(e < least && e < most ? -1e30 : e + how_.weight * (e - a));
    }
  }

 private:
  static constexpr index unknown = -1;

  session<M, T>* amateur_;
  contrasting how_;
  std::span<T> logits_{};
  index read_ = unknown;  ///< tokens of the expert that the amateur has read, or its prompt instead
};

LINNET_NAMESPACE_END
/// @file
/// Speculative decoding: a small model drafts several tokens, the large one checks them in one
/// call, and the text follows the large model's law exactly (Leviathan et al. 2023, zoo I5).

LINNET_NAMESPACE_BEGIN

/// How often drafts were right, since the last start of generate().
struct draft_counts {
  index rounds = 0;    ///< calls of the target
  index drafted = 0;   ///< tokens proposed
  index accepted = 0;  ///< of them taken
  index tokens = 0;    ///< decided: accepted ones and one more per round

  /// Tokens per call of the target; for independent tokens accepted with probability a,
  /// (1 - a^(drafts + 1)) / (1 - a).
  double per_round() const {
    return rounds > 0 ? static_cast<double>(tokens) / static_cast<double>(rounds) : 0;
  }
};

/// Generates with a session of the model `M`, sped up by a session of a smaller model `D` of the
/// same family with the same vocabulary. Both laws are warped by the same sampler. A drafted token
/// x is accepted with probability min(1, p(x) / q(x)); the first that is not is drawn anew from
/// max(0, p - q), normalised, and after `drafts` accepted ones another follows from p. A greedy
/// sampler gives the target's greedy text. All memory is taken by open().
template <class M, class D, class T = float, class U = T>
class speculative {
  static_assert(M::family == D::family,
                "linnet::speculative: the models are of different families");
  static_assert(M::vocabulary == D::vocabulary,
                "linnet::speculative: the models have different vocabularies");
  static_assert(M::rewinds && D::rewinds,
                "linnet::speculative: rejected tokens must be taken back, which a model's kind of "
                "attention cannot do");
  static constexpr bool encodes = M::family == model_family::t5;

 public:
  /// Speculation with these sessions, which must outlive it, and `drafts` tokens drafted at a time.
  /// Errors: errc::invalid (drafts below 1, or not below the target's limits.logits),
  /// errc::out_of_memory.
  static result<speculative> open(session<M, T>& target, session<D, U>& draft, index drafts) {
    if (drafts < 1 || drafts >= target.planned().logits)
      return linnet::error{
          errc::invalid, "speculative::open", "drafts",
          "1 to the target's limits.logits - 1, " + std::to_string(target.planned().logits - 1),
          std::to_string(drafts)};
    speculative made(target, draft, drafts);
    made.own_ = memory_block(footprint(target.planned(), drafts));
    if (!made.own_.data())
      return detail::out_of_memory("speculative::open", footprint(target.planned(), drafts));
    arena a(made.own_.data(), footprint(target.planned(), drafts));
    made.at_ = place(a, target.planned(), drafts);
    return made;
  }
  /// Exact bytes that it allocates for a target with these limits.
  static constexpr index footprint(const limits& l, index drafts) {
    arena counter;
    (void)place(counter, l, drafts);
    return counter.peak();
  }

  /// Like session::generate() of the target, with a sampler that tells its law (see `greedy`).
  /// Where the draft has no room for the text, the target goes on alone.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& emit,
                 const generation& g = {}) {
    counts_ = {};
    if (!begin(tokens)) return 0;
    for (index n = 0;;) {
      const index left = g.tokens > 0 ? g.tokens - n : target_->capacity();
      const index first = known_, decided = round(choose, left);
      for (index i = first; i < first + decided; ++i) {
        const token next = at_.text[i];
        if (g.stops(next)) return n;
        ++n;
        if (!detail::goes_on(emit, next)) return n;
      }
      if (n == g.tokens || target_->position() >= target_->capacity()) return n;
    }
  }
  /// Of the text that is being or was generated last.
  const draft_counts& counts() const { return counts_; }

 private:
  static constexpr index vocabulary = M::vocabulary;
  struct buffers {
    token* text = nullptr;     ///< [capacity + 1] what is known, then what is drafted
    token* scratch = nullptr;  ///< [vocabulary] of the sampler
    double* p = nullptr;       ///< [vocabulary]
    double* q = nullptr;       ///< [drafts, vocabulary]
  };
  static constexpr buffers place(arena& a, const limits& l, index drafts) {
    buffers made;
    made.text = a.take<token>(session<M, T>::capacity_for(l) + 1);
    made.scratch = a.take<token>(vocabulary);
    made.p = a.take<double>(vocabulary);
    made.q = a.take<double>(drafts * vocabulary);
    return made;
  }
  static constexpr std::size_t at(index i) { return static_cast<std::size_t>(i); }

  speculative(session<M, T>& target, session<D, U>& draft, index drafts)
      : target_(&target), draft_(&draft), drafts_(drafts) {}

  /// Starts a text: its last token is known but not fed yet.
  bool begin(std::span<const token> tokens) {
    if constexpr (encodes) {
      at_.text[0] = M::start;
      known_ = 1;
      drafting_ = draft_->encode(tokens);
      return target_->encode(tokens);
    } else {
      target_->reset();
      draft_->reset();
      known_ = std::ssize(tokens);
      drafting_ = true;
      if (known_ < 1 || known_ > target_->capacity()) return false;
      std::copy(tokens.begin(), tokens.end(), at_.text);
      if (known_ == 1) return M::vocabulary > tokens[0] && tokens[0] >= 0;
      return tokens[at(known_ - 1)] >= 0 && tokens[at(known_ - 1)] < vocabulary &&
             !target_->read(tokens.first(at(known_ - 1))).empty();
    }
  }

  /// Drafts, verifies and decides one to drafts + 1 tokens, at most `most`; returns how many.
  template <class Sampler>
  index round(Sampler& choose, index most) {
    const std::span<token> scratch(at_.scratch, at(vocabulary));
    const auto so_far = [&](index count) { return std::span<const token>(at_.text, at(count)); };
    const auto q = [&](index i) {
      return std::span<double>(at_.q + i * vocabulary, at(vocabulary));
    };
    const std::span<double> p(at_.p, at(vocabulary));

    const index room = target_->capacity() - target_->position() - 1;
    const index wanted = (std::min)({drafts_, room, most - 1});
    index drafted = 0;
    for (; drafting_ && drafted < wanted; ++drafted) {
      const index end = known_ + drafted;
      const auto logits = draft_->read(so_far(end).subspan(at(draft_->position())));
      if (logits.empty()) {
        drafting_ = false;  // the text has outgrown it
        break;
      }
      choose.probabilities(logits, scratch, so_far(end), q(drafted));
      at_.text[end] = choose.pick(q(drafted));
    }

    const auto rows = target_->feed_all(so_far(known_ + drafted).subspan(at(known_ - 1)));
    index accepted = 0;
    for (;; ++accepted) {
      const index end = known_ + accepted;
      choose.probabilities(rows.subspan(at(accepted * vocabulary), at(vocabulary)), scratch,
                           so_far(end), p);
      if (accepted == drafted) break;  // one more, from p
      const std::span<const double> by = q(accepted);
      const std::size_t x = detail::slot(at_.text[end]);
      if (!choose.accept((std::min)(1.0, p[x] / by[x]))) {
        residual(p, by);
        break;
      }
    }
    at_.text[known_ + accepted] = choose.pick(p);

    // Both forget what was rejected; neither has read the last token.
    target_->truncate(known_ + accepted);
    draft_->truncate(known_ + accepted);
    known_ += accepted + 1;
    counts_.rounds += 1;
    counts_.drafted += drafted;
    counts_.accepted += accepted;
    counts_.tokens += accepted + 1;
    return accepted + 1;
  }

  /// p becomes max(0, p - q), of any sum. Laws that differ by rounding alone leave nothing; then
  /// p stays.
  static void residual(std::span<double> p, std::span<const double> q) {
    bool any = false;
    for (std::size_t i = 0; i < p.size(); ++i) any = any || p[i] > q[i];
    for (std::size_t i = 0; any && i < p.size(); ++i) p[i] = (std::max)(0.0, p[i] - q[i]);
  }

  session<M, T>* target_;
  session<D, U>* draft_;
  index drafts_;
  memory_block own_;
  buffers at_{};
  index known_ = 0;
  bool drafting_ = false;  ///< the draft can still follow the text
  draft_counts counts_{};
};

LINNET_NAMESPACE_END
/// @file
/// Files as read-only memory: mapped where POSIX is there, so that they may be larger than memory;
/// read elsewhere.

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

/// @file
/// Whole files in and out: read into memory once, written beside the target and then renamed.

#include <cerrno>
#include <cstdio>
#include <new>
#include <system_error>

LINNET_NAMESPACE_BEGIN

/// The contents of a file, in memory that this object owns. Movable.
class file_bytes {
 public:
  file_bytes() = default;
  /// Memory for `size` bytes, not initialized; data() is null if there is not enough.
  explicit file_bytes(std::size_t size)
      : data_(new (std::nothrow) std::byte[size > 0 ? size : 1]), size_(data_ ? size : 0) {}

  /// First byte, or null.
  std::byte* data() { return data_.get(); }
  /// @copydoc data()
  const std::byte* data() const { return data_.get(); }
  /// Number of bytes.
  std::size_t size() const { return size_; }
  /// All bytes; parsers take this.
  std::span<const std::byte> bytes() const { return {data_.get(), size_}; }
  /// @copydoc bytes()
  operator std::span<const std::byte>() const { return bytes(); }

 private:
  std::unique_ptr<std::byte[]> data_;
  std::size_t size_ = 0;
};

namespace detail {

struct close_file {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using file_handle = std::unique_ptr<std::FILE, close_file>;

/// The error of a failed system call on a file.
inline error file_error(const std::string& path, const char* expected, int number = errno) {
  return {errc::io, path, "", expected,
          number != 0 ? std::generic_category().message(number) : "a failure"};
}

/// Writes a file in pieces under a temporary name. commit() gives it its own; without it, nothing
/// is left behind.
class file_writer {
 public:
  /// Opens `path` + ".partial".
  explicit file_writer(const std::string& path)
      : path_(path), partial_(path + ".partial"), file_(std::fopen(partial_.c_str(), "wb")) {
    if (!file_) failure_ = errno;
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (!file_) return;
    file_.reset();
    std::remove(partial_.c_str());
  }

  /// Appends bytes; a failure is remembered for commit().
  void write(std::span<const std::byte> bytes) {
    if (!file_ || failure_ != 0 || bytes.empty()) return;
    errno = 0;
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size())
      failure_ = errno != 0 ? errno : EIO;
  }
  /// Closes the file and gives it its name, replacing what was there.
  result<void> commit() {
    if (!file_) return file_error(path_, "a file that can be written", failure_);
    if (failure_ == 0) {
      errno = 0;
      if (std::fclose(file_.release()) != 0) failure_ = errno != 0 ? errno : EIO;
      if (failure_ == 0 && std::rename(partial_.c_str(), path_.c_str()) == 0) return {};
      if (failure_ == 0) failure_ = errno;
      std::remove(partial_.c_str());
    }
    return file_error(path_, "to write the whole file", failure_);
  }

 protected:
  std::string path_, partial_;
  file_handle file_;
  int failure_ = 0;
};

}  // namespace detail

/// Reads a whole regular file. Errors: errc::io (absent, a directory, not a regular file, changed
/// while being read), errc::out_of_memory.
inline result<file_bytes> read_file(const std::string& path) {
  errno = 0;
  const detail::file_handle file(std::fopen(path.c_str(), "rb"));
  if (!file) return detail::file_error(path, "a readable file");
  // Reading first tells a directory from a file; its reported size would be nonsense.
  const bool empty = std::fgetc(file.get()) == EOF;
  if (empty && std::ferror(file.get()) != 0) return detail::file_error(path, "a readable file");
  if (std::fseek(file.get(), 0, SEEK_END) != 0) return detail::file_error(path, "a regular file");
  const long size = std::ftell(file.get());
  if (size < 0 || (size == 0 && !empty) || std::fseek(file.get(), 0, SEEK_SET) != 0)
    return error{errc::io, path, "", "a regular file", "one without a size"};
  file_bytes bytes(static_cast<std::size_t>(size));
  if (bytes.data() == nullptr)
    return error{errc::out_of_memory, path, "", "memory for " + std::to_string(size) + " bytes",
                 "none"};
  if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fgetc(file.get()) != EOF)
    return error{errc::io, path, "", std::to_string(size) + " bytes, the size of the file",
                 "another number: it changed while being read"};
  return bytes;
}

/// Writes a whole file: first beside it as `path`.partial, then renamed, so that `path` never holds
/// half a file. Errors: errc::io.
inline result<void> write_file(const std::string& path, std::span<const std::byte> bytes) {
  detail::file_writer writer(path);
  writer.write(bytes);
  return writer.commit();
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The bytes of a file that stay where they are when the object moves. The file must not shrink
/// meanwhile.
class mapped_file {
 public:
  /// Maps a regular file. Errors: errc::io, errc::out_of_memory.
  static result<mapped_file> open(const std::string& path) {
    mapped_file made;
#if defined(__unix__) || defined(__APPLE__)
    errno = 0;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return detail::file_error(path, "a readable file");
    struct stat facts {};
    const bool regular = ::fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
    const auto size = static_cast<std::size_t>(facts.st_size);
    void* const at =
        regular && size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    ::close(file);
    if (at != MAP_FAILED) {
      made.mapped_ = {static_cast<const std::byte*>(at), size};
      return made;
    }  // an empty file, or none that can be mapped: read_file knows why
#endif
    auto bytes = read_file(path);
    if (!bytes) return bytes.error();
    made.read_ = *std::move(bytes);
    return made;
  }
  mapped_file(mapped_file&& other) noexcept
      : mapped_(std::exchange(other.mapped_, {})), read_(std::move(other.read_)) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(read_, other.read_);
    return *this;
  }
  ~mapped_file() {
#if defined(__unix__) || defined(__APPLE__)
    if (!mapped_.empty()) ::munmap(const_cast<std::byte*>(mapped_.data()), mapped_.size());
#endif
  }

  /// All bytes.
  std::span<const std::byte> bytes() const { return mapped_.empty() ? read_.bytes() : mapped_; }
  /// All bytes as text.
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes().data()), bytes().size()};
  }

 private:
  mapped_file() = default;
  std::span<const std::byte> mapped_;
  file_bytes read_;
};

/// Text files as read-only memory: what a byte_source or tokenize() reads.
class corpus {
 public:
  /// Opens all files. Errors: those of mapped_file::open.
  static result<corpus> open(std::span<const std::string> paths) {
    corpus made;
    for (const std::string& path : paths) {
      auto file = mapped_file::open(path);
      if (!file) return file.error();
      made.files_.push_back(*std::move(file));
      made.texts_.push_back(made.files_.back().text());
      made.size_ += std::ssize(made.texts_.back());
    }
    return made;
  }
  /// @copydoc open
  static result<corpus> open(const std::string& path) { return open(std::span(&path, 1)); }

  /// The text of each file; valid as long as the corpus, moved or not.
  std::span<const std::string_view> texts() const { return texts_; }
  /// Bytes of all of them.
  index size() const { return size_; }

 private:
  corpus() = default;
  std::vector<mapped_file> files_;
  std::vector<std::string_view> texts_;
  index size_ = 0;
};

LINNET_NAMESPACE_END
/// @file
/// Checkpoints of llama2.c, versions 0 (legacy, no magic number) and 1; f32, little-endian.
///
/// Both begin with seven 32-bit integers: dim, hidden_dim, n_layers, n_heads, n_kv_heads,
/// vocab_size, seq_len. In version 0 a negative vocab_size means an untied head, and unused rotary
/// tables stand before it. Version 1 has a header of 256 bytes and another order of tensors.

/// @file
/// What a model's type says, as texts: stored beside the weights and compared when they are loaded.

/// @file
/// Decoder-only language models: Llama, GPT-2, STLM and what lies between.

LINNET_NAMESPACE_BEGIN

/// Tokens of a decoder's training or scoring call, [batch, length] row-major.
struct decoder_batch {
  const token* tokens = nullptr;    ///< inputs
  const token* labels = nullptr;    ///< the token that follows each input, or `ignored`
  index batch = 0;                  ///< sequences
  index length = 0;                 ///< tokens per sequence
  const index* prefixes = nullptr;  ///< [batch] tokens that see each other, for attention::prefix
};

/// A decoder-only model as a type; spelled decoder<shape, policies...>.
template <decoder_shape Shape, class Choices>
struct decoder_model {
 private:
  using Ffn = typename Choices::template of<linnet::ffn::policy>;
  using Attention = typename Choices::template of<linnet::attention::policy>;
  using Norm = typename Choices::template of<linnet::norm::policy>;
  using Position = typename Choices::template of<linnet::position::policy>;
  using Bias = typename Choices::template of<linnet::bias::policy>;

 public:
  static_assert(Shape.valid(),
                "linnet::decoder: the shape is incomplete or inconsistent: every number must be "
                "positive, heads a "
                "multiple of kv_heads, and d_model a multiple of heads unless d_kv is given");

  static_assert(Attention::causal,
                "linnet::decoder: this kind of attention sees later tokens; it fits T5 encoders");

  static constexpr model_family family = model_family::decoder;
  static constexpr decoder_shape shape = Shape;
  static constexpr bool tied =
      std::is_same_v<typename Choices::template of<linnet::tie::policy>, tie::tied>;
  static constexpr bool biased = std::is_same_v<Bias, bias::all>;
  static constexpr bool learned = std::is_base_of_v<linnet::position::learned, Position>;
  static constexpr bool sinusoidal = std::is_base_of_v<linnet::position::sinusoidal, Position>;
  static constexpr bool rotary = Position::pairing != rope_pairing::none;
  static constexpr bool embedding_normed = Attention::embedding_norm;
  /// Whether decoding can take tokens back, and whether it forgets old ones.
  static constexpr bool rewinds = Attention::rewinds && Ffn::rewinds, forgets = Attention::forgets;
  using ffn = Ffn;
  using attention = Attention;
  using norm = Norm;
  using position = Position;
  using storage = typename Choices::template of<linnet::storage::policy>;
  using cache = typename Choices::template of<linnet::kv::policy>;
  using batch = decoder_batch;
  /// The same model with another choice for what derives from `Slot`.
  template <class Slot, class Other>
  using with = decoder_model<Shape, typename Choices::template with<Slot, Other>>;
  /// The same model with another feed-forward.
  template <class Other>
  using with_ffn = with<linnet::ffn::policy, Other>;
  /// The same model with another kind of attention.
  template <class Other>
  using with_attention = with<linnet::attention::policy, Other>;
  /// The same model with another key-value cache.
  template <class Other>
  using with_cache = with<linnet::kv::policy, Other>;
  /// The same model with another storage type.
  template <class Other>
  using with_storage = with<linnet::storage::policy, Other>;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary,
                         context_length = Shape.context;
  static constexpr real eps{Shape.eps};
  static constexpr attention_shape self{.d_model = d,
                                        .heads = Shape.heads,
                                        .kv_heads = Shape.kv_heads,
                                        .d_kv = Shape.head_width(),
                                        .causal = true,
                                        .bias = biased,
                                        .rope = Position::pairing,
                                        .cache = cache::code};
  using norm_layer = typename Norm::template layer<d, eps>;
  /// The attention layer of the first block.
  static constexpr attention_shape self_first = [] {
    attention_shape a = self;
    a.first = Attention::first_differs;
    return a;
  }();
  template <attention_shape A>
  using block_with = typename detail::block_of<
      Norm, Ffn, named<"attention", residual<norm_layer, typename Attention::template layer<A>>>>::
      template make<d, Shape.d_ff, biased, eps>::type;
  using blocks =
      typename detail::stack_of<block_with<self_first>, std::type_identity<block_with<self>>,
                                Shape.layers, Attention::first_differs>::type;

  template <class Form>
  struct params {
    typename Form::matrix embedding{};
    [[no_unique_address]] std::conditional_t<
        embedding_normed, typename norm_layer::template params<Form>, std::nullptr_t>
        embedding_norm{};
    [[no_unique_address]] std::conditional_t<learned, typename Form::vector, std::nullptr_t>
        positions{};
    typename blocks::template params<Form> stack{};
    typename norm_layer::template params<Form> norm{};
    [[no_unique_address]] std::conditional_t<tied, std::nullptr_t, typename Form::matrix> head{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    f(at / "embedding" / "weight",
      tensor_info{vocabulary, d, role::table, initial_deviation, embedding_start}, p.embedding...);
    if constexpr (embedding_normed)
      norm_layer::visit(f, at / "embedding" / "norm", p.embedding_norm...);
    if constexpr (learned)
      f(at / "position" / "weight",
        tensor_info{context_length, d, role::position, initial_deviation}, p.positions...);
    // The usual small normal values instead of fan-in scaling (GPT-2, STLM).
    const auto normal = [&](const path& where, tensor_info info, auto&... leaf) {
      if (info.deviation > 0) info.deviation = initial_deviation;
      f(where, info, leaf...);
    };
    blocks::visit(normal, at / "blocks", p.stack...);
    norm_layer::visit(f, at / "norm", p.norm...);
    if constexpr (!tied)
      f(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, head_deviation},
        p.head...);
  }
  static constexpr double initial_deviation = 0.02;
  static constexpr double head_deviation =
      embedding_normed ? 0.5 / detail::root(static_cast<double>(d)) : initial_deviation;
  /// A normalised embedding starts so small that its norm's epsilon outweighs it (RWKV).
  static constexpr decltype(tensor_info::start) embedding_start =
      embedding_normed ? +[](const path&, index,
                             random_stream& random) { return 1e-4 * (2 * random.uniform() - 1); }
                       : nullptr;

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<decoder_model>(); }
  /// Parameters outside the embedding, the position table and an untied head.
  static constexpr index non_embedding() {
    return parameters() - vocabulary * d * (tied ? 1 : 2) - (learned ? context_length * d : 0);
  }
  /// Floating-point operations of one forward call over [batch, length] tokens, head included.
  static constexpr index flops(index batch_size, index length) {
    const extents e = detail::stack_extents({.batch = batch_size}, purpose::scoring, length, 0);
    return blocks::flops(e) + norm_layer::flops(e) + 2 * e.rows() * d * vocabulary;
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{}, embedding_norm{};
    T *embedded = nullptr, *out = nullptr, *normed = nullptr;  ///< [rows, d]
    T *looked_up = nullptr, *d_looked_up = nullptr;  ///< [rows, d] before the embedding's norm
    T *d_embedded = nullptr, *d_out = nullptr, *d_normed = nullptr;
    T* table = nullptr;       ///< rotary [positions, d_kv] or sinusoidal [positions, d]
    T* beyond = nullptr;      ///< [rows, d_kv] rotary, of later positions
    index positions = 0;      ///< of the rotary table
    index* prefix = nullptr;  ///< [batch] tokens of each sequence's first call
    T* chunk = nullptr;       ///< logits of some rows
    T* last = nullptr;        ///< [batch, d] last valid rows
    T* logits = nullptr;      ///< [batch * limits.logits, vocabulary]
    const std::int32_t* tables = nullptr;  ///< [batch, table_size] of a session's paged cache
    index table_size = 0;
    double* losses = nullptr;  ///< [rows]
    int site = 0;
  };
  /// The longest sequence for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : context_length;
  }
  /// Positions of the rotary table; those of longer texts are computed as they come.
  static constexpr index rotary_positions(const limits& l) {
    return (std::min)(longest(l), (std::max)(context_length, Attention::slots));
  }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const extents e = detail::stack_extents(l, use, longest(l), 0);
    const index size = e.rows() * d;
    workspace<T> w;
    w.site = m.sites++;
    if (rotary) w.table = m.state.take<T>(rotary_positions(l) * self.d_kv);
    if (rotary && longest(l) > rotary_positions(l)) w.beyond = m.keep.take<T>(e.rows() * self.d_kv);
    if (sinusoidal) w.table = m.state.take<T>(longest(l) * d);
    w.embedded = m.keep.take<T>(size);
    w.looked_up = embedding_normed ? m.keep.take<T>(size) : w.embedded;
    w.out = m.keep.take<T>(size);
    w.normed = m.keep.take<T>(size);
    if (use == purpose::decoding) {
      if (Attention::takes_prefix) w.prefix = m.keep.take<index>(e.batch);
      w.last = m.keep.take<T>(e.batch * d);
      m.product(e.batch * l.logits, d, vocabulary, e);
      w.logits = m.state.take<T>(e.batch * l.logits * vocabulary);
    } else {
      w.losses = m.keep.take<double>(e.rows());
      w.chunk = m.keep.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), d, vocabulary, e);
    }
    if (e.training) {
      w.d_embedded = m.keep.take<T>(size);
      w.d_out = m.keep.take<T>(size);
      w.d_normed = m.keep.take<T>(size);
      w.d_looked_up = embedding_normed ? m.keep.take<T>(size) : w.d_embedded;
    }
    if (embedding_normed) w.embedding_norm = norm_layer::template plan<T>(m, e);
    w.norm = norm_layer::template plan<T>(m, e);
    w.stack = blocks::template plan<T>(m, e);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    if constexpr (rotary) {
      w.positions = rotary_positions(l);
      ops::rope_table(w.positions, self.d_kv, Shape.rope_theta, w.table);
    }
    if constexpr (sinusoidal)
      for (index t = 0; t < longest(l); ++t)
        for (index i = 0; i < d; ++i) w.table[t * d + i] = static_cast<T>(ops::sinusoid(t, i, d));
  }

  /// Whether prefixes, if any, are given to a model that takes them and lie inside the sequences.
  static bool prefixes_fit(const batch& b) {
    for (index i = 0; b.prefixes && i < b.batch; ++i)
      if (!Attention::takes_prefix || b.prefixes[i] < 0 || b.prefixes[i] > b.length) return false;
    return true;
  }
  /// Whether a batch fits the limits and holds only tokens of the vocabulary.
  static bool accepts(const batch& b, const limits& l) {
    return b.batch >= 1 && b.batch <= l.batch && b.length >= 1 && b.length <= longest(l) &&
           detail::tokens_fit(b.tokens, b.batch * b.length, vocabulary, false) &&
           detail::tokens_fit(b.labels, b.batch * b.length, vocabulary, true) && prefixes_fit(b);
  }

  /// The final hidden states of a batch and the head that is to read them, which ops::head_loss()
  /// and ops::head_logits() take. Called by every thread.
  template <class T, class S>
  static ops::head_call<T, S> read(const params<form::kernel<T, S>>& p, const batch& b,
                                   workspace<T>& w, const ops::machine& on) {
    context<T> ctx = batch_context<T>(b, on);
    return read<T, S>(p, b, w, ctx);
  }
  /// Summed loss of a batch by a criterion (see ops::label_loss), the cross-entropy. With `dp`,
  /// also adds the gradient of that sum. `logits`, if given, receives all [batch * length,
  /// vocabulary] of them. `z_loss` is the weight of the squared logsumexp. Called by every thread.
  template <class T, class S, class Criterion = ops::label_loss>
  static loss_sum loss(const params<form::kernel<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::machine& on,
                       const dropout_key& dropout, T* logits = nullptr, double z_loss = 0,
                       const Criterion& criterion = {}) {
    context<T> ctx = batch_context<T>(b, on);
    ctx.dropout = dropout;
    const index rows = ctx.rows();
    ops::head_call<T, S> head = read<T, S>(p, b, w, ctx);
    if (dp) ops::fill(on, rows * d, T(0), w.d_normed);
    head.logits = logits;
    head.z_loss = z_loss;
    if constexpr (ops::trainable<S>)
      if (dp) {
        head.dy = w.d_normed;
        head.d_table = head_gradient<T>(*dp);
      }
    const loss_sum sum = ops::head_loss(on, head, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        const view<T, d> d_out(w.d_out, rows), d_embedded(w.d_embedded, rows);
        ops::fill(on, d_out.size(), T(0), w.d_out);
        norm_layer::template backward<T, S>(p.norm, dp->norm, {w.out, rows}, {w.d_normed, rows},
                                            d_out, w.norm, ctx);
        ops::fill(on, d_embedded.size(), T(0), w.d_embedded);
        blocks::template backward<T, S>(p.stack, dp->stack, {w.embedded, rows}, d_out, d_embedded,
                                        w.stack, ctx);
        ops::dropout(on.threads, dropout, w.site, ctx.batch, ctx.length, d, w.d_embedded);
        if constexpr (embedding_normed) {
          ops::fill(on, rows * d, T(0), w.d_looked_up);
          norm_layer::template backward<T, S>(p.embedding_norm, dp->embedding_norm,
                                              {w.looked_up, rows}, d_embedded,
                                              {w.d_looked_up, rows}, w.embedding_norm, ctx);
        }
        ops::embed_backward(on, rows, d, b.tokens, w.d_looked_up, dp->embedding);
        if constexpr (learned)
          ops::position_backward(on, ctx.batch, ctx.length, d, w.d_looked_up, dp->positions);
      }
    return sum;
  }

  /// Feeds [batch, length] tokens after `past` cached ones; w.logits[batch, vocabulary] then
  /// predicts what follows each sequence's last valid token, or with `every`
  /// w.logits[batch * length, vocabulary] what follows each token. Called by every thread.
  template <class T, class S>
  static void step(const params<form::kernel<T, S>>& p, const token* tokens, index batch_size,
                   index length, const index* lengths, const index* past, workspace<T>& w,
                   const ops::machine& on, bool every = false) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = batch_size;
    ctx.length = length;
    ctx.lengths = lengths;
    ctx.past = past;
    ctx.tables = w.tables;
    ctx.table_size = w.table_size;
    if constexpr (Attention::takes_prefix) {
      on.threads.each(batch_size, [&](index i) {
        w.prefix[i] = past[i] == 0 ? ctx.length_of(i) : 0;  // later tokens see all before them
      });
      ctx.prefix = w.prefix;
    }
    forward<T, S>(p, tokens, w, ctx);
    if (!every)
      on.threads.each(batch_size, [&](index i) {
        std::copy_n(w.normed + (i * length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    ops::matmul(on, every ? ctx.rows() : batch_size, vocabulary, d, every ? w.normed : w.last,
                head_matrix<T, S>(p), w.logits);
  }

  /// Lets cached sequence `to` continue where `from` is.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(w.stack, from, to, part);
  }

 private:
  template <class T>
  static context<T> batch_context(const batch& b, const ops::machine& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = b.length;
    if constexpr (Attention::takes_prefix) ctx.prefix = b.prefixes;
    return ctx;
  }
  template <class T, class S>
  static ops::head_call<T, S> read(const params<form::kernel<T, S>>& p, const batch& b,
                                   workspace<T>& w, context<T>& ctx) {
    forward<T, S>(p, b.tokens, w, ctx);
    return {ctx.rows(), d,        vocabulary, w.normed, head_matrix<T, S>(p),
            T(1),       b.labels, w.chunk,    w.losses};
  }
  template <class T, class S>
  static const ops::packed_matrix<T, S>& head_matrix(const params<form::kernel<T, S>>& p) {
    if constexpr (tied)
      return p.embedding;
    else
      return p.head;
  }
  template <class T>
  static T* head_gradient(params<form::gradient<T>>& dp) {
    if constexpr (tied)
      return dp.embedding;
    else
      return dp.head;
  }
  /// Tells the layers the angles of this call.
  template <class T>
  static void rotary_angles(workspace<T>& w, context<T>& ctx) {
    ctx.rope = w.table;
    ctx.rope_positions = w.positions;
    ctx.rope_beyond = w.beyond;
    if (w.beyond)
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        const index position = ctx.past_of(row / ctx.length) + row % ctx.length;
        if (position >= w.positions)
          ops::rope_angles(position, self.d_kv, Shape.rope_theta, w.beyond + row * self.d_kv);
      });
  }
  /// tokens -> w.normed
  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, const token* tokens, workspace<T>& w,
                      context<T>& ctx) {
    const index rows = ctx.rows();
    ops::embed(ctx.on, rows, d, tokens, p.embedding, w.looked_up);
    if constexpr (rotary) rotary_angles(w, ctx);
    const T* table = nullptr;
    if constexpr (learned) table = p.positions;
    if constexpr (sinusoidal) table = w.table;
    if (table)
      ctx.on.threads.each(rows, [&](index i) {
        const index position = ctx.past_of(i / ctx.length) + i % ctx.length;
        for (index j = 0; j < d; ++j) w.looked_up[i * d + j] += table[position * d + j];
      });
    if constexpr (embedding_normed)
      norm_layer::template forward<T, S>(p.embedding_norm, {w.looked_up, rows}, {w.embedded, rows},
                                         w.embedding_norm, ctx);
    ops::dropout(ctx.on.threads, ctx.dropout, w.site, ctx.batch, ctx.length, d, w.embedded);
    blocks::template forward<T, S>(p.stack, {w.embedded, rows}, {w.out, rows}, w.stack, ctx);
    norm_layer::template forward<T, S>(p.norm, {w.out, rows}, {w.normed, rows}, w.norm, ctx);
  }
};

namespace detail {
template <decoder_shape Shape, class... Ps>
struct make_decoder {
  static_assert((known_policy<Ps> && ...),
                "linnet::decoder<shape, policies...>: an argument is not a policy; derive your own "
                "from ffn::policy, "
                "attention::policy or norm::policy");
  static_assert(policies_fit<Ps...>());
  using type = decoder_model<
      Shape,
      choices<pick<ffn::policy, ffn::swiglu, Ps...>,
              pick<attention::policy, attention::full, Ps...>, pick<norm::policy, norm::rms, Ps...>,
              pick<position::policy, position::rope, Ps...>, pick<tie::policy, tie::tied, Ps...>,
              pick<bias::policy, bias::none, Ps...>, typename pick_storage<Ps...>::type,
              pick<kv::policy, kv::exact, Ps...>>>;
};
}  // namespace detail

/// A decoder-only model: numbers from `Shape`, choices from policies in any order. Defaults:
/// SwiGLU, full causal attention, RMSNorm, interleaved RoPE, tied head, no biases, f32.
template <decoder_shape Shape, class... Policies>
using decoder = typename detail::make_decoder<Shape, Policies...>::type;

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number as its shortest decimal text: 1e-06, 0.5; whole numbers without an exponent: 500000.
inline std::string number_text(double x) {
  char digits[32];
  if (const double limit = 9007199254740992;
      x > -limit && x < limit && x == static_cast<double>(static_cast<std::int64_t>(x)))
    return std::to_string(static_cast<std::int64_t>(x));
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}

constexpr const char* name_of(activation_kind kind) {
  switch (kind) {
    case activation_kind::relu:
      return "relu";
    case activation_kind::gelu:
      return "gelu";
    case activation_kind::gelu_tanh:
      return "gelu_tanh";
    default:
      return "silu";
  }
}

/// What is known about a feed-forward policy; one without a name is "custom".
template <class P>
struct ffn_facts {
  static constexpr bool standard = false, gated = false;
  static std::string name() {
    if constexpr (requires { P::name(); })
      return P::name();
    else
      return "custom";
  }
};
template <activation_kind A>
struct ffn_facts<ffn::standard<A>> {
  static constexpr bool standard = true, gated = false;
  static constexpr activation_kind activation = A;
  static std::string name() { return name_of(A); }
};
template <activation_kind A>
struct ffn_facts<ffn::gated<A>> {
  static constexpr bool standard = false, gated = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return std::string("gated ") + name_of(A); }
};
template <>
struct ffn_facts<ffn::skip> : ffn_facts<void> {
  static std::string name() { return "skip"; }
};
template <>
struct ffn_facts<ffn::linear> : ffn_facts<void> {
  static std::string name() { return "linear"; }
};
template <>
struct ffn_facts<ffn::linear_relu> : ffn_facts<void> {
  static std::string name() { return "linear relu"; }
};
template <int N, expansion E>
struct ffn_facts<ffn::reparam<N, E>> : ffn_facts<void> {
  static std::string name() {
    return "reparam " + std::to_string(N) + " expansion " +
           number_text(static_cast<double>(E.thousandths) / 1000);
  }
};

template <class P>
constexpr const char* norm_name() {
  if constexpr (std::is_same_v<P, norm::rms>)
    return "rms";
  else if constexpr (std::is_same_v<P, norm::layer_norm>)
    return "layer_norm";
  else
    return "custom";
}
template <class P>
constexpr const char* position_name() {
  if constexpr (std::is_same_v<P, position::rope>)
    return "rope";
  else if constexpr (std::is_same_v<P, position::rope_half>)
    return "rope_half";
  else if constexpr (std::is_same_v<P, position::learned>)
    return "learned";
  else if constexpr (std::is_same_v<P, position::sinusoidal>)
    return "sinusoidal";
  else if constexpr (std::is_same_v<P, position::none>)
    return "none";
  else
    return "custom";
}

/// One statement about a model.
struct fact {
  std::string key, value;
};

/// Everything that decides what the weights of `M` compute; neither storage nor scalar type.
template <class M>
std::vector<fact> facts_of() {
  std::vector<fact> all;
  const auto number = [&](const char* key, auto value) {
    all.push_back({key, number_text(static_cast<double>(value))});
  };
  const auto text = [&](const char* key, std::string value) {
    all.push_back({key, std::move(value)});
  };
  constexpr auto shape = M::shape;
  number("d_model", shape.d_model);
  number("d_ff", shape.d_ff);
  number("heads", shape.heads);
  number("vocabulary", shape.vocabulary);
  number("eps", shape.eps);
  if constexpr (M::family == model_family::t5) {
    text("family", "t5");
    number("d_kv", shape.d_kv);
    number("encoder_layers", shape.encoder_layers);
    number("decoder_layers", shape.decoder_layers);
    number("buckets", shape.buckets);
    number("max_distance", shape.max_distance);
    text("encoder_ffn", ffn_facts<typename M::encoder_ffn>::name());
    text("decoder_ffn", ffn_facts<typename M::decoder_ffn>::name());
    text("encoder_attention", M::encoder_attention::name());
    text("decoder_attention", M::decoder_attention::name());
  } else {
    text("family", "decoder");
    number("d_kv", shape.head_width());
    number("kv_heads", shape.kv_heads);
    number("layers", shape.layers);
    number("context", shape.context);
    text("position", position_name<typename M::position>());
    if constexpr (M::rotary) number("rope_theta", shape.rope_theta);
    text("ffn", ffn_facts<typename M::ffn>::name());
    text("attention", M::attention::name());
  }
  text("norm", norm_name<typename M::norm>());
  text("head", M::tied ? "tied" : "untied");
  text("bias", M::biased ? "all" : "none");
  return all;
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Tensors in files: their element types, and the way between them and a model's weights.

#include <bit>

LINNET_NAMESPACE_BEGIN

static_assert(std::endian::native == std::endian::little,
              "linnet reads and writes files on little-endian machines only");

/// Element types of tensors in files, little-endian.
enum class dtype {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64
};

namespace detail {
struct dtype_facts {
  std::string_view name;
  index size;
};
inline constexpr std::array<dtype_facts, 15> dtype_table{{{"BOOL", 1},
                                                          {"U8", 1},
                                                          {"I8", 1},
                                                          {"F8_E4M3", 1},
                                                          {"F8_E5M2", 1},
                                                          {"U16", 2},
                                                          {"I16", 2},
                                                          {"F16", 2},
                                                          {"BF16", 2},
                                                          {"U32", 4},
                                                          {"I32", 4},
                                                          {"F32", 4},
                                                          {"U64", 8},
                                                          {"I64", 8},
                                                          {"F64", 8}}};
}  // namespace detail

/// The name of an element type in safetensors files, such as "F32".
constexpr std::string_view name_of(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].name;
}
/// Bytes of one element.
constexpr index size_of(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].size;
}
/// Whether values of this type can be read as real numbers: F16, BF16, F32, F64.
constexpr bool is_real(dtype type) {
  return type == dtype::f16 || type == dtype::bf16 || type == dtype::f32 || type == dtype::f64;
}

namespace detail {

/// Any object at `from`, which need not be aligned.
template <class T>
T load_as(const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

/// to[count] = values of a real type, `stride` elements apart.
inline void decode_reals(dtype type, const std::byte* from, index count, index stride, double* to) {
  const index step = stride * size_of(type);
  switch (type) {
    case dtype::f16:
      for (index i = 0; i < count; ++i)
        to[i] = storage::f16::decode(load_as<std::uint16_t>(from + i * step));
      break;
    case dtype::bf16:
      for (index i = 0; i < count; ++i)
        to[i] = storage::bf16::decode(
            static_cast<storage::bf16::value>(load_as<std::uint16_t>(from + i * step)));
      break;
    case dtype::f32:
      for (index i = 0; i < count; ++i)
        to[i] = static_cast<double>(load_as<float>(from + i * step));
      break;
    default:
      for (index i = 0; i < count; ++i) to[i] = load_as<double>(from + i * step);
  }
}

/// One tensor of a weights object, whatever the model's type.
struct leaf {
  std::string name;         ///< canonical
  index rows = 0;           ///< output features; of a vector, its length
  index columns = 0;        ///< elements in a row: input features, or 1 for a vector
  bool vector = false;      ///< one dimension in files
  dtype type = dtype::f32;  ///< of the elements in memory
  std::byte* data = nullptr;
  float* scales = nullptr;  ///< [rows, row_scales] of a scaled matrix
  float* zeros = nullptr;   ///< likewise of a centred one
  index row_scales = 0;

  index size() const { return rows * columns; }
};

/// The element type that storage `S` has in files.
template <class S>
constexpr dtype dtype_of() {
  using value = typename S::value;
  if constexpr (std::is_same_v<value, float>) return dtype::f32;
  if constexpr (std::is_same_v<value, double>) return dtype::f64;
  if constexpr (std::is_same_v<value, simd::bf16_code>) return dtype::bf16;
  if constexpr (std::is_same_v<value, std::uint16_t>) return dtype::f16;
  if constexpr (std::is_same_v<value, std::int8_t>) return dtype::i8;
  if constexpr (std::is_same_v<value, std::uint8_t>)
    return S::code == simd::code::f8_e4m3   ? dtype::f8_e4m3
           : S::code == simd::code::f8_e5m2 ? dtype::f8_e5m2
                                            : dtype::u8;
}

/// The tensors of `w` in canonical order. From here on nothing depends on the model's type.
template <class M, class T>
std::vector<leaf> leaves_of(const weights<M, T>& w) {
  std::vector<leaf> all;
  w.visit([&](const path& at, const tensor_info& info, const auto& from) {
    leaf one{.name = at.str(), .rows = info.rows, .columns = info.columns};
    one.vector = !info.decays() && info.rows == 1;
    if (one.vector) std::swap(one.rows, one.columns);
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
      one.type = std::is_same_v<T, double> ? dtype::f64 : dtype::f32;
      one.data = reinterpret_cast<std::byte*>(from);
    } else {
      using S = storage_of<M, T>;
      one.type = dtype_of<S>();
      one.columns = row_values<S>(info.columns);
      one.data = reinterpret_cast<std::byte*>(from.data);
      one.scales = from.scales;
      one.zeros = from.zeros;
      one.row_scales = row_scales<S>(info.columns);
    }
    all.push_back(std::move(one));
  });
  return all;
}

/// Stores `count` values at element `first` of a tensor.
inline void encode_reals(const leaf& to, index first, index count, const double* from) {
  switch (to.type) {
    case dtype::f32: {
      auto* const data = reinterpret_cast<float*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::f32::encode(from[i]);
      break;
    }
    case dtype::bf16: {
      auto* const data = reinterpret_cast<storage::bf16::value*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::bf16::encode(from[i]);
      break;
    }
    case dtype::f16: {
      auto* const data = reinterpret_cast<storage::f16::value*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::f16::encode(from[i]);
      break;
    }
    default: {
      auto* const data = reinterpret_cast<double*>(to.data) + first;
      std::copy_n(from, count, data);
    }
  }
}

/// Where the rows of one tensor of the model stand within a tensor of a file.
struct placement {
  std::string name;  ///< of the tensor in the file
  index rows = 0;    ///< its shape: [rows, columns], or [rows] for a vector
  index columns = 1;
  bool vector = false;
  bool depthwise = false;   ///< the file has filters of channels: [rows, 1, columns]
  bool transposed = false;  ///< the file has [in, out]
  index offset = 0;         ///< output feature of the file at which the model's first row stands
  index half_heads =
      0;  ///< head width, where the file has RoPE pairs (i, i + h/2) and the model (2i, 2i+1)
  index paired_heads = 0;  ///< head width, the other way round

  /// The file's output feature that holds row `n` of the model.
  index feature(index n) const {
    if (const index h = half_heads; h > 0) n = n / h * h + n % h % 2 * (h / 2) + n % h / 2;
    if (const index h = paired_heads; h > 0) n = n / h * h + n % h % (h / 2) * 2 + n % h / (h / 2);
    return offset + n;
  }
  bool reordered() const { return transposed || half_heads > 0 || paired_heads > 0; }
  /// The element at which row `n` begins, and the distance between its elements.
  std::pair<index, index> row(index n) const {
    return transposed ? std::pair(feature(n), columns) : std::pair(feature(n) * columns, index(1));
  }
};

/// Reads the rows of `to` from a tensor of real numbers, converting its type.
inline void copy_in(const leaf& to, const placement& at, dtype type, const std::byte* from) {
  if (type == to.type && !at.reordered()) {
    const index size = size_of(type);
    __builtin_memcpy(to.data, from + at.row(0).first * size,
                     static_cast<std::size_t>(to.size() * size));
    return;
  }
  std::array<double, 256> some;
  for (index n = 0; n < to.rows; ++n) {
    const auto [begin, step] = at.row(n);
    for (index j = 0; j < to.columns; j += std::ssize(some)) {
      const index count = (std::min)(std::ssize(some), to.columns - j);
      decode_reals(type, from + (begin + j * step) * size_of(type), count, step, some.data());
      encode_reals(to, n * to.columns + j, count, some.data());
    }
  }
}

/// Writes the rows of `from` into a tensor of the same element type; `Word` has its size.
template <class Word>
void copy_out_as(const leaf& from, const placement& at, std::byte* to) {
  constexpr index size = sizeof(Word);
  const std::byte* source = from.data;
  for (index n = 0; n < from.rows; ++n, source += from.columns * size) {
    const auto [begin, step] = at.row(n);
    if (step == 1)
      __builtin_memcpy(to + begin * size, source, static_cast<std::size_t>(from.columns * size));
    else
      for (index j = 0; j < from.columns; ++j)
        __builtin_memcpy(to + (begin + j * step) * size, source + j * size, sizeof(Word));
  }
}
inline void copy_out(const leaf& from, const placement& at, std::byte* to) {
  switch (size_of(from.type)) {
    case 1:
      return copy_out_as<std::uint8_t>(from, at, to);
    case 2:
      return copy_out_as<std::uint16_t>(from, at, to);
    case 4:
      return copy_out_as<std::uint32_t>(from, at, to);
    default:
      return copy_out_as<std::uint64_t>(from, at, to);
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The tokenizer of llama2.c: byte-pair merges by score, with bytes for what the vocabulary lacks.

#include <queue>

LINNET_NAMESPACE_BEGIN

/// A vocabulary of scored pieces, read from llama2.c's tokenizer.bin: u32 longest length, then per
/// id f32 score, u32 length, bytes. Ids 0 to 2 are unknown, begin and end; 3 to 258 the bytes
/// "<0x00>" to "<0xFF>". Movable and copyable; const calls may run in any threads.
class llama2c_tokenizer {
 public:
  static constexpr token unknown = 0, begin = 1, end = 2;
  static constexpr token first_byte = 3;            ///< id of the byte 0
  static constexpr index most_pieces = 512 * 1024;  ///< largest vocabulary that is read

  /// Parses a tokenizer.bin held in memory. The file does not say how many pieces it has:
  /// `vocabulary` comes from the model. `where` names the file in errors. Errors: errc::malformed,
  /// errc::mismatch (another number of pieces), errc::invalid (a vocabulary without bytes or too
  /// large).
  static result<llama2c_tokenizer> parse(std::span<const std::byte> file, index vocabulary,
                                         const std::string& where = "tokenizer.bin");

  /// Number of pieces.
  index vocabulary() const { return std::ssize(pieces_); }
  /// The piece of an id as the file has it, or "" for an id outside the vocabulary.
  std::string_view piece(token id) const {
    if (id < 0 || id >= vocabulary()) return {};
    const entry& e = pieces_[static_cast<std::size_t>(id)];
    return {text_.data() + e.first, e.size};
  }
  /// The id of a piece, the lowest if the vocabulary has it more than once, or -1.
  token find(std::string_view piece) const { return find(piece, {}); }

  /// The ids of a text: a space is put before it, its UTF-8 sequences become pieces or bytes, then
  /// the neighbours whose union has the best score merge, leftmost first, until none is left.
  /// Optionally with the begin and end ids around. Takes n log n steps.
  std::vector<token> encode(std::string_view text, bool with_begin = true,
                            bool with_end = false) const;

  /// The bytes that `id` adds to a text after `previous`: its piece, without the leading space
  /// after begin; of a byte's piece, that byte.
  std::string_view decode(token previous, token id) const {
    std::string_view text = piece(id);
    if (previous == begin && text.starts_with(' ')) text.remove_prefix(1);
    const int byte = byte_of(text);
    return byte < 0 ? text : std::string_view(all_bytes.data() + byte, 1);
  }
  /// The text of several ids, without begin and end. Given a vocabulary with a piece " ",
  /// decode(encode(text)) is `text`.
  template <class Tokens>
  std::string decode(const Tokens& ids) const {
    std::string text;
    token previous = begin;
    for (const token id : ids) {
      if (id != begin && id != end) text += decode(previous, id);
      previous = id;
    }
    return text;
  }

 private:
  struct entry {
    std::uint32_t first, size;
    float score;
  };
  std::string text_;             ///< the file: all pieces, with numbers between
  std::vector<entry> pieces_;    ///< by id
  std::vector<token> by_piece_;  ///< ids sorted by piece, then id

  /// The id of the piece `a` + `b`, or -1.
  token find(std::string_view a, std::string_view b) const {
    const auto before = [&](token id, int) {
      const std::string_view p = piece(id);
      const int order = p.substr(0, a.size()).compare(a);
      return order != 0 ? order < 0 : p.substr((std::min)(a.size(), p.size())) < b;
    };
    const auto at = std::lower_bound(by_piece_.begin(), by_piece_.end(), 0, before);
    if (at == by_piece_.end()) return -1;
    const std::string_view p = piece(*at);
    return p.size() == a.size() + b.size() && p.starts_with(a) && p.ends_with(b) ? *at : -1;
  }
  /// The byte that a piece such as "<0x0A>" stands for, or -1.
  static int byte_of(std::string_view piece) {
    if (piece.size() < 5 || !piece.starts_with("<0x")) return -1;
    int byte = 0;
    for (const char c : piece.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      byte = 16 * byte + digit;
    }
    return byte;
  }
  static constexpr std::array<char, 256> all_bytes = [] {
    std::array<char, 256> all{};
    for (std::size_t b = 0; b < 256; ++b) all[b] = static_cast<char>(b);
    return all;
  }();
};

inline result<llama2c_tokenizer> llama2c_tokenizer::parse(std::span<const std::byte> file,
                                                          index vocabulary,
                                                          const std::string& where) {
  const auto wrong = [&](errc code, std::string what, std::string expected, std::string got) {
    return error{code, where, std::move(what), std::move(expected), std::move(got)};
  };
  if (vocabulary < first_byte + 256 || vocabulary > most_pieces)
    return wrong(errc::invalid, "vocabulary of the model", "259 to " + std::to_string(most_pieces),
                 std::to_string(vocabulary));
  if (file.size() < 4)
    return wrong(errc::malformed, "file size", "at least 4 bytes", std::to_string(file.size()));
  if (static_cast<std::size_t>(vocabulary) > (file.size() - 4) / 8)
    return wrong(errc::mismatch, "file size",
                 "room for " + std::to_string(vocabulary) + " pieces (the model's vocabulary)",
                 std::to_string(file.size()) + " bytes");
  if (file.size() > UINT32_MAX)
    return wrong(errc::malformed, "file size", "below 4 GiB", std::to_string(file.size()));

  std::size_t at = 0;
  const auto take = [&](auto& value) {
    __builtin_memcpy(&value, file.data() + at, sizeof value);
    at += sizeof value;
  };
  llama2c_tokenizer made;
  std::uint32_t longest = 0;
  take(longest);
  made.pieces_.reserve(static_cast<std::size_t>(vocabulary));
  for (token id = 0; id < vocabulary; ++id) {
    const auto what = [&](const char* field = "") { return "piece " + std::to_string(id) + field; };
    if (file.size() - at < 8)
      return wrong(errc::mismatch, what(),
                   "one (the model's vocabulary has " + std::to_string(vocabulary) + ")",
                   "the end of the file");
    entry e{};
    take(e.score);
    take(e.size);
    e.first = static_cast<std::uint32_t>(at);
    if (!is_finite(e.score))
      return wrong(errc::malformed, what(": score"), "a finite number", "another");
    if (e.size > file.size() - at)
      return wrong(errc::malformed, what(": length"),
                   "at most the " + std::to_string(file.size() - at) + " bytes left",
                   std::to_string(e.size));
    if (e.size > longest)
      return wrong(errc::malformed, what(": length"),
                   "at most " + std::to_string(longest) + ", the longest by the header",
                   std::to_string(e.size));
    const std::string_view text(reinterpret_cast<const char*>(file.data()) + at, e.size);
    at += e.size;
    made.pieces_.push_back(e);
    if (id >= first_byte && id < first_byte + 256 &&
        (e.size != 6 || byte_of(text) != id - first_byte)) {
      constexpr std::string_view hex = "0123456789ABCDEF";
      const int byte = id - first_byte;
      std::string expected = "<0x";
      ((expected += hex[static_cast<std::size_t>(byte / 16)]) +=
       hex[static_cast<std::size_t>(byte % 16)]) += '>';
      return wrong(errc::malformed, what(), expected, "another piece");
    }
  }
  if (at != file.size())
    return wrong(errc::mismatch, "file size",
                 std::to_string(at) + " bytes for " + std::to_string(vocabulary) +
                     " pieces (the model's vocabulary)",
                 std::to_string(file.size()));
  made.text_.assign(reinterpret_cast<const char*>(file.data()), file.size());
  made.by_piece_.resize(made.pieces_.size());
  for (std::size_t i = 0; i < made.by_piece_.size(); ++i) made.by_piece_[i] = static_cast<token>(i);
  std::sort(made.by_piece_.begin(), made.by_piece_.end(), [&](token a, token b) {
    const int order = made.piece(a).compare(made.piece(b));
    return order != 0 ? order < 0 : a < b;
  });
  return made;
}

inline std::vector<token> llama2c_tokenizer::encode(std::string_view text, bool with_begin,
                                                    bool with_end) const {
  // The ids so far, as a list linked through the indices of its elements.
  struct link {
    token id;
    index previous, next;
  };
  std::vector<link> list;
  list.reserve(text.size() + 1);
  const auto append = [&](token id) {
    list.push_back({id, std::ssize(list) - 1, std::ssize(list) + 1});
  };
  const auto append_text = [&](std::string_view character) {
    if (const token id = find(character); id >= 0) return append(id);
    for (const char c : character) append(static_cast<unsigned char>(c) + first_byte);
  };
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  if (!text.empty()) append_text(" ");
  for (std::size_t i = 0, n = 0; i < text.size(); i += n) {
    for (n = 1; n < 4 && i + n < text.size() && continues(text[i + n]);) ++n;
    append_text(text.substr(i, n));
  }

  // Merges in order of score, then place. One is outdated when either id has changed since.
  struct merge {
    float score;
    index left, right;
    token left_id, right_id, id;
    bool operator<(const merge& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::priority_queue<merge> merges;
  const auto element = [&](index i) -> link& { return list[static_cast<std::size_t>(i)]; };
  const auto consider = [&](index left) {
    if (left < 0 || element(left).next >= std::ssize(list)) return;
    const index right = element(left).next;
    const token a = element(left).id, b = element(right).id, id = find(piece(a), piece(b));
    if (id < 0) return;
    const float score = pieces_[static_cast<std::size_t>(id)].score;
    if (score > -1e10f) merges.push({score, left, right, a, b, id});  // llama2.c's starting value
  };
  for (index i = 0; i < std::ssize(list); ++i) consider(i);
  while (!merges.empty()) {
    const merge m = merges.top();
    merges.pop();
    link& left = element(m.left);
    if (left.id != m.left_id || left.next != m.right || element(m.right).id != m.right_id) continue;
    left.id = m.id;
    left.next = element(m.right).next;
    element(m.right).id = -1;
    if (left.next < std::ssize(list)) element(left.next).previous = m.left;
    consider(left.previous);
    consider(m.left);
  }

  std::vector<token> ids;
  if (with_begin) ids.push_back(begin);
  for (index i = 0; i < std::ssize(list); i = element(i).next) ids.push_back(element(i).id);
  if (with_end) ids.push_back(end);
  return ids;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Versions of the llama2.c checkpoint format.
enum class llama2c_version { v0, v1 };

namespace detail {

inline constexpr std::uint32_t llama2c_magic = 0x616b3432;
inline constexpr index llama2c_header = 256;  ///< bytes, version 1

/// The facts of a model type that a checkpoint also holds, and the two that the format fixes.
struct llama2c_shape {
  std::int32_t dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocabulary = 0,
               context = 0;
  bool tied = true;
  index head_width = 0;
  index paired_heads =
      0;  ///< head width, where the model pairs (i, i + h/2) and the file (2i, 2i+1)
  double eps = 0, rope_theta = 0;
};

template <class M, class T>
constexpr llama2c_shape llama2c_shape_of() {
  static_assert(M::family == model_family::decoder,
                "linnet: llama2.c checkpoints hold decoder-only models");
  if constexpr (M::family == model_family::decoder) {
    using P = typename M::position;
    constexpr decoder_shape s = M::shape;
    static_assert(std::is_same_v<typename M::norm, norm::rms> &&
                      std::is_same_v<typename M::ffn, ffn::swiglu> &&
                      std::is_same_v<typename M::attention, attention::full> && !M::biased &&
                      (std::is_same_v<P, position::rope> || std::is_same_v<P, position::rope_half>),
                  "linnet: llama2.c checkpoints hold Llama models: norm::rms, ffn::swiglu, "
                  "attention::full, position::rope, "
                  "no biases");
    static_assert(s.heads * s.head_width() == s.d_model,
                  "linnet: in llama2.c checkpoints heads * head width is d_model");
    static_assert(!storage_of<M, T>::scaled,
                  "linnet: llama2.c checkpoints are f32; load the f32 model and quantize() it");
    const auto narrow = [](index x) { return static_cast<std::int32_t>(x); };
    return {narrow(s.d_model),
            narrow(s.d_ff),
            narrow(s.layers),
            narrow(s.heads),
            narrow(s.kv_heads),
            narrow(s.vocabulary),
            narrow(s.context),
            M::tied,
            s.head_width(),
            M::position::pairing == rope_pairing::half ? s.head_width() : 0,
            s.eps,
            s.rope_theta};
  }
}

/// Where each tensor stands in a file, in values behind the header, and how many there are.
class llama2c_layout {
 public:
  llama2c_layout(const llama2c_shape& s, llama2c_version version) : layers_(s.layers) {
    const index d = s.dim, kv = s.kv_heads * s.head_width, f = s.hidden, table = s.vocabulary * d;
    const bool legacy = version == llama2c_version::v0;
    const auto per_layer = [&](const char* name, index size) { add(name, size, true); };
    if (legacy) add("embedding.weight", table);
    per_layer("attention.norm.weight", d);
    if (!legacy) {
      per_layer("ffn.norm.weight", d);
      add("norm.weight", d);
      add("embedding.weight", table);
    }
    per_layer("attention.q.weight", d * d);
    per_layer("attention.k.weight", kv * d);
    per_layer("attention.v.weight", kv * d);
    per_layer("attention.o.weight", d * d);
    if (legacy) per_layer("ffn.norm.weight", d);
    per_layer("ffn.gate.weight", f * d);
    per_layer("ffn.down.weight", d * f);
    per_layer("ffn.up.weight", f * d);
    if (legacy) {
      add("norm.weight", d);
      tables_ = size_;
      size_ += s.context * s.head_width;
    }
    if (!s.tied) add("head.weight", table);
  }

  /// Values behind the header.
  index size() const { return size_; }
  /// The first value of the tensor with linnet's name `name`, or -1.
  index find(std::string_view name) const {
    index layer = -1;
    if (name.starts_with("blocks.")) {
      layer = 0;
      for (name.remove_prefix(7); name.front() != '.'; name.remove_prefix(1))
        layer = layer * 10 + (name.front() - '0');
      name.remove_prefix(1);
    }
    for (const entry& e : entries_)
      if (e.repeated == (layer >= 0) && e.name == name)
        return e.first + (layer > 0 ? layer * e.size : 0);
    return -1;
  }
  /// The first value of version 0's rotary tables.
  index tables() const { return tables_; }

 private:
  struct entry {
    std::string_view name;
    index first, size;
    bool repeated;
  };
  index layers_, size_ = 0, tables_ = 0;
  std::vector<entry> entries_;

  void add(std::string_view name, index size, bool repeated = false) {
    entries_.push_back({name, size_, size, repeated});
    size_ += repeated ? layers_ * size : size;
  }
};

/// Compares a file with a model type; the value is the number of bytes before the first tensor.
inline result<index> check_llama2c(std::span<const std::byte> file, const llama2c_shape& type,
                                   const std::string& where, llama2c_version& version) {
  const auto wrong = [&](errc code, const char* what, std::string expected, std::string got) {
    return error{code, where, what, std::move(expected), std::move(got)};
  };
  const auto differs = [&](const char* what, std::string expected, std::string got) {
    return wrong(errc::mismatch, what, std::move(expected) + " (the model type)", std::move(got));
  };
  index at = 0;
  const auto next = [&] { return load_as<std::int32_t>(file.data() + 4 * at++); };
  if (std::ssize(file) < 28)
    return wrong(errc::malformed, "file size", "at least 28 bytes", std::to_string(file.size()));
  const bool legacy = load_as<std::uint32_t>(file.data()) != llama2c_magic;
  version = legacy ? llama2c_version::v0 : llama2c_version::v1;
  if (!legacy) {
    if (std::ssize(file) < llama2c_header)
      return wrong(errc::malformed, "file size", "at least 256 bytes", std::to_string(file.size()));
    at = 1;
    if (const auto number = next(); number != 1)
      return wrong(errc::unsupported, "version", "0 or 1", std::to_string(number));
  }
  const std::pair<const char*, std::int32_t> fields[] = {{"dim", type.dim},
                                                         {"hidden_dim", type.hidden},
                                                         {"n_layers", type.layers},
                                                         {"n_heads", type.heads},
                                                         {"n_kv_heads", type.kv_heads}};
  for (const auto& [name, expected] : fields)
    if (const auto got = next(); got != expected)
      return differs(name, std::to_string(expected), std::to_string(got));
  const auto vocabulary = next();
  const std::int32_t signed_size = legacy && !type.tied ? -type.vocabulary : type.vocabulary;
  if (vocabulary != signed_size)
    return differs(
        legacy && vocabulary == -signed_size ? "vocab_size (negative: untied head)" : "vocab_size",
        std::to_string(signed_size), std::to_string(vocabulary));
  if (const auto got = next(); got != type.context)
    return differs("seq_len", std::to_string(type.context), std::to_string(got));
  if (!legacy) {
    const int shared = std::to_integer<int>(file[36]);
    if (shared > 1)
      return wrong(errc::malformed, "shared classifier", "0 or 1", std::to_string(shared));
    if (shared != (type.tied ? 1 : 0))
      return differs("shared classifier", type.tied ? "1" : "0", std::to_string(shared));
    for (const std::byte pad : file.subspan(37, llama2c_header - 37))
      if (pad != std::byte{0})
        return wrong(errc::malformed, "header", "zeros from byte 37 on", "another value");
  }
  // The format has no place for these: every llama2.c model uses the same.
  if (type.eps != 1e-5)
    return differs("norm eps", number_text(type.eps), "1e-05, as always in llama2.c");
  if (type.rope_theta != 10000)
    return differs("rope theta", number_text(type.rope_theta), "10000, as always in llama2.c");
  const index before = legacy ? 28 : llama2c_header,
              size = before + 4 * llama2c_layout(type, version).size();
  if (std::ssize(file) != size)
    return wrong(errc::malformed, "file size", std::to_string(size) + " bytes for this header",
                 std::to_string(file.size()));
  return before;
}

inline placement llama2c_placement(const llama2c_shape& type, const leaf& tensor) {
  placement at{tensor.name, tensor.rows, tensor.columns, tensor.vector};
  if (tensor.name.ends_with(".attention.q.weight") || tensor.name.ends_with(".attention.k.weight"))
    at.paired_heads = type.paired_heads;
  return at;
}

}  // namespace detail

/// Loads a llama2.c checkpoint, version 0 or 1, held in memory. The header is compared with the
/// type of `w` field by field, then the size, and only then is `w` written. `where` names the file
/// in errors. Errors: errc::malformed, errc::mismatch, errc::unsupported, errc::out_of_memory.
template <class M, class T>
result<void> load_llama2c(weights<M, T>& w, std::span<const std::byte> file,
                          const std::string& where = "llama2.c checkpoint") {
  constexpr detail::llama2c_shape type = detail::llama2c_shape_of<M, T>();
  if (!w.valid())
    return error{errc::out_of_memory, where, "weights", "memory for the model", "none"};
  llama2c_version version{};
  const auto begin = detail::check_llama2c(file, type, where, version);
  if (!begin) return begin.error();
  const detail::llama2c_layout layout(type, version);
  for (const detail::leaf& tensor : detail::leaves_of(w))
    detail::copy_in(tensor, detail::llama2c_placement(type, tensor), dtype::f32,
                    file.data() + *begin + 4 * layout.find(tensor.name));
  return {};
}

/// The same from a file. Errors: also those of read_file().
template <class M, class T>
result<void> load_llama2c(weights<M, T>& w, const std::string& path) {
  const auto file = read_file(path);
  return file ? load_llama2c(w, *file, path) : result<void>(file.error());
}

/// Reads a tokenizer.bin for a model with `vocabulary` ids. Errors: those of read_file() and of
/// llama2c_tokenizer::parse().
inline result<llama2c_tokenizer> read_llama2c_tokenizer(const std::string& path, index vocabulary) {
  const auto file = read_file(path);
  return file ? llama2c_tokenizer::parse(*file, vocabulary, path)
              : result<llama2c_tokenizer>(file.error());
}

/// Saves weights as a llama2.c checkpoint, which llama2.c's run reads (version 0). Errors:
/// errc::mismatch (eps and theta that the format cannot express), errc::out_of_memory, errc::io.
template <class M, class T>
result<void> save_llama2c(const weights<M, T>& w, const std::string& path,
                          llama2c_version version = llama2c_version::v0) {
  constexpr detail::llama2c_shape type = detail::llama2c_shape_of<M, T>();
  if (!w.valid())
    return error{errc::out_of_memory, path, "weights", "memory for the model", "none"};
  if (type.eps != 1e-5 || type.rope_theta != 10000)
    return error{errc::mismatch, path, "the model type",
                 "norm eps 1e-05 and rope theta 10000, as always in llama2.c", "others"};
  const detail::llama2c_layout layout(type, version);
  const bool legacy = version == llama2c_version::v0;
  const index begin = legacy ? 28 : detail::llama2c_header;
  file_bytes file(static_cast<std::size_t>(begin + 4 * layout.size()));
  if (file.data() == nullptr)
    return error{errc::out_of_memory, path, "", "memory for the file", "none"};
  __builtin_memset(file.data(), 0, static_cast<std::size_t>(begin));

  const std::int32_t header[] = {static_cast<std::int32_t>(detail::llama2c_magic),
                                 1,
                                 type.dim,
                                 type.hidden,
                                 type.layers,
                                 type.heads,
                                 type.kv_heads,
                                 legacy && !type.tied ? -type.vocabulary : type.vocabulary,
                                 type.context};
  const int skipped = legacy ? 2 : 0;
  __builtin_memcpy(file.data(), header + skipped,
                   sizeof header - 4 * static_cast<std::size_t>(skipped));
  if (!legacy && type.tied) file.data()[36] = std::byte{1};

  const auto put = [&](index at, float x) {
    __builtin_memcpy(file.data() + begin + 4 * at, &x, sizeof x);
  };
  for (const detail::leaf& tensor : detail::leaves_of(w)) {
    const detail::placement place = detail::llama2c_placement(type, tensor);
    const index first = layout.find(tensor.name);
    for (index n = 0; n < tensor.rows; ++n)
      for (index j = 0; j < tensor.columns; ++j) {
        double x = 0;
        detail::decode_reals(
            tensor.type, tensor.data + (n * tensor.columns + j) * size_of(tensor.type), 1, 1, &x);
        put(first + place.row(n).first + j, static_cast<float>(x));
      }
  }
  if (legacy)
    for (index t = 0, half = type.head_width / 2; t < type.context; ++t)
      for (index i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t) *
                             std::pow(type.rope_theta, -2.0 * static_cast<double>(i) /
                                                           static_cast<double>(type.head_width));
        put(layout.tables() + t * half + i, static_cast<float>(std::cos(angle)));
        put(layout.tables() + (type.context + t) * half + i, static_cast<float>(std::sin(angle)));
      }
  return write_file(path, file);
}

LINNET_NAMESPACE_END
/// @file
/// Model files of rwkv.cpp (zoo L3): RWKV-4 and RWKV-7 in F32, F16 and ggml's blocks Q4_0, Q4_1,
/// Q5_0, Q5_1 and Q8_0.
///
/// A header of six 32-bit integers (magic, version, n_vocab, n_embed, n_layer, type) is followed by
/// records to the end of the file, in any order and not aligned: number of dimensions, length of
/// the name, type, dimensions (fastest first), name, data.

/// @file
/// RWKV-4 and RWKV-7: decoders without attention, spelled with the policies they are made of.

/// @file
/// Channel mixing of RWKV-4 and RWKV-7 (zoo D12, D12b), in the place of the feed-forward: a squared
/// ReLU that also reads the token before.

/// @file
/// The sigmoid gate of RWKV, "receptance": z = sigmoid(r) y.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// 1 / (1 + e^-x) without overflow.
template <class T>
T sigmoid(T x) {
  const T e = std::exp(-std::abs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

/// z[n] = sigmoid(r[n]) y[n]; r becomes its sigmoid, which gate_backward() takes. z may be y.
template <class T>
void gate(const ops::machine& on, index n, T* r, const T* y, T* z) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      r[i] = sigmoid(r[i]);
      z[i] = r[i] * y[i];
    }
  });
}
/// dr[n], dy[n] = the derivatives of gate() (overwritten); dy may be dz.
template <class T>
void gate_backward(const ops::machine& on, index n, const T* sigmoid_r, const T* y, const T* dz,
                   T* dr, T* dy) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      const T s = sigmoid_r[i], d = dz[i];
      dr[i] = d * y[i] * s * (T(1) - s);
      dy[i] = d * s;
    }
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The token shift of RWKV: every channel reads a mixture of this token and the one before it.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// What a mixing parameter is the weight of; the other one has the rest.
enum class mixed_by {
  current,  ///< RWKV-4: mu x_t + (1 - mu) x_{t-1}
  previous  ///< RWKV-7: x_t + mu (x_{t-1} - x_t)
};

/// `Count` mixtures of neighbouring rows of x[rows, D], each with a parameter vector mu[D]. The row
/// before the first of a sequence is zero; while decoding it is kept from call to call.
template <index D, index Count, mixed_by By>
struct token_shift {
  static constexpr auto count = static_cast<std::size_t>(Count);

  template <class T>
  struct cache {
    std::array<T*, count> mixed{};  ///< [rows, D]
    T* last = nullptr;              ///< [batch, D] last row of each sequence, while decoding
    T* gradient = nullptr;          ///< [rows, D] of one mixture, while training
  };
  /// `gradient` is scratch; the layer that calls releases it.
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    for (T*& one : c.mixed) one = m.keep.take<T>(e.rows() * D);
    if (e.capacity > 0) c.last = m.state.take<T>(e.batch * D);
    if (e.training) c.gradient = m.scratch.take<T>(e.rows() * D);
    return c;
  }

  /// The last row of one sequence becomes another's.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_sequence(c.last, D, from, to, part);
  }

  /// x -> c.mixed
  template <class T>
  static void forward(const std::array<const T*, count>& mu, const T* x, const cache<T>& c,
                      const context<T>& ctx) {
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const index b = row / ctx.length, t = row % ctx.length;
      const T* const now = x + row * D;
      const T* const before = t > 0 ? now - D : ctx.past_of(b) > 0 ? c.last + b * D : nullptr;
      for (std::size_t m = 0; m < count; ++m) {
        T* const y = c.mixed[m] + row * D;
        for (index j = 0; j < D; ++j) {
          const T old = before ? before[j] : T(0);
          y[j] = now[j] + previous(mu[m][j]) * (old - now[j]);
        }
      }
    });
    if (ctx.past)
      ctx.on.threads.each(ctx.batch, [&](index b) {
        std::copy_n(x + (b * ctx.length + ctx.length_of(b) - 1) * D, D, c.last + b * D);
      });
  }
  /// From the gradient of one mixture in c.gradient: dx += and d_mu +=.
  template <class T>
  static void backward(const T* mu, T* d_mu, const T* x, T* dx, const cache<T>& c,
                       const context<T>& ctx) {
    const T* const dy = c.gradient;
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const bool last = row % ctx.length == ctx.length - 1;
      const T* const d_now = dy + row * D;
      for (index j = 0; j < D; ++j) {
        const T share = previous(mu[j]);
        dx[row * D + j] += (T(1) - share) * d_now[j] + (last ? T(0) : share * d_now[D + j]);
      }
    });
    const auto [first, end] = ctx.on.threads.share(D);
    for (index row = 0; row < ctx.rows(); ++row)
      for (index j = first; j < end; ++j) {
        const T now = x[row * D + j], old = row % ctx.length > 0 ? x[(row - 1) * D + j] : T(0);
        const T change = dy[row * D + j] * (old - now);
        d_mu[j] += By == mixed_by::previous ? change : -change;
      }
    ctx.on.threads.wait();
  }

  /// Numbers that it keeps for each sequence while decoding.
  static constexpr index state_values() { return D; }

 private:
  template <class T>
  static T previous(T mu) {
    return By == mixed_by::previous ? mu : T(1) - mu;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y[n] = max(x[n], 0)^2
template <class T>
void relu_squared(const ops::machine& on, index n, const T* x, T* y) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      const T positive = x[i] > T(0) ? x[i] : T(0);
      y[i] = positive * positive;
    }
  });
}
/// dx[n] = dy[n] 2 max(x[n], 0); dx may be dy.
template <class T>
void relu_squared_backward(const ops::machine& on, index n, const T* x, const T* dy, T* dx) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) dx[i] = x[i] > T(0) ? T(2) * x[i] * dy[i] : T(0);
  });
}

/// y = W_v relu(W_k x_k)^2, times sigmoid(W_r x_r) if `Gated`; x_k and x_r are mixtures of this
/// token and the one before. F is the width of the hidden layer.
template <index D, index F, bool Gated>
struct channel_mix {
  static constexpr index in = D, out = D;
  static constexpr std::size_t last = Gated ? 1 : 0;
  using wide = linear<D, F>;
  using narrow = linear<F, D>;
  using square = linear<D, D>;
  using shift = token_shift<D, Gated ? 2 : 1, Gated ? mixed_by::current : mixed_by::previous>;

  template <class Form>
  struct gate_params {
    typename Form::vector time_mix_r{};
    typename square::template params<Form> receptance{};
  };
  template <class Form>
  struct params {
    typename Form::vector time_mix_k{};
    typename wide::template params<Form> key{};
    typename narrow::template params<Form> value{};
    [[no_unique_address]] std::conditional_t<Gated, gate_params<Form>, std::nullptr_t> gate{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const path& at, P&... p) {
    const tensor_info mix{1, D, role::bias, 0, start_mix};
    const auto starting = [&](decltype(tensor_info::start) start) {
      return [&f, start](const path& where, tensor_info info, auto&... leaf) {
        info.start = start;
        f(where, info, leaf...);
      };
    };
    f(at / (Gated ? "time_mix_k" : "x_k"), mix, p.time_mix_k...);
    if constexpr (Gated) f(at / "time_mix_r", mix, p.gate.time_mix_r...);
    wide::visit(starting(start_key), at / "key", p.key...);
    narrow::visit(starting(start_zero), at / "value", p.value...);
    if constexpr (Gated)
      square::visit(starting(start_zero), at / "receptance", p.gate.receptance...);
  }

  template <class T>
  struct cache {
    typename shift::template cache<T> shifted{};
    T *hidden = nullptr, *squared = nullptr;  ///< [rows, F]
    T *r = nullptr, *value = nullptr;         ///< [rows, D] sigmoid, and what it gates
    T *d_hidden = nullptr, *dr = nullptr, *d_value = nullptr;
    int site = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.site = m.sites++;
    m.product(e.rows(), D, F, e);
    m.product(e.rows(), F, D, e);
    m.product(e.rows(), D, D, e);
    c.shifted = shift::template plan<T>(m, e);
    c.hidden = m.keep.take<T>(e.rows() * F);
    c.squared = m.keep.take<T>(e.rows() * F);
    if (Gated) {
      c.r = m.keep.take<T>(e.rows() * D);
      c.value = m.keep.take<T>(e.rows() * D);
    }
    if (e.training) {
      c.d_hidden = m.scratch.take<T>(e.rows() * F);
      if (Gated) {
        c.dr = m.scratch.take<T>(e.rows() * D);
        c.d_value = m.scratch.take<T>(e.rows() * D);
      }
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    const auto& mixed = c.shifted.mixed;
    if constexpr (Gated)
      shift::forward({p.time_mix_k, p.gate.time_mix_r}, x.data(), c.shifted, ctx);
    else
      shift::forward({p.time_mix_k}, x.data(), c.shifted, ctx);
    wide::template forward<T, S>(p.key, {mixed[0], rows}, {c.hidden, rows}, none, ctx);
    relu_squared(ctx.on, rows * F, c.hidden, c.squared);
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, F, c.squared);
    const view<T, D> value(Gated ? c.value : y.data(), rows);
    narrow::template forward<T, S>(p.value, {c.squared, rows}, value, none, ctx);
    if constexpr (Gated) {
      square::template forward<T, S>(p.gate.receptance, {mixed[last], rows}, {c.r, rows}, none,
                                     ctx);
      gate(ctx.on, x.size(), c.r, c.value, y.data());
    }
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows(), size = x.size();
    const auto& mixed = c.shifted.mixed;
    const view<T, D> d_mixed(c.shifted.gradient, rows);
    if constexpr (Gated) {
      gate_backward(ctx.on, size, c.r, c.value, dy.data(), c.dr, c.d_value);
      ops::fill(ctx.on, size, T(0), d_mixed.data());
      square::template backward<T, S>(p.gate.receptance, dp.gate.receptance, {mixed[last], rows},
                                      {c.dr, rows}, d_mixed, none, ctx);
      shift::backward(p.gate.time_mix_r, dp.gate.time_mix_r, x.data(), dx.data(), c.shifted, ctx);
    }
    const view<const T, D> d_value(Gated ? c.d_value : dy.data(), rows);
    ops::fill(ctx.on, rows * F, T(0), c.d_hidden);
    narrow::template backward<T, S>(p.value, dp.value, {c.squared, rows}, d_value,
                                    {c.d_hidden, rows}, none, ctx);
    ops::dropout(ctx.on.threads, ctx.dropout, c.site, ctx.batch, ctx.length, F, c.d_hidden);
    relu_squared_backward(ctx.on, rows * F, c.hidden, c.d_hidden, c.d_hidden);
    ops::fill(ctx.on, size, T(0), d_mixed.data());
    wide::template backward<T, S>(p.key, dp.key, {mixed[0], rows}, {c.d_hidden, rows}, d_mixed,
                                  none, ctx);
    shift::backward(p.time_mix_k, dp.time_mix_k, x.data(), dx.data(), c.shifted, ctx);
  }

  /// The state of one sequence becomes another's.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    shift::copy_state(c.shifted, from, to, part);
  }
  /// Numbers that each sequence keeps while decoding, however long it is.
  static constexpr index state_values(index) { return shift::state_values(); }
  static constexpr index flops(const extents& e) {
    return wide::flops(e) + narrow::flops(e) + (Gated ? square::flops(e) : 0);
  }

 private:
  // The reference trainers' values; they draw W_k orthogonal, here it is normal of that size.
  static double start_mix(const path& at, index i, random_stream&) {
    const double channel = static_cast<double>(i) / static_cast<double>(D);
    const double rest = depth(at).rest();
    return Gated ? std::pow(channel, rest) : 1 - std::pow(channel, std::pow(rest, 4));
  }
  static double start_key(const path&, index, random_stream& random) {
    const double size = static_cast<double>(Gated || D > F ? D : F);
    return random.normal() / std::sqrt(size);
  }
};

}  // namespace detail

namespace ffn {

/// RWKV-4's channel mix: sigmoid(W_r x_r) W_v relu(W_k x_k)^2. Keeps the last token while decoding.
struct rwkv4_channel_mix : policy {
  static constexpr bool rewinds = false;
  static std::string name() { return "rwkv4_channel_mix"; }
  template <index D, index F, bool Bias>
  struct layer : linnet::detail::channel_mix<D, F, true> {
    static_assert(!Bias, "linnet::ffn::rwkv4_channel_mix: RWKV has no biases");
  };
};
/// RWKV-7's channel mix: W_v relu(W_k x_k)^2. Keeps the last token while decoding.
struct rwkv7_channel_mix : policy {
  static constexpr bool rewinds = false;
  static std::string name() { return "rwkv7_channel_mix"; }
  template <index D, index F, bool Bias>
  struct layer : linnet::detail::channel_mix<D, F, false> {
    static_assert(!Bias, "linnet::ffn::rwkv7_channel_mix: RWKV has no biases");
  };
};

}  // namespace ffn

LINNET_NAMESPACE_END
/// @file
/// Time mixing of RWKV-4 (Peng et al. 2023, arXiv:2305.13048; zoo D12), in the place of attention.

/// @file
/// The recurrence of RWKV-4 (Peng et al. 2023, arXiv:2305.13048; zoo D12): per channel, an average
/// of all past values, weighted by e^key and an exponential decay.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Tokens between two stored states of a recurrence; backward computes those between them again.
inline constexpr index recurrent_chunk = 16;
/// Stored states of a sequence.
constexpr index recurrent_chunks(index length) {
  return (length + recurrent_chunk - 1) / recurrent_chunk;
}

/// One call: with w = -e^decay and u = bonus, per channel,
/// y_t = (P_{t-1} + e^{u + k_t} v_t) / (Q_{t-1} + e^{u + k_t}),
/// P_t = e^w P_{t-1} + e^{k_t} v_t, and Q_t the same of ones.
template <class T>
struct wkv4_call {
  index batch, length, d;
  const T *decay, *bonus;        ///< [d]
  const T *k, *v;                ///< [batch, length, d]
  T* y;                          ///< [batch, length, d]
  T* state = nullptr;            ///< [batch, 3, d] P, Q and their exponent, from call to call
  const index* past = nullptr;   ///< tokens that `state` knows; null: start from nothing
  const index* valid = nullptr;  ///< new tokens of each sequence; null: all
  T* starts = nullptr;           ///< [batch, chunks, 3, d] states for backward, or null
};
/// Where its derivatives go, all overwritten.
template <class T>
struct wkv4_gradients {
  const T* dy;           ///< [batch, length, d]
  T *dk, *dv;            ///< [batch, length, d]
  T *d_decay, *d_bonus;  ///< [batch, d] sums over each sequence
};

namespace detail {

/// Channels that one thread works on at a time.
inline constexpr index wkv4_channels = 16;
/// The exponent of an empty sum.
inline constexpr double nothing = -1e38;

/// P, Q e^-o and o of some channels: sums are held relative to the largest exponent in them, so
/// that no key overflows.
template <class T>
struct wkv4_state {
  static constexpr index width = wkv4_channels;
  alignas(64) T p[width], q[width], o[width];

  wkv4_state() {
    std::fill_n(p, width, T(0));
    std::fill_n(q, width, T(0));
    std::fill_n(o, width, T(nothing));
  }
  /// Some channels of [3, d].
  void load(const T* from, index d, index count) {
    std::copy_n(from, count, p);
    std::copy_n(from + d, count, q);
    std::copy_n(from + 2 * d, count, o);
  }
  void store(T* to, index d, index count) const {
    std::copy_n(p, count, to);
    std::copy_n(q, count, to + d);
    std::copy_n(o, count, to + 2 * d);
  }
  /// Takes in one token.
  template <class Kernels>
  void step(Kernels, index count, const T* w, const T* k, const T* v) {
    alignas(64) T e[2 * width] = {};
    for (index c = 0; c < count; ++c) {
      const T decayed = o[c] + w[c], top = (std::max)(decayed, k[c]);
      e[c] = decayed - top;
      e[width + c] = k[c] - top;
      o[c] = top;
    }
    Kernels::template exp_sum<T>(2 * width, T(0), e);
    for (index c = 0; c < count; ++c) {
      p[c] = e[c] * p[c] + e[width + c] * v[c];
      q[c] = e[c] * q[c] + e[width + c];
    }
  }
};

/// Calls f(kernels, sequence, first channel, channels, w) for this thread's share of the channels.
template <class T, class F>
void each_wkv4(const machine& on, const wkv4_call<T>& a, F&& f) {
  const index blocks = (a.d + wkv4_channels - 1) / wkv4_channels;
  on.threads.each(a.batch * blocks, [&](index unit) {
    const index first = unit % blocks * wkv4_channels,
                count = (std::min)(wkv4_channels, a.d - first);
    T w[wkv4_channels];
    for (index c = 0; c < count; ++c) w[c] = -std::exp(a.decay[first + c]);
    simd::dispatch(on.level, [&](auto kernels) { f(kernels, unit / blocks, first, count, w); });
  });
}

}  // namespace detail

/// y of all tokens; the states on the way. Rows behind `valid` get zeros and change no state.
template <class T>
void wkv4(const machine& on, const wkv4_call<T>& a) {
  constexpr index width = detail::wkv4_channels;
  detail::each_wkv4(on, a, [&](auto kernels, index b, index first, index count, const T* w) {
    using K = decltype(kernels);
    detail::wkv4_state<T> s;
    T* const kept = a.state ? a.state + b * 3 * a.d + first : nullptr;
    if (a.past && a.past[b] > 0) s.load(kept, a.d, count);
    const index valid = a.valid ? a.valid[b] : a.length;
    for (index t = 0; t < a.length; ++t) {
      const index at = (b * a.length + t) * a.d + first;
      T* const y = a.y + at;
      if (t >= valid) {
        std::fill_n(y, count, T(0));
        continue;
      }
      if (a.starts && t % recurrent_chunk == 0)
        s.store(a.starts + (b * recurrent_chunks(a.length) + t / recurrent_chunk) * 3 * a.d + first,
                a.d, count);
      alignas(64) T e[2 * width] = {};
      for (index c = 0; c < count; ++c) {
        const T now = a.bonus[first + c] + a.k[at + c], top = (std::max)(s.o[c], now);
        e[c] = s.o[c] - top;
        e[width + c] = now - top;
      }
      K::template exp_sum<T>(2 * width, T(0), e);
      for (index c = 0; c < count; ++c)
        y[c] = (e[c] * s.p[c] + e[width + c] * a.v[at + c]) / (e[c] * s.q[c] + e[width + c]);
      s.step(kernels, count, w, a.k + at, a.v + at);
    }
    if (kept) s.store(kept, a.d, count);
  });
}

/// The derivatives of wkv4(), of a call that began from nothing and left its `starts`. GP and GQ,
/// the gradients of P and Q, run backwards in time with an exponent of their own:
/// GP_{t-1} = s_t + e^w GP_t and GQ_{t-1} = -s_t y_t + e^w GQ_t, where s_t = dy_t / denominator.
template <class T>
void wkv4_backward(const machine& on, const wkv4_call<T>& a, const wkv4_gradients<T>& g) {
  constexpr index width = detail::wkv4_channels;
  detail::each_wkv4(on, a, [&](auto kernels, index b, index first, index count, const T* w) {
    using K = decltype(kernels);
    detail::wkv4_state<T> before[recurrent_chunk];  // each token of a chunk
    detail::wkv4_state<T> later;                    // GP, GQ and their exponent
    T d_decay[width] = {}, d_bonus[width] = {};
    const index chunks = recurrent_chunks(a.length);
    for (index chunk = chunks; chunk-- > 0;) {
      const index t0 = chunk * recurrent_chunk, n = (std::min)(recurrent_chunk, a.length - t0);
      before[0].load(a.starts + (b * chunks + chunk) * 3 * a.d + first, a.d, count);
      for (index i = 0; i + 1 < n; ++i) {
        const index at = (b * a.length + t0 + i) * a.d + first;
        before[i + 1] = before[i];
        before[i + 1].step(kernels, count, w, a.k + at, a.v + at);
      }
      for (index i = n; i-- > 0;) {
        const auto& s = before[i];
        const index at = (b * a.length + t0 + i) * a.d + first;
        const T *const k = a.k + at, *const v = a.v + at, *const y = a.y + at;
        alignas(64) T e[6 * width] = {};
        T exponent[width];
        for (index c = 0; c < count; ++c) {
          const T now = a.bonus[first + c] + k[c], top = (std::max)(s.o[c], now);
          const T decayed = later.o[c] + w[c];
          exponent[c] = (std::max)(decayed, -top);
          e[c] = s.o[c] - top;
          e[width + c] = now - top;
          e[2 * width + c] = k[c] + later.o[c];           // at most 0
          e[3 * width + c] = s.o[c] + w[c] + later.o[c];  // likewise
          e[4 * width + c] = decayed - exponent[c];
          e[5 * width + c] = -top - exponent[c];
        }
        K::template exp_sum<T>(6 * width, T(0), e);
        for (index c = 0; c < count; ++c) {
          const T share = g.dy[at + c] / (e[c] * s.q[c] + e[width + c]);
          const T now = e[width + c] * share, then = e[2 * width + c];
          const T through_now = now * (v[c] - y[c]);
          g.dv[at + c] = now + then * later.p[c];
          g.dk[at + c] = through_now + then * (later.p[c] * v[c] + later.q[c]);
          d_bonus[c] += through_now;
          d_decay[c] += e[3 * width + c] * (later.p[c] * s.p[c] + later.q[c] * s.q[c]);
          later.p[c] = e[4 * width + c] * later.p[c] + e[5 * width + c] * share;
          later.q[c] = e[4 * width + c] * later.q[c] - e[5 * width + c] * share * y[c];
          later.o[c] = exponent[c];
        }
      }
    }
    for (index c = 0; c < count; ++c) {
      g.d_decay[b * a.d + first + c] = d_decay[c] * w[c];  // dw / d decay = w
      g.d_bonus[b * a.d + first + c] = d_bonus[c];
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Recurrent mixers of tokens: attention policies whose decoding state has a fixed size.
namespace mixer {

/// What recurrent mixers have in common: they read from left to right and cannot forget.
struct policy : attention::policy {
  static constexpr bool bidirectional = false;
  static constexpr bool rewinds = false;
};

/// RWKV-4: y = W_o (sigmoid(r) wkv), where wkv is an average of all values so far, weighted by
/// e^key and, per channel, an exponential decay and a bonus for the token itself; r, k and v read
/// mixtures of this token and the one before. Linear in the length, needs no positions, and heads
/// play no part. Goes with ffn::rwkv4_channel_mix.
struct rwkv4 : policy {
  static constexpr bool embedding_norm = true;
  static std::string name() { return "rwkv4"; }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal && !A.cross,
                  "linnet::mixer::rwkv4: a recurrence reads its own sequence from left to right");
    static_assert(!A.relative, "linnet::mixer::rwkv4: not for T5, whose positions are relative");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::rwkv4: no positions; give position::none");
    static_assert(!A.bias, "linnet::mixer::rwkv4: RWKV has no biases");
    static constexpr index D = A.d_model, in = D, out = D;
    using map = linear<D, D>;
    using shift = detail::token_shift<D, 3, detail::mixed_by::current>;

    template <class Form>
    struct params {
      typename Form::vector time_mix_k{}, time_mix_v{}, time_mix_r{};
      typename Form::vector time_decay{};  ///< the decay is e^w per token, w = -e^time_decay
      typename Form::vector time_first{};  ///< bonus of the token itself
      typename map::template params<Form> key{}, value{}, receptance{}, output{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      const auto vector = [](decltype(tensor_info::start) start) {
        return tensor_info{1, D, role::bias, 0, start};
      };
      f(at / "time_mix_k", vector(start_mix_k), p.time_mix_k...);
      f(at / "time_mix_v", vector(start_mix_v), p.time_mix_v...);
      f(at / "time_mix_r", vector(start_mix_r), p.time_mix_r...);
      f(at / "time_decay", vector(start_decay), p.time_decay...);
      f(at / "time_first", vector(start_first), p.time_first...);
      const auto zero = [&](const path& where, tensor_info info, auto&... leaf) {
        info.start = start_zero;
        f(where, info, leaf...);
      };
      const auto fan_in = [&](const path& where, tensor_info info, auto&... leaf) {
        info.start = start_fan_in;
        f(where, info, leaf...);
      };
      map::visit(zero, at / "key", p.key...);
      map::visit(fan_in, at / "value", p.value...);
      map::visit(zero, at / "receptance", p.receptance...);
      map::visit(zero, at / "output", p.output...);
    }

    template <class T>
    struct cache {
      typename shift::template cache<T> shifted{};
      T *k = nullptr, *v = nullptr;            ///< [rows, D]
      T* r = nullptr;                          ///< [rows, D] its sigmoid
      T *average = nullptr, *gated = nullptr;  ///< [rows, D] wkv, sigmoid(r) wkv
      T* state = nullptr;                      ///< [batch, 3, D] while decoding
      T* starts = nullptr;                     ///< [batch, chunks, 3, D] while training
      T *d_gated = nullptr, *dr = nullptr, *dk = nullptr, *dv = nullptr;
      T *d_decay = nullptr, *d_first = nullptr;  ///< [batch, D]
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index size = e.rows() * D, mark = m.scratch.mark();
      m.product(e.rows(), D, D, e);
      c.shifted = shift::template plan<T>(m, e);
      for (T** one : {&c.k, &c.v, &c.r, &c.average, &c.gated}) *one = m.keep.take<T>(size);
      if (e.capacity > 0) c.state = m.state.take<T>(e.batch * 3 * D);
      if (e.training) {
        c.starts = m.keep.take<T>(e.batch * ops::recurrent_chunks(e.length) * 3 * D);
        for (T** one : {&c.d_gated, &c.dr, &c.dk, &c.dv}) *one = m.scratch.take<T>(size);
        for (T** one : {&c.d_decay, &c.d_first}) *one = m.scratch.take<T>(e.batch * D);
      }
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const auto& mixed = c.shifted.mixed;
      shift::forward({p.time_mix_k, p.time_mix_v, p.time_mix_r}, x.data(), c.shifted, ctx);
      map::template forward<T, S>(p.key, {mixed[0], rows}, {c.k, rows}, none, ctx);
      map::template forward<T, S>(p.value, {mixed[1], rows}, {c.v, rows}, none, ctx);
      map::template forward<T, S>(p.receptance, {mixed[2], rows}, {c.r, rows}, none, ctx);
      ops::wkv4(ctx.on, call(p, c, ctx));
      detail::gate(ctx.on, x.size(), c.r, c.average, c.gated);
      map::template forward<T, S>(p.output, {c.gated, rows}, y, none, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows(), size = x.size();
      ops::fill(ctx.on, size, T(0), c.d_gated);
      map::template backward<T, S>(p.output, dp.output, {c.gated, rows}, dy, {c.d_gated, rows},
                                   none, ctx);
      detail::gate_backward(ctx.on, size, c.r, c.average, c.d_gated, c.dr, c.d_gated);
      ops::wkv4_backward(ctx.on, call(p, c, ctx), {c.d_gated, c.dk, c.dv, c.d_decay, c.d_first});
      ops::bias_gradient(ctx.on, ctx.batch, D, c.d_decay, dp.time_decay);
      ops::bias_gradient(ctx.on, ctx.batch, D, c.d_first, dp.time_first);
      const auto branch = [&](const auto& w, auto& dw, std::size_t which, const T* d_output,
                              const T* mu, T* d_mu) {
        ops::fill(ctx.on, size, T(0), c.shifted.gradient);
        map::template backward<T, S>(w, dw, {c.shifted.mixed[which], rows}, {d_output, rows},
                                     {c.shifted.gradient, rows}, none, ctx);
        shift::backward(mu, d_mu, x.data(), dx.data(), c.shifted, ctx);
      };
      branch(p.key, dp.key, 0, c.dk, p.time_mix_k, dp.time_mix_k);
      branch(p.value, dp.value, 1, c.dv, p.time_mix_v, dp.time_mix_v);
      branch(p.receptance, dp.receptance, 2, c.dr, p.time_mix_r, dp.time_mix_r);
    }

    /// Numbers that each sequence keeps while decoding, however long it is.
    static constexpr index state_values(index) { return 3 * D + shift::state_values(); }
    /// The state of one sequence becomes another's.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      shift::copy_state(c.shifted, from, to, part);
      copy_sequence(c.state, 3 * D, from, to, part);
    }
    static constexpr index flops(const extents& e) { return 4 * map::flops(e); }

   private:
    template <class T, class P>
    static ops::wkv4_call<T> call(const P& p, const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,
              ctx.length,
              D,
              p.time_decay,
              p.time_first,
              c.k,
              c.v,
              c.average,
              c.state,
              ctx.past,
              ctx.past ? ctx.lengths : nullptr,
              c.starts};
    }

    // The reference trainer's values; it draws W_v orthogonal, here it is normal of that size.
    static double channel(index i) { return static_cast<double>(i) / static_cast<double>(D); }
    static double start_mix_k(const path& at, index i, random_stream&) {
      return std::pow(channel(i), depth(at).rest());
    }
    static double start_mix_v(const path& at, index i, random_stream&) {
      return std::pow(channel(i), depth(at).rest()) + 0.3 * depth(at).fraction();
    }
    static double start_mix_r(const path& at, index i, random_stream&) {
      return std::pow(channel(i), 0.5 * depth(at).rest());
    }
    static double start_decay(const path& at, index i, random_stream&) {
      const double along = D > 1 ? static_cast<double>(i) / static_cast<double>(D - 1) : 0;
      return -5 + 8 * std::pow(along, 0.7 + 1.3 * depth(at).fraction());
    }
    static double start_first(const path&, index i, random_stream&) {
      return std::log(0.3) + 0.5 * static_cast<double>((i + 1) % 3 - 1);
    }
    static double start_fan_in(const path&, index, random_stream& random) {
      return map::weight_info.deviation * random.normal();
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
/// @file
/// Time mixing of RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456; zoo D12b), in the place of
/// attention.

/// @file
/// What surrounds the recurrence of RWKV-7 (zoo D12b), value by value.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y = tanh(x) or sigmoid(x), elementwise, between the two factors of a low-rank map.
template <index D, bool Tanh>
struct squash : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  template <class T>
  static T value(T x) {
    return Tanh ? std::tanh(x) : sigmoid(x);
  }
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, without_cache::cache<T>&,
                      context<T>& ctx) {
    ops::detail::in_slices<T>(ctx.on, x.size(), [&](index at, index count) {
      for (index i = at; i < at + count; ++i) y.data()[i] = value(x.data()[i]);
    });
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    ops::detail::in_slices<T>(ctx.on, x.size(), [&](index at, index count) {
      for (index i = at; i < at + count; ++i) {
        const T y = value(x.data()[i]);
        dx.data()[i] += dy.data()[i] * (Tanh ? T(1) - y * y : y * (T(1) - y));
      }
    });
  }
  static constexpr index flops(const extents&) { return 0; }
};

/// The rank of RWKV-7's low-rank maps: max(32, 32 round(factor sqrt(d) / 32)).
constexpr index rwkv7_rank(index d, double factor) {
  const auto steps = static_cast<index>(factor * root(static_cast<double>(d)) / 32 + 0.5);
  return 32 * (steps > 1 ? steps : 1);
}

/// The elementwise part of RWKV-7 around its recurrence: one head of one token at a time.
template <index N>
struct rwkv7_head {
  static constexpr double slowest = 0.6065306597126334;  ///< e^{-1/2}: decays are above e^-slowest
  static constexpr double norm_floor = 1e-12;

  /// Of one head: what the maps gave, with parameters, and what the recurrence reads.
  template <class T>
  struct prepared {
    const T *key, *k_k, *k_a;
    T *decay, *rate;  ///< sigmoids of w and a
    T *w, *k, *remove, *weight;
    T* inverse;  ///< 1 / |key k_k|
  };
  template <class T>
  static void prepare(const prepared<T>& h, const T* w0, const T* a0) {
    T square = 0;
    for (index j = 0; j < N; ++j) {
      h.decay[j] = sigmoid(w0[j] + h.decay[j]);
      h.rate[j] = sigmoid(a0[j] + h.rate[j]);
      h.w[j] = std::exp(-T(slowest) * h.decay[j]);
      h.k[j] = h.key[j] * (T(1) + (h.rate[j] - T(1)) * h.k_a[j]);
      h.remove[j] = h.key[j] * h.k_k[j];
      square += h.remove[j] * h.remove[j];
    }
    *h.inverse = T(1) / (std::max)(std::sqrt(square), T(norm_floor));
    for (index j = 0; j < N; ++j) {
      h.remove[j] *= *h.inverse;
      h.weight[j] = h.remove[j] * h.rate[j];
    }
  }
  /// From the gradients of w, k, remove and weight: those before the sigmoids in dw and d_weight,
  /// of the key's map in d_key, of key k_k in d_remove. dk stays.
  template <class T>
  static void prepare_backward(const prepared<T>& h, T* dw, const T* dk, T* d_remove, T* d_weight,
                               T* d_key) {
    T along = 0;
    for (index j = 0; j < N; ++j) {
      const T d_rate = d_weight[j] * h.remove[j] + dk[j] * h.key[j] * h.k_a[j];
      d_remove[j] += d_weight[j] * h.rate[j];
      along += d_remove[j] * h.remove[j];
      d_weight[j] = d_rate * h.rate[j] * (T(1) - h.rate[j]);
      dw[j] *= -T(slowest) * h.w[j] * h.decay[j] * (T(1) - h.decay[j]);
    }
    if (*h.inverse >= T(1 / norm_floor)) along = 0;  // divided by the floor, a constant
    for (index j = 0; j < N; ++j) {
      d_remove[j] = (d_remove[j] - h.remove[j] * along) * *h.inverse;
      d_key[j] = d_remove[j] * h.k_k[j] + dk[j] * (T(1) + (h.rate[j] - T(1)) * h.k_a[j]);
    }
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The recurrence of RWKV-7 (Peng et al. 2025, arXiv:2503.14456; zoo D12b): per head, a matrix from
/// keys to values that decays, forgets what a key held and learns a new pair at every token (a
/// generalised delta rule).

LINNET_NAMESPACE_BEGIN

namespace ops {

/// The vectors of each token that the recurrence reads, or their gradients: [batch, length,
/// heads * n] each.
template <class T>
struct wkv7_vectors {
  T* r;       ///< what is asked for
  T* w;       ///< decay of each key channel, in (0, 1)
  T* k;       ///< the key under which v is added
  T* v;       ///< the value
  T* remove;  ///< kappa, the key whose value is removed
  T* weight;  ///< kappa a, removed how strongly
};

/// One call: per head, with S[n, n] from keys (columns) to values (rows),
/// S <- S diag(w) - (S kappa)(kappa a)^T + v k^T and y = S r.
template <class T>
struct wkv7_call {
  index batch, length, heads, n;
  wkv7_vectors<const T> x;
  T* y;                          ///< [batch, length, heads * n]
  T* state;                      ///< [batch, heads, n, n] S, from call to call if `past` is given
  const index* past = nullptr;   ///< tokens that `state` knows; null: start from nothing
  const index* valid = nullptr;  ///< new tokens of each sequence; null: all
  T* starts = nullptr;           ///< [batch, heads, chunks, n, n] states for backward, or null

  index width() const { return heads * n; }
};

namespace detail {

/// Rows of a state that one thread works on at a time.
inline constexpr index wkv7_rows = 16;

/// Takes in one token: rows [i0, i0 + rows) of S, which may be `to`. `at`: where the head's vectors
/// of this token begin.
template <class Kernels, class T>
void wkv7_step(Kernels, const wkv7_call<T>& a, index at, index i0, index rows, const T* from,
               T* to) {
  T removed[wkv7_rows];
  Kernels::template dots<T>(rows, a.n, T(1), a.x.remove + at, from, a.n, removed);
  const T *const w = a.x.w + at, *const k = a.x.k + at, *const weight = a.x.weight + at;
  for (index i = 0; i < rows; ++i) {
    const T value = a.x.v[at + i0 + i], old = removed[i];
    const T* const s = from + i * a.n;
    T* const next = to + i * a.n;
    for (index j = 0; j < a.n; ++j) next[j] = s[j] * w[j] - old * weight[j] + value * k[j];
  }
}
/// All rows.
template <class Kernels, class T>
void wkv7_step(Kernels kernels, const wkv7_call<T>& a, index at, const T* from, T* to) {
  for (index i = 0; i < a.n; i += wkv7_rows)
    wkv7_step(kernels, a, at, i, (std::min)(wkv7_rows, a.n - i), from + i * a.n, to + i * a.n);
}

}  // namespace detail

/// y of all tokens; the states on the way. Rows behind `valid` get zeros and change no state.
template <class T>
void wkv7(const machine& on, const wkv7_call<T>& a) {
  const index n = a.n, blocks = (n + detail::wkv7_rows - 1) / detail::wkv7_rows;
  on.threads.each(a.batch * a.heads * blocks, [&](index unit) {
    const index i0 = unit % blocks * detail::wkv7_rows,
                rows = (std::min)(detail::wkv7_rows, n - i0), head = unit / blocks,
                b = head / a.heads, valid = a.valid ? a.valid[b] : a.length;
    T* const s = a.state + (head * n + i0) * n;
    if (!a.past || a.past[b] == 0) std::fill_n(s, rows * n, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index t = 0; t < a.length; ++t) {
        const index at = (b * a.length + t) * a.width() + head % a.heads * n;
        if (t >= valid) {
          std::fill_n(a.y + at + i0, rows, T(0));
          continue;
        }
        if (a.starts && t % recurrent_chunk == 0)
          std::copy_n(
              s, rows * n,
              a.starts + ((head * recurrent_chunks(a.length) + t / recurrent_chunk) * n + i0) * n);
        detail::wkv7_step(kernels, a, at, i0, rows, s, s);
        K::template dots<T>(rows, n, T(1), a.x.r + at, s, n, a.y + at + i0);
      }
    });
  });
}

/// Scratch of wkv7_backward() per thread.
constexpr index wkv7_scratch(index n) { return (recurrent_chunk + 2) * n * n + 2 * n; }

/// The derivatives of wkv7(), of a call that began from nothing and left its `starts`; `dx` is
/// overwritten. `scratch` has wkv7_scratch(n) values per thread.
template <class T>
void wkv7_backward(const machine& on, const wkv7_call<T>& a, const T* dy, const wkv7_vectors<T>& dx,
                   T* scratch) {
  const index n = a.n, size = n * n, chunks = recurrent_chunks(a.length);
  T* const states = scratch + on.threads.rank() * wkv7_scratch(n);  // before and after each token
  T* const g = states + (recurrent_chunk + 1) * size;               // gradient of S
  T* const removed = g + size;                                      // S kappa
  T* const d_removed = removed + n;
  on.threads.each(a.batch * a.heads, [&](index head) {
    const index b = head / a.heads;
    std::fill_n(g, size, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index chunk = chunks; chunk-- > 0;) {
        const index t0 = chunk * recurrent_chunk,
                    tokens = (std::min)(recurrent_chunk, a.length - t0);
        const auto place = [&](index i) {
          return (b * a.length + t0 + i) * a.width() + head % a.heads * n;
        };
        std::copy_n(a.starts + (head * chunks + chunk) * size, size, states);
        for (index i = 0; i < tokens; ++i)
          detail::wkv7_step(kernels, a, place(i), states + i * size, states + (i + 1) * size);
        for (index t = tokens; t-- > 0;) {
          const index at = place(t);
          const T *const before = states + t * size, *const after = before + size;
          const T *const r = a.x.r + at, *const w = a.x.w + at, *const remove = a.x.remove + at;
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) g[i * n + j] += dy[at + i] * r[j];
          K::template mix<T>(n, n, dy + at, after, n, dx.r + at);
          K::template dots<T>(n, n, T(1), a.x.k + at, g, n, dx.v + at);
          K::template mix<T>(n, n, a.x.v + at, g, n, dx.k + at);
          K::template dots<T>(n, n, T(1), remove, before, n, removed);
          K::template dots<T>(n, n, T(-1), a.x.weight + at, g, n, d_removed);
          K::template mix<T>(n, n, removed, g, n, dx.weight + at);
          K::template mix<T>(n, n, d_removed, before, n, dx.remove + at);
          T *const d_weight = dx.weight + at, *const dw = dx.w + at;
          for (index j = 0; j < n; ++j) d_weight[j] = -d_weight[j];
          std::fill_n(dw, n, T(0));
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) {
              T& gij = g[i * n + j];
              dw[j] += before[i * n + j] * gij;
              gij = gij * w[j] + d_removed[i] * remove[j];
            }
        }
      }
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace mixer {

/// RWKV-7: per head, a matrix from keys to values that decays by channel, removes part of what the
/// normalised key held and adds the new value (a generalised delta rule with vector-valued decay
/// and in-context learning rate), then a norm per head, a bonus for the token itself and a gate.
/// Layers after the first mix their values with the first layer's. Linear in the length, needs no
/// positions; d_kv is the size of a head. Goes with ffn::rwkv7_channel_mix.
struct rwkv7 : policy {
  static constexpr bool embedding_norm = true;
  static constexpr bool first_differs = true;
  static std::string name() { return "rwkv7"; }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal && !A.cross,
                  "linnet::mixer::rwkv7: a recurrence reads its own sequence from left to right");
    static_assert(!A.relative, "linnet::mixer::rwkv7: not for T5, whose positions are relative");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::rwkv7: no positions; give position::none");
    static_assert(!A.bias, "linnet::mixer::rwkv7: RWKV has no biases");
    static_assert(A.n() == A.d_model && A.kv_heads == A.heads,
                  "linnet::mixer::rwkv7: heads * d_kv must be d_model, and kv_heads heads");
    static constexpr index D = A.d_model, heads = A.heads, N = A.d_kv, in = D, out = D;
    static constexpr bool first = A.first;
    static constexpr double norm_eps = 64e-5;
    using map = linear<D, D>;
    using shift = detail::token_shift<D, 6, detail::mixed_by::previous>;
    using head = detail::rwkv7_head<N>;
    template <fixed_string One, fixed_string Two, index R>
    using low_rank = chain<named<One, linear<D, R>>, named<Two, linear<R, D>>>;
    template <fixed_string One, fixed_string Two, index R, bool Tanh>
    using squashed = chain<named<One, linear<D, R>>, named<"", detail::squash<R, Tanh>>,
                           named<Two, linear<R, D>>>;
    using to_decay = squashed<"w1", "w2", detail::rwkv7_rank(D, 2.5), true>;
    using to_rate = low_rank<"a1", "a2", detail::rwkv7_rank(D, 2.5)>;
    using to_share = low_rank<"v1", "v2", detail::rwkv7_rank(D, 1.7)>;
    using to_gate = squashed<"g1", "g2", detail::rwkv7_rank(D, 5), false>;

    /// How much of the first layer's values later layers take.
    template <class Form>
    struct share_params {
      typename Form::vector v0{};
      typename to_share::template params<Form> maps{};
    };
    template <class Form>
    struct params {
      typename Form::vector x_r{}, x_w{}, x_k{}, x_v{}, x_a{}, x_g{};
      typename Form::vector w0{}, a0{}, k_k{}, k_a{}, r_k{};
      typename to_decay::template params<Form> decay{};
      typename to_rate::template params<Form> rate{};
      typename to_gate::template params<Form> gate{};
      [[no_unique_address]] std::conditional_t<first, std::nullptr_t, share_params<Form>> share{};
      typename map::template params<Form> receptance{}, key{}, value{}, output{};
      typename Form::vector norm_weight{}, norm_bias{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      const auto vector = [](decltype(tensor_info::start) start) {
        return tensor_info{1, D, role::bias, 0, start};
      };
      const auto starting = [&](decltype(tensor_info::start) start) {
        return [&f, start](const path& where, tensor_info info, auto&... leaf) {
          info.start = start;
          f(where, info, leaf...);
        };
      };
      // The first factor of a low-rank map starts at zero, the second small.
      const auto factors = [&](const path& where, tensor_info info, auto&... leaf) {
        info.start = where.parent->name.ends_with('1') ? start_zero : start_normal<0.1>;
        f(where, info, leaf...);
      };
      f(at / "x_r", vector(start_mix<0.2>), p.x_r...);
      f(at / "x_w", vector(start_mix<0.9>), p.x_w...);
      f(at / "x_k", vector(start_mix<0.7>), p.x_k...);
      f(at / "x_v", vector(start_mix<0.7>), p.x_v...);
      f(at / "x_a", vector(start_mix<0.9>), p.x_a...);
      f(at / "x_g", vector(start_mix<0.2>), p.x_g...);
      f(at / "w0", vector(start_decay), p.w0...);
      f(at / "a0", vector(start_rate), p.a0...);
      f(at / "k_k", vector(start_removal), p.k_k...);
      f(at / "k_a", vector(start_constant<1.02>), p.k_a...);
      f(at / "r_k", vector(start_constant<-0.04>), p.r_k...);
      to_decay::visit(factors, at, p.decay...);
      to_rate::visit(factors, at, p.rate...);
      to_gate::visit(factors, at, p.gate...);
      if constexpr (!first) {
        f(at / "v0", vector(start_share), p.share.v0...);
        to_share::visit(factors, at, p.share.maps...);
      }
      map::visit(starting(start_normal<1.0>), at / "receptance", p.receptance...);
      map::visit(starting(start_normal<0.1>), at / "key", p.key...);
      map::visit(starting(start_normal<1.0>), at / "value", p.value...);
      map::visit(starting(start_zero), at / "output", p.output...);
      f(at / "ln_x" / "weight", tensor_info{1, D, role::scale, 0, start_norm}, p.norm_weight...);
      f(at / "ln_x" / "bias", tensor_info{1, D, role::bias, 0}, p.norm_bias...);
    }

    template <class T>
    struct cache {
      typename shift::template cache<T> shifted{};
      typename to_decay::template cache<T> decay_maps{};
      typename to_rate::template cache<T> rate_maps{};
      typename to_gate::template cache<T> gate_maps{};
      typename to_share::template cache<T> share_maps{};
      T *r = nullptr, *key = nullptr, *value = nullptr;       ///< [rows, D] of the maps
      T *decay = nullptr, *rate = nullptr, *share = nullptr;  ///< [rows, D] sigmoids
      T *w = nullptr, *k = nullptr, *v = nullptr, *remove = nullptr, *weight = nullptr;
      T *y = nullptr, *mixed = nullptr, *gate = nullptr,
        *gated = nullptr;       ///< [rows, D] recurrence, with norm and bonus, gate, product
      T* inverse = nullptr;     ///< [rows, heads] 1 / length of the removal key
      T* bonus = nullptr;       ///< [rows, heads]
      T* statistics = nullptr;  ///< [rows, heads, 2] mean and 1 / deviation
      T* state = nullptr;       ///< [batch, heads, N, N]
      T* starts = nullptr;      ///< [batch, heads, chunks, N, N] while training
      T* d_first = nullptr;     ///< [rows, D] what later layers add to the first's values
      ops::wkv7_vectors<T> d{};
      T *d_mixed = nullptr, *d_gate = nullptr, *dy = nullptr, *d_key = nullptr, *d_share = nullptr;
      T* d_bonus = nullptr;  ///< [rows, heads]
      T* scratch = nullptr;  ///< per thread
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index size = e.rows() * D, states = e.batch * heads * N * N, mark = m.scratch.mark();
      m.product(e.rows(), D, D, e);
      c.shifted = shift::template plan<T>(m, e);
      for (T** one : {&c.r, &c.key, &c.value, &c.decay, &c.rate, &c.w, &c.k, &c.remove, &c.weight,
                      &c.y, &c.mixed, &c.gate, &c.gated})
        *one = m.keep.take<T>(size);
      c.share = first ? nullptr : m.keep.take<T>(size);
      c.v = first ? c.value : m.keep.take<T>(size);
      c.inverse = m.keep.take<T>(e.rows() * heads);
      c.bonus = m.keep.take<T>(e.rows() * heads);
      c.statistics = m.keep.take<T>(e.rows() * heads * 2);
      c.state = (e.capacity > 0 ? m.state : m.scratch).template take<T>(states);
      if (e.training) {
        c.starts = m.keep.take<T>(states * ops::recurrent_chunks(e.length));
        if (first) c.d_first = m.keep.take<T>(size);
        for (T** one : {&c.d.r, &c.d.w, &c.d.k, &c.d.v, &c.d.remove, &c.d.weight, &c.d_mixed,
                        &c.d_gate, &c.dy, &c.d_key})
          *one = m.scratch.take<T>(size);
        if (!first) c.d_share = m.scratch.take<T>(size);
        c.d_bonus = m.scratch.take<T>(e.rows() * heads);
        c.scratch = m.scratch.take<T>(e.threads * ops::wkv7_scratch(N));
      }
      c.decay_maps = to_decay::template plan<T>(m, e);
      c.rate_maps = to_rate::template plan<T>(m, e);
      c.gate_maps = to_gate::template plan<T>(m, e);
      if constexpr (!first) c.share_maps = to_share::template plan<T>(m, e);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const auto input = [&](std::size_t which) {
        return view<const T, D>(c.shifted.mixed[which], rows);
      };
      shift::forward({p.x_r, p.x_w, p.x_k, p.x_v, p.x_a, p.x_g}, x.data(), c.shifted, ctx);
      map::template forward<T, S>(p.receptance, input(0), {c.r, rows}, none, ctx);
      map::template forward<T, S>(p.key, input(2), {c.key, rows}, none, ctx);
      map::template forward<T, S>(p.value, input(3), {c.value, rows}, none, ctx);
      to_decay::template forward<T, S>(p.decay, input(1), {c.decay, rows}, c.decay_maps, ctx);
      to_rate::template forward<T, S>(p.rate, input(4), {c.rate, rows}, c.rate_maps, ctx);
      to_gate::template forward<T, S>(p.gate, input(5), {c.gate, rows}, c.gate_maps, ctx);
      if constexpr (first) {
        ctx.first_values = c.value;
        ctx.d_first_values = c.d_first;
        if (c.d_first) ops::fill(ctx.on, x.size(), T(0), c.d_first);
      } else {
        to_share::template forward<T, S>(p.share.maps, input(3), {c.share, rows}, c.share_maps,
                                         ctx);
      }
      each_head(rows, ctx, [&](index at, index channel, index h) {
        head::prepare(prepared(p, c, at, channel, h), p.w0 + channel, p.a0 + channel);
        if constexpr (!first)
          for (index j = 0; j < N; ++j) {
            T& share = c.share[at + j];
            share = detail::sigmoid(p.share.v0[channel + j] + share);
            const T own = c.value[at + j];
            c.v[at + j] = own + (ctx.first_values[at + j] - own) * share;
          }
      });
      ops::wkv7(ctx.on, call(c, ctx));
      each_head(rows, ctx, [&](index at, index channel, index h) {
        T bonus = 0;
        for (index j = 0; j < N; ++j) bonus += c.r[at + j] * c.k[at + j] * p.r_k[channel + j];
        c.bonus[h] = bonus;
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template layer_norm<T>(N, T(norm_eps), c.y + at, p.norm_weight + channel,
                                              p.norm_bias + channel, c.mixed + at,
                                              c.statistics + 2 * h);
        });
        for (index i = at; i < at + N; ++i) {
          c.mixed[i] += bonus * c.v[i];
          c.gated[i] = c.mixed[i] * c.gate[i];
        }
      });
      map::template forward<T, S>(p.output, {c.gated, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      ops::fill(ctx.on, x.size(), T(0), c.d_mixed);
      map::template backward<T, S>(p.output, dp.output, {c.gated, rows}, dy, {c.d_mixed, rows},
                                   none, ctx);
      each_head(rows, ctx, [&](index at, index channel, index h) {
        T d_bonus = 0;
        for (index i = at; i < at + N; ++i) {
          const T d_gated = c.d_mixed[i];
          c.d_gate[i] = d_gated * c.mixed[i];
          c.d_mixed[i] = d_gated * c.gate[i];
          d_bonus += c.d_mixed[i] * c.v[i];
          c.dy[i] = T(0);
        }
        c.d_bonus[h] = d_bonus;
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template layer_norm_backward<T>(N, c.statistics + 2 * h, c.y + at,
                                                       p.norm_weight + channel, c.d_mixed + at,
                                                       c.dy + at);
        });
      });
      ops::wkv7_backward(ctx.on, call(c, ctx), c.dy, c.d, c.scratch);
      each_head(rows, ctx, [&](index at, index channel, index h) {
        for (index j = 0; j < N; ++j) {
          const T through = c.d_bonus[h] * p.r_k[channel + j];
          c.d.r[at + j] += through * c.k[at + j];
          c.d.k[at + j] += through * c.r[at + j];
          T& dv = c.d.v[at + j];
          dv += c.bonus[h] * c.d_mixed[at + j];
          if constexpr (first) {
            dv += c.d_first[at + j];
          } else {
            const T share = c.share[at + j];
            c.d_share[at + j] =
                dv * (ctx.first_values[at + j] - c.value[at + j]) * share * (T(1) - share);
            ctx.d_first_values[at + j] += dv * share;
            dv *= T(1) - share;
          }
        }
        head::prepare_backward(prepared(p, c, at, channel, h), c.d.w + at, c.d.k + at,
                               c.d.remove + at, c.d.weight + at, c.d_key + at);
      });
      vector_gradients<T>(dp, c, rows, ctx);

      const auto branch = [&](auto layer, const auto& w, auto& dw, std::size_t which,
                              const T* d_output, auto& layer_cache) {
        decltype(layer)::type::template backward<T, S>(w, dw, {c.shifted.mixed[which], rows},
                                                       {d_output, rows}, {c.shifted.gradient, rows},
                                                       layer_cache, ctx);
      };
      const auto clear = [&] { ops::fill(ctx.on, x.size(), T(0), c.shifted.gradient); };
      const auto unshift = [&](const T* mu, T* d_mu) {
        shift::backward(mu, d_mu, x.data(), dx.data(), c.shifted, ctx);
      };
      using plain = std::type_identity<map>;
      clear();
      branch(plain{}, p.receptance, dp.receptance, 0, c.d.r, none);
      unshift(p.x_r, dp.x_r);
      clear();
      branch(std::type_identity<to_decay>{}, p.decay, dp.decay, 1, c.d.w, c.decay_maps);
      unshift(p.x_w, dp.x_w);
      clear();
      branch(plain{}, p.key, dp.key, 2, c.d_key, none);
      unshift(p.x_k, dp.x_k);
      clear();
      branch(plain{}, p.value, dp.value, 3, c.d.v, none);
      if constexpr (!first)
        branch(std::type_identity<to_share>{}, p.share.maps, dp.share.maps, 3, c.d_share,
               c.share_maps);
      unshift(p.x_v, dp.x_v);
      clear();
      branch(std::type_identity<to_rate>{}, p.rate, dp.rate, 4, c.d.weight, c.rate_maps);
      unshift(p.x_a, dp.x_a);
      clear();
      branch(std::type_identity<to_gate>{}, p.gate, dp.gate, 5, c.d_gate, c.gate_maps);
      unshift(p.x_g, dp.x_g);
    }

    /// The state of one sequence becomes another's.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      shift::copy_state(c.shifted, from, to, part);
      copy_sequence(c.state, D * N, from, to, part);
    }
    /// Numbers that each sequence keeps while decoding, however long it is.
    static constexpr index state_values(index) { return D * N + shift::state_values(); }
    /// The maps, and 9 N per channel for the recurrence.
    static constexpr index flops(const extents& e) {
      return 4 * map::flops(e) + to_decay::flops(e) + to_rate::flops(e) + to_gate::flops(e) +
             (first ? 0 : to_share::flops(e)) + 9 * e.rows() * D * N;
    }

   private:
    /// Calls f(where, channel, head) for this thread's share of the heads of all rows: where the
    /// head's values begin, the channel of the first, and the head's own number.
    template <class T, class F>
    static void each_head(index rows, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(rows * heads, [&](index h) { f(h * N, h % heads * N, h); });
    }
    template <class T, class P>
    static typename head::template prepared<T> prepared(const P& p, const cache<T>& c, index at,
                                                        index channel, index h) {
      return {c.key + at, p.k_k + channel, p.k_a + channel, c.decay + at,  c.rate + at,
              c.w + at,   c.k + at,        c.remove + at,   c.weight + at, c.inverse + h};
    }
    template <class T>
    static ops::wkv7_call<T> call(const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,
              ctx.length,
              heads,
              N,
              {c.r, c.w, c.k, c.v, c.remove, c.weight},
              c.y,
              c.state,
              ctx.past,
              ctx.past ? ctx.lengths : nullptr,
              c.starts};
    }
    /// Gradients of the vectors: sums over rows, in ascending order.
    template <class T, class G>
    static void vector_gradients(G& dp, const cache<T>& c, index rows, const context<T>& ctx) {
      ops::bias_gradient(ctx.on, rows, D, c.d.w, dp.w0);
      ops::bias_gradient(ctx.on, rows, D, c.d.weight, dp.a0);
      ops::bias_gradient(ctx.on, rows, D, c.d_mixed, dp.norm_bias);
      if constexpr (!first) ops::bias_gradient(ctx.on, rows, D, c.d_share, dp.share.v0);
      const auto [from, to] = ctx.on.threads.share(D);
      for (index row = 0; row < rows; ++row)
        for (index j = from; j < to; ++j) {
          const index i = row * D + j, h = row * heads + j / N;
          const T* const moments = c.statistics + 2 * h;
          dp.k_k[j] += c.d.remove[i] * c.key[i];
          dp.k_a[j] += c.d.k[i] * c.key[i] * (c.rate[i] - T(1));
          dp.r_k[j] += c.d_bonus[h] * c.r[i] * c.k[i];
          dp.norm_weight[j] += c.d_mixed[i] * (c.y[i] - moments[0]) * moments[1];
        }
      ctx.on.threads.wait();
    }

    // The reference trainer's values; it draws matrices orthogonal, here they are normal of that
    // size.
    static double along(index i) {
      return D > 1 ? static_cast<double>(i) / static_cast<double>(D - 1) : 0.5;
    }
    /// From -1 to 1 within each head, squared with its sign.
    static double bend(index i) {
      const double z =
          N > 1 ? 2.0 * static_cast<double>(i % N) / static_cast<double>(N - 1) - 1 : 0;
      return z * std::abs(z);
    }
    template <real C>
    static double start_mix(const path& at, index i, random_stream&) {
      return 1 -
             std::pow(static_cast<double>(i) / static_cast<double>(D), C.value * depth(at).rest());
    }
    static double start_decay(const path& at, index i, random_stream&) {
      return -5.5 + 6 * std::pow(along(i), 1 + std::pow(depth(at).fraction(), 0.3)) + 2.5 * bend(i);
    }
    static double start_rate(const path&, index i, random_stream&) {
      return -0.19 + 0.3 * bend(i) + 0.4 * (along(i) - 0.5);
    }
    static double start_share(const path&, index i, random_stream&) {
      return 0.73 - 0.4 * (along(i) - 0.5);
    }
    static double start_removal(const path&, index i, random_stream&) {
      return 0.71 - 0.1 * (along(i) - 0.5);
    }
    static double start_norm(const path& at, index, random_stream&) {
      return std::pow((1 + depth(at).layer) / depth(at).layers, 0.7);
    }
    template <real C>
    static double start_constant(const path&, index, random_stream&) {
      return C.value;
    }
    /// A matrix whose larger dimension is D.
    template <real Gain>
    static double start_normal(const path&, index, random_stream& random) {
      return Gain.value / std::sqrt(static_cast<double>(D)) * random.normal();
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// RWKV-4 (Peng et al. 2023, arXiv:2305.13048; zoo D12). Heads play no part, and `context` limits
/// nothing but the default length of sessions.
template <decoder_shape Shape, class... Policies>
using rwkv4 = decoder<Shape, mixer::rwkv4, ffn::rwkv4_channel_mix, norm::layer_norm, position::none,
                      tie::untied, Policies...>;

/// RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456; zoo D12b). heads * head width is d_model;
/// published models have heads of 64.
template <decoder_shape Shape, class... Policies>
using rwkv7 = decoder<Shape, mixer::rwkv7, ffn::rwkv7_channel_mix, norm::layer_norm, position::none,
                      tie::untied, Policies...>;

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint32_t rwkv_magic = 0x67676d66;
inline constexpr index rwkv_header = 24;  ///< bytes

/// An element type of the format: values stand in blocks along the fastest dimension.
struct rwkv_type {
  std::uint32_t id;
  const char* name;
  index block;  ///< values
  index bytes;  ///< of a block
};
inline constexpr rwkv_type rwkv_types[] = {
    {0, "F32", 1, 4},    {1, "F16", 1, 2},    {2, "Q4_0", 32, 18}, {3, "Q4_1", 32, 20},
    {7, "Q5_0", 32, 22}, {8, "Q5_1", 32, 24}, {9, "Q8_0", 32, 34}};
inline const rwkv_type* rwkv_type_of(std::uint32_t id) {
  for (const rwkv_type& type : rwkv_types)
    if (type.id == id) return &type;
  return nullptr;
}

/// The values of one block: d (q - centre), or d q + m where the block holds its minimum m.
inline void decode_rwkv_block(const rwkv_type& type, const std::byte* from, double* to) {
  if (type.block == 1) return decode_reals(type.id == 0 ? dtype::f32 : dtype::f16, from, 1, 1, to);
  double scale = 0, least = 0;
  decode_reals(dtype::f16, from, 1, 1, &scale);
  from += 2;
  if (type.id == 9) {
    for (index i = 0; i < 32; ++i) to[i] = scale * load_as<std::int8_t>(from + i);
    return;
  }
  const bool minimum = type.id == 3 || type.id == 8, five_bits = type.id >= 7;
  if (minimum) {
    decode_reals(dtype::f16, from, 1, 1, &least);
    from += 2;
  } else {
    least = scale * (five_bits ? -16 : -8);
  }
  std::uint32_t high = 0;  // the fifth bits
  if (five_bits) {
    high = load_as<std::uint32_t>(from);
    from += 4;
  }
  for (unsigned i = 0; i < 32; ++i) {  // low nibbles first, then the high ones
    const unsigned byte = std::to_integer<unsigned>(from[i % 16]);
    const unsigned code = (byte >> (i / 16 * 4) & 15u) | (high >> i & 1u) << 4;
    to[i] = scale * code + least;
  }
}

/// The facts of a model type that a file also holds.
struct rwkv_shape {
  int version = 4;
  index vocabulary = 0, width = 0, layers = 0, heads = 0;
  double eps = 0;
};
template <class M, class T>
constexpr rwkv_shape rwkv_shape_of() {
  static_assert(M::family == model_family::decoder, "linnet: rwkv.cpp files hold RWKV models");
  if constexpr (M::family == model_family::decoder) {
    constexpr bool four = std::is_same_v<typename M::attention, mixer::rwkv4> &&
                          std::is_same_v<typename M::ffn, ffn::rwkv4_channel_mix>;
    constexpr bool seven = std::is_same_v<typename M::attention, mixer::rwkv7> &&
                           std::is_same_v<typename M::ffn, ffn::rwkv7_channel_mix>;
    static_assert((four || seven) && std::is_same_v<typename M::norm, norm::layer_norm> &&
                      std::is_same_v<typename M::position, position::none> && !M::tied,
                  "linnet: rwkv.cpp files hold models of the types rwkv4<shape> and rwkv7<shape>");
    static_assert(!storage_of<M, T>::scaled,
                  "linnet: load rwkv.cpp files into the f32 model and quantize() it");
    return {four ? 4 : 7, M::vocabulary, M::d, M::shape.layers, M::shape.heads, M::shape.eps};
  }
}

/// A tensor that a file must hold, and where it was found.
struct rwkv_tensor {
  std::string name;
  index rows = 0, columns = 0;  ///< columns are the fastest dimension
  const rwkv_type* type = nullptr;
  const std::byte* data = nullptr;
};
/// Where the values of one of the model's tensors stand.
struct rwkv_place {
  rwkv_tensor tensor;
  index offset = 0;    ///< values before it in the file's tensor
  bool decay = false;  ///< the file has w = -e^decay
};
inline rwkv_place rwkv_place_of(const rwkv_shape& shape, const leaf& to) {
  rwkv_place at;
  at.tensor.rows = to.vector ? 1 : to.rows;
  at.tensor.columns = to.vector ? to.rows : to.columns;
  std::string_view name = to.name;
  const auto cut = [&](std::string_view prefix) {
    const bool there = name.starts_with(prefix);
    if (there) name.remove_prefix(prefix.size());
    return there;
  };
  std::string& file = at.tensor.name;
  if (cut("embedding.norm.")) {
    file = "blocks.0.ln0.";
  } else if (cut("embedding.")) {
    file = "emb.";
  } else if (cut("norm.")) {
    file = "ln_out.";
  } else if (name.starts_with("blocks.")) {
    const std::size_t number = name.find('.', 7) + 1;
    file = name.substr(0, number);
    name.remove_prefix(number);
    if (cut("attention.norm.")) {
      file += "ln1.";
    } else if (cut("ffn.norm.")) {
      file += "ln2.";
    } else if (cut("attention.")) {
      file += "att.";
      at.decay = name == "time_decay";
      if (shape.version == 7) {
        constexpr std::string_view stacked = "rwkvag";  // x_r, x_w, ... in one tensor
        if (cut("x_")) {
          at.offset = static_cast<index>(stacked.find(name)) * shape.width;
          at.tensor.rows = 6;
          name = "x_rwkvag";
        } else if (name == "r_k") {
          at.tensor.rows = shape.heads;
          at.tensor.columns = shape.width / shape.heads;
        } else if (name.size() == 9 && (name[1] == '1' || name[1] == '2')) {
          name = name.substr(0, 2);  // a low-rank factor, w1.weight
        }
      }
    }
  }
  file += name;
  return at;
}

inline std::string rwkv_dimensions(index rows, index columns) {
  return "[" + (rows == 1 ? "" : std::to_string(rows) + ", ") + std::to_string(columns) + "]";
}

/// Finds all of `tensors`, which are sorted by name, in a file. Sizes in the file are compared with
/// the model's before anything is computed from them.
inline result<void> find_rwkv_tensors(std::span<const std::byte> file, const rwkv_shape& shape,
                                      const std::string& where, std::vector<rwkv_tensor>& tensors) {
  const auto wrong = [&](errc code, std::string_view what, std::string expected, std::string got) {
    return error{code, where, printable(what), std::move(expected), std::move(got)};
  };
  index at = 0;
  const auto left = [&] { return std::ssize(file) - at; };
  const auto next = [&] {
    at += 4;
    return load_as<std::uint32_t>(file.data() + at - 4);
  };
  if (left() < rwkv_header)
    return wrong(errc::malformed, "file size", "at least 24 bytes", std::to_string(file.size()));
  if (next() != rwkv_magic)
    return wrong(errc::malformed, "magic", "that of an rwkv.cpp file", "other bytes");
  const std::uint32_t version = next();
  if (version != 100 && version != 101)
    return wrong(errc::unsupported, "version", "100 or 101", std::to_string(version));
  const std::pair<const char*, index> fields[] = {
      {"n_vocab", shape.vocabulary}, {"n_embed", shape.width}, {"n_layer", shape.layers}};
  for (const auto& [name, expected] : fields)
    if (const index got = next(); got != expected)
      return wrong(errc::mismatch, name, std::to_string(expected) + " (the model type)",
                   std::to_string(got));
  if (const std::uint32_t type = next(); !rwkv_type_of(type) || (version == 100 && type > 1))
    return wrong(errc::unsupported, "data type",
                 version == 100 ? "0 or 1 in version 100" : "0, 1, 2, 3, 7, 8 or 9",
                 std::to_string(type));
  // The format has no place for it.
  if (shape.eps != 1e-5)
    return wrong(errc::mismatch, "norm eps", number_text(shape.eps) + " (the model type)",
                 "1e-05, as always in RWKV");

  while (left() > 0) {
    const std::string here = "record at byte " + std::to_string(at);
    if (left() < 12)
      return wrong(errc::malformed, here, "at least 12 bytes", std::to_string(left()));
    const std::uint32_t dimensions = next(), length = next(), id = next();
    if (dimensions < 1 || dimensions > 3)
      return wrong(errc::malformed, here, "1 to 3 dimensions", std::to_string(dimensions));
    if (left() < index{4} * dimensions || left() - index{4} * dimensions < index{length})
      return wrong(errc::malformed, here, "a name of " + std::to_string(length) + " bytes",
                   "the end of the file");
    std::uint64_t extents[3] = {1, 1, 1};
    for (std::uint32_t i = 0; i < dimensions; ++i) extents[i] = next();
    const std::string_view name(reinterpret_cast<const char*>(file.data() + at), length);
    at += index{length};
    const auto found =
        std::lower_bound(tensors.begin(), tensors.end(), name,
                         [](const rwkv_tensor& a, std::string_view b) { return a.name < b; });
    if (found == tensors.end() || found->name != name)
      return wrong(errc::mismatch, name, "only tensors of the model type", "this one");
    if (found->data) return wrong(errc::malformed, name, "one tensor of this name", "two");
    found->type = rwkv_type_of(id);
    if (!found->type)
      return wrong(errc::unsupported, name, "type 0, 1, 2, 3, 7, 8 or 9", std::to_string(id));
    const auto rows = static_cast<std::uint64_t>(found->rows);
    const auto columns = static_cast<std::uint64_t>(found->columns);
    if (extents[0] != columns || extents[1] * extents[2] != rows) {
      std::string got;
      for (std::uint32_t i = dimensions; i-- > 0;)
        got += (got.empty() ? "[" : ", ") + std::to_string(extents[i]);
      return wrong(errc::mismatch, name,
                   rwkv_dimensions(found->rows, found->columns) + " (the model type)", got + "]");
    }
    if (found->columns % found->type->block != 0)
      return wrong(errc::malformed, name, "whole blocks of 32 values",
                   "rows of " + std::to_string(found->columns));
    const index bytes = found->rows * found->columns / found->type->block * found->type->bytes;
    if (left() < bytes)
      return wrong(errc::malformed, name, std::to_string(bytes) + " bytes of data",
                   std::to_string(left()));
    found->data = file.data() + at;
    at += bytes;
  }
  for (const rwkv_tensor& tensor : tensors)
    if (!tensor.data)
      return wrong(errc::missing, tensor.name,
                   rwkv_dimensions(tensor.rows, tensor.columns) + " (the model type)",
                   "no such tensor");
  return {};
}

/// Calls f(position, values) for some of the values at `at` at a time.
template <class F>
void each_rwkv_values(const rwkv_tensor& from, const rwkv_place& at, index size, F&& f) {
  const rwkv_type& type = *from.type;
  const std::byte* data = from.data + at.offset / type.block * type.bytes;
  std::array<double, 256> some;
  for (index first = 0; first < size; first += std::ssize(some)) {
    const index count = (std::min)(std::ssize(some), size - first);
    for (index i = 0; i < count; i += type.block, data += type.bytes)
      decode_rwkv_block(type, data, some.data() + i);
    f(first, std::span(some).first(static_cast<std::size_t>(count)));
  }
}

}  // namespace detail

/// Loads a model file of rwkv.cpp, held in memory, into a model of type rwkv4<shape> or
/// rwkv7<shape>. Every tensor of the model must be there exactly once and in its shape, and no
/// other; `w` is untouched unless all of it fits. `where` names the file in errors. Errors:
/// errc::malformed, errc::mismatch, errc::missing, errc::unsupported, errc::out_of_memory.
template <class M, class T>
result<void> load_rwkv(weights<M, T>& w, std::span<const std::byte> file,
                       const std::string& where = "rwkv.cpp file") {
  constexpr detail::rwkv_shape shape = detail::rwkv_shape_of<M, T>();
  if (!w.valid())
    return error{errc::out_of_memory, where, "weights", "memory for the model", "none"};
  const std::vector<detail::leaf> leaves = detail::leaves_of(w);
  std::vector<detail::rwkv_place> places;
  std::vector<detail::rwkv_tensor> tensors;
  for (const detail::leaf& to : leaves) {
    places.push_back(detail::rwkv_place_of(shape, to));
    if (places.back().offset == 0) tensors.push_back(places.back().tensor);
  }
  const auto by_name = [](const detail::rwkv_tensor& a, const detail::rwkv_tensor& b) {
    return a.name < b.name;
  };
  std::sort(tensors.begin(), tensors.end(), by_name);
  if (auto found = detail::find_rwkv_tensors(file, shape, where, tensors); !found)
    return found.error();

  const auto each = [&](bool only_decays, auto&& f) {
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (!only_decays || places[i].decay) {
        const auto at = std::lower_bound(tensors.begin(), tensors.end(), places[i].tensor, by_name);
        detail::each_rwkv_values(*at, places[i], leaves[i].size(),
                                 [&](index first, std::span<double> x) { f(i, first, x); });
      }
  };
  const std::string* unusable = nullptr;
  each(true, [&](std::size_t i, index, std::span<double> x) {
    for (const double decay : x)
      if (!(is_finite(decay) && decay < 0)) unusable = &places[i].tensor.name;
  });
  if (unusable)
    return error{errc::malformed, where, *unusable, "negative, finite decays", "another value"};
  each(false, [&](std::size_t i, index first, std::span<double> x) {
    if (places[i].decay)
      for (double& decay : x) decay = std::log(-decay);
    detail::encode_reals(leaves[i], first, std::ssize(x), x.data());
  });
  return {};
}

/// The same from a file. Errors: also those of read_file().
template <class M, class T>
result<void> load_rwkv(weights<M, T>& w, const std::string& path) {
  const auto file = read_file(path);
  return file ? load_rwkv(w, *file, path) : result<void>(file.error());
}

LINNET_NAMESPACE_END
/// @file
/// Initial values of a model's weights.

LINNET_NAMESPACE_BEGIN

/// Fills `w` with fresh values: matrices and tables normal with the deviation their layer states
/// (zoo A6 for T5, 0.02 for decoders), norms one, biases zero, unless the layer says otherwise.
/// Each tensor's values depend only on the seed and the tensor's name.
template <class M, class T>
void initialize(weights<M, T>& w, seed s) {
  static_assert(std::is_floating_point_v<typename storage_of<M, T>::value>,
                "linnet::initialize: quantized weights are made by quantize() from trained ones");
  w.visit([&](const path& at, const tensor_info& info, auto& leaf) {
    random_stream random(s, stream_of(at.str()));
    T* values = nullptr;
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      values = leaf;
    else
      values = leaf.data;
    for (index i = 0; i < info.size(); ++i)
      values[i] = info.start                 ? static_cast<T>(info.start(at, i, random))
                  : info.kind == role::scale ? T(1)
                  : info.kind == role::bias  ? T(0)
                                             : static_cast<T>(info.deviation * random.normal());
  });
}

LINNET_NAMESPACE_END
/// @file
/// Presets: the models of the literature as types, with their parameter counts proven at compile
/// time (zoo A8, C1).

LINNET_NAMESPACE_BEGIN

/// Models with known shapes.
namespace zoo {

/// Shapes of the presets, to build variants from: t5<zoo::shapes::t5_mini, ffn::reparam<3>>.
namespace shapes {
inline constexpr index t5_vocabulary = 32128;  ///< 32,100 pieces padded to a multiple of 128

/// T5-Efficient sizes; the published totals belong to heads of width 64 (zoo A8).
constexpr t5_shape t5_efficient(index layers, index d_ff, index d_model, index heads, index d_kv) {
  return {.d_model = d_model,
          .d_ff = d_ff,
          .d_kv = d_kv,
          .heads = heads,
          .encoder_layers = layers,
          .decoder_layers = layers,
          .vocabulary = t5_vocabulary};
}
inline constexpr t5_shape t5_tiny = t5_efficient(4, 1024, 256, 4, 64);
inline constexpr t5_shape t5_mini = t5_efficient(4, 1536, 384, 8, 64);
inline constexpr t5_shape t5_small = t5_efficient(6, 2048, 512, 8, 64);
inline constexpr t5_shape t5_base = t5_efficient(12, 3072, 768, 12, 64);
inline constexpr t5_shape t5_tiny_kv32 = t5_efficient(4, 1024, 256, 4, 32);
inline constexpr t5_shape t5_mini_kv32 = t5_efficient(4, 1536, 384, 8, 32);
inline constexpr t5_shape t5_small_kv32 = t5_efficient(6, 2048, 512, 8, 32);
inline constexpr t5_shape t5_v1_1_small = t5_efficient(8, 1024, 512, 6, 64);
inline constexpr t5_shape t5_v1_1_base = t5_efficient(12, 2048, 768, 12, 64);

// Super Tiny Language Models (Hillier et al. 2024, Table 1): the published baseline of 50M and two
// sisters of the same family, deep and thin as MobileLLM (Liu et al. 2024) found best at these
// sizes. The 100M keeps the baseline's block and is deeper; at 10M the GPT-2 vocabulary would take
// the whole budget, so the width shrinks to 128 (6.4M in the tied table) and depth gets the rest.
inline constexpr decoder_shape stlm_10m{.d_model = 128,
                                        .d_ff = 384,
                                        .heads = 8,
                                        .kv_heads = 4,
                                        .layers = 18,
                                        .vocabulary = 50257,
                                        .context = 512,
                                        .eps = 1e-6};
inline constexpr decoder_shape stlm_50m{.d_model = 512,
                                        .d_ff = 1536,
                                        .heads = 16,
                                        .kv_heads = 4,
                                        .layers = 10,
                                        .vocabulary = 50257,
                                        .context = 512,
                                        .eps = 1e-6};
inline constexpr decoder_shape stlm_100m{.d_model = 512,
                                         .d_ff = 1536,
                                         .heads = 16,
                                         .kv_heads = 4,
                                         .layers = 25,
                                         .vocabulary = 50257,
                                         .context = 512,
                                         .eps = 1e-6};
inline constexpr decoder_shape gpt2_small{.d_model = 768,
                                          .d_ff = 3072,
                                          .heads = 12,
                                          .kv_heads = 12,
                                          .layers = 12,
                                          .vocabulary = 50257,
                                          .context = 1024,
                                          .eps = 1e-5};
inline constexpr decoder_shape stories260k{.d_model = 64,
                                           .d_ff = 172,
                                           .heads = 8,
                                           .kv_heads = 4,
                                           .layers = 5,
                                           .vocabulary = 512,
                                           .context = 512,
                                           .eps = 1e-5};
inline constexpr decoder_shape tinyllama_1_1b{.d_model = 2048,
                                              .d_ff = 5632,
                                              .heads = 32,
                                              .kv_heads = 4,
                                              .layers = 22,
                                              .vocabulary = 32000,
                                              .context = 2048,
                                              .eps = 1e-5};
inline constexpr decoder_shape mobilellm_125m{.d_model = 576,
                                              .d_ff = 1536,
                                              .heads = 9,
                                              .kv_heads = 3,
                                              .layers = 30,
                                              .vocabulary = 32000,
                                              .context = 2048,
                                              .eps = 1e-5};
// The byte-level test models of rwkv.cpp; without positions, any context would do.
inline constexpr decoder_shape rwkv4_660k{.d_model = 128,
                                          .d_ff = 256,
                                          .heads = 1,
                                          .kv_heads = 1,
                                          .layers = 4,
                                          .vocabulary = 256,
                                          .context = 1024,
                                          .eps = 1e-5};
inline constexpr decoder_shape rwkv7_834k{.d_model = 64,
                                          .d_ff = 256,
                                          .heads = 1,
                                          .kv_heads = 1,
                                          .layers = 12,
                                          .vocabulary = 256,
                                          .context = 1024,
                                          .eps = 1e-5};
}  // namespace shapes

using t5_tiny = t5<shapes::t5_tiny>;              ///< 15,570,688 parameters, heads of width 64
using t5_mini = t5<shapes::t5_mini>;              ///< 31,220,480
using t5_small = t5<shapes::t5_small>;            ///< 60,506,624
using t5_base = t5<shapes::t5_base>;              ///< 222,903,552
using t5_tiny_kv32 = t5<shapes::t5_tiny_kv32>;    ///< 13,997,824, heads of width 32
using t5_mini_kv32 = t5<shapes::t5_mini_kv32>;    ///< 26,501,888
using t5_small_kv32 = t5<shapes::t5_small_kv32>;  ///< 51,069,440
using t5_v1_1_small = t5<shapes::t5_v1_1_small, ffn::gated_gelu, tie::untied>;  ///< 76,961,152
using t5_v1_1_base = t5<shapes::t5_v1_1_base, ffn::gated_gelu, tie::untied>;    ///< 247,577,856
using stlm_10m = decoder<shapes::stlm_10m>;    ///< within 5% of 10M
using stlm_50m = decoder<shapes::stlm_50m>;    ///< 55,888,896, the published baseline
using stlm_100m = decoder<shapes::stlm_100m>;  ///< within 5% of 100M
using gpt2_small = decoder<shapes::gpt2_small, norm::layer_norm, position::learned, ffn::gelu_tanh,
                           bias::all>;             ///< 124,439,808
using stories260k = decoder<shapes::stories260k>;  ///< 260,032
using tinyllama_1_1b =
    decoder<shapes::tinyllama_1_1b, position::rope_half, tie::untied>;  ///< 1,100,048,384
using mobilellm_125m =
    decoder<shapes::mobilellm_125m, position::rope_half>;  ///< MobileLLM (Liu et al. 2024)
using rwkv4_660k = rwkv4<shapes::rwkv4_660k>;              ///< 661,504
using rwkv7_834k = rwkv7<shapes::rwkv7_834k>;              ///< 829,888

static_assert(t5_tiny::parameters() == 15'570'688);
static_assert(t5_mini::parameters() == 31'220'480);
static_assert(t5_small::parameters() == 60'506'624);
static_assert(t5_base::parameters() == 222'903'552);
static_assert(t5_tiny_kv32::parameters() == 13'997'824);
static_assert(t5_mini_kv32::parameters() == 26'501'888);
static_assert(t5_small_kv32::parameters() == 51'069'440);
static_assert(t5_v1_1_small::parameters() == 76'961'152);
static_assert(t5_v1_1_base::parameters() == 247'577'856);
static_assert(stlm_50m::parameters() == 55'888'896);
static_assert(gpt2_small::parameters() == 124'439'808);
static_assert(stories260k::parameters() == 260'032);
static_assert(tinyllama_1_1b::parameters() == 1'100'048'384);
static_assert(rwkv4_660k::parameters() == 661'504);
static_assert(rwkv7_834k::parameters() == 829'888);

}  // namespace zoo

LINNET_NAMESPACE_END
/// @file
/// Linear attention as a layer: a kernel of features instead of the softmax (zoo D9).

/// @file
/// Linear attention, forward and backward, in blocks of rows with a state between them (zoo D9;
/// Katharopoulos et al. 2020). No matrix of all queries by all keys is ever held.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Rows that are worked on at a time.
inline constexpr index linear_attention_rows = 64;
/// Added to the denominators.
inline constexpr double linear_attention_eps = 1e-6;

/// Blocks of rows that `length` tokens make.
constexpr index linear_attention_blocks(index length) {
  return (length + linear_attention_rows - 1) / linear_attention_rows;
}
/// Numbers of the state of one key-value head: S[h, h], the sum of f(k) v^T, then z[h], the sum of
/// f(k).
constexpr index linear_attention_state(index h) { return h * h + h; }
/// Scratch values that one thread needs.
constexpr index linear_attention_scratch(index length, index h, bool training) {
  const index rows = (std::min)(linear_attention_rows, length), wide = round_up(rows, panel_width);
  const index forward = 4 * rows * h + h * wide + rows * wide + linear_attention_state(h) + h;
  const index backward = 4 * rows * h + h * wide + rows + 3 * h * h + 2 * h;
  return forward + (training ? backward : 0);
}

/// One call: q[batch, length, heads*h] against k, v[batch, length, kv_heads*h].
template <class T>
struct linear_attention_call {
  index batch, length, heads, kv_heads, h;
  bool causal;  ///< token j is visible to token i if j <= i
  const T *q, *k, *v;
  T* out;                     ///< [batch, length, heads*h]; zero at padding
  T* denominators = nullptr;  ///< [batch, length, heads], for the backward pass
  T* boundaries = nullptr;    ///< [batch, kv_heads, blocks, state], the state before each block
                              ///< (bidirectional: one block, the whole sum), for the same
  T* state = nullptr;         ///< [batch, kv_heads, state] from call to call, with `past`
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null for all
  const index* past = nullptr;     ///< tokens of each sequence that the state has seen, or null
  rope_pairing pairing = rope_pairing::none;
  const T* rope = nullptr;  ///< cosines and sines [rope_positions, h]
  index rope_positions = index{1} << 48;
  const T* rope_beyond = nullptr;  ///< those of later positions, [batch, length, h]
  T* scratch = nullptr;            ///< per thread, linear_attention_scratch() values
  index scratch_size = 0;

  /// Blocks whose state is kept for the backward pass.
  index blocks() const { return causal ? linear_attention_blocks(length) : 1; }
};

/// Gradients of a call; dq, dk and dv are overwritten.
template <class T>
struct linear_attention_gradient {
  const T* d_out;
  T *dq, *dk, *dv;
};

namespace detail {

/// Everything about one (sequence, key-value head) that both directions share.
template <class Map, class Kernels, class T>
struct linear_attention_unit {
  const linear_attention_call<T>& call;
  index b, g, h, n, kv, valid, past, rows_max, wide;
  T* next;  ///< scratch that is free
  T *fq, *fk, *rq, *rk, *key_columns, *scores, *state, *sum;

  linear_attention_unit(const linear_attention_call<T>& c, index unit, int rank)
      : call(c),
        b(unit / c.kv_heads),
        g(unit % c.kv_heads),
        h(c.h),
        n(c.heads * c.h),
        kv(c.kv_heads * c.h),
        valid(c.lengths ? c.lengths[b] : c.length),
        past(c.past ? c.past[b] : 0),
        rows_max((std::min)(linear_attention_rows, c.length)),
        wide(round_up(rows_max, panel_width)),
        next(c.scratch + rank * c.scratch_size) {
    fq = take(rows_max * h);
    fk = take(rows_max * h);
    rq = rotated() ? take(rows_max * h) : fq;
    rk = rotated() ? take(rows_max * h) : fk;
    key_columns = take(h * wide);
    scores = take(rows_max * wide);
    state = take(linear_attention_state(h));
    sum = take(h);
  }
  T* take(index count) {
    T* const here = next;
    next += count;
    return here;
  }
  const T* angles(index i) const {
    return past + i < call.rope_positions ? call.rope + (past + i) * h
                                          : call.rope_beyond + (b * call.length + i) * h;
  }
  bool rotated() const { return call.pairing != rope_pairing::none; }
  index first_head() const { return g * (call.heads / call.kv_heads); }
  index last_head() const { return (g + 1) * (call.heads / call.kv_heads); }
  index key_at(index row) const { return (b * call.length + row) * kv + g * h; }
  index query_at(index head, index row) const { return (b * call.length + row) * n + head * h; }
  T* boundary(index block) const {
    return call.boundaries +
           ((b * call.kv_heads + g) * call.blocks() + block) * linear_attention_state(h);
  }

  /// f and r[rows, h] = features of rows [i0, i0 + rows) of x, plain and rotated.
  void features(const T* x, index stride, index i0, index rows, T* f, T* r) const {
    for (index i = 0; i < rows; ++i) {
      Map::template map<Kernels, T>(h, x + i * stride, f + i * h);
      if (!rotated()) continue;
      std::copy_n(f + i * h, h, r + i * h);
      rotate(r + i * h, i0 + i, false);
    }
  }
  void keys(index i0, index rows) const { features(call.k + key_at(i0), kv, i0, rows, fk, rk); }
  void queries(index head, index i0, index rows) const {
    features(call.q + query_at(head, i0), n, i0, rows, fq, rq);
  }
  void rotate(T* row, index i, bool inverse) const {
    if (rotated()) rope_row(call.pairing, 1, h, angles(i), row, inverse);
  }
  /// columns[h, wide] = x[rows, h]^T, zero behind the rows.
  void transpose(const T* x, index stride, index rows, T* columns) const {
    for (index c = 0; c < h; ++c) {
      for (index i = 0; i < rows; ++i) columns[c * wide + i] = x[i * stride + c];
      std::fill(columns + c * wide + rows, columns + (c + 1) * wide, T(0));
    }
  }
  void transpose_square(const T* x, T* y) const {
    for (index i = 0; i < h; ++i)
      for (index j = 0; j < h; ++j) y[j * h + i] = x[i * h + j];
  }
  /// scores[rows, wide] = x[rows, h] columns, zero where a later token would be seen.
  void masked(const T* x, const T* columns, index rows) const {
    Kernels::template multiply<T>(rows, round_up(rows, panel_width), h, {x, h, 1},
                                  {columns, wide, panel_width}, scores, wide, {});
    for (index i = 0; i < rows; ++i)
      std::fill(scores + i * wide + i + 1, scores + i * wide + rows, T(0));
  }
  /// y[M, h] (+)= x[M, K] m[K, h]
  void multiply(index m, index k, const simd::rows_operand<T>& x, const T* right, index ld, T* y,
                index ldy, bool accumulate) const {
    Kernels::template multiply<T>(m, h, k, x, {right, ld, panel_width}, y, ldy,
                                  {nullptr, T(1), accumulate});
  }
  /// Adds the block's keys and values, whose features are at hand, to a state.
  void absorb(index i0, index rows, T* into) const {
    multiply(h, rows, {rk, 1, h}, call.v + key_at(i0), kv, into, h, true);
    for (index i = 0; i < rows; ++i)
      Kernels::template add<T>(h, into + h * h, fk + i * h, into + h * h);
  }

  void forward() {
    T* const s =
        call.past ? call.state + (b * call.kv_heads + g) * linear_attention_state(h) : state;
    if (past == 0) std::fill_n(s, linear_attention_state(h), T(0));
    if (!call.causal) {
      for (index i0 = 0; i0 < valid; i0 += rows_max) {
        const index rows = (std::min)(rows_max, valid - i0);
        keys(i0, rows);
        absorb(i0, rows, s);
      }
      if (call.boundaries) std::copy_n(s, linear_attention_state(h), boundary(0));
    }
    for (index i0 = 0; i0 < valid; i0 += rows_max) {
      const index rows = (std::min)(rows_max, valid - i0);
      if (call.causal) {
        if (call.boundaries) std::copy_n(s, linear_attention_state(h), boundary(i0 / rows_max));
        keys(i0, rows);
        transpose(rk, h, rows, key_columns);
      }
      for (index head = first_head(); head < last_head(); ++head) mix(head, i0, rows, s);
      if (call.causal) absorb(i0, rows, s);
    }
    for (index i = valid; i < call.length; ++i)
      std::fill_n(call.out + query_at(first_head(), i), (last_head() - first_head()) * h, T(0));
  }
  /// The outputs of one head for a block of rows, given the state before it (or the whole sum).
  void mix(index head, index i0, index rows, const T* s) const {
    T* const out = call.out + query_at(head, i0);
    queries(head, i0, rows);
    multiply(rows, h, {rq, h, 1}, s, h, out, n, false);
    if (call.causal) {
      masked(rq, key_columns, rows);
      multiply(rows, rows, {scores, wide, 1}, call.v + key_at(i0), kv, out, n, true);
    }
    std::copy_n(s + h * h, h, sum);
    for (index i = 0; i < rows; ++i) {
      if (call.causal) Kernels::template add<T>(h, sum, fk + i * h, sum);
      const T denominator =
          Kernels::template dot<T>(h, fq + i * h, sum) + static_cast<T>(linear_attention_eps);
      if (call.denominators)
        call.denominators[(b * call.length + i0 + i) * call.heads + head] = denominator;
      Kernels::template scale<T>(h, T(1) / denominator, out + i * n);
    }
  }

  void backward(const linear_attention_gradient<T>& grad) {
    // With N the numerators and D the denominators: dN = d_out / D, dD = -(d_out . out) / D.
    // `later` holds the sums over later blocks (bidirectional: all) of f(q) dN^T and f(q) dD.
    T* const d_numerator = take(rows_max * h);
    T* const gq = take(rows_max * h);
    T* const gk = take(rows_max * h);
    T* const gf = take(rows_max * h);
    T* const value_columns = take(h * wide);
    T* const d_denominator = take(rows_max);
    T* const turned = take(h * h);
    T* const later_turned = take(h * h);
    T* const later = take(linear_attention_state(h));
    T* const suffix = take(h);
    std::fill_n(later, linear_attention_state(h), T(0));

    const auto outputs = [&](index head, index i0, index rows) {
      queries(head, i0, rows);
      for (index i = 0; i < rows; ++i) {
        const index at = query_at(head, i0 + i);
        const T inverse = T(1) / call.denominators[(b * call.length + i0 + i) * call.heads + head];
        for (index c = 0; c < h; ++c) d_numerator[i * h + c] = grad.d_out[at + c] * inverse;
        d_denominator[i] = -Kernels::template dot<T>(h, d_numerator + i * h, call.out + at);
      }
    };
    const auto absorb_outputs = [&](index rows) {
      multiply(h, rows, {rq, 1, h}, d_numerator, h, later, h, true);
      for (index i = 0; i < rows; ++i)
        for (index c = 0; c < h; ++c) later[h * h + c] += fq[i * h + c] * d_denominator[i];
    };
    if (!call.causal)
      for (index head = first_head(); head < last_head(); ++head)
        for (index i0 = 0; i0 < valid; i0 += rows_max) {
          const index rows = (std::min)(rows_max, valid - i0);
          outputs(head, i0, rows);
          absorb_outputs(rows);
        }

    for (index block = (valid + rows_max - 1) / rows_max; block-- > 0;) {
      const index i0 = block * rows_max, rows = (std::min)(rows_max, valid - i0);
      const T* const s = boundary(call.causal ? block : 0);
      const T* const v = call.v + key_at(i0);
      T* const dv = grad.dv + key_at(i0);
      keys(i0, rows);
      transpose(rk, h, rows, key_columns);
      transpose(v, kv, rows, value_columns);
      transpose_square(s, turned);
      transpose_square(later, later_turned);
      multiply(rows, h, {v, kv, 1}, later_turned, h, gk, h, false);
      multiply(rows, h, {rk, h, 1}, later, h, dv, kv, false);
      for (index i = 0; i < rows; ++i) std::copy_n(later + h * h, h, gf + i * h);

      for (index head = first_head(); head < last_head(); ++head) {
        outputs(head, i0, rows);
        multiply(rows, h, {d_numerator, h, 1}, turned, h, gq, h, false);
        if (call.causal) {
          masked(d_numerator, value_columns, rows);
          multiply(rows, rows, {scores, wide, 1}, rk, h, gq, h, true);
          multiply(rows, rows, {scores, 1, wide}, rq, h, gk, h, true);
          masked(rq, key_columns, rows);
          multiply(rows, rows, {scores, 1, wide}, d_numerator, h, dv, kv, true);
          std::fill_n(suffix, h, T(0));
          for (index i = rows; i-- > 0;)
            for (index c = 0; c < h; ++c) {
              suffix[c] += fq[i * h + c] * d_denominator[i];
              gf[i * h + c] += suffix[c];
            }
          absorb_outputs(rows);
        }
        std::copy_n(s + h * h, h, sum);
        for (index i = 0; i < rows; ++i) {
          const index at = query_at(head, i0 + i);
          rotate(gq + i * h, i0 + i, true);
          if (call.causal) Kernels::template add<T>(h, sum, fk + i * h, sum);
          for (index c = 0; c < h; ++c)
            grad.dq[at + c] = (gq[i * h + c] + d_denominator[i] * sum[c]) *
                              Map::template slope<T>(call.q[at + c], fq[i * h + c]);
        }
      }
      for (index i = 0; i < rows; ++i) {
        const index at = key_at(i0 + i);
        rotate(gk + i * h, i0 + i, true);
        for (index c = 0; c < h; ++c)
          grad.dk[at + c] = (gk[i * h + c] + gf[i * h + c]) *
                            Map::template slope<T>(call.k[at + c], fk[i * h + c]);
      }
    }
    for (index i = valid; i < call.length; ++i) {
      std::fill_n(grad.dq + query_at(first_head(), i), (last_head() - first_head()) * h, T(0));
      std::fill_n(grad.dk + key_at(i), h, T(0));
      std::fill_n(grad.dv + key_at(i), h, T(0));
    }
  }
};

}  // namespace detail

/// out_i = sum_j f(q_i).f(k_j) v_j / (sum_j f(q_i).f(k_j) + eps) over the tokens that i sees.
/// Rotary positions, if any, turn the features of the numerator alone, so that the denominator
/// stays positive (Su et al. 2021). `Map` is a feature map as attention::linear describes it.
template <class Map, class T>
void linear_attention(const machine& on, const linear_attention_call<T>& call) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      detail::linear_attention_unit<Map, decltype(kernels), T>(call, item, on.threads.rank())
          .forward();
    });
  });
}

/// The derivative of linear_attention() from a call with `denominators` and `boundaries`. What
/// happened inside a block is computed again.
template <class Map, class T>
void linear_attention_backward(const machine& on, const linear_attention_call<T>& call,
                               const linear_attention_gradient<T>& grad) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      detail::linear_attention_unit<Map, decltype(kernels), T>(call, item, on.threads.rank())
          .backward(grad);
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// The feature map f(x) = elu(x) + 1 of Katharopoulos et al. 2020: x + 1 for x > 0, else e^x. A map
/// of your own has the same three members and must be positive, as the denominators are its sums.
struct elu_plus_one {
  static std::string name() { return "elu_plus_one"; }
  /// y[n] = f(x[n]); `Kernels` are those of the running instruction-set level.
  template <class Kernels, class T>
  static void map(index n, const T* x, T* y) {
    for (index i = 0; i < n; ++i) y[i] = x[i] < T(0) ? x[i] : T(0);
    (void)Kernels::template exp_sum<T>(n, T(0), y);
    for (index i = 0; i < n; ++i) y[i] += x[i] > T(0) ? x[i] : T(0);
  }
  /// f'(x), given y = f(x).
  template <class T>
  static T slope(T x, T y) {
    return x > T(0) ? T(1) : y;
  }
};

/// Linear attention (Katharopoulos et al. 2020; zoo D9): o_i = sum_j f(q_i).f(k_j) v_j / (sum_j
/// f(q_i).f(k_j) + 1e-6). Time and memory are linear in the length; decoding keeps one matrix and
/// one vector per key-value head, whatever the length. Causal and bidirectional, multi-head and
/// grouped-query, with or without rotary positions (which turn the numerator's features, Su et al.
/// 2021). T5's relative bias is a matter of softmax scores and is not used; there is no dropout
/// inside.
template <class FeatureMap = elu_plus_one>
struct linear : policy {
  static constexpr bool rewinds = false;  ///< the state cannot forget its last tokens
  static std::string name() { return "linear<" + FeatureMap::name() + ">"; }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::linear: mixes one sequence; it has no cross-attention");
    using maps = linnet::detail::attention_maps<A>;
    static constexpr index in = maps::in, out = maps::out, n = maps::n, kv = maps::kv;
    static constexpr index state_size = ops::linear_attention_state(A.d_kv);
    using to_query = typename maps::to_query;
    using to_key = typename maps::to_key;
    using to_output = typename maps::to_output;

    template <class Form>
    using params = typename maps::template params<Form>;
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      to_query::visit(f, at / "q", p.q...);
      to_key::visit(f, at / "k", p.k...);
      to_key::visit(f, at / "v", p.v...);
      to_output::visit(f, at / "o", p.o...);
    }

    template <class T>
    struct cache {
      T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [rows, kv]
      T* mixed = nullptr;                          ///< [rows, n] before the output map
      T* state = nullptr;                          ///< [batch, kv_heads, state] while decoding
      T* denominators = nullptr;                   ///< [rows, heads] while training
      T* boundaries = nullptr;                     ///< [batch, kv_heads, blocks, state] likewise
      T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index rows = e.rows();
      m.product(rows, in, n, e);
      m.product(rows, in, kv, e);
      m.product(rows, n, out, e);
      if (e.capacity > 0) c.state = m.state.take<T>(e.batch * A.kv_heads * state_size);
      c.q = m.keep.take<T>(rows * n);
      c.k = m.keep.take<T>(rows * kv);
      c.v = m.keep.take<T>(rows * kv);
      c.mixed = m.keep.take<T>(rows * n);
      const index mark = m.scratch.mark();
      if (e.training) {
        const index blocks = A.causal ? ops::linear_attention_blocks(e.length) : 1;
        c.denominators = m.keep.take<T>(rows * A.heads);
        c.boundaries = m.keep.take<T>(e.batch * A.kv_heads * blocks * state_size);
        c.dq = m.scratch.take<T>(rows * n);
        c.dk = m.scratch.take<T>(rows * kv);
        c.dv = m.scratch.take<T>(rows * kv);
        c.d_mixed = m.scratch.take<T>(rows * n);
      }
      c.scratch_size = ops::linear_attention_scratch(e.length, A.d_kv, e.training);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      ops::products<T, S, 3>(
          ctx.on, rows, in, x.data(),
          {to_query::template product<T, S>(p.q, c.q), to_key::template product<T, S>(p.k, c.k),
           to_key::template product<T, S>(p.v, c.v)});
      ops::linear_attention<FeatureMap>(ctx.on, call(c, ctx));
      to_output::template forward<T, S>(p.o, {c.mixed, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const view<T, n> dq(c.dq, rows), d_mixed(c.d_mixed, rows);
      const view<T, kv> dk(c.dk, rows), dv(c.dv, rows);
      ops::fill(ctx.on, d_mixed.size(), T(0), d_mixed.data());
      to_output::template backward<T, S>(p.o, dp.o, {c.mixed, rows}, dy, d_mixed, none, ctx);
      ops::linear_attention_backward<FeatureMap>(
          ctx.on, call(c, ctx),
          ops::linear_attention_gradient<T>{d_mixed.data(), dq.data(), dk.data(), dv.data()});
      to_query::template backward<T, S>(p.q, dp.q, x, dq, dx, none, ctx);
      to_key::template backward<T, S>(p.k, dp.k, x, dk, dx, none, ctx);
      to_key::template backward<T, S>(p.v, dp.v, x, dv, dx, none, ctx);
    }

    /// Numbers of the state of one sequence; the same for any number of tokens.
    static constexpr index state_values(index) { return A.kv_heads * state_size; }

    /// The state of one sequence becomes another's.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      copy_sequence(c.state, A.kv_heads * state_size, from, to, part);
    }
    static constexpr index flops(const extents& e) {
      constexpr index h = A.d_kv, most = ops::linear_attention_rows;
      const index whole = e.length / most, rest = e.length % most;
      // Scores and their sums of values inside the blocks of a causal layer.
      const index inside = A.causal ? 4 * h * (whole * most * most + rest * rest) : 0;
      return e.rows() * (2 * in * (n + 2 * kv) + 2 * n * out) +
             e.batch * (A.heads * inside + 2 * e.length * h * h * (A.heads + A.kv_heads));
    }

   private:
    /// The call that both directions describe.
    template <class T>
    static ops::linear_attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      ops::linear_attention_call<T> a{};
      a.batch = ctx.batch;
      a.length = ctx.length;
      a.heads = A.heads;
      a.kv_heads = A.kv_heads;
      a.h = A.d_kv;
      a.causal = A.causal;
      a.q = c.q;
      a.k = c.k;
      a.v = c.v;
      a.out = c.mixed;
      a.denominators = c.denominators;
      a.boundaries = c.boundaries;
      a.state = c.state;
      a.lengths = ctx.lengths;
      a.past = ctx.past;
      a.pairing = A.rope;
      a.rope = ctx.rope;
      a.rope_positions = ctx.rope_positions;
      a.rope_beyond = ctx.rope_beyond;
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      return a;
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Linformer: softmax attention over K mixtures of the keys and values instead of over all of them.

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Which of Linformer's projections are one and the same matrix.
enum class shared {
  nothing,         ///< E and F for each key head: 2 G K MaxLength parameters
  heads,           ///< one E and one F per layer: 2 K MaxLength
  keys_and_values  ///< one E = F per layer: K MaxLength
};

/// Low-rank attention (Wang et al. 2020; zoo D8): softmax(q (E k)^T / sqrt(h)) (F v), with trained
/// projections E, F [K, MaxLength] along the sequence. Sequences have up to MaxLength tokens, of
/// which the first columns of E and F are used; padding takes no part. For encoders alone: each
/// mixture holds later tokens. A stack's relative bias speaks of pairs of tokens, which there are
/// none of here: it is not applied. E and F start like linear maps from MaxLength values.
template <index K, index MaxLength, shared Shared = shared::heads>
struct linformer : policy {
  static_assert(K > 0 && MaxLength > 0,
                "linnet::attention::linformer<K, MaxLength>: both must be positive");
  static constexpr bool causal = false;
  static constexpr bool continues = false;
  static constexpr index longest = MaxLength;
  static std::string name() {
    return "linformer<" + std::to_string(K) + ", " + std::to_string(MaxLength) +
           (Shared == shared::nothing           ? ", nothing>"
            : Shared == shared::keys_and_values ? ", keys_and_values>"
                                                : ">");
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.causal,
                  "linnet::attention::linformer: its mixtures hold later tokens, so it cannot be "
                  "causal; it fits T5 encoders");
    static_assert(!A.cross,
                  "linnet::attention::linformer: mixes the tokens of one sequence; "
                  "cross-attention is attention::full's");
    using maps = linnet::detail::attention_maps<A>;
    static constexpr index in = maps::in, out = maps::out, n = maps::n, kv = maps::kv, h = A.d_kv;
    /// Matrices E, each for some columns of the keys: all heads, or one.
    static constexpr index parts = Shared == shared::nothing ? A.kv_heads : 1;
    static constexpr index part = kv / parts;
    static constexpr bool one = Shared == shared::keys_and_values;

    template <class Form>
    struct params : maps::template params<Form> {
      typename Form::vector e{};  ///< [parts, K, MaxLength]
      [[no_unique_address]] std::conditional_t<one, std::nullptr_t, typename Form::vector> f{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      maps::visit(f, at, p...);
      constexpr tensor_info info{parts * K, MaxLength, role::position,
                                 1 / linnet::detail::root(MaxLength)};
      f(at / "e" / "weight", info, p.e...);
      if constexpr (!one) f(at / "f" / "weight", info, p.f...);
    }

    template <class T>
    struct cache {
      typename maps::template buffers<T> b{};
      T *k = nullptr, *v = nullptr;    ///< [batch, K, kv] projected
      T *dk = nullptr, *dv = nullptr;  ///< their gradients
      T* columns = nullptr;            ///< [part, 32] per thread
      T* scratch = nullptr;            ///< per thread
      index scratch_size = 0;
      int site = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), projected = e.batch * K * kv;
      c.site = m.sites++;
      c.b = maps::template plan<T>(m, e);
      c.k = m.keep.take<T>(projected);
      c.v = m.keep.take<T>(projected);
      if (e.training) {
        c.dk = m.scratch.take<T>(projected);
        c.dv = m.scratch.take<T>(projected);
        c.columns = m.scratch.take<T>(e.threads * part * ops::panel_width);
      }
      c.scratch_size = ops::attention_scratch(e.length, K, h, {}, e.training);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      assert(ctx.length <= MaxLength && ctx.past == nullptr &&
             "linnet::attention::linformer: longer than MaxLength, or cached decoding");
      maps::template project<T, S>(p, x, c.b, ctx);
      shorten(p.e, c.b.k, c.k, ctx);
      shorten(second(p), c.b.v, c.v, ctx);
      ops::attention(ctx.on, call(c, ctx));
      maps::template finish<T, S>(p, y, c.b, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      maps::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      ops::fill(ctx.on, ctx.batch * K * kv, T(0), c.dk);
      ops::fill(ctx.on, ctx.batch * K * kv, T(0), c.dv);
      ops::attention_backward(ctx.on, call(c, ctx), {c.b.d_mixed, c.b.dq, c.dk, c.dv, nullptr});
      shorten_backward(p.e, dp.e, c.b.k, c.dk, c.b.dk, c, ctx);
      shorten_backward(second(p), second(dp), c.b.v, c.dv, c.b.dv, c, ctx);
      maps::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Nothing is kept from token to token: whole sequences only.
    static constexpr index state_values(index) { return 0; }
    static constexpr index flops(const extents& e) {
      return maps::flops(e) + 4 * e.rows() * K * kv + 4 * e.rows() * K * n;
    }

   private:
    /// F, or E where it serves for both.
    template <class P>
    static auto second(const P& p) {
      if constexpr (one)
        return p.e;
      else
        return p.f;
    }
    template <class T>
    static ops::attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      auto a = maps::call(ctx.batch, ctx.length, c.b.q, K, c.k, c.v, c.b.mixed);
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      a.dropout = ctx.dropout;
      a.site = c.site;
      return a;
    }
    /// y[batch, K, kv] = E x over the valid tokens of x[batch, length, kv].
    template <class T>
    static void shorten(const T* e, const T* x, T* y, const context<T>& ctx) {
      ctx.on.threads.each(ctx.batch * parts, [&](index item) {
        const index b = item / parts, g = item % parts;
        simd::dispatch(ctx.on.level, [&](auto kernels) {
          decltype(kernels)::template multiply<T>(
              K, part, ctx.length_of(b), {e + g * K * MaxLength, MaxLength, 1},
              {x + b * ctx.length * kv + g * part, kv, ops::panel_width}, y + b * K * kv + g * part,
              kv, {});
        });
      });
    }
    /// dx += E^T dy, dE += dy x^T
    template <class T>
    static void shorten_backward(const T* e, T* de, const T* x, const T* dy, T* dx,
                                 const cache<T>& c, const context<T>& ctx) {
      ctx.on.threads.each(ctx.batch * parts, [&](index item) {
        const index b = item / parts, g = item % parts;
        simd::dispatch(ctx.on.level, [&](auto kernels) {
          decltype(kernels)::template multiply<T>(
              ctx.length_of(b), part, K, {e + g * K * MaxLength, 1, MaxLength},
              {dy + b * K * kv + g * part, kv, ops::panel_width},
              dx + b * ctx.length * kv + g * part, kv, {nullptr, T(1), true});
        });
      });
      // 32 columns of E at a time, the sequences after each other: the same sums on any threads.
      constexpr index wide = ops::panel_width;
      const index blocks = (ctx.length + wide - 1) / wide;
      ctx.on.threads.each(parts * blocks, [&](index item) {
        const index g = item / blocks, t0 = item % blocks * wide;
        T* const columns = c.columns + ctx.on.threads.rank() * part * wide;
        for (index b = 0; b < ctx.batch; ++b) {
          const index count = (std::min)(wide, ctx.length_of(b) - t0);
          if (count <= 0) continue;
          const T* const from = x + (b * ctx.length + t0) * kv + g * part;
          for (index i = 0; i < part; ++i)
            for (index t = 0; t < count; ++t) columns[i * wide + t] = from[t * kv + i];
          simd::dispatch(ctx.on.level, [&](auto kernels) {
            decltype(kernels)::template multiply<T>(
                K, count, part, {dy + b * K * kv + g * part, kv, 1}, {columns, wide, wide},
                de + g * K * MaxLength + t0, MaxLength, {nullptr, T(1), true}, wide - count);
          });
        }
      });
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Longformer: a window of neighbours, and a few global tokens that see all and that all see.

/// @file
/// The pieces of sparse attention: a block of query rows against a list of key rows that the caller
/// chooses, copied together so that the products stay dense.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// A score that no query sees: its probability is 0 exactly, in float and in double.
template <class T>
inline constexpr T hidden_score = T(-1e30);

/// Up to attention_rows queries against up to a fixed number of keys of one head of width h, in one
/// thread's scratch memory. The caller loads rows, turns scores into probabilities and slopes of
/// probabilities into slopes of scores, and puts results where they belong.
template <class T>
class attention_tile {
 public:
  /// Scratch values for tiles of up to `most` keys.
  static constexpr index size(index most, index h, bool training) {
    const index wide = round_up(most, panel_width), scores = attention_rows * wide,
                rows = attention_rows * h, keys = h * wide;
    return scores + 2 * rows + 2 * keys + (training ? 2 * scores + rows + 4 * keys : 0);
  }
  attention_tile(T* scratch, index most, index h, bool training)
      : h_(h), wide_(round_up(most, panel_width)), training_(training), next_(scratch) {
    scores_ = take(attention_rows * wide_);
    q_ = take(attention_rows * h);
    out_ = take(attention_rows * h);
    key_columns_ = take(h * wide_);
    values_ = take(h * wide_);
    if (!training) return;
    dropped_ = take(attention_rows * wide_);
    slopes_ = take(attention_rows * wide_);
    d_out_ = take(attention_rows * h);
    keys_ = take(h * wide_);
    value_columns_ = take(h * wide_);
    dk_ = take(h * wide_);
    dv_ = take(h * wide_);
  }

  /// Keys of this tile.
  index keys() const { return count_; }
  /// Scores, then probabilities of query `i`, [keys].
  T* row(index i) const { return scores_ + i * wide_; }
  /// Slopes of the probabilities, then of the scores, of query `i`.
  T* slopes(index i) const { return slopes_ + i * wide_; }
  /// What mix() makes of query `i`, [h]; after backward() the slope of the query.
  T* out(index i) const { return out_ + i * h_; }
  /// Slopes of key `j` and value `j`, [h], summed over the blocks of queries.
  const T* dk(index j) const { return dk_ + j * h_; }
  const T* dv(index j) const { return dv_ + j * h_; }

  /// Copies `count` rows: key(j) and value(j) tell where they are.
  template <class Key, class Value>
  void load_keys(index count, Key&& key, Value&& value) {
    count_ = count;
    const index padded = round_up(count, panel_width);
    for (index j = 0; j < count; ++j) {
      const T* const k = key(j);
      const T* const v = value(j);
      std::copy_n(v, h_, values_ + j * h_);
      for (index c = 0; c < h_; ++c) key_columns_[c * wide_ + j] = k[c];
      if (!training_) continue;
      std::copy_n(k, h_, keys_ + j * h_);
      for (index c = 0; c < h_; ++c) value_columns_[c * wide_ + j] = v[c];
    }
    for (index c = 0; c < h_; ++c)
      for (index j = count; j < padded; ++j) {
        key_columns_[c * wide_ + j] = T(0);
        if (training_) value_columns_[c * wide_ + j] = T(0);
      }
    if (training_) {
      std::fill_n(dk_, count * h_, T(0));
      std::fill_n(dv_, count * h_, T(0));
    }
  }
  /// Scores [rows, keys] = scale q k^T of the queries at query(i).
  template <class Kernels, class Query>
  void score(Kernels, index rows, T scale, Query&& query) {
    for (index i = 0; i < rows; ++i) std::copy_n(query(i), h_, q_ + i * h_);
    Kernels::template multiply<T>(rows, round_up(count_, panel_width), h_, {q_, h_, 1},
                                  {key_columns_, wide_, panel_width}, scores_, wide_,
                                  {nullptr, scale, false});
  }
  /// out(i) = probabilities times values.
  template <class Kernels>
  void mix(Kernels, index rows) {
    Kernels::template multiply<T>(rows, h_, count_, {scores_, wide_, 1}, {values_, h_, panel_width},
                                  out_, h_, {});
  }
  /// slopes(i) of the probabilities, from the slopes of the outputs at d_out(i) times share(i).
  template <class Kernels, class Source, class Share>
  void begin_backward(Kernels, index rows, Source&& d_out, Share&& share) {
    for (index i = 0; i < rows; ++i) {
      const T part = share(i);
      const T* const from = d_out(i);
      for (index c = 0; c < h_; ++c) d_out_[i * h_ + c] = part * from[c];
    }
    std::copy_n(scores_, rows * wide_, dropped_);
    Kernels::template multiply<T>(rows, round_up(count_, panel_width), h_, {d_out_, h_, 1},
                                  {value_columns_, wide_, panel_width}, slopes_, wide_, {});
  }
  /// From slopes(i) of the scores: out(i) = slope of the query; adds to dk and dv.
  template <class Kernels>
  void end_backward(Kernels, index rows, T scale) {
    Kernels::template multiply<T>(count_, h_, rows, {dropped_, 1, wide_}, {d_out_, h_, panel_width},
                                  dv_, h_, {nullptr, T(1), true});
    Kernels::template multiply<T>(rows, h_, count_, {slopes_, wide_, 1}, {keys_, h_, panel_width},
                                  out_, h_, {nullptr, scale, false});
    Kernels::template multiply<T>(count_, h_, rows, {slopes_, 1, wide_}, {q_, h_, panel_width}, dk_,
                                  h_, {nullptr, scale, true});
  }
  /// Dropout of query i's probabilities (before mix()), or of those that dv is made of and their
  /// slopes (between begin_backward() and end_backward()); `first` numbers its scores.
  void drop(const dropout_key& key, index sample, int site, index i, index first, bool backward) {
    if (key.rate <= 0) return;
    T* const p = backward ? dropped_ + i * wide_ : row(i);
    dropout_multipliers<T>(key, sample, site, first, count_, [&](index j, T multiplier) {
      p[j] *= multiplier;
      if (backward) slopes(i)[j] *= multiplier;
    });
  }

 private:
  T* take(index n) {
    T* const p = next_;
    next_ += n;
    return p;
  }
  index h_, wide_, count_ = 0;
  bool training_;
  T* next_;
  T *scores_, *q_, *out_, *key_columns_, *values_;
  T *dropped_ = nullptr, *slopes_ = nullptr, *d_out_ = nullptr, *keys_ = nullptr,
    *value_columns_ = nullptr, *dk_ = nullptr, *dv_ = nullptr;
};

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Local and global attention (Beltagy et al. 2020; zoo D5) in O(T (Window + Globals)). The first
/// `Globals` tokens of a sequence are global: they attend to all tokens, through maps q_global,
/// k_global and v_global of their own. Every other token attends, in one softmax, to the global
/// ones and to those at most Window / 2 away on either side. The paper starts the global maps as
/// copies of the local ones, which training from a full model's weights should do; fresh weights
/// are drawn independently. For encoders alone.
template <index Window = 512, index Globals = 1>
struct longformer : policy {
  static_assert(Window > 0 && Window % 2 == 0,
                "linnet::attention::longformer: the window has an even number of tokens, half on "
                "each side");
  static_assert(Globals >= 0, "linnet::attention::longformer: the number of global tokens");
  static constexpr bool causal = false;
  static constexpr bool continues = false;
  static std::string name() {
    return "longformer<" + std::to_string(Window) + ", " + std::to_string(Globals) + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.causal,
                  "linnet::attention::longformer: sees later tokens; it fits T5 encoders");
    static_assert(!A.cross,
                  "linnet::attention::longformer: mixes the tokens of one sequence; "
                  "cross-attention is attention::full's");
    using maps = linnet::detail::attention_maps<A>;
    static constexpr index in = maps::in, out = maps::out, n = maps::n, kv = maps::kv, h = A.d_kv;
    static constexpr index half = Window / 2, group = A.heads / A.kv_heads;
    static constexpr bool global = Globals > 0;
    /// Most keys of a block of local queries.
    static constexpr index widest = Globals + Window + ops::attention_rows;

    template <class Form>
    struct global_params {
      typename maps::to_query::template params<Form> q{};
      typename maps::to_key::template params<Form> k{}, v{};
    };
    template <class Form>
    struct params : maps::template params<Form> {
      [[no_unique_address]] std::conditional_t<global, global_params<Form>, std::nullptr_t> all{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      maps::visit(f, at, p...);
      if constexpr (global) {
        maps::visit_query(f, at / "q_global", p.all.q...);
        maps::to_key::visit(f, at / "k_global", p.all.k...);
        maps::to_key::visit(f, at / "v_global", p.all.v...);
      }
    }

    template <class T>
    struct cache {
      typename maps::template buffers<T> b{};
      T *x = nullptr, *q = nullptr, *mixed = nullptr;  ///< [batch * Globals, in or n]: global rows
      T *k = nullptr, *v = nullptr;                    ///< [rows, kv] for the global queries
      T *dx = nullptr, *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0, most = 0;
      bool training = false;
      int site = 0, global_site = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), first = e.batch * (std::min)(Globals, e.length);
      c.site = m.sites++;
      c.global_site = m.sites++;
      c.training = e.training;
      c.most = (std::min)(widest, e.length);
      c.b = maps::template plan<T>(m, e);
      if (global) {
        c.x = m.keep.take<T>(first * in);
        c.q = m.keep.take<T>(first * n);
        c.mixed = m.keep.take<T>(first * n);
        c.k = m.keep.take<T>(e.rows() * kv);
        c.v = m.keep.take<T>(e.rows() * kv);
        if (e.training) {
          c.dx = m.scratch.take<T>(first * in);
          c.dq = m.scratch.take<T>(first * n);
          c.d_mixed = m.scratch.take<T>(first * n);
          c.dk = m.scratch.take<T>(e.rows() * kv);
          c.dv = m.scratch.take<T>(e.rows() * kv);
        }
      }
      c.scratch_size = ops::attention_tile<T>::size(c.most, h, e.training);
      if (global)
        c.scratch_size = (std::max)(c.scratch_size,
                                    ops::attention_scratch(Globals, e.length, h, {}, e.training));
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      assert(ctx.past == nullptr && "linnet::attention::longformer: no cached decoding");
      maps::template project<T, S>(p, x, c.b, ctx);
      if constexpr (global) {
        const index g = globals(ctx);
        ctx.on.threads.each(ctx.batch * g, [&](index i) {
          std::copy_n(x.row(i / g * ctx.length + i % g), in, c.x + i * in);
        });
        ops::products<T, S, 1>(ctx.on, ctx.batch * g, in, c.x,
                               {maps::to_query::template product<T, S>(p.all.q, c.q)});
        ops::products<T, S, 2>(ctx.on, x.rows(), in, x.data(),
                               {maps::to_key::template product<T, S>(p.all.k, c.k),
                                maps::to_key::template product<T, S>(p.all.v, c.v)});
        rotate_global(c.q, c.k, ctx, false);
        ops::attention(ctx.on, call(c, ctx));
      }
      // Global rows take what they were given, padding nothing, the rest what is below.
      ctx.on.threads.each(x.rows(), [&](index row) {
        const index b = row / ctx.length, t = row % ctx.length, g = globals(ctx);
        if (t < g)
          std::copy_n(c.mixed + (b * g + t) * n, n, c.b.mixed + row * n);
        else if (t >= ctx.length_of(b))
          std::fill_n(c.b.mixed + row * n, n, T(0));
      });
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        for (index i = 0; i < at.rows; ++i)
          tile.drop(ctx.dropout, at.b, c.site, i, at.first_score(i, ctx), false);
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i)
          std::copy_n(tile.out(i), h, c.b.mixed + at.query(i, ctx));
      });
      maps::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      maps::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        tile.begin_backward(
            kernels, at.rows, [&](index i) { return c.b.d_mixed + at.query(i, ctx); },
            [](index) { return T(1); });
        for (index i = 0; i < at.rows; ++i) {
          tile.drop(ctx.dropout, at.b, c.site, i, at.first_score(i, ctx), true);
          K::template softmax_backward<T>(tile.keys(), tile.row(i), tile.slopes(i), tile.slopes(i));
          if constexpr (A.relative) {
            T* const line = ctx.d_bias + (at.b * A.heads + at.head) * (2 * ctx.bias_origin + 1) +
                            ctx.bias_origin - (at.i0 + i);
            K::template add<T>(at.seen, line, tile.slopes(i), line);
            K::template add<T>(tile.keys() - at.seen, line + at.low, tile.slopes(i) + at.seen,
                               line + at.low);
          }
        }
        tile.end_backward(kernels, at.rows, maps::template scale<T>);
        for (index i = 0; i < at.rows; ++i)
          K::template add<T>(h, c.b.dq + at.query(i, ctx), tile.out(i), c.b.dq + at.query(i, ctx));
        for (index j = 0; j < tile.keys(); ++j) {
          const index key = at.key(j, ctx);
          K::template add<T>(h, c.b.dk + key, tile.dk(j), c.b.dk + key);
          K::template add<T>(h, c.b.dv + key, tile.dv(j), c.b.dv + key);
        }
      });
      if constexpr (global) global_backward<T, S>(p.all, dp.all, x, dx, c, ctx);
      maps::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Nothing is kept from token to token: whole sequences only.
    static constexpr index state_values(index) { return 0; }
    static constexpr index flops(const extents& e) {
      const index g = e.batch * (std::min)(Globals, e.length);
      return maps::flops(e) + 4 * e.rows() * (std::min)(e.length, Window + 1 + Globals) * n +
             (global ? 2 * g * in * n + 4 * e.rows() * in * kv + 4 * g * e.length * n : 0);
    }

   private:
    /// Local queries [i0, i0 + rows) of one head, and their keys: the first `seen` tokens, then
    /// those from `low` on.
    template <class T>
    struct block {
      index b, head, i0, rows, seen, low;
      /// Where query i, or the key of slot j, starts in its rows.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + i0 + i) * n + head * h;
      }
      index key(index j, const context<T>& ctx) const {
        return (b * ctx.length + (j < seen ? j : low + j - seen)) * kv + head / group * h;
      }
      /// The number of query i's first score, for dropout.
      index first_score(index i, const context<T>& ctx) const {
        return (head * ctx.length + i0 + i) * widest;
      }
    };
    template <class T>
    static index globals(const context<T>& ctx) {
      return (std::min)(Globals, ctx.length);
    }
    /// Calls f(kernels, tile, block) for all blocks of local queries, with their probabilities in
    /// the tile. Heads that share keys come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      constexpr index most_rows = ops::attention_rows;
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        simd::dispatch(ctx.on.level, [&](auto kernels) {
          using K = decltype(kernels);
          const index b = item / A.kv_heads, g = item % A.kv_heads, valid = ctx.length_of(b);
          ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                      c.training);
          for (index head = g * group; head < (g + 1) * group; ++head)
            for (index i0 = globals(ctx); i0 < valid; i0 += most_rows) {
              const index rows = (std::min)(most_rows, valid - i0), seen = globals(ctx);
              const index low = (std::max)(seen, i0 - half),
                          high = (std::min)(valid, i0 + rows + half);
              const block<T> at{b, head, i0, rows, seen, low};
              tile.load_keys(
                  seen + high - low, [&](index j) { return c.b.k + at.key(j, ctx); },
                  [&](index j) { return c.b.v + at.key(j, ctx); });
              tile.score(kernels, rows, maps::template scale<T>,
                         [&](index i) { return c.b.q + at.query(i, ctx); });
              for (index i = 0; i < rows; ++i) {
                T* const row = tile.row(i);
                T* const window = row + seen;
                const index query = i0 + i, first = (std::max)(low, query - half) - low,
                            last = (std::min)(high, query + half + 1) - low;
                if constexpr (A.relative) {
                  const T* const line =
                      ctx.bias + head * (2 * ctx.bias_origin + 1) + ctx.bias_origin - query;
                  K::template add<T>(seen, row, line, row);
                  K::template add<T>(high - low, window, line + low, window);
                }
                std::fill_n(window, first, ops::hidden_score<T>);
                std::fill(window + last, window + (high - low), ops::hidden_score<T>);
                K::template softmax<T>(tile.keys(), row);
              }
              f(kernels, tile, at);
            }
        });
      });
    }
    /// The global queries' attention to all valid tokens.
    template <class T>
    static ops::attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      auto a = maps::call(ctx.batch, globals(ctx), c.q, ctx.length, c.k, c.v, c.mixed);
      a.key_lengths = ctx.lengths;
      if constexpr (A.relative) {
        a.bias = ctx.bias;
        a.bias_origin = ctx.bias_origin;
      }
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      a.dropout = ctx.dropout;
      a.site = c.global_site;
      return a;
    }
    template <class T, class S>
    static void global_backward(const global_params<form::kernel<T, S>>& p,
                                global_params<form::gradient<T>>& dp, view<const T, in> x,
                                view<T, in> dx, const cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index g = globals(ctx), first = ctx.batch * g, rows = x.rows();
      ctx.on.threads.each(first, [&](index i) {
        std::copy_n(c.b.d_mixed + (i / g * ctx.length + i % g) * n, n, c.d_mixed + i * n);
      });
      ops::fill(ctx.on, first * in, T(0), c.dx);
      ops::fill(ctx.on, first * n, T(0), c.dq);
      ops::fill(ctx.on, rows * kv, T(0), c.dk);
      ops::fill(ctx.on, rows * kv, T(0), c.dv);
      ops::attention_backward(
          ctx.on, call(c, ctx),
          {c.d_mixed, c.dq, c.dk, c.dv, nullptr, A.relative ? ctx.d_bias : nullptr});
      rotate_global(c.dq, c.dk, ctx, true);
      maps::to_query::template backward<T, S>(p.q, dp.q, {c.x, first}, {c.dq, first}, {c.dx, first},
                                              none, ctx);
      maps::to_key::template backward<T, S>(p.k, dp.k, x, {c.dk, rows}, dx, none, ctx);
      maps::to_key::template backward<T, S>(p.v, dp.v, x, {c.dv, rows}, dx, none, ctx);
      ctx.on.threads.each(first, [&](index i) {
        T* const to = dx.row(i / g * ctx.length + i % g);
        for (index j = 0; j < in; ++j) to[j] += c.dx[i * in + j];
      });
    }
    /// Rotary positions of the global queries and their keys, or the derivative.
    template <class T>
    static void rotate_global(T* q, T* k, const context<T>& ctx, bool inverse) {
      if constexpr (A.rope != rope_pairing::none) {
        const index g = globals(ctx);
        ctx.on.threads.each(ctx.rows(), [&](index row) {
          const index b = row / ctx.length, t = row % ctx.length;
          const T* const table = ctx.rope_of(row, h);
          ops::rope_row(A.rope, A.kv_heads, h, table, k + row * kv, inverse);
          if (t < g) ops::rope_row(A.rope, A.heads, h, table, q + (b * g + t) * n, inverse);
        });
      }
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Reformer's attention: tokens of similar direction, found by hashing, attend to each other.

/// @file
/// Decoding for kinds of attention that group tokens by what they say: groups that only grow.

/// @file
/// Heads of unit length, for kinds of attention that compare directions.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y = r x with r = (x.x + 1e-6 h)^-1/2 for each head of x[rows, heads * h]; keeps r [rows, heads].
/// y may be x.
template <class T>
void unit_heads(const ops::machine& on, index rows, index heads, index h, const T* x, T* y, T* r) {
  on.threads.each(rows * heads, [&](index i) {
    const T* const from = x + i * h;
    T sum = T(1e-6) * static_cast<T>(h);
    for (index c = 0; c < h; ++c) sum += from[c] * from[c];
    r[i] = T(1) / std::sqrt(sum);
    for (index c = 0; c < h; ++c) y[i * h + c] = r[i] * from[c];
  });
}
/// dx [+]= r (dy - y (y.dy)); dx may be dy.
template <class T>
void unit_heads_backward(const ops::machine& on, index rows, index heads, index h, const T* y,
                         const T* r, const T* dy, T* dx, bool add) {
  on.threads.each(rows * heads, [&](index i) {
    T along = T(0);
    for (index c = 0; c < h; ++c) along += y[i * h + c] * dy[i * h + c];
    for (index c = 0; c < h; ++c)
      dx[i * h + c] = (add ? dx[i * h + c] : T(0)) + r[i] * (dy[i * h + c] - along * y[i * h + c]);
  });
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// What decides which tokens meet in kinds that group tokens by their content (lsh, routing).
///
/// The papers group a whole sequence at once, so that in a causal model too, later tokens decide
/// which earlier ones meet. A session cannot know later tokens. It decides where a token belongs
/// once, when the token comes, from the token itself and those before it: tokens of one bucket, or
/// nearest to one centroid, are counted off in chunks as they come, and a token meets those of its
/// chunk and of the chunk before in the same bucket. Where a sequence is split into calls makes no
/// difference but rounding (of which a token as near to two buckets may take either).
enum class membership {
  whole,  ///< the whole sequence does, as published; sessions go by `frozen`
  frozen  ///< a token and those before it do, in training as in sessions: nothing differs
};

}  // namespace attention

namespace detail {

/// Tokens of a session in `Rounds` groupings, in chunks of `Size`: their keys, one per query head,
/// their values, and where they belong.
template <attention_shape A, index Size, index Rounds>
struct frozen_groups {
  static constexpr index h = A.d_kv, n = A.n(), group = A.heads / A.kv_heads;

  template <class T>
  struct cache {
    typename pick_kv_buffer<T, A.cache, A.heads, h, true>::type keys{};
    typename pick_kv_buffer<T, A.cache, A.kv_heads, h, false>::type values{};
    std::int32_t* member = nullptr;  ///< [batch, heads, Rounds, capacity]: bucket * Size + the
                                     ///< token's place in its chunk
    std::int32_t* before = nullptr;  ///< the same size: the token before in the bucket, or -1
    std::int32_t* met = nullptr;     ///< [most] per thread
    T* scratch = nullptr;            ///< [most, 2 h + 1] per thread
    index capacity = 0, most = 0;
  };
  /// The scratch is the caller's to release.
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    c.capacity = e.capacity;
    c.most = (std::min)(e.capacity, Rounds * (2 * Size - 1) + 1);
    c.keys.plan(m.state, e.batch, e.capacity, 0, e.capacity, e.blocks);
    c.values.plan(m.state, e.batch, e.capacity, 0, e.capacity, e.blocks);
    c.member = m.state.take<std::int32_t>(e.batch * A.heads * Rounds * e.capacity);
    c.before = m.state.take<std::int32_t>(e.batch * A.heads * Rounds * e.capacity);
    c.met = m.scratch.take<std::int32_t>(c.most * e.threads);
    c.scratch = m.scratch.take<T>(c.most * (2 * h + 1) * e.threads);
    return c;
  }
  static constexpr index state_values(index tokens) {
    return tokens * (n + A.kv() + 2 * A.heads * Rounds);
  }
  /// What is kept of a token never changes, so that the last tokens can be taken back, and tokens
  /// that two sequences begin with need not be copied.
  template <class T>
  static void copy_state(const cache<T>& c, index from, index to, const state_part& part) {
    if (part.block) {
      c.keys.copy_block(from, to);
      c.values.copy_block(from, to);
      return;
    }
    c.keys.copy(from, to, part.first, part.tokens);
    c.values.copy(from, to, part.first, part.tokens);
    constexpr index all = A.heads * Rounds;
    for (index i = 0; i < all; ++i)
      for (std::int32_t* const x : {c.member, c.before})
        std::copy(x + (from * all + i) * c.capacity + part.first,
                  x + (from * all + i) * c.capacity + part.tokens,
                  x + (to * all + i) * c.capacity + part.first);
  }

  /// mixed[rows, n] = softmax(scale q k^T + bias) v over the tokens that each new token meets in
  /// some round; with `Self` it meets itself, else only where there is nobody else. k[rows, n];
  /// `hash(item)` returns the buckets of the new tokens of item = (sequence, head, round).
  template <bool Self, class T, class Hash>
  static void run(const cache<T>& c, const context<T>& ctx, const T* q, const T* k, const T* v,
                  T scale, Hash&& hash, T* mixed) {
    keep_tokens(c.keys, c.values, ctx, ctx.length, false, k, v);
    ctx.on.threads.each(ctx.batch * A.heads * Rounds, [&](index item) {
      const index b = item / (A.heads * Rounds);
      join(ctx.past[b], ctx.length_of(b), hash(item), c.member + item * c.capacity,
           c.before + item * c.capacity);
    });
    const auto keys = c.keys.rows(ctx.tables, ctx.table_size);
    const auto values = c.values.rows(ctx.tables, ctx.table_size);
    ctx.on.threads.each(ctx.rows() * A.heads, [&](index item) {
      const index row = item / A.heads, head = item % A.heads, b = row / ctx.length,
                  t = ctx.past[b] + row % ctx.length, at = row * n + head * h;
      const int rank = ctx.on.threads.rank();
      std::int32_t* const met = c.met + rank * c.most;
      T* const k_met = c.scratch + rank * c.most * (2 * h + 1);
      T* const v_met = k_met + c.most * h;
      T* const p = v_met + c.most * h;
      if (row % ctx.length >= ctx.length_of(b)) {
        std::fill_n(mixed + at, h, T(0));
        return;
      }
      const index count = meet<Self>(c, (b * A.heads + head) * Rounds * c.capacity, t, met);
      for (index j = 0; j < count; ++j) {
        keys.load(b, head, met[j], keys.of(b, head).place(met[j]), h, k_met + j * h, 1);
        values.load(b, head / group, met[j], values.of(b, head / group).place(met[j]), h,
                    v_met + j * h, 1);
      }
      simd::dispatch(ctx.on.level, [&](auto kernels) {
        using K = decltype(kernels);
        K::template dots<T>(count, h, scale, q + at, k_met, h, p);
        if constexpr (A.relative)
          for (index j = 0; j < count; ++j)
            p[j] += ctx.bias[head * (2 * ctx.bias_origin + 1) + ctx.bias_origin + met[j] - t];
        K::template softmax<T>(count, p);
        K::template mix<T>(count, h, p, v_met, h, mixed + at);
      });
    });
  }

 private:
  /// Tokens past, past + 1, ... of one sequence, head and round join their buckets.
  static void join(index past, index count, const std::int32_t* bucket, std::int32_t* member,
                   std::int32_t* before) {
    for (index t = past; t < past + count; ++t) {
      const auto first = static_cast<std::int32_t>(bucket[t - past] * Size);
      index last = t - 1;
      while (last >= 0 && (member[last] < first || member[last] - first >= Size)) --last;
      const index place = last < 0 ? 0 : (member[last] - first + 1) % Size;
      member[t] = first + static_cast<std::int32_t>(place);
      before[t] = static_cast<std::int32_t>(last);
    }
  }
  /// Lists the tokens that token `t` meets in some round, each once, the newest first.
  template <bool Self, class T>
  static index meet(const cache<T>& c, index at, index t, std::int32_t* met) {
    std::int32_t next[Rounds];
    index left[Rounds], count = 0;
    for (index r = 0; r < Rounds; ++r) {
      next[r] = c.before[at + r * c.capacity + t];
      left[r] = c.member[at + r * c.capacity + t] % Size + Size;
    }
    if (Self) met[count++] = static_cast<std::int32_t>(t);
    for (;;) {
      const std::int32_t last = *std::max_element(next, next + Rounds);
      if (last < 0) break;
      met[count++] = last;
      for (index r = 0; r < Rounds; ++r)
        if (next[r] == last) next[r] = --left[r] > 0 ? c.before[at + r * c.capacity + last] : -1;
    }
    if (count == 0) met[count++] = static_cast<std::int32_t>(t);
    return count;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Locality-sensitive hashing of rows into buckets, and the order that sorts them (zoo D6).

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Buckets for `n` rows in chunks of `size`: an even number with two chunks' rows for each pair, or
/// one where all rows fit one chunk.
constexpr index bucket_count(index n, index size) {
  return n <= size ? 1 : 2 * ((n + 2 * size - 1) / (2 * size));
}
/// The chunk before chunk `u` of `chunks`, around the end.
constexpr index chunk_before(index u, index chunks) { return u == 0 ? chunks - 1 : u - 1; }

/// R[h, columns], normal, number `which` of the seed; a column does not depend on how many there
/// are.
template <class T>
void fill_rotation(seed s, index which, index h, index columns, T* r) {
  for (index j = 0; j < columns; ++j) {
    random_stream random(s,
                         static_cast<std::uint64_t>(which) << 24 | static_cast<std::uint64_t>(j));
    for (index c = 0; c < h; ++c) r[c * columns + j] = static_cast<T>(random.normal());
  }
}

/// bucket[i] = argmax [x_i R; -x_i R] with `buckets` / 2 columns of R[h, ld], the first of equals,
/// for `n` rows of width h that are `stride` apart. `scratch` has attention_rows * ld values.
template <class Kernels, class T>
void hash_rows(Kernels, index n, index h, const T* x, index stride, index buckets, const T* r,
               index ld, T* scratch, std::int32_t* bucket) {
  const index half = buckets / 2;
  if (half == 0) {
    std::fill_n(bucket, n, std::int32_t{0});
    return;
  }
  for (index i0 = 0; i0 < n; i0 += attention_rows) {
    const index rows = (std::min)(attention_rows, n - i0);
    Kernels::template multiply<T>(rows, half, h, {x + i0 * stride, stride, 1}, {r, ld, panel_width},
                                  scratch, ld, {}, ld - half);
    for (index i = 0; i < rows; ++i) {
      const T* const row = scratch + i * ld;
      index best = 0;
      T largest = row[0];
      for (index j = 0; j < 2 * half; ++j) {
        const T value = j < half ? row[j] : -row[j - half];
        if (value > largest) largest = value, best = j;
      }
      bucket[i0 + i] = static_cast<std::int32_t>(best);
    }
  }
}

/// The stable order of `n` rows by bucket, then by position. `counts` has `buckets` values.
inline void sort_by_bucket(index n, index buckets, const std::int32_t* bucket, std::int32_t* counts,
                           std::int32_t* order) {
  std::fill_n(counts, buckets, std::int32_t{0});
  for (index i = 0; i < n; ++i) ++counts[bucket[i]];
  std::int32_t before = 0;
  for (index k = 0; k < buckets; ++k) before += std::exchange(counts[k], before);
  for (index i = 0; i < n; ++i) order[counts[bucket[i]]++] = static_cast<std::int32_t>(i);
}

/// Calls f(first, last, before) for the chunks of up to `size` rows that such an order makes where
/// no chunk has rows of two buckets: rows [first, last) of the order, and in front of them the
/// `before` ones of the same bucket that make the chunk before, a full one, or none.
template <class F>
void each_bucket_chunk(index n, index size, const std::int32_t* bucket, const std::int32_t* order,
                       F&& f) {
  for (index first = 0, last = 0; first < n; first = last) {
    const auto here = bucket[order[first]];
    for (last = first + 1; last < n && last - first < size && bucket[order[last]] == here;) ++last;
    f(first, last, first > 0 && bucket[order[first - 1]] == here ? size : index{0});
  }
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Whom a token of lsh sees among the tokens of its chunk and the one before.
enum class reach {
  chunks,  ///< all of them, as the paper's code does
  bucket   ///< those of its own bucket
};

/// Locality-sensitive hashing attention with shared queries and keys (Kitaev et al. 2020; zoo D6),
/// k = q / |q|. In each of `Rounds` rounds, tokens are sorted by bucket = argmax [q R; -q R], R
/// normal and fixed by `Seed` and the layer, then by position, and cut into chunks of `Bucket`; a
/// token sees its chunk and the one before (the last, for the first), itself only if nothing else.
/// One softmax covers all rounds: exactly that of the rounds weighted by their normalizers, where a
/// key met in several rounds counts once. Buckets and order are constants in backward.
/// A sequence of t valid tokens has 2 ceil(t / (2 Bucket)) buckets and ceil(t / Bucket) chunks, of
/// which the last may be short; up to Bucket tokens make one chunk, and no hash is needed. Padding
/// is not sorted. A causal model sees no later token, but which earlier ones it sees depends on all
/// tokens: outputs of a prefix differ from those of the prefix alone.
///
/// A session therefore goes by membership::frozen: in each round, a token sees those before it in
/// its bucket, back to the start of the chunk of `Bucket` before its own. A session for t tokens
/// has the buckets of a training sequence of t tokens. As long as a bucket has no more than Bucket
/// tokens, these are the tokens that reach::bucket sees in training; reach::chunks sees neighbours
/// of other buckets too: of the pairs that 1,024 random tokens make with 8 rounds of 64, a session
/// has 64 % (of clustered ones 67 %) and hardly another; of those of reach::bucket 99 %. With
/// membership::frozen a model trains as it decodes.
template <index Bucket = 64, index Rounds = 8, reach Reach = reach::chunks, std::uint64_t Seed = 0,
          membership Members = membership::whole>
struct lsh : policy {
  static_assert(Bucket > 0 && Rounds > 0,
                "linnet::attention::lsh<Bucket, Rounds>: both must be positive");
  /// The kind whose training is this kind's decoding.
  using frozen = lsh<Bucket, Rounds, Reach, Seed, membership::frozen>;
  static constexpr bool freezes = Members == membership::frozen;
  static constexpr bool bidirectional = !freezes, rewinds = true, foresees = !freezes;
  static std::string name() {
    return "lsh<" + std::to_string(Bucket) + ", " + std::to_string(Rounds) +
           (Reach == reach::bucket ? ", bucket" : "") +
           (Seed != 0 ? ", seed " + std::to_string(Seed) : "") + (freezes ? ", frozen" : "") + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::lsh: queries are keys, so it mixes the tokens of one "
                  "sequence; cross-attention is attention::full's");
    static_assert(A.causal || !freezes,
                  "linnet::attention::lsh: membership::frozen is for causal models");
    using groups = linnet::detail::frozen_groups<A, Bucket, Rounds>;
    using maps = linnet::detail::attention_maps<A, true>;
    static constexpr index in = maps::in, out = maps::out, n = maps::n, kv = maps::kv, h = A.d_kv;
    static constexpr index group = A.heads / A.kv_heads;

    template <class Form>
    using params = typename maps::template params<Form>;
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      maps::visit(f, at, p...);
    }

    template <class T>
    struct cache {
      typename maps::template buffers<T> b{};
      typename groups::template cache<T> past{};  ///< of a session
      T* lengths = nullptr;                       ///< [rows, heads] 1 / |q|
      T *largest = nullptr, *sum = nullptr;  ///< [batch, heads, length] of each query's softmax
      std::int32_t* order = nullptr;         ///< [batch, heads, Rounds, length] tokens, sorted
      std::int32_t* chunk = nullptr;         ///< [batch, heads, length, Rounds]: each token's chunk
      std::int32_t* bucket = nullptr;        ///< the same size: each token's bucket
      T* rotations = nullptr;                ///< [heads, Rounds, h, wide], filled in once
      index* ready = nullptr;                ///< not 0 when they are
      std::int32_t* counts = nullptr;        ///< per thread
      T* scratch = nullptr;                  ///< per thread
      index scratch_size = 0, wide = 0, most = 0;
      bool training = false;
      int site = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), sorted = e.batch * A.heads * Rounds * e.length;
      const bool cached = e.capacity > 0;
      c.site = m.sites++;
      c.training = e.training;
      c.most = (std::min)(2 * Bucket, e.length);
      c.wide = round_up((ops::bucket_count((std::max)(e.length, e.capacity), Bucket) + 1) / 2,
                        ops::panel_width);
      c.b = maps::template plan<T>(m, e);
      c.b.k = m.keep.take<T>(e.rows() * n);
      if (e.training) c.b.dk = m.scratch.take<T>(e.rows() * n);
      c.lengths = m.keep.take<T>(e.rows() * A.heads);
      c.bucket = m.keep.take<std::int32_t>(sorted);
      if (cached) {
        c.past = groups::template plan<T>(m, e);
      } else {
        c.largest = m.keep.take<T>(e.rows() * A.heads);
        c.sum = m.keep.take<T>(e.rows() * A.heads);
        c.order = m.keep.take<std::int32_t>(sorted);
        c.chunk = m.keep.take<std::int32_t>(sorted);
        c.counts = m.scratch.take<std::int32_t>(e.threads * 2 * c.wide);
      }
      c.rotations = m.state.take<T>(A.heads * Rounds * h * c.wide);
      c.ready = m.state.take<index>(1);
      c.scratch_size = (std::max)(cached ? 0 : ops::attention_tile<T>::size(c.most, h, e.training),
                                  ops::attention_rows * c.wide);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      maps::template project<T, S>(p, x, c.b, ctx);
      linnet::detail::unit_heads(ctx.on, x.rows(), A.heads, h, c.b.q, c.b.k, c.lengths);
      rotations(c, ctx);
      if (ctx.past)
        groups::template run<false>(
            c.past, ctx, c.b.q, c.b.k, c.b.v, maps::template scale<T>,
            [&](index item) { return hash(c, ctx, item, c.past.capacity); }, c.b.mixed);
      else
        mix(c, ctx);
      maps::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      maps::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      ops::fill(ctx.on, x.rows() * n, T(0), c.b.dk);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        for (index i = 0; i < at.rows; ++i) {
          const index query = at.statistics(i, ctx);
          (void)exponentials(kernels, tile, at, i, c.largest[query]);
          K::template scale<T>(tile.keys(), T(1) / c.sum[query], tile.row(i));
        }
        tile.begin_backward(
            kernels, at.rows, [&](index i) { return c.b.d_mixed + at.query(i, ctx); },
            [](index) { return T(1); });
        for (index i = 0; i < at.rows; ++i) {
          tile.drop(ctx.dropout, at.b, c.site, i, at.first_score(i, ctx), true);
          // The sum over all rounds of probability times slope is the output times its slope.
          const index query = at.query(i, ctx), t = at.token(i);
          const T all = K::template dot<T>(h, c.b.mixed + query, c.b.d_mixed + query);
          T* const slopes = tile.slopes(i);
          for (index j = 0; j < tile.keys(); ++j)
            slopes[j] = at.key_token(j) == t ? T(0) : tile.row(i)[j] * (slopes[j] - all);
          if constexpr (A.relative) {
            T* const line = ctx.d_bias + (at.b * A.heads + at.head) * (2 * ctx.bias_origin + 1) +
                            ctx.bias_origin - t;
            for (index j = 0; j < tile.keys(); ++j) line[at.key_token(j)] += slopes[j];
          }
        }
        tile.end_backward(kernels, at.rows, maps::template scale<T>);
        for (index i = 0; i < at.rows; ++i) {
          T* const to = c.b.dq + at.query(i, ctx);
          K::template add<T>(h, to, tile.out(i), to);
        }
        if (at.last)
          for (index j = 0; j < tile.keys(); ++j) {
            const index row = at.b * ctx.length + at.key_token(j);
            T* const dk = c.b.dk + row * n + at.head * h;
            T* const dv = c.b.dv + row * kv + at.head / group * h;
            K::template add<T>(h, dk, tile.dk(j), dk);
            K::template add<T>(h, dv, tile.dv(j), dv);
          }
      });
      linnet::detail::unit_heads_backward(ctx.on, x.rows(), A.heads, h, c.b.k, c.lengths, c.b.dk,
                                          c.b.dq, true);
      maps::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Numbers that a session keeps of each sequence of up to `tokens` tokens: keys, values, and
    /// two for each head and round.
    static constexpr index state_values(index tokens) { return groups::state_values(tokens); }
    /// One sequence continues where another is.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      groups::copy_state(c.past, from, to, part);
    }
    static constexpr index flops(const extents& e) {
      const index buckets = ops::bucket_count(e.length, Bucket);
      return maps::flops(e) + 4 * e.rows() * (std::min)(e.length, 2 * Bucket) * n * Rounds +
             (buckets > 1 ? e.rows() * n * buckets * Rounds : 0);
    }

   private:
    /// Score of a token with itself: chosen only where there is nothing else, yet finite.
    template <class T>
    static constexpr T alone = T(-5e4);

    /// mixed from q, k and v of whole sequences.
    template <class T>
    static void mix(cache<T>& c, const context<T>& ctx) {
      sort(c, ctx);
      const index rows = ctx.rows();
      ops::fill(ctx.on, rows * n, T(0), c.b.mixed);
      ops::fill(ctx.on, rows * A.heads, ops::hidden_score<T>, c.largest);
      ops::fill(ctx.on, rows * A.heads, T(0), c.sum);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        for (index i = 0; i < at.rows; ++i) {
          const index query = at.statistics(i, ctx);
          const T before = c.largest[query];
          const T largest = (std::max)(before, K::template maximum<T>(tile.keys(), tile.row(i)));
          const T shrink = std::exp(before - largest);
          c.largest[query] = largest;
          c.sum[query] = shrink * c.sum[query] + exponentials(kernels, tile, at, i, largest);
          K::template scale<T>(h, shrink, c.b.mixed + at.query(i, ctx));
          tile.drop(ctx.dropout, at.b, c.site, i, at.first_score(i, ctx), false);
        }
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i) {
          T* const to = c.b.mixed + at.query(i, ctx);
          K::template add<T>(h, to, tile.out(i), to);
        }
      });
      each_head(ctx, [&](index b, index t, index head) {
        const T s = T(1) / c.sum[(b * A.heads + head) * ctx.length + t];
        T* const to = c.b.mixed + (b * ctx.length + t) * n + head * h;
        for (index i = 0; i < h; ++i) to[i] *= s;
      });
    }

    /// Some queries of one chunk of one head in one round, and its keys.
    template <class T>
    struct block {
      index b, head, round, rows, own, before;
      const std::int32_t *queries, *chunk, *previous;  ///< tokens
      bool last;  ///< no further queries meet these keys in this round
      index token(index i) const { return queries[i]; }
      index key_token(index j) const { return j < before ? previous[j] : chunk[j - before]; }
      /// Where query i starts in rows of n values.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + token(i)) * n + head * h;
      }
      /// Its place among the softmax's statistics.
      index statistics(index i, const context<T>& ctx) const {
        return (b * A.heads + head) * ctx.length + token(i);
      }
      /// The number of its first score, for dropout.
      index first_score(index i, const context<T>& ctx) const {
        return ((head * Rounds + round) * ctx.length + token(i)) * 2 * Bucket;
      }
    };
    /// exp(score - shift) in place of query i's scores; returns their sum. Frozen keys stand in the
    /// order of their tokens: what comes behind the query itself, and how much, changes no bit.
    template <class Kernels, class T>
    static T exponentials(Kernels, ops::attention_tile<T>& tile, const block<T>& at, index i,
                          T shift) {
      const index keys = tile.keys();
      const index seen = freezes ? at.before + (at.queries - at.chunk) + i + 1 : keys;
      std::fill(tile.row(i) + seen, tile.row(i) + keys, T(0));
      return Kernels::template exp_sum<T>(seen, shift, tile.row(i));
    }
    /// Calls f(b, token, head) for all heads of valid tokens.
    template <class T, class F>
    static void each_head(const context<T>& ctx, F&& f) {
      ctx.on.threads.each(ctx.rows() * A.heads, [&](index i) {
        const index row = i / A.heads, b = row / ctx.length, t = row % ctx.length;
        if (t < ctx.length_of(b)) f(b, t, i % A.heads);
      });
    }
    /// What `ready` says; memory that says so by chance is unlikely.
    static constexpr index filled = 0x726f7461746564;
    /// Fills in the rotations, once.
    template <class T>
    static void rotations(cache<T>& c, const context<T>& ctx) {
      if (*c.ready == filled) return;
      ctx.on.threads.each(A.heads * Rounds, [&](index i) {
        ops::fill_rotation(seed{Seed}, (ctx.layer * A.heads * Rounds + i), h, c.wide,
                           c.rotations + i * h * c.wide);
      });
      ctx.on.threads.once([&] { *c.ready = filled; });
    }
    /// The buckets of the tokens of item = (sequence, head, round), among those for `tokens`.
    template <class T>
    static const std::int32_t* hash(const cache<T>& c, const context<T>& ctx, index item,
                                    index tokens) {
      const index b = item / (A.heads * Rounds), head = item / Rounds % A.heads;
      std::int32_t* const bucket = c.bucket + item * ctx.length;
      simd::dispatch(ctx.on.level, [&](auto kernels) {
        ops::hash_rows(kernels, ctx.length_of(b), h, c.b.q + b * ctx.length * n + head * h, n,
                       ops::bucket_count(tokens, Bucket),
                       c.rotations + item % (A.heads * Rounds) * h * c.wide, c.wide,
                       c.scratch + ctx.on.threads.rank() * c.scratch_size, bucket);
      });
      return bucket;
    }
    /// Hashes and sorts the tokens of every sequence, head and round, and numbers the chunks:
    /// frozen ones so that the chunk before has the number before.
    template <class T>
    static void sort(const cache<T>& c, const context<T>& ctx) {
      const int rank = ctx.on.threads.rank();
      ctx.on.threads.each(ctx.batch * A.heads * Rounds, [&](index item) {
        const index valid = ctx.length_of(item / (A.heads * Rounds));
        const std::int32_t* const bucket = hash(c, ctx, item, valid);
        std::int32_t* const order = c.order + item * ctx.length;
        std::int32_t* const chunk = c.chunk + item / Rounds * Rounds * ctx.length + item % Rounds;
        ops::sort_by_bucket(valid, ops::bucket_count(valid, Bucket), bucket,
                            c.counts + rank * 2 * c.wide, order);
        std::int32_t number = -1;
        each_chunk(valid, bucket, order, [&](index first, index own, index, index before) {
          number += freezes && before == 0 ? 2 : 1;
          for (index i = first; i < first + own; ++i) chunk[order[i] * Rounds] = number;
        });
      });
    }
    /// Calls f(first, own, previous, before) for the chunks of one head in one round: places
    /// [first, first + own) of the order, and those of the chunk before.
    template <class F>
    static void each_chunk(index valid, [[maybe_unused]] const std::int32_t* bucket,
                           [[maybe_unused]] const std::int32_t* order, F&& f) {
      if constexpr (freezes) {
        ops::each_bucket_chunk(valid, Bucket, bucket, order,
                               [&](index first, index last, index before) {
                                 f(first, last - first, first - before, before);
                               });
      } else {
        const index chunks = (valid + Bucket - 1) / Bucket;
        const auto count = [&](index u) { return (std::min)(Bucket, valid - u * Bucket); };
        for (index u = 0; u < chunks; ++u) {
          const index previous = ops::chunk_before(u, chunks);
          f(u * Bucket, count(u), previous * Bucket, chunks > 1 ? count(previous) : index{0});
        }
      }
    }
    /// Calls f(kernels, tile, block) for all blocks of queries, with their scores in the tile.
    /// Heads that share values come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      T discount[Rounds + 1] = {};
      for (index r = 2; r <= Rounds; ++r) discount[r] = std::log(static_cast<T>(r));
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        const index b = item / A.kv_heads, valid = ctx.length_of(b);
        ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                    c.training);
        for (index head = item % A.kv_heads * group; head < (item % A.kv_heads + 1) * group; ++head)
          for (index round = 0; round < Rounds; ++round) {
            const index sorted = ((b * A.heads + head) * Rounds + round) * ctx.length;
            const std::int32_t* const order = c.order + sorted;
            each_chunk(valid, c.bucket + sorted, order,
                       [&](index first, index own, index previous, index before) {
                         block<T> at{b,
                                     head,
                                     round,
                                     0,
                                     own,
                                     before,
                                     order + first,
                                     order + first,
                                     order + previous,
                                     false};
                         simd::dispatch(ctx.on.level, [&](auto kernels) {
                           run_chunk(kernels, c, ctx, tile, at, discount, f);
                         });
                       });
          }
      });
    }
    template <class Kernels, class T, class F>
    static void run_chunk(Kernels kernels, const cache<T>& c, const context<T>& ctx,
                          ops::attention_tile<T>& tile, block<T>& at, const T* discount, F&& f) {
      const index b = at.b, head = at.head, valid = ctx.length_of(b),
                  all = (b * A.heads + head) * Rounds * ctx.length;
      tile.load_keys(
          at.own + at.before,
          [&](index j) { return c.b.k + (b * ctx.length + at.key_token(j)) * n + head * h; },
          [&](index j) {
            return c.b.v + (b * ctx.length + at.key_token(j)) * kv + head / group * h;
          });
      for (index i0 = 0; i0 < at.own; i0 += ops::attention_rows) {
        at.queries = at.chunk + i0;
        at.rows = (std::min)(ops::attention_rows, at.own - i0);
        at.last = i0 + at.rows == at.own;
        tile.score(kernels, at.rows, maps::template scale<T>,
                   [&](index i) { return c.b.q + at.query(i, ctx); });
        for (index i = 0; i < at.rows; ++i) {
          const index t = at.token(i);
          const sight visible(c, all, t, (valid + Bucket - 1) / Bucket);
          for (index j = 0; j < tile.keys(); ++j) {
            T& score = tile.row(i)[j];
            const index key = at.key_token(j);
            if ((A.causal && key > t) ||
                (Reach == reach::bucket && order_bucket(c, ctx, all, at.round, key) !=
                                               order_bucket(c, ctx, all, at.round, t)))
              score = ops::hidden_score<T>;
            else if (key == t)
              score = alone<T>;
            else
              score += bias(ctx, head, key - t) - discount[meetings(visible, c, ctx, all, t, key)];
          }
        }
        f(kernels, tile, std::as_const(at));
      }
    }
    template <class T>
    static T bias(const context<T>& ctx, index head, index distance) {
      if constexpr (A.relative)
        return ctx.bias[head * (2 * ctx.bias_origin + 1) + ctx.bias_origin + distance];
      else
        return T(0);
    }
    template <class T>
    static index order_bucket(const cache<T>& c, const context<T>& ctx, index all, index round,
                              index token) {
      return c.bucket[all + round * ctx.length + token];
    }
    /// The chunks that a token sees in each round.
    struct sight {
      std::int32_t mine[Rounds], before[Rounds];
      template <class T>
      sight(const cache<T>& c, index all, index t, index chunks) {
        for (index r = 0; r < Rounds; ++r) {
          mine[r] = c.chunk[all + t * Rounds + r];
          before[r] =
              freezes ? mine[r] - 1 : static_cast<std::int32_t>(ops::chunk_before(mine[r], chunks));
        }
      }
    };
    /// In how many rounds token `t` sees `key`.
    template <class T>
    static index meetings(const sight& visible, const cache<T>& c, const context<T>& ctx, index all,
                          index t, index key) {
      if constexpr (Rounds == 1) return 1;
      const std::int32_t* const chunk = c.chunk + all + key * Rounds;
      std::int32_t times = 0;
      for (index r = 0; r < Rounds; ++r) {
        std::int32_t meets = (chunk[r] == visible.mine[r]) | (chunk[r] == visible.before[r]);
        if constexpr (Reach == reach::bucket)
          meets &= order_bucket(c, ctx, all, r, t) == order_bucket(c, ctx, all, r, key);
        times += meets;
      }
      return times;
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Nystromformer: softmax attention through a few landmarks, with a pseudo-inverse in between.

/// @file
/// The pseudo-inverse of small matrices by iteration, and its derivative (zoo D10).

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Z ~ A^+ for one matrix A[m, m] whose rows are not negative and sum to one, as a softmax leaves
/// them: Z_0 = A^T / c with c the largest column sum, then Z <- Z (13 - AZ (15 - AZ (7 - AZ))) / 4
/// (Xiong et al. 2021; third order, Razavi et al. 2014). c belongs to this matrix alone, so a
/// result does not depend on what else is in the batch. Serial; `scratch` holds all matrices,
/// which have rows of `wide` values, whole panels.
template <class T, index Iterations = 6>
struct pseudoinverse {
  static constexpr int own = static_cast<int>(Iterations) + 7;
  index m, wide;
  T* scratch;

  /// Scratch values for matrices up to [m, m], with A and its gradient.
  static constexpr index size(index m, bool training) {
    return m * round_up(m, panel_width) * (training ? own + 7 : own);
  }

  T* a() const { return matrix(0); }                    ///< A, filled in by the caller
  T* result() const { return matrix(1 + Iterations); }  ///< Z, after run()
  T* d_result() const { return matrix(own); }           ///< its gradient, overwritten by backward()
  T* da() const { return matrix(own + 1); }             ///< gradient of A, after backward()

  /// A -> Z
  template <class Kernels>
  void run(Kernels) const {
    T* const z = matrix(1);
    index largest = 0;
    const T c = column_sum(largest);
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) z[i * wide + j] = a()[j * wide + i] / c;
    for (index s = 0; s < Iterations; ++s) {
      polynomials<Kernels>(s);
      times<Kernels>(matrix(1 + s), u(), matrix(2 + s), T(0.25));
    }
  }
  /// d_result() -> da(), after run(): through every iteration and through c.
  template <class Kernels>
  void backward(Kernels) const {
    T *dz = d_result(), *next = matrix(own + 2);
    T *const du = matrix(own + 3), *const dx = matrix(own + 4), *const dw = matrix(own + 5),
             *const dy = matrix(own + 6);
    std::fill_n(da(), m * wide, T(0));
    for (index s = Iterations; s-- > 0;) {
      polynomials<Kernels>(s);
      const T* const z = matrix(1 + s);
      // Z' = Z U / 4, U = 13 - X W, W = 15 - X Y, Y = 7 - X, X = A Z
      transposed_times<Kernels>(z, dz, du, T(0.25));
      times_transposed<Kernels>(dz, u(), next, T(0.25));
      times_transposed<Kernels>(du, w(), dx, T(-1));
      transposed_times<Kernels>(x(), du, dw, T(-1));
      times_transposed<Kernels>(dw, y(), dx, T(-1), true);
      transposed_times<Kernels>(x(), dw, dy, T(-1));
      for (index i = 0; i < m * wide; ++i) dx[i] -= dy[i];
      times_transposed<Kernels>(dx, z, da(), T(1), true);
      transposed_times<Kernels>(a(), dx, next, T(1), true);
      std::swap(dz, next);
    }
    index largest = 0;
    const T c = column_sum(largest);
    T sum = T(0);
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) {
        const T d = dz[i * wide + j] / c;
        da()[j * wide + i] += d;
        sum += d * a()[j * wide + i];
      }
    for (index i = 0; i < m; ++i) da()[i * wide + largest] -= sum / c;
  }

 private:
  // Matrices: A, Z_0 ... Z_n, X, Y, W, U, a transpose; then the gradients.
  T* matrix(index i) const { return scratch + i * m * wide; }
  T* x() const { return matrix(Iterations + 2); }
  T* y() const { return matrix(Iterations + 3); }
  T* w() const { return matrix(Iterations + 4); }
  T* u() const { return matrix(Iterations + 5); }
  T* turned() const { return matrix(Iterations + 6); }

  T column_sum(index& largest) const {
    T best = T(0);
    for (index j = 0; j < m; ++j) {
      T sum = T(0);
      for (index i = 0; i < m; ++i) sum += a()[i * wide + j];
      if (sum > best) best = sum, largest = j;
    }
    return best;
  }
  /// X, Y, W, U of iteration `s`.
  template <class Kernels>
  void polynomials(index s) const {
    times<Kernels>(a(), matrix(1 + s), x(), T(1));
    from_diagonal(T(7), x(), y());
    times<Kernels>(x(), y(), w(), T(1));
    from_diagonal(T(15), w(), w());
    times<Kernels>(x(), w(), u(), T(1));
    from_diagonal(T(13), u(), u());
  }
  /// q = d I - p
  void from_diagonal(T d, const T* p, T* q) const {
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) q[i * wide + j] = (i == j ? d : T(0)) - p[i * wide + j];
  }
  /// r [+]= alpha p q
  template <class Kernels>
  void times(const T* p, const T* q, T* r, T alpha, bool add = false) const {
    Kernels::template multiply<T>(m, m, m, {p, wide, 1}, {q, wide, panel_width}, r, wide,
                                  {nullptr, alpha, add}, wide - m);
  }
  /// r [+]= alpha p^T q
  template <class Kernels>
  void transposed_times(const T* p, const T* q, T* r, T alpha, bool add = false) const {
    Kernels::template multiply<T>(m, m, m, {p, 1, wide}, {q, wide, panel_width}, r, wide,
                                  {nullptr, alpha, add}, wide - m);
  }
  /// r [+]= alpha p q^T
  template <class Kernels>
  void times_transposed(const T* p, const T* q, T* r, T alpha, bool add = false) const {
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) turned()[j * wide + i] = q[i * wide + j];
    times<Kernels>(p, turned(), r, alpha, add);
  }
};

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Attention by the Nystrom method (Xiong et al. 2021; zoo D10): with landmarks ~q, ~k, the means
/// of m segments of the sequence,
///   softmax(q ~k^T) Z (softmax(~q k^T) v) (+ conv v),   Z ~ softmax(~q ~k^T)^+
/// by six iterations that gradients flow through; `Convolution` taps per head, 0 for none. The
/// valid tokens of a sequence are cut into segments whose lengths differ by one at most; a sequence
/// of fewer than m tokens has each token as a landmark. Dropout of probabilities does not apply, as
/// in the paper's code. For encoders alone: landmarks hold later tokens. A stack's relative bias
/// speaks of pairs of tokens, which there are none of here: it is not applied.
template <index Landmarks = 64, index Convolution = 33>
struct nystrom : policy {
  static_assert(Landmarks > 0, "linnet::attention::nystrom: there must be a landmark");
  static_assert(Convolution == 0 || (Convolution > 0 && Convolution % 2 == 1),
                "linnet::attention::nystrom: the convolution has an odd number of taps, or 0 for "
                "none");
  static constexpr bool causal = false;
  static constexpr bool continues = false;
  static std::string name() {
    return "nystrom<" + std::to_string(Landmarks) + ", " + std::to_string(Convolution) + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.causal,
                  "linnet::attention::nystrom: its landmarks hold later tokens, so it cannot be "
                  "causal; it fits T5 encoders");
    static_assert(!A.cross,
                  "linnet::attention::nystrom: mixes the tokens of one sequence; cross-attention "
                  "is attention::full's");
    static_assert(A.heads == A.kv_heads,
                  "linnet::attention::nystrom: every head has its own keys; give as many kv_heads "
                  "as heads");
    using maps = linnet::detail::attention_maps<A>;
    static constexpr index in = maps::in, out = maps::out, n = maps::n, h = A.d_kv, m = Landmarks;
    static constexpr bool convolves = Convolution > 0;

    template <class Form>
    struct params : maps::template params<Form> {
      [[no_unique_address]] std::conditional_t<convolves, typename Form::vector, std::nullptr_t>
          taps{};  ///< [heads, Convolution]
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      maps::visit(f, at, p...);
      if constexpr (convolves)
        f(at / "taps" / "weight",
          tensor_info{A.heads, Convolution, role::position, 1 / linnet::detail::root(Convolution)},
          p.taps...);
    }

    template <class T>
    struct cache {
      typename maps::template buffers<T> b{};
      T *q = nullptr, *k = nullptr;           ///< landmarks [batch, m, n]
      T *values = nullptr, *mixed = nullptr;  ///< [batch, m, n]: softmax(~q k^T) v, and Z times it
      T *dq = nullptr, *dk = nullptr, *d_values = nullptr, *d_mixed = nullptr;  ///< gradients
      index* landmarks = nullptr;                                               ///< [batch] in use
      T* scratch = nullptr;                                                     ///< per thread
      index scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& p, const extents& e) {
      cache<T> c;
      const index mark = p.scratch.mark(), size = e.batch * m * n;
      c.b = maps::template plan<T>(p, e);
      c.q = p.keep.take<T>(size);
      c.k = p.keep.take<T>(size);
      c.values = p.keep.take<T>(size);
      c.mixed = p.keep.take<T>(size);
      c.landmarks = p.keep.take<index>(e.batch);
      if (e.training) {
        c.dq = p.scratch.take<T>(size);
        c.dk = p.scratch.take<T>(size);
        c.d_values = p.scratch.take<T>(size);
        c.d_mixed = p.scratch.take<T>(size);
      }
      c.scratch_size =
          (std::max)(ops::attention_scratch((std::max)(e.length, m), (std::max)(e.length, m), h, {},
                                            e.training),
                     ops::pseudoinverse<T>::size(m, e.training));
      c.scratch = p.scratch.take<T>(c.scratch_size * e.threads);
      p.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      assert(ctx.past == nullptr && "linnet::attention::nystrom: no cached decoding");
      maps::template project<T, S>(p, x, c.b, ctx);
      each_segment(c, ctx, [&](index b, index s, index first, index last) {
        if (s == 0) c.landmarks[b] = in_use(ctx, b);
        mean(c.b.q + b * ctx.length * n, first, last, c.q + (b * m + s) * n);
        mean(c.b.k + b * ctx.length * n, first, last, c.k + (b * m + s) * n);
      });
      ops::attention(ctx.on, to_landmarks(c, ctx));
      ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
        const index b = item / A.heads, at = b * m * n + item % A.heads * h;
        simd::dispatch(ctx.on.level, [&](auto kernels) {
          const auto inverse = inverse_of(kernels, c, ctx, b, at);
          decltype(kernels)::template multiply<T>(
              inverse.m, h, inverse.m, {inverse.result(), inverse.wide, 1},
              {c.values + at, n, ops::panel_width}, c.mixed + at, n, {});
        });
      });
      ops::attention(ctx.on, from_landmarks(c, ctx));
      if constexpr (convolves)
        ctx.on.threads.each(ctx.rows(), [&](index row) {
          each_tap(ctx, row, [&](index head, index tap, index other) {
            add_scaled(p.taps[head * Convolution + tap], c.b.v + other * n + head * h,
                       c.b.mixed + row * n + head * h);
          });
        });
      maps::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      maps::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      for (T* const gradient : {c.dq, c.dk, c.d_values, c.d_mixed})
        ops::fill(ctx.on, ctx.batch * m * n, T(0), gradient);
      if constexpr (convolves) convolve_backward(p.taps, dp.taps, c, ctx);
      ops::attention_backward(ctx.on, from_landmarks(c, ctx),
                              {c.b.d_mixed, c.b.dq, c.dk, c.d_mixed, nullptr});
      ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
        const index b = item / A.heads, at = b * m * n + item % A.heads * h;
        simd::dispatch(ctx.on.level,
                       [&](auto kernels) { invert_backward(kernels, c, ctx, b, at); });
      });
      ops::attention_backward(ctx.on, to_landmarks(c, ctx),
                              {c.d_values, c.dq, c.b.dk, c.b.dv, nullptr});
      each_segment(c, ctx, [&](index b, index s, index first, index last) {
        mean_backward(c.dq + (b * m + s) * n, first, last, c.b.dq + b * ctx.length * n);
        mean_backward(c.dk + (b * m + s) * n, first, last, c.b.dk + b * ctx.length * n);
      });
      maps::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Nothing is kept from token to token: whole sequences only.
    static constexpr index state_values(index) { return 0; }
    static constexpr index flops(const extents& e) {
      return maps::flops(e) + 8 * e.rows() * m * n + 2 * Convolution * e.rows() * n +
             e.batch * (4 * m * m * n + 6 * 4 * 2 * m * m * m * A.heads);
    }

   private:
    template <class T>
    static index in_use(const context<T>& ctx, index b) {
      return (std::min)(m, ctx.length_of(b));
    }
    /// Calls f(b, s, first, last) for all segments [first, last); those not in use are empty.
    template <class T, class F>
    static void each_segment(const cache<T>&, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(ctx.batch * m, [&](index item) {
        const index b = item / m, s = item % m, used = in_use(ctx, b), valid = ctx.length_of(b);
        if (s < used)
          f(b, s, s * valid / used, (s + 1) * valid / used);
        else
          f(b, s, index{0}, index{0});
      });
    }
    template <class T>
    static void mean(const T* x, index first, index last, T* y) {
      std::fill_n(y, n, T(0));
      for (index t = first; t < last; ++t) add_scaled<n>(T(1) / T(last - first), x + t * n, y);
    }
    template <class T>
    static void mean_backward(const T* dy, index first, index last, T* dx) {
      for (index t = first; t < last; ++t) add_scaled<n>(T(1) / T(last - first), dy, dx + t * n);
    }
    /// y += a x, of one head unless told otherwise
    template <index Count = h, class T>
    static void add_scaled(T a, const T* x, T* y) {
      for (index i = 0; i < Count; ++i) y[i] += a * x[i];
    }
    /// Landmarks as queries of all tokens.
    template <class T>
    static ops::attention_call<T> to_landmarks(const cache<T>& c, const context<T>& ctx) {
      auto a = maps::call(ctx.batch, m, c.q, ctx.length, c.b.k, c.b.v, c.values);
      a.key_lengths = ctx.lengths;
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      return a;
    }
    /// All tokens as queries of the landmarks.
    template <class T>
    static ops::attention_call<T> from_landmarks(const cache<T>& c, const context<T>& ctx) {
      auto a = maps::call(ctx.batch, ctx.length, c.b.q, m, c.k, c.mixed, c.b.mixed);
      a.key_lengths = c.landmarks;
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      return a;
    }
    /// softmax(~q ~k^T) of one sequence and head, and its inverse; `at` is their first value.
    template <class Kernels, class T>
    static ops::pseudoinverse<T> inverse_of(Kernels kernels, const cache<T>& c,
                                            const context<T>& ctx, index b, index at) {
      const index used = in_use(ctx, b);
      const ops::pseudoinverse<T> inverse{used, round_up(used, ops::panel_width),
                                          c.scratch + ctx.on.threads.rank() * c.scratch_size};
      for (index i = 0; i < used; ++i) {
        T* const row = inverse.a() + i * inverse.wide;
        Kernels::template dots<T>(used, h, maps::template scale<T>, c.q + at + i * n, c.k + at, n,
                                  row);
        Kernels::template softmax<T>(used, row);
      }
      inverse.run(kernels);
      return inverse;
    }
    /// d_mixed -> d_values and, through the inverse and the softmax, dq and dk of landmarks.
    template <class Kernels, class T>
    static void invert_backward(Kernels kernels, const cache<T>& c, const context<T>& ctx, index b,
                                index at) {
      const auto z = inverse_of(kernels, c, ctx, b, at);
      constexpr T scale = maps::template scale<T>;
      constexpr index panel = ops::panel_width;
      for (index i = 0; i < z.m; ++i)
        Kernels::template dots<T>(z.m, h, T(1), c.d_mixed + at + i * n, c.values + at, n,
                                  z.d_result() + i * z.wide);
      Kernels::template multiply<T>(z.m, h, z.m, {z.result(), 1, z.wide},
                                    {c.d_mixed + at, n, panel}, c.d_values + at, n,
                                    {nullptr, T(1), true});
      z.backward(kernels);
      for (index i = 0; i < z.m; ++i) {
        T* const row = z.da() + i * z.wide;
        Kernels::template softmax_backward<T>(z.m, z.a() + i * z.wide, row, row);
      }
      Kernels::template multiply<T>(z.m, h, z.m, {z.da(), z.wide, 1}, {c.k + at, n, panel},
                                    c.dq + at, n, {nullptr, scale, true});
      Kernels::template multiply<T>(z.m, h, z.m, {z.da(), 1, z.wide}, {c.q + at, n, panel},
                                    c.dk + at, n, {nullptr, scale, true});
    }
    /// Calls f(head, tap, other) for the rows that the convolution at `row` reads, itself and its
    /// valid neighbours; nothing for padding.
    template <class T, class F>
    static void each_tap(const context<T>& ctx, index row, F&& f) {
      const index b = row / ctx.length, t = row % ctx.length, valid = ctx.length_of(b);
      if (t >= valid) return;
      for (index tap = 0; tap < Convolution; ++tap) {
        const index other = t + tap - Convolution / 2;
        if (other < 0 || other >= valid) continue;
        for (index head = 0; head < A.heads; ++head) f(head, tap, b * ctx.length + other);
      }
    }
    template <class T>
    static void convolve_backward(const T* taps, T* d_taps, const cache<T>& c,
                                  const context<T>& ctx) {
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        // Row `other` was read by `row` through one tap, so `row` is read by it through the mirror.
        each_tap(ctx, row, [&](index head, index tap, index other) {
          add_scaled(taps[head * Convolution + Convolution - 1 - tap],
                     c.b.d_mixed + other * n + head * h, c.b.dv + row * n + head * h);
        });
      });
      ctx.on.threads.each(A.heads * Convolution, [&](index item) {
        const index head = item / Convolution, shift = item % Convolution - Convolution / 2;
        T sum = T(0);
        for (index b = 0; b < ctx.batch; ++b) {
          const index valid = ctx.length_of(b);
          for (index t = (std::max)(index{0}, -shift); t < (std::min)(valid, valid - shift); ++t) {
            const T* const dy = c.b.d_mixed + (b * ctx.length + t) * n + head * h;
            const T* const v = c.b.v + (b * ctx.length + t + shift) * n + head * h;
            for (index i = 0; i < h; ++i) sum += dy[i] * v[i];
          }
        }
        d_taps[item] += sum;
      });
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Routing attention: tokens attend to those that the same centroid of a k-means draws.

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Content-based sparse attention (Roy et al. 2021; zoo D7). Queries and keys have unit length;
/// each head has `Clusters` centroids, and each centroid takes the `Window` queries and the
/// `Window` keys of a sequence that point most its way (all, of a shorter sequence; the earlier of
/// equals), which attend to each other with scores sqrt(h) q.k, that is q and k of length sqrt(h)
/// divided by sqrt(h). A token in several clusters gets the mean of their outputs, one in none
/// zero. With Clusters = Window = sqrt(T), O(T^1.5). A causal layer shares queries and keys, so
/// that a token always finds itself, and masks later ones.
///
/// Centroids are tensors of role::average: backward adds to each the queries and keys nearest to
/// it, and a trainer moves it there (k-means by a running average). They have no derivative, the
/// choice of tokens is a constant in backward, and parameter counts include them.
///
/// Caution: which tokens a centroid takes depends on the whole sequence, in a causal model too: an
/// earlier output can change with a later token's membership.
///
/// A session therefore goes by membership::frozen: a token belongs to its nearest centroid alone
/// (the paper's definition, of which the `Window` best are its balanced approximation), and sees
/// those that came there before it, back to the start of the chunk of `Window` before its own. Of
/// the pairs that 1,024 random tokens make in 32 clusters of 32, after 20 rounds of k-means, a
/// session has 78 %, and 23 % of its own are others; 12 % of the tokens, in no cluster in training,
/// have one. With membership::frozen a model trains as it decodes.
template <index Clusters, index Window, membership Members = membership::whole>
struct routing : policy {
  static_assert(Clusters > 0 && Window > 0,
                "linnet::attention::routing<Clusters, Window>: both must be positive");
  /// The kind whose training is this kind's decoding.
  using frozen = routing<Clusters, Window, membership::frozen>;
  static constexpr bool freezes = Members == membership::frozen;
  static constexpr bool bidirectional = !freezes, rewinds = true, foresees = !freezes;
  static std::string name() {
    return "routing<" + std::to_string(Clusters) + ", " + std::to_string(Window) +
           (freezes ? ", frozen" : "") + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.cross,
                  "linnet::attention::routing: mixes the tokens of one sequence; cross-attention "
                  "is attention::full's");
    static_assert(A.causal || !freezes,
                  "linnet::attention::routing: membership::frozen is for causal models");
    using groups = linnet::detail::frozen_groups<A, Window, 1>;
    /// Most queries, and keys, of a group.
    static constexpr index widest = freezes ? 2 * Window : Window;
    static constexpr bool shares = A.causal;
    using maps = linnet::detail::attention_maps<A, shares>;
    static constexpr index in = maps::in, out = maps::out, n = maps::n, kv = maps::kv, h = A.d_kv;
    static constexpr index group = A.heads / A.kv_heads;
    /// Heads, and width, of the keys.
    static constexpr index key_heads = shares ? A.heads : A.kv_heads, keys = key_heads * h;

    template <class Form>
    struct params : maps::template params<Form> {
      typename Form::vector centroids{};  ///< [heads * Clusters, h]
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      maps::visit(f, at, p...);
      f(at / "centroids",
        tensor_info{A.heads * Clusters, h, role::average, 1 / linnet::detail::root(h)},
        p.centroids...);
    }

    template <class T>
    struct cache {
      typename maps::template buffers<T> b{};  ///< q and k of unit length; shared ones are the same
      typename groups::template cache<T> past{};     ///< of a session
      T *q_lengths = nullptr, *k_lengths = nullptr;  ///< 1 / |q| [rows, heads], 1 / |k|
      std::int32_t* queries =
          nullptr;                   ///< [batch, heads, members] tokens of each cluster, in order
      std::int32_t* keys = nullptr;  ///< likewise
      std::int32_t* nearest = nullptr;  ///< [batch, heads, length] where they are frozen
      T* share = nullptr;               ///< [batch, heads, length] 1 / clusters of each query
      T* scratch = nullptr;             ///< per thread
      std::int32_t* order = nullptr;    ///< [order_size] per thread
      index scratch_size = 0, order_size = 0, most = 0;
      index members = 0;  ///< Clusters * Window, or the length where they are frozen
      bool training = false;
      int site = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), tokens = e.rows() * A.heads;
      const bool cached = e.capacity > 0;
      c.site = m.sites++;
      c.training = e.training;
      c.most = (std::min)(widest, e.length);
      c.members = freezes ? e.length : Clusters * Window;
      c.b = maps::template plan<T>(m, e);
      c.q_lengths = m.keep.take<T>(tokens);
      if (freezes || cached) c.nearest = m.keep.take<std::int32_t>(tokens);
      if (cached) c.past = groups::template plan<T>(m, e);
      if (!cached) {
        c.queries = m.keep.take<std::int32_t>(e.batch * A.heads * c.members);
        c.order_size = (std::max)(e.length, Clusters);
        c.order = m.scratch.take<std::int32_t>(c.order_size * e.threads);
        if (!freezes) c.share = m.keep.take<T>(tokens);
      }
      if (shares) {
        c.b.k = c.b.q;
        c.b.dk = c.b.dq;
        c.k_lengths = c.q_lengths;
        c.keys = c.queries;
      } else {
        c.k_lengths = m.keep.take<T>(e.rows() * key_heads);
        c.keys = m.keep.take<std::int32_t>(e.batch * A.heads * c.members);
      }
      c.scratch_size = cached ? Clusters
                              : (std::max)({ops::attention_tile<T>::size(c.most, h, e.training),
                                            e.length, Clusters});
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      const index rows = x.rows();
      maps::template project<T, S>(p, x, c.b, ctx);
      linnet::detail::unit_heads(ctx.on, rows, A.heads, h, c.b.q, c.b.q, c.q_lengths);
      if constexpr (!shares)
        linnet::detail::unit_heads(ctx.on, rows, A.kv_heads, h, c.b.k, c.b.k, c.k_lengths);
      if (ctx.past)
        groups::template run<true>(
            c.past, ctx, c.b.q, c.b.k, c.b.v, scale<T>,
            [&](index item) { return follow(p.centroids, c, ctx, item); }, c.b.mixed);
      else
        mix(p.centroids, c, ctx);
      maps::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      const index rows = x.rows();
      maps::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        using K = decltype(kernels);
        tile.begin_backward(
            kernels, at.rows, [&](index i) { return c.b.d_mixed + at.query(i, ctx); },
            [&](index i) { return at.share(i, c, ctx); });
        for (index i = 0; i < at.rows; ++i) {
          tile.drop(ctx.dropout, at.b, c.site, i, at.first_score(i, c), true);
          T* const slopes = tile.slopes(i);
          K::template softmax_backward<T>(tile.keys(), tile.row(i), slopes, slopes);
          if constexpr (A.relative) {
            T* const line = ctx.d_bias + (at.b * A.heads + at.head) * (2 * ctx.bias_origin + 1) +
                            ctx.bias_origin - at.token(i);
            for (index j = 0; j < tile.keys(); ++j) line[at.keys[j]] += slopes[j];
          }
        }
        tile.end_backward(kernels, at.rows, scale<T>);
        for (index i = 0; i < at.rows; ++i) {
          T* const to = c.b.dq + at.query(i, ctx);
          K::template add<T>(h, to, tile.out(i), to);
        }
        if (at.last)
          for (index j = 0; j < tile.keys(); ++j) {
            T* const dk = c.b.dk + at.key(j, ctx);
            T* const dv = c.b.dv + at.value(j, ctx);
            K::template add<T>(h, dk, tile.dk(j), dk);
            K::template add<T>(h, dv, tile.dv(j), dv);
          }
      });
      gather(p.centroids, dp.centroids, c, ctx);
      linnet::detail::unit_heads_backward(ctx.on, rows, A.heads, h, c.b.q, c.q_lengths, c.b.dq,
                                          c.b.dq, false);
      if constexpr (!shares)
        linnet::detail::unit_heads_backward(ctx.on, rows, A.kv_heads, h, c.b.k, c.k_lengths, c.b.dk,
                                            c.b.dk, false);
      maps::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// Numbers that a session keeps of each sequence of up to `tokens` tokens: keys, values, and
    /// two for each head.
    static constexpr index state_values(index tokens) { return groups::state_values(tokens); }
    /// One sequence continues where another is.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      groups::copy_state(c.past, from, to, part);
    }
    static constexpr index flops(const extents& e) {
      const index window = (std::min)(Window, e.length);
      return maps::flops(e) + 4 * e.batch * Clusters * window * window * n +
             (shares ? 2 : 4) * e.rows() * Clusters * n;
    }

   private:
    /// Queries and keys of length sqrt(h), their product divided by sqrt(h).
    template <class T>
    static constexpr T scale = T(linnet::detail::root(h));

    /// mixed from q, k and v of whole sequences.
    template <class T>
    static void mix(const T* centroids, cache<T>& c, const context<T>& ctx) {
      choose(centroids, c, ctx);
      ops::fill(ctx.on, ctx.rows() * n, T(0), c.b.mixed);
      each_block(c, ctx, [&](auto kernels, ops::attention_tile<T>& tile, const block<T>& at) {
        for (index i = 0; i < at.rows; ++i)
          tile.drop(ctx.dropout, at.b, c.site, i, at.first_score(i, c), false);
        tile.mix(kernels, at.rows);
        for (index i = 0; i < at.rows; ++i) {
          const T share = at.share(i, c, ctx);
          T* const to = c.b.mixed + at.query(i, ctx);
          for (index j = 0; j < h; ++j) to[j] += share * tile.out(i)[j];
        }
      });
    }

    /// Some queries of one cluster of one head, and its keys.
    template <class T>
    struct block {
      index b, head, first, asked, answers;  ///< first: number of its first query
      const std::int32_t *queries, *keys;    ///< tokens
      index i0 = 0, rows = 0;
      bool last = false;  ///< no further queries meet these keys
      index token(index i) const { return queries[i0 + i]; }
      /// Where query i, key j and value j start in their rows.
      index query(index i, const context<T>& ctx) const {
        return (b * ctx.length + token(i)) * n + head * h;
      }
      index key(index j, const context<T>& ctx) const {
        return (b * ctx.length + keys[j]) * layer::keys + head * key_heads / A.heads * h;
      }
      index value(index j, const context<T>& ctx) const {
        return (b * ctx.length + keys[j]) * kv + head / group * h;
      }
      /// The part of query i's output that this cluster makes.
      T share(index i, const cache<T>& c, const context<T>& ctx) const {
        return freezes ? T(1) : c.share[(b * A.heads + head) * ctx.length + token(i)];
      }
      /// The number of query i's first score, for dropout.
      index first_score(index i, const cache<T>& c) const {
        return (head * c.members + first + i0 + i) * widest;
      }
    };
    /// Number of the first centroid of a head of those that x[h] points most to.
    template <class T>
    static index nearest(const T* centroids, index head, const T* x, const cache<T>& c,
                         const context<T>& ctx) {
      T* const along = c.scratch + ctx.on.threads.rank() * c.scratch_size;
      simd::dispatch(ctx.on.level, [&](auto kernels) {
        decltype(kernels)::template dots<T>(Clusters, h, T(1), x, centroids + head * Clusters * h,
                                            h, along);
      });
      return std::max_element(along, along + Clusters) - along;
    }
    /// The nearest centroids of the tokens of item = (sequence, head).
    template <class T>
    static const std::int32_t* follow(const T* centroids, const cache<T>& c, const context<T>& ctx,
                                      index item) {
      const index b = item / A.heads, head = item % A.heads;
      std::int32_t* const to = c.nearest + item * ctx.length;
      for (index t = 0; t < ctx.length_of(b); ++t)
        to[t] = static_cast<std::int32_t>(
            nearest(centroids, head, c.b.q + (b * ctx.length + t) * n + head * h, c, ctx));
      return to;
    }
    /// The tokens that each centroid takes, and in how many clusters each query is.
    template <class T>
    static void choose(const T* centroids, cache<T>& c, const context<T>& ctx) {
      if constexpr (freezes) {
        ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
          ops::sort_by_bucket(
              ctx.length_of(item / A.heads), Clusters, follow(centroids, c, ctx, item),
              c.order + ctx.on.threads.rank() * c.order_size, c.queries + item * c.members);
        });
        return;
      }
      ctx.on.threads.each(ctx.batch * A.heads * Clusters, [&](index item) {
        const index b = item / (A.heads * Clusters), which = item % (A.heads * Clusters),
                    head = which / Clusters, row = b * ctx.length;
        const T* const centroid = centroids + which * h;
        take(centroid, c.b.q + row * n + head * h, n, c.queries + item * Window, c, ctx, b);
        if constexpr (!shares)
          take(centroid, c.b.k + row * kv + head / group * h, kv, c.keys + item * Window, c, ctx,
               b);
      });
      ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
        const index window = (std::min)(Window, ctx.length_of(item / A.heads));
        T* const share = c.share + item * ctx.length;
        std::fill_n(share, ctx.length, T(0));
        for (index k = 0; k < Clusters; ++k)
          for (index i = 0; i < window; ++i)
            share[c.queries[(item * Clusters + k) * Window + i]] += T(1);
        for (index t = 0; t < ctx.length; ++t)
          if (share[t] > T(0)) share[t] = T(1) / share[t];
      });
    }
    /// The valid rows of x, `stride` apart, that point most like the centroid, in order.
    template <class T>
    static void take(const T* centroid, const T* x, index stride, std::int32_t* to,
                     const cache<T>& c, const context<T>& ctx, index b) {
      const index valid = ctx.length_of(b), window = (std::min)(Window, valid);
      const int rank = ctx.on.threads.rank();
      T* const along = c.scratch + rank * c.scratch_size;
      std::int32_t* const order = c.order + rank * c.order_size;
      simd::dispatch(ctx.on.level, [&](auto kernels) {
        decltype(kernels)::template dots<T>(valid, h, T(1), centroid, x, stride, along);
      });
      for (index t = 0; t < valid; ++t) order[t] = static_cast<std::int32_t>(t);
      std::nth_element(order, order + window - 1, order + valid,
                       [&](std::int32_t i, std::int32_t j) {
                         return along[i] != along[j] ? along[i] > along[j] : i < j;
                       });
      std::sort(order, order + window);
      std::copy_n(order, window, to);
    }
    /// Calls f(kernels, tile, block) for all blocks of queries, with their probabilities in the
    /// tile. Heads that share values come after each other on one thread.
    template <class T, class F>
    static void each_block(const cache<T>& c, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(ctx.batch * A.kv_heads, [&](index item) {
        const index b = item / A.kv_heads, g = item % A.kv_heads;
        ops::attention_tile<T> tile(c.scratch + ctx.on.threads.rank() * c.scratch_size, c.most, h,
                                    c.training);
        for (index head = g * group; head < (g + 1) * group; ++head)
          each_group(c, ctx, b, head, [&](block<T> at) {
            simd::dispatch(ctx.on.level,
                           [&](auto kernels) { run_group(kernels, c, ctx, tile, at, f); });
          });
      });
    }
    /// Calls f(block) for the groups of one head: clusters, or chunks of them where the chunk
    /// before is seen too.
    template <class T, class F>
    static void each_group(const cache<T>& c, const context<T>& ctx, index b, index head, F&& f) {
      const index valid = ctx.length_of(b), item = b * A.heads + head;
      const std::int32_t* const asking = c.queries + item * c.members;
      const std::int32_t* const asked = c.keys + item * c.members;
      if constexpr (freezes) {
        ops::each_bucket_chunk(valid, Window, c.nearest + item * ctx.length, asking,
                               [&](index first, index last, index before) {
                                 f(block<T>{b, head, first, last - first, last - first + before,
                                            asking + first, asking + first - before});
                               });
      } else {
        const index window = (std::min)(Window, valid);
        for (index first = 0; first < c.members; first += Window)
          f(block<T>{b, head, first, window, window, asking + first, asked + first});
      }
    }
    template <class Kernels, class T, class F>
    static void run_group(Kernels kernels, const cache<T>& c, const context<T>& ctx,
                          ops::attention_tile<T>& tile, block<T>& at, F&& f) {
      const index head = at.head, before = at.answers - at.asked;
      tile.load_keys(
          at.answers, [&](index j) { return c.b.k + at.key(j, ctx); },
          [&](index j) { return c.b.v + at.value(j, ctx); });
      for (index i0 = 0; i0 < at.asked; i0 += ops::attention_rows) {
        at.i0 = i0;
        at.rows = (std::min)(ops::attention_rows, at.asked - i0);
        at.last = i0 + at.rows == at.asked;
        tile.score(kernels, at.rows, scale<T>, [&](index i) { return c.b.q + at.query(i, ctx); });
        for (index i = 0; i < at.rows; ++i) {
          T* const row = tile.row(i);
          if constexpr (A.relative) {
            const T* const line =
                ctx.bias + head * (2 * ctx.bias_origin + 1) + ctx.bias_origin - at.token(i);
            for (index j = 0; j < tile.keys(); ++j) row[j] += line[at.keys[j]];
          }
          // Sorted and shared, the keys up to the query itself come first.
          const index seen = A.causal ? before + i0 + i + 1 : tile.keys();
          Kernels::template softmax<T>(seen, row);
          std::fill(row + seen, row + tile.keys(), T(0));
        }
        f(kernels, tile, std::as_const(at));
      }
    }
    /// Adds each query and key to what its nearest centroid is to follow.
    template <class T>
    static void gather(const T* centroids, T* sums, const cache<T>& c, const context<T>& ctx) {
      ctx.on.threads.each(A.heads, [&](index head) {
        const auto add_nearest = [&](const T* x) {
          T* const to = sums + (head * Clusters + nearest(centroids, head, x, c, ctx)) * h;
          for (index i = 0; i < h; ++i) to[i] += x[i];
        };
        for (index b = 0; b < ctx.batch; ++b)
          for (index t = 0; t < ctx.length_of(b); ++t) {
            add_nearest(c.b.q + (b * ctx.length + t) * n + head * h);
            if constexpr (!shares)
              add_nearest(c.b.k + (b * ctx.length + t) * kv + head / group * h);
          }
      });
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Fourier mixing as a layer: tokens are mixed by a transform without parameters (zoo D13).

/// @file
/// Discrete Fourier transforms of any length in O(n log n): mixed radix, and Bluestein's chirp for
/// lengths with a large prime factor. Always several transforms side by side.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// The largest prime factor that has a stage of its own; a constant in the cost.
inline constexpr index fourier_radix = 31;

/// The next factor of n to divide by: 4, then primes.
constexpr index fourier_factor(index n) {
  if (n % 4 == 0) return 4;
  for (index r = 2; r * r <= n; ++r)
    if (n % r == 0) return r;
  return n;
}
/// Whether n > 0 has only small prime factors.
constexpr bool fourier_direct(index n) {
  for (index r = 2; r <= fourier_radix; ++r)
    while (n % r == 0) n /= r;
  return n == 1;
}
/// The power of two that holds the chirp's convolution for a transform of length n.
constexpr index fourier_padded(index n) {
  return static_cast<index>(std::bit_ceil(static_cast<std::size_t>(2 * n - 1)));
}
/// Points that transforms of any length up to n work on.
constexpr index fourier_points(index n) { return fourier_padded(n); }
/// Values of the table for any length up to n.
constexpr index fourier_table_values(index n) { return 4 * fourier_padded(n) + 2 * n; }

/// What transforms of one length share. Complex arrays are two real ones.
template <class T>
struct fourier_table {
  index n = 0;                             ///< length of the transform
  index points = 0;                        ///< length of the stages: n, or the chirp's power of two
  T *cosines = nullptr, *sines = nullptr;  ///< [points] e^(-2 pi i k / points)
  T *chirp_real = nullptr, *chirp_imaginary = nullptr;  ///< [n] e^(-pi i k^2 / n)
  T *spectrum_real = nullptr,
    *spectrum_imaginary = nullptr;  ///< [points] of its conjugate / points
  /// Whether the length has stages of its own.
  bool direct() const { return n == points; }
};

namespace detail {

/// One radix-4 step of Stockham's transform on `points` = 4 m `stride` vectors.
template <class T>
void fourier_four(index m, index stride, index width, const fourier_table<T>& t, const T* xr,
                  const T* xi, T* yr, T* yi) {
  const index line = stride * width;
  for (index p = 0; p < m; ++p) {
    const T *const ar = xr + p * line, *const ai = xi + p * line;
    T *const br = yr + 4 * p * line, *const bi = yi + 4 * p * line;
    const index k = p * stride;
    const T c1 = t.cosines[k], s1 = t.sines[k], c2 = t.cosines[2 * k], s2 = t.sines[2 * k],
            c3 = t.cosines[3 * k], s3 = t.sines[3 * k];
    for (index q = 0; q < line; ++q) {
      const index q1 = q + m * line, q2 = q + 2 * m * line, q3 = q + 3 * m * line;
      const T er = ar[q] + ar[q2], ei = ai[q] + ai[q2], fr = ar[q] - ar[q2], fi = ai[q] - ai[q2];
      const T gr = ar[q1] + ar[q3], gi = ai[q1] + ai[q3], hr = ar[q1] - ar[q3],
              hi = ai[q1] - ai[q3];
      const T ur = fr + hi, ui = fi - hr, wr = fr - hi, wi = fi + hr;  // f - i h, f + i h
      br[q] = er + gr;
      bi[q] = ei + gi;
      br[q + line] = c1 * ur - s1 * ui;
      bi[q + line] = c1 * ui + s1 * ur;
      br[q + 2 * line] = c2 * (er - gr) - s2 * (ei - gi);
      bi[q + 2 * line] = c2 * (ei - gi) + s2 * (er - gr);
      br[q + 3 * line] = c3 * wr - s3 * wi;
      bi[q + 3 * line] = c3 * wi + s3 * wr;
    }
  }
}

/// The same step for any radix.
template <class T>
void fourier_any(index radix, index m, index stride, index width, const fourier_table<T>& t,
                 const T* xr, const T* xi, T* yr, T* yi) {
  const index line = stride * width, turn = t.points / radix;
  for (index p = 0; p < m; ++p)
    for (index k = 0; k < radix; ++k) {
      T *const br = yr + (radix * p + k) * line, *const bi = yi + (radix * p + k) * line;
      for (index j = 0; j < radix; ++j) {
        const index angle = (j * k % radix * turn + p * k * stride) % t.points;
        const T c = t.cosines[angle], s = t.sines[angle];
        const T *const ar = xr + (p + m * j) * line, *const ai = xi + (p + m * j) * line;
        for (index q = 0; q < line; ++q) {
          br[q] = (j > 0 ? br[q] : T(0)) + (c * ar[q] - s * ai[q]);
          bi[q] = (j > 0 ? bi[q] : T(0)) + (c * ai[q] + s * ar[q]);
        }
      }
    }
}

/// All stages over `points` vectors of `width` values, back and forth between x and y. Returns
/// whether the result is in y.
template <class T>
bool fourier_stages(const fourier_table<T>& t, index width, T* xr, T* xi, T* yr, T* yi) {
  bool other = false;
  for (index left = t.points, stride = 1; left > 1; other = !other) {
    const index radix = fourier_factor(left);
    left /= radix;
    if (radix == 4)
      fourier_four(left, stride, width, t, xr, xi, yr, yi);
    else
      fourier_any(radix, left, stride, width, t, xr, xi, yr, yi);
    stride *= radix;
    std::swap(xr, yr);
    std::swap(xi, yi);
  }
  return other;
}

}  // namespace detail

/// The buffers of transforms of `width` vectors side by side: four of [points, width].
template <class T>
struct fourier_buffers {
  T *real, *imaginary, *other_real, *other_imaginary;

  /// Places them in memory of values().
  fourier_buffers(T* memory, index points, index width)
      : real(memory),
        imaginary(memory + apart(points, width)),
        other_real(memory + 2 * apart(points, width)),
        other_imaginary(memory + 3 * apart(points, width)) {}
  /// Values that transforms of any length up to n need.
  static constexpr index values(index n, index width) {
    return 4 * apart(fourier_points(n), width);
  }
  /// A few cache lines more than needed, or buffers of a power of two share their cache sets.
  static constexpr index apart(index points, index width) {
    return points * width + 5 * 64 / static_cast<index>(sizeof(T));
  }
  /// Exchanges the pairs.
  void swap() {
    std::swap(real, other_real);
    std::swap(imaginary, other_imaginary);
  }
};

/// Computes the table for length n in `memory` of fourier_table_values(); angles in double.
/// `buffers` are for width 1.
template <class T>
fourier_table<T> make_fourier_table(index n, T* memory, fourier_buffers<T> buffers) {
  constexpr double pi = 3.14159265358979323846;
  fourier_table<T> t;
  t.n = n;
  t.points = fourier_direct(n) ? n : fourier_padded(n);
  t.cosines = memory;
  t.sines = t.cosines + t.points;
  for (index k = 0; k < t.points; ++k) {
    const double angle = -2 * pi * static_cast<double>(k) / static_cast<double>(t.points);
    t.cosines[k] = static_cast<T>(std::cos(angle));
    t.sines[k] = static_cast<T>(std::sin(angle));
  }
  if (t.direct()) return t;
  t.chirp_real = t.sines + t.points;
  t.chirp_imaginary = t.chirp_real + n;
  t.spectrum_real = t.chirp_imaginary + n;
  t.spectrum_imaginary = t.spectrum_real + t.points;
  std::fill_n(buffers.real, t.points, T(0));
  std::fill_n(buffers.imaginary, t.points, T(0));
  for (index k = 0; k < n; ++k) {
    // k^2 is reduced as a whole number, so that the angle stays exact.
    const double angle = -pi * static_cast<double>(k * k % (2 * n)) / static_cast<double>(n);
    t.chirp_real[k] = static_cast<T>(std::cos(angle));
    t.chirp_imaginary[k] = static_cast<T>(std::sin(angle));
    for (const index at : {k, (t.points - k) % t.points}) {
      buffers.real[at] = t.chirp_real[k];
      buffers.imaginary[at] = -t.chirp_imaginary[k];
    }
  }
  if (detail::fourier_stages(t, 1, buffers.real, buffers.imaginary, buffers.other_real,
                             buffers.other_imaginary))
    buffers.swap();
  for (index k = 0; k < t.points; ++k) {
    t.spectrum_real[k] = buffers.real[k] / static_cast<T>(t.points);
    t.spectrum_imaginary[k] = buffers.imaginary[k] / static_cast<T>(t.points);
  }
  return t;
}

/// buffers.real, buffers.imaginary[n, width] <- X_k = sum_j x_j e^(-2 pi i j k / n), one transform
/// per column, serial. May exchange the pairs of buffers.
template <class T>
void fourier(const fourier_table<T>& t, index width, fourier_buffers<T>& buffers) {
  const auto stages = [&] {
    if (detail::fourier_stages(t, width, buffers.real, buffers.imaginary, buffers.other_real,
                               buffers.other_imaginary))
      buffers.swap();
  };
  if (t.direct()) return stages();
  // Bluestein: j k = (j^2 + k^2 - (k - j)^2) / 2 makes of the sum a convolution with a chirp. The
  // way back is the way there between two conjugations.
  const auto times = [&](index rows, const T* cosines, const T* sines, T sign) {
    for (index k = 0; k < rows; ++k)
      for (index c = k * width; c < (k + 1) * width; ++c) {
        const T re = buffers.real[c], im = sign * buffers.imaginary[c];
        buffers.real[c] = re * cosines[k] - im * sines[k];
        buffers.imaginary[c] = re * sines[k] + im * cosines[k];
      }
  };
  times(t.n, t.chirp_real, t.chirp_imaginary, T(1));
  std::fill(buffers.real + t.n * width, buffers.real + t.points * width, T(0));
  std::fill(buffers.imaginary + t.n * width, buffers.imaginary + t.points * width, T(0));
  stages();
  times(t.points, t.spectrum_real, t.spectrum_imaginary, T(1));
  for (index c = 0; c < t.points * width; ++c) buffers.imaginary[c] = -buffers.imaginary[c];
  stages();
  times(t.n, t.chirp_real, t.chirp_imaginary, T(-1));
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Policies that mix the tokens of a sequence by other means than attention. They take the place of
/// an attention:: policy.
namespace mixer {

/// FNet (Lee-Thorp et al. 2021; zoo D13): y = Re(F_T x F_d), discrete Fourier transforms over the
/// tokens and over the columns, not normalised. No parameters; bidirectional, so for encoders. Each
/// sequence is transformed at its own length, so padding changes nothing, and every length works in
/// O(T log T). The map is symmetric: its derivative is the same map.
struct fnet : attention::policy {
  static constexpr bool causal = false, continues = false;
  static std::string name() { return "fnet"; }

  template <attention_shape A>
  struct layer : without_parameters {
    static_assert(!A.causal,
                  "linnet::mixer::fnet: a Fourier transform sees later tokens; it fits encoders");
    static_assert(!A.cross, "linnet::mixer::fnet: mixes one sequence; it has no cross-attention");
    static constexpr index in = A.d_model, out = A.d_model;
    /// Columns of the spectrum of real rows that are not the conjugates of others.
    static constexpr index half = in / 2 + 1;
    /// Transforms side by side: a cache line of values.
    template <class T>
    static constexpr index width = 64 / static_cast<index>(sizeof(T));

    template <class T>
    struct cache {
      /// [batch, (half + width - 1) / width, length, width] spectra of the rows, in blocks of
      /// columns that the second transform reads in one piece; zeros fill the last one.
      T *real = nullptr, *imaginary = nullptr;
      T* tables = nullptr;                   ///< one per sequence, then the rows' own
      ops::fourier_table<T>* all = nullptr;  ///< [batch + 1] what is in them
      T* scratch = nullptr;                  ///< per thread
      index table_size = 0, scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index longest = (std::max)(e.length, in), mark = m.scratch.mark();
      c.real = m.scratch.take<T>(e.rows() * round_up(half, width<T>));
      c.imaginary = m.scratch.take<T>(e.rows() * round_up(half, width<T>));
      c.table_size = ops::fourier_table_values(e.length);
      c.tables = m.scratch.take<T>(e.batch * c.table_size + ops::fourier_table_values(in));
      c.all = m.scratch.take<ops::fourier_table<T>>(e.batch + 1);
      c.scratch_size = ops::fourier_buffers<T>::values(longest, width<T>);
      c.scratch = m.scratch.take<T>(e.threads * c.scratch_size);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>&, view<const T, in> x, view<T, in> y,
                        cache<T>& c, context<T>& ctx) {
      transform<false>(x, y, c, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>&, params<form::gradient<T>>&,
                         view<const T, in>, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      transform<true>(dy, dx, c, ctx);
    }

    /// Does not decode.
    static constexpr index state_values(index) { return 0; }

    /// The usual count of a complex transform, 5 n log2 n, halved for real rows in one direction
    /// and for conjugate columns in the other; logarithms rounded up.
    static constexpr index flops(const extents& e) {
      const auto log2 = [](index n) {
        return static_cast<index>(std::bit_width(static_cast<std::size_t>(n - 1)));
      };
      return 5 * e.rows() * in * (log2(in) + log2(e.length)) / 2;
    }

   private:
    /// y = Re(F_T x F_d), or y += ...; zero at padding.
    template <bool Accumulate, class T>
    static void transform(view<const T, in> x, view<T, in> y, cache<T>& c, context<T>& ctx) {
      constexpr index w = width<T>, column_units = (half + w - 1) / w;
      T* const own = c.scratch + ctx.on.threads.rank() * c.scratch_size;
      ctx.on.threads.each(ctx.batch + 1, [&](index b) {
        const index n = b < ctx.batch ? ctx.length_of(b) : in;
        c.all[b] = ops::make_fourier_table(n, c.tables + b * c.table_size,
                                           {own, ops::fourier_points(n), 1});
      });
      // Two real rows make one complex one: the sums and differences with its mirror are theirs.
      const index row_units = (ctx.length + 2 * w - 1) / (2 * w);
      ctx.on.threads.each(ctx.batch * row_units, [&](index unit) {
        const index b = unit / row_units, first = unit % row_units * 2 * w;
        const index count = (std::min)(2 * w, ctx.length_of(b) - first);
        if (count <= 0) return;
        const index at = b * ctx.length + first;
        ops::fourier_buffers<T> z(own, ops::fourier_points(in), w);
        for (index i = 0; i < w; ++i)
          for (index j = 0; j < in; ++j) {
            z.real[j * w + i] = i < count ? x(at + i, j) : T(0);
            z.imaginary[j * w + i] = i + w < count ? x(at + i + w, j) : T(0);
          }
        ops::fourier(c.all[ctx.batch], w, z);
        for (index j = 0; j < column_units * w; ++j) {
          const index to = ((b * column_units + j / w) * ctx.length + first) * w + j % w;
          const index k = j * w, mirror = (in - j) % in * w;
          for (index i = 0; i < count; ++i) {
            const index one = k + i % w, two = mirror + i % w;
            const bool sums = i < w, real = j < half;
            c.real[to + i * w] = !real  ? T(0)
                                 : sums ? T(0.5) * (z.real[one] + z.real[two])
                                        : T(0.5) * (z.imaginary[one] + z.imaginary[two]);
            c.imaginary[to + i * w] = !real  ? T(0)
                                      : sums ? T(0.5) * (z.imaginary[one] - z.imaginary[two])
                                             : T(0.5) * (z.real[two] - z.real[one]);
          }
        }
      });
      // Column in - j is the conjugate of column j, with the tokens mirrored.
      ctx.on.threads.each(ctx.batch * column_units, [&](index unit) {
        const index b = unit / column_units, first = unit % column_units * w;
        const index count = (std::min)(w, half - first), length = ctx.length_of(b);
        const index at = b * ctx.length;
        const auto put = [](T& to, T value) { to = Accumulate ? to + value : value; };
        ops::fourier_buffers<T> z(own, ops::fourier_points(length), w);
        std::copy_n(c.real + unit * ctx.length * w, length * w, z.real);
        std::copy_n(c.imaginary + unit * ctx.length * w, length * w, z.imaginary);
        ops::fourier(c.all[b], w, z);
        for (index i = 0; i < ctx.length; ++i)
          for (index j = first; j < first + count; ++j) {
            const index mirror = in - j, row = at + (i > 0 && i < length ? length - i : i);
            const T value = i < length ? z.real[i * w + j - first] : T(0);
            put(y(at + i, j), value);
            if (mirror >= half && mirror < in) put(y(row, mirror), value);
          }
      });
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
/// @file
/// Mamba's mixer as a layer: a gated selective state space instead of attention (zoo D11).

/// @file
/// Causal convolution of every channel with a filter of its own, forward and backward.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// One call: y_t = bias + sum_k weight_k x_(t - taps + 1 + k), per channel.
template <class T>
struct causal_convolution_call {
  index batch, length, channels, taps;
  const T* x;  ///< [batch, length, channels], rows `stride` apart
  index stride;
  const T* weight;      ///< [channels, taps], the last tap for the newest token
  const T* bias;        ///< [channels]
  T* window = nullptr;  ///< [batch, taps - 1, channels] the last inputs, from call to call
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null for all
  const index* past = nullptr;     ///< tokens of each sequence before this call, or null

  /// The inputs at token t of sequence b, which may be before this call; null before the first.
  const T* input(index b, index t) const {
    if (t >= 0) return x + (b * length + t) * stride;
    return past && past[b] > 0 ? window + (b * (taps - 1) + taps - 1 + t) * channels : nullptr;
  }
};

/// y[batch, length, channels] = the convolution; with `past`, then moves the window on.
template <class T>
void causal_convolution(const machine& on, const causal_convolution_call<T>& call, T* y) {
  const index channels = call.channels, taps = call.taps;
  on.threads.each(call.batch * call.length, [&](index row) {
    T* const out = y + row * channels;
    std::copy_n(call.bias, channels, out);
    for (index k = 0; k < taps; ++k)
      if (const T* const in = call.input(row / call.length, row % call.length - taps + 1 + k))
        for (index c = 0; c < channels; ++c) out[c] += call.weight[c * taps + k] * in[c];
  });
  if (!call.past) return;
  on.threads.each(call.batch, [&](index b) {
    const index valid = call.lengths ? call.lengths[b] : call.length;
    // Rows move towards the front, so none is overwritten before it is read.
    for (index j = 0; j + 1 < taps; ++j) {
      T* const to = call.window + (b * (taps - 1) + j) * channels;
      if (const T* const from = call.input(b, valid - taps + 1 + j))
        std::copy_n(from, channels, to);
      else
        std::fill_n(to, channels, T(0));
    }
  });
}

/// The derivative of a call without `past`: dx[batch, length, channels], rows `stride` apart, is
/// overwritten; d_weight and d_bias are added to.
template <class T>
void causal_convolution_backward(const machine& on, const causal_convolution_call<T>& call,
                                 const T* dy, T* dx, T* d_weight, T* d_bias) {
  const index channels = call.channels, taps = call.taps, rows = call.batch * call.length;
  on.threads.each(rows, [&](index row) {
    T* const out = dx + row * call.stride;
    std::fill_n(out, channels, T(0));
    for (index ahead = 0; ahead < taps && row % call.length + ahead < call.length; ++ahead)
      for (index c = 0; c < channels; ++c)
        out[c] += call.weight[c * taps + taps - 1 - ahead] * dy[(row + ahead) * channels + c];
  });
  const auto [first, last] = on.threads.share(channels);
  for (index row = 0; row < rows; ++row) {
    const T* const d = dy + row * channels;
    for (index c = first; c < last; ++c) d_bias[c] += d[c];
    for (index k = 0; k < taps; ++k)
      if (const T* const in = call.input(row / call.length, row % call.length - taps + 1 + k))
        for (index c = first; c < last; ++c) d_weight[c * taps + k] += d[c] * in[c];
  }
  on.threads.wait();
}

}  // namespace ops

LINNET_NAMESPACE_END
/// @file
/// The selective scan of Mamba (S6), forward and backward, in blocks of tokens with a state between
/// them (zoo D11; Gu and Dao 2023).

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Tokens between two states that are kept for the backward pass.
inline constexpr index scan_tokens = 32;
/// Channels that run side by side.
inline constexpr index scan_channels = 16;
/// Channels that add their gradients of B and C up before groups are added in order.
inline constexpr index scan_group = 64;

/// Blocks of tokens that `length` tokens make.
constexpr index scan_blocks(index length) { return (length + scan_tokens - 1) / scan_tokens; }
/// Groups of channels.
constexpr index scan_groups(index channels) { return (channels + scan_group - 1) / scan_group; }
/// Scratch values that one thread needs.
constexpr index scan_scratch(index length, index states, bool training) {
  const index wide = scan_channels * states;
  const index tokens = (std::min)(length, scan_tokens);
  const index backward = (2 * tokens + 3) * wide + (tokens + 3) * scan_channels;
  return 3 * wide + scan_channels + (training ? backward : 0);
}
/// Values that the backward pass adds up in a fixed order.
constexpr index scan_partial(index batch, index length, index channels, index states) {
  return batch * (scan_groups(channels) * length * 2 * states + channels * (states + 1));
}

/// One call. Per channel, with A = -exp(a_log): h_t = exp(delta_t A) h_(t-1) + delta_t x_t B_t,
/// y_t = h_t . C_t + D x_t, out_t = y_t silu(z_t).
template <class T>
struct scan_call {
  index batch, length, channels, states;
  const T *x, *delta;  ///< [batch, length, channels]; delta > 0
  const T *b, *c;      ///< [batch, length, states], rows `bc_stride` apart
  index bc_stride;
  const T* z;  ///< [batch, length, channels], rows `z_stride` apart
  index z_stride;
  const T* a_log;           ///< [channels, states]
  const T* d;               ///< [channels]
  T* out;                   ///< [batch, length, channels]; zero at padding
  T* state = nullptr;       ///< [batch, channels, states] from call to call, with `past`
  T* boundaries = nullptr;  ///< [batch, blocks, channels, states] h before each block of tokens,
                            ///< for the backward pass
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null for all
  const index* past = nullptr;     ///< tokens of each sequence before this call, or null
  T* scratch = nullptr;            ///< per thread, scan_scratch() values
  index scratch_size = 0;

  /// Valid tokens of sequence `i`.
  index valid(index i) const { return lengths ? lengths[i] : length; }
};

/// Gradients of a call. Those of a_log and d are added to, the others overwritten, in the layouts
/// of what they belong to.
template <class T>
struct scan_gradient {
  const T* d_out;
  T *dx, *d_delta, *db, *dc, *dz, *d_a_log, *dd;
  T* partial;  ///< scan_partial() values
};

namespace detail {

/// Some channels of one sequence.
template <class Kernels, class T>
struct scan_unit {
  const scan_call<T>& call;
  index s, first, count, states, wide;
  T *next, *a, *own, *decay, *y;

  scan_unit(const scan_call<T>& k, index sequence, index channel, index channels, int rank)
      : call(k),
        s(sequence),
        first(channel),
        count(channels),
        states(k.states),
        wide(channels * k.states),
        next(k.scratch + rank * k.scratch_size) {
    a = take(wide);
    own = take(wide);
    decay = take(wide);
    y = take(count);
    std::copy_n(call.a_log + first * states, wide, a);
    (void)Kernels::template exp_sum<T>(wide, T(0), a);
    for (index i = 0; i < wide; ++i) a[i] = -a[i];
  }
  T* take(index values) {
    T* const here = next;
    next += values;
    return here;
  }
  index row(index t) const { return s * call.length + t; }
  const T* x(index t) const { return call.x + row(t) * call.channels + first; }
  const T* delta(index t) const { return call.delta + row(t) * call.channels + first; }
  const T* b(index t) const { return call.b + row(t) * call.bc_stride; }
  const T* c(index t) const { return call.c + row(t) * call.bc_stride; }
  const T* z(index t) const { return call.z + row(t) * call.z_stride + first; }
  T* boundary(index t) const {
    const index block = s * scan_blocks(call.length) + t / scan_tokens;
    return call.boundaries + (block * call.channels + first) * states;
  }

  /// e[wide] = exp(delta A), to = e h + delta x B, values = to . C + D x, for token t.
  void step(index t, const T* h, T* e, T* to, T* values) const {
    Kernels::template scan_step<T>(count, states, delta(t), x(t), a, b(t), c(t), h, e, to, values);
    for (index i = 0; i < count; ++i) values[i] += call.d[first + i] * x(t)[i];
  }

  void forward() const {
    T* const h = call.past ? call.state + (s * call.channels + first) * states : own;
    if (!call.past || call.past[s] == 0) std::fill_n(h, wide, T(0));
    for (index t = 0; t < call.valid(s); ++t) {
      if (call.boundaries && t % scan_tokens == 0) std::copy_n(h, wide, boundary(t));
      step(t, h, decay, h, y);
      Kernels::template gated<activation_kind::silu, T>(count, z(t), y,
                                                        call.out + row(t) * call.channels + first);
    }
    for (index t = call.valid(s); t < call.length; ++t)
      std::fill_n(call.out + row(t) * call.channels + first, count, T(0));
  }

  /// Adds to d_bc[length, 2 states], d_a_log[wide] and dd[count]; overwrites the rest.
  void backward(const scan_gradient<T>& grad, T* d_bc, T* d_a_log, T* dd) {
    const index tokens = (std::min)(call.length, scan_tokens), valid = call.valid(s);
    T* const h = take((tokens + 1) * wide);  // before each token of the block, and after the last
    T* const e = take(tokens * wide);
    T* const ys = take(tokens * count);
    T* const carried = take(wide);  // exp(delta A) times the gradient of h, of the token after
    T* const da = take(wide);
    T *const dy = take(count), *const d_input = take(count), *const d_decay = take(count);
    std::fill_n(da, wide, T(0));
    std::fill_n(carried, wide, T(0));
    for (index t = valid; t < call.length; ++t) {
      std::fill_n(grad.dx + row(t) * call.channels + first, count, T(0));
      std::fill_n(grad.d_delta + row(t) * call.channels + first, count, T(0));
      std::fill_n(grad.dz + row(t) * call.z_stride + first, count, T(0));
    }
    for (index block = scan_blocks(valid); block-- > 0;) {
      const index t0 = block * scan_tokens, rows = (std::min)(tokens, valid - t0);
      std::copy_n(boundary(t0), wide, h);
      for (index i = 0; i < rows; ++i)
        step(t0 + i, h + i * wide, e + i * wide, h + (i + 1) * wide, ys + i * count);
      for (index i = rows; i-- > 0;) {
        const index t = t0 + i, at = row(t) * call.channels + first;
        const T *const xt = x(t), *const dt = delta(t);
        Kernels::template gated_backward<activation_kind::silu, T>(
            count, z(t), ys + i * count, grad.d_out + at, grad.dz + row(t) * call.z_stride + first,
            dy);
        Kernels::template scan_step_backward<T>(
            count, states, dt, xt, a, b(t), c(t), h + i * wide, e + i * wide, h + (i + 1) * wide,
            dy, carried, da, d_bc + 2 * t * states, d_bc + (2 * t + 1) * states, d_input, d_decay);
        for (index j = 0; j < count; ++j) {
          grad.dx[at + j] = dt[j] * d_input[j] + call.d[first + j] * dy[j];
          grad.d_delta[at + j] = xt[j] * d_input[j] + d_decay[j];
          dd[j] += dy[j] * xt[j];
        }
      }
    }
    for (index j = 0; j < wide; ++j) d_a_log[j] += da[j] * a[j];
  }
};

}  // namespace detail

/// The scan, split over sequences and channels.
template <class T>
void selective_scan(const machine& on, const scan_call<T>& call) {
  const index units = (call.channels + scan_channels - 1) / scan_channels;
  on.threads.each(call.batch * units, [&](index unit) {
    const index first = unit % units * scan_channels;
    simd::dispatch(on.level, [&](auto kernels) {
      detail::scan_unit<decltype(kernels), T>(call, unit / units, first,
                                              (std::min)(scan_channels, call.channels - first),
                                              on.threads.rank())
          .forward();
    });
  });
}

/// The derivative of selective_scan() from a call with `boundaries`. The states inside a block are
/// computed again; sums over channels and sequences run in a fixed order.
template <class T>
void selective_scan_backward(const machine& on, const scan_call<T>& call,
                             const scan_gradient<T>& grad) {
  const index states = call.states, groups = scan_groups(call.channels);
  const index block = call.length * 2 * states;
  T* const d_bc = grad.partial;                                 // [batch, groups, length, 2 states]
  T* const d_a_log = d_bc + call.batch * groups * block;        // [batch, channels, states]
  T* const dd = d_a_log + call.batch * call.channels * states;  // [batch, channels]
  on.threads.each(call.batch * groups, [&](index unit) {
    const index s = unit / groups, begin = unit % groups * scan_group;
    const index end = (std::min)(begin + scan_group, call.channels);
    const index at = s * call.channels + begin;
    std::fill_n(d_bc + unit * block, block, T(0));
    std::fill_n(d_a_log + at * states, (end - begin) * states, T(0));
    std::fill_n(dd + at, end - begin, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      for (index first = begin; first < end; first += scan_channels)
        detail::scan_unit<decltype(kernels), T>(
            call, s, first, (std::min)(scan_channels, end - first), on.threads.rank())
            .backward(grad, d_bc + unit * block, d_a_log + (s * call.channels + first) * states,
                      dd + s * call.channels + first);
    });
  });
  on.threads.each(call.batch * call.length, [&](index row) {
    const index s = row / call.length, t = row % call.length;
    for (index n = 0; n < states; ++n) {
      T db = 0, dc = 0;
      for (index group = 0; group < groups; ++group) {
        const T* const from = d_bc + (s * groups + group) * block + 2 * t * states;
        db += from[n];
        dc += from[states + n];
      }
      grad.db[row * call.bc_stride + n] = db;
      grad.dc[row * call.bc_stride + n] = dc;
    }
  });
  on.threads.each(call.channels, [&](index channel) {
    for (index s = 0; s < call.batch; ++s) {
      grad.dd[channel] += dd[s * call.channels + channel];
      for (index n = 0; n < states; ++n)
        grad.d_a_log[channel * states + n] += d_a_log[(s * call.channels + channel) * states + n];
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace mixer {

/// Mamba (Gu and Dao 2023; zoo D11), S6: [x, z] = in_proj u, x = silu(causal depthwise convolution
/// of x), [delta, B, C] = x_proj x, delta = softplus(dt_proj delta), a scan over the tokens with
/// `State` numbers for each of the `Expand` d_model channels, y silu(z), out_proj. Time and memory
/// are linear in the length; decoding keeps Expand d_model (State + Conv - 1) numbers, whatever the
/// length. Causal, without heads and positions: a block of Mamba is decoder<shape, mixer::mamba<>,
/// ffn::skip, position::none>.
template <index State = 16, index Conv = 4, index Expand = 2>
struct mamba : attention::policy {
  static_assert(State > 0 && Conv > 0 && Expand > 0,
                "linnet::mixer::mamba<State, Conv, Expand>: all three must be positive");
  static constexpr index state = State, conv = Conv, expand = Expand;
  static constexpr bool bidirectional = false;
  static constexpr bool rewinds = false;  ///< the state cannot forget its last tokens
  static std::string name() {
    return "mamba<" + std::to_string(State) + ", " + std::to_string(Conv) + ", " +
           std::to_string(Expand) + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal, "linnet::mixer::mamba: sees earlier tokens only; it fits decoders");
    static_assert(!A.cross, "linnet::mixer::mamba: mixes one sequence; it has no cross-attention");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::mamba: has no rotary positions; add position::none (or learned, "
                  "sinusoidal)");
    static constexpr index in = A.d_model, out = A.d_model;
    static constexpr index inner = Expand * in;       ///< channels
    static constexpr index rank = (in + 15) / 16;     ///< of the map to delta
    static constexpr index mixed = rank + 2 * State;  ///< delta, B and C side by side
    using to_inner = linnet::linear<in, 2 * inner, A.bias>;
    using to_mixed = linnet::linear<inner, mixed>;
    using to_delta = linnet::linear<rank, inner, true>;
    using to_output = linnet::linear<inner, out, A.bias>;

    template <class Form>
    struct params {
      typename to_inner::template params<Form> in_proj{};
      typename Form::vector conv_weight{}, conv_bias{};  ///< [inner, Conv], [inner]
      typename to_mixed::template params<Form> x_proj{};
      typename to_delta::template params<Form> dt_proj{};
      typename Form::vector a_log{}, d{};  ///< [inner, State], [inner]
      typename to_output::template params<Form> out_proj{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      const auto timed = [&](const path& where, const tensor_info& info, auto&... leaf) {
        tensor_info changed = info;
        changed.start = info.kind == role::bias ? &initial_delta : &uniform<rank>;
        f(where, changed, leaf...);
      };
      to_inner::visit(f, at / "in_proj", p.in_proj...);
      const path filter = at / "conv";
      // The filters are no linear map: a table that is stored in full and decays.
      f(filter / "weight", tensor_info{inner, Conv, role::position, 0, &uniform<Conv>},
        p.conv_weight...);
      f(filter / "bias", tensor_info{1, inner, role::bias, 0, &uniform<Conv>}, p.conv_bias...);
      to_mixed::visit(f, at / "x_proj", p.x_proj...);
      to_delta::visit(timed, at / "dt_proj", p.dt_proj...);
      // No weight decay on these two, as on biases.
      f(at / "A_log", tensor_info{inner, State, role::bias, 0, &initial_a_log}, p.a_log...);
      f(at / "D", tensor_info{1, inner, role::bias, 0, &one}, p.d...);
      to_output::visit(f, at / "out_proj", p.out_proj...);
    }

    template <class T>
    struct cache {
      T* xz = nullptr;          ///< [rows, 2 inner]
      T* filtered = nullptr;    ///< [rows, inner] before silu or softplus
      T* x = nullptr;           ///< [rows, inner] after silu
      T* dbc = nullptr;         ///< [rows, mixed]
      T* low = nullptr;         ///< [rows, rank] the first columns of dbc
      T* delta = nullptr;       ///< [rows, inner]
      T* gated = nullptr;       ///< [rows, inner]
      T* window = nullptr;      ///< [batch, Conv - 1, inner] while decoding
      T* state = nullptr;       ///< [batch, inner, State] while decoding
      T* boundaries = nullptr;  ///< [batch, blocks, inner, State] while training
      T *d_xz = nullptr, *d_x = nullptr, *d_dbc = nullptr, *d_low = nullptr, *d_delta = nullptr,
        *d_gated = nullptr, *d_filtered = nullptr, *partial = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      cache<T> c;
      const index rows = e.rows();
      m.product(rows, in, 2 * inner, e);
      m.product(rows, inner, mixed, e);
      m.product(rows, rank, inner, e);
      m.product(rows, inner, out, e);
      if (e.capacity > 0) {
        c.window = m.state.take<T>(e.batch * (Conv - 1) * inner);
        c.state = m.state.take<T>(e.batch * inner * State);
      }
      c.xz = m.keep.take<T>(rows * 2 * inner);
      c.x = m.keep.take<T>(rows * inner);
      c.dbc = m.keep.take<T>(rows * mixed);
      c.low = m.keep.take<T>(rows * rank);
      c.delta = m.keep.take<T>(rows * inner);
      c.gated = m.keep.take<T>(rows * inner);
      const index mark = m.scratch.mark();
      c.filtered = m.scratch.take<T>(rows * inner);
      if (e.training) {
        c.boundaries = m.keep.take<T>(e.batch * ops::scan_blocks(e.length) * inner * State);
        c.d_xz = m.scratch.take<T>(rows * 2 * inner);
        c.d_x = m.scratch.take<T>(rows * inner);
        c.d_dbc = m.scratch.take<T>(rows * mixed);
        c.d_low = m.scratch.take<T>(rows * rank);
        c.d_delta = m.scratch.take<T>(rows * inner);
        c.d_gated = m.scratch.take<T>(rows * inner);
        c.d_filtered = m.scratch.take<T>(rows * inner);
        c.partial = m.scratch.take<T>(ops::scan_partial(e.batch, e.length, inner, State));
      }
      c.scratch_size = ops::scan_scratch(e.length, State, e.training);
      c.scratch = m.scratch.take<T>(e.threads * c.scratch_size);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, in> u, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = u.rows();
      to_inner::template forward<T, S>(p.in_proj, u, {c.xz, rows}, none, ctx);
      ops::causal_convolution(ctx.on, convolution(p, c, ctx), c.filtered);
      ops::activation<activation_kind::silu>(ctx.on, rows * inner, c.filtered, c.x);
      to_mixed::template forward<T, S>(p.x_proj, {c.x, rows}, {c.dbc, rows}, none, ctx);
      ctx.on.threads.each(
          rows, [&](index row) { std::copy_n(c.dbc + row * mixed, rank, c.low + row * rank); });
      to_delta::template forward<T, S>(p.dt_proj, {c.low, rows}, {c.delta, rows}, none, ctx);
      ops::softplus(ctx.on, rows * inner, c.delta);
      ops::selective_scan(ctx.on, scan(p, c, ctx));
      to_output::template forward<T, S>(p.out_proj, {c.gated, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> u, view<const T, out> dy, view<T, in> du, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = u.rows();
      const auto zero = [&](T* x, index width) { ops::fill(ctx.on, rows * width, T(0), x); };
      zero(c.d_gated, inner);
      to_output::template backward<T, S>(p.out_proj, dp.out_proj, {c.gated, rows}, dy,
                                         {c.d_gated, rows}, none, ctx);
      ops::selective_scan_backward(
          ctx.on, scan(p, c, ctx),
          ops::scan_gradient<T>{c.d_gated, c.d_x, c.d_delta, c.d_dbc + rank, c.d_dbc + rank + State,
                                c.d_xz + inner, dp.a_log, dp.d, c.partial});
      // What softplus was taken of is cheap to compute again.
      to_delta::template forward<T, S>(p.dt_proj, {c.low, rows}, {c.filtered, rows}, none, ctx);
      ops::softplus_backward(ctx.on, rows * inner, c.filtered, c.d_delta);
      zero(c.d_low, rank);
      to_delta::template backward<T, S>(p.dt_proj, dp.dt_proj, {c.low, rows}, {c.d_delta, rows},
                                        {c.d_low, rows}, none, ctx);
      ctx.on.threads.each(
          rows, [&](index row) { std::copy_n(c.d_low + row * rank, rank, c.d_dbc + row * mixed); });
      to_mixed::template backward<T, S>(p.x_proj, dp.x_proj, {c.x, rows}, {c.d_dbc, rows},
                                        {c.d_x, rows}, none, ctx);
      ops::causal_convolution(ctx.on, convolution(p, c, ctx), c.filtered);
      zero(c.d_filtered, inner);
      ops::activation_backward<activation_kind::silu>(ctx.on, rows * inner, c.filtered, c.d_x,
                                                      c.d_filtered);
      ops::causal_convolution_backward(ctx.on, convolution(p, c, ctx), c.d_filtered, c.d_xz,
                                       dp.conv_weight, dp.conv_bias);
      to_inner::template backward<T, S>(p.in_proj, dp.in_proj, u, {c.d_xz, rows}, du, none, ctx);
    }

    /// Numbers of the state of one sequence; the same for any number of tokens.
    static constexpr index state_values(index) { return inner * (State + Conv - 1); }

    /// The state of one sequence becomes another's.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      copy_sequence(c.window, (Conv - 1) * inner, from, to, part);
      copy_sequence(c.state, inner * State, from, to, part);
    }
    /// The scan counts 9 for each token and number of the state (zoo D11).
    static constexpr index flops(const extents& e) {
      return to_inner::flops(e) + to_mixed::flops(e) + to_delta::flops(e) + to_output::flops(e) +
             e.rows() * inner * (2 * Conv + 9 * State);
    }

   private:
    template <index Width>
    static double uniform(const path&, index, random_stream& random) {
      return (2 * random.uniform() - 1) / linnet::detail::root(Width);
    }
    static double one(const path&, index, random_stream&) { return 1; }
    static double initial_a_log(const path&, index i, random_stream&) {
      return std::log(static_cast<double>(i % State + 1));
    }
    /// softplus^-1(dt) with dt log-uniform in [0.001, 0.1].
    static double initial_delta(const path&, index, random_stream& random) {
      const double dt = 0.001 * std::pow(100.0, random.uniform());
      return dt + std::log(-std::expm1(-dt));
    }

    template <class T, class S>
    static ops::causal_convolution_call<T> convolution(const params<form::kernel<T, S>>& p,
                                                       const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,     ctx.length,  inner,    Conv,        c.xz,    2 * inner,
              p.conv_weight, p.conv_bias, c.window, ctx.lengths, ctx.past};
    }
    template <class T, class S>
    static ops::scan_call<T> scan(const params<form::kernel<T, S>>& p, const cache<T>& c,
                                  const context<T>& ctx) {
      ops::scan_call<T> s{};
      s.batch = ctx.batch;
      s.length = ctx.length;
      s.channels = inner;
      s.states = State;
      s.x = c.x;
      s.delta = c.delta;
      s.b = c.dbc + rank;
      s.c = c.dbc + rank + State;
      s.bc_stride = mixed;
      s.z = c.xz + inner;
      s.z_stride = 2 * inner;
      s.a_log = p.a_log;
      s.d = p.d;
      s.out = c.gated;
      s.state = c.state;
      s.boundaries = c.boundaries;
      s.lengths = ctx.lengths;
      s.past = ctx.past;
      s.scratch = c.scratch;
      s.scratch_size = c.scratch_size;
      return s;
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
/// @file
/// Text as it is generated: whole characters only, and nothing that may turn out to be a stop
/// string.

#include <initializer_list>

LINNET_NAMESPACE_BEGIN

/// Takes a text in pieces of bytes, cut anywhere, and hands on what is certain as soon as it is:
///  - A UTF-8 sequence is handed on whole. Bytes that belong to no well-formed sequence (Unicode
///    15, table 3-7) are handed on as they are, once it is certain that they belong to none.
///  - What may be the beginning of a stop string waits until that is decided. The text ends before
///    the first stop string to be complete, of several complete at the same byte before the
///    longest; that string and all behind it are dropped.
///
/// Memory is taken by the constructor; nothing allocates afterwards.
class text_stream {
 public:
  /// Ends at any of these strings; empty ones are left out.
  template <class Strings>
  explicit text_stream(const Strings& stops) {
    std::size_t longest = 4;
    for (const auto& s : stops) {
      const std::string_view text(s);
      if (text.empty()) continue;
      stops_.push_back({std::string(text), prefixes_of(text), 0});
      longest = (std::max)(longest, text.size());
    }
    held_.resize(longest + chunk);
  }
  /// @copydoc text_stream(const Strings&)
  text_stream(std::initializer_list<std::string_view> stops = {})
      : text_stream(std::span(stops.begin(), stops.size())) {}

  /// The next bytes. Calls emit(std::string_view) for what has become certain, no or more times,
  /// never with nothing. Returns whether the text goes on: false from the first stop string on.
  template <class Emit>
  bool push(std::string_view bytes, Emit&& emit) {
    for (const char c : bytes) {
      if (stopped_) return false;
      held_[size_++] = c;
      std::size_t possible = 0;  // of the last bytes, those that may begin a stop string
      for (needle& n : stops_) {
        n.advance(c);
        if (n.matched == n.text.size()) {
          stopped_ = true;
          complete_ = (std::max)(complete_, n.matched);
        }
        possible = (std::max)(possible, n.matched);
      }
      if (stopped_) {
        size_ -= complete_;
        release(size_, emit);
        waiting_ = 0;
        return false;
      }
      waiting_ = possible;
      if (size_ == held_.size()) release(certain(), emit);
    }
    release(certain(), emit);
    return !stopped_;
  }
  /// The end of the text: hands on what has waited, and begins a new text.
  template <class Emit>
  void flush(Emit&& emit) {
    if (!stopped_) release(size_, emit);
    reset();
  }
  /// Forgets the text and begins a new one.
  void reset() {
    size_ = waiting_ = complete_ = 0;
    stopped_ = false;
    for (needle& n : stops_) n.matched = 0;
  }
  /// Whether a stop string has ended the text.
  bool stopped() const { return stopped_; }

  /// Bytes of the well-formed UTF-8 sequence that `text` begins with; 1 for a byte that begins
  /// none, 0 if more bytes are needed to tell. `text` must not be empty.
  static constexpr std::size_t sequence(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(0);
    const std::size_t length = lead < 0xc2 || lead > 0xf4 ? 1
                               : lead < 0xe0              ? 2
                               : lead < 0xf0              ? 3
                                                          : 4;
    if (length == 1) return 1;
    for (std::size_t i = 1; i < length; ++i) {
      if (i == text.size()) return 0;
      // The second byte has a narrower range behind some leads: no overlong forms, surrogates or
      // numbers above U+10FFFF.
      const unsigned low = i > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
      const unsigned high = i > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
      if (byte(i) < low || byte(i) > high) return 1;
    }
    return length;
  }

 private:
  static constexpr std::size_t chunk = 256;  ///< bytes that are gathered before they are handed on

  /// A stop string and how much of it the text ends with (Knuth, Morris and Pratt 1977).
  struct needle {
    std::string text;
    std::vector<std::size_t> prefixes;  ///< [i]: longest proper prefix that text[0, i] ends with
    std::size_t matched;

    void advance(char c) {
      while (matched > 0 && text[matched] != c) matched = prefixes[matched - 1];
      if (text[matched] == c) ++matched;
    }
  };
  static std::vector<std::size_t> prefixes_of(std::string_view text) {
    std::vector<std::size_t> all(text.size(), 0);
    for (std::size_t i = 1; i < text.size(); ++i) {
      std::size_t k = all[i - 1];
      while (k > 0 && text[k] != text[i]) k = all[k - 1];
      all[i] = text[k] == text[i] ? k + 1 : 0;
    }
    return all;
  }

  /// Bytes held that can be handed on: whole sequences before what may begin a stop string.
  std::size_t certain() const {
    const std::string_view held(held_.data(), size_);
    std::size_t end = 0;
    while (end < size_ - waiting_) {
      const std::size_t n = sequence(held.substr(end));
      if (n == 0 || end + n > size_ - waiting_) break;
      end += n;
    }
    return end;
  }
  template <class Emit>
  void release(std::size_t count, Emit& emit) {
    if (count == 0) return;
    emit(std::string_view(held_.data(), count));
    std::copy(held_.begin() + static_cast<index>(count), held_.begin() + static_cast<index>(size_),
              held_.begin());
    size_ -= count;
  }

  std::vector<needle> stops_;
  std::string held_;          ///< the last bytes, not handed on yet
  std::size_t size_ = 0;      ///< how many
  std::size_t waiting_ = 0;   ///< the last of them, which may begin a stop string
  std::size_t complete_ = 0;  ///< bytes of the stop string that ended the text
  bool stopped_ = false;
};

LINNET_NAMESPACE_END
/// @file
/// Adafactor: an optimizer whose memory is one row and one column of each large matrix.

/// @file
/// Learning-rate schedules.

LINNET_NAMESPACE_BEGIN

/// The learning rate of each step (zoo A10, C9); steps count from 1.
struct schedule {
  enum class kind { constant, cosine, inverse_sqrt, inverse_sqrt_linear };

  kind form = kind::constant;
  double peak = 1e-3;  ///< highest rate; for the inverse square roots the factor
  double floor = 0;    ///< rate at the end of a cosine
  index warmup = 0;    ///< steps of warm-up
  index steps = 1;     ///< last step of a cosine

  /// The same rate throughout.
  static constexpr schedule constant(double rate) { return {kind::constant, rate, 0, 0, 1}; }
  /// Linear warm-up to `peak`, then half a cosine down to `floor` at step `steps`.
  static constexpr schedule cosine(double peak, index warmup, index steps, double floor = 0) {
    return {kind::cosine, peak, floor, warmup, steps};
  }
  /// T5: factor / sqrt(max(t, warmup)), so constant during warm-up.
  static constexpr schedule inverse_sqrt(index warmup = 10000, double factor = 1) {
    return {kind::inverse_sqrt, factor, 0, warmup, 1};
  }
  /// t5x: factor * min(1, t / warmup) / sqrt(max(t, warmup)).
  static constexpr schedule inverse_sqrt_linear(index warmup = 20000, double factor = 1) {
    return {kind::inverse_sqrt_linear, factor, 0, warmup, 1};
  }

  /// The rate of step `t` >= 1.
  double at(index t) const {
    const auto now = static_cast<double>(t), w = static_cast<double>(warmup);
    switch (form) {
      case kind::constant:
        return peak;
      case kind::cosine: {
        if (t < warmup) return peak * now / w;
        if (t >= steps) return floor;
        const double progress = (now - w) / (static_cast<double>(steps) - w);
        return floor + 0.5 * (peak - floor) * (1 + std::cos(3.14159265358979323846 * progress));
      }
      case kind::inverse_sqrt:
        return peak / std::sqrt(t > warmup ? now : w > 1 ? w : 1);
      case kind::inverse_sqrt_linear:
        return peak * (t < warmup ? now / w : 1) / std::sqrt(t > warmup ? now : w > 1 ? w : 1);
    }
    return peak;
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Averages of the squared gradient of one tensor: of its rows and columns, or (without `columns`)
/// of each value.
template <class T>
struct second_moment {
  T* rows = nullptr;
  T* columns = nullptr;

  /// Whether a tensor is kept as rows and columns.
  static constexpr bool factors(const tensor_info& info) {
    return info.rows >= 128 && info.columns >= 128;
  }
};
/// The form of a params tree that holds these.
template <class T>
struct second_moment_form {
  using matrix = second_moment<T>;
  using vector = second_moment<T>;
};
template <class T>
constexpr void place(arena& memory, const tensor_info& info, second_moment<T>& leaf) {
  if (info.kind == role::average) return;  // no gradient, see follow_averages()
  const bool factored = second_moment<T>::factors(info);
  leaf.rows = memory.take<T>(factored ? info.rows : info.size());
  if (factored) leaf.columns = memory.take<T>(info.columns);
}

/// f(0) + ... + f(n - 1) in eight fixed lanes.
template <class F>
double sum_in_lanes(index n, F&& f) {
  double lane[8] = {};
  index i = 0;
  for (; i + 8 <= n; i += 8)
    for (index k = 0; k < 8; ++k) lane[k] += f(i + k);
  for (index k = 0; i + k < n; ++k) lane[k] += f(i + k);
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

}  // namespace detail

/// Adafactor without momentum (Shazeer and Stern 2018, 1804.04235; zoo A11), as t5x sets it: steps
/// are relative to the size of the weights, so rates are those of schedule::inverse_sqrt().
struct adafactor {
  schedule rate = schedule::inverse_sqrt();
  double decay = 0.8;           ///< step t keeps 1 - t^-decay of the averages
  double clip = 1;              ///< largest RMS of a tensor's update
  double eps_gradient = 1e-30;  ///< added to squared gradients
  double eps_weights = 1e-3;    ///< smallest size that the RMS of a tensor's weights counts as

  /// What checkpoints call it.
  static constexpr std::string_view name() { return "adafactor"; }

  /// What it remembers: moving averages of the squared gradient; of a tensor with 128 rows and
  /// columns or more those of its rows and of its columns alone.
  template <class M, class T>
  class state {
   public:
    static constexpr index bytes() { return moments::bytes() + sums(nullptr, 0).bytes; }
    state() : memory_(sums(nullptr, 0).bytes) {}
    bool valid() const { return moments_.valid() && memory_.data(); }
    /// Calls f(name, bytes) for each block of memory that continuing needs.
    template <class F>
    void visit(F&& f) {
      f("second", moments_.block());
    }

   private:
    friend adafactor;
    using moments = detail::tensor_block<M, detail::second_moment_form<T>>;

    /// Temporary sums over one tensor: of the squares in each line (a row, or some values of a
    /// tensor that is not factored) of its weights and of its update; and its columns.
    struct sums {
      double *weights = nullptr, *updates = nullptr, *columns = nullptr;
      index bytes = 0;

      constexpr sums(void* block, index size) {
        index lines = 1, most = 1;
        M::visit(
            [&](const path&, const tensor_info& info) {
              const bool factored = detail::second_moment<T>::factors(info);
              lines = (std::max)(lines, factored ? info.rows : pieces(info.size()));
              most = (std::max)(most, factored ? info.columns : 1);
            },
            path{});
        arena all = block ? arena(block, size) : arena();
        weights = all.template take<double>(lines);
        updates = all.template take<double>(lines);
        columns = all.template take<double>(most);
        bytes = all.peak();
      }
    };

    moments moments_;
    memory_block memory_;
  };

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team; sums
  /// run in a fixed order, so any number of threads gives the same bits.
  template <class M, class T>
  void update(const ops::machine& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const typename state<M, T>::sums sums(s.memory_.data(), s.memory_.size());
    const double lr = rate.at(t), keep = 1 - std::pow(static_cast<double>(t), -decay);
    M::visit(
        [&](const path&, const tensor_info& info, auto& values, const auto& gradient, auto& v) {
          if (info.kind == role::average) return;
          T* data = nullptr;
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
            data = values;
          else
            data = values.data;
          if (v.columns)
            by_rows_and_columns(on, info, lr, keep, gradient_scale, gradient, v, data, sums);
          else
            by_values(on, info, lr, keep, gradient_scale, gradient, v.rows, data, sums);
        },
        path{}, w.tree(), g.tree(), s.moments_.tree());
  }

 private:
  static constexpr index piece = 4096;  // values of a line, where a tensor is not factored
  static constexpr index pieces(index n) { return (n + piece - 1) / piece; }

  /// The average with another squared gradient.
  double follow(double keep, double average, double square) const {
    return keep * average + (1 - keep) * (square + eps_gradient);
  }
  /// Rate of a tensor, from the squares of its weights and of its update.
  template <class Sums>
  double step_of(const tensor_info& info, index lines, double lr, const Sums& sums) const {
    double weights = 0, updates = 0;
    for (index i = 0; i < lines; ++i) {
      weights += sums.weights[i];
      updates += sums.updates[i];
    }
    const auto n = static_cast<double>(info.size());
    return lr * (std::max)(eps_weights, std::sqrt(weights / n)) /
           (std::max)(1.0, std::sqrt(updates / n) / clip);
  }

  /// u = g / sqrt(v) for each value.
  template <class T, class Sums>
  void by_values(const ops::machine& on, const tensor_info& info, double lr, double keep,
                 double scale, const T* g, T* v, T* w, const Sums& sums) const {
    const index lines = pieces(info.size());
    const auto count_at = [&](index at) { return (std::min)(piece, info.size() - at); };
    on.threads.each(lines, [&](index line) {
      const index at = line * piece, count = count_at(at);
      for (index i = at; i < at + count; ++i) {
        const double x = scale * static_cast<double>(g[i]);
        v[i] = static_cast<T>(follow(keep, static_cast<double>(v[i]), x * x));
      }
      sums.updates[line] = detail::sum_in_lanes(count, [&](index i) {
        const double x = scale * static_cast<double>(g[at + i]);
        return x * x / static_cast<double>(v[at + i]);
      });
      sums.weights[line] = squares(count, w + at);
    });
    const double step = scale * step_of(info, lines, lr, sums);
    on.threads.each(lines, [&](index line) {
      const index at = line * piece, count = count_at(at);
      for (index i = at; i < at + count; ++i)
        w[i] = static_cast<T>(static_cast<double>(w[i]) - step * static_cast<double>(g[i]) /
                                                              std::sqrt(static_cast<double>(v[i])));
    });
  }

  /// u = g / sqrt(v) with v[i, j] = rows[i] columns[j] / mean(rows), so u is g times a factor of
  /// its row and one of its column.
  template <class T, class Sums>
  void by_rows_and_columns(const ops::machine& on, const tensor_info& info, double lr, double keep,
                           double scale, const T* g, const detail::second_moment<T>& v, T* w,
                           const Sums& sums) const {
    const index m = info.rows, n = info.columns;
    const double square = scale * scale;
    on.threads.each(m, [&](index i) {
      v.rows[i] = static_cast<T>(follow(keep, static_cast<double>(v.rows[i]),
                                        square * squares(n, g + i * n) / static_cast<double>(n)));
      sums.weights[i] = squares(n, w + i * n);
    });
    ops::detail::in_slices<double>(on, n, [&](index at, index count) {
      double* const factor = sums.columns + at;
      T* const average = v.columns + at;
      std::fill_n(factor, count, 0.0);
      for (index i = 0; i < m; ++i)
        for (index j = 0; j < count; ++j) {
          const auto x = static_cast<double>(g[i * n + at + j]);
          factor[j] += x * x;
        }
      for (index j = 0; j < count; ++j) {
        average[j] = static_cast<T>(follow(keep, static_cast<double>(average[j]),
                                           square * factor[j] / static_cast<double>(m)));
        factor[j] = 1 / std::sqrt(static_cast<double>(average[j]));
      }
    });
    double mean = 0;
    for (index i = 0; i < m; ++i) mean += static_cast<double>(v.rows[i]);
    mean /= static_cast<double>(m);
    const auto row_factor = [&](index i) {
      return scale * std::sqrt(mean / static_cast<double>(v.rows[i]));
    };
    on.threads.each(m, [&](index i) {
      const T* const x = g + i * n;
      const double factor = row_factor(i);
      sums.updates[i] = detail::sum_in_lanes(n, [&](index j) {
        const double u = factor * static_cast<double>(x[j]) * sums.columns[j];
        return u * u;
      });
    });
    const double step = step_of(info, m, lr, sums);
    on.threads.each(m, [&](index i) {
      const T* const x = g + i * n;
      T* const y = w + i * n;
      const double factor = step * row_factor(i);
      for (index j = 0; j < n; ++j)
        y[j] = static_cast<T>(static_cast<double>(y[j]) -
                              factor * static_cast<double>(x[j]) * sums.columns[j]);
    });
  }

  template <class T>
  static double squares(index n, const T* x) {
    return detail::sum_in_lanes(
        n, [&](index i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); });
  }
};

LINNET_NAMESPACE_END
/// @file
/// Knowledge distillation from models in memory: one or more teachers, of other types than the
/// student, whose logits are made chunk by chunk beside the student's.

/// @file
/// The loss of knowledge distillation (Hinton et al. 2015; equations 3.1 to 3.3 of Berkeley's
/// UCB/EECS-2023-141, zoo B3): the student's cross-entropy with the labels and, at a temperature,
/// with its teachers.

LINNET_NAMESPACE_BEGIN

/// How a student learns from teachers. With p_j(tau) = softmax(logits / tau)_j, a token's loss is
///   alpha (cross-entropy with the label + z-loss) - (1 - alpha) tau^2 sum_k p_k^t log p_k^s,
/// both at the temperature tau; p^t is the mixture of the teachers' probabilities. Like the hard
/// loss it is summed over the tokens that are not `ignored`, and the trainer divides by their
/// number. The second part is tau^2 (KL(p^t || p^s) + the entropy of p^t), so it is not zero for a
/// perfect student, but its gradient by the student's logits, (1 - alpha) tau (p^s - p^t), is.
struct distillation {
  double alpha = 0.1;      ///< weight of the hard loss, 0 to 1; at 1 no teacher is asked
  double temperature = 3;  ///< tau, positive
  std::array<double, 4> shares{1, 1, 1, 1};  ///< of the teachers in their mixture, relative
};

namespace ops {

/// Numbers of scratch memory of distil() for a team of that size.
template <class T>
constexpr index distil_scratch(index vocabulary, index threads) {
  return 2 * threads * round_up(vocabulary, 64 / static_cast<index>(sizeof(T)));
}

/// distillation's loss of rows of a student's logits and, in their place, its gradient.
/// `teacher(t, i, to)` writes the logits of teacher t < `teachers` for row i to to[vocabulary];
/// `how.shares` of these teachers add up to 1. Rows labelled `ignored` give 0.
template <class T, class Teacher>
void distil(const machine& on, index rows, index vocabulary, const token* labels, T* logits,
            double* losses, bool gradient, double z_loss, const distillation& how, index teachers,
            T* scratch, const Teacher& teacher) {
  const double soft = (1 - how.alpha) * how.temperature;
  const T inverse = T(1 / how.temperature);
  T* const target = scratch + on.threads.rank() * distil_scratch<T>(vocabulary, 1);
  T* const other = target + distil_scratch<T>(vocabulary, 1) / 2;
  detail::each_labelled_row(
      on, rows, vocabulary, labels, logits, losses, gradient, [&](auto k, index i, T* row) {
        using K = decltype(k);
        for (index t = 0; t < teachers; ++t) {
          T* const p = t == 0 ? target : other;
          teacher(t, i, p);
          K::template scale<T>(vocabulary, inverse, p);
          K::template softmax<T>(vocabulary, p);
          if (teachers > 1)
            K::template scale<T>(vocabulary, T(how.shares[static_cast<std::size_t>(t)]), p);
          if (t > 0) K::template add<T>(vocabulary, target, p, target);
        }
        std::copy_n(row, vocabulary, other);
        K::template scale<T>(vocabulary, inverse, other);
        // -sum p^t log p^s = lse - sum p^t logits / tau
        const T largest = K::template maximum<T>(vocabulary, other);
        const double expected = static_cast<double>(K::template dot<T>(vocabulary, target, other));
        const T sum = K::template exp_sum<T>(vocabulary, largest, other);
        const double lse = std::log(static_cast<double>(sum)) + static_cast<double>(largest);
        const double loss =
            how.alpha * detail::cross_entropy_row<K>(vocabulary, labels[i], row, gradient, z_loss) +
            soft * how.temperature * (lse - expected);
        if (gradient) {
          // Normalized as the teachers are, so that equal logits leave exactly nothing.
          K::template scale<T>(vocabulary, T(1) / sum, other);
          K::template scale<T>(vocabulary, T(-1), target);
          K::template add<T>(vocabulary, other, target, other);
          K::template scale<T>(vocabulary, T(soft), other);
          K::template scale<T>(vocabulary, T(how.alpha), row);
          K::template add<T>(vocabulary, row, other, row);
        }
        return loss;
      });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {
/// The packed weights that a student or a teacher is named by: a model's in f32, or themselves.
template <class M>
struct packed_form {
  using type = packed<M>;
};
template <class M, class T, class S>
struct packed_form<packed<M, T, S>> {
  using type = packed<M, T, S>;
};

/// An error for settings of distillation that make no sense, or nothing.
inline result<void> acceptable(const char* where, const distillation& how, index teachers) {
  const auto refuse = [&](const char* field, const char* rule, double got) {
    return linnet::error{errc::invalid, where, field, rule, std::to_string(got)};
  };
  if (!(how.alpha >= 0 && how.alpha <= 1))
    return refuse("distillation.alpha", "0 <= alpha <= 1", how.alpha);
  if (!(how.temperature > 0 && is_finite(how.temperature)))
    return refuse("distillation.temperature", "a positive number", how.temperature);
  double sum = 0;
  for (std::size_t t = 0; t < static_cast<std::size_t>(teachers); ++t) {
    if (!(how.shares[t] >= 0 && is_finite(how.shares[t])))
      return refuse("distillation.shares", "no negative share", how.shares[t]);
    sum += how.shares[t];
  }
  if (!(sum > 0)) return refuse("distillation.shares", "a positive sum", sum);
  return {};
}
}  // namespace detail

/// The lesson (see model/lesson.hpp) of a `Student` with one to four `Teachers`: models of its
/// family and vocabulary with any sizes and storage. Each is a model, computing in float, or
/// packed<M, T> for another scalar. A call of a trainer or evaluator first runs the teachers on the
/// batch; then, in the student's chunk loop, each teacher's head is multiplied for the same chunk,
/// so logits of all tokens never exist. All memory is taken by open().
template <class Student, class... Teachers>
class teachers {
  static constexpr index count = sizeof...(Teachers);
  static_assert(count >= 1 && count <= 4, "linnet::teachers: one to four teachers");
  template <class Name>
  using form = typename detail::packed_form<Name>::type;
  template <class Name>
  using model_of = typename form<Name>::model;
  using student = model_of<Student>;
  using scalar = typename form<Student>::scalar;
  static_assert(((student::family == model_of<Teachers>::family) && ...),
                "linnet::teachers: a teacher and the student are of different families");
  static_assert(((student::vocabulary == model_of<Teachers>::vocabulary) && ...),
                "linnet::teachers: a teacher and the student have different vocabularies");

 public:
  using batch = typename student::batch;

  /// Exact bytes that teachers with these limits allocate.
  static constexpr index footprint(const limits& l) {
    return (workspace_bytes<Teachers>(l) + ...) + scratch_bytes(l);
  }

  /// Lessons for batches up to these limits, whose threads are as many as the trainer's or more.
  /// The packed weights must outlive them. Errors: errc::invalid (limits, weights, a setting out of
  /// its range), errc::out_of_memory.
  static result<teachers> open(const form<Teachers>&... p, const limits& l,
                               const distillation& how = {}) {
    for (const auto& fit : {detail::acceptable<model_of<Teachers>>("teachers::open", l)...})
      if (!fit) return fit.error();
    if (auto fit = detail::acceptable("teachers::open", how, count); !fit) return fit.error();
    if (!(p.valid() && ...))
      return linnet::error{errc::invalid, "teachers::open", "packed weights", "valid weights",
                           "none"};
    teachers made(l, how, p...);
    auto* at = static_cast<std::byte*>(made.memory_.data());
    if (!at) return detail::out_of_memory("teachers::open", footprint(l));
    std::apply([&](auto&... each) { (each.place(l, at), ...); }, made.all_);
    made.scratch_ = reinterpret_cast<scalar*>(at);
    return made;
  }

  /// Whether the batch fits.
  template <class M>
  bool accepts(const batch& b, const limits& l) const {
    static_assert(M::vocabulary == student::vocabulary,
                  "linnet::teachers: these teach a student with another vocabulary");
    return l.threads <= limits_.threads && (model_of<Teachers>::accepts(b, limits_) && ...);
  }
  /// Runs the teachers; returns the criterion.
  auto teach(const ops::machine& on, const batch& b) const {
    criterion made{this, {}};
    if (how_.alpha < 1)
      made.calls.emplace(
          std::apply([&](const auto&... each) { return heads{each.read(on, b)...}; }, all_));
    return made;
  }
  /// How the student learns; shares add up to 1.
  const distillation& settings() const { return how_; }

 private:
  template <class Name>
  struct one {
    using M = model_of<Name>;
    using T = typename form<Name>::scalar;
    using S = typename form<Name>::storage;
    using head = ops::head_call<T, S>;
    const form<Name>* weights;
    detail::placed_workspace<M, T> work{};

    void place(const limits& l, std::byte*& at) {
      work = detail::place_workspace<M, T, S>(l, purpose::scoring, at);
      at += workspace_bytes<Name>(l);
    }
    ops::machine on(const ops::machine& caller) const {
      return {caller.threads, caller.level, work.converted};
    }
    head read(const ops::machine& caller, const batch& b) const {
      typename M::template workspace<T> w = work.work;
      return M::template read<T, S>(weights->tree(), b, w, on(caller));
    }
  };
  using heads = std::tuple<typename one<Teachers>::head...>;

  struct criterion {
    const teachers* from;
    std::optional<heads> calls;  ///< none where alpha is 1

    template <class T, class S>
    void operator()(const ops::machine& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      static_assert(std::is_same_v<T, scalar>,
                    "linnet::teachers: the student computes in another scalar; name it as "
                    "packed<Student, T>");
      if (!calls) return ops::label_loss{}(on, h, first, rows);
      each_head([&](index, const auto& teacher, const auto& head) {
        ops::head_logits(teacher.on(on), head, first, rows, head.chunk);
      });
      ops::distil(on, rows, h.vocabulary, h.labels + first, h.chunk, h.losses + first,
                  h.dy != nullptr, h.z_loss, from->how_, count, from->scratch_,
                  [&](index t, index i, T* to) {
                    each_head([&](index n, const auto&, const auto& head) {
                      if (n != t) return;
                      const auto* const logits = head.chunk + i * h.vocabulary;
                      for (index j = 0; j < h.vocabulary; ++j) to[j] = static_cast<T>(logits[j]);
                    });
                  });
    }
    /// Calls f(number, teacher, head) for each.
    template <class F>
    void each_head(F&& f) const {
      [&]<std::size_t... Number>(std::index_sequence<Number...>) {
        (f(static_cast<index>(Number), std::get<Number>(from->all_), std::get<Number>(*calls)),
         ...);
      }
      (std::make_index_sequence<sizeof...(Teachers)>{});
    }
  };

  template <class Name>
  static constexpr index workspace_bytes(const limits& l) {
    return detail::plan_for<model_of<Name>, typename form<Name>::scalar,
                            typename form<Name>::storage>(l, purpose::scoring)
        .total();
  }
  static constexpr index scratch_bytes(const limits& l) {
    return ops::distil_scratch<scalar>(student::vocabulary, l.threads) *
           static_cast<index>(sizeof(scalar));
  }
  teachers(const limits& l, const distillation& how, const form<Teachers>&... p)
      : limits_(l), how_(how), memory_(footprint(l)), all_{one<Teachers>{&p}...} {
    double sum = 0;
    for (std::size_t t = 0; t < sizeof...(Teachers); ++t) sum += how.shares[t];
    for (double& share : how_.shares) share /= sum;
  }

  limits limits_;
  distillation how_;
  memory_block memory_;
  std::tuple<one<Teachers>...> all_;
  scalar* scratch_ = nullptr;
};

LINNET_NAMESPACE_END
/// @file
/// The gradient checker: compares backward with central differences of forward, in double, for
/// every parameter and every input. Use it on your own layers and policies.

LINNET_NAMESPACE_BEGIN

/// What a gradient check found: the entry with the largest error in units of its tolerance.
struct gradient_report {
  double worst = 0;     ///< error / tolerance of that entry; at most 1 passes
  std::string tensor;   ///< its tensor
  index position = 0;   ///< its place in the tensor
  double analytic = 0;  ///< its derivative by backward
  double numeric = 0;   ///< its derivative by central differences
  index entries = 0;    ///< entries compared
  index nonzero =
      0;  ///< entries with a derivative other than zero; a check of zeros proves nothing

  /// Whether every entry is within |analytic - numeric| <= 1e-7 max|g of its tensor| + 1e-9.
  bool passed() const { return entries > 0 && nonzero > 0 && worst <= 1; }
};

/// The call on which a layer is checked.
struct layer_check {
  index batch = 2;
  index length = 5;
  index memory = 0;                 ///< rows of encoder output per sequence, for cross-attention
  index heads = 0;                  ///< heads of a relative-position bias, for layers that read one
  index d_kv = 0;                   ///< head width of rotary positions, for layers that rotate
  std::vector<index> lengths = {};  ///< valid tokens of each sequence; empty for all
  double dropout = 0;
  double step = 1e-5;  ///< of the central differences
  std::uint64_t seed = 1;
};

namespace detail {

/// Compares one tensor's analytic gradient (with its nonzero start already subtracted) with central
/// differences of `loss`, which is a function of values[n].
template <class Loss>
void compare_gradient(const std::string& name, index n, double* values, const double* analytic,
                      double step, gradient_report& report, Loss&& loss) {
  double largest = 0;
  for (index i = 0; i < n; ++i) largest = (std::max)(largest, std::abs(analytic[i]));
  const double tolerance = 1e-7 * largest + 1e-9;
  for (index i = 0; i < n; ++i) {
    const double kept = values[i];
    double numeric = 0, error = 0;
    // A difference that straddles a kink is repeated closer in; a wrong derivative stays wrong.
    for (double h = step; h > step / 100; h /= 8) {
      values[i] = kept + h;
      const double up = loss();
      values[i] = kept - h;
      const double down = loss();
      numeric = (up - down) / (2 * h);
      error = std::abs(numeric - analytic[i]) / tolerance;
      if (!is_finite(error)) error = 1e300;  // NaN would compare as no error at all
      if (error <= 1) break;
    }
    values[i] = kept;
    ++report.entries;
    report.nonzero += std::abs(numeric) > 1e-9;
    if (error > report.worst || report.tensor.empty())
      report = {error, name, i, analytic[i], numeric, report.entries, report.nonzero};
  }
}

/// The same for every parameter of a layer or model `L`.
template <class L, class W, class G, class Loss>
void compare_parameters(W& w, G& g, double step, gradient_report& report, Loss&& loss) {
  L::visit(
      [&](const path& at, const tensor_info& info, auto& values, auto& gradient) {
        double* data = nullptr;
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
          data = values;
        else
          data = values.data;
        compare_gradient(at.str(), info.size(), data, gradient, step, report, loss);
      },
      path{}, w.tree(), g.tree());
}

inline void fill_random(std::vector<double>& x, std::uint64_t seed_value, std::uint64_t stream,
                        double deviation = 1) {
  random_stream random(seed{seed_value}, stream);
  for (double& v : x) v = deviation * random.normal();
}

}  // namespace detail

/// Checks a layer (see nn/layer.hpp) on random parameters and inputs: every parameter, the input,
/// and where the layer uses them the encoder's output and the position bias. The loss is the inner
/// product of the output with random numbers; gradients start from nonzero values, since backward
/// must add.
template <class Layer>
gradient_report check_layer_gradients(const layer_check& how = {}) {
  using S = storage::f64;
  using kernel = form::kernel<double, S>;
  const auto count = [](index n) { return static_cast<std::size_t>(n); };
  const index rows = how.batch * how.length, origin = how.length;
  extents e;
  e.batch = how.batch;
  e.length = how.length;
  e.memory = how.memory;
  e.training = true;

  detail::tensor_block<Layer, form::canonical<double, S>> w;
  detail::tensor_block<Layer, form::gradient<double>> g;
  detail::tensor_block<Layer, kernel> p;
  std::vector<double> x(count(rows * Layer::in)), y(count(rows * Layer::out)), dy(y.size()),
      dx(x.size());
  std::vector<double> memory(count(how.batch * how.memory * Layer::in)), d_memory(memory.size());
  std::vector<double> bias(count(how.heads * (2 * origin + 1))),
      d_bias(count(how.batch) * bias.size());
  std::vector<double> rope(count(how.length * how.d_kv));
  detail::fill_random(x, how.seed, 1);
  detail::fill_random(dy, how.seed, 2);
  detail::fill_random(memory, how.seed, 3);
  detail::fill_random(bias, how.seed, 4);
  if (how.d_kv > 0) ops::rope_table(how.length, how.d_kv, 10000.0, rope.data());
  w.visit([&](const path& at, const tensor_info& info, auto& leaf) {
    random_stream random(seed{how.seed}, stream_of(at.str()));
    double* values = nullptr;
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      values = leaf;
    else
      values = leaf.data;
    const double deviation =
        info.kind == role::matrix ? 1 / detail::root(static_cast<double>(info.columns)) : 0.5;
    for (index i = 0; i < info.size(); ++i)
      values[i] = deviation * random.normal() + (info.kind == role::scale ? 1.0 : 0.0);
  });

  detail::lone_buffers<Layer, double> buffers(e);
  auto& cache = buffers.cache;
  detail::attach_rows<Layer>(w, p);

  context<double> ctx;
  ctx.on.level = simd::best();
  ctx.batch = how.batch;
  ctx.length = how.length;
  ctx.lengths = how.lengths.empty() ? nullptr : how.lengths.data();
  ctx.memory = memory.data();
  ctx.d_memory = d_memory.data();
  ctx.memory_length = how.memory;
  ctx.memory_lengths = nullptr;
  ctx.bias = bias.empty() ? nullptr : bias.data();
  ctx.d_bias = d_bias.empty() ? nullptr : d_bias.data();
  ctx.bias_origin = origin;
  ctx.rope = rope.data();
  ctx.dropout = {how.seed, 7, 3, how.dropout};

  const auto loss = [&] {
    detail::pack_tree<Layer>(ctx.on, w, p);
    Layer::template forward<double, S>(p.tree(), {x.data(), rows}, {y.data(), rows}, cache, ctx);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  (void)loss();

  // Every gradient starts at 0.5, and 0.5 is taken away again.
  constexpr double start = 0.5;
  g.visit([&](const path&, const tensor_info& info, auto& leaf) {
    std::fill_n(leaf, info.size(), start);
  });
  for (auto* gradient : {&dx, &d_memory, &d_bias})
    std::fill(gradient->begin(), gradient->end(), start);
  Layer::template backward<double, S>(p.tree(), g.tree(), {x.data(), rows}, {dy.data(), rows},
                                      {dx.data(), rows}, cache, ctx);
  g.visit([&](const path&, const tensor_info& info, auto& leaf) {
    // What an average is to follow is no derivative; the loss must not depend on it smoothly.
    for (index i = 0; i < info.size(); ++i)
      leaf[i] = info.kind == role::average ? 0 : leaf[i] - start;
  });
  for (auto* gradient : {&dx, &d_memory, &d_bias})
    for (double& v : *gradient) v -= start;

  gradient_report report;
  detail::compare_gradient("x", rows * Layer::in, x.data(), dx.data(), how.step, report, loss);
  if (how.memory > 0)
    detail::compare_gradient("memory", static_cast<index>(memory.size()), memory.data(),
                             d_memory.data(), how.step, report, loss);
  if (how.heads > 0) {
    std::vector<double> total(bias.size());
    for (std::size_t i = 0; i < d_bias.size(); ++i) total[i % bias.size()] += d_bias[i];
    detail::compare_gradient("bias", static_cast<index>(bias.size()), bias.data(), total.data(),
                             how.step, report, loss);
  }
  detail::compare_parameters<Layer>(w, g, how.step, report, loss);
  return report;
}

/// Checks a whole model's gradient of the summed cross-entropy of `b`, for every parameter of `w`,
/// which should be random and tiny, or of another loss that a lesson makes of it. `dropout` keeps
/// its masks fixed; `z_loss` as in `training`.
template <class M, class Lesson = labels_alone>
requires lesson<Lesson, M> gradient_report
check_model_gradients(weights<M, double>& w, const typename M::batch& b, const limits& l,
                      const dropout_key& dropout = {}, double step = 1e-5, double z_loss = 0,
                      const Lesson& from = {}) {
  using S = storage::f64;
  gradient_report report;
  packed<M, double> p;
  gradients<M, double> g;
  memory_block memory(detail::plan_for<M, double>(l, purpose::training).total());
  auto work = detail::place_workspace<M, double>(l, purpose::training, memory.data()).work;
  const ops::machine on{team{}, simd::resolve(l.level)};
  detail::attach_rows<M>(w, p);
  const auto loss = [&] {
    detail::pack_into(on, w, p);
    return M::template loss<double, S>(p.tree(), nullptr, b, work, on, dropout, nullptr, z_loss,
                                       from.teach(on, b))
        .nats;
  };
  constexpr double start = 0.5;
  g.visit([&](const path&, const tensor_info& info, auto& leaf) {
    std::fill_n(leaf, info.size(), start);
  });
  detail::pack_into(on, w, p);
  (void)M::template loss<double, S>(p.tree(), &g.tree(), b, work, on, dropout, nullptr, z_loss,
                                    from.teach(on, b));
  g.visit([&](const path&, const tensor_info& info, auto& leaf) {
    // What an average is to follow is no derivative; the loss must not depend on it smoothly.
    for (index i = 0; i < info.size(); ++i)
      leaf[i] = info.kind == role::average ? 0 : leaf[i] - start;
  });
  detail::compare_parameters<M>(w, g, step, report, loss);
  return report;
}

LINNET_NAMESPACE_END
/// @file
/// Training: forward, backward, clipping, optimizer and repacking in one parallel region per step,
/// in memory that is planned once.

/// @file
/// AdamW. Any class with its members is an optimizer that a trainer can use.

LINNET_NAMESPACE_BEGIN

/// AdamW (Loshchilov and Hutter 2019; zoo H): decay is decoupled and applies to tensors with two
/// dimensions only.
struct adamw {
  schedule rate = schedule::constant(1e-3);
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double decay = 0.01;

  /// What checkpoints call it.
  static constexpr std::string_view name() { return "adamw"; }

  /// What it remembers of each tensor: moving averages of the gradient and of its square.
  template <class M, class T>
  struct state {
    gradients<M, T> first, second;

    static constexpr index bytes() { return 2 * gradients<M, T>::bytes(); }
    bool valid() const { return first.valid() && second.valid(); }
    /// Calls f(name, bytes) for each block of memory that continuing needs.
    template <class F>
    void visit(F&& f) {
      f("first", first.block());
      f("second", second.block());
    }
  };

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::machine& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const double lr = rate.at(t);
    const double correct1 = 1 - std::pow(beta1, static_cast<double>(t));
    const double correct2 = std::sqrt(1 - std::pow(beta2, static_cast<double>(t)));
    M::visit(
        [&](const path&, const tensor_info& info, auto& values, const auto& gradient, auto& m,
            auto& v) {
          T* data = nullptr;
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
            data = values;
          else
            data = values.data;
          ops::detail::in_slices<T>(on, info.size(), [&](index at, index count) {
            simd::dispatch(on.level, [&](auto k) {
              // lr * (m / correct1) / (sqrt(v) / correct2 + eps), with the corrections moved out
              decltype(k)::template adamw<T>(count, T(gradient_scale), T(beta1), T(beta2),
                                             T(lr * correct2 / correct1), T(eps * correct2),
                                             info.decays() ? T(lr * decay) : T(0), gradient + at,
                                             m + at, v + at, data + at);
            });
          });
        },
        path{}, w.tree(), g.tree(), s.first.tree(), s.second.tree());
  }
};

LINNET_NAMESPACE_END
/// @file
/// Tensors that follow running averages instead of a gradient, such as the centroids of
/// attention::routing (zoo D7).

LINNET_NAMESPACE_BEGIN

/// Moves each row of the tensors of role::average towards the sum g that backward left in its
/// gradient, w <- u(keep w + (1 - keep) u(g)) with u(x) = x / |x|; a row without a usable sum
/// stays. Clears these gradients, so that no optimizer sees them. Only the direction of a sum
/// counts, not how many batches it is made of. A trainer does this before each step. Called by
/// every thread of a team.
template <class M, class T>
void follow_averages(const ops::machine& on, double keep, gradients<M, T>& g, weights<M, T>& w) {
  M::visit(
      [&](const path&, const tensor_info& info, auto& values, auto& sums) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
          if (info.kind == role::average)
            on.threads.each(info.rows, [&](index row) {
              T* const x = values + row * info.columns;
              T* const sum = sums + row * info.columns;
              const auto length = [&](const T* v) {
                double square = 0;
                for (index i = 0; i < info.columns; ++i)
                  square += static_cast<double>(v[i]) * static_cast<double>(v[i]);
                return std::sqrt(square);
              };
              const double all = length(sum);
              if (is_finite(all) && all > 0) {
                for (index i = 0; i < info.columns; ++i)
                  x[i] = static_cast<T>(keep * static_cast<double>(x[i]) +
                                        (1 - keep) * static_cast<double>(sum[i]) / all);
                const double now = length(x);
                for (index i = 0; now > 0 && i < info.columns; ++i)
                  x[i] = static_cast<T>(static_cast<double>(x[i]) / now);
              }
              std::fill_n(sum, info.columns, T(0));
            });
      },
      path{}, w.tree(), g.tree());
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// What a trainer does after a loss or a gradient that is not finite. The weights stay in any case.
enum class bad_step {
  skip,  ///< leaves the step out and goes on
  stop   ///< leaves it out and refuses all others, see trainer::stopped()
};

/// How a trainer trains, besides its optimizer.
struct training {
  double clip = 1.0;       ///< largest global gradient norm (zoo H); 0 turns clipping off
  double dropout = 0;      ///< probability of dropping a value
  double z_loss = 0;       ///< weight of the squared logsumexp in the loss (t5x: 1e-4)
  std::uint64_t seed = 0;  ///< of the dropout masks
  double average = 0.999;  ///< share of a running average that a step keeps (zoo D7)
  bad_step if_not_finite = bad_step::skip;
};

/// How far a trainer is. With its blocks of memory, see trainer::visit_state(), all that a run
/// consists of.
struct training_progress {
  index steps = 0;    ///< taken
  index skipped = 0;  ///< left out because loss or gradient was not finite
  index tokens = 0;   ///< accumulated since the last step
  index samples = 0;  ///< likewise
  double nats = 0;    ///< likewise: their loss
  double norm = 0;    ///< global gradient norm of the last step, before clipping

  /// Whether gradients have been accumulated that no step has used yet.
  constexpr bool accumulating() const { return samples > 0; }
};

namespace detail {
/// Sum of squares of all tensors of `g`, in fixed chunks and fixed order, so it does not depend on
/// the number of threads. `partial` has room for the chunks of the largest tensor.
inline constexpr index norm_chunk = 4096;
template <class M>
constexpr index norm_chunks() {
  index n = 1;
  M::visit([&](const path&, const tensor_info& info) { n = info.size() > n ? info.size() : n; },
           path{});
  return (n + norm_chunk - 1) / norm_chunk;
}
template <class M, class T>
double sum_of_squares(const ops::machine& on, const gradients<M, T>& g, double* partial) {
  double sum = 0;
  M::visit(
      [&](const path&, const tensor_info& info, const auto& leaf) {
        if (info.kind == role::average) return;  // no gradient, see follow_averages()
        const index chunks = (info.size() + norm_chunk - 1) / norm_chunk;
        on.threads.each(chunks, [&](index c) {
          const index at = c * norm_chunk, count = (std::min)(norm_chunk, info.size() - at);
          simd::dispatch(on.level, [&](auto k) {
            partial[c] =
                static_cast<double>(decltype(k)::template dot<T>(count, leaf + at, leaf + at));
          });
        });
        for (index c = 0; c < chunks; ++c) sum += partial[c];
        on.threads.wait();
      },
      path{}, g.tree());
  return sum;
}
}  // namespace detail

/// Trains weights of model `M`, which it refers to, with `Optimizer`. With `Compute` =
/// activation::bf16, matrix products multiply bf16 roundings of the f32 master weights, activations
/// and gradients, with sums in f32; all else stays in f32.
template <class M, class Optimizer = adamw, class T = float, class Compute = activation::f32>
class trainer {
  static constexpr bool rounds = std::is_same_v<Compute, activation::bf16>;
  static_assert(rounds ? std::is_same_v<T, float> : std::is_same_v<Compute, activation::f32>,
                "linnet::trainer: computes in activation::f32, or in float weights with "
                "activation::bf16");
  using S = std::conditional_t<rounds, storage::with_activation<storage::bf16, activation::bf16>,
                               storage_of<M, T>>;
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::trainer: training needs f32 (or double) weights; quantize afterwards");

 public:
  using model = M;
  using scalar = T;
  using optimizer_type = Optimizer;
  using batch = typename M::batch;

  /// Exact bytes that a trainer with these limits allocates.
  static constexpr index footprint(const limits& l) {
    const auto block = [](index bytes) { return round_up(bytes, alignment); };
    return block(workspace_bytes(l)) + block(packed<M, T, S>::bytes()) +
           block(gradients<M, T>::bytes()) + Optimizer::template state<M, T>::bytes();
  }

  /// A trainer of `w` for batches up to these limits. `w` must outlive it and not move.
  static result<trainer> open(weights<M, T>& w, const limits& l, const Optimizer& optimizer = {},
                              const training& how = {}) {
    if (auto fit = detail::acceptable<M>("trainer::open", l); !fit) return fit.error();
    if (!(how.dropout >= 0 && how.dropout < 1))
      return linnet::error{errc::invalid, "trainer::open", "training.dropout", "0 <= dropout < 1",
                           std::to_string(how.dropout)};
    if (!w.valid())
      return linnet::error{errc::invalid, "trainer::open", "weights", "allocated weights", "none"};
    trainer t(w, l, optimizer, how);
    if (!t.memory_.data() || !t.packed_.valid() || !t.gradients_.valid() || !t.state_.valid())
      return detail::out_of_memory("trainer::open", footprint(l));
    t.work_ = detail::place_workspace<M, T, S>(l, purpose::training, t.memory_.data());
    const index planned = detail::plan_for<M, T, S>(l, purpose::training).total();
    arena more(static_cast<std::byte*>(t.memory_.data()) + planned, workspace_bytes(l) - planned);
    t.partial_ = more.take<double>(detail::norm_chunks<M>());
    M::visit(
        [&](const path&, const tensor_info& info, auto& to, const auto& from) {
          if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
            if constexpr (rounds)
              to.rows = more.take<simd::word>(pair_words(info));
            else
              to.rows = from.data;
          }
        },
        path{}, t.packed_.tree(), w.tree());
    run(l, nullptr, [&](const ops::machine& on) { detail::pack_into(on, w, t.packed_); });
    return t;
  }

  /// One optimizer step on one batch; returns the mean loss in nats per token, before the step, or
  /// NaN for a batch that does not fit the limits or the vocabulary, or if stopped().
  double step(const batch& b) { return step(b, labels_alone{}); }
  /// The same with a lesson's loss, such as that of distillation from `teachers`; NaN also for a
  /// batch that the lesson does not accept.
  template <class Lesson>
  requires lesson<Lesson, M>
  double step(const batch& b, Lesson&& from) {
    if (!takes(b, from)) return loss_sum::refused().mean();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::machine& on) {
      const loss_sum sum = add_gradients(on, b, from);
      if (on.threads.rank() == 0) loss = sum;
      apply(on, progress_.tokens + sum.tokens, progress_.nats + sum.nats);
    });
    finish();
    return loss.mean();
  }
  /// Adds the gradient of one part of a larger batch; update() then takes the step.
  loss_sum accumulate(const batch& b) { return accumulate(b, labels_alone{}); }
  /// The same with a lesson's loss.
  template <class Lesson>
  requires lesson<Lesson, M> loss_sum accumulate(const batch& b, Lesson&& from) {
    if (!takes(b, from)) return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::machine& on) {
      const loss_sum sum = add_gradients(on, b, from);
      if (on.threads.rank() == 0) loss = sum;
    });
    progress_.tokens += loss.tokens;
    progress_.samples += b.batch;
    progress_.nats += loss.nats;
    return loss;
  }
  /// One optimizer step with the gradients accumulated so far, divided by all their tokens.
  void update() {
    if (stopped_) return;
    run(limits_, work_.converted,
        [&](const ops::machine& on) { apply(on, progress_.tokens, progress_.nats); });
    finish();
  }
  /// Loss of a batch without dropout and without a step. `logits`, if not empty, receives all
  /// [rows, vocabulary] of them.
  loss_sum evaluate(const batch& b, std::span<T> logits = {}) {
    if (!M::accepts(b, limits_)) return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::machine& on) {
      const loss_sum sum =
          M::template loss<T, S>(packed_.tree(), nullptr, b, work_.work, on, {}, logits.data());
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }

  /// Makes changes of the weights from outside known to the trainer.
  void refresh() {
    run(limits_, work_.converted,
        [&](const ops::machine& on) { detail::pack_into(on, *weights_, packed_); });
  }
  /// Gradients accumulated since the last step (sums over tokens, not yet divided).
  gradients<M, T>& gradient() { return gradients_; }
  /// The packed weights, current after each step.
  const packed<M, T, S>& current() const { return packed_; }
  /// Global gradient norm of the last step, before clipping.
  double gradient_norm() const { return progress_.norm; }
  /// Steps taken.
  index steps() const { return progress_.steps; }
  /// Steps left out because loss or gradient was not finite, or no label counted.
  index skipped() const { return progress_.skipped; }
  /// Whether training::if_not_finite has stopped it. The weights are those of the last good step;
  /// resume() starts it again.
  bool stopped() const { return stopped_; }
  /// All counters.
  const training_progress& progress() const { return progress_; }
  /// Calls f(name, bytes) for each block of memory that a run consists of: the weights, what the
  /// optimizer remembers, and the accumulated gradients, which are zero unless
  /// progress().accumulating(). Blocks and progress() that are written back into a trainer of the
  /// same type continue with the same bits (on any number of threads, at the same
  /// instruction-set level and settings).
  template <class F>
  void visit_state(F&& f) {
    using state = typename Optimizer::template state<M, T>;
    f("weights", weights_->block());
    if constexpr (state::bytes() > 0) {
      static_assert(
          requires { state_.visit(f); },
          "linnet::trainer: the optimizer's state needs a visit(f) that calls f(name, "
          "bytes) for each block of memory that continuing needs, as adamw::state has");
      state_.visit([&](std::string_view name, std::span<std::byte> bytes) {
        f("optimizer." + std::string(name), bytes);
      });
    }
    f("gradients", gradients_.block());
  }
  /// Goes on from `at`, after the blocks that visit_state() shows have been written.
  void resume(const training_progress& at) {
    progress_ = at;
    stopped_ = false;
    refresh();
  }
  /// The optimizer, whose settings may be changed between steps.
  Optimizer& optimizer() { return optimizer_; }

 private:
  trainer(weights<M, T>& w, const limits& l, const Optimizer& optimizer, const training& how)
      : weights_(&w), limits_(l), optimizer_(optimizer), how_(how), memory_(workspace_bytes(l)) {}

  /// Words of packed_matrix::rows when training in bf16.
  static constexpr index pair_words(const tensor_info& info) {
    return (info.rows + 1) / 2 * info.columns;
  }
  static constexpr index workspace_bytes(const limits& l) {
    arena more;
    (void)more.take<double>(detail::norm_chunks<M>());
    if (rounds)
      M::visit(
          [&](const path&, const tensor_info& info) {
            if (info.stored()) (void)more.take<simd::word>(pair_words(info));
          },
          path{});
    return detail::plan_for<M, T, S>(l, purpose::training).total() + more.peak();
  }
  template <class Lesson>
  bool takes(const batch& b, Lesson& from) const {
    return !stopped_ && M::accepts(b, limits_) && from.template accepts<M>(b, limits_);
  }
  template <class Lesson>
  loss_sum add_gradients(const ops::machine& on, const batch& b, Lesson& from) {
    const dropout_key key{how_.seed, static_cast<std::uint64_t>(progress_.steps), progress_.samples,
                          how_.dropout};
    return M::template loss<T, S>(packed_.tree(), &gradients_.tree(), b, work_.work, on, key,
                                  nullptr, how_.z_loss, from.teach(on, b));
  }
  /// Clips, updates, repacks and clears the gradients; `tokens` is what they are summed over,
  /// `nats` their loss.
  void apply(const ops::machine& on, index tokens, double nats) {
    const double share = tokens > 0 ? 1.0 / static_cast<double>(tokens) : 0.0;
    const double norm = std::sqrt(detail::sum_of_squares(on, gradients_, partial_)) * share;
    const bool finite = is_finite(norm) && is_finite(nats), usable = finite && tokens > 0;
    if (usable) {
      const double clip = how_.clip > 0 ? (std::min)(1.0, how_.clip / (norm + 1e-6)) : 1.0;
      follow_averages(on, how_.average, gradients_, *weights_);
      optimizer_.update(on, progress_.steps + 1, share * clip, gradients_, state_, *weights_);
      detail::pack_into(on, *weights_, packed_);
    }
    M::visit([&](const path&, const tensor_info& info,
                 auto& leaf) { ops::fill(on, info.size(), T(0), leaf); },
             path{}, gradients_.tree());
    on.threads.once([&] {
      progress_.norm = norm;
      usable_ = usable;
      stopped_ = !finite && how_.if_not_finite == bad_step::stop;
    });
  }
  void finish() {
    progress_.steps += usable_;
    progress_.skipped += !usable_;
    progress_.tokens = progress_.samples = 0;
    progress_.nats = 0;
  }

  weights<M, T>* weights_;
  limits limits_;
  Optimizer optimizer_;
  training how_;
  memory_block memory_;
  packed<M, T, S> packed_;
  gradients<M, T> gradients_;
  typename Optimizer::template state<M, T> state_;
  detail::placed_workspace<M, T> work_{};
  double* partial_ = nullptr;
  training_progress progress_;
  bool usable_ = true, stopped_ = false;
};

LINNET_NAMESPACE_END
/// @file
/// Collapse: the re-parameterised feed-forwards 2W and 3W become the one matrix that they are
/// (zoo B1).

#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
// Eigen uses names that other headers define as macros: they step aside while it is read.
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success
#include <Eigen/Core>
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

LINNET_NAMESPACE_BEGIN

namespace detail {

/// What a feed-forward policy collapses to; itself where there is nothing to do.
template <class Ffn>
struct collapse_ffn {
  using type = Ffn;
  static constexpr bool linear = std::is_same_v<Ffn, ffn::linear>;
};
template <int N, expansion E>
struct collapse_ffn<ffn::reparam<N, E>> {
  using type = ffn::linear;
  static constexpr bool linear = true;
};

template <class M, model_family = M::family>
struct collapse_model {
  static_assert(collapse_ffn<typename M::ffn>::linear,
                "linnet::collapse: this model's feed-forward has a nonlinearity between its "
                "matrices (or none at all); "
                "only ffn::reparam<2, e> and ffn::reparam<3, e> collapse to one matrix");
  using type = typename M::template with_ffn<typename collapse_ffn<typename M::ffn>::type>;
};
template <class M>
struct collapse_model<M, model_family::t5> {
  using encoder = collapse_ffn<typename M::encoder_ffn>;
  using decoder = collapse_ffn<typename M::decoder_ffn>;
  static_assert(encoder::linear || decoder::linear,
                "linnet::collapse: this model's feed-forward has a nonlinearity between its "
                "matrices (or none at all); "
                "only ffn::reparam<2, e> and ffn::reparam<3, e> collapse to one matrix");
  using type = typename M::template with_ffn<typename encoder::type, typename decoder::type>;
};

}  // namespace detail

/// The model type that collapse() makes: every ffn::reparam is an ffn::linear, the rest unchanged.
template <class M>
using collapsed = typename detail::collapse_model<M>::type;

/// Multiplies the matrices of each re-parameterised feed-forward, in double, rounded once: the same
/// function with fewer weights.
template <class M, class T>
weights<collapsed<M>, T> collapse(const weights<M, T>& w) {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::collapse: collapse first, quantize afterwards");
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using view_of =
      Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  weights<collapsed<M>, T> shipped;
  if (!shipped.valid() || !w.valid()) return shipped;
  const auto values = [](const auto& leaf) {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      return static_cast<const T*>(leaf);
    else
      return static_cast<const T*>(leaf.data);
  };
  shipped.visit([&](const path& at, const tensor_info& info, auto& to) {
    const std::string name = at.str();
    matrix product;
    w.visit([&](const path& from_path, const tensor_info& from_info, const auto& from) {
      const std::string from_name = from_path.str();
      if (from_name == name) std::copy_n(values(from), info.size(), const_cast<T*>(values(to)));
      // ...ffn.w.weight is the product of ...ffn.w1.weight, w2, w3, met in this order.
      constexpr std::string_view tail = ".w.weight";
      if (!name.ends_with(tail) || from_name.size() != name.size() + 1) return;
      const std::size_t stem = name.size() - tail.size() + 2;
      const char digit = from_name[stem];
      if (from_name.compare(0, stem, name, 0, stem) != 0 || digit < '1' || digit > '3') return;
      const matrix factor =
          view_of(values(from), from_info.rows, from_info.columns).template cast<double>();
      product = digit == '1' ? factor : matrix(factor * product);
    });
    if (product.size() == info.size())
      for (index i = 0; i < info.size(); ++i)
        const_cast<T*>(values(to))[i] = static_cast<T>(product.data()[i]);
  });
  return shipped;
}

LINNET_NAMESPACE_END
/// @file
/// Quantize: weights are rounded once and stored, shipped and multiplied as small codes.

LINNET_NAMESPACE_BEGIN

/// The model type that quantize() makes: M with its matrices and token tables stored as `S`, and
/// the inputs of its products rounded to `A`.
template <class M, class S, class A = activation::f32>
using quantized = typename M::template with_storage<
    std::conditional_t<std::is_same_v<A, activation::f32>, S, storage::with_activation<S, A>>>;

/// Rounds every matrix and token table of `w` to storage `S` (zoo E1, E2), to nearest, with scales
/// from the largest magnitudes. Norms, biases and position tables stay in f32. `A` is what inputs
/// of products are rounded to at run time.
template <class S, class A = activation::f32, class M>
weights<quantized<M, S, A>> quantize(const weights<M>& w) {
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize: the source must be stored in f32");
  weights<quantized<M, S, A>> rounded;
  if (!rounded.valid() || !w.valid()) return rounded;
  M::visit(
      [](const path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
          std::copy_n(from, info.size(), to);
        else
          detail::encode_matrix(info.rows, info.columns, from.data, to);
      },
      path{}, rounded.tree(), w.tree());
  return rounded;
}

/// Bytes of the weights of model `M` stored as `S`, scales included, norms and position tables in
/// f32.
template <class M, class S = typename M::storage>
constexpr index weight_bytes() {
  index bytes = 0;
  M::visit(
      [&](const path&, const tensor_info& info) {
        bytes += info.stored() ? matrix_bytes<S>(info.rows, info.columns)
                               : info.size() * static_cast<index>(sizeof(float));
      },
      path{});
  return bytes;
}

LINNET_NAMESPACE_END
