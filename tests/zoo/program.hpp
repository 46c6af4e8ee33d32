// SPDX-License-Identifier: MIT
#pragma once
// Runs the program zoo.

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "support/program.hpp"

namespace test {

/// Sets an environment variable for a while.
class with_variable {
 public:
  with_variable(const char* name, const std::string& value) : name_(name) {
    if (const char* const was = std::getenv(name)) was_ = was;
    setenv(name, value.c_str(), 1);
  }
  with_variable(const with_variable&) = delete;
  with_variable& operator=(const with_variable&) = delete;
  ~with_variable() { was_.empty() ? unsetenv(name_) : setenv(name_, was_.c_str(), 1); }

 private:
  const char* name_;
  std::string was_;
};

/// For a while, zoo compiles into a folder, without optimization: with the compiled kernels, or
/// with those of one level, which take a third of the time of all. See quick_compiler for headers.
class compiling_into {
 public:
  explicit compiling_into(const std::string& folder)
      : cache_("XDG_CACHE_HOME", folder), flags_("CXXFLAGS", flags()) {}

 private:
  with_variable cache_, flags_;
#if defined(ZOO_HEADERS)
  with_variable headers_{"ZOO_HEADERS", ZOO_HEADERS},
      compiler_{"CXX", LINNET_TEST_DIR "/zoo/quick_compiler"};
#endif

  static std::string flags() {
#if defined(ZOO_KERNELS)
    return "-O0 -DLINNET_COMPILED_KERNELS -Wl,--whole-archive " + quoted(ZOO_KERNELS) +
           " -Wl,--no-whole-archive";
#else
    return "-O0 -DLINNET_ONLY_LEVEL=portable";
#endif
  }
};

inline outcome zoo(const std::vector<std::string>& arguments) {
  return run_program(ZOO_PROGRAM, arguments);
}

/// What the program prints when all is well.
inline std::string zoo_prints(const std::vector<std::string>& arguments) {
  const outcome o = zoo(arguments);
  BOOST_REQUIRE_MESSAGE(o.status == 0,
                        "zoo " << arguments[0] << ": status " << o.status << ", " << o.err);
  return o.out;
}

/// Passes if the program refuses these arguments as it should: status 2, one line that has `words`
/// in it, nothing else.
inline void check_refused(const std::vector<std::string>& arguments, const std::string& words) {
  const outcome o = zoo(arguments);
  std::string shown;
  for (const std::string& argument : arguments) shown += " " + argument;
  BOOST_CHECK_MESSAGE(o.status == 2, "zoo" << shown << ": status " << o.status);
  BOOST_CHECK_MESSAGE(o.lines_of_error() == 1 && o.err.starts_with("zoo: "),
                      "zoo" << shown << ": " << o.err);
  BOOST_CHECK_MESSAGE(o.err.find(words) != std::string::npos, "zoo" << shown << ": " << o.err);
  BOOST_CHECK_MESSAGE(o.out.empty(), "zoo" << shown << " also printed: " << o.out);
}

}  // namespace test
