// SPDX-License-Identifier: MIT
// The one compressor that is built in, for a zoo without a compiler.

#include "compressor_of.hpp"

namespace zoo {

compressor* make_stories260k_int4_g64() {
  return new compressor_of<ln::zoo::stories260k, ln::storage::int4<64>, ln::compute::f32,
                           rebuilt_by<>, "">();
}

}  // namespace zoo
