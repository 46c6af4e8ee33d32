// SPDX-License-Identifier: MIT
#include "compiled.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "support.hpp"
#include "support/ranks.hpp"

namespace zoo {

namespace fs = std::filesystem;

namespace {

/// A hash (FNV-1a) of the program and of all that it includes from linnet, as text.
std::string key_of(const std::string& compiler, const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](const std::string& bytes) {
    for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  };
  add(compiler);
  add(text);
  std::vector<fs::path> headers;
  for (const char* const folder : {"include", "benchmarks", "examples/support", "examples/zoo"})
    for (const auto& file : fs::recursive_directory_iterator(fs::path(ZOO_SOURCE_DIR) / folder))
      if (const auto type = file.path().extension(); type == ".hpp" || type == ".inl")
        headers.push_back(file.path());
  std::sort(headers.begin(), headers.end());
  for (const fs::path& header : headers) add(contents(header));
  return fmt::format("{:016x}", hash);
}

/// Whether nobody but this user (and root) can put anything there: neither into the file or folder
/// nor, by another name for one of those above, in its place. A file is this user's own.
bool is_private(const fs::path& path) {
  std::error_code problem;
  fs::path at = fs::canonical(path, problem);
  for (bool above = false; !problem; at = at.parent_path(), above = true) {
    struct stat is {};
    if (lstat(at.c_str(), &is) != 0) return false;
    const bool open_to_others = (is.st_mode & (S_IWGRP | S_IWOTH)) != 0,
               sticky = (is.st_mode & S_ISVTX) != 0;
    if (is.st_uid != geteuid() && !(above && is.st_uid == 0)) return false;
    if (open_to_others && !(above && sticky)) return false;
    if (!at.has_relative_path()) return true;
  }
  return false;
}

}  // namespace

std::string contents(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

program_folder::program_folder() {
  fs::path base = variable("XDG_CACHE_HOME");
  if (base.empty() && !variable("HOME").empty()) base = fs::path(variable("HOME")) / ".cache";
  std::error_code problem;
  if (base.is_absolute()) {
    path_ = base / "linnet";
    fs::create_directories(base, problem);
    mkdir(path_.c_str(), 0700);
    if (access(path_.c_str(), W_OK) == 0 && is_private(path_)) return;
    say("{}: not a folder of this user alone, so the program is not kept\n", path_.string());
  }
  std::string made = (fs::temp_directory_path(problem) / "linnet-XXXXXX").string();
  temporary_ = mkdtemp(made.data()) != nullptr;
  path_ = made;
  if (temporary_ && is_private(path_)) return;
  fs::remove(path_, problem);
  throw failure("no folder for programs that is this user's alone: set XDG_CACHE_HOME to one");
}
program_folder::~program_folder() {
  std::error_code ignored;
  if (temporary_) fs::remove_all(path_, ignored);
}

bool succeeds(const std::string& command, const fs::path& file) {
  const auto clean = [&] {
    for (const char* const end : {".out", ".err"}) fs::remove(file.string() + end);
  };
  clean();
  const std::string to =
      " >" + quoted(file.string() + ".out") + " 2>" + quoted(file.string() + ".err");
  const int status = std::system((command + to).c_str());
  // While it waits, this process ignores the Ctrl-C that ends the command. Shells add 128.
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status)
                     : WIFEXITED(status) ? WEXITSTATUS(status) - 128
                                         : 0;
  if (signal == SIGINT || signal == SIGQUIT || signal == SIGTERM || signal == SIGHUP) {
    clean();
    throw interruption(signal, fmt::format("stopped by a signal ({}); the same command begins anew",
                                           strsignal(signal)));
  }
  return status == 0;
}

std::string first_error(const fs::path& file) {
  std::ifstream lines(file);
  std::string first, line;
  while (std::getline(lines, line)) {
    if (first.empty()) first = line;
    if (line.find("error") != std::string::npos) return line;
  }
  return first.empty() ? "no message" : first;
}

fs::path compiled(const fs::path& folder, const std::string& name, const std::string& text,
                  product kind, const std::string& more) {
  if (!fs::exists(fs::path(ZOO_SOURCE_DIR) / "examples/zoo/bench_of.hpp"))
    throw failure(fmt::format("{}: linnet's sources are gone; build zoo again where they are now",
                              ZOO_SOURCE_DIR));
  const std::string compiler = variable("CXX").empty() ? "c++" : variable("CXX"),
                    flags = variable("CXXFLAGS");
  const fs::path program =
      folder / fmt::format("{}-{}", name, key_of(compiler + ' ' + flags + more, text));
  if (is_private(program)) return program;
  const claim only_one = claim::wait(program.string() + ".lock");  // others wait for the program
  if (is_private(program)) return program;

  const std::string source = program.string() + ".cpp";
  const fs::path fresh = fmt::format("{}.{}", program.string(), getpid());
  const auto clean = [&] {
    for (const char* const end : {".out", ".err"}) fs::remove(fresh.string() + end);
  };
  const bool there = succeeds(fmt::format("command -v {}", compiler), fresh);
  clean();
  if (!there)
    throw failure(
        fmt::format("{}: there is no such compiler; CXX names a compiler of C++20", compiler));
  fs::remove(source);
  std::ofstream(source) << text;
  say("compiling {} (once; some 20 seconds)\n", source);
  std::string includes;
  for (const std::string_view path : {ZOO_SOURCE_DIR "/include", ZOO_SOURCE_DIR "/examples"})
    includes += " -I" + quoted(std::string(path));
  for (std::string_view rest = ZOO_SYSTEM_DIRS; !rest.empty();) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    includes += " -isystem " + quoted(std::string(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto compile = [&](const char* openmp) {
    return succeeds(
        fmt::format("{} -std=c++20 -O3 -DNDEBUG {} {} -pthread -Wno-psabi {}{} {} {} -o {}",
                    compiler, openmp, kind == product::module ? "-shared -fPIC" : "", flags,
                    includes, quoted(source), more, quoted(fresh.string())),
        fresh);
  };
  const bool made = compile("-fopenmp") || compile("");
  const std::string problem = made ? "" : first_error(fresh.string() + ".err");
  clean();
  if (!made)
    throw failure(fmt::format("{}: {} does not compile it: {}; CXX names a compiler of C++20",
                              source, compiler, problem));
  fs::permissions(fresh, fs::perms::group_write | fs::perms::others_write,
                  fs::perm_options::remove);
  fs::rename(fresh, program);
  return program;
}

std::string options_of_mpi() {
#if defined(ZOO_MPI_DIRS)
  std::string options;
  const auto each = [&](std::string_view all, const auto& add) {
    for (; !all.empty(); all.remove_prefix(std::min(all.find(':') + 1, all.size()))) {
      const std::string_view one = all.substr(0, all.find(':'));
      add(std::string(one));
      if (one.size() == all.size()) break;
    }
  };
  each(ZOO_MPI_DIRS, [&](const std::string& one) { options += " -isystem " + quoted(one); });
  each(ZOO_MPI_LIBRARIES, [&](const std::string& one) {
    options += ' ' + quoted(one);
    // It may be in a folder that the loader knows nothing of.
    if (one.starts_with('/'))
      options += ' ' + quoted("-Wl,-rpath," + fs::path(one).parent_path().string());
  });
  return options;
#else
  throw failure(
      "this zoo was built without an MPI (Debian: libopenmpi-dev), so it trains in one process, "
      "without --parts");
#endif
}

void* function_of(const std::string& begins, const std::string& text, const std::string& name,
                  int number, const std::string& more) {
  const program_folder folder;
  const std::string file = compiled(folder.path(), begins, text, product::module, more).string();
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw failure(fmt::format("{}: {}", file, dlerror()));
  const auto interface = reinterpret_cast<int (*)()>(dlsym(library, (name + "_interface").c_str()));
  void* const made = dlsym(library, name.c_str());
  if (interface == nullptr || made == nullptr || interface() != number)
    throw failure(file + ": is for another zoo; build zoo again, as its sources have changed");
  return made;
}

}  // namespace zoo
