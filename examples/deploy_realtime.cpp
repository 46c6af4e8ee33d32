// Deployment where nothing may allocate, throw or lock: the model runs in memory that the program
// owns, sized at compile time. Build it with -fno-exceptions -fno-rtti if you like.

#include <cstddef>
#include <cstdio>
#include <span>

#include <linnet/linnet.hpp>
namespace ln = linnet;

inline constexpr ln::decoder_shape shape{.d_model = 64, .d_ff = 172, .heads = 8, .kv_heads = 4,
                                         .layers = 5, .vocabulary = 512, .context = 512};
using Model = ln::decoder<shape>;
using Small = ln::quantized<Model, ln::storage::int8>;

// Limits are constants here, so the exact number of bytes is one, too.
constexpr ln::limits limits{.target = 64};
constexpr ln::index bytes = ln::session<Small>::footprint(limits);
alignas(ln::alignment) static std::byte memory[bytes];

int main() {
  // Real programs load trained weights (see load_weights.cpp); random ones do for the mechanics.
  ln::weights<Model> w;
  ln::initialize(w, ln::seed{1});
  const auto packed = ln::pack(ln::quantize<ln::storage::int8>(w));

  // From here on: no allocation, no exception, no lock, no system call. The constructor over the
  // caller's memory cannot fail.
  ln::session<Small> run(packed, limits, memory);
  const ln::token prompt[] = {1, 403, 407};
  ln::index count = run.generate(prompt, ln::greedy{}, [](ln::token) { return true; }, {.tokens = 32});
  std::printf("%td tokens from %td bytes of weights and %td bytes of working memory\n", count,
              ln::weight_bytes<Small>(), bytes);
}
