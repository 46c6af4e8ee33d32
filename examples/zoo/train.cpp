// SPDX-License-Identifier: MIT
// zoo train: one byte-level model on one text, saved for zoo generate.

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "commands.hpp"
#include "course.hpp"
#include "support.hpp"
#include "support/ranks.hpp"

namespace zoo {

namespace {

/// Where the training to `out` is kept while it lasts; nowhere if `out` is a device or a pipe.
std::string checkpoint_of(const std::string& out) {
  std::error_code ignored;
  const bool other =
      std::filesystem::exists(out, ignored) && !std::filesystem::is_regular_file(out, ignored);
  return out.empty() || other || !has_checkpoints ? "" : out + ".ckpt";
}

/// What a checkpoint can leave beside its name.
constexpr const char* checkpoint_ends[] = {"", ".previous", ".partial", ".damaged"};

void remove_checkpoint(const std::string& checkpoint) {
  std::error_code ignored;
  for (const char* const end : checkpoint_ends) std::filesystem::remove(checkpoint + end, ignored);
}

}  // namespace

void train(const train_options& o) {
  if (!o.texts.empty()) return train_folder(o);
  if (const process_place here = this_process(); !here.alone()) {
    be_quiet(!here.first());
    throw failure("several processes train with --text FILE --out DIR, not with TEXTFILE");
  }
  const byte_model kind = parse_byte_model(o.model);
  const variant ffn = parse_trainable(o.ffn);
  check_writable(o.out, {o.text});
  const std::string checkpoint = checkpoint_of(o.out);
  if (!checkpoint.empty())
    for (const char* const end : checkpoint_ends) check_writable(checkpoint + end, {o.text});
  if (o.resume && !has_checkpoints)
    throw failure("--resume: this zoo was built without xxhash.h, which checkpoints need");
  if (!o.resume && !checkpoint.empty() && std::filesystem::exists(checkpoint))
    throw failure(checkpoint +
                  ": a training that was ended; go on with it by --resume, or remove it");
  const corpus text = read_corpus(o.text);

  std::vector<student> students(1);
  student& s = students.front();
  s.name = o.model;
  s.model = make_learner(kind, ffn);
  const counts cost = s.model->cost(form::trained);
  say("{} with feed-forward {}: {} parameters; {} bytes to learn from\n", o.model, o.ffn,
      grouped(cost.parameters), grouped(std::ssize(text.training)));
  const stop_requests stops;
  const course_record record =
      train_together(students, text, o, {checkpoint, o.resume, o.save_every});
  // All is saved before a word is printed: that may fail.
  if (!o.out.empty()) try {
      s.model->save(o.out, o.model, o.ffn);
    } catch (const failure& e) {
      if (checkpoint.empty()) throw;
      throw failure(
          fmt::format("{}; {} holds the training: once the file can be written, give --resume",
                      e.what(), checkpoint));
    }
  if (record.signal == 0 && !checkpoint.empty()) remove_checkpoint(checkpoint);
  put("{} steps in {:.1f} s, {} tokens/s, held out {:.4f} bits per byte\n", grouped(record.steps),
      record.seconds, grouped(std::lround(s.speed())), s.held_out.back().bits);
  if (!o.out.empty()) put("saved {}\n", o.out);
  if (record.signal == 0) return;
  flush_output();
  throw interruption(
      record.signal,
      fmt::format("stopped by a signal ({}) after step {}{}", strsignal(record.signal),
                  grouped(record.steps),
                  checkpoint.empty() ? "" : "; --resume goes on from " + checkpoint));
}

}  // namespace zoo
