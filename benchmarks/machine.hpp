// SPDX-License-Identifier: MIT
#pragma once
// What this machine can do at most: multiply-adds from registers, and reading of memory. Measured,
// not looked up: clocks and neighbours change.

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace machine {

/// Seconds since some moment.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Processor seconds that all threads of this process have used.
inline double cpu_now() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// What products are computed in.
enum class type { f32, bf16, int8 };

namespace detail {

#define MACHINE_UNROLL _Pragma("GCC unroll 16")
#if defined(__x86_64__)
#define MACHINE_KEEP(x) __asm__("" : "+v"(x))
#else
#define MACHINE_KEEP(x) __asm__("" : "+w"(x))
#endif
#define MACHINE_TARGET(features) __attribute__((target(features)))

/// Independent sums: enough to hide the latency of one instruction, and all in registers.
inline constexpr int sums = 12;

/// What keeps the optimizer from dropping a loop.
inline std::atomic<float> sink;

// Each does `rounds` times `sums` instructions `step`. The empty assembly hides that all sums are
// equal.
#define MACHINE_PRODUCTS(name, target, vector, start, step)        \
  target __attribute__((noinline)) inline void name(long rounds) { \
    vector a = start, s[sums];                                     \
    MACHINE_KEEP(a);                                               \
    MACHINE_UNROLL for (int i = 0; i < sums; ++i) s[i] = a;        \
    for (long j = 0; j < rounds; ++j) {                            \
      MACHINE_UNROLL for (int i = 0; i < sums; ++i) {              \
        s[i] = step;                                               \
        MACHINE_KEEP(s[i]);                                        \
      }                                                            \
    }                                                              \
    MACHINE_UNROLL for (int i = 1; i < sums; ++i) s[0] += s[i];    \
    float first;                                                   \
    __builtin_memcpy(&first, &s[0], sizeof first);                 \
    sink = first;                                                  \
  }
// Reads [p, p + bytes); bytes is a multiple of 512.
#define MACHINE_READ(name, target, width)                                        \
  target __attribute__((noinline)) inline void name(const char* p, long bytes) { \
    typedef float vector __attribute__((vector_size(width)));                    \
    vector s[8] = {};                                                            \
    for (const char* const end = p + bytes; p < end; p += 8 * width) {           \
      MACHINE_UNROLL for (int i = 0; i < 8; ++i) s[i] +=                         \
          *reinterpret_cast<const vector*>(p + i * width);                       \
    }                                                                            \
    MACHINE_UNROLL for (int i = 1; i < 8; ++i) s[0] += s[i];                     \
    sink = s[0][0];                                                              \
  }

typedef float four_floats __attribute__((vector_size(16)));
MACHINE_PRODUCTS(f32_any, , four_floats, {}, a* a + s[i])
MACHINE_READ(read_any, , 16)
#if defined(__x86_64__)
MACHINE_PRODUCTS(f32_avx2, MACHINE_TARGET("avx2,fma"), __m256, _mm256_setzero_ps(),
                 _mm256_fmadd_ps(a, a, s[i]))
MACHINE_PRODUCTS(f32_avx512, MACHINE_TARGET("avx512f"), __m512, _mm512_setzero_ps(),
                 _mm512_fmadd_ps(a, a, s[i]))
MACHINE_PRODUCTS(bf16_avx512, MACHINE_TARGET("avx512f,avx512bf16"), __m512, _mm512_setzero_ps(),
                 _mm512_dpbf16_ps(s[i], reinterpret_cast<__m512bh>(a),
                                  reinterpret_cast<__m512bh>(a)))
MACHINE_PRODUCTS(int8_avx512, MACHINE_TARGET("avx512f,avx512vnni"), __m512i, _mm512_setzero_si512(),
                 _mm512_dpbusd_epi32(s[i], a, a))
MACHINE_READ(read_avx2, MACHINE_TARGET("avx2"), 32)
MACHINE_READ(read_avx512, MACHINE_TARGET("avx512f"), 64)
#endif

/// A loop of products, and the operations of one round; a multiply-add is two.
struct product_loop {
  void (*run)(long rounds) = nullptr;
  double operations = 0;
};
/// The widest loop this machine has for a type, or none.
inline product_loop products(type t) {
#if defined(__x86_64__)
  if (t == type::f32 && __builtin_cpu_supports("avx512f")) return {f32_avx512, sums * 32};
  if (t == type::f32 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {f32_avx2, sums * 16};
  if (t == type::bf16 && __builtin_cpu_supports("avx512bf16")) return {bf16_avx512, sums * 64};
  if (t == type::int8 && __builtin_cpu_supports("avx512vnni")) return {int8_avx512, sums * 128};
#endif
  if (t == type::f32) return {f32_any, sums * 8};
  return {};
}
/// The widest reading loop.
inline auto reader() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return read_avx512;
  if (__builtin_cpu_supports("avx2")) return read_avx2;
#endif
  return read_any;
}

#undef MACHINE_READ
#undef MACHINE_PRODUCTS
#undef MACHINE_TARGET
#undef MACHINE_KEEP
#undef MACHINE_UNROLL

/// Calls work(thread) on each thread again and again for some seconds; returns all calls per
/// second.
template <class Work>
double rate(int threads, double seconds, Work&& work) {
  std::barrier together(threads);
  std::vector<double> rates(static_cast<std::size_t>(threads));
  const auto run = [&](int thread) {
    work(thread);
    together.arrive_and_wait();
    const double start = now();
    double elapsed = 0;
    long calls = 0;
    for (; elapsed < seconds; elapsed = now() - start, ++calls) work(thread);
    rates[static_cast<std::size_t>(thread)] = static_cast<double>(calls) / elapsed;
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& other : others) other.join();
  double all = 0;
  for (const double r : rates) all += r;
  return all;
}

}  // namespace detail

/// The best of a few samples of `seconds` each.
template <class Sample>
double best_of(int samples, Sample&& sample) {
  double best = 0;
  while (samples-- > 0) best = std::max(best, sample());
  return best;
}

/// Highest Gop/s of products from registers; 0 where the machine has no instruction for the type.
inline double peak(type t, int threads, double seconds = 0.05) {
  const detail::product_loop loop = detail::products(t);
  if (loop.run == nullptr) return 0;
  constexpr long rounds = 20'000;
  return 1e-9 * loop.operations * rounds *
         detail::rate(threads, seconds, [&](int) { loop.run(rounds); });
}

/// Memory that is read; its pages are huge where the system allows it.
class memory {
 public:
  /// At least `bytes` in all, shared out to `threads`.
  memory(double bytes, int threads) : threads_(threads) {
    part_ = std::max(1L, static_cast<long>(bytes) / threads / unit) * unit;
    const std::size_t size = (static_cast<std::size_t>(part_ * threads) + page - 1) / page * page;
    data_.reset(static_cast<char*>(std::aligned_alloc(page, size)));
    if (!data_) return;
    madvise(data_.get(), size, MADV_HUGEPAGE);
    std::fill_n(data_.get(), size, char(0));
  }
  /// Bytes of one pass over it, 0 if there was no memory.
  double bytes() const { return data_ ? static_cast<double>(part_ * threads_) : 0; }
  /// Reads one thread's part.
  void read(int thread) const { detail::reader()(data_.get() + part_ * thread, part_); }

 private:
  static constexpr long unit = 4096;
  static constexpr std::size_t page = std::size_t{1} << 21;
  struct free_memory {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<char, free_memory> data_;
  long part_ = 0;
  int threads_ = 1;
};

/// GB/s of reading the memory again and again.
inline double read_bandwidth(const memory& m, int threads, double seconds = 0.1) {
  if (m.bytes() == 0) return 0;
  const int passes = 1 + static_cast<int>(1e6 * threads / m.bytes());
  return 1e-9 * m.bytes() / threads * passes * detail::rate(threads, seconds, [&](int thread) {
           for (int i = 0; i < passes; ++i) m.read(thread);
         });
}
/// GB/s of reading a working set of `bytes` in all.
inline double read_bandwidth(double bytes, int threads, double seconds = 0.1) {
  return read_bandwidth(memory(bytes, threads), threads, seconds);
}

/// Bytes of a cache of level 1 to 3, as Linux tells; those of a usual machine where it does not.
inline double cache_bytes(int level) {
  static constexpr double usual[] = {32e3, 1e6, 16e6};
  double kilobytes = 0;
  // Index 0 and 1 are the first level's data and instructions.
  std::ifstream("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(level > 1 ? level : 0) +
                "/size") >>
      kilobytes;
  return kilobytes > 0 ? kilobytes * 1024 : usual[level - 1];
}
/// A working set in all for `threads` that lives in that level: half of each core's own caches, a
/// quarter of the shared third, and far beyond it for level 4, the memory.
inline double working_set(int level, int threads) {
  return level < 3    ? cache_bytes(level) / 2 * threads
         : level == 3 ? std::max(cache_bytes(3) / 4, cache_bytes(2) * 1.5 * threads)
                      : std::max(256e6, cache_bytes(3) * 4);
}

}  // namespace machine
