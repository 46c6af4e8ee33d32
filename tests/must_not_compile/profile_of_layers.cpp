// SPDX-License-Identifier: MIT
// A profile is of one storage type, or of one for each role.
// expect: a model of storage::layers<> is not profiled
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Storage = ln::storage::layers<ln::storage::f32, ln::storage::first<1, ln::storage::int8>>;
#else
using Storage = ln::storage::per_role<ln::storage::int8, ln::storage::head<ln::storage::f32>>;
#endif
using Model = ln::profiled<ln::decoder<shape, Storage, ln::tie::untied>>;
static_assert(Model::vocabulary == 10);
