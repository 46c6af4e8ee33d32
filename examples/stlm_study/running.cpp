// SPDX-License-Identifier: MIT
#include "running.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/data/window_stream.hpp>
#include <linnet/eval/evaluator.hpp>

#include "support/marks.hpp"
#include "support/training.hpp"

namespace study {

using support::outcome;

ln::index token_table::bytes_of(std::span<const ln::token> tokens) const {
  ln::index n = 0;
  for (const ln::token t : tokens) n += std::ssize((*this)[t]);
  return n;
}

namespace {

using windows = ln::window_stream<>;

/// All texts, each as often as it has tokens.
windows open_windows(const std::vector<std::vector<ln::token>>& texts, const scale& s,
                     std::uint64_t seed) {
  std::vector<ln::token_source> sources;
  std::vector<ln::index> sizes;
  for (const auto& text : texts) {
    sources.emplace_back(text, ln::t5_ids{});
    sizes.push_back(std::ssize(text));
  }
  auto mix = support::take(ln::mixture::open(ln::mixing_weights(sizes, 1), ln::seed{seed}));
  return support::take(
      windows::open(std::move(sources), std::move(mix), s.batch, s.length, ln::seed{seed}));
}

/// Nats and bytes of held-out windows.
struct score {
  double nats = 0;
  ln::index bytes = 0;

  double bits() const { return ln::bits_per_byte(nats, bytes); }
  void operator+=(const score& s) {
    nats += s.nats;
    bytes += s.bytes;
  }
};
/// Windows spread evenly over the held-out part of a text.
score examine(learner& m, const workshop& w, windows& held_out, ln::index text, ln::index most) {
  const ln::index all = held_out.epoch(text), batch = w.size.batch;
  const ln::index calls = (std::min(most, all) + batch - 1) / batch;
  score s;
  for (ln::index i = 0; i < calls; ++i) {
    const ln::index first = calls * batch >= all ? i * batch : i * all / calls;
    const ln::decoder_batch b = held_out.in_order(first, text);
    s.nats += m.nats(b);
    s.bytes += w.table.bytes_of(std::span(b.labels, static_cast<std::size_t>(b.batch * b.length)));
  }
  return s;
}
/// All texts together.
double examine_all(learner& m, const workshop& w, windows& held_out) {
  score sum;
  for (ln::index k = 0; k < std::ssize(w.names); ++k)
    sum += examine(m, w, held_out, k, w.size.checked);
  return sum.bits();
}

training_plan plan_of(const job& j, const scale& s, ln::index steps) {
  const auto warm_up = std::lround(s.warm_up * static_cast<double>(steps));
  return {.batch = s.batch,
          .length = s.length,
          .rate = ln::schedule::cosine(s.rate, warm_up, steps + 1, s.floor),
          .dropout = s.dropout,
          .seed = j.seed};
}

/// Time of a training step, alone on the machine.
outcome measure_speed(const job& j, const workshop& w) {
  const auto m = j.what->make(w.size.full, w.table);
  m->begin(plan_of(j, w.size, 1000));
  auto examples = open_windows(w.training, w.size, 0);
  std::vector<double> times;
  for (int i = -1; i < w.size.timings; ++i) {
    const double start = support::now();
    m->step(w.size.parts, [&](ln::index part) {
      return examples.batch(static_cast<std::uint64_t>(part * w.size.batch));
    });
    if (i >= 0) times.push_back(support::now() - start);
  }
  const ln::index tokens = w.size.batch * w.size.parts * w.size.length;
  outcome o{.job = j.name, .figures = {}, .held_out = {}};
  o.figures["tokens/s"] = static_cast<double>(tokens) / support::median(times);
  return o;
}

/// What a model writes after the first words of a held-out text of each folder.
void write_samples(learner& m, const workshop& w, outcome& o) {
  constexpr ln::index most = 64;
  const ln::index prompt = std::min(w.size.length / 4, ln::index{24});
  std::string folder = "none";
  for (std::size_t k = 0; k < w.names.size(); ++k) {
    const std::string here = w.names[k].substr(0, w.names[k].rfind('/') + 1);
    if (here == std::exchange(folder, here)) continue;
    const auto words = std::span(w.held_out[k]).first(static_cast<std::size_t>(prompt));
    std::string text;
    for (const ln::token t : words) text += w.table[t];
    text += " | " + m.write(words, std::min(most, w.size.length - prompt));
    o.texts[w.names[k]] = support::printable(text);
  }
}

std::optional<outcome> train(const job& j, const workshop& w) {
  const scale& s = w.size;
  const auto m = j.what->make(s.full, w.table);
  const ln::index forward = m->cost(s.batch, s.length).forward;
  const ln::index steps = equal_steps(
      s.steps, versions()[0].make(s.full, w.table)->cost(s.batch, s.length).forward, forward);
  m->begin(plan_of(j, s, steps));
  auto examples = open_windows(w.training, s, j.seed), held_out = open_windows(w.held_out, s, 0);
  support::run_record r{.steps = steps,
                        .batch = s.batch * s.parts,
                        .length = s.length,
                        .rate = s.rate,
                        .data = w.data,
                        .merges = w.merges};
  const auto step = [&](ln::index number) {
    return m->step(s.parts, [&](ln::index part) {
      return examples.batch(static_cast<std::uint64_t>((number * s.parts + part) * s.batch));
    });
  };
  const auto look = [&](ln::index number, support::run_record& to) {
    to.look(number, [&] { return examine_all(*m, w, held_out); });
  };
  if (!support::take_steps(w.runs + "/" + j.name, *m, r, w.deadline, step, look))
    return std::nullopt;

  outcome o{.job = j.name, .figures = {}, .held_out = r.curve()};
  o.figures["seconds"] = r.seconds;
  score all;
  for (std::size_t k = 0; k < w.names.size(); ++k) {
    const score one = examine(*m, w, held_out, static_cast<ln::index>(k), s.examined);
    all += one;
    o.figures["bits/" + w.names[k]] = one.bits();
  }
  o.figures["bits"] = all.bits();
  if (j.seed == 1) write_samples(*m, w, o);
  m->save(w.runs + "/" + j.name + ".safetensors");
  return o;
}

}  // namespace

workshop open_workshop(const scale& s, const std::string& folder, const std::string& merges,
                       const std::string& runs, double deadline) {
  const support::texts read = support::read_texts(folder);
  std::vector<std::span<const std::string_view>> groups;
  for (const auto* const part : {&read.training, &read.held_out})
    for (std::size_t k = 0; k < read.names.size(); ++k)
      groups.push_back(std::span(*part).subspan(k * read.stretches, read.stretches));
  tokenized all = tokenize(read.training, shape_of(s).vocabulary, merges, groups);
  const auto middle = all.texts.begin() + std::ssize(read.names);
  return {.size = s,
          .names = read.names,
          .table = std::move(all.table),
          .training = {std::move_iterator(all.texts.begin()), std::move_iterator(middle)},
          .held_out = {std::move_iterator(middle), std::move_iterator(all.texts.end())},
          .runs = runs,
          .deadline = deadline,
          .data = read.mark(),
          .merges = merges.empty() ? 0 : support::mark_of(support::file_text(merges))};
}

std::optional<outcome> run_job(const job& j, const workshop& w) {
  if (j.seed == 0) return measure_speed(j, w);
  return train(j, w);
}

}  // namespace study
