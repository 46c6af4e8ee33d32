// SPDX-License-Identifier: MIT
#pragma once
// How weights are stored and what inputs of products are rounded to, by words of the command line.

#include <string>
#include <string_view>
#include <vector>

namespace zoo {

/// A part of a model and how it is stored.
struct stored_part {
  std::string role;  ///< such as "ffn_down", "first1" or "layers3-5"; empty: all that no other is
  std::string_view storage;
};
/// The parts of "int4-row", "int4-row+q8_0", where the second is the embedding's, and
/// "int3-g64+ffn_down=int4-g64+first1=int8". Refuses unknown ones.
std::vector<stored_part> parts_of(std::string_view name);

/// The C++ of a storage type, such as that of int4-g64 or int4-row+q8_0, and of what inputs of
/// products are rounded to, such as int8 or mixed_int8-6; refuse unknown names.
std::string storage_type(std::string_view name);
std::string compute_type(std::string_view what, std::string_view name);

/// Refuses inputs of products that are rounded to what the weights are not stored for; `option`
/// asks for it.
void check_types(std::string_view option, std::string_view storage, std::string_view compute);

}  // namespace zoo
