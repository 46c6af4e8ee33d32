// SPDX-License-Identifier: MIT
// zoo eval: judges a decoder by tests. What is computed together (the options of an item, or some
// answers that are written) depends on the tests and --batch alone and runs in one thread, so that
// results are the same bits for any number of threads and however often a run was interrupted.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <linnet/eval/answers.hpp>
#include <linnet/eval/language.hpp>
#include <linnet/file/file.hpp>
#include <linnet/text/bytes.hpp>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "commands.hpp"
#include "course.hpp"
#include "eval_results.hpp"
#include "models.hpp"
#include "running.hpp"
#include "support.hpp"
#include "support/marks.hpp"
#include "tokenizing.hpp"
#include "trained.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

constexpr ln::index rows_at_once = 64;         // tokens whose logits exist at a time
constexpr ln::index longest_unlimited = 1024;  // context of a model that has none of its own
constexpr ln::index longest_answer = 256;      // tokens

/// A model and how text becomes its tokens.
struct judged {
  eval_subject who;
  std::unique_ptr<running> model;
  std::function<std::vector<ln::token>(std::string_view)> encode;
  std::function<std::string(ln::token previous, ln::token id)> decode;
  ln::token opening = 0;         ///< stands before a text
  std::vector<ln::token> stops;  ///< end an answer

  bool ends(ln::token id) const { return std::find(stops.begin(), stops.end(), id) != stops.end(); }
};

void use_bytes(judged& j, ln::token offset) {
  const ln::byte_tokenizer bytes{offset};
  j.who.tokenizer = "bytes";
  j.encode = [bytes](std::string_view text) { return bytes.encode(text); };
  j.decode = [bytes](ln::token previous, ln::token id) { return bytes.decode(previous, id); };
  j.opening = '\n' + offset;  // no byte begins a text, but a line's end comes before one
}

void use(judged& j, const tokenizing& text) {
  j.who.tokenizer = text.name;
  j.encode = text.encode;
  j.decode = text.decode;
  j.opening = text.before;
  j.stops = text.stops;
}

judged open_model(const eval_options& o) {
  judged j;
  j.who.weights = o.weights;
  const auto limits = [&](ln::index context) {
    if (context > 0 && o.context > context)
      throw failure(fmt::format("--context: {} is more than the model's {}", o.context, context));
    j.who.context = o.context > 0 ? o.context : context > 0 ? context : longest_unlimited;
    const ln::index most = std::min(rows_at_once, j.who.context);
    // One sequence more: it keeps what options begin with.
    return ln::limits{
        .batch = o.batch + 1, .target = j.who.context, .chunk = most, .max_logits = most};
  };
  const auto t5 = [](std::string_view name) {
    return failure(fmt::format("{} is an encoder-decoder; zoo eval judges decoders", name));
  };
  if (std::find(byte_model_names.begin(), byte_model_names.end(), o.model) !=
          byte_model_names.end() ||
      (o.model.empty() && !knows_its_model(o.weights))) {
    if (!o.how.none()) throw failure("--storage and --compute go with a preset");
    const auto learned = load_learner(o.weights, o.model);
    const reading& how = learned->how_to_read();
    j.who.model = o.model.empty() ? std::string(name_of(byte_model::decoder)) : o.model;
    if (how.encodes) throw t5(name_of(byte_model::t5));
    use_bytes(j, how.offset);
    j.model = learned->deploy(form::collapsed)->open(limits(how.target));
    return j;
  }
  const runnable_preset preset = find_runnable(o.model, o.weights);
  j.who.model = preset.name;
  if (!o.how.none())
    j.who.model += fmt::format(" (storage {}, compute {})", o.how.storage, o.how.compute);
  if (preset.encodes) throw t5(preset.name);
  use(j, find_tokenizer(o.tokenizer, o.weights, preset));
  j.model = open_runnable(preset, o.weights, limits(preset.context), o.how);
  return j;
}

/// What one thread computes with: a session of its own.
class judge {
 public:
  judge(const judged& j, std::unique_ptr<running> model)
      : judged_(&j), model_(std::move(model)), paths_(*model_) {}

  /// `count` items from `first` on, which are computed together.
  std::vector<record> operator()(const eval_test& test, std::size_t first, std::size_t count) {
    if (test.kind == test_kind::number) return solve(test, first, count);
    std::vector<record> made;
    for (std::size_t i = first; i < first + count; ++i) made.push_back(score(test, i));
    return made;
  }

 private:
  record score(const eval_test& test, std::size_t i) {
    if (test.kind == test_kind::text) {
      const auto s =
          take(ln::score_text(paths_, judged_->encode, judged_->opening, test.documents[i]));
      return record_of(s.nats, {s.tokens, s.bytes, s.characters});
    }
    return record_of(take(
        ln::score_options(paths_, judged_->encode, test.items[i], {.opening = judged_->opening})));
  }

  /// Lets the model write solutions, each up to where it begins a new text or a new question.
  std::vector<record> solve(const eval_test& test, std::size_t first, std::size_t count) {
    struct solution {
      std::vector<ln::token> prompt;
      std::string text;
      ln::token previous = 0;
      double written = 0;
    };
    const ln::index most = std::min(longest_answer, model_->capacity() / 2),
                    room = std::max(model_->capacity() - most, ln::index{1});
    std::vector<solution> all(count);
    std::vector<std::span<const ln::token>> prompts;
    for (std::size_t k = 0; k < count; ++k) {
      auto& [prompt, text, previous, written] = all[k];
      const std::vector<ln::token> asked =
          judged_->encode("Question: " + test.items[first + k].context + "\nAnswer:");
      prompt = {judged_->opening};
      prompt.insert(prompt.end(), asked.end() - std::min(std::ssize(asked), room - 1), asked.end());
      previous = prompt.back();
      prompts.push_back(prompt);
    }
    const bool done =
        ln::generate_greedy(*model_, std::span<const std::span<const ln::token>>(prompts), most,
                            [&](std::size_t k, ln::token id) {
                              solution& s = all[k];
                              ++s.written;
                              if (judged_->ends(id)) return false;
                              s.text += judged_->decode(std::exchange(s.previous, id), id);
                              return s.text.find("\nQuestion:") == s.text.npos;
                            });
    if (!done) throw failure(test.name + ": a question has tokens that the model refuses");
    std::vector<record> made;
    for (std::size_t k = 0; k < count; ++k) {
      const std::string text = all[k].text.substr(0, all[k].text.find("\nQuestion:"));
      const std::string& right = test.items[first + k].options[0];
      made.push_back({ln::parse_gsm8k_answer(text) == right ? 1.0 : 0.0,
                      ln::last_number(text) == right ? 1.0 : 0.0, all[k].written});
    }
    return made;
  }

  const judged* judged_;
  std::unique_ptr<running> model_;
  ln::session_scorer<running> paths_;
};

/// All items of all tests in one order.
struct work_list {
  struct item {
    std::size_t test, number;
    double cost;  ///< bytes of text
  };
  std::vector<item> items;
  std::vector<std::size_t> units;  ///< where each begins; its items are computed together
  double cost = 0;

  work_list(const std::vector<eval_test>& tests, long batch) {
    for (std::size_t t = 0; t < tests.size(); ++t)
      for (std::size_t i = 0; i < tests[t].size(); ++i) {
        const bool together = tests[t].kind == test_kind::number;
        if (!together || i % static_cast<std::size_t>(batch) == 0) units.push_back(items.size());
        items.push_back({t, i, static_cast<double>(tests[t].text_of(i).size())});
        cost += items.back().cost;
      }
  }
};

/// What is finished, in a file: a line that says what of, then one line for each item in order.
class journal {
 public:
  /// Reads what is there of this run, if anything, and goes on behind it. Refuses a file of another
  /// run. An empty path keeps nothing.
  journal(const std::string& path, const std::string& head, const std::vector<eval_test>& tests,
          const work_list& work)
      : tests_(&tests), work_(&work) {
    if (path.empty()) return;
    std::string kept = head + "\n";
    if (fs::exists(path)) {
      const ln::file_bytes file = take(ln::read_file(path));
      const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
      const std::size_t end = text.find('\n');
      if (end != text.npos) {
        if (text.substr(0, end) != head)
          throw failure(path +
                        ": is of another model, other weights, tests or options; remove it, "
                        "or name another --out");
        for (std::size_t at = end + 1; done_.size() < work.items.size();) {
          const std::size_t stop = text.find('\n', at);
          std::optional<record> r;
          if (stop != text.npos) r = parse(text.substr(at, stop - at));
          if (!r) break;  // cut in the middle, or nothing more
          done_.push_back(*std::move(r));
          kept += text.substr(at, stop + 1 - at);
          at = stop + 1;
        }
      }
    }
    file_.emplace(take(ln::line_file::open(path, kept)));
  }

  /// The records so far, of the first items.
  std::vector<record>& done() { return done_; }
  /// Adds the next item's record.
  void add(record r) {
    if (file_) {
      take(file_->write(line(done_.size(), r)));
      if (now() - synced_ > seconds_between_syncs) {
        sync();
        synced_ = now();
      }
    }
    done_.push_back(std::move(r));
  }
  /// Whether there is a file.
  bool keeps() const { return file_.has_value(); }
  /// What is finished outlives a power cut.
  void sync() {
    if (file_) take(file_->sync());
  }

 private:
  std::string line(std::size_t i, const record& r) const {
    const work_list::item& item = work_->items[i];
    std::vector<std::string> numbers;
    for (const double x : r) numbers.push_back(ln::is_finite(x) ? fmt::format("{}", x) : "null");
    return fmt::format("{{\"test\":{},\"item\":{},\"figures\":[{}]}}\n",
                       nlohmann::json((*tests_)[item.test].name).dump(), item.number,
                       fmt::join(numbers, ","));
  }
  /// The record of the next item, or nothing if the line is none of it.
  std::optional<record> parse(std::string_view text) const {
    const work_list::item& item = work_->items[done_.size()];
    const auto all = nlohmann::json::parse(text, nullptr, false);
    if (!all.is_object() || all.value("test", nlohmann::json()) != (*tests_)[item.test].name ||
        all.value("item", nlohmann::json()) != item.number || !all.contains("figures") ||
        !all["figures"].is_array() ||
        all["figures"].size() != record_size((*tests_)[item.test], item.number))
      return {};
    record r;
    for (const auto& x : all["figures"]) {
      if (!x.is_number() && !x.is_null()) return {};
      r.push_back(x.is_null() ? std::nan("") : x.get<double>());
    }
    return r;
  }

  const std::vector<eval_test>* tests_;
  const work_list* work_;
  std::vector<record> done_;
  std::optional<ln::line_file> file_;
  static constexpr double seconds_between_syncs = 30;
  double synced_ = now();
};

/// Computes what is not done yet, unit by unit on so many threads.
void run(judged& j, const std::vector<eval_test>& tests, const work_list& work, journal& book,
         int threads) {
  const std::size_t first = book.done().size();
  if (first == work.items.size()) return;
  // The unit of the first item that is missing; some of that unit's may be there.
  const auto begun = std::upper_bound(work.units.begin(), work.units.end(), first) - 1;
  std::atomic<std::size_t> next{static_cast<std::size_t>(begun - work.units.begin())};
  std::mutex mutex;
  std::vector<std::optional<record>> waiting(work.items.size());  // not yet in order
  std::exception_ptr problem;
  double before = 0, finished = 0;
  for (std::size_t i = 0; i < *begun; ++i) before += work.items[i].cost;
  const double start = now();
  progress shown;

  const auto take_part = [&](judge& by) {
    try {
      for (;;) {
        const std::size_t unit = next++;
        if (unit >= work.units.size() || stop_requests::received() != 0) return;
        const std::size_t from = work.units[unit], to = unit + 1 < work.units.size()
                                                            ? work.units[unit + 1]
                                                            : work.items.size();
        const eval_test& test = tests[work.items[from].test];
        std::vector<record> made = by(test, work.items[from].number, to - from);
        const std::lock_guard lock(mutex);
        if (problem) return;
        for (std::size_t i = from; i < to; ++i) {
          waiting[i] = std::move(made[i - from]);
          finished += work.items[i].cost;
        }
        for (std::size_t at = book.done().size(); at < work.items.size() && waiting[at];
             at = book.done().size())
          book.add(*std::exchange(waiting[at], std::nullopt));
        if (!shown.due()) continue;
        const double left = work.cost - before - finished;
        shown.show((before + finished) / work.cost, (now() - start) * left / finished,
                   {{test.name, fmt::format("item {} of {}", grouped(static_cast<ln::index>(to)),
                                            grouped(std::ssize(work.items)))}});
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!problem) problem = std::current_exception();
      next = work.units.size();
    }
  };
  std::vector<std::unique_ptr<judge>> judges;
  const auto enough = std::min(static_cast<std::size_t>(threads), work.units.size() - next);
  for (std::size_t t = 1; t < enough; ++t)
    judges.push_back(std::make_unique<judge>(j, j.model->another()));
  judges.push_back(std::make_unique<judge>(j, std::move(j.model)));
  std::vector<std::thread> helpers;
  for (std::size_t t = 1; t < judges.size(); ++t)
    helpers.emplace_back([&, t] { take_part(*judges[t]); });
  take_part(*judges[0]);
  for (std::thread& t : helpers) t.join();
  if (problem) std::rethrow_exception(problem);
  const int signal = stop_requests::received();
  if (signal == 0 || book.done().size() == work.items.size()) return;
  book.sync();
  throw interruption(
      signal, fmt::format("stopped by a signal ({}) after item {} of {}; {}", strsignal(signal),
                          grouped(std::ssize(book.done())), grouped(std::ssize(work.items)),
                          book.keeps() ? "the same command goes on from there"
                                       : "--out FILE keeps what is finished"));
}

/// What makes results comparable, for the first line of the journal.
std::string head_of(const judged& j, const eval_options& o, const std::vector<eval_test>& tests) {
  const bool is_bytes = j.who.tokenizer == "bytes" || j.who.tokenizer == "byt5";
  nlohmann::ordered_json head{
      {"zoo.eval", 1},
      {"model", j.who.model},
      {"weights", mark_of_file(o.weights)},
      {"tokenizer", is_bytes ? j.who.tokenizer : mark_of_file(j.who.tokenizer)},
      {"context", j.who.context},
      {"batch", o.batch}};
  for (const eval_test& test : tests) {
    std::string all;
    for (std::size_t i = 0; i < test.size(); ++i) all += test.text_of(i) + '\n';
    head["tests"][test.name] = mark_of_text(all);
  }
  return head.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<eval_test> read_tests(const eval_options& o) {
  std::vector<eval_test> tests;
  const auto add = [&](eval_test test) {
    for (const eval_test& other : tests)
      if (other.name == test.name) throw failure("'" + test.name + "' is there twice");
    tests.push_back(std::move(test));
  };
  for (const std::string& name : o.tasks) add(read_test(name, o.data, o.limit, o.shots));
  if (o.tasks.empty() && !o.data.empty())
    for (const std::string_view name : test_names()) {
      if (!fs::is_directory(o.data + "/" + std::string(name))) continue;
      if (const std::string how = how_to_unpack(name, o.data); !how.empty())
        say("{} is left out: {}\n", name, how);
      else
        add(read_test(name, o.data, o.limit, o.shots));
    }
  for (const std::string& path : o.texts) add(read_text(path, o.limit));
  if (tests.empty())
    throw failure("nothing to evaluate: give --data, a folder of tests, or --text");
  return tests;
}

/// The files and folders that are read.
std::vector<std::string> files_read(const eval_options& o) {
  std::vector<std::string> all = o.texts;
  all.push_back(o.tokenizer);
  for (const std::string_view name : test_names())
    if (!o.data.empty()) all.push_back(o.data + "/" + std::string(name));
  std::error_code ignored;
  if (!fs::is_directory(o.weights, ignored)) {
    all.push_back(o.weights);
    return all;
  }
  for (const fs::directory_entry& file : fs::directory_iterator(o.weights, ignored)) {
    const std::string name = file.path().filename().string();
    if (name == "config.json" || name == "zoo.json" || name.find(".safetensors") != name.npos)
      all.push_back(file.path().string());
  }
  return all;
}

}  // namespace

void evaluate(const eval_options& asked) {
  eval_options o = asked;
  o.weights = weights_of(o.model, o.weights);
  if (!o.out.empty())
    for (const char* const end : {"", ".items.jsonl"}) check_writable(o.out + end, files_read(o));
  judged j = open_model(o);
  const std::vector<eval_test> tests = read_tests(o);
  const work_list work(tests, o.batch);
  journal book(o.out.empty() ? "" : o.out + ".items.jsonl", head_of(j, o, tests), tests, work);
  {
    const stop_requests stops;
    run(j, tests, work, book, o.threads);
  }

  std::vector<std::vector<record>> records(tests.size());
  for (std::size_t i = 0; i < work.items.size(); ++i)
    records[work.items[i].test].push_back(book.done()[i]);
  if (!o.out.empty()) {
    const std::string text = results_json(j.who, tests, records);
    take(ln::write_file(o.out, std::as_bytes(std::span(text))));
  }
  put("{}", results_table(j.who, tests, records));  // may fail
}

}  // namespace zoo
