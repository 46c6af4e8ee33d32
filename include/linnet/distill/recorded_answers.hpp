// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Teachers in files: recorded answers in JSON lines, and a recording of another teacher, by which
/// interrupted runs continue.

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <linnet/core/real_text.hpp>
#include <linnet/data/json_lines.hpp>
#include <linnet/data/training_item.hpp>
#include <linnet/distill/teacher.hpp>
#include <linnet/file/file.hpp>

LINNET_NAMESPACE_BEGIN

/// A teacher whose answers stand in JSON lines, found by prompt:
///
///     {"prompt": "What is 2 + 2?", "answer": "4"}
///     {"prompt": "What is 2 + 2?", "against": "What is 2 + 3?", "answer": "4"}
///     {"prompt": "What is 2 + 2?", "text": "4", "score": -0.125}
///
/// Several answers to one prompt are its draws, in their order. `against` is that of
/// teacher_request, `score` that of scoring_teacher. A line {"teacher": "name"} says who wrote
/// them.
class recorded_answers {
 public:
  /// Parses JSON lines; `where` names the file in errors. Errors: errc::malformed, naming the
  /// line, for what is no such object; errc::unsupported for a line above 1 MiB.
  static result<recorded_answers> parse(std::string_view lines,
                                        const std::string& where = "recorded_answers") LINNET_TRY {
    recorded_answers made(where);
    if (auto added = made.add_lines(lines); !added) return added.error();
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(where)
  /// Reads a file. Errors: as above, and errc::io.
  static result<recorded_answers> open(const std::string& path) LINNET_TRY {
    const auto bytes = read_file(path);
    if (!bytes) return bytes.error();
    return parse({reinterpret_cast<const char*>(bytes->data()), bytes->size()}, path);
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// Number of answers.
  index answers() const { return count_; }
  /// Who wrote them; "" if no line says it.
  std::string_view name() const { return name_; }
  /// The answer to a request, or null.
  const std::string* find(const teacher_request& one) const {
    const auto found = answers_.find({one.prompt, one.against});
    if (found == answers_.end() || one.draw < 0 || one.draw >= std::ssize(found->second))
      return nullptr;
    return &found->second[static_cast<std::size_t>(one.draw)];
  }
  /// The score of a text behind a prompt, or null.
  const double* find_score(std::string_view prompt, std::string_view text) const {
    const auto found = scores_.find({std::string(prompt), std::string(text)});
    return found == scores_.end() ? nullptr : &found->second;
  }

  /// Looks the answers up. Errors: errc::missing for a request without one.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) const LINNET_TRY {
    std::vector<std::string> texts;
    for (const teacher_request& one : all) {
      const std::string* const text = find(one);
      if (!text) return detail::no_answer(where_, one.prompt, one.draw);
      texts.push_back(*text);
    }
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// Looks a score up. Errors: errc::missing.
  result<double> score(std::string_view prompt, std::string_view text) const LINNET_TRY {
    if (const double* const found = find_score(prompt, text)) return *found;
    return detail::failure(errc::missing, where_, "score of \"" + detail::printable(text) + '"',
                           "one that was recorded", "none");
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

  /// Adds lines behind those that are there. Errors: see parse(); lines before the wrong one stay.
  result<void> add_lines(std::string_view lines) LINNET_TRY {
    for (index line = 1; !lines.empty(); ++line) {
      const std::size_t end = (std::min)(lines.find('\n'), lines.size());
      const std::string_view object = lines.substr(0, end);
      lines.remove_prefix((std::min)(end + 1, lines.size()));
      if (object.find_first_not_of(" \t\r") == object.npos) continue;
      if (auto added = add(object, where_ + ":" + std::to_string(line)); !added) return added;
    }
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY(where_)

 private:
  result<void> add(std::string_view object, const std::string& place) {
    const std::string fields[] = {"prompt", "against", "answer", "text", "score", "teacher"};
    detail::line_reader reader(fields, place);
    if (auto read =
            detail::read_json({reinterpret_cast<const std::byte*>(object.data()), object.size()},
                              detail::longest_json_line, place, "the line", reader);
        !read)
      return read.error();
    const auto& has = reader.found;
    auto& values = reader.values;
    const auto wrong = [&](const char* expected) {
      return detail::failure(errc::malformed, place, "the line", expected, "other fields");
    };
    if (has[5] && !has[0] && !has[1] && !has[2] && !has[3] && !has[4]) {
      name_ = std::move(values[5]);
      return {};
    }
    if (!has[0] || has[5] || has[2] == has[4] || has[3] != has[4] || (has[1] && !has[2]))
      return wrong(
          "\"prompt\" with \"answer\", and maybe \"against\", or with \"text\" and \"score\"");
    if (has[2]) {
      answers_[{std::move(values[0]), std::move(values[1])}].push_back(std::move(values[2]));
      ++count_;
      return {};
    }
    double score = 0;
    const char* const end = values[4].data() + values[4].size();
    if (const auto [stop, problem] = detail::read_real(values[4].data(), end, score);
        stop != end || problem != std::errc() || !is_finite(score))
      return detail::failure(errc::malformed, place, "score", "a number",
                             detail::printable(values[4]));
    scores_[{std::move(values[0]), std::move(values[3])}] = score;
    return {};
  }
  using text_pair_key = std::pair<std::string, std::string>;
  explicit recorded_answers(std::string where) : where_(std::move(where)) {}

  std::string where_, name_{};
  std::map<text_pair_key, std::vector<std::string>> answers_{};
  std::map<text_pair_key, double> scores_{};
  index count_ = 0;
};

/// Asks another teacher, which must outlive it, and writes all that it says to a file; what stands
/// there is not asked again. So a run that ended in the middle continues exactly: it gets the
/// answers it had, and then new ones. The file is one for a recorded_answers.
class answer_recorder {
 public:
  /// Continues the record in `path`, or begins it. `name` says which teacher and settings it is of.
  /// Requests go to the teacher `portion` at a time, and their answers to the disk. An unfinished
  /// last line, left by a program that was killed, is dropped. Errors: those of
  /// recorded_answers::open(), errc::io, errc::mismatch for another teacher's record, errc::invalid
  /// for a portion below 1.
  static result<answer_recorder> open(const std::string& path, teacher_ref teacher,
                                      const std::string& name, index portion = 8) LINNET_TRY {
    if (portion < 1)
      return detail::failure(errc::invalid, "answer_recorder::open", "portion", "at least 1",
                             std::to_string(portion));
    std::string kept;
    if (detail::exists(path)) {
      const auto bytes = read_file(path);
      if (!bytes) return bytes.error();
      const std::string_view all(reinterpret_cast<const char*>(bytes->data()), bytes->size());
      kept = all.substr(0, all.rfind('\n') + 1);
    }
    if (kept.empty())
      kept = "{\"teacher\": " + detail::json_quoted(detail::only_utf8(name)) + "}\n";
    auto known = recorded_answers::parse(kept, path);
    if (!known) return known.error();
    if (known->name() != detail::only_utf8(name))
      return detail::failure(errc::mismatch, path, "teacher", detail::printable(name),
                             known->name().empty() ? "a record without a teacher's name"
                                                   : detail::printable(known->name()));
    auto file = line_file::open(path, kept);
    if (!file) return file.error();
    return answer_recorder(path, teacher, std::move(*known), std::move(*file), portion);
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// All that was recorded so far.
  const recorded_answers& record() const { return known_; }
  /// Answers from the record, and asks for the others. Errors: the teacher's; errc::io, after which
  /// the record has to be opened anew; errc::invalid for a draw before the ones below it.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) LINNET_TRY {
    std::vector<teacher_request> missing;
    const auto asks = [&](const teacher_request& one) {
      return std::find(missing.begin(), missing.end(), one) != missing.end();
    };
    for (const teacher_request& one : all) {
      if (known_.find(one) || asks(one)) continue;
      // Draws are found again by their order, so none is asked for before those below it.
      if (const teacher_request below{one.prompt, one.against, one.draw - 1};
          one.draw != 0 && !known_.find(below) && !asks(below))
        return detail::failure(errc::invalid, path_, "draw", "one behind all draws below it",
                               std::to_string(one.draw));
      missing.push_back(one);
    }
    for (std::size_t i = 0; i < missing.size(); i += static_cast<std::size_t>(portion_)) {
      const auto some = std::span(missing).subspan(
          i, (std::min)(missing.size() - i, static_cast<std::size_t>(portion_)));
      const auto texts = teacher_.generate(some);
      if (!texts) return texts.error();
      std::string lines;
      for (std::size_t k = 0; k < some.size(); ++k)
        lines +=
            "{\"prompt\": " + detail::json_quoted(some[k].prompt) +
            (some[k].against.empty() ? std::string()
                                     : ", \"against\": " + detail::json_quoted(some[k].against)) +
            ", \"answer\": " + detail::json_quoted((*texts)[k]) + "}\n";
      if (auto done = write(lines); !done) return done.error();
    }
    std::vector<std::string> texts;
    for (const teacher_request& one : all) texts.push_back(*known_.find(one));
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// The score from the record, or the teacher's. Errors: as above.
  result<double> score(std::string_view prompt, std::string_view text) LINNET_TRY {
    if (const double* const found = known_.find_score(prompt, text)) return *found;
    const auto nats = teacher_.score(prompt, text);
    if (!nats) return nats;
    if (auto done = write("{\"prompt\": " + detail::json_quoted(prompt) +
                          ", \"text\": " + detail::json_quoted(text) +
                          ", \"score\": " + detail::number_text(*nats) + "}\n");
        !done)
      return done.error();
    return nats;
  }
  LINNET_OR_OUT_OF_MEMORY(path_)

 private:
  answer_recorder(std::string path, teacher_ref teacher, recorded_answers known, line_file file,
                  index portion)
      : path_(std::move(path)),
        teacher_(teacher),
        known_(std::move(known)),
        file_(std::move(file)),
        portion_(portion) {}

  /// Writes lines in one piece, then knows them.
  result<void> write(std::string_view lines) {
    if (torn_)
      return detail::failure(errc::io, path_, "", "a record that was opened anew",
                             "one that could not be written");
    // Nothing is written that could not be read again.
    if (auto checked = recorded_answers::parse(lines, path_); !checked) return checked.error();
    auto done = file_.write(lines);
    if (done) done = file_.sync();
    torn_ = !done;
    return done ? known_.add_lines(lines) : done;
  }

  std::string path_;
  teacher_ref teacher_;
  recorded_answers known_;
  line_file file_;
  index portion_;
  bool torn_ = false;
};

/// Writes training items as JSON lines {"prompt", "target", "weight"}; `path` never holds a part of
/// them. Errors: errc::io; errc::invalid for an item that is not UTF-8 or has no finite weight.
inline result<void> write_training_items(const std::string& path,
                                         std::span<const training_item> items) LINNET_TRY {
  std::string all;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const training_item& one = items[i];
    if (!detail::is_utf8(one.prompt) || !detail::is_utf8(one.target) || !is_finite(one.weight))
      return detail::failure(errc::invalid, path, "item " + std::to_string(i),
                             "texts in UTF-8 and a finite weight", "others");
    all += "{\"prompt\": " + detail::json_quoted(one.prompt) +
           ", \"target\": " + detail::json_quoted(one.target) +
           ", \"weight\": " + detail::number_text(one.weight) + "}\n";
  }
  return write_file(path, std::as_bytes(std::span(all)));
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Reads what write_training_items() wrote. Errors: errc::io, and those of parse_json_lines();
/// errc::malformed for a weight that is no number of at least 0.
inline result<std::vector<training_item>> read_training_items(const std::string& path) LINNET_TRY {
  const auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  const auto rows = parse_json_lines({reinterpret_cast<const char*>(bytes->data()), bytes->size()},
                                     {"prompt", "target", "weight"}, path);
  if (!rows) return rows.error();
  std::vector<training_item> items;
  for (index i = 0; i < rows->rows(); ++i) {
    const std::string_view weight = rows->at(i, 2);
    training_item one{std::string(rows->at(i, 0)), std::string(rows->at(i, 1))};
    const auto [end, problem] =
        detail::read_real(weight.data(), weight.data() + weight.size(), one.weight);
    if (end != weight.data() + weight.size() || problem != std::errc() || !(one.weight >= 0))
      return rows->wrong(i, "weight", "a number of at least 0", weight);
    items.push_back(std::move(one));
  }
  return items;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
