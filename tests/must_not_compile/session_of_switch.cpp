// SPDX-License-Identifier: MIT
// Sequences take the gates of a lora_switch, not the adapter alone.
// expect: linnet::session::set_adapter: tokens of a lora_switch keep their gates in memory
// lines: 18: clang++ misses the adapter's own hook as well
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
using Adapter = ln::adapted<Model, ln::lora_switch<2, 1, 1>>;
bool give(ln::session<Model>& s, const ln::packed<Adapter>& adapter,
          const ln::switch_gates<Adapter>& gates) {
#if defined(LINNET_FAIL)
  return s.set_adapter(0, adapter);
#else
  (void)adapter;
  return s.set_adapter(0, gates);
#endif
}
