// SPDX-License-Identifier: MIT
#include "eval_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <linnet/eval/few_shot.hpp>
#include <linnet/eval/task_readers.hpp>

#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t stretch = 4000;  // bytes of text that are scored as one document, at least

/// The items of one file by one of the library's readers.
template <class Read>
std::vector<ln::eval_item> items_in(const std::string& path, Read read) {
  return take(read(file_text(path), path));
}

/// The files of a folder whose names begin and end so, sorted.
std::vector<std::string> files_in(const std::string& folder, std::string_view begin,
                                  std::string_view end) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    const std::string name = file.path().filename().string();
    if (name.starts_with(begin) && name.ends_with(end)) found.push_back(file.path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void append(std::vector<ln::eval_item>& all, std::vector<ln::eval_item> more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

/// The 67 sets of minimal pairs: those of the unpacked archive, or those that lie beside it.
std::vector<std::string> blimp_files(const std::string& folder) {
  std::vector<std::string> files = files_in(folder + "/data", "", ".jsonl");
  return files.empty() ? files_in(folder, "", ".jsonl") : files;
}
std::string unpacking_blimp(const std::string& folder) {
  return fmt::format(
      "{0}: no files *.jsonl; unpack the archive: unzip {0}/BLiMP.zip 'data/*' -d {0}", folder);
}
std::vector<ln::eval_item> read_blimp_folder(const std::string& folder) {
  const std::vector<std::string> files = blimp_files(folder);
  if (files.empty()) throw failure(unpacking_blimp(folder));
  std::vector<ln::eval_item> all;
  for (const std::string& file : files) append(all, items_in(file, ln::read_blimp));
  return all;
}

/// The questions of all subjects in the files of a part, "test" or "dev".
std::vector<ln::eval_item> read_mmlu_folder(const std::string& folder, const std::string& part) {
  const std::string begin = part + "__", end = "_" + part + ".csv";
  const std::vector<std::string> files = files_in(folder, begin, end);
  if (files.empty()) throw failure(fmt::format("{}: no files {}<subject>{}", folder, begin, end));
  std::vector<ln::eval_item> all;
  for (const std::string& file : files) {
    std::string subject = fs::path(file).filename().string();
    subject = subject.substr(begin.size(), subject.size() - begin.size() - end.size());
    append(all, items_in(file, [&](const std::string& text, const std::string& where) {
             return ln::read_mmlu(text, subject, where);
           }));
  }
  return all;
}

std::string hellaswag_file(const std::string& folder) { return folder + "/hellaswag_val_full.txt"; }
/// Empty if it is unpacked.
std::string unpacking_hellaswag(const std::string& folder) {
  const std::string file = hellaswag_file(folder);
  if (fs::exists(file) || !fs::exists(file + ".bz2")) return "";
  return fmt::format("{0}.bz2: unpack it first: bunzip2 -k {0}.bz2", file);
}
std::vector<ln::eval_item> read_hellaswag_folder(const std::string& folder) {
  if (const std::string how = unpacking_hellaswag(folder); !how.empty()) throw failure(how);
  return items_in(hellaswag_file(folder), ln::read_hellaswag);
}

/// The articles of WikiText: each begins with a line " = Title = ".
std::vector<std::string> articles_of(const std::string& text) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    const std::string_view line = std::string_view(text).substr(at, end - at);
    const bool title = line.starts_with(" = ") && !line.starts_with(" = =") &&
                       line.find(" = \n") != line.npos && line.find(" = = ") == line.npos;
    if (all.empty() || title) all.emplace_back();
    all.back() += line;
    at = end;
  }
  std::erase_if(all, [](const std::string& a) { return ln::detail::without_blanks(a).empty(); });
  return all;
}

/// Stretches of whole paragraphs, which blank lines separate.
std::vector<std::string> stretches_of(const std::string& text) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t gap = text.find("\n\n", std::min(at + stretch, text.size()));
    const std::size_t end = gap == text.npos ? text.size() : gap + 2;
    all.push_back(text.substr(at, end - at));
    at = end;
  }
  return all;
}

/// So many, evenly spread: a part that looks like the whole.
template <class T>
void keep_some(std::vector<T>& all, long limit) {
  const std::size_t n = all.size(), wanted = static_cast<std::size_t>(limit);
  if (limit <= 0 || wanted >= n) return;
  for (std::size_t i = 0; i < wanted; ++i)
    if (i * n / wanted != i) all[i] = std::move(all[i * n / wanted]);
  all.resize(wanted);
}

struct entry {
  std::string_view name;
  test_kind kind;
  std::vector<ln::eval_item> (*items)(const std::string& folder);
  std::vector<std::string> (*documents)(const std::string& folder);
};

const std::vector<entry>& table() {
  static const std::vector<entry> all{
      {"arc_easy", test_kind::choice,
       [](const std::string& f) { return items_in(f + "/test.json", ln::read_arc); }, nullptr},
      {"winogrande", test_kind::choice,
       [](const std::string& f) { return items_in(f + "/dev.json", ln::read_winogrande); },
       nullptr},
      {"hellaswag", test_kind::choice, read_hellaswag_folder, nullptr},
      {"mmlu", test_kind::choice, [](const std::string& f) { return read_mmlu_folder(f, "test"); },
       nullptr},
      {"blimp", test_kind::choice, read_blimp_folder, nullptr},
      {"lambada", test_kind::word,
       [](const std::string& f) { return items_in(f + "/lambada_test.jsonl", ln::read_lambada); },
       nullptr},
      {"gsm8k", test_kind::number,
       [](const std::string& f) { return items_in(f + "/test.jsonl", ln::read_gsm8k); }, nullptr},
      {"wikitext2", test_kind::text, nullptr,
       [](const std::string& f) { return articles_of(file_text(f + "/test.txt")); }},
      {"tinystories", test_kind::text, nullptr,
       [](const std::string& f) {
         return stretches_of(file_text(f + "/tinystories_valid_slice.txt"));
       }},
  };
  return all;
}

eval_test checked(eval_test made, const std::string& where, long limit) {
  keep_some(made.items, limit);
  keep_some(made.documents, limit);
  if (made.size() == 0) throw failure(where + ": nothing to evaluate");
  return made;
}

/// Puts examples before the questions of a test, which has all of its items yet.
void add_examples(eval_test& test, const std::vector<ln::eval_item>& all, const std::string& folder,
                  long shots) {
  if (shots == 0 || test.kind == test_kind::text) return;
  ln::few_shot_options how{.examples = shots};
  std::vector<ln::eval_item> others;
  if (test.name == "mmlu") {  // five of each subject, in the order in which they are published
    others = read_mmlu_folder(folder, "dev");
    how.drawn = false;
  } else if (test.name == "arc_easy" && fs::exists(folder + "/train.json")) {
    others = items_in(folder + "/train.json", ln::read_arc);
  } else if (test.kind == test_kind::number) {  // as judge::solve asks
    how.before = "\nAnswer: #### ";
    how.behind = "\n\nQuestion: ";
  }
  test.items = take(ln::few_shot(test.items, others.empty() ? all : others, how));
  test.note += fmt::format("{}{} examples each", test.note.empty() ? "" : ", ", shots);
}

}  // namespace

std::string eval_test::text_of(std::size_t i) const {
  if (kind == test_kind::text) return documents[i];
  std::string all = items[i].context + '\n' + items[i].group + '\n' + items[i].ending;
  for (const std::string& option : items[i].options) all += '\n' + option;
  return all + '\n' + std::to_string(items[i].answer);
}

std::vector<std::string_view> test_names() {
  std::vector<std::string_view> names;
  for (const entry& e : table()) names.push_back(e.name);
  return names;
}

std::string how_to_unpack(std::string_view name, const std::string& data) {
  const std::string folder = data + "/" + std::string(name);
  if (name == "hellaswag") return unpacking_hellaswag(folder);
  if (name == "blimp" && blimp_files(folder).empty() && fs::exists(folder + "/BLiMP.zip"))
    return unpacking_blimp(folder);
  return "";
}

eval_test read_test(std::string_view name, const std::string& data, long limit, long shots) {
  check_name("test", name, test_names());
  const auto at =
      std::find_if(table().begin(), table().end(), [&](const entry& e) { return e.name == name; });
  const std::string folder = data + "/" + std::string(name);
  if (!fs::is_directory(folder)) throw failure(folder + ": there is no such folder");
  eval_test made{
      .name = std::string(name), .kind = at->kind, .items = {}, .documents = {}, .note = {}};
  if (at->items != nullptr)
    made.items = at->items(folder);
  else
    made.documents = at->documents(folder);
  const std::vector<ln::eval_item> items = shots > 0 ? made.items : std::vector<ln::eval_item>();
  const std::size_t all = made.size();
  made = checked(std::move(made), folder, limit);
  if (name == "blimp")
    if (const std::size_t sets = blimp_files(folder).size(); sets != 67)
      made.note = fmt::format("{} of BLiMP's 67 sets", sets);
  if (made.size() < all)
    made.note += fmt::format("{}{} of {} items", made.note.empty() ? "" : ", ",
                             grouped(std::ssize(made.items) + std::ssize(made.documents)),
                             grouped(static_cast<ln::index>(all)));
  add_examples(made, items, folder, shots);
  return made;
}

eval_test read_text(const std::string& path, long limit) {
  return checked({.name = fs::path(path).filename().string(),
                  .kind = test_kind::text,
                  .items = {},
                  .documents = stretches_of(file_text(path)),
                  .note = {}},
                 path, limit);
}

}  // namespace zoo
