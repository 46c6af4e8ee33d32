// SPDX-License-Identifier: MIT
// Files of sections: every bit is under a checksum, in small sections and in large ones.

#include "support/data.hpp"
#include "support/test.hpp"

#if __has_include(<xxhash.h>)

#include <linnet/checkpoint.hpp>

namespace test::checkpoint_file_test {

BOOST_AUTO_TEST_SUITE(checkpoint_file)

BOOST_AUTO_TEST_CASE(a_flipped_bit_is_found) {
  // Sizes around those at which XXH3 changes its way, and one of several megabytes.
  std::vector<std::string> contents;
  ln::random_stream random(ln::seed{11});
  for (const std::size_t size :
       {0u, 1u, 16u, 17u, 128u, 129u, 240u, 241u, 1024u, 65'537u, (1u << 20) + 1, 5'000'003u}) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; i += 1 + size / 1000)
      bytes[i] = static_cast<char>(random.below(256));
    contents.push_back(std::move(bytes));
  }
  std::vector<ln::section> all;
  for (const std::string& one : contents)
    all.push_back({"of " + std::to_string(one.size()), bytes(one)});
  std::string file = ln::detail::checkpoint_file_head({{"key", "value"}}, all);
  const std::size_t head = file.size();
  for (const std::string& one : contents) file += one;
  LINNET_REQUIRE_OK(ln::detail::parse_sections(bytes(file), "f"));

  const auto says = [&](std::size_t at) {
    const char kept = file[at];
    file[at] = static_cast<char>(kept ^ (1 << (at % 8)));
    const std::string got = message(ln::detail::parse_sections(bytes(file), "f"));
    file[at] = kept;
    return got;
  };
  std::size_t begin = head;
  for (const std::string& one : contents) {
    const std::string want =
        "f: of " + std::to_string(one.size()) + ": expected bytes of its checksum, got others";
    if (!one.empty())
      for (const std::size_t at : {std::size_t{0}, one.size() / 2, one.size() - 1})
        BOOST_TEST(says(begin + at) == want);
    begin += one.size();
  }
  for (std::size_t at = 0; at < head; at += 3) BOOST_TEST(says(at) != "success");
}

// A name that is too long for what goes behind it fails at once, and not when there is a file that
// would have to be kept.
BOOST_AUTO_TEST_CASE(names_as_long_as_they_can_be) {
  const scratch_folder folder;
  int saved = 0, refused = 0;
  for (std::size_t length = 230; length <= 256; ++length) {
    const std::string path = folder.path(std::string(length, 'x'));
    const auto first = ln::detail::write_checkpoint_file(path, {}, {});
    (first ? saved : refused) += 1;
    for (int i = 0; i < 2 && first; ++i)
      LINNET_REQUIRE_OK(ln::detail::write_checkpoint_file(path, {}, {}));
    std::error_code none;
    BOOST_TEST(std::filesystem::exists(path, none) == bool(first));
    if (!first)
      BOOST_TEST(message(first) ==
                 path + ": expected a name with room for .partial.previous behind it, got " +
                     "File name too long");
  }
  BOOST_TEST(saved == 238 - 229);
  BOOST_TEST(refused == 256 - 238);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::checkpoint_file_test

#endif
