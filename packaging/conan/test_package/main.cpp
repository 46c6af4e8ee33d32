// SPDX-License-Identifier: MIT
// What a packaged linnet must do: compile, and give a model's numbers.

#include <cstdio>
#include <linnet/linnet.hpp>
#include <string_view>

namespace ln = linnet;

constexpr ln::decoder_shape shape{.d_model = 16,
                                  .d_ff = 32,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 8,
                                  .context = 8};
using model = ln::decoder<shape>;

int main() {
  ln::weights<model> w;
  ln::initialize(w, ln::seed{1});
  const auto packed = ln::pack(w);
  auto run = ln::session<model>::open(packed, {.target = 8});
  if (!run) return 1;
  const ln::token text[] = {1, 2, 3};
  const auto logits = run->feed(text);
  std::printf("linnet %s: %zu logits, the first %g\n", LINNET_VERSION, logits.size(), logits[0]);
  return std::string_view(LINNET_VERSION) == EXPECTED_VERSION && logits.size() == 8 ? 0 : 1;
}
