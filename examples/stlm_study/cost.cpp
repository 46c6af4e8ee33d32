// SPDX-License-Identifier: MIT
#include "cost.hpp"

#include <fmt/format.h>

#include <linnet/core/random.hpp>

#include "support/console.hpp"
#include "support/progress.hpp"
#include "support/results.hpp"

namespace study {

void print_cost(const version& v, const cost_options& o) {
  const scale& paper = scales.back();
  token_table table;  // of the right size; speed does not depend on what tokens mean
  for (ln::index i = 0; i < table_1.vocabulary; ++i)
    table.pieces.push_back(fmt::format(" {}", i % 997));
  const auto m = v.make(true, table);
  const costs c = m->cost(o.batch, o.length);
  m->begin({.batch = o.batch,
            .length = o.length,
            .rate = ln::schedule::constant(paper.rate),
            .dropout = paper.dropout,
            .seed = 1,
            .threads = o.threads});
  ln::random_stream random(ln::seed{1});
  std::vector<ln::token> tokens(static_cast<std::size_t>(o.batch * o.length + 1));
  for (ln::token& t : tokens)
    t = static_cast<ln::token>(random.below(static_cast<std::uint32_t>(table_1.vocabulary)));
  const ln::decoder_batch batch{tokens.data(), tokens.data() + 1, o.batch, o.length};

  std::vector<double> gradients, updates;
  for (int i = -1; i < o.repetitions; ++i) {
    const double start = support::now();
    m->accumulate(batch);
    const double middle = support::now();
    m->update();
    if (i < 0) continue;
    gradients.push_back(middle - start);
    updates.push_back(support::now() - middle);
  }
  // Gradients grow with the tokens, updates with the steps.
  const double gradient = support::median(gradients), update = support::median(updates);
  const auto per_step = static_cast<double>(paper.batch * paper.parts * paper.length),
             at_once = static_cast<double>(o.batch * o.length);
  const double step = gradient * per_step / at_once + update;
  const double total = static_cast<double>(paper.steps) * per_step;
  const double flops = 3 * static_cast<double>(c.forward) / at_once;
  support::put(
      "{}: {} parameters, {:.0f} MFLOPs a token in training\n"
      "gradients of {} x {} tokens: {:.2f} s, {} tokens/s, {:.1f} GFLOP/s ({} threads)\n"
      "an update of the weights: {:.2f} s\n"
      "a step of {} x {} windows: {:.0f} s, {} tokens/s\n"
      "memory: {} with {} windows at a time, {} with {}\n"
      "the whole run, {} steps, {:.2f}G tokens: {:.0f} days\n",
      v.label, support::grouped(c.parameters), flops / 1e6, o.batch, o.length, gradient,
      support::grouped(static_cast<ln::index>(at_once / gradient)),
      flops * at_once / gradient / 1e9, o.threads, update, paper.batch, paper.parts, step,
      support::grouped(static_cast<ln::index>(per_step / step)), support::human_bytes(c.memory),
      o.batch, support::human_bytes(m->cost(paper.batch, paper.length).memory), paper.batch,
      support::grouped(paper.steps), total / 1e9, static_cast<double>(paper.steps) * step / 86'400);
}

}  // namespace study
