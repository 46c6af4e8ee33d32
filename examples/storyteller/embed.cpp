// SPDX-License-Identifier: MIT
// Writes a file as an array of C++:
//
//     embed FILE NAME HEADER

#include <linnet/file/mapped_file.hpp>

#include <cstdio>

namespace ln = linnet;

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: embed FILE NAME HEADER\n");
    return 2;
  }
  const auto file = ln::read_file(arguments[1]);
  const auto written =
      file ? ln::write_array(arguments[3], arguments[2], *file) : ln::result<void>(file.error());
  if (written) return 0;
  std::fprintf(stderr, "embed: %s\n", written.error().message().c_str());
  return 1;
}
