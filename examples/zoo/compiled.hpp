// SPDX-License-Identifier: MIT
#pragma once
// Programs and modules that are compiled when they are asked for the first time, and kept. Models
// are types, so what runs one that zoo was not built with is a short text of C++.

#include <filesystem>
#include <string>

namespace zoo {

/// What a text is compiled to.
enum class product {
  program,  ///< runs by itself
  module    ///< a shared object that zoo loads
};

/// Where programs are kept, or made for this run alone where there is no such place.
class program_folder {
 public:
  program_folder();
  program_folder(const program_folder&) = delete;
  program_folder& operator=(const program_folder&) = delete;
  ~program_folder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool temporary_ = false;
};

/// The compiled text, made anew only when it or a header of linnet has changed, or when what lies
/// there may be another user's, from a time when the folder was not private. `name` begins the
/// file's. Refuses what the compiler refuses, with its first error.
/// `more` are options of the compiler.
std::filesystem::path compiled(const std::filesystem::path& folder, const std::string& name,
                               const std::string& text, product kind, const std::string& more = "");

/// The function `name` of a module with this text; its file's name begins with `begins`. It stays
/// loaded. Refuses one whose `name`_interface() is not `number`.
void* function_of(const std::string& begins, const std::string& text, const std::string& name,
                  int number, const std::string& more = "");

/// Options that a text with linnet/mpi.hpp is compiled with; refuses where zoo was built without an
/// MPI.
std::string options_of_mpi();

/// All bytes of a file; none if there is no such file.
std::string contents(const std::filesystem::path& file);

/// Runs a command; its output goes to FILE.out and FILE.err. Whether it succeeded. Throws an
/// interruption where a signal such as Ctrl-C ended it.
bool succeeds(const std::string& command, const std::filesystem::path& file);

/// The first line with an error in a file that a command wrote.
std::string first_error(const std::filesystem::path& file);

}  // namespace zoo
