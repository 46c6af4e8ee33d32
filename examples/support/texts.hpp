// SPDX-License-Identifier: MIT
#pragma once
// Text files to learn from, with parts held out.

#include <cstdint>
#include <linnet/file/corpus.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace support {

/// Texts, mapped. Each is cut into ten stretches, the last tenth of each of which
/// is held out, so that both parts are alike even where a text changes its topic.
struct texts {
  static constexpr std::size_t stretches = 10;

  linnet::corpus files;
  std::vector<std::string> names;                    ///< of the files
  std::vector<std::string_view> training, held_out;  ///< ten of each file, file by file

  /// See marks.hpp; of other files, or of these in another order, it is another one.
  std::uint64_t mark() const;
};
/// The texts of these files, which are called `names`.
texts read_texts(const std::vector<std::string>& paths, std::vector<std::string> names);
/// Every .txt file of 100 kB or more in a folder and the folders in it, in order of names.
texts read_texts(const std::string& folder);

}  // namespace support
