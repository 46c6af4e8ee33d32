// SPDX-License-Identifier: MIT
#pragma once
// Trainings that can be interrupted: checkpoints, a log, a deadline.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <linnet/train/metrics_log.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "checkpoints.hpp"
#include "console.hpp"
#include "progress.hpp"

namespace support {

/// Points of a curve of the held-out loss besides the start.
inline constexpr ln::index curve_points = 20;

/// What a checkpoint keeps besides the trainer.
struct run_record {
  ln::index steps = 0, batch = 0, length = 0;  ///< settings, which must be the same
  double rate = 0;                             ///< likewise: the highest learning rate
  std::uint64_t data = 0, merges = 0;  ///< likewise: marks of what is read, see marks.hpp; 0 where
                                       ///< it has none, or somebody else compares it
  double seconds = 0;                  ///< of processor time, of training
  ln::index points = 0;
  std::array<std::array<double, 2>, curve_points + 1> held_out{};  ///< step, bits per byte

  /// The first setting that differs from those of `now`, such as "rate 0.002, not 0.001", or "".
  std::string unlike(const run_record& now) const {
    for (const auto& [name, was, is] : {std::tuple("steps", steps, now.steps),
                                        {"batch", batch, now.batch},
                                        {"length", length, now.length}})
      if (was != is) return fmt::format("{} {}, not {}", name, was, is);
    if (rate != now.rate) return fmt::format("rate {}, not {}", rate, now.rate);
    for (const auto& [name, was, is] :
         {std::tuple("data", data, now.data), {"merges", merges, now.merges}})
      if (was != is) return fmt::format("{} of mark {:016x}, not {:016x}", name, was, is);
    return {};
  }
  /// Whether it can have been written by a training.
  bool sound() const { return points >= 0 && points <= curve_points + 1; }
  /// Adds a point of the curve where one is due before `step`; bits() finds it.
  template <class Bits>
  void look(ln::index step, Bits&& bits) {
    if (step != steps && step * curve_points % steps >= curve_points) return;
    if (points == std::ssize(held_out)) return;
    held_out[static_cast<std::size_t>(points++)] = {static_cast<double>(step), bits()};
  }
  std::vector<std::pair<double, double>> curve() const {
    std::vector<std::pair<double, double>> all;
    for (ln::index i = 0; i < points; ++i) {
      const auto& [step, bits] = held_out[static_cast<std::size_t>(i)];
      all.emplace_back(step, bits);
    }
    return all;
  }
};

/// How a training is kept while it lasts.
struct run_keeping {
  double checkpoint_seconds = 30;  ///< from one checkpoint to the next
  bool logs_seconds = false;       ///< the log has a column of them, so that no two are the same
  bool logs = true;                ///< false for a process whose log another one writes
};

/// Takes the steps of a training from where it stands, with a checkpoint BASE.ckpt now and then and
/// a log BASE.jsonl; false if `deadline` (see now()) or a signal (see stop_requests) put it off,
/// after one step at least. `model` has save_checkpoint(path, bytes), load_checkpoint(path, bytes),
/// steps() and norm(); where several processes train it together, also any(bool), whether one of
/// them says so. `take_step(step)` takes a step and returns its loss; `look(step, record)` is
/// called before each step and after the last.
template <class Model, class Step, class Look>
bool take_steps(const std::string& base, Model& model, run_record& r, double deadline,
                Step&& take_step, Look&& look, const run_keeping& keep = {}) {
  constexpr ln::index log_lines = 1000, most_tries = 40;
  const std::string checkpoint = base + ".ckpt";
  const run_record settings = r;
  if (model.load_checkpoint(checkpoint, std::as_writable_bytes(std::span(&r, 1)))) {
    if (const std::string what = r.unlike(settings); !what.empty())
      throw failure(
          fmt::format("{}: its training was begun with {}; give the options it was begun with, or "
                      "another --out",
                      checkpoint, what));
    if (!r.sound()) throw failure(checkpoint + ": not a checkpoint of this study");
  }
  std::vector<std::string> columns{"nats", "norm"};
  if (keep.logs_seconds) columns.emplace_back("seconds");
  std::optional<ln::metrics_log> log;
  if (keep.logs) log.emplace(take(ln::metrics_log::open(base + ".jsonl", columns, model.steps())));
  if (log && !log->note().empty()) say("{}\n", log->note());
  const auto any = [&](bool own) {
    if constexpr (requires { model.any(own); })
      return model.any(own);
    else
      return own;
  };
  const auto save = [&] {
    if (log) take(log->sync());
    model.save_checkpoint(checkpoint, std::as_bytes(std::span(&r, 1)));
  };
  double saved = now();
  for (;;) {
    const ln::index step = model.steps();
    look(step, r);
    if (step == r.steps) {
      if (log) take(log->sync());
      return true;
    }
    const double start = processor_seconds();
    double nats = take_step(step);
    // In f16 a step is left out where a gradient overflows, and taken again with a smaller scale.
    for (ln::index tries = 1; tries < most_tries && ln::is_finite(nats) && model.steps() == step;
         ++tries)
      nats = take_step(step);
    r.seconds += processor_seconds() - start;
    const double end = now();
    if (!ln::is_finite(nats) || model.steps() == step)
      throw failure(fmt::format(
          "{}: the loss is not finite in step {}; begin again with a lower learning rate", base,
          step + 1));
    if (log && step % std::max<ln::index>(1, r.steps / log_lines) == 0) {
      const std::array figures{nats, model.norm(), r.seconds};
      take(log->write(model.steps(), std::span(figures).first(columns.size())));
    }
    if (any(end >= deadline || stop_requests::received() != 0) && model.steps() < r.steps) {
      save();
      return false;
    }
    if (any(end - saved >= keep.checkpoint_seconds)) {
      save();
      saved = end;
    }
  }
}

}  // namespace support
