// SPDX-License-Identifier: MIT
// A kind of attention that derives from another has a name of its own in files.
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
struct mine : ln::attention::full {
#if !defined(LINNET_FAIL)
  static std::string name() { return "mine"; }
#endif
};
bool load(ln::weights<ln::decoder<shape, mine>>& w) {
  return bool(ln::load_safetensors(w, "file"));
}
