// SPDX-License-Identifier: MIT
#pragma once
// What zoo search found, as one HTML page with nothing outside it.

#include <string>
#include <vector>

#include "kinds.hpp"

namespace zoo {

/// One model of the space.
struct searched_model {
  std::string name;  ///< the choices of the axes, such as "layers=4 ffn=swiglu"
  ln::index parameters = 0, bytes = 0, flops = 0;
  ln::index rounds = 0, steps = 0;
  double bits = 0;     ///< per byte of held-out text, behind its last round
  bool front = false;  ///< no other of its round is both smaller and better
};

/// A whole search; models in their order, the best first.
struct search_study {
  std::string base, text;
  ln::index space = 0;  ///< models of the space, within the budget or not
  std::vector<searched_model> models;
};

/// Writes a search as one page; refuses a path that cannot be written to.
void write_search(const search_study& s, const std::string& path);

}  // namespace zoo
