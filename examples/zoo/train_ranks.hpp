// SPDX-License-Identifier: MIT
#pragma once
// Several processes that train together.

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <new>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "beginning.hpp"
#include "commands.hpp"
#include "support.hpp"
#include "support/ranks.hpp"
#include "tokenizing.hpp"

namespace zoo {

/// The place of this process.
inline const process_place here = this_process();

/// In how many parts several processes share a batch; refuses what they cannot train.
void set_parts(train_options& o, const beginning* begun);

/// Refuses processes that do not train the same; they wait for each other here.
void check_ranks(const module& code, const nlohmann::ordered_json& described, const tokenizing& by);

/// Runs what this process does; the first one speaks for all, but each says why it alone ends.
template <class Work>
void as_rank(Work&& work) {
  be_quiet(!here.first());
  try {
    work();
  } catch (const interruption&) {
    throw;
  } catch (const std::exception& e) {
    if (here.first()) throw;
    // Most are those of all ranks: mpirun ends this one while the first says so.
    std::this_thread::sleep_for(std::chrono::seconds(2));
    be_quiet(false);
    const bool memory = dynamic_cast<const std::bad_alloc*>(&e) != nullptr;
    throw failure(fmt::format("rank {}: {}", here.rank, memory ? "not enough memory" : e.what()));
  }
}

}  // namespace zoo
