// SPDX-License-Identifier: MIT
// Roles that are stored apart would meet in one tensor there.
// expect: layout joins matrices of several roles in one tensor
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
#if defined(LINNET_FAIL)
using Model =
    ln::decoder<shape, ln::storage::per_role<ln::storage::f32, ln::storage::head<ln::storage::f16>>,
                ln::tie::untied>;
#else
using Model = ln::decoder<shape, ln::storage::bf16>;
#endif
bool load(ln::weights<Model>& w) { return bool(ln::load_hugging_face(w, "directory")); }
