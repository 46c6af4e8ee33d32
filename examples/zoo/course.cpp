// SPDX-License-Identifier: MIT
#include "course.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <linnet/core/random.hpp>
#include <linnet/file/file.hpp>
#include <linnet/formats/safetensors.hpp>
#include <numbers>

#include "support.hpp"

namespace zoo {

namespace {

constexpr ln::index shortest_text = 20'000;  // bytes
constexpr ln::index stretches = 10;
constexpr ln::index checks = 24;  // of the held-out loss during training
constexpr ln::index examples_per_check = 32;
constexpr double warm_up = 0.05, last_rate = 0.05;

/// The learning rate, of its highest, after this fraction of the training.
double rate_at(double progress) {
  if (progress < warm_up) return std::max(progress, 0.001) / warm_up;
  const double x = (progress - warm_up) / (1 - warm_up);
  return last_rate + (1 - last_rate) * 0.5 * (1 + std::cos(std::numbers::pi * std::min(x, 1.0)));
}

/// Draws the examples of each step; every student gets the same.
class example_source {
 public:
  example_source(std::string_view text, const course_options& o)
      : text_(text), batch_(o.batch), random_(ln::seed{o.seed}, ln::stream_of("examples")) {}

  example_batch next(const reading& how) {
    const auto places = static_cast<std::uint64_t>(std::ssize(text_) - how.span() + 1);
    std::vector<ln::index> starts(static_cast<std::size_t>(batch_));
    for (ln::index& start : starts) {
      const std::uint64_t high = random_.bits(), low = random_.bits();
      start = static_cast<ln::index>((high << 32 | low) % places);
    }
    return batch_at(how, text_, starts);
  }
  /// Goes on behind the first `steps` batches.
  void skip(ln::index steps) {
    for (ln::index i = 0; i < 2 * batch_ * steps; ++i) (void)random_.bits();
  }

 private:
  std::string_view text_;
  ln::index batch_;
  ln::random_stream random_;
};

/// What a checkpoint holds besides the trainer.
struct course_state {
  // Of the run, which must be the same.
  ln::index all_steps = 0, batch = 0;
  double rate = 0;
  std::uint64_t seed = 0, text = 0;
  // Where it stands.
  ln::index steps = 0, checked = 0;
  double seconds = 0;

  static course_state of(const course_options& o, const corpus& text) {
    return {.all_steps = o.steps,
            .batch = o.batch,
            .rate = o.rate,
            .seed = o.seed,
            .text = ln::stream_of(text.training)};
  }
  bool continues(const course_state& s) const {
    return all_steps == s.all_steps && batch == s.batch && rate == s.rate && seed == s.seed &&
           text == s.text && steps >= 0;
  }
};

/// The checkpoint of a training, if it has one.
class keeper {
 public:
  keeper(const course_keeping& how, learner& model, course_state& state)
      : how_(how), model_(model), state_(state) {
    if (how.checkpoint.empty()) return;
    const course_state settings = state;
    if (how.resume &&
        model.load_checkpoint(how.checkpoint, std::as_writable_bytes(std::span(&state, 1)))) {
      if (!state.continues(settings))
        throw failure(how.checkpoint +
                      ": is of another text or other options; give those it was begun with, or "
                      "another --out");
      say("going on from step {}\n", grouped(state.steps));
    } else {
      save();
    }
    saved_ = now();
  }
  /// Saves when it is time to. A disk that is full for a while does not end the training.
  void look(bool at_once) {
    if (how_.checkpoint.empty() || (!at_once && now() - saved_ < how_.seconds)) return;
    try {
      save();
    } catch (const failure& e) {
      say("{}; the checkpoint before stays\n", e.what());
    }
    saved_ = now();
  }

 private:
  const course_keeping& how_;
  learner& model_;
  course_state& state_;
  double saved_ = 0;

  void save() { model_.save_checkpoint(how_.checkpoint, std::as_bytes(std::span(&state_, 1))); }
};

/// The mean of the last few losses, which is what a progress bar should show.
double recent_bits(const student& s) {
  const std::size_t n = std::min<std::size_t>(s.losses.size(), 20);
  double sum = 0;
  for (std::size_t i = s.losses.size() - n; i < s.losses.size(); ++i) sum += s.losses[i].bits;
  return n > 0 ? sum / static_cast<double>(n) : 0;
}

}  // namespace

corpus read_corpus(const std::string& path) {
  const ln::file_bytes file = take(ln::read_file(path));
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (std::ssize(text) < shortest_text)
    throw failure(fmt::format("{}: expected at least {} bytes of text to learn from, got {}", path,
                              grouped(shortest_text), grouped(std::ssize(text))));
  corpus c{.name = path.substr(path.rfind('/') + 1), .training = {}, .held_out = {}};
  for (ln::index i = 0; i < stretches; ++i) {
    const auto at = [&](ln::index tenth) {
      return static_cast<std::size_t>(std::ssize(text) * tenth / (stretches * 10));
    };
    const std::size_t first = at(10 * i), cut = at(10 * i + 9), last = at(10 * i + 10);
    c.training += text.substr(first, cut - first);
    c.held_out += text.substr(cut, last - cut);
  }
  return c;
}

example_batch batch_at(const reading& how, std::string_view text,
                       const std::vector<ln::index>& starts) {
  constexpr ln::token end_of_source = 1;
  example_batch l{.batch = std::ssize(starts), .inputs = {}, .labels = {}};
  for (const ln::index start : starts) {
    const auto id = [&](ln::index i) {
      return static_cast<unsigned char>(text[static_cast<std::size_t>(start + i)]) + how.offset;
    };
    const ln::index read = how.encodes ? how.source - 1 : how.target;
    for (ln::index i = 0; i < read; ++i) l.inputs.push_back(id(i));
    if (how.encodes) l.inputs.push_back(end_of_source);
    const ln::index first = how.encodes ? read : 1;
    for (ln::index i = 0; i < how.target; ++i) l.labels.push_back(id(first + i));
  }
  return l;
}

std::vector<example_batch> spread_batches(const reading& how, std::string_view text, ln::index most,
                                          ln::index batch) {
  const ln::index room = std::ssize(text) - how.span();
  const ln::index n = std::clamp<ln::index>(room / how.target + 1, 1, most);
  std::vector<example_batch> batches;
  std::vector<ln::index> starts;
  for (ln::index i = 0; i < n; ++i) {
    starts.push_back(n > 1 ? room * i / (n - 1) : 0);
    if (std::ssize(starts) == batch || i + 1 == n) {
      batches.push_back(batch_at(how, text, starts));
      starts.clear();
    }
  }
  return batches;
}

double byte_entropy(std::string_view text) {
  std::array<double, 256> count{};
  for (const char c : text) ++count[static_cast<unsigned char>(c)];
  double bits = 0;
  const auto n = static_cast<double>(text.size());
  for (const double k : count)
    if (k > 0) bits -= k / n * std::log2(k / n);
  return bits;
}

double student::speed() const {
  if (losses.empty() || seconds <= 0) return 0;
  return static_cast<double>(tokens) / seconds;
}

course_record train_together(std::vector<student>& students, const corpus& text,
                             const course_options& o, const course_keeping& keep) {
  const reading how = students.front().model->how_to_read();
  if (std::ssize(text.held_out) < how.span())
    throw failure(text.name + ": too short to hold anything out");
  for (student& s : students) s.model->begin(o.batch, o.threads, o.seed);

  course_state at = course_state::of(o, text);
  keeper kept(keep, *students.front().model, at);
  example_source examples(text.training, o);
  examples.skip(at.steps);
  const auto exam = spread_batches(how, text.held_out, examples_per_check, o.batch);
  const double budget = o.minutes * 60, start = now() - at.seconds;
  int signal = 0;
  progress bar;
  const auto show = [&](double done, double left) {
    std::vector<progress_row> rows;
    for (const student& s : students)
      rows.push_back({s.name, fmt::format("{:.3f} bits/byte  {:>7} tokens/s", recent_bits(s),
                                          grouped(std::lround(s.speed())))});
    bar.show(done, left, rows);
  };

  for (;;) {
    at.seconds = now() - start;
    signal = stop_requests::received();
    const double done = o.steps > 0 ? static_cast<double>(at.steps) / static_cast<double>(o.steps)
                                    : at.seconds / budget;
    const bool over = done >= 1 && at.steps > 0;
    if (over || signal != 0 || static_cast<ln::index>(done * checks) >= at.checked) {
      for (student& s : students) {
        s.held_out.push_back({at.steps, bits_of(*s.model, exam)});
        if (!ln::is_finite(s.held_out.back().bits))
          throw failure(s.name + " diverged: try a lower --rate");
      }
      if (signal == 0) ++at.checked;
    }
    kept.look(over || signal != 0);
    if (at.steps > 0 && (over || bar.due()))
      show(std::min(done, 1.0), over ? 0 : at.seconds * (1 - done) / std::max(done, 1e-9));
    if (over || signal != 0) break;

    const example_batch l = examples.next(how);
    ++at.steps;
    for (student& s : students) {
      const double before = now();
      const double nats = s.model->step(l, o.rate * rate_at(done));
      s.seconds += now() - before;
      s.tokens += how.tokens() * o.batch;
      s.losses.push_back({at.steps, ln::bits_per_byte(nats, 1)});
    }
  }
  for (student& s : students) s.model->finish();
  return {at.steps, at.seconds, signal};
}

byte_model parse_byte_model(std::string_view name) {
  check_name("model", name, byte_model_names);
  return name == name_of(byte_model::t5) ? byte_model::t5 : byte_model::decoder;
}

variant parse_trainable(std::string_view name) {
  std::vector<std::string_view> names;
  for (const variant v : trainable_variants) names.push_back(name_of(v));
  check_name("feed-forward", name, names);
  return *std::find_if(trainable_variants.begin(), trainable_variants.end(),
                       [&](variant v) { return name_of(v) == name; });
}

std::unique_ptr<learner> load_learner(const std::string& path, std::string_view model) {
  constexpr std::string_view remedy =
      "without --model, a preset of zoo list, it has to be a checkpoint of zoo train";
  auto read = ln::read_safetensors(path);
  if (!read && model.empty()) throw failure(fmt::format("{}; {}", read.error().message(), remedy));
  const auto file = take(std::move(read));
  const auto note = [&](const char* key) {
    const auto at = file.metadata().find(key);
    if (at == file.metadata().end())
      throw failure(fmt::format("{}: does not say which model it is of; {}", path, remedy));
    return at->second;
  };
  const std::string name = note("zoo.model");
  if (!model.empty() && name != model)
    throw failure(fmt::format("{}: is a {}, not a {}", path, name, model));
  auto made = make_learner(parse_byte_model(name), parse_trainable(note("zoo.ffn")));
  made->load(path);
  return made;
}

}  // namespace zoo
