// SPDX-License-Identifier: MIT
// The entry point of every test program: says which instruction-set level and how many threads it
// runs with, hands over to Boost.Test, then says how many cases had no real data.

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <iostream>
#include <linnet/linnet.hpp>
#include <string_view>
#include <thread>

#include "support/data.hpp"

int main(int argc, char** argv) {
  namespace simd = linnet::simd;
  const std::string_view level = simd::name(simd::best());
  std::cout << "level " << level << ", " << std::thread::hardware_concurrency() << " processors\n";
  if (const char* wish = std::getenv("LINNET_SIMD"); wish != nullptr && wish != level) {
    std::cout << "SKIPPED: this machine has no " << wish << '\n';
    return 77;
  }
  linnet::detail::assumed_processors = 64;  // as many threads as a test asks for
  const int status = boost::unit_test::unit_test_main([] { return true; }, argc, argv);
  if (!test::without_data.empty())
    std::cout << "SKIPPED: " << test::without_data.size()
              << " cases on real data; set LINNET_DATA to the folder that holds it\n";
  return status;
}
