// SPDX-License-Identifier: MIT
// The fuzzers are one program, so that what they share is compiled once. The name that it is run by
// says which of them runs: fuzz_gguf.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

// tests/fuzz/NAME.cpp defines fuzz::NAME::one_input; CMake writes the list of names.
#define LINNET_FUZZER(name)                                  \
  namespace fuzz::name {                                     \
  int one_input(const std::uint8_t* data, std::size_t size); \
  }
#include "fuzzers.inc"
#undef LINNET_FUZZER

namespace {

struct fuzzer {
  std::string_view name;
  int (*one_input)(const std::uint8_t* data, std::size_t size);
};
constexpr fuzzer all[] = {
#define LINNET_FUZZER(name) {"fuzz_" #name, fuzz::name::one_input},
#include "fuzzers.inc"
#undef LINNET_FUZZER
};
const fuzzer* chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char*** arguments) {
  std::string_view name = **arguments;
  name.remove_prefix(name.rfind('/') + 1);
  for (const fuzzer& f : all)
    if (f.name == name) chosen = &f;
  if (chosen == nullptr) {
    std::fputs("run it by the name of a fuzzer, such as fuzz_gguf\n", stderr);
    std::exit(2);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return chosen->one_input(data, size);
}
