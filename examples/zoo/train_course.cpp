// SPDX-License-Identifier: MIT
#include "train_course.hpp"

#include "support.hpp"

#if __has_include(<xxhash.h>)

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>
#include <vector>

#include "support/training.hpp"
#include "train_ranks.hpp"

namespace zoo {

ln::schedule schedule_of(const train_options& o) {
  static constexpr std::string_view known[] = {"cosine", "constant", "inverse_sqrt",
                                               "warmup_stable_decay"};
  check_name("schedule", o.schedule, known);
  const auto warm_up = std::lround(o.warm_up * static_cast<double>(o.steps));
  if (o.schedule == "constant") return ln::schedule::constant(o.rate);
  if (o.schedule == "cosine")
    return ln::schedule::cosine(o.rate, warm_up, o.steps + 1, o.rate * o.last_rate);
  if (o.schedule == "warmup_stable_decay")  // the last fifth falls
    return ln::schedule::warmup_stable_decay(o.rate, warm_up, o.steps + 1,
                                             std::min(o.steps / 5, o.steps - warm_up),
                                             o.rate * o.last_rate);
  return ln::schedule::inverse_sqrt_linear(
      std::max(warm_up, 1L), o.rate * std::sqrt(static_cast<double>(std::max(warm_up, 1L))));
}

ln::distillation_options lesson_of(const train_options& o) {
  static constexpr std::string_view known[] = {"cross_entropy", "kl", "reverse_kl", "jsd",
                                               "total_variation"};  // as ln::divergence
  check_name("divergence", o.divergence, known);
  ln::distillation_options made{.alpha = o.alpha, .temperature = o.temperature};
  made.divergence = static_cast<ln::divergence>(
      std::find(std::begin(known), std::end(known), o.divergence) - std::begin(known));
  made.beta = o.beta;
  return made;
}

training_course::training_course(const course_parts& of, training_record& record, stage which)
    : of_(of), record_(record), stage_(which) {
  const train_options& o = of.options;
  const training_plan plan{.batch = o.batch,
                           .source = of.from.source(),
                           .target = of.from.target(),
                           .rate = schedule_of(o),
                           .decay = o.decay,
                           .clip = o.clip,
                           .dropout = o.dropout,
                           .seed = o.seed,
                           .threads = o.threads,
                           .weights = of.weights,
                           .lesson = lesson_of(o),
                           .match = o.match,
                           .match_weight = o.match_weight,
                           .filters = filters_of(o),
                           .adapter = {.alpha = o.lora_alpha, .dropout = o.lora_dropout},
                           .parts = o.parts};
  model_ = which == stage::model ? of.code.train(plan) : of.code.prepare(plan);
  record_.tokens_per_step = o.batch * o.accumulate * (of.from.source() + of.from.target());
  record_.bytes_per_label = of.from.bytes_per_label;
}

bool training_course::run(double deadline) {
  const train_options& o = of_.options;
  const double start = now();
  support::run_record r{.steps = o.steps, .batch = o.batch, .length = o.length};
  ln::index begun = -1;
  progress bar;
  const auto step = [&](ln::index number) {
    if (begun < 0 && number > 0) say("going on from step {}\n", grouped(number));
    if (begun < 0) begun = number;
    const double nats = model_->step(o.accumulate, [&](ln::index part) {
      return of_.from.batch(static_cast<std::uint64_t>((number * o.accumulate + part) * o.batch));
    });
    const ln::index done = number + 1;
    if (here.first() && (bar.due() || done == o.steps)) {
      const double taken = now() - start, per_step = taken / static_cast<double>(done - begun);
      bar.show(
          static_cast<double>(done) / static_cast<double>(o.steps),
          per_step * static_cast<double>(o.steps - done),
          {{stage_ == stage::filters ? "filters" : record_.model.substr(0, record_.model.find(':')),
            fmt::format(
                "{:.3f} {}, held out {:.3f}  {} tokens/s",
                nats / std::log(2) / record_.bytes_per_label, record_.unit(),
                r.points > 0 ? r.curve().back().second : 0.0,
                grouped(std::lround(static_cast<double>(record_.tokens_per_step) / per_step)))}});
    }
    return nats;
  };
  const auto look = [&](ln::index number, support::run_record& to) {
    to.look(number, [&] { return examine(checked_examples); });
  };
  const std::string base = o.out + (stage_ == stage::model ? "/training" : "/filters");
  const bool over = support::take_steps(base, *model_, r, deadline, step, look,
                                        {o.save_every, true, here.first()});
  record_.steps = model_->steps();
  record_.seconds = r.seconds;
  record_.held_out = r.curve();
  return over;
}

void training_course::save(ln::index examples_of_each) {
  const std::string weights = of_.options.out + "/model.safetensors";
  if (here.first()) model_->save(weights);
  text_score sum;
  for (std::size_t g = 0; g < of_.text.groups.size(); ++g) {
    const text_score one = of_.from.held_out(*model_, g, examples_of_each);
    record_.by_text.emplace_back(of_.text.groups[g].name, one.bits());
    sum += one;
  }
  record_.held_out.emplace_back(static_cast<double>(record_.steps), sum.bits());
  model_.reset();
  of_.code.meet();  // from here on the others only wait for the first
  if (here.first()) of_.model.embeds() ? fill_gaps(weights) : write_sample(weights);
}

double training_course::examine(ln::index most) {
  text_score sum;
  for (std::size_t g = 0; g < of_.text.groups.size(); ++g)
    sum += of_.from.held_out(*model_, g, most);
  if (!ln::is_finite(sum.bits())) throw failure(record_.model + " diverged: try a lower --rate");
  return sum.bits();
}

void training_course::write_sample(const std::string& weights) {
  const tokenizing& by = of_.by;
  const std::vector<ln::token>& prompt = of_.from.prompt;
  const bool encodes = of_.from.source() > 0;
  const ln::index room = encodes ? 160 : std::max<ln::index>(160, std::ssize(prompt) + 80),
                  most = std::min(of_.from.target(), room),
                  written = encodes ? most : most - std::ssize(prompt);
  const auto model = of_.code.open(
      weights,
      {.source = encodes ? std::ssize(prompt) : 0, .target = most, .threads = of_.options.threads});
  ln::token previous = -1;
  const auto text_of = [&](ln::token id) { return by.decode(std::exchange(previous, id), id); };
  for (const ln::token id : prompt)
    record_.prompt += by.t5.is_sentinel(id) ? "\xe2\x80\xa6" : text_of(id);
  if (record_.denoises) previous = -1;
  generate(*model, prompt, written, {.temperature = 0.8, .top_p = 0.95, .seed = of_.options.seed},
           [&](ln::token id) {
             if (std::find(by.stops.begin(), by.stops.end(), id) != by.stops.end()) return false;
             record_.sample += by.t5.is_sentinel(id) ? " \xe2\x80\xa6 " : text_of(id);
             return true;
           });
}

void training_course::fill_gaps(const std::string& weights) {
  const any_batch given = of_.from.first_held_out();
  const auto& row = std::get<ln::encoder_batch>(given);
  const auto best =
      of_.code.open_encoder(weights, {.target = row.length, .threads = of_.options.threads})
          ->likeliest(row);
  ln::token previous = -1;
  const auto is_text = [&](ln::token id) {
    return id < of_.by.vocabulary && !of_.plan.marks.special(id);
  };
  const auto text_of = [&](ln::token id) {
    return is_text(id) ? of_.by.decode(previous, id) : std::string();
  };
  for (ln::index i = 0; i < row.length; ++i) {
    const bool gap = row.labels[i] != ln::ignored;
    const ln::token id = gap ? row.labels[i] : row.tokens[i];
    if (gap) record_.sample += " \xe2\x80\xa6 " + text_of(best[static_cast<std::size_t>(i)]);
    record_.prompt += gap ? "\xe2\x80\xa6" : text_of(id);
    previous = is_text(id) ? id : ln::token{-1};
  }
}

}  // namespace zoo

#endif
