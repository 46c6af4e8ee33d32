// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What becomes of one way to run one model, and where it is noted.

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "support/test.hpp"

namespace test {

/// What became of one way to run one model.
struct outcome {
  double worst = 0;     ///< largest difference of a logit or log probability
  bool exact = true;    ///< no bit differed
  std::string refused;  ///< the sentence, or nothing

  /// Compares logits with those of the plain way.
  void compare(std::span<const float> got, std::span<const float> plain) {
    worst = (std::max)(worst, distance(got, plain) / (std::max)(1.0, magnitude(plain)));
    exact = exact && same_bits(got, plain);
  }
};

/// Most tokens that a session takes back, as it says and as its kind of cache promises.
template <class M>
index most_truncation(const ln::session<M>& s) {
  const index kept = M::evicts ? s.chunk() : s.capacity();
  const bool in_groups = M::cache::code == ln::kv_code::int4;
  BOOST_TEST(s.max_truncation() == (in_groups ? (std::min)(kept, index{32}) : kept));
  return s.max_truncation();
}

/// Holds the outcomes of a model against its bound, and writes them to the file that LINNET_MATRIX
/// names.
class outcome_notes {
 public:
  outcome_notes(std::string name, double bound) : name_(std::move(name)), bound_(bound) {}
  void note(const std::string& layout, index prompt, const char* way, const outcome& o) {
    BOOST_TEST(o.worst <= bound_, name_ << ", " << layout << ", prompt " << prompt << ", " << way
                                        << ": " << o.worst << " above " << bound_);
    if (file_.is_open())
      file_ << name_ << '|' << layout << '|' << prompt << '|' << way << '|' << o.worst << '|'
            << o.exact << '|' << o.refused << '\n';
  }
  const std::string& name() const { return name_; }

 private:
  static std::ofstream open() {
    const char* const file = std::getenv("LINNET_MATRIX");
    return file ? std::ofstream(file, std::ios::app) : std::ofstream();
  }
  std::ofstream file_ = open();
  std::string name_;
  double bound_;
};

}  // namespace test
