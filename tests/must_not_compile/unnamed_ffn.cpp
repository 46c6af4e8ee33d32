// SPDX-License-Identifier: MIT
// Two feed-forwards of equal tensors are told apart in files by their names.
// expect: linnet: give your policy `static std::string name\(\)`
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct mine : ln::ffn::policy {
  template <ln::index D, ln::index F, bool Bias>
  using layer = ln::ffn::relu::layer<D, F, Bias>;
#if !defined(LINNET_FAIL)
  static std::string name() { return "mine"; }
#endif
};
bool save(const ln::weights<ln::decoder<shape, mine>>& w) {
  return bool(ln::save_safetensors(w, "file"));
}
